"""Backups that only a quorum opens: a stream encrypted to a public key. Ring 3.

    header      one line of canonical JSON: for which set, when, of what; readable by everybody
    data key    80 octets: a fresh AES-256 key, sealed with HPKE to the set's recipient; the header's digest is its info
    chunks      AES-256-GCM over up to 1 MiB each; the nonce counts them and marks the last, so none can be cut off, moved or taken away

The machine that makes backups every night holds nothing that opens them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ca.errors import KeyUnavailable, Malformed
from ca.keys import shares
from ca.model import Quorum, UnixTime
from ca.rules.leaf import canonical

CHUNK: Final = 1 << 20
_TAG: Final = 16
_SEALED_KEY: Final = 80
_LONGEST_HEADER: Final = 4096
_KIND: Final = "fleetca backup"


class Sealing:
    """A writer: what goes in as octets comes out encrypted. `close` writes the end; without it nobody can read the rest.

    Args:
        out: where it goes; not closed.
        quorum: who may open it.
        of: what it is a backup of.
        now: for the header.
    """

    def __init__(self, out: BinaryIO, quorum: Quorum, *, of: str, now: UnixTime) -> None:
        header = {"kind": _KIND, "version": 1, "quorum": quorum.name, "identifier": quorum.identifier, "of": of, "made_at": now}
        line = canonical(header) + b"\n"
        key = AESGCM.generate_key(bit_length=256)
        self._out, self._cipher, self._count, self._held = out, AESGCM(key), 0, bytearray()
        out.write(line)
        out.write(shares.seal_to(quorum.recipient, key, _info(line)))

    def write(self, octets: bytes) -> int:
        """Take more octets."""
        self._held += octets
        while len(self._held) > CHUNK:  # the last chunk is known only by what follows
            self._put(bytes(self._held[:CHUNK]), last=False)
            del self._held[:CHUNK]
        return len(octets)

    def close(self) -> None:
        """Write the last chunk."""
        self._put(bytes(self._held), last=True)
        self._held.clear()

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._count, last=last), chunk, None))
        self._count += 1


def read_header(stream: BinaryIO) -> tuple[Mapping[str, Any], bytes]:
    """The first line of a backup, and its octets: what it is, without opening it.

    Raises:
        Malformed: it is no backup (`bad-backup`).
    """
    line = stream.readline(_LONGEST_HEADER)
    try:
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("kind") != _KIND or header.get("version") != 1 or canonical(header) + b"\n" != line:
            raise ValueError
    except (ValueError, RecursionError):
        raise Malformed("bad-backup", "This file is no backup of ours.") from None
    return header, line


def opened(stream: BinaryIO, key: shares.SharedKey) -> Iterator[bytes]:
    """The octets that were backed up, chunk by chunk. What was given out before an error is genuine, and the rest is missing.

    Raises:
        Malformed: no backup (`bad-backup`), or changed or cut off (`backup-damaged`).
        KeyUnavailable: `not-for-this-quorum`.
    """
    _, line = read_header(stream)
    sealed = stream.read(_SEALED_KEY)
    if len(sealed) != _SEALED_KEY:
        raise _damaged()
    data_key = key.open(sealed, _info(line))
    if len(data_key) != 32:
        raise KeyUnavailable("not-for-this-quorum", "This backup holds no key of ours.")
    cipher, count, chunk = AESGCM(data_key), 0, stream.read(CHUNK + _TAG)
    while True:
        following = stream.read(CHUNK + _TAG)
        try:
            yield cipher.decrypt(_nonce(count, last=not following), chunk, None)
        except InvalidTag:
            raise _damaged() from None
        if not following:
            return
        chunk, count = following, count + 1


def _damaged() -> Malformed:
    return Malformed("backup-damaged", "The backup was changed, or its end is missing.", fix="Take another copy of it.")


def _info(line: bytes) -> bytes:
    return b"fleetca backup v1\0" + hashlib.sha256(line).digest()


def _nonce(count: int, *, last: bool) -> bytes:
    """The key is used for one stream, so a counter is enough (STREAM, Hoang et al. 2015)."""
    return bytes(7) + count.to_bytes(4, "big") + bytes((last,))
