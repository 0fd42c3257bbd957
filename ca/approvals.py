"""Approvals: a request that must wait for an operator is written down here, and decided here. Knows rules and ports only.

A request that waits takes nothing: neither its token nor its key. Once it was approved, the device's next question is decided like any other, by
what holds then. A database that is set back forgets who asked; they ask again.
"""

from __future__ import annotations

from ca import lineage
from ca.der.csr import Csr
from ca.errors import Busy, FleetcaError, NotFound
from ca.lineage import Issuers
from ca.model import Approval, ApprovalDecision, Digest, Grant, Peer, Profile, UnixTime
from ca.ports import Clock, Ledger, Writing
from ca.rules import approval, evidence, grant, ids, leaf
from ca.rules.clock import trusted


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
    def __init__(self, *, ledger: Ledger, issuers: Issuers, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._issuers, self._policy, self._clock = ledger, issuers, policy, clock

    def decide(self, asked: ApprovalDecision, peer: Peer) -> Approval:
        """Approve or refuse a request. The same decision again is harmless.

        Raises:
            Denied: who asks may not.
            NotFound: there is no such request, or its hash begins like another's (`no-such-approval`).
            Malformed, Conflict: see `ca.rules.approval.decided`.
        """
        claim = evidence.claim(evidence.Verb.approve, asked.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        ids.hash_beginning(asked.request)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            record = self._issuers.record_of(claim, tx)
            actor = grant.approval(claim, asked, record=record, operator=lineage.operator_of(record, tx), now=now)
            found = tx.find_approval_by_beginning(asked.request)
            if found is None or found.tenant != self._policy.tenant:
                raise NotFound(
                    "no-such-approval", "There is no such request.", why="Or several begin so.", fix="List them: fleetca approvals list"
                )
            made = approval.decided(found, approve=asked.approve, by=actor, reason=asked.reason, now=now)
            if made != found:
                tx.decide_approval(made)
                tx.append_leaf(leaf.approval(made))
                tx.raise_high_time(now)
        return made
