"""What a ceremony may do: acts, their order, dates and issuers. Ring 1: pure.

Owns the accepted form of a sheet and everything in it that follows from something else: dates from `now` and from each other, CRL numbers
and entries from the CRL before, the issuer of each act. Makes no draft and touches no key; `ca.ceremony` does, in this order.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from time import gmtime
from typing import Final, TypeAlias

from cryptography import x509

from ca.der.algorithms import ALGORITHMS, load_public_key, verify
from ca.der.certificate import time_of
from ca.errors import FleetcaError, Misconfigured, Unacceptable
from ca.model import AlgorithmName, CrlEntry, CrlNumber, Digest, Issuer, IssuerId, KeyName, Profile, ProfileName, Reason, Serial, UnixTime
from ca.rules.window import last_second

Moment: TypeAlias = int | str
"""`now`, a span such as `10y` or `90d`, or Unix seconds."""


@dataclass(frozen=True, slots=True)
class RootAct:
    """Make a root key and its self-signed certificate."""

    id: IssuerId
    profile: ProfileName
    algorithm: AlgorithmName
    subject: Mapping[str, str]
    not_before: Moment
    not_after: Moment


@dataclass(frozen=True, slots=True)
class IntermediateAct:
    """Sign an issuing CA's certificate. Exactly one of `csr` (DER) and `algorithm` (make a key here) is set."""

    id: IssuerId
    issuer: IssuerId
    profile: ProfileName
    csr: bytes | None
    algorithm: AlgorithmName | None
    subject: Mapping[str, str]
    not_before: Moment
    not_after: Moment
    crl_url: str
    issuer_url: str


@dataclass(frozen=True, slots=True)
class RootCrlAct:
    """Sign a root's CRL. `previous` is the CRL before it (DER): its entries stay and its number rises. `first` says that there was none."""

    id: IssuerId
    issuer: IssuerId
    previous: bytes | None
    first: bool
    this_update: Moment
    next_update: Moment
    revoked: tuple[CrlEntry, ...]


Act: TypeAlias = RootAct | IntermediateAct | RootCrlAct


@dataclass(frozen=True, slots=True)
class KnownIssuer:
    """A root made by an earlier ceremony."""

    id: IssuerId
    certificate: bytes
    key: KeyName


@dataclass(frozen=True, slots=True)
class Sheet:
    """One ceremony, as reviewed."""

    name: str
    about: str
    digest: Digest
    octets: bytes
    issuers: tuple[KnownIssuer, ...]
    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """Inclusive."""

    start: UnixTime
    end: UnixTime


_SPAN: Final = re.compile(r"(\d{1,6})([smhdwy])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def after(start: UnixTime, span: str) -> UnixTime:
    """The second that lies `span` after `start`; years are calendar years (29 February becomes 1 March).

    Raises:
        Misconfigured: no span (`bad-date`).
    """
    found = _SPAN.fullmatch(span)
    if found is None:
        raise Misconfigured("bad-date", f"{span!r} is no span of time.", fix='Write a whole number and a unit, like "90d" or "10y".')
    count, unit = int(found[1]), found[2]
    if unit != "y":
        return start + count * _SECONDS[unit]
    at = gmtime(start)
    month, day = (3, 1) if (at.tm_mon, at.tm_mday) == (2, 29) and not _leap(at.tm_year + count) else (at.tm_mon, at.tm_mday)
    return timegm((at.tm_year + count, month, day, at.tm_hour, at.tm_min, at.tm_sec))


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def period(act: Act, *, now: UnixTime) -> Period:
    """From when until when what the act makes will hold. An end written as a span counts from the start.

    Raises:
        Misconfigured: it ends before it begins, or has ended already (`bad-date`).
    """
    first, last = (act.this_update, act.next_update) if isinstance(act, RootCrlAct) else (act.not_before, act.not_after)
    words = ("this_update", "next_update") if isinstance(act, RootCrlAct) else ("not_before", "not_after")
    start = now if first == "now" else first if isinstance(first, int) else after(now, first)
    end = now if last == "now" else last if isinstance(last, int) else last_second(start, after(start, last) - start)
    if end <= start:
        raise Misconfigured("bad-date", f"Act {act.id}: {words[1]} does not lie after {words[0]}.", fix=f"Correct {words[1]} in the sheet.")
    if end <= now:
        raise Misconfigured("bad-date", f"Act {act.id}: {words[1]} lies in the past.", fix=f"Correct {words[1]} in the sheet.")
    return Period(start, end)


def accept(sheet: Sheet, *, profiles: Mapping[ProfileName, Profile], now: UnixTime) -> Mapping[IssuerId, Period]:
    """Judge a whole sheet before anything is made; the dates of each act.

    Raises:
        Misconfigured: an id stands twice, an act has no issuer before it, an issuer is not used, a date is wrong, a profile or algorithm
            is not known or does not fit.
    """
    ids = [each.id for each in (*sheet.issuers, *sheet.acts)]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise Misconfigured("id-twice", f"The sheet uses the id {twice[0]} twice.", fix="Give each act and each issuer its own id.")
    roots = {known.id: _period_of(known) for known in sheet.issuers}
    known_issuers = frozenset(roots)
    used: set[IssuerId] = set()
    periods: dict[IssuerId, Period] = {}
    for act in sheet.acts:
        when = periods[act.id] = period(act, now=now)
        if isinstance(act, RootAct):
            roots[act.id] = when
        elif act.issuer not in roots:
            raise Misconfigured(
                "unknown-issuer",
                f"Act {act.id}: there is no root {act.issuer} before it.",
                fix=f"Put the act that makes {act.issuer} before it, or add it to [[issuers]].",
            )
        else:
            used.add(act.issuer)
            _inside(act, when, roots[act.issuer])
            if isinstance(act, RootCrlAct) and act.previous is None and not act.first and act.issuer in known_issuers:
                raise Misconfigured(
                    "previous-crl",
                    f"Act {act.id}: which CRL came before it?",
                    why="Without it, revoked certificates would be forgotten and the CRL number could go back.",
                    fix="Name the last CRL of this root as previous; only if there never was one, write first = true.",
                )
        if not isinstance(act, RootCrlAct):
            _fits(act, when, profiles)
    idle = [known.id for known in sheet.issuers if known.id not in used]
    if idle:
        raise Misconfigured(
            "unused-issuer",
            f"No act uses the issuer {idle[0]}.",
            why="Its key would be unlocked for nothing.",
            fix=f"Take {idle[0]} out of [[issuers]].",
        )
    return periods


def _period_of(known: KnownIssuer) -> Period:
    loaded = x509.load_der_x509_certificate(known.certificate)
    return Period(time_of(loaded.not_valid_before_utc), time_of(loaded.not_valid_after_utc))


def _inside(act: IntermediateAct | RootCrlAct, when: Period, root: Period) -> None:
    if when.start < root.start:
        raise Misconfigured("bad-date", f"Act {act.id} begins before its issuer {act.issuer} does.", fix="Let it begin later.")
    if when.end > root.end:
        at = gmtime(root.end)
        latest = f"{at.tm_year:04d}-{at.tm_mon:02d}-{at.tm_mday:02d}T{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}Z"
        raise Misconfigured(
            "outlives-issuer",
            f"Act {act.id} would outlive its issuer {act.issuer}.",
            why=f"{act.issuer} ends at {latest}.",
            fix=f"Write {latest} or earlier.",
        )


def _fits(act: RootAct | IntermediateAct, when: Period, profiles: Mapping[ProfileName, Profile]) -> None:
    profile = profiles.get(act.profile)
    if profile is None or not profile.is_ca:
        known = ", ".join(sorted(name for name, each in profiles.items() if each.is_ca))
        raise Misconfigured("unknown-profile", f"Act {act.id}: there is no CA profile {act.profile}.", fix=f"CA profiles: {known}.")
    if act.algorithm is not None and (act.algorithm not in ALGORITHMS or act.algorithm not in profile.key_algorithms):
        raise Misconfigured(
            "unknown-algorithm",
            f"Act {act.id}: profile {act.profile} has no key algorithm {act.algorithm}.",
            fix=f"It has: {', '.join(profile.key_algorithms)}.",
        )
    if when.end - when.start + 1 > profile.max_lifetime:
        raise Misconfigured(
            "bad-date",
            f"Act {act.id} would hold longer than profile {act.profile} allows.",
            why=f"At most {profile.max_lifetime // 86400} days.",
            fix="Let it end earlier.",
        )


# ---- Root CRLs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CrlContent:
    """What follows for a root CRL from the one before it."""

    number: CrlNumber
    entries: tuple[CrlEntry, ...]


def crl_content(act: RootCrlAct, issuer: Issuer, *, above: CrlNumber) -> CrlContent:
    """Number and entries of a root CRL: nothing that was revoked is forgotten (P6), and the number rises.

    Args:
        act: the act.
        issuer: the root that signs.
        above: the highest number this ceremony has given already for the issuer, 0 if none.

    Raises:
        Unacceptable: the CRL before is not one, or not of this root (`previous-crl`).
    """
    entries: dict[Serial, CrlEntry] = {}
    if act.previous is not None:
        try:
            before = x509.load_der_x509_crl(act.previous)
            above = max(above, before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        except (ValueError, x509.ExtensionNotFound) as error:
            raise Unacceptable("previous-crl", f"Act {act.id}: the previous CRL cannot be read.", why=str(error)) from None
        _check_origin(act, before, issuer)
        for entry in before:
            serial = Serial(entry.serial_number)
            entries[serial] = CrlEntry(serial, time_of(entry.revocation_date_utc), _reason_of(entry))
    for added in act.revoked:
        # The first revocation stays: its date is what relying parties have seen.
        entries.setdefault(added.serial, added)
    return CrlContent(above + 1, tuple(entries[serial] for serial in sorted(entries)))


def _check_origin(act: RootCrlAct, crl: x509.CertificateRevocationList, issuer: Issuer) -> None:
    try:
        if crl.issuer.public_bytes() != issuer.subject:
            raise ValueError("It names another issuer.")
        verify(load_public_key(issuer.spki), crl.signature, crl.tbs_certlist_bytes)
    except (ValueError, FleetcaError) as error:
        raise Unacceptable(
            "previous-crl",
            f"Act {act.id}: the previous CRL is not one of {issuer.id}.",
            why=str(error),
            fix="Name the last CRL of this root.",
        ) from None


def _reason_of(entry: x509.RevokedCertificate) -> Reason:
    try:
        flag = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return Reason.unspecified
    return Reason[flag.value]
