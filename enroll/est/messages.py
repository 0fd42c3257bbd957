"""EST's bodies (RFC 7030, 8951, 9908): base64 of DER in, base64 of DER out. Ring 1: pure.

Every body is base64 without PEM's lines around it, whatever a Content-Transfer-Encoding says (RFC 8951 3). What we send is made by our DER
writer; openssl and asn1crypto judge it in the tests.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.der import writer
from ca.der.bundle import certs_only
from ca.errors import Denied, Malformed
from ca.model import Profile

PKCS10: Final = "application/pkcs10"
CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
CSRATTRS: Final = "application/csrattrs"
PKCS8: Final = "application/pkcs8"
LARGEST: Final = 64 * 1024
OPERATIONS: Final = frozenset({"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"})
"""No label may be called so (RFC 7030 3.2.2)."""

_SET: Final = 0x31
_CONTEXT_0: Final = 0xA0
_CONTEXT_1: Final = 0xA1
_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.61"
_EXTENSION_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.62"
_ALTERNATIVE_NAME: Final = "2.5.29.17"
_EC_KEY: Final = "1.2.840.10045.2.1"
_RSA_KEY: Final = "1.2.840.113549.1.1.1"
_CURVES: Final = {"p256": "1.2.840.10045.3.1.7", "p384": "1.3.132.0.34"}
_RSA_BITS: Final = {"rsa-3072": 3072, "rsa-4096": 4096}
_OTHER_KEYS: Final = {
    "ed25519": "1.3.101.112",
    "ml-dsa-44": "2.16.840.1.101.3.4.3.17",
    "ml-dsa-65": "2.16.840.1.101.3.4.3.18",
    "ml-dsa-87": "2.16.840.1.101.3.4.3.19",
}
_CHALLENGE: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.7")
_CHANGE_NAME: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
"""RFC 6402 2.8: ChangeSubjectName."""
_DECRYPT_KEYS: Final = frozenset(map(x509.ObjectIdentifier, ("1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54")))
"""RFC 7030 4.4.1: DecryptKeyIdentifier and AsymmetricDecryptKeyIdentifier."""


def decode(body: bytes) -> bytes:
    """The DER of a request's body.

    Raises:
        Malformed: it is not base64 (`bad-encoding`): PEM and bare DER are told apart from it in the words.
    """
    if len(body) > LARGEST:
        raise Malformed("body-too-large", "The request body is too large.", why=f"At most {LARGEST} octets are read.")
    if body.lstrip()[:5] == b"-----":
        raise _not_base64("It is PEM; send what stands between its lines.")
    if body[:1] == b"\x30" and not body.isascii():
        raise _not_base64("It is DER; send it as base64.")
    try:
        octets = base64.b64decode(re.sub(rb"[\r\n\t ]", b"", body), validate=True)
    except (binascii.Error, ValueError):
        raise _not_base64("") from None
    if not octets:
        raise _not_base64("It is empty.")
    return octets


def _not_base64(why: str) -> Malformed:
    return Malformed(
        "bad-encoding", "The request body is not base64 of DER (RFC 8951 3).", why=why, fix="openssl req -outform DER | base64"
    )


def encode(der: bytes) -> bytes:
    """Base64 in lines of 76, which whoever reads line by line can read too (RFC 8951 3)."""
    return base64.encodebytes(der)


def key_and_certificate(key: bytes, certificate: bytes, *, boundary: str) -> tuple[bytes, str]:
    """The answer to serverkeygen (RFC 7030 4.4.2): two parts, each base64; and its type."""
    parts = []
    for kind, octets in ((PKCS8, key), (CERTS_ONLY, certs_only([certificate]))):
        head = f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
        parts.append(head + encode(octets).replace(b"\n", b"\r\n"))
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/mixed; boundary={boundary}"


def csrattrs(profile: Profile) -> bytes:
    """What a CSR for this profile should hold (RFC 8951 4, RFC 9908 3): the kind of key, and the same as a template.

    Names and extensions come from the profile and the evidence, so none are asked for, save that a profile which needs names says that the
    client is to name them.
    """
    algorithm = profile.key_algorithms[0]
    return writer.sequence(_key_attribute(algorithm), _attribute(_TEMPLATE, _template(profile)))


def _attribute(kind: str, *values: bytes) -> bytes:
    return writer.sequence(writer.oid(kind), writer.tlv(_SET, b"".join(sorted(values))))


def _key_attribute(algorithm: str) -> bytes:
    if algorithm in _CURVES:
        return _attribute(_EC_KEY, writer.oid(_CURVES[algorithm]))
    if algorithm in _RSA_BITS:
        return _attribute(_RSA_KEY, writer.integer(_RSA_BITS[algorithm]))
    return writer.oid(_OTHER_KEYS[algorithm])


def _template(profile: Profile) -> bytes:
    """CertificationRequestInfoTemplate: version, no subject (nothing is required of it), the key, and attributes."""
    algorithm = profile.key_algorithms[0]
    if algorithm in _CURVES:
        key = writer.sequence(writer.oid(_EC_KEY), writer.oid(_CURVES[algorithm]))
    elif algorithm in _RSA_BITS:
        # The size of an RSA key is told by a key of that size that is none (RFC 9908 3.4).
        bits = _RSA_BITS[algorithm]
        placeholder = writer.sequence(writer.integer(1 << (bits - 1)), writer.integer(65537))
        key = writer.sequence(writer.oid(_RSA_KEY), writer.NULL) + writer.bit_string(placeholder)
    else:
        key = writer.sequence(writer.oid(_OTHER_KEYS[algorithm]))
    attributes = b""
    if profile.required_names:
        wanted = writer.sequence(writer.sequence(writer.oid(_ALTERNATIVE_NAME)))
        attributes = _attribute(_EXTENSION_TEMPLATE, wanted)
    return writer.sequence(writer.integer(0), writer.tlv(_CONTEXT_0, key), writer.tlv(_CONTEXT_1, attributes))


# ---- What a CSR says beyond its key ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What EST has rules about in a CSR; its key and proof are read elsewhere."""

    challenge: bytes | None
    """challengePassword, which may bind the request to its connection (RFC 7030 3.5). Never logged."""
    changes_name: bool
    encrypted_key: bool
    """A key that the server makes is to be encrypted for its receiver, beside TLS (RFC 7030 4.4.1)."""
    subject: x509.Name
    names: frozenset[x509.GeneralName]


def read_asked(der: bytes) -> Asked:
    """Those parts of a CSR.

    Raises:
        Malformed: `bad-csr`.
    """
    try:
        csr = x509.load_der_x509_csr(der)
        challenge = next((one.value for one in csr.attributes if one.oid == _CHALLENGE), None)
        return Asked(
            challenge=challenge,
            encrypted_key=any(one.oid in _DECRYPT_KEYS for one in csr.attributes),
            changes_name=any(one.oid == _CHANGE_NAME for one in csr.attributes),
            subject=csr.subject,
            names=_names(csr.extensions),
        )
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
        raise Malformed("bad-csr", "This is not a certificate signing request (PKCS#10) in DER.") from None


def _names(extensions: x509.Extensions) -> frozenset[x509.GeneralName]:
    try:
        return frozenset(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return frozenset()


def same_identity(asked: Asked, current: bytes) -> None:
    """A renewal is for the identity of the certificate that it renews (RFC 7030 4.2.2). What the CSR leaves out, it does not change.

    Raises:
        Denied: `another-identity`.
        Malformed: `bad-certificate`: the CSR says who it is for, and the certificate cannot be read.
    """
    if asked.changes_name:
        raise Denied(
            "another-identity", "A renewal changes no name (RFC 7030 4.2.2, RFC 6402 2.8).", why="The CSR holds ChangeSubjectName."
        )
    if not asked.subject.rdns and not asked.names:
        return
    subject, names = _identity(current)
    if asked.subject.rdns and asked.subject != subject:
        common = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        raise Denied(
            "another-identity",
            "The CSR has another subject than the certificate that it renews (RFC 7030 4.2.2).",
            why=f"The certificate's common name is {common[0].value!r}." if common else "",
        )
    if asked.names and asked.names != names:
        raise Denied("another-identity", "The CSR has other alternative names than the certificate that it renews (RFC 7030 4.2.2).")


def _identity(certificate: bytes) -> tuple[x509.Name, frozenset[x509.GeneralName]]:
    try:
        read = x509.load_der_x509_certificate(certificate)
        return read.subject, _names(read.extensions)
    except Exception:  # noqa: BLE001 - as above: a proxy hands on what its client showed
        raise Malformed("bad-certificate", "The certificate of the connection cannot be read.") from None
