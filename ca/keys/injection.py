"""Keys that are made here for a unit, and leave only wrapped to its transport key. Ring 3.

Two transports: an AES key that the unit shares with its line (AES-KWP, RFC 5649, over the PKCS#8 form), or a certificate whose key is in the unit (CMS
AuthEnvelopedData, RFC 5083 and 5084, with AES-256-GCM; its key goes by RSAES-OAEP, RFC 3560, or by ephemeral ECDH, RFC 5753).

The plain key exists in this process for as long as its CSR is signed and it is wrapped: it is returned to nobody, written to no file, and its octets are
overwritten. What OpenSSL holds of it is cleared when it frees the key. On a token (`ca.keys.pkcs11_injection`) it is never here at all.
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import writer
from ca.der.algorithms import ALGORITHMS
from ca.der.request import request_info
from ca.errors import Unacceptable
from ca.keys.memory import MemoryKey, make_private_key
from ca.model import AlgorithmName, KeyName
from ca.ports import SigningKey
from ca.rules.wrap import check_value, wrap

_DATA: Final = "1.2.840.113549.1.7.1"
_AUTH_ENVELOPED: Final = "1.2.840.113549.1.9.16.1.23"
_AES256_GCM: Final = "2.16.840.1.101.3.4.1.46"
_AES256_WRAP: Final = "2.16.840.1.101.3.4.1.45"
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_OAEP: Final = "1.2.840.113549.1.1.7"
_MGF1: Final = "1.2.840.113549.1.1.8"
_ECDH_SHA256: Final = "1.3.132.1.11.1"
_EC_KEY: Final = "1.2.840.10045.2.1"
SMALLEST_RSA: Final = 2048


@dataclass(frozen=True, slots=True)
class Injected:
    """What leaves of a key that was made for a unit."""

    csr: bytes
    """PKCS#10, DER, signed by the key."""
    wrapped: bytes
    form: str
    """`aes-kwp` or `cms`."""
    transport: str
    """What names the transport key: its check value, or SHA-256 of its certificate."""


class Transport(Protocol):
    """How keys travel to one unit."""

    @property
    def form(self) -> str: ...

    @property
    def name(self) -> str: ...

    def wrap(self, key: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SharedTransport:
    """An AES key that the unit has too."""

    key: bytes

    def __repr__(self) -> str:
        return f"SharedTransport({self.name})"

    @property
    def form(self) -> str:
        """`aes-kwp`."""
        return "aes-kwp"

    @property
    def name(self) -> str:
        """Its check value.

        Raises:
            Malformed: it is no AES key (`no-aes-key`).
        """
        return check_value(self.key)

    def wrap(self, key: bytes) -> bytes:
        """AES-KWP.

        Raises:
            Unacceptable: an AES key below 256 bits (`transport-weak`).
        """
        if len(self.key) != 32:
            raise Unacceptable("transport-weak", "Keys travel under AES-256.", why=f"The transport key has {len(self.key) * 8} bits.")
        return wrap(key, self.key)


@dataclass(frozen=True, slots=True)
class CertifiedTransport:
    """A key in the unit, by its certificate (DER)."""

    certificate: bytes

    @property
    def form(self) -> str:
        """`cms`."""
        return "cms"

    @property
    def name(self) -> str:
        """SHA-256 of the certificate."""
        return hashlib.sha256(self.certificate).hexdigest()

    def wrap(self, key: bytes) -> bytes:
        """CMS AuthEnvelopedData over the key as id-data.

        Raises:
            Unacceptable: a kind of key that nothing can be encrypted to, or a weak one (`transport-weak`).
        """
        found = x509.load_der_x509_certificate(self.certificate)
        public = found.public_key()
        content, nonce = AESGCM.generate_key(256), AESGCM.generate_key(128)[:12]
        try:
            if isinstance(public, rsa.RSAPublicKey) and public.key_size >= SMALLEST_RSA:
                recipient = _by_oaep(found, public, content)
            elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= 256:
                recipient = _by_ecdh(found, public, content)
            else:
                raise Unacceptable(
                    "transport-weak", "Nothing is encrypted to a key of that kind or size.", why="RSA-2048, P-256 and above are taken."
                )
            sealed = AESGCM(content).encrypt(nonce, key, None)
        finally:
            overwrite(content)
        algorithm = writer.sequence(writer.oid(_AES256_GCM), writer.sequence(writer.octet_string(nonce), writer.integer(16)))
        inner = writer.sequence(writer.oid(_DATA), algorithm, writer.implicit(0, sealed[:-16]))
        body = writer.sequence(writer.integer(0), writer.tlv(0x31, recipient), inner, writer.octet_string(sealed[-16:]))
        return writer.sequence(writer.oid(_AUTH_ENVELOPED), writer.explicit(0, body))


def _recipient(found: x509.Certificate) -> bytes:
    return writer.sequence(found.issuer.public_bytes(), writer.integer(found.serial_number))


def _by_oaep(found: x509.Certificate, public: rsa.RSAPublicKey, content: bytes) -> bytes:
    sha256 = writer.sequence(writer.oid(_SHA256), writer.NULL)
    parameters = writer.sequence(writer.explicit(0, sha256), writer.explicit(1, writer.sequence(writer.oid(_MGF1), sha256)))
    wrapped = public.encrypt(content, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    return writer.sequence(
        writer.integer(0), _recipient(found), writer.sequence(writer.oid(_OAEP), parameters), writer.octet_string(wrapped)
    )


def _by_ecdh(found: x509.Certificate, public: ec.EllipticCurvePublicKey, content: bytes) -> bytes:
    ephemeral = ec.generate_private_key(public.curve)
    wrapping = writer.sequence(writer.oid(_AES256_WRAP))
    shared_info = writer.sequence(wrapping, writer.explicit(2, writer.octet_string((256).to_bytes(4, "big"))))
    shared = ephemeral.exchange(ec.ECDH(), public)
    key = X963KDF(hashes.SHA256(), 32, shared_info).derive(shared)
    wrapped = aes_key_wrap(key, content)
    overwrite(shared)
    overwrite(key)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    originator = writer.tlv(0xA1, writer.sequence(writer.oid(_EC_KEY)) + writer.bit_string(point))
    keys = writer.sequence(writer.sequence(_recipient(found), writer.octet_string(wrapped)))
    agreement = writer.sequence(writer.oid(_ECDH_SHA256), wrapping)
    return writer.tlv(0xA1, writer.integer(3) + writer.explicit(0, originator) + agreement + keys)


def make(algorithm: AlgorithmName, transport: Transport) -> Injected:
    """A key for a unit, made in this process and gone when this returns.

    Raises:
        Malformed, Unacceptable: the transport key cannot be used; then no key was made.
    """
    name = transport.name
    private = make_private_key(algorithm)
    csr = csr_of(MemoryKey(KeyName("unit"), private))
    plain = private.private_bytes(Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    del private
    try:
        return Injected(csr, transport.wrap(plain), transport.form, name)
    finally:
        overwrite(plain)


def csr_of(key: SigningKey) -> bytes:
    """A CSR that says nothing but the key."""
    info = request_info({}, key.spki)
    return writer.sequence(info, ALGORITHMS[key.algorithm].identifier, writer.bit_string(key.sign(info)))


def overwrite(octets: bytes) -> None:
    """Zeros over octets that nobody may read any more. Only for those that were made here and are referred to nowhere else."""
    if len(octets) > 1:  # Python shares the shorter ones
        ctypes.memset(id(octets) + bytes.__basicsize__ - 1, 0, len(octets))
