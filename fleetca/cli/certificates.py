"""`fleetca certificates`: list, search, show."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Certificate, CertificateQuery, UnixTime

_STATES = ("intended", "issued", "superseded", "revoked", "void")


@click.group(help="List, show and search certificates.")
def certificates() -> None:
    pass


@certificates.command("list", help="The newest certificates first.")
@output.settings_option
@click.option("--state", type=click.Choice(_STATES), help="Only these.")
@reach.page_options
@output.json_option
def list_(settings: str, state: str | None, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    _search(settings, {"state": state}, limit=limit, after=after, everything=everything, as_json=as_json)


@certificates.command(help="The certificates for which all that is given holds.")
@output.settings_option
@click.option("--device", help="Of this device.")
@click.option("--subject", help="With this subject (RFC 4514 text), or its beginning followed by *.")
@click.option("--san", help="With this subject alternative name.")
@click.option("--serial", help="With this serial number (hexadecimal).")
@click.option("--key", metavar="SHA256", help="For the key whose SubjectPublicKeyInfo has this SHA-256 (hexadecimal).")
@click.option("--state", type=click.Choice(_STATES), help="In this state.")
@click.option("--expires-after", metavar="TIME", help="notAfter at or after TIME: 2026-11-22T06:43:00Z, or 7d from now.")
@click.option("--expires-before", metavar="TIME", help="notAfter before TIME.")
@reach.page_options
@output.json_option
def search(settings: str, limit: int, after: str | None, everything: bool, as_json: bool, **asked: str | None) -> None:
    _search(settings, asked, limit=limit, after=after, everything=everything, as_json=as_json)


@certificates.command(help="One certificate: SERIAL, ISSUER/SERIAL, or the one in a file.")
@click.argument("serial", required=False)
@output.settings_option
@click.option("--certificate", "file", metavar="FILE", help="The certificate in this file (PEM or DER).")
@click.option("--issuer", help="The issuer of SERIAL; the deployment's own when absent.")
@click.option("--pem", "as_pem", is_flag=True, help="Print the certificate itself.")
@output.json_option
def show(serial: str | None, settings: str, file: str | None, issuer: str | None, as_pem: bool, as_json: bool) -> None:
    from ca.der import pem
    from ca.errors import NotFound
    from enroll.rest.messages import render_certificate

    if (serial is None) == (file is None):
        raise click.UsageError("Give SERIAL or --certificate FILE.")
    with reach.signer(settings) as (deployment, signer):
        if file is not None:
            ref = reach.reference_in(file, signer)
        else:
            ref = reach.found_reference(serial or "", signer, issuer=issuer, usual=deployment.profiles.default_issuer)
        found = signer.certificate(ref)
    now = reach.now()
    document = render_certificate(found, now=now, with_octets=True)
    if as_pem:
        if found.der is None:
            raise NotFound("certificate-not-issued", f"{ref} was never issued.", why=f"Its state is {found.state.value}.")
        output.result(document, pem.pem(pem.CERTIFICATE, found.der).rstrip(), as_json=as_json)
        return
    output.result(document, reach.facts(_facts(found, now)), as_json=as_json)


def _facts(found: Certificate, now: UnixTime) -> list[tuple[str, str]]:
    facts = [
        ("certificate", str(found.ref)),
        ("state", reach.state_of(found, now)),
        ("device", found.device),
        ("profile", found.profile),
        ("subject", found.subject),
        *(("name", f"{name.kind}:{name.value}") for name in found.names),
        ("not before", output.iso(found.not_before)),
        ("not after", f"{output.iso(found.not_after)} ({output.distance(found.not_after, now)})"),
        ("key SHA-256", found.spki_sha256.hex()),
    ]
    if found.der is not None:
        facts.append(("SHA-256", reach.fingerprint(found.der)))
    if found.parent is not None:
        facts.append(("renews", str(found.parent)))
    moments = (
        ("issued", found.issued_at),
        ("delivered", found.delivered_at),
        ("first used", found.first_used_at),
        ("grace ends", found.grace_ends_at),
        ("superseded", found.superseded_at),
        ("clone suspected", found.clone_seen_at),
    )
    for name, when in moments:
        if when is not None:
            facts.append((name, output.iso(when)))
    if found.revocation is not None:
        facts.append(("revocation", f"{found.revocation.reason.name} {output.iso(found.revocation.revoked_at)}"))
    return facts


def _search(settings: str, asked: dict[str, str | None], *, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    from enroll.rest.messages import render_certificate

    now = reach.now()
    with reach.signer(settings) as (_, signer):
        wanted = _wanted(asked, now)
        rows, cursor = reach.pages(
            lambda at, size: signer.certificates(replace(wanted, after=at, limit=size)), after=after, limit=limit, everything=everything
        )
    shown = [(f"{row.ref}", reach.state_of(row, now), row.device, row.profile, output.distance(row.not_after, now)) for row in rows]
    output.result(
        {"certificates": [render_certificate(row, now=now, with_octets=False) for row in rows], "next": cursor},
        reach.table(("CERTIFICATE", "STATE", "DEVICE", "PROFILE", "EXPIRES"), shown) if rows else "",
        as_json=as_json,
    )
    if not rows:
        output.note("No certificates.")
    if cursor is not None:
        output.note(f"More: --after {cursor}")


def _wanted(asked: dict[str, str | None], now: UnixTime) -> CertificateQuery:
    """What was typed, as the signer's question."""
    from ca.errors import Malformed
    from ca.model import CertificateQuery, Standing
    from ca.rules import ids

    readers: dict[str, tuple[str, Any]] = {
        "device": ("device", ids.device_id),
        "subject": ("subject", str),
        "san": ("san", str),
        "serial": ("serial", lambda text: ids.serial_from_hex(text.replace(":", ""))),
        "key": ("spki_sha256", bytes.fromhex),
        "state": ("state", Standing),
        "expires_after": ("expires_after", lambda text: reach.moment(text, now)),
        "expires_before": ("expires_before", lambda text: reach.moment(text, now)),
    }
    wanted: dict[str, Any] = {}
    for name, text in asked.items():
        if text is None:
            continue
        word, reader = readers[name]
        try:
            wanted[word] = reader(text)
        except ValueError:
            raise Malformed("bad-key-hash", f"{text!r} is not a SHA-256.", why="It must be 64 hexadecimal digits.") from None
    if len(wanted.get("spki_sha256", bytes(32))) != 32:
        raise Malformed("bad-key-hash", "The key's SHA-256 has 64 hexadecimal digits.")
    return CertificateQuery(**wanted)
