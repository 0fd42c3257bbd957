"""When a certificate should be renewed: one calculation for all protocols. Ring 1: pure.

A window opens after two thirds of the lifetime and is a sixth of it long; where in it a certificate's own begins follows from its serial
number, so that a fleet that enrolled in one hour does not come back in one minute (incident R25).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ca.model import Certificate, Profile, UnixTime
from ca.rules.renewal import revoked

_STEPS: Final = 1024
NARROW: Final = 60
"""The shortest window, in seconds: one that has already closed still has a beginning before its end (RFC 9773 4.2)."""


@dataclass(frozen=True, slots=True)
class Window:
    start: UnixTime
    end: UnixTime


def suggested(certificate: Certificate, profile: Profile, *, now: UnixTime) -> Window:
    """The window in which to renew it. A revoked certificate's lies in the past: renew at once (RFC 9773 4.2)."""
    if revoked(certificate):
        return Window(now - 2 * NARROW, now - NARROW)
    lifetime = certificate.not_after + 1 - certificate.not_before
    share = max(2 / 3, profile.renew_from)
    length = (1 - share) / 2
    spread = length * ((certificate.ref.serial >> 32) % _STEPS) / _STEPS
    start = certificate.not_before + int(lifetime * (share + spread))
    end = max(start + NARROW, min(start + int(lifetime * length), certificate.not_after))
    return Window(start, end)
