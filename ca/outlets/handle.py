"""What is read in pieces, as a file for those who want one. Ring 3."""

from __future__ import annotations

import io
from typing import Any

from ca.ports import Readable


class Handle(io.RawIOBase):
    """Read from anywhere, and as often as one likes."""

    def __init__(self, source: Readable) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(self._at, self._source.size - self._at if size < 0 else size)
        self._at += len(piece)
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
