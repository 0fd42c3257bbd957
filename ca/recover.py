"""Classifying what a crash left: every intent ends as issued, or void and revoked (P1). Knows rules and ports only.

Two sources. The database: intents without a result are given up, for whether a signature exists nobody can know. The journal: what a lost
or restored database has forgotten is written again, in the order in which it happened: intents, results (read and verified anew), changes
of status, devices that may not come back. Runs under the signer's lock; safe to repeat, and to stop at any point and run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice

from ca import accept_demand, accept_profiles, approvals, line_rows, lineage, two_persons
from ca.errors import Conflict, FleetcaError
from ca.issue import no_failpoint
from ca.lineage import Issuers
from ca.model import (
    ApprovalState,
    CertificateRef,
    CertificateState,
    CrlNumber,
    Device,
    DeviceState,
    Draft,
    IssuerId,
    ProposalState,
    RenewalOrder,
    TenantId,
    UnixTime,
)
from ca.ports import Clock, Failpoint, Journal, Ledger, Writing
from ca.rules import device_life, leaf, testimony
from ca.rules.reread import reread
from ca.rules.revocation import overtaken
from ca.witness import Witness

CHUNK = 500
"""Journal records that share a transaction."""


class Verdict(Enum):
    """What became of an intent."""

    issued = "issued"
    void = "void and revoked"


@dataclass(frozen=True, slots=True)
class Report:
    """What recovery changed; empty where nothing was wrong."""

    intents: tuple[tuple[CertificateRef, Verdict], ...]
    """Those whose result was not on record, and those that the database had forgotten."""
    forgotten: int
    """Intents in the journal that the database did not have."""
    revocations: int
    """Changes of status written again from the journal."""
    devices: int
    """Revoked devices written again from the journal."""
    unreadable: tuple[str, ...]
    """Journal records that could not be used, and why."""


@dataclass(slots=True)
class _Work:
    verdicts: dict[CertificateRef, Verdict] = field(default_factory=dict)
    forgotten: int = 0
    revocations: int = 0
    devices: int = 0
    unreadable: list[str] = field(default_factory=list)
    demand: testimony.DemandAccepted | None = None
    crl_numbers: dict[tuple[IssuerId, int], CrlNumber] = field(default_factory=dict)


class Recovery:
    def __init__(
        self,
        *,
        ledger: Ledger,
        journal: Journal,
        witness: Witness,
        issuers: Issuers,
        tenant: TenantId,
        clock: Clock,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._ledger, self._journal, self._witness, self._issuers = ledger, journal, witness, issuers
        self._tenant, self._clock, self._failpoint = tenant, clock, failpoint

    def finish(self) -> Report:
        """Give up what has no result. Cheap: for every start of the signer."""
        work = _Work()
        self._give_up(work)
        return _report(work)

    def recover(self) -> Report:
        """`finish`, after comparing the whole journal with the database."""
        work = _Work()
        records = iter(self._records(work))
        while chunk := list(islice(records, CHUNK)):
            with self._ledger.writing() as tx:
                for record in chunk:
                    self._apply(tx, record, work)
        if work.demand is not None:
            with self._ledger.writing() as tx:
                accept_demand.recall(tx, work.demand)
        self._spend_crl_numbers(work)
        self._give_up(work)
        return _report(work)

    def accept_clock(self, *, actor: str) -> UnixTime | None:
        """Believe today's clock though work is on record from later: a clock ran ahead then. Returns the time that stood there.

        For a person to decide: if it is today's clock that is wrong, certificates will be dated before their own intent (incident R24).
        """
        with self._ledger.writing() as tx:
            now, before = self._clock.now(), tx.high_time()
            if now >= before:
                return None
            tx.set_high_time(now)
            tx.append_leaf(leaf.clock(before=before, actor=actor, at=now))
        return before

    def _records(self, work: _Work) -> Iterable[testimony.Record]:
        return _readable(self._journal.records(), work)

    def _give_up(self, work: _Work) -> None:
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            left = tx.unfinished()
            if left:
                # Giving up is safe at any time, so a clock that went back does not keep the signer from starting.
                now = max(self._clock.now(), tx.high_time())
                for record in left:
                    said += lineage.give_up(tx, record, now=now)
                    work.verdicts[record.ref] = Verdict.void
                tx.raise_high_time(now)
        self._witness.later(said)
        self._witness.settle()

    # ---- One record of the journal ----------------------------------------------------------------------------------

    def _apply(self, tx: Writing, record: testimony.Record, work: _Work) -> None:
        try:
            with tx.savepoint():
                match record:
                    case testimony.Intended():
                        _intended(tx, record, work)
                    case testimony.Signed():
                        self._signed(tx, record, work)
                    case testimony.GivenUp():
                        _given_up(tx, record, work)
                    case testimony.Changed():
                        _changed(tx, record, work)
                    case testimony.FirstUsed():
                        tx.mark_first_used(record.ref, now=record.at)
                    case testimony.Delivered():
                        _delivered(tx, record)
                    case testimony.Superseded():
                        _superseded(tx, record)
                    case testimony.CloneSeen():
                        _clone_seen(tx, record)
                    case testimony.DeviceMoved():
                        _device_moved(tx, record, work)
                    case testimony.TokenMade():
                        _token(tx, record)
                    case testimony.TokenRevoked():
                        _token_revoked(tx, record)
                    case testimony.RenewalsOrdered():
                        _renewals(tx, record.order)
                    case testimony.MessageUsed():
                        _message_used(tx, record)
                    case testimony.KeyMoved():
                        _key_moved(tx, record)
                    case testimony.OperatorChanged():
                        _operator(tx, record)
                    case testimony.ApprovalDecided():
                        _approval(tx, record)
                    case testimony.ProfileAccepted():
                        _profile(tx, record)
                    case testimony.DemandAccepted():
                        work.demand = record
                    case testimony.ProposalMoved():
                        _proposal(tx, record)
                    case testimony.CrlIntended():
                        _crl(tx, record, work)
                    case (
                        testimony.StationKnown()
                        | testimony.ShiftOpened()
                        | testimony.UnitsTaken()
                        | testimony.RecordsSealed()
                        | testimony.Wiped()
                        | testimony.WipeOrdered()
                    ):
                        line_rows.recall(tx, record)
        except Conflict as error:
            work.unreadable.append(f"{type(record).__name__}: {error}")

    def _signed(self, tx: Writing, record: testimony.Signed, work: _Work) -> None:
        found = tx.find_certificate(record.ref)
        issuer = self._issuers.by_id.get(record.ref.issuer)
        if found is None or found.state is not CertificateState.intended or issuer is None:
            return
        meant = Draft(
            tbs=found.tbs,
            issuer=issuer.id,
            serial=record.ref.serial,
            algorithm=issuer.algorithm,
            not_before=found.not_before,
            not_after=found.not_after,
            subject=found.subject,
            names=found.names,
            spki_sha256=found.spki_sha256,
        )
        try:
            reread(meant, record.der, issuer)
        except FleetcaError as error:
            work.unreadable.append(f"result of {record.ref}: {error}")
            return
        tx.record_issued([(record.ref, record.der)], now=record.issued_at)
        work.verdicts[record.ref] = Verdict.issued

    def _spend_crl_numbers(self, work: _Work) -> None:
        """A database that had forgotten certificates has forgotten CRL numbers too: no later CRL may carry one of them."""
        if not work.forgotten and not work.revocations:
            return
        with self._ledger.writing() as tx:
            for (issuer, shard), number in work.crl_numbers.items():
                tx.next_crl_number(issuer, shard, above=number)


def _readable(records: Iterator[bytes], work: _Work) -> Iterator[testimony.Record]:
    for octets in records:
        try:
            record = testimony.read(octets)
        except FleetcaError as error:
            work.unreadable.append(str(error))
            continue
        if record is not None:
            yield record


def _intended(tx: Writing, record: testimony.Intended, work: _Work) -> None:
    made, given = record.intent.draft, record.intent.grant
    ref = CertificateRef(made.issuer, made.serial)
    if tx.find_certificate(ref) is not None:
        return
    if tx.lock_device(given.device) is None:
        device = Device(given.device, given.tenant, DeviceState.active, record.intent.intended_at)
        tx.add_device(device)
        tx.append_leaf(leaf.device(device, actor=given.actor, at=record.intent.intended_at))
    tx.claim_key(made.spki_sha256, given.device, now=record.intent.intended_at)
    if given.token is not None and tx.find_token(given.token) is not None:
        tx.use_token(given.token, request_key=record.intent.request_key, now=record.intent.intended_at)
    tx.reserve(record.intent, tenant=given.tenant, revocable=record.revocable, leaf=tx.append_leaf(leaf.issuance(record.intent)))
    work.forgotten += 1


def _given_up(tx: Writing, record: testimony.GivenUp, work: _Work) -> None:
    found = tx.find_certificate(record.ref)
    if found is not None and found.state is CertificateState.intended:
        lineage.give_up(tx, found, now=record.at)
        work.verdicts[record.ref] = Verdict.void


def _changed(tx: Writing, record: testimony.Changed, work: _Work) -> None:
    told = record.revocation
    found = tx.find_certificate(told.ref)
    if found is None or overtaken(found.revocation, told, at=record.at):
        return
    made = tx.add_revocation(
        told.ref,
        reason=told.reason,
        now=told.revoked_at,
        not_after=told.not_after,
        listed=told.listed,
        actor=record.by.actor,
        invalid_from=told.invalid_from,
        channel=device_life.channel(record.by.role, record.by.evidence),
        request=record.by.evidence_digest.hex(),
    )
    tx.append_leaf(leaf.revocation(made, record.by, at=record.at))
    work.revocations += 1


def _delivered(tx: Writing, record: testimony.Delivered) -> None:
    found = tx.find_certificate(record.successor)
    if found is None or found.delivered_at is not None:
        return
    tx.mark_delivered(record.successor, now=record.at)
    tx.begin_grace(record.ref, ends_at=record.grace_ends_at)
    tx.append_leaf(leaf.delivery(record.ref, successor=record.successor, grace_ends_at=record.grace_ends_at, at=record.at))


def _superseded(tx: Writing, record: testimony.Superseded) -> None:
    found = tx.find_certificate(record.ref)
    if found is None or found.superseded_at is not None:
        return
    tx.mark_superseded(record.ref, now=record.at)
    tx.append_leaf(leaf.supersede(record.ref, by=record.by, at=record.at))


def _clone_seen(tx: Writing, record: testimony.CloneSeen) -> None:
    found = tx.find_certificate(record.ref)
    if found is not None and found.clone_seen_at is None:
        lineage.clone_seen(tx, record)


def _device_moved(tx: Writing, record: testimony.DeviceMoved, work: _Work) -> None:
    device, change = tx.lock_device(record.device.id), record.change
    if device is None:
        device = replace(record.device, state=change.before or change.after)
        tx.add_device(device)
    elif change in tx.device_changes(device.id) or (device.state is DeviceState.retired and change.before is not DeviceState.retired):
        return
    if device.state is not change.before and change.before is not change.after and change.before is not None:
        # What happened between is in no journal of ours; that it is retired must not be lost for that.
        if change.after is not DeviceState.retired:
            return
        change = replace(change, before=device.state)
    tx.change_device(change)
    tx.append_leaf(leaf.device_change(record.device, change))
    if record.facts is not None:
        for anchor in record.facts.anchors:
            # Another device's by now: what is on record stays.
            with suppress(Conflict), tx.savepoint():
                tx.claim_key(anchor.spki_sha256, device.id, now=anchor.at)
        tx.set_device_facts(device.id, record.facts)
        tx.append_leaf(leaf.device_facts(device.id, record.facts, at=change.at))
    work.devices += 1


def _token(tx: Writing, record: testimony.TokenMade) -> None:
    if tx.find_token(record.token.hash) is None:
        tx.add_token(record.token)
        tx.append_leaf(leaf.token(record.token))


def _token_revoked(tx: Writing, record: testimony.TokenRevoked) -> None:
    found = tx.find_token(record.token)
    if found is not None and tx.revoke_token(record.token, now=record.at):
        tx.append_leaf(leaf.token_revoked(found, actor=record.actor, at=record.at))


def _renewals(tx: Writing, order: RenewalOrder) -> None:
    known = tx.find_renewal_order(order.number)
    if known is None:
        tx.add_renewal_order(order)
    elif order.withdrawn_at is None or not tx.withdraw_renewal_order(order.number, actor=order.withdrawn_by, now=order.withdrawn_at):
        return
    tx.append_leaf(leaf.renewals_ordered(order))


def _message_used(tx: Writing, record: testimony.MessageUsed) -> None:
    # It is on record already, most often.
    with suppress(Conflict), tx.savepoint():
        tx.consume_message(record.digest, now=record.at)


def _key_moved(tx: Writing, record: testimony.KeyMoved) -> None:
    told, change = record.record, record.change
    known = tx.find_key(told.spki_sha256)
    if known is None:
        tx.add_key(told, change)
    elif change in tx.key_changes(told.spki_sha256) or known.state is not change.before:
        return
    else:
        tx.change_key(told, change)
    tx.append_leaf(leaf.key_state(told, change))


def _operator(tx: Writing, record: testimony.OperatorChanged) -> None:
    told = record.operator
    found = tx.find_operator(told.name)
    if found is None:
        tx.add_operator(told)
    elif told.disabled_at is not None and found.disabled_at is None:
        tx.disable_operator(told.name, now=told.disabled_at)
    else:
        return
    tx.append_leaf(leaf.operator(told, actor=record.actor, at=record.at))


def _approval(tx: Writing, record: testimony.ApprovalDecided) -> None:
    told = record.approval
    found = tx.find_approval(told.request)
    if found is None:
        tx.add_approval(told)
        tx.append_leaf(leaf.approval(told, channel=record.channel))
    elif found.state is ApprovalState.pending:
        approvals.put(tx, record)


def _profile(tx: Writing, record: testimony.ProfileAccepted) -> None:
    # In the order in which they came into force: the last one stays.
    found = tx.accepted_profiles().get(record.profile.name)
    if found is None or found.digest != record.profile.digest:
        accept_profiles.put(tx, record)


_STEPS = (ProposalState.open, ProposalState.approved, ProposalState.refused, ProposalState.withdrawn, ProposalState.used)


def _proposal(tx: Writing, record: testimony.ProposalMoved) -> None:
    told = record.proposal
    found = tx.find_proposal(told.request)
    # What was used must not come back: steps go forward only.
    if found is None or (_STEPS.index(told.state), len(told.answers)) > (_STEPS.index(found.state), len(found.answers)):
        two_persons.put(tx, record)


def _crl(tx: Writing, record: testimony.CrlIntended, work: _Work) -> None:
    intent = record.intent
    scope = intent.issuer, intent.shard
    work.crl_numbers[scope] = max(work.crl_numbers.get(scope, 0), intent.number)
    try:
        with tx.savepoint():
            tx.reserve_crl(intent)
            tx.append_leaf(leaf.crl(intent, at=intent.this_update))
    except Conflict:
        return  # It is on record already.


def _report(work: _Work) -> Report:
    return Report(
        intents=tuple(work.verdicts.items()),
        forgotten=work.forgotten,
        revocations=work.revocations,
        devices=work.devices,
        unreadable=tuple(work.unreadable),
    )
