"""Issuing through the verbs, over a real database and journal: what evidence gets, what is refused, and what a refusal leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Broken, Busy, FleetcaError
from ca.model import (
    CertificateState,
    DeviceId,
    Issued,
    IssueRequest,
    IssuerId,
    Name,
    NameKind,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    TokenEvidence,
)
from ca.rules import merkle, testimony
from ca.rules.caps import Caps
from ca.rules.message import Act
from ca.rules.serial import is_ours
from tests.databases import sqlite_url
from tests.fakes.certificates import key
from tests.fakes.signer_world import CHECK_KEY, CountingKey, Keypair, World, der_of
from tests.refusals import refused

DEVICE = ProfileName("device")


# ---- The way of a good request --------------------------------------------------------------------------------------


def test_P1_a_token_enrols_a_device_and_all_of_it_is_on_record(both: World) -> None:
    pair = Keypair()
    made = both.token()
    issued = both.issue(IssueRequest(pair.csr(), TokenEvidence(made.text)))
    pair.certificate = der_of(issued)
    row = both.row(pair)
    assert row == issued.certificate
    assert row.state is CertificateState.issued
    assert (row.device, row.profile, row.parent) == ("pump-17", "device", None)
    assert row.spki_sha256 == hashlib.sha256(pair.spki).digest()
    assert row.not_after - row.not_before + 1 == both.profiles[DEVICE].lifetime
    assert is_ours(row.ref.serial, CHECK_KEY)
    (told,) = both.leaves("issuance")
    assert told["serial"] == f"{row.ref.serial:040x}"
    assert told["tbs_sha256"] == hashlib.sha256(row.tbs).hexdigest()
    assert told["evidence"] == "token"
    assert told["role"] == "enroll"
    assert issued.leaf == row.leaf
    assert issued.leaf in {merkle.leaf_hash(one.body) for one in both.store.reading.pending_leaves(100)}
    both.witness.settle()
    kinds = [type(testimony.read(octets)) for octets in both.journal.records()]
    assert kinds == [testimony.TokenMade, testimony.Intended, testimony.Signed]
    assert both.key.signed == [row.tbs]


def test_P1_no_signature_is_made_before_its_intent_is_committed_and_journaled(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    inner = world.key

    class Watching(CountingKey):
        def sign(self, message: bytes) -> bytes:
            row = next(row for row in world.rows() if row.tbs == message)
            assert row.state is CertificateState.intended
            told = [testimony.read(octets) for octets in world.journal.records()]
            assert any(isinstance(one, testimony.Intended) and one.intent.draft.tbs == message for one in told)
            return super().sign(message)

    world.key = Watching(key("p256", "issuing"))
    world.restart()
    world.enrol()
    assert len(world.key.signed) == 1
    assert inner.signed == []
    world.close()


@pytest.mark.parametrize("kind", ["p384", "ed25519", "rsa-3072", "ml-dsa-44"])
def test_an_issuer_of_another_kind_issues_the_same_way(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), kind=kind)
    assert world.enrol().certificate
    world.close()


def test_P11_a_policy_that_the_final_octets_break_is_never_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    import ca.issue as verb

    real = verb.draft

    def crooked(**arguments: Any) -> Any:
        made = real(**arguments)
        return replace(made, tbs=made.tbs.replace(b"\x55\x1d\x0f", b"\x55\x1d\x10"))

    monkeypatch.setattr(verb, "draft", crooked)
    error = refused("lint", world.enrol)
    assert isinstance(error, Broken)
    assert world.key.signed == []
    assert world.rows() == []
    monkeypatch.setattr(verb, "draft", real)
    world.enrol("pump-18")
    world.close()


@pytest.mark.parametrize("count", [2, 8])
def test_P11_a_draft_that_breaks_a_rule_costs_no_other_request_of_its_batch(
    both: World, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    import ca.issue as verb

    real = verb.draft

    def crooked(**arguments: Any) -> Any:
        made = real(**arguments)
        return replace(made, tbs=made.tbs.replace(b"\x55\x1d\x0f", b"\x55\x1d\x10")) if arguments["grant"].device == "pump-1" else made

    monkeypatch.setattr(verb, "draft", crooked)
    devices = [f"pump-{number}" for number in range(count)]
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(both.token(device=DeviceId(device)).text)) for device in devices]
    outcomes = both.issuing.issue([(one, both.peer(Role.enroll)) for one in requests])
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Broken)] == ["lint"]
    assert isinstance(outcomes[1], Broken)
    good = {device for device in devices if device != "pump-1"}
    assert {row.device for row in both.rows()} == good
    assert {event["device"] for event in both.leaves("issuance")} == {event["id"] for event in both.leaves("device")} == good
    assert len(both.key.signed) == count - 1
    monkeypatch.setattr(verb, "draft", real)
    again = both.issuing.issue([(one, both.peer(Role.enroll)) for one in requests])
    assert [outcome.repeated for outcome in again if not isinstance(outcome, FleetcaError)] == [device != "pump-1" for device in devices]


# ---- Repeats --------------------------------------------------------------------------------------------------------


def test_R02_a_repeated_request_gets_the_stored_certificate(both: World) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(both.token().text))
    first = both.issue(request)
    again = both.issue(request)
    both.restart()
    after = both.issue(request)
    assert (first.repeated, again.repeated, after.repeated) == (False, True, True)
    assert first.certificate == again.certificate == after.certificate
    assert first.leaf == after.leaf
    assert len(both.key.signed) == 1
    assert len(both.leaves("issuance")) == 1


def test_R02_equal_requests_in_one_batch_get_one_serial(both: World) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(both.token().text))
    outcomes = both.issuing.issue([(request, both.peer(Role.enroll))] * 20)
    assert all(isinstance(one, Issued) for one in outcomes)
    assert len({one.certificate.ref for one in outcomes if isinstance(one, Issued)}) == 1
    assert [one.repeated for one in outcomes if isinstance(one, Issued)] == [False] + [True] * 19
    assert len(both.key.signed) == 1


def test_a_repeat_is_answered_before_anything_is_decided_anew(world: World) -> None:
    pair = Keypair()
    text = world.token(lifetime=10).text
    request = IssueRequest(pair.csr(), TokenEvidence(text))
    first = world.issue(request)
    world.clock.at += 60  # the token has expired, and was used: neither matters to a repeat
    assert world.issue(request).certificate.ref == first.certificate.ref


def test_a_repeat_of_a_request_whose_certificate_has_ended_says_so(world: World) -> None:
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(world.token().text))
    pair.certificate = der_of(world.issue(request))
    world.revoke_certificate(pair)
    refused("request-spent", lambda: world.issue(request))


def test_a_repeat_with_other_wishes_is_refused(world: World) -> None:
    csr = Keypair().csr()
    evidence = world.local(Role.operator)
    world.issue(IssueRequest(csr, evidence, DeviceId("pump-1"), DEVICE), Role.operator)
    refused("request-differs", lambda: world.issue(IssueRequest(csr, evidence, DeviceId("pump-2"), DEVICE), Role.operator))


# ---- Refusals in a batch --------------------------------------------------------------------------------------------


def test_each_request_of_a_batch_has_its_own_savepoint(both: World) -> None:
    good, late, foreign = Keypair(), Keypair(), Keypair()
    text = both.token("pump-1").text
    requests = [
        IssueRequest(good.csr(), TokenEvidence(text)),
        IssueRequest(late.csr(), TokenEvidence(text)),
        IssueRequest(foreign.csr(), TokenEvidence(both.token("pump-2").text), device=DeviceId("pump-3")),
        IssueRequest(b"\x30\x00", TokenEvidence(both.token("pump-4").text)),
        IssueRequest(Keypair().csr(), TokenEvidence(both.token("pump-5").text)),
    ]
    outcomes = both.issuing.issue([(one, both.peer(Role.enroll)) for one in requests])
    found = [one.certificate.device if isinstance(one, Issued) else one.code for one in outcomes]
    assert found == ["pump-1", "token-used", "evidence-for-another-device", "bad-csr", "pump-5"]
    # The refused ones left nothing: their tokens and keys serve on.
    again = both.issue(IssueRequest(foreign.csr(), TokenEvidence(both.token("pump-2").text)))
    assert again.certificate.device == "pump-2"
    assert {leaf["id"] for leaf in both.leaves("device")} == {"pump-1", "pump-2", "pump-5"}


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        pytest.param(
            lambda w: IssueRequest(Keypair().csr(), TokenEvidence("enr_" + "0" * 49)), "token-malformed", id="a token nobody made"
        ),
        pytest.param(
            lambda w: IssueRequest(Keypair().csr(), TokenEvidence(w.token().text), profile=ProfileName("service")),
            "evidence-for-another-profile",
            id="a token of another profile",
        ),
        pytest.param(
            lambda w: IssueRequest(Keypair().csr(), TokenEvidence(w.token().text), names=(Name(NameKind.dns, "bank.example"),)),
            "evidence-for-other-names",
            id="a token that gives no names",
        ),
        pytest.param(
            lambda w: IssueRequest(Keypair().csr(), TokenEvidence(w.token().text), issuer=IssuerId("root")),
            "issuer-not-yours",
            id="a token does not choose the issuer",
        ),
    ],
)
def test_R35_a_token_gives_what_it_was_made_for(world: World, request_of: Callable[[World], IssueRequest], code: str) -> None:
    refused(code, lambda: world.issue(request_of(world)))
    assert world.key.signed == []


def test_R35_an_expired_token_enrols_nobody(world: World) -> None:
    text = world.token(lifetime=10).text
    world.clock.at += 10
    refused("token-expired", lambda: world.issue(IssueRequest(Keypair().csr(), TokenEvidence(text))))


def test_P9_a_key_serves_one_device_ever(both: World) -> None:
    pair = both.enrol("pump-1")
    refused("key-of-another-device", lambda: both.enrol("pump-2", pair=copy(pair)))
    both.revoke_device("pump-1")
    refused("key-of-another-device", lambda: both.enrol("pump-3", pair=copy(pair)))


def test_P9_a_key_has_one_certificate_unless_the_profile_lets_it_be_used_again(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    pair = world.enrol("pump-1")
    refused("key-used-before", lambda: world.renew(pair, pair=copy(pair)))
    world.profiles[DEVICE] = replace(world.profiles[DEVICE], key_reuse=True)
    world.restart()
    assert world.renew(pair, pair=copy(pair)).certificate != pair.certificate
    world.close()


# ---- Caps -----------------------------------------------------------------------------------------------------------


def test_caps_bind_presented_certificates_and_not_signed_messages(tmp_path: Path) -> None:
    caps = {Role.enroll: Caps(profiles=frozenset({ProfileName("device-short")}))}
    world = World(tmp_path, sqlite_url(tmp_path), caps=caps)
    pair = world.enrol()
    refused("over-the-cap", lambda: world.renew(pair))
    csr = Keypair().csr()
    assert world.issue(IssueRequest(csr, world.message(pair, Act.renew, csr=csr)))
    world.close()


def test_the_rate_binds_everything_and_a_repeat_costs_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), caps={Role.enroll: Caps(per_minute=2)})
    pair = Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(world.token("pump-1").text))
    for _ in range(5):
        world.issue(request)
    world.enrol("pump-2")
    text = world.token("pump-3").text
    csr = Keypair().csr()
    refused("over-rate", lambda: world.issue(IssueRequest(csr, TokenEvidence(text))))
    world.clock.at += 30
    assert world.issue(IssueRequest(csr, TokenEvidence(text)))
    world.close()


def test_revocations_and_tokens_have_each_a_rate_of_their_own(tmp_path: Path) -> None:
    """Who spends one of them keeps nobody from the others, least of all from revoking."""
    world = World(tmp_path, sqlite_url(tmp_path), caps={role: Caps(per_minute=3) for role in Role})
    pairs = [world.enrol(f"pump-{n}") for n in range(3)]
    refused("over-rate", world.token)
    for _ in range(5):
        world.revoke_certificate(pairs[0])  # again and again is once
    world.revoke_certificate(pairs[1])
    asked = [RevokeRequest(world.local(Role.operator), Reason.keyCompromise, target=world.row(pair).ref) for pair in pairs]
    third = RevokeRequest(PresentedCertificate(pairs[2].certificate), Reason.keyCompromise)
    # One that is over the rate takes nobody along, and another role has its own.
    world.revoke_device("pump-0")
    *before, over = world.revoking.revoke([(one, world.peer(Role.operator)) for one in asked])
    assert [not isinstance(one, FleetcaError) for one in before] == [True, True]
    assert isinstance(over, Busy)
    assert (over.code, "revocations" in over.what) == ("over-rate", True)
    assert world.row(pairs[2]).revocation is None
    assert world.revoke(third, Role.enroll)
    world.clock.at += 20
    assert world.token("pump-9")
    refused("over-rate", lambda: world.token("pump-9"))
    world.close()
