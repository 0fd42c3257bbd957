"""The REST API over the real signer, its socket and a real database: one request, one certificate, whatever happens to the connection."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask

from ca.errors import Unavailable
from ca.model import Digest, Role
from ca.rules.message import Act, Message, write_message
from ca.signer import server
from ca.signer.client import SignerClient
from ca.system import SystemChance
from enroll.rest.flow import Enrolment
from enroll.rest.routes import PEER_CERTIFICATE, create_app
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.signer_world import DEPLOYMENT, ISSUING, Keypair, World
from tests.running import eventually

ALL = frozenset(Role)


class Service:
    """A signer behind its socket, and the application in front of it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, sqlite_url(folder))
        self.socket = folder / "signer.sock"
        self.server = self.world.server(self.socket, users={os.getuid(): ALL})
        self.server.start()
        self.signer = SignerClient(self.socket, Role.enroll)
        self.app: Flask = create_app(
            Enrolment(
                signer=self.signer,
                reader=self.world.store.reading,
                receipts=self._no_receipts,
                clock=self.world.clock,
                deployment=DEPLOYMENT,
                issuers=(root(), self.world.issuer),
                profiles=self.world.profiles,
                default_issuer=ISSUING,
            ),
            chance=SystemChance(),
            version="0",
            url="https://enroll.test",
        )

    @staticmethod
    def _no_receipts(leaf: Digest) -> dict[str, str]:
        raise Unavailable("leaf-pending", "The leaf is recorded and not yet published.", retry_after=2)

    def post(self, path: str, body: object, *, certificate: bytes | None = None) -> tuple[int, dict[str, str]]:
        environ = {} if certificate is None else {PEER_CERTIFICATE: certificate}
        answer = self.app.test_client().post(f"/v1{path}", json=body, environ_overrides=environ)
        return answer.status_code, answer.get_json()

    def enrol(self, device: str = "pump-17") -> Keypair:
        keys = Keypair()
        status, made = self.post("/enroll", {"token": self.world.token(device).text, "csr": _text(keys.csr())})
        assert status == 201
        keys.certificate = _der(made)
        return keys

    def stop(self) -> None:
        self.server.stop()
        self.signer.close()
        self.world.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.stop()


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _der(made: dict[str, str]) -> bytes:
    return x509.load_pem_x509_certificate(made["certificate"].encode()).public_bytes(Encoding.DER)


def test_enrol_renew_confirm_revoke(service: Service) -> None:
    old = service.enrol()
    new = Keypair()
    status, made = service.post("/renew", {"csr": _text(new.csr())}, certificate=old.certificate)
    assert (status, made["device"]) == (201, "pump-17")
    new.certificate = _der(made)
    assert service.post("/confirm", {}, certificate=new.certificate)[0] == 200
    assert service.post("/renew", {"csr": _text(Keypair().csr())}, certificate=old.certificate)[1]["code"] == "superseded"
    assert service.post("/revoke", {"reason": "keyCompromise"}, certificate=new.certificate)[0] == 200
    assert service.post("/renew", {"csr": _text(Keypair().csr())}, certificate=new.certificate)[1]["code"] == "certificate-revoked"


def test_P9_a_delivery_is_confirmed_and_the_grace_ends_by_itself(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    old = service.enrol()
    new = Keypair()
    _, made = service.post("/renew", {"csr": _text(new.csr())}, certificate=old.certificate)
    new.certificate = _der(made)
    named = {"issuer": made["issuer"], "serial": made["serial"]}
    assert service.post("/confirm", {"successor": named}, certificate=old.certificate)[0] == 200
    service.world.clock.at += 24 * 3600
    assert service.post("/renew", {"csr": _text(Keypair().csr())}, certificate=old.certificate)[1]["code"] == "superseded"
    assert service.world.row(old).superseded_at is None
    # Nobody asks for anything any more: the signer's own housekeeping writes it down.
    service.server.stop()
    monkeypatch.setattr(server, "HOUSEKEEPING", 0.01)
    service.server = service.world.server(service.socket, users={os.getuid(): ALL})
    service.server.start()
    eventually(lambda: service.world.row(old).superseded_at is not None, every=0.01)
    assert service.world.row(old).superseded_at == service.world.row(old).grace_ends_at


def test_R02_a_hundred_repeats_at_once_get_one_certificate(service: Service) -> None:
    body = {"token": service.world.token().text, "csr": _text(Keypair().csr())}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: service.post("/enroll", body), range(100)))
    assert sorted(status for status, _ in answers) == [200] * 99 + [201]
    assert len({made["serial"] for _, made in answers}) == 1
    assert len(service.world.key.signed) == 1


def test_R35_two_hundred_uses_of_a_token_at_once_enrol_once(service: Service) -> None:
    token = service.world.token().text
    bodies = [{"token": token, "csr": _text(Keypair().csr())} for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: service.post("/enroll", body), bodies))
    assert sorted(status for status, _ in answers) == [201] + [409] * 199
    assert {made["code"] for status, made in answers if status == 409} == {"token-used"}


def test_a_signer_that_is_down_is_waited_for(service: Service) -> None:
    body = {"token": service.world.token().text, "csr": _text(Keypair().csr())}
    service.server.stop()
    status, problem = service.post("/enroll", body)
    assert (status, problem["code"]) == (503, "signer-down")
    assert str(service.socket) not in str(problem)
    assert service.app.test_client().get("/v1/health").status_code == 503
    service.server = service.world.server(service.socket, users={os.getuid(): ALL})
    service.server.start()
    assert service.post("/enroll", body)[0] == 201


def test_a_clock_set_back_stops_issuing_and_nothing_else(service: Service) -> None:
    service.enrol()
    body = {"token": service.world.token().text, "csr": _text(Keypair().csr())}
    service.world.clock.at -= 60
    assert service.post("/enroll", body)[0] == 503
    assert service.app.test_client().get("/v1/ca/chain").status_code == 200
    service.world.clock.at += 60
    assert service.post("/enroll", body)[0] == 201


def test_a_message_sent_again_after_a_cut_connection_gets_the_same_certificate(service: Service) -> None:
    old = service.enrol()
    payload = write_message(Message(Act.renew, DEPLOYMENT, service.world.clock.now(), "ab" * 16, csr=Keypair().csr()))
    message = {"payload": _text(payload), "certificate": _text(old.certificate), "signature": _text(old.sign(payload))}
    first = service.post("/renew", {"message": message})
    message["signature"] = _text(old.sign(payload))  # ECDSA: another signature over the same octets
    again = service.post("/renew", {"message": message})
    assert (first[0], again[0]) == (201, 200)
    assert first[1]["serial"] == again[1]["serial"]


def test_search_by_an_operator_over_the_real_store(service: Service) -> None:
    operator = service.world.operator("alice")
    service.enrol("pump-1")
    service.enrol("pump-2")
    client = service.app.test_client()
    environ = {PEER_CERTIFICATE: operator.certificate}
    page = client.get("/v1/certificates?limit=2", environ_overrides=environ).get_json()
    rest = client.get(f"/v1/certificates?limit=2&cursor={page['next']}", environ_overrides=environ).get_json()
    assert len(page["certificates"]) == 2
    seen = [row["device"] for row in page["certificates"] + rest["certificates"]]
    assert sorted(seen) == ["fleetca:operator:alice", "pump-1", "pump-2"]
    for query in ("device=pump-1", "subject=CN=pump-1", "san=pump-1", "device=pump-1&state=issued"):
        found = client.get(f"/v1/certificates?{query}", environ_overrides=environ).get_json()["certificates"]
        assert [row["device"] for row in found] == ["pump-1"], query
    bad = client.get("/v1/certificates?cursor=AAAA", environ_overrides=environ)
    assert bad.status_code == 400
    path = f"/v1/certificates/issuing/{found[0]['serial']}"
    assert client.get(path, environ_overrides=environ).get_json()["device"] == "pump-1"
    assert client.get(f"{path}/receipt", environ_overrides=environ).headers["Retry-After"] == "2"


def test_threads_share_one_application(service: Service) -> None:
    devices = [f"pump-{number}" for number in range(24)]
    failures: list[BaseException] = []

    def enrol(device: str) -> None:
        try:
            service.enrol(device)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=enrol, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(service.world.key.signed) == 24
