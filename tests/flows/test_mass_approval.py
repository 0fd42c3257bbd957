"""Revoking more than one person may: a list that another person approved, in parts, each once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ca.errors import Denied, FleetcaError
from ca.model import (
    ApprovalDecision,
    CertificateRef,
    Demand,
    DeviceId,
    Digest,
    GraveAct,
    MassPart,
    ProposalRequest,
    Reason,
    Revocation,
    RevokeRequest,
    Role,
)
from ca.rules import mass_revocation
from ca.rules.mass_revocation import Planned
from ca.rules.message import Act
from tests.fakes.signer_world import Keypair, World

MOST = 3


@pytest.fixture
def made_with() -> dict[str, Demand]:
    return {"demand": Demand(frozenset({GraveAct.mass_revocation}), mass_revocation=MOST)}


def fleet(world: World, count: int) -> list[CertificateRef]:
    return [world.row(world.enrol(f"pump-{number}")).ref for number in range(count)]


def approved(world: World, ada: Keypair, sam: Keypair, planned: Planned, reason: Reason = Reason.keyCompromise) -> None:
    subject = mass_revocation.subject_of(planned.part(0), reason, None)
    said = world.message(ada, Act.propose, proposal=(GraveAct.mass_revocation.value, subject, 3600, "The batch leaks."))
    digits = world.two_persons.propose(ProposalRequest(said), world.peer(Role.operator)).request.hex()
    given = world.message(sam, Act.approve, decision=(digits, True, ""))
    world.approving.decide(ApprovalDecision(given, digits, True), world.peer(Role.operator))


def request(world: World, planned: Planned, index: int = 0, reason: Reason = Reason.keyCompromise) -> RevokeRequest:
    first, *others = planned.requests[index]
    return RevokeRequest(world.local(Role.operator), reason, target=first, others=tuple(others), part=planned.part(index))


def code(world: World, asked: RevokeRequest) -> str:
    before = len(list(world.store.reading.every_revocation()))
    with pytest.raises(FleetcaError) as caught:
        world.revoke(asked)
    assert len(list(world.store.reading.every_revocation())) == before
    return caught.value.code


@pytest.mark.req("REQ-KEY-067")
def test_one_person_revokes_a_few_an_hour_and_more_only_with_another(both: World) -> None:
    world = both
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    refs = fleet(world, 6)
    for ref in refs[:MOST]:
        world.revoke(RevokeRequest(world.local(Role.operator), Reason.keyCompromise, target=ref))
    assert code(world, RevokeRequest(world.local(Role.operator), Reason.keyCompromise, target=refs[3])) == "two-persons-needed"
    said = world.message(ada, Act.revoke, target=refs[3], reason=Reason.keyCompromise)
    assert code(world, RevokeRequest(said, Reason.keyCompromise, target=refs[3])) == "two-persons-needed"
    world.restart()
    assert code(world, RevokeRequest(world.local(Role.operator), Reason.superseded, device=DeviceId("pump-4"))) == "two-persons-needed"
    planned = Planned(refs[3:])
    assert code(world, request(world, planned)) == "two-persons-needed"
    approved(world, ada, sam, planned)
    made: tuple[Revocation, ...] = world.revoke(request(world, planned))
    assert [one.ref for one in made] == refs[3:]
    assert world.revoke(request(world, planned)) == made, "repeated, it finds what it made"
    assert {leaf["evidence"] for leaf in world.leaves("revocation")[MOST:]} == {"approval"}
    world.clock.at += 3600
    late = world.row(world.enrol("pump-9")).ref
    world.revoke(RevokeRequest(world.local(Role.operator), Reason.keyCompromise, target=late))


def test_a_device_gives_up_its_own_at_any_rate(world: World) -> None:
    pairs = [world.enrol(f"pump-{number}") for number in range(MOST + 2)]
    for pair in pairs:
        said = world.message(pair, Act.revoke, target=world.row(pair).ref, reason=Reason.cessationOfOperation)
        world.revoke(RevokeRequest(said, Reason.cessationOfOperation, target=world.row(pair).ref), Role.enroll)


def test_only_the_very_list_is_revoked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_revocation, "MOST_AT_ONCE", 2)
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    refs = fleet(world, 7)
    planned, wider = Planned(refs[:5]), Planned(refs)
    approved(world, ada, sam, planned)
    good = request(world, planned, 1)
    assert good.part is not None
    forged: dict[str, RevokeRequest] = {
        "a certificate more": replace(good, others=(*good.others, refs[6])),
        "another certificate": replace(good, target=refs[6]),
        "in another order": replace(good, target=good.others[0], others=(refs[2],)),
        "another place": replace(good, part=replace(good.part, index=0)),
        "a place beyond": replace(good, part=replace(good.part, index=9)),
        "a shorter proof": replace(good, part=replace(good.part, proof=good.part.proof[:-1])),
        "a proof for ever": replace(good, part=replace(good.part, proof=good.part.proof * 40)),
        "nothing": replace(good, target=None, others=(), device=DeviceId("pump-0")),
    }
    for what, asked in forged.items():
        assert code(world, asked) == "not-on-the-list", what
    assert code(world, request(world, wider, 1)) == "two-persons-needed"
    assert code(world, request(world, planned, 1, Reason.superseded)) == "two-persons-needed"
    lied = MassPart(Digest(bytes(32)), 3, 5, 1, good.part.proof)
    assert code(world, replace(good, part=lied)) == "not-on-the-list"
    for index in (2, 0, 1):
        world.revoke(request(world, planned, index))
    assert {one.ref for one in world.store.reading.every_revocation()} == set(refs[:5])


def test_what_was_released_is_not_held_again_by_a_repeat(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    refs = fleet(world, 4)
    planned = Planned(refs)
    approved(world, ada, sam, planned, Reason.certificateHold)
    world.revoke(request(world, planned, 0, Reason.certificateHold))
    world.revoke(RevokeRequest(world.local(Role.operator), Reason.removeFromCRL, target=refs[0]))
    assert code(world, request(world, planned, 0, Reason.certificateHold)) == "message-replayed"


def test_an_approval_that_ended_or_lost_its_hand_goes_no_further(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_revocation, "MOST_AT_ONCE", 2)
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    planned = Planned(fleet(world, 6))
    approved(world, ada, sam, planned)
    world.revoke(request(world, planned, 0))
    world.revoke_certificate(sam)
    assert code(world, request(world, planned, 1)) == "approval-hand-gone"
    world.clock.at += 3600
    with pytest.raises(Denied):
        world.revoke(request(world, planned, 1))
