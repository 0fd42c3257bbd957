"""The working set and the look-up: bounded, single flight, and never older than the changes we have heard of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from ca.errors import Busy, StoreUnavailable
from ca.model import Reason
from ocsp.lookup import Lookup
from ocsp.model import GOOD, UNKNOWN, Finished, Verdict, Window
from ocsp.working import WorkingSet
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import NOW
from tests.running import eventually


def finished(body: bytes = b"x") -> Finished:
    return Finished(body, "", NOW, Window(NOW, NOW + 9, NOW + 5), GOOD, cacheable=True, outcome="good")


def heard(limit: int = 100_000, change: int = 3) -> WorkingSet:
    working = WorkingSet(limit)
    working.advance(change, (), now=NOW)
    return working


def test_an_answer_is_kept_and_forgotten_when_its_certificate_changes() -> None:
    working = heard()
    working.keep(b"a", finished(), as_of=3)
    working.keep(b"b", finished(), as_of=3)
    working.advance(4, [b"a", b"never kept"], now=NOW + 1)
    assert list(working.finished) == [b"b"]
    assert working.heard() == (4, NOW + 1)


def test_P5_an_answer_whose_status_was_read_before_a_change_was_heard_is_not_kept() -> None:
    working = heard()
    # Its status was read as good, then the change was heard, then it was signed.
    working.advance(4, [b"a"], now=NOW)
    working.keep(b"a", finished(), as_of=3)
    assert not working.finished


def test_what_is_kept_before_a_change_number_was_heard_is_forgotten_when_it_comes() -> None:
    working = WorkingSet(100_000)
    working.keep(b"b", finished(), as_of=3)
    working.keep(b"a", finished(), as_of=None)
    assert list(working.finished) == [b"a"]
    working.start_over(3, now=NOW)
    assert not working.finished
    working = WorkingSet(100_000)
    assert working.heard() == (None, None)


def test_it_stays_within_its_octets_and_gives_up_the_oldest_first() -> None:
    working = heard(limit=10_000)
    for number in range(50):
        working.keep(bytes([number]), finished(b"x" * 500), as_of=3)
        working.keep(bytes([0]), finished(b"x" * 500), as_of=3)
        assert working.octets <= 10_000
    assert bytes([0]) in working.finished, "what is made anew stays"
    assert bytes([49]) in working.finished
    assert len(working.finished) == 5
    working.keep(b"huge", finished(b"x" * 10_000), as_of=3)
    assert b"huge" not in working.finished
    assert len(working.finished) == 5


def test_octets_are_counted_back_to_nothing() -> None:
    working = heard()
    for number in range(9):
        working.keep(bytes([number]), finished(b"x" * number * 100), as_of=3)
    working.advance(4, [bytes([number]) for number in range(9)], now=NOW)
    assert working.octets == 0
    working.keep(b"a", finished(), as_of=4)
    working.start_over(2, now=NOW)
    assert working.octets == 0
    assert working.heard() == (2, NOW)


def test_others_cannot_write_into_it() -> None:
    with pytest.raises(TypeError):
        heard().finished[b"a"] = finished()  # type: ignore[index]


# ---- Look-up --------------------------------------------------------------------------------------------------------


def test_P5_a_hundred_who_ask_at_once_cost_one_query() -> None:
    record = fakes.Record()
    ref = record.issue("issuing", 5)
    gate = Event()
    record.before_answer = lambda: gate.wait(60)
    lookup = Lookup(record, patience=60)
    barrier = Barrier(101)

    def ask() -> object:
        barrier.wait(60)
        return lookup.status(ref, as_of=1)

    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(ask) for _ in range(100)]
        barrier.wait(60)
        eventually(lambda: sum(len(flight._condition._waiters) for flight in lookup._flights._under_way.values()) == 99, every=0.01)  # type: ignore[attr-defined]
        gate.set()
        assert {one.result() for one in asked} == {GOOD}
    assert len(record.asked) == 1
    lookup.status(ref, as_of=1)
    assert len(record.asked) == 2, "a finished flight is not taken again"


def test_P5_who_has_heard_of_a_newer_change_does_not_take_an_older_result() -> None:
    record = fakes.Record()
    ref = record.issue("issuing", 5)
    reading, go_on = Event(), Event()

    def slowly() -> None:
        if not reading.is_set():
            reading.set()
            go_on.wait(60)

    record.before_answer = slowly
    lookup = Lookup(record)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(lookup.status, ref, as_of=0)
        assert reading.wait(60)
        record.change(ref, Reason.keyCompromise)
        late = lookup.status(ref, as_of=1)
        go_on.set()
        assert early.result() == GOOD
    assert late.verdict is Verdict.revoked


def test_the_error_of_a_flight_reaches_all_on_it_and_the_next_asks_again() -> None:
    record = fakes.Record(gone=True)
    ref = record.issue("issuing", 5)
    lookup = Lookup(record)
    with pytest.raises(StoreUnavailable):
        lookup.status(ref, as_of=1)
    record.gone = False
    assert lookup.status(ref, as_of=1) == GOOD


def test_P5_queries_at_once_are_bounded_and_the_others_are_busy() -> None:
    record = fakes.Record()
    gate = Event()
    record.before_answer = lambda: gate.wait(60)
    lookup = Lookup(record, at_once=2, patience=0.05)
    refs = [record.issue("issuing", number) for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        first = [pool.submit(lookup.status, ref, as_of=1) for ref in refs[:2]]
        while len(record.asked) < 2:
            gate.wait(0.01)
        for ref in refs[2:]:
            with pytest.raises(Busy):
                lookup.status(ref, as_of=1)
        with pytest.raises(Busy):
            lookup.status(refs[0], as_of=1)
        gate.set()
        assert [one.result() for one in first] == [GOOD, GOOD]
    assert len(record.asked) == 2
    assert lookup.status(refs[4], as_of=1) == GOOD


def test_what_is_not_on_record_is_unknown() -> None:
    record = fakes.Record()
    ref = record.issue("issuing", 5)
    record.states.clear()
    assert Lookup(record).status(ref, as_of=1) == UNKNOWN
