"""The tables: made by migrations alone, equal to what the code believes, on both databases."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from ca.errors import Misconfigured, StoreUnavailable
from ca.store.database import journal_mode_of, migrating_engine, parsed
from ca.store.engine import Store, migrate, open_store, revision
from ca.store.tables import metadata
from tests.databases import Cluster


@pytest.fixture
def tables(database_url: str):
    engine = migrating_engine(parsed(database_url))
    yield engine
    engine.dispose()


def test_the_migrated_tables_are_those_the_code_describes(tables: sa.Engine) -> None:
    with tables.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_migrated_constraints_and_partial_indexes_are_those_the_code_describes(tables: sa.Engine) -> None:
    """What Alembic's comparison does not look at: conditions of indexes, checks, primary keys, trees without row ids."""
    name = tables.dialect.name
    made = sa.create_engine("sqlite://") if name == "sqlite" else None
    look = (
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        if name == "sqlite"
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        " UNION SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conname <> 'alembic_version_pkc' ORDER BY 1, 2"
    )
    with tables.connect() as connection:
        migrated = [tuple(row) for row in connection.exec_driver_sql(look)]
        if made is None:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
            metadata.create_all(connection)
            described = [tuple(row) for row in connection.exec_driver_sql(look)]
    if made is not None:
        with made.begin() as connection:
            metadata.create_all(connection)
            described = [tuple(row) for row in connection.exec_driver_sql(look)]
        made.dispose()
    assert migrated == described


def test_migrating_twice_and_by_two_at_once_is_harmless(tmp_path: Path, postgres: Cluster) -> None:
    for url in (f"sqlite:///{tmp_path / 'new' / 'fleetca.db'}", postgres.empty()):
        found: list[str] = []

        def run(url: str = url, found: list[str] = found) -> None:
            found.append(migrate(url))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [found[0]] * 3
        assert revision(url) == (found[0], found[0])


def test_a_database_of_a_newer_version_is_left_alone(tables: sa.Engine, database_url: str) -> None:
    with tables.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Misconfigured) as refused:
        migrate(database_url)
    assert refused.value.code == "store-newer"


def test_a_database_without_tables_says_how_to_get_them(tmp_path: Path, postgres: Cluster) -> None:
    empty = tmp_path / "empty.db"
    empty.touch(0o600)
    for url in (f"sqlite:///{empty}", postgres.empty()):
        opened = open_store(url)
        with pytest.raises(StoreUnavailable) as refused:
            opened.reading.issuers()
        assert (refused.value.code, refused.value.fix) == ("store-schema", "fleetca migrate")
        opened.close()


def test_the_first_tenant_is_there_from_the_first_migration_on(tables: sa.Engine) -> None:
    with tables.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM tenants").all() == [("default",)]


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        pytest.param((3, 40, 1), "delete", id="rollback journal: Debian 12's SQLite has the WAL-reset bug"),
        pytest.param((3, 44, 5), "delete", id="rollback journal: the last 3.44 without the fix"),
        pytest.param((3, 44, 6), "wal", id="WAL: the backport in 3.44"),
        pytest.param((3, 45, 0), "delete", id="rollback journal: 3.45 came before the fix"),
        pytest.param((3, 50, 6), "delete", id="rollback journal: the last 3.50 without the fix"),
        pytest.param((3, 50, 7), "wal", id="WAL: the backport in 3.50"),
        pytest.param((3, 51, 2), "delete", id="rollback journal: the last version with the bug"),
        pytest.param((3, 51, 3), "wal", id="WAL: the fix"),
        pytest.param((4, 0, 0), "wal", id="WAL: later versions"),
    ],
)
def test_R27_the_journal_mode_follows_the_version(version: tuple[int, int, int], mode: str) -> None:
    assert journal_mode_of(version) == mode


def test_sqlite_files_are_ours_alone_and_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'fleetca.db'}"
    migrate(url)
    opened = open_store(url)
    assert opened.journal_mode is not None
    with opened.ledger.writing() as writing:
        writing.raise_high_time(5)
        for file in (tmp_path / "deep").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for database in opened.databases:
        connection = database.connect()
        cursor = database.cursor(connection)
        assert cursor.execute("PRAGMA journal_mode").fetchone() == (opened.journal_mode,)
        assert cursor.execute("PRAGMA synchronous").fetchone()[0] >= 2  # FULL
        assert cursor.execute("PRAGMA query_only").fetchone() == (0 if database.writes else 1,)
        connection.close()
    opened.close()


def test_R27_a_repaired_sqlite_switches_to_wal_and_an_affected_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'fleetca.db'}"
    migrate(url)
    for version, mode, synchronous in [((3, 51, 3), "wal", 2), ((3, 51, 2), "delete", 3)]:
        monkeypatch.setattr("pysqlite3.dbapi2.sqlite_version_info", version)
        opened = open_store(url)
        assert opened.journal_mode == mode
        with opened.ledger.writing() as writing:
            writing.raise_high_time(version[2])
            assert (tmp_path / "fleetca.db-wal").exists() == (mode == "wal")
        connection = opened.databases[1].connect()
        cursor = opened.databases[1].cursor(connection)
        assert cursor.execute("PRAGMA journal_mode").fetchone() == (mode,)
        assert cursor.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        connection.close()
        opened.close()


@pytest.mark.parametrize(
    ("server", "ours"),
    [
        pytest.param("off", "on", id="off is raised"),
        pytest.param("local", "on", id="local is raised: a standby counts"),
        pytest.param("remote_apply", "remote_apply", id="more than we need stays"),
    ],
)
def test_postgresql_commits_are_durable_where_the_server_says_otherwise(postgres: Cluster, server: str, ours: str) -> None:
    url = postgres.database()
    name = url.split("@/")[1].split("?")[0]
    postgres.command(f"ALTER DATABASE {name} SET synchronous_commit = {server}")
    opened = open_store(url)
    connection = opened.databases[1].connect()
    assert opened.databases[1].cursor(connection).execute("SHOW synchronous_commit").fetchone() == (ours,)
    connection.close()
    opened.close()
    postgres.drop(url)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("mysql://x/y", id="a database that we do not speak"),
        pytest.param("postgresql://x/y", id="PostgreSQL without its driver's name: its meaning changed between versions"),
        pytest.param("sqlite://", id="SQLite in memory"),
        pytest.param("sqlite:///:memory:", id="SQLite in memory, spelled out"),
        pytest.param("no url", id="no url at all"),
    ],
)
def test_a_url_that_we_do_not_speak_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        open_store(url)
    assert refused.value.code == "store-url"


def test_a_missing_sqlite_file_is_an_error_and_not_an_empty_database(tmp_path: Path) -> None:
    opened = open_store(f"sqlite:///{tmp_path / 'nowhere.db'}")
    with pytest.raises(StoreUnavailable) as refused:
        opened.reading.ping()
    assert refused.value.code == "store-missing"
    assert not (tmp_path / "nowhere.db").exists()
    opened.close()


def test_a_readonly_store_does_not_write(database_url: str) -> None:
    opened: Store = open_store(database_url, readonly=True)
    assert opened.reading.change_number() == 0
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        writing.raise_high_time(5)
    assert refused.value.code == "store-readonly"
    opened.close()
