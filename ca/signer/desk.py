"""The one thread that decides, and the one that signs what it decided. Edge: knows verbs, no rule.

A request passes the desk twice. First its CSR is read by the checker, a process of its own; then it is decided in a batch. The batch is
journaled and signed by the hand, and its certificates are read back by the checker, while the desk decides the next one: each waits for its own disk
or arithmetic. What the checker found of one batch is recorded in the same commit as the intents of another. Alone, a request waits for
nobody; while a batch is being signed or re-read, another is decided where it is worth a commit of its own, and what is not shares the next
commit with the results. What was measured stands in docs/adr/0008-one-commit-a-batch.md.

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
from ca.der.csr import Csr
from ca.errors import Broken, Busy, FleetcaError, StoreUnavailable, Unavailable
from ca.issue import Decided, Issuing, Signed, Signing
from ca.model import Digest, Draft
from ca.revoke import Revoking
from ca.signer.checker import Outcome, Told
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


MOST_READING: Final = 2
"""Batches of CSRs that the checker has at once: one in hand and the next."""
MOST_FLYING: Final = 3
"""Batches that are decided and not on record: one whose results are at hand, one that is re-read, one that is signed."""
WORTH_A_COMMIT: Final = 16
"""Requests that are decided beside one batch; beside more, only a full one is."""
SETTLE_AFTER: Final = 0.05
"""Seconds without a request after which the journal gets what has waited for its next write."""
SETTLE_AGAIN_AFTER: Final = 5.0
"""The same, when the journal could not be written."""


class Checking(Protocol):
    """`ca.signer.checker.Checker`, as the desk needs it. `told` may be called from any thread, and before the call returns."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    def read(self, csrs: Sequence[bytes], told: Told) -> None: ...

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Told) -> None: ...


@dataclass(frozen=True, slots=True)
class _Job:
    item: Any
    """An `Item`."""
    answer: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Proven:
    """An issuance whose CSR was read."""

    job: _Job
    item: issue.Proven
    alone: bool = False
    """It was in a batch that failed; it may be what failed."""


class Desk:
    """Start it, `do` or `submit` from any thread, stop it: what is queued by then is still done."""

    def __init__(
        self, *, issuing: Issuing, revoking: Revoking, witness: Witness, checker: Checking, batch: int = 64, log: Log | None = None
    ) -> None:
        self._issuing, self._revoking, self._witness, self._checker = issuing, revoking, witness, checker
        self._batch = batch
        self._log: Log = log or Silence()
        self._bell = threading.Condition()
        self._calls: deque[_Job] = deque()
        """What waits and is not an issuance: it need not wait for one either."""
        self._jobs: deque[_Job] = deque()
        """Issuances whose CSRs nobody has read."""
        self._heard: deque[Callable[[], None]] = deque()
        """What the checker said, to be done by the desk's thread."""
        self._stopping = False
        # These belong to the desk's thread.
        self._settle_after = SETTLE_AFTER
        self._reading = 0
        self._proven: deque[_Proven] = deque()
        self._flying: list[frozenset[Digest]] = []
        """The request keys of each batch that is decided and not on record yet."""
        self._signed: deque[tuple[Sequence[_Proven], frozenset[Digest], Signed | Exception]] = deque()
        self._thread = threading.Thread(target=self._run, name="signer-desk", daemon=True)
        self._decided: queue.SimpleQueue[tuple[Sequence[_Proven], Decided] | None] = queue.SimpleQueue()
        """What the hand is to sign; None is the end."""
        self._hand = threading.Thread(target=self._sign_all, name="signer-hand", daemon=True)

    def start(self) -> None:
        self._checker.start()
        self._hand.start()
        self._thread.start()

    def stop(self) -> None:
        """Take nothing new, finish what is queued."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        self._thread.join()
        self._decided.put(None)
        self._hand.join()
        self._checker.close()

    @property
    def queued(self) -> int:
        return len(self._jobs) + len(self._calls) + len(self._proven)

    def do(self, item: Item) -> Any:
        """Wait for the outcome of one item; raises the error it ends with.

        Raises:
            Busy: the queue is full.
            Unavailable: the signer is stopping.
        """
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.submit(item, answer.put)
        outcome = answer.get()
        if isinstance(outcome, FleetcaError):
            raise outcome
        return outcome

    def submit(self, item: Item, answer: Callable[[Any], None]) -> None:
        """As `do`, but `answer` is called with the outcome, or the error, by the desk's thread: it must be quick and not raise."""
        with self._bell:
            if self._stopping:
                raise Unavailable("signer-stopping", "The signer is stopping.", retry_after=2)
            if self.queued >= LONGEST_QUEUE:
                raise Busy("signer-busy", "Too many requests wait for the signer.", retry_after=1)
            (self._jobs if isinstance(item, issue.Prepared) else self._calls).append(_Job(item, answer))
            self._bell.notify()

    # ---- The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            with self._bell:
                calls = self._due()
                heard = [self._heard.popleft() for _ in range(len(self._heard))]
                unread = [self._jobs.popleft() for _ in range(self._may_read())]
            self._do(calls)
            for tell in heard:
                tell()
            self._read(unread)
            batch, keys, signed = self._signed.popleft() if self._signed else ((), None, None)
            if keys is not None:
                self._flying.remove(keys)
            self._commit(batch, signed, [self._proven.popleft() for _ in range(self._may_decide())])
        self._settle()

    def _due(self) -> list[_Job]:
        """What waits and is no issuance, up to a request that revokes many: whoever else waits, waits for one of those and not for all."""
        due: list[_Job] = []
        while self._calls:
            job = self._calls.popleft()
            due.append(job)
            if isinstance(job.item, revoke.Prepared) and job.item.request.others:
                break
        return due

    def _wait(self) -> bool:
        """Until there is something to do; False when there is an end to it."""
        while True:
            with self._bell:
                if self._calls or self._heard or self._signed or self._may_read() or self._may_decide():
                    return True
                if self._stopping and not (self._reading or self._flying or self._proven):
                    return False
                rung = self._bell.wait(self._settle_after if self._witness.waiting else None)
            if not rung:
                self._settle()

    def _may_read(self) -> int:
        """How many CSRs can be given to the checker now: what waits when it has none, else a full batch, so that it always has a next one."""
        count = min(self._batch, len(self._jobs))
        return count if self._reading == 0 or (count == self._batch and self._reading < MOST_READING) else 0

    def _may_decide(self) -> int:
        """How many of the requests whose CSRs were read can be decided now."""
        if not self._proven or len(self._flying) >= MOST_FLYING:
            return 0
        count = 1 if self._proven[0].alone else min(self._batch, len(self._proven))
        if not self._flying:
            return count
        # What repeats a request in flight would find its intent without a result, and give it up.
        keys = [waiting.item.prepared.key for waiting in islice(self._proven, count)]
        least = min(WORTH_A_COMMIT, self._batch) if len(self._flying) == 1 else self._batch
        return count if count >= least and all(flying.isdisjoint(keys) for flying in self._flying) else 0

    def _post(self, tell: Callable[[], None]) -> None:
        with self._bell:
            self._heard.append(tell)
            self._bell.notify()

    def _read(self, jobs: Sequence[_Job]) -> None:
        if jobs:
            self._reading += 1
            self._checker.read([job.item.request.csr for job in jobs], lambda found: self._post(lambda: self._was_read(jobs, found)))

    def _was_read(self, jobs: Sequence[_Job], found: Sequence[Outcome]) -> None:
        self._reading -= 1
        for job, csr in zip(jobs, found, strict=True):
            if isinstance(csr, Csr):
                self._proven.append(_Proven(job, issue.Proven(job.item, csr)))
            else:
                job.answer(csr)

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
                jobs[0].answer(failure)
                return
            for job in jobs:
                self._revoke([job])
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer(outcome)

    def _alone(self, job: _Job, call: Call) -> None:
        try:
            job.answer(call())
        except FleetcaError as error:
            job.answer(error)
        except Exception as error:  # noqa: BLE001 - as above
            job.answer(self._unforeseen(error))

    def _commit(self, batch: Sequence[_Proven], signed: Signed | Exception | None, fresh: Sequence[_Proven]) -> None:
        if isinstance(signed, Exception):
            self._again(batch, signed)
            batch, signed = (), None
        if signed is None and not fresh:
            return
        try:
            settled, decided = self._issuing.commit([one.item for one in fresh], signed)
        except Exception as error:  # noqa: BLE001 - as above
            if batch and fresh:
                self._commit(batch, signed, ())
                self._commit((), None, fresh)
            else:
                self._again([*batch, *fresh], error)
            return
        for one, outcome in zip(batch, settled, strict=True):
            one.job.answer(outcome)
        if fresh:
            self._flying.append(decided.keys)
            self._decided.put((fresh, decided))

    # ---- The hand ---------------------------------------------------------------------------------------------------

    def _sign_all(self) -> None:
        while (work := self._decided.get()) is not None:
            self._sign(*work)

    def _sign(self, batch: Sequence[_Proven], decided: Decided) -> None:
        try:
            signing = self._issuing.sign(decided)
        except Exception as error:  # noqa: BLE001 - as above
            failure = error
            self._post(lambda: self._signed.append((batch, decided.keys, failure)))
            return
        if signing.unread:
            self._checker.reread(signing.unread, lambda found: self._post(lambda: self._was_reread(batch, signing, found)))
        else:
            self._post(lambda: self._was_reread(batch, signing, ()))

    # ---- What came back ---------------------------------------------------------------------------------------------

    def _was_reread(self, batch: Sequence[_Proven], signing: Signing, found: Sequence[Any]) -> None:
        try:
            self._signed.append((batch, signing.decided.keys, self._issuing.checked(signing, found)))
        except Exception as error:  # noqa: BLE001 - as above
            self._signed.append((batch, signing.decided.keys, error))

    # ---- Failures ---------------------------------------------------------------------------------------------------

    def _again(self, batch: Sequence[_Proven], error: Exception) -> None:
        """Each of a batch that failed once more, alone; who fails alone is answered."""
        failure = self._unforeseen(error)
        if len(batch) == 1:
            batch[0].job.answer(failure)
            return
        self._proven.extendleft(replace(one, alone=True) for one in reversed(batch))

    def _unforeseen(self, error: Exception) -> FleetcaError:
        self._log.error("internal", kind=type(error).__name__, why=str(error))
        if isinstance(error, OSError):
            return StoreUnavailable("disk-failed", "A disk cannot be read or written.", why=error.strerror or type(error).__name__)
        return Broken("internal", "Something failed inside the signer; nothing was released.", fix="Look into the signer's log.")
