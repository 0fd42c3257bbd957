"""A random generator that is stuck is noticed before a key or a serial number comes from it (REQ-KEY-001)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.errors import Broken
from ca.system import SystemChance
from fleetca import deployment


def _alternating() -> Callable[[int], bytes]:
    turns = itertools.cycle((b"\0", b"\1"))
    return lambda count: next(turns) * count


STUCK = [
    pytest.param(bytes, id="nothing but zeros"),
    pytest.param(lambda count: bytes(range(count)), id="the same octets each time"),
    pytest.param(_alternating(), id="one octet over and over"),
]


@pytest.mark.req("REQ-KEY-001")
@pytest.mark.parametrize("draw", STUCK)
def test_a_generator_that_is_stuck_makes_nothing(draw: Callable[[int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", draw)
        with pytest.raises(Broken) as stuck:
            deployment.create(tmp_path / "pki", deployment.Wanted(), chance=SystemChance())
    assert stuck.value.code == "random-stuck"
    assert not (tmp_path / "pki").exists()


@pytest.mark.req("REQ-KEY-001")
def test_a_hundred_thousand_draws_are_all_different() -> None:
    chance = SystemChance()
    assert len({chance.octets(16) for _ in range(100_000)}) == 100_000
