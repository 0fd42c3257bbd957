"""`fleetca scan`: private keys in firmware images, as a gate before a release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ca.rules.firmware import Found
    from ca.rules.unpacking import Unread
    from fleetca.scan import Scanned


@click.command(
    help="Look for private keys in IMAGEs, whatever they are, and in what is packed in them (gzip, zip, xz, lzma, bzip2, and file systems of these): PEM,"
    " DER (PKCS#1, PKCS#8, SEC1), raw keys beside their public halves, and keys that everybody has. Ends with 8 when there are any, or when something was"
    " recognised that could not be looked into."
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "--known",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="More known keys: a file of SHA-256 digests of their public halves, one a line, or PEM. May be repeated.",
)
@click.option(
    "--settings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A deployment's settings: look for the keys of its signer.known_keys too.",
)
@click.option(
    "--public",
    "publics",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Certificates or public keys (PEM): raw keys are looked for wherever these lie, in whatever form. May be repeated.",
)
@click.option("--allow-encrypted", is_flag=True, help="Tell of private keys under a passphrase, and end with 0 all the same.")
@click.option("--allow-unread", is_flag=True, help="Tell of what could not be looked into, and end with 0 all the same.")
@click.option("--no-unpack", is_flag=True, help="Do not look into what is packed.")
@click.option("--no-raw", is_flag=True, help="Do not look for raw keys.")
@output.json_option
def scan(
    images: tuple[Path, ...],
    known: tuple[Path, ...],
    settings: Path | None,
    publics: tuple[Path, ...],
    allow_encrypted: bool,
    allow_unread: bool,
    no_unpack: bool,
    no_raw: bool,
    as_json: bool,
) -> None:
    from ca.rules.firmware import Kind
    from fleetca import known_keys
    from fleetca import scan as scanning

    files: tuple[Path, ...] = ()
    if settings is not None:
        from fleetca.forms import read_settings

        files = read_settings(settings).signer.known_keys
    listed = known_keys.listed([*known, *files])
    halves = [half for path in publics for half in scanning.halves(reach.read(str(path)), what=str(path))]
    told = [(str(image), scanning.scan(image, known=listed, scalars=not no_raw, public=halves, unpack=not no_unpack)) for image in images]
    text = reach.table(_COLUMNS, [_row(image, one) for image, each in told for one in each.found])
    if not any(each.found for _, each in told):
        text = "No private key found."
    output.result({"images": [_document(image, each) for image, each in told]}, text, as_json=as_json)
    for image, each in told:
        for (form, why), places in _left(each.unread).items():
            more = f" and at {len(places) - 1} more places" if len(places) > 1 else ""
            output.note(f"Not looked into: {image}, {form} at {places[0]}{more}: {why}.")
    if any(not (allow_encrypted and one.kind is Kind.encrypted_key) for _, each in told for one in each.found):
        output.note("What is in an image, everybody has: take it out, and end the key: fleetca revoke, fleetca devices retire.")
        sys.exit(output.FINDINGS)
    if any(each.unread for _, each in told) and not allow_unread:
        output.note("What was not looked into may hold keys: unpack it, and scan that too; --allow-unread lets it pass.")
        sys.exit(output.FINDINGS)


_COLUMNS = ("IMAGE", "OFFSET", "WHAT", "FORM", "ALGORITHM", "PUBLIC KEY", "KNOWN AS")


def _place(one: Found | Unread) -> str:
    """`0x1f0 gzip 0x80`: the offset of what is packed, how, and the offset in it."""
    return "".join(f"{offset:#x} {form} " for form, offset in one.inside) + f"{one.offset:#x}"


def _left(unread: Sequence[Unread]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in unread:
        found.setdefault((one.form, one.why), []).append(_place(one))
    return found


def _row(image: str, one: Found) -> tuple[str, ...]:
    return (image, _place(one), one.kind.value, one.form, one.algorithm, one.spki_sha256[:16], one.name)


def _inside(one: Found | Unread) -> list[dict[str, Any]]:
    return [{"form": form, "offset": offset} for form, offset in one.inside]


def _document(image: str, scanned: Scanned) -> dict[str, Any]:
    found = [
        {
            "offset": one.offset,
            "inside": _inside(one),
            "kind": one.kind.value,
            "form": one.form,
            "algorithm": one.algorithm or None,
            "spki_sha256": one.spki_sha256 or None,
            "known_as": one.name or None,
        }
        for one in scanned.found
    ]
    unread = [{"offset": one.offset, "inside": _inside(one), "form": one.form, "why": one.why} for one in scanned.unread]
    return {"image": image, "octets": scanned.octets, "found": found, "not_looked_into": unread}
