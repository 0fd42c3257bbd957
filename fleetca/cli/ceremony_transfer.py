"""`fleetca ceremony show` and `collect`: files over an air gap by QR codes, or as text that such codes hold."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from fleetca.cli import output, prompts


@click.command(help="Show FILE (a CSR, certificate, CRL, digest or any small file) as QR codes, part by part.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to print to this new file instead: .pdf or .html."
)
@click.option("--text", is_flag=True, help="Print the text of the codes, one part a line.")
@output.json_option
def show(file: Path, page: Path | None, text: bool, as_json: bool) -> None:
    from hashlib import sha256

    from ca.rules.ceremony_transfer import parts
    from ca.rules.ceremony_words import words
    from fleetca import ceremonies, ceremony_codes, paper_pdf
    from fleetca.folder import put_new

    kind, octets = ceremonies.transferable(file)
    digest = sha256(octets).digest()
    made = parts(kind, octets)
    document = {"file": str(file), "kind": kind, "sha256": digest.hex(), "words": words(digest), "parts": list(made)}
    if page is not None:
        put_new(page, paper_pdf.printed(ceremony_codes.page(file.name, digest.hex(), words(digest), made), page))
        document["page"] = str(page)
    shown = (
        list(made)
        if text or page is not None
        else [f"{n} of {len(made)}\n{ceremony_codes.on_terminal(part)}" for n, part in enumerate(made, 1)]
    )
    lines = [] if page is not None else shown
    tail = [prompts.fact("SHA-256", digest.hex()), prompts.fact("in words", words(digest))]
    if text and page is None:
        prompts.say("\n".join(tail))
        tail = []
    if page is not None:
        tail.append(f"The page to print: {page}")
    output.result(document, "\n".join([*lines, *tail]), as_json=as_json)


@click.command(help="Read parts back from PARTS (text, one part a line, in any order; - is stdin) into a file.")
@click.argument("parts", type=click.File("r"))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The new file.")
@click.option("--sha256", "expected", help="SHA-256 that it must have.")
@output.json_option
def collect(parts: TextIO, out: Path, expected: str | None, as_json: bool) -> None:
    from ca.errors import Unacceptable
    from ca.rules.ceremony_transfer import collected
    from ca.rules.ceremony_words import words
    from fleetca.folder import put_new

    whole = collected(parts)
    if expected is not None and expected.replace(":", "").lower() != whole.sha256.hex():
        raise Unacceptable(
            "parts-wrong",
            "This is not the file whose SHA-256 was given.",
            why=f"Its SHA-256 is {whole.sha256.hex()}.",
            fix="Show and read the right file.",
        )
    put_new(out, whole.octets)
    document = {"file": str(out), "kind": whole.kind, "sha256": whole.sha256.hex(), "words": words(whole.sha256)}
    lines = [f"{out} is written: {whole.kind}.", prompts.fact("SHA-256", whole.sha256.hex()), prompts.fact("in words", words(whole.sha256))]
    output.result(document, "\n".join(lines), as_json=as_json)
