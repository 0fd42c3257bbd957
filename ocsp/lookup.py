"""Asking the database what a certificate's status is: once for all who ask at the same time, and never by too many at once (P5). Ring 4."""

from __future__ import annotations

from concurrent.futures import Future
from threading import BoundedSemaphore, Lock

from ca.errors import Busy
from ca.model import CertificateRef, ChangeNumber
from ocsp.model import Status
from ocsp.ports import Reading
from ocsp.rules import issuers


class Lookup:
    """Single flight with a bound.

    A flight belongs to a change number: who has heard of a newer change never takes the result of a query that may have run before it.

    Args:
        at_once: queries that may run at the same time.
        patience: seconds to wait for a place, or for another's query.
    """

    def __init__(self, reading: Reading, *, at_once: int = 4, patience: float = 2.0) -> None:
        self._reading = reading
        self._places = BoundedSemaphore(at_once)
        self._patience = patience
        self._lock = Lock()
        self._flights: dict[tuple[CertificateRef, ChangeNumber | None], Future[Status]] = {}

    def status(self, ref: CertificateRef, *, as_of: ChangeNumber | None) -> Status:
        """The status of a certificate, true as of change number `as_of` at least.

        Raises:
            StoreUnavailable: the database cannot be asked.
            Busy: too many ask at once.
        """
        key = (ref, as_of)
        with self._lock:
            flight = self._flights.get(key)
            leading = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leading:
            try:
                return flight.result(timeout=self._patience)
            except TimeoutError:
                raise _busy() from None
        try:
            status = self._ask(ref)
        except BaseException as error:
            flight.set_exception(error)
            raise
        else:
            flight.set_result(status)
            return status
        finally:
            with self._lock:
                del self._flights[key]

    def _ask(self, ref: CertificateRef) -> Status:
        if not self._places.acquire(timeout=self._patience):
            raise _busy()
        try:
            return issuers.status(self._reading.status_of(ref.issuer, ref.serial))
        finally:
            self._places.release()


def _busy() -> Busy:
    return Busy("status-busy", "Too many status queries at once.", retry_after=1)
