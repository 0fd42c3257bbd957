"""Who is revoked in the contest `crl`, for us and for the others alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

YEAR = 365 * 86400
REASONS = (1, 4, 5, 0, 6, 3)


def serial(number: int) -> bytes:
    """As one of ours: 20 octets."""
    return b"\x41" + hashlib.sha256(number.to_bytes(8, "big")).digest()[:19]


def rows(count: int, now: int, *, first: int = 1, shards: int = 0) -> Iterator[tuple[int, int, bytes, int, int]]:
    """Revocations as a fleet has them: most in bursts, some by themselves."""
    for number in range(first, first + count):
        octets = serial(number)
        shard = int.from_bytes(hashlib.sha256(octets).digest()[:8], "big") % shards + 1 if shards else 0
        at = now - 86400 * 200 + (number // 50 * 7) % (86400 * 199)
        yield number, shard, octets, REASONS[number % len(REASONS)], at
