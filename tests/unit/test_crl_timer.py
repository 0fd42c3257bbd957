"""The timer: looks once a second, survives what fails, and does not sleep through a clock that went back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest

from ca.errors import StoreUnavailable
from crl.model import Outcome, Result, Scope
from crl.timer import PublisherTimer
from tests.fakes.crl_world import Clock, authority
from tests.running import eventually

T = 1_800_000_000
ISSUER = authority(not_before=T - 10**6, not_after=T + 10**8).issuer
ROOT = replace(authority(called="root", not_before=T - 10**6, not_after=T + 10**8).issuer, key=None)


class Publishing:
    """Counts looks; fails as often as it is told."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.errors: list[Exception] = []
        self.looked = Event()

    def __call__(self, scope: Scope) -> Outcome:
        self.looks.append(scope.issuer.id)
        self.looked.set()
        if self.errors:
            raise self.errors.pop(0)
        return Outcome(scope.issuer.id, Result.not_due, None, None)


@contextmanager
def running(timer: PublisherTimer) -> Iterator[None]:
    timer.start()
    try:
        yield
    finally:
        timer.stop()


def test_it_looks_by_itself_and_leaves_issuers_without_a_key_alone() -> None:
    publishing = Publishing()
    with running(PublisherTimer(publishing, issuers=(ISSUER, ROOT), clock=Clock(T))):
        assert publishing.looked.wait(60)
    assert set(publishing.looks) == {"issuing"}
    count = len(publishing.looks)
    assert not publishing.errors
    assert count >= 1


def test_a_failure_is_told_and_tried_again_after_a_growing_pause(capsys: pytest.CaptureFixture[str]) -> None:
    clock, publishing = Clock(T), Publishing()
    publishing.errors = [
        StoreUnavailable("signer-down", "The signer does not answer.", fix="fleetca serve"),
        ZeroDivisionError("ours"),
    ]
    timer = PublisherTimer(publishing, issuers=(ISSUER,), clock=clock)
    counts = []
    for second in range(6):
        clock.time = T + second
        timer.look(ISSUER)
        counts.append(len(publishing.looks))
        if second == 0:
            assert timer.told()["issuing.crl"] == {"last_look": None, "trouble": "The signer does not answer."}
        if second == 1:
            assert timer.told()["issuing.crl"]["trouble"] == "ZeroDivisionError in the publisher: ours"
    assert counts == [1, 2, 2, 3, 4, 5]
    assert timer.told()["issuing.crl"] == {"last_look": T + 5, "trouble": None}
    assert "signer-down" in capsys.readouterr().out


def test_R24_a_pause_does_not_outlast_a_clock_that_went_back() -> None:
    clock, publishing = Clock(T), Publishing()
    publishing.errors = [StoreUnavailable("signer-down", "The signer does not answer.")]
    timer = PublisherTimer(publishing, issuers=(ISSUER,), clock=clock)
    timer.look(ISSUER)
    clock.time = T - 3600
    timer.look(ISSUER)
    assert len(publishing.looks) == 2


def test_R24_looks_planned_by_a_clock_that_ran_ahead_are_planned_anew() -> None:
    clock, publishing = Clock(T), Publishing()
    timer = PublisherTimer(publishing, issuers=(ISSUER,), clock=clock)
    with running(timer):
        assert publishing.looked.wait(60)
        jobs: Any = timer._scheduler
        jobs.modify_job(ISSUER.id, next_run_time=datetime.now(UTC) + timedelta(days=1))

        def sleeps() -> bool:  # a look that was under way may still come to its end
            publishing.looked.clear()
            return not publishing.looked.wait(1.5)

        eventually(sleeps)
        clock.time = T - 86400
        assert publishing.looked.wait(60)


def test_one_look_at_a_time_and_missed_ones_become_one() -> None:
    timer = PublisherTimer(Publishing(), issuers=(ISSUER,), clock=Clock(T))
    with running(timer):
        jobs: Any = timer._scheduler
        (job,) = jobs.get_jobs()
        assert (job.coalesce, job.max_instances, job.misfire_grace_time) == (True, 1, None)
        assert str(jobs.timezone) == "UTC"
        assert type(jobs._jobstores["default"]).__name__ == "MemoryJobStore"
    assert logging.getLogger("apscheduler").level == logging.ERROR
