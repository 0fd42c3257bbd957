"""What a TPM 2.0 says of a key, read strictly: public areas, what TPM2_Certify attests, and its signature. Ring 1: pure.

Numbers and layouts are those of the TPM 2.0 Library, part 2 (1.59); each function names its structure. Everything is bounded, nothing may be left
over, and what is not a signing key of a kind we use is refused here: whoever calls gets facts, never octets to interpret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from ca.errors import Malformed, Unauthenticated
from ca.model import Digest

LARGEST: Final = 1024
"""Octets of one structure; the largest honest one, an RSA-4096 public area, has some 540."""
MAGIC: Final = 0xFF544347
"""TPM_GENERATED_VALUE: a TPM puts it before what it makes itself, and signs no digest of others that begins so with a restricted key."""
CERTIFY: Final = 0x8017
"""TPM_ST_ATTEST_CERTIFY."""

_RSA, _ECC, _NULL = 0x0001, 0x0023, 0x0010
_RSASSA, _RSAPSS, _ECDSA = 0x0014, 0x0016, 0x0018
_HASHES: Final[dict[int, tuple[str, Any]]] = {
    0x000B: ("sha256", hashes.SHA256()),
    0x000C: ("sha384", hashes.SHA384()),
    0x000D: ("sha512", hashes.SHA512()),
}
_CURVES: Final[dict[int, Any]] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
_ATTRIBUTES: Final = {
    1 << 1: "fixedTPM",
    1 << 2: "stClear",
    1 << 4: "fixedParent",
    1 << 5: "sensitiveDataOrigin",
    1 << 6: "userWithAuth",
    1 << 7: "adminWithPolicy",
    1 << 10: "noDA",
    1 << 11: "encryptedDuplication",
    1 << 16: "restricted",
    1 << 17: "decrypt",
    1 << 18: "sign",
    1 << 19: "x509sign",
}
"""TPMA_OBJECT, 8.3."""


@dataclass(frozen=True, slots=True)
class Public:
    """A public area (TPMT_PUBLIC) of a signing key."""

    name: bytes
    """What a TPM calls the key: its hash algorithm and the hash of its public area (part 1, 16)."""
    attributes: frozenset[str]
    spki: bytes
    """SubjectPublicKeyInfo of the key."""
    key: Any

    @property
    def spki_sha256(self) -> Digest:
        return Digest(hashlib.sha256(self.spki).digest())


@dataclass(frozen=True, slots=True)
class Certified:
    """What a TPM attested with TPM2_Certify (TPMS_ATTEST)."""

    nonce: bytes
    """extraData: what the caller of TPM2_Certify gave as qualifyingData."""
    name: bytes
    """Of the key that it speaks of."""
    firmware: int


class _Octets:
    """Reads to the end, and never beyond."""

    def __init__(self, octets: bytes, what: str) -> None:
        if len(octets) > LARGEST:
            raise Malformed("tpm-structure-too-large", f"The {what} is too large.", why=f"It has {len(octets)} octets; at most {LARGEST}.")
        self._octets, self._at, self._what = octets, 0, what

    def take(self, count: int) -> bytes:
        part = self._octets[self._at : self._at + count]
        if len(part) != count:
            raise self.wrong("It ends too early.")
        self._at += count
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        if self._at != len(self._octets):
            raise self.wrong("There are octets after its end.")

    def wrong(self, why: str) -> Malformed:
        return Malformed("tpm-structure", f"The {self._what} cannot be read.", why=why, fix="Send what the TPM gave, octet by octet.")


def _hash(number: int, octets: _Octets) -> tuple[str, Any]:
    found = _HASHES.get(number)
    if found is None:
        raise octets.wrong(f"Its hash algorithm 0x{number:04x} is none that is accepted (SHA-256, SHA-384, SHA-512).")
    return found


def read_public(area: bytes, what: str) -> Public:
    """A TPMT_PUBLIC (12.2.4) of an RSA or elliptic curve key that signs.

    Args:
        what: it is, for people.

    Raises:
        Malformed: `tpm-structure`, `tpm-structure-too-large`.
    """
    octets = _Octets(area, what)
    kind, digest = octets.number(2), octets.number(2)
    algorithm, _ = _hash(digest, octets)
    bits = octets.number(4)
    unknown = bits & ~sum(_ATTRIBUTES)
    if unknown:
        raise octets.wrong(f"Its attributes have the reserved bits 0x{unknown:x}.")
    octets.sized()  # the policy: what it takes to use the key, and nothing that the key is
    if kind == _RSA:
        key: Any = _rsa(octets)
    elif kind == _ECC:
        key = _ecc(octets)
    else:
        raise octets.wrong(f"Its type 0x{kind:04x} is neither RSA nor an elliptic curve.")
    octets.end()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    name = digest.to_bytes(2, "big") + hashlib.new(algorithm, area).digest()
    return Public(name, frozenset(word for bit, word in _ATTRIBUTES.items() if bits & bit), spki, key)


def _scheme(octets: _Octets, known: frozenset[int]) -> None:
    """A signing key has no symmetric algorithm, and its scheme is none or one of these with a hash."""
    if octets.number(2) != _NULL:
        raise octets.wrong("It has a symmetric algorithm, which keys that protect others have.")
    scheme = octets.number(2)
    if scheme == _NULL:
        return
    if scheme not in known:
        raise octets.wrong(f"Its scheme 0x{scheme:04x} is none that is accepted.")
    _hash(octets.number(2), octets)


def _rsa(octets: _Octets) -> Any:
    _scheme(octets, frozenset({_RSASSA, _RSAPSS}))
    bits, exponent = octets.number(2), octets.number(4)
    modulus = octets.sized()
    if bits not in {2048, 3072, 4096} or len(modulus) * 8 != bits or not modulus[0] & 0x80 or not modulus[-1] & 1:
        raise octets.wrong("Its modulus is not of 2048, 3072 or 4096 bits, or not of the length it says.")
    if exponent not in {0, 65537}:
        raise octets.wrong("Its exponent is not 65537.")
    return rsa.RSAPublicNumbers(65537, int.from_bytes(modulus, "big")).public_key()


def _ecc(octets: _Octets) -> Any:
    _scheme(octets, frozenset({_ECDSA}))
    curve = _CURVES.get(octets.number(2))
    if octets.number(2) != _NULL:
        raise octets.wrong("It has a key derivation scheme, which no signing key has.")
    x, y = octets.sized(), octets.sized()
    if curve is None:
        raise octets.wrong("Its curve is neither P-256 nor P-384.")
    if max(len(x), len(y)) > (curve.key_size + 7) // 8:
        raise octets.wrong("Its point is longer than its curve's.")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
    except ValueError:
        raise octets.wrong("Its point is not on its curve.") from None


def read_certified(attest: bytes) -> Certified:
    """A TPMS_ATTEST (10.12.8) made by TPM2_Certify.

    Raises:
        Malformed: `tpm-structure`, `tpm-structure-too-large`.
        Unauthenticated: no TPM made it (`attest-magic`), or it attests something else (`attest-type`).
    """
    octets = _Octets(attest, "attestation")
    if octets.number(4) != MAGIC:
        raise Unauthenticated("attest-magic", "No TPM made this attestation.", why="It does not begin with TPM_GENERATED_VALUE.")
    kind = octets.number(2)
    if kind != CERTIFY:
        raise Unauthenticated(
            "attest-type", "The attestation is not of a key.", why=f"Its type is 0x{kind:04x}; TPM2_Certify makes 0x{CERTIFY:04x}."
        )
    octets.sized()  # qualifiedSigner: who signs is told by the signature
    nonce = octets.sized()
    octets.take(16)  # TPMS_CLOCK_INFO: clock, resets, restarts
    if octets.number(1) > 1:
        raise octets.wrong("Its clock is neither safe nor not.")
    firmware = octets.number(8)
    name = octets.sized()
    octets.sized()  # qualifiedName: where in the TPM the key hangs; fixedParent says that it stays there
    octets.end()
    return Certified(nonce, name, firmware)


def check_signature(public: Public, signature: bytes, message: bytes) -> None:
    """A TPMT_SIGNATURE (11.3.4) over a message.

    Raises:
        Malformed: `tpm-structure`, `tpm-structure-too-large`.
        Unauthenticated: it is not of that key (`attest-signature`).
    """
    octets = _Octets(signature, "attestation's signature")
    scheme = octets.number(2)
    _, digest = _hash(octets.number(2), octets)
    arguments: tuple[Any, ...]
    curve = isinstance(public.key, ec.EllipticCurvePublicKey)
    if scheme not in ({_ECDSA} if curve else {_RSASSA, _RSAPSS}):
        raise octets.wrong(f"Its scheme 0x{scheme:04x} is not one of the key that is said to have made it.")
    if curve:
        r, s = octets.sized(), octets.sized()
        octets.end()
        signed, arguments = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), (ec.ECDSA(digest),)
    else:
        signed = octets.sized()
        octets.end()
        pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.AUTO)
        arguments = (padding.PKCS1v15() if scheme == _RSASSA else pss, digest)
    try:
        public.key.verify(signed, message, *arguments)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise Unauthenticated(
            "attest-signature",
            "The attestation's signature does not hold.",
            why="The attestation key did not make it, or what it signed was changed.",
        ) from None
