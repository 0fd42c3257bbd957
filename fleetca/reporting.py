"""What devices say of their renewals, written down each second beside the web service that hears it."""

from __future__ import annotations

import threading

import structlog

from ca.errors import FleetcaError
from config.settings import Settings
from enroll.store.reports import ReportStore
from enroll.store.transactions import Transactions
from fleetca import forms

log = structlog.get_logger()


class Reporting:
    """`store` takes words at once, and writes them from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._transactions = Transactions(forms.store_url(settings))
        self.store = ReportStore(self._transactions)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _keep(self) -> None:
        trouble = ""
        while not self._stopping.wait(1.0):
            trouble = self._write(trouble)

    def _write(self, trouble: str) -> str:
        try:
            self.store.write()
        except FleetcaError as error:
            if error.code != trouble:  # said once, not every second
                log.warning("reports-not-written", code=error.code, reason=str(error))
            return error.code
        return ""

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._write("")
        self._transactions.close()
