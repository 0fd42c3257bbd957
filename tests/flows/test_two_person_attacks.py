"""One person who wants to be two: every way that we know is refused by name, when it is said or when it is done (REQ-KEY-067)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ca.errors import FleetcaError
from ca.model import (
    ApprovalDecision,
    Demand,
    DeviceId,
    DeviceState,
    Digest,
    GraveAct,
    IssueRequest,
    LocalEvidence,
    MessageEvidence,
    Operator,
    OperatorName,
    Proposal,
    ProposalRequest,
    ProposalState,
    Reason,
    Role,
    TenantId,
)
from ca.rules import two_persons as rule
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE
from ca.rules.ids import subject_digest
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import Keypair, World, der_of

DAY = 86400
DEVICE = DeviceId("pump-1")


class Office:
    """Ada asks, Sam and Kim approve, and a retired device waits for its id."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, World(folder, sqlite_url(folder))
        self.ada, self.sam = self.world.operator("ada"), self.world.operator("sam", "security-officer")
        self.kim = self.world.operator("kim", "security-officer")
        for device in (DEVICE, "pump-2"):
            self.world.enrol(device)
            self.world.revoke_device(device)

    def ask(self, who: Keypair | None = None, *, device: str = DEVICE, lifetime: int = DAY) -> Proposal:
        said = (GraveAct.revive.value, rule.subject(GraveAct.revive, device=device), lifetime, "Repaired.")
        message = self.world.message(who or self.ada, Act.propose, proposal=said)
        return self.world.two_persons.propose(ProposalRequest(message), self.world.peer(Role.operator))

    def signed(self, who: Keypair, asked: Proposal) -> MessageEvidence:
        return self.world.message(who, Act.approve, decision=(asked.request.hex(), True, ""))

    def bring(self, given: MessageEvidence | LocalEvidence, asked: Proposal) -> Proposal:
        way = Role.operator if isinstance(given, LocalEvidence) else Role.enroll
        made = self.world.approving.decide(ApprovalDecision(given, asked.request.hex(), True), self.world.peer(way))
        assert isinstance(made, Proposal)
        return made

    def approve(self, who: Keypair, asked: Proposal) -> Proposal:
        return self.bring(self.signed(who, asked), asked)

    def revive(self, device: str = DEVICE) -> None:
        self.world.reviving.revive(DeviceId(device), self.world.peer(Role.operator))

    def done(self, device: str = DEVICE) -> bool:
        found = self.world.store.reading.find_device(DeviceId(device))
        assert found is not None
        return found.state is DeviceState.blank

    def forge(self, asked: Proposal, **changes: object) -> None:
        """Edit the row, as whoever has the database could."""
        with self.world.store.ledger.writing() as tx:
            found = tx.find_proposal(asked.request)
            assert found is not None
            tx.put_proposal(replace(found, **changes))  # type: ignore[arg-type]

    def slip_in(self, name: str, *roles: str, person: str = "", pair: Keypair | None = None) -> Keypair:
        """An operator that only the database knows of, with a certificate all the same."""
        with self.world.store.ledger.writing() as tx:
            tx.add_operator(Operator(OperatorName(name), TenantId("default"), roles, self.world.clock.at, None, person))
        return self.certified(name, pair)

    def certified(self, name: str, pair: Keypair | None = None) -> Keypair:
        """A certificate for an operator on record, as whoever may use the machine asks for it."""
        pair = pair or Keypair()
        asked = IssueRequest(pair.csr(), self.world.local(Role.operator), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
        made = Keypair(pair.kind)
        made.private, made.certificate = pair.private, der_of(self.world.issue(asked, Role.operator))
        return made


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.world.close()


# ---- Each attack ends in its own refusal ------------------------------------------------------------------------------


def second_certificate(office: Office) -> None:
    office.approve(office.certified("ada"), office.ask())


def second_name(office: Office) -> None:
    office.approve(office.slip_in("sue", "security-officer", person="Ada"), office.ask())


def second_name_in_other_letters(office: Office) -> None:
    office.approve(office.slip_in("sue", "security-officer", person="\uff21DA"), office.ask())


def second_name_allowed(office: Office) -> None:
    office.world.operator("sue", "security-officer", person="  ada".strip().upper())


def both_roles(office: Office) -> None:
    both = office.slip_in("max", "admin", "security-officer")
    office.approve(both, office.ask(both))


def another_request(office: Office) -> None:
    first, second = office.ask(), office.ask(device="pump-2")
    office.bring(office.signed(office.sam, first), second)


def another_request_in_the_row(office: Office) -> None:
    first, second = office.ask(), office.ask(device="pump-2")
    answers = office.approve(office.sam, second).answers
    office.forge(first, answers=answers, state=ProposalState.approved)
    office.revive()


def expired_before_the_approval(office: Office) -> None:
    asked = office.ask(lifetime=3600)
    office.world.clock.at += 3600
    office.approve(office.sam, asked)


def expired_before_the_act(office: Office) -> None:
    office.approve(office.sam, office.ask(lifetime=3600))
    office.world.clock.at += 3600
    office.revive()


def end_put_off_in_the_row(office: Office) -> None:
    asked = office.ask(lifetime=3600)
    office.approve(office.sam, asked)
    office.forge(asked, expires=asked.expires + DAY)
    office.world.clock.at += 3600
    office.revive()


def who_asked_was_removed(office: Office) -> None:
    office.approve(office.sam, office.ask())
    office.world.operators.disable(OperatorName("ada"), office.world.peer(Role.operator))
    office.revive()


def who_approved_was_removed(office: Office) -> None:
    office.approve(office.sam, office.ask())
    office.world.operators.disable(OperatorName("sam"), office.world.peer(Role.operator))
    office.revive()


def who_approved_was_revoked(office: Office) -> None:
    office.approve(office.sam, office.ask())
    office.world.revoke_certificate(office.sam, Reason.keyCompromise)
    office.revive()


def who_was_revoked_approves(office: Office) -> None:
    office.world.revoke_certificate(office.sam, Reason.keyCompromise)
    office.approve(office.sam, office.ask())


def request_changed_after_the_approval(office: Office) -> None:
    asked, other = office.ask(device="pump-2"), rule.subject(GraveAct.revive, device=DEVICE)
    office.approve(office.sam, asked)
    office.forge(asked, subject=other)
    with sqlite3.connect(office.folder / "fleetca.db") as connection:
        connection.execute("UPDATE proposals SET subject_sha256 = ?", (subject_digest(GraveAct.revive, other),))
    connection.close()
    office.revive()


def approved_only_in_the_row(office: Office) -> None:
    office.forge(office.ask(), state=ProposalState.approved)
    office.revive()


def one_approval_counted_twice(office: Office) -> None:
    office.world.demand = Demand(approvers=2)
    office.world.restart()
    asked = office.ask()
    made = office.approve(office.sam, asked)
    office.forge(asked, answers=(*made.answers, *made.answers), state=ProposalState.approved)
    office.revive()


def one_person_approves_twice(office: Office) -> None:
    office.world.demand = Demand(approvers=2)
    office.world.restart()
    asked = office.ask()
    office.approve(office.sam, asked)
    assert office.approve(office.sam, asked).state is ProposalState.open
    office.revive()


def done_twice(office: Office) -> None:
    office.approve(office.sam, office.ask())
    office.revive()
    office.world.enrol(DEVICE)
    office.world.revoke_device(DEVICE)
    office.revive()


def used_is_unused_in_the_row(office: Office) -> None:
    asked = office.ask()
    office.approve(office.sam, asked)
    office.revive()
    office.bring(office.signed(office.kim, asked), asked)


def roles_switched_by_another_name(office: Office) -> None:
    asked = office.ask()
    office.world.operators.disable(OperatorName("ada"), office.world.peer(Role.operator))
    office.approve(office.world.operator("ada-2", "security-officer", person="Ada"), asked)


def roles_switched_in_the_row(office: Office) -> None:
    """Ada becomes an officer after she asked; that the record says so makes nobody else of her."""
    asked = office.ask()
    with office.world.store.ledger.writing() as tx:
        tx.disable_operator(OperatorName("ada"), now=office.world.clock.at)
    office.approve(office.ada, asked)


def officer_asks(office: Office) -> None:
    office.ask(office.sam)


def machine_approves(office: Office) -> None:
    office.bring(office.world.local(Role.operator), office.ask())


def machine_makes_another_officer(office: Office) -> None:
    office.world.demand = Demand(frozenset({GraveAct.operator}))
    office.world.restart()
    office.world.operator("eve", "security-officer")


def machine_takes_an_officers_name(office: Office) -> None:
    office.world.demand = Demand(frozenset({GraveAct.operator}))
    office.world.restart()
    office.certified("sam")


ATTACKS: list[tuple[str, Callable[[Office], None], str]] = [
    ("the same person by a second certificate", second_certificate, "approval-self"),
    ("the same person by a second name, slipped into the database", second_name, "approval-same-person"),
    ("the same person in other letters", second_name_in_other_letters, "approval-same-person"),
    ("the same person by a second name", second_name_allowed, "exclusive-roles"),
    ("one operator with both roles", both_roles, "exclusive-roles"),
    ("an approval of another request", another_request, "message-for-another-act"),
    ("an approval of another request, in the row", another_request_in_the_row, "approval-of-another"),
    ("an approval after the end", expired_before_the_approval, "approval-expired"),
    ("an act after the end", expired_before_the_act, "approval-expired"),
    ("an end that was put off in the row", end_put_off_in_the_row, "approval-damaged"),
    ("whoever asked is an operator no more", who_asked_was_removed, "approval-hand-gone"),
    ("whoever approved is an operator no more", who_approved_was_removed, "approval-hand-gone"),
    ("whoever approved was revoked", who_approved_was_revoked, "approval-hand-gone"),
    ("whoever was revoked approves", who_was_revoked_approves, "certificate-revoked"),
    ("another request in the row, after the approval", request_changed_after_the_approval, "approval-damaged"),
    ("approved by a word in the row", approved_only_in_the_row, "approvals-too-few"),
    ("one approval counted twice", one_approval_counted_twice, "approval-self"),
    ("one person approves twice", one_person_approves_twice, "two-persons-needed"),
    ("one approval, two acts", done_twice, "approval-used"),
    ("an approval of what was done", used_is_unused_in_the_row, "approval-used"),
    ("other roles by another name, between request and approval", roles_switched_by_another_name, "approval-same-person"),
    ("disabled between request and approval", roles_switched_in_the_row, "operator-unknown"),
    ("an officer asks", officer_asks, "operator-role"),
    ("the machine approves", machine_approves, "approval-unsigned"),
    ("the machine makes another officer", machine_makes_another_officer, "two-persons-needed"),
    ("the machine makes a key for an officer's name", machine_takes_an_officers_name, "two-persons-needed"),
]


@pytest.mark.req("REQ-KEY-067")
@pytest.mark.parametrize(("attack", "code"), [pytest.param(attack, code, id=name) for name, attack, code in ATTACKS])
def test_one_person_is_not_two_by(office: Office, attack: Callable[[Office], None], code: str) -> None:
    with pytest.raises(FleetcaError) as caught:
        attack(office)
    assert caught.value.code == code, caught.value
    assert attack in {done_twice, used_is_unused_in_the_row} or not office.done()


# ---- And what is allowed -----------------------------------------------------------------------------------------------


def test_two_processes_do_what_was_approved_once_together(office: Office) -> None:
    asked = office.ask()
    office.approve(office.sam, asked)
    office.approve(office.kim, asked)  # more than are needed is no harm
    exact, now, tenant = rule.subject(GraveAct.revive, device=DEVICE), office.world.clock.at, TenantId("default")
    other = World(office.folder, office.world.url)
    other.clock.at = now
    with other.store.ledger.writing() as tx:
        assert other.two_persons.find(tx, GraveAct.revive, exact, tenant=tenant, now=now).state is ProposalState.approved
    office.revive()
    with other.store.ledger.writing() as tx, pytest.raises(FleetcaError) as caught:
        other.two_persons.take(tx, GraveAct.revive, exact, tenant=tenant, actor="x", channel="x", now=now)
    assert caught.value.code == "approval-used"
    other.close()


@pytest.mark.req("REQ-KEY-067")
def test_who_may_approve_gets_a_key_by_two_persons_but_the_first(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    world.demand = Demand(frozenset({GraveAct.operator}))
    world.restart()
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    world.operators.add(OperatorName("kim"), ("security-officer",), world.peer(Role.operator))
    kim = Keypair()

    def certify(name: str, pair: Keypair) -> str:
        asked = IssueRequest(pair.csr(), world.local(Role.operator), DeviceId(OPERATOR_DEVICE + name), OPERATOR)
        try:
            pair.certificate = der_of(world.issue(asked, Role.operator))
        except FleetcaError as error:
            return error.code
        return ""

    assert certify("kim", kim) == "two-persons-needed"
    record = Operator(OperatorName("kim"), TenantId("default"), ("security-officer",), world.clock.at, None)
    exact = rule.certifying(record, Digest(sha256(kim.spki).digest()))
    message = world.message(ada, Act.propose, proposal=(GraveAct.operator.value, exact, DAY, "We need two."))
    digits = world.two_persons.propose(ProposalRequest(message), world.peer(Role.operator)).request.hex()
    given = world.message(sam, Act.approve, decision=(digits, True, ""))
    world.approving.decide(ApprovalDecision(given, digits, True), world.peer(Role.enroll))
    assert certify("kim", Keypair()) == "two-persons-needed", "it is for that key"
    assert certify("kim", kim) == ""
    assert certify("kim", Keypair()) == "two-persons-needed"
    assert certify("ada", Keypair()) == "", "who only asks is not meant"
    world.clock.at += 50 * DAY
    csr = Keypair().csr()
    world.issue(IssueRequest(csr, world.message(sam, Act.renew, csr=csr)))  # their own key vouches for the next
    world.clock.at += 300 * DAY
    assert certify("sam", Keypair()) == "", "nobody is there any more who could approve"
    world.close()
