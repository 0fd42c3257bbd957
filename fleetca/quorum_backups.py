"""Backups to a quorum: files in, one encrypted file out; back again; and a drill that proves it and keeps nothing. Edge: files and forms.

No private key goes in but a CA's (`ca.rules.key_life.check_escrow`), and none that is not sealed: the backup's own encryption is the second
wall, not the only one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import syslog
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.errors import Denied, FleetcaError, Malformed, Misconfigured
from ca.keys.quorum_backup import Sealing, opened, read_header
from ca.keys.sealed_file import SealedFileKeyStore
from ca.keys.shares import SharedKey
from ca.model import KeyName, KeyPurpose, Quorum, UnixTime
from ca.rules import drill as rule
from ca.rules import key_life, transcript
from ca.rules.leaf import canonical
from config.settings import Settings
from fleetca.folder import make_folder, put_new

log = structlog.get_logger()

MANIFEST: Final = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a backup."""

    name: str
    sha256: str
    size: int


# ---- Making -------------------------------------------------------------------------------------------------------------


def make(paths: Sequence[Path], out: Path, quorum: Quorum, *, settings: Settings | None, of: str, now: UnixTime) -> list[Member]:
    """Encrypt files and folders to a quorum.

    Raises:
        Denied: a private key is among them that is no CA's (`escrow-refused`), or that is not sealed (`plaintext-key`); nothing was written, and the attempt is logged.
        Misconfigured: a path is not there, or nothing is in them.
        Conflict: `out` exists.
    """
    files = list(_files(paths))
    for path, _ in files:
        try:
            _judge(path, settings)
        except Denied as error:
            _refused(error, path)
            raise
    members: list[Member] = []
    with tempfile.TemporaryFile(dir=out.absolute().parent) as sealed:
        sealing = Sealing(cast("BinaryIO", sealed), quorum, of=of, now=now)
        with tarfile.open(mode="w|", fileobj=cast("Any", sealing), format=tarfile.PAX_FORMAT) as tar:
            for path, name in files:
                content = path.read_bytes()
                members.append(Member(name, hashlib.sha256(content).hexdigest(), len(content)))
                _add(tar, name, content, now)
            listed = {"made_at": now, "of": of, "files": [{"name": m.name, "sha256": m.sha256, "size": m.size} for m in members]}
            _add(tar, MANIFEST, canonical(listed), now)
        sealing.close()
        sealed.seek(0)
        put_new(out, sealed.read(), mode=0o600)
    return members


def _add(tar: tarfile.TarFile, name: str, content: bytes, now: UnixTime) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, now
    tar.addfile(entry, io.BytesIO(content))


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    seen: set[str] = set()
    for path in paths:
        base = path.absolute().parent
        found = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file() and not each.is_symlink())
        if not found:
            raise Misconfigured("nothing-to-back-up", f"There is nothing to back up in {path}.", fix="Name files or folders that exist.")
        for each in found:
            name = str(each.absolute().relative_to(base))
            if name in seen or name == MANIFEST:
                raise Misconfigured("backup-name-twice", f"Two files would be called {name}.", fix="Back them up one by one.")
            seen.add(name)
            yield each, name


def _judge(path: Path, settings: Settings | None) -> None:
    with path.open("rb") as file:
        start = file.read(4096)
    if b"PRIVATE KEY-----" not in start:
        return
    if b"BEGIN ENCRYPTED PRIVATE KEY" not in start:
        raise Denied(
            "plaintext-key",
            f"{path} is a private key that is not sealed.",
            why="No plaintext key is kept (P10).",
            fix="Leave it out, or seal it.",
        )
    key_life.check_escrow(_purpose(path, settings), name=str(path))


def _refused(error: Denied, file: Path) -> None:
    """Whoever tries to copy a signing key leaves a trace that is not theirs: the system's log, beside the line on stderr (REQ-KEY-014)."""
    facts = {"requirement": "REQ-KEY-014", "code": error.code, "file": str(file.absolute()), "uid": os.getuid()}
    log.warning("escrow-refused", **facts)
    # Says nothing and does no harm where nobody listens.
    syslog.openlog("fleetca", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_WARNING, json.dumps({"event": "escrow-refused", **facts}))
    syslog.closelog()


def _purpose(path: Path, settings: Settings | None) -> KeyPurpose | None:
    """What a sealed key file is for, as its ceremony's transcript or the settings say; None where neither knows it."""
    written = path.parent / transcript.FILE
    if written.exists():
        try:
            records = transcript.read(written.read_bytes()).records
        except FleetcaError:
            records = ()
        if any(record.kind == "key" and record.fields.get("act") == path.stem for record in records):
            return KeyPurpose.root_ca
    issuers = settings.issuers if settings is not None else ()
    ours = {each.key.path.resolve() for each in issuers if each.key is not None and each.key.path is not None}
    return KeyPurpose.issuing_ca if path.resolve() in ours else None


# ---- Opening ------------------------------------------------------------------------------------------------------------


def restore(backup: Path, key: SharedKey, into: Path) -> list[Member]:
    """Write what was backed up into a new folder, each file compared with the manifest.

    Raises:
        Misconfigured: the folder is not empty (`folder-in-use`).
        Malformed: `bad-backup`, `backup-damaged`; what was written so far must not be used.
    """
    if into.exists() and any(into.iterdir()):
        raise Misconfigured("folder-in-use", f"{into} is not empty.", fix="Give a folder that does not exist yet.")
    make_folder(into)
    listed: Mapping[str, Any] | None = None
    found: dict[str, str] = {}
    with backup.open("rb") as stream, tarfile.open(mode="r|", fileobj=cast("Any", _Reader(opened(stream, key)))) as tar:
        for entry in tar:
            # Names are ours, but whoever had quorum.json could have written this backup.
            name = Path(entry.name)
            if not entry.isreg() or name.is_absolute() or ".." in name.parts or entry.name in found or listed is not None:
                raise Malformed("bad-backup", f"The backup has an entry that no backup of ours has: {entry.name!r}.")
            file = tar.extractfile(entry)
            content = b"" if file is None else file.read()
            if entry.name == MANIFEST:
                listed = json.loads(content)
                continue
            make_folder((into / name).parent)
            put_new(into / name, content, mode=0o600)
            found[entry.name] = hashlib.sha256(content).hexdigest()
    if listed is None or {each["name"]: each["sha256"] for each in listed["files"]} != found:
        raise Malformed("backup-damaged", "The backup does not hold what its manifest says.", fix="Take another copy of it.")
    return [Member(each["name"], each["sha256"], each["size"]) for each in listed["files"]]


class _Reader:
    """Chunks as a file, for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            more = next(self._chunks, None)
            if more is None:
                break
            self._held += more
        given, self._held = self._held[:size], self._held[size:]
        return given


# ---- Drill --------------------------------------------------------------------------------------------------------------


def drill(backup: Path, quorum: Quorum, key: SharedKey, custodians: Sequence[str], *, now: UnixTime) -> Mapping[str, Any]:
    """Restore into memory, let every key that the quorum seals sign, compare with the certificates beside, and keep nothing but the record.

    Raises:
        Malformed: the backup does not hold.
        KeyUnavailable: a key of it cannot be opened.
    """
    shared_memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, 0700
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        members = restore(backup, key, Path(folder) / "restored")
        with backup.open("rb") as stream:
            header, _ = read_header(stream)
        digest = hashlib.sha256(backup.read_bytes()).hexdigest()
        record: dict[str, Any] = {
            "kind": "restore-drill",
            "version": 1,
            "at": now,
            "quorum": {"name": quorum.name, "identifier": quorum.identifier, "threshold": quorum.threshold, "of": len(quorum.custodians)},
            "custodians": list(custodians),
            "backup": {"sha256": digest, "of": header["of"], "made_at": header["made_at"]},
            "files": [{"name": each.name, "sha256": each.sha256, "size": each.size} for each in members],
        }
        record["keys"] = [_proved(path, key, record) for path in sorted((Path(folder) / "restored").rglob("*.key"))]
    return record


def _proved(path: Path, key: SharedKey, record: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        opened_key = SealedFileKeyStore(path.parent, key.passphrase, quorum=True).open(KeyName(path.stem))
    except FleetcaError as error:
        if error.code != "wrong-passphrase":
            raise
        return {"name": path.stem, "opened": False, "why": "sealed under another passphrase than this quorum's"}
    digest = hashlib.sha256(opened_key.spki).hexdigest()
    beside = path.with_suffix(".pem")
    matches = None
    if beside.exists():
        spki = (
            x509.load_pem_x509_certificates(beside.read_bytes())[0]
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
        matches = spki == opened_key.spki
    signature = opened_key.sign(rule.signed_octets(record))
    return {"name": path.stem, "opened": True, "spki_sha256": digest, "certificate_matches": matches, "signature": signature.hex()}
