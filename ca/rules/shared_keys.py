"""Public keys that more than one device has, among those that were seen in the field (REQ-KEY-025). Ring 1: pure.

Owns what counts as a collision. Knows no file and asks no record: who has a key on record is told to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sighting:
    """A public key, seen at a device."""

    device: str
    """As whoever looked calls it."""
    spki_sha256: str
    """SHA-256 of the DER SubjectPublicKeyInfo, 64 lower-case hexadecimal digits."""
    place: str
    """Where it is written: file and line, or number of the certificate."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A device that has a key on record."""

    device: str
    also: str
    """What its certificate says of it, in the words of `Sighting.device`: whoever is called so is the same device."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A key that its device does not have for itself."""

    spki_sha256: str
    devices: tuple[str, ...]
    """All that have it, sorted."""
    on_record: tuple[str, ...]
    """Those among them that have it on record."""
    known_as: str
    """What it is, if everybody has its private half; else empty."""
    places: tuple[str, ...]


def by_key(sightings: Iterable[Sighting]) -> dict[str, list[Sighting]]:
    """What was seen, by digest and in the order of the digests."""
    found: dict[str, list[Sighting]] = {}
    for one in sightings:
        found.setdefault(one.spki_sha256, []).append(one)
    return dict(sorted(found.items()))


def shared(seen: Mapping[str, Iterable[Sighting]], *, known: Mapping[str, str], on_record: Mapping[str, Iterable[Owner]]) -> list[Shared]:
    """The keys that more than one device has, in the field and on record together, and those that everybody has.

    A device that was seen twice with one key is no collision: its certificate was renewed, or two tools found it.
    """
    found: list[Shared] = []
    for digest, sightings in seen.items():
        owners = tuple(on_record.get(digest, ()))
        real = {one.also: one.device for one in owners}
        devices = {real.get(one.device, one.device) for one in sightings} | {one.device for one in owners}
        known_as = known.get(digest, "")
        if len(devices) > 1 or known_as:
            recorded = tuple(sorted({one.device for one in owners}))
            found.append(Shared(digest, tuple(sorted(devices)), recorded, known_as, tuple(dict.fromkeys(one.place for one in sightings))))
    return found
