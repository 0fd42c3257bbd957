"""`fleetca pins`: trust anchors for update systems, as bundles that devices verify offline (REQ-KEY-044). Sets are signed by `fleetca ceremony pins`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.rules.anchor_bundle import Bundle, Told

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(
    help="Trust anchors for update systems: bundles of signed pin sets, CA certificates and CRLs, verified on the device without a network."
)
def pins() -> None:
    """Subcommands below."""


@pins.command(
    help="Write the published pin sets, the CA certificates below their roots and the CRLs to --out. Judged first as a device will judge it: no set"
    " without a backup, none that goes back, none without an end, no CRL that is over."
)
@click.option("--out", required=True, type=_FILE, help="The bundle; must not exist.")
@click.option("--no-crls", is_flag=True, help="Without CRLs: for updates that lie about for long.")
@output.settings_option
@output.json_option
def export(out: Path, no_crls: bool, settings: str, as_json: bool) -> None:
    from ca.errors import NotFound
    from ca.rules import anchor_bundle
    from ca.rules import pins as rule
    from fleetca import forms

    read = forms.read_settings(Path(settings))
    if not read.enroll.pins.is_file():
        raise NotFound("no-pins", f"There is no pin set at {read.enroll.pins}.", fix="Sign one beside the root: fleetca ceremony pins")
    certificates = [forms.certificate_file(one.certificate, key=f"issuers.{one.id}") for one in read.issuers if one.certificate.exists()]
    crls = [] if no_crls else [path.read_bytes() for path in sorted(read.crl.directory.glob("*.crl"))]
    bundle, last = anchor_bundle.to_export(
        rule.read_sets(read.enroll.pins.read_bytes()), certificates=_no_roots(certificates), crls=crls, now=reach.now()
    )
    reach.write_new(str(out), anchor_bundle.write(bundle))
    document = {
        "out": str(out),
        "seq": last.seq,
        "expires": None if last.expires is None else output.iso(last.expires),
        "crls": len(bundle.crls),
    }
    output.result(document, f"{out}: pin set {last.seq}, until {document['expires']}, {len(bundle.crls)} CRLs", as_json=as_json)


def _no_roots(certificates: list[bytes]) -> list[bytes]:
    """CAs below a root: roots come with the pin sets."""
    from ca.der.certificate import read_certificate

    read = [(der, read_certificate(der)) for der in certificates]
    return [der for der, one in read if one.subject != one.issuer]


@pins.command(help="Verify BUNDLE offline, as a device does that trusts the roots in --trust and has gone through the sets in --known.")
@click.argument("bundle", type=_FILE)
@click.option("--trust", required=True, type=_FILE, help="Root certificates that are trusted (PEM).")
@click.option("--known", type=_FILE, help="The pin set that was accepted last, as a file of sets.")
@output.json_option
def verify(bundle: Path, trust: Path, known: Path | None, as_json: bool) -> None:
    from ca.der import pem
    from ca.errors import Malformed
    from ca.rules import anchor_bundle
    from ca.rules import pins as rule

    last = None
    if known is not None:
        sets = rule.read_sets(reach.read(str(known)))
        if not sets:
            raise Malformed("bad-pins", "The pin set cannot be read.", why=f"{known} holds none.")
        last = (sets[-1], rule.read_set(sets[-1].payload))
    anchors = tuple(pem.ders_of(reach.read(str(trust)), pem.CERTIFICATE))
    told = anchor_bundle.judge(_read(bundle), anchors=anchors, known=last, numbers={}, now=reach.now())
    output.result(*_said(told), as_json=as_json)


@pins.command(
    "apply", help="Take BUNDLE over into an agent's identity, and its CRLs into --crls. Nothing is changed where any of it does not count."
)
@click.argument("bundle", type=_FILE)
@click.option(
    "--dir", "folder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="The identity's folder."
)
@click.option("--crls", type=click.Path(file_okay=False, path_type=Path), help="Where CRLs go, each by the key identifier of its issuer.")
@output.json_option
def apply_(bundle: Path, folder: Path, crls: Path | None, as_json: bool) -> None:
    from ca.errors import NotFound
    from ca.system import SystemChance
    from fleetca.agent import trust
    from fleetca.agent.identity import Identity

    identity = Identity(folder, SystemChance())
    if not identity.exists:
        raise NotFound("no-identity", f"{folder} holds no identity.", fix="Enrol one: fleetca agent enrol")
    with identity.locked():
        told = trust.take(identity, _read(bundle), numbers=_numbers(crls), now=reach.now())
        if crls is not None:
            _put(crls, told)
    output.result(*_said(told), as_json=as_json)


def _read(path: Path) -> Bundle:
    from ca.errors import Malformed
    from ca.rules import anchor_bundle

    try:
        with path.open("rb") as file:
            return anchor_bundle.read(file.read(anchor_bundle.LONGEST + 1))
    except OSError as error:
        raise Malformed("unreadable-file", f"{path} cannot be read.", why=f"{error.strerror}.") from None


def _numbers(folder: Path | None) -> dict[bytes, int]:
    """What this device knows of CRLs already."""
    from cryptography import x509

    found = {}
    for path in sorted(folder.glob("*.crl")) if folder is not None and folder.is_dir() else ():
        crl = x509.load_der_x509_crl(path.read_bytes())
        found[bytes.fromhex(path.stem)] = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return found


def _put(folder: Path, told: Told) -> None:
    from fleetca.folder import make_folder, put_new, replace_file

    make_folder(folder, mode=0o755)
    for identifier, (_, der) in told.crls.items():
        path = folder / f"{identifier.hex()}.crl"
        if path.exists():
            replace_file(path, der)
        else:
            put_new(path, der)


def _said(told: Told) -> tuple[dict[str, Any], str]:
    document: dict[str, Any] = {
        "seq": told.last.seq,
        "new": [found.seq for _, found in told.steps],
        "expires": None if told.last.expires is None else output.iso(told.last.expires),
        "anchors": len(told.anchors),
        "crls": {identifier.hex(): number for identifier, (number, _) in told.crls.items()},
    }
    news = f"new: {', '.join(map(str, document['new']))}" if document["new"] else "nothing new"
    return document, f"Pin set {told.last.seq} holds ({news}); {len(told.anchors)} roots, {len(told.crls)} CRLs."
