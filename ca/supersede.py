"""Ending graces: what was superseded by the mere passing of time gets its row, its leaf and, where its profile says so, its revocation (P9).

Knows rules and ports only. The rules count a certificate as superseded from the very second at which its grace ends, so nothing waits for
this: it runs in the signer once a minute, and late or twice does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ca import lineage
from ca.errors import Unavailable
from ca.model import Certificate, CertificateRef
from ca.ports import Clock, Ledger, Writing
from ca.rules import grant, testimony
from ca.rules.clock import trusted
from ca.witness import Witness

BATCH: Final = 200
"""Certificates that share a commit: a request must not wait long behind them."""


class Superseding:
    def __init__(self, *, ledger: Ledger, witness: Witness, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._policy, self._clock = ledger, witness, policy, clock

    def end_graces(self) -> Sequence[CertificateRef]:
        """Supersede those whose grace is over, oldest first, at most `BATCH`; which they were.

        Raises:
            ClockUntrusted: the clock was set back.
        """
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            ended = [record.ref for record in tx.graces_ended(now, limit=BATCH)]
            for ref in ended:
                said += self._end(tx, ref, now)
            if ended:
                tx.raise_high_time(now)
        self._witness.later(said)
        with suppress(Unavailable):
            self._witness.settle()
        return ended

    def _end(self, tx: Writing, ref: CertificateRef, now: int) -> Sequence[testimony.Record]:
        found = tx.find_certificate(ref)
        if found is None:
            return ()
        # Read again under the lock, as every verb that changes a status does.
        tx.lock_device(found.device)
        found = tx.find_certificate(ref)
        if found is None or found.superseded_at is not None:
            return ()
        return lineage.supersede(tx, found, _delivered(tx, found), self._policy.profiles, now=now)


def _delivered(tx: Writing, record: Certificate) -> CertificateRef:
    """The successor whose delivery began the grace."""
    successors = [one for one in tx.certificates_of(record.device) if one.parent == record.ref and one.delivered_at is not None]
    return min(successors, key=lambda one: one.delivered_at or 0).ref if successors else record.ref
