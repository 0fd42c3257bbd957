"""After a restore the log goes on as one history: published leaves come back to their places (P8)."""

from __future__ import annotations

import pytest

from ca.adopt import adopt
from ca.errors import Broken, Unauthenticated
from ca.log.memory import MemoryFiles
from ca.model import Checkpoint, QueuedLeaf
from ca.rules import leaf, merkle, note
from ca.sequence import Sequencer
from tests.fakes.record import FixedClock, LogKey, MemoryRecord, no_failpoint

KEY = note.note_key("demo", LogKey().spki)
BODIES = [leaf.canonical({"at": number, "kind": "event", "name": f"n{number}"}) for number in range(3000)]


def sequence(ledger: MemoryRecord, files: MemoryFiles) -> None:
    Sequencer(ledger=ledger, files=files, key=LogKey(), origin="demo", holder="a", clock=FixedClock(), failpoint=no_failpoint).run()


def published(ledger: MemoryRecord, bodies: list[bytes]) -> MemoryFiles:
    files = MemoryFiles()
    ledger.queue(bodies)
    sequence(ledger, files)
    return files


def restored(size: int, *, queued: list[bytes] | None = None) -> MemoryRecord:
    """The database as an old backup has it, and what was queued since."""
    ledger = MemoryRecord()
    published(ledger, BODIES[:size])
    ledger.queue(queued or [])
    return ledger


def bring_back(ledger: MemoryRecord, files: MemoryFiles) -> int:
    return adopt(ledger=ledger, files=files, keys=[KEY], clock=FixedClock())


@pytest.mark.parametrize(
    ("size", "kept", "queued"),
    [
        pytest.param(300, 200, [], id="the tail was forgotten"),
        pytest.param(300, 0, [], id="everything was forgotten"),
        pytest.param(2600, 10, [], id="more than a page was forgotten"),
        pytest.param(300, 200, [b"new 1", b"new 2"], id="new leaves wait"),
        pytest.param(300, 200, BODIES[250:260], id="recovery queued some of them again"),
        pytest.param(300, 200, [b"new", *reversed(BODIES[190:300]), b"newer"], id="recovery queued all of them again, out of order"),
    ],
)
def test_P8_after_a_restore_the_log_goes_on(size: int, kept: int, queued: list[bytes]) -> None:
    files = published(MemoryRecord(), BODIES[:size])
    ledger = restored(kept, queued=queued)
    with pytest.raises(Broken):
        sequence(ledger, files)
    assert bring_back(ledger, files) == size - kept
    assert bring_back(ledger, files) == 0
    sequence(ledger, files)
    told = [each.body for each in ledger.leaves(0, 10_000)]
    assert told[:size] == BODIES[:size]
    assert told[size:] == [body for body in queued if body not in BODIES[kept:size]]
    checkpoint = note.read_checkpoint(files.files["checkpoint"], [KEY])
    assert checkpoint.root == merkle.root_of(merkle.leaf_hash(body) for body in told)


def test_leaves_that_say_the_same_keep_their_places() -> None:
    bodies = [*BODIES[:5], BODIES[1], BODIES[6], BODIES[1]]
    files = published(MemoryRecord(), bodies)
    ledger = restored(1, queued=[BODIES[1]])
    assert bring_back(ledger, files) == 7
    assert [each.body for each in ledger.leaves(0, 100)] == bodies


def test_a_database_that_forgot_nothing_is_left_alone() -> None:
    ledger = MemoryRecord()
    files = published(ledger, BODIES[:300])
    assert bring_back(ledger, files) == 0
    assert bring_back(ledger, MemoryFiles()) == 0


def test_adopting_goes_on_after_a_crash_before_the_checkpoint_was_recorded() -> None:
    files = published(MemoryRecord(), BODIES[:300])
    ledger = restored(200)
    ledger.queue(BODIES[200:250])
    ledger.assign_indexes([each.id for each in ledger.pending_leaves(50)], start=200)
    with pytest.raises(Broken):
        sequence(ledger, files)
    assert bring_back(ledger, files) == 50
    assert ledger.leaf_count() == 300
    last = ledger.last_checkpoint()
    assert isinstance(last, Checkpoint)
    assert last.size == 300


def test_nothing_is_adopted_that_the_log_did_not_sign() -> None:
    files = published(MemoryRecord(), BODIES[:300])
    files.files["tile/entries/001.p/44"] = files.files["tile/entries/001.p/44"].replace(b"n299", b"n298")
    ledger = restored(200)
    with pytest.raises(Broken) as refused:
        bring_back(ledger, files)
    assert refused.value.code == "record-files"
    assert ledger.leaf_count() == 200
    with pytest.raises(Unauthenticated):
        adopt(ledger=ledger, files=files, keys=[note.note_key("demo", LogKey(b"x").spki)], clock=FixedClock())


def test_a_database_that_went_on_by_itself_is_not_mixed_with_the_log() -> None:
    files = published(MemoryRecord(), BODIES[:300])
    ledger = restored(200)
    ledger.state.queue.append(QueuedLeaf(201, b"another story", 200))
    with pytest.raises(Broken) as refused:
        bring_back(ledger, files)
    assert refused.value.code == "record-forked"
