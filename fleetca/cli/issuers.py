"""`fleetca issuers`: list, show, prepare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Issuer, UnixTime


@click.group(help="List and show issuers, and prepare the next one.")
def issuers() -> None:
    pass


@issuers.command("list", help="The CA certificates of this deployment.")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    now = reach.now()
    with reach.signer(settings) as (_, signer):
        found = signer.issuers()
    rows = [
        (
            one.id,
            one.algorithm,
            one.parent or "-",
            "online" if one.key else "offline",
            ", ".join(_abilities(one, now)) or "nothing",
            output.distance(one.not_after, now),
        )
        for one in found
    ]
    output.result(
        {"issuers": [_document(one, now) for one in found]},
        reach.table(("ISSUER", "ALGORITHM", "PARENT", "KEY", "MAY", "EXPIRES"), rows),
        as_json=as_json,
    )


@issuers.command(help="One issuer.")
@click.argument("id_", metavar="ID")
@output.settings_option
@click.option("--pem", "as_pem", is_flag=True, help="Print its certificate.")
@output.json_option
def show(id_: str, settings: str, as_pem: bool, as_json: bool) -> None:
    from ca.der import pem
    from ca.errors import NotFound

    with reach.signer(settings) as (_, signer):
        found = signer.issuers()
    for one in found:
        if one.id == id_:
            text = pem.pem(pem.CERTIFICATE, one.certificate).rstrip() if as_pem else reach.facts(_facts(one, reach.now()))
            output.result({**_document(one, reach.now()), "certificate": pem.pem(pem.CERTIFICATE, one.certificate)}, text, as_json=as_json)
            return
    raise NotFound("no-such-issuer", f"There is no issuer {id_}.", fix=f"Known are: {', '.join(one.id for one in found)}.")


@issuers.command(
    help="Prepare the issuer that will take another one's place: makes its key and CSR, the sheet of its ceremony with all that it names, and the "
    "entry in the settings, which await it from then on. Nothing else changes until it is imported."
)
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--succeeds", metavar="ID", help="Whose place it takes. [default: that of the one that issues]")
@click.option("--key", help="Where its key rests, as for `fleetca init`. [default: sealed:keys/ID.key]")
@click.option("--passphrase", help="Where the signer finds what unlocks it. [default, for a sealed key: file:secrets/ID.passphrase]")
@click.option("--algorithm", help="Kind of its key. [default: as before]")
@click.option("--name", "common_name", help="Its common name. [default: as before, with the next number]")
@output.settings_option
@output.json_option
def prepare(
    id_: str | None,
    succeeds: str | None,
    key: str | None,
    passphrase: str | None,
    algorithm: str | None,
    common_name: str | None,
    settings: str,
    as_json: bool,
) -> None:
    import shlex
    from pathlib import Path

    from ca.der.algorithms import ALGORITHMS
    from ca.errors import Misconfigured
    from ca.system import SystemChance
    from fleetca import successor
    from fleetca.forms import read_settings

    if algorithm is not None and algorithm not in ALGORITHMS:
        raise Misconfigured("unknown-algorithm", f"There is no kind of key {algorithm}.", fix=f"Known are {', '.join(ALGORITHMS)}.")
    wanted = successor.Wanted(id_, succeeds, key, passphrase, algorithm, common_name)
    made = successor.prepare(read_settings(Path(settings)), wanted, chance=SystemChance())
    steps = [
        f"fleetca ceremony run {shlex.quote(str(made.sheet))} --credentials FILE --out {shlex.quote(str(made.outputs))}",
        f"fleetca import {shlex.quote(str(made.outputs))} --settings {shlex.quote(settings)}",
    ]
    document = {
        "issuer": made.id,
        "succeeds": made.succeeds,
        "sheet": str(made.sheet),
        "csr": str(made.csr),
        "outputs": str(made.outputs),
        "settings": settings,
        "next": steps,
    }
    text = [
        f"{made.id} is prepared to take the place of {made.succeeds}; {settings} awaits its certificate.",
        f"  carry this folder to the ceremony: {made.folder}",
        "Next: have the running processes read the settings (SIGHUP to fleetca serve); then, on the offline machine,",
        f"  {steps[0]}",
        "and with the outputs back here, while everything runs,",
        f"  {steps[1]}",
    ]
    output.result(document, "\n".join(text), as_json=as_json)


def _abilities(one: Issuer, now: UnixTime) -> list[str]:
    from ca.rules.issuers import Ability, abilities

    found = abilities(one, now=now)
    return [ability.value for ability in Ability if ability in found]


def _document(one: Issuer, now: UnixTime) -> dict[str, Any]:
    from ca.der import names

    return {
        "id": one.id,
        "subject": names.rfc4514(one.subject),
        "algorithm": one.algorithm,
        "parent": one.parent,
        "online": one.key is not None,
        "may": _abilities(one, now),
        "successor": one.successor,
        "issues_until": None if one.issues_until is None else output.iso(one.issues_until),
        "last_certificate_ends": None if one.last_ends is None else output.iso(one.last_ends),
        "retired_at": None if one.retired_at is None else output.iso(one.retired_at),
        "not_before": output.iso(one.not_before),
        "not_after": output.iso(one.not_after),
        "sha256": reach.fingerprint(one.certificate),
        "crl_url": one.crl_url,
        "ocsp_url": one.ocsp_url,
        "issuer_url": one.issuer_url,
    }


def _facts(one: Issuer, now: UnixTime) -> list[tuple[str, str]]:
    shown = _document(one, now)
    return [
        ("issuer", one.id),
        ("subject", shown["subject"]),
        ("algorithm", one.algorithm),
        ("parent", one.parent or "none: a root"),
        ("key", "online" if one.key else "offline: not in this deployment"),
        ("may", ", ".join(shown["may"]) or "nothing"),
        ("successor", "-" if one.successor is None else f"{one.successor}, from {shown['issues_until']}"),
        ("retired", shown["retired_at"] or "-"),
        ("not before", output.iso(one.not_before)),
        ("not after", f"{output.iso(one.not_after)} ({output.distance(one.not_after, now)})"),
        ("SHA-256", shown["sha256"]),
        ("CRL", one.crl_url or "-"),
        ("OCSP", one.ocsp_url or "-"),
    ]
