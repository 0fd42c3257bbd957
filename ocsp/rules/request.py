"""Reading OCSP requests (RFC 6960 4.1), strictly and with bounds. Ring 1: pure.

Our own reader, because several certificates in one request are lawful. Everything is DER (BER is refused); two encodings
of a DEFAULT that DER forbids but old clients write, an explicit v1 and an explicit FALSE, are read. Whatever the octets,
nothing but `Malformed` comes out.
"""

from __future__ import annotations

from typing import Final

from ca.der import reader
from ca.errors import Malformed
from ocsp.model import CertificateId, Request

NONCE: Final = "1.3.6.1.5.5.7.48.1.2"
ACCEPTABLE_RESPONSES: Final = "1.3.6.1.5.5.7.48.1.4"
PREFERRED_ALGORITHMS: Final = "1.3.6.1.5.5.7.48.1.8"
BASIC_RESPONSE: Final = "1.3.6.1.5.5.7.48.1.1"

MAX_NONCE: Final = 128
MAX_EXTENSIONS: Final = 32
_LONGEST_HASH_OID: Final = 32

_SEQUENCE = 0x30
_OCTET_STRING = 0x04
_INTEGER = 0x02
_OID = 0x06
_BOOLEAN = 0x01
_VERSION = 0xA0
_REQUESTOR_NAME = 0xA1
_REQUEST_EXTENSIONS = 0xA2
_OPTIONAL_SIGNATURE = 0xA0
_SINGLE_EXTENSIONS = 0xA0


def _bad(what: str) -> Malformed:
    return Malformed("bad-ocsp-request", "The OCSP request cannot be read.", why=what)


def read_request(data: bytes, *, max_certificates: int) -> Request:
    """The certificates and the nonce of a DER OCSPRequest.

    The requestor's name and the optional signature are checked for form and otherwise ignored (RFC 6960 4.1.2: we need neither).

    Args:
        max_certificates: more of them are refused (RFC 6960 sets no limit; a responder must).

    Raises:
        Malformed: it is not DER, not an OCSPRequest, of another version, asks for too many, has a nonce of 0 or more than 128 octets
            (RFC 9654 2.1), an extension twice, or a critical extension that we do not know (RFC 6960 4.4).
    """
    whole = reader.only(data, _SEQUENCE)
    parts = list(_few(data, whole, 2))
    if not parts or parts[0].tag != _SEQUENCE:
        raise _bad("There is no TBSRequest.")
    if len(parts) == 2:
        _check_signature(data, parts[1])
    return _read_tbs(data, parts[0], max_certificates)


def _few(data: bytes, parent: reader.Element, most: int) -> list[reader.Element]:
    found: list[reader.Element] = []
    for child in reader.children(data, parent):
        if len(found) == most:
            raise _bad(f"More than {most} elements where at most {most} belong.")
        found.append(child)
    return found


def _inside(data: bytes, wrapper: reader.Element, tag: int) -> reader.Element:
    """The only element inside an EXPLICIT tag."""
    inner = reader.expect(data, wrapper.content, wrapper.end, tag)
    if inner.end != wrapper.end:
        raise _bad("Octets after the element inside an explicit tag.")
    return inner


def _check_signature(data: bytes, found: reader.Element) -> None:
    if found.tag != _OPTIONAL_SIGNATURE:
        raise _bad("Something that is not a signature follows the TBSRequest.")
    signature = _inside(data, found, _SEQUENCE)
    tags = [part.tag for part in _few(data, signature, 3)]
    if tags not in ([_SEQUENCE, 0x03], [_SEQUENCE, 0x03, 0xA0]):
        raise _bad("The signature has the wrong form.")


def _read_tbs(data: bytes, tbs: reader.Element, max_certificates: int) -> Request:
    parts = _few(data, tbs, 4)
    if parts and parts[0].tag == _VERSION and reader.integer(data, _inside(data, parts.pop(0), _INTEGER)) != 0:
        raise _bad("Its version is not v1.")
    if parts and parts[0].tag == _REQUESTOR_NAME:
        name = parts.pop(0)
        if reader.element(data, name.content, name.end).end != name.end:
            raise _bad("The requestor's name has the wrong form.")
    if not parts or parts[0].tag != _SEQUENCE:
        raise _bad("There is no list of requests.")
    listed = parts.pop(0)
    nonce = None
    if parts:
        if parts[0].tag != _REQUEST_EXTENSIONS or len(parts) > 1:
            raise _bad("Something that does not belong follows the list of requests.")
        nonce = _read_extensions(data, _inside(data, parts[0], _SEQUENCE))
    certificates: list[CertificateId] = []
    for single in reader.children(data, listed):
        if len(certificates) == max_certificates:
            raise _bad(f"It asks for more than {max_certificates} certificates.")
        certificates.append(_read_single(data, single))
    if not certificates:
        raise _bad("It asks for no certificate.")
    return Request(tuple(certificates), nonce)


def _read_single(data: bytes, single: reader.Element) -> CertificateId:
    if single.tag != _SEQUENCE:
        raise _bad("A Request is not a SEQUENCE.")
    parts = _few(data, single, 2)
    if not parts or parts[0].tag != _SEQUENCE:
        raise _bad("A Request has no CertID.")
    if len(parts) == 2:
        if parts[1].tag != _SINGLE_EXTENSIONS:
            raise _bad("Something that does not belong follows a CertID.")
        for dotted, critical, _ in _extensions(data, _inside(data, parts[1], _SEQUENCE)):
            if critical:
                raise _bad(f"Critical extension {dotted} of a single request is not supported.")
    identifier = parts[0]
    fields = _few(data, identifier, 4)
    if [field.tag for field in fields] != [_SEQUENCE, _OCTET_STRING, _OCTET_STRING, _INTEGER]:
        raise _bad("A CertID has the wrong form.")
    algorithm = _few(data, fields[0], 2)
    if not algorithm or algorithm[0].tag != _OID:
        raise _bad("The hash algorithm of a CertID has the wrong form.")
    # Parameters are absent or NULL for every hash (RFC 5754 2, RFC 9919 3.1.1). Which hashes we know is decided where the prefix is looked
    # up: to one that we do not know, no issuer belongs.
    if reader.oid(data, algorithm[0]) and algorithm[0].end - algorithm[0].start > _LONGEST_HASH_OID:
        raise _bad("The hash algorithm of a CertID is longer than any.")
    if len(algorithm) == 2 and data[algorithm[1].start : algorithm[1].end] != b"\x05\x00":
        raise _bad("The parameters of a hash algorithm are neither absent nor NULL.")
    serial = reader.integer(data, fields[3])
    return CertificateId(data[identifier.start : identifier.end], data[fields[0].start : fields[2].end], serial)


def _extensions(data: bytes, listed: reader.Element) -> list[tuple[str, bool, reader.Element]]:
    found: dict[str, tuple[str, bool, reader.Element]] = {}
    for extension in reader.children(data, listed):
        if len(found) == MAX_EXTENSIONS:
            raise _bad(f"It has more than {MAX_EXTENSIONS} extensions.")
        if extension.tag != _SEQUENCE:
            raise _bad("An Extension is not a SEQUENCE.")
        parts = _few(data, extension, 3)
        if len(parts) < 2 or parts[0].tag != _OID or parts[-1].tag != _OCTET_STRING:
            raise _bad("An Extension has the wrong form.")
        critical = False
        if len(parts) == 3:
            if parts[1].tag != _BOOLEAN:
                raise _bad("An Extension has the wrong form.")
            critical = reader.boolean(data, parts[1])
        dotted = reader.oid(data, parts[0])
        if dotted in found:
            raise _bad(f"Extension {dotted} stands there twice.")
        found[dotted] = (dotted, critical, parts[-1])
    if not found:
        raise _bad("An empty list of extensions.")
    return list(found.values())


def _read_extensions(data: bytes, listed: reader.Element) -> bytes | None:
    nonce = None
    for dotted, critical, value in _extensions(data, listed):
        if dotted == NONCE:
            nonce = _read_nonce(data, value)
        elif dotted == ACCEPTABLE_RESPONSES:
            # RFC 6960 4.4.3 binds clients to take the basic form, so a list without it is not a reason to refuse unless it is critical.
            if not _accepts_basic(data, value) and critical:
                raise _bad("It does not accept the basic response, which is the only one there is.")
        elif critical and dotted != PREFERRED_ALGORITHMS:
            # RFC 6960 4.4.7: a preference is honoured or not; the key of the responder decides here, so nothing is ever downgraded.
            raise _bad(f"Critical extension {dotted} is not supported.")
    return nonce


def _read_nonce(data: bytes, value: reader.Element) -> bytes:
    """RFC 9654 2.1: extnValue holds an OCTET STRING of 1 to 128 octets."""
    inner = _inside(data, value, _OCTET_STRING)
    nonce = data[inner.content : inner.end]
    if not 1 <= len(nonce) <= MAX_NONCE:
        raise _bad(f"A nonce of {len(nonce)} octets; 1 to {MAX_NONCE} are allowed.")
    return nonce


def _accepts_basic(data: bytes, value: reader.Element) -> bool:
    accepted = False
    for found in reader.children(data, _inside(data, value, _SEQUENCE)):
        if found.tag != _OID:
            raise _bad("The list of acceptable responses has the wrong form.")
        accepted = accepted or reader.oid(data, found) == BASIC_RESPONSE
    return accepted
