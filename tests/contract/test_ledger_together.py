"""Two processes at once, and threads beside them: what the database alone must decide."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite3

from ca.errors import Conflict, StoreUnavailable
from ca.model import DEFAULT_TENANT, ChangeNumber, Device, DeviceId, DeviceState, LogLeaf
from ca.store.engine import Store, open_store
from tests.databases import sqlite_url
from tests.fakes.devices import moved
from tests.fakes.intents import ISSUER, NOW, digest, intent, token
from tests.fakes.writers import Writers


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    started = Writers(4)
    yield started
    started.stop()


def test_P5_number_order_is_commit_order(store: Store, database_url: str, writers: Writers) -> None:
    """While two processes revoke (and undo), a reader that has seen n has missed nothing at or below n: what OCSP workers rely on."""
    intents = [intent() for _ in range(80)]
    with store.ledger.writing() as writing:
        for one in intents:
            writing.reserve(one, tenant="default", revocable=True, leaf=digest())
    serials = [f"{one.draft.serial:x}" for one in intents]
    seen: list[ChangeNumber] = []
    stop = threading.Event()

    def watch() -> None:
        last, ended = 0, False
        while not ended:
            ended = stop.is_set()  # asked first: one more look after the last commit
            found = store.reading.changes_since(last, 1000)
            seen.extend(one.change for one in found)
            last = found[-1].change if found else last

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        first, second = writers.together(database_url, ["revoke", *serials[:40]], ["revoke", *serials[40:]])
    finally:
        stop.set()
        watcher.join()
    assert sorted(first + second) == list(range(1, 81))
    assert first == sorted(first)
    assert seen == list(range(1, 81))


def test_P6_two_publishers_never_get_the_same_crl_number(database_url: str, writers: Writers) -> None:
    first, second = writers.together(database_url, ["number_crls", "40"], ["number_crls", "40"])
    assert sorted(first + second) == list(range(1, 81))
    assert (first, second) == (sorted(first), sorted(second))


def test_a_token_goes_to_one_of_many_requests(store: Store, database_url: str, writers: Writers) -> None:
    """Two processes with 20 requests each, and ten threads of ours."""
    one = token()
    with store.ledger.writing() as writing:
        writing.add_token(one)
    ours: list[bytes] = []

    def use() -> None:
        key = digest()
        with contextlib.suppress(Conflict):
            with store.ledger.writing() as writing:
                writing.use_token(one.hash, request_key=key, now=NOW)
            ours.append(key)

    threads = [threading.Thread(target=use) for _ in range(10)]
    for thread in threads[:2]:
        thread.start()
    keys = [digest().hex() for _ in range(40)]
    results = writers.together(database_url, ["use_token", one.hash.hex(), *keys[:20]], ["use_token", one.hash.hex(), *keys[20:]])
    for thread in threads[2:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ours) + len(results[0]) + len(results[1]) == 1


def test_one_request_and_one_serial_have_one_intent_each_however_many_ask(database_url: str, writers: Writers) -> None:
    arguments = ["reserve", "25", digest()[:28].hex(), f"{intent().draft.serial:x}"]
    first, second = writers.together(database_url, arguments, arguments)
    for number, outcomes in enumerate(zip(first, second, strict=True)):
        assert sorted(outcomes) == sorted(["reserved", ("request-taken", "serial-taken")[number % 2]]), number


def test_P9_a_key_goes_to_one_device_however_many_claim_it(database_url: str, writers: Writers) -> None:
    keys = [digest().hex() for _ in range(40)]
    first, second = writers.together(database_url, ["claim", "pump-1", *keys], ["claim", "pump-2", *keys])
    assert sorted(first + second) == sorted(keys)


@pytest.mark.parametrize("skew", [0, 2, 300], ids=["equal clocks", "two seconds apart", "five minutes apart"])
def test_R13_each_fence_has_one_holder_and_its_number_rises_with_it(database_url: str, writers: Writers, skew: int) -> None:
    first, second = writers.together(database_url, ["lease", "a", "0", "30"], ["lease", "b", str(skew), "30"])
    did = sorted(first + second)
    fences = [fence for fence, _ in did]
    assert len(set(fences)) == len(fences)
    assert [number for _, number in did] == sorted({number for _, number in did})


def test_P8_two_sequencers_leave_no_gap_and_lose_no_leaf(store: Store, database_url: str, writers: Writers) -> None:
    writers.together(database_url, ["append", "a", "40"], ["append", "b", "40"], ["sequence", "a", "80"], ["sequence", "b", "80"])
    leaves = store.reading.leaves(0, 1000)
    assert [leaf.index for leaf in leaves] == list(range(80))
    assert {leaf.body for leaf in leaves} == {f"{name} {number}".encode() for name in "ab" for number in range(40)}
    assert store.reading.pending_leaves(10) == []


def test_P9_a_locked_device_waits_for_its_holder(store: Store) -> None:
    pump = Device(DeviceId("pump-1"), DEFAULT_TENANT, DeviceState.active, NOW)
    with store.ledger.writing() as writing:
        writing.add_device(pump)
    seen: list[DeviceState] = []

    def look() -> None:
        with store.ledger.writing() as writing:
            found = writing.lock_device(pump.id)
            assert found is not None
            seen.append(found.state)

    with store.ledger.writing() as writing:
        writing.lock_device(pump.id)
        other = threading.Thread(target=look)
        other.start()
        other.join(0.2)
        assert seen == []
        writing.change_device(moved(pump, DeviceState.retired))
    other.join()
    assert seen == [DeviceState.retired]


def test_threads_share_a_store(store: Store) -> None:
    """Writers and readers of one process; each transaction is whole."""
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(10):
                with store.ledger.writing() as writing:
                    writing.append_leaf(LogLeaf(f"{name} {number}".encode()))
                    writing.append_leaf(LogLeaf(f"{name} {number} again".encode()))
                assert len(store.reading.pending_leaves(10_000)) % 2 == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.reading.pending_leaves(10_000)) == 120


def test_a_killed_writer_leaves_nothing_of_its_transaction(store: Store, database_url: str) -> None:
    """kill -9 inside of a transaction: its rows are gone, its number is given again, its locks are free."""
    one = intent()
    with store.ledger.writing() as writing:
        writing.reserve(one, tenant="default", revocable=True, leaf=digest())
    program = (
        "import sys, os, signal\nfrom ca.store.engine import open_store\nfrom tests.fakes.intents import ISSUER\n"
        "with open_store(sys.argv[1]).ledger.writing() as writing:\n"
        "    print(writing.next_crl_number(ISSUER, 0, above=0), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, database_url], stdout=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (-9, "1\n")
    with store.ledger.writing() as writing:
        assert writing.next_crl_number(ISSUER, 0, above=0) == 1


def test_a_reader_rolls_back_what_a_killed_writer_left_half_written_in_the_file(tmp_path: Path) -> None:
    """A hot journal: the reason why readers open the SQLite file for writing, with `query_only`."""
    url = sqlite_url(tmp_path)
    file = tmp_path / "fleetca.db"
    program = (
        "import sys, os, signal\nfrom pysqlite3 import dbapi2 as sqlite3\nfile = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for order in ('PRAGMA journal_mode=DELETE', 'PRAGMA cache_size=1', 'PRAGMA cache_spill=1', 'BEGIN IMMEDIATE',\n"
        "    \"UPDATE counters SET value = 99 WHERE name = 'change'\"): file.execute(order)\n"
        "for number in range(2000): file.execute('INSERT INTO leaves (hash, body) VALUES (randomblob(32), zeroblob(2000))')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, file], check=False).returncode == -9
    journal = tmp_path / "fleetca.db-journal"
    assert journal.exists()
    opened = open_store(url, readonly=True)
    assert opened.reading.change_number() == 0
    assert opened.reading.pending_leaves(10) == []
    assert not journal.exists()
    opened.close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_transactions_that_lock_each_other_out_end_with_one_through(store: Store) -> None:
    """On PostgreSQL a deadlock: one is told to repeat. On SQLite they queue from the start."""
    with store.ledger.writing() as writing:
        for name in ("a", "b"):
            writing.add_device(Device(DeviceId(name), DEFAULT_TENANT, DeviceState.active, NOW))
    meet = threading.Barrier(2)
    outcomes: list[str] = []

    def lock(first: str, second: str) -> None:
        try:
            with store.ledger.writing() as writing:
                writing.lock_device(DeviceId(first))
                if store.backend == "postgresql":
                    meet.wait(60)
                writing.lock_device(DeviceId(second))
            outcomes.append("through")
        except StoreUnavailable as refused:
            outcomes.append(refused.code)

    threads = [threading.Thread(target=lock, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == (["store-busy", "through"] if store.backend == "postgresql" else ["through", "through"])
