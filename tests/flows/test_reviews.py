"""Reviews that two persons sign: due by the settings, a finding when they are missing, in the record and in the pack (REQ-KEY-093)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ca.errors import Denied
from ca.model import (
    DEFAULT_TENANT,
    ApprovalDecision,
    Digest,
    GraveAct,
    MessageEvidence,
    OperatorName,
    Proposal,
    ProposalRequest,
    ProposalState,
    Role,
    Statement,
)
from ca.rules import review, two_persons
from ca.rules.message import Act
from ca.rules.review import reviewed_until
from fleetca import checks_people, signing
from fleetca.verdict import Level, Patient
from tests.fakes.evidence import Office
from tests.fakes.signer_world import Keypair, SetClock, World
from tests.flows.test_evidence_documents import AtWork, Fleet, make, read

pytestmark = pytest.mark.req("REQ-KEY-093")
DAY = 86400
SAID = Digest(bytes(32))


def ask(world: World, who: Keypair, first: date, last: date) -> Proposal:
    said = ("review", review.subject_of(first, last, SAID), DAY, "Nothing to object.")
    return world.two_persons.propose(ProposalRequest(world.message(who, Act.propose, proposal=said)), world.peer(Role.operator))


def sign(world: World, who: Keypair, asked: Proposal) -> None:
    digits = asked.request.hex()
    world.approving.decide(
        ApprovalDecision(world.message(who, Act.approve, decision=(digits, True, "")), digits, True, ""), world.peer(Role.operator)
    )


class Reviewed(Fleet):
    """A deployment that is looked at on other days than today."""

    def __init__(self, folder: Path) -> None:
        self.office = Office(folder / "fleet", devices=0)

    def on(self, at: int) -> tuple[Level, str]:
        (said,) = checks_people.reviews(Patient(self.office.settings, SetClock(at), (), None, None))
        return said.level, said.what


def test_a_period_that_nobody_signed_off_is_a_finding_once_the_next_review_is_due(tmp_path: Path) -> None:
    fleet = Reviewed(tmp_path)
    with signing.signer_parts(fleet.office.settings) as parts:
        world = AtWork(fleet.office, parts)
        ada, sam = world.operator("ada"), world.operator("sam", "security-officer")
        now = world.clock.at
        today = datetime.fromtimestamp(now, UTC).date()
        assert fleet.on(now + 91 * DAY)[0] is Level.ok, "none is due yet"
        level, what = fleet.on(now + 93 * DAY)
        assert level is Level.finding and "was not reviewed" in what
        asked = ask(world, ada, today - timedelta(days=2), today + timedelta(days=400))
        assert fleet.on(now + 93 * DAY)[0] is Level.finding, "nobody signed it off"
        with pytest.raises(Denied):
            sign(world, ada, asked)
        assert fleet.on(now + 93 * DAY)[0] is Level.finding, "who asks does not sign it off"
        sign(world, sam, asked)
        assert fleet.on(asked.asked.at + 92 * DAY)[0] is Level.ok
        assert fleet.on(asked.asked.at + 92 * DAY + 1)[0] is Level.finding, "days that had not come were not reviewed"
        world.close()
    fleet.office.sequence()
    out = tmp_path / "pack.zip"
    assert make(fleet, out) == 0
    files = read(out)
    (told,) = json.loads(files["13-findings/findings.json"])["reviews"]
    assert (told["request"], told["evidence_sha256"]) == (asked.request.hex(), SAID.hex())
    assert asked.request.hex().encode() in files["08-access/events.jsonl"]


START = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp())
LATER = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())


def of(first: str, last: str, *, at: int = LATER, state: ProposalState = ProposalState.approved) -> Proposal:
    text = two_persons.subject(GraveAct.review, first_day=first, last_day=last, evidence_sha256=SAID.hex())
    asked = Statement(MessageEvidence(b"", b"", b""), OperatorName("ada"), "Ada", approve=False, at=at, channel="operator/message")
    return Proposal(SAID, DEFAULT_TENANT, GraveAct.review, text, "Nothing to object.", asked, expires=at + DAY, state=state)


@pytest.mark.parametrize(
    ("said", "reached"),
    [
        pytest.param([], "2026-01-01T12", id="nothing was reviewed"),
        pytest.param([("2026-01-01", "2026-01-31")], "2026-02-01T00", id="the last day is within"),
        pytest.param([("2026-02-01", "2026-02-28"), ("2026-01-01", "2026-01-31")], "2026-03-01T00", id="the order of signing is nothing"),
        pytest.param([("2026-01-01", "2026-01-31"), ("2026-02-02", "2026-02-28")], "2026-02-01T00", id="a day between them is a gap"),
        pytest.param([("2026-01-01", "2026-06-30"), ("2026-02-01", "2026-02-28")], "2026-07-01T00", id="one within another takes nothing"),
        pytest.param([("2026-01-02", "2026-06-30")], "2026-01-01T12", id="the first afternoon was left out"),
        pytest.param([("2026-01-01", "9999-12-31")], "2026-01-01T12", id="days that no calendar has"),
        pytest.param([("yesterday", "today")], "2026-01-01T12", id="no days"),
        pytest.param([("2026-06-30", "2026-01-01")], "2026-01-01T12", id="backwards"),
    ],
)
def test_time_counts_as_reviewed_in_one_piece(said: Sequence[tuple[str, str]], reached: str) -> None:
    found = reviewed_until([of(*days) for days in said], START)
    assert datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%dT%H") == reached


@pytest.mark.parametrize("state", [one for one in ProposalState if one is not ProposalState.approved])
def test_a_review_that_is_not_approved_counts_nothing(state: ProposalState) -> None:
    assert reviewed_until([of("2026-01-01", "2026-06-30", state=state)], START) == START


def test_nobody_reviews_what_comes_after_their_signature() -> None:
    assert reviewed_until([of("2026-01-01", "2026-06-30", at=START + DAY)], START) == START + DAY
    assert reviewed_until([of("2026-01-01", "2026-06-30", at=START - DAY)], START) == START
    other = replace(of("2026-01-01", "2026-06-30"), act=GraveAct.revive)
    assert reviewed_until([other], START) == START
