"""`fleetca revoke`: a certificate, or a whole device. There is no way back but from certificateHold."""

from __future__ import annotations

import sys

import click

from ca.model import Reason
from fleetca.cli import output, reach


@click.command(
    help="Revoke the certificate SERIAL (or ISSUER/SERIAL), the one in a file, or a whole device."
    " A device's name must be typed, or given with --confirm: all its certificates end, and it enrols and renews no more."
)
@click.argument("serial", required=False)
@output.settings_option
@click.option("--certificate", "file", metavar="FILE", help="Revoke the certificate in this file (PEM or DER).")
@click.option("--device", help="Revoke every certificate of this device, and the device.")
@click.option("--reason", type=click.Choice([reason.name for reason in Reason]), required=True, help="Why (RFC 5280, section 5.3.1).")
@click.option("--invalid-since", metavar="TIME", help="When the key was lost, where that is known (invalidityDate): 2026-11-22T06:43:00Z.")
@click.option("--query", multiple=True, metavar="KEY=VALUE", help="Every issued certificate for which all of these hold; see --plan.")
@click.option(
    "--list", "names", metavar="FILE", help="Every certificate that FILE names, as two persons approved: fleetca approvals request."
)
@click.option("--plan", is_flag=True, help="With --query: show what would be revoked, what it costs and who goes dark; revoke nothing.")
@click.option("--wave", type=click.IntRange(1), default=1000, show_default=True, help="With --query: so many, then a pause.")
@click.option("--pause", type=click.FloatRange(0), default=0.0, show_default=True, help="With --query: seconds between waves.")
@click.option("--issuer", help="The issuer of SERIAL; the deployment's own when absent.")
@click.option(
    "--confirm", metavar="NAME", help="The device's name once more, in place of the question; with --query the count that --plan showed."
)
@output.json_option
def revoke(
    serial: str | None,
    settings: str,
    file: str | None,
    device: str | None,
    reason: str,
    invalid_since: str | None,
    query: tuple[str, ...],
    names: str | None,
    plan: bool,
    wave: int,
    pause: float,
    issuer: str | None,
    confirm: str | None,
    as_json: bool,
) -> int:
    from ca.model import RevokeRequest
    from ca.rules import ids
    from enroll.rest.messages import render_revoked

    since = None if invalid_since is None else reach.moment(invalid_since, reach.now())
    if names is not None:
        from fleetca.cli import revoke_query

        if query or serial or file or device:
            raise click.UsageError("--list names all certificates.")
        return revoke_query.run_list(settings, names, reason=reason, since=since, as_json=as_json)
    if query:
        from fleetca.cli import revoke_query

        count = int(confirm) if confirm is not None and confirm.isdigit() else None
        return revoke_query.run(
            settings, query, reason=reason, plan=plan, wave=wave, pause=pause, confirm=count, since=since, as_json=as_json
        )
    if sum(one is not None for one in (serial, file, device)) != 1:
        raise click.UsageError("Give exactly one of SERIAL, --certificate, --device and --query.")
    with reach.signer(settings) as (deployment, signer):
        target = None
        if device is not None:
            confirmed(ids.device_id(device), confirm)
        elif file is not None:
            target = reach.reference_in(file, signer)
        elif serial is not None:
            target = reach.found_reference(serial, signer, issuer=issuer, usual=deployment.profiles.default_issuer)
        if target is not None and confirm is not None:
            confirmed(signer.certificate(target).device, confirm)
        revoked = signer.revoke(
            RevokeRequest(
                signer.local, Reason[reason], target=target, device=None if device is None else ids.device_id(device), invalid_from=since
            )
        )
    unlisted = sum(not one.listed for one in revoked)
    rows = [(str(one.ref), one.reason.name, output.iso(one.revoked_at)) for one in revoked]
    output.result(
        {"device": device, "revoked": [render_revoked(one) for one in revoked]},
        reach.table(("CERTIFICATE", "REASON", "SINCE"), rows) if rows else "",
        as_json=as_json,
    )
    if not revoked:
        output.note("Nothing was left to revoke.")
    if device is not None:
        output.note(f"{device} enrols and renews no more.")
    if unlisted:
        output.note(f"{unlisted} of them carry no revocation information (short-lived): they hold until they expire, and are not renewed.")
    if len(revoked) > unlisted:
        output.note("Shown by OCSP within 2 s and in the CRL within 60 s.")
    return 0


def confirmed(name: str, given: str | None) -> None:
    """The name typed on a terminal, or given by `--confirm`."""
    if given is None:
        if not sys.stdin.isatty():
            raise click.UsageError(f"This cannot be undone. Give --confirm {name} to go on without a question.")
        given = click.prompt(f"This cannot be undone. Type {name} to revoke it", err=True)
    if given != name:
        raise click.UsageError(f"{given!r} is not {name!r}: nothing was revoked.")
