"""`fleetca evidence`: what an auditor takes away. Reads settings, database and record; writes one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from fleetca.cli import output, prompts, reach

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(
    invoke_without_command=True,
    help="Write the evidence of a period to --out: a signed pack that verifies offline, by the verify.py within, with Python and openssl alone."
    " What a part lacks is named, with the reason.",
)
@click.option("--period", metavar="FROM..TO", help="Days, both within, UTC: 2026-01-01..2026-12-31.")
@click.option("--out", type=_FILE, help="The pack; must not exist.")
@click.option("--key", type=_FILE, help="The sealed key that signs it: an operator's, or one kept for this.")
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with its passphrase (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read it from.")
@click.option(
    "--since", multiple=True, type=_FILE, help="A checkpoint that the auditor kept: proof that the record begins with it. May be repeated."
)
@click.option(
    "--stamp", "stamps", multiple=True, type=_FILE,
    help="A checkpoint of this log with the time stamp of somebody else (RFC 3161) beside it, in FILE.tsr. May be repeated.",
)  # fmt: skip
@click.option(
    "--ceremony", "ceremonies", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of a ceremony's outputs. May be repeated.",
)  # fmt: skip
@click.option(
    "--station", "stations", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of a station of a factory line: its provisioning records. May be repeated.",
)  # fmt: skip
@click.option("--doctor", type=_FILE, help="What `fleetca doctor --json` printed.")
@click.option("--checklist", type=_FILE, help="What `fleetca checklist --json` printed.")
@click.option("--matrix", type=_FILE, help="The matrix of requirements and results of the release (scripts/trace --json).")
@click.option(
    "--redact", multiple=True, metavar="WHAT", help="Withhold devices, operators or tenants; all proofs still hold. May be repeated."
)
@click.option(
    "--redaction-key", type=_FILE, help="32 octets in hexadecimal (0600), kept here: it salts what is withheld, and can show it later."
)
@output.settings_option
@output.json_option
@click.pass_context
def evidence(
    context: click.Context,
    period: str | None,
    out: Path | None,
    key: Path | None,
    passphrase_file: str | None,
    passphrase_fd: int | None,
    since: tuple[Path, ...],
    stamps: tuple[Path, ...],
    ceremonies: tuple[Path, ...],
    stations: tuple[Path, ...],
    doctor: Path | None,
    checklist: Path | None,
    matrix: Path | None,
    redact: tuple[str, ...],
    redaction_key: Path | None,
    settings: str,
    as_json: bool,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if period is None or out is None or key is None:
        raise click.UsageError("Give --period, --out and --key.")
    from importlib.metadata import version

    from ca.keys.memory import MemoryKey
    from ca.keys.sealed_file import unseal
    from ca.log.tiles import TileDirectory
    from ca.model import KeyName
    from ca.rules import note
    from ca.store.engine import open_store
    from ca.system import SystemClock
    from fleetca import forms
    from fleetca.cli.keys_symmetric import secret_key
    from fleetca.evidence import pack
    from fleetca.evidence.redaction import Redaction
    from fleetca.evidence.source import Source

    held = Redaction(frozenset(redact), b"" if redaction_key is None else secret_key(redaction_key))
    read = forms.read_settings(Path(settings))
    trusted = note.read_note_key(read.log.verifier.read_text())
    kept = [note.read_checkpoint(reach.read(str(path)), [trusted]) for path in since]
    stamped = [(note.read_checkpoint(reach.read(str(path)), [trusted]), reach.read(f"{path}.tsr")) for path in stamps]
    pack.period(period)
    secret = prompts.passphrase(f"the key {key}", file=passphrase_file, descriptor=passphrase_fd, twice=False)
    signing = MemoryKey(KeyName(key.stem), unseal(reach.read(str(key)), secret(), what=str(key)))
    files = TileDirectory(read.log.directory)
    store = open_store(forms.store_url(read), readonly=True)
    try:
        checkpoint, tally, found = pack.read_log(files, trusted, period)
        source = Source(
            settings=read, version=version("fleetca"), reading=store.reading, files=files, issuers=store.reading.issuers(), period=period,
            checkpoint=checkpoint, tally=tally, segment=found, redaction=held, since=kept, stamps=stamped, ceremonies=ceremonies, stations=stations,
            matrix=matrix, doctor=doctor, checklist=checklist,
        )  # fmt: skip
        made = pack.make(source, out, key=signing, now=SystemClock().now(), progress=_progress)
    finally:
        store.close()
    document = {
        "out": str(out), "sha256": made.sha256, "signer": made.signer, "files": made.files, "octets": made.octets, "leaves": made.leaves,
        "absent": [{"part": part, "what": what} for part, what in made.absent], "guessable": list(made.exposed),
    }  # fmt: skip
    lines = [f"{out}: {made.files} files, {made.octets} octets, {made.leaves} leaves of the record", f"  signer  {made.signer}"]
    lines += [f"  absent  {part}: {what}" for part, what in made.absent]
    output.result(document, "\n".join(lines), as_json=as_json)
    if made.exposed:
        output.note(f"Withheld leaves of these kinds hold no secret: who guesses a name can recognise it: {', '.join(made.exposed)}.")


def _progress(part: str) -> None:
    if sys.stderr.isatty():
        output.note(part)


@evidence.command(help="Write verify.py to OUT: give it, and the signer's SHA-256, to the auditor on another way than the packs.")
@click.argument("out", type=_FILE)
def verifier(out: Path) -> None:
    from fleetca.evidence import pack

    reach.write_new(str(out), pack.VERIFIER.read_bytes(), mode=0o755)


@evidence.command(
    help="Show the withheld leaf INDEX of the record to an auditor: writes it, and what opens its view, to --out for verify.py --disclosed."
)
@click.argument("index", type=click.IntRange(0))
@click.option("--redaction-key", required=True, type=_FILE, help="The key that the pack was made with.")
@click.option("--out", required=True, type=_FILE, help="Where it goes (0600); must not exist.")
@output.settings_option
def disclose(index: int, redaction_key: Path, out: Path, settings: str) -> None:
    from ca import audit
    from ca.errors import NotFound
    from ca.log.tiles import TileDirectory
    from ca.rules import note, tiles
    from fleetca import forms
    from fleetca.cli.keys_symmetric import secret_key
    from fleetca.evidence.redaction import CLASSES, Redaction

    read = forms.read_settings(Path(settings))
    files = TileDirectory(read.log.directory)
    checkpoint = note.read_checkpoint(files.read(tiles.CHECKPOINT) or b"", [note.read_note_key(read.log.verifier.read_text())])
    body = next((body for _, body in audit.show(files, start=index, size=checkpoint.size)), None)
    if body is None:
        raise NotFound("no-such-leaf", f"The record has no leaf {index}.", why=f"It has {checkpoint.size}.")
    held = Redaction(frozenset(CLASSES), secret_key(redaction_key))
    shown = {"index": index, "leaf": body.decode(), "salts": held.salts(json.loads(body))}
    reach.write_new(str(out), (json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode(), mode=0o600)
