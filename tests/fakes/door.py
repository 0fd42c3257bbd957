"""A signer and its store in memory, for tests of those who ask it: the real rules decide, real keys sign, nothing is durable.

It keeps the promises of `enroll.ports`: a repeat gets the stored result, a token enrols once, a key serves one device, a revoked device stays so.
`troubles` makes the next calls fail, as a signer or a database that is down does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
from collections.abc import Sequence
from typing import Any

from ca.der.certificate import assemble, read_certificate
from ca.der.csr import read_csr
from ca.errors import Conflict, FleetcaError, NotFound
from ca.keys.memory import MemoryKey
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Certificate,
    CertificateQuery,
    CertificateRef,
    CertificateState,
    ConfirmRequest,
    CreatedToken,
    Device,
    DeviceId,
    DeviceState,
    Digest,
    EvidenceKind,
    Issued,
    Issuer,
    IssueRequest,
    IssuerId,
    KeyName,
    LocalEvidence,
    MessageEvidence,
    Operator,
    OperatorName,
    Peer,
    PresentedCertificate,
    ProfileName,
    Revocation,
    RevokeRequest,
    Role,
    Token,
    TokenEvidence,
    TokenRequest,
    UnixTime,
)
from ca.ports import Clock
from ca.rules import asking, evidence, grant, permission, renewal, revocation
from ca.rules import token as token_rule
from ca.rules.certificate import draft, draft_ca, issuer_from_certificate
from ca.rules.evidence import Verb
from ca.rules.grant import Policy
from ca.rules.serial import make_serial
from ca.system import SystemChance
from enroll.rest.messages import standing
from fleetca.forms import shipped_profiles

NOW: UnixTime = 1_800_000_000
YEAR = 365 * 86400


class FixedClock:
    """Says what it is told."""

    def __init__(self, at: UnixTime = NOW) -> None:
        self.at = at

    def now(self) -> UnixTime:
        return self.at


class Authority:
    """A root and an issuing CA with keys in memory."""

    def __init__(self, algorithm: str = "p256", *, now: UnixTime = NOW) -> None:
        self.now = now
        self.profiles = shipped_profiles()
        self.root_key = MemoryKey.generate(KeyName("root"), AlgorithmName(algorithm))
        self.key = MemoryKey.generate(KeyName("issuing"), AlgorithmName(algorithm))
        self.root = self._make("root", key=self.root_key, issuer=None)
        self.issuing = self._make("issuing", key=self.key, issuer=self.root)

    def _make(self, name: str, *, key: MemoryKey, issuer: Issuer | None) -> Issuer:
        made = draft_ca(
            profile=self.profiles[ProfileName("root" if issuer is None else "issuing-ca")],
            issuer=issuer,
            subject={"common_name": f"Test {name} NOT FOR PRODUCTION"},
            spki=key.spki,
            serial=make_serial(SystemChance().octets(17), bytes(32)),
            not_before=self.now - 86400,
            not_after=self.now + (10 if issuer is None else 5) * YEAR - 1,
        )
        der = assemble(made.tbs, made.algorithm, (key if issuer is None else self.root_key).sign(made.tbs))
        return issuer_from_certificate(
            der,
            id=name,
            key=None if issuer is None else key.name,
            crl_url=f"http://status.test/crl/{name}.crl",
            ocsp_url="http://status.test/ocsp",
            issuer_url=f"http://status.test/ca/{name}.cer",
            parent=None if issuer is None else issuer.id,
        )


class Door:
    """Signer and reader over one memory."""

    def __init__(self, clock: Clock, *, deployment: str = "test", authority: Authority | None = None) -> None:
        self.clock = clock
        self.root_present = False
        self.authority = authority or Authority()
        self.policy = Policy(deployment, DEFAULT_TENANT, IssuerId("issuing"), self.authority.profiles, {})
        self.rows: dict[CertificateRef, Certificate] = {}
        self.devices_: dict[DeviceId, Device] = {}
        self.operators_: dict[OperatorName, Operator] = {}
        self.tokens: dict[Digest, Token] = {}
        self.keys: dict[Digest, DeviceId] = {}
        self.asked: list[tuple[str, str]] = []
        """Each verb that got through, with the kind of its evidence."""
        self.troubles: dict[str, FleetcaError] = {}
        self._changes = itertools.count(1)
        self._lock = threading.RLock()

    # ---- Making what a test starts from -----------------------------------------------------------------------------

    def local(self, role: Role = Role.operator) -> LocalEvidence:
        return LocalEvidence(role, 0)

    def token(self, device: str = "pump-17", profile: str = "device", *, lifetime: int = 3600) -> str:
        return self.create_token(TokenRequest(self.local(), DeviceId(device), ProfileName(profile), (), lifetime)).text

    def add_operator(self, name: str, csr: bytes, *roles: str) -> bytes:
        """The DER of a new operator's certificate."""
        self.operators_[OperatorName(name)] = Operator(OperatorName(name), DEFAULT_TENANT, roles or ("admin",), self.clock.now(), None)
        asked = IssueRequest(csr, self.local(), DeviceId(grant.OPERATOR_DEVICE + name), grant.OPERATOR)
        der = self.issue(asked).certificate.der
        assert der is not None
        return der

    # ---- The signer -------------------------------------------------------------------------------------------------

    def issue(self, request: IssueRequest, /) -> Issued:
        with self._lock:
            now, peer = self._enter("issue", request.evidence)
            claim = evidence.claim(Verb.issue, request.evidence, peer, deployment=self.policy.deployment, now=now)
            key = evidence.request_key(claim, request.csr)
            for row in self.rows.values():
                if row.request_key == key:
                    return Issued(row, row.leaf, repeated=True)
            csr = read_csr(request.csr)
            record = self._record(claim)
            asked = asking.asked_for(
                claim,
                request,
                self.policy,
                key=key,
                token=self.tokens.get(claim.token) if claim.token else None,
                record=record,
                operator=self._operator(record.device if record else request.device),
                now=now,
            )
            granted = grant.grant(claim, asked, self.policy, device=self.devices_.get(asked.device), now=now)
            if self.keys.setdefault(csr.spki_sha256, asked.device) != asked.device:
                raise Conflict("key-of-another-device", "This key belongs to another device.")
            profile = self.policy.profile(asked.profile)
            made = draft(
                grant=granted,
                profile=profile,
                issuer=self.authority.issuing,
                spki=csr.spki,
                spki_sha256=csr.spki_sha256,
                serial=make_serial(SystemChance().octets(17), bytes(32)),
                now=now,
            )
            if claim.token is not None:
                self.tokens[claim.token] = dataclasses.replace(self.tokens[claim.token], used_at=now, used_by=key)
            self.devices_.setdefault(asked.device, Device(asked.device, DEFAULT_TENANT, DeviceState.active, now))
            if record is not None and asked.parent is not None:
                self._first_use(record, now)
            row = Certificate(
                ref=CertificateRef(made.issuer, made.serial),
                state=CertificateState.issued,
                tenant=granted.tenant,
                device=granted.device,
                profile=granted.profile,
                subject=made.subject,
                names=made.names,
                spki_sha256=made.spki_sha256,
                not_before=made.not_before,
                not_after=made.not_after,
                tbs=made.tbs,
                der=assemble(made.tbs, made.algorithm, self.authority.key.sign(made.tbs)),
                parent=asked.parent,
                request_key=key,
                leaf=Digest(hashlib.sha256(made.tbs).digest()),
                intended_at=now,
                issued_at=now,
                superseded_at=None,
                first_used_at=None,
                delivered_at=None,
                grace_ends_at=None,
                revocable=True,
                revocation=None,
            )
            self.rows[row.ref] = row
            return Issued(row, row.leaf, repeated=False)

    def revoke(self, request: RevokeRequest, /) -> Sequence[Revocation]:
        with self._lock:
            now, peer = self._enter("revoke", request.evidence)
            claim = evidence.claim(Verb.revoke, request.evidence, peer, deployment=self.policy.deployment, now=now)
            record = self._record(claim)
            target = self.rows.get(request.target) if request.target else None
            granted = grant.revocation(
                claim,
                request,
                self.policy,
                record=record,
                operator=self._operator(record.device if record else None),
                target=target,
                now=now,
            )
            refs = list(granted.targets)
            if granted.device is not None:
                if granted.device not in self.devices_:
                    raise NotFound("no-such-device", "There is no such device.")
                self.devices_[granted.device] = dataclasses.replace(self.devices_[granted.device], state=DeviceState.retired)
                refs = [row.ref for row in self.rows.values() if row.device == granted.device and renewal.live(row, now=now)]
            return [self._revoke(ref, granted.reason, now) for ref in refs]

    def _revoke(self, ref: CertificateRef, reason: Any, now: UnixTime) -> Revocation:
        row = self.rows.get(ref)
        if row is None:
            raise NotFound("no-such-certificate", "There is no such certificate.")
        change = revocation.change(row, reason, now=now)
        if change is None:
            assert row.revocation is not None
            return row.revocation
        made = Revocation(next(self._changes), ref, change.reason, change.revoked_at, row.not_after, listed=True)
        self.rows[ref] = dataclasses.replace(row, revocation=made)
        return made

    def confirm(self, request: ConfirmRequest, /) -> Certificate:
        with self._lock:
            now, peer = self._enter("confirm", request.evidence)
            claim = evidence.claim(Verb.confirm, request.evidence, peer, deployment=self.policy.deployment, now=now)
            successor = None if request.successor is None else self.rows.get(request.successor)
            own = permission.confirmation(claim, request, self.policy, record=self._record(claim), successor=successor, now=now)
            self._first_use(own, now)
            if successor is not None:
                self._delivered(self.rows[own.ref], successor, now)
            return self.rows[own.ref]

    def create_token(self, request: TokenRequest, /) -> CreatedToken:
        with self._lock:
            now, peer = self._enter("create-token", request.evidence)
            claim = evidence.claim(Verb.create_token, request.evidence, peer, deployment=self.policy.deployment, now=now)
            record = self._record(claim)
            operator = self._operator(record.device if record else None)
            actor = permission.token(claim, request, self.policy, record=record, operator=operator, now=now)
            text = token_rule.token_text(SystemChance().octets(token_rule.RANDOM_OCTETS))
            made = Token(
                hash=token_rule.token_hash(text),
                tenant=DEFAULT_TENANT,
                device=request.device,
                profile=request.profile,
                names=request.names,
                created=now,
                expires=now + token_rule.accepted_lifetime(request.lifetime),
                created_by=actor,
                used_at=None,
                used_by=None,
            )
            self.tokens[made.hash] = made
            return CreatedToken(text, made)

    def _enter(self, verb: str, evidence: Any) -> tuple[UnixTime, Peer]:
        self._fail("signer")
        kinds = {
            TokenEvidence: EvidenceKind.token,
            MessageEvidence: EvidenceKind.message,
            PresentedCertificate: EvidenceKind.presented,
            LocalEvidence: EvidenceKind.local,
        }
        self.asked.append((verb, kinds[type(evidence)].value))
        return self.clock.now(), Peer(evidence.role if isinstance(evidence, LocalEvidence) else Role.enroll, 0)

    def _fail(self, part: str) -> None:
        if part in self.troubles:
            raise self.troubles[part]

    def _record(self, claim: evidence.Claim) -> Certificate | None:
        if claim.certificate is None:
            return None
        return next((row for row in self.rows.values() if row.der == claim.certificate.der), None)

    def _operator(self, device: DeviceId | None) -> Operator | None:
        name = None if device is None else grant.operator_of(device)
        return None if name is None else self.operators_.get(name)

    def _first_use(self, row: Certificate, now: UnixTime) -> None:
        older = renewal.ancestors(row, self.rows.get)
        self.rows[row.ref] = dataclasses.replace(row, first_used_at=row.first_used_at or now)
        for one in older:
            self.rows[one.ref] = dataclasses.replace(one, superseded_at=now)

    def _delivered(self, row: Certificate, successor: Certificate, now: UnixTime) -> None:
        ends = now + self.policy.profile(row.profile).grace
        self.rows[successor.ref] = dataclasses.replace(successor, delivered_at=successor.delivered_at or now)
        self.rows[row.ref] = dataclasses.replace(row, grace_ends_at=row.grace_ends_at or ends)

    # ---- The reader -------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self._fail("store")

    def find_certificate(self, ref: CertificateRef, /) -> Certificate | None:
        self._fail("store")
        return self.rows.get(ref)

    def find_by_der_digest(self, digest: Digest, /) -> Certificate | None:
        self._fail("store")
        return next((row for row in self.rows.values() if row.der and hashlib.sha256(row.der).digest() == digest), None)

    def find_operator(self, name: OperatorName, /) -> Operator | None:
        self._fail("store")
        return self.operators_.get(name)

    def search_certificates(
        self, query: CertificateQuery, *, tenant: str | None = None, now: int = 0
    ) -> tuple[Sequence[Certificate], str | None]:
        self._fail("store")
        found = [
            row
            for row in reversed(self.rows.values())
            if tenant in (None, row.tenant)
            and query.device in (None, row.device)
            and query.subject in (None, row.subject)
            and (query.san is None or query.san in {name.value for name in row.names})
            and query.serial in (None, row.ref.serial)
            and query.spki_sha256 in (None, row.spki_sha256)
            and query.state in (None, standing(row, now=now))
            and (query.expires_after is None or row.not_after >= query.expires_after)
            and (query.expires_before is None or row.not_after < query.expires_before)
        ]
        start = int(query.after) if query.after else 0
        page = found[start : start + query.limit]
        return page, str(start + query.limit) if start + query.limit < len(found) else None


class SignerSide:
    """The door as the signer's client shows it."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    def ping(self) -> bool:
        self._door._fail("signer")
        return self._door.root_present


def facts(der: bytes) -> Any:
    """What a certificate says, for asserts."""
    return read_certificate(der)
