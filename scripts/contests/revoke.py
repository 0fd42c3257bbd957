"""Mass revocation: as many certificates as are on record by one query, while others are issued and OCSP is asked, beside `openssl ca -revoke`.

The whole deployment runs; the command is `fleetca revoke --query`, begun as an operator begins it. Certificates are put on record past every rule, and
their octets are made up; what is revoked is read again from the published CRL.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import world
import world_status
from cryptography import x509

from ca.store import tables
from ca.store.database import SQLITE
from fleetca import forms
from fleetca.serve import Supervisor

YEAR = 365 * 86400
QUERY = ("--query", "subject=CN=d-*", "--reason", "superseded")


def fill(settings_file: Path, count: int) -> None:
    """Devices with a certificate each. The indexes are made afterwards."""
    settings = forms.read_settings(settings_file)
    key, now = forms.serial_check_key(settings), int(time.time())
    octets = hashlib.shake_256(b"certificate").digest(600)
    connection = SQLITE.connect(forms.store_url(settings).removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN EXCLUSIVE")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name='certificates' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    names = [column.name for column in tables.certificates.c]
    fixed = {
        "issuer": "issuing", "shard": 0, "state": "issued", "tenant": "default", "profile": "device", "actor": "bench", "names": "[]",
        "not_before": now, "not_after": now + YEAR, "revocable": True, "intended_at": now, "issued_at": now, "revoked": False, "grant": "{}",
        "tbs": octets[:450], "der": octets,
    }  # fmt: skip
    own = ["serial", "device", "subject", "spki_sha256", "request_key", "leaf", "der_sha256"]
    assert set(own) | set(fixed) <= set(names)

    def row(number: int) -> tuple[Any, ...]:
        digest = hashlib.sha256(b"row" + number.to_bytes(4, "big")).digest()
        serial = world_status.serial_of(number, key).to_bytes(20, "big")
        return (serial, f"d-{number}", f"CN=d-{number}", digest, digest, digest, digest)

    marks = ", ".join("?" * (len(own) + len(fixed)))
    values = tuple(fixed.values())
    connection.executemany(
        "INSERT INTO devices (id, tenant, state, created) VALUES (?, 'default', 'active', ?)", ((f"d-{n}", now) for n in range(count))
    )
    words = ", ".join(f'"{name}"' for name in [*own, *fixed])
    connection.executemany(f"INSERT INTO certificates ({words}) VALUES ({marks})", ((*row(number), *values) for number in range(count)))
    for _, made in indexes:
        connection.execute(made)
    connection.execute("COMMIT")
    connection.close()


class Openssl:
    """An authority of openssl with an index of as many certificates, one of which is revoked at a time."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self.folder, self.turn = folder, 0
        later = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + YEAR))
        with (folder / "index.txt").open("w") as index:
            for number in range(count):
                serial = "41" + hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:38].upper()
                index.write(f"V\t{later}\t\t{serial}\tunknown\t/CN=d-{number}\n")
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "ca.cnf").write_text(f"[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index.txt\ndefault_md=sha256\n")
        key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca", "-days", "9"]
        subprocess.run([*key, "-keyout", folder / "ca.key", "-out", folder / "ca.pem"], check=True, capture_output=True)

    def a_second(self) -> float:
        self.turn += 1
        folder, name = self.folder, self.folder / f"{self.turn}.pem"
        made = ["openssl", "req", "-x509", "-key", folder / "ca.key", "-subj", f"/CN=d-{self.turn}", "-days", "9", "-out", name]
        subprocess.run(made, check=True, capture_output=True)
        command = [
            "openssl",
            "ca",
            "-config",
            folder / "ca.cnf",
            "-keyfile",
            folder / "ca.key",
            "-cert",
            folder / "ca.pem",
            "-revoke",
            name,
        ]
        began = time.perf_counter()
        subprocess.run([*command, "-crl_reason", "superseded"], check=True, capture_output=True)
        return 1 / (time.perf_counter() - began)


class Beside:
    """What others ask of the deployment: enrolments and OCSP, in turn."""

    def __init__(self, service: world.Service) -> None:
        self.service = service
        self.csrs = list(world.csrs(64))
        service.enroll(self.csrs[:8], connections=8)
        self.good = service.issued[0]
        self.stop = threading.Event()
        self.enrolled: list[float] = []
        self.answered: list[float] = []
        self.failed: list[BaseException] = []

    def turn(self) -> None:
        self.enrolled.append(self.service.enroll(list(world.csrs(64)), connections=8))
        self.answered.append(self.service.ask_status(self.good, seconds=0.5, connections=8))

    def until_stopped(self) -> None:
        try:
            while not self.stop.is_set():
                self.turn()
        except BaseException as error:  # noqa: BLE001 - told by who waits for this thread
            self.failed.append(error)


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    count = 3_000 if quick else 1_000_000
    measure.JUDGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as name:
        folder = Path(name)
        yield from while_others_go_on(folder / "ours", count, missing=missing)


def while_others_go_on(folder: Path, count: int, *, missing: list[str]) -> Iterator[dict[str, Any]]:
    settings_file = world.make(folder, port_base=26200)
    fill(settings_file, count)
    supervisor = Supervisor(settings_file, log_directory=folder / "logs")
    supervisor.start()
    watch = threading.Thread(target=supervisor.watch)
    watch.start()
    try:
        service = world.Service(settings_file)
        alone, beside = Beside(service), Beside(service)
        for _ in range(3):
            alone.turn()
        others = threading.Thread(target=beside.until_stopped)
        others.start()
        program = [sys.executable, "-m", "fleetca.cli.main", "revoke", *QUERY, "--settings", str(settings_file), "--json"]
        began = time.perf_counter()
        planned = json.loads(subprocess.run([*program, "--plan"], check=True, capture_output=True, text=True).stdout)
        planning = time.perf_counter() - began
        assert planned["certificates"] == planned["devices"] == count
        began = time.perf_counter()
        done = json.loads(subprocess.run([*program, "--confirm", str(count)], check=True, capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - began
        assert (done["revoked"], done["failed"]) == (count, [])
        ended = time.perf_counter()
        while (listed := len(x509.load_der_x509_crl((folder / "public" / "crl" / "issuing.crl").read_bytes()))) < count:
            threading.Event().wait(0.5)
        visible = time.perf_counter() - ended
        assert listed == count
        beside.stop.set()
        others.join()
        assert not beside.failed, beside.failed
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    finally:
        supervisor.stopping.set()
        watch.join()
    label = f"{count} certificates by one query"
    if shutil.which("openssl"):
        rival = Openssl(folder / "openssl", count)
        theirs = [rival.a_second() for _ in range(3)]
        yield measure.row(
            contest=f"{label}, on record, while others enrol and ask", rival="openssl ca -revoke, an index of as many", ours=[count / seconds] * 3,
            theirs=theirs, target=100, better="higher", unit="revocations/s",
        )  # fmt: skip
    else:
        missing.append("openssl: it is not installed")
    yield measure.row(
        contest=f"{label}: what the plan takes", rival="limit of 120 s", ours=[planning], theirs=[120.0], target=1, better="lower", unit="s"
    )
    yield measure.row(
        contest=f"{label}: from the last one on record to a CRL with all", rival="limit of 60 s", ours=[visible], theirs=[60.0], target=1,
        better="lower", unit="s",
    )  # fmt: skip
    for about, mine, others_alone, unit in (
        ("enrolments", beside.enrolled, alone.enrolled, "certificates/s"),
        ("OCSP answers", beside.answered, alone.answered, "answers/s"),
    ):
        middle = statistics.median(others_alone)
        yield measure.row(
            contest=f"{about} beside the revocation of {count}", rival="the same before", ours=mine, theirs=[middle] * len(mine), target=0.3,
            better="higher", unit=unit,
        )  # fmt: skip
    yield measure.row(
        contest=f"{label}: peak memory of the command and of whoever asked beside it", rival="limit of 400 MiB", ours=[memory], theirs=[400.0], target=1,
        better="lower", unit="MiB",
    )  # fmt: skip
