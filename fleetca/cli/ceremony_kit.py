"""`fleetca ceremony kit` and `check-kit`: what is carried to the air-gapped machine."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output, prompts


@click.command(
    help="Pack SHEET, what it names and this very program into one folder for the air-gapped machine. Its file `install` needs no network."
)
@click.argument("sheet", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The new folder.")
@output.json_option
def kit(sheet: Path, out: Path, as_json: bool) -> None:
    from fleetca import ceremonies

    made, missing = ceremonies.make_kit(sheet, out)
    _report(made, missing, "Note the SHA-256 of the kit on paper.", as_json=as_json)


@click.command(name="check-kit", help="Check the kit in FOLDER: every file, and that this program is the one that was packed.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--sha256", "expected", help="SHA-256 of the kit, from the paper.")
@output.json_option
def check_kit(folder: Path, expected: str | None, as_json: bool) -> None:
    from ca.errors import Unacceptable
    from fleetca import ceremony_host, ceremony_kit

    found = ceremony_kit.check(folder)
    if expected is not None and expected.replace(":", "").lower() != found.digest.hex():
        raise Unacceptable(
            "kit-changed",
            "This is not the kit whose SHA-256 was given.",
            why=f"Its SHA-256 is {found.digest.hex()}.",
            fix="Take the kit from another copy.",
        )
    if ceremony_host.software_sha256() != found.software_sha256:
        raise Unacceptable(
            "another-software",
            "The program that runs is not the one in this kit.",
            why=f"The kit holds {found.software_sha256}, this is {ceremony_host.software_sha256()}.",
            fix="Run the one that the kit's install made: env/bin/fleetca",
        )
    _report(found, (), "Compare the SHA-256 of the kit with the paper.", as_json=as_json)


def _report(found: object, missing: tuple[str, ...], todo: str, *, as_json: bool) -> None:
    from ca.rules.ceremony_words import words
    from fleetca.ceremony_kit import Kit

    assert isinstance(found, Kit)
    document = {
        "folder": str(found.folder),
        "kit_sha256": found.digest.hex(),
        "words": words(found.digest),
        "software_sha256": found.software_sha256,
        "sheet_sha256": found.sheet_sha256,
        "files": found.files,
        "missing": list(missing),
    }
    lines = [
        f"The kit in {found.folder} holds: {found.files} files.",
        prompts.fact("kit", f"SHA-256 {found.digest.hex()}"),
        prompts.fact("in words", words(found.digest)),
        prompts.fact("software", f"SHA-256 {found.software_sha256}"),
        prompts.fact("sheet", f"SHA-256 {found.sheet_sha256}"),
        *(prompts.fact("to bring", each) for each in missing),
        todo,
    ]
    output.result(document, "\n".join(lines), as_json=as_json)
