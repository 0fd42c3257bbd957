"""Asking the database what a certificate's status is: once for all who ask at the same time, and never by too many at once (P5). Ring 4."""

from __future__ import annotations

from collections.abc import Callable

from ca.model import CertificateRef, ChangeNumber
from ocsp.flights import Flights
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
        self._flights = Flights[Status](at_once=at_once, patience=patience, what="status queries")

    def status(self, ref: CertificateRef, *, as_of: ChangeNumber | None, known: Callable[[], Status | None] = lambda: None) -> Status:
        """The status of a certificate, true as of change number `as_of` at least.

        Args:
            known: asked once more when it is our turn: between looking and asking somebody else's flight may have landed.

        Raises:
            StoreUnavailable: the database cannot be asked.
            Busy: too many ask at once.
        """
        return self._flights.once((ref, as_of), lambda: known() or issuers.status(self._reading.status_of(ref.issuer, ref.serial)))
