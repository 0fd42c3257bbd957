"""Looks for private keys in images: pieces of a file through `ca.rules.firmware`, in bounded memory. Edge: contains no rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from ca.errors import NotFound
from ca.rules import firmware

PIECE: Final = 4 * 1024 * 1024


def scan(image: Path, *, known: Mapping[str, str], scalars: bool) -> tuple[list[firmware.Found], int]:
    """All that is found in a file, by offset, and how many octets it has.

    Raises:
        NotFound: it cannot be read (`image-unreadable`).
    """
    try:
        with image.open("rb") as file:
            return _read(file, known=known, scalars=scalars)
    except OSError as error:
        raise NotFound("image-unreadable", f"{image} cannot be read.", why=error.strerror or str(error)) from None


def _read(file: BinaryIO, *, known: Mapping[str, str], scalars: bool) -> tuple[list[firmware.Found], int]:
    found: set[firmware.Found] = set()
    kept, start = b"", 0
    while octets := file.read(PIECE):
        piece = kept + octets
        for one in firmware.scan(piece, known=known, scalars=scalars):
            found.add(replace(one, offset=start + one.offset))
        kept = piece[-firmware.OVERLAP :]
        start += len(piece) - len(kept)
    return firmware.apart(list(found)), start + len(kept)
