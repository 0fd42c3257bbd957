"""Mass revocation: the last twenty thousand of a million by one query, while others are issued and OCSP is asked, beside `openssl ca -revoke`.

The whole deployment runs; the command is `fleetca revoke --query`, begun as an operator begins it. Certificates, and the revocations of all but each
fiftieth of them, are put on record past every rule, and their octets are made up. So the rate is that of the end of a million's revocation, where the
record is largest; the rest of it is not waited for. What is revoked is read again from the published CRL.
"""

from __future__ import annotations

import hashlib
import json
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


def fill(settings_file: Path, count: int, *, left: int) -> None:
    """Devices with a certificate each, of which `left`, spread over all, are not revoked yet. The indexes are made afterwards."""
    settings = forms.read_settings(settings_file)
    key, now, each = forms.serial_check_key(settings), int(time.time()), count // left
    assert count == each * left
    octets = hashlib.shake_256(b"certificate").digest(600)
    connection = SQLITE.connect(forms.store_url(settings).removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN EXCLUSIVE")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name IN ('certificates', 'revocations') AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    names = [column.name for column in tables.certificates.c]
    fixed = {
        "issuer": "issuing", "shard": 0, "state": "issued", "tenant": "default", "profile": "device", "actor": "bench", "names": "[]",
        "not_before": now, "not_after": now + YEAR, "revocable": True, "intended_at": now, "issued_at": now, "grant": "{}",
        "tbs": octets[:450], "der": octets,
    }  # fmt: skip
    own = ["serial", "device", "subject", "spki_sha256", "request_key", "leaf", "der_sha256", "revocation", "revoked"]
    assert set(own) | set(fixed) <= set(names)

    def row(number: int) -> tuple[Any, ...]:
        digest = hashlib.sha256(b"row" + number.to_bytes(4, "big")).digest()
        change = change_of(number)
        return (serial(number), f"d-{number}", f"CN=d-{number}", digest, digest, digest, digest, change, change is not None)

    def serial(number: int) -> bytes:
        return world_status.serial_of(number, key).to_bytes(20, "big")

    def change_of(number: int) -> int | None:
        """In their order, without gaps: every `each`th is left."""
        return None if number % each == 0 else number - number // each

    marks = ", ".join("?" * (len(own) + len(fixed)))
    values = tuple(fixed.values())
    connection.executemany(
        "INSERT INTO devices (id, tenant, state, created) VALUES (?, 'default', 'active', ?)", ((f"d-{n}", now) for n in range(count))
    )
    words = ", ".join(f'"{name}"' for name in [*own, *fixed])
    connection.executemany(f"INSERT INTO certificates ({words}) VALUES ({marks})", ((*row(number), *values) for number in range(count)))
    connection.executemany(
        "INSERT INTO revocations (change, issuer, shard, serial, reason, revoked_at, not_after, listed, tenant, actor)"
        f" VALUES (?, 'issuing', 0, ?, 4, {now}, {now + YEAR}, 1, 'default', 'bench')",
        ((change_of(number), serial(number)) for number in range(count) if number % each),
    )
    connection.execute("UPDATE counters SET value = ? WHERE name = ?", (count - left, tables.CHANGE))
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


def listed_in(folder: Path) -> int:
    """Entries of the CRL that readers get."""
    try:
        return len(x509.load_der_x509_crl((folder / "public" / "crl" / "issuing.crl").read_bytes()))
    except FileNotFoundError:
        return 0


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
    count, left = (3_000, 1_500) if quick else (1_000_000, 20_000)
    measure.JUDGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as name:
        folder = Path(name)
        yield from while_others_go_on(folder / "ours", count, left, missing=missing)


def while_others_go_on(folder: Path, count: int, left: int, *, missing: list[str]) -> Iterator[dict[str, Any]]:
    settings_file = world.make(folder, port_base=26200)
    fill(settings_file, count, left=left)
    supervisor = Supervisor(settings_file, log_directory=folder / "logs")
    supervisor.start()
    watch = threading.Thread(target=supervisor.watch)
    watch.start()
    try:
        service = world.Service(settings_file)
        while (listed := listed_in(folder)) < count - left:
            threading.Event().wait(0.5)
        assert listed == count - left
        alone, beside = Beside(service), Beside(service)
        for _ in range(3):
            alone.turn()
        others = threading.Thread(target=beside.until_stopped)
        others.start()
        program = (sys.executable, "-m", "fleetca.cli.main", "revoke", *QUERY, "--settings", settings_file, "--json")
        told = folder / "told.json"
        plan = measure.alone(*program, "--plan", stdout=told)
        planned = json.loads(told.read_text())
        assert planned["certificates"] == planned["devices"] == left
        run = measure.alone(*program, "--confirm", str(left), stdout=told)
        done = json.loads(told.read_text())
        assert (done["revoked"], done["failed"]) == (left, [])
        ended = time.perf_counter()
        while (listed := listed_in(folder)) < count:
            threading.Event().wait(0.5)
        visible = time.perf_counter() - ended
        assert listed == count
        beside.stop.set()
        others.join()
        assert not beside.failed, beside.failed
    finally:
        supervisor.stopping.set()
        watch.join()
    label = f"the last {left} of {count} certificates by one query"
    if shutil.which("openssl"):
        rival = Openssl(folder / "openssl", count)
        theirs = [rival.a_second() for _ in range(3)]
        yield measure.row(
            contest=f"{label}, on record, while others enrol and ask", rival="openssl ca -revoke, an index of as many", ours=[left / run.seconds] * 3,
            theirs=theirs, target=100, better="higher", unit="revocations/s",
        )  # fmt: skip
    else:
        missing.append("openssl: it is not installed")
    yield measure.row(
        contest=f"{label}: what the plan takes",
        rival="limit of 120 s",
        ours=[plan.seconds],
        theirs=[120.0],
        target=1,
        better="lower",
        unit="s",
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
            contest=f"{about} beside the revocation of {left}", rival="the same before", ours=mine, theirs=[middle] * len(mine), target=0.3,
            better="higher", unit=unit,
        )  # fmt: skip
    yield measure.row(
        contest=f"{label}: peak memory of the command", rival="limit of 100 MiB", ours=[max(plan.memory, run.memory)], theirs=[100.0], target=1,
        better="lower", unit="MiB",
    )  # fmt: skip
