"""Reads what discovery tools found in the field: certificates, or lists of devices and their keys. Edge: reads files, contains no rule."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import pem, reader
from ca.errors import Malformed
from ca.rules.shared_keys import Sighting

LARGEST: Final = 128 * 1024 * 1024
"""Octets of one file."""
_COLUMNS: Final = frozenset(("spki_sha256", "certificate"))
_PERMANENT_IDENTIFIER: Final = "1.3.6.1.5.5.7.8.3"
_FORMS: Final = "Give certificates (PEM or DER), CSV whose first line names the columns device and spki_sha256 or certificate, or JSON lines with these names."


@dataclass(slots=True)
class Discovered:
    """What stands in the files."""

    sightings: list[Sighting] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    """Place, and why that could not be read."""


def read(octets: bytes, file: str, into: Discovered) -> None:
    """Add what a file holds.

    Raises:
        Malformed: it is too large, or of no form that is known (`discovery-unreadable`).
    """
    if len(octets) > LARGEST:
        raise Malformed(
            "discovery-unreadable", f"{file} is too large.", why=f"At most {LARGEST} octets are read.", fix="Make several files of it."
        )
    text = octets.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = text.split(b"\n", 1)[0].decode(errors="replace")
    if octets[:1] == b"\x30":
        _certificate(octets, "", file, into)
    elif text[:1] == b"{":
        _json_lines(text, file, into)
    elif _COLUMNS & {name.strip().strip('"') for name in first.split(",")}:
        _table(text, file, into)
    else:
        ders = pem.ders_of(octets, pem.CERTIFICATE)
        if not ders:
            raise Malformed("discovery-unreadable", f"{file} holds nothing that says which device has which key.", fix=_FORMS)
        for number, der in enumerate(ders, 1):
            _certificate(der, "", f"{file} certificate {number}", into)


def name_of(der: bytes) -> tuple[str, str]:
    """What a certificate calls its holder, and the SHA-256 of its public key (hex).

    The name is the subject (RFC 4514): of one attribute its value alone, so that `CN=pump-1` is pump-1. Where there is none, the subject alternative
    names; where there are none of these either, the certificate's own SHA-256.

    Raises:
        ValueError: it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of serial numbers and the like, which are no matter here: the certificate is another CA's
        try:
            read = x509.load_der_x509_certificate(der)
            spki = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return _holder(read) or f"sha256:{hashlib.sha256(der).hexdigest()}", hashlib.sha256(spki).hexdigest()
        except Exception as error:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
            raise ValueError(str(error) or type(error).__name__) from None


def _holder(certificate: x509.Certificate) -> str:
    attributes = list(certificate.subject)
    if attributes:
        return str(attributes[0].value) if len(attributes) == 1 else certificate.subject.rfc4514_string()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return ",".join(sorted(_alternative(name) for name in names))


def _alternative(name: x509.GeneralName) -> str:
    if not isinstance(name, x509.OtherName):
        return str(name.value)
    if name.type_id.dotted_string == _PERMANENT_IDENTIFIER:  # RFC 4043: SEQUENCE { identifierValue UTF8String OPTIONAL, ... }
        value = reader.expect(name.value, reader.only(name.value, 0x30).content, len(name.value), 0x0C)
        return name.value[value.content : value.end].decode()
    return name.value.hex()


def _certificate(der: bytes, device: str, place: str, into: Discovered) -> None:
    try:
        name, digest = name_of(der)
    except ValueError as error:
        into.unread.append((place, f"the certificate cannot be read: {error}"))
        return
    into.sightings.append(Sighting(device or name, digest, place))


def _json_lines(text: bytes, file: str, into: Discovered) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            _row(row, f"{file} line {number}", into)
        else:
            into.unread.append((f"{file} line {number}", "it is no JSON object"))


def _table(text: bytes, file: str, into: Discovered) -> None:
    lines = csv.DictReader(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", errors="replace", newline=""), skipinitialspace=True)
    lines.fieldnames = [name.strip() for name in lines.fieldnames or ()]
    for row in _rows(lines, file, into):
        _row(row, f"{file} line {lines.line_num}", into)


def _rows(lines: csv.DictReader[str], file: str, into: Discovered) -> Iterator[Mapping[str, Any]]:
    while True:
        try:
            row = next(lines, None)
        except csv.Error as error:
            into.unread.append((f"{file} line {lines.line_num}", str(error)))
            continue
        if row is None:
            return
        yield row


def _row(row: Mapping[str, Any], place: str, into: Discovered) -> None:
    device, digest, certificate = (_text(row.get(name)) for name in ("device", "spki_sha256", "certificate"))
    if digest:
        digest = digest.replace(":", "").lower()
        if not device:
            into.unread.append((place, "it names no device"))
        elif len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            into.unread.append((place, "spki_sha256 is not 64 hexadecimal digits"))
        else:
            into.sightings.append(Sighting(device, digest, place))
        return
    try:
        octets = certificate.encode()
        der = pem.ders_of(octets, pem.CERTIFICATE)[0] if b"-----BEGIN" in octets else base64.b64decode(octets, validate=True)
    except (Malformed, IndexError, binascii.Error, ValueError):
        into.unread.append((place, "certificate is neither PEM nor DER in base64"))
        return
    if der:
        _certificate(der, device, place, into)
    else:
        into.unread.append((place, "it has neither spki_sha256 nor certificate"))


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
