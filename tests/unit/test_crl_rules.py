"""CRL windows, what may leave a CRL, and the lint of CRLs (P6, P11, R05, R07, R08)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.der import writer as W
from ca.der.crl import entry, tbs_crl
from ca.der.reader import elements
from ca.errors import Broken, FleetcaError
from ca.model import CrlEntry, Reason, Serial
from ca.rules.crl import crl_window, keeps_from
from ca.rules.lint.crl import lint_crl
from tests.fakes.certificates import DAY, KINDS, NOW, issuing, root, serial

ENTRIES = tuple(CrlEntry(serial(n), NOW - n, Reason.keyCompromise if n % 2 else Reason.unspecified) for n in range(3, 8))
END = NOW + DAY - 1


def made(entries: tuple[CrlEntry, ...] = ENTRIES, **changes: Any) -> bytes:
    values: dict[str, Any] = {"number": 7, "this_update": NOW, "next_update": END, "entries": entries}
    return tbs_crl(issuing(), **(values | changes))


def judge(tbs: bytes, count: int = len(ENTRIES), **changes: Any) -> None:
    values: dict[str, Any] = {"number": 7, "this_update": NOW, "next_update": END, "count": count}
    lint_crl(tbs, issuing(), **(values | changes))


def test_R05_the_window_ends_with_the_issuer_at_the_latest() -> None:
    issuer = issuing()
    assert crl_window(issuer, now=NOW, lifetime=DAY) == (NOW, END)
    late = issuer.not_after - 10
    assert crl_window(issuer, now=late, lifetime=DAY) == (late, issuer.not_after)


@pytest.mark.parametrize(
    ("change", "now", "lifetime", "code"),
    [
        pytest.param({"may_sign_crl": False}, NOW, DAY, "no-crl-sign", id="an issuer without cRLSign"),
        pytest.param({}, NOW, 0, "crl-lifetime", id="no lifetime"),
        pytest.param({"not_after": NOW - 1}, NOW, DAY, "issuer-expired", id="an issuer that ended"),
        pytest.param({"not_before": NOW + 1}, NOW, DAY, "issuer-expired", id="an issuer that has not begun"),
    ],
)
def test_a_crl_is_refused(change: dict[str, Any], now: int, lifetime: int, code: str) -> None:
    with pytest.raises(FleetcaError) as error:
        crl_window(replace(issuing(), **change), now=now, lifetime=lifetime)
    assert error.value.code == code


@given(
    st.integers(min_value=1, max_value=500),
    st.integers(min_value=6, max_value=40),
    st.integers(min_value=1, max_value=60),
    st.sets(st.integers(min_value=1, max_value=700), max_size=9),
)
def test_RFC5280_3_3_R07_P6_an_entry_stays_until_it_stood_on_a_regular_crl_made_after_its_end(
    not_after: int, interval: int, first: int, between: set[int]
) -> None:
    """A regular CRL every `interval` seconds, a third of the window, and others between them: the certificate must stand on a regular one."""
    window = 3 * interval
    regular = set(range(first, first + 900, interval))
    previous: int | None = None
    stood: list[int] = []
    left: list[int] = []
    for this_update in sorted(regular | {one for one in between if one > first}):
        kept = keeps_from(previous, this_update=this_update, next_update=this_update + window)
        (stood if not_after >= kept else left).append(this_update)
        previous = this_update
    assert [one for one in stood if one in regular and one > not_after]
    assert not left or max(stood) < min(left)
    assert len([one for one in stood if one in regular and one > not_after]) <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_crl_passes(kind: str) -> None:
    for entries in ((), ENTRIES):
        tbs = tbs_crl(issuing(kind), number=7, this_update=NOW, next_update=END, entries=entries)
        lint_crl(tbs, issuing(kind), number=7, this_update=NOW, next_update=END, count=len(entries))


def test_a_good_crl_of_a_root_far_away_passes() -> None:
    far = 2_530_000_000
    issuer = replace(root(), not_after=far + 2 * DAY)
    tbs = tbs_crl(issuer, number=1, this_update=far, next_update=far + DAY, entries=(CrlEntry(serial(), far, Reason.superseded),))
    lint_crl(tbs, issuer, number=1, this_update=far, next_update=far + DAY, count=1)


def _fields(tbs: bytes) -> list[bytes]:
    return [tbs[one.start : one.end] for one in elements(tbs, elements(tbs, 0, len(tbs))[0].content, len(tbs))]


def _field(number: int, octets: bytes) -> Callable[[bytes], bytes]:
    def change(tbs: bytes) -> bytes:
        fields = _fields(tbs)
        fields[number] = octets
        return W.sequence(*fields)

    return change


def _listed(*elements: bytes) -> Callable[[bytes], bytes]:
    return _field(5, W.sequence(*elements))


def _extended(*extensions: bytes) -> Callable[[bytes], bytes]:
    return _field(6, W.explicit(0, W.sequence(*extensions)))


AKI = W.extension("2.5.29.35", W.sequence(W.implicit(0, issuing().key_identifier)), critical=False)
NUMBER = W.extension("2.5.29.20", W.integer(7), critical=False)
FIVE = [entry(one.serial, one.revoked_at, one.reason) for one in ENTRIES]


def _odd(tail: bytes) -> Callable[[bytes], bytes]:
    return _listed(*FIVE[1:], W.sequence(W.integer(serial(90)), tail))


WRONG: list[Any] = [
    pytest.param("5.1.2.1", _field(0, W.integer(0)), id="v1"),
    pytest.param("5.1", lambda tbs: W.sequence(*_fields(tbs)[1:]), id="no version"),
    pytest.param("5.1.2.2", _field(1, W.sequence(W.oid("1.2.840.10045.4.1"))), id="SHA-1"),
    pytest.param("5.1.2.3", _field(2, root().subject), id="R09: another issuer's name"),
    pytest.param("5.1.2.4", _field(3, W.time(NOW + 1)), id="another thisUpdate"),
    pytest.param("5.1.2.4", _field(4, W.generalized_time(END)), id="GeneralizedTime before 2050"),
    pytest.param("5.1", lambda tbs: W.sequence(*_fields(tbs)[:4], *_fields(tbs)[5:]), id="no nextUpdate"),
    pytest.param("5.1", lambda tbs: W.sequence(*_fields(tbs)[:6]), id="no extensions"),
    pytest.param("5.1.2.6", _listed(), id="an empty list instead of none"),
    pytest.param("P6", lambda tbs: W.sequence(*_fields(tbs)[:5], _fields(tbs)[6]), id="no list where five belong"),
    pytest.param("P6", _listed(*FIVE[1:]), id="R07: an entry is missing"),
    pytest.param("R08", _listed(*FIVE[1:], FIVE[1]), id="R08: a serial number twice"),
    pytest.param("R08", _listed(*FIVE[1:], entry(ENTRIES[1].serial, NOW - 50, Reason.superseded)), id="R08: twice, with another reason"),
    pytest.param("4.1.2.2", _listed(*FIVE[1:], entry(Serial(0), NOW, Reason.unspecified)), id="the serial number 0"),
    pytest.param("4.1.2.2", _listed(*FIVE[1:], entry(Serial(-5), NOW, Reason.unspecified)), id="a negative serial number"),
    pytest.param("5.1.2.6", _listed(*FIVE[1:], entry(Serial(1 << 167), NOW, Reason.unspecified)), id="a serial number of 21 octets"),
    pytest.param("5.1.2.6", _listed(*FIVE[1:], entry(serial(9), NOW + 1, Reason.unspecified)), id="revoked after thisUpdate"),
    pytest.param("5.1.2.6", _odd(W.generalized_time(NOW)), id="an entry with GeneralizedTime before 2050"),
    pytest.param(
        "5.3.1", _odd(W.time(NOW) + W.sequence(W.extension("2.5.29.21", W.enumerated(0), critical=False))), id="unspecified, said"
    ),
    pytest.param("5.3.1", _odd(W.time(NOW) + W.sequence(W.extension("2.5.29.21", W.enumerated(7), critical=False))), id="reason 7"),
    pytest.param("5.3.1", _odd(W.time(NOW) + W.sequence(W.extension("2.5.29.21", W.enumerated(8), critical=False))), id="removeFromCRL"),
    pytest.param("5.3.1", _odd(W.time(NOW) + W.sequence(W.extension("2.5.29.21", W.enumerated(1), critical=True))), id="a critical reason"),
    pytest.param("5.3.1", _odd(W.time(NOW) + W.sequence()), id="an empty list of entry extensions"),
    pytest.param("5.2", _extended(NUMBER), id="no AKI"),
    pytest.param("5.2", _extended(AKI), id="no CRL number"),
    pytest.param("5.2", _extended(AKI, NUMBER, NUMBER), id="two CRL numbers"),
    pytest.param("5.2", _extended(AKI, W.extension("2.5.29.20", W.integer(7), critical=True)), id="a critical CRL number"),
    pytest.param("5.2.3", _extended(AKI, W.extension("2.5.29.20", W.integer(8), critical=False)), id="another CRL number"),
    pytest.param(
        "5.2.1",
        _extended(W.extension("2.5.29.35", W.sequence(W.implicit(0, bytes(20))), critical=False), NUMBER),
        id="another key's identifier",
    ),
    pytest.param("5.2", _extended(AKI, NUMBER, W.extension("2.5.29.28", W.sequence(), critical=True)), id="an empty IDP"),
    pytest.param("5.1", lambda tbs: tbs + b"\0", id="an octet after the end"),
    pytest.param("5.1", lambda tbs: tbs[:-1], id="cut off"),
    pytest.param("5.1", lambda tbs: b"", id="nothing"),
]


@pytest.mark.parametrize(("section", "change"), WRONG)
def test_a_crl_is_not_signed(section: str, change: Callable[[bytes], bytes]) -> None:
    judge(made())
    with pytest.raises(Broken) as error:
        judge(change(made()))
    assert error.value.code == "lint"
    assert f"{section}:" in error.value.what


@pytest.mark.parametrize(
    "change",
    [{"number": 8}, {"count": 4}, {"this_update": NOW - 1}, {"next_update": END + 1}],
    ids=["another number", "another count", "another thisUpdate", "another nextUpdate"],
)
def test_a_crl_that_differs_from_its_intent_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        judge(made(), **change)


def test_a_crl_beyond_its_issuer_or_by_one_that_may_not_is_not_signed() -> None:
    for issuer in (replace(issuing(), not_after=END - 1), replace(issuing(), may_sign_crl=False)):
        with pytest.raises(Broken):
            lint_crl(made(), issuer, number=7, this_update=NOW, next_update=END, count=5)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_damage_is_found_or_lies_inside_an_entry(at: int, change: int) -> None:
    tbs = bytearray(made())
    at %= len(tbs)
    tbs[at] ^= change
    listed = _fields(made())[5]
    begin = made().index(listed)
    try:
        judge(bytes(tbs))
    except Broken:
        return
    # The gate compares serial numbers with the record; what the lint can know is their form.
    assert begin <= at < begin + len(listed)
