"""A retired device of which no wipe receipt will come: its record is closed by a person who says why, or by two, and never without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ca.model import ApprovalDecision, Demand, DeviceId, GraveAct, ProposalRequest, Role
from ca.rules import rows, two_persons
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import World
from tests.flows.test_tenants import ACME, ZETA
from tests.refusals import code_of

DEVICE = DeviceId("pump-1")
WHY = "It burned with hall 3; report 17."


@pytest.fixture
def made_with() -> dict[str, Any]:
    return {"tenants": (ACME, ZETA)}


def retired(world: World, device: str = DEVICE) -> None:
    world.enrol(device)
    world.revoke_device(device)


def waive(world: World, words: str = WHY, device: str = DEVICE, role: Role = Role.operator) -> str:
    return code_of(lambda: world.wiping.waive(DeviceId(device), words, world.peer(role)))


def findings(world: World) -> list[str]:
    return list(world.store.reading.unwiped(after="", limit=9))


@pytest.mark.req("REQ-KEY-020")
def test_a_destroyed_devices_finding_is_closed_with_a_word_on_record_and_in_its_timeline(both: World) -> None:
    world = both
    retired(world)
    assert findings(world) == ["pump-1"]
    assert waive(world) == ""
    assert findings(world) == []
    assert waive(world) == "", "the same again is harmless"
    (leaf,) = world.leaves("wipe-waived")
    assert (leaf["device"], leaf["justification"], leaf["actor"]) == ("pump-1", WHY, "role:operator@4242")
    assert world.leaves("wipe") == []
    events, _ = world.store.reading.device_events(DEVICE)
    assert [one.about for one in events].count(f"no wipe receipt will come: {WHY}") == 1
    (row,) = world.store.reading.every_wipe()
    told = [rows.of_leaf(one.body)[0] for one in world.store.reading.pending_leaves(999) if b'"wipe-waived"' in one.body]
    assert told == [rows.of_wipe(row)], "the row and its leaf say the same"


@pytest.mark.req("REQ-KEY-020")
def test_nobody_closes_it_without_a_word_for_a_device_that_may_still_answer_or_from_afar(world: World) -> None:
    retired(world)
    world.enrol("pump-2")
    for words in ("", "  ", "x" * 201, "a\nline"):
        assert waive(world, words) == "device-words"
    assert waive(world, device="pump-2") == "device-not-retired"
    assert waive(world, device="pump-9") == "no-such-device"
    for role in (Role.enroll, Role.status, Role.publisher):
        assert waive(world, role=role) == "not-allowed"
    assert findings(world) == ["pump-1"]
    assert waive(world) == ""
    assert waive(world, "It was stolen.") == "wipe-known"
    assert len(world.leaves("wipe-waived")) == 1


@pytest.mark.req("REQ-KEY-020", "REQ-KEY-067")
def test_where_two_persons_are_demanded_what_they_signed_says_why(world: World) -> None:
    world.two_persons.demand = Demand(acts=frozenset({GraveAct.waive_wipe}))
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    assert waive(world) == "two-persons-needed"
    subject = two_persons.subject(GraveAct.waive_wipe, device=DEVICE)
    said = world.message(ada, Act.propose, proposal=("waive-wipe", subject, 3600, "Lost at sea."))
    asked = world.two_persons.propose(ProposalRequest(said), world.peer(Role.enroll))
    assert waive(world, "") == "two-persons-needed"
    digits = asked.request.hex()
    world.approving.decide(
        ApprovalDecision(world.message(sam, Act.approve, decision=(digits, True, "")), digits, True, ""), world.peer(Role.enroll)
    )
    assert waive(world, "") == ""
    (leaf,) = world.leaves("wipe-waived")
    assert leaf["justification"] == "Lost at sea."
    closing = [one for one in world.leaves("device") if "Lost at sea" in str(one.get("reason"))]
    assert [one["request"] for one in closing] == [digits]


def test_from_the_journal_alone_it_stays_closed(world: World, tmp_path: Path) -> None:
    retired(world)
    waive(world)
    world.close()
    (tmp_path / "new").mkdir()
    world.url = sqlite_url(tmp_path / "new")
    world._open()
    world.recovery.recover()
    (row,) = world.store.reading.every_wipe()
    assert (row.device, row.justification, row.octets) == ("pump-1", WHY, b"")
    assert findings(world) == []
    assert [one["justification"] for one in world.leaves("wipe-waived")] == [WHY]


@pytest.mark.req("REQ-KEY-106")
def test_a_tenants_device_is_ordered_to_wipe_and_closed_like_the_houses(world: World) -> None:
    retired(world, "acme:pump-1")
    order = world.wiping.order(DeviceId("acme:pump-1"), world.peer(Role.operator))
    assert b'"tenant":"acme"' in order
    assert waive(world, device="acme:pump-1") == ""
    (row,) = world.store.reading.every_wipe()
    assert row.tenant == "acme"
