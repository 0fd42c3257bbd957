"""Whether a lost or restored database may be brought back: by one person, or by two where that is demanded. Knows rules and ports only.

No signer runs then, and the database may be empty or older. So request and approvals are files that two persons signed elsewhere, with the same messages
as ever, and who they are is read from the journal and, where that began later, from the database. What they approve is exactly this journal, this database and
this published log. A run that was cut off goes on by the same approval; once a signer has worked again, it is good for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ca.errors import Denied, FleetcaError
from ca.lineage import Issuers
from ca.model import (
    DEFAULT_TENANT,
    Demand,
    DeviceId,
    Digest,
    GraveAct,
    MessageEvidence,
    Operator,
    Proposal,
    ProposalState,
    Statement,
    UnixTime,
)
from ca.ports import Clock, Journal, Ledger, SequencingLedger, Writing
from ca.rules import restore, testimony
from ca.rules import two_persons as rule
from ca.rules.caps import Power, powers_of
from ca.rules.demand import stricter
from ca.rules.grant import OPERATOR_DEVICE
from ca.rules.message import Act, check_message, read_message
from ca.two_persons import put
from ca.witness import Witness

CHANNEL = "recover/message"
_LATEST = 20
"""Certificates of an operator that are looked at."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What two persons signed, as it was brought: the request and the approvals."""

    asked: MessageEvidence
    approvals: Sequence[MessageEvidence]


class ApprovingRestore:
    def __init__(
        self,
        *,
        ledger: Ledger,
        sequencing: SequencingLedger,
        journal: Journal,
        witness: Witness,
        issuers: Issuers,
        deployment: str,
        wanted: Demand,
        published: Callable[[], bytes | None],
        clock: Clock,
    ) -> None:
        """`published` reads the checkpoint of the published log."""
        self._ledger, self._sequencing, self._journal, self._witness = ledger, sequencing, journal, witness
        self._issuers, self._deployment, self._wanted = issuers, deployment, wanted
        self._published, self._clock = published, clock

    def subject(self, *, accept_clock: bool) -> str:
        """What two persons approve, as it is now."""
        count, digest = 0, hashlib.sha256()
        for octets in self._journal.records():
            count += 1
            _take(digest, octets)
        with self._sequencing.writing() as sequencing:
            checkpoint = sequencing.last_checkpoint()
        with self._ledger.writing() as tx:
            change = tx.change_number()
        published = self._published()
        return rule.subject(
            GraveAct.restore,
            journal_records=count,
            journal_sha256=digest.hexdigest(),
            database_leaves=0 if checkpoint is None else checkpoint.size,
            database_root="" if checkpoint is None else checkpoint.root.hex(),
            database_change=change,
            published_sha256="" if published is None else hashlib.sha256(published).hexdigest(),
            accept_clock=accept_clock,
        )

    def allow(self, brought: Brought | None, *, accept_clock: bool, actor: str) -> Proposal | None:
        """Write down that two persons approved it; None where one is enough, or there is no second one.

        Raises:
            Denied: it is not approved; see `ca.rules.two_persons.counted`.
        """
        told = restore.told(self._journal.records(), self._issuers.by_id)
        here = self.subject(accept_clock=accept_clock)
        with self._ledger.writing() as tx:
            known = tx.accepted_demand()
            demand = self._wanted
            for one in (known, told.demand):
                demand = demand if one is None else stricter(demand, one)
            if brought is None:
                if GraveAct.restore in demand.acts and any(_may_approve(one, told, tx) for one in _operators(tx, told)):
                    raise _needed()
                return None
            now = self._clock.now()
            found = self._proposal(brought, told, tx, now=now)
            rule.counted(found, lambda said: _hand(said, told, tx), deployment=self._deployment, approvers=demand.approvers, now=now)
            done = tx.find_proposal(found.request)
            begun = done is not None and done.state is ProposalState.used
            self._check_exact(found, told, here, begun=begun)
            if not begun:
                record = testimony.ProposalMoved(rule.used(found, now=now), actor, "", CHANNEL, None, now)
                put(tx, record)
                self._witness.later([record])
        self._witness.settle()
        return found

    def _proposal(self, brought: Brought, told: restore.Told, tx: Writing, *, now: UnixTime) -> Proposal:
        asked, operator = self._statement(brought.asked, Act.propose, told, tx, now=now)
        found = rule.proposed(read_message(asked.message.payload), asked, operator)
        if found.act is not GraveAct.restore:
            raise Denied("approval-of-another", "The request is of another act.", why=f"It asks for {found.act.value}.")
        if found.tenant != DEFAULT_TENANT:
            raise Denied(
                "approval-hand-gone", "An operator of a tenant brings no database back.", why=f"{operator.name} is of {found.tenant}."
            )
        for one in brought.approvals:
            said, _ = self._statement(one, Act.approve, told, tx, now=now)
            found = replace(found, answers=(*found.answers, said))
        return found

    def _statement(self, given: MessageEvidence, act: Act, told: restore.Told, tx: Writing, *, now: UnixTime) -> tuple[Statement, Operator]:
        message = read_message(given.payload)
        # How long it holds, the request says; from the future it is not.
        check_message(message, acts=frozenset({act}), deployment=self._deployment, now=min(now, message.issued_at))
        shown = _shown(given.certificate, told, tx)
        operator = None if shown is None else _operator(shown.operator, told, tx)
        if operator is None:
            raise Denied(
                "approval-damaged",
                "An approval does not hold.",
                why="Neither journal nor database knows the certificate that signed it.",
                fix="Have it signed by an operator of this deployment.",
            )
        approve = act is Act.propose or (message.decision is not None and message.decision[1])
        return Statement(given, operator.name, operator.who, approve, message.issued_at, CHANNEL), operator

    def _check_exact(self, found: Proposal, told: restore.Told, here: str, *, begun: bool) -> None:
        said, now = rule.read_subject(GraveAct.restore, found.subject), rule.read_subject(GraveAct.restore, here)
        if told.last_work > said["journal_records"]:
            raise Denied(
                "approval-used",
                "What was approved is over: a signer has worked since.",
                why=f"The journal had {said['journal_records']} records when it was asked for, and has {told.records}.",
                fix="Ask for it again: fleetca recover --ask FILE",
            )
        digest = hashlib.sha256()
        for octets in islice(self._journal.records(), said["journal_records"]):
            _take(digest, octets)
        # What recovery itself wrote behind it changes nothing, nor what it did to this database when it was cut off.
        now |= {"journal_records": min(said["journal_records"], told.records), "journal_sha256": digest.hexdigest()}
        own = {"database_leaves", "database_root", "database_change"} if begun else set[str]()
        differ = sorted(name for name in now if name not in own and now[name] != said[name])
        if differ:
            raise Denied(
                "approval-of-another",
                "What two persons approved is not what is here.",
                why=f"These differ: {', '.join(name.replace('_', ' ') for name in differ)}.",
                fix="Ask for it again: fleetca recover --ask FILE",
            )


def _take(digest: hashlib._Hash, octets: bytes) -> None:
    digest.update(len(octets).to_bytes(8, "big") + octets)


def _operators(tx: Writing, told: restore.Told) -> Iterator[Operator]:
    for name in {*told.operators, *(one.name for one in tx.operators())}:
        found = _operator(name, told, tx)
        if found is not None and found.tenant == DEFAULT_TENANT:
            yield found


def _may_approve(one: Operator, told: restore.Told, tx: Writing) -> bool:
    """With a key that was never revoked. That its certificate has ended is no matter: on such a day nobody renews."""
    shown = [known for known in told.shown.values() if known.operator == one.name]
    shown += filter(None, map(rule.shown, tx.latest_of(DeviceId(OPERATOR_DEVICE + one.name), limit=_LATEST)))
    return Power.authorize in powers_of(one) and any(not each.revoked for each in shown)


def _operator(name: str, told: restore.Told, tx: Writing) -> Operator | None:
    """As the journal knows it, or else the database; disabled where either says so."""
    both = [one for one in (told.operators.get(name), tx.find_operator(name)) if one is not None]  # type: ignore[call-overload,arg-type]
    return next((one for one in both if one.disabled_at is not None), both[0] if both else None)


def _shown(certificate: bytes, told: restore.Told, tx: Writing) -> rule.Shown | None:
    digest = Digest(hashlib.sha256(certificate).digest())
    record = tx.find_by_der_digest(digest)
    both = [one for one in (told.shown.get(digest), rule.shown(record)) if one is not None]
    if not both:
        return None
    lost = record is not None and told.revoked.get(record.ref, False)
    return replace(both[0], revoked=lost or any(one.revoked for one in both))


def _hand(said: Statement, told: restore.Told, tx: Writing) -> rule.Hand:
    return rule.Hand(_shown(said.message.certificate, told, tx), _operator(said.operator, told, tx))


def _needed() -> FleetcaError:
    return Denied(
        "two-persons-needed",
        "Bringing a database back needs two persons.",
        why="[approvals] demands it, and there is a second person who may approve.",
        fix="Ask for it: fleetca recover --ask FILE; the other one signs: fleetca approvals sign FILE; then: fleetca recover --request FILE --approval FILE",
    )
