"""A fleet after an outage, in an emergency, and before a service that takes less than come: with the shipped rules, on a virtual clock."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from ca.rules.renewal_window import Replacement, Window
from tests.fakes.herd import DAY, HOUR, Herd, buckets, peak_to_mean


@pytest.mark.req("REQ-KEY-018")
@pytest.mark.parametrize(
    "count, width",
    [
        pytest.param(2500, 4 * HOUR, id="2500 devices"),
        pytest.param(100_000, 600, id="100000 devices", marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_R25_after_an_outage_of_a_day_all_renew_before_expiry_and_the_load_stays_flat(count: int, width: int) -> None:
    end = 9 * DAY
    herd = Herd(count, outage=(0, DAY)).run(end)
    assert herd.expired == 0
    assert len(herd.renewals) > count
    assert min(herd.left) > 0
    renewals = buckets(herd.renewals, width=width, start=DAY, end=end)
    requests = buckets(herd.requests, width=width, start=DAY, end=end)
    ordinary = count / (7 * DAY * 0.75) * width
    assert peak_to_mean(renewals) <= 3
    assert max(renewals) <= 3 * ordinary, "nor more than three times what an ordinary day brings"
    assert peak_to_mean(requests) <= 3


def test_R25_a_fleet_that_enrolled_in_one_hour_does_not_come_back_in_one() -> None:
    herd = Herd(2000).run(0)  # only to make it
    assert herd.expired == 0
    replaced = Herd(2000, replacements=(Replacement(since=1, within=12 * HOUR),)).run(2 * DAY)
    hours = buckets(replaced.renewals, width=HOUR, start=0, end=20 * HOUR)
    assert sum(hours) >= 2000, "every window moved, and the agents heard of it"
    assert max(hours) < 2000 / 12 * 3


def test_overloaded_the_nearest_expiry_comes_first_and_nobody_expires() -> None:
    # All shall come now, and the service takes so few that it needs a day for them.
    herd = Herd(1500, replacements=(Replacement(since=1, within=0),), per_second=1500 / DAY).run(3 * DAY)
    assert herd.expired == 0
    assert herd.refused > 100
    first = [left for when, left in zip(herd.renewals, herd.left, strict=True) if when <= 8 * HOUR]
    later = [left for when, left in zip(herd.renewals, herd.left, strict=True) if 14 * HOUR < when <= 22 * HOUR]
    assert statistics.median(first) < statistics.median(later)
    hours = buckets(herd.renewals, width=4 * HOUR, start=0, end=20 * HOUR)
    assert max(hours) <= 1500 / DAY * 4 * HOUR + 16, "no more than it takes"


def test_before_maintenance_those_come_whose_time_falls_into_it() -> None:
    spell = Window(2 * DAY, 2 * DAY + 6 * HOUR)
    herd = Herd(1500, maintenance=(spell,)).run(4 * DAY)
    inside = sum(1 for when in herd.renewals if spell.start <= when < spell.end)
    assert inside <= 0.1 * 1500 / (7 * DAY * 0.75) * 6 * HOUR
    assert herd.expired == 0


def test_the_picture_of_the_herd_is_that_of_today() -> None:
    script = Path(__file__).parents[2] / "scripts/herd"
    done = subprocess.run([sys.executable, script, "--check"], check=False)
    assert done.returncode == 0, "run scripts/herd"
