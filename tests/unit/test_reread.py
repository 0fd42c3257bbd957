"""Nothing is released that a second parser reads differently, or whose signature does not hold (P11)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
from cryptography import x509

from ca.der.algorithms import ALGORITHMS
from ca.der.certificate import assemble
from ca.errors import Broken
from ca.model import AlgorithmName, Draft
from ca.rules.reread import reread, verify_signed
from tests.fakes.certificates import KINDS, drafted, issuing, key, serial, signed


@pytest.mark.parametrize("kind", KINDS)
def test_P11_a_good_certificate_passes_and_every_kind_of_bad_signature_does_not(kind: str) -> None:
    issuer, signer = issuing(kind), key(kind, "issuing")
    made = drafted(issuer=issuer)
    good = signer.sign(made.tbs)
    reread(made, assemble(made.tbs, issuer.algorithm, good), issuer)
    others = (good[:-1], bytes(len(good)), b"", signer.sign(made.tbs + b"\0"), key(kind, "other").sign(made.tbs))
    for signature in others:
        with pytest.raises(Broken) as error:
            reread(made, assemble(made.tbs, issuer.algorithm, signature), issuer)
        assert error.value.code == "reread"


@lru_cache
def finished(*, last_bit: int) -> tuple[Draft, bytes]:
    """A certificate whose signature ends with that bit: ECDSA draws anew each time."""
    made = drafted()
    return next((made, der) for der in iter(lambda: signed(made, key("p256", "issuing")), None) if der[-1] & 1 == last_bit)


@pytest.mark.parametrize("last_bit", [0, 1], ids=["a signature that ends with a zero", "a signature that ends with a one"])
@pytest.mark.parametrize("mask", [1, 2, 4, 0x80], ids="bit {:#04x}".format)
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_P11_every_flipped_octet_of_a_finished_certificate_is_found(last_bit: int, mask: int) -> None:
    made, der = finished(last_bit=last_bit)
    for at in range(len(der)):
        octets = bytearray(der)
        octets[at] ^= mask
        with pytest.raises(Broken):
            reread(made, bytes(octets), issuing())


def test_P11_a_signature_that_claims_unused_bits_is_found() -> None:
    # Every second ECDSA signature ends with a zero bit, and cryptography reads such a BIT STRING with one bit unused as the same octets.
    made, der = finished(last_bit=0)
    at = len(made.tbs) + der.index(made.tbs) + len(ALGORITHMS[made.algorithm].identifier) + 2
    assert der[at] == 0
    odd = der[:at] + b"\x01" + der[at + 1 :]
    assert x509.load_der_x509_certificate(odd).signature == x509.load_der_x509_certificate(der).signature
    with pytest.raises(Broken, match="unused bits"):
        reread(made, odd, issuing())


def test_another_certificate_is_not_the_one_that_was_meant() -> None:
    made, other = drafted(number=3), drafted(number=4)
    with pytest.raises(Broken, match="differ"):
        reread(made, signed(other, key("p256", "issuing")), issuing())
    with pytest.raises(Broken, match="another serial"):
        reread(replace(made, serial=serial(4)), signed(made, key("p256", "issuing")), issuing())


def test_another_algorithm_outside_than_inside_is_found() -> None:
    made = drafted()
    signature = key("p256", "issuing").sign(made.tbs)
    with pytest.raises(Broken):
        reread(made, assemble(made.tbs, AlgorithmName("p384"), signature), issuing())


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"text", b"\x30\x80"])
def test_what_is_no_certificate_is_broken(octets: bytes) -> None:
    with pytest.raises(Broken):
        verify_signed(drafted(), octets, issuing().spki)
