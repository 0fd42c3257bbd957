"""What makes the publisher look once a second. Ring 5: APScheduler and nothing of its own about CRLs.

One job per issuer, and one for each place where CRLs also go, in a memory store: a store shared by several schedulers runs jobs twice (R13), so the
database lease decides instead. Runs that were missed become one (`coalesce`), and no run overtakes another (`max_instances`). Each CRL has its own
failures and its own pause: one that cannot be made holds up no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from threading import Event, Lock, Thread
from typing import Any, Final, cast

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from ca.errors import Broken, FleetcaError
from ca.model import Issuer, UnixTime
from ca.ports import Clock
from crl.model import Head, Outcome, Result, Scope
from crl.publish import scopes
from crl.rules import schedule

LOOK_EVERY: Final = 1
_BACKWARDS: Final = 2
_LIBRARY: Final = cast("Any", BackgroundScheduler)  # the library carries no types


class PublisherTimer:
    """Looks at every CRL once a second until it is stopped.

    Args:
        publish: `crl.publish.Publisher.publish`.
        issuers: those whose CRLs are to be published.
        take_over: puts the next CRL of an issuer whose key is not ours into its place when its time has come.
        mirrors: by name, what brings published files to another place.
    """

    def __init__(
        self,
        publish: Callable[[Scope], Outcome],
        *,
        issuers: Iterable[Issuer],
        clock: Clock,
        take_over: Callable[[Issuer], Head | None] | None = None,
        mirrors: Mapping[str, Callable[[], int]] | None = None,
        who: str = "",
    ) -> None:
        self._publish, self._take_over, self._clock, self._who = publish, take_over, clock, who
        signing = [issuer for issuer in issuers if issuer.may_sign_crl]
        self._issuers = tuple(issuer for issuer in signing if issuer.key is not None)
        self._offline = tuple(issuer for issuer in signing if issuer.key is None) if take_over else ()
        self._scopes = {issuer.id: scopes(issuer) for issuer in self._issuers}
        self._mirrors = dict(mirrors or {})
        self._log = structlog.get_logger("crl")
        self._lock = Lock()
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, UnixTime] = {}
        self._troubles: dict[str, str] = {}
        self._heard: dict[str, UnixTime] = {}
        self._stopped = Event()
        self._watch: Thread | None = None
        # Its warnings say that a look lasted longer than a second, as every publication does.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        jobs = len(self._issuers) + len(self._offline) + len(self._mirrors)
        self._scheduler = _LIBRARY(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(max(1, jobs))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        for issuer in self._issuers:
            self._scheduler.add_job(self.look, "interval", args=(issuer,), seconds=LOOK_EVERY, id=issuer.id)
        for issuer in self._offline:
            self._scheduler.add_job(self.look_ahead, "interval", args=(issuer,), seconds=LOOK_EVERY, id=f"next:{issuer.id}")
        for name in self._mirrors:
            self._scheduler.add_job(self.look_at_mirror, "interval", args=(name,), seconds=LOOK_EVERY, id=f"mirror:{name}")
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
        """One look at every CRL of an issuer. What fails is tried again after a pause; nothing escapes, so the job lives on."""
        for scope in self._scopes.get(issuer.id) or scopes(issuer):
            if self._stopped.is_set():
                return
            self._attempt(scope.name, lambda scope=scope: self._published(scope, self._publish(scope)))  # type: ignore[misc]

    def look_ahead(self, issuer: Issuer) -> None:
        """Whether the time of an offline issuer's next CRL has come."""
        self._attempt(f"{issuer.id}.next", lambda: self._taken_over(issuer))

    def look_at_mirror(self, name: str) -> None:
        """Bring what is published to another place."""
        self._attempt(name, lambda: self._mirrored(name))

    def told(self) -> dict[str, Any]:
        """For the health of the process that runs this: per CRL and place when it was last looked at without trouble, and the trouble since."""
        names = [scope.name for issuer in self._issuers for scope in self._scopes[issuer.id]]
        with self._lock:
            return {
                name: {"last_look": self._heard.get(name), "trouble": self._troubles.get(name)}
                for name in (*names, *(f"{issuer.id}.next" for issuer in self._offline), *self._mirrors)
            }

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        now = self._clock.now()
        until = self._not_before.get(name, 0)
        # A pause that lies further ahead than any pause lasts was set before the clock went back.
        if now < until <= now + schedule.LONGEST_PAUSE:
            return
        try:
            act()
        except FleetcaError as error:
            self._failed(name, now, str(error), code=error.code, fix=error.fix, alarm=isinstance(error, Broken))
        except Exception as error:  # noqa: BLE001 - the edge of a thread: a fault of ours is told and the next look comes
            self._log.exception("crl.look-failed", crl=name)
            self._failed(name, now, f"{type(error).__name__} in the publisher: {error}", code="unexpected", fix="", alarm=True)
        else:
            with self._lock:
                self._heard[name] = now
                for kept in (self._failures, self._troubles, self._not_before):
                    kept.pop(name, None)

    def _failed(self, name: str, now: UnixTime, what: str, *, code: str, fix: str, alarm: bool) -> None:
        with self._lock:
            failures = self._failures.get(name, 0) + 1
            self._failures[name] = failures
            self._troubles[name] = what
            pause = schedule.pause(failures, f"{self._who} {name}")
            self._not_before[name] = now + pause
        # What the gate refused does not mend itself: somebody must look.
        if alarm:
            self._log.error("crl.not-published", crl=name, code=code, what=what, fix=fix, failures=failures, again_in=pause)
        else:
            self._log.warning("crl.not-published", crl=name, code=code, what=what, fix=fix, failures=failures, again_in=pause)

    def _published(self, scope: Scope, outcome: Outcome) -> None:
        if outcome.result is Result.published and outcome.head and outcome.cause:
            self._log.info(
                "crl.published",
                issuer=scope.issuer.id,
                crl=scope.name,
                number=outcome.head.number,
                cause=outcome.cause.value,
                this_update=outcome.head.this_update,
                next_update=outcome.head.next_update,
            )

    def _taken_over(self, issuer: Issuer) -> None:
        head = self._take_over(issuer) if self._take_over else None
        if head is not None:
            self._log.info("crl.taken-over", issuer=issuer.id, number=head.number, next_update=head.next_update)

    def _mirrored(self, name: str) -> None:
        count = self._mirrors[name]()
        if count:
            self._log.info("crl.mirrored", outlet=name, files=count)

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
        for job in self._scheduler.get_jobs():
            self._scheduler.reschedule_job(job.id, trigger="interval", seconds=LOOK_EVERY)
