"""Retiring issuers: one whose successor issues, and all of whose certificates have ended, signs nothing from then on. Knows rules and ports only.

Runs in the signer: when it starts, which also writes down issuers that an import brought, and once an hour. A crash leaves what the next run does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ca.model import Digest, Issuer, IssuerId
from ca.ports import Clock, Ledger, Writing
from ca.rules import leaf
from ca.rules.clock import trusted


class Retiring:
    """The verb.

    Args:
        issuers: those of the settings, as they are at work.
        crl_lifetime: of its CRLs, in seconds. An entry stays until one CRL after the certificate's end (P6), and readers get that one.
    """

    def __init__(self, *, ledger: Ledger, issuers: Sequence[Issuer], clock: Clock, crl_lifetime: int) -> None:
        self._ledger, self._issuers, self._clock, self._crl_lifetime = ledger, tuple(issuers), clock, crl_lifetime

    def enter(self) -> Sequence[IssuerId]:
        """Write down the issuers of the settings, as they are now; which are new. Signs nothing, so it needs no trusted clock."""
        with self._ledger.writing() as tx:
            known = {issuer.id: issuer for issuer in tx.issuers()}
            new = [issuer for issuer in self._issuers if issuer.id not in known]
            for issuer in self._issuers:
                tx.add_issuer(issuer)
            for issuer in new:
                tx.append_leaf(leaf.issuer(issuer, at=self._clock.now()))
        return [issuer.id for issuer in new]

    def retire(self) -> Sequence[IssuerId]:
        """Retire those whose time is over; which they are.

        Raises:
            ClockUntrusted: the clock was set back.
        """
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            succeeded = [one for one in tx.issuers() if one.issues_until is not None and one.issues_until <= now and one.retired_at is None]
            return [issuer.id for issuer in succeeded if self._is_over(tx, issuer, now=now)]

    def _is_over(self, tx: Writing, issuer: Issuer, *, now: int) -> bool:
        if issuer.key is None:
            return False  # an offline root: its ceremonies decide
        assert issuer.issues_until is not None, "asked for by the caller"
        ends = issuer.last_ends
        if ends is None:
            ends = max(tx.last_end(issuer.id) or 0, issuer.issues_until)
        over = now > min(ends + self._crl_lifetime, issuer.not_after)
        if over:
            digest = Digest(hashlib.sha256(issuer.spki).digest())
            tx.append_leaf(leaf.key_event(issuer.id, event="retired", algorithm=issuer.algorithm, spki_sha256=digest, at=now))
        if over or issuer.last_ends is None:
            tx.age_issuer(issuer.id, last_ends=ends, retired_at=now if over else None)
        return over
