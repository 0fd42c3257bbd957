"""Grave acts over a real signer and database: two persons, two keys, the exact request, once."""

from __future__ import annotations

import base64
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca.errors import Conflict, Denied, FleetcaError, Malformed, NotFound, Unacceptable, Unauthenticated, Unavailable
from ca.model import (
    ApprovalDecision,
    DeviceId,
    DeviceState,
    GraveAct,
    IssueRequest,
    MessageEvidence,
    Operator,
    OperatorName,
    ProfileName,
    Proposal,
    ProposalRequest,
    ProposalState,
    Reason,
    RevokeRequest,
    Role,
    TokenEvidence,
)
from ca.rules import testimony
from ca.rules import two_persons as rule
from ca.rules.caps import EXCLUSIVE, OPERATOR_POWERS, Power
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE
from ca.rules.message import Act
from enroll.rest.routes import PEER_CERTIFICATE
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.acme import AcmeWorld
from tests.fakes.signer_world import Keypair, World

DAY = 86400
DEVICE = DeviceId("pump-1")


def retired(world: World, device: str = DEVICE) -> None:
    world.enrol(device)
    world.revoke_device(device)


def revival(device: str = DEVICE) -> str:
    return rule.subject(GraveAct.revive, device=device)


def ask(world: World, who: Keypair, *, subject: str | None = None, lifetime: int = DAY, act: str = "revive") -> Proposal:
    said = (act, revival() if subject is None else subject, lifetime, "It was repaired.")
    return world.two_persons.propose(ProposalRequest(world.message(who, Act.propose, proposal=said)), world.peer(Role.operator))


def answer(world: World, who: Keypair, request: Proposal, *, approve: bool = True, words: str = "") -> Proposal:
    digits = request.request.hex()
    given = world.message(who, Act.approve, decision=(digits, approve, words))
    made = world.approving.decide(ApprovalDecision(given, digits, approve, words), world.peer(Role.enroll))
    assert isinstance(made, Proposal)
    return made


def revive(world: World, device: str = DEVICE) -> DeviceState:
    return world.reviving.revive(DeviceId(device), world.peer(Role.operator)).state


def refused(world: World, device: str = DEVICE) -> FleetcaError:
    with pytest.raises(FleetcaError) as caught:
        revive(world, device)
    device_now = world.store.reading.find_device(DeviceId(device))
    assert device_now is not None
    assert device_now.state is not DeviceState.blank
    return caught.value


@pytest.mark.req("REQ-KEY-067")
@pytest.mark.req("REQ-KEY-020")
def test_a_retired_id_comes_back_once_after_one_person_asked_and_another_approved(both: World) -> None:
    world = both
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    assert refused(world).code == "two-persons-needed"
    asked = ask(world, ada)
    assert refused(world).code == "two-persons-needed"
    assert answer(world, sam, asked).state is ProposalState.approved
    world.restart()
    assert revive(world) is DeviceState.blank
    world.enrol(DEVICE)
    world.revoke_device(DEVICE)
    assert refused(world).code == "approval-used", "an approval is good for once"
    told = [(leaf["state"], leaf["actor"], leaf["person"], leaf["channel"]) for leaf in world.leaves("proposal")]
    assert told == [
        ("open", "operator:ada", "ada", "operator/message"),
        ("approved", "operator:sam", "sam", "enroll/message"),
        ("used", "role:operator@4242", "", "operator/local"),
    ]
    (back,) = [leaf for leaf in world.leaves("device") if leaf.get("before") == "retired"]
    assert (back["state"], back["request"]) == ("blank", asked.request.hex())


def test_with_one_operator_it_says_how_to_go_on_and_opens_no_other_way(world: World) -> None:
    ada = world.operator("ada")
    retired(world)
    asked = ask(world, ada)
    told = refused(world)
    assert "operators add NAME --role security-officer" in told.fix
    with pytest.raises(Denied) as caught:
        answer(world, ada, asked)
    assert caught.value.code == "approval-self"
    with pytest.raises(Denied) as local:
        world.approving.decide(ApprovalDecision(world.local(Role.operator), asked.request.hex(), True), world.peer(Role.operator))
    assert local.value.code == "approval-unsigned", "who may use the machine is not thereby another person"


@pytest.mark.req("REQ-KEY-067")
def test_one_person_under_two_names_is_one_person(world: World) -> None:
    ada = world.operator("ada", "admin", person="Ada L.")
    world.operator("sam", "security-officer")
    with pytest.raises(Unacceptable) as caught:
        world.operator("ada-2", "security-officer", person="ada l.")
    assert caught.value.code == "exclusive-roles"
    retired(world)
    asked = ask(world, ada)
    # As if it stood on record all the same: somebody wrote it there.
    twin = Keypair()
    with world.store.ledger.writing() as tx:
        known = tx.find_operator(OperatorName("ada"))
        assert known is not None
        tx.add_operator(replace(known, name=OperatorName("eve"), roles=("security-officer",)))
    twin = certified(world, "eve")
    with pytest.raises(Denied) as again:
        answer(world, twin, asked)
    assert again.value.code == "approval-same-person"


def certified(world: World, name: str, *, pair: Keypair | None = None) -> Keypair:
    pair = pair or Keypair()
    asked = IssueRequest(pair.csr(), world.local(Role.operator), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
    der = world.issue(asked, Role.operator).certificate.der
    assert der is not None
    pair.certificate = der
    return pair


def test_what_does_not_count(world: World) -> None:
    ada, sam, bob = world.operator("ada"), world.operator("sam", "security-officer"), world.operator("bob", "auditor")
    retired(world)
    asked = ask(world, ada)
    other = ask(world, ada, subject=revival("pump-2"))
    digits = asked.request.hex()

    def code(given: MessageEvidence, request: str = digits, *, approve: bool = True) -> str:
        with pytest.raises(FleetcaError) as caught:
            world.approving.decide(ApprovalDecision(given, request, approve), world.peer(Role.enroll))
        return caught.value.code

    good = world.message(sam, Act.approve, decision=(digits, True, ""))
    assert code(world.message(bob, Act.approve, decision=(digits, True, ""))) == "operator-role"
    assert code(world.message(sam, Act.approve, decision=(other.request.hex(), True, ""))) == "message-for-another-act"
    assert code(replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1]))) == "bad-signature"
    assert code(replace(good, payload=good.payload.replace(b"approve", b"improve"))) == "bad-message"
    assert code(world.message(sam, Act.approve, decision=(digits, True, ""), issued_at=world.clock.at - 301)) == "message-out-of-time"
    assert code(world.message(sam, Act.approve, decision=(digits, True, ""), audience="other")) == "message-for-another-deployment"
    assert code(world.message(sam, Act.approve, decision=("00" * 32, True, "")), "00" * 32) == "no-such-approval"
    assert refused(world).code == "two-persons-needed"
    answer(world, sam, asked)
    world.clock.at += 2 * DAY
    assert refused(world).code == "approval-expired"


def test_a_refusal_a_withdrawal_and_a_second_thought(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    first = ask(world, ada)
    with pytest.raises(Malformed):
        answer(world, sam, first, approve=False)
    assert answer(world, sam, first, approve=False, words="Not that one.").state is ProposalState.refused
    with pytest.raises(Conflict) as caught:
        answer(world, sam, first)
    assert caught.value.code == "approval-decided"
    assert "Not that one." in refused(world).why
    second = ask(world, ada)
    answer(world, sam, second)
    assert answer(world, ada, second, approve=False, words="Wrong pump.").state is ProposalState.withdrawn
    assert refused(world).code == "two-persons-needed"


@pytest.mark.parametrize("gone", ["disabled", "revoked"])
def test_who_is_no_operator_any_more_approved_nothing(world: World, gone: str) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    answer(world, sam, ask(world, ada))
    if gone == "disabled":
        world.operators.disable(OperatorName("sam"), world.peer(Role.operator))
    else:
        world.revoke_certificate(sam)
    assert refused(world).code == "approval-hand-gone"


def test_an_edited_database_approves_nothing(world: World) -> None:
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    asked = ask(world, ada)
    elsewhere = answer(world, sam, ask(world, ada, subject=revival("pump-9")))

    def edited(made: Proposal) -> str:
        with world.store.ledger.writing() as tx:
            tx.put_proposal(made)
        return refused(world).code

    (approval,) = elsewhere.answers
    assert edited(replace(asked, state=ProposalState.approved)) == "approvals-too-few"
    assert edited(replace(asked, state=ProposalState.approved, answers=(approval,))) == "approval-of-another"
    assert edited(replace(elsewhere, request=asked.request, subject=asked.subject)) == "approval-damaged"
    forged = replace(
        approval,
        message=replace(
            approval.message, payload=approval.message.payload.replace(elsewhere.request.hex().encode(), asked.request.hex().encode())
        ),
    )
    assert edited(replace(asked, state=ProposalState.approved, answers=(forged,))) == "approval-damaged"
    assert (
        edited(replace(asked, state=ProposalState.approved, answers=(replace(asked.asked, operator=OperatorName("sam")),)))
        == "approval-damaged"
    )


def test_three_persons_where_the_settings_want_three(world: World) -> None:
    world.demand = replace(world.demand, approvers=2)
    world.restart()
    ada, sam, tom = world.operator("ada"), world.operator("sam", "security-officer"), world.operator("tom", "security-officer")
    retired(world)
    asked = ask(world, ada)
    assert answer(world, sam, asked).state is ProposalState.open
    assert answer(world, sam, asked).state is ProposalState.open, "the same person again adds nothing"
    assert refused(world).code == "two-persons-needed"
    answer(world, tom, asked)
    assert revive(world) is DeviceState.blank


def test_only_a_retired_device_is_revived_and_only_what_is_exactly_said(world: World) -> None:
    ada, bob = world.operator("ada"), world.operator("bob", "auditor")
    world.enrol(DEVICE)
    assert refused(world).code == "device-not-retired"
    with pytest.raises(NotFound):
        world.reviving.revive(DeviceId("nobody"), world.peer(Role.operator))
    with pytest.raises(Denied):
        world.reviving.revive(DEVICE, world.peer(Role.enroll))
    for subject in ('{"device": "pump-1"}', '{"device":"pump-1","more":1}', "[]", "{", "9" * 5000):
        with pytest.raises(Malformed) as caught:
            ask(world, ada, subject=subject)
        assert caught.value.code == "proposal-subject"
    with pytest.raises(Malformed):
        ask(world, ada, lifetime=31 * DAY)
    with pytest.raises(Malformed):
        ask(world, ada, act="sell")
    with pytest.raises(Denied):
        ask(world, bob)


@pytest.mark.req("REQ-KEY-016")
@pytest.mark.parametrize("pair", sorted(tuple(sorted(pair)) for pair in EXCLUSIVE), ids=" and ".join)
def test_roles_that_exclude_each_other_do_not_meet_in_one_person(world: World, pair: tuple[str, str]) -> None:
    one, other = pair
    with pytest.raises(Unacceptable) as caught:
        world.operator("ada", one, other)
    assert caught.value.code == "exclusive-roles"
    assert one in caught.value.what
    assert other in caught.value.what
    world.operator("ada-1", one, person="Ada")
    with pytest.raises(Unacceptable):
        world.operator("ada-2", other, person="ADA")
    world.operators.disable(OperatorName("ada-1"), world.peer(Role.operator))
    world.operator("ada-2", other, person="Ada")


@pytest.mark.req("REQ-KEY-016")
def test_an_operator_on_record_with_roles_that_exclude_each_other_is_named_and_may_nothing(world: World) -> None:
    world.operator("ada")
    with world.store.ledger.writing() as tx:
        tx.add_operator(Operator(OperatorName("eve"), world.policy.tenant, ("admin", "security-officer"), 0, None))
    world.restart()
    (wrong,) = world.two_persons.at_load()
    assert "eve" in wrong.what
    assert wrong.code == "exclusive-roles"
    eve = certified(world, "eve")
    with pytest.raises(Denied) as caught:
        ask(world, eve)
    assert caught.value.code == "exclusive-roles"
    said = world.message(eve, Act.revoke, device=DEVICE, reason=Reason.keyCompromise)
    with pytest.raises(Denied) as again:
        world.revoke(RevokeRequest(said, Reason.keyCompromise, device=DEVICE))
    assert again.value.code == "exclusive-roles"


@pytest.mark.req("REQ-KEY-016")
def test_the_auditor_has_no_power_but_to_look() -> None:
    assert OPERATOR_POWERS["auditor"] == {Power.search}


def test_the_same_key_under_two_names_is_one_key(world: World) -> None:
    ada = world.operator("ada")
    retired(world)
    asked = ask(world, ada)
    twin = replace(asked.asked, operator=OperatorName("sam"), person="sam")
    with pytest.raises(Denied) as caught:
        rule.distinct([(asked.asked, ada.spki), (twin, ada.spki)])
    assert caught.value.code == "approval-same-key"
    rule.distinct([(asked.asked, ada.spki), (twin, b"another")])
    world.operators.add(OperatorName("sam"), ("security-officer",), world.peer(Role.operator))
    with pytest.raises(FleetcaError) as taken:
        certified(world, "sam", pair=ada)
    assert taken.value.code == "key-of-another-device", "nor does it ever get a certificate"


def test_recovery_brings_approvals_back_and_what_was_used_stays_used(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    retired(world)
    answer(world, sam, ask(world, ada))
    world.witness.settle()
    revive(world)
    waits = answer(world, sam, ask(world, ada, subject=revival("pump-2")))
    again = world.lost()
    again.recovery.recover()
    found = {one.subject: one.state for one in again.store.reading.proposals(tenant=world.policy.tenant)}
    assert found == {revival(): ProposalState.used, revival("pump-2"): ProposalState.approved}
    assert again.store.reading.find_proposal(waits.request) == waits
    device = again.store.reading.find_device(DEVICE)
    assert device is not None
    assert device.state is DeviceState.blank
    again.recovery.recover()
    assert again.store.reading.find_device(DEVICE) == device
    again.close()


def test_an_operators_message_counts_for_the_act_it_names_only(world: World) -> None:
    ada = world.operator("ada")
    said = world.message(ada, Act.revoke, device=DEVICE, reason=Reason.keyCompromise)
    with pytest.raises(Unauthenticated):
        world.two_persons.propose(ProposalRequest(said), world.peer(Role.operator))
    with pytest.raises(Denied):
        world.two_persons.propose(ProposalRequest(world.local(Role.operator)), world.peer(Role.operator))


@pytest.mark.req("REQ-KEY-067")
def test_the_same_over_REST_by_signed_messages(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path)
    world = acme.world
    ada, sam, bob = world.operator("ada"), world.operator("sam", "security-officer"), world.operator("bob", "auditor")
    retired(world)

    def say(path: str, who: Keypair, act: Act, **said: Any) -> TestResponse:
        made = world.message(who, act, **said)
        parts = {name: base64.b64encode(getattr(made, name)).decode() for name in ("payload", "certificate", "signature")}
        return acme.http.post(path, json={"message": parts})

    proposal = ("revive", revival(), DAY, "Repaired.")
    assert say("/v1/proposals", sam, Act.propose, proposal=proposal).json["code"] == "operator-role"
    asked = say("/v1/proposals", ada, Act.propose, proposal=proposal)
    assert (asked.status_code, asked.json["state"], asked.json["subject"]) == (200, "open", {"device": DEVICE})
    digits = asked.json["request"]
    assert sha256(base64.b64decode(asked.json["payload"])).hexdigest() == digits, "what is approved can be worked out"
    shown = {"environ_overrides": {PEER_CERTIFICATE: bob.certificate}}
    assert [one["request"] for one in acme.http.get("/v1/proposals", **shown).json["proposals"]] == [digits]
    assert acme.http.get("/v1/proposals").status_code == 403
    assert acme.http.get(f"/v1/proposals/{'00' * 32}", **shown).json["code"] == "no-such-approval"
    for who, told in ((bob, "operator-role"), (ada, "approval-self")):
        answered = say("/v1/approvals", who, Act.approve, decision=(digits, True, ""))
        assert (answered.status_code, answered.json["code"]) == (403, told)
    approved = say("/v1/approvals", sam, Act.approve, decision=(digits, True, ""))
    assert (approved.status_code, approved.json["state"]) == (200, "approved")
    assert acme.http.get(f"/v1/proposals/{digits}", **shown).json == approved.json
    assert revive(world) is DeviceState.blank
    acme.close()


def test_the_journal_has_who_decided_on_a_first_certificate_and_by_which_way(tmp_path: Path) -> None:
    waiting = replace(shipped_profiles()[ProfileName("device")], approval_within=DAY)
    world = World(tmp_path, sqlite_url(tmp_path), profiles={ProfileName("device"): waiting})
    asked = IssueRequest(Keypair().csr(), TokenEvidence(world.token(DEVICE).text))
    with pytest.raises(Unavailable):
        world.issue(asked)
    (one,) = world.store.reading.waiting_approvals(tenant=world.policy.tenant, now=world.clock.at)
    made = world.approving.decide(ApprovalDecision(world.local(Role.operator), one.request.hex(), True), world.peer(Role.operator))
    (decided,) = [record for record in map(testimony.read, world.journal.records()) if isinstance(record, testimony.ApprovalDecided)]
    assert (decided.approval, decided.channel) == (made, "operator/local")
    (leaf,) = world.leaves("approval")
    assert (leaf["channel"], leaf["request"]) == ("operator/local", one.request.hex())
    again = world.lost()
    again.recovery.recover()
    with again.store.ledger.writing() as tx:
        assert tx.find_approval(one.request) == made
    told = again.store.reading.find_approval(one.request)
    assert told == made, "what was approved stays so"
    again.close()
