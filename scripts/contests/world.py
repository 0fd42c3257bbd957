"""A real deployment for contests: made by init, ceremony and import, then opened in process or served by all its processes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ca.model import (
    DEFAULT_TENANT,
    CertificateRef,
    DeviceId,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    Peer,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    Serial,
    Token,
    TokenEvidence,
)
from ca.rules import token
from ca.store import tables
from ca.store.database import migrating_engine, parsed
from ca.store.engine import open_store
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, process, signing
from fleetca.importing import import_ceremony


def csrs(count: int) -> Iterator[bytes]:
    """PKCS#10 requests (DER), each with a key of its own; made as they are asked for."""
    for _ in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        yield x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def pem_of(csr: bytes) -> str:
    return "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(csr).decode() + "-----END CERTIFICATE REQUEST-----\n"


def make(folder: Path, *, port_base: int = 27000) -> Path:
    """A deployment; its settings file."""
    created = deployment.create(
        folder,
        deployment.Wanted(name="bench", host="127.0.0.1", enroll_port=port_base + 443, status_port=port_base + 80, sheet="demo"),
        chance=SystemChance(),
    )
    ceremonies.run(
        created.sheet, out=created.outputs, passphrase=lambda: b"a passphrase for nothing", confirm=lambda _: True, clock=SystemClock(), chance=SystemChance()
    )  # fmt: skip
    import_ceremony(forms.read_settings(created.settings), created.outputs, clock=SystemClock(), chance=SystemChance())
    return created.settings


def fill_revoked(settings_file: Path, count: int) -> None:
    """Put `count` revoked certificates on record, past every rule: their rows are real, their octets are not. Nothing may be running."""
    now = SystemClock().now()
    later = now + 7 * 86400
    digests = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1, count + 1)]
    engine = migrating_engine(parsed(forms.store_url(forms.read_settings(settings_file))))
    with engine.begin() as connection:
        connection.execute(
            tables.certificates.insert(),
            [
                {
                    "issuer": "issuing", "serial": b"\x40" + digest[:19], "shard": 0, "state": "issued", "tenant": "default",
                    "device": f"gone-{number}", "profile": "device", "actor": "bench", "subject": f"CN=gone-{number}", "names": "[]",
                    "spki_sha256": digest, "not_before": now, "not_after": later, "revocable": True, "request_key": digest, "leaf": digest,
                    "intended_at": now, "issued_at": now, "revocation": number, "revoked": True, "grant": "{}", "tbs": digest, "der": digest,
                    "der_sha256": digest,
                }
                for number, digest in enumerate(digests, 1)
            ],
        )  # fmt: skip
        connection.execute(
            tables.revocations.insert(),
            [
                {
                    "change": number, "issuer": "issuing", "shard": 0, "serial": b"\x40" + digest[:19], "reason": int(Reason.keyCompromise),
                    "revoked_at": now, "not_after": later, "listed": True, "tenant": "default", "actor": "bench",
                }
                for number, digest in enumerate(digests, 1)
            ],
        )  # fmt: skip
        counters = tables.counters
        connection.execute(counters.update().where(counters.c.name == tables.CHANGE).values(value=count))
    engine.dispose()


class Tokens:
    """Enrolment tokens, many in one transaction: making them is no contest, and one commit for each would take longer than all contests."""

    def __init__(self, settings_file: Path) -> None:
        self._ledger = open_store(forms.store_url(forms.read_settings(settings_file))).ledger
        self._made = 0

    def make(self, count: int) -> list[str]:
        """The texts of fresh tokens, each for a device of its own."""
        now, chance = SystemClock().now(), SystemChance()
        texts = [token.token_text(chance.octets(token.RANDOM_OCTETS)) for _ in range(count)]
        with self._ledger.writing() as tx:
            for text in texts:
                self._made += 1
                tx.add_token(
                    Token(
                        hash=token.token_hash(text),
                        tenant=DEFAULT_TENANT,
                        device=DeviceId(f"device-{self._made}"),
                        profile=ProfileName("device"),
                        names=(),
                        created=now,
                        expires=now + 3600,
                        created_by="bench",
                        used_at=None,
                        used_by=None,
                    )
                )
        return texts


class World:
    """The signer's parts in this process."""

    def __init__(self, settings_file: Path, parts: signing.SignerParts) -> None:
        self.parts = parts
        self.desk = parts.desk
        self.issuing = parts.verbs.issuing
        settings = forms.read_settings(settings_file)
        self.issuer = x509.load_pem_x509_certificate(settings.issuer("issuing").certificate.read_bytes())
        self.tokens = Tokens(settings_file)

    def check(self, issued: Sequence[bytes], count: int) -> list[bytes]:
        """The same certificates, once each was found to be ours and another one."""
        assert len(issued) == count
        serials = set()
        for der in issued:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self.issuer)
            serials.add(certificate.serial_number)
        assert len(serials) == count
        return [*issued]

    def issue(self) -> CertificateRef:
        """A certificate for a new device."""
        (csr,), (text,) = csrs(1), self.tokens.make(1)
        outcome = self.desk.do(self.issuing.prepare(IssueRequest(csr, TokenEvidence(text)), Peer(Role.enroll, os.getuid())))
        ref: CertificateRef = outcome.certificate.ref
        return ref

    def revoke(self, ref: CertificateRef) -> None:
        peer = Peer(Role.operator, os.getuid())
        asked = RevokeRequest(LocalEvidence(Role.operator, peer.uid), Reason.keyCompromise, target=ref)
        made = self.desk.do(self.parts.verbs.revoking.prepare(asked, peer))
        assert [change.ref for change in made] == [ref]


@contextmanager
def opened(folder: Path, *, revoked: int = 0) -> Iterator[World]:
    settings_file = make(folder)
    if revoked:
        fill_revoked(settings_file, revoked)
    with signing.signer_parts(forms.read_settings(settings_file)) as parts:
        parts.desk.start()
        process.settle()  # as the signer's own process does
        yield World(settings_file, parts)
        parts.desk.stop()


class Service:
    """All processes of a deployment, and clients that keep their connections."""

    def __init__(self, settings_file: Path) -> None:
        from ca.signer.client import SignerClient

        self.settings = forms.read_settings(settings_file)
        self.issuer = x509.load_pem_x509_certificate(self.settings.issuer("issuing").certificate.read_bytes())
        self.context = ssl.create_default_context(cafile=str(self.settings.issuer("root").certificate))
        self.operator = SignerClient(self.settings.signer.socket, Role.operator)
        self.issued: list[x509.Certificate] = []
        self.tokens = Tokens(settings_file)

    def enroll(self, requests: Sequence[bytes], *, connections: int) -> float:
        """Enrolments a second over HTTPS, `connections` at once, keep-alive. The load comes from a process of its own."""
        texts = self.tokens.make(len(requests))
        work = [{"token": text, "csr": pem_of(csr)} for text, csr in zip(texts, requests, strict=True)]
        root = str(self.settings.issuer("root").certificate)
        answer = elsewhere("enrol", self.settings.enroll.url, root, connections, work)
        assert len(answer["certificates"]) == len(requests)
        for pem in answer["certificates"]:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            certificate.verify_directly_issued_by(self.issuer)
            self.issued.append(certificate)
        return float(len(requests) / answer["seconds"])

    def revoke(self, certificate: x509.Certificate) -> None:
        ref = CertificateRef(IssuerId("issuing"), Serial(certificate.serial_number))
        made = self.operator.revoke(RevokeRequest(self.operator.local, Reason.keyCompromise, target=ref))
        assert [change.ref for change in made] == [ref]

    def ask_status(self, certificate: x509.Certificate, *, seconds: float, connections: int) -> float:
        """OCSP answers a second about one certificate, keep-alive; every answer says that it is good."""
        question = ocsp.OCSPRequestBuilder().add_certificate(certificate, self.issuer, hashes.SHA1()).build()
        octets = question.public_bytes(Encoding.DER)
        answer = elsewhere("ask_status", self.settings.status.url, base64.b64encode(octets).decode(), seconds, connections)
        for body in answer["bodies"]:
            told = ocsp.load_der_ocsp_response(base64.b64decode(body))
            assert told.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
            assert told.certificate_status is ocsp.OCSPCertStatus.GOOD
            assert told.serial_number == certificate.serial_number
        return float(answer["answers"] / answer["seconds"])


@contextmanager
def served(folder: Path, *, revoked: int = 0) -> Iterator[Service]:
    from fleetca.serve import Supervisor

    settings_file = make(folder)
    # Enrolment has a worker for each core; the first `workers` is its own.
    settings_file.write_text(settings_file.read_text().replace("workers = 1", f"workers = {os.cpu_count()}", 1))
    if revoked:
        fill_revoked(settings_file, revoked)
    supervisor = Supervisor(settings_file, log_directory=folder / "logs")
    supervisor.start()
    watch = threading.Thread(target=supervisor.watch)
    watch.start()
    try:
        yield Service(settings_file)
    finally:
        supervisor.stopping.set()
        watch.join()


def elsewhere(load: str, *arguments: Any) -> dict[str, Any]:
    """The client side, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("world_load.py")), load]
    # Into a file: a pipe of a child that ran an event loop was once read short.
    with tempfile.TemporaryFile("w+") as told:
        subprocess.run(command, input=json.dumps(arguments), stdout=told, text=True, check=True)
        told.seek(0)
        answer: dict[str, Any] = json.load(told)
    return answer
