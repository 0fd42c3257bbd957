"""What databases and disks do to us: always `StoreUnavailable` with its cause and what mends it, nothing half-written, and it recovers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pysqlite3 import dbapi2 as sqlite3

from ca.errors import Broken, FleetcaError, StoreUnavailable
from ca.model import DEFAULT_TENANT, Device, DeviceId, DeviceState, LogLeaf
from ca.store.engine import Store, migrate, open_store
from ca.store.ledger import SqlWriting
from tests.databases import Cluster, sqlite_url, started
from tests.fakes.intents import ISSUER, NOW, digest, intent

BIG = LogLeaf(b"x" * 300_000)


def run(store: Store, *, writes: bool, text: str) -> None:
    """A statement on the very connection that the store will use next."""
    database = store.databases[1 if writes else 0]
    connection = database.connect()
    database.cursor(connection).execute(text).fetchall()
    connection.close()


def limit_pages(store: Store, beyond: int) -> None:
    """Let the SQLite file grow by so many pages only: what a full disk looks like from inside."""
    database = store.databases[1]
    connection = database.connect()
    cursor = database.cursor(connection)
    (now,) = cursor.execute("PRAGMA page_count").fetchone()
    cursor.execute(f"PRAGMA max_page_count={now + beyond}").fetchall()
    connection.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(sqlite_url(tmp_path))
    yield opened
    opened.close()


# ---- disk full


def fill(writing: SqlWriting) -> None:
    for _ in range(100):
        writing.append_leaf(BIG)


def fill_at_once(writing: SqlWriting) -> None:
    """Leaves are written when the transaction ends; devices are not."""
    for number in range(2000):
        writing.add_device(Device(DeviceId(f"device-{number}-{'x' * 200}"), DEFAULT_TENANT, DeviceState.active, NOW))


def test_a_full_disk_undoes_the_transaction_and_says_so(sqlite_store: Store) -> None:
    with sqlite_store.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    limit_pages(sqlite_store, 20)
    with pytest.raises(StoreUnavailable) as refused, sqlite_store.ledger.writing() as writing:
        writing.raise_high_time(NOW + 100)
        fill(writing)
    assert refused.value.code == "disk-full"
    assert refused.value.fix
    assert sqlite_store.reading.high_time() == NOW
    limit_pages(sqlite_store, 1_000_000)
    with sqlite_store.ledger.writing() as writing:
        fill(writing)
    assert len(sqlite_store.reading.pending_leaves(1000)) == 100


def test_a_batch_that_goes_on_after_a_full_disk_writes_nothing_outside_of_its_transaction(sqlite_store: Store) -> None:
    """SQLite undoes the whole transaction by itself when the disk is full; each later statement would commit on its own."""
    limit_pages(sqlite_store, 20)
    codes = []
    with pytest.raises(StoreUnavailable) as refused, sqlite_store.ledger.writing() as writing:
        for act in (
            fill_at_once,
            lambda w: w.raise_high_time(NOW),
            lambda w: w.next_crl_number(ISSUER, 0, above=0),
            lambda w: w.high_time(),
        ):
            try:
                with writing.savepoint():
                    act(writing)
            except FleetcaError as error:  # as a verb does for each request of a batch
                codes.append(error.code)
    assert codes == ["disk-full"] * 4
    assert refused.value.code == "disk-full"
    assert sqlite_store.reading.high_time() == 0
    with sqlite_store.ledger.writing() as writing:
        assert writing.next_crl_number(ISSUER, 0, above=0) == 1


def test_a_full_disk_as_postgresql_reports_it(postgres: Cluster) -> None:
    url = postgres.database()
    postgres.command(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file'"
        " USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON leaves FOR EACH ROW EXECUTE FUNCTION full_disk()",
        name=url.split("@/")[1].split("?")[0],
    )
    opened = open_store(url)
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
        with contextlib.suppress(StoreUnavailable), writing.savepoint():
            writing.append_leaf(LogLeaf(b"{}"))
    assert refused.value.code == "disk-full"
    assert opened.reading.high_time() == 0
    opened.close()


# ---- the database is gone


@pytest.fixture(scope="module")
def mortal() -> Iterator[Cluster]:
    """A cluster that may be stopped."""
    cluster = started()
    yield cluster
    cluster.remove()


def test_P5_a_database_that_went_away_is_told_and_found_again(mortal: Cluster) -> None:
    opened = open_store(mortal.database())
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    assert opened.reading.high_time() == NOW
    mortal.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as refused:
            opened.reading.high_time()
        assert refused.value.code == "database-down"
        with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing():
            pass
        assert refused.value.code == "database-down"
    mortal.start()
    assert opened.reading.high_time() == NOW
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW + 1)
    opened.close()


def test_P1_a_database_that_dies_before_the_commit_keeps_nothing(mortal: Cluster) -> None:
    opened = open_store(mortal.database())
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
        mortal.stop()
        writing.high_time()
    assert refused.value.code == "database-down"
    mortal.start()
    assert opened.reading.high_time() == 0
    opened.close()


def test_P1_a_commit_without_an_answer_is_called_unknown(mortal: Cluster) -> None:
    opened = open_store(mortal.database())
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
        mortal.stop()
    assert refused.value.code == "commit-unknown"
    mortal.start()
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    assert opened.reading.high_time() == NOW
    opened.close()


def test_connections_that_an_administrator_ends_are_replaced(postgres: Cluster) -> None:
    url = postgres.database()
    opened = open_store(url)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fleetca'"
    assert opened.reading.high_time() == 0
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        postgres.command(end)
        writing.high_time()
    assert refused.value.code == "database-down"
    postgres.command(end)
    assert opened.reading.high_time() == 0
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    postgres.command(end)
    with opened.ledger.writing() as writing:
        assert writing.high_time() == NOW
    opened.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        pytest.param("postgresql+psycopg://postgres@/nowhere?host={folder}", "database-refused", id="no such database"),
        pytest.param("postgresql+psycopg://nobody@/postgres?host={folder}", "database-refused", id="no such user"),
        pytest.param("postgresql+psycopg://postgres@/postgres?host={folder}/nowhere", "database-down", id="no server there"),
    ],
)
def test_a_database_that_cannot_be_entered_says_why(postgres: Cluster, url: str, code: str) -> None:
    url = url.format(folder=postgres.folder)
    opened = open_store(url)
    for ask in (opened.reading.ping, lambda: opened.ledger.writing().__enter__(), lambda: migrate(url)):
        with pytest.raises(StoreUnavailable) as refused:
            ask()
        # Without a code from the server, the driver's text says which it was.
        assert refused.value.code in {code, "database-down"}
        assert refused.value.why
    opened.close()


# ---- the file is wrong


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "fleetca.db").write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 100)
    url = f"sqlite:///{tmp_path / 'fleetca.db'}"
    opened = open_store(url)
    for ask in (opened.reading.ping, lambda: migrate(url)):
        with pytest.raises(StoreUnavailable) as refused:
            ask()
        assert refused.value.code == "store-damaged"
    opened.close()


def test_a_file_without_write_permission_says_so(sqlite_store: Store) -> None:
    run(sqlite_store, writes=True, text="PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable) as refused, sqlite_store.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    assert refused.value.code == "store-readonly"


def test_a_file_that_others_keep_locked_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'fleetca.db'}"
    migrate(url)
    monkeypatch.setattr("ca.store.database.BUSY_SECONDS", 0.1)
    opened = open_store(url)
    other = sqlite3.connect(tmp_path / "fleetca.db", isolation_level=None)
    opened.reading.ping()
    with opened.ledger.writing():
        pass
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing():
        pass
    assert refused.value.code == "store-busy"
    other.execute("ROLLBACK")
    other.close()
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    opened.close()


def test_a_commit_that_a_reader_holds_up_keeps_nothing_and_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rollback mode a commit waits for readers; one that does not end costs the transaction, whole, and the store goes on."""
    for reader in ("ca.store.database", "ca.store.engine"):  # whatever SQLite this is: in WAL mode nobody waits for readers
        monkeypatch.setattr(f"{reader}.journal_mode_of", lambda _: "delete")
    url = f"sqlite:///{tmp_path / 'fleetca.db'}"
    migrate(url)
    monkeypatch.setattr("ca.store.database.BUSY_SECONDS", 0.1)
    opened = open_store(url)
    assert opened.journal_mode == "delete"
    other = sqlite3.connect(tmp_path / "fleetca.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM counters").fetchone()
    with pytest.raises(StoreUnavailable) as refused, opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    assert refused.value.code == "store-busy"
    other.execute("ROLLBACK")
    other.close()
    assert opened.reading.high_time() == 0
    with opened.ledger.writing() as writing:
        writing.raise_high_time(NOW)
    opened.close()


def test_a_transaction_of_ours_that_does_not_end_makes_others_busy(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ca.store.ledger.BUSY_SECONDS", 0.05)
    with sqlite_store.ledger.writing(), pytest.raises(StoreUnavailable) as refused, sqlite_store.ledger.writing():
        pass
    assert refused.value.code == "store-busy"


# ---- our own faults


def test_a_row_that_breaks_a_constraint_is_our_fault_and_not_the_database_s(store: Store) -> None:
    with pytest.raises(Broken) as broken, store.ledger.writing() as writing:
        writing.raise_high_time(NOW)
        writing.reserve(intent(), tenant=None, revocable=True, leaf=digest())  # type: ignore[arg-type]
    assert broken.value.code == "store-constraint"
    assert store.reading.high_time() == 0


def test_errors_of_drivers_carry_no_password(postgres: Cluster) -> None:
    opened = open_store(f"postgresql+psycopg://nobody:opensesame@/postgres?host={postgres.folder}")
    with pytest.raises(StoreUnavailable) as refused:
        opened.reading.ping()
    said: Any = refused.value
    assert "opensesame" not in f"{said.what} {said.why} {said.fix}"
    assert isinstance(said.__cause__, Exception | psycopg.Error)
    opened.close()
