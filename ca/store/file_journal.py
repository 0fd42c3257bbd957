"""The signer's journal in one file: `ca.ports.Journal`. Owns the framing and the syncing; does not know what a record says.

A record is framed as: eight octets that begin every frame, the payload's length and CRC-32 (four octets each, big-endian), the payload.
The file only ever grows. What a crash or a full disk cut off in the middle of a write stays where it is; the next record is appended
behind it, and `records` finds its way from the first broken octet to the next whole frame. So nothing that was once durable is ever
written again, and no evidence is cut away.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ca.errors import StoreUnavailable

MARK = b"\xf1eetca\r\n"
"""Begins every frame. Not text, so it does not occur in records of text."""
HEADER = len(MARK) + 8
MOST = 16 * 1024 * 1024
"""Octets of one record; a length above is a broken frame."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Gap:
    """Octets of the journal that are no whole record: what a crash cut off, or damage."""

    offset: int
    length: int


def framed(record: bytes) -> bytes:
    length = len(record).to_bytes(4, "big")
    return b"".join((MARK, length, zlib.crc32(record, zlib.crc32(length)).to_bytes(4, "big"), record))


class FileJournal:
    """An append-only file, 0600. Safe to call from several threads; the signer sees to it that only one process appends."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._turn = threading.Lock()
        self._descriptor: int | None = None

    def append(self, records: Sequence[bytes]) -> None:
        """Write records with one sync; durable when this returns.

        Raises:
            StoreUnavailable: the records may or may not be kept (`journal-failed`); nothing may be signed.
        """
        if not records:
            return
        octets = memoryview(b"".join(map(framed, records)))
        with self._turn:
            try:
                descriptor = self._open()
                if os.fstat(descriptor).st_nlink == 0:
                    # Someone took the file away: what we write would vanish with us.
                    self._close()
                    descriptor = self._open()
                while octets:
                    octets = octets[os.write(descriptor, octets) :]
                os.fsync(descriptor)
            except OSError as error:
                # After a failed fsync the kernel may have dropped the pages and report success next time: begin with a fresh descriptor,
                # and what was not confirmed stays unconfirmed.
                self._close()
                raise StoreUnavailable(
                    "journal-failed",
                    f"The journal {self._path} cannot be written.",
                    why=error.strerror or str(error),
                    fix="Free space on its disk, and mend owner and mode of the file.",
                ) from error

    def records(self) -> Iterator[bytes]:
        """All whole records, oldest first; none when there is no file.

        Raises:
            StoreUnavailable: it cannot be read (`journal-failed`).
        """
        for found in self._walk():
            if isinstance(found, bytes):
                yield found

    def gaps(self) -> Sequence[Gap]:
        """What `records` leaves out. One at the end is the mark of a crash; look at the disk when there are others."""
        return [found for found in self._walk() if isinstance(found, Gap)]

    def close(self) -> None:
        with self._turn:
            self._close()

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(self._descriptor, 0o600)
            # The name must be as durable as the content.
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _walk(self) -> Iterator[bytes | Gap]:
        try:
            with self._path.open("rb") as file:
                yield from _frames(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreUnavailable(
                "journal-failed",
                f"The journal {self._path} cannot be read.",
                why=error.strerror or str(error),
                fix="Mend the file's owner and mode.",
            ) from error


def _frames(file: BinaryIO) -> Iterator[bytes | Gap]:
    """Records and gaps, in order. Holds one chunk and one record in memory."""
    buffer, start, ended = b"", 0, False  # `start`: where the buffer begins in the file
    at = 0  # in the buffer
    lost: int | None = None  # where the gap that we are in began, in the file
    while True:
        need = at + HEADER
        if len(buffer) >= need:
            length = int.from_bytes(buffer[at + 8 : at + 12], "big")
            if buffer.startswith(MARK, at) and length <= MOST:
                need += length
                if len(buffer) >= need:
                    payload = buffer[at + HEADER : need]
                    if zlib.crc32(payload, zlib.crc32(buffer[at + 8 : at + 12])).to_bytes(4, "big") == buffer[at + 12 : at + 16]:
                        if lost is not None:
                            yield Gap(lost, start + at - lost)
                            lost = None
                        yield payload
                        at = need
                        continue
                    need = 0  # broken
            else:
                need = 0  # no frame begins here
        if need and not ended:
            more = file.read(max(_CHUNK, need - len(buffer)))
            ended = not more
            buffer, start, at = buffer[at:] + more, start + at, 0
            continue
        if at >= len(buffer):
            break
        # Not a whole frame, and no more to come for it: go on at the next mark behind this octet, whole or cut at the buffer's end.
        lost = start + at if lost is None else lost
        found = buffer.find(MARK, at + 1)
        at = found if found >= 0 else (len(buffer) if ended else max(at + 1, len(buffer) - len(MARK) + 1))
    if lost is not None:
        yield Gap(lost, start + at - lost)
