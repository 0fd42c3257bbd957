"""`fleetca serve` on the real thing: it drains, reloads, brings back what died, and starts quickly however much is on record."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pysqlite3 import dbapi2 as sqlite3

from ca.model import CertificateQuery
from ca.store.engine import open_store
from config.settings import Settings
from fleetca import forms
from fleetca.crew import Running
from fleetca.launching import Launcher
from fleetca.serve import Supervisor, plans
from tests.parts import need
from tests.running import (
    ROOT,
    Device,
    Reply,
    ask,
    assert_no_traceback,
    eventually,
    log_lines,
    make_deployment,
    many_descriptors,
    ocsp_status,
    text,
    tls,
    token,
)

MILLION = 1_000_000


class Served:
    """`fleetca serve` and what it said."""

    def __init__(self, file: Path, process: subprocess.Popen[str], log: Path, document: Mapping[str, Any], seconds: float) -> None:
        self.file, self.process, self.log, self.document, self.seconds = file, process, log, document, seconds
        self.settings = forms.read_settings(file)
        self.enroll_url, self.ocsp_url = str(document["enroll_url"]), str(document["ocsp_url"])
        self.context = tls(self.settings.issuer("root").certificate)

    def children(self) -> dict[str, int]:
        """Role -> process id, as the system sees it now."""
        return dict(self.processes())

    def processes(self) -> Iterator[tuple[str, int]]:
        """Role and process id of each child."""
        for entry in Path("/proc").iterdir():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else []
                if status and int(status[1]) == self.process.pid and status[0] != "Z":
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                    if "--trial" not in words:
                        yield words[words.index("process") + 1], int(entry.name)
            except (OSError, ValueError):
                continue

    def mould(self) -> int:
        """What the others are copies of."""
        (found,) = (
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and b"\0fleetca.crew\0" in _read(entry / "cmdline")
            and f"\0{self.process.pid}\0".encode() in _read(entry / "cmdline")
        )
        return found

    def enrol(self, device: str, *, given: str | None = None, key: Device | None = None) -> Reply:
        document = {"token": given or token(self.settings, device), "csr": text((key or Device()).csr())}
        return ask(f"{self.enroll_url}/v1/enroll", body=document, context=self.context)

    def works(self, device: str) -> bool:
        """Whether a device can enrol and ask; what is not ready says 503 or is not there for a moment, in whatever way a connection ends."""
        from ca.errors import Unavailable

        try:
            reply = self.enrol(device)
            if reply.status == 503:
                return False
            return ocsp_status(self.ocsp_url, reply.certificate, self.settings.issuer("issuing").certificate) == "good"
        except (Unavailable, OSError, HTTPException):
            return False

    def events(self) -> list[dict[str, Any]]:
        return list(log_lines(self.log))

    def after(self, event: str, *, count: int, within: float = 60) -> dict[str, Any]:
        """Waits for one more event of that name than `count`."""
        found: list[dict[str, Any]] = eventually(
            lambda: (seen := [line for line in self.events() if line["event"] == event])[count:] and seen, within=within
        )
        return found[-1]

    def count(self, event: str) -> int:
        return sum(line["event"] == event for line in self.events())


def _read(path: Path) -> bytes:
    """A file of /proc, or nothing where its process has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def serving(file: Path, log: Path, **environment: str) -> Iterator[Served]:
    started = time.monotonic()
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetca.cli.main", "serve", "--settings", file, "--json"],
            stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.rstrip() == "}":
                break
        seconds = time.monotonic() - started
        assert said, log.read_text()[-2000:]
        yield Served(file, process, log, json.loads(said), seconds)
        process.terminate()
        assert process.wait(60) == 0
        assert_no_traceback(log.parent)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_deployment(tmp_path_factory.mktemp("served") / "here")


@pytest.fixture(scope="module")
def served(deployment: Path) -> Iterator[Served]:
    logs = deployment.parent / "logs"
    logs.mkdir()
    with serving(deployment, logs / "serve.log") as running:
        yield running


def self_signed(like: x509.Certificate) -> x509.Certificate:
    """A certificate with a serial number that we never gave out."""
    device = Device()
    return (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(device.private.public_key())
        .serial_number(like.serial_number ^ 1)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .sign(device.private, hashes.SHA256())
    )


def change(file: Path, old: str, new: str) -> None:
    """As an editor saves a file: whole, at once."""
    content = file.read_text()
    assert old in content
    fresh = file.with_suffix(".new")
    fresh.write_text(content.replace(old, new, 1))
    fresh.replace(file)


# ---- What dies comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["signer", "enroll", "status", "publisher"])
def test_a_killed_process_comes_back_and_nobody_has_to_do_anything(served: Served, role: str) -> None:
    before = served.children()
    assert set(before) == {"signer", "enroll", "status", "publisher"}
    deaths = served.count("process-died")
    os.kill(before[role], signal.SIGKILL)
    assert served.after("process-died", count=deaths)["name"] == role
    eventually(lambda: served.works(f"again-{role}-{time.monotonic_ns()}"))
    after = eventually(lambda: (now := served.children()).keys() == before.keys() and now)
    assert {name for name in before if before[name] != after[name]} == {role}


# ---- Copies -------------------------------------------------------------------------------------------------------------


def holds(pid: int, secret: bytes) -> bool:
    """Whether the octets stand anywhere in what a process may write to."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                begin, end = (int(part, 16) for part in place.split("-"))
                try:
                    memory.seek(begin)
                    if secret in memory.read(end - begin):
                        return True
                except OSError:
                    continue
    return False


def opened(pid: int) -> Iterator[str]:
    """What a process has open; it goes on opening and closing meanwhile."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(entry.readlink())


def test_P3_a_copy_holds_its_own_secrets_and_no_others(tmp_path: Path) -> None:
    """Each process is a copy of one that loaded the code, the signer aside. Neither finds in it what is for another."""
    need("root")
    file = make_deployment(tmp_path / "here")
    secrets, environment = {}, {}
    # The second is a variable that the mould gets as long as nobody has said that it is a secret.
    for name, variable in (("issuing", "TEST_ISSUING"), ("log", "VIRTUAL_ENV")):
        environment[variable] = secrets[name] = (file.parent / f"secrets/{name}.passphrase").read_text().strip()
        change(file, f'"file:secrets/{name}.passphrase"', f'"env:{variable}"')
    with serving(file, tmp_path / "serve.log", **environment) as running:
        processes = running.children() | {"mould": running.mould()}
        found = {(role, name) for role, pid in processes.items() for name, secret in secrets.items() if holds(pid, secret.encode())}
        open_files = {(role, name) for role, pid in processes.items() for name in opened(pid)}
    assert ("signer", "issuing") in found, "or this test looks in the wrong places"
    assert found <= {("signer", "issuing"), ("publisher", "log")}
    assert not {(role, name) for role, name in open_files if name.startswith("/memfd:")}


def test_a_dead_mould_costs_time_and_nothing_else(served: Served) -> None:
    before = served.children()
    os.kill(served.mould(), signal.SIGKILL)
    for role in ("status", "publisher"):
        os.kill(before[role], signal.SIGKILL)
    served.after("crew-lost", count=0)
    eventually(lambda: not {before[role] for role in ("status", "publisher")} & set(served.children().values()))
    after = eventually(lambda: (now := served.children()).keys() == before.keys() and now)
    assert {name for name in before if before[name] != after[name]} == {"status", "publisher"}
    eventually(lambda: served.works("without-a-mould"))


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    file = make_deployment(tmp_path / "here")
    with pytest.raises(AssertionError, match="-9"), serving(file, tmp_path / "serve.log") as running:
        processes = [*running.children().values(), running.mould()]
        running.process.kill()
        eventually(lambda: not [pid for pid in processes if b"fleetca" in _read(Path(f"/proc/{pid}/cmdline"))])
    assert len(processes) == 5


# ---- SIGHUP -------------------------------------------------------------------------------------------------------------

WRONG: list[Any] = [
    pytest.param("[ocsp]", '[ocsp]\ncolour = "red"', "colour", id="an unknown setting"),
    pytest.param("workers = 1", 'workers = "many"', "workers", id="a setting of the wrong type"),
    pytest.param("[ocsp]", "[ocsp", "not-toml", id="a file that is no TOML"),
    pytest.param(
        '"file:secrets/issuing.passphrase"', '"file:secrets/absent.passphrase"', "secret-missing", id="a secret that is not there"
    ),
    pytest.param('"file:secrets/issuing.passphrase"', '"file:secrets/log.passphrase"', "wrong-passphrase", id="another key's passphrase"),
    pytest.param('certificate = "ca/issuing.pem"', 'certificate = "ca/absent.pem"', "absent.pem", id="a certificate that is not there"),
]


@pytest.mark.parametrize(("old", "new", "named"), WRONG)
def test_R36_SIGHUP_with_wrong_settings_changes_nothing_and_says_why(served: Served, old: str, new: str, named: str) -> None:
    good, before, refusals = served.file.read_text(), served.children(), served.count("settings-refused")
    change(served.file, old, new)
    served.process.send_signal(signal.SIGHUP)
    try:
        said = served.after("settings-refused", count=refusals)
    finally:
        change(served.file, served.file.read_text(), good)
    assert named in f"{said['code']} {said['reason']}"
    assert said["fix"]
    eventually(lambda: served.children() == before)  # whatever tried the settings has gone
    assert served.enrol(f"refused-{refusals}").status == 201


def test_R36_settings_that_prove_wrong_when_a_process_starts_are_taken_back(served: Served) -> None:
    good, taken = served.file.read_text(), served.count("settings-taken-back")
    change(served.file, 'url = "sqlite:///state/fleetca.db"', 'url = "postgresql+psycopg://nobody@/nowhere?host=/nonexistent"')
    served.process.send_signal(signal.SIGHUP)
    try:
        served.after("settings-taken-back", count=taken)
    finally:
        change(served.file, served.file.read_text(), good)
    eventually(lambda: served.works("taken-back"))
    eventually(lambda: set(served.children()) == {"signer", "enroll", "status", "publisher"})


def test_SIGHUP_with_good_settings_replaces_every_process_and_refuses_no_connection(served: Served) -> None:
    certificate = served.enrol("asks-on").certificate
    issuing = served.settings.issuer("issuing").certificate
    before, reloads = served.children(), served.count("settings-reloaded")
    stop = threading.Event()
    troubles: list[str] = []
    answered = {"ocsp": 0, "chain": 0}

    def keep_asking(what: str) -> None:
        while not stop.is_set():
            try:
                if what == "ocsp":
                    assert ocsp_status(served.ocsp_url, certificate, issuing) == "good"
                else:
                    assert ask(f"{served.enroll_url}/v1/ca/chain", context=served.context).status == 200
                answered[what] += 1
            except Exception as error:
                troubles.append(f"{what}: {error!r}")
            stop.wait(0.02)

    with ThreadPoolExecutor(4) as pool:
        for what in ("ocsp", "chain", "ocsp", "chain"):
            pool.submit(keep_asking, what)
        change(served.file, "workers = 1", "workers = 2")  # of enroll
        change(served.file, "workers = 1", "workers = 2")  # of status
        change(served.file, 'unknown = "unknown"', 'unknown = "unauthorized"')
        served.process.send_signal(signal.SIGHUP)
        try:
            served.after("settings-reloaded", count=reloads)
            eventually(lambda: min(answered.values()) > 20)
        finally:
            stop.set()
    assert not troubles, troubles[:5]
    eventually(lambda: (now := served.children()).keys() == before.keys() and not set(before.values()) & set(now.values()))
    eventually(lambda: served.works("reloaded"))
    # A serial number that was never issued is `unauthorized` by the new settings.
    foreign = self_signed(certificate)
    assert ocsp_status(served.ocsp_url, foreign, issuing) == "unauthorized"


def test_each_worker_of_enrolment_serves_whoever_comes_while_the_others_stand_still(tmp_path: Path) -> None:
    file = make_deployment(tmp_path / "here")
    change(file, "workers = 1", "workers = 2")
    with serving(file, tmp_path / "serve.log") as served:
        workers = [pid for role, pid in served.processes() if role == "enroll"]
        assert len(workers) == 2
        for number, still in enumerate(workers):
            os.kill(still, signal.SIGSTOP)
            try:
                assert served.enrol(f"several-{number}").status == 201
            finally:
                os.kill(still, signal.SIGCONT)


RELIEF = """
import os, signal, sys
story, name, ready, after = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
def tell(what):
    with open(story, "a") as file:
        file.write(name + " " + what + "\\n")
if after >= 0:
    tell("is loaded")
    os.write(ready, b"0")
    os.read(after, 1)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
tell("works")
os.write(ready, b"1")
signal.sigwait([signal.SIGTERM])
tell("ends")
"""


def test_who_has_to_be_alone_loads_beside_the_one_before_and_works_after_it(deployment: Path, tmp_path: Path) -> None:
    """So that callers of the signer wait for its last steps and not for an interpreter to start."""
    story, names = tmp_path / "story", iter(("first", "second"))

    class Launches(Launcher):
        def launch(self, role: str, settings: Settings, *more: str, passed: Sequence[int] = (), stderr: int | None = None) -> Running:
            given = dict(zip(more[::2], more[1::2], strict=True))
            fds = given["--ready-fd"], given.get("--after-fd", "-1")
            return subprocess.Popen[bytes]([sys.executable, "-c", RELIEF, str(story), next(names), *fds], pass_fds=passed)

    supervisor = Supervisor(deployment)
    supervisor.launcher = Launches(deployment, supervisor.settings)
    (plan,) = [plan for plan in plans(supervisor.settings) if plan.role == "signer"]
    try:
        first, ready = supervisor._spawn(plan)
        supervisor._await_ready([(first, ready)])
        supervisor._relieve(first)
    finally:
        supervisor.stop()
    assert story.read_text().splitlines() == ["first works", "second is loaded", "first ends", "second works", "second ends"]


def test_P5_a_revocation_reaches_ocsp_and_the_crl_after_all_of_that(served: Served) -> None:
    certificate = served.enrol("to-revoke").certificate
    issuing = served.settings.issuer("issuing").certificate
    done = subprocess.run(
        [
            sys.executable, "-m", "fleetca.cli.main", "revoke", "--device", "to-revoke", "--confirm", "to-revoke",
            "--reason", "keyCompromise", "--settings", served.file,
        ],
        check=False, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    eventually(lambda: ocsp_status(served.ocsp_url, certificate, issuing) == "revoked")
    crl_url = served.ocsp_url.replace("/ocsp", "/crl/issuing.crl")

    def listed() -> bool:
        answer = ask(crl_url)
        if answer.status != 200:  # the publisher was killed before its first one, and its lease has to end
            return False
        crl = x509.load_der_x509_crl(answer.body)
        return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None

    eventually(listed)


# ---- Crowds -------------------------------------------------------------------------------------------------------------


def waits(connection: socket.socket) -> bool:
    """Whether the other side has not closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_R22_a_thousand_half_open_handshakes_hold_up_no_enrolment(tmp_path: Path) -> None:
    many_descriptors()
    file = make_deployment(tmp_path / "here")
    change(file, "[enroll]", "[enroll]\nconnections = 200")
    change(file, "[status]", "[status]\nconnections = 200")
    with serving(file, tmp_path / "serve.log") as running, ExitStack() as stack:
        crowd = []
        for listen in (running.settings.status.listen, running.settings.enroll.listen):
            for _ in range(1000):
                half = stack.enter_context(socket.create_connection((listen.host, listen.port)))
                crowd.append(half)
                with suppress(OSError):  # there was no room for it
                    half.sendall(b"\x16\x03\x01\x02\x00\x01" if listen is running.settings.enroll.listen else b"POST /ocsp HTTP/1.1\r\n")
        threading.Event().wait(1.2)  # longer than nobody has to give way
        eventually(lambda: running.works("past-the-crowd"))
        assert sum(waits(half) for half in crowd) > 200, "nobody waited for the handshakes of others to time out"
        for number in range(20):
            eventually(lambda number=number: running.works(f"past-the-crowd-{number}"))  # type: ignore[misc]
        used = {role: len(list(Path(f"/proc/{pid}/fd").iterdir())) for role, pid in running.children().items()}
    assert max(used["enroll"], used["status"]) < 300
    assert running.count("connections-short") >= 2


# ---- SIGTERM ------------------------------------------------------------------------------------------------------------


def intended(running: Served) -> int:
    """How many certificates devices were meant to get so far."""
    store = open_store(forms.store_url(running.settings), readonly=True)
    rows, _ = store.reading.search_certificates(CertificateQuery(limit=100))
    store.close()
    return sum(row.device.startswith("last-") for row in rows)


def test_SIGTERM_answers_what_is_in_flight_and_leaves_no_process(deployment: Path, served: Served, tmp_path: Path) -> None:
    """Signing takes a second here, so that the signal comes in the middle."""
    copy = make_deployment(tmp_path / "here")
    log = tmp_path / "serve.log"
    with serving(copy, log, FLEETCA_FAILPOINT="issue.after-sign=sleep:1.5") as running, ThreadPoolExecutor(4) as pool:
        given = [token(running.settings, f"last-{number}") for number in range(4)]
        waiting = [pool.submit(running.enrol, f"last-{number}", given=one) for number, one in enumerate(given)]
        eventually(lambda: intended(running) == len(given), every=0.02)
        children = running.children()
        running.process.terminate()
        assert [one.result().status for one in waiting] == [201] * 4
        assert running.process.wait(60) == 0
    assert len(children) == 4
    assert not [pid for pid in children.values() if Path(f"/proc/{pid}").exists()]
    assert not running.settings.signer.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        ask(running.ocsp_url)


# ---- Size ---------------------------------------------------------------------------------------------------------------

CERTIFICATES = """
INSERT INTO certificates (id, issuer, serial, shard, state, tenant, device, profile, actor, subject, names, spki_sha256, not_before,
  not_after, revocable, revoked, request_key, leaf, intended_at, issued_at, "grant", tbs, der, der_sha256)
SELECT 1000 + n, 'issuing', CAST(printf('%020d', n) AS BLOB), 0, 'issued', 'default', 'pump-' || n % 300000, 'device', 'a',
  'CN=pump-' || n % 300000, '[]', x'', n, 4000000000, 1, 0, CAST(printf('%032d', n) AS BLOB), x'', n, n, '{}', x'', x'',
  CAST(printf('%032d', n) AS BLOB)
FROM numbers
"""


def fill(file: Path) -> None:
    """Rows first, indexes after: a tenth of the time."""
    connection = sqlite3.connect(file, isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-300000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.execute("BEGIN")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'certificates' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    head, tail = re.split(r"(?=SELECT)", CERTIFICATES, maxsplit=1)
    connection.execute(f"{head} WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MILLION}) {tail}")
    for _, create in indexes:
        connection.execute(create)
    connection.execute("COMMIT")
    connection.close()


def test_serve_starts_with_a_million_certificates_as_quickly_as_with_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """About two seconds on a quiet machine. What a busy one adds, it adds to both."""
    file = make_deployment(tmp_path / "here")
    with serving(file, tmp_path / "serve.log") as running:
        empty = running.seconds
    fill(tmp_path / "here/state/fleetca.db")
    full = 0.0
    for attempt in range(3):  # a machine that was busy at that moment is not busy three times
        with serving(file, tmp_path / "serve.log") as running:
            full = running.seconds
            assert running.enrol(f"one-more-{attempt}").status == 201
        if full < max(10, 2 * empty):
            break
    with capsys.disabled():
        print(f"\nfleetca serve answered after {empty:.2f} s, and after {full:.2f} s with {MILLION} certificates on record")
    assert full < max(10, 2 * empty)
