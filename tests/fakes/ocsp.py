"""A small world for the OCSP responder: keys of every algorithm, issuers, a record, a signer that certifies, a clock that is set by hand.

Certificates are made by cryptography's builder, so that nothing of ours stands on both sides of a test.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.der import algorithms, writer
from ca.errors import KeyUnavailable, StoreUnavailable
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    CertificateRef,
    CertificateState,
    Issuer,
    IssuerId,
    KeyName,
    Reason,
    Revocation,
    RollEntry,
    Serial,
    UnixTime,
)
from ocsp.model import Policy, Question, Responder, SerialCheck
from ocsp.rules import responder as delegates
from ocsp.rules.issuers import HASHES, key_octets
from ocsp.serve import ResponderService

NOW: UnixTime = 1_795_000_000
"""2026-11-18, an ordinary Wednesday."""
HOUR = 3600
DAY = 24 * HOUR

ALGORITHMS = tuple(algorithms.ALGORITHMS)

_MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}


def moment(when: UnixTime) -> datetime:
    return datetime.fromtimestamp(when, UTC)


class Key:
    """A key in memory; `gone` makes it refuse."""

    def __init__(self, private: Any) -> None:
        self.private = private
        self.spki: bytes = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        row = algorithms.algorithm_of(private.public_key())
        self.algorithm: AlgorithmName = row.name
        self._arguments = row.arguments
        self.gone = False
        self.signed: list[bytes] = []

    @property
    def builder_hash(self) -> Any:
        """What cryptography's builders want beside the key."""
        return {"p384": hashes.SHA384()}.get(self.algorithm, None if self.algorithm[:2] in ("ed", "ml") else hashes.SHA256())

    def sign(self, message: bytes) -> bytes:
        if self.gone:
            raise KeyUnavailable("key-gone", "The key cannot be used.")
        self.signed.append(message)
        signature: bytes = self.private.sign(message, *self._arguments)
        return signature


def new_key(algorithm: str = "p256") -> Key:
    return Key(_MAKERS[algorithm]())


@lru_cache(maxsize=64)
def one_key(algorithm: str, use: str) -> Key:
    """The same key every time: RSA takes a second to make."""
    return new_key(algorithm)


def es256() -> ec.ECDSA:
    """How P-256 keys sign here."""
    return ec.ECDSA(hashes.SHA256())


@dataclass(slots=True)
class Authority:
    """A CA with its key, to make certificates with."""

    issuer: Issuer
    key: Key
    certificate: x509.Certificate


def authority(
    name: str = "issuing", *, algorithm: str = "p256", use: str = "", key_here: bool = True, not_after: UnixTime = NOW + 3650 * DAY
) -> Authority:
    key = one_key(algorithm, use or name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test {name}")])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.private.public_key())
        .serial_number(7)
        .not_valid_before(moment(NOW - 365 * DAY))
        .not_valid_after(moment(not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()), critical=False)
        .sign(key.private, key.builder_hash)
    )
    issuer = Issuer(
        id=IssuerId(name),
        tenant=DEFAULT_TENANT,
        certificate=built.public_bytes(serialization.Encoding.DER),
        subject=subject.public_bytes(),
        spki=key.spki,
        key_identifier=hashlib.sha1(key_octets(key.spki)).digest(),
        algorithm=key.algorithm,
        not_before=NOW - 365 * DAY,
        not_after=not_after,
        key=KeyName(name) if key_here else None,
        may_issue=key_here,
        may_sign_crl=key_here,
        crl_url=None,
        ocsp_url=None,
        issuer_url=None,
        parent=None,
    )
    return Authority(issuer, key, built)


def delegate(
    ca: Authority,
    public_key: Any,
    *,
    now: UnixTime = NOW,
    life: int = DAY,
    subject: str = "ocsp responder",
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.OCSP_SIGNING,),
    digital_signature: bool = True,
    nocheck: bool = True,
    nocheck_critical: bool = False,
    issuer_name: x509.Name | None = None,
    signer: Key | None = None,
) -> bytes:
    """A delegated responder certificate; each argument breaks one thing."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(issuer_name or ca.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now))
        .not_valid_after(moment(now + life - 1))
        .add_extension(
            x509.KeyUsage(
                digital_signature=digital_signature,
                content_commitment=not digital_signature,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.AuthorityKeyIdentifier(ca.issuer.key_identifier, None, None), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if nocheck:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=nocheck_critical)
    key = signer or ca.key
    return builder.sign(key.private, key.builder_hash).public_bytes(serialization.Encoding.DER)


def seated(ca: Authority, key: Key, *, now: UnixTime = NOW, life: int = DAY) -> Responder:
    """A judged responder for a CA."""
    certificate = delegate(ca, key.private.public_key(), now=now, life=life)
    return delegates.responder(ca.issuer, certificate, spki=key.spki, algorithm=key.algorithm, now=now)


class SetClock:
    """A clock that is set by hand."""

    def __init__(self, now: UnixTime = NOW) -> None:
        self.time = now

        self.passed = 0.0

    def now(self) -> UnixTime:
        return self.time

    def monotonic(self) -> float:
        return self.passed


class Signer:
    """Certifies responder keys; `gone` makes it unreachable, `give` makes it answer nonsense."""

    def __init__(self, *authorities: Authority, clock: SetClock, life: int = DAY) -> None:
        self._authorities = {one.issuer.id: one for one in authorities}
        self._clock = clock
        self.life = life
        self.gone = False
        self.asked: list[bytes] = []
        self.give: bytes | None = None

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        if self.gone:
            raise KeyUnavailable("signer-down", "The signer does not answer.")
        found = x509.load_der_x509_csr(csr)
        assert found.is_signature_valid
        self.asked.append(csr)
        if self.give is not None:
            return self.give
        return delegate(self._authorities[issuer], found.public_key(), now=self._clock.now(), life=self.life)


@dataclass(slots=True)
class Record:
    """The record of certificates; `gone` makes the database unreachable. Counts what it is asked."""

    states: dict[CertificateRef, CertificateState] = field(default_factory=dict)
    changes: list[Revocation] = field(default_factory=list)
    gone: bool = False
    asked: list[CertificateRef] = field(default_factory=list)
    before_answer: Callable[[], object] | None = None
    lock: Any = field(default_factory=Lock)

    def issue(self, issuer: str, serial: int, state: CertificateState = CertificateState.issued) -> CertificateRef:
        ref = CertificateRef(IssuerId(issuer), Serial(serial))
        self.states[ref] = state
        return ref

    def change(self, ref: CertificateRef, reason: Reason, at: UnixTime = NOW) -> None:
        with self.lock:
            self.changes.append(Revocation(len(self.changes) + 1, ref, reason, at, NOW + 7 * DAY, listed=True))

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        self._reach()
        ref = CertificateRef(issuer, serial)
        with self.lock:
            self.asked.append(ref)
            state = self.states.get(ref)
            latest = next((one for one in reversed(self.changes) if one.ref == ref), None)
        if self.before_answer is not None:
            self.before_answer()
        return None if state is None else (state, latest)

    def change_number(self) -> int:
        self._reach()
        return len(self.changes)

    def statuses_after(self, row: int, limit: int) -> Sequence[RollEntry]:
        self._reach()
        with self.lock:
            latest = {one.ref: one for one in self.changes}
            entries = [RollEntry(at, ref, state, latest.get(ref), NOW + 7 * DAY) for at, (ref, state) in enumerate(self.states.items(), 1)]
        return entries[row : row + limit]

    def last_row(self) -> int:
        self._reach()
        return len(self.states)

    def changes_since(self, change: int, limit: int) -> Sequence[Revocation]:
        self._reach()
        return self.changes[change : change + limit]

    def _reach(self) -> None:
        if self.gone:
            raise StoreUnavailable("store-down", "The database does not answer.")


@dataclass(slots=True)
class World:
    """A responder with everything around it."""

    ca: Authority
    record: Record
    signer: Signer
    clock: SetClock
    service: ResponderService
    keys: list[Key]


def world(
    *others: Authority,
    policy: Policy | None = None,
    algorithm: str = "p256",
    is_ours: Callable[[Serial], bool] | None = None,
    ca: Authority | None = None,
    ready: bool = True,
    life: int = DAY,
) -> World:
    """One issuing CA with a responder; `ready` False leaves it before its first certificate and poll."""
    ca = ca or authority()
    record, clock = Record(), SetClock()
    signer = Signer(ca, *others, clock=clock, life=life)
    keys: list[Key] = []

    def make_key() -> Key:
        keys.append(new_key(algorithm))
        return keys[-1]

    service = ResponderService(
        reading=record,
        certifier=signer,
        make_key=make_key,
        issuers=[ca.issuer, *(one.issuer for one in others)],
        policy=policy or Policy(),
        clock=clock,
        check=None if is_ours is None else SerialCheck(is_ours, ""),
    )
    if ready:
        service.listen()
        service.renew()
    return World(ca, record, signer, clock, service, keys)


# ---- Requests, written by hand so that they may be odd --------------------------------------------------------------


def certificate_id(issuer: Issuer, serial: int, *, hash_name: str = "sha256", parameters: bytes = writer.NULL) -> bytes:
    def digest(content: bytes) -> bytes:
        return writer.octet_string(hashlib.new(hash_name, content).digest())

    return writer.sequence(
        writer.sequence(writer.oid(HASHES[hash_name]), parameters),
        digest(issuer.subject),
        digest(key_octets(issuer.spki)),
        writer.integer(serial),
    )


def nonce_extension(value: bytes, *, critical: bool = False) -> bytes:
    return writer.extension("1.3.6.1.5.5.7.48.1.2", writer.octet_string(value), critical=critical)


def request(
    *certificate_ids: bytes,
    version: bytes = b"",
    requestor: bytes = b"",
    extensions: Sequence[bytes] = (),
    single_extensions: bytes = b"",
    signature: bytes = b"",
) -> bytes:
    singles = b"".join(writer.sequence(one, single_extensions) for one in certificate_ids)
    listed = writer.explicit(2, writer.sequence(*extensions)) if extensions else b""
    return writer.sequence(writer.sequence(version, requestor, writer.sequence(singles), listed), signature)


def post(body: bytes, *, content_type: str | None = "application/ocsp-request") -> Question:
    return Question(method="POST", raw_path="/ocsp", body=body, content_type=content_type)


def get(body: bytes, **fields: Any) -> Question:
    return Question(method="GET", raw_path="/ocsp/" + quote(base64.b64encode(body).decode(), safe=""), **fields)
