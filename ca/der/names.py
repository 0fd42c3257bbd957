"""Distinguished names and general names: text in, DER out. Ring 1.

cryptography encodes names in general; the two forms that stand in every device certificate (a subject of organization and common name,
and the general names of subjectAltName) are written here, because they change with each certificate. Knows nothing of profiles.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.der import writer
from ca.errors import Malformed, Unacceptable
from ca.model import Name, NameKind

ATTRIBUTES: Final = {
    "country": NameOID.COUNTRY_NAME,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "serial_number": NameOID.SERIAL_NUMBER,
    "common_name": NameOID.COMMON_NAME,
}
"""The attributes a subject may have, in the order in which they are encoded."""

LONGEST_NAME: Final = 64
"""ub-common-name and ub-organization-name (RFC 5280 A.1), in characters."""

LONGEST_IDENTIFIER: Final = 128
"""Our own bound for an identifierValue, in characters (RFC 4043 has none): a device id of 64 and what a profile writes around it."""

_COMMON_NAME: Final = writer.oid("2.5.4.3")
_PERMANENT_IDENTIFIER: Final = writer.oid("1.3.6.1.5.5.7.8.3")
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
# RFC 3986 3, as far as RFC 5280 4.2.1.6 needs it: a scheme and a scheme-specific part of URI characters.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_MAILBOX: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(.+)")


def subject_name(subject: Mapping[str, str]) -> bytes:
    """The DER Name of a subject given by words (`common_name`, `organization` ...; see `ATTRIBUTES`).

    Raises:
        Malformed: an unknown word, or a value that does not fit its attribute (`bad-subject`).
    """
    unknown = sorted(set(subject) - set(ATTRIBUTES))
    if unknown:
        raise Malformed(
            "bad-subject",
            f"The subject has no attribute called {unknown[0]}.",
            why=f"Known are {', '.join(ATTRIBUTES)}.",
        )
    try:
        attributes = [x509.NameAttribute(oid, subject[word]) for word, oid in ATTRIBUTES.items() if subject.get(word)]
        return x509.Name(attributes).public_bytes()
    except ValueError as error:
        raise Malformed("bad-subject", "The subject cannot be encoded.", why=str(error)) from None


def rfc4514(name: bytes) -> str:
    """The RFC 4514 text of a DER Name.

    Raises:
        Malformed: the octets are not a Name (`bad-name`).
    """
    # cryptography reads a Name only inside something; a request with an empty key is the smallest thing that holds one.
    try:
        return _parsed(name).rfc4514_string()
    except ValueError as error:
        raise Malformed("bad-name", "The octets are not a distinguished name.", why=str(error)) from None


@lru_cache(maxsize=64)
def _parsed(name: bytes) -> x509.Name:
    spki = writer.sequence(writer.sequence(writer.oid("1.3.101.112")), writer.bit_string(bytes(32)))
    information = writer.sequence(writer.integer(0), name, spki, writer.explicit(0, b""))
    algorithm = writer.sequence(writer.oid("1.3.101.112"))
    return x509.load_der_x509_csr(writer.sequence(information, algorithm, writer.bit_string(bytes(64)))).subject


def attribute(name: bytes, word: str) -> str | None:
    """The first attribute of that kind in a DER Name, by the words of `ATTRIBUTES`; None where there is none."""
    found = _parsed(name).get_attributes_for_oid(ATTRIBUTES[word])
    return str(found[0].value) if found else None


def common_name(text: str) -> bytes:
    """The RelativeDistinguishedName of one common name, as UTF8String.

    Raises:
        Unacceptable: empty, too long, or with characters that no name needs (`bad-name`).
    """
    if not 0 < len(text) <= LONGEST_NAME:
        raise Unacceptable("bad-name", f"A common name has 1 to {LONGEST_NAME} characters.", why=f"This one has {len(text)}.")
    if not text.isprintable():
        raise Unacceptable("bad-name", "A common name holds printable characters only.")
    return writer.tlv(writer.SET, writer.sequence(_COMMON_NAME, writer.tlv(0x0C, text.encode())))


_SPECIAL: Final = re.compile(r'["+,;<>\\]')


def escaped(value: str) -> str:
    """An attribute value as RFC 4514 2.4 writes it."""
    text = _SPECIAL.sub(r"\\\g<0>", value) if _SPECIAL.search(value) else value
    if text[:1] in ("#", " "):
        text = "\\" + text
    if text.endswith(" "):
        text = text[:-1] + "\\ "
    return text


def _bad(name: Name, why: str) -> Unacceptable:
    return Unacceptable("bad-name", f"{name.value[:80]!r} cannot be a {name.kind.value} name.", why=why)


def _host(name: Name, host: str) -> str:
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(name, "A DNS name is at most 253 characters of letters, digits and hyphens between dots; write others as A-labels.")
    if labels[-1].isdigit():
        raise _bad(name, "It looks like an IP address; the kind `ip` is for those.")
    return host


def _permanent_identifier(name: Name) -> bytes:
    """The otherName of RFC 4043 2: an identifierValue, and no assigner but the certificate's issuer."""
    value = name.value
    if not 0 < len(value) <= LONGEST_IDENTIFIER or not value.isprintable():
        raise _bad(name, f"A permanent identifier has 1 to {LONGEST_IDENTIFIER} printable characters.")
    identifier = writer.sequence(writer.tlv(0x0C, value.encode()))
    return writer.explicit(0, _PERMANENT_IDENTIFIER + writer.explicit(0, identifier))


def general_name(name: Name) -> bytes:
    """The GeneralName of a text form (RFC 5280 4.2.1.6): A-labels only, no wildcard, URIs absolute, mailboxes ASCII;
    a permanent identifier without assigner (RFC 4043 2).

    Raises:
        Unacceptable: the text is not of its kind (`bad-name`).
    """
    value = name.value
    if not value.isascii():
        raise _bad(name, "Only ASCII stands in it; write international names as A-labels (RFC 9549).")
    if name.kind is NameKind.uri:
        if len(value) > 512 or not _URI.fullmatch(value):
            raise _bad(name, "A URI has a scheme and at most 512 characters of RFC 3986.")
        return writer.implicit(6, value.encode())
    if name.kind is NameKind.dns:
        return writer.implicit(2, _host(name, value).encode())
    if name.kind is NameKind.ip:
        try:
            if "%" in value:
                raise ValueError  # a zone means something on one host only, and has no place in the octets
            return writer.implicit(7, ipaddress.ip_address(value).packed)
        except ValueError:
            raise _bad(name, "It is neither an IPv4 nor an IPv6 address.") from None
    if name.kind is NameKind.permanent_identifier:
        return _permanent_identifier(name)
    match = _MAILBOX.fullmatch(value)
    if match is None or len(value) > 254:
        raise _bad(name, "It is not a mailbox of the form local@host.")
    _host(name, match[1])
    return writer.implicit(1, value.encode())
