"""What makes the publisher look once a second. Ring 5: APScheduler and nothing of its own about CRLs.

One job per issuer, in a memory store: a store shared by several schedulers runs jobs twice (R13), so the database lease decides instead. Runs that
were missed become one (`coalesce`), and no run overtakes another (`max_instances`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC
from threading import Event, Lock, Thread
from typing import Any, Final, cast

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from ca.errors import FleetcaError
from ca.model import Issuer, IssuerId, UnixTime
from ca.ports import Clock
from crl.model import Outcome, Result
from crl.rules import schedule

LOOK_EVERY: Final = 1
_BACKWARDS: Final = 2
_LIBRARY: Final = cast("Any", BackgroundScheduler)  # the library carries no types


class PublisherTimer:
    """Looks at every issuer once a second until it is stopped.

    Args:
        publish: `crl.publish.Publisher.publish`.
        issuers: those whose CRLs are to be published; others are left alone.
    """

    def __init__(self, publish: Callable[[Issuer], Outcome], *, issuers: Iterable[Issuer], clock: Clock) -> None:
        self._publish = publish
        self._issuers = tuple(issuer for issuer in issuers if issuer.key is not None and issuer.may_sign_crl)
        self._clock = clock
        self._log = structlog.get_logger("crl")
        self._lock = Lock()
        self._failures: dict[IssuerId, int] = {}
        self._not_before: dict[IssuerId, UnixTime] = {}
        self._troubles: dict[IssuerId, str] = {}
        self._heard: dict[IssuerId, UnixTime] = {}
        self._stopped = Event()
        self._watch: Thread | None = None
        # Its warnings say that a look lasted longer than a second, as every publication does.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = _LIBRARY(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(max(1, len(self._issuers)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        for issuer in self._issuers:
            self._scheduler.add_job(self.look, "interval", args=(issuer,), seconds=LOOK_EVERY, id=issuer.id)
        self._scheduler.start()
        self._watch = Thread(target=self._watch_clock, name="crl-clock", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Let a publication under way end, then stop."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.join()
        self._scheduler.shutdown(wait=True)

    def look(self, issuer: Issuer) -> None:
        """One look. What fails is tried again after a pause; nothing escapes, so the job lives on."""
        now = self._clock.now()
        until = self._not_before.get(issuer.id, 0)
        # A pause that lies further ahead than any pause lasts was set before the clock went back.
        if now < until <= now + schedule.LONGEST_PAUSE:
            return
        try:
            outcome = self._publish(issuer)
        except FleetcaError as error:
            self._failed(issuer, now, str(error), code=error.code, fix=error.fix)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: a fault of ours is told and the next look comes
            self._log.exception("crl.look-failed", issuer=issuer.id)
            self._failed(issuer, now, f"{type(error).__name__} in the publisher", code="unexpected", fix="")
        else:
            self._succeeded(issuer, now, outcome)

    def told(self) -> dict[str, Any]:
        """For the health of the process that runs this: per issuer when it was last looked at without trouble, and the trouble since."""
        with self._lock:
            return {
                issuer.id: {"last_look": self._heard.get(issuer.id), "trouble": self._troubles.get(issuer.id)} for issuer in self._issuers
            }

    def _failed(self, issuer: Issuer, now: UnixTime, what: str, *, code: str, fix: str) -> None:
        with self._lock:
            failures = self._failures.get(issuer.id, 0) + 1
            self._failures[issuer.id] = failures
            self._troubles[issuer.id] = what
            pause = schedule.pause(failures)
            self._not_before[issuer.id] = now + pause
        self._log.warning("crl.not-published", issuer=issuer.id, code=code, what=what, fix=fix, failures=failures, again_in=pause)

    def _succeeded(self, issuer: Issuer, now: UnixTime, outcome: Outcome) -> None:
        with self._lock:
            self._heard[issuer.id] = now
            self._failures.pop(issuer.id, None)
            self._troubles.pop(issuer.id, None)
            self._not_before.pop(issuer.id, None)
        if outcome.result is Result.published and outcome.head and outcome.cause:
            self._log.info(
                "crl.published",
                issuer=issuer.id,
                number=outcome.head.number,
                cause=outcome.cause.value,
                this_update=outcome.head.this_update,
                next_update=outcome.head.next_update,
            )

    def _watch_clock(self) -> None:
        """The scheduler sleeps until a time of the wall clock: when that is set back, it would sleep for as long (R24). This one counts seconds."""
        latest = self._clock.now()
        while not self._stopped.wait(LOOK_EVERY):
            now = self._clock.now()
            if now < latest - _BACKWARDS:
                self._log.warning("crl.clock-went-back", seconds=latest - now)
                self.wake()
            latest = now

    def wake(self) -> None:
        """Plan every look anew, from now on."""
        for issuer in self._issuers:
            self._scheduler.reschedule_job(issuer.id, trigger="interval", seconds=LOOK_EVERY)
