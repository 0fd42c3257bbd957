"""Bringing a lost database back takes two persons where that is demanded, by files that they signed while no signer ran (REQ-KEY-067)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.approve_restore import ApprovingRestore, Brought
from ca.errors import FleetcaError
from ca.model import Demand, GraveAct, MessageEvidence, OperatorName, Proposal, ProposalState, Reason, Role
from ca.rules.message import Act, digest_of
from tests.databases import sqlite_url
from tests.fakes.signer_world import DEPLOYMENT, Keypair, World

DEMAND = Demand(frozenset({GraveAct.restore}))
HOUR = 3600


class Lost:
    """A deployment with four operators whose database is gone, and the people's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.published: bytes | None = b"checkpoint"
        before = self.before = World(folder, sqlite_url(folder))
        self.ada, self.sam = before.operator("ada"), before.operator("sam", "security-officer")
        self.kim, self.aud = before.operator("kim", "security-officer"), before.operator("aud", "auditor")
        before.enrol("pump-1")
        before.witness.settle()

    def lose(self) -> World:
        """An empty database beside the journal."""
        self.world = self.before.lost()
        return self.world

    @property
    def approving(self) -> ApprovingRestore:
        world = self.world
        return ApprovingRestore(
            ledger=world.store.ledger,
            sequencing=world.store.ledger,
            journal=world.journal,
            witness=world.witness,
            issuers=world.issuers,
            deployment=DEPLOYMENT,
            wanted=world.demand,
            published=lambda: self.published,
            clock=world.clock,
        )

    def ask(
        self, who: Keypair, *, subject: str | None = None, lifetime: int = HOUR, act: GraveAct = GraveAct.restore, **more: object
    ) -> MessageEvidence:
        exact = self.approving.subject(accept_clock=False) if subject is None else subject
        return self.world.message(who, Act.propose, proposal=(act.value, exact, lifetime, "The disk died."), **more)

    def approve(self, who: Keypair, asked: MessageEvidence, *, approve: bool = True, **more: object) -> MessageEvidence:
        return self.world.message(who, Act.approve, decision=(digest_of(asked.payload).hex(), approve, ""), **more)

    def allow(self, asked: MessageEvidence | None, *approvals: MessageEvidence, accept_clock: bool = False) -> Proposal | None:
        brought = None if asked is None else Brought(asked, approvals)
        return self.approving.allow(brought, accept_clock=accept_clock, actor="uid:0")


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Lost]:
    made = Lost(tmp_path)
    made.lose().demand = DEMAND
    yield made
    made.world.close()


def code(act: Callable[[], object]) -> str:
    with pytest.raises(FleetcaError) as caught:
        act()
    return caught.value.code


@pytest.mark.req("REQ-KEY-067")
def test_a_lost_database_comes_back_by_two_persons_and_the_run_may_be_repeated(lost: Lost) -> None:
    assert code(lambda: lost.allow(None)) == "two-persons-needed"
    asked = lost.ask(lost.ada)
    assert code(lambda: lost.allow(asked)) == "approvals-too-few"
    approval = lost.approve(lost.sam, asked)
    done = lost.allow(asked, approval)
    assert done is not None
    lost.world.recovery.recover()
    assert lost.world.rows(), "it is back"
    assert lost.allow(asked, approval) is not None, "a run that was cut off goes on"
    lost.world.recovery.recover()
    kept = lost.world.store.reading.find_proposal(done.request)
    assert kept is not None
    assert kept.state is ProposalState.used
    told = [leaf for leaf in lost.world.leaves("proposal") if leaf["act"] == "restore"]
    assert [(leaf["state"], leaf["actor"], leaf["channel"]) for leaf in told][:1] == [("used", "uid:0", "recover/message")]


REFUSED: list[tuple[str, Callable[[Lost], object], str]] = [
    ("nobody approved", lambda w: w.allow(w.ask(w.ada)), "approvals-too-few"),
    ("who asked approves", lambda w: w.allow(r := w.ask(w.ada), w.approve(w.ada, r)), "approval-hand-gone"),
    ("who may only look approves", lambda w: w.allow(r := w.ask(w.ada), w.approve(w.aud, r)), "approval-hand-gone"),
    ("an officer asks", lambda w: w.allow(r := w.ask(w.sam), w.approve(w.kim, r)), "approval-hand-gone"),
    ("it was refused", lambda w: w.allow(r := w.ask(w.ada), w.approve(w.sam, r, approve=False)), "approvals-too-few"),
    ("one approval is brought twice for two", lambda w: _two(w, w.allow, twice=True), "approval-self"),
    ("the approval is of another request", lambda w: w.allow(w.ask(w.ada), w.approve(w.sam, w.ask(w.ada))), "approval-of-another"),
    ("the approval is a request", lambda w: w.allow(r := w.ask(w.ada), r), "message-for-another-act"),
    ("the request is of another act", lambda w: w.allow(r := w.ask(w.ada, subject='{"device":"pump-1"}', act=GraveAct.revive), w.approve(w.sam, r)), "approval-of-another"),
    ("it is for another deployment", lambda w: w.allow(r := w.ask(w.ada, audience="other"), w.approve(w.sam, r)), "message-for-another-deployment"),
    ("it was approved for today's clock, which was not asked", lambda w: w.allow(r := w.ask(w.ada), w.approve(w.sam, r), accept_clock=True), "approval-of-another"),
    ("a key that nobody knows signs", lambda w: w.allow(r := w.ask(w.ada), w.approve(_stranger(w), r)), "approval-damaged"),
    ("a signature does not hold", lambda w: w.allow(r := w.ask(w.ada), replace(w.approve(w.sam, r), signature=b"0" * 70)), "approval-damaged"),
    ("it is from the future", lambda w: w.allow(r := w.ask(w.ada, issued_at=w.world.clock.at + 3600), w.approve(w.sam, r)), "message-out-of-time"),
]  # fmt: skip


def _two(lost: Lost, allow: Callable[..., object], *, twice: bool) -> object:
    lost.world.demand = replace(DEMAND, approvers=2)
    asked = lost.ask(lost.ada)
    one = lost.approve(lost.sam, asked)
    return allow(asked, one, one if twice else lost.approve(lost.kim, asked))


def _stranger(lost: Lost) -> Keypair:
    """A key whose certificate an operator's name stands in, and which no issuer here signed."""
    made = Keypair()
    made.certificate = lost.sam.certificate[:-8] + b"\0" * 8
    return made


@pytest.mark.req("REQ-KEY-067")
@pytest.mark.parametrize(("act", "refused"), [pytest.param(act, code, id=name) for name, act, code in REFUSED])
def test_nothing_is_brought_back_where(lost: Lost, act: Callable[[Lost], object], refused: str) -> None:
    assert code(lambda: act(lost)) == refused
    assert lost.world.rows() == []
    assert not any(leaf["act"] == "restore" for leaf in lost.world.leaves("proposal"))


def test_three_persons_where_three_are_demanded(lost: Lost) -> None:
    assert _two(lost, lost.allow, twice=False) is not None


def test_an_approval_ends_and_is_over_once_a_signer_has_worked(lost: Lost) -> None:
    asked = lost.ask(lost.ada)
    approval = lost.approve(lost.sam, asked)
    lost.world.clock.at += HOUR
    assert code(lambda: lost.allow(asked, approval)) == "approval-expired"
    lost.world.clock.at -= HOUR
    lost.allow(asked, approval)
    lost.world.recovery.recover()
    lost.world.enrol("pump-2")
    lost.world.witness.settle()
    assert code(lambda: lost.allow(asked, approval)) == "approval-used"


def test_who_was_revoked_or_disabled_approves_nothing_though_only_the_journal_knows(tmp_path: Path) -> None:
    made = Lost(tmp_path)
    made.before.operator("eve", "security-officer")
    made.before.revoke_certificate(made.kim, Reason.keyCompromise)
    made.before.operators.disable(OperatorName("sam"), made.before.peer(Role.operator))
    made.lose().demand = DEMAND
    asked = made.ask(made.ada)
    for gone in (made.sam, made.kim):
        assert code(lambda gone=gone: made.allow(asked, made.approve(gone, asked))) == "approval-hand-gone"  # type: ignore[misc]
    assert code(lambda: made.allow(None)) == "two-persons-needed", "there is eve"
    made.world.close()


def test_another_database_or_log_than_the_one_approved_is_not_brought_back(lost: Lost, tmp_path: Path) -> None:
    asked = lost.ask(lost.ada)
    approval = lost.approve(lost.sam, asked)
    (tmp_path / "older").mkdir()
    lost.published = b"another checkpoint"
    assert code(lambda: lost.allow(asked, approval)) == "approval-of-another"
    lost.published = b"checkpoint"
    lost.world.close()
    lost.world.url = sqlite_url(tmp_path / "older")
    older = World(tmp_path / "older", lost.world.url)
    older.enrol("pump-0")
    older.revoke_device("pump-0")
    older.close()
    lost.world.restart()
    assert code(lambda: lost.allow(asked, approval)) == "approval-of-another"


def test_a_journal_that_was_changed_is_not_the_one_approved(lost: Lost) -> None:
    asked = lost.ask(lost.ada)
    approval = lost.approve(lost.sam, asked)
    path = lost.folder / "issuance.journal"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"pump-1", b"pump-9", 1))
    assert code(lambda: lost.allow(asked, approval)) == "approval-of-another"
    path.write_bytes(whole)
    assert lost.allow(asked, approval) is not None


def test_one_person_is_enough_before_there_is_a_second_and_where_nobody_demands_two(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    world.operator("ada")
    made = Lost.__new__(Lost)
    made.folder, made.before, made.published = tmp_path, world, None
    made.lose().demand = DEMAND
    assert made.allow(None) is None, "nobody could approve it"
    made.world.close()
    shutil.rmtree(tmp_path / "lost-0")
    other = Lost(tmp_path)
    other.lose()
    assert other.allow(None) is None, "nobody demands it"
    other.world.close()


def test_the_demand_in_the_journal_counts_where_the_settings_have_none(tmp_path: Path) -> None:
    from ca.accept_demand import AcceptingDemand

    made = Lost(tmp_path)
    world = made.before
    AcceptingDemand(ledger=world.store.ledger, witness=world.witness, two_persons=world.two_persons, clock=world.clock).settle(DEMAND)
    made.lose()
    assert made.world.demand == Demand()
    assert code(lambda: made.allow(None)) == "two-persons-needed"
    made.world.close()


def test_it_is_not_asked_for_where_a_signer_runs(tmp_path: Path) -> None:
    from ca.model import ProposalRequest

    made = Lost(tmp_path)
    made.world = made.before
    asked = made.ask(made.ada)
    assert code(lambda: made.world.two_persons.propose(ProposalRequest(asked), made.world.peer(Role.operator))) == "restore-elsewhere"
    made.before.close()
