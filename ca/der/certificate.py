"""The signed envelope of certificates and CRLs, and what is read off a finished certificate. Ring 1.

Reading is left to cryptography; what is copied onwards (subject, SubjectPublicKeyInfo) keeps its very octets.
"""

from __future__ import annotations

from calendar import timegm
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ca.der import reader, writer
from ca.der.algorithms import ALGORITHMS
from ca.errors import Malformed
from ca.model import AlgorithmName, Digest, Serial, UnixTime

UNREADABLE: Final = (
    Malformed,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography and our reader raise, between them, for octets that are no certificate: its own are not all ValueErrors."""


def assemble(tbs: bytes, algorithm: AlgorithmName, signature: bytes) -> bytes:
    """Certificate or CertificateList: the same envelope (RFC 5280 4.1, 5.1)."""
    return writer.tlv(writer.SEQUENCE, tbs + ALGORITHMS[algorithm].identifier + writer.bit_string(signature))


def time_of(moment: datetime) -> UnixTime:
    """The whole seconds of an aware datetime."""
    return timegm(moment.utctimetuple())


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What others ask of a certificate that somebody shows us. Nothing here is verified."""

    der: bytes
    serial: Serial
    issuer: bytes
    """DER Name, its very octets."""
    subject: bytes
    spki: bytes
    spki_sha256: Digest
    not_before: UnixTime
    not_after: UnixTime


def read_certificate(der: bytes) -> CertificateFacts:
    """Read a DER certificate strictly.

    Raises:
        Malformed: it is not one, or has octets after its end (`bad-certificate`).
    """
    try:
        tbs = reader.expect(der, reader.only(der, 0x30).content, len(der), 0x30)
        fields = [field for field in reader.children(der, tbs) if field.tag != 0xA0]
        if reader.integer(der, fields[0]) < 1:
            # RFC 5280 4.1.2.2; cryptography would only warn.
            raise Malformed("bad-certificate", "Its serial number is not positive.")
        loaded = x509.load_der_x509_certificate(der)
        issuer, subject, spki = (der[fields[n].start : fields[n].end] for n in (2, 4, 5))
        return CertificateFacts(
            der=der,
            serial=Serial(loaded.serial_number),
            issuer=issuer,
            subject=subject,
            spki=spki,
            spki_sha256=Digest(sha256(spki).digest()),
            not_before=time_of(loaded.not_valid_before_utc),
            not_after=time_of(loaded.not_valid_after_utc),
        )
    except UNREADABLE as error:
        raise Malformed("bad-certificate", "The certificate cannot be read.", why=str(error)) from None
