"""Whether a certificate waits for an operator's approval, and what an approval says. Ring 1: pure.

An approval is of one request: the evidence that was brought and the CSR, by their hash. Another CSR is another request. An account of ACME signs whatever
it asks with a key of its own, and its client makes a new order and a new CSR at each try: there the approval is of account, profile and names. What
renews by its own certificate, and what an operator asks for, needs none. The evidence counts as of when it was brought: a token need not outlive
the time that people take.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Final

from ca.errors import Conflict, Denied, FleetcaError, Malformed, Unavailable
from ca.model import Approval, ApprovalState, Digest, EvidenceKind, Grant, Profile, UnixTime
from ca.rules.evidence import Claim
from ca.rules.window import date

MOST_WAITING: Final = 16
"""Requests of one device that may wait at once."""
RETRY_AFTER: Final = 60
"""Seconds after which to ask again."""
LONGEST_REASON: Final = 200
_FIRST: Final = frozenset({EvidenceKind.token, EvidenceKind.manufacturer, EvidenceKind.validated, EvidenceKind.hardware})


def subject(found: Claim, request: Digest) -> Digest:
    """What is approved.

    Args:
        request: the request key.
    """
    said = found.validated
    if said is None:
        return request
    names = sorted([name.kind.value, name.value] for name in said.names)
    token = None if said.token is None else said.token.hex()
    words = json.dumps(["fleetca approval", said.account, said.profile, names, token], separators=(",", ":"))
    return Digest(hashlib.sha256(words.encode()).digest())


def asks_again(found: Approval, *, now: UnixTime) -> bool:
    """Is it over, and may be asked for anew? A request that is bound to its CSR never comes again."""
    return found.evidence is EvidenceKind.validated and now >= found.expires


def wanted(given: Grant, profile: Profile) -> bool:
    """Is this a first certificate of a profile whose first ones are approved?"""
    return profile.approval_within > 0 and given.evidence in _FIRST and given.parent is None


def asked(given: Grant, profile: Profile, *, request: Digest, spki_sha256: Digest, now: UnixTime) -> Approval:
    """What an operator will be shown of a request that nobody has looked at."""
    return Approval(
        request=request,
        tenant=given.tenant,
        device=given.device,
        profile=given.profile,
        names=given.names,
        evidence=given.evidence,
        actor=given.actor,
        spki_sha256=spki_sha256,
        asked_at=now,
        expires=now + profile.approval_within,
    )


def outcome(found: Approval, *, now: UnixTime) -> FleetcaError | None:
    """What whoever asks is told; None: it was approved and may go on."""
    if found.state is ApprovalState.refused:
        return Denied(
            "approval-refused", "An operator refused this request.", why=found.reason, fix="Ask them why, or bring other evidence."
        )
    if now >= found.expires:
        return Denied(
            "approval-expired",
            "Nobody approved this request in time, or it was not fetched in time.",
            why=f"It waited until {date(found.expires)}.",
            fix="Make a new key and a CSR for it.",
        )
    return pending() if found.state is ApprovalState.pending else None


def pending() -> Unavailable:
    """The same request is to be sent again later (RFC 7030 4.2.3)."""
    return Unavailable(
        "approval-pending",
        "The request waits for an operator's approval.",
        fix="An operator looks at it: fleetca approvals list",
        retry_after=RETRY_AFTER,
    )


def evidence_time(found: Approval | None, *, now: UnixTime) -> UnixTime:
    """When the evidence of a request was brought."""
    return now if found is None or now >= found.expires else found.asked_at


def decided(found: Approval, *, approve: bool, by: str, reason: str, now: UnixTime) -> Approval:
    """The approval with a decision. The same decision again changes nothing.

    Raises:
        Malformed: the reason is too long or holds what cannot be shown (`approval-reason`); one who refuses must give one.
        Conflict: it was decided otherwise (`approval-decided`), or it is over (`approval-expired`).
    """
    if len(reason) > LONGEST_REASON or not reason.isprintable() or (not approve and not reason.strip()):
        raise Malformed("approval-reason", f"A refusal has a reason, and no reason is longer than {LONGEST_REASON} characters.")
    wanted_ = ApprovalState.approved if approve else ApprovalState.refused
    if found.state is not ApprovalState.pending:
        if found.state is wanted_:
            return found
        raise Conflict("approval-decided", f"The request is {found.state.value} already.", why=f"{found.decided_by} decided so.")
    if now >= found.expires:
        raise Conflict("approval-expired", "The request is over.", why=f"It waited until {date(found.expires)}.")
    return replace(found, state=wanted_, decided_at=now, decided_by=by, reason=reason)
