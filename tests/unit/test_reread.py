"""Nothing is released that a second parser reads differently, or whose signature does not hold (P11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ca.der.certificate import assemble
from ca.errors import Broken
from ca.model import AlgorithmName
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


def test_P11_every_flipped_octet_of_a_finished_certificate_is_found() -> None:
    made = drafted()
    der = signed(made, key("p256", "issuing"))
    for at in range(len(der)):
        octets = bytearray(der)
        octets[at] ^= 1
        with pytest.raises(Broken):
            reread(made, bytes(octets), issuing())


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
