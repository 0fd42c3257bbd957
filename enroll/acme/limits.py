"""Limits of how often something may be asked (RFC 8555 6.6). Ring 1: pure."""

from __future__ import annotations

from collections.abc import Sequence

from ca.model import UnixTime
from enroll.acme.model import Problem

HOUR = 3600


def hour_before(now: UnixTime) -> UnixTime:
    """The first second of the hour that ends now."""
    return now - HOUR + 1


def within(moments: Sequence[UnixTime], most: int, *, now: UnixTime, what: str) -> None:
    """Is there room for one more in this hour?

    Args:
        moments: of the last hour, earliest first.

    Raises:
        Problem: `rateLimited`, with the second at which there is room again.
    """
    if len(moments) < most:
        return
    free = moments[len(moments) - most] + HOUR
    raise Problem("rateLimited", f"There were {len(moments)} {what} within an hour, and {most} are let.", retry_after=max(1, free - now))
