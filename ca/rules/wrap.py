"""Keys wrapped under keys: AES Key Wrap (RFC 3394) and with padding (RFC 5649), and check values that name a key without showing it. Ring 1: pure."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)

from ca.errors import Malformed, Unauthenticated

SIZES: Final = (16, 24, 32)
LARGEST: Final = 64 * 1024
CHECK: Final = 5
"""Octets of a check value."""


def check_value(key: bytes) -> str:
    """What names an AES key: the first octets of its CMAC of a block of zeros, lower-case hex (as ANSI X9.24-1 has it for AES).

    Raises:
        Malformed: it is no AES key (`no-aes-key`).
    """
    _aes(key)
    mac = CMAC(AES(key))
    mac.update(bytes(16))
    return mac.finalize()[:CHECK].hex()


def wrap(key: bytes, under: bytes, *, padded: bool = True) -> bytes:
    """A key under another: AES-KWP, or AES-KW where what unwraps it knows only that.

    Raises:
        Malformed: the wrapping key is none (`no-aes-key`) or weaker than what it wraps (`weaker-parent`); or what is wrapped has no length for this
            (`wrap-length`).
    """
    _aes(under)
    if len(key) in SIZES and len(under) < len(key):
        raise Malformed(
            "weaker-parent", "The wrapping key is weaker than the key that it wraps.", why=f"{len(under) * 8} < {len(key) * 8} bits."
        )
    if padded:
        if not 0 < len(key) <= LARGEST:
            raise Malformed("wrap-length", f"A key to be wrapped has 1 to {LARGEST} octets.")
        return aes_key_wrap_with_padding(under, key)
    if len(key) < 16 or len(key) % 8 or len(key) > LARGEST:
        raise Malformed("wrap-length", "AES-KW wraps multiples of 8 octets, 16 at least.", fix="Use AES-KWP.")
    return aes_key_wrap(under, key)


def unwrap(wrapped: bytes, under: bytes, *, padded: bool = True, check: str | None = None) -> bytes:
    """What was wrapped.

    Args:
        check: the check value that the unwrapped key must have.

    Raises:
        Unauthenticated: another key wrapped it, or it was changed (`unwrap-failed`); or it is another key than `check` says (`wrong-key`).
        Malformed: `no-aes-key`.
    """
    _aes(under)
    try:
        key = (aes_key_unwrap_with_padding if padded else aes_key_unwrap)(under, wrapped)
    except (InvalidUnwrap, ValueError):
        raise Unauthenticated(
            "unwrap-failed",
            "The key cannot be unwrapped.",
            why="It was wrapped under another key, or changed since.",
            fix="Compare the check values of the wrapping keys.",
        ) from None
    if check is not None and not hmac.compare_digest(check_value(key), check.lower()):
        raise Unauthenticated("wrong-key", "The unwrapped key is not the one that was meant.", why="Its check value is another.")
    return key


def _aes(key: bytes) -> None:
    if len(key) not in SIZES:
        raise Malformed("no-aes-key", "An AES key has 16, 24 or 32 octets.", why=f"This one has {len(key)}.")
