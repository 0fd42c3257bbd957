"""The words of publishing CRLs. Ring 0 of this package: knows `ca.model` and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ca.model import CrlNumber, Digest, IssuerId, UnixTime

WHOLE = 0
"""The shard of a CRL that covers everything its issuer issued."""


def file_name(issuer: IssuerId) -> str:
    """The name an issuer's CRL has in an outlet, and at the end of its URL."""
    return f"{issuer}.crl"


def lease_name(issuer: IssuerId) -> str:
    """The lease that a publisher of this issuer's CRL must hold; the signer checks its fence."""
    return f"crl:{issuer}"


@dataclass(frozen=True, slots=True)
class Head:
    """What a CRL says about itself beside its entries."""

    number: CrlNumber
    this_update: UnixTime
    next_update: UnixTime
    tbs_sha256: Digest


@dataclass(frozen=True, slots=True)
class Policy:
    """How a deployment publishes. All in seconds."""

    interval: int
    """A regular CRL is due this long after the last one, and never later than a third of its window (R06)."""
    nudge: int
    """A revocation brings a CRL at once, but two of them stand at least this far apart: a burst shares one CRL."""
    lifetime: int
    """What a CRL's window is at most; the signer makes it, the gate holds it."""
    lease: int = 40
    """How long a publisher that stops answering while it publishes keeps others out: with their own work, less than the minute in which a
    revocation must show."""


class Cause(Enum):
    """Why a CRL is due."""

    missing = "missing"
    """None is published, or the published one cannot be believed."""
    behind = "behind"
    """What is published is older than what is on record: files were lost or restored."""
    regular = "regular"
    nudged = "nudged"
    """Something was revoked or released since."""
    asked = "asked"


class Result(Enum):
    published = "published"
    not_due = "not-due"
    led_elsewhere = "led-elsewhere"
    """Another publisher holds the lease."""
    no_key = "no-key"
    """No key of this deployment belongs to the issuer (P4): its CRL comes from a ceremony."""


@dataclass(frozen=True, slots=True)
class Outcome:
    issuer: IssuerId
    result: Result
    cause: Cause | None
    head: Head | None
    """Of the CRL that is visible now."""


class Freshness(Enum):
    """How near a published CRL is to leaving relying parties without one."""

    fresh = "fresh"
    late = "late"
    """Something is wrong, or a ceremony is to be called; nobody suffers yet."""
    urgent = "urgent"
    expired = "expired"
    missing = "missing"


@dataclass(frozen=True, slots=True)
class Health:
    """How the CRL of one issuer stands, told from what readers get."""

    issuer: IssuerId
    freshness: Freshness
    head: Head | None
    advice: str
    """What mends it; empty when fresh."""
