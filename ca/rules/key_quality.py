"""Which public keys may stand in a certificate. Ring 1: pure; decides about keys only, not about who shows them.

Everything that can be said from the octets is said before the key is loaded, so that a huge or odd key costs nothing (R22):

- the kinds and sizes of `ca.der.algorithms`, no others;
- RSA: 2^16 < e < 2^256 and odd (FIPS 186-5 5.4 (e)), an odd modulus without small factors, whose primes are not close (Fermat),
  and without the fingerprint of CVE-2017-15361 (ROCA);
- EC: a point on its curve (cryptography checks it; there is no cofactor to abuse on the curves of the table);
- none of the keys that stand in examples of standards, or in tests of everybody (`known_keys`);
- Ed25519: canonical, and none of the points of small order, for which anybody can make signatures.

A key has one encoding here: the certificate gets the canonical SubjectPublicKeyInfo, so that one key cannot pass as two (P9).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import gcd, isqrt, prod
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import serialization

from ca.der import reader, writer
from ca.der.algorithms import ALGORITHMS, Algorithm, PublicKey, algorithm_of, load_public_key
from ca.errors import Malformed, Unacceptable
from ca.model import AlgorithmName, Digest
from ca.rules import known_keys
from ca.rules.known_keys import NEW_KEY

_RSA: Final = "1.2.840.113549.1.1.1"
_EC: Final = "1.2.840.10045.2.1"
_ED25519: Final = "1.3.101.112"
_CURVES: Final = {"1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384}


def _uncompressed(curve: str, octets: int) -> bytes:
    point = writer.bit_string(b"\4" + bytes(octets))
    return writer.sequence(writer.sequence(writer.oid(_EC), writer.oid(curve)), point)[:-octets]


_OTHER: Final[tuple[bytes, Algorithm | None]] = b"", None
_UNCOMPRESSED: Final[Mapping[int, tuple[bytes, Algorithm | None]]] = {
    len(head) + octets: (head, ALGORITHMS[AlgorithmName(name)])
    for name, octets, head in (
        ("p256", 64, _uncompressed("1.2.840.10045.3.1.7", 64)),
        ("p384", 96, _uncompressed("1.3.132.0.34", 96)),
    )
}
"""Of the canonical SubjectPublicKeyInfo of a point: how long it is, and what stands in it before the coordinates."""
_SMALL_CURVES: Final = {"1.2.840.10045.3.1.1": "P-192", "1.3.132.0.33": "P-224"}
_ML_DSA: Final = frozenset(f"2.16.840.1.101.3.4.3.{number}" for number in (17, 18, 19))

LARGEST_RSA: Final = 4096
FERMAT_ROUNDS: Final = 100
"""As many steps as public CAs take; each finds primes whose difference is some 2^(bits/4) at most."""


def _primes(below: int) -> tuple[int, ...]:
    return tuple(n for n in range(2, below) if all(n % d for d in range(2, isqrt(n) + 1)))


_SMALL_PRODUCT: Final = prod(_primes(1024))
# ROCA: primes of the faulty library are k * M + (65537 ^ a mod M) with M a product of small primes, so a modulus is a power of 65537
# modulo each of them. Where 65537 generates the whole group the test says nothing; those primes are left out.
_ROCA: Final = tuple(
    (prime, powers)
    for prime in _primes(168)[1:]
    if len(powers := frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))) < prime - 1
)
_ROCA_PRODUCT: Final = prod(prime for prime, _ in _ROCA)

_P25519: Final = 2**255 - 19
_ORDER_EIGHT: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER: Final = frozenset((0, 1, _P25519 - 1, _ORDER_EIGHT, _P25519 - _ORDER_EIGHT))
"""The y coordinates of the eight points whose order divides 8."""


class AcceptedKey(NamedTuple):
    """A public key that passed."""

    spki: bytes
    """SubjectPublicKeyInfo, canonical."""
    spki_sha256: Digest
    key: PublicKey
    algorithm: Algorithm


def accepted_key(spki: bytes) -> AcceptedKey:
    """Judge a DER SubjectPublicKeyInfo.

    Raises:
        Malformed: it cannot be read (`bad-public-key`).
        Unacceptable: a kind or size that is not in the table (`key-type`), a key that is not safe (`weak-key`), or one of an example (`known-key`).
    """
    head, row = _UNCOMPRESSED.get(len(spki), _OTHER)
    if row is not None and spki.startswith(head):
        # All that is left to judge is the point, by loading it: it must lie on the curve, with coordinates below the prime.
        key, algorithm, canonical = load_public_key(spki), row, spki
    else:
        _judge(spki)
        key = load_public_key(spki)
        algorithm = algorithm_of(key)
        canonical = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = Digest(sha256(canonical).digest())
    known_keys.refuse(digest)
    return AcceptedKey(canonical, digest, key, algorithm)


def _judge(spki: bytes) -> None:
    """What can be said of a key before it is loaded."""
    try:
        kind, parameters, content = _parts(spki)
    except Malformed as error:
        raise Malformed("bad-public-key", "The public key cannot be read.", why=error.what) from None
    if kind == _RSA:
        _judge_rsa(content)
    elif kind == _EC:
        _judge_curve(parameters)
    elif kind == _ED25519:
        _judge_ed25519(content)
    elif kind not in _ML_DSA:
        raise _key_type(f"Its algorithm is {kind}")


def _parts(spki: bytes) -> tuple[str, bytes, bytes]:
    whole = reader.only(spki, 0x30)
    algorithm, key = reader.row(spki, whole.content, whole.end, 0x30, 0x03)
    kind = reader.expect(spki, algorithm.content, algorithm.end, 0x06)
    if key.end != whole.end:
        raise Malformed("bad-public-key", "There are octets after the key.")
    return reader.oid(spki, kind), spki[kind.end : algorithm.end], reader.bit_string(spki, key)


def _key_type(why: str) -> Unacceptable:
    what = "This kind or size of public key is not accepted."
    return Unacceptable("key-type", what, why=f"{why}; accepted are {', '.join(ALGORITHMS)}.", fix=NEW_KEY)


def _weak(why: str) -> Unacceptable:
    return Unacceptable("weak-key", "The public key is not safe to use.", why=why, fix=NEW_KEY)


def _judge_curve(parameters: bytes) -> None:
    try:
        curve = reader.oid(parameters, reader.only(parameters, 0x06))
    except Malformed:
        raise _key_type("Its curve is not given by a name (RFC 5480 2.1.1)") from None
    if curve in _SMALL_CURVES:
        raise _weak(f"{_SMALL_CURVES[curve]} is too small a curve.")
    if curve not in _CURVES:
        raise _key_type(f"Its curve is {curve}")


def _judge_ed25519(content: bytes) -> None:
    y = int.from_bytes(content, "little") & (1 << 255) - 1
    if len(content) != 32 or y >= _P25519:
        raise Malformed(
            "bad-public-key", "The public key cannot be read.", why="An Ed25519 key is 32 octets in canonical form (RFC 8032 5.1.3)."
        )
    if y in _SMALL_ORDER:
        raise _weak("It is a point of small order: anybody could sign for it.")


def _judge_rsa(content: bytes) -> None:
    try:
        whole = reader.only(content, 0x30)
        first = reader.expect(content, whole.content, whole.end, 0x02)
        second = reader.expect(content, first.end, whole.end, 0x02)
        if second.end != whole.end:
            raise Malformed("bad-public-key", "There are octets after the exponent.")
        if first.end - first.content > LARGEST_RSA // 8 + 1:
            raise _key_type(f"It is RSA of more than {LARGEST_RSA} bits")
        modulus, exponent = reader.integer(content, first), reader.integer(content, second)
    except Malformed as error:
        raise Malformed("bad-public-key", "The RSA key cannot be read.", why=error.what) from None
    size = modulus.bit_length()
    if modulus <= 0 or size < 2048:
        raise _weak(f"RSA of {size} bits can be broken.")
    if size not in (3072, 4096):
        raise _key_type(f"It is RSA of {size} bits")
    if not (1 << 16) < exponent < (1 << 256) or exponent % 2 == 0:
        raise _weak("The RSA public exponent must be odd, above 2^16 and below 2^256 (FIPS 186-5); 65537 is the usual one.")
    if gcd(modulus, _SMALL_PRODUCT) != 1:
        raise _weak("The RSA modulus has a small prime factor.")
    if has_roca_fingerprint(modulus):
        raise _weak("The RSA modulus was made by the faulty library of CVE-2017-15361 (ROCA) and can be factored.")
    if has_close_primes(modulus):
        raise _weak("The two primes of the RSA modulus are close together, so Fermat's method factors it.")


def has_roca_fingerprint(modulus: int) -> bool:
    """CVE-2017-15361: the modulus is a power of 65537 modulo each of the small primes."""
    residue = modulus % _ROCA_PRODUCT
    return all(residue % prime in powers for prime, powers in _ROCA)


def has_close_primes(modulus: int, rounds: int = FERMAT_ROUNDS) -> bool:
    """Whether Fermat's factorisation succeeds within so many steps. Perfect squares count."""
    a = isqrt(modulus)
    if a * a == modulus:
        return True
    for _ in range(rounds):
        a += 1
        rest = a * a - modulus
        # A square is 0, 1, 4 or 9 modulo 16: that spares most of the roots.
        if rest & 15 in (0, 1, 4, 9):
            root = isqrt(rest)
            if root * root == rest:
                return True
    return False


__all__ = ["NEW_KEY", "AcceptedKey", "accepted_key", "has_close_primes", "has_roca_fingerprint"]
