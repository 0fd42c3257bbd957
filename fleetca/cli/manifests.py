"""`fleetca devices import-manifest`: secure elements as their maker signed them, onto the record. Decides nothing: the signer judges each entry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ca.model import ManifestOutcome

MOST_AT_ONCE = 100
"""Entries of one request."""
OCTETS_AT_ONCE = 512 * 1024
"""And their length together, about: a frame of the signer's socket has a mebibyte."""


@click.command(
    "import-manifest",
    help="Take the maker's manifest FILE of secure elements onto the record: each good entry is a device with root of trust `se` that may enrol by a key of"
    " its element. Bad entries are refused one by one, put into a file, and noted on the record; then it ends with 8. Safe to stop and to repeat.",
)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@output.settings_option
@click.option(
    "--signer",
    "certificate",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The certificate that the maker signs with (PEM or DER).",
)
@click.option("--prefix", default="se:", show_default=True, help="What the devices' ids begin with; the element's serial number follows.")
@click.option(
    "--quarantine",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where bad entries go; absent: FILE with .quarantine.json behind it.",
)
@output.json_option
def import_manifest(file: Path, settings: str, certificate: Path, prefix: str, quarantine: Path | None, as_json: bool) -> None:
    import hashlib

    from ca.der import pem
    from ca.errors import Malformed
    from ca.model import Digest, ManifestImport
    from ca.rules.attestation.manifest import LARGEST_ENTRY, LARGEST_MANIFEST, entries

    der = pem.der_of(reach.read(str(certificate)), pem.CERTIFICATE)
    octets = reach.read(str(file), most=LARGEST_MANIFEST + 1)
    if len(octets) > LARGEST_MANIFEST:
        raise Malformed("manifest-unreadable", "The manifest is too large.", why=f"At most {LARGEST_MANIFEST} octets are read.")
    try:
        # All of it first: of a file that is cut off, nothing is taken.
        found = list(entries(octets.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise Malformed("manifest-unreadable", "The manifest cannot be read; nothing of it was taken.", why=f"{error}.") from None
    manifest = Digest(hashlib.sha256(octets).digest())
    counts = {"recorded": 0, "known": 0, "refused": 0}
    bad: list[ManifestOutcome] = []
    with reach.signer(settings) as (_, signer):
        # One character more than is read: the signer tells what is too long by that.
        for first, part in _parts([text[: LARGEST_ENTRY + 1] for text in found]):
            for one in signer.import_manifest(ManifestImport(manifest, der, prefix, first, tuple(part))):
                counts[one.state] += 1
                if one.state == "refused":
                    bad.append(one)
            if not as_json and len(found) > MOST_AT_ONCE:
                output.note(f"{first - 1 + len(part)} of {len(found)}")
    aside = (quarantine or file.with_name(file.name + ".quarantine.json")) if bad else None
    if aside is not None:
        _put_aside(aside, [{**_said(one), "entry": found[one.number - 1]} for one in bad])
    document = {
        "manifest": str(file),
        "sha256": manifest.hex(),
        "signer_sha256": hashlib.sha256(der).hexdigest(),
        "entries": len(found),
        "recorded": counts["recorded"],
        "known": counts["known"],
        "quarantined": counts["refused"],
        "quarantine": None if aside is None else str(aside),
        "refused": [_said(one) for one in bad],
    }
    shown = (("entries", str(len(found))), ("recorded", str(counts["recorded"])), ("known before", str(counts["known"])),
             ("quarantined", str(counts["refused"])))  # fmt: skip
    text = reach.facts(shown)
    if bad:
        text += "\n\n" + reach.table(
            ("ENTRY", "SERIAL", "CODE", "WHY"), [(str(one.number), one.unique_id, one.code, one.words) for one in bad]
        )
    output.result(document, text, as_json=as_json)
    if bad:
        output.note(f"What was refused lies in {aside}. Ask the maker for these again; the others are on record.")
        sys.exit(output.FINDINGS)


def _said(one: ManifestOutcome) -> dict[str, Any]:
    return {"number": one.number, "unique_id": one.unique_id, "code": one.code, "why": one.words}


def _parts(found: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Entries for one request each, and the place of the first of them."""
    part: list[str] = []
    size, first = 0, 1
    for number, text in enumerate(found, 1):
        if part and (len(part) == MOST_AT_ONCE or size + len(text) > OCTETS_AT_ONCE):
            yield first, part
            part, size, first = [], 0, number
        part.append(text)
        size += len(text)
    if part:
        yield first, part


def _put_aside(file: Path, bad: Sequence[dict[str, Any]]) -> None:
    """A run that is repeated writes the same again: the file is replaced, whole or not at all."""
    import json

    from fleetca.folder import replace_file

    if not file.exists():
        file.touch(mode=0o600)
    replace_file(file, (json.dumps(bad, indent=2, ensure_ascii=False) + "\n").encode())
