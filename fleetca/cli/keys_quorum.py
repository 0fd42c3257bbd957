"""`fleetca keys quorum`, `backup`, `restore`, `drill`: custody by several people. Runs offline, without a deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, prompts

if TYPE_CHECKING:
    from ca.custody import Custody
    from ca.keys.shares import SharedKey
    from ca.model import Quorum

_EXISTING = click.Path(dir_okay=False, path_type=Path)
_QUORUM = click.option("--quorum", "quorum_file", type=_EXISTING, required=True, help="The set's quorum.json.")
_SHARES = click.option("--share-file", "share_files", multiple=True, help="A practice share (mode 0600); as often as needed. [asked]")


def _custody() -> Custody:
    from ca.custody import Custody
    from ca.errors import Misconfigured
    from ca.system import SystemClock

    try:
        from ca.keys.shares import Slip39
    except ModuleNotFoundError:
        raise Misconfigured(
            "extra-missing",
            "Shares need the library shamir-mnemonic.",
            why="It comes with the extra ceremony.",
            fix='pip install "fleetca[ceremony]"',
        ) from None
    return Custody(sharing=Slip39(), clock=SystemClock())


def _read(file: Path) -> Quorum:
    from ca.rules import quorum as rule
    from fleetca import key_files

    return rule.read(key_files.octets(file, "description of a set of shares"))


def _unlock(quorum: Quorum, share_files: tuple[str, ...]) -> tuple[SharedKey, tuple[str, ...]]:
    from fleetca.custodians import Terminal, from_files

    terminal = Terminal()
    key, who = _custody().unlock(quorum, ask=from_files(share_files) if share_files else terminal.ask, told=terminal.told)
    return key, who  # type: ignore[return-value]


@click.group(help="A key that several custodians share (SLIP-39): M of N of them open it.")
def quorum() -> None:
    pass


@quorum.command(help="Make a set of shares called NAME: each is shown once to its custodian and read back. Only quorum.json is written.")
@click.argument("name")
@click.option("--custodian", "custodians", multiple=True, required=True, help="A custodian's name; once for each.")
@click.option("--threshold", type=int, required=True, help="How many have to come.")
@click.option("--out", type=_EXISTING, required=True, help="Where quorum.json goes; it holds no secret.")
@click.option("--practice", type=click.Path(file_okay=False, path_type=Path), help="Rehearse: write the shares into files of this folder.")
@output.json_option
def make(name: str, custodians: tuple[str, ...], threshold: int, out: Path, practice: Path | None, as_json: bool) -> None:
    from ca.errors import Conflict
    from ca.rules import quorum as rule
    from fleetca.custodians import Practice, Terminal, check_practice
    from fleetca.folder import put_new

    check_practice(name, practice)
    if out.exists():
        raise Conflict("output-exists", f"{out} exists already.", why="Its shares may be in use.", fix="Choose another file.")
    people = Terminal() if practice is None else Practice(practice)
    made, _ = _custody().make(name, custodians, threshold, show=people.show, reenter=people.reenter)
    put_new(out, rule.write(made))
    output.result(
        _document(made),
        "\n".join([f"{made.shape} custodians have {made.name} (set {made.identifier}).", prompts.fact("file", out)]),
        as_json=as_json,
    )


@quorum.command(help="What a quorum.json says.")
@click.argument("file", type=_EXISTING)
@output.json_option
def show(file: Path, as_json: bool) -> None:
    found = _read(file)
    lines = [
        f"{found.name}, set {found.identifier}: {found.shape}, made {output.iso(found.made_at)}",
        *(f"  share {number}  {custodian}" for number, custodian in enumerate(found.custodians, start=1)),
    ]
    output.result(_document(found), "\n".join(lines), as_json=as_json)


@quorum.command("check-share", help="Check one paper: readable, and of this set. For the custodian alone; opens nothing.")
@_QUORUM
@_SHARES
@output.json_option
def check_share(quorum_file: Path, share_files: tuple[str, ...], as_json: bool) -> None:
    from fleetca.custodians import Terminal, from_files

    found = _read(quorum_file)
    custody = _custody()
    ask = from_files(share_files) if share_files else Terminal().ask
    given = custody.verify_share(found, ask(custody.gather(found)))
    output.result({"custodian": given.custodian}, f"This is the share of {given.custodian}, and it is whole.", as_json=as_json)


@quorum.command(help="Seal a key file anew under a set of shares, in a new folder. The old file stays; destroy it.")
@click.argument("key", type=_EXISTING)
@_QUORUM
@_SHARES
@click.option("--passphrase-file", type=click.Path(dir_okay=False), help="File with the passphrase it is sealed with now (mode 0600).")
@click.option("--passphrase-fd", type=int, help="File descriptor to read that passphrase from.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The new folder.")
@output.json_option
def seal(
    key: Path, quorum_file: Path, share_files: tuple[str, ...], passphrase_file: str | None, passphrase_fd: int | None, out: Path, as_json: bool
) -> None:  # fmt: skip
    import hashlib

    from ca.keys.sealed_file import SealedFileKeyStore
    from ca.model import KeyName

    found = _read(quorum_file)
    secret = prompts.passphrase(f"the key {key}", file=passphrase_file, descriptor=passphrase_fd, twice=False)
    shared, _ = _unlock(found, share_files)
    target = SealedFileKeyStore(out, shared.passphrase, quorum=True)
    sealed = SealedFileKeyStore(key.parent, secret).reseal(KeyName(key.stem), target)
    digest = hashlib.sha256(sealed.spki).hexdigest()
    path = target.path(KeyName(key.stem))
    text = f"{path} opens to {found.shape} custodians of {found.name}. Destroy {key} and its passphrase."
    output.result({"key": str(path), "spki_sha256": digest, "quorum": found.name}, text, as_json=as_json)


@click.command(
    help="Encrypt files and folders to a set of shares. Needs quorum.json, and nobody's share. CA keys only; other keys are refused."
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "quorum_file", type=_EXISTING, required=True, help="The set's quorum.json.")
@click.option("--out", type=_EXISTING, required=True, help="The backup's file.")
@click.option("--of", "of", default="", help="What it is a backup of; stands in its first line for everybody.")
@click.option("--settings", type=_EXISTING, help="The deployment's settings: they say which key files are CA keys.")
@output.json_option
def backup(paths: tuple[Path, ...], quorum_file: Path, out: Path, of: str, settings: Path | None, as_json: bool) -> None:
    from ca.errors import Conflict
    from ca.system import SystemClock
    from fleetca import quorum_backups
    from fleetca.forms import read_settings
    from fleetca.process import write_log_lines

    write_log_lines("keys-backup")
    if out.exists():
        raise Conflict("output-exists", f"{out} exists already.", fix="Choose another file.")
    found = _read(quorum_file)
    _custody()  # the library, before any work
    read = None if settings is None else read_settings(settings)
    members = quorum_backups.make(paths, out, found, settings=read, of=of, now=SystemClock().now())
    document = {"backup": str(out), "quorum": found.name, "files": [each.name for each in members]}
    output.result(document, f"{out}: {len(members)} files, for {found.shape} custodians of {found.name}.", as_json=as_json)


@click.command(help="Open a backup with the shares of a quorum, into a new folder.")
@click.argument("backup_file", metavar="BACKUP", type=_EXISTING)
@_QUORUM
@_SHARES
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The new folder.")
@output.json_option
def restore(backup_file: Path, quorum_file: Path, share_files: tuple[str, ...], out: Path, as_json: bool) -> None:
    from fleetca import quorum_backups

    key, who = _unlock(_read(quorum_file), share_files)
    members = quorum_backups.restore(backup_file, key, out)
    document = {"directory": str(out), "custodians": list(who), "files": [each.name for each in members]}
    output.result(document, f"{len(members)} files are in {out}, opened by {', '.join(who)}.", as_json=as_json)


@click.command(help="Prove that a backup can be restored, in memory, and write a record of it. Nothing restored is kept.")
@click.argument("backup_file", metavar="BACKUP", type=_EXISTING)
@_QUORUM
@_SHARES
@click.option("--out", type=_EXISTING, required=True, help="Where the record goes.")
@output.json_option
def drill(backup_file: Path, quorum_file: Path, share_files: tuple[str, ...], out: Path, as_json: bool) -> int:
    from ca.system import SystemClock
    from fleetca import quorum_backups
    from fleetca.folder import put_new

    found = _read(quorum_file)
    key, who = _unlock(found, share_files)
    record = quorum_backups.drill(backup_file, found, key, who, now=SystemClock().now())
    put_new(out, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    wrong = [each["name"] for each in record["keys"] if not each["opened"] or each["certificate_matches"] is False]
    lines = [
        f"{len(record['files'])} files restored, {len(record['keys']) - len(wrong)} of {len(record['keys'])} keys signed. The record: {out}"
    ]
    lines += [f"  {name}: its key could not be shown to be the right one" for name in wrong]
    output.result(dict(record), "\n".join(lines), as_json=as_json)
    return output.FINDINGS if wrong else 0


def _document(found: Quorum) -> dict[str, Any]:
    return {
        "name": found.name,
        "identifier": found.identifier,
        "threshold": found.threshold,
        "custodians": list(found.custodians),
        "made_at": output.iso(found.made_at),
    }
