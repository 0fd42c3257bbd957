"""What a relying party learns of a certificate, and what it makes of it. Words only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ca.model import Reason, UnixTime


class Verdict(Enum):
    """What is known of a certificate that chains to a trusted root."""

    good = "good"
    revoked = "revoked"
    unknown = "unknown"
    """The responder does not know it, or nobody could be asked and nothing is remembered."""
    expired = "expired"
    """It, or a CA above it, is outside its own dates."""
    stale = "stale"
    """Nobody could be asked; what was last known was good, and is past its nextUpdate."""


class Fail(Enum):
    """What to do when nobody can be asked."""

    hard = "hard"
    """Refuse, once the offline budget is used up."""
    soft = "soft"
    """Go on, and say so in the log. Whoever is known to be revoked, expired or never issued is refused all the same."""


class Source(Enum):
    """Who said it."""

    ocsp = "ocsp"
    crl = "crl"
    short_lived = "short-lived"
    """RFC 9608 noRevAvail: there is nobody to ask."""
    dates = "dates"
    nobody = "nobody"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a relying party decides. Times are seconds."""

    fail: Fail = Fail.hard
    offline_budget: int = 0
    """How long past nextUpdate the last good word still counts, in hard mode."""
    nonce: bool = False
    """Ask with a nonce, and take no answer without it: for whoever must not be shown an answer from a cache."""
    skew: int = 60
    """By how much the clocks of the responder and of this host may differ."""
    max_age: int = 300
    """How long a fresh answer is used again before somebody is asked anew."""
    timeout: float = 5.0
    """For one source, connecting and reading included."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one certificate."""

    verdict: Verdict
    source: Source
    accepted: bool
    """What the policy makes of it."""
    reason: Reason | None = None
    revoked_at: UnixTime | None = None
    this_update: UnixTime | None = None
    next_update: UnixTime | None = None
    """Of what it rests on."""
    remembered: bool = False
    """It rests on what was kept from before."""
    tried: tuple[str, ...] = ()
    """What was asked in vain, and why: one sentence each."""


@dataclass(frozen=True, slots=True)
class Word:
    """What one source said, verified."""

    verdict: Verdict
    """good, revoked or unknown."""
    source: Source
    this_update: UnixTime
    next_update: UnixTime
    reason: Reason | None = None
    revoked_at: UnixTime | None = None
