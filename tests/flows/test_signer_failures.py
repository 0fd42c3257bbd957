"""When parts of the signer fail: key, journal, record, clock and chance, and what is on record afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ca.errors import Broken, ClockUntrusted, FleetcaError, KeyUnavailable, StoreUnavailable
from ca.model import (
    CertificateState,
    Digest,
    Issued,
    IssueRequest,
    PresentedCertificate,
    ProfileName,
    Role,
    TokenEvidence,
)
from ca.rules import testimony
from tests.databases import sqlite_url
from tests.fakes.certificates import issuing, key
from tests.fakes.signer_world import DAY, NOW, CountingKey, Keypair, World
from tests.refusals import refused

DEVICE = ProfileName("device")


def test_R14_a_key_that_is_gone_gives_up_its_intents_and_works_again_without_restart(both: World) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(both.token().text))
    both.key.broken = KeyUnavailable("hsm-gone", "The token was pulled out.")
    refused("hsm-gone", lambda: both.issue(request))
    (lost,) = both.rows()
    assert lost.state is CertificateState.void
    assert lost.revocation is not None
    both.key.broken = None
    issued = both.issue(request)
    assert not issued.repeated
    assert issued.certificate.ref != lost.ref
    assert len(both.key.signed) == 1
    assert [leaf["kind"] for leaf in both.leaves()] == ["token", "device", "issuance", "void", "revocation", "issuance"]


def test_P11_a_wrong_signature_is_never_released(world: World) -> None:
    class Lying(CountingKey):
        def sign(self, message: bytes) -> bytes:
            return super().sign(message + b"\0")

    honest, world.key = world.key, Lying(key("p256", "issuing"))
    world.restart()
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(world.token().text))
    error = refused("reread", lambda: world.issue(request))
    assert isinstance(error, Broken)
    assert [row.state for row in world.rows()] == [CertificateState.void]
    world.key = honest
    world.restart()
    assert world.issue(request).certificate.state is CertificateState.issued


def test_without_the_journal_nothing_is_signed(world: World) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(world.token().text))
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    refused("journal-failed", lambda: world.issue(request))
    assert world.key.signed == []
    assert [row.state for row in world.rows()] == [CertificateState.void]
    world.journal.broken = None
    assert world.issue(request)
    world.witness.settle()
    told = [testimony.read(octets) for octets in world.journal.records()]
    said = [type(one) for one in told if isinstance(one, testimony.Intended | testimony.GivenUp | testimony.Signed)]
    assert said == [testimony.Intended, testimony.GivenUp, testimony.Intended, testimony.Signed]


def test_R26_while_the_journal_cannot_be_written_nothing_more_is_decided_than_memory_bears(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ca.issue.MOST_UNHEARD", 6)
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(world.token(f"pump-{number}").text)) for number in range(9)]
    world.witness.settle()
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    for request in requests:
        refused("journal-failed", lambda: world.issue(request))  # noqa: B023 - called at once
    assert world.witness.waiting <= 9
    assert len(world.rows()) < len(requests)
    world.journal.broken = None
    assert all(world.issue(request).certificate.der for request in requests)


def test_P8_issuance_stops_when_a_leaf_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from ca.store.ledger import SqlWriting

    def full(self: object, leaf: object) -> Digest:
        raise StoreUnavailable("disk-full", "The disk of the database is full.")

    pair = Keypair()
    text = world.token().text
    monkeypatch.setattr(SqlWriting, "append_leaf", full)
    refused("disk-full", lambda: world.issue(IssueRequest(pair.csr(), TokenEvidence(text))))
    assert world.key.signed == []
    assert world.rows() == []
    monkeypatch.undo()
    assert world.issue(IssueRequest(pair.csr(), TokenEvidence(text)))


def test_R24_a_clock_set_back_stops_issuing_and_revoking_until_it_is_right(both: World) -> None:
    pair = both.enrol()
    both.clock.at = NOW - 3
    for call in (both.enrol, lambda: both.renew(pair), lambda: both.revoke_certificate(pair), both.token, lambda: both.confirm(pair)):
        error = refused("clock-set-back", call)
        assert isinstance(error, ClockUntrusted)
    both.clock.at = NOW - 2
    assert both.row(both.renew(pair)).intended_at == NOW
    both.restart()
    both.clock.at = NOW - 3600
    refused("clock-set-back", lambda: both.renew(pair))


def test_R24_a_clock_that_ran_ahead_is_forgiven_by_a_person_and_on_the_record(world: World) -> None:
    world.clock.at = NOW + 4 * 365 * DAY
    world.token()
    world.clock.at = NOW
    refused("clock-set-back", world.enrol)
    assert world.recovery.accept_clock(actor="uid:0") == NOW + 4 * 365 * DAY
    assert world.recovery.accept_clock(actor="uid:0") is None
    assert world.enrol()
    assert [leaf["actor"] for leaf in world.leaves("clock")] == ["uid:0"]


def test_R23_a_certificate_that_would_outlive_its_issuer_is_refused_with_the_date_that_works(world: World) -> None:
    world.clock.at = issuing().not_after - DAY
    error = refused("outlives-issuer", world.enrol)
    assert "last date that works" in error.fix


def test_R03_a_taken_serial_number_is_drawn_again_and_never_overwrites(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))

    class Stuck:
        """Repeats itself, then recovers."""

        def __init__(self) -> None:
            self.draws = 0

        def octets(self, count: int) -> bytes:
            self.draws += 1
            return bytes(count) if self.draws < 3 else bytes([self.draws]) * count

    chance = Stuck()
    world.issuing._chance = chance
    first = world.enrol("pump-1")
    second = world.enrol("pump-2")
    assert world.row(first).ref != world.row(second).ref
    assert chance.draws == 3
    world.issuing._chance = type("Dead", (), {"octets": staticmethod(bytes)})()
    error = refused("serial", lambda: world.enrol("pump-3"))
    assert isinstance(error, Broken)
    assert len(world.rows()) == 2
    world.close()


def test_R03_a_serial_number_that_repeats_within_a_batch_is_drawn_again_and_the_batch_goes_on(world: World) -> None:
    class Stuttering:
        """Gives each number twice."""

        draws = 0

        def octets(self, count: int) -> bytes:
            self.draws += 1
            return bytes([self.draws // 2]) * count

    batch = [IssueRequest(Keypair().csr(), TokenEvidence(world.token(f"pump-{number}").text)) for number in range(6)]
    world.issuing._chance = Stuttering()
    outcomes = world.issuing.issue([(request, world.peer(Role.enroll)) for request in batch])
    assert [type(outcome) for outcome in outcomes] == [Issued] * 6
    assert len({row.ref for row in world.rows()}) == 6
    assert len(world.leaves("issuance")) == 6


def test_P9_renewals_of_one_parent_in_a_batch_see_each_other_and_who_comes_from_elsewhere(world: World) -> None:
    """A batch asks ahead for what it needs; the second of two that touch the same things must see what the first did."""
    parent, stranger = world.enrol("pump-1"), world.enrol("pump-2")
    world.clock.at += 5 * DAY
    shared, own = Keypair().csr(), Keypair().csr()
    batch = [
        IssueRequest(shared, PresentedCertificate(parent.certificate)),
        IssueRequest(shared, PresentedCertificate(stranger.certificate)),
        IssueRequest(own, PresentedCertificate(stranger.certificate)),
        IssueRequest(Keypair().csr(), PresentedCertificate(parent.certificate)),
        IssueRequest(shared, PresentedCertificate(parent.certificate)),
    ]
    outcomes = world.issuing.issue([(request, world.peer(Role.enroll)) for request in batch])
    told = [outcome.code if isinstance(outcome, FleetcaError) else outcome.certificate.device for outcome in outcomes]
    assert told == ["pump-1", "key-of-another-device", "pump-2", "pump-1", "pump-1"]
    assert outcomes[4] == replace(outcomes[0], repeated=True)  # type: ignore[type-var]  # an Issued, as told
    parents = [row.parent for row in world.rows() if row.parent is not None]
    assert sorted(parents, key=str) == sorted([world.row(parent).ref] * 2 + [world.row(stranger).ref], key=str)
