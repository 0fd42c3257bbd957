"""A part of a running deployment is gone: the signer, the database, the disk, the time, a port. What needs it says so and may be asked again;
what does not need it goes on (P7); when the part is back, nothing has to be restarted, and nothing was lost or signed without a record."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtensionOID

from ca.model import CertificateQuery, CertificateState
from ca.store.engine import open_store
from fleetca import forms
from tests.databases import Cluster, started
from tests.parts import refuse
from tests.running import (
    Apart,
    Device,
    Reply,
    apart,
    ask,
    command,
    eventually,
    free_ports,
    log_lines,
    make_deployment,
    ocsp_request,
    ocsp_word,
    problem,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that tests may stop."""
    made = started()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    folder = tmp_path_factory.mktemp("fleet")
    with apart(make_deployment(folder / "here", store_url=cluster.database()), logs=folder / "logs") as running:
        eventually(lambda: ask(running.crl_url).status == 200)
        yield running


def enrolled(fleet: Apart, device: str) -> Any:
    return fleet.enrol(fleet.token(device), Device()).certificate


def comes_back(attempt: Callable[[], Reply]) -> Reply:
    """Asks again as a client does on 503, until the answer is another; nothing but 503 may come before."""

    def answered() -> Reply | None:
        reply = attempt()
        assert reply.status in {200, 201, 503}, reply.body
        return None if reply.status == 503 else reply

    found = eventually(answered)
    assert isinstance(found, Reply)
    return found


def finished(fleet: Apart, certificate: Any) -> Any:
    """The same certificate, once its answer is good and kept: the same octets come again. A change that was heard meanwhile may keep one out."""
    body = ocsp_request(certificate, fleet.issuing)

    def twice() -> bool:
        first, second = (ask(fleet.ocsp_url, body=body, kind="application/ocsp-request").body for _ in range(2))
        return first == second and ocsp_word(first) == "good"

    eventually(twice)
    return certificate


def listed(fleet: Apart) -> bool:
    """Whether the CRL has all that was revoked: until something more is, the next one comes in an hour."""
    store = open_store(forms.store_url(fleet.settings), readonly=True)
    rows, _ = store.reading.search_certificates(CertificateQuery(limit=200))
    store.close()
    return {row.ref.serial for row in rows if row.revocation is not None} <= {one.serial_number for one in fleet.crl()}


# ---- The signer ---------------------------------------------------------------------------------------------------------


def test_P7_a_dead_signer_makes_issuing_wait_and_nothing_else_and_is_found_again_without_a_restart(fleet: Apart) -> None:
    asked, unasked = enrolled(fleet, "before-1"), enrolled(fleet, "before-2")
    assert fleet.status_of(asked) == "good"
    token, device = fleet.token("meanwhile"), Device()
    fleet.kill("signer")
    refused = problem(fleet.enrol(token, device), 503, "signer-down")
    assert "signer.sock" not in str(refused)  # our paths are nobody's business
    assert fleet.status_of(asked) == "good"
    assert fleet.status_of(unasked) == "good"  # the responder has its own key and the database
    assert fleet.crl().is_signature_valid
    health = ask(f"{fleet.settings.enroll.url}/v1/health", context=fleet.context)
    assert health.status == 503
    assert health.json == {"status": "degraded", "signer": False, "store": True, "root_present": False}
    done = fleet.cli("token", "create", "nobody")
    assert done.returncode == 1
    assert "[signer-down]" in done.stderr
    assert "fix: " in done.stderr
    fleet.start("signer")
    issued = comes_back(lambda: fleet.enrol(token, device))
    assert issued.status == 201  # the token was not lost on the way
    assert fleet.status_of(issued.certificate) == "good"


def test_a_signer_that_was_killed_while_many_asked_loses_none_of_them(fleet: Apart) -> None:
    """Each asks again until it is answered: one certificate for each, and no other is valid."""
    from concurrent.futures import ThreadPoolExecutor

    names = [f"crowd-{number}" for number in range(12)]
    tokens = {name: fleet.token(name) for name in names}
    devices = {name: Device() for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        waiting = [pool.submit(comes_back, lambda name=name: fleet.enrol(tokens[name], devices[name])) for name in names]
        fleet.kill("signer")
        fleet.start("signer")
        serials = {name: one.result().certificate.serial_number for name, one in zip(names, waiting, strict=True)}
    assert len(set(serials.values())) == len(names)
    store = open_store(forms.store_url(fleet.settings), readonly=True)
    for name in names:
        rows, _ = store.reading.search_certificates(CertificateQuery(device=name, limit=10))  # type: ignore[arg-type]
        assert [row.ref.serial for row in rows if row.state is CertificateState.issued] == [serials[name]]
        assert all(row.revocation is not None for row in rows if row.state is not CertificateState.issued)
    store.close()


# ---- The database -------------------------------------------------------------------------------------------------------


def test_P5_P7_without_the_database_finished_answers_go_on_and_the_rest_is_told_to_come_again(fleet: Apart, cluster: Cluster) -> None:
    asked, unasked = finished(fleet, enrolled(fleet, "db-1")), enrolled(fleet, "db-2")
    token, device = fleet.token("db-3"), Device()
    cluster.stop()
    try:
        problem(fleet.enrol(token, device), 503, "database-down")
        assert fleet.status_of(asked) == "good"
        assert fleet.status_of(unasked) in {"try_later", "good"}  # never `unknown`; good where its answer was signed ahead
        assert fleet.crl().is_signature_valid
        health = eventually(lambda: (found := ask(f"{fleet.settings.status.url}/healthz")) and not found.json["heard"] and found)
        assert health.json["status"] == "degraded"
        assert health.status == 200
        done = fleet.cli("certificates", "list")
        assert done.returncode == 7
        assert "[database-down]" in done.stderr
        assert all(process.poll() is None for process in fleet.processes.values())
    finally:
        cluster.start()
    issued = comes_back(lambda: fleet.enrol(token, device))
    assert issued.status == 201
    # A worker that found the database gone looks again within a second.
    eventually(lambda: ask(f"{fleet.settings.status.url}/healthz").json["status"] == "ok")
    assert fleet.status_of(unasked) == "good"
    assert fleet.status_of(issued.certificate) == "good"


def test_P7_a_status_process_that_starts_without_database_and_signer_serves_the_crl_and_says_how_it_is(
    fleet: Apart, cluster: Cluster
) -> None:
    certificate = enrolled(fleet, "alone-1")
    fleet.kill("signer", signal.SIGTERM)
    cluster.stop()
    try:
        assert fleet.kill("status", signal.SIGTERM) == 0
        fleet.start("status")
        assert fleet.crl().is_signature_valid
        assert fleet.status_of(certificate) in {"try_later", "good"}  # good where its answer was signed ahead
        said = ask(f"{fleet.settings.status.url}/healthz").json
        assert said["status"] == ("degraded" if said["spool"]["answers"] else "down")
    finally:
        cluster.start()
        fleet.start("signer")
    eventually(lambda: fleet.status_of(certificate) == "good")
    eventually(lambda: ask(f"{fleet.settings.status.url}/healthz").json["status"] == "ok")


# ---- The clock ----------------------------------------------------------------------------------------------------------


def test_R24_two_seconds_back_are_what_time_daemons_do(fleet: Apart) -> None:
    enrolled(fleet, "tick-1")
    token = fleet.token("tick-2")
    fleet.set_clock(-2)
    try:
        assert fleet.enrol(token, Device()).status == 201
    finally:
        fleet.set_clock(0)


def test_R24_a_clock_set_back_stops_issuing_and_not_status_until_it_is_right(fleet: Apart) -> None:
    asked, unasked = enrolled(fleet, "clock-1"), enrolled(fleet, "clock-2")
    assert fleet.status_of(asked) == "good"
    token, device = fleet.token("clock-3"), Device()
    eventually(lambda: listed(fleet))
    number = fleet.crl().extensions.get_extension_for_oid(ExtensionOID.CRL_NUMBER).value
    fleet.set_clock(-3600)
    try:
        problem(fleet.enrol(token, device), 503, "clock-set-back")
        assert fleet.status_of(asked) == "good"
        assert fleet.status_of(unasked) == "good"
        assert fleet.crl().extensions.get_extension_for_oid(ExtensionOID.CRL_NUMBER).value == number
        done = fleet.cli("revoke", "--device", "clock-1", "--confirm", "clock-1", "--reason", "superseded")
        assert done.returncode == 1
        assert "[clock-set-back]" in done.stderr
        eventually(lambda: any(line.get("code") == "clock-set-back" for line in log_lines(fleet.logs / "signer.log")))
    finally:
        fleet.set_clock(0)
    issued = comes_back(lambda: fleet.enrol(token, device))
    assert issued.status == 201
    assert fleet.status_of(issued.certificate) == "good"


# ---- The disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0755", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        refuse("a file system of our own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill its file system to the last octet: log files, too, get no further line."""
    for log in folder.rglob("*.log"):
        with log.open("ab") as file:
            file.write(b"\n" * (-log.stat().st_size % 4096))
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


@pytest.fixture(scope="module")
def cramped(small: Path) -> Iterator[Apart]:
    """Database, journal, log, CRLs and log files all on that one small disk."""
    with apart(make_deployment(small / "here"), logs=small / "logs") as running:
        eventually(lambda: ask(running.crl_url).status == 200)
        yield running


def test_R26_a_full_disk_stops_issuing_before_anything_is_signed_and_not_status(cramped: Apart, small: Path) -> None:
    asked, unasked = enrolled(cramped, "full-1"), enrolled(cramped, "full-2")
    assert cramped.status_of(asked) == "good"
    tokens = [cramped.token(f"full-{number}") for number in (3, 4, 5)]
    devices = [Device() for _ in tokens]
    ballast = fill(small)
    try:
        for token, device in zip(tokens, devices, strict=True):
            reply = cramped.enrol(token, device)
            # SQLite may meet the full disk in its own journal, and tell it in one of two ways.
            problem(reply, 503, reply.json["code"])
            assert reply.json["code"] in {"disk-full", "disk-failed", "commit-unknown", "journal-failed"}
        assert cramped.status_of(asked) == "good"
        assert cramped.status_of(unasked) == "good"
        assert cramped.crl().is_signature_valid
        assert all(process.poll() is None for process in cramped.processes.values())
    finally:
        ballast.unlink()
    serials = set()
    for token, device in zip(tokens, devices, strict=True):
        issued = comes_back(lambda token=token, device=device: cramped.enrol(token, device))  # type: ignore[misc]
        serials.add(issued.certificate.serial_number)
        assert cramped.status_of(issued.certificate) == "good"
    assert len(serials) == 3
    store = open_store(forms.store_url(cramped.settings), readonly=True)
    rows, _ = store.reading.search_certificates(CertificateQuery(limit=200))
    store.close()
    assert serials <= {row.ref.serial for row in rows if row.state is CertificateState.issued}
    assert all(row.state is CertificateState.issued or row.revocation is not None for row in rows)
    done = cramped.cli("audit", "verify", str(cramped.settings.log.directory))
    assert done.returncode in {0, 8}, done.stdout


# ---- Ports and starting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["enroll.listen", "status.listen"])
def test_a_taken_port_is_named_with_its_setting_before_anything_starts(cramped: Apart, setting: str, tmp_path: Path) -> None:
    free = free_ports() + 443
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        content = cramped.file.read_text()
        for section in ("enroll", "status"):
            listen = getattr(cramped.settings, section).listen
            content = content.replace(f'listen = "{listen}"', f'listen = "127.0.0.1:{taken if setting.startswith(section) else free}"')
        changed = cramped.file.with_name("taken.toml")
        changed.write_text(content)
        done = command("serve", "--settings", changed)
        changed.unlink()
    assert done.returncode == 2
    assert "[port-taken]" in done.stderr
    assert setting in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
