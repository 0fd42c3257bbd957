"""Whether a crowd waits: after an outage, more devices whose time has passed than the ordinary ones leave room for. Ring 1: pure."""

from __future__ import annotations

from typing import Final

from ca.model import UnixTime
from ca.rules.renewal_window import Crowd

BESIDE: Final = 1.0
"""How many of a crowd come for each ordinary renewal."""
WORTH: Final = 1800
"""Seconds of ordinary renewals: fewer late ones than that brings are no crowd."""


def crowd(last: Crowd | None, *, overdue: int, rate: float, now: UnixTime) -> Crowd | None:
    """The crowd as of now. Once it is there its place in time stays, so that who asks twice hears the same.

    Args:
        last: what this said before.
        overdue: devices whose time has passed.
        rate: ordinary renewals a second.
    """
    if last is not None and now < last.since + last.count / last.per_second:
        return last
    if overdue <= max(1.0, rate * WORTH):
        return None
    return Crowd(since=now, count=overdue, per_second=BESIDE * rate)
