"""The one thread that decides, and the one that signs what it decided. Edge: knows verbs, no rule.

Deciding takes what is queued, up to a batch, and alone a request waits for nobody. While a batch is being signed and re-read, only a full one
is decided: what comes meanwhile shares the next commit with the results. That pays where batches are not full, and only there: what was
measured stands in docs/adr/0008-one-commit-a-batch.md.

Whatever fails, the next request is served: an error of ours answers its request, an error nobody foresaw answers `internal`, goes to the log
and is kept from the others in its batch by deciding each of them again alone.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol

from ca import issue, revoke
from ca.errors import Broken, Busy, FleetcaError, StoreUnavailable, Unavailable
from ca.issue import Decided, Issuing, Signed
from ca.model import Digest
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


SETTLE_AFTER: Final = 0.05
"""Seconds without a request after which the journal gets what has waited for its next write."""
SETTLE_AGAIN_AFTER: Final = 5.0
"""The same, when the journal could not be written."""


@dataclass(frozen=True, slots=True)
class _Job:
    item: Any
    """An `Item`."""
    answer: queue.SimpleQueue[Any]
    alone: bool = False
    """It was in a batch that failed; it may be what failed."""


class Desk:
    """Start it, `do` from any thread, stop it: what is queued by then is still done."""

    def __init__(self, *, issuing: Issuing, revoking: Revoking, witness: Witness, batch: int = 64, log: Log | None = None) -> None:
        self._issuing, self._revoking, self._witness = issuing, revoking, witness
        self._batch = batch
        self._log: Log = log or Silence()
        self._calls: deque[_Job] = deque()
        """What waits and is not an issuance: it need not wait for one either."""
        self._jobs: deque[_Job] = deque()
        self._bell = threading.Condition()
        self._stopping = False
        self._settle_after = SETTLE_AFTER
        self._unsigned: queue.SimpleQueue[tuple[Sequence[_Job], Decided] | None] = queue.SimpleQueue()
        self._signed: deque[tuple[Sequence[_Job], Signed | Exception]] = deque()
        self._flying: deque[frozenset[Digest]] = deque()
        """The request keys of each batch that was given to be signed and is not on record yet, in order."""
        self._deciding = threading.Thread(target=self._decide, name="signer-desk", daemon=True)
        self._signing = threading.Thread(target=self._sign, name="signer-sign", daemon=True)

    def start(self) -> None:
        self._deciding.start()
        self._signing.start()

    def stop(self) -> None:
        """Take nothing new, finish what is queued."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        self._deciding.join()
        self._signing.join()

    @property
    def queued(self) -> int:
        return len(self._jobs) + len(self._calls)

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
            if self.queued >= LONGEST_QUEUE:
                raise Busy("signer-busy", "Too many requests wait for the signer.", retry_after=1)
            (self._jobs if isinstance(item, issue.Prepared) else self._calls).append(_Job(item, answer))
            self._bell.notify()
        outcome = answer.get()
        if isinstance(outcome, FleetcaError):
            raise outcome
        return outcome

    # ---- The thread that decides ------------------------------------------------------------------------------------

    def _decide(self) -> None:
        while self._wait():
            with self._bell:
                calls = [self._calls.popleft() for _ in range(len(self._calls))]
                jobs, signed = self._signed.popleft() if self._signed else ((), None)
                if signed is not None:
                    self._flying.popleft()
                fresh = [self._jobs.popleft() for _ in range(self._may_decide(self._flying))]
            self._do(calls)
            self._commit(jobs, signed, fresh)
        self._unsigned.put(None)
        self._settle()

    def _wait(self) -> bool:
        """Until there is something to do; False when there is an end to it."""
        while True:
            with self._bell:
                if self._calls or self._signed or self._may_decide(self._flying):
                    return True
                if self._stopping and not self._flying:
                    return False
                rung = self._bell.wait(self._settle_after if self._witness.waiting else None)
            if not rung:
                self._settle()

    def _may_decide(self, flying: Sequence[frozenset[Digest]]) -> int:
        """How many of the waiting requests can be decided now."""
        if not self._jobs or len(flying) > 1:
            return 0
        count = 1 if self._jobs[0].alone else min(self._batch, len(self._jobs))
        if not flying:
            return count
        # What repeats a request in flight would find its intent without a result, and give it up.
        full = count == self._batch and flying[0].isdisjoint(job.item.key for job in islice(self._jobs, count))
        return count if full else 0

    def _settle(self) -> None:
        self._settle_after = SETTLE_AGAIN_AFTER
        try:
            self._witness.settle()
            self._settle_after = SETTLE_AFTER
        except FleetcaError as error:
            self._log.warning("journal-waits", code=error.code, why=error.why, records=self._witness.waiting)
        except Exception as error:  # noqa: BLE001 - the desk must outlive whatever the disk does
            self._unforeseen(error)

    def _do(self, calls: Sequence[_Job]) -> None:
        # Revocations first: who is revoked now does not renew in the same turn.
        self._revoke([job for job in calls if isinstance(job.item, revoke.Prepared)])
        for job in calls:
            if not isinstance(job.item, revoke.Prepared):
                self._alone(job, job.item)

    def _revoke(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            outcomes = self._revoking.revoke_prepared([job.item for job in jobs])
        except Exception as error:  # noqa: BLE001 - one request must not take the others or the signer with it
            failure = self._unforeseen(error)
            if len(jobs) == 1:
                jobs[0].answer.put(failure)
                return
            for job in jobs:
                self._revoke([job])
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

    def _commit(self, jobs: Sequence[_Job], signed: Signed | Exception | None, fresh: Sequence[_Job]) -> None:
        if isinstance(signed, Exception):
            self._again(jobs, signed)
            jobs, signed = (), None
        try:
            settled, decided = self._issuing.commit([job.item for job in fresh], signed)
        except Exception as error:  # noqa: BLE001 - as above
            if jobs and fresh:
                self._commit(jobs, signed, ())
                self._commit((), None, fresh)
            else:
                self._again([*jobs, *fresh], error)
            return
        for job, outcome in zip(jobs, settled, strict=True):
            job.answer.put(outcome)
        if fresh:
            with self._bell:
                self._flying.append(decided.keys)
            self._unsigned.put((fresh, decided))

    # ---- The thread that signs --------------------------------------------------------------------------------------

    def _sign(self) -> None:
        while (work := self._unsigned.get()) is not None:
            jobs, decided = work
            signed: Signed | Exception
            try:
                signed = self._issuing.sign(decided)
            except Exception as error:  # noqa: BLE001 - as above
                signed = error
            with self._bell:
                self._signed.append((jobs, signed))
                self._bell.notify()

    # ---- Failures ---------------------------------------------------------------------------------------------------

    def _again(self, jobs: Sequence[_Job], error: Exception) -> None:
        """Each of a batch that failed once more, alone; who fails alone is answered."""
        failure = self._unforeseen(error)
        if len(jobs) == 1:
            jobs[0].answer.put(failure)
            return
        with self._bell:
            self._jobs.extendleft(replace(job, alone=True) for job in reversed(jobs))
            self._bell.notify()

    def _unforeseen(self, error: Exception) -> FleetcaError:
        self._log.error("internal", kind=type(error).__name__, why=str(error))
        if isinstance(error, OSError):
            return StoreUnavailable("disk-failed", "A disk cannot be read or written.", why=error.strerror or type(error).__name__)
        return Broken("internal", "Something failed inside the signer; nothing was released.", fix="Look into the signer's log.")
