"""Weak, odd and huge public keys are refused with a reason, before they cost anything (R22)."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from ca.der import writer as W
from ca.errors import Malformed, Refused
from ca.rules.key_quality import accepted_key, has_close_primes, has_roca_fingerprint
from tests.fakes.certificates import KINDS, key, private_key

MODULUS = private_key("rsa-3072", "device").public_key().public_numbers().n
FACTORS = private_key("rsa-3072", "device").private_numbers()
EC = "1.2.840.10045.2.1"
P256, P384, P192, P224, P521 = "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.2.840.10045.3.1.1", "1.3.132.0.33", "1.3.132.0.35"
P25519 = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826


def spki(algorithm: bytes, content: bytes) -> bytes:
    return W.sequence(algorithm, W.bit_string(content))


def rsa(n: int, e: int = 65537) -> bytes:
    return spki(W.sequence(W.oid("1.2.840.113549.1.1.1"), W.NULL), W.sequence(W.integer(n), W.integer(e)))


def on(curve: str, point: bytes) -> bytes:
    return spki(W.sequence(W.oid(EC), W.oid(curve)), point)


def ed25519(y: int, sign: int = 0) -> bytes:
    return spki(W.sequence(W.oid("1.3.101.112")), (y | sign << 255).to_bytes(32, "little"))


SMALL = prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))


def _roca_factor(multiplier: int) -> int:
    """As the faulty library made its primes: a power of 65537 modulo a product of small primes."""
    while any((found := multiplier * SMALL + pow(65537, multiplier, SMALL)) % d == 0 for d in range(3, 1024, 2)):
        multiplier += 1
    return found


def roca(bits: int) -> int:
    start = (3 << bits // 2 - 2) // SMALL
    return _roca_factor(start) * _roca_factor(start + (1 << bits // 4))


POINT = private_key("p256", "device").public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
CLOSE = (1 << 1536) - 2**70 + 1

WEAK: list[Any] = [
    pytest.param("weak-key", rsa(MODULUS >> 2048 | 1), id="RSA-1024"),
    pytest.param("weak-key", rsa(MODULUS >> 1025 | 1), id="RSA-2047"),
    pytest.param("key-type", rsa(MODULUS >> 1024 | 1), id="RSA-2048, which is not in the table"),
    pytest.param("key-type", rsa(MODULUS >> 1 | 1), id="RSA-3071"),
    pytest.param("key-type", rsa(MODULUS << 5000 | 1), id="RSA-8072"),
    pytest.param("key-type", rsa((1 << 16384) | 1), id="RSA-16385"),
    pytest.param("weak-key", rsa(MODULUS, 1), id="RSA with e = 1"),
    pytest.param("weak-key", rsa(MODULUS, 3), id="RSA with e = 3"),
    pytest.param("weak-key", rsa(MODULUS, 65536), id="RSA with an even e"),
    pytest.param("weak-key", rsa(MODULUS, 1 << 256 | 1), id="RSA with e of 257 bits"),
    pytest.param("weak-key", rsa(MODULUS, -3), id="RSA with a negative e"),
    pytest.param("weak-key", rsa(-MODULUS), id="RSA with a negative modulus"),
    pytest.param("weak-key", rsa(0), id="RSA with modulus 0"),
    pytest.param("weak-key", rsa(MODULUS + 1), id="RSA with an even modulus"),
    pytest.param("weak-key", rsa((1 << 3071) + 1), id="RSA with the factor 3"),
    pytest.param("weak-key", rsa(roca(3072)), id="RSA of the faulty library (ROCA)"),
    pytest.param("weak-key", on(P192, b"\4" + bytes(48)), id="P-192"),
    pytest.param("weak-key", on(P224, b"\4" + bytes(56)), id="P-224"),
    pytest.param("key-type", on(P521, b"\4" + bytes(132)), id="P-521, which is not in the table"),
    pytest.param("key-type", spki(W.sequence(W.oid(EC), W.sequence(W.integer(1))), POINT), id="EC with a curve of its own (CVE-2020-0601)"),
    pytest.param("key-type", spki(W.sequence(W.oid(EC)), POINT), id="EC without a curve"),
    pytest.param("bad-public-key", on(P256, b"\4" + bytes(63) + b"\1"), id="a point off its curve"),
    pytest.param("bad-public-key", on(P256, b"\0"), id="the point at infinity"),
    pytest.param("bad-public-key", on(P384, POINT), id="a point of another curve"),
    pytest.param("key-type", spki(W.sequence(W.oid("1.3.101.110")), bytes(32)), id="X25519"),
    pytest.param("key-type", spki(W.sequence(W.oid("1.2.840.10040.4.1")), W.integer(5)), id="DSA"),
    pytest.param("key-type", spki(W.sequence(W.oid("1.3.101.113")), bytes(57)), id="Ed448"),
    pytest.param("bad-public-key", ed25519(P25519 + 2), id="Ed25519 in a second spelling"),
    pytest.param("bad-public-key", spki(W.sequence(W.oid("2.16.840.1.101.3.4.3.17")), bytes(1311)), id="ML-DSA-44 an octet short"),
    pytest.param("bad-public-key", spki(W.sequence(W.oid("2.16.840.1.101.3.4.3.17"), W.NULL), bytes(1312)), id="ML-DSA with parameters"),
    pytest.param("bad-public-key", b"", id="nothing"),
    pytest.param("bad-public-key", POINT, id="a bare point"),
    pytest.param("bad-public-key", on(P256, POINT) + b"\0", id="an octet after the end"),
    *[
        pytest.param("weak-key", ed25519(y, sign), id=f"Ed25519 of small order, y {str(y)[:6]}, sign {sign}")
        for y in (0, 1, P25519 - 1, ORDER_8, P25519 - ORDER_8)
        for sign in (0, 1)
    ],
]


@pytest.mark.parametrize(("code", "octets"), WEAK)
def test_a_key_is_refused(code: str, octets: bytes) -> None:
    with pytest.raises(Refused) as error:
        accepted_key(octets)
    assert error.value.code == code
    assert error.value.why
    if code != "bad-public-key":
        assert error.value.fix


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_table_is_accepted(kind: str) -> None:
    found = accepted_key(key(kind, "device").spki)
    assert found.spki == key(kind, "device").spki
    assert found.algorithm.name == kind


def test_P9_a_key_has_one_encoding_however_it_is_written() -> None:
    private = private_key("p256", "device")
    compressed = private.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    hybrid = bytes((6 | POINT[-1] & 1,)) + POINT[1:]
    spellings = (on(P256, POINT), on(P256, compressed), on(P256, hybrid))
    assert len({accepted_key(one).spki_sha256 for one in spellings}) == 1
    bare = spki(W.sequence(W.oid("1.2.840.113549.1.1.1")), W.sequence(W.integer(MODULUS), W.integer(65537)))
    assert accepted_key(bare).spki == rsa(MODULUS)


PRIMES = {
    "p256": (P256, 2**256 - 2**224 + 2**192 + 2**96 - 1, 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B),
    "p384": (
        P384,
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
}
"""Of y^2 = x^3 - 3x + b (FIPS 186): the prime, and b."""


@pytest.mark.parametrize("name", PRIMES)
def test_P9_a_coordinate_that_is_written_a_prime_too_large_is_no_second_spelling(name: str) -> None:
    curve, prime, b = PRIMES[name]
    size = (prime.bit_length() + 7) // 8
    x = next(x for x in range(1, 100) if pow(x**3 - 3 * x + b, (prime - 1) // 2, prime) == 1)
    y = pow(x**3 - 3 * x + b, (prime + 1) // 4, prime)
    assert accepted_key(on(curve, b"\4" + x.to_bytes(size, "big") + y.to_bytes(size, "big"))).algorithm.name == name
    with pytest.raises(Refused) as error:
        accepted_key(on(curve, b"\4" + (x + prime).to_bytes(size, "big") + y.to_bytes(size, "big")))
    assert error.value.code == "bad-public-key"


@pytest.mark.parametrize("name", KINDS)
def test_P9_what_is_taken_as_it_stands_is_what_the_library_would_write(name: str) -> None:
    octets = key(name, "device").spki
    loaded = serialization.load_der_public_key(octets)
    assert accepted_key(octets).spki == loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_close_primes_are_found_and_honest_ones_are_not() -> None:
    assert has_close_primes(CLOSE * (CLOSE + 2**100))
    assert has_close_primes(CLOSE * CLOSE)
    assert not has_close_primes(FACTORS.p * FACTORS.q)


def test_the_roca_fingerprint_is_found_and_honest_keys_do_not_have_it() -> None:
    assert has_roca_fingerprint(roca(3072))
    assert not has_roca_fingerprint(MODULUS)
    assert not has_roca_fingerprint(private_key("rsa-4096", "device").public_key().public_numbers().n)


def test_a_close_modulus_of_an_accepted_size_is_refused() -> None:
    # Neither factor need be prime for Fermat, only free of small factors.
    a = (3 << 1534) + 1
    while any(a % d == 0 or (a + 2**60) % d == 0 for d in range(3, 1024, 2)):
        a += 2
    with pytest.raises(Refused, match="not safe") as error:
        accepted_key(rsa(a * (a + 2**60)))
    assert "Fermat" in error.value.why


@given(st.binary(max_size=200))
def test_any_octets_give_a_key_or_a_typed_error(octets: bytes) -> None:
    with pytest.raises((Refused, Malformed)):
        accepted_key(octets)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_any_damaged_key_gives_a_key_or_a_typed_error(at: int, value: int) -> None:
    octets = bytearray(key("rsa-3072", "device").spki)
    octets[at % len(octets)] = value
    try:
        accepted_key(bytes(octets))
    except Refused:
        pass


def test_a_true_point_of_p192_is_refused() -> None:
    """The curve's base point (SEC 2, 2.5): nothing is wrong with it but the curve."""
    point = bytes.fromhex("188da80eb03090f67cbf20eb43a18800f4ff0afd82ff101207192b95ffc8da78631011ed6b24cdd573f977a11e794811")
    octets = on(P192, b"\4" + point)
    with pytest.raises(Refused) as refused:
        accepted_key(octets)
    assert refused.value.code == "weak-key"
