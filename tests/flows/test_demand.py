"""What needs two persons becomes less only by the word of two persons: a changed settings file alone takes nothing away (REQ-KEY-067)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.accept_demand import AcceptingDemand
from ca.audit import Files, verify
from ca.log.memory import MemoryFiles
from ca.model import DEFAULT_TENANT, ApprovalDecision, Demand, GraveAct, Operator, OperatorName, ProposalRequest, Role
from ca.ports import Writing
from ca.rules import leaf, note, tiles
from ca.rules.demand import loosens, read_demand, stricter, subject_of
from ca.rules.message import Act
from ca.store.engine import migrate, open_store
from ca.system import SystemChance
from fleetca import checks_people, deployment, forms
from fleetca.verdict import Level, Patient
from tests.databases import database_url, postgres, sqlite_url  # noqa: F401
from tests.fakes.record import LogKey, MemoryRecord
from tests.fakes.signer_world import NOW, Keypair, SetClock, World

STRICT = Demand(frozenset({GraveAct.profile, GraveAct.mass_revocation}), approvers=1, mass_revocation=50)
NOTHING = Demand()


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:  # noqa: F811
    made = World(tmp_path, database_url)
    yield made
    made.close()


def started(world: World, wanted: Demand) -> bool:
    """Whether all is in force that the settings say, once the signer has read them; what is in force stands in `world.two_persons.demand`."""
    world.demand = wanted
    world.restart()
    return AcceptingDemand(ledger=world.store.ledger, witness=world.witness, two_persons=world.two_persons, clock=world.clock).settle(
        wanted
    )


def approved(world: World, ada: Keypair, *others: Keypair, demand: Demand) -> str:
    said = (GraveAct.demand.value, subject_of(demand), 3600, "One of us left.")
    digits = world.two_persons.propose(
        ProposalRequest(world.message(ada, Act.propose, proposal=said)), world.peer(Role.operator)
    ).request.hex()
    for other in others:
        given = world.message(other, Act.approve, decision=(digits, True, ""))
        world.approving.decide(ApprovalDecision(given, digits, True), world.peer(Role.enroll))
    return digits


LOOSER = [
    pytest.param(NOTHING, id="no act any more"),
    pytest.param(replace(STRICT, acts=frozenset({GraveAct.profile})), id="an act less"),
    pytest.param(replace(STRICT, acts=frozenset({GraveAct.profile, GraveAct.ca_certificate})), id="an act for another"),
    pytest.param(replace(STRICT, mass_revocation=51), id="many is one more"),
    pytest.param(replace(STRICT, approvers=1, mass_revocation=10**6), id="many is a million"),
]


@pytest.mark.req("REQ-KEY-067")
@pytest.mark.parametrize("looser", LOOSER)
def test_what_was_demanded_stays_until_two_persons_approved_exactly_the_less(tmp_path: Path, looser: Demand) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
    assert started(world, STRICT), "the first demand is in force at once"
    assert not started(world, looser)
    assert world.two_persons.demand == stricter(STRICT, looser), "what is more of it is in force, what is less is not"
    approved(world, ada, demand=looser)
    assert not started(world, looser), "asking is not enough"
    approved(world, ada, sam, demand=replace(looser, approvers=2))
    assert not started(world, looser), "it was another demand that was approved"
    digits = approved(world, ada, sam, demand=looser)
    assert started(world, looser)
    assert world.two_persons.demand == looser
    assert started(world, looser), "it stays so"
    assert started(world, stricter(STRICT, looser)), "more is in force at once"
    assert not started(world, looser), "what was approved once was done once"
    told = [(read_demand(leaf["subject"]), leaf["request"]) for leaf in world.leaves("demand")]
    assert told[0] == (STRICT, None)
    assert (looser, digits) in told
    assert [request for _, request in told if request] == [digits], "nothing else of it was loosened"
    world.close()


def test_the_signer_goes_by_the_record_on_each_database(world: World) -> None:
    started(world, STRICT)
    assert not started(world, NOTHING)
    assert world.two_persons.demanded(GraveAct.profile)
    assert world.two_persons.demand.mass_revocation == 50
    with world.store.ledger.writing() as tx:
        assert tx.accepted_demand() == STRICT


def test_the_way_back_to_one_approver_takes_as_many_as_were_demanded(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    ada, sam, kim = world.operator("ada"), world.operator("sam", "security-officer"), world.operator("kim", "security-officer")
    three = replace(STRICT, approvers=2)
    started(world, three)
    assert not started(world, STRICT)
    approved(world, ada, sam, demand=STRICT)
    assert not started(world, STRICT), "one approval was never enough for that"
    approved(world, ada, sam, kim, demand=STRICT)
    assert started(world, STRICT)
    world.close()


def test_a_deployment_that_demands_nothing_has_nothing_on_record(world: World) -> None:
    assert started(world, NOTHING)
    assert world.leaves("demand") == []


def test_recovery_brings_the_demand_back_and_never_a_looser_one(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    started(world, replace(STRICT, mass_revocation=70))
    started(world, STRICT)
    again = world.lost()
    for _ in range(2):
        again.recovery.recover()
        with again.store.ledger.writing() as tx:
            assert tx.accepted_demand() == STRICT
    assert len(again.leaves("demand")) == 1, "it may be repeated"
    assert not started(again, NOTHING), "a lost database does not forget it"
    stricter_still = replace(STRICT, approvers=3)
    with again.store.ledger.writing() as tx:
        tx.accept_demand(stricter_still)
    again.recovery.recover()
    with again.store.ledger.writing() as tx:
        assert tx.accepted_demand() == stricter_still, "the database knows more than the journal"
    again.close()


@pytest.mark.parametrize(
    ("known", "wanted", "less"),
    [
        pytest.param(None, NOTHING, False, id="nothing on record"),
        pytest.param(STRICT, STRICT, False, id="the same"),
        pytest.param(STRICT, replace(STRICT, acts=STRICT.acts | {GraveAct.ca_certificate}), False, id="an act more"),
        pytest.param(STRICT, replace(STRICT, approvers=2), False, id="an approver more"),
        pytest.param(STRICT, replace(STRICT, mass_revocation=1), False, id="many is fewer"),
        pytest.param(replace(STRICT, approvers=2), STRICT, True, id="an approver less"),
        pytest.param(STRICT, replace(STRICT, approvers=5, acts=frozenset()), True, id="more approvers for nothing"),
    ],
)
def test_what_is_less(known: Demand | None, wanted: Demand, less: bool) -> None:
    assert loosens(wanted, known) is less


# ---- Who tells of it ------------------------------------------------------------------------------------------------


def told_of(*steps: tuple[Demand, str]) -> list[str]:
    """What an audit finds in a log that says so of the demand, one after the other."""
    edge, full = tiles.grow(tiles.Edge(), [leaf.demand(subject_of(demand), request=request, at=NOW).body for demand, request in steps])
    files = MemoryFiles({tile.path: octets for tile, octets in [*full, *tiles.partials(edge)]})
    key = LogKey()
    text = note.checkpoint_text("demo", edge.size, edge.root())
    name = note.note_key("demo", key.spki)
    files.files["checkpoint"] = note.signed_note(text, name, key.sign(text.encode()))
    record = MemoryRecord()
    record.state.demand = steps[-1][0]
    return [finding.what for finding in verify(Files("LOG", files), keys=[name], database=record).findings if "demand" in finding.what]


def test_the_audit_names_a_demand_that_became_less_by_nobodys_word() -> None:
    assert told_of((STRICT, ""), (replace(STRICT, approvers=2), "")) == []
    assert told_of((STRICT, ""), (NOTHING, "ab" * 32)) == []
    (found,) = told_of((STRICT, ""), (NOTHING, ""), (NOTHING, ""))
    assert "leaf 1 demands less of two persons" in found


def test_the_doctor_says_what_the_settings_leave_out_and_who_is_missing(tmp_path: Path) -> None:
    made = deployment.create(tmp_path / "fleet", deployment.Wanted(two_persons=True), chance=SystemChance())
    settings = forms.read_settings(made.settings)
    migrate(forms.store_url(settings))

    def says() -> list[tuple[Level, str]]:
        patient = Patient(forms.read_settings(made.settings), SetClock(), (), None, None)
        return [(one.level, one.what) for one in checks_people.two_persons(patient)]

    def record(act: Callable[[Writing], object]) -> None:
        store = open_store(forms.store_url(settings))
        with store.ledger.writing() as tx:
            act(tx)
        store.close()

    assert says() == [(Level.note, "Nobody could approve what needs two persons.")]
    record(lambda tx: tx.accept_demand(forms.demand(settings)))
    record(lambda tx: tx.add_operator(Operator(OperatorName("sam"), DEFAULT_TENANT, ("security-officer",), NOW, None)))
    assert [level for level, _ in says()] == [Level.ok]
    made.settings.write_text(re.sub(r"(?m)^two_persons = .*", "two_persons = []", made.settings.read_text()))
    assert says()[0] == (Level.finding, "The settings leave less to two persons than was demanded before.")
    record(lambda tx: tx.add_operator(Operator(OperatorName("max"), DEFAULT_TENANT, ("admin", "auditor"), NOW, None)))
    assert (Level.finding, "The operator max is refused: max cannot be admin and auditor at once.") in says()
