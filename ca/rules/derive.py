"""Keys derived from keys: HKDF with SHA-256 (RFC 5869), a salt that must be there, and an info that says what for. Ring 1: pure.

Two derivations whose purpose differs in any field give keys that have nothing to do with each other, because the fields are written with their
lengths: no two different purposes have the same octets.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from ca.errors import Malformed

HASH: Final = 32
MOST: Final = 255 * HASH
"""RFC 5869 2.3."""
LEAST: Final = 16
"""Octets of a secret, a salt, a derived key: below 128 bits nothing is protected."""
_DOMAIN: Final = b"fleetca derive v1"
_LABEL: Final = 64


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a derived key is for. All of it goes into the info of HKDF, with the length of the key."""

    label: str
    """The protocol and the use: `telemetry session`."""
    device: str = ""
    role: str = ""
    """Which side or direction: `client-to-server`. Keys of two directions must differ."""
    epoch: int = 0
    """Rises with each change of keys."""


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 2.2)."""
    return hmac.digest(salt or bytes(HASH), secret, hashlib.sha256)


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869 2.3).

    Raises:
        Malformed: no length, or more than 255 blocks (`derived-length`).
    """
    if not 0 < length <= MOST:
        raise Malformed("derived-length", f"A derived key has 1 to {MOST} octets.", why="RFC 5869 2.3.", fix="Ask for a shorter one.")
    made = block = b""
    for number in range(1, -(-length // HASH) + 1):
        block = hmac.digest(key, block + info + bytes([number]), hashlib.sha256)
        made += block
    return made[:length]


def derive(secret: bytes, *, salt: bytes, purpose: Purpose, length: int = 32) -> bytes:
    """A key for one purpose (REQ-KEY-KDF-01).

    Args:
        secret: what both sides share, 16 octets at least, of full strength: never a password.
        salt: 16 octets at least that are no run of one octet; public, fresh for each session or fixed for a deployment.
        length: octets of the key, at least 16.

    Raises:
        Malformed: `weak-secret`, `no-salt`, `no-purpose`, `derived-length`.
    """
    if len(secret) < LEAST or len(set(secret)) == 1:
        raise Malformed("weak-secret", "The secret is too weak to derive keys from.", why=f"It needs {LEAST} octets at least, by chance.")
    if len(salt) < LEAST or len(set(salt)) == 1:
        raise Malformed(
            "no-salt",
            "A derivation needs a salt.",
            why=f"It needs {LEAST} octets at least, not all the same.",
            fix="Draw one: openssl rand -hex 16",
        )
    if length < LEAST:
        raise Malformed("derived-length", f"A derived key has {LEAST} octets at least.", why="Shorter ones protect nothing.")
    return expand(extract(salt, secret), info(purpose, length), length)


def info(purpose: Purpose, length: int) -> bytes:
    """The info octets: each field with its length in two octets before it, the epoch in eight, the key's length in two.

    Raises:
        Malformed: no label, or words that cannot be kept (`no-purpose`).
    """
    if not purpose.label.strip():
        raise Malformed("no-purpose", "A derived key needs a label that says what it is for.")
    parts = []
    for word in (purpose.label, purpose.device, purpose.role):
        octets = word.encode()
        if len(octets) > _LABEL or not word.isprintable():
            raise Malformed("no-purpose", "A label, device or role is plain text of 64 octets at most.")
        parts.append(len(octets).to_bytes(2) + octets)
    if not 0 <= purpose.epoch < 1 << 64:
        raise Malformed("no-purpose", "An epoch is a number below 2^64.")
    return _DOMAIN + b"\0" + b"".join(parts) + purpose.epoch.to_bytes(8) + length.to_bytes(2)
