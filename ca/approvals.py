"""Approvals: a request that must wait for an operator is written down here, and decided here. Knows rules and ports only.

A request that waits takes nothing: neither its token nor its key. Once it was approved, the device's next question is decided like any other, by
what holds then. A database that is set back forgets who asked; they ask again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ca import lineage
from ca.der.csr import Csr
from ca.errors import Busy, FleetcaError, Unavailable
from ca.lineage import Issuers
from ca.model import Approval, ApprovalDecision, Digest, Grant, Peer, Profile, Proposal, UnixTime
from ca.ports import Clock, Ledger, Writing
from ca.rules import approval, device_life, evidence, grant, ids, leaf, permission, testimony
from ca.rules.caps import Power
from ca.rules.clock import trusted
from ca.rules.two_persons import not_found
from ca.two_persons import TwoPersons
from ca.witness import Witness

APPROVING: Final = frozenset({Power.approve})
ANSWERING: Final = frozenset({Power.approve, Power.authorize})
"""Who may know that there is no such request."""


def required(
    tx: Writing, found: Approval | None, given: Grant, profile: Profile, csr: Csr, *, request: Digest, now: UnixTime
) -> FleetcaError | None:
    """Why the request does not go on, which is then on record; None: it does.

    Args:
        found: where it was asked before.
        request: what is approved (`ca.rules.approval.subject`).

    Raises:
        Busy: too many of its device wait (`approvals-full`).
    """
    if not approval.wanted(given, profile):
        return None
    if found is not None and not approval.asks_again(found, now=now):
        return approval.outcome(found, now=now)
    if tx.waiting_approvals_of(given.device, now=now, limit=approval.MOST_WAITING) >= approval.MOST_WAITING:
        raise Busy("approvals-full", "Too many requests of this device wait for approval.", retry_after=approval.RETRY_AFTER)
    tx.add_approval(approval.asked(given, profile, request=request, spki_sha256=csr.spki_sha256, now=now))
    return approval.pending()


class Approving:
    def __init__(
        self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock, two_persons: TwoPersons
    ) -> None:
        self._ledger, self._witness, self._issuers, self._policy, self._clock = ledger, witness, issuers, policy, clock
        self._two_persons = two_persons

    def decide(self, asked: ApprovalDecision, peer: Peer) -> Approval | Proposal:
        """Approve or refuse a request, whether for a certificate or for a grave act (`ca.two_persons`). The same decision again is harmless.

        Raises:
            Denied: who asks may not.
            NotFound: there is no such request, or its hash begins like another's (`no-such-approval`).
            Malformed, Conflict: see `ca.rules.approval.decided`.
        """
        claim = evidence.claim(evidence.Verb.approve, asked.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        ids.hash_beginning(asked.request)
        with self._ledger.writing() as tx:
            found = self._decide(tx, asked, claim)
        if found is None:
            return self._two_persons.decide(asked, peer)
        made, decided = found
        if decided is not None:
            self._witness.later([decided])
            with suppress(Unavailable):
                # Committed and in force already.
                self._witness.settle()
        return made

    def _decide(
        self, tx: Writing, asked: ApprovalDecision, claim: evidence.Claim
    ) -> tuple[Approval, testimony.ApprovalDecided | None] | None:
        """The request as it is now, and what is new about it; None where it is for a grave act."""
        now = trusted(self._clock.now(), high_time=tx.high_time())
        record = self._issuers.record_of(claim, tx)
        operator = lineage.operator_of(record, tx)
        tenant = self._policy.tenant if operator is None else operator.tenant
        found, grave = tx.find_approval_by_beginning(asked.request), tx.find_proposal_by_beginning(asked.request)
        # What is another tenant's is not there.
        if found is not None and found.tenant != tenant:
            found = None
        if found is None and grave is not None and grave.tenant == tenant:
            return None
        powers = APPROVING if found is not None else ANSWERING
        actor = permission.approval(claim, asked, record=record, operator=operator, powers=powers, now=now)
        if found is None:
            raise not_found()
        made = approval.decided(found, approve=asked.approve, by=actor, reason=asked.reason, now=now)
        if made == found:
            return made, None
        decided = testimony.ApprovalDecided(made, device_life.channel(claim.peer.role, claim.kind))
        put(tx, decided)
        tx.raise_high_time(now)
        return made, decided


def put(tx: Writing, decided: testimony.ApprovalDecided) -> None:
    """What was decided, and its leaf."""
    tx.decide_approval(decided.approval)
    tx.append_leaf(leaf.approval(decided.approval, channel=decided.channel))
