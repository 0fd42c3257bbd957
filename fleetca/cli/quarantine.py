"""`fleetca devices quarantine` and `release`: a device under suspicion, and back.

Hold and release are acts on single certificates, each through the same door (P2). Both commands are made of them, and of withdrawing tokens; each step
may be repeated, so what was cut off is finished by the same command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Certificate, DeviceId, Reason, Revocation
    from ca.signer.client import SignerClient

ROUNDS = 5
"""A renewal may come in between: so often it is looked again."""


@click.command(
    help="Put every certificate of the device ID on hold and withdraw its unused tokens: relying parties turn it away, and it neither renews nor enrols."
    " `fleetca devices release` takes that back."
)
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def quarantine(id_: str, settings: str, as_json: bool) -> None:
    from ca.errors import NotFound
    from ca.model import Reason, TokenWithdrawal
    from ca.rules import ids
    from ca.rules.renewal import revoked

    device = ids.device_id(id_)
    held: list[Revocation] = []
    with reach.signer(settings) as (_, signer):
        _known(signer, device)
        try:
            withdrawn = len(signer.revoke_tokens(TokenWithdrawal(signer.local, device)))
        except NotFound:
            withdrawn = 0  # none is outstanding
        for _ in range(ROUNDS):
            changed = _each(signer, device, Reason.certificateHold, lambda one: not revoked(one))
            held += changed
            if not changed:
                break
    _show(device, "held", held, as_json=as_json, withdrawn=withdrawn)
    output.note(f"{device} is in quarantine: it neither renews nor enrols. Back: fleetca devices release {device}")
    output.note(f"For good: fleetca revoke --device {device} --reason keyCompromise --confirm {device}")


@click.command(help="Release every certificate of the device ID that is on hold.")
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def release(id_: str, settings: str, as_json: bool) -> None:
    from ca.model import Reason
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        _known(signer, device)
        released = _each(
            signer,
            device,
            Reason.removeFromCRL,
            lambda one: one.revocation is not None and one.revocation.reason is Reason.certificateHold,
        )
    _show(device, "released", released, as_json=as_json)
    if not released:
        output.note(f"Nothing of {device} was on hold.")


def _known(signer: SignerClient, device: DeviceId) -> None:
    from ca.errors import NotFound

    if not signer.devices(device=device, limit=1)[0]:
        raise NotFound("device-unknown", f"There is no device {device}.", fix="List them: fleetca devices list")


def _each(signer: SignerClient, device: DeviceId, reason: Reason, wanted: Callable[[Certificate], bool]) -> list[Revocation]:
    """Change what is wanted of all certificates that have not ended."""
    from ca.model import CertificateQuery, CertificateState, RevokeRequest

    now, made, after = reach.now(), list[Any](), None
    while True:
        rows, after = signer.certificates(CertificateQuery(device=device, expires_after=now, limit=reach.PAGE, after=after))
        for one in rows:
            if one.state is CertificateState.issued and wanted(one):
                made += signer.revoke(RevokeRequest(signer.local, reason, target=one.ref))
        if after is None:
            return made


def _show(device: DeviceId, what: str, changes: list[Revocation], *, as_json: bool, **more: int) -> None:
    rows = [(str(one.ref), one.reason.name, output.iso(one.revoked_at)) for one in changes]
    document = {"device": device, what: [str(one.ref) for one in changes], **more}
    output.result(document, reach.table(("CERTIFICATE", "REASON", "SINCE"), rows) if rows else "", as_json=as_json)
