"""What tests of a running deployment share: asking it over the wire as strangers do, and running its processes one by one.

`demo` (tests/interop/conftest.py) is a deployment under `fleetca serve`'s watch; `Apart` runs the same processes without anyone who
starts them again, so that a test decides who is dead, what the clock says and where the files lie.
"""

from __future__ import annotations

import base64
import http.client
import io
import itertools
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ca.der import pem
from ca.keys.memory import make_private_key
from ca.model import AlgorithmName, DeviceId, ProfileName, Role, TokenRequest
from ca.signer.client import SignerClient
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from fleetca import ceremonies, deployment, forms
from fleetca.cli.main import main
from fleetca.importing import import_ceremony

ROOT = Path(__file__).parents[1]
ROLES = ("signer", "enroll", "status", "publisher")
SHA256 = hashes.SHA256()


# ---- Over the wire ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def certificate(self) -> x509.Certificate:
        assert self.status in {200, 201}, self.body
        return x509.load_pem_x509_certificate(self.json["certificate"].encode())


def tls(trusted: Path, *, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client's TLS context; presents a certificate when it has one, whatever that is worth."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=trusted)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def connection(url: str, context: ssl.SSLContext | None = None, *, timeout: float = 60) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    if context is not None:
        return http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=timeout)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


def ask(
    url: str,
    *,
    method: str | None = None,
    body: Any = None,
    kind: str = "application/json",
    context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Reply:
    """One request on a connection of its own. A body that is not octets goes as JSON."""
    octets = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    line = connection(url, context, timeout=timeout)
    try:
        sent = {"Content-Type": kind} if octets is not None else {}
        path = url.split("/", 3)[3] if url.count("/") > 2 else ""
        line.request(method or ("GET" if octets is None else "POST"), f"/{path}", octets, {**sent, **(headers or {})})
        answer = line.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        line.close()


def problem(reply: Reply, status: int, code: str) -> dict[str, Any]:
    """A problem document as RFC 9457 and our promises want it: its status and code, words, no traceback. Returns it."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["detail"]
    assert b"Traceback" not in reply.body
    assert status < 500 or int(reply.headers["retry-after"]) >= 1
    return document


class Device:
    """A key of a device's own, and requests for it."""

    def __init__(self, algorithm: str = "p256") -> None:
        self.private: Any = make_private_key(AlgorithmName(algorithm))
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.private, SHA256)
        self._csr: bytes = request.public_bytes(Encoding.DER)

    def csr(self) -> bytes:
        """The same octets each time: who asks again asks the same."""
        return self._csr

    def key_pem(self) -> bytes:
        octets: bytes = self.private.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return octets

    def files(self, folder: Path, *certificates: x509.Certificate) -> tuple[Path, Path]:
        """Certificate chain and key as files, for TLS."""
        chain, key = folder / "chain.pem", folder / "key.pem"
        chain.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem())
        return chain, key


def text(csr: bytes) -> str:
    return pem.pem(pem.REQUEST, csr)


def base64_of(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def ocsp_request(certificate: x509.Certificate, issuer: Path) -> bytes:
    authority = x509.load_pem_x509_certificate(issuer.read_bytes())
    octets: bytes = ocsp.OCSPRequestBuilder().add_certificate(certificate, authority, SHA256).build().public_bytes(Encoding.DER)
    return octets


def ocsp_status(url: str, certificate: x509.Certificate, issuer: Path) -> str:
    """`good`, `revoked`, `unknown`, or the name of an OCSP error."""
    reply = ask(url, body=ocsp_request(certificate, issuer), kind="application/ocsp-request")
    assert reply.status == 200, reply
    return ocsp_word(reply.body)


def ocsp_word(body: bytes) -> str:
    answer = ocsp.load_der_ocsp_response(body)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return answer.response_status.name.lower()
    return answer.certificate_status.name.lower()


def many_descriptors(count: int = 8192) -> None:
    """Let this process open so many, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))


def eventually(holds: Callable[[], Any], *, within: float = 60.0, every: float = 0.1) -> Any:
    """The first truthy answer; fails with the last one when none comes in time."""
    clock = SystemClock()
    deadline = clock.monotonic() + within
    pause = threading.Event()
    while True:
        found = holds()
        if found:
            return found
        assert clock.monotonic() < deadline, f"not within {within} s"
        pause.wait(every)


def log_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines so far; without a last one that is not whole yet."""
    for line in file.read_text(errors="replace").rpartition("\n")[0].splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def assert_no_traceback(logs: Path) -> None:
    """Nothing that was sent or done made any process fall over a mistake of its own."""
    for file in sorted(logs.glob("*.log")):
        content = file.read_text(errors="replace")
        found = re.search(r'.*(Traceback|"event":"(crashed|internal)"|this should not have happened|Exception in).*', content)
        assert found is None, f"{file.name}: {found.group() if found else ''}"


BASES = range(10500, 26000, 100)
"""Below those of scripts/bench, those of the pages of docs/, and those that the system gives to clients. No base's 80 is another's 443 or 0, as none of their differences is a multiple of a hundred."""


@cache
def _bases() -> Iterator[int]:
    """The bases of this process, each once: what was given out may be listened on only later. Workers of one run share none."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = BASES[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) :: workers]
    start = os.getpid() * 37 % len(mine)  # other runs on this machine begin elsewhere
    return itertools.cycle((*mine[start:], *mine[:start]))


_OURS: dict[int, socket.socket] = {}
"""The bases that this process has given out. Each has a name that the system gives once, until we end: other runs on this machine stay off them."""


def free_ports() -> int:
    """A port base with free ports (base, base + 1, base + 2, base + 80, base + 443), another one each time."""
    for base in itertools.islice(_bases(), len(BASES)):
        claim = _OURS.get(base) or socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            if base not in _OURS:
                claim.bind(f"\0fleetca-tests-{base}")
            for port in (base, base + 1, base + 2, base + 80, base + 443):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            if base not in _OURS:
                claim.close()
            continue
        _OURS[base] = claim
        return base
    raise AssertionError("no free ports")


@contextmanager
def alone_with(*names: str, within: float = 480.0) -> Iterator[None]:
    """Holds names that the system gives once: other runs on this machine wait for us, and we for them. Everybody asks in the same order."""
    with ExitStack() as held:
        for name in names:
            claim = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            eventually(lambda claim=claim, name=name: _given(claim, f"\0fleetca-tests-{name}"), within=within)  # type: ignore[misc]
        yield


def _given(claim: socket.socket, address: str) -> bool:
    try:
        claim.bind(address)
    except OSError:
        return False
    return True


# ---- A deployment of our own --------------------------------------------------------------------------------------------


def make_deployment(folder: Path, *, store_url: str | None = None) -> Path:
    """A whole deployment on disk, its ceremony held and imported; returns its settings file. Keys are sealed cheaply: their price is not
    what is tested."""
    base = free_ports()
    wanted = deployment.Wanted(name="test", host="127.0.0.1", enroll_port=base + 443, status_port=base + 80, sheet="demo", operator="admin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)
        created = deployment.create(folder, wanted, chance=SystemChance())
        ceremonies.run(
            created.sheet,
            out=created.outputs,
            passphrase=lambda: b"correct horse battery staple",
            confirm=lambda _: True,
            clock=SystemClock(),
            chance=SystemChance(),
        )
    if store_url is not None:
        content = created.settings.read_text()
        created.settings.write_text(re.sub(r'url = "sqlite:[^"]*"', f'url = "{store_url}"', content))
    import_ceremony(forms.read_settings(created.settings), created.outputs, clock=SystemClock(), chance=SystemChance())
    return created.settings


def move(file: Path, base: int) -> None:
    """Let a copy of a deployment listen on ports of its own."""
    content = file.read_text()
    for section, port in (("enroll", 443), ("status", 80)):
        content = re.sub(rf'(\[{section}\]\nlisten = "127\.0\.0\.1:)\d+"', rf'\g<1>{base + port}"', content)
    file.write_text(content)


CLOCK = """
import sys
import time
from pathlib import Path

from ca.system import SystemClock

offset = Path(sys.argv.pop(1))
SystemClock.now = lambda self: int(time.time()) + int(offset.read_text() or 0)

from fleetca.cli.main import main

main()
"""
"""Runs the command line under a clock that a file sets back or forward."""


@dataclass
class Apart:
    """The processes of a deployment, each started and ended by the test, each with a clock of its own that the test sets."""

    file: Path
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings: Settings = forms.read_settings(self.file)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.set_clock(0)
        self.root = self.settings.issuer("root").certificate
        self.issuing = self.settings.issuer("issuing").certificate
        self.ocsp_url = f"{self.settings.status.url}/ocsp"
        self.crl_url = f"{self.settings.status.url}/crl/issuing.crl"
        self.context = tls(self.root)

    def set_clock(self, offset: int, *roles: str) -> None:
        """Add so many seconds to what the clocks of these processes say, of all without a name.

        Whoever signs while its clock is ahead has work on record from then on that is later than the right time, and refuses to go on: so where
        that is not what a test is about, the signer's clock stays as it is.
        """
        for role in roles or (*ROLES, "presigner"):
            fresh = self._clock(role).with_suffix(".new")
            fresh.write_text(str(offset))
            fresh.replace(self._clock(role))

    def _clock(self, role: str) -> Path:
        return self.logs / f"{role}.clock"

    def start(self, *roles: str) -> None:
        """Start processes and wait until each says that it is ready."""
        waiting: list[tuple[str, int]] = []
        for role in roles:
            ready, told = os.pipe()
            with (self.logs / f"{role}.log").open("ab") as log:
                self.processes[role] = subprocess.Popen(
                    [sys.executable, "-c", CLOCK, self._clock(role), "process", role, "--settings", self.file, "--ready-fd", str(told)],
                    pass_fds=[told], stdin=subprocess.DEVNULL, stderr=log, cwd=ROOT,
                )  # fmt: skip
            os.close(told)
            waiting.append((role, ready))
            if role == "signer":
                self._await(*waiting.pop())
        for role, ready in waiting:
            self._await(role, ready)

    def _await(self, role: str, ready: int) -> None:
        readable, _, _ = select.select([ready], [], [], 60)
        said = os.read(ready, 1) if readable else b""
        os.close(ready)
        assert said == b"1", f"{role} did not start: {(self.logs / f'{role}.log').read_text()[-2000:]}"

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        process = self.processes.pop(role)
        process.send_signal(number)
        return process.wait(60)

    def stop(self) -> Mapping[str, int]:
        """End all in order; their exit codes."""
        return {role: self.kill(role, signal.SIGTERM) for role in reversed(ROLES) if role in self.processes}

    # ---- What people do with it ------------------------------------------------------------------------------------------

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return command(*arguments, "--settings", self.file, "--json")

    def token(self, device: str, *, profile: str = "device", lifetime: int = 3600) -> str:
        return token(self.settings, device, profile=profile, lifetime=lifetime)

    def post(self, path: str, document: Any, *, context: ssl.SSLContext | None = None, timeout: float = 60) -> Reply:
        return ask(f"{self.settings.enroll.url}{path}", body=document, context=context or self.context, timeout=timeout)

    def enrol(self, token: str, device: Device, *, timeout: float = 60) -> Reply:
        return self.post("/v1/enroll", {"token": token, "csr": text(device.csr())}, timeout=timeout)

    def status_of(self, certificate: x509.Certificate) -> str:
        return ocsp_status(self.ocsp_url, certificate, self.issuing)

    def crl(self) -> x509.CertificateRevocationList:
        reply = ask(self.crl_url)
        assert reply.status == 200, reply
        return x509.load_der_x509_crl(reply.body)


def token(settings: Settings, device: str, *, profile: str = "device", lifetime: int = 3600) -> str:
    """A one-time token, as `fleetca token create` gets it."""
    operator = SignerClient(settings.signer.socket, Role.operator)
    made = operator.create_token(TokenRequest(operator.local, DeviceId(device), ProfileName(profile), (), lifetime))
    operator.close()
    return made.text


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`fleetca ...` as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "fleetca.cli.main", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `command`, in this very process: for what is not about processes."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = exit_code(*arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def exit_code(*arguments: object) -> int:
    """`fleetca ...` in this very process."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@contextmanager
def apart(file: Path, *, logs: Path, roles: Sequence[str] = ROLES) -> Iterator[Apart]:
    """A deployment's processes, running; ended at the end, whatever happened, and with no traceback in their logs."""
    running = Apart(file, logs)
    try:
        running.start(*roles)
        yield running
        codes = running.stop()
        assert set(codes.values()) <= {0}, codes
        assert_no_traceback(logs)
    finally:
        for process in running.processes.values():
            process.kill()
            process.wait()
