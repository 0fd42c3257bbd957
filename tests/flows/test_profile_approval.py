"""A changed profile takes effect only once another person approved that very text (REQ-KEY-067)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from ca.accept_profiles import AcceptingProfiles, subject_of
from ca.model import ApprovalDecision, Demand, Digest, GraveAct, Profile, ProfileName, ProposalRequest, Role
from ca.rules.message import Act
from fleetca.forms import shipped_profiles
from tests.fakes.signer_world import Keypair, World

DEVICE, SERVICE = ProfileName("device"), ProfileName("service")
SHIPPED = shipped_profiles()
LONGER = replace(SHIPPED[DEVICE], lifetime=SHIPPED[DEVICE].lifetime * 2, digest=Digest(b"\1" * 32))


@pytest.fixture
def made_with() -> dict[str, Demand]:
    return {"demand": Demand(frozenset({GraveAct.profile}))}


def started(world: World, wanted: Mapping[ProfileName, Profile]) -> tuple[Mapping[ProfileName, Profile], list[ProfileName]]:
    """What is in force after the signer has read these settings."""
    found = AcceptingProfiles(ledger=world.store.ledger, witness=world.witness, two_persons=world.two_persons, clock=world.clock).settle(
        wanted
    )
    return found.profiles, list(found.waiting)


def approved(world: World, ada: Keypair, sam: Keypair, profile: Profile) -> None:
    said = (GraveAct.profile.value, subject_of(profile), 3600, "Longer lives.")
    digits = world.two_persons.propose(
        ProposalRequest(world.message(ada, Act.propose, proposal=said)), world.peer(Role.operator)
    ).request.hex()
    given = world.message(sam, Act.approve, decision=(digits, True, ""))
    world.approving.decide(ApprovalDecision(given, digits, True), world.peer(Role.enroll))


@pytest.mark.req("REQ-KEY-067")
def test_the_version_before_goes_on_until_the_new_one_was_approved(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    assert started(world, SHIPPED) == (SHIPPED, []), "the first time all of it is in force"
    changed = {**SHIPPED, DEVICE: LONGER}
    assert started(world, changed) == (SHIPPED, [DEVICE])
    approved(world, ada, sam, replace(LONGER, digest=Digest(b"\2" * 32)))
    assert started(world, changed) == (SHIPPED, [DEVICE]), "it was another text that was approved"
    approved(world, ada, sam, LONGER)
    assert started(world, changed) == (changed, [])
    assert started(world, changed) == (changed, [])
    assert started(world, SHIPPED) == (changed, [DEVICE]), "the way back is a change too"
    (leaf,) = [leaf for leaf in world.leaves("profile") if leaf["request"]]
    assert (leaf["name"], leaf["digest"]) == (DEVICE, LONGER.digest.hex())


def test_a_new_profile_waits_and_one_that_was_taken_out_is_gone(world: World) -> None:
    few = {DEVICE: SHIPPED[DEVICE], SERVICE: SHIPPED[SERVICE]}
    started(world, few)
    more = {**few, ProfileName("extra"): replace(SHIPPED[SERVICE], name=ProfileName("extra"), digest=Digest(b"\3" * 32))}
    assert started(world, more) == (few, ["extra"])
    assert started(world, {DEVICE: SHIPPED[DEVICE]}) == ({DEVICE: SHIPPED[DEVICE]}, [])


def test_what_nobody_wants_two_persons_for_is_in_force_at_once(world: World) -> None:
    world.demand = replace(world.demand, acts=frozenset())
    world.restart()
    changed = {**SHIPPED, DEVICE: LONGER}
    assert started(world, changed) == (changed, [])
    assert world.leaves("profile") == []


def test_recovery_brings_back_what_was_in_force(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    started(world, SHIPPED)
    approved(world, ada, sam, LONGER)
    started(world, {**SHIPPED, DEVICE: LONGER})
    again = world.lost()
    for _ in range(2):
        again.recovery.recover()
        with again.store.ledger.writing() as tx:
            assert tx.accepted_profiles()[DEVICE] == LONGER
    again.close()
