"""`fleetca issuers`: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Issuer, UnixTime


@click.group(help="List and show issuers.")
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
        (one.id, one.algorithm, one.parent or "-", "online" if one.key else "offline", output.distance(one.not_after, now)) for one in found
    ]
    output.result(
        {"issuers": [_document(one) for one in found]},
        reach.table(("ISSUER", "ALGORITHM", "PARENT", "KEY", "EXPIRES"), rows),
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
            output.result({**_document(one), "certificate": pem.pem(pem.CERTIFICATE, one.certificate)}, text, as_json=as_json)
            return
    raise NotFound("no-such-issuer", f"There is no issuer {id_}.", fix=f"Known are: {', '.join(one.id for one in found)}.")


def _document(one: Issuer) -> dict[str, Any]:
    from ca.der import names

    return {
        "id": one.id,
        "subject": names.rfc4514(one.subject),
        "algorithm": one.algorithm,
        "parent": one.parent,
        "online": one.key is not None,
        "may_issue": one.may_issue,
        "may_sign_crl": one.may_sign_crl,
        "not_before": output.iso(one.not_before),
        "not_after": output.iso(one.not_after),
        "sha256": reach.fingerprint(one.certificate),
        "crl_url": one.crl_url,
        "ocsp_url": one.ocsp_url,
        "issuer_url": one.issuer_url,
    }


def _facts(one: Issuer, now: UnixTime) -> list[tuple[str, str]]:
    shown = _document(one)
    return [
        ("issuer", one.id),
        ("subject", shown["subject"]),
        ("algorithm", one.algorithm),
        ("parent", one.parent or "none: a root"),
        ("key", "online" if one.key else "offline: not in this deployment"),
        ("not before", output.iso(one.not_before)),
        ("not after", f"{output.iso(one.not_after)} ({output.distance(one.not_after, now)})"),
        ("SHA-256", shown["sha256"]),
        ("CRL", one.crl_url or "-"),
        ("OCSP", one.ocsp_url or "-"),
    ]
