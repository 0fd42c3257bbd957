"""How a device's renewal stands, by what it last said of it. Ring 1: pure."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ca.model import UnixTime

SLACK: Final = 1 / 20
"""Of the certificate's lifetime: so much after its time a device is late."""


class Health(Enum):
    """Worst last."""

    fine = "fine"
    """Renewed, or its time has not come."""
    failing = "failing"
    """It said that it tried and failed."""
    late = "late"
    """Its time has passed and it has not said that it renewed."""
    dark = "dark"
    """The last certificate that it spoke with has ended."""


def health(*, failed: bool, due: UnixTime, not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Health:
    """What a device's last word means now.

    Args:
        due: when it said that it would renew.
        not_before, not_after: of the certificate that it spoke with.
    """
    if now > not_after:
        return Health.dark
    if now > late_from(due=due, not_before=not_before, not_after=not_after):
        return Health.late
    return Health.failing if failed else Health.fine


def late_from(*, due: UnixTime, not_before: UnixTime, not_after: UnixTime) -> UnixTime:
    """The last second at which a device that renews at `due` is not late. Whatever it says, it is late
    when a twelfth of the lifetime is left."""
    lifetime = not_after + 1 - not_before
    return min(due + int(lifetime * SLACK), not_after - lifetime // 12)
