"""How the doctor judges what the status service answers: whatever a careful client would refuse is a finding, and named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.model import OutletCopy
from fleetca import checks_answers
from fleetca.checks_answers import Answer, judge, question
from fleetca.checks_outside import Reply
from fleetca.verdict import Level
from ocsp.rules.request import read_request
from tests.fakes import crl_world
from tests.fakes.ocsp import DAY, HOUR, NOW, Authority, Key, authority, delegate, moment, new_key

SERIAL = 0x5F00112233445566778899AABBCCDDEEFF001122
CA, KEY = authority(), new_key()
OTHER = authority("other")


def answer(
    *,
    ca: Authority = CA,
    about: Authority = CA,
    key: Key = KEY,
    certificate: bytes | None = b"",
    serial: int = SERIAL,
    status: Any = ocsp.OCSPCertStatus.GOOD,
    this_update: int = NOW - 60,
    next_update: int | None = NOW + HOUR,
    **delegated: Any,
) -> bytes:
    """An answer by cryptography's builder; each argument breaks one thing."""
    built = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=_sha256(about.issuer.subject),
        issuer_key_hash=_sha256(checks_answers.key_octets(about.issuer.spki)),
        serial_number=serial,
        algorithm=hashes.SHA256(),
        cert_status=status,
        this_update=moment(this_update),
        next_update=None if next_update is None else moment(next_update),
        revocation_time=moment(NOW - DAY) if status is ocsp.OCSPCertStatus.REVOKED else None,
        revocation_reason=None,
    )
    if certificate is None:
        named = ca.certificate
    else:
        named = x509.load_der_x509_certificate(certificate or delegate(ca, key.private.public_key(), **delegated))
        built = built.certificates([named])
    return (
        built.responder_id(ocsp.OCSPResponderEncoding.HASH, named)
        .sign(key.private, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def _sha256(octets: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(octets).digest()


def _bent(body: bytes) -> bytes:
    """Its signature by one octet."""
    signature = ocsp.load_der_ocsp_response(body).signature
    return body.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1]))


def _error(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """cryptography's builder takes producedAt from the clock, which is not what is tested."""
    monkeypatch.setattr("fleetca.checks_answers.SKEW", 10 * 365 * DAY)


def test_the_question_is_one_that_our_reader_takes() -> None:
    asked = read_request(question(CA.issuer, SERIAL), max_certificates=1)
    assert [one.serial for one in asked.certificates] == [SERIAL]


def test_an_answer_that_holds_is_what_it_says() -> None:
    assert judge(answer(), CA.issuer, SERIAL, now=NOW) == Answer("good", NOW + HOUR)
    assert judge(answer(status=ocsp.OCSPCertStatus.REVOKED), CA.issuer, SERIAL, now=NOW).says == "revoked"
    assert judge(answer(key=CA.key, certificate=None), CA.issuer, SERIAL, now=NOW) == Answer("good", NOW + HOUR)
    assert judge(_error(ocsp.OCSPResponseStatus.UNAUTHORIZED), CA.issuer, SERIAL, now=NOW) == Answer("unknown")


WRONG: list[Any] = [
    pytest.param(lambda: answer(ca=OTHER), "None of its certificates was signed by issuing", id="another issuer's delegate"),
    pytest.param(lambda: _bent(answer()), "signature", id="another signature"),
    pytest.param(lambda: answer(ca=OTHER, key=OTHER.key, certificate=None), "signature", id="no delegate and not the issuer's own key"),
    pytest.param(lambda: answer(usages=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "not for OCSP", id="a device's certificate"),
    pytest.param(lambda: answer(nocheck=False), "lacks id-pkix-ocsp-nocheck", id="a delegate without nocheck"),
    pytest.param(lambda: answer(now=NOW - 2 * DAY, life=DAY), "responder's certificate holds from", id="a delegate that has ended"),
    pytest.param(lambda: answer(next_update=NOW - 1), "It ended", id="an answer that has ended"),
    pytest.param(lambda: answer(next_update=None), "until when", id="an answer without an end"),
    pytest.param(lambda: answer(serial=7), "another certificate", id="another serial number"),
    pytest.param(lambda: answer(about=OTHER), "another certificate", id="another issuer"),
    pytest.param(lambda: _error(ocsp.OCSPResponseStatus.TRY_LATER), "try_later", id="tryLater"),
    pytest.param(lambda: b"<html>", "cannot be read", id="a web page"),
    pytest.param(lambda: answer()[:-1], "cannot be read", id="half an answer"),
]


@pytest.mark.parametrize(("made", "words"), WRONG)
def test_what_a_careful_client_refuses_is_named(made: Callable[[], bytes], words: str) -> None:
    assert words in " ".join(judge(made(), CA.issuer, SERIAL, now=NOW).wrong)


def test_an_answer_from_the_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = answer(this_update=NOW + HOUR - 1, next_update=NOW + 2 * HOUR)
    monkeypatch.setattr("fleetca.checks_answers.SKEW", 2)
    assert "It is from the future." in judge(body, CA.issuer, SERIAL, now=NOW).wrong


# ---- What is made of it ---------------------------------------------------------------------------------------------


def _asked(monkeypatch: pytest.MonkeyPatch, reply: Reply | None, statuses: list[str]) -> Any:
    said = iter(statuses)
    monkeypatch.setattr(checks_answers, "fetch", lambda *_, **__: reply)
    monkeypatch.setattr(checks_answers, "_on_record", lambda *_, **__: SERIAL)
    monkeypatch.setattr(checks_answers, "_status", lambda *_: next(said))
    patient: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda: NOW), settings=SimpleNamespace(status=SimpleNamespace(listen=None)))
    return checks_answers._ask(patient, None, CA.issuer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "statuses", "level", "words"),
    [
        pytest.param(answer(), ["good", "good"], Level.ok, "OCSP says good of a certificate of issuing", id="as it is on record"),
        pytest.param(answer(), ["good", "revoked"], Level.ok, "OCSP says good", id="revoked while it was asked"),
        pytest.param(answer(), ["revoked", "revoked"], Level.finding, "OCSP says good, the database says revoked", id="not as on record"),
        pytest.param(
            _error(ocsp.OCSPResponseStatus.UNAUTHORIZED), ["good", "good"], Level.finding, "says unknown", id="unknown, delivered (P5)"
        ),
        pytest.param(answer(nocheck=False), ["good", "good"], Level.finding, "does not hold", id="an answer that does not hold"),
        pytest.param(None, ["good", "good"], Level.finding, "gives no OCSP answer", id="no answer"),
    ],
)
def test_the_answer_is_held_against_the_database(
    monkeypatch: pytest.MonkeyPatch, reply: bytes | None, statuses: list[str], level: Level, words: str
) -> None:
    given = None if reply is None else Reply(200, "application/ocsp-response", reply)
    verdict = _asked(monkeypatch, given, statuses)
    assert (verdict.level, words in verdict.what) == (level, True), verdict


@pytest.mark.parametrize("reply", [Reply(500, "application/ocsp-response", answer()), Reply(200, "text/html", answer())])
def test_an_answer_in_the_wrong_clothes_is_none(monkeypatch: pytest.MonkeyPatch, reply: Reply) -> None:
    assert "gives no OCSP answer" in _asked(monkeypatch, reply, ["good", "good"]).what


# ---- CRLs -----------------------------------------------------------------------------------------------------------

CRL_OF = crl_world.authority(not_before=NOW - DAY, not_after=NOW + 100 * DAY)
OLD, NEW = (CRL_OF.crl(number=number, this_update=NOW - HOUR, next_update=NOW + ends) for number, ends in ((4, HOUR), (5, DAY)))
OVER = CRL_OF.crl(number=3, this_update=NOW - DAY, next_update=NOW - 1)
FOREIGN = crl_world.authority(called="other", not_before=NOW - DAY, not_after=NOW + DAY).crl(
    number=5, this_update=NOW, next_update=NOW + DAY
)


@pytest.mark.parametrize(
    ("reply", "age", "words"),
    [
        pytest.param(Reply(200, "application/pkix-crl", NEW), HOUR, None, id="the published one"),
        pytest.param(Reply(200, "application/pkix-crl", OLD), 1, None, id="the one before, a second after it was replaced"),
        pytest.param(Reply(200, "application/pkix-crl", OLD), HOUR, "It serves number 4", id="an older one, an hour after"),
        pytest.param(Reply(200, "application/pkix-crl", OVER), 1, "that ended at", id="one that has ended"),
        pytest.param(Reply(200, "application/pkix-crl", FOREIGN), HOUR, "is none", id="another issuer's"),
        pytest.param(Reply(404, "text/plain", b""), HOUR, "HTTP 404", id="none"),
        pytest.param(None, HOUR, "It gives nothing", id="no answer"),
    ],
)
def test_the_served_crl_is_the_published_one_and_holds(reply: Reply | None, age: int, words: str | None) -> None:
    verdict = checks_answers._served(reply, OutletCopy("v", NEW, NOW - age), CRL_OF.issuer, now=NOW)
    assert (verdict is None) == (words is None), verdict
    if verdict is not None and words is not None:
        assert words in f"{verdict.what} {verdict.why}"
