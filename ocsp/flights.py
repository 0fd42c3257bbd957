"""Doing something once for all who want it at the same time, and never too many such things at once (P5). Ring 4."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import BoundedSemaphore, Lock
from typing import Generic, TypeVar

from ca.errors import Busy

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Single flight with a bound. Safe for several threads.

    Args:
        at_once: how many may be under way.
        patience: seconds to wait for a place, or for another's result.
        what: of what there are too many, for the error.
    """

    def __init__(self, *, at_once: int, patience: float, what: str) -> None:
        self._places = BoundedSemaphore(at_once)
        self._patience = patience
        self._what = what
        self._lock = Lock()
        self._under_way: dict[Hashable, Future[Result]] = {}

    def once(self, key: Hashable, work: Callable[[], Result]) -> Result:
        """The result of `work`, done by whoever asked first for this key; its error goes to all who wait.

        Raises:
            Busy: too many are under way, or it takes too long.
        """
        with self._lock:
            flight = self._under_way.get(key)
            leading = flight is None
            if flight is None:
                flight = self._under_way[key] = Future()
        if not leading:
            try:
                return flight.result(timeout=self._patience)
            except TimeoutError:
                raise self._busy() from None
        try:
            result = self.bounded(work)
        except BaseException as error:
            flight.set_exception(error)
            raise
        else:
            flight.set_result(result)
            return result
        finally:
            with self._lock:
                del self._under_way[key]

    def bounded(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which nobody else can want.

        Raises:
            Busy: too many are under way.
        """
        if not self._places.acquire(timeout=self._patience):
            raise self._busy()
        try:
            return work()
        finally:
            self._places.release()

    def _busy(self) -> Busy:
        return Busy("status-busy", f"Too many {self._what} at once.", retry_after=1)
