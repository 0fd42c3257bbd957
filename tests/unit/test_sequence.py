"""The sequencer: every leaf gets one place for ever, and no checkpoint is signed that an earlier one contradicts (P8)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import Broken, Conflict, FleetcaError, StoreUnavailable
from ca.log.memory import MemoryFiles
from ca.log.tiles import TileDirectory
from ca.model import QueuedLeaf
from ca.ports import Failpoint, RecordFiles
from ca.rules import merkle, note, tiles
from ca.sequence import Sequencer
from tests.fakes.record import FixedClock, LogKey, MemoryRecord, no_failpoint

ORIGIN = "demo"
FAILPOINTS = ("sequence.after-assign", "sequence.after-tiles", "sequence.before-checkpoint")


class Stop(Exception):
    pass


def bodies(start: int, count: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(start, start + count)]


def sequencer(
    ledger: MemoryRecord,
    files: RecordFiles,
    *,
    key: LogKey | None = None,
    failpoint: Failpoint = no_failpoint,
    holder: str = "a",
    clock: FixedClock | None = None,
    limit: int = 4096,
) -> Sequencer:
    return Sequencer(
        ledger=ledger,
        files=files,
        key=key or LogKey(),
        origin=ORIGIN,
        holder=holder,
        clock=clock or FixedClock(),
        failpoint=failpoint,
        limit=limit,
    )


def assert_log_is(files: RecordFiles, expected: list[bytes]) -> None:
    """Checkpoint, tiles and bundles are exactly those of these leaves."""
    octets = files.read("checkpoint")
    assert octets is not None
    checkpoint = note.read_checkpoint(octets, [note.note_key(ORIGIN, LogKey().spki)])
    hashes = [merkle.leaf_hash(body) for body in expected]
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, len(expected), merkle.root_of(hashes))
    for tile in tiles.tiles_of(len(expected)):
        found = tiles.read_tile(files.read, tile)
        assert found is not None, tile.path
        start = tile.index * 256
        if tile.level < 0:
            assert tiles.entries(found) == expected[start : start + tile.width]
        else:
            span = 256**tile.level
            assert tiles.hashes(found) == [merkle.root_of(hashes[at * span : (at + 1) * span]) for at in range(start, start + tile.width)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_a_log_grown_in_any_steps_is_the_log_grown_at_once(steps: list[int]) -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    total = 0
    for step in steps:
        ledger.queue(bodies(total, step))
        total += step
        sequencer(ledger, files).run()
        assert_log_is(files, bodies(0, total))


def test_a_log_of_more_than_256_tiles_has_a_third_level(tmp_path: Path) -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    edge, full = tiles.grow(tiles.Edge(), bodies(0, 256 * 256 + 300))
    files.write([(tile.path, octets) for tile, octets in full])
    files.write([(tile.path, octets) for tile, octets in tiles.partials(edge)])
    assert edge.root() == merkle.root_of(merkle.leaf_hash(body) for body in bodies(0, 256 * 256 + 300))
    assert {tile.path for tile in tiles.tiles_of(edge.size)} == set(files.names())
    assert "tile/2/000.p/1" in files.files
    again = tiles.read_edge(files.read, edge.size)
    assert again == edge
    node = tiles.node_reader(files.read, edge.size)
    proof = merkle.inclusion_proof(65_700, edge.size, node)
    assert merkle.proves_inclusion(65_700, edge.size, merkle.leaf_hash(bodies(65_700, 1)[0]), root=edge.root(), proof=proof)
    assert ledger.leaf_count() == 0


def test_the_empty_log_has_a_checkpoint_too() -> None:
    files = MemoryFiles()
    done = sequencer(MemoryRecord(), files).run()
    assert done is not None
    assert done.checkpoint.size == 0
    assert_log_is(files, [])


def test_nothing_new_signs_nothing() -> None:
    ledger, files, key = MemoryRecord(), MemoryFiles(), LogKey()
    ledger.queue(bodies(0, 3))
    assert sequencer(ledger, files, key=key).run() is not None
    assert sequencer(ledger, files, key=key).run() is None
    assert key.signatures == 1


def test_more_leaves_than_a_round_takes_are_said_to_wait() -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    ledger.queue(bodies(0, 25))
    rounds = [sequencer(ledger, files, limit=10).run() for _ in range(4)]
    assert [(done.assigned, done.more) if done else None for done in rounds] == [(10, True), (10, True), (5, False), None]
    assert_log_is(files, bodies(0, 25))


def test_a_round_reads_a_leaf_once_and_one_after_a_crash_reads_those_that_have_their_place_already() -> None:
    class Counting(MemoryRecord):
        def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]:
            read.append((start, count))
            return super().leaves(start, count)

    def crash(name: str) -> None:
        if name == "sequence.after-assign":
            raise Stop

    ledger, files, read = Counting(), MemoryFiles(), list[tuple[int, int]]()
    ledger.queue(bodies(0, 300))
    sequencer(ledger, files).run()
    assert read == []
    ledger.queue(bodies(300, 20))
    with pytest.raises(Stop):
        sequencer(ledger, files, failpoint=crash).run()
    ledger.queue(bodies(320, 30))
    sequencer(ledger, files).run()
    assert read == [(300, 20)]
    assert_log_is(files, bodies(0, 350))


def test_partial_tiles_stay_until_their_full_tile_is_there_and_are_dropped_then() -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    for size in (100, 200):
        ledger.queue(bodies(size - 100, 100))
        sequencer(ledger, files).run()
    assert {"tile/0/000.p/100", "tile/0/000.p/200", "tile/entries/000.p/100"} <= set(files.files)
    ledger.queue(bodies(200, 100))
    sequencer(ledger, files).run()
    assert {name for name in files.files if name.startswith("tile/0/000")} == {"tile/0/000"}
    assert {name for name in files.files if name.startswith("tile/entries/000")} == {"tile/entries/000"}
    assert_log_is(files, bodies(0, 300))


@pytest.mark.parametrize("where", FAILPOINTS)
@pytest.mark.parametrize("size", [0, 5, 250])
def test_P8_a_crash_at_a_failpoint_loses_no_leaf_and_moves_none(where: str, size: int) -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    ledger.queue(bodies(0, size))
    sequencer(ledger, files).run()

    def crash(name: str) -> None:
        if name == where:
            raise Stop

    ledger.queue(bodies(size, 20))
    with pytest.raises(Stop):
        sequencer(ledger, files, failpoint=crash).run()
    assert_log_is(files, bodies(0, size))
    ledger.queue(bodies(size + 20, 3))
    sequencer(ledger, files).run()
    assert_log_is(files, bodies(0, size + 23))


def test_a_crash_between_record_and_publication_publishes_the_recorded_checkpoint() -> None:
    ledger, key = MemoryRecord(), LogKey()

    class Failing(MemoryFiles):
        def write(self, files: object) -> None:
            if any(path == "checkpoint" for path, _ in files):  # type: ignore[attr-defined]
                raise StoreUnavailable("log-files", "disk full")
            super().write(files)  # type: ignore[arg-type]

    failing = Failing()
    ledger.queue(bodies(0, 7))
    with pytest.raises(StoreUnavailable):
        sequencer(ledger, failing, key=key).run()
    recorded = ledger.last_checkpoint()
    assert recorded is not None
    files = MemoryFiles(failing.files)
    done = sequencer(ledger, files, key=key).run()
    assert done is not None
    assert files.read("checkpoint") == recorded.note
    assert key.signatures == 1


def test_one_holder_at_a_time() -> None:
    ledger, files, clock = MemoryRecord(), MemoryFiles(), FixedClock()
    ledger.queue(bodies(0, 2))
    assert sequencer(ledger, files, clock=clock, holder="a").run() is not None
    ledger.queue(bodies(2, 2))
    assert sequencer(ledger, files, clock=clock, holder="b").run() is None
    clock.time += 31
    assert sequencer(ledger, files, clock=clock, holder="b").run() is not None
    assert_log_is(files, bodies(0, 4))


def test_a_holder_that_lost_its_lease_publishes_nothing() -> None:
    ledger, files, clock = MemoryRecord(), MemoryFiles(), FixedClock()
    ledger.queue(bodies(0, 2))

    def overtaken(name: str) -> None:
        if name == "sequence.before-checkpoint":
            clock.time += 31
            ledger.queue(bodies(2, 2))
            assert sequencer(ledger, files, clock=clock, holder="b").run() is not None

    with pytest.raises(Conflict) as refused:
        sequencer(ledger, files, clock=clock, holder="a", failpoint=overtaken).run()
    assert refused.value.code == "lease-lost"
    assert_log_is(files, bodies(0, 4))


def test_a_sleeper_that_puts_an_older_checkpoint_in_place_is_mended_by_the_next_round() -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    ledger.queue(bodies(0, 2))
    sequencer(ledger, files).run()
    older = files.files["checkpoint"]
    ledger.queue(bodies(2, 300))
    sequencer(ledger, files).run()
    files.files["checkpoint"] = older
    sequencer(ledger, files).run()
    assert_log_is(files, bodies(0, 302))


def test_a_lost_folder_is_written_anew_and_must_lead_to_the_recorded_root() -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    ledger.queue(bodies(0, 600))
    sequencer(ledger, files).run()
    lost = MemoryFiles()
    done = sequencer(ledger, lost).run()
    assert done is not None
    assert done.rebuilt
    assert lost.files == files.files


def edit_file(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files["tile/0/001.p/44"] = files.files["tile/0/001.p/44"][:-1] + b"!"


def edit_entry(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files["tile/entries/001.p/44"] = files.files["tile/entries/001.p/44"].replace(b'{"n":299}', b'{"n":298}')


def lose_file(ledger: MemoryRecord, files: MemoryFiles) -> None:
    del files.files["tile/1/000.p/1"]


def shorten_file(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files["tile/0/001.p/44"] = files.files["tile/0/001.p/44"][:-32]


def edit_checkpoint(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files["checkpoint"] = files.files["checkpoint"].replace(b"\n300\n", b"\n299\n")


def other_log(ledger: MemoryRecord, files: MemoryFiles) -> None:
    other = MemoryRecord()
    other.queue(bodies(1, 300))
    files.files.clear()
    sequencer(other, files).run()


def restore_database(ledger: MemoryRecord, files: MemoryFiles) -> None:
    ledger.state.queue = [leaf for leaf in ledger.state.queue if leaf.index is None or leaf.index < 200]
    ledger.state.checkpoints = {}


def lose_rows(ledger: MemoryRecord, files: MemoryFiles) -> None:
    ledger.state.queue = [leaf for leaf in ledger.state.queue if leaf.index is None or leaf.index < 200]


def edit_row_and_lose_folder(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files.clear()
    ledger.state.queue[5] = type(ledger.state.queue[5])(6, b"forged", 5)


def lose_row_and_folder(ledger: MemoryRecord, files: MemoryFiles) -> None:
    files.files.clear()
    del ledger.state.queue[5]


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        pytest.param(edit_file, "record-files", id="a hash tile was edited"),
        pytest.param(edit_entry, "record-files", id="an entry was edited"),
        pytest.param(lose_file, "record-files", id="a tile is missing"),
        pytest.param(shorten_file, "record-files", id="a tile is too short"),
        pytest.param(edit_checkpoint, "record-files", id="the checkpoint was edited"),
        pytest.param(other_log, "record-files", id="a log of the same size with other leaves was put in place"),
        pytest.param(restore_database, "record-ahead", id="the database was set back"),
        pytest.param(lose_rows, "record-shrunk", id="leaves were deleted from the database"),
        pytest.param(edit_row_and_lose_folder, "record-forked", id="the folder is lost and a leaf was edited in the database"),
        pytest.param(lose_row_and_folder, "record-gap", id="the folder is lost and a leaf is gone from the database"),
    ],
)
def test_P8_nothing_is_signed_when(deed: object, code: str) -> None:
    ledger, files, key = MemoryRecord(), MemoryFiles(), LogKey()
    ledger.queue(bodies(0, 300))
    sequencer(ledger, files).run()
    deed(ledger, files)  # type: ignore[operator]
    ledger.queue(bodies(300, 5))
    before = files.files.get("checkpoint")
    with pytest.raises(Broken) as refused:
        sequencer(ledger, files, key=key).run()
    assert refused.value.code == code
    assert refused.value.fix
    assert key.signatures == 0
    assert files.files.get("checkpoint") == before


def test_a_database_set_back_gets_no_new_index_before_it_is_noticed() -> None:
    ledger, files = MemoryRecord(), MemoryFiles()
    ledger.queue(bodies(0, 300))
    sequencer(ledger, files).run()
    restore_database(ledger, files)
    ledger.queue(bodies(900, 200))
    with pytest.raises(Broken):
        sequencer(ledger, files).run()
    assert ledger.leaf_count() == 200


def test_a_leaf_too_long_for_an_entry_is_named() -> None:
    ledger = MemoryRecord()
    ledger.queue([b"x" * 65536])
    with pytest.raises(Broken) as refused:
        sequencer(ledger, MemoryFiles()).run()
    assert refused.value.code == "leaf-too-long"


def test_files_are_whole_world_readable_and_leave_no_temporary_ones(tmp_path: Path) -> None:
    ledger = MemoryRecord()
    ledger.queue(bodies(0, 300))
    sequencer(ledger, TileDirectory(tmp_path / "log")).run()
    assert_log_is(TileDirectory(tmp_path / "log"), bodies(0, 300))
    found = [path for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "log").as_posix() for path in found} == {
        "checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o777 & ~0o644 == 0 for path in found)


def test_a_folder_that_cannot_be_written_is_said_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where a folder should be")
    ledger = MemoryRecord()
    ledger.queue(bodies(0, 3))
    with pytest.raises(StoreUnavailable) as refused:
        sequencer(ledger, TileDirectory(tmp_path / "log")).run()
    assert refused.value.fix
    assert isinstance(refused.value, FleetcaError)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "tile/0/000"), (999, "tile/0/999"), (1000, "tile/0/x001/000"), (1_234_067, "tile/0/x001/x234/067")],
)
def test_tile_paths_are_those_of_the_specification(index: int, path: str) -> None:
    assert tiles.Tile(0, index, 256).path == path
    assert tiles.Tile(-1, index, 7).path == path.replace("tile/0", "tile/entries") + ".p/7"


def test_the_files_of_70_000_leaves_are_those_of_the_specification_example() -> None:
    found = list(tiles.tiles_of(70_000))
    assert sum(tile.level == 0 and tile.width == 256 for tile in found) == 273
    assert [(tile.level, tile.width) for tile in found if tile.level >= 0 and tile.width < 256] == [(0, 112), (1, 17), (2, 1)]
    assert sum(tile.level == 1 and tile.width == 256 for tile in found) == 1
    assert [(tile.level, tile.index, tile.width) for tile in tiles.tiles_of(256)] == [(-1, 0, 256), (0, 0, 256), (1, 0, 1)]


def test_readers_may_read_the_log_whatever_mask_the_sequencer_lives_under(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        TileDirectory(tmp_path / "log").write([("tile/0/000.p/1", b"x")])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "log").rglob("*") if path.is_dir()} == {0o755}
    assert (tmp_path / "log/tile/0/000.p/1").stat().st_mode & 0o777 == 0o644
