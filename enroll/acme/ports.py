"""What ACME needs from the world, as promises. Ring 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ca.model import CertificateRef, UnixTime
from enroll.acme.model import Account, Authorization, Challenge, Identifier, Order


class Protocols(Protocol):
    """The tables of the protocols. Every call is one transaction: durable when it returns, without effect when it raises.

    A change names the version that it was made from; False means that another came first and nothing was changed.

    Raises:
        StoreUnavailable: it cannot be read or written now.
    """

    def secret(self, name: str, made: bytes, /, *, now: UnixTime, ends: UnixTime) -> bytes:
        """The secret of that name, the same for every worker; `made` becomes it where there is none. After `ends` it is dropped."""
        ...

    def use_nonce(self, value: bytes, *, expires: UnixTime, now: UnixTime) -> bool:
        """Note that a nonce was used; False when it was used before, by whichever worker."""
        ...

    def find_account(self, id: str, /) -> Account | None: ...  # noqa: A002 - the model's own name

    def find_account_by_key(self, directory: str, thumbprint: str, /) -> Account | None: ...

    def add_account(self, account: Account, *, address: str) -> Account:
        """The account of this key in this directory: the one given, or the one that was there before.

        Raises:
            Conflict: another account is bound to the token (`token-used`).
        """
        ...

    def change_account(self, account: Account, *, was: Account) -> bool:
        """Contact, status or key. False also when the new key has an account."""
        ...

    def accounts_since(self, address: str, since: UnixTime) -> Sequence[UnixTime]:
        """When accounts were made from this address, earliest first."""
        ...

    def add_order(self, order: Order, authorizations: Sequence[Authorization]) -> None:
        """An order with those of its authorizations that are new.

        Raises:
            Conflict: the certificate that it replaces was replaced (`already-replaced`).
        """
        ...

    def find_order(self, id: str, /) -> Order | None: ...  # noqa: A002

    def change_order(self, order: Order) -> bool: ...

    def orders_of(self, account: str, *, after: str | None, limit: int) -> Sequence[str]:
        """Ids of an account's orders that are not invalid, in the order of their ids, from behind `after`."""
        ...

    def orders_since(self, account: str, since: UnixTime) -> Sequence[UnixTime]: ...

    def find_authorization(self, id: str, /) -> Authorization | None: ...  # noqa: A002

    def change_authorization(self, authorization: Authorization) -> bool: ...

    def valid_authorizations(self, account: str, identifiers: Sequence[Identifier], *, now: UnixTime) -> Sequence[Authorization]:
        """Those of an account that hold now, for any of these identifiers."""
        ...

    def add_failure(self, account: str, *, now: UnixTime) -> None:
        """A validation of this account failed."""
        ...

    def failures_since(self, account: str, since: UnixTime) -> Sequence[UnixTime]: ...

    def replaced(self, ref: CertificateRef, /) -> bool:
        """Whether an order that is not invalid replaces this certificate."""
        ...

    def forget(self, *, now: UnixTime) -> None:
        """Drop what has been over for long: used nonces, failures, orders and authorizations without a certificate."""
        ...


class Prober(Protocol):
    """Asks the holder of an identifier. Reaches only what the settings allow."""

    def probe(self, challenge: Challenge, identifier: Identifier, *, networks: Sequence[str], expected: str) -> None:
        """Return when the challenge is fulfilled.

        Args:
            networks: the only ones that may be connected to.
            expected: the key authorization (RFC 8555 8.1).

        Raises:
            Problem: what the client should read.
        """
        ...


Later = Callable[[Callable[[], None]], None]
"""Runs something soon, in another thread; what it raises is its own affair."""
