"""The one table of signature algorithms, and what is read off a SubjectPublicKeyInfo. Ring 1.

No other module asks what kind of key it has (outside `ca/keys`, which makes them): rows differ only in data. RSA signs PKCS#1 v1.5
with SHA-256; ML-DSA is pure with an empty context (RFC 9881: HashML-DSA is not for certificates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ca.der import writer
from ca.errors import Malformed, Unacceptable
from ca.model import AlgorithmName

# What cryptography's keys have in common has no type of its own there, so these stay Any inside this module.
PublicKey = Any


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row.

    `identifier` is the DER AlgorithmIdentifier of its signatures (parameters NULL for RSA, absent for all others: RFC 5280 4.1.1.2, RFC 5758,
    RFC 8410, RFC 9881). `digest` is the hash that is signed, or None where the whole message is. `arguments` are what follows the
    data in cryptography's sign and verify.
    """

    name: AlgorithmName
    identifier: bytes
    digest: str | None
    arguments: tuple[Any, ...]
    matches: Callable[[PublicKey], bool]


def _identifier(dotted: str, parameters: bytes = b"") -> bytes:
    return writer.sequence(writer.oid(dotted), parameters)


def _curve(name: str) -> Callable[[PublicKey], bool]:
    return lambda key: isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == name


def _rsa(bits: int) -> Callable[[PublicKey], bool]:
    return lambda key: isinstance(key, rsa.RSAPublicKey) and key.key_size == bits


def _is(kind: type) -> Callable[[PublicKey], bool]:
    return lambda key: isinstance(key, kind)


_SHA256_RSA = _identifier("1.2.840.113549.1.1.11", writer.NULL)
_PKCS1 = (padding.PKCS1v15(), hashes.SHA256())

_ROWS = (
    ("p256", _identifier("1.2.840.10045.4.3.2"), "sha256", (ec.ECDSA(hashes.SHA256()),), _curve("secp256r1")),
    ("p384", _identifier("1.2.840.10045.4.3.3"), "sha384", (ec.ECDSA(hashes.SHA384()),), _curve("secp384r1")),
    ("ed25519", _identifier("1.3.101.112"), None, (), _is(ed25519.Ed25519PublicKey)),
    ("rsa-3072", _SHA256_RSA, "sha256", _PKCS1, _rsa(3072)),
    ("rsa-4096", _SHA256_RSA, "sha256", _PKCS1, _rsa(4096)),
    ("ml-dsa-44", _identifier("2.16.840.1.101.3.4.3.17"), None, (), _is(mldsa.MLDSA44PublicKey)),
    ("ml-dsa-65", _identifier("2.16.840.1.101.3.4.3.18"), None, (), _is(mldsa.MLDSA65PublicKey)),
    ("ml-dsa-87", _identifier("2.16.840.1.101.3.4.3.19"), None, (), _is(mldsa.MLDSA87PublicKey)),
)

ALGORITHMS: Final = {
    AlgorithmName(name): Algorithm(AlgorithmName(name), identifier, digest, arguments, matches)
    for name, identifier, digest, arguments, matches in _ROWS
}


def load_public_key(spki: bytes) -> PublicKey:
    """The public key in a DER SubjectPublicKeyInfo.

    Raises:
        Malformed: not a SubjectPublicKeyInfo.
        Unacceptable: a kind of key we do not know (`key-type`).
    """
    try:
        return serialization.load_der_public_key(spki)
    except UnsupportedAlgorithm as error:
        raise Unacceptable("key-type", "This kind of public key is not supported.", why=str(error)) from None
    except ValueError as error:
        raise Malformed("bad-public-key", "The public key cannot be read.", why=str(error)) from None


@lru_cache(maxsize=64)
def cached_public_key(spki: bytes) -> PublicKey:
    """As `load_public_key`, remembered: for issuers, whose few keys verify every signature."""
    return load_public_key(spki)


def algorithm_of(key: PublicKey) -> Algorithm:
    """The row of a public key.

    Raises:
        Unacceptable: none fits (`key-type`): another curve, another RSA size, another kind.
    """
    for row in ALGORITHMS.values():
        if row.matches(key):
            return row
    size = getattr(key, "key_size", None)
    kind = _kind(key)
    raise Unacceptable(
        "key-type",
        "This kind or size of public key is not accepted.",
        why=f"It is {kind}{f' of {size} bits' if size else ''}; accepted are {', '.join(ALGORITHMS)}.",
        fix="Make a new key, for example: openssl ecparam -name prime256v1 -genkey -noout -out device.key",
    )


def _kind(key: PublicKey) -> str:
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


def kind_of(key: PublicKey) -> str:
    """What any public key is called, also one that we would not accept: the name of its row, or kind and size (`rsa-2048`)."""
    row = next((row for row in ALGORITHMS.values() if row.matches(key)), None)
    return row.name if row is not None else f"{_kind(key)}-{getattr(key, 'key_size', 0)}".lower()


def verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Check a signature made with the algorithm of the key's row.

    Raises:
        Unacceptable: the key has no row (`key-type`), or the signature does not hold (`bad-signature`).
    """
    try:
        key.verify(signature, message, *algorithm_of(key).arguments)
    except InvalidSignature:
        raise Unacceptable("bad-signature", "The signature does not verify.") from None


def digest_arguments(row: Algorithm) -> tuple[Any, ...] | None:
    """What follows a digest, made with the hash `row.digest`, in cryptography's sign and verify; None where the message itself is signed."""
    if row.digest is None:
        return None
    algorithm: Any = _HASHES[row.digest]
    if isinstance(row.arguments[0], ec.ECDSA):
        return (ec.ECDSA(Prehashed(algorithm)),)
    return (*row.arguments[:-1], Prehashed(algorithm))


_HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}


def verify_digest(key: PublicKey, signature: bytes, digest: bytes) -> None:
    """As `verify`, where only the message's digest is at hand: a CRL of millions of entries is not held in memory.

    Raises:
        Unacceptable: as there.
    """
    try:
        key.verify(signature, digest, *(digest_arguments(algorithm_of(key)) or ()))
    except InvalidSignature:
        raise Unacceptable("bad-signature", "The signature does not verify.") from None
