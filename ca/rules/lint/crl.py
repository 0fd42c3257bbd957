"""Every rule about CRLs, on the final to-be-signed octets, before a key sees them (P11; RFC 5280 5). Ring 1: pure.

Shares no code with the writer. The gate of `crl` reads the signed octets once more, with a reader of its own (P6).
"""

from __future__ import annotations

from typing import Final

from ca.der import reader
from ca.errors import Broken, Malformed
from ca.model import CrlNumber, Issuer, UnixTime
from ca.rules.lint.facts import extension_of
from ca.rules.lint.fields import SIGNATURES

_AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
_CRL_NUMBER: Final = "2.5.29.20"
_REASONS: Final = frozenset((1, 2, 3, 4, 5, 6, 9, 10))
_REASON_HEAD: Final = bytes.fromhex("300c300a0603551d1504030a01")
_FIRST_GENERALIZED: Final = 2524608000


def lint_crl(tbs: bytes, issuer: Issuer, *, number: CrlNumber, this_update: UnixTime, next_update: UnixTime, count: int) -> None:
    """Judge a TBSCertList that is about to be signed.

    Raises:
        Broken: a rule does not hold (`lint`); the text names the section.
    """
    try:
        wrong = _wrong(tbs, issuer, number, (this_update, next_update), count)
    except Malformed as error:
        wrong = f"RFC 5280 5.1: {error.what}"
    if wrong is not None:
        raise Broken("lint", f"The draft of a CRL breaks {wrong}.", why="Nothing was signed.")


def _wrong(tbs: bytes, issuer: Issuer, number: CrlNumber, window: tuple[UnixTime, UnixTime], count: int) -> str | None:
    whole = reader.only(tbs, 0x30)
    found = list(reader.children(tbs, whole))
    tags = [one.tag for one in found]
    has_entries = len(found) == 7
    version, algorithm, name, this_update, next_update, *middle, wrapper = found if len(found) >= 6 else [whole] * 6
    if tags[:3] != [0x02, 0x30, 0x30] or tags[5:] != ([0x30, 0xA0] if has_entries else [0xA0]):
        return "RFC 5280 5.1: the fields are not those of a v2 CRL with nextUpdate and extensions"
    if reader.integer(tbs, version) != 1:
        return "RFC 5280 5.1.2.1: the version is not v2"
    if not issuer.may_sign_crl:
        return "RFC 5280 4.2.1.3: the issuer lacks cRLSign"
    if tbs[algorithm.start : algorithm.end] != SIGNATURES.get(issuer.algorithm):
        return "RFC 5280 5.1.2.2: the signature algorithm is not the issuer's"
    if tbs[name.start : name.end] != issuer.subject:
        return "RFC 5280 5.1.2.3: the issuer is not encoded as its own subject is"
    for one, when in zip((this_update, next_update), window, strict=True):
        if reader.time(tbs, one) != when or one.tag != (0x18 if when >= _FIRST_GENERALIZED else 0x17):
            return "RFC 5280 5.1.2.4: a date is not the one meant, or in the wrong form"
    if not window[0] < window[1] <= issuer.not_after:
        return "RFC 5280 5.1.2.5: nextUpdate is not after thisUpdate, or after the issuer's end"
    return _wrong_extensions(tbs, wrapper, issuer, number) or _wrong_entries(tbs, middle[0] if has_entries else None, window[0], count)


def _wrong_extensions(tbs: bytes, wrapper: reader.Element, issuer: Issuer, number: CrlNumber) -> str | None:
    inner = reader.expect(tbs, wrapper.content, wrapper.end, 0x30)
    extensions = [extension_of(tbs[one.start : one.end]) for one in reader.children(tbs, inner)]
    if inner.end != wrapper.end or [one.oid for one in extensions] != [_AUTHORITY_KEY_IDENTIFIER, _CRL_NUMBER]:
        return "RFC 5280 5.2: the extensions are not authorityKeyIdentifier and cRLNumber"
    if any(one.critical for one in extensions):
        return "RFC 5280 5.2: an extension is critical that must not be"
    authority, numbered = (one.value for one in extensions)
    key = reader.expect(authority, reader.only(authority, 0x30).content, len(authority), 0x80)
    if key.end != len(authority) or authority[key.content : key.end] != issuer.key_identifier:
        return "RFC 5280 5.2.1: authorityKeyIdentifier is not the issuer's subjectKeyIdentifier"
    value = reader.only(numbered, 0x02)
    if reader.integer(numbered, value) != number or number < 0 or value.end - value.content > 20:
        return "RFC 5280 5.2.3: the CRL number is not the one meant, negative, or over 20 octets"
    return None


def _wrong_entries(tbs: bytes, listed: reader.Element | None, this_update: UnixTime, count: int) -> str | None:
    if listed is None:
        return None if count == 0 else "P6: entries are missing"
    at, end = listed.content, listed.end
    if at == end:
        return "RFC 5280 5.1.2.6: revokedCertificates is there and empty"
    serials: set[bytes] = set()
    good_tails: set[bytes] = set()
    seen = 0
    while at < end:
        # All of ours are SEQUENCEs of under 128 octets that begin with an INTEGER of at most 20: two headers of two octets each.
        if at + 4 > end or tbs[at] != 0x30 or tbs[at + 1] > 0x7F or tbs[at + 2] != 0x02 or not 1 <= tbs[at + 3] <= 20:
            return "RFC 5280 5.1.2.6: an entry does not begin with a serial number of 1 to 20 octets"
        stop = at + 2 + tbs[at + 1]
        middle = at + 4 + tbs[at + 3]
        if stop > end or middle > stop:
            return "RFC 5280 5.1.2.6: an entry is cut off"
        serial = tbs[at + 4 : middle]
        if serial[0] & 0x80 or serial == b"\x00" or (len(serial) > 1 and serial[0] == 0 and serial[1] < 0x80):
            return "RFC 5280 4.1.2.2: a listed serial number is not positive, or padded"
        serials.add(serial)
        tail = tbs[middle:stop]
        if tail not in good_tails:
            wrong = _wrong_tail(tail, this_update)
            if wrong is not None:
                return wrong
            if len(good_tails) > 100_000:
                good_tails.clear()
            good_tails.add(tail)
        seen += 1
        at = stop
    if len(serials) != seen:
        return "R08: a serial number is listed twice"
    return None if seen == count else f"P6: {seen} entries where {count} belong"


def _wrong_tail(tail: bytes, this_update: UnixTime) -> str | None:
    when = reader.element(tail, 0, len(tail))
    moment = reader.time(tail, when)
    if moment > this_update or when.tag != (0x18 if moment >= _FIRST_GENERALIZED else 0x17):
        return "RFC 5280 5.1.2.6: a revocation date lies after thisUpdate, or is in the wrong form"
    rest = tail[when.end :]
    # RFC 5280 5.3.1: unspecified is left out, 7 is unused, removeFromCRL is for deltas.
    if rest and (rest[:-1] != _REASON_HEAD or rest[-1] not in _REASONS):
        return "RFC 5280 5.3.1: an entry's extension is not a reason that may stand there"
    return None
