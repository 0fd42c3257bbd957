"""Which roots to trust, told to those who trust some already (REQ-KEY-019). Ring 1: pure.

A pin set names keys by the SHA-256 of their SubjectPublicKeyInfo: `current` ones, and `next` ones, at least one of which is a backup that is in
nobody's use yet. It carries the root certificates of those keys, a sequence number that only rises, and the time from when on what it does not name is
trusted no more. It counts when a key that is pinned already signed it; TLS has no part in it, so that it may be fetched from a service that is not
believed yet.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Denied, FleetcaError, Malformed
from ca.model import Digest, UnixTime

CONTEXT: Final = b"fleetca pins v1\0"
LONGEST: Final = 256 * 1024
MOST: Final = 64
_FIELDS: Final = {"deployment", "seq", "current", "next", "not_before", "retire_after", "expires", "anchors"}


@dataclass(frozen=True, slots=True)
class PinSet:
    deployment: str
    seq: int
    current: tuple[Digest, ...]
    next: tuple[Digest, ...]
    not_before: UnixTime
    retire_after: UnixTime
    """From then on nothing that this set does not name is trusted."""
    anchors: tuple[bytes, ...]
    """Root certificates (DER): of every current key, and of those next ones that have one."""
    expires: UnixTime | None = None
    """From then on it is no longer taken from a carrier as the newest: somebody may keep a newer one away. What took it over before keeps it."""

    @property
    def pins(self) -> frozenset[Digest]:
        return frozenset((*self.current, *self.next))


@dataclass(frozen=True, slots=True)
class Signed:
    """A pin set as it travels."""

    payload: bytes
    spki: bytes
    """Of the key that signed it."""
    signature: bytes


def pin_of(certificate: bytes) -> Digest:
    """The pin of a certificate's key."""
    return read_certificate(certificate).spki_sha256


def signed_octets(payload: bytes) -> bytes:
    """What the key signs."""
    return CONTEXT + payload


def write_set(pins: PinSet) -> bytes:
    """The payload to sign, as canonical JSON.

    Raises:
        Malformed: it is no set that anybody would accept.
    """
    check(pins)
    document = {
        "deployment": pins.deployment,
        "seq": pins.seq,
        "current": [pin.hex() for pin in pins.current],
        "next": [pin.hex() for pin in pins.next],
        "not_before": pins.not_before,
        "retire_after": pins.retire_after,
        "expires": pins.expires,
        "anchors": [base64.b64encode(der).decode() for der in pins.anchors],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_sets(sets: Sequence[Signed]) -> bytes:
    """The file of all sets so far: who slept through several goes through them one by one."""
    rows = [{name: base64.b64encode(getattr(one, name)).decode() for name in ("payload", "spki", "signature")} for one in sets]
    return json.dumps({"sets": rows}, indent=1).encode() + b"\n"


def read_sets(octets: bytes) -> tuple[Signed, ...]:
    """Read that file. Nothing in it is believed yet.

    Raises:
        Malformed: `bad-pins`.
    """
    try:
        if len(octets) > LONGEST:
            raise ValueError("it is too long")
        rows = json.loads(octets)["sets"]
        if not isinstance(rows, list) or len(rows) > MOST:
            raise ValueError("`sets` is not a list of sets")
        return tuple(Signed(*(base64.b64decode(row[name], validate=True) for name in ("payload", "spki", "signature"))) for row in rows)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise _bad(str(error)) from None


def read_set(payload: bytes) -> PinSet:
    """Read one set's payload.

    Raises:
        Malformed: `bad-pins`, or what `check` says.
    """
    try:
        document: Mapping[str, Any] = json.loads(payload)
        if not isinstance(document, dict) or set(document) != _FIELDS:
            raise ValueError("its fields are others")
        numbers = [document[name] for name in ("seq", "not_before", "retire_after")] + [document["expires"] or 0]
        if not isinstance(document["deployment"], str) or not all(type(one) is int and 0 <= one < 2**53 for one in numbers):
            raise ValueError("a field has another type")
        pins = PinSet(
            deployment=document["deployment"],
            seq=numbers[0],
            current=_digests(document["current"]),
            next=_digests(document["next"]),
            not_before=numbers[1],
            retire_after=numbers[2],
            anchors=tuple(base64.b64decode(one, validate=True) for one in document["anchors"]),
            expires=document["expires"],
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise _bad(str(error)) from None
    check(pins)
    return pins


def check(pins: PinSet) -> None:
    """Could anybody live with this set?

    Raises:
        Malformed: `pins-without-backup`, `pins-without-anchor`, `bad-pins`.
    """
    if not pins.current or pins.seq < 1:
        raise _bad("It names no current key, or its sequence number is not positive.")
    if pins.expires is not None and pins.expires <= pins.not_before:
        raise _bad("It ends before it begins.")
    if not set(pins.next) - set(pins.current):
        raise Malformed(
            "pins-without-backup", "The pin set has no backup.", why="If the current key is lost, nobody could be told of another one.",
            fix="Name at least one key in `next` that is not in use.",
        )  # fmt: skip
    carried = [pin_of(der) for der in pins.anchors]
    if not set(pins.current) <= set(carried) <= pins.pins:
        raise Malformed(
            "pins-without-anchor", "The root certificates of a pin set are not those of its keys.",
            why="Every current key needs its root certificate, and none of a key that is not named may be there.",
        )  # fmt: skip


def accept(signed: Signed, *, trusted: frozenset[Digest], last: PinSet | None, now: UnixTime) -> PinSet:
    """The set, if it takes the place of what is trusted.

    Args:
        trusted: the pins of what is trusted now.
        last: the set that was accepted last.

    Raises:
        Denied: `pins-not-signed`: by none of them; `pins-rolled-back`; `pins-too-early`; `pins-for-another-deployment`.
        Malformed: it is no set.
    """
    signer = Digest(hashlib.sha256(signed.spki).digest())
    try:
        if signer not in trusted:
            raise Denied("", "")
        verify(load_public_key(signed.spki), signed.signature, signed_octets(signed.payload))
    except FleetcaError:
        raise Denied(
            "pins-not-signed", "The pin set is not signed by a key that is trusted.", fix="Bring the root with the device."
        ) from None
    pins = read_set(signed.payload)
    if last is not None and pins.deployment != last.deployment:
        raise Denied("pins-for-another-deployment", f"The pin set is that of {pins.deployment!r}.")
    if last is not None and pins.seq <= last.seq:
        raise Denied(
            "pins-rolled-back", "The pin set is older than the one that is known.", why=f"Its number is {pins.seq}, known is {last.seq}."
        )
    if now < pins.not_before:
        raise Denied("pins-too-early", "The pin set does not count yet.", why=f"It does from {pins.not_before} on.")
    return pins


def trusted_anchors(pins: PinSet, before: Sequence[bytes], *, now: UnixTime) -> tuple[bytes, ...]:
    """The root certificates to trust: those of the set; until `retire_after` those that were trusted before too."""
    kept = () if now >= pins.retire_after else tuple(der for der in before if der not in pins.anchors)
    return (*pins.anchors, *kept)


def _digests(value: object) -> tuple[Digest, ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError("a list of pins is none")
    found = tuple(Digest(bytes.fromhex(one)) for one in value)
    if any(len(one) != 32 for one in found):
        raise ValueError("a pin is not 32 octets")
    return found


def _bad(why: str) -> Malformed:
    return Malformed("bad-pins", "The pin set cannot be read.", why=why)
