"""How long an answer holds, and how long caches may keep it. Ring 1: pure.

    thisUpdate <= now < nextUpdate <= min(thisUpdate + lifetime - 1, the issuer's notAfter, the responder's notAfter)
    now + max-age < nextUpdate

The spread (jitter) comes from the digest of what was asked, so the same question is refreshed at the same point of its window in every worker,
and different questions at different points.
"""

from __future__ import annotations

from ca.errors import Misconfigured
from ca.model import UnixTime
from ca.rules.window import last_second
from ocsp.model import Finished, Policy, Responder, Window

HEARD_WITHIN = 2
"""Seconds: a worker that has not heard of changes for longer says so (P5)."""


def judge(policy: Policy) -> Policy:
    """The same policy, if answers can be made by it.

    Raises:
        Misconfigured: the times contradict each other.
    """
    if policy.lifetime < 60:
        raise Misconfigured(
            "ocsp-lifetime",
            "ocsp.lifetime is too short.",
            why="Answers must hold for at least one minute.",
            fix='Set ocsp.lifetime = "1h".',
        )
    if not 0 <= policy.max_age <= policy.lifetime // 2:
        raise Misconfigured(
            "ocsp-max-age",
            "ocsp.max_age does not fit ocsp.lifetime.",
            why="Answers are made anew after half their lifetime, so caches may keep them for at most that long (RFC 9919 7.2).",
            fix='Set ocsp.max_age = "5m", or a longer ocsp.lifetime.',
        )
    if not 0 <= policy.backdate <= policy.lifetime // 4:
        raise Misconfigured(
            "ocsp-backdate",
            "ocsp.backdate does not fit ocsp.lifetime.",
            why="It may be at most a quarter of it.",
            fix='Set ocsp.lifetime = "1h".',
        )
    if policy.max_certificates < 1 or not policy.path.startswith("/") or policy.path.endswith("/"):
        raise Misconfigured(
            "ocsp-settings",
            "An OCSP setting is out of range.",
            why="At least one certificate a request; a path like /ocsp.",
            fix="Check [ocsp].",
        )
    return policy


def spread(digest: bytes) -> float:
    """A number from 0 to 1 that belongs to a digest."""
    return int.from_bytes(digest[:4], "big") / 0xFFFFFFFF


def window(policy: Policy, responder: Responder, *, now: UnixTime, since: UnixTime, digest: bytes) -> Window | None:
    """The window of an answer made now, or None where none is left: the issuer or the responder has ended, or is just about to.

    Args:
        since: the last change of any status in it; thisUpdate is not earlier, so no answer claims a status before it was true.
        digest: of what was asked, for the spread.
    """
    this_update = min(now, max(now - policy.backdate, since))
    next_update = min(last_second(this_update, policy.lifetime), responder.issuer_not_after, responder.not_after)
    # The responder's notBefore is not looked at: it lies ahead only after our clock was set back, and status goes on then; relying parties
    # judge the delegate by their own clocks.
    if next_update <= now:
        return None
    # At half of what is left, up to a tenth earlier: a failed database or signer then has the other half to come back (P7).
    left = next_update - now
    return Window(this_update, next_update, now + int(left * (0.5 - 0.1 * spread(digest))))


def holds(finished: Finished, now: UnixTime) -> bool:
    """Whether it may still leave: nextUpdate is ahead."""
    return now < finished.window.next_update


def is_fresh(finished: Finished, now: UnixTime) -> bool:
    """Whether no newer one need be made. One from the future of a clock that was set back is made anew when it can be."""
    return finished.produced_at <= now < max(finished.window.refresh_at, finished.produced_at + 1)


def max_age(policy: Policy, finished: Finished, *, now: UnixTime, digest: bytes) -> int:
    """Seconds that caches may keep it: within nextUpdate (RFC 9919 6), up to a tenth less by the spread."""
    longest = policy.max_age - int(policy.max_age * 0.1 * spread(digest))
    return max(0, min(longest, finished.window.next_update - now - 1))


def heard(heard_at: UnixTime | None, now: UnixTime) -> bool:
    """Whether the change number was confirmed a moment ago."""
    return heard_at is not None and 0 <= now - heard_at <= HEARD_WITHIN
