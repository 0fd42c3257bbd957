"""The one thread that decides. It takes what is queued, up to a batch, and never waits to fill one: under load requests share a commit, alone
they wait for nobody. Edge: knows verbs, no rule.

Whatever fails, the next request is served: an error of ours answers its request, an error nobody foresaw answers `internal`, goes to the log
and is kept from the others in its batch by deciding each of them again alone.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ca import issue, revoke
from ca.errors import Broken, Busy, FleetcaError, StoreUnavailable, Unavailable
from ca.issue import Issuing
from ca.revoke import Revoking
from ca.witness import Witness

LONGEST_QUEUE: Final = 4096


class Log(Protocol):
    """Where the signer says what it did; structlog's bound loggers fit."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class Silence:
    """A log for tests and for commands that act as the signer."""

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


Call = Callable[[], Any]
Item = issue.Prepared | revoke.Prepared | Call


@dataclass(frozen=True, slots=True)
class _Job:
    item: Item
    answer: queue.SimpleQueue[Any]


class Desk:
    """Start it, `do` from any thread, stop it: what is queued by then is still done."""

    def __init__(self, *, issuing: Issuing, revoking: Revoking, witness: Witness, batch: int = 64, log: Log | None = None) -> None:
        self._issuing, self._revoking, self._witness = issuing, revoking, witness
        self._batch = batch
        self._log: Log = log or Silence()
        self._jobs: deque[_Job] = deque()
        self._bell = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="signer-desk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take nothing new, finish what is queued."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        self._thread.join()

    @property
    def queued(self) -> int:
        return len(self._jobs)

    def do(self, item: Item) -> Any:
        """Wait for the outcome of one item; raises the error it ends with.

        Raises:
            Busy: the queue is full.
            Unavailable: the signer is stopping.
        """
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._bell:
            if self._stopping:
                raise Unavailable("signer-stopping", "The signer is stopping.", retry_after=2)
            if len(self._jobs) >= LONGEST_QUEUE:
                raise Busy("signer-busy", "Too many requests wait for the signer.", retry_after=1)
            self._jobs.append(_Job(item, answer))
            self._bell.notify()
        outcome = answer.get()
        if isinstance(outcome, FleetcaError):
            raise outcome
        return outcome

    def _run(self) -> None:
        while True:
            with self._bell:
                while not self._jobs and not self._stopping:
                    self._bell.wait()
                taken = [self._jobs.popleft() for _ in range(min(self._batch, len(self._jobs)))]
            if not taken:
                self._settle()
                return
            self._work(taken)
            if not self._jobs:
                self._settle()

    def _settle(self) -> None:
        try:
            self._witness.settle()
        except FleetcaError as error:
            self._log.warning("journal-waits", code=error.code, why=error.why, records=self._witness.waiting)
        except Exception as error:  # noqa: BLE001 - the desk must outlive whatever the disk does
            self._unforeseen(error)

    def _work(self, jobs: Sequence[_Job]) -> None:
        # Revocations first: who is revoked in this batch does not renew in it.
        revocations = [job for job in jobs if isinstance(job.item, revoke.Prepared)]
        issuances = [job for job in jobs if isinstance(job.item, issue.Prepared)]
        self._together(revocations, self._revoking.revoke_prepared)
        for job in jobs:
            if not isinstance(job.item, (issue.Prepared, revoke.Prepared)):
                self._alone(job, job.item)
        self._together(issuances, self._issuing.issue_prepared)

    def _together(self, jobs: Sequence[_Job], verb: Callable[[Any], Sequence[Any]]) -> None:
        if not jobs:
            return
        try:
            outcomes = verb([job.item for job in jobs])
        except Exception as error:  # noqa: BLE001 - one request must not take the others or the signer with it
            failure = self._unforeseen(error)
            if len(jobs) == 1:
                jobs[0].answer.put(failure)
                return
            for job in jobs:
                self._together([job], verb)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer.put(outcome)

    def _alone(self, job: _Job, call: Call) -> None:
        try:
            job.answer.put(call())
        except FleetcaError as error:
            job.answer.put(error)
        except Exception as error:  # noqa: BLE001 - as above
            job.answer.put(self._unforeseen(error))

    def _unforeseen(self, error: Exception) -> FleetcaError:
        self._log.error("internal", kind=type(error).__name__, why=str(error))
        if isinstance(error, OSError):
            return StoreUnavailable("disk-failed", "A disk cannot be read or written.", why=error.strerror or type(error).__name__)
        return Broken("internal", "Something failed inside the signer; nothing was released.", fix="Look into the signer's log.")
