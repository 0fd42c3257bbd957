"""The gate that every CRL passes before anybody sees it (P6, R07-R11). Ring 1: pure over octets.

It reads what lies in the outlet with a reader of its own, and shares no code with what drafted and signed it. Its rules:

    who       the issuer's own Name octets, its key's signature and identifier; the issuer may sign CRLs
    what      v2, nextUpdate, CRLNumber and authorityKeyIdentifier and no other extension; the very octets that the signer put on record
    when      from about now, no longer than the deployment allows and no longer than the issuer itself
    number    above every number known from anywhere
    entries   exactly those on record as of the CRL's change number, with their dates and reasons; none twice
    memory    whoever stood in the CRL before stands here too, but for those released, and those expired and listed once after that
              (RFC 5280 3.3)

The three lists (read, recorded, before) come in rising order and are walked side by side: memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ca.errors import Broken, Malformed
from ca.model import CrlEntry, CrlIntent, CrlNumber, Issuer, Reason, Revocation, Serial, UnixTime
from crl.model import Head
from crl.rules import anatomy
from crl.rules.anatomy import AUTHORITY_KEY_IDENTIFIER, CRL_NUMBER, Anatomy, Listed

SKEW: Final = 300
"""Seconds by which the clocks of signer and publisher may differ."""
OLDEST: Final = 900
"""Seconds after which a CRL that was signed and not published is too old to begin with."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the CRL must be."""

    intent: CrlIntent
    """What the signer says it recorded and signed."""
    above: CrlNumber
    """The highest number known from database, high-water file and published copy."""
    now: UnixTime
    lifetime: int
    """Seconds its window may last."""
    entries: Iterator[CrlEntry]
    """What the record lists as of the intent's change number, by rising serial."""


@dataclass(frozen=True, slots=True)
class Before:
    """The CRL that readers have now."""

    octets: bytes
    listed_until: UnixTime
    """thisUpdate of the latest CRL known to have been published: whoever had expired by then has had its one CRL after expiry."""
    departed: Callable[[Serial], Revocation | None]
    """The latest change of a certificate's status on record."""


def believe(octets: bytes, issuer: Issuer) -> Head:
    """Check who made a CRL and that it is whole. Entries are covered by the signature and not walked.

    Raises:
        Broken: what is wrong, by code.
    """
    return _believed(octets, issuer).head()


def inspect(octets: bytes, issuer: Issuer, *, now: UnixTime) -> Head:
    """Check a CRL that was not made under our eyes: one that comes from a ceremony.

    Raises:
        Broken: what is wrong, by code.
    """
    read = _believed(octets, issuer)
    head = read.head()
    _check_window(head, issuer, now=now)
    for serial, revoked_at, _ in _readable(read):
        _check_date(serial, revoked_at, head)
    return head


def check(octets: bytes, issuer: Issuer, *, expected: Expected, before: Before | None) -> Head:
    """Check a fresh CRL of our signer before it becomes visible.

    Raises:
        Broken: what is wrong, by code; the text names the serial or field.
    """
    read = _believed(octets, issuer)
    head = read.head()
    _check_window(head, issuer, now=expected.now)
    if head.this_update < expected.now - OLDEST:
        raise Broken("crl-window", "The CRL's thisUpdate is long past.", why="It was signed and then lay about.")
    if head.next_update - head.this_update + 1 > expected.lifetime:  # nextUpdate is inclusive (R04)
        raise Broken("crl-window", f"The CRL's window is longer than {expected.lifetime} s.", why="The setting crl.lifetime bounds it.")
    if head.number <= expected.above:
        raise Broken("crl-number", f"The CRL's number {head.number} is not above {expected.above}, which was used before.")
    _check_intent(head, issuer, expected.intent)
    old = _old_entries(before, issuer, head)
    count = _compare(read, head, expected=expected.entries, old=old, before=before, as_of=expected.intent.as_of)
    if count != expected.intent.count:
        raise Broken("crl-count", f"The CRL has {count} entries and its record says {expected.intent.count}.")
    return head


def _believed(octets: bytes, issuer: Issuer) -> Anatomy:
    try:
        read = anatomy.read(octets)
        if read.issuer != issuer.subject:
            raise Broken("crl-issuer", f"The CRL names another issuer than {issuer.id}.", why="Octet by octet (RFC 5280 5.1.2.3).")
        anatomy.verify(read, issuer)
        if not issuer.may_sign_crl:
            raise Broken("crl-issuer", f"{issuer.id} may not sign CRLs.", why="Its certificate lacks cRLSign (RFC 5280 6.3.3 f).")
        _check_extensions(read, issuer)
    except Malformed as error:
        raise Broken("crl-form", error.what, why=error.why) from None
    return read


def _check_extensions(read: Anatomy, issuer: Issuer) -> None:
    if read.authority_key_identifier() != issuer.key_identifier:
        raise Broken("crl-key-identifier", f"The CRL's authorityKeyIdentifier is not that of {issuer.id}.")
    read.number()
    for dotted, (critical, _) in read.extensions.items():
        if dotted not in (AUTHORITY_KEY_IDENTIFIER, CRL_NUMBER):
            raise Broken("crl-extension", f"The CRL has the extension {dotted}, which a whole CRL of ours never has.")
        if critical:
            raise Broken("crl-extension", f"The CRL's extension {dotted} is critical.", why="RFC 5280 5.2.1 and 5.2.3 want it otherwise.")


def _check_window(head: Head, issuer: Issuer, *, now: UnixTime) -> None:
    if head.next_update <= head.this_update:
        raise Broken("crl-window", "The CRL's nextUpdate is not after its thisUpdate.")
    if head.this_update > now + SKEW:
        raise Broken("crl-window", "The CRL's thisUpdate lies in the future.", fix="Compare the clocks of signer and publisher.")
    if head.next_update <= now:
        raise Broken("crl-window", "The CRL's nextUpdate is past.")
    if head.next_update > issuer.not_after:
        raise Broken("crl-window", f"The CRL's nextUpdate lies after the end of {issuer.id}.")


def _check_intent(head: Head, issuer: Issuer, intent: CrlIntent) -> None:
    stated = (issuer.id, head.number, head.this_update, head.next_update)
    recorded = (intent.issuer, intent.number, intent.this_update, intent.next_update)
    for field, ours, theirs in zip(("issuer", "number", "thisUpdate", "nextUpdate"), stated, recorded, strict=True):
        if ours != theirs:
            raise Broken("crl-not-intended", f"The CRL's {field} is {ours} and its record says {theirs}.")
    if head.tbs_sha256 != intent.tbs_sha256:
        raise Broken("crl-not-intended", "The CRL's signed octets are not those on record.")


def _check_date(serial: Serial, revoked_at: UnixTime, head: Head) -> None:
    if revoked_at > head.this_update + SKEW:
        raise Broken("crl-entry", f"The CRL's entry for serial {serial:040x} was revoked after thisUpdate.")


def _old_entries(before: Before | None, issuer: Issuer, head: Head) -> Iterator[Listed]:
    if before is None:
        return iter(())
    old = _believed(before.octets, issuer)
    if head.this_update < old.this_update:
        raise Broken("crl-window", "The CRL's thisUpdate is before that of the published one.", why="A clock went backwards.")
    if head.number <= old.number():
        raise Broken("crl-number", f"The CRL's number {head.number} is not above that of the published one.")
    return _readable(old)


def _compare(read: Anatomy, head: Head, *, expected: Iterator[CrlEntry], old: Iterator[Listed], before: Before | None, as_of: int) -> int:
    """Walk the three lists side by side; returns how many entries there are."""
    count = 0
    was = next(old, None)
    for serial, revoked_at, reason in _readable(read):
        count += 1
        _check_date(serial, revoked_at, head)
        wanted = next(expected, None)
        if wanted is None or wanted.serial > serial:
            raise Broken("crl-unexpected", f"Serial {serial:040x} stands in the CRL and is not revoked on record.")
        if wanted.serial < serial:
            raise _missing(wanted)
        if wanted.revoked_at != revoked_at or wanted.reason is not reason:
            raise Broken(
                "crl-entry",
                f"The CRL's entry for serial {serial:040x} differs from the record.",
                why=f"It says {reason.name} at {revoked_at}, the record {wanted.reason.name} at {wanted.revoked_at}.",
            )
        while was is not None and was[0] < serial:
            _check_departed(was[0], before, as_of)
            was = next(old, None)
        if was is not None and was[0] == serial:
            was = next(old, None)
    missed = next(expected, None)
    if missed is not None:
        raise _missing(missed)
    while was is not None:
        _check_departed(was[0], before, as_of)
        was = next(old, None)
    return count


def _readable(read: Anatomy) -> Iterator[Listed]:
    try:
        yield from anatomy.entries(read)
    except Malformed as error:
        raise Broken("crl-form", error.what, why=error.why) from None


def _missing(entry: CrlEntry) -> Broken:
    return Broken("crl-missing", f"Serial {entry.serial:040x} is revoked on record and missing from the CRL.")


def _check_departed(serial: Serial, before: Before | None, as_of: int) -> None:
    """Whoever left the list must have been allowed to.

    The record is asked for the latest change, which may be younger than the CRL: then this refuses, and the next try sees both.
    """
    latest = before.departed(serial) if before else None
    if latest is None:
        raise Broken(
            "crl-forgotten",
            f"Serial {serial:040x} stands in the published CRL and the record knows no revocation of it.",
            why="The database is older than what was published: it was restored and not yet recovered.",
            fix="fleetca recover",
        )
    released = latest.reason is Reason.removeFromCRL and latest.change <= as_of
    listed_after_expiry = before is not None and latest.not_after < before.listed_until
    if not released and not listed_after_expiry:
        raise Broken(
            "crl-forgotten",
            f"Serial {serial:040x} stands in the published CRL and is missing from this one.",
            why="It was not released, and no CRL was published after it expired (RFC 5280 3.3).",
        )
