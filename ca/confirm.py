"""Confirming: a new certificate's key authenticates to us for the first time, and its ancestors are superseded (P9). Safe to repeat."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ca import lineage
from ca.errors import Unavailable
from ca.lineage import Issuers
from ca.model import Certificate, ConfirmRequest, Peer
from ca.ports import Clock, Ledger
from ca.rules import evidence, grant, renewal
from ca.rules.clock import trusted
from ca.witness import Witness


class Confirming:
    def __init__(self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._issuers, self._policy, self._clock = ledger, witness, issuers, policy, clock

    def confirm(self, request: ConfirmRequest, peer: Peer) -> Certificate:
        """The certificate whose first use this was, as it now is.

        Raises:
            Denied: it was superseded itself, it does not hold, or its device was revoked.
        """
        claim = evidence.claim(evidence.Verb.confirm, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            own = grant.confirmation(claim, record=self._issuers.record_of(claim, tx), now=now)
            renewal.active(tx.lock_device(own.device))
            said = lineage.first_use(tx, own, self._policy.profiles, now=now)
            tx.raise_high_time(now)
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already; what the journal cannot take now it gets with its next write.
            self._witness.settle()
        return own if own.first_used_at is not None else replace(own, first_used_at=now)
