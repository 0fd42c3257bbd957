"""Delegated responder certificates: what we ask for, what we accept, when we ask again (RFC 6960 4.2.2.2)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.errors import Broken
from ocsp.rules import responder as delegates
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW

CA = fakes.authority()
KEY = fakes.one_key("p256", "responder")
PUBLIC = KEY.private.public_key()


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_the_request_for_a_certificate_is_a_valid_pkcs10_that_asks_for_nothing(algorithm: str) -> None:
    key = fakes.one_key(algorithm, "responder")
    info = delegates.request_info(key.spki, CA.issuer.id)
    found = x509.load_der_x509_csr(delegates.certification_request(info, key.algorithm, key.sign(info)))
    assert found.is_signature_valid
    assert found.subject.rfc4514_string() == "CN=issuing", "requests for one key to several issuers differ, or the second repeats the first"
    assert not list(found.extensions)
    assert found.public_key() == key.private.public_key()


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_a_delegate_of_any_algorithm_is_accepted(algorithm: str) -> None:
    found = fakes.seated(CA, fakes.one_key(algorithm, "responder"))
    assert found.algorithm == algorithm
    assert (found.not_before, found.not_after) == (NOW, NOW + DAY - 1)


OTHER = fakes.authority("other")
LOOK_ALIKE = fakes.authority("issuing", use="look-alike")


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        pytest.param(fakes.delegate(CA, fakes.one_key("p256", "stranger").private.public_key()), "another key", id="for another key"),
        pytest.param(fakes.delegate(OTHER, PUBLIC), "Another CA", id="RFC 6960 4.2.2.2, R16: another issuer"),
        pytest.param(fakes.delegate(LOOK_ALIKE, PUBLIC), "signature", id="R16: a CA of the same name with another key"),
        pytest.param(fakes.delegate(CA, PUBLIC, subject=""), "subject is empty", id="an empty subject"),
        pytest.param(fakes.delegate(CA, PUBLIC, usages=()), "lacks an extension", id="RFC 6960 4.2.2.2: no extended key usage"),
        pytest.param(
            fakes.delegate(CA, PUBLIC, usages=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "OCSPSigning alone", id="RFC 6960 4.2.2.2: another usage"
        ),
        pytest.param(
            fakes.delegate(CA, PUBLIC, usages=(ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH)),
            "OCSPSigning alone",
            id="R16: OCSPSigning beside another usage",
        ),
        pytest.param(fakes.delegate(CA, PUBLIC, digital_signature=False), "digitalSignature", id="RFC 6960 4.2.2.2: no digitalSignature"),
        pytest.param(fakes.delegate(CA, PUBLIC, nocheck=False), "lacks an extension", id="RFC 6960 4.2.2.2.1: no nocheck"),
        pytest.param(fakes.delegate(CA, PUBLIC, nocheck_critical=True), "critical", id="RFC 6960 4.2.2.2.1: a critical nocheck"),
        pytest.param(fakes.delegate(CA, PUBLIC, now=NOW - 2 * DAY), "not valid now", id="it has ended"),
        pytest.param(fakes.delegate(CA, PUBLIC, now=NOW + HOUR), "not valid now", id="it has not begun"),
        pytest.param(b"\x30\x00", "cannot be read", id="no certificate"),
    ],
)
def test_RFC6960_4_2_2_2_a_delegate_that_nobody_would_believe_is_refused(certificate: bytes, why: str) -> None:
    with pytest.raises(Broken, match=why):
        delegates.responder(CA.issuer, certificate, spki=KEY.spki, algorithm=KEY.algorithm, now=NOW)


def test_a_name_that_is_encoded_otherwise_is_another_issuer() -> None:
    printable = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test issuing", _ASN1Type.PrintableString)])
    certificate = fakes.delegate(CA, PUBLIC, issuer_name=printable)
    with pytest.raises(Broken, match="Another CA"):
        delegates.responder(CA.issuer, certificate, spki=KEY.spki, algorithm=KEY.algorithm, now=NOW)


def test_renewal_is_due_about_half_way_and_not_for_all_at_once() -> None:
    points: set[Any] = set()
    for number in range(8):
        found = fakes.seated(CA, fakes.one_key("p256", f"responder {number}"))
        share = (delegates.renew_at(found) - found.not_before) / DAY
        assert 0.39 < share < 0.51
        points.add(share)
    assert len(points) > 5
