"""Looks for private keys in images: pieces of a file, and of what is packed in it, through `ca.rules.firmware`, in bounded memory. Edge: contains no rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from ca.der import pem
from ca.der.algorithms import load_public_key
from ca.der.certificate import read_certificate
from ca.errors import Malformed, NotFound
from ca.rules import firmware, unpacking

PIECE: Final = unpacking.PIECE


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is in one image."""

    found: list[firmware.Found]
    """By where it lies."""
    unread: list[unpacking.Unread]
    """What was recognised and not looked into."""
    octets: int


def scan(image: Path, *, known: Mapping[str, str], scalars: bool, public: firmware.Publics = (), unpack: bool = True) -> Scanned:
    """All that is found in a file.

    Args:
        public: public halves beside which private ones are looked for, whatever they look like.

    Raises:
        NotFound: it cannot be read (`image-unreadable`).
    """
    try:
        with image.open("rb") as file:
            return _read(file, known=known, scalars=scalars, public=public, unpack=unpack)
    except OSError as error:
        raise NotFound("image-unreadable", f"{image} cannot be read.", why=error.strerror or str(error)) from None


def halves(octets: bytes, *, what: str) -> list[firmware.Public]:
    """The public keys in a PEM file: those of certificates, and bare ones. RSA keys among them say nothing: their private halves do not stand alone.

    Raises:
        Malformed: there is none (`no-public-key`).
    """
    ders = pem.ders_of(octets, pem.CERTIFICATE)
    keys = [read_certificate(der).spki for der in ders] + list(pem.ders_of(octets, "PUBLIC KEY"))
    if not keys:
        raise Malformed("no-public-key", f"{what} holds no public key.", fix="Give certificates or public keys as PEM.")
    found = [firmware.public_of(load_public_key(spki)) for spki in keys]
    return [half for half in found if half is not None]


def _read(file: BinaryIO, *, known: Mapping[str, str], scalars: bool, public: firmware.Publics, unpack: bool) -> Scanned:
    found: dict[unpacking.Path, set[firmware.Found]] = {}

    def look(inside: unpacking.Path, piece: bytes, start: int) -> None:
        for one in firmware.scan(piece, known=known, scalars=scalars, public=public):
            found.setdefault(inside, set()).add(replace(one, offset=start + one.offset, inside=inside))

    budget = unpacking.Budget(unpacking.MOST)
    stream = unpacking.Octets((), look, budget, overlap=firmware.OVERLAP, piece=PIECE, unpack=unpack)
    while octets := file.read(PIECE):
        stream.feed(octets)
    stream.end()
    every = [one for part in found.values() for one in firmware.apart(list(part))]
    return Scanned(sorted(every, key=lambda one: (*_place(one), one.form)), sorted(budget.unread, key=_place), stream.length)


def _place(one: firmware.Found | unpacking.Unread) -> tuple[list[int], int]:
    return [offset for _, offset in one.inside] or [one.offset], one.offset
