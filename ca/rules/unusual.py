"""What is unusual about how keys are used: too often, or when nobody should be at work (REQ-KEY-091). Ring 1: pure.

It refuses nothing: a fleet that is replaced in one night is as unusual as a thief, and only a person can tell which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ca.model import UnixTime

REMEMBERED: Final = 7 * 24
"""Hours that an hour is held against."""
_FEWEST_HOURS: Final = 24
_FEWEST: Final = 100
"""Calls in an hour below which nothing is too often."""
_TIMES: Final = 5
_DAY: Final = 24 * 60


class Hours(NamedTuple):
    """From one minute of the day to another, UTC; over midnight where the first comes later."""

    begin: int
    end: int


def is_spike(before: Sequence[int], count: int) -> bool:
    """Whether a key was used far more often in the last hour than in any one of those before. A day has to have passed first."""
    return len(before) >= _FEWEST_HOURS and count >= _FEWEST and count > _TIMES * max(before)


def is_outside(hours: Hours, now: UnixTime) -> bool:
    """Whether that moment lies outside working hours; nothing does where they begin and end at the same minute."""
    minute = now // 60 % _DAY
    if hours.begin < hours.end:
        return not hours.begin <= minute < hours.end
    return hours.end <= minute < hours.begin


def read_hours(text: str) -> Hours:
    """The hours of a text like `07:00-19:00`, UTC, as the settings take it."""
    begin, end = (60 * int(moment[:2]) + int(moment[3:]) for moment in text.split("-"))
    return Hours(begin, end)
