"""The doctor finds what is wrong with a deployment, says what mends it, opens no key and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ca.log.tiles import TileDirectory
from ca.model import DEFAULT_TENANT, CertificateQuery, Device, DeviceFacts, DeviceId, DeviceState, RootOfTrust
from ca.ports import SigningKey
from ca.sequence import Sequencer
from ca.store.engine import Store, open_store
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from fleetca import ceremonies, deployment, forms, importing
from fleetca.cli.main import fleetca
from fleetca.doctor import Finding, examine
from fleetca.verdict import Level
from tests.fakes.ceremony import apart
from tests.fakes.devices import moved


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment after its first import, with the root's key gone to where it belongs."""
    folder = tmp_path_factory.mktemp("doctor") / "fleet"
    made = deployment.create(folder, deployment.Wanted(status_port=9, enroll_port=10), chance=SystemChance())
    ceremonies.run(
        made.sheet, out=made.outputs, passphrase=lambda: b"correct horse battery", confirm=lambda step: True, clock=SystemClock(),
        chance=SystemChance(), room=apart,
    )  # fmt: skip
    settings = forms.read_settings(made.settings)
    importing.import_ceremony(settings, made.outputs, clock=SystemClock(), chance=SystemChance())
    (made.outputs / "root.key").unlink()
    return folder


@pytest.fixture
def sick(healthy: Path, tmp_path: Path) -> Path:
    """A copy of it to harm."""
    shutil.copytree(healthy, tmp_path / "fleet")
    return tmp_path / "fleet"


class _At:
    """A clock somewhere else."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return float(self._now)


def look(folder: Path, *, now: int | None = None) -> Sequence[Finding]:
    settings = forms.read_settings(folder / "fleetca.toml")
    return examine(settings, clock=SystemClock() if now is None else _At(now))


def findings(found: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(each.check, each.verdict.what) for each in found if each.verdict.level is Level.finding]


def test_a_healthy_deployment_has_no_findings_and_says_what_protects_it(healthy: Path) -> None:
    found = look(healthy)
    assert findings(found) == []
    said = " ".join(each.verdict.what for each in found)
    for words in ("P3 holds by code path", "protects a copied key file", "issuing holds until", "CRL of root has number 1"):
        assert words in said
    assert all(
        each.verdict.fix or each.verdict.why for each in found if each.verdict.level is Level.note and "not say" not in each.verdict.what
    )


SEPARATE = '[signer.users]\n"61001" = ["operator"]\n"61002" = ["enroll"]\n"61003" = ["status"]\n[signer.caps.enroll]'
POSTGRESQL = 'url = "postgresql+psycopg:///nowhere?host=/nowhere" #'


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        pytest.param({}, Level.note, "P3 holds by code path: web processes and signer run as the same user", id="one user"),
        pytest.param(
            {"[signer.caps.enroll]": SEPARATE, 'url = "sqlite': POSTGRESQL},
            Level.ok,
            "separate users are in force",
            id="users of their own",
        ),
        pytest.param(
            {"[signer.caps.enroll]": SEPARATE}, Level.finding, "cannot share an SQLite database", id="users of their own over one file"
        ),
        pytest.param(
            {"[signer.caps.enroll]": SEPARATE.replace('["status"]', '["status", "operator"]'), 'url = "sqlite': POSTGRESQL},
            Level.finding,
            "user id 61003 faces a network and has role operator",
            id="a web process that may act as an operator",
        ),
        pytest.param(
            {"[signer.caps.enroll]": SEPARATE.replace("61002", "0"), 'url = "sqlite': POSTGRESQL},
            Level.finding if os.getuid() else Level.note,
            "A web process runs as root" if os.getuid() else "run as the same user",
            id="a web process as root",
        ),
    ],
)
@pytest.mark.req("REQ-KEY-006", "REQ-KEY-090")
def test_P3_the_doctor_says_which_of_the_two_is_in_force(sick: Path, changes: dict[str, str], level: Level, words: str) -> None:
    for old, new in changes.items():
        edit(sick, old, new)
    said = [each.verdict for each in look(sick) if each.check == "separation"]
    assert any(verdict.level is level and words in verdict.what for verdict in said), said


def test_P3_the_doctor_asks_the_system_who_listens(sick: Path) -> None:
    """Users of their own in the settings are a wish: here the signer's user itself listens where status should."""
    edit(sick, "[signer.caps.enroll]", SEPARATE)
    edit(sick, 'url = "sqlite', POSTGRESQL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        edit(sick, '"127.0.0.1:9"', f'"127.0.0.1:{listener.getsockname()[1]}"')
        said = " ".join(each.verdict.what for each in look(sick) if each.check == "separation")
    assert "P3 holds by code path" in said


def test_P3_the_doctor_needs_no_passphrase_to_be_right(sick: Path) -> None:
    (sick / "secrets/issuing.passphrase").write_text("not the passphrase")
    assert findings(look(sick)) == []


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "fleetca.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def unknown_to_the_database(folder: Path) -> None:
    (folder / "state/fleetca.db").unlink()


def an_older_crl(folder: Path) -> None:
    (folder / "public/crl/root.crl.number").write_text("7\n")


def a_database_set_back(folder: Path) -> None:
    """The log published one more leaf than the database knows."""
    settings = forms.read_settings(folder / "fleetca.toml")
    keys, name = forms.key_store(settings.log.key, settings.log.passphrase)
    key = keys.open(name)
    store = open_store(forms.store_url(settings))
    before = settings.base / "before.db"
    shutil.copy(folder / "state/fleetca.db", before)
    while (done := _sequencer(store, settings, key).run()) is not None and done.more:
        pass
    store.close()
    before.rename(folder / "state/fleetca.db")


def _sequencer(store: Store, settings: Settings, key: SigningKey) -> Sequencer:
    return Sequencer(
        ledger=store.ledger, files=TileDirectory(settings.log.directory), key=key, origin=forms.log_origin(settings), holder="test",
        clock=SystemClock(), failpoint=lambda name: None,
    )  # fmt: skip


def later_than_the_clock(folder: Path) -> None:
    store = open_store(forms.store_url(forms.read_settings(folder / "fleetca.toml")))
    with store.ledger.writing() as tx:
        tx.raise_high_time(int(time.time()) + 3600)
    store.close()


HARM: list[Any] = [
    pytest.param(lambda base: (base / "secrets/issuing.passphrase").chmod(0o644), "secrets", "can be read by others", "chmod 600", id="a passphrase that others can read"),
    pytest.param(lambda base: (base / "secrets/log.passphrase").unlink(), "secrets", "missing", "0600", id="a missing passphrase"),
    pytest.param(lambda base: (base / "keys/issuing.key").chmod(0o640), "keys", "open to others", "chmod 600", id="a key that others can read"),
    pytest.param(lambda base: (base / "keys/issuing.key").write_text("-----BEGIN PRIVATE KEY-----\n"), "keys", "not sealed", "openssl pkcs8", id="a key in the clear (P10)"),
    pytest.param(lambda base: (base / "keys/issuing.key").unlink(), "keys", "stopped at", "", id="a missing key"),
    pytest.param(lambda base: shutil.copy(base / "keys/log.key", base / "keys/root.key"), "keys", "root's key lies on this machine", "offline", id="a root key on the machine (P4)"),
    pytest.param(lambda base: (base / "ca/issuing.pem").unlink(), "chain", "issuing.pem", "", id="a missing certificate"),
    pytest.param(lambda base: shutil.copy(base / "operators/admin.pem", base / "ca/issuing.pem"), "chain", "", "", id="an end-entity certificate in place of a CA's"),
    pytest.param(lambda base: edit(base, 'certificate = "ca/root.pem"               # offline: no key here', 'certificate = "ca/root.pem"\nkey = "sealed:keys/log.key"\npassphrase = "file:secrets/log.passphrase"'), "chain", "name a key for root", "Take key and passphrase out", id="a setting that names a root's key (P4)"),
    pytest.param(unknown_to_the_database, "database", "", "", id="a missing database"),
    pytest.param(later_than_the_clock, "database", "behind what is on record", "Set the clock", id="a clock set back"),
    pytest.param(lambda base: (base / "state/fleetca.db").chmod(0o644), "disks", "open to others", "chmod 600", id="a database that others can read"),
    pytest.param(lambda base: (base / "public/crl/root.crl").unlink(), "crl", "no CRL of root", "ceremony", id="a missing root CRL"),
    pytest.param(lambda base: (base / "public/crl/root.crl").write_bytes(b"not a CRL"), "crl", "", "", id="a CRL that is none"),
    pytest.param(an_older_crl, "crl", "was published before", "", id="an older CRL that was put back"),
    pytest.param(a_database_set_back, "record", "it was set back", "fleetca recover", id="a database restored from a backup"),
    pytest.param(lambda base: (base / "public/log.verifier").write_text("nonsense"), "record", "", "", id="a damaged public key of the log"),
    pytest.param(lambda base: edit(base, 'name = "fleet"', 'name = "other"'), "record", "named fleet", "back", id="a deployment that was renamed"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "check", "words", "fix"), HARM)
def test_harm_is_found_and_has_a_fix(sick: Path, harm: Callable[[Path], Any], check: str, words: str, fix: str) -> None:
    harm(sick)
    found = [each for each in look(sick) if each.verdict.level is Level.finding and each.check == check]
    assert found, findings(look(sick))
    said = [each.verdict for each in found if words in each.verdict.what]
    assert said, [each.verdict.what for each in found]
    assert any(fix in verdict.fix for verdict in said)


def _in(years: float) -> int:
    return int(time.time() + years * 365.25 * 86400)


@pytest.mark.parametrize(
    ("years", "check", "words"),
    [
        pytest.param(0.95, "crl", "CRL of root ends at", id="a root CRL that ends soon"),
        pytest.param(1.1, "crl", "CRL of root ended at", id="a root CRL that has ended"),
        pytest.param(4.9, "chain", "certificate of issuing ends at", id="an issuing CA that ends soon"),
        pytest.param(5.1, "chain", "certificate of issuing ended at", id="an issuing CA that has ended"),
        pytest.param(-1.0, "chain", "holds only from", id="a clock before everything"),
    ],
)
def test_what_time_brings_is_found(healthy: Path, years: float, check: str, words: str) -> None:
    assert any(each == check and words in what for each, what in findings(look(healthy, now=_in(years))))


def test_a_half_running_deployment_is_a_finding_and_a_stopped_one_is_not(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(check == "status" for check, _ in findings(look(healthy)))
    monkeypatch.setattr("fleetca.checks_outside.signer_health", lambda settings: {"keys": ["issuing"], "journal_waiting": 0})
    said = findings(look(healthy))
    assert ("status", "The status service does not answer.") in said


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"heard": False, "missing": []}, "has not heard of changes"),
        ({"heard": True, "missing": ["issuing"]}, "no responder certificate for issuing"),
    ],
)
def test_what_the_status_service_says_of_itself_is_a_finding(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, health: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("fleetca.checks_outside.status_health", lambda settings: health)
    assert any(words in what for _, what in findings(look(healthy)))


def test_an_issuing_key_that_the_signer_does_not_hold_is_a_finding(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetca.checks_outside.signer_health", lambda settings: {"keys": []})
    assert any("does not hold the key of issuing" in what for _, what in findings(look(healthy)))


def test_it_changes_nothing(sick: Path) -> None:
    def state() -> dict[Path, tuple[bytes, int]]:
        return {path: (path.read_bytes(), path.stat().st_mode) for path in sorted(sick.rglob("*")) if path.is_file()}

    before = state()
    look(sick)
    assert state() == before


def test_the_command_ends_with_8_when_there_are_findings_and_0_otherwise(sick: Path) -> None:
    arguments = ["doctor", "--settings", str(sick / "fleetca.toml"), "--json"]
    result = CliRunner().invoke(fleetca, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["findings"] == 0
    (sick / "keys/issuing.key").chmod(0o644)
    result = CliRunner().invoke(fleetca, arguments)
    assert result.exit_code == 8
    document = json.loads(result.stdout)
    assert document["findings"] == 1
    (finding,) = (check for check in document["checks"] if check["level"] == "finding")
    assert finding["fix"].startswith("chmod 600 ")
    shown = CliRunner().invoke(fleetca, arguments[:-1])
    assert shown.exit_code == 8
    assert "FINDING" in shown.stdout
    assert "fix: chmod 600" in shown.stdout
    assert "1 finding." in shown.stdout


@pytest.mark.req("REQ-KEY-049")
def test_an_exception_that_is_over_is_a_finding_until_the_device_is_retired(sick: Path) -> None:
    settings = forms.read_settings(sick / "fleetca.toml")
    now = SystemClock().now()
    bench = Device(DeviceId("bench-1"), DEFAULT_TENANT, DeviceState.blank, now)
    found = ("exceptions", "Device bench-1 has no root of trust, and its exception is over.")
    store = open_store(forms.store_url(settings))
    try:
        with store.ledger.writing() as tx:
            tx.add_device(bench)
            tx.set_device_facts(bench.id, DeviceFacts(RootOfTrust.none, "bench unit", now + 3600))
        assert found not in findings(look(sick))
        assert found in findings(look(sick, now=now + 3600))
        with store.ledger.writing() as tx:
            tx.change_device(moved(bench, DeviceState.retired))
        assert found not in findings(look(sick, now=now + 3600))
    finally:
        store.close()


def test_P9_a_key_that_may_have_been_copied_is_a_finding_until_its_device_is_revoked(sick: Path) -> None:
    settings = forms.read_settings(sick / "fleetca.toml")
    now = SystemClock().now()
    store = open_store(forms.store_url(settings))
    try:
        (row,) = store.reading.search_certificates(CertificateQuery(limit=9))[0]
        with store.ledger.writing() as tx:
            tx.mark_clone_seen(row.ref, now=now)
        assert ("clones", f"The key of device {row.device} may have been copied.") in findings(look(sick))
        assert "clones" not in {check for check, _ in findings(look(sick, now=now + 31 * 86400))}
        with store.ledger.writing() as tx:
            tx.change_device(moved(Device(row.device, row.tenant, DeviceState.active, now), DeviceState.retired))
        assert "clones" not in {check for check, _ in findings(look(sick))}
    finally:
        store.close()
