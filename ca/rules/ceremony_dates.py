"""From when until when what a ceremony makes will hold: dates that follow from `now`, from each other and from the issuers. Ring 1: pure."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from time import gmtime
from typing import Final

from cryptography import x509

from ca.der.certificate import UNREADABLE, time_of
from ca.errors import ClockUntrusted, Misconfigured, Unacceptable
from ca.model import IssuerId, Profile, ProfileName, UnixTime
from ca.rules.ceremony import (
    Act,
    KnownIssuer,
    LinkAct,
    Period,
    ResponderAct,
    RootAct,
    RootCrlAct,
    Sheet,
    StatementAct,
    check_structure,
)
from ca.rules.window import date, last_second

_SPAN: Final = re.compile(r"(\d{1,6})([smhdwy])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DAY: Final = 86400
MOST_IN_CHAIN: Final = 60


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


def accept(sheet: Sheet, *, profiles: Mapping[ProfileName, Profile], now: UnixTime) -> Mapping[IssuerId, Period]:
    """Judge a whole sheet before anything is made; the dates of each act.

    Raises:
        Misconfigured: an id stands twice, an act has no issuer before it, an issuer is not used, a date is wrong, a profile or algorithm
            is not known or does not fit.
    """
    check_structure(sheet, profiles)
    issuers = {known.id: period_of(known) for known in sheet.issuers}
    known = frozenset(issuers)
    periods: dict[IssuerId, Period] = {}
    for act in sheet.acts:
        when = periods[act.id] = _period(act, periods, issuers, profiles, now=now)
        if isinstance(act, RootAct):
            issuers[act.id] = when
        elif not isinstance(act, StatementAct):
            _inside(act, when, issuers[act.issuer])
        if isinstance(act, RootCrlAct):
            _check_before(act, known)
            _check_replaces(act, when, now=now)
        if not isinstance(act, RootCrlAct | StatementAct):
            _check_lifetime(act, when, profiles[act.profile])
    return periods


def chain(act: RootCrlAct, *, count: int, overlap: str) -> tuple[RootCrlAct, ...]:
    """A chain of pre-dated CRLs: the first is the act itself, each other begins `overlap` before the one before it ends.

    Raises:
        Misconfigured: too few or too many (`bad-chain`).
    """
    _check_count(act.id, count)
    ids = [IssuerId(f"{act.id}-{number:02d}") for number in range(1, count + 1)]
    later = (
        replace(act, id=id_, previous=None, revoked=(), follows=before, overlap=overlap, replaces_pre_dated=False)
        for before, id_ in pairwise(ids)
    )
    return (replace(act, id=ids[0]), *later)


def responder_chain(act: ResponderAct, *, count: int, overlap: str) -> tuple[ResponderAct, ...]:
    """Certificates for one responder key, each beginning `overlap` before the one before it ends.

    Raises:
        Misconfigured: too few or too many (`bad-chain`).
    """
    _check_count(act.id, count)
    ids = [IssuerId(f"{act.id}-{number:02d}") for number in range(1, count + 1)]
    later = (replace(act, id=id_, follows=before, overlap=overlap) for before, id_ in pairwise(ids))
    return (replace(act, id=ids[0]), *later)


def _check_count(id_: IssuerId, count: int) -> None:
    if not 2 <= count <= MOST_IN_CHAIN:
        raise Misconfigured("bad-chain", f"Act {id_} makes a chain of {count}.", fix=f"Write a count from 2 to {MOST_IN_CHAIN}.")


def check_clock(sheet: Sheet, *, now: UnixTime) -> None:
    """The clock must fit what the sheet itself knows: its day and its issuers. CRLs may be pre-dated, so they say nothing.

    Raises:
        ClockUntrusted: it does not (`clock-wrong`).
    """
    fix = "Set the clock right (UTC): date -u -s 'YYYY-MM-DD HH:MM:SS'. If the clock is right, the sheet is not."
    if sheet.day is not None and not sheet.day - DAY <= now < sheet.day + 2 * DAY:
        why = f"The clock says {date(now)}, the sheet's day is {date(sheet.day)[:10]}."
        raise ClockUntrusted("clock-wrong", "This is not the day of the ceremony.", why=why, fix=fix)
    for known in sheet.issuers:
        start = period_of(known).start
        if now < start:
            why = f"The clock says {date(now)}, the certificate of {known.id} begins {date(start)}."
            raise ClockUntrusted("clock-wrong", "The clock is earlier than what was signed before.", why=why, fix=fix)


def _period(
    act: Act,
    periods: Mapping[IssuerId, Period],
    issuers: Mapping[IssuerId, Period],
    profiles: Mapping[ProfileName, Profile],
    *,
    now: UnixTime,
) -> Period:
    """From when until when what the act makes will hold. An end written as a span counts from the start."""
    if isinstance(act, StatementAct):
        return Period(now, now)
    if isinstance(act, LinkAct):
        # RFC 9810 4.4: it can hold no longer than both roots do; it begins when the later one does.
        pair = issuers[act.signer], issuers[act.subject]
        start, end, words = max(each.start for each in pair), min(each.end for each in pair), ("its start", "its end")
    elif isinstance(act, ResponderAct):
        start = _start(act.not_before, act, periods, None, now=now)
        end, words = last_second(start, profiles[act.profile].lifetime), ("not_before", "its end")
    elif isinstance(act, RootCrlAct):
        before = None if act.previous is None or act.overlap is None else crl_period(act)
        start, words = _start(act.this_update, act, periods, before, now=now), ("this_update", "next_update")
        end = _end(act.next_update, start, now=now)
    else:
        start, words = _start(act.not_before, act, periods, None, now=now), ("not_before", "not_after")
        end = _end(act.not_after, start, now=now)
    if end <= start:
        raise Misconfigured("bad-date", f"Act {act.id}: {words[1]} does not lie after {words[0]}.", fix=f"Correct {words[1]} in the sheet.")
    if end <= now:
        raise Misconfigured("bad-date", f"Act {act.id}: {words[1]} lies in the past.", fix=f"Correct {words[1]} in the sheet.")
    return Period(start, end)


def _start(first: int | str, act: Act, periods: Mapping[IssuerId, Period], before: Period | None, *, now: UnixTime) -> UnixTime:
    if isinstance(act, RootCrlAct | ResponderAct) and act.overlap is not None:
        if act.follows is not None:
            before = periods[act.follows]
        if before is None:
            raise Misconfigured(
                "bad-date",
                f"Act {act.id}: overlap counts from the one before it, and there is none.",
                fix="Name the CRL before it as previous, or write this_update.",
            )
        span = after(0, act.overlap)
        if not span < before.end + 1 - before.start:
            raise Misconfigured(
                "bad-chain", f"Act {act.id} would begin before the one before it does.", fix="Write a shorter overlap, or a longer window."
            )
        return before.end + 1 - span
    return now if first == "now" else first if isinstance(first, int) else after(now, first)


def _end(last: int | str, start: UnixTime, *, now: UnixTime) -> UnixTime:
    return now if last == "now" else last if isinstance(last, int) else last_second(start, after(start, last) - start)


def period_of(known: KnownIssuer) -> Period:
    """The validity of a known issuer's certificate."""
    loaded = x509.load_der_x509_certificate(known.certificate)
    return Period(time_of(loaded.not_valid_before_utc), time_of(loaded.not_valid_after_utc))


def crl_period(act: RootCrlAct) -> Period:
    """The window of the CRL before an act.

    Raises:
        Unacceptable: it cannot be read (`previous-crl`).
    """
    try:
        loaded = x509.load_der_x509_crl(act.previous or b"")
        end = loaded.next_update_utc or loaded.last_update_utc
        return Period(time_of(loaded.last_update_utc), time_of(end))
    except UNREADABLE as error:
        raise Unacceptable(
            "previous-crl", f"Act {act.id}: the previous CRL cannot be read.", why=str(error), fix="Name the last CRL of this root."
        ) from None


def _check_before(act: RootCrlAct, known: frozenset[IssuerId]) -> None:
    if act.previous is None and act.follows is None and not act.first and act.issuer in known:
        raise Misconfigured(
            "previous-crl",
            f"Act {act.id}: which CRL came before it?",
            why="Without it, revoked certificates would be forgotten and the CRL number could go back.",
            fix="Name the last CRL of this root as previous; only if there never was one, write first = true.",
        )
    if act.previous is not None and act.first:
        raise Misconfigured(
            "previous-crl", f"Act {act.id}: it has a CRL before it and says that it is the first.", fix="Take first out, or previous."
        )


def _check_replaces(act: RootCrlAct, when: Period, *, now: UnixTime) -> None:
    """What takes the place of CRLs that wait may begin before they do, not before the ceremony: the one in force began at some time until now."""
    if act.replaces_pre_dated and when.start < now:
        raise Misconfigured(
            "bad-date",
            f"Act {act.id} would begin before the ceremony, in the place of CRLs that were dated ahead.",
            why="The CRL in force may have begun later; a higher number with an earlier date would be taken for the older one.",
            fix="Leave this_update out: it begins now.",
        )


def _inside(act: Act, when: Period, issuer: Period) -> None:
    assert not isinstance(act, RootAct | StatementAct), "a root has no issuer, and a statement no period"
    if when.start < issuer.start:
        raise Misconfigured(
            "bad-date",
            f"Act {act.id} begins before its issuer {act.issuer} does.",
            why=f"{act.issuer} begins at {_iso(issuer.start)}.",
            fix="Let it begin later.",
        )
    if when.end > issuer.end:
        latest = _iso(issuer.end)
        raise Misconfigured(
            "outlives-issuer",
            f"Act {act.id} would outlive its issuer {act.issuer}.",
            why=f"{act.issuer} ends at {latest}, the act at {_iso(when.end)}.",
            fix=f"Write {latest} or earlier.",
        )


def _iso(when: UnixTime) -> str:
    return date(when).replace(" ", "T")


def _check_lifetime(act: Act, when: Period, profile: Profile) -> None:
    if when.end - when.start + 1 > profile.max_lifetime:
        raise Misconfigured(
            "bad-date",
            f"Act {act.id} would hold longer than profile {profile.name} allows.",
            why=f"At most {profile.max_lifetime // DAY} days.",
            fix="Let it end earlier.",
        )
