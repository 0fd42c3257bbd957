"""Reviews of a deployment: until when its past was looked through, one day after the other, and signed off by two persons. Ring 1: pure.

A review is a proposal (`ca.rules.two_persons`): one operator signs which days were reviewed and the SHA-256 of the evidence that was looked at, another
person approves it. Nothing is done afterwards: that it was approved is all. Does not know what was found.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable
from datetime import date, timedelta

from ca.errors import FleetcaError
from ca.model import Digest, GraveAct, Proposal, ProposalState, UnixTime
from ca.rules.two_persons import read_subject, subject


def subject_of(first: date, last: date, evidence_sha256: Digest) -> str:
    """The exact request that these days, both within, UTC, count as reviewed."""
    return subject(GraveAct.review, first_day=first.isoformat(), last_day=last.isoformat(), evidence_sha256=evidence_sha256.hex())


def reviewed_until(proposals: Iterable[Proposal], start: UnixTime) -> UnixTime:
    """The second until which everything since `start` was reviewed.

    What lies behind a gap does not count before the gap is reviewed too, and nobody reviews what comes after their signature.
    """
    reached = start
    periods = (_period(one) for one in proposals if one.act is GraveAct.review and one.state is ProposalState.approved)
    for begin, end in sorted(one for one in periods if one is not None):
        if begin > reached:
            break
        reached = max(reached, end)
    return reached


def _period(review: Proposal) -> tuple[UnixTime, UnixTime] | None:
    """From when until when a review counts; None where it names no days."""
    try:
        said = read_subject(GraveAct.review, review.subject)
        first, behind = date.fromisoformat(said["first_day"]), date.fromisoformat(said["last_day"]) + timedelta(days=1)
    except (FleetcaError, ValueError, TypeError, OverflowError):
        return None
    return timegm(first.timetuple()), min(timegm(behind.timetuple()), review.asked.at)
