"""Makes an evidence pack: runs through the parts, writes each file as it comes, lists and signs what was written. Edge: one file, put in place whole.

The same deployment, period and choices give the same octets but for the signature, which holds the time. It is a DSSE envelope around an in-toto
statement about the manifest; the manifest has the hash of every other file.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from ca.errors import Conflict, Malformed
from ca.model import Checkpoint, UnixTime
from ca.ports import RecordFiles, SigningKey
from ca.rules import note, tiles
from ca.rules.leaf import canonical
from fleetca.evidence import container, parts, segment, verify
from fleetca.evidence.source import Source
from fleetca.evidence.verify import Tally
from fleetca.folder import sync_folder, understood

VERIFIER: Final = Path(verify.__file__)
_TAKEN_APART: Final = re.compile(r"^09-log/leaves\.jsonl$|/events\.jsonl$|^04-inventory/sbom\.json$|^10-requirements/|^12-mappings/")
"""Where every withheld name was put away field by field, and what comes with the software and knows no deployment."""
_README: Final = """This is an evidence pack of fleetca: what happened in a period, and what proves it.

To verify it, with nothing but Python and openssl, without a network:

    python3 verify.py PACK --signer SHA256

Take verify.py and the SHA-256 of the signer's public key from those who run the deployment, once, on a way of your own: who made this pack could
have made all of it. Keep 09-log/checkpoint: give it with --since next time, and it is proved that nothing before it was changed.

    01-policy        the practice statement and the key management policy, made from the settings
    02-ceremonies    what was signed with root keys, before witnesses; each a sealed transcript with its outputs
    03-authorities   CA certificates, CRLs, link certificates, pins
    04-inventory     keys with their states; CycloneDX bills of cryptography and of software
    05-issuance      every certificate of the period, counts, and a sample that the record's root chose, with lint verdicts
    06-status        how fast revocations came into CRLs, and whether one was always in force
    07-devices       devices, stations and shifts, wipe receipts, provisioning records
    08-access        operators, roles, and the messages by which several persons approved grave acts
    09-log           the leaves of the period, with the proof that they stand in the signed record
    10-requirements  what events implement, and the matrix of requirements, tests and results
    11-drills        ceremonies, clones, clock changes and other events
    12-mappings      frameworks: clause, our requirements, parts of this pack
    13-findings      what is open, over or missing, and what the looking commands said
    manifest.json    the hash of every file, and what each part lacks and why
    signature.json   DSSE around an in-toto statement about the manifest

events.jsonl repeats the leaves that a part is about, as they stand in 09-log. verify.py says of every file what it proved, and what the signer of the
pack only says.
"""


@dataclass(frozen=True, slots=True)
class Made:
    """A pack that was written."""

    sha256: str
    signer: str
    files: int
    octets: int
    leaves: int
    absent: tuple[tuple[str, str], ...]
    exposed: tuple[str, ...]


def period(text: str) -> tuple[UnixTime, UnixTime]:
    """The seconds of `2026-01-01..2026-12-31`: both days are in it, UTC; the second number is the first second behind it.

    Raises:
        Malformed: it is no period (`bad-period`).
    """
    first, dots, last = text.partition("..")
    begin, end = _day(first), _day(last)
    if not dots or begin is None or end is None or end < begin:
        raise Malformed("bad-period", f"{text!r} is no period.", fix="Write it as 2026-01-01..2026-12-31; both days are in it.")
    return int(begin.timestamp()), int((end + timedelta(days=1)).timestamp())


def _day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if f"{day:%Y-%m-%d}" == text else None


def read_log(files: RecordFiles, key: note.NoteKey, text: str) -> tuple[Checkpoint, Tally, segment.Segment]:
    """The head of the record, and what it tells of a period.

    Raises:
        Malformed: `bad-period`.
        Broken: the log does not hold (`evidence-log`).
    """
    tally = Tally(*period(text))
    octets = files.read(tiles.CHECKPOINT)
    if octets is None:
        raise segment.broken("It has no checkpoint")
    checkpoint = note.read_checkpoint(octets, [key])
    return checkpoint, tally, segment.find(files, checkpoint, tally)


def make(source: Source, out: Path, *, key: SigningKey, now: UnixTime, progress: Callable[[str], None] = lambda _: None) -> Made:
    """Write a pack to a file that must not exist; it is there whole or not at all.

    Args:
        progress: is told each part when it begins.

    Raises:
        Conflict: it exists (`output-exists`), or a kept checkpoint is not of this log's past (`checkpoint-ahead`).
        Broken: the record does not hold (`evidence-log`).
        Unacceptable: a withheld text would stand in it (`redaction-leak`).
    """
    if out.exists():
        raise Conflict("output-exists", f"{out} exists already; it is not replaced.", fix="Name another file, or move this one away.")
    for kept in (*source.since, *(one for one, _ in source.stamps)):
        if kept.origin != source.checkpoint.origin or kept.size > source.checkpoint.size:
            raise Conflict(
                "checkpoint-ahead", f"A kept checkpoint of {kept.size} leaves is not of the past of this log.", fix="Find out why first."
            )
    fresh = out.with_name(f".{out.name}.new")
    with understood(out):
        try:
            with fresh.open("w+b") as file:
                fresh.chmod(0o600)
                made = _write(source, file, key=key, now=now, progress=progress)
            fresh.replace(out)
            sync_folder(out.parent)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()
    return made


def _write(source: Source, file: BinaryIO, *, key: SigningKey, now: UnixTime, progress: Callable[[str], None]) -> Made:
    writer = container.Writer(file)
    told: list[dict[str, Any]] = []
    # Whatever is withheld is known only after the leaves were read: they are read for it before anything is written.
    if source.redaction.classes:
        for body in segment.bodies(source.files, source.segment, source.checkpoint):
            source.redaction.line(body)
    writer.put("00-readme.txt", _README.encode())
    for id_, title, part in parts.PARTS:
        source.absent = []
        progress(f"{id_}: {title}")
        names = []
        for name, pieces in part(source):
            _stream(writer, name, pieces, source)
            names.append(name)
        told.append({"id": id_, "title": title, "files": names, "absent": list(source.absent)})
    writer.put("verify.py", VERIFIER.read_bytes())
    begin, end = source.tally.begin, source.tally.end
    manifest = canonical(
        {
            "format": verify.FORMAT,
            "deployment": source.settings.deployment.name,
            "software": f"fleetca {source.version}",
            "settings_sha256": hashlib.sha256(source.settings.octets).hexdigest(),
            "period": {"text": source.period, "from": begin, "to": end},
            "log": {"origin": source.checkpoint.origin, "size": source.checkpoint.size, "root": source.checkpoint.root.hex()},
            "withheld": {"classes": sorted(source.redaction.classes), "guessable": sorted(source.redaction.exposed)},
            "sample": "withheld" if source.redaction.classes else "chosen by the root of the record",
            "parts": told,
            "files": [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in writer.entries],
        }
    )
    writer.put("manifest.json", manifest)
    writer.put("signature.json", canonical(_signed(manifest, key, now)))
    writer.close()
    file.flush()
    file.seek(0)
    return Made(
        sha256=_digest(file),
        signer=hashlib.sha256(key.spki).hexdigest(),
        files=len(writer.entries),
        octets=file.tell(),
        leaves=source.segment.end - source.segment.start,
        absent=tuple((one["id"], what) for one in told for what in one["absent"]),
        exposed=tuple(sorted(source.redaction.exposed)),
    )


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while octets := file.read(container.PIECE):
        digest.update(octets)
    return digest.hexdigest()


def _stream(writer: container.Writer, name: str, pieces: Iterable[bytes], source: Source) -> None:
    with writer.entry(name) as stream:
        for piece in pieces:
            if not _TAKEN_APART.search(name) and (value := source.redaction.leaks(piece)) is not None:
                raise parts.leaking(name, value)
            stream.write(piece)


def _signed(manifest: bytes, key: SigningKey, now: UnixTime) -> dict[str, Any]:
    statement = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "manifest.json", "digest": {"sha256": hashlib.sha256(manifest).hexdigest()}}],
            "predicateType": verify.PREDICATE,
            "predicate": {"signed_at": now},
        }
    )
    dsse = f"DSSEv1 {len(verify.STATEMENT)} {verify.STATEMENT} {len(statement)} ".encode() + statement
    made = {"keyid": hashlib.sha256(key.spki).hexdigest(), "sig": _text(key.sign(dsse)), "spki": _text(key.spki)}
    return {"payload": _text(statement), "payloadType": verify.STATEMENT, "signatures": [made]}


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
