"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint), with Ed25519 signatures. Pure.

Knows text and public keys; the signature itself is made by whoever holds the log's key. A text that no trusted key signed is not
returned. A verifier's key is written in one line, `name+keyid+base64`, so that an auditor can keep it on paper.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ca.errors import Malformed, Misconfigured, Unauthenticated
from ca.model import Checkpoint, Digest

ED25519 = b"\x01"
"""The signature type of signed-note."""
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""DER of an Ed25519 SubjectPublicKeyInfo up to the key's 32 octets (RFC 8410 4)."""
_MARK = "— "
_MAX_NOTE = 1 << 18
_MAX_SIGNATURES = 64
_NAME = re.compile(r"[^\s+]+")


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that signs notes under a name."""

    name: str
    public: bytes
    """32 octets, RFC 8032."""

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"


def note_key(name: str, spki: bytes) -> NoteKey:
    """The key under which a log signs, from its SubjectPublicKeyInfo.

    Raises:
        Misconfigured: not Ed25519 (`log-key-type`), or a name that cannot stand in a note (`log-name`).
    """
    if not spki.startswith(_SPKI_PREFIX) or len(spki) != len(_SPKI_PREFIX) + 32:
        raise Misconfigured("log-key-type", "The key of the log is not an Ed25519 key.", fix="Make one: fleetca init does.")
    if not _NAME.fullmatch(name):
        raise Misconfigured("log-name", f"{name!r} cannot name a log.", why="A key name of a signed note has no spaces and no plus.")
    return NoteKey(name, spki[len(_SPKI_PREFIX) :])


def read_note_key(text: str) -> NoteKey:
    """A key from its one line.

    Raises:
        Malformed: it is not one, or its key id is another key's (`bad-note-key`).
    """
    parts = text.strip().split("+", 2)
    try:
        name, key_id, octets = parts[0], bytes.fromhex(parts[1]), base64.b64decode(parts[2], validate=True)
    except (IndexError, ValueError):
        raise Malformed("bad-note-key", "This is not a key of a log.", why="Expected one line: name+keyid+base64.") from None
    if not _NAME.fullmatch(name) or octets[:1] != ED25519 or len(octets) != 33:
        raise Malformed("bad-note-key", "This key of a log is not an Ed25519 key with a name.")
    key = NoteKey(name, octets[1:])
    if key.id != key_id:
        raise Malformed("bad-note-key", "This key of a log is damaged.", why=f"Its id should be {key.id.hex()}, not {key_id.hex()}.")
    return key


def checkpoint_text(origin: str, size: int, root: Digest) -> str:
    """What is signed: origin, size and root, a line each."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def signed_note(text: str, key: NoteKey, signature: bytes) -> bytes:
    """A note with one signature."""
    return f"{text}\n{_MARK}{key.name} {base64.b64encode(key.id + signature).decode()}\n".encode()


def open_note(note: bytes, keys: Sequence[NoteKey]) -> str:
    """The text of a note that at least one of the keys signed, and that none of them signed wrongly.

    Raises:
        Malformed: not a signed note (`bad-note`).
        Unauthenticated: a signature of a known key does not verify, or no known key signed (`note-signature`).
    """
    text, signatures = _take_apart(note)
    known = {(key.name, key.id): key for key in keys}
    verified = False
    for name, octets in signatures:
        key = known.get((name, octets[:4]))
        if key is None:  # signed-note: ignore whom we do not know, so that witnesses and new keys may sign too
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(octets[4:], text.encode())
        except InvalidSignature:
            raise Unauthenticated("note-signature", f"The signature of {name} on this note does not verify.") from None
        verified = True
    if not verified:
        signers = ", ".join(sorted({f"{name}+{octets[:4].hex()}" for name, octets in signatures}))
        raise Unauthenticated(
            "note-signature",
            "No trusted key signed this note.",
            why=f"It is signed by {signers}; trusted: {', '.join(f'{key.name}+{key.id.hex()}' for key in keys) or 'none'}.",
        )
    return text


def _take_apart(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > _MAX_NOTE:
        raise Malformed("bad-note", "This is not a signed note.", why=f"It has {len(note)} octets.")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise Malformed("bad-note", "This is not a signed note.", why="It is not UTF-8.") from None
    if any(character < " " and character != "\n" for character in whole):
        raise Malformed("bad-note", "This is not a signed note.", why="It has control characters.")
    head, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise Malformed("bad-note", "This is not a signed note.", why="It has no signatures below an empty line.")
    signatures: list[tuple[str, bytes]] = []
    for line in tail[:-1].split("\n"):
        name, space, octets = line.removeprefix(_MARK).partition(" ")
        try:
            signature = base64.b64decode(octets, validate=True)
        except ValueError:
            signature = b""
        if not line.startswith(_MARK) or not space or not _NAME.fullmatch(name) or len(signature) < 5:
            raise Malformed("bad-note", "This is not a signed note.", why="A signature line cannot be read.")
        signatures.append((name, signature))
    if len(signatures) > _MAX_SIGNATURES:
        raise Malformed("bad-note", "This is not a signed note.", why=f"It has {len(signatures)} signatures.")
    return head + "\n", signatures


def read_checkpoint(note: bytes, keys: Sequence[NoteKey]) -> Checkpoint:
    """A checkpoint whose signature holds.

    Raises:
        Malformed: not a checkpoint (`bad-note`, `bad-checkpoint`).
        Unauthenticated: as `open_note`.
    """
    lines = open_note(note, keys).split("\n")[:-1]
    if len(lines) < 3 or not all(lines):
        raise Malformed("bad-checkpoint", "This note is not a checkpoint.", why="It needs origin, size and root, and no empty lines.")
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise Malformed("bad-checkpoint", "This note is not a checkpoint.", why="Its second line is not a size.")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError:
        root = b""
    if len(root) != 32:
        raise Malformed("bad-checkpoint", "This note is not a checkpoint.", why="Its third line is not a root hash.")
    return Checkpoint(lines[0], int(lines[1]), Digest(root), note)
