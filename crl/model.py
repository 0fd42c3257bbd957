"""The words of publishing CRLs. Ring 0 of this package: knows `ca.model` and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ca.model import CrlNumber, Digest, Issuer, IssuerId, UnixTime

WHOLE = 0
"""The shard of a CRL that covers everything its issuer issued."""


def file_name(issuer: IssuerId, shard: int = WHOLE, *, delta: bool = False) -> str:
    """The name an issuer's CRL has in an outlet, and at the end of its URL. A dot stands in no issuer's id, so no two CRLs share one."""
    return f"{issuer}{f'.{shard}' if shard else ''}{'.delta' if delta else ''}.crl"


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
    base: CrlNumber | None = None
    """Of a delta: the complete CRL that it adds to."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One CRL of an issuer among those it has."""

    issuer: Issuer
    shard: int = WHOLE
    delta: bool = False

    @property
    def name(self) -> str:
        """Of its file."""
        return file_name(self.issuer.id, self.shard, delta=self.delta)

    @property
    def numbered(self) -> str:
        """The file beside which its numbers are kept: a delta counts with the complete CRL (RFC 5280 5.2.3)."""
        return file_name(self.issuer.id, self.shard)

    @property
    def url(self) -> str | None:
        """Where the certificates that it speaks of say it is: the distribution point it must name. None: it speaks of all."""
        if self.shard == WHOLE or self.issuer.crl_url is None:
            return None
        return self.issuer.crl_url.removesuffix(".crl") + self.name.removeprefix(self.issuer.id)

    @property
    def freshest(self) -> str | None:
        """Where its deltas are."""
        if not self.issuer.crls.deltas or self.shard != WHOLE or self.delta or self.issuer.crl_url is None:
            return None
        return self.issuer.crl_url.removesuffix(".crl") + ".delta.crl"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a deployment publishes. All in seconds."""

    interval: int
    """A regular CRL is due this long after the last one, and never later than a third of its window (R06)."""
    nudge: int
    """A revocation brings a CRL at once, but two of them stand at least this far apart: a burst shares one CRL."""
    lifetime: int
    """What a CRL's window is at most; the signer makes it, the gate holds it."""
    delta_interval: int = 300
    """A delta is due this long after the last one, where an issuer has deltas."""
    delta_lifetime: int = 3600
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
    shard: int = WHOLE
    delta: bool = False


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
    name: str = ""
    """Of its file."""
