"""The life of a device through the signer's door, on both databases: what it may do in each state, who may move it, and what survives a lost database."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.model import (
    DeviceDescription,
    DeviceId,
    DeviceState,
    IssueRequest,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    RootOfTrust,
    SafetyClass,
    TokenEvidence,
)
from ca.rules import device_life
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import Keypair, World, changed, der_of
from tests.refusals import code_of

PUMP = DeviceId("pump-17")


def state_of(world: World, device: str = PUMP) -> str:
    found = world.store.reading.find_device(DeviceId(device))
    return "" if found is None else found.state.value


def describe(world: World, **said: Any) -> None:
    world.describing.describe(DeviceDescription(PUMP, **said), world.peer(Role.operator))


@pytest.mark.req("REQ-KEY-041")
def test_each_state_lets_a_device_do_what_belongs_to_it(both: World) -> None:
    describe(both)
    assert state_of(both) == "blank"
    text = both.token().text
    describe(both, provisioned=True)
    pair = Keypair()
    pair.certificate = der_of(both.issue(IssueRequest(pair.csr(), TokenEvidence(text))))
    assert state_of(both) == "active"
    unused = both.token().text
    both.revoke_device(PUMP, Reason.certificateHold)
    assert state_of(both) == "quarantined"
    assert both.row(pair).revocation is not None
    asked = {
        "renew": lambda: both.renew(pair),
        "confirm": lambda: both.confirm(pair),
        "enrol": lambda: both.issue(IssueRequest(Keypair().csr(), TokenEvidence(unused))),
        "token": both.token,
    }
    assert {what for what, act in asked.items() if not code_of(act)} == set()
    both.revoke_device(PUMP, Reason.removeFromCRL)
    assert state_of(both) == "active"
    both.renew(pair)
    both.revoke_device(PUMP)
    assert state_of(both) == "retired"
    assert code_of(both.token) == "device-retired"
    assert code_of(lambda: both.revoke_device(PUMP, Reason.certificateHold)) == "device-retired"
    assert [change.after.value for change in both.store.reading.device_changes(PUMP)] == [
        "blank", "provisioned", "active", "quarantined", "active", "retired",
    ]  # fmt: skip
    assert [leaf["state"] for leaf in both.leaves("device")] == ["blank", "provisioned", "active", "quarantined", "active", "retired"]


def test_a_quarantine_by_a_signed_message_does_not_come_back_by_the_same_message(both: World) -> None:
    both.enrol()
    ada = both.operator("ada", "revoker")
    message = both.message(ada, Act.revoke, device=PUMP, reason=Reason.certificateHold)
    hold = RevokeRequest(message, Reason.certificateHold, device=PUMP)
    both.revoke(hold)
    both.revoke(hold)
    assert state_of(both) == "quarantined"
    assert both.store.reading.device_changes(PUMP)[-1].actor == "operator:ada"
    both.revoke_device(PUMP, Reason.removeFromCRL)
    assert code_of(lambda: both.revoke(hold)) == "message-replayed"
    assert state_of(both) == "active"


def test_nobody_moves_a_device_but_who_may_revoke(both: World) -> None:
    pair = both.enrol()
    auditor = both.operator("eve", "auditor")
    for signer in (auditor, pair):
        message = both.message(signer, Act.revoke, device=PUMP, reason=Reason.certificateHold)
        assert code_of(lambda m=message: both.revoke(RevokeRequest(m, Reason.certificateHold, device=PUMP))) != ""  # type: ignore[misc]
    for role in (Role.enroll, Role.status, Role.publisher):
        assert code_of(lambda r=role: both.describing.describe(DeviceDescription(PUMP), both.peer(r))) == "not-allowed"  # type: ignore[misc]
    assert state_of(both) == "active"


@pytest.mark.req("REQ-KEY-032", "REQ-KEY-049")
def test_a_profile_turns_away_devices_that_are_not_what_it_asks_for(tmp_path: Path) -> None:
    name = ProfileName("device")
    world = World(tmp_path, sqlite_url(tmp_path))
    try:
        grave = changed(world.profiles[name], roots_of_trust=(RootOfTrust.se,), safety_class=SafetyClass.C)
        world.profiles = {**world.profiles, name: grave}
        world.restart()
        assert code_of(world.enrol) == "root-of-trust-needed"
        describe(world, root_of_trust=RootOfTrust.se)
        assert code_of(world.enrol) == "safety-class-differs"
        describe(world, safety_class=SafetyClass.C)
        pair = world.enrol()
        describe(world, root_of_trust=RootOfTrust.none, justification="bench unit", exception_ends=world.clock.at + 3600)
        pair = world.renew(pair)
        world.clock.at += 3600
        assert code_of(lambda: world.renew(pair)) == "root-of-trust-needed", "the exception is over"
    finally:
        world.close()


@pytest.mark.req("REQ-KEY-041")
def test_R12_what_a_lost_database_forgot_of_devices_the_journal_tells_in_the_same_words(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    file = next(tmp_path.glob("*.db"))
    world.enrol("early")
    world.witness.settle()
    world.close()
    shutil.copy(file, tmp_path / "backup")
    world._open()
    describe(world, root_of_trust=RootOfTrust.tpm, batch="lot 7", provisioned=True)
    world.enrol()
    world.revoke_device(PUMP, Reason.certificateHold)
    world.revoke_device("early", Reason.certificateHold)
    world.revoke_device("early", Reason.removeFromCRL)
    world.enrol("late")
    world.revoke_device("late", Reason.keyCompromise)
    world.witness.settle()
    names = ("early", PUMP, "late")
    truth = {name: (state_of(world, name), world.store.reading.device_changes(DeviceId(name))) for name in names}
    facts, told = world.store.reading.device_facts(PUMP), world.leaves()
    world.close()
    for stale in tmp_path.glob(f"{file.name}-*"):
        stale.unlink()
    shutil.copy(tmp_path / "backup", file)
    world._open()
    try:
        assert state_of(world, "late") == ""
        assert world.recovery.recover().unreadable == ()
        assert {name: (state_of(world, name), world.store.reading.device_changes(DeviceId(name))) for name in names} == truth
        assert (truth[PUMP][0], truth["late"][0], truth["early"][0]) == ("quarantined", "retired", "active")
        assert world.store.reading.device_facts(PUMP) == facts
        assert sorted(map(str, world.leaves())) == sorted(map(str, told))
        world.recovery.recover()
        assert {name: world.store.reading.device_changes(DeviceId(name)) for name in names} == {
            name: told[1] for name, told in truth.items()
        }
    finally:
        world.close()


def test_R12_a_retired_device_stays_retired_though_a_step_before_was_lost(tmp_path: Path) -> None:
    from ca.rules import testimony

    world = World(tmp_path, sqlite_url(tmp_path))
    try:
        world.enrol()
        device = world.store.reading.find_device(PUMP)
        assert device is not None
        gone, change = device_life.move(
            replace(device, state=DeviceState.quarantined),
            DeviceState.retired,
            reason="x",
            actor="a",
            channel="c",
            request="00",
            at=world.clock.at,
        )
        world.witness.later([testimony.DeviceMoved(gone, change)])
        world.witness.settle()
        world.recovery.recover()
        assert state_of(world) == "retired"
    finally:
        world.close()
