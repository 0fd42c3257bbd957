"""What lies packed in an image: where gzip, zlib, zip, xz, lzma and bzip2 begin, and what can be recognised and not be opened. Ring 1: pure.

Found by their first octets anywhere, as programs for firmware do, so no file system needs to be understood: the blocks of SquashFS (gzip, xz, lzma), cramfs
and JFFS2 are streams of these kinds. A beginning may be none, by chance; then its stream breaks off soon. Must not know: files, and what is looked for.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

AHEAD: Final = 64
"""Octets that must be there to tell whether something begins."""
_LZMA_MEMORY: Final = 192 * 1024 * 1024
"""xz -9 asks for 65 MiB to open."""


class Opened(Protocol):
    """A stream that is being unpacked."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""
        ...

    def some(self, octets: bytes, most: int) -> bytes:
        """What these octets unpack to, at most so many; called again with nothing while `hungry` says that there is more."""
        ...

    @property
    def hungry(self) -> bool:
        """All octets that were given are used up."""
        ...


class _Deflated:
    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)
        self._full = False

    def some(self, octets: bytes, most: int) -> bytes:
        made = self._inner.decompress(self._inner.unconsumed_tail + octets, most)
        self._full = len(made) == most
        return made

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        # All octets may be used up and some of what they say be left to give.
        return not self._inner.unconsumed_tail and not self._full


class _Other:
    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    def some(self, octets: bytes, most: int) -> bytes:
        return self._inner.decompress(octets, most)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data if self._inner.eof else b""

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input


ERRORS: Final = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
"""What streams say that break off."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where something packed begins."""

    offset: int
    form: str
    open: Callable[[], Opened] | None = None
    """Absent: it is recognised, and not opened here."""
    skip: int = 0
    """Octets before the stream."""
    sure: bool = True
    """Its first octets are too many for chance."""
    alone: bool = False
    """What follows it without a gap is no continuation of it."""


def beginnings(piece: bytes, low: int, high: int) -> list[Beginning]:
    """All that begins in `piece[low:high]`, by offset; what is behind `high` is looked at to tell."""
    found: list[Beginning] = []
    for pattern, judge in _KINDS:
        for match in pattern.finditer(piece, low, min(len(piece), high + AHEAD)):
            if low <= match.start() < high:
                found += judge(piece, match)
    return sorted(found, key=lambda one: one.offset)


_Judge = Callable[[bytes, "re.Match[bytes]"], Iterator[Beginning]]


def _opened(form: str, make: Callable[[], Opened], *, sure: bool = True) -> _Judge:
    def judge(_: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
        yield Beginning(match.start(), form, make, sure=sure)

    return judge


def _closed(form: str) -> _Judge:
    def judge(_: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
        yield Beginning(match.start(), form)

    return judge


def _zlib(piece: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
    """Two octets are little: the first of it is unpacked to see."""
    try:
        zlib.decompressobj().decompress(piece[match.start() : match.start() + 512], 4096)
    except zlib.error:
        return
    yield Beginning(match.start(), "zlib", lambda: _Deflated(15), sure=False)


def _zip(piece: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
    """A local file header (APPNOTE 4.3.7)."""
    header = piece[match.start() : match.start() + 30]
    if len(header) < 30:
        return
    flags, method = int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:10], "little")
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    if not 0 < name <= 4096:
        return
    if flags & 1:
        yield Beginning(match.start(), "zip, encrypted")
    elif method == 8:
        yield Beginning(match.start(), "zip", lambda: _Deflated(-15), skip=30 + name + extra, alone=True)
    elif method in {9, 14, 98}:
        yield Beginning(match.start(), f"zip, method {method}")


_SQUASHED: Final = {3: "lzo", 5: "lz4", 6: "zstd"}


def _squashfs(piece: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
    """Those whose blocks are gzip's, xz's or lzma's are streams that are found by themselves."""
    packed = _SQUASHED.get(int.from_bytes(piece[match.start() + 20 : match.start() + 22], "little"))
    if packed is not None:
        yield Beginning(match.start(), f"squashfs, {packed}")


def _zstd(piece: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
    """The frame header (RFC 8878 3.1.1.1) tells where the first block is; its type and size must be possible."""
    said = piece[match.start() + 4]
    single, name = said >> 5 & 1, (0, 1, 2, 4)[said & 3]
    size = (single, 2, 4, 8)[said >> 6]
    at = match.start() + 5 + (1 - single) + name + size
    block = int.from_bytes(piece[at : at + 3], "little")
    if not said & 0x08 and block >> 1 & 3 != 3 and 0 < block >> 3 <= 128 * 1024:
        yield Beginning(match.start(), "zstd")


def _seven(piece: bytes, match: re.Match[bytes]) -> Iterator[Beginning]:
    """The mark is followed by the check value of the header's place (7zFormat.txt)."""
    header = piece[match.start() : match.start() + 32]
    if len(header) == 32 and zlib.crc32(header[12:]) == int.from_bytes(header[8:12], "little"):
        yield Beginning(match.start(), "7z")


_KINDS: Final[tuple[tuple[re.Pattern[bytes], _Judge], ...]] = (
    (re.compile(rb"\x78[\x01\x5e\x9c\xda]"), _zlib),
    (re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"), _opened("gzip", lambda: _Deflated(31))),
    (re.compile(rb"PK\x03\x04[\x0a-\x3f]\x00"), _zip),
    (
        re.compile(rb"\xfd7zXZ\x00\x00[\x00\x01\x04\x0a]"),
        _opened("xz", lambda: _Other(lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY))),
    ),
    (
        # Usual properties, a dictionary that is a power of two, and a size that is unknown or below a tebibyte.
        re.compile(
            rb"\x5d\x00\x00(?:[\x01\x02\x04\x08\x10\x20\x40\x80]\x00|\x00[\x01\x02\x04\x08])(?:\xff{8}|[\x00-\xff]{5}\x00{3})\x00",
            re.DOTALL,
        ),
        _opened("lzma", lambda: _Other(lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY)), sure=False),
    ),
    (re.compile(rb"BZh[1-9]1AY&SY"), _opened("bzip2", lambda: _Other(bz2.BZ2Decompressor()))),
    (re.compile(rb"hsqs[\x00-\xff]{24}\x04\x00\x00\x00", re.DOTALL), _squashfs),
    (re.compile(rb"\x28\xb5\x2f\xfd"), _zstd),
    # FLG and BD of version 1 without reserved bits (LZ4 frame format).
    (
        re.compile(rb"\x04\x22\x4d\x18[\x40\x44\x48\x4c\x50\x54\x58\x5c\x60\x64\x68\x6c\x70\x74\x78\x7c][\x40\x50\x60\x70]"),
        _closed("lz4"),
    ),
    (re.compile(rb"\x89LZO\x00\r\n\x1a\n[\x01-\x20]"), _closed("lzo")),
    (re.compile(rb"7z\xbc\xaf\x27\x1c\x00"), _seven),
    # With the main header that follows: programs that know the format hold its mark alone.
    (
        re.compile(rb"Rar!\x1a\x07(?:\x00[\x00-\xff]{2}\x73|\x01\x00[\x00-\xff]{4}[\x01-\x7f]\x01)", re.DOTALL),
        _closed("rar"),
    ),
    (re.compile(rb"LUKS\xba\xbe\x00[\x01\x02]"), _closed("LUKS, encrypted")),
    # The superblock node: magic, CRC, number, length, type 6 (fs/ubifs/ubifs-media.h).
    (re.compile(rb"\x31\x18\x10\x06[\x00-\xff]{12}\x00\x10\x00\x00\x06", re.DOTALL), _closed("ubifs")),
)
