"""Who renews now and who comes again, when more come than the service takes: the nearest expiry first. Ring 1: pure.

An allowance fills with time, up to what `BURST` seconds bring. Each renewal takes one from it. While it is full everybody is let in; the emptier it
is, the less must be left of a certificate's life to be let in, so that the last of it is there for those who cannot wait. Nobody is queued: who is
sent away hears when to come again, in proportion to what is left to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ca.model import UnixTime

BURST: Final = 10
"""Seconds of allowance that may gather."""
LEAST: Final = 16
"""Gather in any case: with fewer places there is nothing to grade."""
EASY: Final = 0.75
"""As full as this, nobody is asked how much is left to them."""
SHORTEST, LONGEST = 5, 3600
"""Seconds after which to come again."""
SHARES: Final = 32
"""A wait is at most this part of what is left."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be let in, as of a moment of a clock that never goes back."""

    level: float
    at: float


def brim(per_second: float) -> float:
    """How much may gather."""
    return max(float(LEAST), per_second * BURST)


def full(per_second: float, *, at: float) -> Allowance:
    """The beginning."""
    return Allowance(brim(per_second), at)


def filled(allowance: Allowance, per_second: float, *, at: float) -> Allowance:
    """What it is by now."""
    return Allowance(min(brim(per_second), allowance.level + max(0.0, at - allowance.at) * per_second), at)


def easy(allowance: Allowance, per_second: float) -> bool:
    """Whether everybody is let in, unasked."""
    return allowance.level >= EASY * brim(per_second)


def taken(allowance: Allowance) -> Allowance:
    """After one was let in."""
    return Allowance(allowance.level - 1, allowance.at)


def wait(allowance: Allowance, per_second: float, *, not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> int | None:
    """None: the holder of this certificate is let in. Otherwise the seconds after which to come again."""
    lifetime = not_after + 1 - not_before
    left = max(0, not_after - now)
    if allowance.level >= max(1.0, EASY * brim(per_second) * min(1.0, left / lifetime)):
        return None
    return max(SHORTEST, min(LONGEST, left // SHARES))


def wait_new(allowance: Allowance, per_second: float) -> int | None:
    """As `wait`, for those who have no certificate yet: the last to be let in, and told to come again when the allowance can have filled."""
    if allowance.level >= max(1.0, EASY * brim(per_second)):
        return None
    return max(SHORTEST, min(LONGEST, math.ceil((brim(per_second) - allowance.level) / per_second)))
