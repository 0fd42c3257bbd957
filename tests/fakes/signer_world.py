"""A whole signer over a real database and a real journal, with a clock that tests set: what the verbs need, and people who ask.

Nothing here decides anything. `World.restart` is what a new process sees: new verbs over the same database and journal.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.approvals import Approving
from ca.confirm import Confirming
from ca.describe import Describing
from ca.errors import FleetcaError
from ca.hardware import Challenging
from ca.import_manifest import ImportingManifests
from ca.issue import Issuing, no_failpoint
from ca.keys.memory import MemoryKey, make_private_key
from ca.lineage import Issuers
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Certificate,
    ConfirmRequest,
    CreatedToken,
    CrlPlan,
    Demand,
    DeviceId,
    Issued,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    MessageEvidence,
    Name,
    OperatorName,
    Peer,
    PresentedCertificate,
    ProfileName,
    Reason,
    Revocation,
    RevokeRequest,
    Role,
    TenantId,
    TokenEvidence,
    TokenRequest,
)
from ca.operators import Operators
from ca.order_renewals import Ordering
from ca.ports import SigningKey
from ca.provision import Provisioning
from ca.record_ceremony import RecordingCeremonies
from ca.recover import Recovery
from ca.revive import Reviving
from ca.revoke import Revoking
from ca.rules.caps import Attesting, Caps
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE, Policy
from ca.rules.known_keys import KNOWN
from ca.rules.message import Act, Message, signed_octets, write_message
from ca.rules.tenancy import Tenant, checked
from ca.sign_crl import CrlSigning
from ca.signer.desk import Desk, Log
from ca.signer.questions import Questions
from ca.signer.server import SignerServer, Verbs
from ca.store.engine import Store, open_store
from ca.store.entries import EntryFiles
from ca.store.file_journal import FileJournal
from ca.supersede import Superseding
from ca.system import SystemChance, SystemClock
from ca.tokens import Tokens
from ca.two_persons import TwoPersons
from ca.wipe import Wiping
from ca.witness import Witness
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.certificates import CHECK_KEY, DAY, HASHES, NOW, issuing, issuing_of, key, root, spki_of
from tests.fakes.checker import InPlace

UID = 4242
ISSUING = IssuerId("issuing")
DEPLOYMENT = "test"


class SetClock:
    """Says what it was set to."""

    def __init__(self, at: int = NOW) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


class CountingKey:
    """Counts signatures: the ground truth for P1. `broken` makes it fail."""

    def __init__(self, inner: SigningKey) -> None:
        self._inner = inner
        self.signed: list[bytes] = []
        self.broken: FleetcaError | None = None

    @property
    def name(self) -> Any:
        return self._inner.name

    @property
    def algorithm(self) -> AlgorithmName:
        return self._inner.algorithm

    @property
    def spki(self) -> bytes:
        return self._inner.spki

    def sign(self, message: bytes) -> bytes:
        if self.broken is not None:
            raise self.broken
        self.signed.append(message)
        return self._inner.sign(message)


class Keypair:
    """A device's or operator's key, with the certificate it got."""

    def __init__(self, kind: str = "p256") -> None:
        self.kind = kind
        self.private = make_private_key(AlgorithmName(kind))
        self.certificate: bytes = b""

    @property
    def spki(self) -> bytes:
        return spki_of(self.private)

    def csr(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ignored")])
        from cryptography.hazmat.primitives.serialization import Encoding

        octets: bytes = (
            x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.private, HASHES.get(self.kind)).public_bytes(Encoding.DER)
        )
        return octets

    def sign(self, payload: bytes) -> bytes:
        from ca.keys.memory import MemoryKey
        from ca.model import KeyName

        return MemoryKey(KeyName("x"), self.private).sign(signed_octets(payload))


class Journal(FileJournal):
    """A journal that can fail."""

    broken: FleetcaError | None = None

    def append(self, records: Any) -> None:
        if records and self.broken is not None:
            raise self.broken
        super().append(records)


class World:
    """A deployment at rest, and its signer."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        caps: dict[Role, Caps] | None = None,
        kind: str = "p256",
        clock: SetClock | None = None,
        failpoint: Callable[[str], None] = no_failpoint,
        profiles: dict[ProfileName, Any] | None = None,
        tenants: tuple[Tenant, ...] = (),
        attesting: Attesting = Attesting(),  # noqa: B008 - frozen
        demand: Demand = Demand(),  # noqa: B008 - frozen
    ) -> None:
        self.attesting = attesting
        self.folder, self.url, self.tenants = folder, url, tenants
        self.clock = clock or SetClock()
        self.caps = caps or {}
        self.kind = kind
        self.failpoint = failpoint
        self.profiles = {**shipped_profiles(), **(profiles or {})}
        self.key = CountingKey(key(kind, "issuing"))
        self.plan = CrlPlan()
        self.demand = demand
        self.known_keys = dict(KNOWN)
        self.crl_url = issuing(kind).crl_url
        self._ids = itertools.count(1)
        self._open()

    def _open(self) -> None:
        self.store: Store = open_store(self.url)
        self.journal = Journal(self.folder / "issuance.journal")
        self.witness = Witness(self.journal)
        self.issuer = replace(issuing(self.kind), crls=self.plan, crl_url=self.crl_url)
        self.tenant_issuers = [issuing_of(one.id) for one in self.tenants]
        self.issuers = Issuers([root(), self.issuer, *self.tenant_issuers])
        keys = {ISSUING: self.key, **{one.id: key("p256", one.id) for one in self.tenant_issuers}}
        self.policy = Policy(
            DEPLOYMENT,
            DEFAULT_TENANT,
            ISSUING,
            self.profiles,
            self.caps,
            self.attesting,
            tenants=checked(self.tenants),
            owners={one.id: one.tenant for one in self.tenant_issuers},
        )
        ledger = self.store.ledger
        shared = {"ledger": ledger, "issuers": self.issuers, "policy": self.policy, "clock": self.clock}
        self.two_persons = TwoPersons(**shared, witness=self.witness, demand=self.demand)
        self.issuing = Issuing(
            **shared,
            two_persons=self.two_persons,
            witness=self.witness,
            keys=keys,
            chance=SystemChance(),
            serial_check=CHECK_KEY,
            known_keys=self.known_keys,
            failpoint=self.failpoint,
        )
        self.revoking = Revoking(**shared, witness=self.witness, two_persons=self.two_persons, failpoint=self.failpoint)
        self.tokens = Tokens(**shared, witness=self.witness, chance=SystemChance(), secret=CHECK_KEY)
        self.ordering = Ordering(**shared, witness=self.witness)
        self.confirming = Confirming(**shared, witness=self.witness)
        self.superseding = Superseding(ledger=ledger, witness=self.witness, policy=self.policy, clock=self.clock)
        self.operators = Operators(ledger=ledger, witness=self.witness, tenant=DEFAULT_TENANT, clock=self.clock)
        self.approving = Approving(**shared, witness=self.witness, two_persons=self.two_persons)
        self.reviving = Reviving(ledger=ledger, witness=self.witness, two_persons=self.two_persons, policy=self.policy, clock=self.clock)
        self.manifests = ImportingManifests(ledger=ledger, witness=self.witness, tenant=DEFAULT_TENANT, clock=self.clock)
        self.challenging = Challenging(policy=self.policy, clock=self.clock, chance=SystemChance(), secret=CHECK_KEY)
        self.describing = Describing(ledger=ledger, witness=self.witness, policy=self.policy, clock=self.clock)
        self.wiping = Wiping(**shared, witness=self.witness, keys=keys, two_persons=self.two_persons)
        self.provisioning = Provisioning(**shared, witness=self.witness, keys=keys, failpoint=self.failpoint)
        self.crls = CrlSigning(
            ledger=ledger,
            reading=self.store.reading,
            bodies=EntryFiles(self.folder / "crl-entries", self.store.reading),
            witness=self.witness,
            keys={ISSUING: self.key},
            issuers=self.issuers,
            clock=self.clock,
            lifetime=DAY,
            two_persons=self.two_persons,
            failpoint=self.failpoint,
        )
        self.recovery = Recovery(
            ledger=ledger,
            journal=self.journal,
            witness=self.witness,
            issuers=self.issuers,
            tenant=DEFAULT_TENANT,
            clock=self.clock,
        )

    def restart(self) -> None:
        """A new process over the same files."""
        self.store.close()
        self._open()

    def lost(self) -> World:
        """What is left when the database is gone: the journal, beside an empty one. Closes this one."""
        self.witness.settle()
        self.close()
        place = self.folder / f"lost-{len(list(self.folder.glob('lost-*')))}"
        place.mkdir()
        return World(self.folder, sqlite_url(place), clock=self.clock, profiles=self.profiles, tenants=self.tenants)

    def close(self) -> None:
        self.store.close()

    def server(
        self, path: Path, *, users: dict[int, frozenset[Role]], mode: int = 0o600, batch: int = 64, log: Log | None = None
    ) -> SignerServer:
        verbs = Verbs(
            issuing=self.issuing,
            revoking=self.revoking,
            tokens=self.tokens,
            ordering=self.ordering,
            confirming=self.confirming,
            superseding=self.superseding,
            crls=self.crls,
            operators=self.operators,
            describing=self.describing,
            challenging=self.challenging,
            manifests=self.manifests,
            approving=self.approving,
            two_persons=self.two_persons,
            reviving=self.reviving,
            provisioning=self.provisioning,
            wiping=self.wiping,
            ceremonies=RecordingCeremonies(
                ledger=self.store.ledger, issuers=self.issuers, clock=self.clock, two_persons=self.two_persons, witness=self.witness
            ),
            questions=Questions(
                reading=self.store.reading,
                policy=self.policy,
                witness=self.witness,
                keys=frozenset({ISSUING}),
                roots=frozenset({root().id}),
                clock=self.clock,
            ),
        )
        desk = Desk(issuing=self.issuing, revoking=self.revoking, witness=self.witness, checker=InPlace(), batch=batch, log=log)
        return SignerServer(path, verbs=verbs, desk=desk, users=users, mode=mode, monotonic=SystemClock().monotonic, log=log)

    # ---- People -----------------------------------------------------------------------------------------------------

    def peer(self, role: Role) -> Peer:
        return Peer(role, UID)

    def local(self, role: Role) -> LocalEvidence:
        return LocalEvidence(role, UID)

    def token(
        self, device: str = "pump-17", profile: str = "device", *, lifetime: int = 3600, names: tuple[Name, ...] = ()
    ) -> CreatedToken:
        asked = TokenRequest(self.local(Role.operator), DeviceId(device), ProfileName(profile), names, lifetime)
        return self.tokens.create(asked, self.peer(Role.operator))

    def issue(self, request: IssueRequest, role: Role = Role.enroll) -> Issued:
        """The outcome; raises what it is refused with."""
        outcome = self.issuing.issue([(request, self.peer(role))])[0]
        if isinstance(outcome, FleetcaError):
            raise outcome
        return outcome

    def enrol(
        self, device: str = "pump-17", profile: str = "device", *, pair: Keypair | None = None, names: tuple[Name, ...] = ()
    ) -> Keypair:
        pair = pair or Keypair()
        text = self.token(device, profile, names=names).text
        pair.certificate = der_of(self.issue(IssueRequest(pair.csr(), TokenEvidence(text))))
        return pair

    def renew(self, current: Keypair, *, pair: Keypair | None = None) -> Keypair:
        pair = pair or Keypair()
        request = IssueRequest(pair.csr(), PresentedCertificate(current.certificate))
        pair.certificate = der_of(self.issue(request))
        return pair

    def confirm(self, pair: Keypair) -> Certificate:
        return self.confirming.confirm(ConfirmRequest(PresentedCertificate(pair.certificate)), self.peer(Role.enroll))

    def deliver(self, current: Keypair, successor: Keypair) -> Certificate:
        asked = ConfirmRequest(PresentedCertificate(current.certificate), self.row(successor).ref)
        return self.confirming.confirm(asked, self.peer(Role.enroll))

    def operator(self, name: str = "ada", *roles: str, person: str = "", tenant: str | None = None) -> Keypair:
        of = None if tenant is None else TenantId(tenant)
        self.operators.add(OperatorName(name), roles or ("admin",), self.peer(Role.operator), person=person, tenant=of)
        pair = Keypair()
        asked = IssueRequest(pair.csr(), self.local(Role.operator), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
        pair.certificate = der_of(self.issue(asked, Role.operator))
        return pair

    def message(self, pair: Keypair, act: Act, **fields: Any) -> MessageEvidence:
        asked = Message(
            act=act,
            audience=fields.pop("audience", DEPLOYMENT),
            issued_at=fields.pop("issued_at", self.clock.at),
            id=fields.pop("id", f"{next(self._ids):032x}"),
            **fields,
        )
        payload = write_message(asked)
        return MessageEvidence(payload, pair.certificate, pair.sign(payload))

    def revoke(self, request: RevokeRequest, role: Role = Role.operator) -> tuple[Revocation, ...]:
        outcome = self.revoking.revoke([(request, self.peer(role))])[0]
        if isinstance(outcome, FleetcaError):
            raise outcome
        return outcome

    def revoke_certificate(self, pair: Keypair, reason: Reason = Reason.keyCompromise) -> tuple[Revocation, ...]:
        return self.revoke(RevokeRequest(self.local(Role.operator), reason, target=self.row(pair).ref))

    def revoke_device(self, device: str, reason: Reason = Reason.cessationOfOperation) -> tuple[Revocation, ...]:
        return self.revoke(RevokeRequest(self.local(Role.operator), reason, device=DeviceId(device)))

    # ---- What is on record ------------------------------------------------------------------------------------------

    def row(self, pair: Keypair) -> Certificate:
        import hashlib

        from ca.model import Digest

        found = self.store.reading.find_by_der_digest(Digest(hashlib.sha256(pair.certificate).digest()))
        assert found is not None
        return found

    def rows(self) -> list[Certificate]:
        return list(self.store.reading.every_certificate())

    def leaves(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(leaf.body) for leaf in self.store.reading.pending_leaves(10_000)]
        return [leaf for leaf in found if kind is None or leaf["kind"] == kind]


def der_of(issued: Issued) -> bytes:
    der = issued.certificate.der
    assert der is not None
    return der


def changed(profile: Any, **fields: Any) -> Any:
    """A profile with other values and another digest."""
    return replace(profile, digest=bytes(31) + b"\1", **fields)


__all__ = ["CHECK_KEY", "DAY", "NOW", "CountingKey", "Keypair", "MemoryKey", "SetClock", "World"]
