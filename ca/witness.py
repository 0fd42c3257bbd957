"""The signer's own record of what it did, on another path than the database. A verb's tool: knows the journal by its port only.

What must stand there before something is signed is written with `testify`. What only completes the picture (results, changes that the
database has committed) may wait for the next write: `later`, and `settle` when there is nothing to wait for. A crash in between costs
nothing while the database lives; it is the second of two losses at once that would.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ca.ports import Journal
from ca.rules import testimony


class Witness:
    """Safe to use from the worker and the CRL thread at once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        """Held for a moment: whoever decides the next batch must not wait for the disk."""
        self._writing = threading.Lock()
        """Held until the disk has it: records stand in the journal in the order in which they were told."""

    def testify(self, records: Sequence[testimony.Record]) -> None:
        """Durable when this returns, with all that waited.

        Raises:
            StoreUnavailable: nothing may be signed; what waited goes on waiting.
        """
        octets = [testimony.write(record) for record in records]
        with self._writing:
            with self._lock:
                waited = len(self._waiting)
                told = [*self._waiting, *octets]
            if told:
                self._journal.append(told)
                with self._lock:
                    # What came meanwhile stands behind these.
                    del self._waiting[:waited]

    def later(self, records: Sequence[testimony.Record]) -> None:
        """Keep for the next write."""
        octets = [testimony.write(record) for record in records]
        with self._lock:
            self._waiting += octets

    def settle(self) -> None:
        """Write what waits. Cheap when nothing does."""
        self.testify(())

    @property
    def waiting(self) -> int:
        """How many records are not in the journal yet. Waits for nobody."""
        return len(self._waiting)
