"""Certificate and CRL extensions as finished DER (RFC 5280 4.2, 5.2). Ring 1.

Values that need knowledge come from cryptography; the rest is a few constant octets. Knows nothing of profiles: what belongs into a
certificate is decided by `ca.rules.certificate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from ca.der import reader, writer
from ca.errors import Malformed

KEY_USAGES: Final = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
    "encipherOnly": "encipher_only",
    "decipherOnly": "decipher_only",
}
"""RFC 5280 4.2.1.3's words in their order, and cryptography's."""

EXTENDED_KEY_USAGES: Final = {
    "serverAuth": Eku.SERVER_AUTH,
    "clientAuth": Eku.CLIENT_AUTH,
    "codeSigning": Eku.CODE_SIGNING,
    "emailProtection": Eku.EMAIL_PROTECTION,
    "timeStamping": Eku.TIME_STAMPING,
    "OCSPSigning": Eku.OCSP_SIGNING,
}

# A constant head and 20 changing octets: what each certificate's own SubjectKeyIdentifier and AuthorityKeyIdentifier are made of.
_SKI_HEAD: Final = writer.extension("2.5.29.14", writer.octet_string(bytes(20)), critical=False)[:-20]
_SAN: Final = "2.5.29.17"


def key_identifier(spki: bytes) -> bytes:
    """Method 1 of RFC 7093 2: the leftmost 160 bits of SHA-256 of the subjectPublicKey BIT STRING's octets.

    Raises:
        Malformed: not a SubjectPublicKeyInfo.
    """
    whole = reader.only(spki, 0x30)
    _algorithm, key = reader.row(spki, whole.content, whole.end, 0x30, 0x03)
    return sha256(reader.bit_string(spki, key)).digest()[:20]


def subject_key_identifier(identifier: bytes) -> bytes:
    """The subjectKeyIdentifier, non-critical (RFC 5280 4.2.1.2)."""
    if len(identifier) == 20:
        return _SKI_HEAD + identifier
    return writer.extension("2.5.29.14", writer.octet_string(identifier), critical=False)


def authority_key_identifier(identifier: bytes) -> bytes:
    """The authorityKeyIdentifier with keyIdentifier only, non-critical (RFC 5280 4.2.1.1)."""
    return writer.extension("2.5.29.35", writer.sequence(writer.implicit(0, identifier)), critical=False)


def basic_constraints(*, is_ca: bool, path_length: int | None) -> bytes:
    """The basicConstraints, critical (RFC 5280 4.2.1.9)."""
    value = x509.BasicConstraints(ca=is_ca, path_length=path_length).public_bytes()
    return writer.extension("2.5.29.19", value, critical=True)


def key_usage(usages: Iterable[str]) -> bytes:
    """The keyUsage, critical, from RFC words (RFC 5280 4.2.1.3)."""
    wanted = set(usages)
    bits = {ours: word in wanted for word, ours in KEY_USAGES.items()}
    return writer.extension("2.5.29.15", x509.KeyUsage(**bits).public_bytes(), critical=True)


def extended_key_usage(usages: Sequence[str]) -> bytes:
    """The extKeyUsage, non-critical but for timeStamping (RFC 5280 4.2.1.12, RFC 3161 2.3)."""
    value = x509.ExtendedKeyUsage([EXTENDED_KEY_USAGES[word] for word in usages]).public_bytes()
    return writer.extension("2.5.29.37", value, critical=tuple(usages) == ("timeStamping",))


def subject_alternative_name(general_names: Sequence[bytes], *, critical: bool) -> bytes:
    """The subjectAltName of encoded general names; critical where the subject is empty (RFC 5280 4.2.1.6)."""
    return writer.extension(_SAN, writer.sequence(*general_names), critical=critical)


def _uri(url: str) -> x509.UniformResourceIdentifier:
    try:
        return x509.UniformResourceIdentifier(url)
    except ValueError as error:
        raise Malformed("bad-url", f"{url!r} cannot stand in a certificate.", why=str(error)) from None


def crl_distribution_points(url: str) -> bytes:
    """The cRLDistributionPoints with one full name, non-critical (RFC 5280 4.2.1.13)."""
    point = x509.DistributionPoint(full_name=[_uri(url)], relative_name=None, reasons=None, crl_issuer=None)
    return writer.extension("2.5.29.31", x509.CRLDistributionPoints([point]).public_bytes(), critical=False)


def authority_information_access(*, ocsp_url: str | None, issuer_url: str | None) -> bytes:
    """The authorityInfoAccess, non-critical: the responder first, then where the issuer's DER certificate is (RFC 5280 4.2.2.1)."""
    pairs = ((Access.OCSP, ocsp_url), (Access.CA_ISSUERS, issuer_url))
    value = x509.AuthorityInformationAccess([x509.AccessDescription(method, _uri(url)) for method, url in pairs if url])
    return writer.extension("1.3.6.1.5.5.7.1.1", value.public_bytes(), critical=False)


NO_REV_AVAIL: Final = writer.extension("2.5.29.56", writer.NULL, critical=False)
"""RFC 9608 2: no revocation information will ever be there."""

OCSP_NOCHECK: Final = writer.extension("1.3.6.1.5.5.7.48.1.5", writer.NULL, critical=False)
"""RFC 6960 4.2.2.2.1: do not ask whether this responder's own certificate is revoked."""


def crl_number(number: int) -> bytes:
    """The cRLNumber, non-critical (RFC 5280 5.2.3)."""
    return writer.extension("2.5.29.20", writer.integer(number), critical=False)
