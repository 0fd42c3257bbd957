"""Writing DER (X.690). Ring 1: pure, bytes in, bytes out.

Only what our envelopes need. Names, SubjectPublicKeyInfo and most extension values come from cryptography as finished octets.
"""

from __future__ import annotations

from functools import lru_cache
from time import gmtime

from ca.errors import Malformed
from ca.model import UnixTime

SEQUENCE = 0x30
SET = 0x31
NULL = b"\x05\x00"
TRUE = b"\x01\x01\xff"

FIRST_GENERALIZED = 2524608000
"""2050-01-01T00:00:00Z: from here on times are GeneralizedTime (RFC 5280 4.1.2.5)."""
LAST_TIME = 253402300799
"""9999-12-31T23:59:59Z."""


def length(count: int) -> bytes:
    """The length octets of `count` content octets, in the shortest form (X.690 10.1)."""
    if count < 0x80:
        return bytes((count,))
    size = (count.bit_length() + 7) // 8
    return bytes((0x80 | size,)) + count.to_bytes(size, "big")


def tlv(tag: int, content: bytes) -> bytes:
    """One element with a single-octet tag."""
    count = len(content)
    if count < 0x80:
        return bytes((tag, count)) + content
    return bytes((tag,)) + length(count) + content


def sequence(*elements: bytes) -> bytes:
    """SEQUENCE of elements that are already encoded."""
    return tlv(SEQUENCE, b"".join(elements))


def explicit(number: int, element: bytes) -> bytes:
    """[number] EXPLICIT around an encoded element."""
    return tlv(0xA0 | number, element)


def implicit(number: int, content: bytes) -> bytes:
    """[number] IMPLICIT of a primitive type: `content` is its content octets."""
    return tlv(0x80 | number, content)


def integer(value: int) -> bytes:
    """INTEGER, also negative, in the fewest octets (X.690 8.3.2)."""
    size = value.bit_length() // 8 + 1 if value >= 0 else (value + 1).bit_length() // 8 + 1
    return tlv(0x02, value.to_bytes(size, "big", signed=True))


def enumerated(value: int) -> bytes:
    """ENUMERATED of a small non-negative value."""
    return b"\x0a" + integer(value)[1:]


def octet_string(content: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(0x04, content)


def bit_string(content: bytes) -> bytes:
    """BIT STRING with no unused bits."""
    return tlv(0x03, b"\x00" + content)


@lru_cache(maxsize=256)
def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted text."""
    arcs = [int(arc) for arc in dotted.split(".")]
    octets = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        chunk = [arc & 0x7F]
        while arc := arc >> 7:
            chunk.append(0x80 | arc & 0x7F)
        octets += bytes(reversed(chunk))
    return tlv(0x06, bytes(octets))


def generalized_time(when: UnixTime) -> bytes:
    """GeneralizedTime `YYYYMMDDHHMMSSZ`: seconds, no fraction, UTC (RFC 5280 4.1.2.5.2)."""
    if not -62135596800 <= when <= LAST_TIME:
        raise Malformed("time-out-of-range", "The time does not fit the years 1 to 9999.")
    t = gmtime(when)
    text = f"{t[0]:04d}{t[1]:02d}{t[2]:02d}{t[3]:02d}{t[4]:02d}{t[5]:02d}Z"
    return b"\x18\x0f" + text.encode()


def time(when: UnixTime) -> bytes:
    """Time of certificates and CRLs: UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280 4.1.2.5)."""
    if when >= FIRST_GENERALIZED or when < -631152000:
        return generalized_time(when)
    t = gmtime(when)
    text = f"{t[0] % 100:02d}{t[1]:02d}{t[2]:02d}{t[3]:02d}{t[4]:02d}{t[5]:02d}Z"
    return b"\x17\x0d" + text.encode()


def extension(dotted: str, value: bytes, *, critical: bool) -> bytes:
    """Extension (RFC 5280 4.1): `value` is the DER that goes inside extnValue; FALSE is left out, as DER demands."""
    return sequence(oid(dotted), TRUE if critical else b"", octet_string(value))
