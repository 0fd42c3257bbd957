"""A CSR gives a proven key and nothing else, whatever the octets are (R20, R22; P2)."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca.der import pem
from ca.der import writer as W
from ca.der.certificate import assemble
from ca.der.csr import LARGEST, read_csr, read_csr_any
from ca.der.request import request_info
from ca.errors import Malformed, Refused, Unacceptable
from tests.fakes.certificates import HASHES, KINDS, key, private_key
from tests.parts import need


def request(kind: str = "p256", *, greedy: bool = False, digest: Any = None, **options: Any) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
    if greedy:
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("bank.example")]), critical=False)
            .add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"password")
        )
    signed = builder.sign(private_key(kind, "device"), digest or HASHES.get(kind), **options)
    return signed.public_bytes(serialization.Encoding.DER)


def parts(der: bytes) -> tuple[bytes, bytes, bytes]:
    from ca.der.reader import elements

    inside = elements(der, elements(der, 0, len(der))[0].content, len(der))
    first, second, third = (der[one.start : one.end] for one in inside)
    return first, second, third


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_can_ask(kind: str) -> None:
    found = read_csr(request(kind))
    assert (found.algorithm, found.spki) == (kind, key(kind, "device").spki)


def test_what_it_asks_for_is_not_even_read() -> None:
    assert read_csr(request(greedy=True)) == read_csr(request())


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_requests_are_read_back_by_us_and_by_the_library(kind: str) -> None:
    signer = key(kind, "device")
    information = request_info({"common_name": "pump-17"}, signer.spki)
    octets = assemble(information, signer.algorithm, signer.sign(information))
    assert read_csr(octets).algorithm == kind
    assert x509.load_der_x509_csr(octets).is_signature_valid


OTHER_SIGNATURES: list[Any] = [
    pytest.param("p256", hashes.SHA384(), {}, id="P-256 with SHA-384"),
    pytest.param("p256", hashes.SHA512(), {}, id="P-256 with SHA-512"),
    pytest.param("p384", hashes.SHA256(), {}, id="P-384 with SHA-256"),
    pytest.param("rsa-3072", hashes.SHA512(), {}, id="RSA with SHA-512"),
    *[
        pytest.param(
            "rsa-3072",
            digest,
            {"rsa_padding": padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.DIGEST_LENGTH)},
            id=f"RSA-PSS with {digest.name}",
        )
        for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
    ],
]


@pytest.mark.parametrize(("kind", "digest", "options"), OTHER_SIGNATURES)
def test_other_honest_signatures_are_taken(kind: str, digest: Any, options: Any) -> None:
    assert read_csr(request(kind, digest=digest, **options)).algorithm == kind


def _small_rsa() -> bytes:
    small = rsa.generate_private_key(65537, 1024)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(small, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


GOOD = request()
INFORMATION, ALGORITHM, SIGNATURE = parts(GOOD)
_, _, OTHER_SIGNATURE = parts(request())


def _information(*fields: bytes) -> bytes:
    return W.sequence(W.sequence(*fields), ALGORITHM, SIGNATURE)


SPKI = key("p256", "device").spki
BAD: list[Any] = [
    pytest.param("bad-csr", b"", id="nothing"),
    pytest.param("bad-csr", b"GET / HTTP/1.1", id="text"),
    pytest.param("bad-csr", b"\x30\x80" + GOOD[4:] + b"\0\0", id="BER with an indefinite length"),
    pytest.param("bad-csr", GOOD + b"\0", id="an octet after the end"),
    pytest.param("bad-csr", GOOD[:-1], id="cut off"),
    pytest.param("bad-csr", W.sequence(INFORMATION, ALGORITHM), id="no signature"),
    pytest.param("bad-csr", W.sequence(INFORMATION, ALGORITHM, SIGNATURE, W.NULL), id="a fourth field"),
    pytest.param("bad-csr", _information(W.integer(1), W.sequence(), SPKI, b"\xa0\x00"), id="version 2"),
    pytest.param("bad-csr", _information(W.integer(0), W.sequence(), SPKI, b"\xa0\x00", b"\xa1\x00"), id="a field after the attributes"),
    pytest.param("bad-csr", W.sequence(INFORMATION, ALGORITHM, b"\x03\x02\x01\x00"), id="a signature with unused bits"),
    pytest.param("bad-public-key", _information(W.integer(0), W.sequence(), W.sequence(), b"\xa0\x00"), id="an empty key"),
    pytest.param("csr-too-large", b"\x30" * (LARGEST + 1), id="an octet over the limit"),
    pytest.param("csr-too-large", bytes(10 << 20), id="10 MiB"),
    pytest.param("bad-signature", W.sequence(INFORMATION, ALGORITHM, W.bit_string(b"")), id="an empty signature"),
    pytest.param("bad-signature", W.sequence(INFORMATION, ALGORITHM, W.bit_string(bytes(70))), id="a signature of zeros"),
    pytest.param(
        "bad-signature",
        W.sequence(W.sequence(W.integer(0), W.sequence(), SPKI, b"\xa0\x00"), ALGORITHM, OTHER_SIGNATURE),
        id="the signature of another request",
    ),
    pytest.param("csr-algorithm", W.sequence(INFORMATION, W.sequence(W.oid("1.2.840.10045.4.1")), SIGNATURE), id="SHA-1"),
    pytest.param("csr-algorithm", W.sequence(INFORMATION, W.sequence(W.oid("1.3.101.112")), SIGNATURE), id="another key's algorithm"),
    pytest.param("csr-algorithm", W.sequence(INFORMATION, W.sequence(), SIGNATURE), id="no algorithm"),
    pytest.param("weak-key", _small_rsa(), id="RSA-1024"),
    pytest.param(
        "weak-key",
        W.sequence(
            W.sequence(W.integer(0), W.sequence(), W.sequence(W.sequence(W.oid("1.3.101.112")), W.bit_string(b"\1" + bytes(31)))),
            W.sequence(W.oid("1.3.101.112")),
            W.bit_string(b"\1" + bytes(63)),
        ),
        id="an Ed25519 key for which everybody can sign, with a signature that verifies",
    ),
]


@pytest.mark.parametrize(("code", "octets"), BAD)
def test_a_request_is_refused(code: str, octets: bytes) -> None:
    with pytest.raises(Refused) as error:
        read_csr(octets)
    assert error.value.code == code
    assert error.value.what


@given(st.binary(max_size=300))
def test_any_octets_give_a_typed_error(octets: bytes) -> None:
    with pytest.raises(Refused):
        read_csr(octets)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_damaged_request_is_refused(at: int, change: int) -> None:
    octets = bytearray(GOOD)
    octets[at % len(octets)] ^= change
    with pytest.raises((Malformed, Unacceptable)):
        read_csr(bytes(octets))


def test_pem_is_taken_where_files_are_given() -> None:
    for label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
        assert read_csr_any(("some text\n" + pem.pem(label, GOOD)).encode()) == (GOOD, read_csr(GOOD))
    assert read_csr_any(GOOD)[0] == GOOD
    for wrong in (b"", b"text", pem.pem("CERTIFICATE", GOOD).encode(), (pem.pem(pem.REQUEST, GOOD) * 2).encode(), bytes(3 * LARGEST)):
        with pytest.raises(Malformed):
            read_csr_any(wrong)


def test_requests_of_openssl_are_read(tmp_path: Path) -> None:
    openssl = need("openssl")
    command = [openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=pump", "-keyout"]
    made = subprocess.run([*command, tmp_path / "key"], capture_output=True, check=True).stdout
    assert read_csr_any(made)[1].algorithm == "p256"


# ---- PEM ------------------------------------------------------------------------------------------------------------


def test_pem_and_back() -> None:
    for count in (0, 1, 47, 48, 49, 1000):
        text = pem.pem("X", bytes(count))
        assert all(len(line) <= 64 for line in text.splitlines()[1:-1])
        assert pem.ders_of(text.encode().replace(b"\n", b"\r\n"), "X") == [bytes(count)]


BAD_PEM: list[Any] = [
    pytest.param(b"-----BEGIN X-----\n!!!!\n-----END X-----\n", id="not base64"),
    pytest.param(b"-----BEGIN X-----\nAAA\n-----END X-----\n", id="missing padding"),
    pytest.param(b"-----BEGIN X-----\nAAAA\n-----END Y-----\n", id="ends as something else"),
    pytest.param(b"-----BEGIN X-----\nAAAA\n", id="no end"),
    pytest.param(base64.b64encode(b"abc"), id="bare base64"),
]


@pytest.mark.parametrize("text", BAD_PEM)
def test_damaged_pem_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        pem.der_of(text, "X")
