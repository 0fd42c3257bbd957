"""Every rule about CRLs, on the final to-be-signed octets, before a key sees them (P11; RFC 5280 5). Ring 1: pure.

Shares no code with the writer. The frame is judged each time, an entry when it is encoded: its octets stay the same in every CRL that lists it.
The gate of `crl` reads the signed octets once more, with a reader of its own (P6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ca.der import reader
from ca.errors import Broken, Malformed
from ca.model import CrlContents, CrlNumber, Issuer, UnixTime
from ca.rules.lint.facts import Extension, extension_of
from ca.rules.lint.fields import SIGNATURES

_AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
_CRL_NUMBER: Final = "2.5.29.20"
_DELTA: Final = "2.5.29.27"
_POINT: Final = "2.5.29.28"
_FRESHEST: Final = "2.5.29.46"
_REASONS: Final = frozenset((1, 2, 3, 4, 5, 6, 9, 10))
_REMOVED: Final = 8
_FIRST_GENERALIZED: Final = 2524608000
_TAILS_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Meant:
    """What a CRL shall say of itself."""

    number: CrlNumber
    this_update: UnixTime
    next_update: UnixTime
    url: str | None = None
    contents: CrlContents = CrlContents.everything
    base: CrlNumber | None = None
    freshest: str | None = None


def lint_crl(
    tbs: bytes,
    issuer: Issuer,
    *,
    number: CrlNumber,
    this_update: UnixTime,
    next_update: UnixTime,
    count: int,
    url: str | None = None,
    contents: CrlContents = CrlContents.everything,
) -> None:
    """Judge a whole TBSCertList that is about to be signed.

    Raises:
        Broken: a rule does not hold (`lint`); the text names the section.
    """
    try:
        whole = reader.only(tbs, 0x30)
        found = list(reader.children(tbs, whole))
        listed = found[5] if len(found) == 7 and found[5].tag == 0x30 else None
        start, end = (listed.content, listed.end) if listed else (found[-1].start, found[-1].start) if found else (0, 0)
    except Malformed as error:
        raise _broken(f"RFC 5280 5.1: {error.what}") from None
    meant = Meant(number, this_update, next_update, url=url, contents=contents)
    if listed is not None and start == end:
        raise _broken("RFC 5280 5.1.2.6: revokedCertificates is there and empty")
    lint_frame(tbs[:start], tbs[end:], issuer, size=end - start, meant=meant)
    entries = Entries(this_update=this_update, unique=True)
    entries.judge(tbs[start:end])
    if entries.count != count:
        raise _broken(f"P6: {entries.count} entries where {count} belong")


def lint_frame(head: bytes, tail: bytes, issuer: Issuer, *, size: int, meant: Meant) -> None:
    """Judge what stands around `size` octets of entries.

    Raises:
        Broken: a rule does not hold (`lint`); the text names the section.
    """
    try:
        wrong = _wrong_frame(head, tail, issuer, size, meant)
    except Malformed as error:
        wrong = f"RFC 5280 5.1: {error.what}"
    if wrong is not None:
        raise _broken(wrong)


def _broken(wrong: str) -> Broken:
    return Broken("lint", f"The draft of a CRL breaks {wrong}.", why="Nothing was signed.")


def _wrong_frame(head: bytes, tail: bytes, issuer: Issuer, size: int, meant: Meant) -> str | None:
    total = len(head) + size + len(tail)
    whole = reader.element(head, 0, total)
    if whole.tag != 0x30 or whole.end != total:
        return "RFC 5280 5.1: the outer length is not that of what it holds"
    found: list[reader.Element] = []
    at = whole.content
    while at < len(head):
        found.append(reader.element(head, at, total))
        at = found[-1].end
    if size:
        # The last header announces the entries, which begin where the head ends.
        listed = found.pop() if found else whole
        if (listed.tag, listed.content, listed.end) != (0x30, len(head), len(head) + size):
            return "RFC 5280 5.1.2.6: revokedCertificates does not hold the entries"
    elif at != len(head):
        return "RFC 5280 5.1.2.6: revokedCertificates is there and empty"
    if [one.tag for one in found[:3]] != [0x02, 0x30, 0x30] or len(found) != 5:
        return "RFC 5280 5.1: the fields are not those of a v2 CRL with nextUpdate and extensions"
    version, algorithm, name, this_update, next_update = found
    if reader.integer(head, version) != 1:
        return "RFC 5280 5.1.2.1: the version is not v2"
    if not issuer.may_sign_crl:
        return "RFC 5280 4.2.1.3: the issuer lacks cRLSign"
    if head[algorithm.start : algorithm.end] != SIGNATURES.get(issuer.algorithm):
        return "RFC 5280 5.1.2.2: the signature algorithm is not the issuer's"
    if head[name.start : name.end] != issuer.subject:
        return "RFC 5280 5.1.2.3: the issuer is not encoded as its own subject is"
    for one, when in ((this_update, meant.this_update), (next_update, meant.next_update)):
        if reader.time(head, one) != when or one.tag != (0x18 if when >= _FIRST_GENERALIZED else 0x17):
            return "RFC 5280 5.1.2.4: a date is not the one meant, or in the wrong form"
    if not meant.this_update < meant.next_update <= issuer.not_after:
        return "RFC 5280 5.1.2.5: nextUpdate is not after thisUpdate, or after the issuer's end"
    return _wrong_extensions(tail, issuer, meant)


def _wrong_extensions(tail: bytes, issuer: Issuer, meant: Meant) -> str | None:
    wrapper = reader.only(tail, 0xA0)
    inner = reader.expect(tail, wrapper.content, wrapper.end, 0x30)
    extensions = [extension_of(tail[one.start : one.end]) for one in reader.children(tail, inner)]
    point = meant.url is not None or meant.contents is not CrlContents.everything
    wanted = [
        (_AUTHORITY_KEY_IDENTIFIER, False),
        (_CRL_NUMBER, False),
        *([(_DELTA, True)] if meant.base is not None else []),
        *([(_POINT, True)] if point else []),
        *([(_FRESHEST, False)] if meant.freshest is not None else []),
    ]
    if inner.end != wrapper.end or [(one.oid, one.critical) for one in extensions] != wanted:
        return "RFC 5280 5.2: the extensions are not those of its kind, or one is critical that must not be, or not that must be"
    if meant.base is not None and meant.freshest is not None:
        return "RFC 5280 5.2.6: a delta CRL points to deltas"
    by_oid = {one.oid: one for one in extensions}
    authority, numbered = extensions[0].value, extensions[1].value
    key = reader.expect(authority, reader.only(authority, 0x30).content, len(authority), 0x80)
    if key.end != len(authority) or authority[key.content : key.end] != issuer.key_identifier:
        return "RFC 5280 5.2.1: authorityKeyIdentifier is not the issuer's subjectKeyIdentifier"
    value = reader.only(numbered, 0x02)
    if reader.integer(numbered, value) != meant.number or meant.number < 0 or value.end - value.content > 20:
        return "RFC 5280 5.2.3: the CRL number is not the one meant, negative, or over 20 octets"
    if meant.base is not None:
        base = by_oid[_DELTA].value
        if reader.integer(base, reader.only(base, 0x02)) != meant.base or not 0 < meant.base < meant.number:
            return "RFC 5280 5.2.4: the base is not the one meant, or not before the delta"
    return _wrong_places(by_oid, meant)


def _wrong_places(by_oid: dict[str, Extension], meant: Meant) -> str | None:
    if _POINT in by_oid:
        value = by_oid[_POINT].value
        said: list[tuple[int, bytes]] = [
            (one.tag, value[one.content : one.end]) for one in reader.children(value, reader.only(value, 0x30))
        ]
        only = {CrlContents.end_entities: 0x81, CrlContents.authorities: 0x82}.get(meant.contents)
        if [tag for tag, _ in said] != [*([0xA0] if meant.url is not None else []), *([only] if only else [])]:
            return "RFC 5280 5.2.5: issuingDistributionPoint says something else than what the CRL is for"
        if only and said[-1][1] != b"\xff":
            return "RFC 5280 5.2.5: issuingDistributionPoint holds a FALSE"
        if meant.url is not None and _one_name(said[0][1]) != meant.url:
            return "RFC 5280 5.2.5: the distribution point is not that of the certificates it speaks of"
    if meant.freshest is not None:
        value = by_oid[_FRESHEST].value
        outer = reader.only(value, 0x30)
        first = reader.expect(value, outer.content, outer.end, 0x30)
        named = reader.expect(value, first.content, first.end, 0xA0)
        if first.end != outer.end or named.end != first.end or _one_name(value[named.content : named.end]) != meant.freshest:
            return "RFC 5280 5.2.6: freshestCRL does not say where the deltas are"
    return None


def _one_name(octets: bytes) -> str:
    """The URI in a DistributionPointName that is one full name."""
    full = reader.only(octets, 0xA0)
    uri = reader.expect(octets, full.content, full.end, 0x86)
    return octets[uri.content : uri.end].decode("ascii", "replace") if uri.end == full.end else ""


class Entries:
    """Judges entries as they are encoded, whole ones at a time.

    Args:
        unique: remember serial numbers, so that none stands twice; where there may be millions, the record's own order says that (R08).
    """

    def __init__(self, *, this_update: UnixTime, delta: bool = False, unique: bool = False) -> None:
        self._this_update, self._delta = this_update, delta
        self._serials: set[bytes] | None = set() if unique else None
        self._good_tails: set[bytes] = set()
        self.count = 0

    def judge(self, octets: bytes) -> None:
        """
        Raises:
            Broken: a rule does not hold (`lint`); the text names the section.
        """
        try:
            wrong = self._wrong(octets)
        except Malformed as error:
            wrong = f"RFC 5280 5.1.2.6: {error.what}"
        if wrong is not None:
            raise _broken(wrong)

    def _wrong(self, octets: bytes) -> str | None:
        at, end, tails, serials = 0, len(octets), self._good_tails, self._serials
        while at < end:
            # All of ours are SEQUENCEs of under 128 octets that begin with an INTEGER of at most 20: two headers of two octets each.
            if at + 4 > end or octets[at] != 0x30 or octets[at + 1] > 0x7F or octets[at + 2] != 0x02 or not 1 <= octets[at + 3] <= 20:
                return "RFC 5280 5.1.2.6: an entry does not begin with a serial number of 1 to 20 octets"
            stop = at + 2 + octets[at + 1]
            middle = at + 4 + octets[at + 3]
            if stop > end or middle > stop:
                return "RFC 5280 5.1.2.6: an entry is cut off"
            serial = octets[at + 4 : middle]
            if serial[0] & 0x80 or serial == b"\x00" or (len(serial) > 1 and serial[0] == 0 and serial[1] < 0x80):
                return "RFC 5280 4.1.2.2: a listed serial number is not positive, or padded"
            if serials is not None:
                if serial in serials:
                    return "R08: a serial number is listed twice"
                serials.add(serial)
            tail = octets[middle:stop]
            if tail not in tails:
                wrong = self._wrong_tail(tail)
                if wrong is not None:
                    return wrong
                if len(tails) > _TAILS_KEPT:
                    tails.clear()
                tails.add(tail)
            self.count += 1
            at = stop
        return None

    def _wrong_tail(self, tail: bytes) -> str | None:
        when = reader.element(tail, 0, len(tail))
        moment = reader.time(tail, when)
        if moment > self._this_update or when.tag != (0x18 if moment >= _FIRST_GENERALIZED else 0x17):
            return "RFC 5280 5.1.2.6: a revocation date lies after thisUpdate, or is in the wrong form"
        rest = tail[when.end :]
        if not rest:
            return None
        found = [extension_of(rest[one.start : one.end]) for one in reader.children(rest, reader.only(rest, 0x30))]
        names = [one.oid for one in found]
        if names not in (["2.5.29.21"], ["2.5.29.24"], ["2.5.29.21", "2.5.29.24"]) or any(one.critical for one in found):
            return "RFC 5280 5.3.1: the extensions of an entry are not a reason and an invalidity date, or critical"
        for one in found:
            if one.oid == "2.5.29.21":
                # RFC 5280 5.3.1: unspecified is left out, 7 is unused, removeFromCRL is for deltas.
                code = reader.integer(one.value, reader.only(one.value, 0x0A))
                if code not in _REASONS and not (self._delta and code == _REMOVED):
                    return "RFC 5280 5.3.1: an entry's extension is not a reason that may stand there"
            elif reader.only(one.value, 0x18).tag != 0x18 or reader.time(one.value, reader.only(one.value, 0x18)) > self._this_update:
                return "RFC 5280 5.3.2: an invalidity date is no GeneralizedTime, or lies after thisUpdate"
        return None
