"""What the OCSP responder needs from the world, as promises. Ring 2. They speak `ca.model`, so the store and the signer's client fit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ca.model import AlgorithmName, CertificateState, ChangeNumber, IssuerId, Revocation, Serial, UnixTime


class Clock(Protocol):
    """The wall clock. It may go backwards; answers from the future are then made anew."""

    def now(self) -> UnixTime: ...


class Reading(Protocol):
    """What is on record. Safe to call from several threads and to repeat.

    Raises:
        StoreUnavailable: the database cannot be asked now. Absence is never said by an error.
    """

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        """The state of a certificate and the latest change of its status; None when it is not on record. One indexed query.

        Sees every change whose number `change_number` returned before the call.
        """
        ...

    def change_number(self) -> ChangeNumber:
        """The last change number committed; 0 when there was none."""
        ...

    def changes_since(self, change: ChangeNumber, limit: int) -> Sequence[Revocation]:
        """The changes with a number above `change`, in number order, at most `limit`."""
        ...


class ResponderKey(Protocol):
    """A private key that can only sign, held in memory. Safe to call from several threads.

    Raises:
        KeyUnavailable: it cannot sign now.
    """

    @property
    def algorithm(self) -> AlgorithmName: ...

    @property
    def spki(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes:
        """The octets of the BIT STRING, as `ca.ports.SigningKey.sign`."""
        ...


class KeyMaker(Protocol):
    """Makes a new key, in memory only: one for every responder certificate."""

    def __call__(self) -> ResponderKey: ...


class Certifier(Protocol):
    """Gets a delegated responder certificate from the signer, under the responder profile.

    Raises:
        Unavailable: later perhaps; asking again is safe.
        Refused: it will not, the same way again.
    """

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        """The DER certificate for the key of a DER PKCS#10 request, signed by `issuer` itself (RFC 6960 4.2.2.2)."""
        ...
