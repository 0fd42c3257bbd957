"""Grave acts: asked for by one operator, approved by another, done once. Knows rules and ports only.

Who does an act calls `take` in the transaction that does it: the approval is verified there again, from what was signed, and used up by the same
commit. A crash leaves either both or neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from ca import lineage
from ca.errors import Denied, FleetcaError, Unavailable
from ca.lineage import Issuers
from ca.model import (
    ApprovalDecision,
    Demand,
    DeviceId,
    Digest,
    EvidenceKind,
    GraveAct,
    MessageEvidence,
    Operator,
    Peer,
    Proposal,
    ProposalRequest,
    ProposalState,
    Statement,
    TenantId,
    UnixTime,
)
from ca.ports import Clock, Ledger, Writing
from ca.rules import device_life, evidence, grant, leaf, permission, renewal, testimony
from ca.rules import two_persons as rule
from ca.rules.caps import Power, powers_of
from ca.rules.clock import trusted
from ca.rules.grant import OPERATOR_DEVICE
from ca.rules.message import digest_of
from ca.witness import Witness


class TwoPersons:
    """Safe to call from one thread at a time."""

    def __init__(
        self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock, demand: Demand | None = None
    ) -> None:
        self._ledger, self._witness, self._issuers, self._policy, self._clock = ledger, witness, issuers, policy, clock
        self.demand = demand or Demand()

    def demanded(self, act: GraveAct) -> bool:
        """Does this act need two persons here?"""
        return act in rule.ALWAYS or act in self.demand.acts

    # ---- Asking and answering ---------------------------------------------------------------------------------------

    def propose(self, asked: ProposalRequest, peer: Peer) -> Proposal:
        """Ask for a grave act. The same message again finds what became of it.

        Raises:
            Denied, Unauthenticated: who asks may not.
            Malformed: see `ca.rules.two_persons.proposed`.
        """
        claim = evidence.claim(evidence.Verb.propose, asked.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            record = self._issuers.record_of(claim, tx)
            operator = permission.proposal(claim, record=record, operator=lineage.operator_of(record, tx), now=now)
            assert claim.message is not None, "a claim of this kind holds a message"
            statement = _statement(asked.evidence, operator, peer, approve=True, now=now)
            made = rule.proposed(claim.message, statement, operator)
            if made.act is GraveAct.restore:
                raise Denied(
                    "restore-elsewhere", "Bringing a database back is asked for where it is done.", fix="fleetca recover --ask FILE"
                )
            found = tx.find_proposal(made.request)
            if found is not None:
                return found
            self._keep(tx, made, statement, said, now=now)
        self._testify(said)
        return made

    def decide(self, asked: ApprovalDecision, peer: Peer) -> Proposal:
        """Approve or refuse a grave act; who asked for it takes it back by refusing. The same answer again is harmless.

        Raises:
            Denied, Unauthenticated: who answers may not, or is not another person.
            NotFound: there is no such request, or not for who answers (`no-such-approval`).
            Conflict: it is over, or decided.
        """
        claim = evidence.claim(evidence.Verb.approve, asked.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            record = self._issuers.record_of(claim, tx)
            found = tx.find_proposal_by_beginning(asked.request)
            known = lineage.operator_of(record, tx)
            if found is None or (known is not None and known.tenant != found.tenant):
                raise rule.not_found()
            operator = permission.authorization(claim, asked, record=record, operator=known, asked_by=found.asked.operator, now=now)
            statement = _statement(asked.evidence, operator, peer, approve=asked.approve, now=now)
            made = rule.answered(found, statement, asked.reason, approvers=self.demand.approvers, now=now)
            if made == found:
                return found
            if asked.approve:
                # Told now what would be told when it is done.
                rule.counted(made, lambda one: self._hand(tx, one), deployment=self._policy.deployment, approvers=1, now=now)
            self._keep(tx, made, statement, said, now=now)
        self._testify(said)
        return made

    # ---- Doing ------------------------------------------------------------------------------------------------------

    def take(
        self, tx: Writing, act: GraveAct, subject: str, *, tenant: TenantId, actor: str, channel: str, now: UnixTime
    ) -> tuple[Proposal, tuple[testimony.Record, ...]]:
        """Use up the approval of exactly this, in the transaction that does it.

        Args:
            actor: who does it, and `channel` by which way.

        Raises:
            Denied: there is none that counts; the text says how to go on.
        """
        done = self.find(tx, act, subject, tenant=tenant, now=now)
        said: list[testimony.Record] = []
        if done.state is not ProposalState.used:
            done = rule.used(done, now=now)
            _put(tx, done, said, actor=actor, person="", channel=channel, message=None, now=now)
        return done, tuple(said)

    def find(self, tx: Writing, act: GraveAct, subject: str, *, tenant: TenantId, now: UnixTime) -> Proposal:
        """The approval of exactly this, verified from what was signed. Changes nothing.

        Of an act that is done in parts, one that was begun goes on (`ca.rules.two_persons.IN_PARTS`).

        Raises:
            Denied: as `take`.
        """
        wanted = {ProposalState.approved} | ({ProposalState.used} if act in rule.IN_PARTS else set())
        found = [one for one in tx.proposals_of(act, subject) if one.tenant == tenant]
        refused: FleetcaError | None = None
        for one in found:
            if one.state not in wanted or now >= one.expires:
                continue
            try:
                rule.counted(
                    one, lambda said: self._hand(tx, said), deployment=self._policy.deployment, approvers=self.demand.approvers, now=now
                )
            except FleetcaError as error:
                refused = error
                continue
            return one
        raise refused or rule.missing(act, found, [each for each in tx.operators() if each.tenant == tenant], now=now)

    def certify(
        self, tx: Writing, operator: Operator, spki_sha256: Digest, *, actor: str, channel: str, now: UnixTime
    ) -> tuple[testimony.Record, ...]:
        """Use up the approval that who may approve gets a certificate, where somebody is there already who can.

        Else whoever may use this machine would be as many persons as it pleases: a name and a key are soon made.

        Raises:
            Denied: it was not approved.
        """
        if not self.demanded(GraveAct.operator) or Power.authorize not in powers_of(operator):
            return ()
        if not any(self._can_approve(tx, one, now=now) for one in tx.operators() if one.tenant == operator.tenant):
            return ()
        exact = rule.certifying(operator, spki_sha256)
        return self.take(tx, GraveAct.operator, exact, tenant=operator.tenant, actor=actor, channel=channel, now=now)[1]

    @staticmethod
    def _can_approve(tx: Writing, one: Operator, *, now: UnixTime) -> bool:
        own = tx.certificates_of(DeviceId(OPERATOR_DEVICE + one.name)) if Power.authorize in powers_of(one) else ()
        return any(renewal.live(certificate, now=now) for certificate in own)

    def at_load(self) -> Sequence[FleetcaError]:
        """Operators on record whose roles exclude each other: they may do nothing, and are named."""
        with self._ledger.writing() as tx:
            return rule.at_load(tx.operators())

    @staticmethod
    def _hand(tx: Writing, said: Statement) -> rule.Hand:
        digest = Digest(hashlib.sha256(said.message.certificate).digest())
        return rule.Hand(rule.shown(tx.find_by_der_digest(digest)), tx.find_operator(said.operator))

    def _keep(self, tx: Writing, made: Proposal, by: Statement, said: list[testimony.Record], *, now: UnixTime) -> None:
        _put(
            tx,
            made,
            said,
            actor=f"operator:{by.operator}",
            person=by.person,
            channel=by.channel,
            message=digest_of(by.message.payload),
            now=now,
        )
        tx.raise_high_time(now)

    def _testify(self, said: Sequence[testimony.Record]) -> None:
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()


def _statement(given: object, operator: Operator, peer: Peer, *, approve: bool, now: UnixTime) -> Statement:
    assert isinstance(given, MessageEvidence), "the rules let nothing else get so far"
    return Statement(given, operator.name, operator.who, approve, now, device_life.channel(peer.role, EvidenceKind.message))


def _put(
    tx: Writing,
    made: Proposal,
    said: list[testimony.Record],
    *,
    actor: str,
    person: str,
    channel: str,
    message: Digest | None,
    now: UnixTime,
) -> None:
    moved = testimony.ProposalMoved(made, actor, person, channel, message, now)
    put(tx, moved)
    said.append(moved)


def put(tx: Writing, moved: testimony.ProposalMoved) -> None:
    """The proposal as it is now, and its leaf."""
    tx.put_proposal(moved.proposal)
    tx.append_leaf(
        leaf.proposal(moved.proposal, actor=moved.actor, person=moved.person, channel=moved.channel, message=moved.message, at=moved.at)
    )
