"""An id that came back is wiped again when it is retired again: each life has its own order, receipt and finding (REQ-KEY-020)."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from ca.keys.memory import MemoryKey
from ca.model import ApprovalDecision, DeviceId, GraveAct, KeyName, ProposalRequest, Role
from ca.rules import two_persons, wipe
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import Keypair, World
from tests.refusals import code_of

pytestmark = pytest.mark.req("REQ-KEY-020")
DEVICE = DeviceId("pump-1")


def receipt(world: World, pair: Keypair) -> bytes:
    order = wipe.read_order(world.wiping.order(DEVICE, world.peer(Role.operator))).order
    said = wipe.Receipt(DEVICE, order.digest, world.clock.at, (sha256(pair.spki).hexdigest(),), "test", pair.certificate)
    return wipe.sign_receipt(said, MemoryKey(KeyName("x"), pair.private).sign)


def revive(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    said = ("revive", two_persons.subject(GraveAct.revive, device=DEVICE), 3600, "Repaired.")
    asked = world.two_persons.propose(ProposalRequest(world.message(ada, Act.propose, proposal=said)), world.peer(Role.operator))
    digits = asked.request.hex()
    given = world.message(sam, Act.approve, decision=(digits, True, ""))
    world.approving.decide(ApprovalDecision(given, digits, True, ""), world.peer(Role.operator))
    world.reviving.revive(DEVICE, world.peer(Role.operator))


def unwiped(world: World) -> list[DeviceId]:
    return list(world.store.reading.unwiped(after="", limit=9))


def test_a_device_that_came_back_is_open_again_when_it_is_retired_again(world: World, tmp_path: Path) -> None:
    operator = world.peer(Role.operator)
    first = world.enrol(DEVICE)
    world.revoke_device(DEVICE)
    before = receipt(world, first)
    world.wiping.take(before, operator)
    assert unwiped(world) == []
    world.clock.at += 60
    revive(world)
    world.clock.at += 60
    second = world.enrol(DEVICE)
    assert code_of(lambda: world.wiping.take(before, operator)) == "device-not-retired"
    world.clock.at += 60
    world.revoke_device(DEVICE)
    assert unwiped(world) == [DEVICE], "the receipt of its first life says nothing of the keys of its second"
    assert code_of(lambda: world.wiping.take(before, operator)) == "wipe-other-order"
    assert code_of(lambda: world.wiping.take(receipt(world, first), operator)) == "certificate-unknown", "a key of its first life"
    after = receipt(world, second)
    taken = world.wiping.take(after, operator)
    assert world.wiping.take(after, operator) == taken
    assert unwiped(world) == []
    assert code_of(lambda: world.wiping.waive(DEVICE, "Lost.", operator)) == "wipe-known"
    assert [one.octets for one in world.store.reading.every_wipe()] == [before, after]
    assert len({leaf["retired_at"] for leaf in world.leaves("wipe")}) == 2
    world.close()
    (tmp_path / "new").mkdir()
    world.url = sqlite_url(tmp_path / "new")
    world._open()
    world.recovery.recover()
    assert [one.octets for one in world.store.reading.every_wipe()] == [before, after], "from the journal alone"
    assert unwiped(world) == []
