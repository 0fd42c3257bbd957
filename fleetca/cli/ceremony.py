"""`fleetca ceremony`: make roots, issuing CAs and root CRLs offline, and check what was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output, prompts

if TYPE_CHECKING:
    from ca.ceremony import Step


@click.group(help="Make root and issuing certificates offline, from a reviewed sheet.")
def ceremony() -> None:
    pass


@ceremony.command(help="Run the acts of SHEET, step by step. Run it again to go on after a stop: nothing is signed twice.")
@click.argument("sheet", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Output folder [default: a folder named like the sheet].")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with the passphrase of the keys (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read the passphrase from.")
@click.option("--yes", is_flag=True, help="Confirm every step without asking.")
@output.json_option
def run(sheet: Path, out: Path | None, passphrase_file: str | None, passphrase_fd: int | None, yes: bool, as_json: bool) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca import ceremonies

    folder = out or sheet.parent / sheet.stem

    def confirm(step: Step) -> bool:
        prompts.say(_shown(step))
        return yes or prompts.confirmed("Sign this?", flag="--yes")

    outcome = ceremonies.run(
        sheet,
        out=folder,
        passphrase=prompts.passphrase("the keys of this ceremony", file=passphrase_file, descriptor=passphrase_fd, twice=True),
        confirm=confirm,
        clock=SystemClock(),
        chance=SystemChance(),
    )
    document = {
        "ceremony": outcome.name,
        "directory": str(folder),
        "transcript_sha256": outcome.transcript_sha256.hex(),
        "resumed": outcome.resumed,
        "outputs": [
            {
                "act": made.act,
                "file": str(folder / made.file),
                "sha256": made.sha256.hex(),
                "fingerprint": made.fingerprint.hex(),
                "not_after": output.iso(made.not_after),
            }
            for made in outcome.outputs
        ],
    }
    now = SystemClock().now()
    lines = [f"The ceremony {outcome.name} is finished."]
    for made in outcome.outputs:
        lines += [
            f"  {folder / made.file}",
            f"      until {output.iso(made.not_after)} ({output.distance(made.not_after, now)}), SHA-256 fingerprint {made.fingerprint.hex()}",
        ]
    lines += [
        f"  {folder / 'transcript.jsonl'}",
        f"      SHA-256 of its last line {outcome.transcript_sha256.hex()}",
        f"Note the fingerprint of the root on paper. Keys (*.key) stay offline. Next: fleetca import {folder}",
    ]
    output.result(document, "\n".join(lines), as_json=as_json)


def _shown(step: Step) -> str:
    lines = [f"\n{step.title}"]
    lines += [f"  {name:<14} {value}" for name, value in step.lines]
    lines.append(f"  {'SHA-256 of TBS':<14} {step.tbs_sha256.hex()}")
    return "\n".join(lines)


@ceremony.command(help="Check the transcript and outputs in FOLDER: offline, without settings or keys.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--root",
    "root",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Certificate of the root, if an earlier ceremony made it; give ID=FILE if its id is not root.",
)
@output.json_option
def verify(folder: Path, root: Path | None, as_json: bool) -> None:
    from hashlib import sha256

    from fleetca import ceremonies, forms

    roots = {}
    if root is not None:
        name, equals, file = str(root).partition("=")
        roots[name if equals else "root"] = forms.certificate_file(Path(file if equals else name), key="--root")
    verified = ceremonies.verify(folder, roots=roots)
    fingerprint = sha256(verified.root_certificate).hexdigest()
    document = {
        "ceremony": verified.name,
        "about": verified.about,
        "began": output.iso(verified.began),
        "finished": output.iso(verified.finished),
        "software": verified.software,
        "sheet_sha256": verified.sheet_sha256.hex(),
        "transcript_sha256": verified.transcript_sha256.hex(),
        "root": verified.root,
        "root_sha256": fingerprint,
        "outputs": [
            {"act": made.act, "file": made.file, "sha256": made.sha256.hex(), "fingerprint": sha256(made.der).hexdigest()}
            for made in verified.outputs
        ],
    }
    lines = [
        f"The ceremony {verified.name} holds: every line of its transcript, its seal, and {len(verified.outputs)} outputs.",
        prompts.fact("about", verified.about),
        prompts.fact("from", f"{output.iso(verified.began)} to {output.iso(verified.finished)}"),
        prompts.fact("software", verified.software),
        prompts.fact("sheet", f"SHA-256 {verified.sheet_sha256.hex()}"),
        *(prompts.fact(made.act, f"{made.file}, SHA-256 fingerprint {sha256(made.der).hexdigest()}") for made in verified.outputs),
        f"Compare with the paper: the SHA-256 fingerprint of {verified.root} is\n  {fingerprint}",
    ]
    output.result(document, "\n".join(lines), as_json=as_json)
