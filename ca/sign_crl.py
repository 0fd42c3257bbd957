"""Signing CRLs: numbered, intended, then signed (P1, P6). Knows rules and ports only.

    short transaction   fence checked, number drawn, the change number that this CRL is as of
    reading             the entries as of that change, in pages: no write transaction waits for a long list
    short transaction   fence checked again, intent and leaf committed
    sign, write out     to the publisher's open file; its gate reads it again before anyone sees it

A crash leaves a number that no CRL has: numbers rise, they need not be dense (RFC 5280 5.2.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Protocol

from ca.der.algorithms import cached_public_key, verify
from ca.der.certificate import assemble
from ca.der.crl import tbs_crl
from ca.errors import Broken, Denied, FleetcaError, KeyUnavailable, NotFound, StoreUnavailable
from ca.issue import no_failpoint
from ca.lineage import Issuers
from ca.model import ChangeNumber, CrlEntry, CrlIntent, CrlNumber, Digest, Issuer, IssuerId, Peer, Role, UnixTime
from ca.ports import Clock, Failpoint, Ledger, SigningKey
from ca.rules import leaf, testimony
from ca.rules.clock import trusted
from ca.rules.crl import crl_window, keeps_from
from ca.rules.lint.crl import lint_crl
from ca.witness import Witness


class RevokedReading(Protocol):
    """The entries of a CRL, read without holding a transaction open."""

    def crl_entries(self, issuer: IssuerId, shard: int, *, as_of: ChangeNumber, expired_before: UnixTime) -> Iterator[CrlEntry]:
        """What a CRL of that moment lists, by rising serial; changes above `as_of` are as if they had not happened."""
        ...


def lease_of(issuer: IssuerId) -> str:
    """The lease whose fence a publisher shows."""
    return f"crl:{issuer}"


class CrlSigning:
    """Safe to call from one thread at a time, beside the worker.

    Args:
        lifetime: from thisUpdate to nextUpdate, in seconds.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        reading: RevokedReading,
        witness: Witness,
        keys: Mapping[IssuerId, SigningKey],
        issuers: Issuers,
        clock: Clock,
        lifetime: int,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._ledger, self._reading, self._witness, self._keys, self._issuers = ledger, reading, witness, keys, issuers
        self._clock, self._lifetime, self._failpoint = clock, lifetime, failpoint

    def sign(self, name: IssuerId, *, shard: int, above: CrlNumber, fence: int, sink: BinaryIO, peer: Peer) -> CrlIntent:
        """Sign a CRL numbered above `above` and all earlier ones, and write its DER to `sink`.

        Raises:
            Denied: only role publisher may.
            Conflict: `lease-lost`.
        """
        issuer, key = self._issuer(name, peer)
        if shard != 0:
            raise NotFound("no-such-shard", "There is no such CRL shard.", why="An issuer has one full CRL, shard 0.")
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            tx.check_fence(lease_of(name), fence)
            number = tx.next_crl_number(name, shard, above=above)
            as_of = tx.change_number()
            last = tx.last_crl(name, shard)
            # The number must hold even if this CRL is never signed, and time must not go back behind it.
            tx.raise_high_time(now)
        this_update, next_update = crl_window(issuer, now=now, lifetime=self._lifetime)
        kept = keeps_from(None if last is None else last.this_update)
        entries = list(self._reading.crl_entries(name, shard, as_of=as_of, expired_before=kept))
        tbs = tbs_crl(issuer, number=number, this_update=this_update, next_update=next_update, entries=entries)
        lint_crl(tbs, issuer, number=number, this_update=this_update, next_update=next_update, count=len(entries))
        intent = CrlIntent(
            issuer=name,
            shard=shard,
            number=number,
            as_of=as_of,
            count=len(entries),
            this_update=this_update,
            next_update=next_update,
            tbs_sha256=Digest(hashlib.sha256(tbs).digest()),
            fence=fence,
        )
        with self._ledger.writing() as tx:
            tx.check_fence(lease_of(name), fence)
            tx.reserve_crl(intent)
            tx.append_leaf(leaf.crl(intent, at=now))
        self._failpoint("crl.after-intent-commit")
        self._witness.testify([testimony.CrlIntended(intent)])
        signature = key.sign(tbs)
        self._failpoint("crl.after-sign")
        try:
            verify(cached_public_key(issuer.spki), signature, tbs)
        except FleetcaError as error:
            raise Broken("reread", "The signature of a CRL does not verify; it is not released.", why=error.what) from None
        try:
            octets = memoryview(assemble(tbs, issuer.algorithm, signature))
            while octets:
                # An unbuffered file may take less than it is given.
                octets = octets[sink.write(octets) or 0 :]
        except OSError as error:
            raise StoreUnavailable("sink-failed", "The CRL cannot be written where the publisher wants it.", why=str(error)) from None
        return intent

    def published(self, name: IssuerId, *, shard: int, number: CrlNumber, fence: int, peer: Peer) -> None:
        """Record that readers get this CRL now. Safe to repeat."""
        self._issuer(name, peer)
        with self._ledger.writing() as tx:
            tx.check_fence(lease_of(name), fence)
            tx.record_crl_published(name, shard, number, now=trusted(self._clock.now(), high_time=tx.high_time()))

    def _issuer(self, name: IssuerId, peer: Peer) -> tuple[Issuer, SigningKey]:
        if peer.role is not Role.publisher:
            raise Denied("not-allowed", f"Role {peer.role.value} has no CRL signed.")
        issuer = self._issuers.by_id.get(name)
        if issuer is None:
            raise NotFound("issuer-unknown", f"There is no issuer {name!r}.")
        key = self._keys.get(name)
        if key is None:
            raise KeyUnavailable(
                "no-issuing-key", f"The key of issuer {name!r} is not here.", why="The CRL of an offline root comes from a ceremony."
            )
        return issuer, key
