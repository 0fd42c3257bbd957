"""Status workers over the real store, with responder certificates from the real signer: what is on record is what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

from ca.errors import FleetcaError, KeyUnavailable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, CertificateRef, DeviceId, IssueRequest, IssuerId, KeyName, ProfileName, Reason, Role, Serial
from ca.rules.serial import is_ours
from ca.store.engine import Store, open_store
from ocsp.model import Policy, Question, SerialCheck
from ocsp.serve import ResponderService
from tests.fakes import ocsp as fakes
from tests.fakes import signer_world
from tests.fakes.certificates import root
from tests.fakes.signer_world import CHECK_KEY, Keypair, World
from tests.parts import need

RESPONDER = ProfileName("ocsp-responder")


class Certifier:
    def __init__(self, world: World) -> None:
        self._world = world

    def certify(self, issuer: IssuerId, csr: bytes) -> bytes:
        asked = IssueRequest(csr, self._world.local(Role.status), DeviceId("fleetca:ocsp"), RESPONDER)
        return signer_world.der_of(self._world.issue(asked, Role.status))


@dataclass
class Worker:
    """One status process: its own connections, key and working set."""

    store: Store
    service: ResponderService

    def ask(self, ref: CertificateRef, issuer_of: World, hash_name: str = "sha256") -> library.OCSPResponse:
        octets = fakes.certificate_id(issuer_of.issuer, ref.serial, hash_name=hash_name)
        answer = self.service.reply(fakes.post(fakes.request(octets)))
        assert answer.status == 200
        return library.load_der_ocsp_response(answer.body)

    def said(self, ref: CertificateRef, issuer_of: World) -> str:
        found = self.ask(ref, issuer_of)
        if found.response_status is not library.OCSPResponseStatus.SUCCESSFUL:
            return found.response_status.name
        return found.certificate_status.name


def worker(world: World) -> Worker:
    store = open_store(world.url, readonly=True)
    service = ResponderService(
        reading=store.reading,
        certifier=Certifier(world),
        make_key=lambda: MemoryKey.generate(KeyName("responder"), AlgorithmName("p256")),
        issuers=[replace(root(), key=None), world.issuer],
        policy=Policy(reread_share=1.0),
        clock=world.clock,
        check=SerialCheck(lambda serial: is_ours(serial, CHECK_KEY), ""),
    )
    service.listen()
    service.renew()
    return Worker(store, service)


@pytest.fixture
def world(both: World) -> World:
    return both


@pytest.fixture
def workers(world: World) -> Iterator[list[Worker]]:
    made = [worker(world), worker(world)]
    try:
        yield made
    finally:
        for one in made:
            one.store.close()


@pytest.mark.req("REQ-KEY-010")
def test_P5_every_worker_follows_the_record(world: World, workers: list[Worker]) -> None:
    pair = world.enrol("pump-1")
    other = world.enrol("pump-2")
    refs = [world.row(pair).ref, world.row(other).ref]
    # Delivered a moment ago and never asked about: a miss asks the database.
    assert [[one.said(ref, world) for ref in refs] for one in workers] == [["GOOD", "GOOD"]] * 2

    (revocation,) = world.revoke_certificate(pair, Reason.keyCompromise)
    for one in workers:
        one.service.listen()
        found = one.ask(refs[0], world)
        assert found.certificate_status is library.OCSPCertStatus.REVOKED
        assert found.revocation_reason is x509.ReasonFlags.key_compromise
        assert found.revocation_time_utc == fakes.moment(revocation.revoked_at)
        assert one.said(refs[1], world) == "GOOD"

    world.revoke_device("pump-2")
    for one in workers:
        one.service.listen()
        assert one.said(refs[1], world) == "REVOKED"


def test_P5_never_issued_is_unknown_and_not_even_asked_of_the_database(world: World, workers: list[Worker]) -> None:
    ref = world.row(world.enrol("pump-1")).ref
    forged = CertificateRef(ref.issuer, Serial(ref.serial ^ 0x10))
    workers[0].store.close()
    assert workers[0].said(forged, world) == "UNKNOWN"


def test_P5_a_serial_that_was_given_up_is_never_good(world: World, workers: list[Worker]) -> None:
    world.key.broken = KeyUnavailable("token-gone", "The key is not there.")
    pair = Keypair()
    with pytest.raises(FleetcaError):
        world.enrol("pump-9", pair=pair)
    world.key.broken = None
    (given_up,) = [row for row in world.rows() if row.device == "pump-9"]
    assert workers[0].said(given_up.ref, world) == "REVOKED"


def test_each_responder_certificate_is_on_record_with_a_key_of_its_own(world: World, workers: list[Worker]) -> None:
    made = [row for row in world.rows() if row.profile == RESPONDER]
    assert len(made) == 2
    assert len({row.spki_sha256 for row in made}) == 2
    assert workers[0].service.health().missing == ()


def test_openssl_verifies_the_answer_up_to_the_root_by_the_real_delegate(world: World, workers: list[Worker], tmp_path: Path) -> None:
    openssl = need("openssl")
    pair = world.enrol("pump-1")
    ref = world.row(pair).ref
    for name, der in (("root.pem", root().certificate), ("issuing.pem", world.issuer.certificate), ("device.pem", pair.certificate)):
        (tmp_path / name).write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    request = fakes.request(fakes.certificate_id(world.issuer, ref.serial, hash_name="sha1"))
    answer = workers[0].service.reply(Question("POST", "/ocsp", request))
    (tmp_path / "answer.der").write_bytes(answer.body)
    judged = subprocess.run(
        [openssl, "ocsp", "-respin", "answer.der", "-issuer", "issuing.pem", "-cert", "device.pem", "-CAfile", "root.pem",
         "-verify_other", "issuing.pem", "-attime", str(world.clock.at)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Response verify OK" in judged.stderr, judged.stderr
    ocsptool = need("ocsptool")
    shown = subprocess.run(
        [ocsptool, "--response-info", "--infile", "answer.der"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert shown.returncode == 0, shown.stderr
    assert "Certificate Status: good" in shown.stdout
