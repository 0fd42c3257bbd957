"""An emergency is an act on record: an operator orders renewals through the signer, every window moves, and it can be ended (R25, P2, P8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ca.errors import StoreUnavailable
from ca.model import IssuerId, LocalEvidence, ProfileName, RenewalOrder, RenewalOrderRequest, RenewalOrderWithdrawal, Role
from ca.rules import renewal_window, testimony
from ca.rules.caps import Caps
from fleetca.planning import Planning
from tests.databases import sqlite_url
from tests.fakes.signer_world import DAY, NOW, World
from tests.flows.test_commands import Run, run  # noqa: F401
from tests.flows.test_commands import world as served  # noqa: F401
from tests.flows.test_fleet_plan import Steady
from tests.refusals import refused

HOUR = 3600
DEVICE = ProfileName("device")


def order(world: World, **wanted: Any) -> RenewalOrder:
    asked = RenewalOrderRequest(world.local(Role.operator), **{"within": HOUR, "profile": DEVICE, "reason": "a key was lost", **wanted})
    return world.ordering.order(asked, world.peer(Role.operator))


def withdraw(world: World, number: int) -> RenewalOrder:
    return world.ordering.withdraw(RenewalOrderWithdrawal(world.local(Role.operator), number), world.peer(Role.operator))


def row(world: World, device: str) -> Any:
    return world.store.reading.certificates_of(device)[-1]  # type: ignore[arg-type]


def test_R25_an_order_is_on_record_and_moves_the_windows_of_what_was_issued_before_it(both: World) -> None:
    both.enrol("pump-17")
    both.clock.at = NOW + DAY
    made = order(both)
    assert (made.number, made.since) == (1, NOW + DAY)
    (told,) = both.leaves("renewals")
    assert (told["event"], told["number"], told["within"], told["profile"], told["reason"]) == (
        "ordered",
        1,
        HOUR,
        "device",
        "a key was lost",
    )
    assert told["actor"] == made.actor
    plan = Planning(Path("/none"), Steady(), orders=both.store.reading.renewal_orders, clock=both.clock)
    plan.hear()
    profile = both.policy.profile(DEVICE)
    window = renewal_window.suggested(row(both, "pump-17"), profile, now=both.clock.at, plan=plan())
    assert NOW + DAY <= window.start <= NOW + DAY + HOUR
    assert window.reason == "a key was lost"
    both.clock.at += 1
    both.enrol("pump-18")
    fresh = renewal_window.suggested(row(both, "pump-18"), profile, now=both.clock.at, plan=plan())
    assert fresh.start > both.clock.at + 4 * DAY, "what was issued since is not replaced, though its notBefore is dated back"


def test_an_order_lets_those_renew_who_would_be_too_early(tmp_path: Path, database_url: str) -> None:
    both = World(tmp_path, database_url, caps={Role.enroll: Caps(renew_from=0.5)})
    pair = both.enrol("pump-17")
    both.clock.at = NOW + HOUR
    refused("too-early", lambda: both.renew(pair))
    order(both, profile=ProfileName("service"))
    refused("too-early", lambda: both.renew(pair))
    given = order(both)
    successor = both.renew(pair)
    both.clock.at += HOUR
    refused("too-early", lambda: both.renew(successor))
    second = both.enrol("pump-18")
    order(both, within=0, profile=None, issuer=IssuerId("issuing"))
    withdraw(both, 3)
    withdraw(both, given.number)
    refused("too-early", lambda: both.renew(second))
    both.close()


def test_orders_have_numbers_without_gaps_and_end_once(both: World) -> None:
    first, second = order(both), order(both, profile=None, issuer=IssuerId("issuing"), within=0)
    assert (first.number, second.number) == (1, 2)
    both.clock.at += 60
    ended = withdraw(both, 1)
    both.clock.at += 60
    assert withdraw(both, 1) == ended
    assert ended.withdrawn_at == NOW + 60
    assert [one.number for one in both.store.reading.renewal_orders()] == [2, 1]
    assert [leaf["event"] for leaf in both.leaves("renewals")] == ["ordered", "ordered", "withdrawn"]
    refused("no-such-order", lambda: withdraw(both, 3))


WRONG: list[Any] = [
    pytest.param({"within": -1}, "bad-renewal-order", id="a time before now"),
    pytest.param({"within": 400 * DAY}, "bad-renewal-order", id="more than a year"),
    pytest.param({"reason": "a\nb"}, "bad-renewal-order", id="a reason of two lines"),
    pytest.param({"reason": "x" * 201}, "bad-renewal-order", id="a reason without end"),
    pytest.param({"issuer": IssuerId("elsewhere")}, "unknown-issuer", id="an issuer that there is not"),
    pytest.param({"profile": ProfileName("nothing")}, "profile-unknown", id="a profile that there is not"),
]


@pytest.mark.parametrize(("wanted", "code"), WRONG)
def test_an_order_that_makes_no_sense_is_refused(world: World, wanted: dict[str, Any], code: str) -> None:
    refused(code, lambda: order(world, **wanted))
    assert world.leaves("renewals") == []


@pytest.mark.parametrize("role", [Role.enroll, Role.status, Role.publisher])
def test_P2_only_an_operator_of_this_machine_orders_renewals(world: World, role: Role) -> None:
    given = order(world)
    for evidence in (world.local(role), LocalEvidence(Role.operator, 0)):
        asked = RenewalOrderRequest(evidence, within=0, profile=DEVICE)
        refused("not-allowed", lambda asked=asked: world.ordering.order(asked, world.peer(role)))  # type: ignore[misc]
        ending = RenewalOrderWithdrawal(evidence, given.number)
        refused("not-allowed", lambda ending=ending: world.ordering.withdraw(ending, world.peer(role)))  # type: ignore[misc]


def test_orders_are_in_the_journal_and_recovery_gives_them_again(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    order(world)  # in force though the journal must wait
    world.journal.broken = None
    order(world, within=0)
    world.clock.at += 60
    withdraw(world, 2)
    world.witness.settle()
    assert sum(isinstance(testimony.read(octets), testimony.RenewalsOrdered) for octets in world.journal.records()) == 3
    kept = world.store.reading.renewal_orders()
    lost = world.lost()
    for _ in range(2):
        lost.recovery.recover()
        assert lost.store.reading.renewal_orders() == kept
        assert [leaf["event"] for leaf in lost.leaves("renewals")] == ["ordered", "ordered", "withdrawn"]
    lost.close()


def test_an_operator_orders_lists_and_withdraws_by_commands(served: World, run: Run) -> None:  # noqa: F811
    assert run("renewals", "list").err.strip() == "Nothing was ordered."
    assert run("renewals", "order", "--within", "12h").code == 2, "which certificates must be said"
    assert run("renewals", "order", "--within", "12h", "--everything", "--profile", "device").code == 2
    made = run("renewals", "order", "--within", "12h", "--profile", "device", "--reason", "a key was lost", "--json").json
    assert (made["number"], made["within"], made["profile"], made["issuer"]) == (1, 12 * HOUR, "device", None)
    assert run("renewals", "order", "--within", "0s", "--everything").code == 0
    shown = run("renewals", "list")
    assert "a key was lost" in shown.out
    assert run("renewals", "withdraw", "2").code == 0
    assert [one["withdrawn_at"] is None for one in run("renewals", "list", "--json").json["orders"]] == [False, True]
    assert run("renewals", "withdraw", "9").code == 3
    assert len(served.leaves("renewals")) == 3
