"""What we write: byte-equal to the library's builder for the same fields, for every algorithm, and what our own re-reading notices."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

from ca.der import reader, writer
from ca.errors import Broken
from ca.model import Reason
from ocsp.model import GOOD, NEVER_ISSUED, UNKNOWN, CertificateId, Responder, ResponseStatus, Status, Verdict, Window
from ocsp.rules import response
from ocsp.rules.issuers import key_octets
from ocsp.rules.reread import chosen, reread
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import HOUR, NOW

HASHES: dict[str, Any] = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
REASONS = {
    Reason.unspecified: None,
    Reason.keyCompromise: x509.ReasonFlags.key_compromise,
    Reason.cACompromise: x509.ReasonFlags.ca_compromise,
    Reason.affiliationChanged: x509.ReasonFlags.affiliation_changed,
    Reason.superseded: x509.ReasonFlags.superseded,
    Reason.cessationOfOperation: x509.ReasonFlags.cessation_of_operation,
    Reason.certificateHold: x509.ReasonFlags.certificate_hold,
    Reason.privilegeWithdrawn: x509.ReasonFlags.privilege_withdrawn,
    Reason.aACompromise: x509.ReasonFlags.aa_compromise,
}
SERIAL = 0x40112233445566778899AABBCCDDEEFF00112233
SHAPES = {
    "good": GOOD,
    "unknown": UNKNOWN,
    **{f"revoked for {reason.name}": Status(Verdict.revoked, NOW - 100, reason) for reason in REASONS},
}


def an_id(ca: fakes.Authority, hash_name: str = "sha256", serial: int = SERIAL) -> CertificateId:
    octets = fakes.certificate_id(ca.issuer, serial, hash_name=hash_name)
    whole = reader.only(octets, 0x30)
    fields = list(reader.children(octets, whole))
    return CertificateId(octets, octets[fields[0].start : fields[2].end], serial)


def by_library(
    ca: fakes.Authority, key: fakes.Key, certificate: bytes, *, hash_name: str, status: Status, window: Window, nonce: bytes | None
) -> tuple[bytes, library.OCSPResponse]:
    builder = library.OCSPResponseBuilder().add_response_by_hash(
        hashlib.new(hash_name, ca.issuer.subject).digest(),
        hashlib.new(hash_name, key_octets(ca.issuer.spki)).digest(),
        SERIAL,
        HASHES[hash_name],
        library.OCSPCertStatus[status.verdict.name.upper()],
        fakes.moment(window.this_update),
        fakes.moment(window.next_update),
        fakes.moment(status.since) if status.verdict is Verdict.revoked else None,
        REASONS[status.reason] if status.verdict is Verdict.revoked else None,
    )
    builder = builder.responder_id(library.OCSPResponderEncoding.HASH, x509.load_der_x509_certificate(certificate))
    builder = builder.certificates([x509.load_der_x509_certificate(certificate)])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    built = builder.sign(key.private, key.builder_hash)
    return built.public_bytes(Encoding.DER), built


def assert_byte_equal(algorithm: str, *, hash_name: str, status: Status, nonce: bytes | None) -> None:
    ca = fakes.authority()
    key = fakes.one_key(algorithm, "responder")
    responder = fakes.seated(ca, key)
    window = Window(NOW - 60, NOW + HOUR, NOW + 1800)
    theirs, parsed = by_library(ca, key, responder.certificate, hash_name=hash_name, status=status, window=window, nonce=nonce)
    # The builder asks the clock itself; what it saw is fed to ours.
    produced_at = int(parsed.produced_at_utc.timestamp())
    one = an_id(ca, hash_name)
    tbs = response.tbs_response(responder, [(one, status)], produced_at=produced_at, window=window, nonce=nonce, extended_revoke=False)
    assert tbs == parsed.tbs_response_bytes
    assert response.response(responder, tbs, parsed.signature) == theirs
    # And with a signature of our own it says what it should, and verifies.
    body = response.response(responder, tbs, key.sign(tbs))
    reread(body, responder, [(one, status)], produced_at=produced_at, window=window, nonce=nonce)


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
@pytest.mark.parametrize("nonce", [None, b"n" * 32], ids=["no nonce", "nonce"])
def test_byte_equal_to_the_library_for_every_responder_algorithm(algorithm: str, nonce: bytes | None) -> None:
    for shape in ("good", "unknown", "revoked for keyCompromise"):
        assert_byte_equal(algorithm, hash_name="sha256", status=SHAPES[shape], nonce=nonce)


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_byte_equal_to_the_library_for_every_hash_and_status(hash_name: str, shape: str) -> None:
    assert_byte_equal("p256", hash_name=hash_name, status=SHAPES[shape], nonce=None)


@pytest.mark.parametrize(
    ("status", "octets"),
    [
        pytest.param(ResponseStatus.malformedRequest, "30030a0101", id="malformedRequest is 1"),
        pytest.param(ResponseStatus.internalError, "30030a0102", id="internalError is 2"),
        pytest.param(ResponseStatus.tryLater, "30030a0103", id="tryLater is 3"),
        pytest.param(ResponseStatus.sigRequired, "30030a0105", id="sigRequired is 5"),
        pytest.param(ResponseStatus.unauthorized, "30030a0106", id="unauthorized is 6"),
    ],
)
def test_RFC6960_4_2_1_errors_are_unsigned_and_without_responseBytes(status: ResponseStatus, octets: str) -> None:
    assert response.error(status).hex() == octets
    assert library.load_der_ocsp_response(response.error(status)).response_status.value == status


def test_RFC6960_4_2_1_byKey_is_the_SHA1_of_the_responder_key_whatever_the_request_hashes() -> None:
    ca = fakes.authority()
    key = fakes.one_key("p256", "responder")
    responder = fakes.seated(ca, key)
    expected = x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()).digest
    for hash_name in HASHES:
        tbs = response.tbs_response(
            responder, [(an_id(ca, hash_name), GOOD)], produced_at=NOW, window=Window(NOW, NOW + 9, NOW), nonce=None, extended_revoke=False
        )
        found = library.load_der_ocsp_response(response.response(responder, tbs, key.sign(tbs)))
        assert found.responder_key_hash == expected
        assert found.responder_name is None


def test_RFC6960_4_2_2_3_several_certificates_are_answered_in_order_and_verify() -> None:
    ca = fakes.authority()
    key = fakes.one_key("p256", "responder")
    responder = fakes.seated(ca, key)
    entries = [
        (an_id(ca, "sha1", 5), GOOD),
        (an_id(ca, "sha256", 6), Status(Verdict.revoked, NOW - 5, Reason.certificateHold)),
        (an_id(ca, "sha512", 7), UNKNOWN),
    ]
    window = Window(NOW, NOW + 9, NOW)
    tbs = response.tbs_response(responder, entries, produced_at=NOW, window=window, nonce=b"n", extended_revoke=False)
    body = response.response(responder, tbs, key.sign(tbs))
    reread(body, responder, entries, produced_at=NOW, window=window, nonce=b"n")
    found = list(library.load_der_ocsp_response(body).responses)
    assert [one.serial_number for one in found] == [5, 6, 7]
    assert [type(one.hash_algorithm).__name__ for one in found] == ["SHA1", "SHA256", "SHA512"]


def test_RFC6960_4_4_8_extended_revoke_is_said_with_hold_since_1970() -> None:
    ca = fakes.authority()
    key = fakes.one_key("p256", "responder")
    responder = fakes.seated(ca, key)
    tbs = response.tbs_response(
        responder, [(an_id(ca), NEVER_ISSUED)], produced_at=NOW, window=Window(NOW, NOW + 9, NOW), nonce=None, extended_revoke=True
    )
    found = library.load_der_ocsp_response(response.response(responder, tbs, key.sign(tbs)))
    (extension,) = found.extensions
    assert (extension.oid.dotted_string, extension.critical) == ("1.3.6.1.5.5.7.48.1.9", False)
    assert extension.value.public_bytes() == b"\x05\x00"
    assert found.revocation_time_utc == fakes.moment(0)
    assert found.revocation_reason is x509.ReasonFlags.certificate_hold
    assert b"19700101000000Z" in tbs


def test_RFC6960_4_2_2_1_times_are_GeneralizedTime_with_seconds_also_after_2049() -> None:
    ca = fakes.authority(not_after=2_600_000_000, use="issuing")
    key = fakes.one_key("p256", "responder")
    late = 2_524_608_000 - 30
    responder = fakes.seated(ca, key, now=late)
    tbs = response.tbs_response(
        responder, [(an_id(ca), GOOD)], produced_at=late, window=Window(late, late + HOUR, late), nonce=None, extended_revoke=False
    )
    assert b"\x18\x0f20491231235930Z" in tbs
    assert b"\x18\x0f20500101005930Z" in tbs
    assert b"\x17\x0d" not in tbs


def seated_answer() -> tuple[Responder, fakes.Key, CertificateId, Window]:
    ca = fakes.authority()
    key = fakes.one_key("p256", "responder")
    return fakes.seated(ca, key), key, an_id(ca), Window(NOW - 60, NOW + HOUR, NOW + 1800)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda answer: {"window": answer["window"]._replace(next_update=NOW + 2 * HOUR)}, "window", id="another nextUpdate"),
        pytest.param(lambda answer: {"window": answer["window"]._replace(this_update=NOW)}, "window", id="another thisUpdate"),
        pytest.param(lambda _: {"produced_at": NOW + 1}, "producedAt", id="another producedAt"),
        pytest.param(lambda _: {"nonce": b"m"}, "nonce", id="another nonce"),
        pytest.param(lambda _: {"nonce": None}, "nonce", id="a nonce nobody sent"),
        pytest.param(lambda answer: {"entries": [(answer["entries"][0][0], GOOD)]}, "status", id="good in place of revoked"),
        pytest.param(
            lambda answer: {"entries": [(answer["entries"][0][0], Status(Verdict.revoked, NOW - 1, Reason.superseded))]},
            "revocation",
            id="another revocation time",
        ),
        pytest.param(
            lambda answer: {"entries": [(answer["entries"][0][0], Status(Verdict.revoked, NOW - 2, Reason.keyCompromise))]},
            "revocation",
            id="another reason",
        ),
        pytest.param(
            lambda answer: {"entries": [(replace(answer["entries"][0][0], serial=1), answer["entries"][0][1])]},
            "another certificate",
            id="another serial",
        ),
        pytest.param(
            lambda answer: {"entries": [(an_id(fakes.authority("other")), answer["entries"][0][1])]},
            "another certificate",
            id="another issuer",
        ),
        pytest.param(lambda answer: {"entries": answer["entries"] * 2}, "another number", id="an entry too few"),
        pytest.param(
            lambda answer: {"responder": fakes.seated(fakes.authority(), fakes.one_key("p256", "stranger"))},
            "signature",
            id="the key of another responder",
        ),
        pytest.param(
            lambda answer: {"responder": replace(answer["responder"], certificate=fakes.authority().issuer.certificate)},
            "delegate",
            id="another certificate inside",
        ),
        pytest.param(lambda answer: {"body": response.error(ResponseStatus.tryLater)}, "not successful", id="an error"),
        pytest.param(lambda answer: {"body": answer["body"][:-1]}, "parsing", id="cut short"),
    ],
)
def test_P11_reading_again_notices(spoil: Any, why: str) -> None:
    responder, key, one, window = seated_answer()
    status = Status(Verdict.revoked, NOW - 2, Reason.superseded)
    tbs = response.tbs_response(responder, [(one, status)], produced_at=NOW, window=window, nonce=b"n", extended_revoke=False)
    answer: dict[str, Any] = {
        "body": response.response(responder, tbs, key.sign(tbs)),
        "responder": responder,
        "entries": [(one, status)],
        "produced_at": NOW,
        "window": window,
        "nonce": b"n",
    }
    reread(**answer)
    with pytest.raises(Broken, match=why):
        reread(**{**answer, **spoil(answer)})


@pytest.mark.parametrize("mask", [1, 2, 0x80], ids="bit {:#04x}".format)
def test_P11_every_flipped_octet_of_an_answer_is_found(mask: int) -> None:
    responder, key, one, window = seated_answer()
    tbs = response.tbs_response(responder, [(one, GOOD)], produced_at=NOW, window=window, nonce=b"n", extended_revoke=False)
    # ECDSA draws anew each time; one whose last bits are zero could claim that they are unused.
    signature = next(octets for octets in iter(lambda: key.sign(tbs), None) if octets[-1] & 3 == 0)
    body = response.response(responder, tbs, signature)
    reread(body, responder, [(one, GOOD)], produced_at=NOW, window=window, nonce=b"n")
    for at in range(len(body)):
        odd = body[:at] + bytes([body[at] ^ mask]) + body[at + 1 :]
        with pytest.raises(Broken):
            reread(odd, responder, [(one, GOOD)], produced_at=NOW, window=window, nonce=b"n")


def test_P11_the_sampled_share_is_about_what_was_asked_for() -> None:
    bodies = [writer.integer(number) for number in range(4000)]
    assert sum(chosen(body, 0.0) for body in bodies) == 0
    assert sum(chosen(body, 1.0) for body in bodies) == 4000
    assert 300 < sum(chosen(body, 0.1) for body in bodies) < 500
