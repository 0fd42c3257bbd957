"""Publishers that are killed, stopped and confused about the time, while readers look on. Real processes, a real folder."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ca.errors import FleetcaError, StoreUnavailable
from ca.outlets.directory import DirectoryOutlet
from crl.model import Policy, Scope
from crl.publish import Publisher
from crl.rules import gate, schedule
from crl.rules.anatomy import InMemory
from tests.fakes.crl_world import LIFETIME, World, authority
from tests.running import eventually

FORK = multiprocessing.get_context("fork")
NOW = int(time.time())
AUTHORITY = authority(not_before=NOW - 10**6, not_after=NOW + 10**8)
ISSUER = AUTHORITY.issuer
SCOPE = Scope(ISSUER)
NAME = "issuing.crl"


class Now:
    """The real clock."""

    def now(self) -> int:
        return int(time.time())


REAL = Now()


@dataclass
class Told:
    """What the test says that the time is, in shared memory, and wrong by `skew` seconds."""

    time: Any
    skew: int = 0

    def now(self) -> int:
        return int(self.time.value) + self.skew


def world(folder: Path, clock: Any = REAL) -> World:
    return World(folder / "world.db", AUTHORITY, clock)


class Lossy(World):
    """Every thirtieth transaction finds the connection to the database gone."""

    asked = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self.asked += 1
        if self.asked % 30 == 0:
            raise StoreUnavailable("store-down", "The connection is lost.")
        with super().transaction() as db:
            yield db


def publisher(shared: World, *, holder: str, policy: Policy, failpoint: Callable[[str], None], clock: Any = REAL) -> Publisher:
    return Publisher(
        reading=shared,
        leases=shared,
        signer=shared,
        outlet=DirectoryOutlet(shared.path.parent / "crl"),
        clock=clock,
        failpoint=failpoint,
        policy=policy,
        holder=holder,
    )


def nothing(name: str) -> None:
    pass


def watch(folder: Path, report: Path, looks: Any, which: int) -> None:
    """A reader: every file it gets is whole and ours, and numbers never go back. Counts its looks; tells what it saw when `stop` appears."""
    outlet = DirectoryOutlet(folder / "crl")
    seen: list[tuple[int, int]] = []
    faults: list[str] = []
    reads = 0
    while not (folder / "stop").exists():
        copy = outlet.current(NAME)
        looks[which] += 1
        time.sleep(0.005)
        if copy is None:
            if seen:
                faults.append("it was gone")
            continue
        reads += 1
        try:
            head = gate.believe(InMemory(copy.octets), SCOPE).head
        except FleetcaError as error:
            faults.append(str(error))
            continue
        if seen and head.number < seen[-1][0]:
            faults.append(f"{seen[-1][0]} was followed by {head.number}")
        if not seen or head.number != seen[-1][0]:
            seen.append((head.number, head.this_update))
    report.write_text(json.dumps({"seen": seen, "faults": faults, "reads": reads}))


class Readers:
    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.reports = [folder / f"reader-{n}.json" for n in range(count)]
        self.looks = FORK.RawArray("q", count)
        self.processes = [
            FORK.Process(target=watch, args=(folder, report, self.looks, which), daemon=True) for which, report in enumerate(self.reports)
        ]
        for process in self.processes:
            process.start()

    def told(self) -> list[dict[str, Any]]:
        """What each saw, after one more look of each."""
        so_far = list(self.looks)
        eventually(lambda: all(now > before + 1 for now, before in zip(self.looks, so_far, strict=True)))
        (self.folder / "stop").touch()
        for process in self.processes:
            process.join(60)
        return [json.loads(report.read_text()) for report in self.reports]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = world(tmp_path)
    for n in range(200):
        made.revoke((0x41 << 152) + n)
    yield tmp_path
    (tmp_path / "stop").touch()


ALWAYS = Policy(interval=3600, nudge=0, lifetime=LIFETIME, lease=60)


def publish_for_ever(folder: Path, failpoint: Callable[[str], None]) -> None:
    one = publisher(world(folder), holder="the one", policy=ALWAYS, failpoint=failpoint)
    while True:
        one.publish(SCOPE, asked=True)


def run_and_kill(folder: Path, failpoint: Callable[[str], None]) -> None:
    """A publisher that kills itself."""
    process = FORK.Process(target=publish_for_ever, args=(folder, failpoint), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def kill_after(folder: Path, seconds: float) -> None:
    """A publisher that is killed so long after it has put a first CRL."""
    working = FORK.Event()

    def tell(name: str) -> None:
        if name == "publish.before-record":
            working.set()

    process = FORK.Process(target=publish_for_ever, args=(folder, tell), daemon=True)
    process.start()
    assert working.wait(60)
    time.sleep(seconds)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def state(folder: Path) -> tuple[int, int, int]:
    """Numbers: visible, recorded as published, kept beside."""
    outlet = DirectoryOutlet(folder / "crl")
    copy = outlet.current(NAME)
    recorded = world(folder).last_crl(ISSUER.id, 0)
    return (
        gate.believe(InMemory(copy.octets), SCOPE).head.number if copy else 0,
        recorded.number if recorded else 0,
        outlet.high_water(NAME),
    )


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", ["publish.after-write", "publish.after-rename", "publish.before-record"])
def test_P6_R10_kill_9_at_each_step_while_readers_poll(folder: Path, name: str, rounds: int) -> None:
    def die(reached: str) -> None:
        if reached == name:
            os.kill(os.getpid(), signal.SIGKILL)

    readers = Readers(folder, 2)
    last = (0, 0, 0)
    for _ in range(rounds):
        run_and_kill(folder, die)
        visible, recorded, kept = state(folder)
        assert kept >= visible >= recorded
        assert visible >= last[0]
        if name != "publish.after-write":
            assert visible > last[0], "after the rename the new one is what readers get"
        last = (visible, recorded, kept)
    one = publisher(world(folder), holder="the one", policy=ALWAYS, failpoint=nothing)
    one.publish(SCOPE, asked=True)
    visible, recorded, kept = state(folder)
    assert visible == recorded == kept > last[2]
    for told in readers.told():
        assert told["faults"] == []
    assert sorted(path.name for path in (folder / "crl").glob(".issuing*")) == []


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.full)])
def test_R10_kill_9_at_any_moment_while_readers_poll(folder: Path, rounds: int) -> None:
    readers = Readers(folder, 20)
    for turn in range(rounds):
        kill_after(folder, (turn * 37 % 101) / 1000)
    told = readers.told()
    assert all(one["faults"] == [] for one in told), told
    assert all(one["reads"] > 0 for one in told)
    visible, recorded, kept = state(folder)
    assert kept >= visible >= recorded > 0


# ---- R13: five at once ----------------------------------------------------------------------------------------------

HOURLY = Policy(interval=3600, nudge=5, lifetime=LIFETIME, lease=2400)
STEP = 300
"""Seconds that pass at once. In between everybody who is awake has looked: a machine that is slow makes nobody late."""


class Hours:
    """The time of five publishers and a reader, who all look once before it passes."""

    def __init__(self, folder: Path, count: int) -> None:
        self.time, self.looks = FORK.RawValue("q", NOW), FORK.RawArray("q", count)
        self.readers = Readers(folder, 1)

    def look(self, which: int) -> None:
        self.looks[which] += 1

    def passes(self, *, without: int | None = None) -> bool:
        """Let a step pass, and wait until everybody, one aside, has looked. Whether they have: who is stopped may have locked something."""
        self.time.value += STEP
        before, read = list(self.looks), self.readers.looks[0]

        def looked() -> bool:
            told = [now > then for which, (now, then) in enumerate(zip(self.looks, before, strict=True)) if which != without]
            return all(told) and self.readers.looks[0] > read + 1

        if without is None:
            return bool(eventually(looked, every=0.001))
        try:
            return bool(eventually(looked, within=0.5, every=0.001))
        except AssertionError:
            return False


def compete(folder: Path, which: int, report: Path, hours: Hours) -> None:
    """One of five: its clock is up to five minutes off, and it dozes off for twice the lease, at another step each time."""
    steps = 0

    def doze(name: str) -> None:
        nonlocal steps
        steps += 1
        if (steps + which) % 4 == 0:
            end = hours.time.value + 2 * HOURLY.lease
            while hours.time.value < end and not (folder / "stop").exists():
                hours.look(which)
                time.sleep(0.001)

    clock = Told(hours.time)
    shared = Lossy(folder / "world.db", AUTHORITY, clock) if which else world(folder, clock)
    one = publisher(shared, holder=f"publisher-{which}", policy=HOURLY, failpoint=doze, clock=Told(hours.time, (which - 2) * 150))
    published: list[int] = []
    refused: list[str] = []
    while not (folder / "stop").exists():
        try:
            outcome = one.publish(SCOPE)
        except FleetcaError as error:
            refused.append(error.code)
        else:
            if outcome.result.value == "published" and outcome.head:
                published.append(outcome.head.number)
        hours.look(which)
        time.sleep(0.001)
    report.write_text(json.dumps({"published": published, "refused": refused}))


@pytest.mark.parametrize("periods", [50, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_R13_five_publishers_with_pauses_and_wrong_clocks_publish_once_a_period(tmp_path: Path, periods: int) -> None:
    hours = Hours(tmp_path, 5)
    world(tmp_path, Told(hours.time))
    reports = [tmp_path / f"publisher-{which}.json" for which in range(5)]
    rivals = [FORK.Process(target=compete, args=(tmp_path, which, reports[which], hours), daemon=True) for which in range(5)]
    for rival in rivals:
        rival.start()
    turn = 0
    while hours.time.value < NOW + periods * HOURLY.interval:
        # Also stopped from outside, anywhere, for longer than the lease.
        which = turn % 5
        stopped = rivals[which].pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        for _ in range(10):
            if not hours.passes(without=which):
                break
        os.kill(stopped, signal.SIGCONT)
        hours.passes()
        turn += 1
    (told,) = hours.readers.told()
    for rival in rivals:
        rival.join(60)
        assert rival.exitcode == 0
    done = [json.loads(report.read_text()) for report in reports]

    published = [number for one in done for number in one["published"]]
    assert len(published) == len(set(published)), "no number twice"
    assert told["faults"] == []
    times = [this_update for _, this_update in told["seen"]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    # Due an hour after the last one, by clocks that are off by five minutes either way, found by whoever is awake.
    # and by the share by which each may come early.
    assert all(gap >= 3600 * (1 - schedule.EARLIER) - 300 - 60 for gap in gaps), gaps
    assert len(times) >= periods // 4, "and no period was left out for long"
    assert max(gaps) < LIFETIME // 2, "readers never came near to an end"
    allowed = {"lease-lost", "outlet-changed", "crl-number", "crl-window", "store-down"}
    assert {code for one in done for code in one["refused"]} <= allowed
