"""What is unusual about how issuing keys are used is told, and the ordinary is not (REQ-KEY-091)."""

from __future__ import annotations

from typing import Any

import pytest

from ca.keys.watched import OK, Call
from ca.rules.unusual import is_outside, is_spike, read_hours
from fleetca import signing
from fleetca.signing import KeyWatch

NOON = 1_800_014_400
DAY = [40] * 24


class Noon:
    def now(self) -> int:
        return NOON

    def monotonic(self) -> float:
        return 0.0


@pytest.mark.req("REQ-KEY-091")
@pytest.mark.parametrize(
    ("before", "count", "told"),
    [
        pytest.param(DAY, 1000, True, id="far more than in any hour before"),
        pytest.param(DAY, 200, False, id="five times as many"),
        pytest.param([0] * 24, 100, True, id="many after a silent day"),
        pytest.param([0] * 24, 99, False, id="few after a silent day"),
        pytest.param([*DAY, 900], 1000, False, id="as many as an hour ago"),
        pytest.param([40] * 23, 1000, False, id="before a day has passed"),
    ],
)
def test_an_hour_is_held_against_those_before(before: list[int], count: int, *, told: bool) -> None:
    assert is_spike(before, count) is told


@pytest.mark.req("REQ-KEY-091")
@pytest.mark.parametrize(
    ("hours", "hour", "outside"),
    [
        ("07:00-19:00", 12, False),
        ("07:00-19:00", 7, False),
        ("07:00-19:00", 19, True),
        ("07:00-19:00", 3, True),
        ("22:00-06:00", 23, False),
        ("22:00-06:00", 5, False),
        ("22:00-06:00", 6, True),
        ("22:00-06:00", 12, True),
        ("00:00-00:00", 12, False),
    ],
)
def test_working_hours_may_pass_midnight(hours: str, hour: int, *, outside: bool) -> None:
    assert NOON % 86400 == 12 * 3600
    assert is_outside(read_hours(hours), NOON + (hour - 12) * 3600) is outside


@pytest.mark.req("REQ-KEY-091")
def test_the_signer_tells_of_a_night_and_of_an_hour_with_far_more_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, dict[str, Any]]] = []

    class Lines:
        def info(self, event: str, **fields: Any) -> None:
            said.append((event, fields))

        warning = info

    monkeypatch.setattr(signing, "log", Lines())
    watch = KeyWatch(Noon(), read_hours("13:00-20:00"))
    watch.calls.tell(Call("issuing", "open", OK))
    for signatures in [20] * 30 + [900]:
        for _ in range(signatures):
            watch.calls.count(Call("issuing", "sign", OK))
        watch.hour()
    told = [(event, fields) for event, fields in said if event not in {"key-called", "key-calls"}]
    assert [event for event, _ in told] == ["key-called-off-hours", "key-calls-unusual"]
    assert told[1][1]["key"] == "issuing"
    assert (told[1][1]["count"], told[1][1]["most"]) == (900, 20)
