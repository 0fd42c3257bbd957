"""The words of the OCSP responder. Ring 0: no behaviour.

A question goes in, an `Answer` comes out, or one of two things the edge must fetch first: what the database says (`Miss`), or a signature
(`Sign`). All of them are values, so an answer can be replayed for any date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from ca.model import AlgorithmName, CertificateRef, ChangeNumber, IssuerId, Reason, Serial, UnixTime

MAX_OCTETS: Final = 64 * 1024
"""The longest request we read, decoded; more is HTTP 413 (POST) or 414 (GET)."""


class ResponseStatus(IntEnum):
    """OCSPResponseStatus (RFC 6960 4.2.1); the member's name is the RFC's word. 4 is not used."""

    successful = 0
    malformedRequest = 1
    internalError = 2
    tryLater = 3
    sigRequired = 5
    unauthorized = 6


class Verdict(Enum):
    """CertStatus (RFC 6960 4.2.1)."""

    good = "good"
    revoked = "revoked"
    unknown = "unknown"


@dataclass(frozen=True, slots=True)
class Status:
    """What is true of one certificate.

    `since` is when the last change of it happened (0 when there was none): thisUpdate never claims an earlier moment.
    """

    verdict: Verdict
    since: UnixTime = 0
    reason: Reason = Reason.unspecified


GOOD: Final = Status(Verdict.good)
UNKNOWN: Final = Status(Verdict.unknown)
NEVER_ISSUED: Final = Status(Verdict.revoked, 0, Reason.certificateHold)
"""RFC 6960 2.2 and 4.4.8: how a never issued serial is answered under `Unissued.revoked`."""


class Unissued(Enum):
    """How a serial that we never issued is answered. Never `good` (P5)."""

    unknown = "unknown"
    unauthorized = "unauthorized"
    """RFC 9919 3.2.3."""
    revoked = "revoked"
    """RFC 6960 2.2: revoked, on hold since 1970, with the extended-revoke extension."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How this responder answers. Times are seconds; judged by `ocsp.rules.freshness.judge`."""

    lifetime: int = 3600
    """From thisUpdate to nextUpdate, both included (R04)."""
    max_age: int = 300
    """How long HTTP caches may keep an answer: bounds how late a relying party learns of a revocation."""
    backdate: int = 60
    """How far thisUpdate lies before now, for clocks that are slow; never before the last change of the status."""
    unissued: Unissued = Unissued.unknown
    unissued_of: Mapping[IssuerId, Unissued] = field(default_factory=dict)
    """Where an issuer has a policy of its own."""
    compromised: Mapping[IssuerId, UnixTime] = field(default_factory=dict)
    """Issuers whose key may be in other hands, and since when: all that bears their name is revoked (RFC 6960 2.7)."""
    archive: int | None = None
    """How long status is kept beyond a certificate's end; said as archive cutoff (RFC 6960 4.4.4). None: not said."""
    max_certificates: int = 32
    """In one request; more is malformedRequest."""
    path: str = "/ocsp"
    reread_share: float = 0.01
    """The share of answers that is read again and verified before it leaves, beside the first of each template (P11)."""
    working_octets: int = 64 * 1024 * 1024
    """What finished answers may take in memory."""


# ---- The request ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CertificateId:
    """A CertID (RFC 6960 4.1.1).

    `octets` is all of it as the client wrote it: what is echoed. `prefix` is what names the issuer: hash algorithm, hash of its name and hash
    of its key, as encoded.
    """

    octets: bytes
    prefix: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request as far as it matters to us."""

    certificates: tuple[CertificateId, ...]
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class Question:
    """One HTTP request. `raw_path` is the request target as it came over the wire, percent-encoding and all, without the query."""

    method: str
    raw_path: str
    body: bytes = b""
    content_type: str | None = None
    if_none_match: str | None = None


# ---- What signs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Responder:
    """A delegated responder certificate of one issuer, judged, with the pieces of every answer it signs (RFC 6960 4.2.2.2)."""

    issuer: IssuerId
    issuer_not_after: UnixTime
    certificate: bytes
    spki: bytes
    algorithm: AlgorithmName
    not_before: UnixTime
    not_after: UnixTime
    key_hash: bytes
    """SHA-1 of its public key, whatever hash the request used (RFC 6960 4.2.1, RFC 9654 A.1)."""
    responder_id: bytes
    """ResponderID byKey, encoded."""
    signature_algorithm: bytes
    certificates: bytes
    """`[0] certs` with the delegate's certificate, encoded."""
    others: tuple[bytes, ...] = ()
    """Where one answer speaks for several issuers: the same key's delegate certificates by the other ones, also in `certificates`."""


class Window(NamedTuple):
    """When an answer holds. A tuple, as `Packed` is."""

    this_update: UnixTime
    next_update: UnixTime
    refresh_at: UnixTime
    """From here on a fresh answer is made when it can be; until `next_update` this one still holds."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A signed answer and what is needed to serve it again."""

    body: bytes
    etag: str
    produced_at: UnixTime
    window: Window
    status: Status | None
    """Of the one certificate it speaks of; None where it speaks of several."""
    cacheable: bool
    """False with a nonce, and where any certificate is unknown (P5): HTTP no-store, and never in the working set."""
    outcome: str
    issuer: IssuerId | None = None
    """Who answers: None where it was not said."""
    head: bytes = b""
    """Its HTTP header lines, where it belongs into the working set; they hold up to `plain_until`, and then max-age is shorter."""
    plain_until: UnixTime = 0


# ---- The spool ------------------------------------------------------------------------------------------------------


class Packed(NamedTuple):
    """One signed answer about one certificate. A tuple: signing ahead makes tens of thousands a second."""

    serial: Serial
    form: int
    """Which of the forms of `ocsp.rules.issuers.prefixes` its CertID has."""
    status: Status
    produced_at: UnixTime
    window: Window
    archive: int | None
    as_of: ChangeNumber
    """The status was read when this was the latest change, or later."""
    key_hash: bytes
    """Of the responder's key."""
    signature: bytes


# ---- Snapshot and results -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SerialCheck:
    """Arithmetic that proves that a serial was never made with our check key."""

    is_ours: Callable[[Serial], bool]
    mark: str
    """Names the check key. Certificates may have come with serials of their own, or from the time of another key: only where all serials on
    record are known to be of this one does the arithmetic prove anything (P5)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that an answer may depend on, beside the question and the time."""

    policy: Policy
    issuers: Mapping[bytes, tuple[IssuerId, ...]]
    """CertID prefix -> issuers: every issuer of the deployment, each hash, with absent and with NULL parameters. Several where a CA's
    certificate was renewed with the same name and key: CertIDs cannot tell them apart, so each is asked about."""
    answered: frozenset[IssuerId]
    """The issuers whose status we answer; for the others (an offline root) we are not authorized."""
    responders: Mapping[IssuerId, Responder]
    """Who can sign now; empty while the signer has certified none."""
    finished: Mapping[bytes, Finished]
    """The working set: CertID octets -> the answer to a question for that one certificate without a nonce."""
    change: ChangeNumber | None
    """Every finished answer is true as of this change number; None before we first heard one."""
    heard_at: UnixTime | None
    """When we last learned that `change` is the latest."""
    is_ours: Callable[[Serial], bool] | None = None
    """Arithmetic that proves that we never issued a serial; None where it proves nothing."""
    ahead: frozenset[bytes] | None = None
    """Where nobody signs when asked: the CertID prefixes that answers are signed ahead for, one certificate each. None: who is asked signs."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the edge fetched since the first call."""

    statuses: Mapping[CertificateRef, Status] = field(default_factory=dict)
    finished: Finished | None = None
    unavailable: bool = False
    """The database or the responder key cannot be had now: what is finished goes on, the rest is tryLater (P5, P7)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `outcome` is for metrics: `good`, `revoked`, `unknown`, `several`, an error's RFC word, or `http-413` ..."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    outcome: str


@dataclass(frozen=True, slots=True)
class Miss:
    """The database must say what these are; then call again."""

    refs: tuple[CertificateRef, ...]
    only: bytes | None = field(default=None, compare=False)
    """The CertID of the question, where it is for one certificate."""


@dataclass(frozen=True, slots=True)
class Sign:
    """These octets must be signed by the responder's key; then `respond.conclude`, and call again."""

    responder: Responder
    tbs: bytes
    """DER ResponseData."""
    template: tuple[str, ...]
    """What distinguishes the shape of this answer from others: the first of each is read again (P11)."""
    certificates: tuple[CertificateId, ...]
    statuses: tuple[Status, ...]
    nonce: bytes | None
    produced_at: UnixTime
    window: Window
    keep: bool
    """Whether it belongs into the working set."""
