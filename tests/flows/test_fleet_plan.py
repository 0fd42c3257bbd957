"""What operators lay down about renewals, what devices say of theirs in a real database, and the gate before a service that takes less than come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ca.errors import Busy, StoreUnavailable
from ca.model import DEFAULT_TENANT, DeviceId, ProfileName, RenewalOrder, TenantId
from ca.rules.renewal_window import Crowd
from enroll.gate import Gate
from enroll.model import Report
from enroll.store.engine import migrate
from enroll.store.reports import ReportStore
from enroll.store.transactions import Transactions
from fleetca.planning import COUNT_EVERY, LOOK_EVERY, Planning
from tests.fakes.door import NOW, FixedClock
from tests.fakes.rest import Rest

DAY = 86400


class Steady:
    """A fleet that a test makes up."""

    def __init__(self) -> None:
        self.overdue, self.rate = 0, 1.0

    def load(self, now: int) -> tuple[int, float]:
        return self.overdue, self.rate


def test_what_is_laid_down_is_heard_within_seconds_and_what_is_wrong_changes_nothing(tmp_path: Path) -> None:
    file, clock = tmp_path / "renewals.toml", FixedClock()
    plan = Planning(file, Steady(), orders=tuple, clock=clock)
    assert plan().maintenance == ()
    file.write_text("[[maintenance]]\nstart = 2027-01-15T08:00:00Z\nend = 2027-01-15T09:00:00Z\n")
    assert plan().maintenance == (), "the file is not looked at for every window"
    clock.at += LOOK_EVERY
    assert [one.end - one.start for one in plan().maintenance] == [3600]
    (found,) = plan().maintenance
    for wrong in ("[[maintenance]]\nstart = 2027-01-15T08:00:00\n", "[[maintenance]]\n", "nonsense", "[[replace]]\nwhen = 1\n"):
        file.write_text(wrong)
        clock.at += LOOK_EVERY
        assert plan().maintenance == (found,), wrong
    file.unlink()
    clock.at += LOOK_EVERY
    assert plan().maintenance == ()


def test_what_was_ordered_is_heard_and_goes_on_while_the_database_is_away(tmp_path: Path) -> None:
    clock, given = FixedClock(), [order(2, withdrawn_at=5), order(1)]

    def orders() -> list[RenewalOrder]:
        if not given:
            raise StoreUnavailable("database-down", "The database does not answer.")
        return given

    plan = Planning(tmp_path / "none.toml", Steady(), orders=orders, clock=clock)
    assert plan().replacements == (), "nobody who asks for a window waits for the database"
    plan.hear()
    (found,) = plan().replacements
    assert (found.since, found.within, found.profile, found.reason) == (1, 3600, "device", "a key was lost")
    kept = given.copy()
    given.clear()
    plan.hear()
    assert plan().replacements == (found,)
    given[:] = [kept[0], order(1, withdrawn_at=9)]
    plan.hear()
    assert plan().replacements == ()


def order(number: int, **more: int) -> RenewalOrder:
    return RenewalOrder(number, DEFAULT_TENANT, number, 3600, None, ProfileName("device"), "a key was lost", "uid:0", **more)


def test_a_crowd_is_seen_by_what_devices_said_and_stays_until_it_has_passed(tmp_path: Path) -> None:
    clock, fleet = FixedClock(), Steady()
    plan = Planning(tmp_path / "none.toml", fleet, orders=tuple, clock=clock)
    assert plan().crowd is None
    fleet.overdue = 20_000
    clock.at += COUNT_EVERY
    seen = plan().crowd
    assert isinstance(seen, Crowd)
    fleet.overdue = 10
    clock.at += COUNT_EVERY
    assert plan().crowd == seen
    clock.at += DAY
    assert plan().crowd is None


@pytest.fixture
def store(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    migrate(url)
    transactions = Transactions(url)
    yield ReportStore(transactions)
    transactions.close()


def report(device: str, *, due: int = NOW + DAY, not_after: int = NOW + 3 * DAY, outcome: str = "renewed", code: str = "") -> Report:
    return Report(DeviceId(device), TenantId("default"), outcome, code, due, "test/1", NOW, NOW - DAY, not_after)


def page(store: ReportStore, **chosen: Any) -> list[str]:
    given: dict[str, Any] = {"tenant": "default", "dark_before": None, "late_before": None, "failed": False, "after": "", "limit": 100}
    return [one.device for one in store.page(**{**given, **chosen})]


def test_the_last_word_of_each_device_is_kept_and_found(store: ReportStore) -> None:
    for one in (
        report("b"),
        report("a", due=NOW - DAY),
        report("c", not_after=NOW - 1, due=NOW - DAY),
        report("d", outcome="failed", code="x"),
    ):
        store.keep(one)
    store.keep(report("b", outcome="failed", code="signer-down"))
    assert store.write() == 4
    assert store.write() == 0
    assert page(store) == ["a", "b", "c", "d"]
    assert page(store, after="b", limit=1) == ["c"]
    assert page(store, dark_before=NOW) == ["c"]
    assert page(store, late_before=NOW) == ["a"]
    assert page(store, failed=True) == ["b", "d"]
    assert page(store, tenant="other") == []
    store.keep(report("b"))
    store.write()
    assert page(store, failed=True) == ["d"], "its next word takes the place of the last one"
    overdue, rate = store.load(NOW)
    assert overdue == 1
    assert rate == pytest.approx(3 / (4 * DAY * 0.75), rel=0.01)


def test_words_that_could_not_be_written_wait_for_the_next_time(store: ReportStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.keep(report("a"))
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(store._do, "write", _broken)
        store.write()
    store.keep(report("a", outcome="failed"))
    assert store.write() == 1
    assert page(store, failed=True) == ["a"], "the newer word wins over one that waited"


def _broken(_: object) -> None:
    raise RuntimeError


class Ticking:
    """A clock that never goes back."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_who_has_time_is_sent_away_and_who_has_none_is_let_in() -> None:
    rest, ticking = Rest(), Ticking()
    rest.enrolment._gate = gate = Gate(1.0, clock=ticking)
    holder = rest.enrolled("pump-1")
    assert holder.certificate is not None
    answers = []
    for _ in range(10):
        try:
            gate.enter(holder.certificate, now=NOW)
            answers.append(0)
        except Busy as error:
            answers.append(error.retry_after)
    assert answers[0] == 0
    assert answers[-1] > 600
    gate.enter(holder.certificate, now=NOW + 7 * DAY - 600)
    answer = rest.post("/renew", {"csr": holder.csr_text()}, certificate=holder.certificate)
    assert answer.status_code in {429, 503}
    assert answer.json["code"] == "renewals-busy"
    assert int(answer.headers["Retry-After"]) > 600
    ticking.at += 60
    from tests.fakes.rest import Holder

    assert rest.post("/renew", {"csr": Holder().csr_text()}, certificate=holder.certificate).status_code == 201


def test_what_is_no_certificate_is_left_to_those_who_refuse_it() -> None:
    gate = Gate(0.001, clock=Ticking())
    for _ in range(100):
        gate.enter(b"no certificate", now=NOW)
