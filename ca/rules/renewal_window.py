"""When a certificate should be renewed: one calculation for all protocols. Ring 1: pure.

It is told what is known of the fleet (`Plan`) and gives a window (RFC 9773 4.2). Whoever asks again later hears of what came up meanwhile.

    ordinary       opens after two thirds of the lifetime and is a sixth of it long; where in it a device's own begins follows from a hash of
                   its id, so that a fleet that enrolled in one hour does not come back in one minute (R25), and a device keeps its place
    crowd          after an outage: those whose time passed while nobody answered share the time that the service needs for all of them,
                   and whose certificate ends sooner comes sooner
    maintenance    those whose time falls into it come before it, or after it where they are too young
    replacement    certificates that must go (a key was lost, a profile was wrong): within the time that was laid down for all of them
    revoked        at once
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ca.model import CertificateRef, DeviceId, IssuerId, Profile, ProfileName, RenewalOrder, UnixTime

NARROW: Final = 60
"""The shortest window, in seconds: one that has already closed still has a beginning before its end (RFC 9773 4.2)."""
SHARE: Final = 2 / 3
"""Of the lifetime: when the ordinary time begins."""
LAST: Final = 0.98
"""Of the lifetime: nobody is asked to wait longer."""


class Renewable(Protocol):
    """What is asked of a certificate; `ca.model.Certificate` says it."""

    @property
    def ref(self) -> CertificateRef: ...
    @property
    def device(self) -> DeviceId: ...
    @property
    def profile(self) -> ProfileName: ...
    @property
    def not_before(self) -> UnixTime: ...
    @property
    def intended_at(self) -> UnixTime: ...
    @property
    def not_after(self) -> UnixTime: ...


@dataclass(frozen=True, slots=True)
class Window:
    start: UnixTime
    end: UnixTime


@dataclass(frozen=True, slots=True)
class Replacement:
    """Certificates that must be replaced before their time; what is None does not choose."""

    since: UnixTime
    """When it was laid down. Certificates that were issued later are what replaces."""
    within: int
    """Seconds in which all of them shall have come; 0: now, all at once."""
    issuer: IssuerId | None = None
    profile: ProfileName | None = None
    reason: str = ""
    """For people, as an address or a sentence."""

    def concerns(self, certificate: Renewable) -> bool:
        # Not by its notBefore: that is dated back, and what replaces would have to be replaced again.
        return (
            certificate.intended_at < self.since
            and self.issuer in {None, certificate.ref.issuer}
            and self.profile in {None, certificate.profile}
        )


def replacements(orders: Sequence[RenewalOrder]) -> tuple[Replacement, ...]:
    """What operators have ordered and not withdrawn."""
    return tuple(
        Replacement(since=one.since, within=one.within, issuer=one.issuer, profile=one.profile, reason=one.reason)
        for one in orders
        if one.withdrawn_at is None
    )


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many whose time has passed: the service was away."""

    since: UnixTime
    """When it came back."""
    count: int
    per_second: float
    """How many of them it will take beside the ordinary ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of the fleet, now."""

    maintenance: Sequence[Window] = ()
    replacements: Sequence[Replacement] = ()
    crowd: Crowd | None = None


CALM: Final = Plan()


@dataclass(frozen=True, slots=True)
class Suggestion(Window):
    """A window, and why it is not the ordinary one."""

    reason: str = ""


def suggested(certificate: Renewable, profile: Profile, *, now: UnixTime, plan: Plan = CALM, revoked: bool = False) -> Suggestion:
    """The window in which to renew it. It may lie in the past: renew at once (RFC 9773 4.2)."""
    if revoked:
        return Suggestion(now - 2 * NARROW, now - NARROW, "revoked")
    lifetime = certificate.not_after + 1 - certificate.not_before
    share = max(SHARE, profile.renew_from)
    length = int(lifetime * (1 - share) / 2)
    start = certificate.not_before + int(lifetime * share) + int(length * phase(certificate.device))
    latest = certificate.not_before + int(lifetime * max(LAST, (1 + share) / 2))
    reason = ""
    if plan.crowd is not None and start < plan.crowd.since:
        start, reason = _in_crowd(certificate, plan.crowd, latest=latest), "crowd"
    for spell in sorted(plan.maintenance, key=lambda spell: spell.start):
        if spell.start <= start < spell.end:
            earliest = certificate.not_before + lifetime // 3
            start, reason = _around(spell, start, earliest=earliest, latest=latest, now=now), "maintenance"
    for one in plan.replacements:
        if one.concerns(certificate):
            moved = one.since + int(phase(certificate.device, f"replacement {one.since}") * max(0, min(one.within, latest - one.since)))
            if moved < start:
                start, reason = moved, one.reason or "replacement"
    end = max(start + NARROW, min(start + length, certificate.not_after))
    return Suggestion(start, end, reason)


def overlap(profile: Profile) -> int:
    """Seconds in which a device can renew that is told to begin last: from then until its certificate, or what may follow its end, is over."""
    share = max(SHARE, profile.renew_from)
    return profile.lifetime - int(profile.lifetime * (1 + share) / 2) + profile.renew_after_expiry


def phase(device: DeviceId, occasion: str = "") -> float:
    """A device's place among all, from 0 up to 1: the same whenever it is asked, another one for each occasion."""
    digest = hashlib.sha256(f"fleetca window v1\0{occasion}\0{device}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _in_crowd(certificate: Renewable, crowd: Crowd, *, latest: UnixTime) -> UnixTime:
    # Each has as long as all of them take, or as its certificate leaves it, whichever is less: so the sooner it ends, the sooner it comes.
    everybody = int(crowd.count / crowd.per_second) if crowd.per_second > 0 else 0
    return crowd.since + int(phase(certificate.device, f"crowd {crowd.since}") * max(0, min(everybody, latest - crowd.since)))


def _around(spell: Window, start: UnixTime, *, earliest: UnixTime, latest: UnixTime, now: UnixTime) -> UnixTime:
    """Another time for one that falls into a spell of maintenance: as long before its start as it lay before its end, or after it."""
    before = spell.start - (spell.end - start)
    if before >= earliest:
        # Told too late to come at its new time it comes now, while the service is still there.
        return before if now < spell.start else start
    place = (start - spell.start) / (spell.end - spell.start)
    if spell.end < latest:
        return spell.end + int(place * min(spell.end - spell.start, latest - spell.end))
    return spell.start - int((1 - place) * max(0, spell.start - now))  # it lasts until their end: all of them come while there is time
