"""What the publisher needs from the world, as promises. Ring 2. Where CRLs go is `ca.ports.Outlet`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ca.model import (
    Certificate,
    CertificateRef,
    CertificateState,
    ChangeNumber,
    CrlEntry,
    CrlIntent,
    CrlNumber,
    Digest,
    GraveAct,
    IssuerId,
    Lease,
    ListedChange,
    Proposal,
    Revocation,
    Serial,
    UnixTime,
)
from crl.model import Scope


class Reading(Protocol):
    """The database, read only. No call holds a cursor open between pages.

    Raises:
        StoreUnavailable: it cannot be read now.
    """

    def changes_since(self, change: ChangeNumber, limit: int) -> Sequence[Revocation]:
        """Changes above a number, in number order, at most `limit`."""
        ...

    def crl_entries(self, issuer: IssuerId, shard: int, *, as_of: ChangeNumber, expired_before: UnixTime) -> Iterator[CrlEntry]:
        """What a CRL of that moment lists, oldest change first; shard 0 has the entries of all shards.

        The listed certificates whose latest change at or below `as_of` is not a release, and whose notAfter is at or after
        `expired_before`. Changes above `as_of` are as if they had not happened, so the answer for a past `as_of` never changes.
        """
        ...

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]:
        """The rows that CRLs are made of, in number order; shard 0 has those of all shards."""
        ...

    def listed_entries(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, expired_before: UnixTime, limit: int
    ) -> tuple[ChangeNumber, bytes, Sequence[str]] | None:
        """Of those changes the ones that list somebody whose notAfter is at or after `expired_before`, in number order, at most `limit`: the last one's
        number, their serials of 20 octets one after the other, and of each `REVOKED_AT:REASON:INVALID_FROM`. None where there is none.

        Those that were changed again since are among them.
        """
        ...

    def replaced(self, first: ChangeNumber, last: ChangeNumber, *, as_of: ChangeNumber) -> Collection[ChangeNumber]:
        """Those of the changes from `first` to `last` that, as of a change, were not any more their certificate's latest."""
        ...

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        """A certificate's state and latest change; None when it was never issued. One indexed query."""
        ...

    def find_certificate(self, ref: CertificateRef) -> Certificate | None: ...

    def find_by_der_digest(self, digest: Digest) -> Certificate | None:
        """The certificate whose DER has this SHA-256."""
        ...

    def proposals_of(self, act: GraveAct, subject: str) -> Sequence[Proposal]:
        """What operators asked for and others approved of exactly this, as the database says."""
        ...

    def last_crl(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published complete CRL with the highest number."""
        ...

    def last_delta(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published delta with the highest number."""
        ...

    def find_crl(self, issuer: IssuerId, shard: int, number: CrlNumber) -> CrlIntent | None:
        """A CRL by its number, where it was published."""
        ...

    def shard_counts(self, issuer: IssuerId) -> Sequence[int]:
        """Every number of shards that an issuer's certificates were ever spread over."""
        ...


class Kept(Protocol):
    """What a CRL must list: `crl.rules.gate.Wanted`."""

    @property
    def latest(self) -> UnixTime: ...

    @property
    def count(self) -> int: ...

    def octets(self) -> Iterator[bytes]: ...

    def entries(self) -> Iterator[CrlEntry]: ...


class Tally(Protocol):
    """What the gate knows a CRL to list, kept from one CRL to the next.

    Raises:
        StoreUnavailable: the record or its own folder cannot be used now.
    """

    def opened(self) -> AbstractContextManager[Kept]:
        """What it knew when it was brought up to the record last."""
        ...

    def bring(self, *, as_of: ChangeNumber, expired_before: UnixTime) -> None:
        """Go on to where the record stood then."""
        ...

    def left_since(self, tbs_sha256: bytes) -> Sequence[Serial] | None:
        """Who left the list since a CRL; None where that is not the one that was let through last."""
        ...

    def passed(self, tbs_sha256: bytes) -> None:
        """A CRL was let through and is visible."""
        ...

    def audited(self) -> bool:
        """Whether this is what the whole record says. Costs reading all of it."""
        ...

    def forget(self) -> None: ...


class Tallies(Protocol):
    """One tally a CRL."""

    def of(self, scope: Scope, counts: Sequence[int]) -> Tally: ...


class LeaseBook(Protocol):
    """The part of a write transaction that a publisher needs."""

    def lease(self, name: str, *, holder: str, now: UnixTime, seconds: int) -> Lease | None:
        """Take, keep or refuse (None) a lease. A new holder gets the next fence."""
        ...


class Leases(Protocol):
    """Row leases in the database; `ca.ports.Ledger` is one. Durable when the block ends."""

    def writing(self) -> AbstractContextManager[LeaseBook]: ...


class CrlSigner(Protocol):
    """The signer process, seen from a publisher.

    Raises:
        Conflict: the lease of `fence` is lost (`lease-lost`); nothing was signed or recorded.
        Unavailable: the signer, its key or the database cannot be had; repeating is safe (a number may be skipped).
    """

    def sign_crl(
        self,
        issuer: IssuerId,
        *,
        shard: int,
        above: CrlNumber,
        fence: int,
        sink_fd: int,
        base: CrlNumber | None = None,
        afresh: bool = False,
    ) -> CrlIntent:
        """Record the intent, sign, and write the whole CRL to the descriptor. Its number is above `above` and all earlier ones.

        Args:
            base: a published complete CRL, to which the new one is a delta.
            afresh: use nothing that was encoded before: the gate did not like it.
        """
        ...

    def crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        """Record that readers get this CRL now. The same one again is harmless.

        Raises:
            NotFound: no such CRL was signed, as far as the record goes.
        """
        ...

    def crl_overridden(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        """Put on record that a CRL which the gate refused goes out by the word of two persons; the signer judges it itself. Safe to repeat.

        Raises:
            Denied: they did not approve exactly this one.
        """
        ...
