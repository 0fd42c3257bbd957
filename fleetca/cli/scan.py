"""`fleetca scan`: private keys in firmware images, as a gate before a release."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fleetca.cli import output, reach


@click.command(
    help="Look for private keys in IMAGEs, whatever they are: PEM, DER (PKCS#1, PKCS#8, SEC1), raw P-256 keys within 1 KiB of their public keys, and"
    " keys that everybody has. Ends with 8 when there are any. What is compressed or encrypted must be unpacked before."
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "--known", type=click.Path(dir_okay=False, path_type=Path), help="More known keys: a file of SHA-256 digests of their public halves."
)
@click.option("--allow-encrypted", is_flag=True, help="Tell of private keys under a passphrase, and end with 0 all the same.")
@click.option("--no-raw", is_flag=True, help="Do not look for raw keys.")
@output.json_option
def scan(images: tuple[Path, ...], known: Path | None, allow_encrypted: bool, no_raw: bool, as_json: bool) -> None:
    from ca.rules.firmware import Kind
    from ca.rules.known_keys import KNOWN, read_list
    from fleetca import scan as scanning

    listed = dict(KNOWN)
    if known is not None:
        listed |= read_list(reach.read(str(known)).decode(errors="replace"))
    told = []
    for image in images:
        found, size = scanning.scan(image, known=listed, scalars=not no_raw)
        told.append((image, size, found))
    every = [(image, one) for image, _, found in told for one in found]
    document = {
        "images": [
            {
                "image": str(image),
                "octets": size,
                "found": [
                    {
                        "offset": one.offset,
                        "kind": one.kind.value,
                        "form": one.form,
                        "algorithm": one.algorithm or None,
                        "spki_sha256": one.spki_sha256 or None,
                        "known_as": one.name or None,
                    }
                    for one in found
                ],
            }
            for image, size, found in told
        ]
    }
    rows = [
        (str(image), f"{one.offset:#x}", one.kind.value, one.form, one.algorithm, one.spki_sha256[:16], one.name) for image, one in every
    ]
    columns = ("IMAGE", "OFFSET", "WHAT", "FORM", "ALGORITHM", "PUBLIC KEY", "KNOWN AS")
    output.result(document, reach.table(columns, rows) if rows else "No private key found.", as_json=as_json)
    if any(not (allow_encrypted and one.kind is Kind.encrypted_key) for _, one in every):
        output.note("What is in an image, everybody has: take it out, and end the key: fleetca revoke, fleetca devices retire.")
        sys.exit(output.FINDINGS)
