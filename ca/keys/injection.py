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
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding

from ca.der import writer
from ca.der.algorithms import ALGORITHMS
from ca.der.request import request_info
from ca.errors import Unacceptable
from ca.keys import cms
from ca.keys.memory import MemoryKey, make_private_key
from ca.model import AlgorithmName, KeyName
from ca.ports import SigningKey
from ca.rules.wrap import check_value, wrap


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
        return cms.write(key, [cms.Certified(self.certificate)])


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
