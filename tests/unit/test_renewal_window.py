"""The one calculation of when to renew: ordinary times, crowds, maintenance, replacements; and who is let in when too many come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ca.model import CertificateRef, DeviceId, IssuerId, ProfileName, Serial
from ca.rules import renewal_admission as admission
from ca.rules.renewal_crowd import BESIDE, crowd
from ca.rules.renewal_health import Health, health
from ca.rules.renewal_window import Crowd, Plan, Replacement, Window, phase, suggested
from fleetca.agent import schedule
from fleetca.agent.schedule import Known, Life
from fleetca.forms import shipped_profiles
from tests.fakes.herd import Held

NOW = 1_800_000_000
HOUR, DAY = 3600, 86400
WEEK = 7 * DAY
PROFILE = shipped_profiles()[ProfileName("device")]


def held(device: str = "pump-17", *, age: int = 0, issuer: str = "issuing") -> Held:
    return Held(CertificateRef(IssuerId(issuer), Serial(1)), DeviceId(device), ProfileName("device"), NOW - age, NOW - age + WEEK - 1)


MANY = [f"device-{number}" for number in range(400)]


def test_the_ordinary_window_lies_between_two_thirds_and_five_sixths_and_is_each_devices_own() -> None:
    starts = [suggested(held(device), PROFILE, now=NOW).start - NOW for device in MANY]
    assert min(starts) >= WEEK * 2 // 3
    assert max(starts) <= WEEK * 5 // 6
    assert max(starts) - min(starts) > WEEK / 6 * 0.95, "a fleet that enrolled at once is spread over all of it (R25)"
    assert starts == [suggested(held(device), PROFILE, now=NOW + HOUR).start - NOW for device in MANY], "asked again, it says the same"


def test_a_profile_that_takes_renewals_later_has_later_windows() -> None:
    late = replace(PROFILE, renew_from=0.9)
    assert all(suggested(held(device), late, now=NOW).start >= NOW + int(WEEK * 0.9) for device in MANY)


def test_a_window_always_ends_after_it_begins_and_before_the_certificate_where_it_can() -> None:
    for device in MANY:
        window = suggested(held(device), PROFILE, now=NOW)
        assert window.start < window.end <= NOW + WEEK - 1


def test_a_revoked_certificate_is_renewed_at_once() -> None:
    window = suggested(held(), PROFILE, now=NOW, revoked=True)
    assert window.start < window.end < NOW
    assert window.reason == "revoked"


def test_a_crowd_shares_the_time_that_it_needs_and_who_ends_sooner_comes_sooner() -> None:
    plan = Plan(crowd=Crowd(since=NOW, count=10_000, per_second=0.1))  # more than a day
    near = [suggested(held(device, age=WEEK - 6 * HOUR), PROFILE, now=NOW, plan=plan) for device in MANY]
    far = [suggested(held(device, age=WEEK - 26 * HOUR), PROFILE, now=NOW, plan=plan) for device in MANY]
    assert all(window.start < NOW + 6 * HOUR for window in near), "before its end"
    assert all(window.reason == "crowd" for window in near)
    assert sum(window.start for window in near) < sum(window.start for window in far)
    assert all(one.start <= other.start for one, other in zip(near, far, strict=True))


def test_a_device_whose_time_has_not_come_does_not_join_the_crowd() -> None:
    plan = Plan(crowd=Crowd(since=NOW, count=10_000, per_second=0.1))
    assert suggested(held(age=DAY), PROFILE, now=NOW, plan=plan) == suggested(held(age=DAY), PROFILE, now=NOW)


def test_nobody_is_suggested_a_time_inside_maintenance() -> None:
    spell = Window(NOW + 5 * DAY, NOW + 5 * DAY + 6 * HOUR)
    plan = Plan(maintenance=(spell,))
    moved = [(suggested(held(device), PROFILE, now=NOW), suggested(held(device), PROFILE, now=NOW, plan=plan)) for device in MANY]
    assert any(spell.start <= before.start < spell.end for before, _ in moved)
    assert not any(spell.start <= after.start < spell.end for _, after in moved)
    assert all(after.reason == ("" if after.start == before.start else "maintenance") for before, after in moved)


def test_who_is_too_young_to_come_before_a_long_spell_comes_after_it() -> None:
    spell = Window(NOW + DAY, NOW + 5 * DAY)
    for device in MANY:
        window = suggested(held(device), PROFILE, now=NOW, plan=Plan(maintenance=(spell,)))
        assert not spell.start <= window.start < spell.end
        assert window.start < NOW + WEEK


@pytest.mark.parametrize(
    "chosen, concerned",
    [
        pytest.param({}, True, id="all certificates"),
        pytest.param({"issuer": IssuerId("issuing")}, True, id="those of its issuer"),
        pytest.param({"issuer": IssuerId("other")}, False, id="those of another issuer"),
        pytest.param({"profile": ProfileName("device")}, True, id="those of its profile"),
        pytest.param({"profile": ProfileName("service")}, False, id="those of another profile"),
    ],
)
def test_a_mass_replacement_moves_every_window_that_it_concerns(chosen: Any, concerned: bool) -> None:
    plan = Plan(replacements=(Replacement(since=NOW, within=HOUR, **chosen),))
    windows = [suggested(held(device, age=HOUR), PROFILE, now=NOW, plan=plan) for device in MANY]
    assert all(NOW <= window.start <= NOW + HOUR for window in windows) == concerned
    if concerned:
        assert max(window.start for window in windows) - NOW > 0.95 * HOUR, "spread over all the time that there is"
        fresh = held()._replace(not_before=NOW + 1, not_after=NOW + WEEK)
        assert suggested(fresh, PROFILE, now=NOW + 1, plan=plan).reason == "", "what replaces is not replaced again"


def test_renew_now_is_now() -> None:
    plan = Plan(replacements=(Replacement(since=NOW, within=0, reason="a key was lost"),))
    window = suggested(held(age=HOUR), PROFILE, now=NOW, plan=plan)
    assert (window.start, window.reason) == (NOW, "a key was lost")


def test_a_replacement_never_makes_anybody_later() -> None:
    plan = Plan(replacements=(Replacement(since=NOW, within=30 * DAY),))
    for device in MANY:
        assert (
            suggested(held(device, age=5 * DAY), PROFILE, now=NOW, plan=plan).start
            <= suggested(held(device, age=5 * DAY), PROFILE, now=NOW).start
        )


def test_a_device_has_another_place_on_another_occasion() -> None:
    assert len({phase(DeviceId("pump-17"), occasion) for occasion in ("", "a", "b")}) == 3
    assert all(0 <= phase(DeviceId(device)) < 1 for device in MANY)


# ---- Crowds ---------------------------------------------------------------------------------------------------------


def test_a_few_late_ones_are_no_crowd_and_a_crowd_keeps_its_place_in_time() -> None:
    assert crowd(None, overdue=100, rate=1.0, now=NOW) is None
    found = crowd(None, overdue=10_000, rate=1.0, now=NOW)
    assert found == Crowd(NOW, 10_000, BESIDE)
    assert crowd(found, overdue=3, rate=1.0, now=NOW + 60) is found
    assert crowd(found, overdue=3, rate=1.0, now=NOW + 10_000) is None


# ---- Admission ------------------------------------------------------------------------------------------------------


def ask(level: float, left: int) -> int | None:
    allowance = admission.Allowance(level, 0.0)
    return admission.wait(allowance, 10.0, not_before=NOW - WEEK + left, not_after=NOW + left - 1, now=NOW)


@pytest.mark.parametrize(
    "level, left, admitted",
    [
        pytest.param(100, 7 * DAY, True, id="all are let in while there is room"),
        pytest.param(50, 6 * DAY, False, id="who has time is sent away when it gets tight"),
        pytest.param(50, 4 * DAY, True, id="who has less is let in then"),
        pytest.param(10, 4 * DAY, False, id="and sent away when it gets tighter"),
        pytest.param(10, 6 * HOUR, True, id="who is near the end is let in then"),
        pytest.param(1, 60, True, id="the last place is for who cannot wait"),
        pytest.param(0.5, 60, False, id="where there is no place there is none"),
    ],
)
def test_the_nearest_expiry_comes_first(level: float, left: int, admitted: bool) -> None:
    assert (ask(level, left) is None) == admitted


def test_who_is_sent_away_hears_when_to_come_in_proportion_to_what_is_left() -> None:
    waits = [ask(0, left) or 0 for left in (60, HOUR, DAY, 5 * DAY)]
    assert waits == sorted(waits)
    assert waits[0] >= 5
    assert waits[-1] <= HOUR


def test_an_allowance_fills_with_time_and_not_beyond_its_brim() -> None:
    empty = admission.Allowance(0, 100.0)
    assert admission.filled(empty, 10.0, at=101.0).level == 10
    assert admission.filled(empty, 10.0, at=1000.0).level == 10 * admission.BURST
    assert admission.filled(empty, 10.0, at=50.0).level == 0, "a clock that goes back gives nothing"


# ---- The agent's side -----------------------------------------------------------------------------------------------


def test_a_window_that_leaves_too_little_is_not_believed() -> None:
    life = Life(NOW, NOW + WEEK - 1)
    assert schedule.renew_from(life, Known(NOW + 20 * WEEK)) < life.not_after
    assert schedule.renew_from(life, Known()) == NOW + WEEK * 2 // 3


@pytest.mark.parametrize("left", [30, HOUR, DAY, 6 * DAY])
def test_waits_are_a_small_part_of_what_is_left(left: int) -> None:
    life = Life(NOW - WEEK + left, NOW + left - 1)
    for failures in range(30):
        for chance in (0.0, 0.99):
            pause = schedule.pause(life, Known(NOW, 0, 0, failures), now=NOW, told=None, chance=chance)
            assert 1 <= pause <= max(schedule.QUICKEST, left // schedule.SHARES)


def test_what_the_service_says_is_kept_to_as_far_as_the_end_allows() -> None:
    life = Life(NOW - 6 * DAY, NOW + DAY - 1)
    assert schedule.pause(life, Known(NOW), now=NOW, told=3000, chance=0.5) == 3000
    assert schedule.pause(life, Known(NOW), now=NOW, told=10 * DAY, chance=0.5) <= DAY // 4


@pytest.mark.parametrize("failures", range(5))
def test_a_certificate_of_seconds_is_renewed_in_seconds(failures: int) -> None:
    life = Life(NOW, NOW + 29)
    assert schedule.ask_after(life, told=6 * HOUR, chance=0.5) <= 2
    assert schedule.pause(life, Known(NOW, failures=failures), now=NOW + 20, told=None, chance=1.0) <= 2


@pytest.mark.parametrize(
    "since, failed, expected",
    [
        pytest.param(-DAY, False, Health.fine, id="its time has not come"),
        pytest.param(HOUR, True, Health.failing, id="it fails, and there is time"),
        pytest.param(DAY // 2, False, Health.late, id="its time has passed"),
        pytest.param(3 * DAY, False, Health.dark, id="its certificate has ended"),
    ],
)
def test_health_is_told_by_the_last_word_and_the_time_since(since: int, failed: bool, expected: Health) -> None:
    due = NOW + 5 * DAY
    assert health(failed=failed, due=due, not_before=NOW, not_after=NOW + WEEK - 1, now=due + since) is expected


def test_a_device_cannot_talk_itself_out_of_being_late() -> None:
    assert health(failed=False, due=NOW + 99 * WEEK, not_before=NOW, not_after=NOW + WEEK - 1, now=NOW + WEEK - HOUR) is Health.late
