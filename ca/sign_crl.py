"""Signing CRLs: numbered, intended, then signed (P1, P6). Knows rules and ports only.

    short transaction   fence checked, number drawn, the change number that this CRL is as of
    reading             the entries as of that change, in pages: no write transaction waits for a long list
    short transaction   fence checked again, intent and leaf committed
    sign, write out     to the publisher's open file; its gate reads it again before anyone sees it

Entries stream: they are hashed once for the intent and the signature, and read again to be written, and never stand in memory together where the
key signs a digest. A crash leaves a number that no CRL has: numbers rise, they need not be dense (RFC 5280 5.2.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ca.der import writer
from ca.der.algorithms import ALGORITHMS, cached_public_key, verify, verify_digest
from ca.der.crl import Encoder, Frame, Shape, frame
from ca.errors import Broken, Denied, KeyUnavailable, NotFound, StoreUnavailable, Unacceptable, Unavailable
from ca.issue import no_failpoint
from ca.lineage import Issuers
from ca.model import (
    DEFAULT_TENANT,
    ChangeNumber,
    CrlIntent,
    CrlNumber,
    Digest,
    EvidenceKind,
    GraveAct,
    Issuer,
    IssuerId,
    ListedChange,
    Peer,
    Reason,
    Role,
    UnixTime,
)
from ca.ports import Clock, DigestSigning, Failpoint, Ledger, SigningKey
from ca.rules import device_life, leaf, override, testimony
from ca.rules.clock import trusted
from ca.rules.crl import WHOLE, check_growth, crl_window, delta_url, keeps_from, shard_url
from ca.rules.lint import crl as lint
from ca.two_persons import TwoPersons
from ca.witness import Witness

_PAGE = 10_000


class Body(Protocol):
    """The entries of one CRL."""

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> int:
        """Octets."""
        ...

    @property
    def chunks(self) -> Callable[[], Iterator[bytes]]:
        """All of them, in their order, cut anywhere; as often as it is called."""
        ...


class Bodies(Protocol):
    """Where encoded entries come from."""

    def body(
        self,
        issuer: IssuerId,
        shard: int,
        *,
        as_of: ChangeNumber,
        expired_before: UnixTime,
        judge: Callable[[bytes], None],
        afresh: bool = False,
    ) -> AbstractContextManager[Body]:
        """What a CRL of that moment lists, oldest change first; changes above `as_of` are as if they had not happened.

        Each entry passes `judge` when it is encoded, in whole elements; one that was encoded for an earlier CRL passed it then.
        """
        ...


class ListedReading(Protocol):
    """The changes that a delta is made of."""

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]: ...


def lease_of(issuer: IssuerId) -> str:
    """The lease whose fence a publisher shows."""
    return f"crl:{issuer}"


@dataclass(frozen=True, slots=True)
class _Listed:
    """A short body, all of it in memory: a delta's."""

    count: int
    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    @property
    def chunks(self) -> Callable[[], Iterator[bytes]]:
        return lambda: iter((self.octets,))


class CrlSigning:
    """Safe to call from one thread at a time, beside the worker.

    Args:
        lifetime: from thisUpdate to nextUpdate, in seconds.
        delta_lifetime: of a delta; None: as long.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        reading: ListedReading,
        bodies: Bodies,
        witness: Witness,
        keys: Mapping[IssuerId, SigningKey],
        issuers: Issuers,
        clock: Clock,
        lifetime: int,
        delta_lifetime: int | None = None,
        two_persons: TwoPersons | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._ledger, self._reading, self._bodies = ledger, reading, bodies
        self._witness, self._keys, self._issuers = witness, keys, issuers
        self._clock, self._lifetime, self._failpoint = clock, lifetime, failpoint
        self._delta_lifetime, self._two_persons = delta_lifetime or lifetime, two_persons

    def settle_shards(self) -> Sequence[tuple[IssuerId, int]]:
        """Put on record over how many shards each issuer's certificates are spread from now on, before any is issued. Returns what is new.

        Raises:
            Misconfigured: there would be fewer than before (`crl-shards-fewer`).
        """
        grown = []
        for issuer in self._issuers.by_id.values():
            if issuer.id not in self._keys:
                continue
            with self._ledger.writing() as tx:
                if check_growth(issuer, tx.shard_counts(issuer.id)):
                    now = self._clock.now()
                    tx.add_shard_count(issuer.id, issuer.crls.shards, now=now)
                    tx.append_leaf(leaf.crl_shards(issuer.id, count=issuer.crls.shards, at=now))
                    grown.append((issuer.id, issuer.crls.shards))
        return grown

    def sign(
        self,
        name: IssuerId,
        *,
        shard: int,
        above: CrlNumber,
        fence: int,
        sink: BinaryIO,
        peer: Peer,
        base: CrlNumber | None = None,
        afresh: bool = False,
    ) -> CrlIntent:
        """Sign a CRL numbered above `above` and all earlier ones, and write its DER to `sink`.

        Args:
            base: a published complete CRL; the new one is a delta to it.
            afresh: use nothing that was encoded before.

        Raises:
            Denied: only role publisher may.
            Conflict: `lease-lost`.
            NotFound: `no-such-shard`, `no-such-base`.
        """
        issuer, key = self._issuer(name, peer)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            tx.check_fence(lease_of(name), fence)
            if not 0 <= shard <= max(tx.shard_counts(name), default=0):
                raise NotFound("no-such-shard", "There is no such CRL shard.", why=f"{name} has shards 0 to {issuer.crls.shards}.")
            before = None if base is None else tx.find_crl(name, shard, base)
            if base is not None and (before is None or before.base is not None or not issuer.crls.deltas or shard != WHOLE):
                raise NotFound("no-such-base", f"{name} has no delta to a CRL {base}.", why="Only published complete CRLs have deltas.")
            number = tx.next_crl_number(name, shard, above=above)
            as_of = tx.change_number()
            last = tx.last_crl(name, shard)
            # The number must hold even if this CRL is never signed, and time must not go back behind it.
            tx.raise_high_time(now)
        lifetime = self._lifetime if base is None else self._delta_lifetime
        this_update, next_update = crl_window(issuer, now=now, lifetime=lifetime)
        kept = keeps_from(None if last is None else last.this_update, this_update=this_update, next_update=next_update)
        judge = lint.Entries(this_update=this_update, delta=base is not None).judge
        with self._body(name, shard, as_of, kept, before, judge=judge, afresh=afresh) as body:
            made = _framed(issuer, shard, body, number=number, window=(this_update, next_update), base=base)
            intent_digest, signed_digest, octets = _digested(issuer, key, made, body)
            intent = CrlIntent(
                issuer=name,
                shard=shard,
                number=number,
                as_of=as_of,
                count=body.count,
                this_update=this_update,
                next_update=next_update,
                tbs_sha256=intent_digest,
                fence=fence,
                base=base,
            )
            with self._ledger.writing() as tx:
                tx.check_fence(lease_of(name), fence)
                tx.reserve_crl(intent)
                tx.append_leaf(leaf.crl(intent, at=now))
            self._failpoint("crl.after-intent-commit")
            self._witness.testify([testimony.CrlIntended(intent)])
            signature = _signed(issuer, key, octets, signed_digest)
            self._failpoint("crl.after-sign")
            end = ALGORITHMS[issuer.algorithm].identifier + writer.bit_string(signature)
            length = len(made.head) + body.size + len(made.tail) + len(end)
            _write(sink, bytes((writer.SEQUENCE,)) + writer.length(length) + made.head)
            for chunk in body.chunks():
                _write(sink, chunk)
            _write(sink, made.tail + end)
        return intent

    def _body(
        self,
        name: IssuerId,
        shard: int,
        as_of: ChangeNumber,
        kept: UnixTime,
        base: CrlIntent | None,
        *,
        judge: Callable[[bytes], None],
        afresh: bool,
    ) -> AbstractContextManager[Body]:
        if base is None:
            return self._bodies.body(name, shard, as_of=as_of, expired_before=kept, judge=judge, afresh=afresh)
        delta = self._delta(name, shard, since=base.as_of, as_of=as_of, kept=kept)
        judge(delta.octets)
        return nullcontext(delta)

    def _delta(self, name: IssuerId, shard: int, *, since: ChangeNumber, as_of: ChangeNumber, kept: UnixTime) -> _Listed:
        """What changed since the base: of each certificate the latest change, a release as removeFromCRL (RFC 5280 5.2.4).

        Who was held and released since then is told as removed too: a client may add the delta to a later complete CRL than its base.
        """
        latest: dict[bytes, ListedChange] = {}
        while page := self._reading.listed_changes(name, shard, after=since, as_of=as_of, limit=_PAGE):
            for row in page:
                latest.pop(row[2], None)
                latest[row[2]] = row
            since = page[-1][0]
        rows = [row for row in latest.values() if row[5] >= kept or row[3] == Reason.removeFromCRL]
        return _Listed(len(rows), b"".join(octets for _, octets in Encoder(delta=True).encode(rows)))

    def published(self, name: IssuerId, *, shard: int, number: CrlNumber, fence: int, peer: Peer) -> None:
        """Record that readers get this CRL now. Safe to repeat."""
        self._issuer(name, peer)
        with self._ledger.writing() as tx:
            tx.check_fence(lease_of(name), fence)
            tx.record_crl_published(name, shard, number, now=trusted(self._clock.now(), high_time=tx.high_time()))

    def overridden(self, name: IssuerId, *, shard: int, number: CrlNumber, fence: int, peer: Peer) -> None:
        """Put on record that a CRL which the gate refused goes out by the word of two persons. Safe to repeat.

        Raises:
            Denied: they did not approve exactly this one.
            NotFound: no such CRL was signed.
        """
        self._issuer(name, peer)
        assert self._two_persons is not None, "wiring gives it to whoever may be asked for this"
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            tx.check_fence(lease_of(name), fence)
            intent = tx.find_crl_intent(name, shard, number)
            if intent is None:
                raise NotFound("crl-unknown", f"There is no CRL {number} of {name} on record.")
            done, said = self._two_persons.take(
                tx,
                GraveAct.crl_override,
                override.subject_of(intent),
                tenant=DEFAULT_TENANT,
                actor=f"role:{peer.role.value}@{peer.uid}",
                channel=device_life.channel(peer.role, EvidenceKind.local),
                now=now,
            )
            if said:
                names = [done.asked.operator, *(one.operator for one in done.answers if one.approve)]
                tx.append_leaf(leaf.crl_override(name, shard=shard, tbs_sha256=intent.tbs_sha256, operators=names, at=now))
        self._witness.later(said)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()

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


def _framed(
    issuer: Issuer, shard: int, body: Body, *, number: CrlNumber, window: tuple[UnixTime, UnixTime], base: CrlNumber | None
) -> Frame:
    """The frame around the entries, linted."""
    if issuer.crl_url is None and (shard != WHOLE or issuer.crls.deltas):
        raise Broken("crl-without-url", f"Issuer {issuer.id} has no CRL address, and shards and deltas need one.")
    shape = Shape(
        url=shard_url(issuer.crl_url or "", shard) if shard != WHOLE else None,
        contents=issuer.crls.contents,
        base=base,
        freshest=delta_url(issuer.crl_url or "") if issuer.crls.deltas and shard == WHOLE and base is None else None,
    )
    made = frame(issuer, number=number, this_update=window[0], next_update=window[1], size=body.size, shape=shape)
    meant = lint.Meant(number, *window, url=shape.url, contents=shape.contents, base=base, freshest=shape.freshest)
    lint.lint_frame(made.head, made.tail, issuer, size=body.size, meant=meant)
    return made


def _digested(issuer: Issuer, key: SigningKey, made: Frame, body: Body) -> tuple[Digest, bytes, bytes]:
    """The SHA-256 of the to-be-signed octets; what the key signs: their digest, or else the octets."""
    row = ALGORITHMS[issuer.algorithm]
    streams = row.digest is not None and isinstance(key, DigestSigning)
    recorded = hashlib.sha256(made.head)
    other = hashlib.new(row.digest, made.head) if streams and row.digest not in (None, "sha256") else None
    kept = [] if streams else [made.head]
    for chunk in _with_tail(body, made):
        recorded.update(chunk)
        if other is not None:
            other.update(chunk)
        if not streams:
            kept.append(chunk)
    digest = recorded.digest()
    return Digest(digest), (other.digest() if other is not None else digest) if streams else b"", b"".join(kept)


def _with_tail(body: Body, made: Frame) -> Iterator[bytes]:
    yield from body.chunks()
    yield made.tail


def _signed(issuer: Issuer, key: SigningKey, octets: bytes, digest: bytes) -> bytes:
    """The signature, verified with the issuer's certified key."""
    public = cached_public_key(issuer.spki)
    try:
        if octets:
            signature = key.sign(octets)
            verify(public, signature, octets)
        else:
            assert isinstance(key, DigestSigning)
            signature = key.sign_digest(digest)
            verify_digest(public, signature, digest)
    except Unacceptable as error:
        raise Broken("reread", "The signature of a CRL does not verify; it is not released.", why=error.what) from None
    return signature


def _write(sink: BinaryIO, octets: bytes) -> None:
    view = memoryview(octets)
    try:
        while view:
            # An unbuffered file may take less than it is given.
            view = view[sink.write(view) or 0 :]
    except OSError as error:
        raise StoreUnavailable("sink-failed", "The CRL cannot be written where the publisher wants it.", why=str(error)) from None
