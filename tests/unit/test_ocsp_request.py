"""The request reader: what it reads, what it refuses, and that nothing but Malformed ever comes out."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as library
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.der import writer
from ca.errors import Malformed
from ocsp.model import CertificateId, Request
from ocsp.rules.issuers import HASHES, key_octets
from ocsp.rules.request import read_request
from tests.fakes import ocsp as fakes

CA = fakes.authority()
ONE = fakes.certificate_id(CA.issuer, 0x1234)
TWO = fakes.certificate_id(CA.issuer, 0x5678, hash_name="sha1")
SIGNATURE = writer.explicit(0, writer.sequence(writer.sequence(writer.oid("1.2.840.10045.4.3.2")), writer.bit_string(b"\x01\x02")))
DIRECTORY_NAME = writer.explicit(1, writer.explicit(4, writer.sequence()))
ACCEPTS_BASIC = writer.sequence(writer.oid("1.3.6.1.5.5.7.48.1.1"))
ACCEPTS_OTHER = writer.sequence(writer.oid("1.2.3.4"))
UNKNOWN_OID = "1.2.3.4.5"


def read(data: bytes, limit: int = 4) -> Request:
    return read_request(data, max_certificates=limit)


def false_written_out(dotted: str, value: bytes) -> bytes:
    return writer.sequence(writer.oid(dotted), b"\x01\x01\x00", writer.octet_string(value))


@pytest.mark.parametrize("hash_name", HASHES)
def test_RFC6960_4_1_1_it_reads_what_the_library_writes(hash_name: str) -> None:
    algorithm = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[hash_name]
    name_hash = hashlib.new(hash_name, CA.issuer.subject).digest()
    key_hash = hashlib.new(hash_name, key_octets(CA.issuer.spki)).digest()
    built = (
        library.OCSPRequestBuilder()
        .add_certificate_by_hash(name_hash, key_hash, 0x1234, algorithm)
        .add_extension(x509.OCSPNonce(b"n" * 32), critical=False)
        .build()
    )
    found = read(built.public_bytes(serialization.Encoding.DER))
    assert found.certificates[0].octets == fakes.certificate_id(CA.issuer, 0x1234, hash_name=hash_name)
    assert found.certificates[0].serial == 0x1234
    assert found.certificates[0].octets.endswith(found.certificates[0].prefix + b"\x02\x02\x12\x34")
    assert found.nonce == b"n" * 32


@pytest.mark.parametrize(
    ("data", "serials", "nonce"),
    [
        pytest.param(fakes.request(ONE), [0x1234], None, id="one certificate"),
        pytest.param(
            fakes.request(ONE, TWO, ONE), [0x1234, 0x5678, 0x1234], None, id="RFC 6960 4.1.1: several certificates, one of them twice"
        ),
        pytest.param(fakes.request(fakes.certificate_id(CA.issuer, 5, parameters=b"")), [5], None, id="RFC 5754 2: hash parameters absent"),
        pytest.param(fakes.request(fakes.certificate_id(CA.issuer, -5)), [-5], None, id="a negative serial is read, and never issued"),
        pytest.param(fakes.request(ONE, version=writer.explicit(0, writer.integer(0))), [0x1234], None, id="version v1 written out"),
        pytest.param(fakes.request(ONE, requestor=DIRECTORY_NAME), [0x1234], None, id="RFC 6960 4.1.2: requestorName"),
        pytest.param(
            fakes.request(ONE, requestor=DIRECTORY_NAME, signature=SIGNATURE),
            [0x1234],
            None,
            id="RFC 6960 4.1.2: optional signature is ignored",
        ),
        pytest.param(fakes.request(ONE, extensions=[fakes.nonce_extension(b"n")]), [0x1234], b"n", id="RFC 9654 2.1: nonce of 1 octet"),
        pytest.param(
            fakes.request(ONE, extensions=[fakes.nonce_extension(b"n" * 16)]), [0x1234], b"n" * 16, id="RFC 9654 2.1: nonce of 16 octets"
        ),
        pytest.param(
            fakes.request(ONE, extensions=[fakes.nonce_extension(b"n" * 32)]), [0x1234], b"n" * 32, id="RFC 9654 2.1: nonce of 32 octets"
        ),
        pytest.param(
            fakes.request(ONE, extensions=[fakes.nonce_extension(b"n" * 128)]), [0x1234], b"n" * 128, id="RFC 9654 2.1: nonce of 128 octets"
        ),
        pytest.param(
            fakes.request(ONE, extensions=[fakes.nonce_extension(b"nn", critical=True)]),
            [0x1234],
            b"nn",
            id="RFC 9654: a critical nonce is understood",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension(UNKNOWN_OID, b"\x05\x00", critical=False)]),
            [0x1234],
            None,
            id="RFC 6960 4.4: an unknown extension that is not critical is ignored",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[false_written_out(UNKNOWN_OID, b"")]), [0x1234], None, id="an extension with FALSE written out"
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.4", ACCEPTS_BASIC, critical=True)]),
            [0x1234],
            None,
            id="RFC 6960 4.4.3: a critical list of acceptable responses with the basic one",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.4", ACCEPTS_OTHER, critical=False)]),
            [0x1234],
            None,
            id="RFC 6960 4.4.3: a list of acceptable responses without the basic one gets the basic one",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.8", writer.sequence(), critical=True)]),
            [0x1234],
            None,
            id="RFC 6960 4.4.7: preferred signature algorithms are understood",
        ),
        pytest.param(
            fakes.request(ONE, single_extensions=writer.explicit(0, writer.sequence(writer.extension(UNKNOWN_OID, b"", critical=False)))),
            [0x1234],
            None,
            id="RFC 6960 4.4.6: a single extension that is not critical is ignored",
        ),
    ],
)
def test_it_reads(data: bytes, serials: list[int], nonce: bytes | None) -> None:
    found = read(data)
    assert [one.serial for one in found.certificates] == serials
    assert found.nonce == nonce


def indefinite(data: bytes) -> bytes:
    """The same request in BER: the outer SEQUENCE with indefinite length."""
    return b"\x30\x80" + data[2:] + b"\x00\x00"


def long_length(data: bytes) -> bytes:
    return b"\x30\x82" + len(data[2:]).to_bytes(2, "big") + data[2:]


GOOD = fakes.request(ONE)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="garbage: nothing"),
        pytest.param(b"\x00" * 64, id="garbage: zeros"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="garbage: text"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="garbage: a length of four gigabytes"),
        pytest.param(b"\x30" * 4000, id="garbage: nothing but tags"),
        pytest.param(GOOD[:-1], id="garbage: cut short"),
        pytest.param(GOOD + b"\x00", id="garbage: an octet too many"),
        pytest.param(CA.issuer.certificate, id="garbage: a certificate"),
        pytest.param(indefinite(GOOD), id="BER: indefinite length"),
        pytest.param(long_length(GOOD), id="BER: a length not in its shortest form"),
        pytest.param(fakes.request(ONE[:-4] + b"\x02\x03\x00\x12\x34"), id="BER: a serial not in its shortest form"),
        pytest.param(fakes.request(), id="RFC 6960 4.1.1: no certificate"),
        pytest.param(fakes.request(*[ONE] * 5), id="more certificates than allowed"),
        pytest.param(fakes.request(ONE, version=writer.explicit(0, writer.integer(1))), id="RFC 6960 4.1.1: version 2"),
        pytest.param(fakes.request(ONE, version=writer.explicit(0, b"")), id="an empty version"),
        pytest.param(fakes.request(ONE, requestor=writer.explicit(1, b"")), id="an empty requestorName"),
        pytest.param(fakes.request(ONE, requestor=writer.explicit(1, writer.NULL * 2)), id="two requestorNames"),
        pytest.param(fakes.request(ONE, signature=writer.NULL), id="no signature in the signature's place"),
        pytest.param(fakes.request(ONE, signature=writer.explicit(0, writer.sequence())), id="an empty signature"),
        pytest.param(fakes.request(ONE, signature=SIGNATURE + SIGNATURE), id="two signatures"),
        pytest.param(fakes.request(ONE, extensions=[fakes.nonce_extension(b"")]), id="RFC 9654 2.1: a nonce of 0 octets"),
        pytest.param(fakes.request(ONE, extensions=[fakes.nonce_extension(b"n" * 129)]), id="RFC 9654 2.1: a nonce of 129 octets"),
        pytest.param(fakes.request(ONE, extensions=[fakes.nonce_extension(b"n" * 60000)]), id="R21: a nonce of 60000 octets"),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.2", b"raw nonce", critical=False)]),
            id="RFC 9654 2.1: a nonce that is not inside an OCTET STRING",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.2", writer.octet_string(b"n") + b"x", critical=False)]),
            id="octets after the nonce",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[fakes.nonce_extension(b"n"), fakes.nonce_extension(b"m")]), id="RFC 5280 4.2: an extension twice"
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension(UNKNOWN_OID, b"", critical=True)]),
            id="RFC 6960 4.4: an unknown critical extension",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension("1.3.6.1.5.5.7.48.1.4", ACCEPTS_OTHER, critical=True)]),
            id="RFC 6960 4.4.3: a critical list of acceptable responses without the basic one",
        ),
        pytest.param(
            fakes.request(
                ONE, single_extensions=writer.explicit(0, writer.sequence(writer.extension("1.3.6.1.5.5.7.48.1.7", b"", critical=True)))
            ),
            id="RFC 6960 4.4.6: a critical single extension",
        ),
        pytest.param(
            fakes.request(ONE, extensions=[writer.extension(f"1.2.3.{number}", b"", critical=False) for number in range(33)]),
            id="more extensions than allowed",
        ),
        pytest.param(
            writer.sequence(writer.sequence(writer.sequence(writer.sequence(ONE)), writer.explicit(2, writer.sequence()))),
            id="an empty list of extensions",
        ),
        pytest.param(fakes.request(fakes.certificate_id(CA.issuer, 1, parameters=b"\x04\x00")), id="RFC 5754 2: other hash parameters"),
        pytest.param(fakes.request(writer.sequence(writer.integer(1))), id="a CertID of another form"),
        pytest.param(fakes.request(ONE, single_extensions=writer.NULL), id="something else after a CertID"),
    ],
)
def test_it_refuses(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


@given(st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_any_octets_give_a_request_or_Malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        read(data)


WHOLE = fakes.request(
    ONE,
    TWO,
    version=writer.explicit(0, writer.integer(0)),
    requestor=DIRECTORY_NAME,
    extensions=[fakes.nonce_extension(b"n" * 20)],
    signature=SIGNATURE,
)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(WHOLE)))
@settings(max_examples=600, deadline=None)
def test_any_change_of_a_request_gives_a_request_or_Malformed(changes: list[tuple[int, int]], keep: int) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    for candidate in (bytes(data), bytes(data[:keep])):
        try:
            found = read(candidate)
        except Malformed:
            continue
        for one in found.certificates:
            assert one.octets in candidate
            assert one.prefix in one.octets


@given(
    st.lists(st.tuples(st.sampled_from(sorted(HASHES)), st.integers(-(2**200), 2**200), st.booleans()), min_size=1, max_size=4),
    st.one_of(st.none(), st.binary(min_size=1, max_size=128)),
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(wanted: list[tuple[str, int, bool]], nonce: bytes | None) -> None:
    ids = [
        fakes.certificate_id(CA.issuer, serial, hash_name=name, parameters=writer.NULL if null else b"") for name, serial, null in wanted
    ]
    found = read(fakes.request(*ids, extensions=[] if nonce is None else [fakes.nonce_extension(nonce)]))
    assert [one.octets for one in found.certificates] == ids
    assert [one.serial for one in found.certificates] == [serial for _, serial, _ in wanted]
    assert found.nonce == nonce
    assert all(isinstance(one, CertificateId) for one in found.certificates)
