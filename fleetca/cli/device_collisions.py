"""`fleetca devices collisions`: keys that several devices have, in what discovery tools found. Decides nothing: `ca.rules.shared_keys` does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ca.rules.shared_keys import Owner, Shared


@click.command(
    help="Read what discovery tools found in the field, and name each public key that more than one device has, or that everybody has. FILEs (- is stdin)"
    " hold certificates (PEM or DER), or CSV or JSON lines with device and spki_sha256 or certificate. Ends with 8 when there is such a key, or when"
    " something could not be read. Needs no deployment; with --settings, what is on record counts too."
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--known",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="More keys that everybody has: a file of SHA-256 digests of their public halves, one a line, or PEM. May be repeated.",
)
@click.option(
    "--settings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A deployment's settings: compare with its record, where `device` is its id; and look for the keys of its signer.known_keys too.",
)
@output.json_option
def collisions(files: tuple[str, ...], known: tuple[Path, ...], settings: Path | None, as_json: bool) -> None:
    from ca.rules.shared_keys import by_key, shared
    from fleetca import discovery, known_keys

    lists: tuple[Path, ...] = ()
    if settings is not None:
        from fleetca.forms import read_settings

        lists = read_settings(settings).signer.known_keys
    everybodys = known_keys.listed([*known, *lists])
    read = discovery.Discovered()
    for file in files:
        discovery.read(reach.read(file, most=discovery.LARGEST + 1), file, read)
    seen = by_key(read.sightings)
    found = shared(seen, known=everybodys, on_record={} if settings is None else _owners(settings, seen))
    document = {
        "sightings": len(read.sightings),
        "keys": len(seen),
        "compared_with_record": settings is not None,
        "collisions": [_document(one) for one in found],
        "not_read": [{"place": place, "why": why} for place, why in read.unread],
    }
    text = reach.table(("PUBLIC KEY", "DEVICES", "ON RECORD", "KNOWN AS"), map(_row, found))
    if not found:
        text = f"No key is shared: {len(seen)} keys, seen {len(read.sightings)} times."
    output.result(document, text, as_json=as_json)
    for place, why in read.unread[:_TOLD]:
        output.note(f"Not read: {place}: {why}.")
    if len(read.unread) > _TOLD:
        output.note(f"And {len(read.unread) - _TOLD} more; --json names them all.")
    if found:
        output.note("Whoever has one of these devices can be the others: give each its own key, and revoke what the shared one certifies.")
    if found or read.unread:
        sys.exit(output.FINDINGS)


_TOLD = 20
"""Places that could not be read, and devices of one key, that people see; the document has all."""


def _owners(settings: Path, digests: Iterable[str]) -> dict[str, list[Owner]]:
    """Who has these keys on record: one question a key."""
    from ca.model import CertificateQuery, Digest
    from ca.rules.shared_keys import Owner
    from fleetca import discovery

    found: dict[str, list[Owner]] = {}
    with reach.signer(str(settings)) as (_, signer):
        for digest in digests:
            key = Digest(bytes.fromhex(digest))
            after = None
            while True:
                rows, after = signer.certificates(CertificateQuery(spki_sha256=key, after=after, limit=reach.PAGE))
                for row in rows:
                    also = row.device if row.der is None else discovery.name_of(row.der)[0]
                    found.setdefault(digest, []).append(Owner(row.device, also))
                if after is None:
                    break
    return found


def _row(one: Shared) -> tuple[str, ...]:
    more = f" and {len(one.devices) - _TOLD} more" if len(one.devices) > _TOLD else ""
    return one.spki_sha256[:16], ", ".join(one.devices[:_TOLD]) + more, ", ".join(one.on_record), one.known_as


def _document(one: Shared) -> dict[str, Any]:
    return {
        "spki_sha256": one.spki_sha256,
        "devices": list(one.devices),
        "on_record": list(one.on_record),
        "known_as": one.known_as or None,
        "places": list(one.places),
    }
