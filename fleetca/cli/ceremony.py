"""`fleetca ceremony`: plan, rehearse and hold ceremonies offline, and check what was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import ceremony_kit, ceremony_pins, ceremony_plan, ceremony_transfer, import_, output, prompts

if TYPE_CHECKING:
    from ca.ceremony_steps import Outcome, Step
    from fleetca.custodians import Terminal


@click.group(help="Plan, rehearse and hold ceremonies: make and change roots offline, from a reviewed sheet.")
def ceremony() -> None:
    pass


ceremony.add_command(ceremony_plan.plan)
ceremony.add_command(ceremony_plan.role_key)
ceremony.add_command(ceremony_plan.note)
ceremony.add_command(ceremony_kit.kit)
ceremony.add_command(ceremony_kit.check_kit)
ceremony.add_command(ceremony_transfer.show)
ceremony.add_command(ceremony_pins.pins)
ceremony.add_command(ceremony_transfer.collect)
ceremony.add_command(import_.import_)

_SHEET = click.argument("sheet", type=click.Path(dir_okay=False, path_type=Path))
_OUT = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Output folder [default: a folder named like the sheet]."
)
_YES = click.option("--yes", is_flag=True, help="Confirm every step without asking. People's keys still sign.")


@ceremony.command(help="Hold the ceremony of SHEET, step by step. Run it again to go on after a stop: nothing is signed twice.")
@_SHEET
@_OUT
@click.option("--credentials", type=click.Path(dir_okay=False, path_type=Path), help="File that says where keys rest.")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with the passphrase of the keys (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read the passphrase from.")
@click.option("--moved", default="", metavar="REASON", help="Why a run that began on another machine goes on here.")
@_YES
@output.json_option
def run(
    sheet: Path,
    out: Path | None,
    credentials: Path | None,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    moved: str,
    yes: bool,
    as_json: bool,
) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca import ceremonies, failpoints

    folder = out or sheet.parent / sheet.stem
    given = passphrase_file is not None or passphrase_fd is not None
    outcome = ceremonies.run(
        sheet,
        out=folder,
        passphrase=prompts.passphrase("the keys of this ceremony", file=passphrase_file, descriptor=passphrase_fd, twice=True),
        confirm=_confirm(yes=yes),
        clock=SystemClock(),
        chance=SystemChance(),
        credentials=credentials,
        ask=None
        if given and not prompts.interactive()
        else lambda what: prompts.passphrase(what, file=None, descriptor=None, twice=False)(),
        custodians=_custodians(),
        moved=moved,
        failpoint=failpoints.failpoint(),
    )
    _report(outcome, folder, as_json=as_json)


@ceremony.command(help="Rehearse SHEET: the same steps on throw-away keys. Everything is marked, and import refuses it.")
@_SHEET
@_OUT
@_YES
@output.json_option
def rehearse(sheet: Path, out: Path | None, yes: bool, as_json: bool) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca import ceremonies

    folder = out or sheet.parent / f"REHEARSAL-{sheet.stem}"
    outcome = ceremonies.rehearse(
        sheet,
        out=folder,
        confirm=_confirm(yes=yes),
        clock=SystemClock(),
        chance=SystemChance(),
        custodians=None if yes else _custodians(),
    )
    _report(outcome, folder, as_json=as_json, rehearsal=True)


def _custodians() -> Terminal | None:
    from fleetca.custodians import Terminal

    return Terminal() if prompts.interactive() else None


def _confirm(*, yes: bool) -> Callable[[Step], bool]:
    def confirm(step: Step) -> bool:
        who = step.participant
        prompts.say(_again(step) if step.again else _shown(step))
        if yes:
            prompts.say(f"  {'confirmed' if who is None else f'{who.person} ({who.role}) confirms'}, by --yes")
            return True
        return prompts.confirmed("Sign this?" if who is None else f"{who.person} ({who.role}): do you confirm this?", flag="--yes")

    return confirm


def _shown(step: Step) -> str:
    place = f" ({step.number} of {step.count})" if step.count else ""
    lines = [f"\n{step.title}{place}"]
    lines += [f"  {name:<14} {value}" for name, value in step.lines]
    name = "SHA-256 of TBS" if step.act else "SHA-256"
    lines += [f"  {name:<14} {step.tbs_sha256.hex()}", f"  {'in words':<14} {step.words}"]
    return "\n".join(lines)


def _again(step: Step) -> str:
    return f"  the same, SHA-256 {step.tbs_sha256.hex()}"


def _report(outcome: Outcome, folder: Path, *, as_json: bool, rehearsal: bool = False) -> None:
    from ca.rules.ceremony_words import words
    from ca.system import SystemClock

    document = {
        "ceremony": outcome.name,
        "rehearsal": rehearsal,
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
    lines = [f"The {'rehearsal of the ' if rehearsal else ''}ceremony {outcome.name} is finished."]
    for made in outcome.outputs:
        lines += [
            f"  {folder / made.file}",
            f"      until {output.iso(made.not_after)} ({output.distance(made.not_after, now)}), SHA-256 fingerprint {made.fingerprint.hex()}",
            f"      in words {words(made.fingerprint)}",
        ]
    lines.append(f"  SHA-256 of the transcript's last line {outcome.transcript_sha256.hex()}")
    if rehearsal:
        lines.append("Its keys are gone. Nothing of it can be imported.")
    else:
        lines.append(f"Note the fingerprint of the root on paper. Keys (*.key) stay offline. Next: fleetca import {folder}")
    output.result(document, "\n".join(lines), as_json=as_json)


@ceremony.command(help="Check TRANSCRIPT (or the folder it lies in) and its outputs: offline, without settings or keys.")
@click.argument("transcript", type=click.Path(path_type=Path))
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="[ID=]FILE",
    help="Certificate of a CA that an earlier ceremony made; give ID=FILE if its id is not root. May be repeated.",
)
@click.option("--root-sha256", help="SHA-256 fingerprint that the root must have, from the paper.")
@click.option("--sheet-sha256", help="SHA-256 that the sheet must have, from the paper.")
@click.option("--software-sha256", help="SHA-256 that the program must have had, from the paper.")
@output.json_option
def verify(
    transcript: Path, roots: tuple[str, ...], root_sha256: str | None, sheet_sha256: str | None, software_sha256: str | None, as_json: bool
) -> None:
    from hashlib import sha256

    from ca.rules.ceremony_check import compare
    from fleetca import ceremonies, ceremony_host, forms

    known: dict[str, bytes] = {}
    for each in roots:
        name, equals, file = each.partition("=")
        known[name if equals else "root"] = forms.certificate_file(Path(file if equals else name), key="--root")
    verified = ceremonies.verify(transcript, roots=known)
    compare(verified, root_sha256=root_sha256, sheet_sha256=sheet_sha256, software_sha256=software_sha256)
    fingerprint = sha256(verified.root_certificate).hexdigest() if verified.root else None
    same = set(verified.software_sha256) == {ceremony_host.software_sha256()}
    document: Mapping[str, Any] = {
        "ceremony": verified.name,
        "about": verified.about,
        "place": verified.place,
        "rehearsal": verified.rehearsal,
        "began": output.iso(verified.began),
        "finished": output.iso(verified.finished),
        "software": verified.software,
        "software_sha256": list(verified.software_sha256),
        "software_is_this": same,
        "sheet_sha256": verified.sheet_sha256.hex(),
        "transcript_sha256": verified.transcript_sha256.hex(),
        "root": verified.root,
        "root_sha256": fingerprint,
        "people": [{"role": role, "person": person} for role, person in verified.people],
        "remarks": list(verified.remarks),
        "outputs": [
            {"act": made.act, "file": made.file, "sha256": made.sha256.hex(), "fingerprint": sha256(made.der).hexdigest()}
            for made in verified.outputs
        ],
    }
    lines = [
        (
            f"The {'REHEARSAL of the ' if verified.rehearsal else ''}ceremony {verified.name} holds: every line of its transcript, its seal, "
            f"{len(verified.people)} people's signatures, and {len(verified.outputs)} outputs."
        ),
        prompts.fact("about", verified.about),
        *([prompts.fact("place", verified.place)] if verified.place else []),
        prompts.fact("from", f"{output.iso(verified.began)} to {output.iso(verified.finished)}"),
        prompts.fact(
            "software", f"{verified.software}, {'this very one' if same else 'not this one'}: SHA-256 {verified.software_sha256[0]}"
        ),
        prompts.fact("sheet", f"SHA-256 {verified.sheet_sha256.hex()}"),
        prompts.fact("transcript", f"SHA-256 of its last line {verified.transcript_sha256.hex()}"),
        *(prompts.fact(role, person) for role, person in verified.people),
        *(prompts.fact(made.act, f"{made.file}, SHA-256 fingerprint {sha256(made.der).hexdigest()}") for made in verified.outputs),
        *(prompts.fact("remark", remark) for remark in verified.remarks),
    ]
    if fingerprint is not None:
        lines.append(f"Compare with the paper: the SHA-256 fingerprint of {verified.root} is\n  {fingerprint}")
    output.result(document, "\n".join(lines), as_json=as_json)
