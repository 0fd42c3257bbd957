"""The file of an evidence pack: a zip whose every octet is decided by names and contents, so that it can be held against them again.

Nothing is compressed, all times are the same, all sizes are 64-bit (APPNOTE 4.5.3), entries follow each other without a gap in the order of
their names. Any unzip reads it. Owns the form only; `fleetca.evidence.verify` reads it with code of its own. Edge: writes one file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

_DATE: Final = 0x21
"""1980-01-01, the first day that zip knows."""
_FULL: Final = 0xFFFFFFFF
PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    size: int
    sha256: str
    crc: int
    offset: int


def local_header(name: str, crc: int, size: int) -> bytes:
    octets = name.encode("ascii")
    fixed = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, _DATE, crc, _FULL, _FULL, len(octets), 20)
    return fixed + octets + struct.pack("<HHQQ", 1, 16, size, size)


def _central(entry: Entry) -> bytes:
    name = entry.name.encode("ascii")
    fixed = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 0x032D, 45, 0, 0, 0, _DATE, entry.crc, _FULL, _FULL, len(name), 28, 0, 0, 0, 0o100644 << 16, _FULL
    )
    return fixed + name + struct.pack("<HHQQQ", 1, 24, entry.size, entry.size, entry.offset)


def tail(entries: Iterable[Entry], at: int) -> bytes:
    """What follows the last entry, which ends at `at`."""
    listed = [_central(entry) for entry in entries]
    directory = b"".join(listed)
    count, end = len(listed), at + len(directory)
    return (
        directory
        + struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 0x032D, 45, 0, 0, count, count, len(directory), at)
        + struct.pack("<IIQI", 0x07064B50, 0, end, 1)
        + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, _FULL, _FULL, 0)
    )


class Stream:
    """One entry while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = self.crc = 0

    def write(self, octets: bytes) -> None:
        self._file.write(octets)
        self._digest.update(octets)
        self.crc = zlib.crc32(octets, self.crc)
        self.size += len(octets)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class Writer:
    """Entries one after the other into a file that can be sought in; never more than a piece in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.entries: list[Entry] = []

    @contextmanager
    def entry(self, name: str) -> Iterator[Stream]:
        assert not self.entries or self.entries[-1].name < name or name in {"manifest.json", "signature.json"}, f"{name} is out of order"
        offset = self._file.tell()
        self._file.write(local_header(name, 0, 0))
        stream = Stream(self._file)
        yield stream
        end = self._file.tell()
        self._file.seek(offset)
        self._file.write(local_header(name, stream.crc, stream.size))
        self._file.seek(end)
        self.entries.append(Entry(name, stream.size, stream.sha256, stream.crc, offset))

    def put(self, name: str, octets: bytes) -> None:
        with self.entry(name) as stream:
            stream.write(octets)

    def close(self) -> None:
        self._file.write(tail(self.entries, self._file.tell()))
