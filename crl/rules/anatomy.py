"""Taking a CRL apart, strictly and without trust (RFC 5280 5.1). Ring 1: pure, octets in, facts out.

Owns the form: what cannot be read here is not a CRL of ours. It judges nothing against the outside; `crl.rules.gate` does. It shares
no code with what writes and signs CRLs (P6), so the signature table below is a second one on purpose. No object stays per entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from ca.der import reader
from ca.der.reader import Element
from ca.errors import Broken, Malformed
from ca.model import AlgorithmName, Digest, Issuer, Reason, Serial, UnixTime
from crl.model import Head

AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
CRL_NUMBER: Final = "2.5.29.20"
REASON_CODE: Final = "2.5.29.21"

_INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _ENUMERATED, _BOOLEAN, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x0A, 0x01, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_EXTENSIONS: Final = 0xA0
_YEAR_2050: Final = 2524608000
_LONGEST_SERIAL = 20
"""Octets, also of a CRL number (RFC 5280 4.1.2.2, 5.2.3)."""


Listed: TypeAlias = tuple[Serial, UnixTime, Reason]
"""One entry: a bare tuple, since an object for each of a million costs more than reading it."""


class _Signature(NamedTuple):
    identifier: bytes
    arguments: tuple[Any, ...]


_RSA = _Signature(bytes.fromhex("300d06092a864886f70d01010b0500"), (padding.PKCS1v15(), hashes.SHA256()))
SIGNATURES: Final[Mapping[AlgorithmName, _Signature]] = {
    AlgorithmName("p256"): _Signature(bytes.fromhex("300a06082a8648ce3d040302"), (ec.ECDSA(hashes.SHA256()),)),
    AlgorithmName("p384"): _Signature(bytes.fromhex("300a06082a8648ce3d040303"), (ec.ECDSA(hashes.SHA384()),)),
    AlgorithmName("ed25519"): _Signature(bytes.fromhex("300506032b6570"), ()),
    AlgorithmName("rsa-3072"): _RSA,
    AlgorithmName("rsa-4096"): _RSA,
    AlgorithmName("ml-dsa-44"): _Signature(bytes.fromhex("300b0609608648016503040311"), ()),
    AlgorithmName("ml-dsa-65"): _Signature(bytes.fromhex("300b0609608648016503040312"), ()),
    AlgorithmName("ml-dsa-87"): _Signature(bytes.fromhex("300b0609608648016503040313"), ()),
}


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a CRL, as they stand in its octets."""

    octets: bytes
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

    def tbs_sha256(self) -> Digest:
        with memoryview(self.octets) as whole:
            return Digest(sha256(whole[self.tbs.start : self.tbs.end]).digest())

    def number(self) -> int:
        """The CRLNumber (RFC 5280 5.2.3)."""
        if CRL_NUMBER not in self.extensions:
            raise Malformed("crl-form", "The CRL has no CRLNumber.")
        value = self.extensions[CRL_NUMBER][1]
        found = reader.only(value, _INTEGER)
        number = reader.integer(value, found)
        if number < 0 or found.end - found.content > _LONGEST_SERIAL:
            raise Malformed("crl-form", "The CRLNumber is negative or longer than 20 octets.")
        return number

    def authority_key_identifier(self) -> bytes:
        """The keyIdentifier, which must be all that the extension holds (RFC 5280 5.2.1, 4.2.1.1)."""
        if AUTHORITY_KEY_IDENTIFIER not in self.extensions:
            raise Malformed("crl-form", "The CRL has no authorityKeyIdentifier.")
        value = self.extensions[AUTHORITY_KEY_IDENTIFIER][1]
        parts = list(reader.children(value, reader.only(value, _SEQUENCE)))
        if len(parts) != 1 or parts[0].tag != 0x80:
            raise Malformed("crl-form", "The authorityKeyIdentifier holds something else than one keyIdentifier.")
        return value[parts[0].content : parts[0].end]

    def head(self) -> Head:
        return Head(self.number(), self.this_update, self.next_update, self.tbs_sha256())


def read(octets: bytes) -> Anatomy:
    """Take a CRL apart; its entries are left for `entries`.

    Raises:
        Malformed: it is not DER, or not a v2 CRL with nextUpdate (RFC 5280 5.1.2).
    """
    whole = reader.only(octets, _SEQUENCE)
    tbs = reader.expect(octets, whole.content, whole.end, _SEQUENCE)
    outer = reader.expect(octets, tbs.end, whole.end, _SEQUENCE)
    signature = reader.expect(octets, outer.end, whole.end, _BIT_STRING)
    if signature.end != whole.end:
        raise Malformed("crl-form", "The CRL goes on after its signature.")

    version = reader.expect(octets, tbs.content, tbs.end, _INTEGER)
    if reader.integer(octets, version) != 1:
        raise Malformed("crl-form", "The CRL's version is not v2.")
    inner = reader.expect(octets, version.end, tbs.end, _SEQUENCE)
    issuer = reader.expect(octets, inner.end, tbs.end, _SEQUENCE)
    this_update = reader.element(octets, issuer.end, tbs.end)
    next_update = reader.element(octets, this_update.end, tbs.end)
    if next_update.tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise Malformed("crl-form", "The CRL has no nextUpdate.", why="RFC 5280 5.1.2.5 demands it.")
    at = next_update.end
    revoked = None
    if at < tbs.end and octets[at] == _SEQUENCE:
        revoked = reader.element(octets, at, tbs.end)
        if revoked.content == revoked.end:
            raise Malformed("crl-form", "The CRL's revokedCertificates is there and empty.", why="RFC 5280 5.1.2.6 wants it absent.")
        at = revoked.end
    tagged = reader.expect(octets, at, tbs.end, _EXTENSIONS)
    if tagged.end != tbs.end:
        raise Malformed("crl-form", "The CRL's signed part goes on after its extensions.")
    listed = reader.expect(octets, tagged.content, tagged.end, _SEQUENCE)
    if listed.end != tagged.end:
        raise Malformed("crl-form", "The CRL's extensions are followed by something.")
    return Anatomy(
        octets=octets,
        tbs=tbs,
        inner_algorithm=octets[inner.start : inner.end],
        outer_algorithm=octets[outer.start : outer.end],
        issuer=octets[issuer.start : issuer.end],
        this_update=_time(octets, this_update),
        next_update=_time(octets, next_update),
        revoked=revoked,
        extensions=_extensions(octets, listed),
        signature=reader.bit_string(octets, signature),
    )


def verify(anatomy: Anatomy, issuer: Issuer) -> None:
    """Check the signature with the public key of the issuer.

    Raises:
        Broken: `crl-algorithm`, `crl-signature`.
    """
    row = SIGNATURES.get(issuer.algorithm)
    if row is None or anatomy.outer_algorithm != row.identifier:
        raise Broken("crl-algorithm", f"The CRL is not signed with {issuer.algorithm}, the algorithm of {issuer.id}.")
    if anatomy.inner_algorithm != anatomy.outer_algorithm:
        raise Broken("crl-algorithm", "The CRL's signature and signatureAlgorithm differ.", why="RFC 5280 5.1.1.2 wants them the same.")
    with memoryview(anatomy.octets) as whole, whole[anatomy.tbs.start : anatomy.tbs.end] as signed:
        try:
            _public_key(issuer.spki).verify(anatomy.signature, signed, *row.arguments)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            raise Broken("crl-signature", f"The CRL's signature does not verify with the key of {issuer.id}.") from None


def entries(anatomy: Anatomy) -> Iterator[Listed]:
    """The entries in their order. Serials must rise strictly: so none stands twice, and lists can be compared without keeping them (R08).

    Headers are read in place, since there may be millions: an entry of ours is shorter than 128 octets, so every length is one octet (X.690 8.1.3.4).

    Raises:
        Broken: `crl-entry`, `crl-order`; the text names the serial.
        Malformed: something that is not an entry.
    """
    if anatomy.revoked is None:
        return
    octets, limit = anatomy.octets, anatomy.revoked.end
    at, last = anatomy.revoked.content, 0
    while at < limit:
        end = at + 2 + octets[at + 1]
        if octets[at] != _SEQUENCE or octets[at + 1] >= 0x80 or end > limit:
            raise Malformed("crl-form", f"Something that is not an entry stands at offset {at}.")
        size = octets[at + 3]
        start, stop = at + 4, at + 4 + size
        if octets[at + 2] != _INTEGER or not size or size >= 0x80 or stop > end:
            raise Malformed("crl-form", f"An entry without a serial number stands at offset {at}.")
        serial = int.from_bytes(octets[start:stop], "big")
        first = octets[start]
        if first >= 0x80 or not serial or (not first and octets[start + 1] < 0x80):
            raise _wrong_entry(serial, "its serial is not a positive INTEGER in its shortest form")
        if size > _LONGEST_SERIAL:
            raise _wrong_entry(serial, "its serial is longer than 20 octets")
        if serial <= last:
            kind = "twice" if serial == last else "out of order"
            raise Broken("crl-order", f"Serial {serial:040x} stands {kind} in the CRL.")
        try:
            revoked_at, reason = _date_and_reason(octets[stop:end])
        except Malformed as error:
            raise _wrong_entry(serial, error.what, error.why) from None
        yield Serial(serial), revoked_at, reason
        at, last = end, serial


def _wrong_entry(serial: int, what: str, why: str = "") -> Broken:
    return Broken("crl-entry", f"The CRL's entry for serial {serial:040x} is wrong: {what}", why=why)


@lru_cache(maxsize=16384)
def _date_and_reason(rest: bytes) -> tuple[UnixTime, Reason]:
    """What follows the serial in an entry. Revocations come in bursts, so these octets repeat."""
    when = reader.element(rest, 0, len(rest))
    reason = Reason.unspecified if when.end == len(rest) else _entry_reason(rest[when.end :])
    return _moment(rest, when), reason


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


@lru_cache(maxsize=64)
def _entry_reason(element: bytes) -> Reason:
    """The reason in crlEntryExtensions, which must be all they hold (RFC 5280 5.3.1)."""
    found = _extensions(element, reader.only(element, _SEQUENCE))
    if set(found) != {REASON_CODE}:
        raise Malformed("crl-form", "it has other extensions than one reasonCode")
    critical, value = found[REASON_CODE]
    code = reader.integer(value, reader.only(value, _ENUMERATED))
    if critical:
        raise Malformed("crl-form", "its reasonCode is critical")
    if code == Reason.unspecified:
        raise Malformed("crl-form", "its reasonCode says unspecified", why="RFC 5280 5.3.1 wants it left out then.")
    if code == Reason.removeFromCRL:
        raise Malformed("crl-form", "its reasonCode says removeFromCRL", why="That belongs into delta CRLs only (RFC 5280 5.3.1).")
    try:
        return Reason(code)
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
