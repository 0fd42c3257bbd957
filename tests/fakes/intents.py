"""Intents for tests of the store: random octets where signed bytes would be. A test changes the one thing it is about."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    CertificateRef,
    DeviceId,
    Digest,
    Draft,
    EvidenceKind,
    Grant,
    Intent,
    IssuerId,
    Name,
    ProfileName,
    Role,
    Serial,
    Token,
)

ISSUER = IssuerId("issuing")
NOW = 1_800_000_000
WEEK = 7 * 86400

_chance = random.Random()  # so that processes that run at once differ
_numbers = itertools.count(1)


def digest() -> Digest:
    return Digest(_chance.randbytes(32))


def intent(device: str = "", *, names: tuple[Name, ...] = (), request_key: Digest | None = None, **changes: Any) -> Intent:
    """`changes` are fields of the draft or of the grant."""
    device = device or f"pump-{next(_numbers):05d}"
    draft = Draft(
        tbs=_chance.randbytes(480),
        issuer=ISSUER,
        serial=Serial(int.from_bytes(b"\x41" + _chance.randbytes(19), "big")),
        algorithm=AlgorithmName("p256"),
        not_before=NOW - 60,
        not_after=NOW + WEEK - 1,
        subject=f"CN={device}",
        names=names,
        spki_sha256=digest(),
    )
    grant = Grant(
        tenant=DEFAULT_TENANT,
        device=DeviceId(device),
        profile=ProfileName("device"),
        profile_digest=digest(),
        issuer=ISSUER,
        names=names,
        actor=f"device:{device}",
        role=Role.enroll,
        evidence=EvidenceKind.token,
        evidence_digest=digest(),
        parent=None,
        token=digest(),
        granted_at=NOW,
    )
    fields = {field.name for field in dataclasses.fields(draft)}
    return Intent(
        draft=dataclasses.replace(draft, **{name: value for name, value in changes.items() if name in fields}),
        grant=dataclasses.replace(grant, **{name: value for name, value in changes.items() if name not in fields}),
        request_key=request_key or digest(),
        intended_at=NOW,
    )


def ref_of(found: Intent) -> CertificateRef:
    return CertificateRef(found.draft.issuer, found.draft.serial)


def token(device: str = "pump-00001", **changes: Any) -> Token:
    return dataclasses.replace(
        Token(
            hash=digest(),
            tenant=DEFAULT_TENANT,
            device=DeviceId(device),
            profile=ProfileName("device"),
            names=(),
            created=NOW,
            expires=NOW + 3600,
            created_by="operator:ada",
            used_at=None,
            used_by=None,
        ),
        **changes,
    )
