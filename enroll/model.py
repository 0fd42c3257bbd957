"""The words of the way in: what is asked of enrolment beyond `ca.model`, and what it answers. Ring 0: no behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ca.errors import FleetcaError
from ca.model import CertificateRef, DeviceId, Digest, Issuer, ProfileName, Shift, TenantId, UnixTime


class Delivered(Protocol):
    """What a device is told of its certificate; `ca.model.Certificate` says it, and much that stays with us."""

    @property
    def ref(self) -> CertificateRef: ...
    @property
    def device(self) -> DeviceId: ...
    @property
    def profile(self) -> ProfileName: ...
    @property
    def der(self) -> bytes | None: ...
    @property
    def not_before(self) -> UnixTime: ...
    @property
    def not_after(self) -> UnixTime: ...
    @property
    def intended_at(self) -> UnixTime: ...


class Granted(Protocol):
    """What came of a request, as far as its asker is concerned; `ca.model.Issued` says it."""

    @property
    def certificate(self) -> Delivered: ...
    @property
    def leaf(self) -> Digest: ...
    @property
    def repeated(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """`Delivered` and nothing more."""

    ref: CertificateRef
    device: DeviceId
    profile: ProfileName
    der: bytes
    not_before: UnixTime
    not_after: UnixTime
    intended_at: UnixTime


@dataclass(frozen=True, slots=True)
class Grantee:
    """`Granted` and nothing more."""

    certificate: Delivery
    leaf: Digest
    repeated: bool


@dataclass(frozen=True, slots=True)
class Issuance:
    """What a device gets back."""

    certificate: Delivered
    chain: tuple[bytes, ...]
    """DER, the issuing CA first, the root last."""
    renew_at: UnixTime | None
    """When the server suggests to renew; None where the profile does not renew."""
    plain_key_file: bool
    """Whether its profile lets its key lie in a plain file (P10)."""
    leaf: Digest
    """The leaf hash of its place in the Merkle log (P8)."""
    repeated: bool
    """The same request was granted before; this is its result, not a second certificate."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a device last said of its renewals. Nothing is decided by it; people look at it."""

    device: DeviceId
    tenant: TenantId
    outcome: str
    code: str
    """Of what failed; empty."""
    due: UnixTime
    """When it will renew next."""
    agent: str
    """Which program says so."""
    heard_at: UnixTime
    not_before: UnixTime
    not_after: UnixTime
    """Both of the certificate that it spoke with."""


@dataclass(frozen=True, slots=True)
class Health:
    signer: bool
    store: bool
    root_present: bool
    """Whether the signer has the key of a root open, which must never be (P4). False also where it does not answer: then none is."""

    @property
    def ready(self) -> bool:
        return self.signer and self.store


@dataclass(frozen=True, slots=True)
class StationAnswer:
    """What came of units that a station brought."""

    shift: Shift
    outcomes: Sequence[bytes | FleetcaError]
    """Each one's certificate (DER), or what it was refused with, in their order."""
    issuers: Sequence[Issuer]
    """Who may have signed them, and whoever stands above these."""
