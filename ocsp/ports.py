"""What the OCSP responder needs from the world, as promises. Ring 2. They speak `ca.model`, so the store and the signer's client fit them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ca.model import AlgorithmName, CertificateState, ChangeNumber, IssuerId, Revocation, RollEntry, Serial, UnixTime
from ocsp.model import Packed, Window


class Clock(Protocol):
    """The wall clock. It may go backwards; answers from the future are then made anew."""

    def now(self) -> UnixTime: ...


class Stopwatch(Clock, Protocol):
    """The same, and one that only goes forwards."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...


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


class Spool(Protocol):
    """Answers that were signed before, for those who answer. Safe to call from several threads; what is absent or damaged is None."""

    def look(self) -> None:
        """Take in what others changed since; called every second."""
        ...

    def get(self, issuer: IssuerId, serial: Serial, form: int) -> Packed | None:
        """The answer about a certificate by a form of CertID (its place in `ocsp.rules.issuers.prefixes`)."""
        ...

    def certificate(self, issuer: IssuerId, key_hash: bytes) -> bytes | None:
        """DER certificate that the issuer gave the responder with that key, among those that signed something in here."""
        ...

    def filled(self) -> int:
        """How many answers there are."""
        ...

    def walked(self) -> UnixTime | None:
        """When all certificates were last gone through."""
        ...

    def proven(self) -> str | None:
        """The mark of the check key that every serial number on record was made with; None where nobody has found that (yet)."""
        ...


class SpoolWriting(Spool, Protocol):
    """The same for the one who signs.

    Raises:
        StoreUnavailable: it cannot be written; what was there is still there.
    """

    def put(self, ones: Iterable[tuple[IssuerId, Packed]]) -> None:
        """Keep answers in place of older ones."""
        ...

    def expect(self, growth: float) -> None:
        """Make room, when more is needed, for that many times as much as there is."""
        ...

    def add_certificate(self, issuer: IssuerId, key_hash: bytes, certificate: bytes) -> None:
        """Keep a responder certificate; before the first answer that is signed by its key."""
        ...

    def change(self) -> ChangeNumber | None:
        """What `set_change` was last told; None the first time."""
        ...

    def set_change(self, change: ChangeNumber) -> None:
        """Keep how far changes were followed."""
        ...

    def set_proven(self, mark: str | None) -> None:
        """Say what `proven` says from now on."""
        ...

    def keep(self, walked_at: UnixTime) -> None:
        """Return when everything is on the disk: all certificates were gone through at that time."""
        ...


class Answers(Protocol):
    """Answers as files under the paths of GET requests.

    Raises:
        StoreUnavailable: they cannot be written.
    """

    def put(self, certificate_id: bytes, body: bytes, window: Window) -> bool:
        """Keep an answer in place of an older one; readers see either. False where its path cannot be a file."""
        ...

    def flush(self) -> None:
        """Return when what was put is there for readers. After an error nobody knows which of it is: put it again."""
        ...


class Roll(Protocol):
    """What is on record, one certificate after the other.

    Raises:
        StoreUnavailable: the database cannot be asked now.
    """

    def change_number(self) -> ChangeNumber: ...

    def changes_since(self, change: ChangeNumber, limit: int) -> Sequence[Revocation]: ...

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None: ...

    def statuses_after(self, row: int, limit: int) -> Sequence[RollEntry]:
        """The next certificates that carry a way to ask for their status, by row: some of at most `limit` rows; empty when no row is left."""
        ...

    def last_row(self) -> int:
        """The row of the certificate that came last; 0 where there is none."""
        ...


class Certifier(Protocol):
    """Gets a delegated responder certificate from the signer, under the responder profile.

    Raises:
        Unavailable: later perhaps; asking again is safe.
        Refused: it will not, the same way again.
    """

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        """The DER certificate for the key of a DER PKCS#10 request, signed by `issuer` itself (RFC 6960 4.2.2.2)."""
        ...
