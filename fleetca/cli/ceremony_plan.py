"""`fleetca ceremony plan`, `role-key` and `note`: what happens before the day, and what is remarked on it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from fleetca.cli import output, prompts


@click.command(
    help="Say what SHEET would do: every step in plain words, the lint's verdict, and the octets. Makes no key and writes nothing."
)
@click.argument("sheet", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="The day for which to plan (UTC) [default: the sheet's day, or today].")
@click.option(
    "--script", type=click.Path(dir_okay=False, path_type=Path), help="Write the script to print to this new file: .pdf or .html."
)
@click.option("--octets", is_flag=True, help="Show the octets to be signed, too.")
@output.json_option
def plan(sheet: Path, on: datetime | None, script: Path | None, octets: bool, as_json: bool) -> None:
    import hashlib

    from ca.rules.ceremony_words import words
    from ca.system import SystemChance, SystemClock
    from fleetca import ceremonies, ceremony_script, paper_pdf
    from fleetca.folder import put_new

    form, day = ceremonies.planned_day(sheet)
    now = SystemClock().now()
    at = int(on.replace(tzinfo=UTC).timestamp()) if on else max(now, day) if day is not None else now
    made = ceremonies.plan(sheet, at=at, chance=SystemChance())
    if script is not None:
        put_new(script, paper_pdf.printed(ceremony_script.script(made, form), script))
    document = {
        "ceremony": made.sheet.name,
        "sheet_sha256": made.sheet.digest.hex(),
        "planned_for": output.iso(made.at),
        "lint": made.lint,
        "missing": list(made.missing),
        "warnings": list(made.warnings),
        "script": str(script) if script else None,
        "acts": [
            {
                "act": act.act,
                "title": act.title,
                "steps": list(act.steps),
                "facts": dict(act.lines),
                "writes": act.file,
                "confirm": [{"role": each.role, "person": each.person} for each in act.confirm],
                "tbs": act.marked(),
                "tbs_octets": len(act.tbs),
                "placeholders": [{"at": each.at, "octets": each.length, "what": each.what} for each in act.placeholders],
                "sha256": None if act.placeholders else hashlib.sha256(act.tbs).hexdigest(),
            }
            for act in made.acts
        ],
    }
    lines = [
        f"Ceremony {made.sheet.name}: {made.sheet.about}",
        prompts.fact("sheet", f"SHA-256 {made.sheet.digest.hex()}"),
        prompts.fact("in words", words(made.sheet.digest)),
        prompts.fact("planned for", output.iso(made.at)),
        prompts.fact("lint", made.lint),
        *(prompts.fact("missing", each) for each in made.missing),
        *(prompts.fact("warning", each) for each in made.warnings),
    ]
    for number, act in enumerate(made.acts, start=1):
        lines.append(f"\n{number}. {act.title}")
        lines += [f"   - {step}" for step in act.steps]
        lines += [f"     {name:<14} {value}" for name, value in act.lines]
        if octets:
            lines.append(f"     {'TBS':<14} {len(act.tbs)} octets: {act.marked()}")
    if script is not None:
        lines.append(f"\nThe script to print: {script}")
    output.result(document, "\n".join(lines), as_json=as_json)


@click.command(
    name="role-key",
    help="Make the key with which PERSON signs in ceremonies: a sealed file NAME.key in the folder --out. With --key, use the one that the "
    "person has already, on a PIV card or another token. Prints the SHA-256 for the sheet.",
)
@click.argument("name")
@click.option(
    "--key", "uri", help="A key that is there: pkcs11:token=...;object=...?module-path=... (RFC 7512). It signs once, as a trial."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True, help="Folder of the key.")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with the person's passphrase or PIN (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read it from.")
@output.json_option
def role_key(name: str, uri: str | None, out: Path, passphrase_file: str | None, passphrase_fd: int | None, as_json: bool) -> None:
    from ca.rules.ceremony_words import words
    from fleetca import ceremonies

    if uri is not None:
        secret = prompts.passphrase(f"the key of {name}", file=passphrase_file, descriptor=passphrase_fd, twice=False)
        digest = ceremonies.find_role_key(uri, secret)
        place, said = uri, f"The key of {name} signs. Its PIN was tried once, and is kept nowhere."
    else:
        secret = prompts.passphrase(f"the key {name}", file=passphrase_file, descriptor=passphrase_fd, twice=True)
        digest = ceremonies.make_role_key(name, out, secret)
        place = str(out / f"{name}.key")
        said = f"The key {place} is made. Only its owner knows the passphrase."
    document = {"key": place, "key_sha256": digest.hex(), "words": words(digest)}
    lines = [
        said,
        prompts.fact("key_sha256", digest.hex()),
        prompts.fact("in words", words(digest)),
        "Write key_sha256 into the sheet, under [[roles]].",
    ]
    output.result(document, "\n".join(lines), as_json=as_json)


@click.command(
    help="Write TEXT (a deviation from the script, an observation) into the transcript in FOLDER, while the ceremony is stopped."
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("text")
@output.json_option
def note(folder: Path, text: str, as_json: bool) -> None:
    from ca.ceremony_note import add_note
    from ca.system import SystemClock
    from fleetca.ceremony_lock import FolderLock
    from fleetca.folder import Folder

    with FolderLock(folder):
        made = add_note(Folder(folder), text, clock=SystemClock())
    document = {"line": made.seq + 1, "at": output.iso(made.at), "text": text.strip()}
    output.result(document, f"Line {made.seq + 1} of the transcript says so. Run the ceremony again to go on.", as_json=as_json)
