"""A factory line is killed (-9) at every named place, at the CA and at the station; then the same command goes on, and the counts agree to the unit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetca.line import bringing, verifying
from fleetca.line.station import Station
from tests.databases import sqlite_url
from tests.fakes.factory_line import Inside, Line
from tests.fakes.signer_world import World
from tests.faults.test_signer_killed import in_a_child, striking

UNITS = 12
PLACES = [
    "line.after-units",
    "issue.before-intent",
    "issue.after-intent-commit",
    "issue.after-sign",
    "issue.before-result-commit",
    "issue.after-result-commit",
    "line.after-take",
    "line.after-answers",
    "line.after-intent",
    "line.after-sign",
]


def reconciled(folder: Path, station: Path, failpoint: Callable[[str], None]) -> bringing.Brought:
    """What a new signer process and a new command do: give up what was left, then all of it."""
    world = World(folder, sqlite_url(folder), failpoint=failpoint)
    try:
        world.recovery.finish()
        at, signer = Station(station), Inside(world)
        (path,) = at.files()
        done = bringing.bring(signer, path, answers=path.with_suffix(".answers.jsonl"), failpoint=failpoint)
        key = at.open_key(b"of the station")
        bringing.write_records(at, path, key, issuers=tuple(world.issuers.by_id.values()))
        bringing.have_sealed(signer, at)
        return done
    finally:
        world.close()


@pytest.mark.req("REQ-KEY-050")
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_counts_agree_to_the_unit(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "AT_ONCE", 5)
    monkeypatch.setattr(bringing, "LANES", 1)
    world = World(tmp_path, sqlite_url(tmp_path))
    line = Line(world, tmp_path / "stations")
    line.login(count=UNITS)
    for start in range(0, UNITS, 4):
        line.make(*(f"SN-{start + unit}" for unit in range(4)))
    world.close()
    killed = in_a_child(lambda: _done(reconciled(tmp_path, line.station.path, striking(place))))
    assert killed == signal.SIGKILL
    done = reconciled(tmp_path, line.station.path, lambda _: None)
    assert (done.shift.taken, done.certified, done.refused) == (UNITS, UNITS, 0)
    world = World(tmp_path, sqlite_url(tmp_path))
    try:
        assert world.store.reading.count_shift(done.shift).issued == UNITS
        assert {row.device for row in world.rows() if row.device.startswith("SN-")} == {f"SN-{unit}" for unit in range(UNITS)}
        assert len(world.leaves("units")) == 1
        told = verifying.verify(Station(line.station.path), [world.issuer.certificate])
    finally:
        world.close()
    assert (told.units, told.certificates, told.records, told.sealed, list(told.findings)) == (UNITS, UNITS, UNITS, UNITS, [])


def _done(_: object) -> None:
    os._exit(0)
