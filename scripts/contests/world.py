"""A real deployment for contests: made by init, ceremony and import, then opened in process or served by all its processes."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca.model import DeviceId, LocalEvidence, Peer, ProfileName, Role, TokenRequest
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, wiring
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


class World:
    """The signer's parts in this process."""

    def __init__(self, settings_file: Path, parts: wiring.SignerParts) -> None:
        self.parts = parts
        self.desk = parts.desk
        self.issuing = parts.verbs.issuing
        settings = forms.read_settings(settings_file)
        self.issuer = x509.load_pem_x509_certificate(settings.issuer("issuing").certificate.read_bytes())
        self._made = 0

    def tokens(self, count: int) -> list[str]:
        peer = Peer(Role.operator, os.getuid())
        made = []
        for _ in range(count):
            self._made += 1
            request = TokenRequest(
                LocalEvidence(Role.operator, peer.uid), DeviceId(f"device-{self._made}"), ProfileName("device"), (), 3600
            )
            made.append(self.parts.verbs.tokens.create(request, peer).text)
        return made

    def check(self, issued: Sequence[bytes], count: int) -> None:
        assert len(issued) == count
        serials = set()
        for der in issued:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self.issuer)
            serials.add(certificate.serial_number)
        assert len(serials) == count


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    settings_file = make(folder)
    with wiring.signer_parts(forms.read_settings(settings_file)) as parts:
        parts.desk.start()
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
        self._made = 0

    def enroll(self, requests: Sequence[bytes], *, connections: int) -> float:
        """Enrolments a second over HTTPS, `connections` at once, keep-alive. The load comes from a process of its own."""
        work = []
        for csr in requests:
            self._made += 1
            token = self.operator.create_token(
                TokenRequest(self.operator.local, DeviceId(f"device-{self._made}"), ProfileName("device"), (), 3600)
            ).text
            work.append({"token": token, "csr": pem_of(csr)})
        done = subprocess.run(
            [sys.executable, __file__, self.settings.enroll.url, str(self.settings.issuer("root").certificate), str(connections)],
            input=json.dumps(work), capture_output=True, text=True, check=True,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert len(answer["certificates"]) == len(requests)
        for pem in answer["certificates"]:
            x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(self.issuer)
        return float(len(requests) / answer["seconds"])


@contextmanager
def served(folder: Path) -> Iterator[Service]:
    from fleetca.serve import Supervisor

    settings_file = make(folder)
    supervisor = Supervisor(settings_file, log_directory=folder / "logs")
    supervisor.start()
    watch = threading.Thread(target=supervisor.watch)
    watch.start()
    try:
        yield Service(settings_file)
    finally:
        supervisor.stopping.set()
        watch.join()


def load(url: str, root: str, connections: int, work: list[dict[str, Any]]) -> dict[str, Any]:
    """The client side of `enroll`: asyncio over TLS, one request at a time on each connection."""
    import asyncio
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=root)
    bodies = [json.dumps(item).encode() for item in work]
    certificates: list[str] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        while bodies:
            body = bodies.pop()
            head = (
                f"POST /v1/enroll HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 201"), answer
            size = next(int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
            certificates.append(json.loads(await reader.readexactly(size))["certificate"])
        writer.close()

    async def run() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(connections)))
        return time.perf_counter() - began

    return {"seconds": asyncio.run(run()), "certificates": certificates}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.load(sys.stdin))))
