"""Taking a CRL apart, strictly and without trust (RFC 5280 5.1). Ring 1: pure, octets in, facts out.

Owns the form: what cannot be read here is not a CRL of ours. It judges nothing against the outside; `crl.rules.gate` does. It shares
no code with what writes and signs CRLs (P6), so the signature table below is a second one on purpose. A CRL may be longer than memory is wide: it
is read in pieces, no object stays per entry, and where its signature covers a digest nothing but the digest is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ca.der import reader
from ca.der.reader import Element
from ca.errors import Broken, Malformed
from ca.model import AlgorithmName, CrlContents, Digest, Issuer, Reason, Serial, UnixTime
from crl.model import Head

AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
CRL_NUMBER: Final = "2.5.29.20"
REASON_CODE: Final = "2.5.29.21"
INVALIDITY_DATE: Final = "2.5.29.24"
DELTA_INDICATOR: Final = "2.5.29.27"
ISSUING_POINT: Final = "2.5.29.28"
DISTRIBUTION_POINTS: Final = "2.5.29.31"
FRESHEST: Final = "2.5.29.46"

_INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _ENUMERATED, _BOOLEAN, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x0A, 0x01, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_EXTENSIONS: Final = 0xA0
_YEAR_2050: Final = 2524608000
_LONGEST_SERIAL = 20
"""Octets, also of a CRL number (RFC 5280 4.1.2.2, 5.2.3)."""
_WINDOW: Final = 1 << 16
"""Octets in which everything before the entries, and everything after them, must stand."""
CHUNK: Final = 1 << 20

Listed: TypeAlias = tuple[Serial, UnixTime, Reason, UnixTime | None]
"""One entry with its invalidityDate: a bare tuple, since an object for each of a million costs more than reading it."""


class Source(Protocol):
    """Octets that are read in pieces."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, count: int) -> bytes:
        """That many octets from there, or what there is of them."""
        ...


class InMemory:
    """Octets at hand."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size = len(octets)

    def read(self, start: int, count: int) -> bytes:
        return self._octets[start : start + count]


class _Signature(NamedTuple):
    identifier: bytes
    arguments: tuple[Any, ...]
    digest: str | None
    """The hash whose value is signed; None where the octets themselves are."""


_RSA = _Signature(bytes.fromhex("300d06092a864886f70d01010b0500"), (padding.PKCS1v15(), Prehashed(hashes.SHA256())), "sha256")
SIGNATURES: Final[Mapping[AlgorithmName, _Signature]] = {
    AlgorithmName("p256"): _Signature(bytes.fromhex("300a06082a8648ce3d040302"), (ec.ECDSA(Prehashed(hashes.SHA256())),), "sha256"),
    AlgorithmName("p384"): _Signature(bytes.fromhex("300a06082a8648ce3d040303"), (ec.ECDSA(Prehashed(hashes.SHA384())),), "sha384"),
    AlgorithmName("ed25519"): _Signature(bytes.fromhex("300506032b6570"), (), None),
    AlgorithmName("rsa-3072"): _RSA,
    AlgorithmName("rsa-4096"): _RSA,
    AlgorithmName("ml-dsa-44"): _Signature(bytes.fromhex("300b0609608648016503040311"), (), None),
    AlgorithmName("ml-dsa-65"): _Signature(bytes.fromhex("300b0609608648016503040312"), (), None),
    AlgorithmName("ml-dsa-87"): _Signature(bytes.fromhex("300b0609608648016503040313"), (), None),
}


@dataclass(frozen=True, slots=True)
class Point:
    """An issuingDistributionPoint (RFC 5280 5.2.5)."""

    url: str | None
    contents: CrlContents


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a CRL, as they stand in its octets."""

    source: Source
    tbs: Element
    inner_algorithm: bytes
    outer_algorithm: bytes
    issuer: bytes
    this_update: UnixTime
    next_update: UnixTime
    revoked: Element | None
    extensions: Mapping[str, tuple[bool, bytes]]
    """By dotted OID: whether it is critical, and its value's octets."""
    signature: bytes

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The octets from `start` to `end`, a piece at a time."""
        while start < end:
            piece = self.source.read(start, min(CHUNK, end - start))
            if not piece:
                raise Malformed("crl-form", "The CRL is shorter than it was.")
            yield piece
            start += len(piece)

    def number(self) -> int:
        """The CRLNumber (RFC 5280 5.2.3)."""
        if CRL_NUMBER not in self.extensions:
            raise Malformed("crl-form", "The CRL has no CRLNumber.")
        return _crl_number(self.extensions[CRL_NUMBER][1])

    def base(self) -> int | None:
        """Of a delta, the number of its base (RFC 5280 5.2.4)."""
        return _crl_number(self.extensions[DELTA_INDICATOR][1]) if DELTA_INDICATOR in self.extensions else None

    def point(self) -> Point | None:
        """What certificates it speaks of; None: all of its issuer's."""
        return _point(self.extensions[ISSUING_POINT][1]) if ISSUING_POINT in self.extensions else None

    def freshest(self) -> tuple[str, ...]:
        """Where deltas to it are (RFC 5280 5.2.6)."""
        return points_of(self.extensions[FRESHEST][1]) if FRESHEST in self.extensions else ()

    def authority_key_identifier(self) -> bytes:
        """The keyIdentifier, which must be all that the extension holds (RFC 5280 5.2.1, 4.2.1.1)."""
        if AUTHORITY_KEY_IDENTIFIER not in self.extensions:
            raise Malformed("crl-form", "The CRL has no authorityKeyIdentifier.")
        value = self.extensions[AUTHORITY_KEY_IDENTIFIER][1]
        parts = list(reader.children(value, reader.only(value, _SEQUENCE)))
        if len(parts) != 1 or parts[0].tag != 0x80:
            raise Malformed("crl-form", "The authorityKeyIdentifier holds something else than one keyIdentifier.")
        return value[parts[0].content : parts[0].end]


def _crl_number(value: bytes) -> int:
    found = reader.only(value, _INTEGER)
    number = reader.integer(value, found)
    if number < 0 or found.end - found.content > _LONGEST_SERIAL:
        raise Malformed("crl-form", "The CRLNumber is negative or longer than 20 octets.")
    return number


def _point(value: bytes) -> Point:
    parts = list(reader.children(value, reader.only(value, _SEQUENCE)))
    if not parts or [one.tag for one in parts] not in ([0xA0], [0x81], [0x82], [0xA0, 0x81], [0xA0, 0x82]):
        raise Malformed("crl-form", "The issuingDistributionPoint is empty, or says what no CRL of ours does.")
    url, contents = None, CrlContents.everything
    for one in parts:
        if one.tag == 0xA0:
            url = _full_name(value[one.content : one.end])
        elif value[one.content : one.end] != b"\xff":
            raise Malformed("crl-form", "The issuingDistributionPoint says onlyContains FALSE, which DER leaves out.")
        else:
            contents = CrlContents.end_entities if one.tag == 0x81 else CrlContents.authorities
    return Point(url, contents)


def points_of(value: bytes) -> tuple[str, ...]:
    """The URIs in cRLDistributionPoints or freshestCRL: one full name for each point (RFC 5280 4.2.1.13)."""
    urls = []
    for one in reader.children(value, reader.only(value, _SEQUENCE)):
        parts = list(reader.children(value, one))
        if one.tag != _SEQUENCE or [part.tag for part in parts] != [0xA0]:
            raise Malformed("crl-form", "A distribution point holds something else than its name.")
        urls.append(_full_name(value[parts[0].content : parts[0].end]))
    if not urls:
        raise Malformed("crl-form", "The distribution points are there and empty.")
    return tuple(urls)


def _full_name(octets: bytes) -> str:
    names = reader.only(octets, 0xA0)
    uri = reader.expect(octets, names.content, names.end, 0x86)
    if uri.end != names.end:
        raise Malformed("crl-form", "A distribution point has several names.")
    return octets[uri.content : uri.end].decode("ascii", "replace")


def read(source: Source) -> Anatomy:
    """Take a CRL apart; its entries are left for `entries`.

    Raises:
        Malformed: it is not DER, or not a v2 CRL with nextUpdate (RFC 5280 5.1.2).
    """
    # Ends may lie behind what of it is at hand; headers may not.
    head = source.read(0, _WINDOW)
    whole = _header(head, 0, source.size, _SEQUENCE)
    if whole.end != source.size:
        raise Malformed("crl-form", "There are octets after the end of the CRL.")
    tbs = _header(head, whole.content, whole.end, _SEQUENCE)

    version = _element(head, tbs.content, tbs.end, _INTEGER)
    if reader.integer(head, version) != 1:
        raise Malformed("crl-form", "The CRL's version is not v2.")
    inner = _element(head, version.end, tbs.end, _SEQUENCE)
    issuer = _element(head, inner.end, tbs.end, _SEQUENCE)
    this_update = _element(head, issuer.end, tbs.end)
    next_update = _element(head, this_update.end, tbs.end)
    if next_update.tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise Malformed("crl-form", "The CRL has no nextUpdate.", why="RFC 5280 5.1.2.5 demands it.")
    at = next_update.end
    revoked = None
    if at < tbs.end and at < len(head) and head[at] == _SEQUENCE:
        revoked = _header(head, at, tbs.end, _SEQUENCE)
        if revoked.content == revoked.end:
            raise Malformed("crl-form", "The CRL's revokedCertificates is there and empty.", why="RFC 5280 5.1.2.6 wants it absent.")
        at = revoked.end
    rest = source.read(at, _WINDOW)
    if len(rest) != whole.end - at:
        raise Malformed("crl-form", "What follows the CRL's entries is longer than any CRL of ours has it.")
    return _finished(
        source,
        Anatomy(
            source=source,
            tbs=tbs,
            inner_algorithm=head[inner.start : inner.end],
            outer_algorithm=b"",
            issuer=head[issuer.start : issuer.end],
            this_update=_time(head, this_update),
            next_update=_time(head, next_update),
            revoked=revoked,
            extensions={},
            signature=b"",
        ),
        rest,
        tbs.end - at,
    )


def _finished(source: Source, begun: Anatomy, rest: bytes, tbs_left: int) -> Anatomy:
    """The same with what stands behind the entries: `rest`, whose first `tbs_left` octets are still signed."""
    tagged = reader.expect(rest, 0, tbs_left, _EXTENSIONS)
    if tagged.end != tbs_left:
        raise Malformed("crl-form", "The CRL's signed part goes on after its extensions.")
    listed = reader.expect(rest, tagged.content, tagged.end, _SEQUENCE)
    if listed.end != tagged.end:
        raise Malformed("crl-form", "The CRL's extensions are followed by something.")
    outer = reader.expect(rest, tbs_left, len(rest), _SEQUENCE)
    signature = reader.expect(rest, outer.end, len(rest), _BIT_STRING)
    if signature.end != len(rest):
        raise Malformed("crl-form", "The CRL goes on after its signature.")
    return Anatomy(
        source=source,
        tbs=begun.tbs,
        inner_algorithm=begun.inner_algorithm,
        outer_algorithm=rest[outer.start : outer.end],
        issuer=begun.issuer,
        this_update=begun.this_update,
        next_update=begun.next_update,
        revoked=begun.revoked,
        extensions=_extensions(rest, listed),
        signature=reader.bit_string(rest, signature),
    )


def _header(octets: bytes, start: int, limit: int, tag: int) -> Element:
    """An element whose header is at hand; its end may not be."""
    try:
        return reader.expect(octets, start, limit, tag)
    except IndexError:
        raise Malformed("crl-form", "The CRL begins with more than any CRL of ours has there.") from None


def _element(octets: bytes, start: int, limit: int, tag: int | None = None) -> Element:
    """An element that is at hand whole."""
    try:
        found = reader.element(octets, start, limit) if tag is None else reader.expect(octets, start, limit, tag)
    except IndexError:
        raise Malformed("crl-form", "The CRL begins with more than any CRL of ours has there.") from None
    if found.end > len(octets):
        raise Malformed("crl-form", "The CRL begins with more than any CRL of ours has there.")
    return found


def version_of(source: Source) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    digest = hashlib.sha256()
    for start in range(0, source.size, CHUNK):
        digest.update(source.read(start, CHUNK))
    return digest.hexdigest()


def verify(anatomy: Anatomy, issuer: Issuer, signed_octets: Iterator[bytes] | None = None) -> Digest:
    """Check the signature with the public key of the issuer. Returns the SHA-256 of what is signed.

    Args:
        signed_octets: the same octets, for whoever looks at them on their way: what is signed is then read once.

    Raises:
        Broken: `crl-algorithm`, `crl-signature`.
    """
    row = SIGNATURES.get(issuer.algorithm)
    if row is None or anatomy.outer_algorithm != row.identifier:
        raise Broken("crl-algorithm", f"The CRL is not signed with {issuer.algorithm}, the algorithm of {issuer.id}.")
    if anatomy.inner_algorithm != anatomy.outer_algorithm:
        raise Broken("crl-algorithm", "The CRL's signature and signatureAlgorithm differ.", why="RFC 5280 5.1.1.2 wants them the same.")
    tbs, recorded = anatomy.tbs, hashlib.sha256()
    signed = recorded if row.digest in (None, "sha256") else hashlib.new(row.digest)
    kept: list[bytes] = []
    for piece in signed_octets or anatomy.pieces(tbs.start, tbs.end):
        recorded.update(piece)
        if signed is not recorded:
            signed.update(piece)
        if row.digest is None:
            kept.append(piece)
    try:
        key = _public_key(issuer.spki)
        key.verify(anatomy.signature, b"".join(kept) if row.digest is None else signed.digest(), *row.arguments)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise Broken("crl-signature", f"The CRL's signature does not verify with the key of {issuer.id}.") from None
    return Digest(recorded.digest())


def head_of(anatomy: Anatomy, tbs_sha256: Digest) -> Head:
    """What it says of itself."""
    return Head(anatomy.number(), anatomy.this_update, anatomy.next_update, tbs_sha256, base=anatomy.base())


def body(anatomy: Anatomy) -> Iterator[bytes]:
    """The octets of all entries, in pieces."""
    if anatomy.revoked is not None:
        yield from anatomy.pieces(anatomy.revoked.content, anatomy.revoked.end)


def entries(anatomy: Anatomy) -> Iterator[Listed]:
    """The entries in their order.

    Headers are read in place, since there may be millions: an entry of ours is shorter than 128 octets, so every length is one octet (X.690 8.1.3.4).

    Raises:
        Broken: `crl-entry`; the text names the serial.
        Malformed: something that is not an entry.
    """
    delta = DELTA_INDICATOR in anatomy.extensions
    left, offset = b"", anatomy.revoked.content if anatomy.revoked else 0
    for piece in body(anatomy):
        octets = left + piece
        at, limit = 0, len(octets)
        while at < limit:
            if limit - at < 2 or at + 2 + octets[at + 1] > limit:
                break
            end = at + 2 + octets[at + 1]
            if octets[at] != _SEQUENCE or octets[at + 1] >= 0x80:
                raise Malformed("crl-form", f"Something that is not an entry stands at offset {offset + at}.")
            size = octets[at + 3] if end > at + 3 else 0
            start, stop = at + 4, at + 4 + size
            if octets[at + 2] != _INTEGER or not size or size >= 0x80 or stop > end:
                raise Malformed("crl-form", f"An entry without a serial number stands at offset {offset + at}.")
            serial = int.from_bytes(octets[start:stop], "big")
            first = octets[start]
            if first >= 0x80 or not serial or (not first and octets[start + 1] < 0x80):
                raise _wrong_entry(serial, "its serial is not a positive INTEGER in its shortest form")
            if size > _LONGEST_SERIAL:
                raise _wrong_entry(serial, "its serial is longer than 20 octets")
            try:
                revoked_at, reason, invalid_from = _what_follows(octets[stop:end], delta)
            except Malformed as error:
                raise _wrong_entry(serial, error.what, error.why) from None
            yield Serial(serial), revoked_at, reason, invalid_from
            at = end
        left, offset = octets[at:], offset + at
        if len(left) > 2 and (left[0] != _SEQUENCE or left[1] >= 0x80):
            break
    if left:
        raise Malformed("crl-form", f"Something that is not an entry stands at offset {offset}.")


def _wrong_entry(serial: int, what: str, why: str = "") -> Broken:
    return Broken("crl-entry", f"The CRL's entry for serial {serial:040x} is wrong: {what}", why=why)


@lru_cache(maxsize=16384)
def _what_follows(rest: bytes, delta: bool) -> tuple[UnixTime, Reason, UnixTime | None]:  # noqa: FBT001 - a cached key
    """What follows the serial in an entry. Revocations come in bursts, so these octets repeat."""
    when = reader.element(rest, 0, len(rest))
    reason, invalid_from = (Reason.unspecified, None) if when.end == len(rest) else _entry_extensions(rest[when.end :], delta)
    return _moment(rest, when), reason, invalid_from


def _moment(rest: bytes, when: Element) -> UnixTime:
    """As `_time`, with the calendar asked once a day and not once an entry."""
    text = rest[when.content : when.end]
    if when.tag == _UTC_TIME and len(text) == 13 and text[12] == ord("Z") and text[:12].isdigit():
        hour, minute, second = int(text[6:8]), int(text[8:10]), int(text[10:12])
        if hour < 24 and minute < 60 and second < 60:
            return _midnight(text[:6]) + 3600 * hour + 60 * minute + second
    return _time(rest, when)


@lru_cache(maxsize=4096)
def _midnight(day: bytes) -> UnixTime:
    element = b"\x17\x0d" + day + b"000000Z"
    return reader.time(element, reader.only(element, _UTC_TIME))


def _time(octets: bytes, found: Element) -> UnixTime:
    """A time in the form RFC 5280 5.1.2.4 wants: UTCTime through 2049, GeneralizedTime from 2050 on."""
    when = reader.time(octets, found)
    if (found.tag == _GENERALIZED_TIME) != (when >= _YEAR_2050):
        raise Malformed("crl-form", "A time before 2050 is not UTCTime, or a later one is.")
    return when


@lru_cache(maxsize=4096)
def _entry_extensions(element: bytes, delta: bool) -> tuple[Reason, UnixTime | None]:  # noqa: FBT001 - a cached key
    """Reason and invalidityDate in crlEntryExtensions, which must be all they hold (RFC 5280 5.3)."""
    found = _extensions(element, reader.only(element, _SEQUENCE))
    if not set(found) <= {REASON_CODE, INVALIDITY_DATE}:
        raise Malformed("crl-form", "it has other extensions than a reasonCode and an invalidityDate")
    if any(critical for critical, _ in found.values()):
        raise Malformed("crl-form", "its reasonCode or invalidityDate is critical")
    invalid_from = None
    if INVALIDITY_DATE in found:
        value = found[INVALIDITY_DATE][1]
        invalid_from = reader.time(value, reader.only(value, _GENERALIZED_TIME))
    if REASON_CODE not in found:
        return Reason.unspecified, invalid_from
    value = found[REASON_CODE][1]
    code = reader.integer(value, reader.only(value, _ENUMERATED))
    if code == Reason.unspecified:
        raise Malformed("crl-form", "its reasonCode says unspecified", why="RFC 5280 5.3.1 wants it left out then.")
    if code == Reason.removeFromCRL and not delta:
        raise Malformed("crl-form", "its reasonCode says removeFromCRL", why="That belongs into delta CRLs only (RFC 5280 5.3.1).")
    try:
        return Reason(code), invalid_from
    except ValueError:
        raise Malformed("crl-form", f"its reasonCode is {code}, which RFC 5280 does not know") from None


def _extensions(octets: bytes, listed: Element) -> Mapping[str, tuple[bool, bytes]]:
    """Extensions by OID; none twice, and at least one where the field is there (RFC 5280 4.1)."""
    found: dict[str, tuple[bool, bytes]] = {}
    for extension in reader.children(octets, listed):
        if extension.tag != _SEQUENCE:
            raise Malformed("crl-form", "An extension is not a SEQUENCE.")
        name = reader.expect(octets, extension.content, extension.end, _OID)
        value = reader.element(octets, name.end, extension.end)
        critical = False
        if value.tag == _BOOLEAN:
            critical = reader.boolean(octets, value)
            if not critical:
                raise Malformed("crl-form", "An extension says critical FALSE, which DER leaves out.")
            value = reader.element(octets, value.end, extension.end)
        if value.tag != _OCTET_STRING or value.end != extension.end:
            raise Malformed("crl-form", "An extension does not end with its value.")
        dotted = reader.oid(octets, name)
        if dotted in found:
            raise Malformed("crl-form", f"The extension {dotted} stands twice.")
        found[dotted] = (critical, octets[value.content : value.end])
    if not found:
        raise Malformed("crl-form", "The extensions are there and empty.")
    return found


@lru_cache(maxsize=64)
def _public_key(spki: bytes) -> Any:
    return cast("Any", serialization.load_der_public_key(spki))
