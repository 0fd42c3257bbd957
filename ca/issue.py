"""Issuing: evidence and a CSR in, a certificate out, and a record that survives a crash at any point (P1, P2, P11).

Knows rules and ports only. A batch of requests shares each durable step, every request under its own savepoint:

    claim, CSR        outside of any transaction: evidence is read and verified; the proof of possession is checked (`Proven`)
    one transaction   idempotency row found or written, token consumed, device row locked, key claimed, serial and TBS reserved, leaf appended
                      -- a crash before the commit leaves nothing --
    journal           the second witness (fsync)
                      -- a crash from here on leaves an intent without a result: recovery voids and revokes it --
    sign, re-read     each by itself; what fails is given up in the next step and known to no one (`Signing`, then `Signed`)
    one transaction   results recorded
                      -- only now does anyone get a certificate --

Reading CSRs and re-reading certificates are pure rules: whoever drives this may run them elsewhere, while the next batch is decided. Under
load the results of one batch and the intents of the next are one transaction (`commit`). A repeated request gets the stored result. One whose
intent never got a result is given up and decided anew: the old serial is void and revoked, for a signature may exist. Nothing is ever signed
twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from ca import approvals, hardware, lineage
from ca.allowances import Allowances
from ca.der.certificate import assemble
from ca.der.csr import Csr, read_csr
from ca.errors import Broken, Busy, Conflict, Denied, FleetcaError, KeyUnavailable, Misconfigured, NotFound, Unavailable
from ca.lineage import Issuers
from ca.model import (
    Certificate,
    CertificateRef,
    CertificateState,
    Device,
    DeviceId,
    DeviceState,
    Digest,
    Draft,
    EvidenceKind,
    Grant,
    Intent,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    Operator,
    Peer,
    Profile,
    Serial,
    StatusKind,
    TenantId,
    UnixTime,
)
from ca.ports import Chance, Clock, Failpoint, Ledger, Overtaken, SigningKey, Writing
from ca.rules import approval, asking, evidence, grant, leaf, renewal, testimony
from ca.rules.attestation.tpm import Proof, prove
from ca.rules.caps import Allowance, spend
from ca.rules.certificate import check_key_algorithm, draft
from ca.rules.clock import trusted
from ca.rules.device_life import as_shown, channel, fits
from ca.rules.issuers import Ability, check_ability, newest
from ca.rules.known_keys import KNOWN, refuse
from ca.rules.lint.certificate import lint
from ca.rules.reread import verify_signed
from ca.rules.serial import RANDOM_OCTETS, make_serial
from ca.rules.tenancy import within_quota
from ca.two_persons import TwoPersons
from ca.witness import Witness

SERIAL_TRIES = 3
"""A second collision of 134 random bits means that the generator is broken; a third try would only hide it."""

WORTH_FORESEEING: Final = 4
"""Requests from which on reading ahead costs less than asking for each."""

MOST_UNHEARD: Final = 4096
"""Records that may wait for the journal while more is decided."""


def no_failpoint(name: str) -> None:
    """What stands at every failpoint outside of tests."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose evidence was read and verified."""

    request: IssueRequest
    claim: evidence.Claim
    key: Digest
    """The request key."""
    proof: Proof | None = None
    """What a TPM proved of the key."""


@dataclass(frozen=True, slots=True)
class Proven:
    """A prepared request whose CSR was read and proves that its sender holds the key."""

    prepared: Prepared
    csr: Csr


@dataclass(frozen=True, slots=True)
class _Pending:
    """An intent of this batch, committed or about to be."""

    intent: Intent
    profile: Profile
    issuer: Issuer
    revocable: bool
    leaf: Digest

    def lint(self) -> None:
        """Policy is judged on the very octets that will be signed, by code that did not write them.

        Raises:
            Broken: `lint`.
        """
        lint(self.intent.draft, self.profile, self.issuer)


@dataclass(frozen=True, slots=True)
class _Same:
    """The same request as an earlier one of this batch."""

    request: IssueRequest
    index: int


_Outcome = Issued | FleetcaError | _Pending | _Same


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch whose intents are committed."""

    outcomes: Sequence[_Outcome]
    pending: Mapping[int, _Pending]
    now: UnixTime

    @property
    def keys(self) -> frozenset[Digest]:
        """The request keys that are in flight until its results are on record."""
        return frozenset(item.intent.request_key for item in self.pending.values())


@dataclass(frozen=True, slots=True)
class Signing:
    """A decided batch with its signatures, which nobody has checked."""

    decided: Decided
    made: Sequence[tuple[int, bytes]]
    """Finished certificates (DER), by their place in the batch."""
    failed: Mapping[int, FleetcaError]

    @property
    def unread(self) -> Sequence[tuple[Draft, bytes, bytes]]:
        """What is to be re-read: draft, certificate (DER), the issuer's key (SubjectPublicKeyInfo)."""
        pending = self.decided.pending
        return [(pending[index].intent.draft, der, pending[index].issuer.spki) for index, der in self.made]


@dataclass(frozen=True, slots=True)
class Signed:
    """A decided batch with what came of signing and re-reading; nobody gets it before it is on record."""

    decided: Decided
    results: Mapping[int, Issued | FleetcaError]


NOTHING: Final = Decided((), {}, 0)


class Issuing:
    """Belongs to one thread at a time, but for `sign`, which may have one of its own; `prepare` may be called from any.

    Args:
        keys: the opened issuing keys. An issuer without one here cannot issue (the offline root, P4).
        serial_check: the key of the serial numbers' check value.
        known_keys: by digest (`ca.rules.known_keys`): no certificate is for one of these.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        witness: Witness,
        keys: Mapping[IssuerId, SigningKey],
        issuers: Issuers,
        policy: grant.Policy,
        clock: Clock,
        chance: Chance,
        serial_check: bytes,
        two_persons: TwoPersons | None = None,
        known_keys: Mapping[str, str] = KNOWN,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        for name, key in keys.items():
            if name not in issuers.by_id or issuers.by_id[name].spki != key.spki:
                raise Misconfigured(
                    "key-of-another-issuer",
                    f"The key of issuer {name!r} is not the one in its certificate.",
                    fix="Point [[issuers]] certificate and key at the same ceremony's outputs.",
                )
        self._ledger, self._witness, self._keys, self._issuers = ledger, witness, keys, issuers
        self._policy, self._clock, self._chance, self._serial_check = policy, clock, chance, serial_check
        self._current, self._two_persons = policy, two_persons
        self._failpoint, self._known_keys = failpoint, known_keys
        self._allowances = Allowances(policy.caps_of, "certificates")
        self._tenant_rates: dict[TenantId, Allowance] = {}
        profiles = [*policy.profiles.values(), *(profile for one in policy.tenants.values() for profile in one.profiles.values())]
        self._approving = any(profile.approval_within for profile in profiles)

    def announce(self) -> None:
        """Say on the record which keys were opened. Asked for when the signer starts; signs nothing, so it needs no trusted clock."""
        with self._ledger.writing() as tx:
            for name, key in self._keys.items():
                digest = Digest(hashlib.sha256(key.spki).digest())
                tx.append_leaf(leaf.key_event(name, event="opened", algorithm=key.algorithm, spki_sha256=digest, at=self._clock.now()))

    # ---- Before the transaction -------------------------------------------------------------------------------------

    @property
    def policy(self) -> grant.Policy:
        return self._policy

    def prepare(self, request: IssueRequest, peer: Peer) -> Prepared:
        """Read and verify the evidence. Who may not bring it at all is refused before anything is parsed."""
        claim = evidence.claim(evidence.Verb.issue, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        shown, proof = request.attestation, None
        if shown is not None:
            proof = prove(shown, self._policy.attesting.makers, key=self._serial_check, now=self._clock.now())
        return Prepared(request, claim, evidence.request_key(claim, request.csr), proof)

    def issue(self, requests: Sequence[tuple[IssueRequest, Peer]]) -> list[Issued | FleetcaError]:
        """All of it for a batch, one step after the other. Each request has its own outcome, in its place."""
        proven: list[Proven | FleetcaError] = []
        for request, peer in requests:
            try:
                proven.append(Proven(self.prepare(request, peer), read_csr(request.csr)))
            except FleetcaError as error:
                proven.append(error)
        decided = iter(self.issue_proven([item for item in proven if isinstance(item, Proven)]))
        return [next(decided) if isinstance(item, Proven) else item for item in proven]

    def issue_proven(self, batch: Sequence[Proven]) -> list[Issued | FleetcaError]:
        """As `issue`, for requests that were prepared and whose CSRs were read."""
        _, decided = self.commit(batch)
        signing = self.sign(decided)
        settled, _ = self.commit((), self.checked(signing, [_reread(*item) for item in signing.unread]))
        return settled

    # ---- The transaction: results of the batch before, intents of this one ------------------------------------------

    def commit(self, batch: Sequence[Proven], signed: Signed | None = None) -> tuple[list[Issued | FleetcaError], Decided]:
        """Record what was signed, and decide a batch, in one transaction. Returns the outcomes of the one, and the other to be signed.

        A request whose key is in flight (`Decided.keys`) must not be in the batch before its results are recorded.

        Raises:
            Unavailable: only when both were given: a clock that went back, say, stops the one and must not cost the other. Call again for each
                alone; what the failed commit kept after all is found: a result is the same result, an intent is given up.
        """
        signed = signed or Signed(NOTHING, {})
        try:
            return self._commit(batch, signed)
        except Unavailable as error:
            if batch and signed.results:
                raise
            # Nobody gets what is not on record, and nothing more is signed. Again, the commit may have gone through: a repeated request
            # finds its result, or an intent to give up; recovery does the same.
            failed = {index: result if isinstance(result, FleetcaError) else error for index, result in signed.results.items()}
            return _settled(signed.decided, failed), Decided([error] * len(batch), {}, 0)

    def _commit(self, batch: Sequence[Proven], signed: Signed) -> tuple[list[Issued | FleetcaError], Decided]:
        results, now = dict(signed.results), 0
        outcomes: list[_Outcome] = []
        said: list[testimony.Record] = []
        if results:
            self._failpoint("issue.before-result-commit")
        if batch:
            if self._witness.waiting > MOST_UNHEARD:
                # The journal cannot be written, and what it has not heard of lies in memory: decide nothing more before it has.
                self._witness.settle()
            self._failpoint("issue.before-intent")
        if results or batch:
            with self._ledger.writing() as tx:
                self._record(tx, signed.decided, results, said)
                if batch:
                    now = trusted(self._clock.now(), high_time=tx.high_time())
                    outcomes, told = self._intend(tx, batch, now=now)
                    said += told
        if results:
            self._failpoint("issue.after-result-commit")
        pending = {index: item for index, item in enumerate(outcomes) if isinstance(item, _Pending)}
        said += [testimony.Intended(item.intent, item.revocable, item.leaf) for item in pending.values()]
        # In the order of the commits: whoever revokes one of these before it is signed is heard after it.
        self._witness.later(said)
        return _settled(signed.decided, results), Decided(outcomes, pending, now)

    def _record(self, tx: Writing, decided: Decided, results: dict[int, Issued | FleetcaError], said: list[testimony.Record]) -> None:
        now = decided.now
        made: dict[CertificateRef, tuple[int, bytes]] = {}
        for index, result in results.items():
            if isinstance(result, Issued):
                assert result.certificate.der is not None
                made[result.certificate.ref] = index, result.certificate.der
            else:
                said += _give_up(tx, decided.pending[index].intent, now=now)
        lost = tx.record_issued([(ref, der) for ref, (_, der) in made.items()], now=now) if made else ()
        for ref in lost:
            # While we signed, its device was revoked: that gave the intent up and revoked it, and this certificate goes nowhere.
            index, _ = made.pop(ref)
            results[index] = Denied(
                "device-retired", "The device was retired or put in quarantine meanwhile.", why=f"Certificate {ref} is void."
            )
        said += [testimony.Signed(ref, der, now) for ref, (_, der) in made.items()]

    def _intend(self, tx: Writing, batch: Sequence[Proven], *, now: UnixTime) -> tuple[list[_Outcome], list[testimony.Record]]:
        try:
            with tx.savepoint(), self._foreseeing(tx, batch):
                outcomes, said = self._each(tx, batch, now=now, alone=False)
                # One after the other, in a loop of their own: between all else that a request asks for, each takes twice as long.
                for outcome in outcomes:
                    if isinstance(outcome, _Pending):
                        outcome.lint()
        except (Overtaken, Broken):
            outcomes, said = self._each(tx, batch, now=now, alone=True)
        if any(isinstance(outcome, _Pending) for outcome in outcomes):
            tx.raise_high_time(now)
        return outcomes, said

    def _foreseeing(self, tx: Writing, batch: Sequence[Proven]) -> AbstractContextManager[None]:
        if len(batch) < WORTH_FORESEEING:
            return nullcontext()
        claims = [item.prepared.claim for item in batch]
        return tx.foreseeing(
            requests=[item.prepared.key for item in batch],
            certificates=[ref for claim in claims for ref in self._issuers.refs_of(claim)],
            tokens=[claim.token for claim in claims if claim.token is not None],
            keys=[item.csr.spki_sha256 for item in batch],
            units=[(claim.shift, claim.unit.number, claim.unit.device) for claim in claims if claim.unit is not None],
        )

    def _each(self, tx: Writing, batch: Sequence[Proven], *, now: UnixTime, alone: bool) -> tuple[list[_Outcome], list[testimony.Record]]:
        outcomes: list[_Outcome] = []
        said: list[testimony.Record] = []
        in_flight: dict[Digest, int] = {}
        for index, item in enumerate(batch):
            key = item.prepared.key
            same = in_flight.get(key)
            outcome = self._decided(tx, item, said, now=now, alone=alone) if same is None else _Same(item.prepared.request, same)
            outcomes.append(outcome)
            if isinstance(outcome, _Pending):
                in_flight[key] = index
        return outcomes, said

    def _decided(self, tx: Writing, item: Proven, said: list[testimony.Record], *, now: UnixTime, alone: bool) -> _Outcome:
        """One request under its own savepoint: what is refused leaves nothing behind but its refusal.

        Args:
            alone: its draft is linted here. Otherwise that is the caller's to do, before the transaction ends.
        """
        for attempt in range(SERIAL_TRIES):
            own: list[testimony.Record] = []
            try:
                with tx.savepoint():
                    outcome = self._decide(tx, item, own, now=now)
                    if alone and isinstance(outcome, _Pending):
                        outcome.lint()
            except Conflict as error:
                if error.code == "serial-taken" and attempt + 1 < SERIAL_TRIES:
                    continue
                return (
                    error
                    if error.code != "serial-taken"
                    else Broken("serial", "Serial numbers repeat.", why="Is the random generator broken?")
                )
            except FleetcaError as error:
                if isinstance(error, Unavailable) and not isinstance(error, (Busy, KeyUnavailable)):
                    raise
                error, told = lineage.refused(tx, error, item.prepared.claim, self._issuers, now=now)
                said += told
                return error
            said += own
            return outcome
        raise AssertionError("unreachable")

    def _decide(self, tx: Writing, proven: Proven, said: list[testimony.Record], *, now: UnixTime) -> _Outcome:
        item, csr = proven.prepared, proven.csr
        found = tx.find_by_request(item.key)
        if found is not None and found.state is CertificateState.issued:
            return _repeated(item.request, found, now=now)
        if found is not None:
            # Only this process signs, and this request is not in flight: its intent was left by a crash or a failure.
            said += lineage.give_up(tx, found, now=now)
        claim, policy = item.claim, self._policy_at(now)
        record = self._issuers.record_of(claim, tx)
        approved = approval.subject(claim, item.key)
        waited = tx.find_approval(approved) if self._approving else None
        operator = self._operator(tx, item, record)
        asked = asking.asked_for(
            claim,
            item.request,
            policy,
            key=item.key,
            token=tx.find_token(claim.token) if claim.token is not None else None,
            record=record,
            operator=operator,
            now=approval.evidence_time(waited, now=now),
            orders=tx.renewal_orders,
            hardware=hardware.owner(tx, item.proof, csr) if claim.kind is EvidenceKind.hardware else None,
            shift=tx.find_shift(claim.shift) if claim.unit is not None else None,
            listed=tx.find_unit(claim.shift, claim.unit.number) if claim.unit is not None else None,
        )
        policy = self._policy_for(policy, asked.device, operator, now=now)
        device = tx.lock_device(asked.device)
        if claim.unit is not None and device is not None:
            asking.unlocked(device, tx.latest_of(device.id, limit=1))
        if claim.validated is not None:
            before = lineage.predecessor(tx, asked, claim.validated, policy.profile(asked.profile), now=now)
            asked = asking.following(asked, claim.validated, before, now=now)
        given = grant.grant(claim, asked, policy, device=device, now=now)
        if operator is not None and self._two_persons is not None and claim.kind is EvidenceKind.local:
            way = channel(claim.peer.role, claim.kind)
            said += self._two_persons.certify(tx, operator, csr.spki_sha256, actor=given.actor, channel=way, now=now)
        profile = policy.profile(given.profile)
        issuer = self._issuer(given.issuer, Ability.sign_status if profile.status is StatusKind.nocheck else Ability.issue, now=now)
        check_key_algorithm(profile, csr.algorithm)
        refuse(csr.spki_sha256, self._known_keys)
        judged = hardware.judged(tx, given, profile, asked=asked, found=claim, proof=item.proof, csr=csr, now=now)
        if judged.verdict is not None:
            given = replace(given, verdict=judged.verdict)
        if profile.roots_of_trust or profile.safety_class is not None:
            facts = judged.facts if judged.looked else tx.device_facts(given.device)
            fits(as_shown(facts, given.verdict), profile, now=now)
        self._allowances.spend(claim.peer.role, now=now)
        self._spend_quota(tx, given, new=device is None, now=now)
        waits = approvals.required(tx, waited, given, profile, csr, request=approved, now=now)
        if waits is not None:
            return waits
        if device is None:
            self._add_device(tx, given, now=now)
        elif device.state is not DeviceState.active:
            said += lineage.moved(tx, device, DeviceState.active, given, reason="certified", now=now)
        self._claim_key(tx, csr, given, profile, now=now)
        if item.proof is not None:
            said += hardware.use_challenge(tx, item.proof.ticket, item.key, then=approval.evidence_time(waited, now=now), now=now)
        if judged.keep is not None:
            current = Device(given.device, given.tenant, DeviceState.active, now if device is None else device.created)
            said += lineage.anchored(tx, current, judged.facts, judged.keep, given, now=now)
        if given.token is not None:
            tx.use_token(given.token, request_key=asked.token_for or item.key, now=now)
        if record is not None and given.parent is not None:
            said += lineage.first_use(tx, record, policy.profiles, now=now)
        return self._reserve(tx, proven, given, profile, issuer, now=now)

    def _operator(self, tx: Writing, item: Prepared, record: Certificate | None) -> Operator | None:
        if item.claim.kind is not EvidenceKind.local:
            return lineage.operator_of(record, tx)
        name = grant.operator_of(item.request.device) if item.request.device is not None else None
        return None if name is None else tx.find_operator(name)

    def _policy_at(self, now: UnixTime) -> grant.Policy:
        """The policy with the generation that issues now in the place of the line that the settings name."""
        current = newest(self._issuers.by_id, self._policy.default_issuer, now=now)
        if current != self._current.default_issuer:
            self._current = replace(self._policy, default_issuer=current)
        return self._current

    def _policy_for(self, policy: grant.Policy, device: DeviceId, operator: Operator | None, *, now: UnixTime) -> grant.Policy:
        """The policy of the tenant whose device it is; of an operator's certificate, of the operator's."""
        if not self._policy.tenants:
            return policy
        own = grant.operator_of(device) is not None and operator is not None
        found = policy.seen_by(operator.tenant) if own and operator is not None else policy.of(device)
        if found is policy:
            return policy
        if own:
            # An operator's certificate is of the house's profile.
            found = replace(found, profiles=policy.profiles)
        return replace(found, default_issuer=newest(self._issuers.by_id, found.default_issuer, now=now))

    def _spend_quota(self, tx: Writing, given: Grant, *, new: bool, now: UnixTime) -> None:
        """What a tenant may have at most.

        Raises:
            Busy: `over-quota`, `over-rate`.
        """
        tenant = self._policy.tenant_of(given.device)
        if tenant is None:
            return
        if new and tenant.most_devices is not None:
            within_quota(tenant, tx.count_devices(tenant.id, most=tenant.most_devices))
        if tenant.per_minute is not None:
            before = self._tenant_rates.get(tenant.id)
            self._tenant_rates[tenant.id] = spend(before, per_minute=tenant.per_minute, now=now, what="certificates of this tenant")

    def _issuer(self, name: IssuerId, wanted: Ability, *, now: UnixTime) -> Issuer:
        issuer = self._issuers.by_id.get(name)
        if issuer is None:
            raise NotFound("issuer-unknown", f"There is no issuer {name!r}.", fix="List them: fleetca issuers list")
        check_ability(issuer, wanted, now=now)
        if name not in self._keys:
            raise KeyUnavailable("no-issuing-key", f"The key of issuer {name!r} is not here.", fix="See: fleetca doctor")
        return issuer

    def _add_device(self, tx: Writing, given: Grant, *, now: UnixTime) -> None:
        device = Device(given.device, given.tenant, DeviceState.active, now)
        tx.add_device(device)
        tx.append_leaf(leaf.device(device, actor=given.actor, at=now))

    def _claim_key(self, tx: Writing, csr: Csr, given: Grant, profile: Profile, *, now: UnixTime) -> None:
        """One key, one device, for ever (P9); and a new key for every certificate, unless the profile lets it be used again."""
        if tx.claim_key(csr.spki_sha256, given.device, now=now) or profile.key_reuse:
            return
        # A void intent does not count as use: the device never got that certificate.
        if any(other.spki_sha256 == csr.spki_sha256 for other in tx.certificates_of(given.device)):
            raise Conflict(
                "key-used-before",
                "The key has a certificate already.",
                why=f"Profile {profile.name!r} wants a new key for every certificate.",
                fix="Make a new key and a CSR for it.",
            )

    def _reserve(self, tx: Writing, item: Proven, given: Grant, profile: Profile, issuer: Issuer, *, now: UnixTime) -> _Pending:
        made = draft(
            grant=given,
            profile=profile,
            issuer=issuer,
            spki=item.csr.spki,
            spki_sha256=item.csr.spki_sha256,
            serial=make_serial(self._chance.octets(RANDOM_OCTETS), self._serial_check),
            now=now,
        )
        intent = Intent(draft=made, grant=given, request_key=item.prepared.key, intended_at=now)
        revocable = profile.status is StatusKind.revocable
        leaf_hash = tx.append_leaf(leaf.issuance(intent))
        tx.reserve(intent, tenant=given.tenant, revocable=revocable, leaf=leaf_hash)
        return _Pending(intent, profile, issuer, revocable, leaf_hash)

    # ---- Journal and signatures -------------------------------------------------------------------------------------

    def sign(self, decided: Decided) -> Signing:
        """Bring what was decided to the journal, then sign it. May run beside the next `commit`, in a thread of its own."""
        pending = decided.pending
        if not pending:
            return Signing(decided, (), {})
        self._failpoint("issue.after-intent-commit")
        try:
            self._witness.settle()
        except Unavailable as error:
            return Signing(decided, (), dict.fromkeys(pending, error))
        self._failpoint("issue.after-journal")
        made: list[tuple[int, bytes]] = []
        failed: dict[int, FleetcaError] = {}
        lost: dict[IssuerId, KeyUnavailable] = {}
        for index, item in pending.items():
            draft_ = item.intent.draft
            try:
                if draft_.issuer in lost:
                    # A token that is gone stays gone for this batch: do not let every request wait for it.
                    raise lost[draft_.issuer]
                signature = self._keys[draft_.issuer].sign(draft_.tbs)
                self._failpoint("issue.after-sign")
                made.append((index, assemble(draft_.tbs, draft_.algorithm, signature)))
            except KeyUnavailable as error:
                failed[index] = lost[draft_.issuer] = error
            except FleetcaError as error:
                failed[index] = error
        return Signing(decided, made, failed)

    def checked(self, signing: Signing, verdicts: Sequence[FleetcaError | None]) -> Signed:
        """What may be released of a signed batch.

        Args:
            verdicts: for each of `unread`, in order: None, or what re-reading it found (`ca.rules.reread`).
        """
        pending, now = signing.decided.pending, signing.decided.now
        results: dict[int, Issued | FleetcaError] = dict(signing.failed)
        for (index, der), wrong in zip(signing.made, verdicts, strict=True):
            if wrong is not None:
                results[index] = wrong
                continue
            self._failpoint("issue.after-reread")
            results[index] = Issued(_record(pending[index], der, now), pending[index].leaf, repeated=False)
        return Signed(signing.decided, results)


def _reread(draft_: Draft, der: bytes, spki: bytes) -> FleetcaError | None:
    try:
        verify_signed(draft_, der, spki)
    except FleetcaError as error:
        return error
    return None


def _give_up(tx: Writing, intent: Intent, *, now: UnixTime) -> tuple[testimony.Record, ...]:
    """Unless revoking its device did so while we signed."""
    tx.lock_device(intent.grant.device)
    found = tx.find_certificate(CertificateRef(intent.draft.issuer, intent.draft.serial))
    return lineage.give_up(tx, found, now=now) if found is not None and found.state is CertificateState.intended else ()


def _settled(decided: Decided, results: Mapping[int, Issued | FleetcaError]) -> list[Issued | FleetcaError]:
    return [_settle(decided.outcomes, results, index) for index in range(len(decided.outcomes))]


def _settle(outcomes: Sequence[_Outcome], results: Mapping[int, Issued | FleetcaError], index: int) -> Issued | FleetcaError:
    outcome = outcomes[index]
    if isinstance(outcome, _Same):
        first = _settle(outcomes, results, outcome.index)
        try:
            # As if it had come later: who asked for something else must not get what the first one asked for.
            return replace(_fitting(outcome.request, first.certificate), repeated=True) if isinstance(first, Issued) else first
        except Conflict as error:
            return error
    if isinstance(outcome, _Pending):
        return results.get(index) or Broken("unfinished", "A request was left without an outcome.")
    return outcome


def _repeated(wishes: IssueRequest, found: Certificate, *, now: UnixTime) -> Issued:
    """The stored result of an equal request.

    Raises:
        Conflict: `request-differs`: the same evidence and CSR, other wishes; `request-spent`: what it got has ended.
    """
    issued = _fitting(wishes, found)
    if not renewal.live(found, now=now):
        raise Conflict(
            "request-spent",
            "The same request got a certificate that does not hold any more.",
            why=f"It is certificate {found.ref}.",
            fix="Make a new key and a CSR for it.",
        )
    return replace(issued, repeated=True)


def _fitting(wishes: IssueRequest, found: Certificate) -> Issued:
    if (
        wishes.device not in {None, found.device}
        or wishes.profile not in {None, found.profile}
        or wishes.issuer not in {None, found.ref.issuer}
        or not set(found.names).issuperset(wishes.names)
    ):
        raise Conflict(
            "request-differs",
            "The same CSR got a certificate for another device, profile or issuer, or with other names.",
            why=f"It is certificate {found.ref} of {found.device}.",
            fix="Make a new key and a CSR for it.",
        )
    return Issued(found, found.leaf, repeated=False)


def _record(item: _Pending, der: bytes, now: UnixTime) -> Certificate:
    """The row as the store will have it."""
    made: Draft = item.intent.draft
    given = item.intent.grant
    return Certificate(
        ref=CertificateRef(made.issuer, Serial(made.serial)),
        state=CertificateState.issued,
        tenant=given.tenant,
        device=DeviceId(given.device),
        profile=given.profile,
        subject=made.subject,
        names=made.names,
        spki_sha256=made.spki_sha256,
        not_before=made.not_before,
        not_after=made.not_after,
        tbs=made.tbs,
        der=der,
        parent=given.parent,
        request_key=item.intent.request_key,
        intended_at=item.intent.intended_at,
        issued_at=now,
        superseded_at=None,
        first_used_at=None,
        delivered_at=None,
        grace_ends_at=None,
        revocable=item.revocable,
        revocation=None,
        leaf=item.leaf,
    )
