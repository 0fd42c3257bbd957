"""What the publisher needs from the world, as promises. Ring 2. Where CRLs go is `ca.ports.Outlet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ca.model import (
    CertificateState,
    ChangeNumber,
    CrlEntry,
    CrlIntent,
    CrlNumber,
    IssuerId,
    Lease,
    Revocation,
    Serial,
    UnixTime,
)


class Reading(Protocol):
    """The database, read only. No call holds a cursor open between pages.

    Raises:
        StoreUnavailable: it cannot be read now.
    """

    def changes_since(self, change: ChangeNumber, limit: int) -> Sequence[Revocation]:
        """Changes above a number, in number order, at most `limit`."""
        ...

    def crl_entries(self, issuer: IssuerId, shard: int, *, as_of: ChangeNumber, expired_before: UnixTime) -> Iterator[CrlEntry]:
        """What a CRL of that moment lists, by rising serial.

        The listed certificates whose latest change at or below `as_of` is not a release, and whose notAfter is at or after
        `expired_before`. Changes above `as_of` are as if they had not happened, so the answer for a past `as_of` never changes.
        """
        ...

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        """A certificate's state and latest change; None when it was never issued. One indexed query."""
        ...

    def last_crl(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published CRL with the highest number."""
        ...


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

    def sign_crl(self, issuer: IssuerId, *, shard: int, above: CrlNumber, fence: int, sink_fd: int) -> CrlIntent:
        """Record the intent, sign, and write the whole CRL to the descriptor. Its number is above `above` and all earlier ones."""
        ...

    def crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, fence: int) -> None:
        """Record that readers get this CRL now. The same one again is harmless.

        Raises:
            NotFound: no such CRL was signed, as far as the record goes.
        """
        ...
