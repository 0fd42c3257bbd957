"""When a CRL is due, and how worried to be about one. Ring 1: pure, `now` is an argument."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from ca.model import CrlIntent, CrlNumber, UnixTime
from crl.model import Cause, Freshness, Head, Policy, Scope

LONGEST_PAUSE: Final = 30
EARLIER: Final = 0.05
"""By which share of its interval a regular CRL may come early."""


def next_regular(head: Head, policy: Policy, *, scope: Scope) -> UnixTime:
    """When the CRL after `head` is due if nothing is revoked: a third of the window leaves room for two missed runs (R06).

    A little earlier, by a share that each CRL number draws for itself: so the shards of an issuer, and issuers that began together, part.
    """
    interval = policy.delta_interval if scope.delta else policy.interval
    third = min(interval, (head.next_update - head.this_update) // 3)
    drawn = int.from_bytes(sha256(f"{scope.name} {head.number}".encode()).digest()[:4], "big") / (1 << 32)
    return head.this_update + third - int(third * EARLIER * drawn)


def listed_until(previous: CrlIntent | None, intent: CrlIntent) -> UnixTime:
    """Whose certificate ended before this second need not stand on a CRL any more: each stood on a regular one after its end (RFC 5280 3.3).

    There was a regular one in every third of a window; those that a revocation brought in between do not count.
    """
    if previous is None:
        return 0
    return min(previous.this_update, intent.this_update - (intent.next_update - intent.this_update) // 3)


def due(now: UnixTime, *, scope: Scope, published: Head | None, recorded: CrlNumber, changed: bool, policy: Policy) -> Cause | None:
    """Why a CRL is due now, or None.

    Args:
        published: the head of what readers get; None where that is nothing, or nothing that can be believed.
        recorded: the highest number on record as published; 0 when there is none.
        changed: whether something was revoked or released that the recorded CRL does not show.
    """
    issuer = scope.issuer
    if now > issuer.not_after:
        return None
    if published is None:
        return Cause.missing
    if recorded > published.number:
        return Cause.behind
    # A published CRL from the future means that a clock went back; pauses measured from it would last for that long.
    if changed and not published.this_update <= now < published.this_update + policy.nudge:
        return Cause.nudged
    # Towards the issuer's end windows shrink to nothing; one that reaches the end needs no successor.
    if published.next_update < issuer.not_after and now >= next_regular(published, policy, scope=scope):
        return Cause.regular
    return None


def freshness(now: UnixTime, head: Head | None, *, renewed_here: bool) -> Freshness:
    """How near a CRL is to its end, as a share of its window.

    Ours is renewed after a third at the latest, so at a half something is wrong. A ceremony's needs people to travel: it is said when a third is
    left (four months of a year's CRL) and again at a sixth.
    """
    if head is None:
        return Freshness.missing
    left = (head.next_update - now) / max(1, head.next_update - head.this_update)
    late, urgent = (1 / 2, 1 / 4) if renewed_here else (1 / 3, 1 / 6)
    if left <= 0:
        return Freshness.expired
    if left <= urgent:
        return Freshness.urgent
    return Freshness.late if left <= late else Freshness.fresh


def pause(failures: int, who: str = "") -> int:
    """Seconds to leave a failing part alone: 1, 2, 4 ... 30, and for each `who` a little more or less, so that many do not come back together.

    Short, because a revocation must show within 60 s (P5).
    """
    longest = min(LONGEST_PAUSE, 1 << min(max(failures, 1) - 1, 5))
    drawn = int.from_bytes(sha256(f"{who} {failures}".encode()).digest()[:4], "big") / (1 << 32)
    return max(1, longest - int(longest * drawn / 3)) if who else longest
