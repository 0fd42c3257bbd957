"""The status service when all else is down, and when all the world asks at once (P5, P7, R14, R22, R24)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.running import Apart, Device, apart, ask, base64_of, eventually, make_deployment, ocsp_request, ocsp_status, ocsp_word


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    folder = tmp_path_factory.mktemp("alive")
    with apart(make_deployment(folder / "here"), logs=folder / "logs") as running:
        eventually(lambda: ask(running.crl_url).status == 200)
        yield running


def health(fleet: Apart) -> dict[str, Any]:
    return ask(f"{fleet.settings.status.url}/healthz").json


def gauge(fleet: Apart, name: str) -> float:
    lines = ask(f"{fleet.settings.status.url}/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"fleetca_ocsp_{name}"))


def word(fleet: Apart, certificate: x509.Certificate, *, get: bool = False) -> str:
    body = ocsp_request(certificate, fleet.issuing)
    if get:
        return ocsp_word(ask(f"{fleet.ocsp_url}/{base64_of(body).replace('/', '%2F').replace('+', '%2B')}").body)
    return ocsp_word(ask(fleet.ocsp_url, body=body, kind="application/ocsp-request").body)


@pytest.mark.req("REQ-KEY-010")
def test_P7_a_restart_of_the_status_process_while_database_and_signer_are_gone_goes_on_answering(fleet: Apart, tmp_path: Path) -> None:
    good, revoked = (fleet.enrol(fleet.token(device), Device()).certificate for device in ("alive-1", "alive-2"))
    (tmp_path / "revoked.pem").write_bytes(revoked.public_bytes(Encoding.PEM))
    assert fleet.cli("revoke", "--certificate", tmp_path / "revoked.pem", "--reason", "keyCompromise").returncode == 0
    # Of the operator, of enrolment itself and of the two devices, each under both kinds of CertID; and the revocation is among them.
    eventually(lambda: health(fleet)["spool"]["answers"] >= 8)
    followed = fleet.settings.ocsp.spool / "change"
    eventually(lambda: followed.is_file() and int(followed.read_text()) >= 1)
    for role in ("publisher", "signer", "status"):
        fleet.kill(role)
    database = Path(str(fleet.settings.store.url).removeprefix("sqlite:///"))
    hidden = [(file, file.with_name(f"hidden-{file.name}")) for file in database.parent.glob(f"{database.name}*")]
    for file, away in hidden:
        file.rename(away)
    try:
        fleet.start("status")
        for get in (False, True):
            assert ocsp_status(fleet.ocsp_url, good, fleet.issuing) == "good"
            assert ocsp_status(fleet.ocsp_url, revoked, fleet.issuing) == "revoked"
            assert word(fleet, good, get=get) == "good"
        eventually(lambda: not health(fleet)["heard"] and health(fleet)["alarms"])
        said = health(fleet)
        assert said["status"] == "degraded"
        assert said["missing"] == ["issuing"]
        assert any("have not been heard since the start" in one for one in said["alarms"])
        assert any("the last answer in memory ends at" in one for one in said["alarms"])
        assert gauge(fleet, "heard ") == 0
        assert gauge(fleet, "responder_missing") == 1
        assert gauge(fleet, "answers_total") > 0
        # And then they end, every one at its nextUpdate.
        fleet.set_clock(fleet.settings.ocsp.lifetime + 60, "status")
        assert word(fleet, good) == "try_later"
        assert word(fleet, good, get=True) == "try_later"
    finally:
        fleet.set_clock(0)
        for file, away in hidden:
            away.rename(file)
    fleet.start("signer", "publisher")
    eventually(lambda: health(fleet)["status"] == "ok")
    assert ocsp_status(fleet.ocsp_url, good, fleet.issuing) == "good"


@pytest.mark.parametrize("jump", [3600 * 24 * 400, 86400, 7200, -7200], ids=["a year on", "a day on", "two hours on", "two hours back"])
def test_R24_no_answer_leaves_outside_its_window_whatever_the_clock_does(fleet: Apart, jump: int) -> None:
    certificate = fleet.enrol(fleet.token(f"jump-{jump}".replace("-", ".")), Device()).certificate
    assert ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good"
    try:
        fleet.set_clock(jump, "status")
        from cryptography.x509 import ocsp as library

        from ca.system import SystemClock

        reply = ask(fleet.ocsp_url, body=ocsp_request(certificate, fleet.issuing), kind="application/ocsp-request")
        told = library.load_der_ocsp_response(reply.body)
        now = SystemClock().now() + jump
        if told.response_status is library.OCSPResponseStatus.SUCCESSFUL:
            assert told.next_update_utc is not None
            assert told.next_update_utc.timestamp() > now - 2
            assert told.next_update_utc <= told.certificates[0].not_valid_after_utc
        else:
            assert told.response_status is library.OCSPResponseStatus.TRY_LATER
    finally:
        fleet.set_clock(0)
    eventually(lambda: ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good")


def test_R22_malformed_requests_beside_good_ones_bring_no_5xx_and_cost_no_good_answer(fleet: Apart) -> None:
    certificate = fleet.enrol(fleet.token("beside-noise"), Device()).certificate
    body = ocsp_request(certificate, fleet.issuing)
    assert ocsp_status(fleet.ocsp_url, certificate, fleet.issuing) == "good"
    parts = urlsplit(fleet.ocsp_url)
    noise = [
        b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + b"\xff" * 40,
        b"GET /ocsp/%%% HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ocsp/" + b"A" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body + b"\0",
        b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + bytes(70000),
    ]
    stop = threading.Event()
    answers: list[bytes] = []

    def make_noise() -> None:
        while not stop.is_set():
            for one in noise:
                with (
                    suppress(ConnectionError),  # it may be closed before all of it was sent
                    socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as line,
                ):
                    line.sendall(one)
                    answers.append(line.recv(4096))

    threads = [threading.Thread(target=make_noise) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert ocsp_word(ask(fleet.ocsp_url, body=body, kind="application/ocsp-request").body) == "good"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    statuses = {answer[9:12] for answer in answers}
    assert statuses <= {b"200", b"413", b"400"}, statuses
    assert len(answers) > 50
    eventually(lambda: health(fleet)["status"] == "ok")
