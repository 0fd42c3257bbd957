"""P8: kill -9 at each step of the sequencer. No leaf is lost, none moves, and no checkpoint contradicts an earlier one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ca.audit import Files, verify
from ca.log.tiles import TileDirectory
from ca.model import LogLeaf
from ca.rules import leaf, merkle, note
from ca.sequence import Sequencer
from ca.store.engine import Store, open_store
from fleetca.failpoints import failpoint
from tests.fakes.record import FixedClock, LogKey

FAILPOINTS = ("sequence.after-assign", "sequence.after-tiles", "sequence.before-checkpoint")
BODIES = [leaf.canonical({"at": number, "kind": "event", "name": f"n{number}"}) for number in range(530)]


def run(store: Store, folder: Path, *, holder: str, late: int = 0) -> None:
    """One round; `late` seconds after the lease of a dead holder was taken."""
    clock = FixedClock()
    clock.time += late
    Sequencer(
        ledger=store.ledger,
        files=TileDirectory(folder),
        key=LogKey(),
        origin="demo",
        holder=holder,
        clock=clock,
        failpoint=failpoint(),
    ).run()


def queue(store: Store, bodies: list[bytes]) -> None:
    with store.ledger.writing() as tx:
        for body in bodies:
            tx.append_leaf(LogLeaf(body))


def killed(url: str, folder: Path, where: str) -> None:
    """Run a round in a process of its own that dies there."""
    died = subprocess.run(
        [sys.executable, "-m", "tests.faults.test_sequencer_killed", url, str(folder)],
        env={**os.environ, "FLEETCA_FAILPOINT": f"{where}=kill", "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", FAILPOINTS)
def test_P8_a_sequencer_killed_at(store: Store, database_url: str, tmp_path: Path, where: str) -> None:
    folder, keys = tmp_path / "log", [note.note_key("demo", LogKey().spki)]
    queue(store, BODIES[:250])
    run(store, folder, holder="a")
    kept = (folder / "checkpoint").read_bytes()
    queue(store, BODIES[250:520])
    killed(database_url, folder, where)
    # Readers see the log as it was, whole; nothing of the unfinished round is promised to anyone.
    report = verify(Files("LOG", TileDirectory(folder)), keys=keys, checkpoints=[("KEPT", kept)])
    assert (report.findings, report.size) == ((), 250)
    # Another process takes over once the lease of the dead one is over, with what came meanwhile.
    queue(store, BODIES[520:])
    run(store, folder, holder="c", late=35)
    assert (folder / "checkpoint").read_bytes() == kept
    run(store, folder, holder="c", late=45)
    report = verify(Files("LOG", TileDirectory(folder)), keys=keys, checkpoints=[("KEPT", kept)], database=store.reading)
    assert report.findings == ()
    assert (report.size, report.root) == (530, merkle.root_of(merkle.leaf_hash(body) for body in BODIES))


if __name__ == "__main__":
    run(open_store(sys.argv[1]), Path(sys.argv[2]), holder="b", late=31)
