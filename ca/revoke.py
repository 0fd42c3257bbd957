"""Revoking: a certificate, or a device with all it has. A batch shares one commit and one write of the journal.

Knows rules and ports only. The device's row is locked before its certificates are read, so that a renewal and a revocation of the same device
cannot pass each other. A change counts as soon as the transaction is committed (OCSP reads that table); the journal follows, and what
it could not take it gets with the next write. A repeated request finds the change it made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

from ca import lineage
from ca.allowances import Allowances
from ca.errors import Busy, Denied, FleetcaError, NotFound, Unavailable
from ca.issue import no_failpoint
from ca.lineage import Issuers
from ca.model import (
    Certificate,
    CertificateRef,
    CertificateState,
    DeviceId,
    EvidenceKind,
    GraveAct,
    Peer,
    Profile,
    ProfileName,
    Reason,
    Revocation,
    RevocationGrant,
    RevokeRequest,
    UnixTime,
)
from ca.ports import Clock, Failpoint, Ledger, Writing
from ca.rules import device_life, evidence, grant, mass_revocation, testimony
from ca.rules.clock import trusted
from ca.rules.revocation import PASSING
from ca.two_persons import TwoPersons
from ca.witness import Witness

Revoked = tuple[Revocation, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose evidence was read and verified."""

    request: RevokeRequest
    claim: evidence.Claim


class Revoking:
    """Safe to call from one thread at a time; `prepare` from any."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        witness: Witness,
        issuers: Issuers,
        policy: grant.Policy,
        clock: Clock,
        two_persons: TwoPersons,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._ledger, self._witness, self._issuers, self._policy = ledger, witness, issuers, policy
        self._two_persons = two_persons
        self._clock, self._failpoint = clock, failpoint
        self._allowances = Allowances(policy.caps_of, "revocations")

    @property
    def profiles(self) -> Mapping[ProfileName, Profile]:
        return self._policy.profiles

    def prepare(self, request: RevokeRequest, peer: Peer) -> Prepared:
        """Everything that needs no database."""
        claim = evidence.claim(evidence.Verb.revoke, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        return Prepared(request, claim)

    def revoke(self, requests: Sequence[tuple[RevokeRequest, Peer]]) -> list[Revoked | FleetcaError]:
        """Decide a batch. Each request has its own outcome, in its place."""
        prepared: list[Prepared | FleetcaError] = []
        for request, peer in requests:
            try:
                prepared.append(self.prepare(request, peer))
            except FleetcaError as error:
                prepared.append(error)
        decided = iter(self.revoke_prepared([item for item in prepared if isinstance(item, Prepared)]))
        return [next(decided) if isinstance(item, Prepared) else item for item in prepared]

    def revoke_prepared(self, batch: Sequence[Prepared]) -> list[Revoked | FleetcaError]:
        """As `revoke`, for requests that were prepared."""
        if not batch:
            return []
        said: list[testimony.Record] = []
        try:
            with self._ledger.writing() as tx:
                now = trusted(self._clock.now(), high_time=tx.high_time())
                outcomes = [self._decided(tx, item, said, now=now) for item in batch]
                if said:
                    tx.raise_high_time(now)
                self._failpoint("revoke.before-commit")
        except Unavailable as error:
            return [error] * len(batch)
        if said:
            self._failpoint("revoke.after-commit")
            self._testify(said)
            self._failpoint("revoke.after-journal")
        return outcomes

    def _testify(self, said: Sequence[testimony.Record]) -> None:
        self._witness.later(said)
        with suppress(Unavailable):
            # The change is committed and in force; to say otherwise would be untrue. The journal gets it with its next write.
            self._witness.settle()

    def _decided(self, tx: Writing, item: Prepared, said: list[testimony.Record], *, now: UnixTime) -> Revoked | FleetcaError:
        own: list[testimony.Record] = []
        try:
            with tx.savepoint():
                outcome = self._decide(tx, item, own, now=now)
        except Busy as error:
            return error
        except Unavailable:
            raise
        except FleetcaError as error:
            error, told = lineage.refused(tx, error, item.claim, self._issuers, now=now)
            said += told
            return error
        said += own
        return outcome

    def _decide(self, tx: Writing, item: Prepared, said: list[testimony.Record], *, now: UnixTime) -> Revoked:
        request = item.request
        record = self._issuers.record_of(item.claim, tx)
        by = grant.revocation(
            item.claim,
            request,
            self._policy,
            record=record,
            operator=lineage.operator_of(record, tx),
            target=tx.find_certificate(request.target) if request.target is not None else None,
            token=tx.find_token(item.claim.token) if item.claim.token is not None else None,
            now=now,
        )
        made: list[Revocation] = []
        part = mass_revocation.belongs(request)
        if part is not None:
            subject = mass_revocation.subject_of(part, request.reason, request.invalid_from)
            way = device_life.channel(by.role, by.evidence)
            done, told = self._two_persons.take(
                tx, GraveAct.mass_revocation, subject, tenant=by.tenant, actor=by.actor, channel=way, now=now
            )
            said += told
            by = replace(by, evidence=EvidenceKind.approval, evidence_digest=done.request)
        before = len(said)
        if by.device is not None:
            made += self._device(tx, by.device, by, said, now=now)
            if said and item.claim.message is not None:
                # A hold and a release can be undone: the same message must not come back and do it again.
                tx.consume_message(item.claim.digest, now=now)
                said.append(testimony.MessageUsed(item.claim.digest, now))
        if by.targets:
            changes, records = lineage.revoke_each(tx, self._targets(tx, by), by, now=now)
            if records and item.claim.message is not None:
                # Repeated, it finds what it made. What was changed again since then, as a hold can be, it must not change back.
                tx.consume_message(item.claim.digest, now=now)
                said.append(testimony.MessageUsed(item.claim.digest, now))
            made += changes
            said += records
        if part is not None and len(said) > before:
            # What was released since must not be held again by a repeat.
            once = mass_revocation.once(by.evidence_digest, part)
            tx.consume_message(once, now=now)
            said.append(testimony.MessageUsed(once, now))
        elif part is None:
            self._count(tx, by, sum(isinstance(one, testimony.Changed) for one in said), now=now)
        if said:
            # What changes nothing costs nothing: a repeated request finds what it made, at any rate.
            for _ in by.targets or (by.device,):
                self._allowances.spend(item.claim.peer.role, now=now)
        return tuple(made)

    def _count(self, tx: Writing, by: RevocationGrant, changes: int, *, now: UnixTime) -> None:
        """What operators change without two persons, in this hour.

        Raises:
            Denied: it is more than one person may (`two-persons-needed`).
        """
        by_operator = by.actor.startswith(("operator:", "role:operator@"))
        if not changes or not by_operator or not self._two_persons.demanded(GraveAct.mass_revocation):
            return
        most = self._two_persons.demand.mass_revocation
        total = tx.count_in_period(mass_revocation.counter(by.tenant), period=now // mass_revocation.HOUR, amount=changes)
        if total > most:
            raise Denied(
                "two-persons-needed",
                f"One person alone revokes no more than {most} certificates an hour.",
                why=f"With these it would be {total}.",
                fix="Ask for the whole list: fleetca approvals request mass-revocation --query ... ; another person approves it.",
            )

    def _targets(self, tx: Writing, by: RevocationGrant) -> Sequence[Certificate]:
        """The certificates as they are under the locks of their devices, which are taken in one order by everybody who takes several."""

        def find(ref: CertificateRef) -> Certificate:
            found = tx.find_certificate(ref)
            if found is None or found.tenant != by.tenant:
                raise NotFound("no-such-certificate", "There is no such certificate.", why=f"{ref} is not on record.")
            return found

        def together() -> AbstractContextManager[None]:
            # Nothing is written in these blocks, so nothing in them can be overtaken.
            return tx.foreseeing(requests=(), certificates=by.targets, tokens=(), keys=()) if len(by.targets) > 1 else nullcontext()

        with together():
            for device in sorted({find(ref).device for ref in by.targets}):
                tx.lock_device(device)
        # Read again: a change between the two reads must not be lost.
        with together():
            return [find(ref) for ref in by.targets]

    def _device(
        self, tx: Writing, name: DeviceId, by: RevocationGrant, said: list[testimony.Record], *, now: UnixTime
    ) -> Sequence[Revocation]:
        """The device as a whole: into quarantine with a hold, out of it with a release, retired with any other reason."""
        device = tx.lock_device(name)
        tokens = tx.outstanding_tokens(name, now=now)
        if device is None and tokens and self._policy.owner(name) == by.tenant:
            raise NotFound(
                "no-such-device",
                "There is no such device yet.",
                why=f"{name} has not enrolled; it could with {len(tokens)} outstanding token{'s' if len(tokens) > 1 else ''}.",
                fix=f"Withdraw what it could enrol with: fleetca token revoke {name}",
            )
        if device is None or device.tenant != by.tenant:
            raise NotFound("no-such-device", "There is no such device.", why=f"{name} is not on record.")
        found = tx.certificates_of(name)
        after = device_life.wanted(device, by.reason, certified=bool(found))
        if after is not device.state:
            said += lineage.moved(tx, device, after, by, reason=by.reason.name, now=now)
        if by.reason is not Reason.removeFromCRL:
            # They would be refused for the device's sake; nobody shall have to know that to be sure.
            said += lineage.withdraw(tx, tokens, actor=by.actor, now=now)[1]
        made = []
        for record in found:
            if record.state is CertificateState.intended:
                said += lineage.give_up(tx, record, now=now)
                continue
            before = record.revocation
            if record.not_after < now or (
                by.reason is Reason.removeFromCRL and (before is None or before.reason is not Reason.certificateHold)
            ):
                continue
            if before is not None and before.reason not in PASSING:
                made.append(before)
                continue
            change, records = lineage.revoke(tx, record, by, now=now)
            made.append(change)
            said += records
        return made
