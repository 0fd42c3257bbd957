"""Real databases for tests: a private PostgreSQL cluster under the temporary folder, and SQLite files. All start with our tables.

The fixtures are every test's: `tests/conftest.py` has them. One cluster serves all tests of a process.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest

from ca.store.engine import Store, migrate, open_store
from ca.store.migrating import head
from ca.store.tables import metadata
from tests.parts import need

TEMPLATE = "fleetca_template"


class Cluster:
    """A PostgreSQL server of our own: a Unix socket in a folder that only its user may enter, no network, no syncing to disk."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="fleetca-pg-"))
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._data = self.folder / "data"
        self._numbers = itertools.count(1)
        self._clean: list[str] = []
        self._emptying = (
            f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY;"
            "INSERT INTO counters (name, value) VALUES ('change', 0), ('high-time', 0);"
            "INSERT INTO tenants (id, created) VALUES ('default', 0)"
        ).encode()
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nfsync = off\nfull_page_writes = off\n"
                "wal_level = minimal\nmax_wal_senders = 0\nshared_buffers = 64MB\nmax_connections = 120\nautovacuum = off\nlogging_collector = off\n"
            )

    def _run(self, tool: str, *arguments: str) -> None:
        ran = subprocess.run(
            [self._binaries / tool, *arguments],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if tool == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{tool} failed: {ran.stdout}"

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self.folder / "log"), "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        """`immediate` is what a crash of the server looks like."""
        self._run("pg_ctl", "-D", str(self._data), "-m", how, "-w", "stop")

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def command(self, text: str, *, name: str = "postgres") -> None:
        """Run a statement as superuser, outside of a transaction."""
        with psycopg.connect(f"host={self.folder} user=postgres dbname={name}", autocommit=True) as connection:
            connection.execute(text.encode())

    def empty(self) -> str:
        """The url of a new database without tables."""
        name = f"empty_{next(self._numbers)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def database(self) -> str:
        """The url of a database with our tables and nothing in them."""
        if self._clean:
            return self._clean.pop()
        name = f"fleetca_{next(self._numbers)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.url(name)

    def take_back(self, url: str) -> None:
        """Empty the tables for the next test, which is ten times faster than another database; drop it when it was tampered with."""
        try:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True, options="-c lock_timeout=2s") as connection:
                (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
                assert version == head()
                connection.execute(self._emptying)
        except (psycopg.Error, AssertionError):
            self.drop(url)
        else:
            self._clean.append(url)

    def drop(self, url: str) -> None:
        self.command(f"DROP DATABASE IF EXISTS {url.split('@/')[1].split('?', maxsplit=1)[0]} WITH (FORCE)")


def started() -> Cluster:
    """A running cluster whose template has our tables; the caller calls `remove`. Skips (in CI: fails) without PostgreSQL."""
    cluster = Cluster(Path(need("postgres")))
    try:
        cluster.start()
        cluster.command(f"CREATE DATABASE {TEMPLATE}")
        migrate(cluster.url(TEMPLATE))
    except BaseException:
        cluster.remove()
        raise
    return cluster


@cache
def _new_file() -> bytes:
    """A SQLite database with our tables and nothing in them: the migrations' work, done once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fleetca.db"
        migrate(f"sqlite:///{file}")
        assert list(Path(folder).iterdir()) == [file], "all of it is in one file"
        return file.read_bytes()


def sqlite_url(folder: Path) -> str:
    """The url of a SQLite database with our tables: a new one, or the one that is there already."""
    file = folder / "fleetca.db"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_bytes(_new_file())
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    cluster = started()
    yield cluster
    cluster.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database of each kind, with our tables."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    url = cluster.database()
    yield url
    cluster.take_back(url)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()
