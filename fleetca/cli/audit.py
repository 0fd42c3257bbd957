"""`fleetca audit`: show and verify the record. Needs nothing of a deployment but its files; the database only where it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.audit import Report
    from ca.rules.note import NoteKey
    from config.settings import Settings

_DIRECTORY = click.Path(exists=True, file_okay=False)
_FILE = click.Path(exists=True, dir_okay=False)
_KEY_HELP = (
    "The log's public key, NAME+ID+BASE64, or a file with that line; may be given more than once. "
    "Without it the file beside the log is taken, DIR.verifier: good against damage, not against who can write there."
)


@click.group(help="Show and verify the tamper-evident record. docs/explanation/record.md says what it shows and what it cannot.")
def audit() -> None:
    """Subcommands below."""


@audit.command(
    help="Verify the log in DIR: by itself, and against what was kept elsewhere. Without DIR, the log and the database of the settings. "
    "Names each leaf that was edited, dropped, inserted or reordered, each fork, and each row without its leaf. Exit code 8: findings."
)
@click.argument("directory", required=False, type=_DIRECTORY)
@click.option("--since", "since", multiple=True, type=_FILE, help="A checkpoint that was kept elsewhere. May be given more than once.")
@click.option("--against", multiple=True, type=_DIRECTORY, help="Another copy of the log, kept elsewhere.")
@click.option("--receipt", "receipts", multiple=True, type=_FILE, help="A receipt that was handed to a client.")
@click.option("--key", "keys", multiple=True, help=_KEY_HELP)
@click.option("--database", metavar="URL", help="Compare each row of this database with its leaf; it is only read.")
@click.option("--files-only", is_flag=True, help="Without DIR: leave the database of the settings alone.")
@output.settings_option
@output.json_option
def verify(
    directory: str | None,
    since: Sequence[str],
    against: Sequence[str],
    receipts: Sequence[str],
    keys: Sequence[str],
    database: str | None,
    files_only: bool,
    settings: str,
    as_json: bool,
) -> int:
    from contextlib import ExitStack

    from ca.audit import Files
    from ca.audit import verify as judge
    from ca.log.tiles import TileDirectory

    read = None if directory else _settings(settings)
    folder = Path(directory) if directory else _folder(read)
    trusted, aside = _keys(keys, folder, read)
    if read and database is None and not files_only:
        from fleetca.forms import store_url

        database = store_url(read)
    with ExitStack() as stack:
        rows = None
        if database:
            from ca.store.engine import open_store

            store = open_store(database, readonly=True)
            stack.callback(store.close)
            rows = store.reading
        report = judge(
            Files(str(folder), TileDirectory(folder)),
            keys=trusted,
            checkpoints=[(path, Path(path).read_bytes()) for path in since],
            receipts=[(path, Path(path).read_bytes()) for path in receipts],
            copies=[Files(path, TileDirectory(Path(path))) for path in against],
            database=rows,
        )
    notes = [*report.notes, *aside, *_blind_spots(report)]
    output.result(_document(report, trusted, notes), _text(report, folder, trusted, notes), as_json=as_json)
    return output.FINDINGS if report.findings else 0


def _settings(path: str) -> Settings:
    from fleetca.forms import read_settings

    return read_settings(Path(path))


def _folder(read: Settings | None) -> Path:
    from ca.errors import NotFound

    assert read is not None
    if not read.log.directory.is_dir():
        raise NotFound("no-log", f"There is no log at {read.log.directory}.", fix="Start the deployment: fleetca serve")
    return read.log.directory


def _keys(given: Sequence[str], folder: Path, read: Settings | None) -> tuple[list[NoteKey], list[str]]:
    """The keys that are trusted, and a word of caution where they come from beside the log."""
    from ca.errors import Misconfigured
    from ca.rules.note import read_note_key

    if given:
        lines = [Path(each).read_text() if Path(each).is_file() else each for each in given]
        return [read_note_key(line) for line in lines], []
    beside = read.log.verifier if read else folder.resolve().parent / f"{folder.resolve().name}.verifier"
    if not beside.is_file():
        raise Misconfigured(
            "audit-key",
            "The public key of the log is not known.",
            why=f"There is no {beside}, and none was given.",
            fix="Give it with --key, from where it was kept when the deployment was set up.",
        )
    caution = f"The key was taken from {beside}. Who can write there can replace it: keep it elsewhere and give it with --key."
    return [read_note_key(beside.read_text())], [caution]


def _blind_spots(report: Report) -> list[str]:
    if [name for name in report.compared if name != "the database"]:
        return []
    blind = "Held against nothing that was kept elsewhere: who holds the key of the log could have rewritten it."
    return [f"{blind} Keep checkpoints, copies or receipts on another machine and give them with --since, --against, --receipt."]


def _document(report: Report, keys: Sequence[NoteKey], notes: Sequence[str]) -> dict[str, Any]:
    return {
        "verdict": "findings" if report.findings else "ok",
        "origin": report.checkpoint.origin if report.checkpoint else None,
        "size": report.size,
        "root": report.root.hex(),
        "checkpoint": report.checkpoint.note.decode() if report.checkpoint else None,
        "keys": [str(key) for key in keys],
        "compared": list(report.compared),
        "findings": [
            {"kind": finding.kind.value, "what": finding.what, "first": finding.first, "last": finding.last} for finding in report.findings
        ],
        "notes": list(notes),
    }


def _text(report: Report, folder: Path, keys: Sequence[NoteKey], notes: Sequence[str]) -> str:
    origin = report.checkpoint.origin if report.checkpoint else "no checkpoint that holds"
    lines = [
        f"{folder}: {report.size} leaves ({origin})",
        f"  root      {report.root.hex()}",
        f"  key       {', '.join(f'{key.name}+{key.id.hex()}' for key in keys)}",
        f"  against   {', '.join(report.compared) or 'itself only'}",
    ]
    lines += [f"  FINDING   {finding.kind.value}: {finding.what}" for finding in report.findings]
    lines += [f"  note      {note}" for note in notes]
    count = len(report.findings)
    lines.append(f"{count} finding{'s' if count != 1 else ''}." if count else "No findings.")
    return "\n".join(lines)


@audit.command(help="Show the newest leaves of the log in DIR, or those from --start on. Without DIR, the log of the settings.")
@click.argument("directory", required=False, type=_DIRECTORY)
@click.option("--start", type=click.IntRange(min=0), help="The first index to look at; without it the newest leaves are shown.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many leaves to show.")
@click.option("--kind", help="Only leaves of this kind: issuance, revocation, crl, token ...")
@click.option("--find", "text", help="Only leaves that hold this text: a device, a serial number, an operator ...")
@click.option("--key", "keys", multiple=True, help=_KEY_HELP)
@output.settings_option
@output.json_option
def show(
    directory: str | None,
    start: int | None,
    limit: int,
    kind: str | None,
    text: str | None,
    keys: Sequence[str],
    settings: str,
    as_json: bool,
) -> None:
    from ca import audit as record
    from ca.errors import NotFound
    from ca.log.tiles import TileDirectory
    from ca.model import TenantId
    from ca.rules import implements, tenancy
    from ca.rules.note import read_checkpoint

    read = None if directory else _settings(settings)
    folder = Path(directory) if directory else _folder(read)
    trusted, _ = _keys(keys, folder, read)
    files = TileDirectory(folder)
    octets = files.read("checkpoint")
    if octets is None:
        raise NotFound("no-log", f"There is no log at {folder}.", why="It has no checkpoint.", fix="Start the deployment: fleetca serve")
    checkpoint = read_checkpoint(octets, trusted)
    tenant = reach.tenant()
    plain = kind is None and text is None and tenant is None
    first = start if start is not None else max(0, checkpoint.size - limit) if plain else 0
    leaves = record.show(files, start=first, size=checkpoint.size)
    if tenant is not None:
        prefix, issuers = _own(settings, tenant)
        leaves = tenancy.view(leaves, TenantId(tenant), prefix, issuers)
    wanted = _wanted(leaves, kind, text)
    chosen = _first(wanted, limit) if start is not None or plain else _newest(wanted, limit)
    output.result(
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "checkpoint": checkpoint.note.decode(),
            "leaves": [{"index": index, "leaf": leaf, "requirements": list(implements.of(leaf.get("kind")))} for index, leaf in chosen],
        },
        "\n".join([f"{folder}: {checkpoint.size} leaves ({checkpoint.origin}), root {checkpoint.root.hex()}", *(map(_line, chosen))]),
        as_json=as_json,
    )


def _own(settings: str, tenant: str) -> tuple[str, frozenset[str]]:
    """What the tenant's device ids begin with, and the issuers that are its.

    Raises:
        NotFound: there is no such tenant.
    """
    from ca.rules.tenancy import unknown
    from fleetca import forms

    read = _settings(settings)
    for one in read.tenants:
        if one.name == tenant:
            return one.prefix, frozenset(issuer for issuer, owner in forms.issuer_owners(read).items() if owner == tenant)
    raise unknown(tenant)


_Leaf = tuple[int, dict[str, Any]]


def _wanted(leaves: Iterable[tuple[int, bytes]], kind: str | None, text: str | None) -> Iterable[_Leaf]:
    for index, body in leaves:
        if text is not None and text.encode() not in body:
            continue
        try:
            leaf = json.loads(body)
        except ValueError:
            leaf = None
        if not isinstance(leaf, dict):
            leaf = {"kind": "unreadable", "octets": body.hex()}
        if kind in (None, leaf.get("kind")):
            yield index, leaf


def _first(leaves: Iterable[_Leaf], limit: int) -> list[_Leaf]:
    from itertools import islice

    return list(islice(leaves, limit))


def _newest(leaves: Iterable[_Leaf], limit: int) -> list[_Leaf]:
    from collections import deque

    return list(deque(leaves, maxlen=limit))


def _line(numbered: _Leaf) -> str:
    index, leaf = numbered
    at = leaf.get("at")
    when = output.iso(at) if isinstance(at, int) else "-"
    rest = [f"{name}={_short(leaf[name])}" for name in sorted(leaf) if name not in ("kind", "at") and leaf[name] not in (None, [], "")]
    return f"{index:>8}  {when}  {leaf.get('kind')}  {' '.join(rest)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 48 else f"{text[:16]}..."


@audit.command(help="Verify a receipt by itself, offline: that the leaf in FILE stands in a log that the key has signed.")
@click.argument("file", type=_FILE)
@click.option("--key", "keys", multiple=True, required=True, help="The log's public key, NAME+ID+BASE64, or a file with that line.")
@click.option("--certificate", type=_FILE, help="A PEM certificate: the receipt must be for its issuance.")
@output.json_option
def receipt(file: str, keys: Sequence[str], certificate: str | None, as_json: bool) -> None:
    from ca.errors import Unauthenticated
    from ca.rules import receipt as receipts

    trusted, _ = _keys(keys, Path(), None)
    read = receipts.read(Path(file).read_bytes())
    checkpoint = receipts.verify(read, trusted)
    if certificate and not receipts.is_for(read, _tbs(certificate)):
        raise Unauthenticated(
            "receipt-other-certificate", f"{file} is no receipt for the certificate in {certificate}.", why="Its leaf tells of another one."
        )
    leaf = json.loads(read.body)
    output.result(
        {"origin": checkpoint.origin, "index": read.index, "size": checkpoint.size, "root": checkpoint.root.hex(), "leaf": leaf},
        f"{file} holds: leaf {read.index} of {checkpoint.origin}, in a log of {checkpoint.size} leaves.\n{_line((read.index, leaf))}",
        as_json=as_json,
    )


def _tbs(path: str) -> bytes:
    from cryptography import x509

    from ca.errors import Malformed

    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes()).tbs_certificate_bytes
    except ValueError as error:
        raise Malformed("bad-certificate", f"{path} is not a PEM certificate.", why=str(error)) from None
