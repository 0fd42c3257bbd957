"""The gate that every CRL passes before anybody sees it (P6, R07-R11). Ring 1: pure over octets.

It reads what lies in the outlet with a reader of its own, and shares no code with what drafted and signed it. Its rules:

    who       the issuer's own Name octets, its key's signature and identifier; the issuer may sign CRLs
    what      v2, nextUpdate, CRLNumber and authorityKeyIdentifier, and of the other extensions those of its kind; the very octets that the
              signer put on record
    where     the issuing distribution point is the one that the certificates of its shard carry
    when      from about now, no longer than the deployment allows and no longer than the issuer itself
    number    above every number known from anywhere
    entries   exactly those on record as of the CRL's change number, octet by octet; none twice, none of another shard
    memory    whoever stood in the CRL before stands here too, but for those released, and those expired and listed once after that
              (RFC 5280 3.3)

Nothing here grows with the list: what is read and what is on record are compared a piece at a time, and only a fault is looked at entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Final, Protocol

from ca.der import reader
from ca.errors import Broken, Malformed
from ca.model import CrlContents, CrlEntry, CrlIntent, CrlNumber, Issuer, Reason, Revocation, Serial, UnixTime
from crl.model import Head, Scope
from crl.rules import anatomy
from crl.rules.anatomy import (
    AUTHORITY_KEY_IDENTIFIER,
    CRL_NUMBER,
    DELTA_INDICATOR,
    DISTRIBUTION_POINTS,
    FRESHEST,
    ISSUING_POINT,
    Anatomy,
    Listed,
    Point,
    Source,
)

SKEW: Final = 300
"""Seconds by which the clocks of signer and publisher may differ."""
OLDEST: Final = 900
"""Seconds after which a CRL that was signed and not published is too old to begin with."""
_NEAR: Final = 2000
"""How many entries around a fault are looked at to name it."""
_AT_ONCE: Final = 200_000
"""Serial numbers that are held at once where two lists are compared that do not follow one another."""


class Wanted(Protocol):
    """What a CRL must list."""

    @property
    def latest(self) -> UnixTime:
        """The latest date among the entries, once all octets were given."""
        ...

    @property
    def count(self) -> int:
        """How many there are, then."""
        ...

    def octets(self) -> Iterator[bytes]: ...

    def entries(self) -> Iterator[CrlEntry]: ...


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
    wanted: Wanted
    """What the record lists as of the intent's change number."""
    bases: Callable[[CrlNumber], CrlIntent | None] = lambda _: None
    """Complete CRLs that were published, for deltas."""
    certificates: Sequence[bytes] = ()
    """Some of the certificates that it lists: their distribution point must be the CRL's."""
    answered_for: bool = False
    """Two operators answer for what it lists and for its age: that alone is not looked at. Whose it is, what it is for, its number and that it holds are."""


@dataclass(frozen=True, slots=True)
class Before:
    """The CRL that readers have now."""

    source: Source
    listed_until: UnixTime
    """thisUpdate of the latest CRL known to have been published: of whoever had expired by then, the record says whether it must still stand."""
    departed: Callable[[Serial], Revocation | None]
    """The latest change of a certificate's status on record."""
    head: Head | None = None
    left: Sequence[Serial] | None = None
    """Where it is the very CRL that was let through here last: what it says of itself, and those that the record lists no longer. None: it must be
    read and compared."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A CRL that was let through."""

    head: Head
    size: int
    signature: bytes


def believe(source: Source, scope: Scope) -> Passed:
    """Check who made a CRL, what it is for, and that it is whole. Entries are covered by the signature and not walked.

    Raises:
        Broken: what is wrong, by code.
    """
    return _believed(source, scope)[1]


def signed(source: Source, scope: Scope) -> bool:
    """Whether a CRL is the issuer's, whatever it says it is for. What it lists must not be forgotten, even where its kind is no longer asked for."""
    try:
        _whose(source, scope.issuer)
    except (Broken, Malformed):
        return False
    return True


def same(source: Source, passed: Passed) -> bool:
    """Whether this is the CRL that was let through: as long, and with the same signature at its end, which covers the rest."""
    try:
        read = anatomy.read(source)
    except Malformed:
        return False
    return source.size == passed.size and read.signature == passed.signature and read.number() == passed.head.number


def inspect(source: Source, scope: Scope, *, now: UnixTime, ahead: int = 0) -> Passed:
    """Check a CRL that was not made under our eyes: one that comes from a ceremony.

    Args:
        ahead: seconds by which its thisUpdate may lie in the future.

    Raises:
        Broken: what is wrong, by code.
    """
    read, passed = _believed(source, scope)
    _check_window(passed.head, scope.issuer, now=now, ahead=ahead)
    seen: set[int] = set()
    for serial, revoked_at, _, _ in _readable(read):
        _check_date(serial, revoked_at, passed.head)
        if serial in seen:
            raise _twice(serial)
        seen.add(serial)
    return passed


def check(source: Source, scope: Scope, *, expected: Expected, before: Before | None) -> Passed:
    """Check a fresh CRL of our signer before it becomes visible.

    Raises:
        Broken: what is wrong, by code; the text names the serial or field.
    """
    issuer, beside = scope.issuer, _Beside(expected.wanted)
    read, passed = _believed(source, scope, None if expected.answered_for else beside)
    head = passed.head
    _check_window(head, issuer, now=expected.now)
    if head.this_update < expected.now - OLDEST and not expected.answered_for:
        raise Broken("crl-window", "The CRL's thisUpdate is long past.", why="It was signed and then lay about.")
    if head.next_update - head.this_update + 1 > expected.lifetime:  # nextUpdate is inclusive (R04)
        raise Broken("crl-window", f"The CRL's window is longer than {expected.lifetime} s.", why="The setting crl.lifetime bounds it.")
    if head.number <= expected.above:
        raise Broken("crl-number", f"The CRL's number {head.number} is not above {expected.above}, which was used before.")
    _check_intent(head, scope, expected.intent)
    if scope.delta:
        _check_base(head, expected.bases)
    if expected.answered_for:
        return passed
    _check_points(expected.certificates, scope)
    old = None if before is None else _succeeded(before, scope, head)
    _check_entries(read, head, expected, beside)
    if before is not None and not scope.delta:
        _check_memory(read, old, before, expected.intent.as_of)
    return passed


def _believed(source: Source, scope: Scope, beside: _Beside | None = None) -> tuple[Anatomy, Passed]:
    try:
        read, passed = _whose(source, scope.issuer, beside)
        _check_extensions(read, scope)
    except Malformed as error:
        raise Broken("crl-form", error.what, why=error.why) from None
    return read, passed


def _whose(source: Source, issuer: Issuer, beside: _Beside | None = None) -> tuple[Anatomy, Passed]:
    read = anatomy.read(source)
    if read.issuer != issuer.subject:
        raise Broken("crl-issuer", f"The CRL names another issuer than {issuer.id}.", why="Octet by octet (RFC 5280 5.1.2.3).")
    tbs_sha256 = anatomy.verify(read, issuer, None if beside is None else beside.walk(read))
    if not issuer.may_sign_crl:
        raise Broken("crl-issuer", f"{issuer.id} may not sign CRLs.", why="Its certificate lacks cRLSign (RFC 5280 6.3.3 f).")
    if read.authority_key_identifier() != issuer.key_identifier:
        raise Broken("crl-key-identifier", f"The CRL's authorityKeyIdentifier is not that of {issuer.id}.")
    return read, Passed(anatomy.head_of(read, tbs_sha256), source.size, read.signature)


def _check_extensions(read: Anatomy, scope: Scope) -> None:
    issuer = scope.issuer
    allowed = {AUTHORITY_KEY_IDENTIFIER: False, CRL_NUMBER: False, DELTA_INDICATOR: True, ISSUING_POINT: True, FRESHEST: False}
    for dotted, (critical, _) in read.extensions.items():
        if dotted not in allowed:
            raise Broken("crl-extension", f"The CRL has the extension {dotted}, which no CRL of ours has.")
        if critical is not allowed.get(dotted, critical):
            how = "critical" if critical else "not critical"
            raise Broken("crl-extension", f"The CRL's extension {dotted} is {how}.", why="RFC 5280 5.2 wants it otherwise.")
    if (read.base() is not None) is not scope.delta:
        raise Broken("crl-kind", "The CRL is a delta where a complete one belongs, or the other way round.")
    _check_point(read.point(), scope)
    wanted = () if scope.freshest is None else (scope.freshest,)
    # What no key of ours signs was made in a ceremony, by settings of its own.
    if read.freshest() != wanted and (issuer.key is not None or read.freshest()):
        raise Broken("crl-freshest", f"The CRL says that its deltas are at {read.freshest()}, and they are at {wanted}.")


def _check_point(found: Point | None, scope: Scope) -> None:
    """A CRL that may be taken for another one's makes what the other one lists look good."""
    contents, url = (found.contents, found.url) if found else (CrlContents.everything, None)
    if url != scope.url:
        raise Broken("crl-scope", f"The CRL's distribution point is {url}, and that of its certificates {scope.url}.")
    ceremony = scope.issuer.key is None and contents is not CrlContents.end_entities
    if contents is not scope.issuer.crls.contents and not ceremony:
        raise Broken(
            "crl-scope", f"The CRL speaks of {contents.value}, and those of {scope.issuer.id} of {scope.issuer.crls.contents.value}."
        )


def _check_window(head: Head, issuer: Issuer, *, now: UnixTime, ahead: int = 0) -> None:
    if head.next_update <= head.this_update:
        raise Broken("crl-window", "The CRL's nextUpdate is not after its thisUpdate.")
    if head.this_update > now + max(SKEW, ahead):
        raise Broken("crl-window", "The CRL's thisUpdate lies in the future.", fix="Compare the clocks of signer and publisher.")
    if head.next_update <= now:
        raise Broken("crl-window", "The CRL's nextUpdate is past.")
    if head.next_update > issuer.not_after:
        raise Broken("crl-window", f"The CRL's nextUpdate lies after the end of {issuer.id}.")


def _check_intent(head: Head, scope: Scope, intent: CrlIntent) -> None:
    stated = (scope.issuer.id, scope.shard, head.number, head.this_update, head.next_update, head.base)
    recorded = (intent.issuer, intent.shard, intent.number, intent.this_update, intent.next_update, intent.base)
    for field, ours, theirs in zip(("issuer", "shard", "number", "thisUpdate", "nextUpdate", "base"), stated, recorded, strict=True):
        if ours != theirs:
            raise Broken("crl-not-intended", f"The CRL's {field} is {ours} and its record says {theirs}.")
    if head.tbs_sha256 != intent.tbs_sha256:
        raise Broken("crl-not-intended", "The CRL's signed octets are not those on record.")


def _check_base(head: Head, bases: Callable[[CrlNumber], CrlIntent | None]) -> None:
    """RFC 5280 5.2.4: a delta adds to a complete CRL that was published."""
    base = None if head.base is None else bases(head.base)
    if base is None or base.base is not None or base.number >= head.number:
        raise Broken("crl-base", f"The delta adds to a CRL {head.base}, and no such complete CRL was published before.")


def _check_points(certificates: Sequence[bytes], scope: Scope) -> None:
    for der in certificates:
        try:
            points = certificate_points(der)
        except Malformed as error:
            raise Broken("crl-scope", "A certificate that the CRL lists cannot be read.", why=error.what) from None
        if scope.url is not None and scope.url not in points:
            raise Broken(
                "crl-scope", f"A certificate that the CRL lists points to {', '.join(points) or 'no CRL'}, and not to {scope.url}."
            )


def certificate_points(der: bytes) -> tuple[str, ...]:
    """The cRLDistributionPoints of a certificate."""
    whole = reader.only(der, 0x30)
    tbs = reader.expect(der, whole.content, whole.end, 0x30)
    for field in reader.children(der, tbs):
        if field.tag == 0xA3:
            listed = reader.expect(der, field.content, field.end, 0x30)
            for extension in reader.children(der, listed):
                parts = list(reader.children(der, extension))
                if reader.oid(der, parts[0]) == DISTRIBUTION_POINTS:
                    return anatomy.points_of(der[parts[-1].content : parts[-1].end])
    return ()


def _check_date(serial: Serial, revoked_at: UnixTime, head: Head) -> None:
    if revoked_at > head.this_update + SKEW:
        raise Broken("crl-entry", f"The CRL's entry for serial {serial:040x} was revoked after thisUpdate.")


def _succeeded(before: Before, scope: Scope, head: Head) -> Anatomy | None:
    old, was = None, before.head
    if was is None or before.left is None:
        try:
            old, passed = _whose(before.source, scope.issuer)
        except Malformed as error:
            raise Broken("crl-form", error.what, why=error.why) from None
        was = passed.head
    if head.this_update < was.this_update:
        raise Broken("crl-window", "The CRL's thisUpdate is before that of the published one.", why="A clock went backwards.")
    if head.number <= was.number:
        raise Broken("crl-number", f"The CRL's number {head.number} is not above that of the published one.")
    return old


# ---- entries --------------------------------------------------------------------------------------------------------


class _Beside:
    """Holds the entries against the record while they are read for the signature, so that a long list is read once."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.same = False

    def walk(self, read: Anatomy) -> Iterator[bytes]:
        """The signed octets. Once all were given, `same` says whether the entries among them are those of the record, no more and no fewer."""
        tbs = read.tbs
        at, end = (read.revoked.content, read.revoked.end) if read.revoked is not None else (tbs.end, tbs.end)
        yield from read.pieces(tbs.start, at)
        wanted = filter(None, self._wanted.octets())
        for piece in wanted:
            # Cut like the record's, so that two whole pieces are compared and nothing is copied.
            found = b"".join(read.pieces(at, min(at + len(piece), end)))
            yield found
            at += len(found)
            if found != piece:
                break
        else:
            self.same = at == end
        yield from read.pieces(at, tbs.end)


def _check_entries(read: Anatomy, head: Head, expected: Expected, beside: _Beside) -> None:
    """Octet by octet what the record says. Then they are in its order, and none stands twice."""
    if not beside.same:
        _name_fault(read, head, expected)
        raise Broken("crl-entries", "The CRL's entries are not those on record.")  # what a closer look did not find stays wrong
    if expected.wanted.count != expected.intent.count:
        raise Broken("crl-count", f"The CRL has {expected.wanted.count} entries and its record says {expected.intent.count}.")
    if expected.wanted.latest > head.this_update + SKEW:
        for serial, revoked_at, _, _ in _readable(read):
            _check_date(serial, revoked_at, head)


def _same(read: Iterator[bytes], wanted: Iterator[bytes]) -> bool:
    """Whether two streams of octets are one, however they are cut."""
    left = right = b""
    while True:
        while not left:
            piece = next(read, None)
            if piece is None:
                return not right and all(not more for more in wanted)
            left = piece
        while not right:
            piece = next(wanted, None)
            if piece is None:
                return False
            right = piece
        count = min(len(left), len(right))
        # Of a view, each octet would be compared as a number.
        if left[:count] != right[:count]:
            return False
        left, right = left[count:], right[count:]


def _name_fault(read: Anatomy, head: Head, expected: Expected) -> None:
    """Walk both lists to where they part, and say which entry is at fault."""
    found, wanted = _readable(read), expected.wanted.entries()
    for one, other in zip(found, chain(wanted, repeat(None)), strict=False):
        _check_date(one[0], one[1], head)
        if other is not None and one == (other.serial, other.revoked_at, other.reason, other.invalid_from):
            continue
        here = [one, *islice(found, _NEAR)]
        there = [] if other is None else [other, *islice(wanted, _NEAR)]
        _name_among(read, here, there)
    missed = next(wanted, None)
    if missed is not None:
        raise _missing(missed)


def _name_among(read: Anatomy, here: Sequence[Listed], there: Sequence[CrlEntry]) -> None:
    listed, recorded = {one[0]: one for one in here}, {one.serial: one for one in there}
    serial = here[0][0]
    if sum(1 for one in _readable(read) if one[0] == serial) > 1:
        raise _twice(serial)
    if there and there[0].serial not in listed:
        raise _missing(there[0])
    if serial not in recorded:
        raise Broken("crl-unexpected", f"Serial {serial:040x} stands in the CRL and is not revoked on record.")
    one, other = listed[serial], recorded[serial]
    if one[1:] != (other.revoked_at, other.reason, other.invalid_from):
        raise Broken(
            "crl-entry",
            f"The CRL's entry for serial {serial:040x} differs from the record.",
            why=f"It says {one[2].name} at {one[1]}, the record {other.reason.name} at {other.revoked_at}.",
        )
    raise Broken("crl-order", f"Serial {serial:040x} stands out of order in the CRL.")


def _readable(read: Anatomy) -> Iterator[Listed]:
    try:
        yield from anatomy.entries(read)
    except Malformed as error:
        raise Broken("crl-form", error.what, why=error.why) from None


def _twice(serial: int) -> Broken:
    return Broken("crl-order", f"Serial {serial:040x} stands twice in the CRL.")


def _missing(entry: CrlEntry) -> Broken:
    return Broken("crl-missing", f"Serial {entry.serial:040x} is revoked on record and missing from the CRL.")


# ---- memory ---------------------------------------------------------------------------------------------------------


def _check_memory(read: Anatomy, old: Anatomy | None, before: Before, as_of: int) -> None:
    """Whoever left the list must have been allowed to."""
    left = _left(read, old) if old is not None else before.left or ()
    for serial in left:
        _check_departed(serial, before, as_of)


def _left(read: Anatomy, old: Anatomy) -> Iterator[Serial]:
    """Those of the old list that the new one does not have, in parts that fit into memory."""
    if _prefixed(read, old):
        return
    walked = _readable(old)
    while part := {one[0] for one in islice(walked, _AT_ONCE)}:
        for one in _readable(read):
            part.discard(one[0])
        yield from sorted(part)


def _prefixed(read: Anatomy, old: Anatomy) -> bool:
    """Whether the new list begins with the whole old one: then nobody left."""
    if old.revoked is None:
        return True
    if read.revoked is None or old.revoked.end - old.revoked.content > read.revoked.end - read.revoked.content:
        return False
    start = read.revoked.content
    return _same(anatomy.body(old), read.pieces(start, start + old.revoked.end - old.revoked.content))


def _check_departed(serial: Serial, before: Before, as_of: int) -> None:
    """The record is asked for the latest change, which may be younger than the CRL: then this refuses, and the next try sees both."""
    latest = before.departed(serial)
    released = latest is not None and latest.reason is Reason.removeFromCRL and latest.change <= as_of
    listed_after_expiry = latest is not None and latest.not_after < before.listed_until
    if not released and not listed_after_expiry:
        known = latest is not None
        raise Broken(
            "crl-forgotten",
            f"Serial {serial:040x} stands in the published CRL and is missing from this one.",
            why="It was not released, and no CRL was published after it expired (RFC 5280 3.3)."
            if known
            else "The record knows no revocation of it: the database is older than what was published, restored and not yet recovered.",
            fix="" if known else "fleetca recover",
        )
