"""Each process as a Unix user and a database role of its own, as config/deployments describes it: it works, and the system holds the walls.

What is shipped is what runs here: the folders' owners come from the tmpfiles file (under another root), users, groups and credentials from the units,
the database's roles from the SQL file. Only systemd itself is played by the test: it hands over credentials and waits for READY=1.
A thief who has taken over a process is played by a script with that process's user, groups, credentials and database role.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ca.rules import note
from ca.store.engine import open_store
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from fleetca import ceremonies, checks_inside, deployment, forms
from fleetca.verdict import Level, Patient
from tests.databases import Cluster
from tests.fakes.acme import AccountKey, jws
from tests.parts import need, refuse
from tests.running import ROOT, Device, ask, assert_no_traceback, eventually, free_ports, ocsp_status, text, tls

SHIPPED = ROOT / "config/deployments"
ROLES = ("signer", "enroll", "status", "publisher")
UIDS = {f"fleetca-{role}": uid for uid, role in enumerate(ROLES, 61001)}
GIDS = {"fleetca": 61000, "fleetca-publish": 61010}

pytestmark = pytest.mark.req("REQ-KEY-006", "REQ-KEY-053", "REQ-KEY-090")


# ---- What systemd does --------------------------------------------------------------------------------------------------


class Unit:
    """One shipped unit, as far as the test plays it."""

    def __init__(self, role: str) -> None:
        lines = [line.partition("=") for line in (SHIPPED / f"fleetca-{role}.service").read_text().splitlines() if not line.startswith("#")]
        self.role = role
        self.settings: dict[str, list[str]] = {}
        for name, _, value in lines:
            self.settings.setdefault(name, []).append(value)
        self.user = UIDS[self.one("User")]
        self.group = GIDS[self.one("Group")]
        members = [line.split()[1:] for line in (SHIPPED / "fleetca.sysusers.conf").read_text().splitlines() if line.startswith("m ")]
        self.groups = [GIDS[group] for user, group in members if user == self.one("User")]
        self.credentials = dict(value.split(":", 1) for value in self.settings.get("LoadCredential", []))

    def one(self, name: str) -> str:
        (value,) = self.settings[name]
        return value


def interpreter() -> tuple[str, Mapping[str, str]]:
    """A Python that every user can run, and its environment: our own may lie in a home folder that nobody else may enter."""
    paths = {
        "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        with contextlib.suppress(OSError):
            tried = subprocess.run(
                [candidate, "-c", "import fleetca.cli.main, psycopg"],
                user=61009,
                group=61009,
                extra_groups=[],
                env=paths,
                cwd="/",
                check=False,
            )
            if tried.returncode == 0:
                return candidate, paths
    return refuse("no Python of this version and no checkout that other users can read")


LAUNCH = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)  # NoNewPrivileges=
libc.prctl(65, 1, 0, 0, 0)  # MemoryDenyWriteExecute=, where the kernel knows it
from fleetca.cli.main import main
main()
"""

THIEF = """
import json, os, socket, sys
import psycopg
from ca.errors import FleetcaError
from ca.model import Role
from ca.signer.client import SignerClient

plan = json.load(sys.stdin)

def hello(role):
    client = SignerClient(plan["socket"], Role(role), timeout=60)
    try:
        client.health()
    finally:
        client.close()

def sql(statement, user=None, password=None):
    with psycopg.connect(dbname="fleetca", host=plan["host"], user=user or plan["user"], password=password or plan["password"]) as connection:
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute(statement)
        connection.rollback()

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))

def put(folder):
    path = os.path.join(folder, "thief")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    os.unlink(path)

def memory(pid):
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.read(1)

def signal(pid):
    os.kill(pid, 0)

ACTS = {"hello": hello, "sql": sql, "read": read, "write": write, "put": put, "memory": memory, "signal": signal, "list": os.listdir}
said = []
for act, *arguments in plan["attempts"]:
    try:
        ACTS[act](*arguments)
        said.append("done")
    except psycopg.Error as error:
        said.append(error.sqlstate or "no login")
    except FleetcaError as error:
        said.append(error.code)
    except OSError as error:
        said.append(os.strerror(error.errno))
json.dump(said, sys.stdout)
"""


@dataclass
class Fleet:
    """The deployment and its processes."""

    root: Path
    base: Path
    settings: Settings
    cluster: Cluster
    python: str
    environment: Mapping[str, str]
    passwords: Mapping[str, str]
    processes: dict[str, subprocess.Popen[bytes]]

    def as_user(self, role: str) -> dict[str, Any]:
        """How subprocess becomes that unit's user."""
        unit = Unit(role)
        environment = {**self.environment, "PGUSER": f"fleetca-{role}", "CREDENTIALS_DIRECTORY": str(self.credentials(role))}
        return {"user": unit.user, "group": unit.group, "extra_groups": unit.groups, "env": environment, "cwd": "/"}

    def credentials(self, role: str) -> Path:
        return self.root / "run/credentials" / f"fleetca-{role}.service"

    def load_credentials(self, role: str) -> None:
        unit, folder = Unit(role), self.credentials(role)
        folder.mkdir(mode=0o700, parents=True)
        found = {name: (self.root / source.removeprefix("/")).read_bytes() for name, source in unit.credentials.items()}
        for name, octets in {**found, "store.password": self.passwords[role].encode()}.items():
            (folder / name).write_bytes(octets)
            (folder / name).chmod(0o400)
            os.chown(folder / name, unit.user, unit.group)
        os.chown(folder, unit.user, unit.group)

    def start(self, *roles: str) -> None:
        """Start units and wait until each says READY=1."""
        with contextlib.ExitStack() as stack:
            for told in [stack.enter_context(self._spawned(role)) for role in roles]:
                assert told.recv(64) == b"READY=1"

    @contextlib.contextmanager
    def _spawned(self, role: str) -> Iterator[socket.socket]:
        command = Unit(role).one("ExecStart").replace("/var/lib", f"{self.root}/var/lib").split()
        assert command[0].endswith("/fleetca")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = f"\0fleetca-test-{os.getpid()}-{role}"
            notify.bind(address)
            notify.settimeout(60)
            how = self.as_user(role)
            how["env"]["NOTIFY_SOCKET"] = f"@{address[1:]}"
            with (self.root / f"{role}.log").open("ab") as log:
                self.processes[role] = subprocess.Popen(
                    [self.python, "-c", LAUNCH, *command[1:]], stdin=subprocess.DEVNULL, stderr=log, umask=0o077, **how
                )
            yield notify

    def cli(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """`fleetca ... --json` as the signer's user, which has the role operator."""
        done = subprocess.run(
            [self.python, "-m", "fleetca.cli.main", *arguments, "--settings", self.settings.file, "--json"],
            capture_output=True, text=True, check=False, timeout=120, **self.as_user("signer"),
        )  # fmt: skip
        assert done.returncode in codes, done.stdout + done.stderr
        return json.loads(done.stdout)

    def sql_file(self) -> None:
        """The shipped SQL, as whoever runs PostgreSQL runs it."""
        done = subprocess.run(
            [Path(need("postgres")) / "psql", "-X", "-q", "-h", self.cluster.folder, "-U", "postgres", "-f", "-", "postgres"],
            input=(SHIPPED / "postgresql-roles.sql").read_text(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def rob(self, role: str, attempts: list[list[Any]]) -> list[str]:
        """What becomes of a thief's attempts, made as that process's user with all that the process has."""
        plan = {
            "attempts": attempts,
            "socket": str(self.settings.signer.socket),
            "host": str(self.cluster.folder),
            "user": f"fleetca-{role}",
            "password": self.passwords[role],
        }
        done = subprocess.run(
            [self.python, "-c", THIEF],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **self.as_user(role),
        )
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found


# ---- The deployment -----------------------------------------------------------------------------------------------------


def private_cluster() -> Cluster:
    """PostgreSQL that lets in root and its own user as superuser, and everybody else by password only."""
    cluster = Cluster(Path(need("postgres")))
    try:
        cluster.folder.chmod(0o711)
        (cluster.folder / "data/pg_hba.conf").write_text("local all postgres peer map=super\nlocal all all scram-sha-256\n")
        (cluster.folder / "data/pg_ident.conf").write_text("super root postgres\nsuper postgres postgres\n")
        cluster.start()
    except BaseException:
        cluster.remove()
        raise
    return cluster


ACME = """
[acme]
networks = ["127.0.0.0/8"]
[[acme.directories]]
name = "service"
profile = "service"
accounts = "open"
names = ["*.device.test"]
"""


def make(base: Path, host: Path, offline: Path) -> Path:
    """`fleetca init` and the ceremony, then the settings and places of the how-to."""
    port = free_ports()
    wanted = deployment.Wanted(
        name="apart", host="127.0.0.1", enroll_port=port + 443, status_port=port + 80, sheet="demo", operator="admin", more=ACME
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)  # sealed cheaply: the price is not what is tested
        made = deployment.create(base, wanted, chance=SystemChance())
        ceremonies.run(
            made.sheet, out=made.outputs, passphrase=lambda: b"correct horse battery staple", confirm=lambda _: True, clock=SystemClock(),
            chance=SystemChance(),
        )  # fmt: skip
    offline.mkdir()
    shutil.move(made.outputs / "root.key", offline / "root.key")
    (base / "publisher").mkdir()
    shutil.move(base / "keys/log.key", base / "publisher/log.key")
    shutil.move(base / "secrets/log.passphrase", base / "publisher/log.passphrase")
    content = made.settings.read_text()
    users = "".join(
        f'"{UIDS[f"fleetca-{role}"]}" = ["{may}"]\n'
        for role, may in (("signer", "operator"), ("enroll", "enroll"), ("status", "status"), ("publisher", "publisher"))
    )
    for old, new in (
        (r'url = "sqlite:[^\n]*', f'url = "postgresql+psycopg:///fleetca?host={host}"\npassword = "credential:store.password"'),
        (r'socket = "run/signer.sock"', r'\g<0>\nsocket_mode = "0660"'),
        (r'"file:secrets/serial-check.key"', '"credential:serial-check.key"'),
        (r'"file:secrets/issuing.passphrase"', '"credential:issuing.passphrase"'),
        (r'"file:secrets/log.passphrase"', '"credential:log.passphrase"'),
        (r'"sealed:keys/log.key"', '"sealed:publisher/log.key"'),
        (r'nudge = "5s"', 'nudge = "1s"'),
        (r"\[signer.caps.enroll\]", rf"[signer.users]\n{users}\n\g<0>"),
    ):
        content, changed = re.subn(old, new, content)
        assert changed == 1, old
    made.settings.write_text(content)
    return made.outputs


def accounts(root: Path) -> None:
    (root / "etc").mkdir()
    users = {"root": (0, 0)} | {name: (uid, GIDS["fleetca"]) for name, uid in UIDS.items()}
    (root / "etc/passwd").write_text("".join(f"{name}:x:{uid}:{gid}::/:/bin/false\n" for name, (uid, gid) in users.items()))
    (root / "etc/group").write_text("".join(f"{name}:x:{gid}:\n" for name, gid in {"root": 0, **GIDS}.items()))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    need("root")
    tmpfiles = need("systemd-tmpfiles")
    python, environment = interpreter()
    root = Path(tempfile.mkdtemp(prefix="fleetca-apart-"))
    root.chmod(0o755)
    cluster = None
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        cluster = private_cluster()
        accounts(root)
        base = root / "var/lib/fleetca"
        outputs = make(base, cluster.folder, root / "offline")
        (root / "offline").chmod(0o700)
        subprocess.run([tmpfiles, f"--root={root}", "--create", SHIPPED / "fleetca.tmpfiles.conf"], check=True)
        passwords = {role: secrets.token_hex(8) for role in ROLES}
        found = Fleet(root, base, forms.read_settings(base / "fleetca.toml"), cluster, python, environment, passwords, processes)
        (root / "run").mkdir(mode=0o755)
        found.sql_file()
        for role in ROLES:
            cluster.command(f"ALTER ROLE \"fleetca-{role}\" PASSWORD '{passwords[role]}'")
            found.load_credentials(role)
        (root / "run/credentials").chmod(0o755)
        found.cli("import", str(outputs))
        found.sql_file()
        found.start("signer")
        found.start(*ROLES[1:])
        yield found
        for ending in (ROLES[1:], ROLES[:1]):
            for role in ending:
                processes[role].terminate()
            for role in ending:
                assert processes.pop(role).wait(60) == 0, (root / f"{role}.log").read_text()
        assert_no_traceback(root)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
        if cluster is not None:
            cluster.remove()
        shutil.rmtree(root)


# ---- It works -----------------------------------------------------------------------------------------------------------


def test_P3_a_device_enrols_is_revoked_and_everybody_hears_of_it(fleet: Fleet) -> None:
    for role, process in fleet.processes.items():
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{Unit(role).user}\t" in status
        assert "CapEff:\t0000000000000000\n" in status
    given = fleet.cli("token", "create", "pump-7")["token"]
    trusted = fleet.settings.issuer("root").certificate
    document = {"token": given, "csr": text(Device().csr())}
    certificate = ask(f"{fleet.settings.enroll.url}/v1/enroll", body=document, context=tls(trusted)).certificate
    url, issuing = f"{fleet.settings.status.url}/ocsp", fleet.settings.issuer("issuing").certificate
    assert ocsp_status(url, certificate, issuing) == "good"
    fleet.cli("revoke", "--device", "pump-7", "--reason", "keyCompromise", "--confirm", "pump-7")
    eventually(lambda: ocsp_status(url, certificate, issuing) == "revoked")

    def listed() -> bool:
        from cryptography import x509

        reply = ask(f"{fleet.settings.status.url}/crl/issuing.crl")
        found = x509.load_der_x509_crl(reply.body) if reply.status == 200 else []
        return any(entry.serial_number == certificate.serial_number for entry in found)

    eventually(listed)
    # The record goes on too: every leaf so far is under a checkpoint that the publisher signed.
    store = open_store(fleet.cluster.url("fleetca"), readonly=True)
    key = note.read_note_key(fleet.settings.log.verifier.read_text())
    eventually(lambda: not store.reading.pending_leaves(1))
    checkpoint = eventually(store.reading.last_checkpoint)
    eventually(lambda: note.read_checkpoint((fleet.settings.log.directory / "checkpoint").read_bytes(), [key]).size >= checkpoint.size >= 5)
    store.close()


# ---- The system holds the walls -----------------------------------------------------------------------------------------

DENIED = "Permission denied"
FORBIDDEN = "42501"
"""PostgreSQL: insufficient privilege."""

WRITES = [
    "INSERT INTO certificates SELECT * FROM certificates LIMIT 0",
    "UPDATE certificates SET state = 'void'",
    "UPDATE certificates SET revoked = false",
    "DELETE FROM certificates",
    "TRUNCATE revocations",
    "INSERT INTO revocations SELECT * FROM revocations LIMIT 0",
    "DELETE FROM revocations",
    "UPDATE devices SET state = 'active'",
    "UPDATE tokens SET used_at = NULL",
    "INSERT INTO operators VALUES ('thief', 'default', '[]', 0, NULL)",
    "UPDATE issuers SET certificate = ''",
    "UPDATE counters SET value = 0",
    "INSERT INTO leaves (hash, body) VALUES ('', '')",
    "UPDATE leaves SET body = ''",
    "DELETE FROM leaves",
    "UPDATE checkpoints SET root = ''",
    "DELETE FROM checkpoints",
    "UPDATE crls SET published_at = 0",
    "CREATE TABLE thief (x int)",
    "CREATE TEMPORARY TABLE thief (x int)",
    "GRANT ALL ON certificates TO CURRENT_USER; INSERT INTO certificates SELECT * FROM certificates LIMIT 0",
    'SET ROLE "fleetca-signer"',
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "COPY certificates TO PROGRAM 'cat'",
]


def walls(fleet: Fleet, role: str) -> list[tuple[list[Any], str]]:
    """What no process but the signer may do, and the refusal that is due."""
    base = fleet.base
    closed = [
        "keys/issuing.key", "secrets/issuing.passphrase", "secrets/serial-check.key", "journal/issuance.journal", "operators/admin.key",
        "secrets/admin.passphrase",
    ]  # fmt: skip
    fixed = ["fleetca.toml", "ca/issuing.pem", "public/log.verifier", "public/crl/root.crl"]
    walled: list[tuple[list[Any], str]] = [(["read", str(base / path)], DENIED) for path in closed]
    walled += [(["write", str(base / path)], DENIED) for path in fixed]
    walled += [(["list", str(base / path)], DENIED) for path in ("keys", "secrets", "journal", "operators")]
    walled += [(["put", str(base / path)], DENIED) for path in (".", "ca", "run", "profiles", "public")]
    walled += [(["read", str(path)], DENIED) for other in ROLES if other != role for path in sorted(fleet.credentials(other).iterdir())]
    for other in ROLES:
        if other != role:
            pid = fleet.processes[other].pid
            walled += [(["memory", pid], DENIED), (["read", f"/proc/{pid}/environ"], DENIED), (["signal", pid], "Operation not permitted")]
    # Not even its own: nothing that runs later as the same user finds what is in a process's memory.
    walled += [(["memory", fleet.processes[role].pid], DENIED)]
    walled += [(["hello", other], "role-not-yours") for other in ("enroll", "status", "publisher", "operator") if other != role]
    walled += [(["sql", statement], FORBIDDEN) for statement in WRITES]
    if role != "enroll":  # whose ACME accounts are bound by tokens (RFC 8555 7.3.4)
        walled += [(["sql", "SELECT hash FROM tokens"], FORBIDDEN)]
    walled += [(["sql", "SELECT 1", "fleetca-signer"], "no login"), (["sql", "SELECT 1", "postgres"], "no login")]
    return walled


@pytest.mark.parametrize("role", ["enroll", "status", "publisher"])
def test_P3_who_takes_over_a_process_gets_no_key_no_journal_no_other_role_and_no_memory(fleet: Fleet, role: str) -> None:
    eventually((fleet.base / "public/log/checkpoint").exists)
    due = walls(fleet, role)
    if role != "publisher":
        published = ("public/crl", "public/log")
        due += [(["read", str(fleet.base / path)], DENIED) for path in ("publisher/log.key", "publisher/log.passphrase")]
        due += [(["put", str(fleet.base / path)], DENIED) for path in published]
        due += [(["write", str(fleet.base / "public/log/checkpoint")], DENIED), (["read", str(fleet.base / "public/crl/.lock")], DENIED)]
        due += [
            (["sql", statement], FORBIDDEN)
            for statement in ("UPDATE leases SET fence = 99", "UPDATE leaves SET position = NULL", "SELECT * FROM leases")
        ]
    # What it needs works with the same hands, so that a refusal above is a refusal and not a mistake of the thief's.
    due += [
        (["hello", role], "done"),
        (["sql", "SELECT count(*) FROM certificates"], "done"),
        (["read", str(fleet.base / "fleetca.toml")], "done"),
    ]
    if role == "publisher":
        due += [(["sql", "UPDATE leases SET fence = fence"], "done"), (["put", str(fleet.base / "public/crl")], "done")]
    said = fleet.rob(role, [attempt for attempt, _ in due])
    wrong = [f"{attempt}: {outcome}, due is {wanted}" for (attempt, wanted), outcome in zip(due, said, strict=True) if outcome != wanted]
    assert wrong == []


def test_P3_enrolment_writes_the_rows_of_its_protocols_with_its_own_database_role(fleet: Fleet) -> None:
    trusted = fleet.settings.issuer("root").certificate
    directory = f"{fleet.settings.enroll.url}/acme/service"
    key = AccountKey()
    kid, nonce = "", ask(f"{directory}/new-nonce", context=tls(trusted)).headers["replay-nonce"]
    for path, payload in (("new-account", {}), ("new-order", {"identifiers": [{"type": "dns", "value": "gw.device.test"}]})):
        who = {"kid": kid} if kid else {"jwk": key.jwk}
        document = jws(key, {"alg": "ES256", "nonce": nonce, "url": f"{directory}/{path}", **who}, json.dumps(payload).encode())
        reply = ask(f"{directory}/{path}", body=document, kind="application/jose+json", context=tls(trusted))
        assert reply.status == 201, reply
        kid, nonce = kid or reply.headers["location"], reply.headers["replay-nonce"]
    protocols = ("acme_accounts", "acme_orders", "enroll_secrets")
    forbidden = [["sql", f"SELECT * FROM {table}"] for table in (*protocols, "tokens")]
    for role in ("status", "publisher"):
        assert fleet.rob(role, forbidden) == [FORBIDDEN] * len(forbidden)


def test_P3_the_doctor_says_that_separate_users_are_in_force(fleet: Fleet) -> None:
    document = fleet.cli("doctor", codes=(0, 8))
    findings = {check["check"] for check in document["checks"] if check["level"] == "finding"}
    assert findings <= {"wipes"}, document  # of the device that was revoked before
    said = [check["what"] for check in document["checks"] if check["level"] == "ok"]
    assert any(
        "separate users are in force" in what and "signer runs as user id 61001" in what and "user id 61002, user id 61003" in what
        for what in said
    ), said
    assert "Only the database role fleetca-signer may write certificates." in said
    assert "The key of log belongs to another user: closed to this one." in said


def test_P2_the_doctor_names_a_second_database_role_that_may_write(fleet: Fleet) -> None:
    store = open_store(fleet.cluster.url("fleetca"), readonly=True)
    patient = Patient(fleet.settings, SystemClock(), (), None, None)
    fleet.cluster.command('GRANT INSERT ON certificates TO "fleetca-enroll"', name="fleetca")
    (finding,) = checks_inside._writers(patient, store)
    assert finding.level is Level.finding
    assert "fleetca-enroll, fleetca-signer write certificates" in finding.what
    assert "postgresql-roles.sql" in finding.fix
    fleet.sql_file()  # takes back what it does not grant
    assert store.writers() == ["fleetca-signer"]
    store.close()


# ---- The files that are shipped -----------------------------------------------------------------------------------------


def test_the_units_are_what_systemd_takes_and_are_hardened(tmp_path: Path) -> None:
    need("systemd-analyze")
    for file in (*SHIPPED.glob("*.service"), *SHIPPED.glob("*.timer"), *SHIPPED.glob("*.target")):
        (tmp_path / file.name).write_text(file.read_text().replace("/usr/local/bin/fleetca", sys.executable))
    files = sorted(tmp_path.iterdir())
    assert {"fleetca.target", *(f"fleetca-{role}.service" for role in ROLES)} <= {file.name for file in files}
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    for role in ROLES:
        unit = Unit(role)
        assert unit.one("NoNewPrivileges") == "yes"
        assert unit.one("ProtectSystem") == "strict"
        assert unit.one("CapabilityBoundingSet") == ""
        writable = unit.settings.get("ReadWritePaths", [""])[0]
        assert ("journal" in writable) == (role == "signer")
        assert ("issuing.passphrase" in unit.credentials) == (role == "signer")
        assert ("log.passphrase" in unit.credentials) == (role == "publisher")
        assert (role == "signer") or "-/var/lib/fleetca/keys" in unit.one("InaccessiblePaths").split()


def test_the_users_of_the_units_are_those_that_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    need("root")
    subprocess.run([need("systemd-sysusers"), f"--root={tmp_path}", SHIPPED / "fleetca.sysusers.conf"], check=True, capture_output=True)
    made = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":")[3].split(",") for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert made == {Unit(role).one("User") for role in ROLES}
    assert set(groups) >= {Unit(role).one("Group") for role in ROLES}
    assert set(groups["fleetca-publish"]) == {"fleetca-signer", "fleetca-publisher"}
