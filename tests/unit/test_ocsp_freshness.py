"""Windows: which seconds an answer covers, when it is made anew, and which settings are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import Misconfigured
from ocsp.model import GOOD, Finished, Policy, Window
from ocsp.rules import freshness
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW

RESPONDER = fakes.seated(fakes.authority(), fakes.one_key("p256", "responder"))
ZERO = b"\x00" * 32


def window(policy: Policy = Policy(), *, now: int = NOW, since: int = 0, digest: bytes = ZERO, **changes: Any) -> Window | None:  # noqa: B008
    return freshness.window(policy, replace(RESPONDER, **changes), now=now, since=since, digest=digest)


@pytest.mark.parametrize(
    ("found", "this_update", "next_update"),
    [
        pytest.param(window(), NOW - 60, NOW - 60 + HOUR - 1, id="R04: the lifetime counts both ends"),
        pytest.param(window(since=NOW - 10), NOW - 10, NOW - 10 + HOUR - 1, id="no earlier than the last change"),
        pytest.param(window(since=NOW + 99), NOW, NOW + HOUR - 1, id="a change in the future of a clock set back"),
        pytest.param(window(issuer_not_after=NOW + 600), NOW - 60, NOW + 600, id="R05: nextUpdate <= the issuer's notAfter"),
        pytest.param(window(not_after=NOW + 500), NOW - 60, NOW + 500, id="R05: nextUpdate <= the responder's notAfter"),
        pytest.param(window(Policy(backdate=0)), NOW, NOW + HOUR - 1, id="no back-dating"),
        pytest.param(
            window(not_before=NOW + 1), NOW - 60, NOW - 60 + HOUR - 1, id="our clock was set back before the responder's notBefore"
        ),
    ],
)
def test_R05_windows(found: Window | None, this_update: int, next_update: int) -> None:
    assert found is not None
    assert (found.this_update, found.next_update) == (this_update, next_update)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(window(not_after=NOW), id="the responder's last second"),
        pytest.param(window(not_after=NOW - 1), id="the responder has ended"),
        pytest.param(window(issuer_not_after=NOW - 1), id="the issuer has ended"),
    ],
)
def test_P5_where_no_time_is_left_there_is_no_answer(found: Window | None) -> None:
    assert found is None


@given(
    now=st.integers(NOW, NOW + DAY),
    since=st.integers(0, NOW + 2 * DAY),
    lifetime=st.integers(60, 7 * DAY),
    share=st.floats(0, 0.25),
    responder_end=st.integers(NOW - HOUR, NOW + 2 * DAY),
    issuer_end=st.integers(NOW - HOUR, NOW + 2 * DAY),
    digest=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=400, deadline=None)
def test_P5_R05_whatever_the_times_the_window_is_lawful(
    now: int, since: int, lifetime: int, share: float, responder_end: int, issuer_end: int, digest: bytes
) -> None:
    policy = freshness.judge(Policy(lifetime=lifetime, max_age=lifetime // 2, backdate=int(lifetime * share)))
    found = window(policy, now=now, since=since, digest=digest, not_after=responder_end, issuer_not_after=issuer_end)
    if found is None:
        assert now >= min(responder_end, issuer_end)
        return
    assert found.this_update <= now < found.next_update <= min(responder_end, issuer_end)
    assert found.next_update - found.this_update + 1 <= lifetime
    assert found.this_update >= min(since, now) or since < now - policy.backdate
    assert now <= found.refresh_at < found.next_update
    finished = Finished(b"", "", now, found, GOOD, cacheable=True, outcome="good")
    for later in (now, found.refresh_at, found.next_update - 1):
        if freshness.holds(finished, later):
            assert later + freshness.max_age(policy, finished, now=later, digest=digest) < found.next_update
    assert not freshness.holds(finished, found.next_update)


def test_the_refresh_is_spread_between_four_and_five_tenths() -> None:
    points = []
    for first in range(0, 256, 5):
        found = window(digest=bytes([first]) * 32)
        assert found is not None
        points.append((found.refresh_at - NOW) / (found.next_update - NOW))
    assert 0.39 < min(points) < 0.42
    assert 0.48 < max(points) < 0.51


def test_an_answer_from_the_future_of_a_clock_that_was_set_back_is_made_anew() -> None:
    found = window()
    assert found is not None
    finished = Finished(b"", "", NOW, found, GOOD, cacheable=True, outcome="good")
    assert freshness.is_fresh(finished, NOW)
    assert not freshness.is_fresh(finished, NOW - 1)
    assert freshness.holds(finished, NOW - 1), "and goes on where that cannot be done"


@pytest.mark.parametrize(
    ("heard_at", "heard"),
    [
        pytest.param(None, False, id="never"),
        pytest.param(NOW, True, id="now"),
        pytest.param(NOW - 2, True, id="two seconds ago"),
        pytest.param(NOW - 3, False, id="three seconds ago"),
        pytest.param(NOW + 50, False, id="in the future of a clock set back"),
    ],
)
def test_P5_heard_within_two_seconds(heard_at: int | None, heard: bool) -> None:
    assert freshness.heard(heard_at, NOW) is heard


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        pytest.param(Policy(lifetime=59, max_age=10, backdate=0), "ocsp-lifetime", id="a lifetime under a minute"),
        pytest.param(Policy(lifetime=600, max_age=301), "ocsp-max-age", id="a max-age over half the lifetime"),
        pytest.param(Policy(max_age=-1), "ocsp-max-age", id="a negative max-age"),
        pytest.param(Policy(lifetime=120, max_age=10, backdate=31), "ocsp-backdate", id="back-dating over a quarter of the lifetime"),
        pytest.param(Policy(max_certificates=0), "ocsp-settings", id="no certificate allowed"),
        pytest.param(Policy(path="ocsp"), "ocsp-settings", id="a path without a slash"),
        pytest.param(Policy(path="/"), "ocsp-settings", id="the root path"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(policy: Policy, code: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        freshness.judge(policy)
    assert caught.value.code == code
    assert caught.value.fix
