"""Whether the clock may be believed. Ring 1: pure.

The store remembers the latest time at which anything was decided. A clock behind it would date certificates before their own intent, extend
validities already given and let expired evidence live again (incident R24), so beyond a small tolerance nothing new is signed.
"""

from __future__ import annotations

from typing import Final

from ca.errors import ClockUntrusted
from ca.model import UnixTime

TOLERANCE: Final = 2
"""Seconds a clock may be set back, as time daemons do, before we stop."""


def trusted(now: UnixTime, *, high_time: UnixTime) -> UnixTime:
    """The time to work with: never before the latest on record.

    Raises:
        ClockUntrusted: `clock-set-back`.
    """
    if now < high_time - TOLERANCE:
        raise ClockUntrusted(
            "clock-set-back",
            "The clock of the signer's host went backwards.",
            why=f"It says {now}, and work is on record up to {high_time}, {high_time - now} seconds later.",
            fix="Set the clock right (chronyc tracking says how it is kept); nothing needs a restart. If it is right now and ran ahead before:"
            " stop the signer and run `fleetca recover --accept-clock`.",
            retry_after=30,
        )
    return max(now, high_time)
