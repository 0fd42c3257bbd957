"""The responder as a whole: the Flask application over a record, a signer and a clock, by test client and by a real server."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import create_environ, run_wsgi_app

from ca.errors import StoreUnavailable
from ca.model import CertificateState, Reason, Serial
from ca.rules.serial import is_ours, make_serial
from ocsp.model import Policy, Unissued
from ocsp.web import Background, create_app
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW, World
from tests.parts import need
from tests.running import eventually

CHECK_KEY = b"k" * 32
SERIAL = make_serial(b"\x01" * 17, CHECK_KEY)
UNISSUED = make_serial(b"\x02" * 17, CHECK_KEY)


def ours(serial: Serial) -> bool:
    return is_ours(serial, CHECK_KEY)


def one_world(**fields: Any) -> World:
    world = fakes.world(is_ours=ours, **fields)
    world.record.issue("issuing", SERIAL)
    return world


def client_of(world: World) -> FlaskClient:
    return create_app(world.service).test_client()


def request_for(world: World, serial: int = SERIAL, **fields: Any) -> bytes:
    return fakes.request(fakes.certificate_id(world.ca.issuer, serial), **fields)


def ask(world: World, body: bytes | None = None) -> Any:
    return client_of(world).post("/ocsp", data=body or request_for(world), content_type="application/ocsp-request")


def said(response: Any) -> str:
    """The certificate's status, or the error."""
    assert response.status_code == 200
    assert response.content_type == "application/ocsp-response"
    found = library.load_der_ocsp_response(response.data)
    if found.response_status is not library.OCSPResponseStatus.SUCCESSFUL:
        return found.response_status.name
    return found.certificate_status.name


def ends(response: Any) -> datetime:
    found = library.load_der_ocsp_response(response.data).next_update_utc
    assert found is not None
    return found


# ---- Asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_a_responder_key_of_any_algorithm_answers(algorithm: str) -> None:
    world = one_world(algorithm=algorithm)
    response = ask(world)
    assert said(response) == "GOOD"
    found = library.load_der_ocsp_response(response.data)
    (certificate,) = found.certificates
    assert certificate.public_key() == world.keys[-1].private.public_key()
    certificate.verify_directly_issued_by(world.ca.certificate)


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_an_issuer_of_any_algorithm_is_answered_for(algorithm: str) -> None:
    assert said(ask(one_world(ca=fakes.authority(algorithm=algorithm)))) == "GOOD"


@pytest.mark.req("REQ-KEY-010")
def test_RFC9919_6_a_GET_answer_and_how_it_is_cached() -> None:
    world = one_world()
    client = client_of(world)
    path = "/ocsp/" + quote(base64.b64encode(request_for(world)).decode(), safe="")
    first = client.get(path)
    assert said(first) == "GOOD"
    assert first.headers["Cache-Control"].endswith("public, no-transform, must-revalidate")
    assert int(first.headers["Content-Length"]) == len(first.data)
    assert "Pragma" not in first.headers
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.data == b""
    assert again.headers["ETag"] == first.headers["ETag"]
    head = client.head(path)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == first.headers["Content-Length"]
    post = client.post("/ocsp", data=request_for(world), content_type="application/ocsp-request")
    assert post.data == first.data
    assert len(world.keys[-1].signed) == 2, "the request for its certificate, and one answer"


def test_several_certificates_and_a_nonce_in_one_request() -> None:
    world = one_world()
    other = world.record.issue("issuing", make_serial(b"\x05" * 17, CHECK_KEY))
    world.record.change(other, Reason.keyCompromise, NOW - 5)
    world.service.listen()
    body = fakes.request(
        fakes.certificate_id(world.ca.issuer, SERIAL),
        fakes.certificate_id(world.ca.issuer, other.serial, hash_name="sha1"),
        fakes.certificate_id(world.ca.issuer, UNISSUED, hash_name="sha384", parameters=b""),
        extensions=[fakes.nonce_extension(b"n" * 32)],
    )
    response = ask(world, body)
    found = library.load_der_ocsp_response(response.data)
    assert [one.certificate_status.name for one in found.responses] == ["GOOD", "REVOKED", "UNKNOWN"]
    assert response.headers["Cache-Control"] == "no-store"
    assert b"n" * 32 in response.data


GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x00" * 100, id="zeros"),
    pytest.param(b"hello", id="text"),
    pytest.param(b"{}", id="JSON"),
    pytest.param(b"\x30\x80\x30\x80\x00\x00\x00\x00", id="BER"),
    pytest.param(b"\x30\x84\xff\xff\xff\xff\x00", id="a length of four gigabytes"),
    pytest.param(b"\x30" * 65536, id="64 KiB of tags"),
    pytest.param(b"-----BEGIN CERTIFICATE-----\n", id="PEM"),
]


@pytest.mark.req("REQ-KEY-094")
@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_malformedRequest_with_HTTP_200(body: bytes) -> None:
    world = one_world()
    client = client_of(world)
    response = client.post("/ocsp", data=body, content_type="application/ocsp-request")
    assert said(response) == "MALFORMED_REQUEST"
    assert response.headers["Cache-Control"] == "no-store"
    if len(body) < 1000:
        assert said(client.get("/ocsp/" + base64.b64encode(body).decode())) == "MALFORMED_REQUEST"
    assert not world.record.asked


def test_a_body_over_64_KiB_is_413() -> None:
    client = client_of(one_world())
    response = client.post("/ocsp", data=b"x" * 65537, content_type="application/ocsp-request")
    assert response.status_code == 413
    assert "65536" in response.text


def test_a_body_without_a_length_is_bounded_too() -> None:
    class Endless:
        read_octets = 0

        def read(self, size: int = -1) -> bytes:
            assert size > 0, "never asked for everything"
            self.read_octets += size
            return b"x" * size

    stream = Endless()
    environ = create_environ("/ocsp", method="POST", content_type="application/ocsp-request")
    environ.pop("CONTENT_LENGTH", None)
    environ |= {"wsgi.input": stream, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    _, status, _ = run_wsgi_app(create_app(one_world().service), environ)
    assert status.startswith("413")
    assert stream.read_octets < 400_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("PUT", "/ocsp", 405, id="PUT"),
        pytest.param("DELETE", "/ocsp/abc", 405, id="DELETE"),
        pytest.param("OPTIONS", "/ocsp", 405, id="OPTIONS"),
        pytest.param("POST", "/ocsp/abc", 404, id="POST below the path"),
        pytest.param("GET", "/elsewhere", 404, id="another path"),
        pytest.param("POST", "/healthz", 405, id="POST to the health page"),
    ],
)
def test_what_is_not_OCSP_is_an_HTTP_error_in_plain_text(method: str, path: str, status: int) -> None:
    response = client_of(one_world()).open(path, method=method)
    assert response.status_code == status
    assert response.content_type.startswith("text/plain")
    if status == 405:
        assert response.headers["Allow"]


def test_another_content_type_is_415() -> None:
    response = client_of(one_world()).post("/ocsp", data=b"x", content_type="application/json")
    assert response.status_code == 415


def test_a_fault_of_ours_is_internalError_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    world = one_world()
    world.record.before_answer = lambda: 1 // 0
    assert said(ask(world)) == "INTERNAL_ERROR"
    assert "ZeroDivisionError" in caplog.text


def test_P11_an_answer_that_does_not_read_back_never_leaves(caplog: pytest.LogCaptureFixture) -> None:
    world = one_world()
    world.keys[-1].sign = lambda message: b"\x30\x00"  # type: ignore[method-assign]
    assert said(ask(world)) == "INTERNAL_ERROR"
    assert "ocsp" in caplog.text.lower()
    assert not world.service.snapshot().finished


# ---- Revocation -----------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-010")
def test_P5_a_revocation_is_answered_as_soon_as_it_is_heard_for_every_hash() -> None:
    world = one_world()
    forms = [
        fakes.request(fakes.certificate_id(world.ca.issuer, SERIAL, hash_name=name, parameters=parameters))
        for name in ("sha1", "sha256", "sha384", "sha512")
        for parameters in (b"", b"\x05\x00")
    ]
    assert {said(ask(world, one)) for one in forms} == {"GOOD"}
    assert len(world.service.snapshot().finished) == 8
    (ref,) = world.record.states
    world.record.change(ref, Reason.keyCompromise, NOW)
    world.clock.time = NOW + 1
    world.service.listen()
    assert {said(ask(world, one)) for one in forms} == {"REVOKED"}
    world.record.change(ref, Reason.removeFromCRL, NOW + 2)
    world.service.listen()
    assert {said(ask(world, one)) for one in forms} == {"GOOD"}


def test_P5_a_revocation_that_commits_while_an_answer_is_being_made_is_not_lost() -> None:
    world = one_world()
    (ref,) = world.record.states

    def revoked_meanwhile() -> None:
        # The record was read as good; now it changes and is heard before the answer is signed and kept.
        world.record.before_answer = None
        world.record.change(ref, Reason.keyCompromise, NOW)
        world.service.listen()

    world.record.before_answer = revoked_meanwhile
    assert said(ask(world)) == "GOOD"
    assert not world.service.snapshot().finished
    assert said(ask(world)) == "REVOKED"


def test_P5_many_changes_at_once_are_all_heard() -> None:
    world = one_world()
    refs = [world.record.issue("issuing", make_serial(number.to_bytes(17, "big"), CHECK_KEY)) for number in range(2500)]
    assert said(ask(world, request_for(world, refs[2400].serial))) == "GOOD"
    assert said(ask(world)) == "GOOD"
    for ref in refs:
        world.record.change(ref, Reason.cessationOfOperation, NOW)
    world.service.listen()
    assert world.service.snapshot().change == 2500
    assert said(ask(world, request_for(world, refs[2400].serial))) == "REVOKED"
    assert len(world.service.snapshot().finished) == 2, "the one that did not change is still there"


def test_P5_what_changed_while_the_database_was_away_is_heard_when_it_is_back() -> None:
    world = one_world()
    second = world.record.issue("issuing", make_serial(b"\x03" * 17, CHECK_KEY))
    assert said(ask(world)) == said(ask(world, request_for(world, second.serial))) == "GOOD"
    world.record.gone = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            world.service.listen()
    world.record.change(next(ref for ref in world.record.states if ref.serial == SERIAL), Reason.keyCompromise)
    world.record.change(second, Reason.certificateHold)
    world.record.change(second, Reason.removeFromCRL)
    assert said(ask(world)) == "GOOD", "nobody can know yet (P7)"
    world.record.gone = False
    world.service.listen()
    assert said(ask(world)) == "REVOKED"
    assert said(ask(world, request_for(world, second.serial))) == "GOOD"


def test_a_database_restored_to_an_earlier_state_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    world = one_world()
    (ref,) = world.record.states
    world.record.change(ref, Reason.keyCompromise, NOW)
    world.service.listen()
    assert said(ask(world)) == "REVOKED"
    world.record.changes.clear()
    world.service.listen()
    assert not world.service.snapshot().finished
    assert "restored" in caplog.text


def test_P5_an_intent_without_a_result_is_unknown_and_not_kept() -> None:
    world = one_world()
    ref = world.record.issue("issuing", UNISSUED, CertificateState.intended)
    assert said(ask(world, request_for(world, ref.serial))) == "UNKNOWN"
    world.record.states[ref] = CertificateState.issued
    assert said(ask(world, request_for(world, ref.serial))) == "GOOD"


# ---- Negative answers -----------------------------------------------------------------------------------------------


def test_P5_never_issued_serials_cost_no_memory_and_foreign_ones_no_query() -> None:
    world = one_world()
    for number in range(200):
        assert said(ask(world, request_for(world, (1 << 158) + number))) == "UNKNOWN"
    assert not world.record.asked
    for number in range(50):
        response = ask(world, request_for(world, make_serial(b"\x07" * 16 + bytes([number]), CHECK_KEY)))
        assert said(response) == "UNKNOWN"
        assert response.headers["Cache-Control"] == "no-store"
    assert len(world.record.asked) == 50
    assert not world.service.snapshot().finished


@pytest.mark.parametrize(
    ("unissued", "expected"),
    [(Unissued.unknown, "UNKNOWN"), (Unissued.unauthorized, "UNAUTHORIZED"), (Unissued.revoked, "REVOKED")],
    ids=["unknown", "RFC 9919 3.2.3: unauthorized", "RFC 6960 2.2: revoked"],
)
def test_never_issued_by_policy(unissued: Unissued, expected: str) -> None:
    response = ask(world := one_world(policy=Policy(unissued=unissued)), request_for(world, UNISSUED))
    assert said(response) == expected
    assert response.headers["Cache-Control"] == "no-store"


# ---- Outages --------------------------------------------------------------------------------------------------------


def test_P7_with_database_and_signer_gone_finished_answers_go_on_to_nextUpdate() -> None:
    world = one_world()
    first = ask(world)
    world.record.gone = world.signer.gone = True
    world.keys[-1].gone = True
    for later in (1, 100, HOUR // 2, HOUR - 70):
        world.clock.time = NOW + later
        response = ask(world)
        assert response.data == first.data
        assert ends(response) > fakes.moment(world.clock.time)
        assert said(ask(world, request_for(world, UNISSUED))) == "TRY_LATER"
    world.clock.time = NOW + HOUR
    assert said(ask(world)) == "TRY_LATER"
    world.record.gone = world.signer.gone = world.keys[-1].gone = False
    assert said(ask(world)) == "GOOD"


def test_answers_are_made_anew_after_half_their_life_and_the_window_moves() -> None:
    world = one_world()
    first = ask(world)
    world.clock.time = NOW + HOUR // 2
    second = ask(world)
    assert library.load_der_ocsp_response(second.data).produced_at_utc == fakes.moment(world.clock.time)
    assert ends(second) > ends(first)


def test_a_clock_set_back_does_not_stop_answers() -> None:
    world = one_world()
    ask(world)
    world.clock.time = NOW - HOUR
    # The signer refuses while the clock is wrong (ClockUntrusted); status goes on.
    world.signer.gone = True
    world.service.renew()
    response = ask(world)
    assert said(response) == "GOOD"
    assert library.load_der_ocsp_response(response.data).produced_at_utc == fakes.moment(NOW - HOUR)
    world.clock.time = NOW - 2 * HOUR
    world.record.gone = True
    assert ask(world).data == response.data, "nor with the database gone"


# ---- Responder certificates -----------------------------------------------------------------------------------------


def test_the_responder_certificate_is_renewed_before_it_ends_with_a_new_key_each_time() -> None:
    world = one_world()
    for _ in range(200):
        world.clock.time += HOUR
        world.service.listen()
        world.service.renew()
        response = ask(world)
        assert said(response) == "GOOD"
        found = library.load_der_ocsp_response(response.data)
        (certificate,) = found.certificates
        assert ends(response) <= certificate.not_valid_after_utc
        assert fakes.moment(world.clock.time) < certificate.not_valid_after_utc
    assert 14 <= len(world.signer.asked) <= 22
    assert len({key.spki for key in world.keys}) == len(world.keys) == len(world.signer.asked)


def test_P7_with_the_signer_gone_the_old_responder_goes_on_to_its_end_and_not_beyond() -> None:
    world = one_world()
    world.signer.gone = True
    world.clock.time = NOW + DAY - 600
    world.service.listen()
    world.service.renew()
    found = library.load_der_ocsp_response(ask(world).data)
    assert found.next_update_utc == fakes.moment(NOW + DAY - 1)
    world.clock.time = NOW + DAY
    assert said(ask(world)) == "TRY_LATER"
    world.signer.gone = False
    world.clock.time += 10
    world.service.renew()
    assert said(ask(world)) == "GOOD"


def test_a_failed_certification_is_tried_again_with_growing_pauses() -> None:
    world = one_world(ready=False)
    world.signer.gone = True
    world.service.listen()
    for second in range(100):
        world.clock.time = NOW + second
        world.service.renew()
    assert len(world.keys) == 13, "after 0, 1, 3, 7 seconds, and then every ten"
    assert said(ask(world)) == "TRY_LATER"
    world.signer.gone = False
    world.clock.time += 10
    world.service.renew()
    assert said(ask(world)) == "GOOD"
    # With a responder that still holds, there is time.
    world.signer.gone = True
    world.clock.time += DAY // 2
    for _ in range(2000):
        world.clock.time += 1
        world.service.renew()
    assert len(world.keys) <= 14 + 14


def test_a_certificate_that_nobody_would_believe_does_not_replace_a_good_one(caplog: pytest.LogCaptureFixture) -> None:
    world = one_world()
    world.signer.give = fakes.delegate(fakes.authority("other"), world.keys[-1].private.public_key())
    world.clock.time = NOW + DAY // 2
    world.service.renew()
    assert "cannot be used" in caplog.text
    assert said(ask(world)) == "GOOD"


def test_P4_the_offline_root_is_never_asked_for_a_responder() -> None:
    root = fakes.authority("root", key_here=False)
    world = one_world()
    both = fakes.world(root, ca=world.ca)
    assert len(both.signer.asked) == 1
    body = fakes.request(fakes.certificate_id(root.issuer, 5))
    assert said(ask(both, body)) == "UNAUTHORIZED"


# ---- Health ---------------------------------------------------------------------------------------------------------


def health(world: World) -> tuple[int, dict[str, Any]]:
    response = client_of(world).get("/healthz")
    assert response.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = json.loads(response.data)
    return response.status_code, body


def test_P5_a_worker_that_has_not_heard_for_two_seconds_says_so() -> None:
    world = one_world()
    code, body = health(world)
    assert (code, body["status"], body["heard"], body["missing"]) == (200, "ok", True, [])
    assert body["responders"][0]["issuer"] == "issuing"
    assert body["responders"][0]["not_after"] == NOW + DAY - 1
    world.clock.time = NOW + 3
    code, body = health(world)
    assert (code, body["status"], body["heard"], body["heard_at"]) == (200, "degraded", False, NOW)
    world.service.listen()
    assert health(world)[1]["status"] == "ok"


def test_a_worker_with_nothing_to_answer_with_is_down() -> None:
    world = one_world(ready=False)
    code, body = health(world)
    assert (code, body["status"], body["missing"]) == (503, "down", ["issuing"])


# ---- The background threads -----------------------------------------------------------------------------------------


def wait_for(what: Any) -> None:
    eventually(what, every=0.01)


def test_the_background_hears_and_certifies_and_survives_outages() -> None:
    world = one_world(ready=False)
    world.record.gone = world.signer.gone = True
    background = Background(world.service, every=0.01)
    background.start()
    try:
        wait_for(lambda: world.keys)
        assert said(ask(world)) == "TRY_LATER"
        world.record.gone = world.signer.gone = False
        world.clock.time = NOW + HOUR
        wait_for(lambda: health(world)[1]["status"] == "ok")
        assert said(ask(world)) == "GOOD"
        (ref,) = world.record.states
        world.record.change(ref, Reason.superseded, NOW + HOUR)
        wait_for(lambda: said(ask(world)) == "REVOKED")
    finally:
        background.stop()


# ---- A real server: real request targets, real clients --------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def served() -> Iterator[tuple[World, int]]:
    world = one_world()
    server = make_server("127.0.0.1", 0, create_app(world.service), threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield world, server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def fetch(port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def tricky(world: World) -> str:
    """The base64 of a request that has `//` and `+` in it; serials are tried until one has."""
    for number in range(100_000):
        serial = make_serial(number.to_bytes(17, "little"), CHECK_KEY)
        text = base64.b64encode(request_for(world, serial)).decode()
        if "//" in text and "+" in text and text.endswith("="):
            world.record.issue("issuing", serial)
            return text
    pytest.fail("no such serial")


def test_RFC6960_A1_request_targets_over_the_wire(served: tuple[World, int]) -> None:
    world, port = served
    text = tricky(world)
    targets = [
        text,
        quote(text, safe=""),
        quote(text, safe="/"),
        text.replace("/", "%2F"),
        text.replace("/", "%2f"),
        text.rstrip("="),
        "/" + text,
        text + "?x=y",
    ]
    bodies = {fetch(port, "/ocsp/" + target)[2] for target in targets}
    assert len(bodies) == 1
    assert library.load_der_ocsp_response(bodies.pop()).certificate_status is library.OCSPCertStatus.GOOD
    status, headers, body = fetch(port, "/ocsp/" + text, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100
    etag = headers["ETag"]
    status, headers, body = fetch(port, "/ocsp/" + quote(text, safe=""), headers={"If-None-Match": etag})
    assert (status, body) == (304, b"")


def test_openssl_believes_the_responder_by_POST_for_several_certificates_and_hashes(served: tuple[World, int], tmp_path: Path) -> None:
    openssl = need("openssl")
    world, port = served
    other = world.record.issue("issuing", make_serial(b"\x09" * 17, CHECK_KEY))
    world.record.change(other, Reason.keyCompromise, NOW - 5)
    world.service.listen()
    issuer = tmp_path / "issuer.pem"
    issuer.write_bytes(x509.load_der_x509_certificate(world.ca.issuer.certificate).public_bytes(Encoding.PEM))
    command = [
        openssl,
        "ocsp",
        "-issuer",
        str(issuer),
        "-CAfile",
        str(issuer),
        "-attime",
        str(NOW),
        "-url",
        f"http://127.0.0.1:{port}/ocsp",
    ]
    # Its answer is checked against its own clock, which is not ours: so the answer goes to a file, and is judged at our time.
    for hashes in ([], ["-sha256"], ["-sha1", "-no_nonce"], ["-sha512"]):
        answer = tmp_path / "answer.der"
        done = subprocess.run(
            [*command, *hashes, "-serial", f"0x{SERIAL:x}", "-serial", f"0x{other.serial:x}", "-serial", f"0x{UNISSUED:x}", "-respout", str(answer),
             "-noverify"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        found = library.load_der_ocsp_response(answer.read_bytes())
        assert [one.certificate_status.name for one in found.responses] == ["GOOD", "REVOKED", "UNKNOWN"], done.stderr
        judged = subprocess.run(
            [openssl, "ocsp", "-respin", str(answer), "-issuer", str(issuer), "-CAfile", str(issuer), "-attime", str(NOW), "-text"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Response verify OK" in judged.stderr, judged.stderr


def test_a_worker_behind_a_path_of_its_own_still_reads_the_raw_path() -> None:
    world = one_world()
    app = create_app(world.service)
    text = base64.b64encode(request_for(world)).decode()
    response = app.test_client().get(
        "/ocsp/x", environ_overrides={"RAW_URI": "/status/ocsp/" + text, "SCRIPT_NAME": "/status", "PATH_INFO": "/ocsp/" + text}
    )
    assert said(response) == "GOOD"


def test_without_a_raw_path_what_the_server_decoded_is_used() -> None:
    world = one_world()
    text = base64.b64encode(request_for(world)).decode()
    client = create_app(world.service).test_client()
    response = client.get("/ocsp/x", environ_overrides={"RAW_URI": "", "REQUEST_URI": "", "PATH_INFO": "/ocsp/" + text})
    assert said(response) == "GOOD"
