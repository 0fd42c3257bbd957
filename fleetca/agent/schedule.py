"""When the agent does what: pure decisions on what it knows. Knows no clock, no chance, no files and no network.

The loop, the timer and the simulation of a whole fleet all ask here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ca.model import UnixTime

ASK_EVERY: Final = 6 * 3600
"""Seconds after which the window is asked for again (RFC 9773 4.3.2), at most."""
QUICKEST: Final = 60
"""Seconds between two tries, at least, while there is time."""
SLOWEST: Final = 6 * 3600
"""Seconds between two tries, at most."""
SHARES: Final = 16
"""A question is asked at least once in this part of the life."""
TRIES: Final = 32
"""A wait after a failure is at most this part of what is left, once it is time to renew."""


@dataclass(frozen=True, slots=True)
class Life:
    """Of the certificate in use."""

    not_before: UnixTime
    not_after: UnixTime

    @property
    def seconds(self) -> int:
        return self.not_after + 1 - self.not_before


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent knows beside its certificate."""

    start: UnixTime | None = None
    """Where the suggested window begins; None: nobody said."""
    ask_at: UnixTime = 0
    """When to ask for the window again."""
    try_at: UnixTime = 0
    """After a failure: not before this."""
    failures: int = 0
    """In a row."""


def renew_from(life: Life, known: Known) -> UnixTime:
    """When to renew: in the suggested window; unasked after two thirds of the lifetime. A window that leaves too little is not believed."""
    if known.start is None:
        return life.not_before + life.seconds * 2 // 3
    return min(known.start, life.not_after - life.seconds // 50)


def next_at(life: Life, known: Known) -> UnixTime:
    """When there is something to do next."""
    return max(known.try_at, min(renew_from(life, known), known.ask_at))


def ask_after(life: Life, *, told: int | None, chance: float) -> int:
    """Seconds until the window is asked for again.

    Args:
        told: what the service said (Retry-After).
        chance: 0 to 1: nobody asks in step with others.
    """
    longest = max(QUICKEST if life.seconds > SHARES * QUICKEST else 1, min(ASK_EVERY, life.seconds // SHARES))
    wanted = min(told, longest) if told else longest
    return max(1, int(wanted * (0.75 + 0.25 * chance)))


def pause(life: Life, known: Known, *, now: UnixTime, told: int | None, chance: float) -> int:
    """Seconds until the next try after a failure: in proportion to what is left, so that a fleet that lost its service comes back spread over
    hours, and who is near the end often. With a short life, quicker.

    Args:
        told: what the service said (Retry-After); kept to, as far as the end allows.
    """
    left = max(0, life.not_after - now)
    quickest = max(1, min(QUICKEST, life.seconds // 240))
    if left == 0:
        wanted = min(3600, quickest * 2 ** min(known.failures, 10))
    else:
        wanted = min(SLOWEST, max(quickest, left // TRIES), quickest * 2 ** min(known.failures, 20))
        if now < renew_from(life, known):
            # Nothing is urgent yet: the fleet's questions must not pile up where its renewals do not.
            wanted = max(wanted, min(ASK_EVERY, left // SHARES))
    waited = max(1, int(wanted * (0.5 + 0.5 * chance)))
    if told:
        waited = max(waited, min(told, max(quickest, left // 4)))
    return waited
