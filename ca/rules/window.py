"""The one place that turns a lifetime into a last second, and a second into a date for people. Ring 1: pure.

notAfter belongs to the validity period (RFC 5280 4.1.2.5), so a period of `lifetime` seconds ends at start + lifetime - 1. Whoever adds
without subtracting hands out a second too much, for years (R04); certificates, CRLs and OCSP answers all ask here.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ca.model import UnixTime


def last_second(start: UnixTime, lifetime: int) -> UnixTime:
    """The last second of a period that begins with the second `start` and lasts `lifetime` seconds."""
    return start + lifetime - 1


def lifetime_of(start: UnixTime, last: UnixTime) -> int:
    """How many seconds the inclusive period from `start` to `last` lasts."""
    return last - start + 1


def date(when: UnixTime) -> str:
    """A second, for people."""
    return datetime.fromtimestamp(when, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
