"""Confirming: a certificate's key authenticates to us, and says perhaps that it has its successor (P9). Safe to repeat.

A first use supersedes all ancestors at once. A confirmed delivery begins the grace of the certificate that speaks: when it is over, the
certificate is superseded too, whether its successor was used or not.
"""

from __future__ import annotations

from contextlib import suppress

from ca import lineage
from ca.errors import Denied, Unavailable
from ca.lineage import Issuers
from ca.model import Certificate, ConfirmRequest, Peer
from ca.ports import Clock, Ledger
from ca.rules import evidence, grant, permission, renewal
from ca.rules.clock import trusted
from ca.witness import Witness


class Confirming:
    def __init__(self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._issuers, self._policy, self._clock = ledger, witness, issuers, policy, clock

    def confirm(self, request: ConfirmRequest, peer: Peer) -> Certificate:
        """The certificate that spoke, as it now is.

        Raises:
            Denied: it was superseded itself, it does not hold, its device was revoked, or it has no such successor.
            Contested: another certificate took its place by being used (P9).
        """
        claim = evidence.claim(evidence.Verb.confirm, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now())
        try:
            return self._confirm(claim, request)
        except Denied as error:
            raise lineage.refusal(self._ledger, self._witness, error, claim, self._issuers, now=self._clock.now()) from None

    def _confirm(self, claim: evidence.Claim, request: ConfirmRequest) -> Certificate:
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            successor = None if request.successor is None else tx.find_certificate(request.successor)
            record = self._issuers.record_of(claim, tx)
            own = permission.confirmation(claim, request, self._policy, record=record, successor=successor, now=now)
            renewal.active(tx.lock_device(own.device))
            said = lineage.first_use(tx, own, self._policy.profiles, now=now)
            if successor is not None:
                said += lineage.delivered(tx, own, successor, self._policy.profiles, now=now)
            tx.raise_high_time(now)
            own = tx.find_certificate(own.ref) or own
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already; what the journal cannot take now it gets with its next write.
            self._witness.settle()
        return own
