"""The words of ACME (RFC 8555) as we keep them. Ring 0: standard library only, no behaviour beyond what a word needs to be itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ca.errors import Refused
from ca.model import CertificateRef, DeviceId, Digest, Name, NameKind, ProfileName, UnixTime


class Problem(Refused):
    """What an ACME client is told (RFC 8555 6.7): a type of the IANA registry, in the RFC's spelling.

    Args:
        kind: the last word of `urn:ietf:params:acme:error:...`.
        detail: one sentence for people.
        status: of HTTP, where it is not that of the kind.
        subproblems: one for each identifier that is at fault (6.7.1).
        algorithms: what would be taken (6.2).
        location: of what stands in the way (7.3.5).
        retry_after: seconds after which asking again makes sense.
        identifier: in a subproblem, which one is at fault.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        status: int | None = None,
        subproblems: tuple[Problem, ...] = (),
        algorithms: tuple[str, ...] = (),
        location: str | None = None,
        retry_after: int | None = None,
        identifier: Identifier | None = None,
    ) -> None:
        super().__init__("acme-" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower(), detail)
        self.kind, self.detail, self.status = kind, detail, status
        self.subproblems, self.algorithms, self.location = subproblems, algorithms, location
        self.retry_after, self.identifier = retry_after, identifier


class IdentifierKind(StrEnum):
    """RFC 8555 9.7.7, RFC 8738 3, and the identifier of a device as its account's token names it."""

    dns = "dns"
    ip = "ip"
    permanent_identifier = "permanent-identifier"


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """What a client asks for, in its one text form."""

    kind: IdentifierKind
    value: str


class AccountStatus(StrEnum):
    valid = "valid"
    deactivated = "deactivated"
    revoked = "revoked"


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks. `device` is its identity: a device that an operator's token names, or the account itself."""

    id: str
    directory: str
    thumbprint: str
    """RFC 7638, base64url: one key, one account."""
    jwk: Mapping[str, str]
    status: AccountStatus
    contact: tuple[str, ...]
    device: DeviceId
    token: Digest | None
    """The token that bound it, by its hash."""
    created: UnixTime


class ChallengeKind(StrEnum):
    http_01 = "http-01"
    dns_01 = "dns-01"
    tls_alpn_01 = "tls-alpn-01"


class ChallengeStatus(StrEnum):
    pending = "pending"
    processing = "processing"
    valid = "valid"
    invalid = "invalid"


@dataclass(frozen=True, slots=True)
class Challenge:
    kind: ChallengeKind
    token: str
    status: ChallengeStatus = ChallengeStatus.pending
    started: UnixTime | None = None
    validated: UnixTime | None = None
    error: Mapping[str, Any] | None = None


class AuthorizationStatus(StrEnum):
    pending = "pending"
    valid = "valid"
    invalid = "invalid"
    deactivated = "deactivated"
    expired = "expired"
    revoked = "revoked"


@dataclass(frozen=True, slots=True)
class Authorization:
    """That an account holds an identifier, or tries to show it."""

    id: str
    account: str
    identifier: Identifier
    status: AuthorizationStatus
    expires: UnixTime
    challenges: tuple[Challenge, ...]
    version: int = 0
    """Counts changes: a change is made to the version that was read, or not at all."""


class OrderStatus(StrEnum):
    pending = "pending"
    ready = "ready"
    processing = "processing"
    valid = "valid"
    invalid = "invalid"


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    account: str
    directory: str
    status: OrderStatus
    """As stored; `ready` is never stored, it follows from the authorizations."""
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    created: UnixTime
    expires: UnixTime
    replaces: CertificateRef | None = None
    csr: bytes | None = None
    certificate: CertificateRef | None = None
    error: Mapping[str, Any] | None = None
    version: int = 0
    look_again: int = 5
    """Seconds after which a client should look again at what is processing; not stored."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One door of the house: a profile, and who may ask for it.

    Args:
        name: stands in its addresses.
        profile: what its certificates look like.
        bound: accounts need an external account binding, by a one-time token of an operator; the device that it names is then the account's identity.
        dns: names that it takes: whole, or `*.` and the end of all that lie below it; `*` is every name.
        networks: addresses that may be identifiers, and to which validation may connect.
    """

    name: str
    profile: ProfileName
    bound: bool
    dns: tuple[str, ...]
    networks: tuple[str, ...]
    challenges: tuple[ChallengeKind, ...] = (ChallengeKind.http_01, ChallengeKind.tls_alpn_01)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one asker may ask for; each answers with Retry-After (RFC 8555 6.6)."""

    accounts_per_hour: int = 1000
    """From one network address."""
    orders_per_hour: int = 300
    """Of one account."""
    failures_per_hour: int = 60
    """Failed validations of one account."""


def name_of(identifier: Identifier) -> Name | None:
    """The subject alternative name that an identifier asks for; None for a device's own identity, which its profile writes."""
    return None if identifier.kind is IdentifierKind.permanent_identifier else Name(NameKind(identifier.kind.value), identifier.value)
