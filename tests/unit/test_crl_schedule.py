"""When a CRL is due, and how worried to be about one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ca.model import Digest
from crl.model import Cause, Freshness, Head, Policy, Scope
from crl.rules import schedule
from tests.fakes.crl_world import authority

T = 1_800_000_000
HOUR = 3600
POLICY = Policy(interval=HOUR, nudge=5, lifetime=24 * HOUR)
ISSUER = authority(not_before=T - 10**7, not_after=T + 10**8).issuer
SCOPE = Scope(ISSUER)
HEAD = Head(7, T, T + 24 * HOUR - 1, Digest(bytes(32)))


@pytest.mark.parametrize(
    ("after", "case", "cause"),
    [
        pytest.param(1, {"published": None}, Cause.missing, id="nothing is published"),
        pytest.param(1, {"recorded": 8}, Cause.behind, id="the record knows a higher number: the files are old"),
        pytest.param(1, {"recorded": 6}, None, id="the record is behind the files by one: a crash, mended elsewhere"),
        pytest.param(10, {}, None, id="fresh and nothing happened"),
        pytest.param(HOUR - HOUR // 20 - 1, {}, None, id="before the interval, and before the share by which it may come early"),
        pytest.param(HOUR, {}, Cause.regular, id="the interval is over"),
        pytest.param(4, {"changed": True}, None, id="revoked, but the last CRL is four seconds old: a burst shares one"),
        pytest.param(5, {"changed": True}, Cause.nudged, id="revoked, and the last CRL is five seconds old"),
        pytest.param(-50, {"changed": True}, Cause.nudged, id="R24: the clock went back; a revocation is not kept waiting"),
        pytest.param(HOUR, {"changed": True}, Cause.nudged, id="revoked and due: the revocation is told"),
        pytest.param(
            8 * HOUR * 19 // 20 - 2, {"policy": replace(POLICY, interval=20 * HOUR)}, None, id="R06: within a third of the window"
        ),
        pytest.param(
            8 * HOUR, {"policy": replace(POLICY, interval=20 * HOUR)}, Cause.regular, id="R06: a third of the window, whatever the interval"
        ),
        pytest.param(
            HOUR,
            {"scope": Scope(replace(ISSUER, not_after=HEAD.next_update))},
            None,
            id="R23: the CRL reaches to the issuer's end and needs no successor",
        ),
        pytest.param(
            HOUR,
            {"scope": Scope(replace(ISSUER, not_after=HEAD.next_update)), "changed": True},
            Cause.nudged,
            id="R23: but a revocation still brings one",
        ),
        pytest.param(
            HOUR, {"scope": Scope(replace(ISSUER, not_after=T + HOUR - 1)), "published": None}, None, id="R23: the issuer has ended"
        ),
    ],
)
def test_R06_due(after: int, case: dict[str, object], cause: Cause | None) -> None:
    facts: dict[str, object] = {"scope": SCOPE, "published": HEAD, "recorded": 7, "changed": False, "policy": POLICY}
    assert schedule.due(T + after, **{**facts, **case}) is cause  # type: ignore[arg-type]


@pytest.mark.parametrize("lifetime", [3 * HOUR, 24 * HOUR, 7 * 24 * HOUR])
def test_R06_three_runs_may_be_missed_at_the_longest_interval(lifetime: int) -> None:
    head = Head(1, T, T + lifetime - 1, Digest(bytes(32)))
    step = schedule.next_regular(head, replace(POLICY, interval=lifetime), scope=SCOPE) - T
    assert 3 * step <= lifetime


@pytest.mark.parametrize(
    ("share", "here", "ceremony"),
    [
        (0.0, Freshness.fresh, Freshness.fresh),
        (0.4, Freshness.fresh, Freshness.fresh),
        (0.51, Freshness.late, Freshness.fresh),
        (0.7, Freshness.late, Freshness.late),
        (0.76, Freshness.urgent, Freshness.late),
        (0.9, Freshness.urgent, Freshness.urgent),
        (1.0, Freshness.expired, Freshness.expired),
        (1.5, Freshness.expired, Freshness.expired),
    ],
)
def test_R06_the_alarm_comes_long_before_the_end(share: float, here: Freshness, ceremony: Freshness) -> None:
    head = Head(1, T, T + 10**6, Digest(bytes(32)))
    assert schedule.freshness(T + int(share * 10**6), head, renewed_here=True) is here
    assert schedule.freshness(T + int(share * 10**6), head, renewed_here=False) is ceremony


def test_R06_a_year_s_root_crl_is_called_for_months_ahead() -> None:
    head = Head(1, T, T + 365 * 24 * HOUR, Digest(bytes(32)))
    assert schedule.freshness(T + 250 * 24 * HOUR, head, renewed_here=False) is Freshness.late


def test_nothing_published_is_missing() -> None:
    assert schedule.freshness(T, None, renewed_here=True) is Freshness.missing


def test_pauses_grow_and_stay_short_enough_for_a_revocation_to_show_in_time() -> None:
    assert [schedule.pause(n) for n in (1, 2, 3, 4, 5, 6, 60)] == [1, 2, 4, 8, 16, 30, 30]


def test_shards_of_one_hour_part_and_never_come_late() -> None:
    """128 of them in the same second would keep the signer from everything else."""
    moments = {schedule.next_regular(HEAD, POLICY, scope=Scope(ISSUER, shard)) - T for shard in range(128)}
    assert len(moments) > 60
    assert min(moments) >= HOUR * 19 // 20
    assert max(moments) <= HOUR


def test_R13_publishers_that_failed_together_do_not_come_back_together() -> None:
    for failures in (4, 5, 6, 60):
        pauses = {schedule.pause(failures, f"publisher-{n} issuing.crl") for n in range(40)}
        assert len(pauses) > 2
        assert max(pauses) <= schedule.LONGEST_PAUSE
        assert min(pauses) >= 1
