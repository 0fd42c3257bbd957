"""The journal file: durable, append-only, and readable past whatever a crash or a full disk left in it."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ca.errors import StoreUnavailable
from ca.store.file_journal import HEADER, MARK, FileJournal, Gap, framed

RECORDS = [b"", b"one", b"x" * 5000, MARK, MARK + b"\0" * 8, b"last"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "issuance.journal"


def written(path: Path, *batches: list[bytes]) -> FileJournal:
    journal = FileJournal(path)
    for batch in batches:
        journal.append(batch)
    journal.close()
    return FileJournal(path)


def test_what_was_appended_is_read_in_order_by_another(path: Path) -> None:
    journal = written(path, RECORDS, RECORDS[:2])
    assert list(journal.records()) == RECORDS + RECORDS[:2]
    assert journal.gaps() == []


def test_a_journal_that_does_not_exist_is_empty_and_reading_makes_none(path: Path) -> None:
    assert list(FileJournal(path).records()) == []
    assert not path.exists()


def test_the_file_is_ours_alone(path: Path) -> None:
    written(path, [b"record"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", [*range(1, HEADER + 6, 3), HEADER + 6])
def test_a_torn_tail_is_dropped_and_what_comes_after_it_is_found(path: Path, cut: int) -> None:
    """A crash in the middle of a write: the octets stay, the next record stands behind them."""
    written(path, [b"first", b"second"])
    with path.open("ab") as file:
        file.write(framed(b"broken!")[:cut])
    journal = FileJournal(path)
    assert list(journal.records()) == [b"first", b"second"]
    assert journal.gaps() == [Gap(2 * HEADER + 11, cut)]
    journal.append([b"third"])
    journal.close()
    assert list(journal.records()) == [b"first", b"second", b"third"]
    assert journal.gaps() == [Gap(2 * HEADER + 11, cut)]


def test_one_flipped_octet_costs_one_record(path: Path) -> None:
    journal = written(path, [b"a" * 10, b"b" * 10, b"c" * 10])
    octets = bytearray(path.read_bytes())
    for position in range(HEADER + 10, 2 * (HEADER + 10)):
        damaged = octets.copy()
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        assert list(journal.records()) == [b"a" * 10, b"c" * 10], position
        assert journal.gaps() == [Gap(HEADER + 10, HEADER + 10)], position


def test_zeros_left_by_a_crash_of_the_host_are_dropped(path: Path) -> None:
    journal = written(path, [b"first"])
    with path.open("ab") as file:
        file.write(b"\0" * 3_000_000)
    journal.append([b"second"])
    journal.close()
    assert list(journal.records()) == [b"first", b"second"]


def test_records_are_found_whatever_the_chunks_cut(path: Path) -> None:
    chance = random.Random(7)
    batches = [[chance.randbytes(chance.choice([0, 1, 100, 70_000, 400_000])) for _ in range(5)] for _ in range(8)]
    journal = written(path, *batches)
    with path.open("ab") as file:
        file.write(MARK[:5])
    assert list(journal.records()) == [record for batch in batches for record in batch]


def test_a_full_disk_is_said_and_does_no_harm_to_what_was_there(path: Path) -> None:
    journal = written(path, [b"first"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, limit[1]))
        with pytest.raises(StoreUnavailable) as refused:
            journal.append([b"second" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert refused.value.code == "journal-failed"
    assert "File too large" in refused.value.why
    journal.append([b"third"])
    journal.close()
    assert list(journal.records()) == [b"first", b"third"]


def test_a_file_taken_away_is_made_anew(path: Path) -> None:
    journal = FileJournal(path)
    journal.append([b"first"])
    path.unlink()
    journal.append([b"second"])
    journal.close()
    assert list(journal.records()) == [b"second"]


def test_a_killed_writer_leaves_every_confirmed_record(path: Path) -> None:
    """kill -9 while it appends: whatever `append` confirmed is there, and at most the tail is torn."""
    program = (
        "import sys\nfrom ca.store.file_journal import FileJournal\njournal = FileJournal(sys.argv[1])\n"
        "for number in range(10**9):\n    journal.append([b'%d' % number * 500])\n    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}) as process:
        assert process.stdout is not None
        for _ in range(50):
            confirmed = int(process.stdout.readline())
        process.kill()
        confirmed = max([confirmed, *map(int, process.stdout.read().split())])
    found = list(FileJournal(path).records())
    assert found[: confirmed + 1] == [b"%d" % number * 500 for number in range(confirmed + 1)]
    assert len(FileJournal(path).gaps()) <= 1
