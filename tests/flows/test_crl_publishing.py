"""The whole way of a revocation into a CRL: real store, real signer behind its socket, real folder, real HTTP application; openssl judges."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask

from ca.errors import Conflict, Denied, Unavailable
from ca.model import Reason, RevokeRequest, Role
from ca.outlets.directory import DirectoryOutlet
from ca.signer.client import SignerClient
from crl.model import Cause, Outcome, Policy, Result, Scope, lease_name
from crl.publish import Publisher
from crl.shelf import Shelf
from crl.web import blueprint
from tests.databases import sqlite_url
from tests.fakes.certificates import DAY, KINDS, NOW
from tests.fakes.signer_world import World
from tests.parts import need

POLICY = Policy(interval=3600, nudge=5, lifetime=DAY, lease=60)


class Deployment:
    def __init__(self, folder: Path, url: str, *, kind: str = "p256") -> None:
        self.world = World(folder, url, kind=kind)
        self.issuer = self.world.issuer
        self.socket = folder / "signer.sock"
        everything = frozenset(Role)
        self.server = self.world.server(self.socket, users={os.getuid(): everything})
        self.server.start()
        self.client = SignerClient(self.socket, Role.publisher)
        self.outlet = DirectoryOutlet(folder / "public" / "crl")
        self.failpoints: dict[str, Any] = {}
        self.publisher = self.new_publisher("one")
        app = Flask("status")
        app.register_blueprint(blueprint(shelf=Shelf(self.outlet), issuers=(self.issuer,), clock=self.world.clock))
        self.http = app.test_client()

    def new_publisher(self, holder: str) -> Publisher:
        return Publisher(
            reading=self.world.store.reading,
            leases=self.world.store.ledger,
            signer=self.client,
            outlet=self.outlet,
            clock=self.world.clock,
            failpoint=lambda name: self.failpoints.pop(name, lambda: None)(),
            policy=POLICY,
            holder=holder,
        )

    def publish(self, after: int = 0) -> Outcome:
        self.world.clock.at += after
        return self.publisher.publish(Scope(self.issuer))

    def served(self) -> x509.CertificateRevocationList:
        answer = self.http.get("/crl/issuing.crl")
        assert answer.status_code == 200
        return x509.load_der_x509_crl(answer.data)

    def close(self) -> None:
        self.client.close()
        self.server.stop()
        self.world.close()


@pytest.fixture
def deployment(tmp_path: Path, database_url: str) -> Iterator[Deployment]:
    made = Deployment(tmp_path, database_url)
    yield made
    made.close()


def serials(crl: x509.CertificateRevocationList) -> set[int]:
    return {one.serial_number for one in crl}


def test_P5_P6_a_revocation_shows_and_stays_until_a_regular_crl_after_expiry(deployment: Deployment) -> None:
    assert deployment.publish().cause is Cause.missing
    assert serials(deployment.served()) == set()

    pump, valve = deployment.world.enrol("pump"), deployment.world.enrol("valve")
    deployment.world.revoke_certificate(pump)
    assert deployment.publish(after=5).cause is Cause.nudged
    (entry,) = deployment.served()
    assert entry.serial_number == deployment.world.row(pump).ref.serial
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise

    ends = deployment.world.row(pump).not_after
    while (left := ends - deployment.world.clock.at) >= 3600:
        assert deployment.publish(after=6 * 3600 if left > DAY else 3600).cause is Cause.regular
        assert len(serials(deployment.served())) == 1
    while deployment.world.clock.at + 3600 - (DAY - 1) // 3 <= ends:
        deployment.publish(after=3600)
        assert len(serials(deployment.served())) == 1, "no CRL after its end need be a regular one before a third of the window is over"
    deployment.publish(after=3600)
    assert serials(deployment.served()) == set()
    assert deployment.world.row(valve).revocation is None
    numbers = [leaf["number"] for leaf in deployment.world.leaves("crl")]
    assert numbers == sorted(set(numbers))


def test_R12_a_hold_comes_and_goes(deployment: Deployment) -> None:
    deployment.publish()
    pump = deployment.world.enrol("pump")
    ref = deployment.world.row(pump).ref
    deployment.world.revoke_certificate(pump, Reason.certificateHold)
    deployment.publish(after=5)
    assert serials(deployment.served()) == {ref.serial}
    deployment.world.revoke(RevokeRequest(deployment.world.local(Role.operator), Reason.removeFromCRL, target=ref))
    assert deployment.publish(after=5).cause is Cause.nudged
    assert serials(deployment.served()) == set()


def test_R13_a_lost_lease_ends_in_the_signer_s_refusal(deployment: Deployment) -> None:
    deployment.publish()
    other = deployment.new_publisher("two")

    def overtake() -> None:
        deployment.world.clock.at += 2 * POLICY.lease
        assert other.publish(Scope(deployment.issuer), asked=True).result is Result.published

    deployment.failpoints["publish.before-record"] = overtake
    with pytest.raises(Conflict) as lost:
        deployment.publish(after=3600)
    assert lost.value.code == "lease-lost"
    recorded = deployment.world.store.reading.last_crl(deployment.issuer.id, 0)
    assert recorded is not None
    assert deployment.served().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == recorded.number == 3


def test_only_a_publisher_with_a_current_fence_gets_a_crl(deployment: Deployment) -> None:
    deployment.publish()
    with deployment.outlet.stage("issuing.crl") as stage:
        with pytest.raises(Conflict):
            deployment.client.sign_crl(deployment.issuer.id, above=0, fence=99, sink_fd=stage.fileno())
        thief = SignerClient(deployment.socket, Role.enroll)
        with pytest.raises(Denied):
            thief.sign_crl(deployment.issuer.id, above=0, fence=1, sink_fd=stage.fileno())
        thief.close()
        assert stage.size == 0


def test_P7_with_the_signer_gone_the_crl_is_served_on_and_the_publisher_says_why(deployment: Deployment) -> None:
    deployment.publish()
    before = deployment.http.get("/crl/issuing.crl").data
    deployment.server.stop()
    with pytest.raises(Unavailable):
        deployment.publish(after=3600)
    assert deployment.http.get("/crl/issuing.crl").data == before
    assert deployment.http.get("/crl/health").json["status"] == "serving"  # type: ignore[index]


def test_the_lease_has_the_name_that_the_signer_checks(deployment: Deployment) -> None:
    deployment.publish()
    with deployment.world.store.ledger.writing() as tx:
        tx.check_fence(lease_name(deployment.issuer.id), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_crls_of_every_algorithm_go_all_the_way(tmp_path: Path, kind: str) -> None:
    made = Deployment(tmp_path, sqlite_url(tmp_path), kind=kind)
    try:
        pumps = [made.world.enrol(f"pump-{n}") for n in range(3)]
        for pump, reason in zip(pumps, (Reason.unspecified, Reason.superseded, Reason.keyCompromise), strict=True):
            made.world.revoke_certificate(pump, reason)
        assert made.publish().result is Result.published
        crl = made.served()
        assert crl.is_signature_valid(x509.load_der_x509_certificate(made.issuer.certificate).public_key())
        assert serials(crl) == {made.world.row(pump).ref.serial for pump in pumps}
        if kind.startswith("ml-dsa"):
            return  # the system's openssl is too old for these; the interoperability tests bring a newer one
        (tmp_path / "issuing.pem").write_bytes(x509.load_der_x509_certificate(made.issuer.certificate).public_bytes(Encoding.PEM))
        done = subprocess.run(
            [
                need("openssl"),
                "crl",
                "-inform",
                "DER",
                "-in",
                tmp_path / "public/crl/issuing.crl",
                "-CAfile",
                tmp_path / "issuing.pem",
                "-noout",
                "-verify",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "verify OK" in done.stderr + done.stdout
    finally:
        made.close()


def test_now_is_the_clock_of_the_world(deployment: Deployment) -> None:
    head = deployment.publish().head
    assert head is not None
    assert (head.this_update, head.next_update) == (NOW, NOW + DAY - 1)
