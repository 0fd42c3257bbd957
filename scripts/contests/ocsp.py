"""OCSP answers over HTTP, beside nginx (static files), cfssl ocspserve, django-ca and openssl ocsp.

Ours is the status process as a deployment runs it: one worker, its front, Flask behind it, SQLite with all the certificates on record, changes
heard every second. Load comes from wrk (one thread, 16 connections, keep-alive), a round of each server after the other. Before and after each
round an answer is fetched and verified; a round in which one request failed does not count. Processor time is what the kernel charged the
server's processes for.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import measure
import world
import world_status
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

REQUEST = "application/ocsp-request"
PORT = 27500
CONNECTIONS = 16


@dataclass
class Server:
    """Something that answers, and what to ask it."""

    name: str
    process: subprocess.Popen[Any]
    url: str
    body: bytes | None
    check: Callable[[bytes], None]
    children: bool = False
    latencies: list[float] = field(default_factory=list)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        pids = [self.process.pid]
        if self.children:
            pids += [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]
        ticks = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def running(self) -> float:
        """The same to the nanosecond, of the threads that it has: for work that takes only a few of the kernel's ticks."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> float:
        """MiB in memory that no file holds."""
        found = re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found, "the kernel says it"
        return int(found[1]) / 1024

    def fetch(self) -> None:
        self.check(world_status.ask(self.url, self.body))


def wrk(server: Server, seconds: float, *, script: str | None = None, connections: int = CONNECTIONS) -> tuple[float, float]:
    """Answers a second, and microseconds of the server's processor time for each."""
    server.fetch()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script is None and server.body is not None:
            script = world_status.lua(server.body)
        if script is not None:
            file.write(script)
            file.flush()
        options = ["-s", file.name] if script is not None else []
        before = server.cpu()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--timeout", "60s", "--latency", *options, server.url],
            capture_output=True,
            text=True,
            check=True,
        )
        after = server.cpu()
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, f"{server.name}: {done.stdout}"
    total, took = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout).groups()  # type: ignore[union-attr]
    slowest = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    assert slowest, done.stdout
    server.latencies.append(float(slowest[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[slowest[2]])
    server.fetch()
    return int(total) / float(took), (after - before) / int(total) * 1e6


def together(rounds: int, seconds: float, *servers: Server) -> list[tuple[list[float], list[float]]]:
    """Interleaved rounds; for each server its rates and its processor times."""
    for server in servers:
        wrk(server, 1)
        server.latencies.clear()
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in servers]
    for _ in range(rounds):
        for at, server in enumerate(servers):
            rate, cpu = wrk(server, seconds)
            found[at][0].append(rate)
            found[at][1].append(cpu)
    return found


# ---- The servers --------------------------------------------------------------------------------------------------------


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listening(port: int) -> None:
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            threading.Event().wait(0.05)
    raise RuntimeError(f"nobody listens on {port}")


@contextmanager
def ours(folder: Path, *, known: int, port: int) -> Iterator[world_status.Deployment]:
    here = world_status.Deployment(world.make(folder, port_base=port - 80), known)
    command = (sys.executable, "-m", "fleetca.cli.main", "process")
    with running(*command, "signer", "--settings", here.file), running(*command, "status", "--settings", here.file) as process:
        here.process = process
        here.wait()
        yield here


def server_of(here: world_status.Deployment, *, nonce: bool = False, get: bool = False, at: int = 0) -> Server:
    body = here.request(at, nonce=nonce)
    url = here.url + ("/" + quote(base64.b64encode(body).decode(), safe="") if get else "")
    return Server("fleetca", here.process, url, None if get else body, here.checker(at, nonce=nonce))


@contextmanager
def nginx(folder: Path, body: bytes, answer: bytes, check: Callable[[bytes], None]) -> Iterator[Server]:
    """The same octets as a file, under the path of the same GET. No cache of open files: a revocation must show within two seconds."""
    name = base64.b64encode(body).decode()
    file = folder / "html" / "ocsp" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(answer)
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        events {{ worker_connections 4096; }}
        http {{ access_log off; keepalive_requests 1000000000; default_type application/ocsp-response; merge_slashes off;
          add_header Cache-Control "max-age=300, public, no-transform, must-revalidate";
          server {{ listen 127.0.0.1:{PORT + 1}; root {folder}/html; }} }}"""
    )
    with running("nginx", "-p", folder, "-c", folder / "nginx.conf") as process:
        listening(PORT + 1)
        yield Server("nginx static", process, f"http://127.0.0.1:{PORT + 1}/ocsp/{quote(name, safe='')}", None, check, children=True)


@contextmanager
def cfssl(folder: Path, body: bytes, answers: Sequence[bytes], check: Callable[[bytes], None]) -> Iterator[Server]:
    file = folder / "responses"
    file.write_text("\n".join(base64.b64encode(answer).decode() for answer in answers))
    command = ("cfssl", "ocspserve", f"-port={PORT + 2}", f"-responses={file}", "-loglevel=5")
    with running(*command, env={**os.environ, "GOMAXPROCS": "1"}) as process:
        listening(PORT + 2)
        yield Server("cfssl ocspserve", process, f"http://127.0.0.1:{PORT + 2}/", body, check)


@contextmanager
def django_ca() -> Iterator[tuple[Server, Server] | None]:
    python = measure.rival_python("django-ca")
    if python is None:
        yield None
        return
    worker = measure.Worker(python, Path(__file__).parent / "rival_django_ca_ocsp.py", str(PORT + 3))
    said = worker.said

    def server(name: str) -> Server:
        def check(octets: bytes) -> None:
            told = ocsp.load_der_ocsp_response(octets)
            assert told.certificate_status is ocsp.OCSPCertStatus.GOOD
            assert str(told.serial_number) == said["serial"]

        url = f"http://127.0.0.1:{PORT + 3}{said['path']}"
        return Server("django-ca", worker.process, url, base64.b64decode(said[name]), check, children=True)

    try:
        yield server("request"), server("with_nonce")
    finally:
        worker.process.terminate()
        worker.process.wait(30)


@contextmanager
def openssl(folder: Path) -> Iterator[Server]:
    """`openssl ocsp` signs each answer and closes each connection. One empty connection stalls it, so the system is asked whether it listens."""
    made = world_status.OpensslCa(folder)
    command = (
        "openssl", "ocsp", "-port", str(PORT + 4), "-index", folder / "index.txt", "-CA", folder / "ca.pem", "-rsigner", folder / "ocsp.pem",
        "-rkey", folder / "ocsp.key", "-nmin", "60",
    )  # fmt: skip
    with running(*command) as process:
        for _ in range(1200):
            sockets = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
            if any(f":{PORT + 4:04X} " in line and " 0A " in line for line in sockets):
                break
            threading.Event().wait(0.05)
        yield Server("openssl ocsp", process, f"http://127.0.0.1:{PORT + 4}/", made.request, made.check)


# ---- The rows -----------------------------------------------------------------------------------------------------------


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    missing.extend(f"{tool}: it is not installed" for tool in ("wrk", "nginx", "cfssl", "openssl") if shutil.which(tool) is None)
    if missing:
        return
    known, few, rounds, seconds = (3_000, 1_000, 3, 1.0) if quick else (int(os.environ.get("BENCH_KNOWN", "1000000")), 1_000, 5, 2.0)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES)))

        def folder(name: str) -> Path:
            (scratch / name).mkdir()
            return scratch / name

        here = stack.enter_context(ours(folder("ours") / "here", known=known, port=PORT))
        cached, by_get, fresh = server_of(here), server_of(here, get=True), server_of(here, nonce=True)
        answer = world_status.ask(cached.url, cached.body)
        static = stack.enter_context(nginx(folder("nginx"), here.request(0), answer, cached.check))
        packed = stack.enter_context(cfssl(folder("cfssl"), here.request(0), [answer], cached.check))
        django = stack.enter_context(django_ca())
        if django is None:
            missing.append("django-ca: it cannot be installed here")
        yield from cached_rows(cached, by_get, static, packed, django, rounds=rounds, seconds=seconds)
        yield from fresh_rows(fresh, django, rounds=rounds, seconds=seconds)
        yield in_process(rounds=rounds, count=2_000 if quick else 20_000)
        yield from one_by_one(cached, stack.enter_context(openssl(folder("openssl"))), rounds=rounds, seconds=seconds)
        yield from strangers(cached, rounds=rounds, seconds=seconds, idle=100 if quick else 1000)
        yield from noise(cached, rounds=rounds, seconds=seconds, count=1_000 if quick else 10_000)
        ahead = stack.enter_context(ours(folder("ahead") / "here", known=500 if quick else 8_000, port=PORT + 400))
        yield from ahead_rows(ahead, scratch, rounds=3 if quick else 5)
        if not quick:
            half = stack.enter_context(ours(folder("half") / "here", known=500_000, port=PORT + 800))
            yield ahead_row(half, scratch, rounds=3)
        little = stack.enter_context(ours(folder("few") / "here", known=few, port=PORT + 200))
        yield from known_rows(here, little, rounds=rounds, seconds=seconds, turn=0)
        if not quick:
            most = stack.enter_context(ours(folder("most") / "here", known=10_000_000, port=PORT + 600))
            yield from known_rows(most, little, rounds=rounds, seconds=seconds, turn=rounds)


def cached_rows(
    cached: Server, by_get: Server, static: Server, packed: Server, django: tuple[Server, Server] | None, *, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    servers = [cached, by_get, static, packed, *(django[:1] if django else ())]
    (post, post_cpu), (get, get_cpu), (_, static_cpu), (cfssl_rate, cfssl_cpu), *rest = together(rounds, seconds, *servers)
    for kind, rate, cpu in (("POST", post, post_cpu), ("GET", get, get_cpu)):
        yield measure.row(
            contest=f"finished answers by {kind}", rival="cfssl ocspserve, POST", ours=rate, theirs=cfssl_rate, target=14, better="higher", unit="answers/s",
        )  # fmt: skip
        yield measure.row(
            contest=f"finished answers by {kind}, processor time", rival="cfssl ocspserve, POST", ours=cpu, theirs=cfssl_cpu, target=round(1 / 14, 3),
            better="lower", unit="us",
        )  # fmt: skip
        yield measure.row(
            contest=f"finished answers by {kind}, processor time", rival="nginx, the same octets as a file, GET", ours=cpu, theirs=static_cpu, target=1.0,
            better="lower", unit="us",
        )  # fmt: skip
        for rate_of, cpu_of in rest:
            yield measure.row(
                contest=f"finished answers by {kind}",
                rival="django-ca, gunicorn",
                ours=rate,
                theirs=rate_of,
                target=280,
                better="higher",
                unit="answers/s",
            )
            yield measure.row(
                contest=f"finished answers by {kind}, processor time", rival="django-ca, gunicorn", ours=cpu, theirs=cpu_of, target=round(1 / 280, 4),
                better="lower", unit="us",
            )  # fmt: skip
    yield measure.row(
        contest="99th percentile of finished answers under full load", rival="limit of 10 ms", ours=cached.latencies, theirs=[10.0] * rounds, target=1,
        better="lower", unit="ms",
    )  # fmt: skip


def fresh_rows(fresh: Server, django: tuple[Server, Server] | None, *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    if django is None:
        return
    (rate, _), (theirs, _) = together(rounds, seconds, fresh, django[1])
    yield measure.row(
        contest="answers with a nonce, each signed (P-256)", rival="django-ca with a nonce, gunicorn", ours=rate, theirs=theirs, target=60, better="higher",
        unit="answers/s",
    )  # fmt: skip


def in_process(*, rounds: int, count: int) -> dict[str, Any]:
    """What an answer with a nonce costs inside the worker, from the octets of the request to the octets of the response, beside one signature."""
    front, requests, message, key = world_status.fresh_front(count)

    def answers() -> float:
        began = time.process_time()
        for request in requests:
            assert front.post(request) is not None
        return (time.process_time() - began) / len(requests) * 1e6

    def signatures() -> float:
        began = time.process_time()
        for _ in requests:
            key.sign(message, ec.ECDSA(hashes.SHA256()))
        return (time.process_time() - began) / len(requests) * 1e6

    mine, theirs = measure.interleave(rounds, answers, signatures)
    share = world_status.POLICY.reread_share
    return measure.row(
        contest=f"an answer with a nonce in process, every {round(1 / share)}th read again", rival="one P-256 signature by cryptography", ours=mine, theirs=theirs,
        target=1.4, better="lower", unit="us",
    )  # fmt: skip


def one_by_one(cached: Server, rival: Server, *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    def rate(server: Server) -> float:
        assert server.body is not None
        answers, last = world_status.one_by_one(server.url, server.body, seconds)
        server.check(last)
        return answers / seconds

    rate(cached), rate(rival)
    mine, theirs = measure.interleave(rounds, lambda: rate(cached), lambda: rate(rival))
    yield measure.row(
        contest="a connection for each request, one after the other", rival="openssl ocsp", ours=mine, theirs=theirs, target=1.1, better="higher",
        unit="answers/s",
    )  # fmt: skip


def strangers(cached: Server, *, rounds: int, seconds: float, idle: int) -> Iterator[dict[str, Any]]:
    def beside() -> float:
        with world_status.strangers(cached.url, idle):
            return wrk(cached, seconds)[0]

    mine, theirs = measure.interleave(rounds, beside, lambda: wrk(cached, seconds)[0])
    yield measure.row(
        contest=f"finished answers beside {idle} idle and {idle} half-sent connections", rival="the same without them", ours=mine, theirs=theirs, target=0.9,
        better="higher", unit="answers/s",
    )  # fmt: skip


def noise(cached: Server, *, rounds: int, seconds: float, count: int) -> Iterator[dict[str, Any]]:
    """The 99th percentile of good questions, from one connection at a time's view: 16 connections as fast as they can, malformed ones beside them."""

    def slowest() -> float:
        cached.latencies.clear()
        wrk(cached, seconds)
        return cached.latencies.pop()

    def beside() -> float:
        with world_status.noise(cached.url, count, seconds):
            return slowest()

    slowest()
    mine, theirs = measure.interleave(rounds, beside, slowest)
    yield measure.row(
        contest=f"99th percentile under full load with {count} malformed requests mixed in", rival="the same without them", ours=mine, theirs=theirs,
        target=2, better="lower", unit="ms",
    )  # fmt: skip


def ahead_row(here: world_status.Deployment, scratch: Path, *, rounds: int) -> dict[str, Any]:
    """A million answers: what a table of 700 MB costs beside one of 12."""

    def presign() -> float:
        rate, _ = world_status.presigned(here, scratch / "million", "p256", files=None)
        shutil.rmtree(scratch / "million")
        return rate

    mine, theirs = measure.interleave(rounds, presign, lambda: world_status.signatures("p256", 20_000))
    return measure.row(
        contest=f"signing {2 * here.known} answers ahead into the spool, p256", rival="raw signatures of that key", ours=mine, theirs=theirs,
        target=0.6, better="higher", unit="answers/s of processor time",
    )  # fmt: skip


def ahead_rows(here: world_status.Deployment, scratch: Path, *, rounds: int) -> Iterator[dict[str, Any]]:
    """Signing for every certificate on record by two hashes: database, signature, sampled re-reading, record or file; processor time.

    Folders on the disk are removed when all is over: for minutes after many files were removed at once, ext4 looks at each of their inodes for every
    new file (0.6 ms), and removing whole folders between two rounds is the contest's doing, not the product's.
    """
    turn = iter(range(1000))
    sizes: dict[str, float] = {}

    def presign(algorithm: str, *, files: Path | None) -> float:
        name = f"ahead-{next(turn)}"
        folder = None if files is None else files / f"{name}-files"
        rate, sizes[algorithm] = world_status.presigned(here, scratch / name, algorithm, files=folder)
        shutil.rmtree(scratch / name)
        if folder is not None and files != scratch:
            shutil.rmtree(folder)
        return rate

    def raw(algorithm: str) -> float:
        return world_status.signatures(algorithm, 200 if algorithm.startswith("ml") else 4000)

    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir="/dev/shm") as memory:
        rows: list[tuple[str, Path | None, str, float]] = [
            ("p256", None, "into the spool", 0.6),
            ("p256", Path(memory), "as files too, in memory (tmpfs)", 0.3),
            *([] if rounds < 5 else [("p256", scratch, "as files too, on this disk", 0.3)]),
            ("ml-dsa-44", None, "into the spool", 0.6),
            ("ml-dsa-65", None, "into the spool", 0.6),
        ]
        for algorithm, files, where, target in rows:
            mine, theirs = measure.interleave(
                3 if algorithm.startswith("ml") or files == scratch else rounds,
                functools.partial(presign, algorithm, files=files),
                functools.partial(raw, algorithm),
            )
            yield measure.row(
                contest=f"signing ahead {where}, {algorithm}", rival="raw signatures of that key", ours=mine, theirs=theirs, target=target,
                better="higher", unit="answers/s of processor time",
            )  # fmt: skip
    for algorithm, target in (("ml-dsa-44", 8), ("ml-dsa-65", 11)):
        yield measure.row(
            contest=f"octets of an answer, responder {algorithm}", rival="responder p256", ours=[sizes[algorithm]] * rounds, theirs=[sizes["p256"]] * rounds,
            target=target, better="lower", unit="octets",
        )  # fmt: skip


def known_rows(
    many: world_status.Deployment, few: world_status.Deployment, *, rounds: int, seconds: float, turn: int
) -> Iterator[dict[str, Any]]:
    """What an answer costs with so many certificates on record, beside few.

    Args:
        turn: how many times fifty of them were asked for the first time before.
    """
    asked = 500
    big, small = server_of(many), server_of(few)
    scripts = {id(big): many.script(range(asked)), id(small): few.script(range(asked))}

    def cpu(server: Server) -> float:
        return wrk(server, seconds, script=scripts[id(server)])[1]

    cpu(big), cpu(small)
    mine, theirs = measure.interleave(rounds, lambda: cpu(big), lambda: cpu(small))
    yield measure.row(
        contest=f"processor time of answers about {asked} certificates, {many.known} on record", rival=f"{few.known} on record", ours=mine, theirs=theirs,
        target=1.15, better="lower", unit="us",
    )  # fmt: skip

    def first(server: Server, here: world_status.Deployment, at: int) -> float:
        """Questions that nobody asked before: database, signature, Flask."""
        before = server.running()
        count = world_status.first_questions(here, range(asked + at * 50, asked + at * 50 + 50))
        return (server.running() - before) / count * 1e6

    mine, theirs = [], []
    for at in range(turn, turn + rounds):
        mine.append(first(big, many, at))
        theirs.append(first(small, few, at))
    yield measure.row(
        contest=f"processor time of first questions, {many.known} on record", rival=f"{few.known} on record", ours=mine, theirs=theirs, target=1.15,
        better="lower", unit="us",
    )  # fmt: skip
    yield measure.row(
        contest=f"memory of a worker with {many.known} certificates on record", rival="limit of 300 MiB", ours=[big.memory()] * rounds, theirs=[300.0] * rounds,
        target=1, better="lower", unit="MiB",
    )  # fmt: skip
