"""Keys of every kind, issuers and grants for tests of what is signed. Keys are made once a process: RSA-4096 takes a second."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ca.der.algorithms import ALGORITHMS
from ca.der.certificate import assemble
from ca.keys.memory import MemoryKey, make_private_key
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    DeviceId,
    Digest,
    Draft,
    EvidenceKind,
    Grant,
    Issuer,
    IssuerId,
    KeyName,
    Name,
    NameKind,
    Profile,
    ProfileName,
    Role,
    Serial,
    TenantId,
)
from ca.rules.certificate import draft, draft_ca, issuer_from_certificate
from ca.rules.serial import make_serial
from fleetca.forms import shipped_profiles

NOW = 1_795_305_600  # 2026-11-22T00:00:00Z
DAY = 86400
CHECK_KEY = bytes(range(32))
KINDS = tuple(ALGORITHMS)
HASHES: dict[str, Any] = {
    "p256": hashes.SHA256(),
    "p384": hashes.SHA384(),
    "rsa-3072": hashes.SHA256(),
    "rsa-4096": hashes.SHA256(),
}
"""What cryptography's builders want as `algorithm`; absent is None."""


@lru_cache
def private_key(kind: str, which: str = "") -> Any:
    return make_private_key(AlgorithmName(kind))


@lru_cache
def key(kind: str, which: str = "") -> MemoryKey:
    return MemoryKey(KeyName(f"{kind}{which}"), private_key(kind, which))


def spki_of(private: Any) -> bytes:
    octets: bytes = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return octets


def at(when: int) -> datetime:
    return datetime.fromtimestamp(when, UTC)


def serial(number: int = 1) -> Serial:
    return make_serial(sha256(number.to_bytes(8, "big")).digest()[:17], CHECK_KEY)


@lru_cache
def profile(name: str) -> Profile:
    return shipped_profiles()[ProfileName(name)]


def signed(made: Draft, signer: MemoryKey) -> bytes:
    return assemble(made.tbs, made.algorithm, signer.sign(made.tbs))


@lru_cache
def root(kind: str = "p256") -> Issuer:
    signer = key(kind, "root")
    made = draft_ca(
        profile=profile("root"),
        issuer=None,
        subject={"organization": "Example", "common_name": f"Root {kind}"},
        spki=signer.spki,
        serial=serial(1),
        not_before=NOW - DAY,
        not_after=NOW + 20 * 365 * DAY,
    )
    return with_urls(issuer_from_certificate(signed(made, signer), id="root", key=signer.name))


def with_urls(issuer: Issuer) -> Issuer:
    return replace(
        issuer,
        crl_url=f"http://status.example/crl/{issuer.id}.crl",
        ocsp_url="http://status.example/ocsp",
        issuer_url=f"http://status.example/ca/{issuer.id}.cer",
    )


@lru_cache
def issuing(kind: str = "p256") -> Issuer:
    """An issuing CA of that kind under the P-256 root."""
    signer = key(kind, "issuing")
    made = draft_ca(
        profile=profile("issuing-ca"),
        issuer=root(),
        subject={"organization": "Example", "common_name": f"Issuing CA {kind}"},
        spki=signer.spki,
        serial=serial(2),
        not_before=NOW - DAY,
        not_after=NOW + 5 * 365 * DAY - 1 - DAY,
    )
    return with_urls(issuer_from_certificate(signed(made, key("p256", "root")), id="issuing", key=signer.name, parent=IssuerId("root")))


@lru_cache
def issuing_of(tenant: str) -> Issuer:
    """The issuing CA of a tenant, `TENANT-ca`."""
    name = f"{tenant}-ca"
    signer = key("p256", name)
    made = draft_ca(
        profile=profile("issuing-ca"),
        issuer=root(),
        subject={"organization": "Example", "common_name": f"Issuing CA of {tenant}"},
        spki=signer.spki,
        serial=serial(sum(tenant.encode())),
        not_before=NOW - DAY,
        not_after=NOW + 5 * 365 * DAY - 1 - DAY,
    )
    der = signed(made, key("p256", "root"))
    return with_urls(issuer_from_certificate(der, id=name, key=signer.name, parent=IssuerId("root"), tenant=TenantId(tenant)))


def grant(*, device: str = "pump-17", names: tuple[Name, ...] = (), of: str = "device") -> Grant:
    return Grant(
        tenant=DEFAULT_TENANT,
        device=DeviceId(device),
        profile=ProfileName(of),
        profile_digest=Digest(bytes(32)),
        issuer=IssuerId("issuing"),
        names=names,
        actor="device:pump-17",
        role=Role.enroll,
        evidence=EvidenceKind.token,
        evidence_digest=Digest(bytes(32)),
        parent=None,
        token=None,
        granted_at=NOW,
    )


SERVICE_NAMES = (Name(NameKind.dns, "broker.example"), Name(NameKind.ip, "192.0.2.7"), Name(NameKind.ip, "2001:db8::7"))


def drafted(
    of: Profile | str = "device",
    *,
    issuer: Issuer | None = None,
    kind: str = "p256",
    names: tuple[Name, ...] | None = None,
    device: str = "pump-17",
    now: int = NOW,
    number: int = 3,
) -> Draft:
    """A draft of an end entity's certificate."""
    wanted = profile(of) if isinstance(of, str) else of
    if names is None:
        names = SERVICE_NAMES if wanted.required_names else ()
    spki = key(kind, "device").spki
    return draft(
        grant=grant(device=device, names=names, of=wanted.name),
        profile=wanted,
        issuer=issuer or issuing(),
        spki=spki,
        spki_sha256=Digest(sha256(spki).digest()),
        serial=serial(number),
        now=now,
    )


def name_of(der: bytes) -> x509.Name:
    return x509.load_der_x509_certificate(der).subject
