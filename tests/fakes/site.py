"""The REST API behind our own TLS server, over a door in memory, and a folder of devices."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.der import pem
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.keys.memory import MemoryKey, make_private_key
from ca.keys.sealed_file import seal
from ca.model import AlgorithmName, DeviceId, IssueRequest, KeyName, Name, NameKind, ProfileName
from ca.system import SystemChance, SystemClock
from fleetca.agent import renewing
from fleetca.agent.pairs import Pair
from fleetca.agent.renewing import By, Service
from fleetca.server import load_certificate, make_server, tls_context
from tests.fakes.door import Authority, Door
from tests.fakes.rest import Rest

CLOCK = SystemClock()
CHANCE = SystemChance()


class Site:
    """The REST API behind our own server, and a folder of a device."""

    def __init__(self, folder: Path, *, roof: Authority | None = None, tls12: bool = False) -> None:
        """`roof`: whose certificate the web service itself has; None: of the authority that it serves. `tls12`: as in the settings."""
        self.folder = folder
        self.rest = Rest(authority=Authority(now=CLOCK.now()))
        self.rest.clock.at = CLOCK.now()
        authority = self.rest.door.authority
        trusted = [pem.pem(pem.CERTIFICATE, one.certificate).encode() for one in (authority.root, authority.issuing)]
        context = tls_context(trusted=trusted, tls12=tls12)
        key, csr = _key_and_csr("p256")
        request = IssueRequest(
            csr,
            self.rest.door.local(),
            DeviceId("gateway"),
            ProfileName("service"),
            (Name(NameKind.dns, "localhost"), Name(NameKind.ip, "127.0.0.1"), Name(NameKind.ip, "::1")),
        )
        above = authority if roof is None else roof
        door = self.rest.door if roof is None else Door(self.rest.clock, authority=roof)
        certificate = door.issue(replace(request, evidence=door.local())).certificate.der
        assert certificate is not None
        chain = pem.pem(pem.CERTIFICATE, certificate) + pem.pem(pem.CERTIFICATE, above.issuing.certificate)
        load_certificate(context, chain=chain.encode(), key=_plain(key))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        ready = threading.Event()
        self.server = make_server(self.rest.app, threads=2, ready=ready.set, context=context)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        assert ready.wait(60)
        root = folder / "root.pem"
        root.write_text(pem.pem(pem.CERTIFICATE, authority.root.certificate))
        self.service = Service(f"https://localhost:{listener.getsockname()[1]}", root)

    def close(self) -> None:
        self.server.stop()
        self._thread.join(60)

    def device(self, name: str = "pump-17", algorithm: str = "p256", *, passphrase: bytes | None = None, operator: bool = False) -> Pair:
        """A device with its pair on disk."""
        key, csr = _key_and_csr(algorithm)
        if operator:
            certificate = self.rest.door.add_operator(name, csr)
        else:
            issued = self.rest.door.issue(IssueRequest(csr, self.rest.door.local(), DeviceId(name), ProfileName("device")))
            assert issued.certificate.der is not None
            certificate = issued.certificate.der
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key", None if passphrase is None else lambda: passphrase)
        pair.certificate.write_text(pem.pem(pem.CERTIFICATE, certificate))
        pair.key.write_bytes(_plain(key) if passphrase is None else seal(key, passphrase).encode())
        pair.key.chmod(0o600)
        return pair

    def renew(self, pair: Pair, by: By = By.auto) -> renewing.Renewed:
        return renewing.renew(pair, self.service, by=by, clock=CLOCK, chance=CHANCE)

    def issued(self, device: str = "pump-17") -> list[Any]:
        return [row for row in self.rest.door.rows.values() if row.device == device]


def _key_and_csr(algorithm: str) -> tuple[Any, bytes]:
    private = make_private_key(AlgorithmName(algorithm))
    key = MemoryKey(KeyName("device"), private)
    asked = request_info({"common_name": "x"}, key.spki)
    return private, assemble(asked, key.algorithm, key.sign(asked))


def _plain(key: Any) -> bytes:
    octets: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets
