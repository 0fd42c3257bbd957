"""Issuing through the verbs, over a real database and journal: what evidence gets, what is refused, and what a refusal leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Broken, Busy, ClockUntrusted, FleetcaError, KeyUnavailable, StoreUnavailable
from ca.model import (
    CertificateState,
    ConfirmRequest,
    DeviceId,
    Digest,
    Issued,
    IssueRequest,
    IssuerId,
    MessageEvidence,
    Name,
    NameKind,
    OnSuperseded,
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
from tests.fakes.certificates import issuing, key
from tests.fakes.signer_world import CHECK_KEY, DAY, NOW, CountingKey, Keypair, World, der_of
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
    refused("key-of-another-device", lambda: both.enrol("pump-2", pair=Keypair_of(pair)))
    both.revoke_device("pump-1")
    refused("key-of-another-device", lambda: both.enrol("pump-3", pair=Keypair_of(pair)))


def Keypair_of(pair: Keypair) -> Keypair:
    """The same key, asking anew."""
    other = Keypair()
    other.private = pair.private
    return other


def test_P9_a_key_has_one_certificate_unless_the_profile_lets_it_be_used_again(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    pair = world.enrol("pump-1")
    refused("key-used-before", lambda: world.renew(pair, pair=Keypair_of(pair)))
    world.profiles[DEVICE] = replace(world.profiles[DEVICE], key_reuse=True)
    world.restart()
    assert world.renew(pair, pair=Keypair_of(pair)).certificate != pair.certificate
    world.close()


# ---- Renewing -------------------------------------------------------------------------------------------------------


def test_P9_renewals_form_a_lineage_and_an_ancestor_is_superseded_by_its_successors_first_use(both: World) -> None:
    first = both.enrol()
    second = both.renew(first)
    assert both.row(second).parent == both.row(first).ref
    # An unused successor supersedes nobody: its answer may have been lost, and the device asks again with the old one.
    assert both.row(first).superseded_at is None
    twin = both.renew(first)
    confirmed = both.confirm(second)
    assert confirmed.first_used_at == NOW
    assert both.row(first).superseded_at == NOW
    assert both.row(first).revocation is None
    refused("superseded", lambda: both.renew(first))
    refused("superseded", lambda: both.confirm(first))
    # Of all renewals of one certificate the one that is used first stays.
    assert both.row(twin).superseded_at == NOW
    # The next renewal is a first use as well.
    third = both.renew(second)
    fourth = both.renew(third)
    assert both.row(second).superseded_at == NOW
    assert both.row(third).superseded_at is None
    assert both.row(third).first_used_at == NOW
    assert both.row(fourth).first_used_at is None
    assert [leaf["serial"] for leaf in both.leaves("supersede")] == [f"{both.row(one).ref.serial:040x}" for one in (first, twin, second)]
    both.confirm(third)
    assert len(both.leaves("supersede")) == 3


def test_P9_superseding_revokes_where_the_profile_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    world.profiles[DEVICE] = replace(world.profiles[DEVICE], on_superseded=OnSuperseded.revoke)
    world.restart()
    first = world.enrol()
    world.confirm(world.renew(first))
    revoked = world.row(first).revocation
    assert revoked is not None
    assert revoked.reason is Reason.superseded
    (told,) = world.leaves("revocation")
    assert told["actor"] == "signer:superseded"
    world.close()


def test_P9_a_revoked_device_neither_renews_nor_enrols(both: World) -> None:
    first = both.enrol()
    second = both.renew(first)
    waiting = both.token()
    made = both.revoke_device("pump-17")
    assert {change.ref for change in made} == {both.row(first).ref, both.row(second).ref}
    refused("certificate-revoked", lambda: both.renew(second))
    refused("token-revoked", lambda: both.issue(IssueRequest(Keypair().csr(), TokenEvidence(waiting.text))))
    refused("device-retired", both.token)


RENEWALS = [
    pytest.param(lambda w, p: w.revoke_certificate(p), "certificate-revoked", id="revoked"),
    pytest.param(lambda w, p: w.revoke_certificate(p, Reason.certificateHold), "certificate-revoked", id="on hold"),
    pytest.param(lambda w, p: setattr(w.clock, "at", NOW + 8 * DAY), "certificate-expired", id="expired"),
    pytest.param(lambda w, p: w.revoke_device("pump-17"), "certificate-revoked", id="of a revoked device"),
]


@pytest.mark.parametrize(("harm", "code"), RENEWALS)
@pytest.mark.parametrize("by", ["presented", "message"])
def test_a_certificate_that_does_not_hold_renews_nothing(world: World, harm: Callable[[World, Keypair], Any], code: str, by: str) -> None:
    pair = world.enrol()
    harm(world, pair)
    csr = Keypair().csr()
    evidence = PresentedCertificate(pair.certificate) if by == "presented" else world.message(pair, Act.renew, csr=csr)
    refused(code, lambda: world.issue(IssueRequest(csr, evidence)))


@pytest.fixture
def patient(both: World) -> World:
    """Its devices may come back up to 30 days after their certificates ended."""
    both.profiles[DEVICE] = replace(both.profiles[DEVICE], renew_after_expiry=30 * DAY)
    both.restart()
    return both


def _by_message(world: World, pair: Keypair, act: Act = Act.renew, **fields: Any) -> Issued:
    new = Keypair()
    csr = new.csr()
    return world.issue(IssueRequest(csr, world.message(pair, act, csr=csr, **fields), **fields))


def test_an_expired_certificate_renews_by_message_as_late_as_its_profile_allows(patient: World) -> None:
    pair, other = patient.enrol(), patient.enrol("pump-18")
    end = patient.row(pair).not_after
    patient.clock.at = end + 30 * DAY
    renewed = _by_message(patient, pair).certificate
    assert (renewed.parent, renewed.device) == (patient.row(pair).ref, "pump-17")
    assert renewed.not_before <= patient.clock.at <= renewed.not_after
    patient.clock.at += 1
    refused("certificate-expired", lambda: _by_message(patient, other))


def test_an_expired_certificate_never_renews_by_being_presented(patient: World) -> None:
    pair = patient.enrol()
    patient.clock.at = patient.row(pair).not_after + 1
    refused("certificate-expired", lambda: patient.renew(pair))


LATE: list[Any] = [
    pytest.param(lambda w, p: w.revoke_certificate(p), "certificate-revoked", id="revoked before it ended"),
    pytest.param(lambda w, p: w.revoke_certificate(p, Reason.certificateHold), "certificate-revoked", id="on hold when it ended"),
    pytest.param(lambda w, p: w.confirm(w.renew(p)), "superseded", id="whose successor was used"),
    pytest.param(lambda w, p: w.deliver(p, w.renew(p)), "superseded", id="whose successor arrived long ago"),
]


@pytest.mark.parametrize(("harm", "code"), LATE)
def test_P9_lateness_forgives_nothing_else(patient: World, harm: Callable[[World, Keypair], Any], code: str) -> None:
    pair = patient.enrol()
    harm(patient, pair)
    patient.clock.at = patient.row(pair).not_after + DAY
    refused(code, lambda: _by_message(patient, pair))


def test_P9_an_expired_certificate_of_a_device_that_was_revoked_since_does_not_renew(patient: World) -> None:
    pair = patient.enrol()
    patient.clock.at = patient.row(pair).not_after + DAY
    # There is nothing left to revoke but the device itself, and that is enough.
    assert patient.revoke_device("pump-17") == ()
    refused("device-retired", lambda: _by_message(patient, pair))


def test_lateness_is_for_renewals_only_and_judged_by_todays_profile(patient: World) -> None:
    pair = patient.enrol()
    new = patient.renew(pair)
    end = patient.clock.at = patient.row(pair).not_after + DAY
    ref = patient.row(new).ref
    for target in (None, ref):
        evidence = patient.message(pair, Act.confirm, target=target)
        asked = ConfirmRequest(evidence, target)
        refused("certificate-expired", lambda asked=asked: patient.confirming.confirm(asked, patient.peer(Role.enroll)))
    evidence = patient.message(pair, Act.revoke, reason=Reason.keyCompromise, target=ref)
    refused("certificate-expired", lambda: patient.revoke(RevokeRequest(evidence, Reason.keyCompromise, ref), Role.enroll))
    wanted = {"device": DeviceId("pump-9"), "profile": DEVICE}
    refused("certificate-expired", lambda: _by_message(patient, pair, Act.issue, **wanted))
    patient.profiles[DEVICE] = replace(patient.profiles[DEVICE], renew_after_expiry=DAY - 1)
    patient.restart()
    assert patient.clock.at == end
    refused("certificate-expired", lambda: _by_message(patient, pair))


def test_a_released_hold_renews(world: World) -> None:
    pair = world.enrol()
    world.revoke_certificate(pair, Reason.certificateHold)
    world.revoke_certificate(pair, Reason.removeFromCRL)
    assert world.renew(pair).certificate


def test_R34_a_look_alike_certificate_renews_nothing(world: World, tmp_path: Path) -> None:
    pair = world.enrol()
    other = tmp_path / "other"
    other.mkdir()
    forger = World(other, sqlite_url(other))
    # The same issuer, even the same issuing key, and not on our record; then ours with one bit of its signature turned.
    fake = forger.enrol()
    refused("certificate-unknown", lambda: world.renew(fake))
    twisted = Keypair_of(pair)
    twisted.certificate = pair.certificate[:-1] + bytes([pair.certificate[-1] ^ 1])
    refused("certificate-unknown", lambda: world.renew(twisted))
    forger.close()


def test_renewals_are_judged_by_todays_profile(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    pair = world.enrol()
    was = world.profiles[DEVICE]
    for change, code in (
        ({"renewable": False}, "not-renewable"),
        ({"renew_from": 0.5}, "too-early"),
        ({"key_algorithms": ("p384",)}, "key-type"),
    ):
        world.profiles[DEVICE] = replace(was, **change)  # type: ignore[arg-type]
        world.restart()
        refused(code, lambda: world.renew(pair))
    del world.profiles[DEVICE]
    world.restart()
    refused("profile-unknown", lambda: world.renew(pair))
    world.close()


def test_renew_from_counts_from_the_share_of_the_lifetime_that_profile_and_cap_say(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), caps={Role.enroll: Caps(renew_from=0.5)})
    pair = world.enrol()
    row = world.row(pair)
    first = row.not_before + (row.not_after - row.not_before + 1) // 2
    world.clock.at = first - 1
    refused("too-early", lambda: world.renew(pair))
    # The device's own signature is stronger than what a web process says it saw: the cap does not bind it.
    csr = Keypair().csr()
    assert world.issue(IssueRequest(csr, world.message(pair, Act.renew, csr=csr)))
    world.clock.at = first
    assert world.renew(pair).certificate
    world.close()


def test_names_are_kept_in_a_renewal_and_bound_by_the_profile(world: World) -> None:
    names = (Name(NameKind.dns, "broker.example"), Name(NameKind.ip, "192.0.2.7"))
    pair = world.enrol("broker", "service", names=names)
    assert world.row(world.renew(pair)).names == world.row(pair).names
    refused("name-not-allowed", lambda: world.token("broker", "service", names=(Name(NameKind.email, "a@b.example"),)))
    refused("names-required", lambda: world.token("broker", "service"))


# ---- Signed messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa-3072", "ml-dsa-65"])
def test_a_message_signed_with_the_current_key_renews_for_every_kind_of_key(world: World, kind: str) -> None:
    pair = world.enrol(pair=Keypair(kind))
    new = Keypair(kind)
    csr = new.csr()
    evidence = world.message(pair, Act.renew, csr=csr)
    first = world.issue(IssueRequest(csr, evidence))
    assert first.certificate.parent == world.row(pair).ref
    # Signed anew, the same payload is the same message.
    again = MessageEvidence(evidence.payload, evidence.certificate, pair.sign(evidence.payload))
    assert world.issue(IssueRequest(csr, again)).certificate.ref == first.certificate.ref


def test_a_message_counts_for_what_it_says_only(world: World) -> None:
    pair, stranger = world.enrol(), Keypair()
    csr, other = Keypair().csr(), Keypair().csr()
    good = world.message(pair, Act.renew, csr=csr)
    refused("message-for-another-csr", lambda: world.issue(IssueRequest(other, good)))
    refused(
        "bad-signature",
        lambda: world.issue(IssueRequest(csr, replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1])))),
    )
    refused("bad-signature", lambda: world.issue(IssueRequest(csr, replace(good, signature=b""))))
    refused("bad-signature", lambda: world.issue(IssueRequest(csr, replace(good, payload=good.payload.replace(b'"renew"', b'"renew" ')))))
    refused("bad-signature", lambda: world.issue(IssueRequest(csr, replace(good, signature=stranger.sign(good.payload)))))
    refused("message-for-another-deployment", lambda: world.issue(IssueRequest(csr, world.message(pair, Act.renew, csr=csr, audience="b"))))
    refused("message-for-another-act", lambda: world.issue(IssueRequest(csr, world.message(pair, Act.confirm))))
    refused("message-out-of-time", lambda: world.issue(IssueRequest(csr, world.message(pair, Act.renew, csr=csr, issued_at=NOW - 3601))))
    # A device is no operator.
    asks = world.message(pair, Act.issue, csr=csr, device=DeviceId("pump-99"), profile=DEVICE)
    refused("not-an-operator", lambda: world.issue(IssueRequest(csr, asks)))
    assert len(world.key.signed) == 1


def test_an_operators_message_issues_what_its_roles_allow(world: World) -> None:
    ada, eve = world.operator("ada"), world.operator("eve", "revoker")

    def ask(who: Keypair, **fields: Any) -> IssueRequest:
        pair = Keypair()
        csr = pair.csr()
        wanted = {"device": DeviceId("pump-1"), "profile": DEVICE, **fields}
        return IssueRequest(csr, world.message(who, Act.issue, csr=csr, **wanted))

    issued = world.issue(ask(ada))
    assert issued.certificate.device == "pump-1"
    assert world.leaves("issuance")[-1]["actor"] == "operator:ada"
    refused("operator-role", lambda: world.issue(ask(eve)))
    refused("profile-reserved", lambda: world.issue(ask(ada, profile=ProfileName("operator"))))
    refused("profile-reserved", lambda: world.issue(ask(ada, profile=ProfileName("issuing-ca"))))
    refused("device-reserved", lambda: world.issue(ask(ada, device=DeviceId("fleetca:enroll"))))
    world.operators.disable(world.store.reading.operators()[0].name, world.peer(Role.operator))
    refused("operator-unknown", lambda: world.issue(ask(ada)))


def test_an_operator_renews_by_message_and_not_by_presenting(world: World) -> None:
    ada = world.operator("ada")
    world.clock.at += 50 * DAY
    refused("not-by-presenting", lambda: world.renew(ada))
    csr = Keypair().csr()
    issued = world.issue(IssueRequest(csr, world.message(ada, Act.renew, csr=csr)))
    assert (issued.certificate.device, issued.certificate.profile) == ("fleetca:operator:ada", "operator")


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


# ---- When parts fail ------------------------------------------------------------------------------------------------


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


# ---- Tokens, operators, revoking ------------------------------------------------------------------------------------


def test_a_token_is_kept_by_its_hash_only(world: World) -> None:
    made = world.token()
    octets = (world.folder / "fleetca.db").read_bytes()
    assert made.text.encode() not in octets
    assert made.text not in repr(made)
    (told,) = world.leaves("token")
    assert told["hash"] == made.token.hash.hex()
    assert made.text not in str(world.leaves())


def test_P2_tokens_come_from_operators_only(world: World) -> None:
    from ca.model import TokenRequest

    def ask(evidence: Any, role: Role, **fields: Any) -> Any:
        wanted = {"device": DeviceId("pump-1"), "profile": DEVICE, "names": (), "lifetime": 60, **fields}
        return world.tokens.create(TokenRequest(evidence, **wanted), world.peer(role))

    ada, eve, pair = world.operator("ada"), world.operator("eve", "auditor"), world.enrol()
    for role in (Role.enroll, Role.status, Role.publisher):
        refused("not-allowed", lambda role=role: ask(world.local(role), role))
    for role in Role:
        refused("not-allowed", lambda role=role: ask(PresentedCertificate(ada.certificate), role))
    said = {"device": DeviceId("pump-1"), "profile": DEVICE, "lifetime": 60}
    refused("not-an-operator", lambda: ask(world.message(pair, Act.create_token, **said), Role.enroll))
    refused("operator-role", lambda: ask(world.message(eve, Act.create_token, **said), Role.enroll))
    good = world.message(ada, Act.create_token, **said)
    refused("message-for-another-act", lambda: ask(good, Role.enroll, lifetime=6000))
    refused("message-for-another-act", lambda: ask(good, Role.enroll, device=DeviceId("pump-2")))
    assert ask(good, Role.enroll).token.created_by == "operator:ada"
    refused("message-replayed", lambda: ask(good, Role.enroll))
    for profile in ("operator", "ocsp-responder", "issuing-ca", "root"):
        refused("profile-reserved", lambda profile=profile: ask(world.local(Role.operator), Role.operator, profile=ProfileName(profile)))
    refused("device-reserved", lambda: ask(world.local(Role.operator), Role.operator, device=DeviceId("fleetca:enroll")))


@pytest.mark.parametrize("by", ["presented", "message"])
def test_a_device_revokes_its_own_certificate_only(world: World, by: str) -> None:
    mine, other = world.enrol("pump-1"), world.enrol("pump-2")

    def ask(target: Keypair | None, reason: Reason = Reason.keyCompromise, device: str | None = None) -> Any:
        ref = None if target is None else world.row(target).ref
        wanted = None if device is None else DeviceId(device)
        evidence: Any = PresentedCertificate(mine.certificate)
        if by == "message":
            evidence = world.message(mine, Act.revoke, reason=reason, target=ref, device=wanted)
        return world.revoke(RevokeRequest(evidence, reason, ref, wanted), Role.enroll)

    refused("not-your-certificate", lambda: ask(other))
    refused("not-your-certificate", lambda: ask(None, device="pump-1"))
    refused("not-your-certificate", lambda: ask(None, device="pump-2"))
    for reason in (Reason.certificateHold, Reason.removeFromCRL, Reason.privilegeWithdrawn, Reason.cACompromise):
        refused("reason-not-yours", lambda reason=reason: ask(mine, reason))
    (made,) = ask(mine)
    assert made.reason is Reason.keyCompromise
    assert world.row(other).revocation is None
    # It does not speak any more, not even to say so again.
    refused("certificate-revoked", lambda: ask(mine))


def test_an_operators_message_revokes_and_a_presented_one_does_not(world: World) -> None:
    ada, eve, pair = world.operator("ada"), world.operator("eve", "registrar"), world.enrol()
    ref = world.row(pair).ref
    request = RevokeRequest(PresentedCertificate(ada.certificate), Reason.keyCompromise, ref)
    refused("not-your-certificate", lambda: world.revoke(request, Role.enroll))

    def signed(who: Keypair) -> RevokeRequest:
        evidence = world.message(who, Act.revoke, reason=Reason.keyCompromise, target=ref)
        return RevokeRequest(evidence, Reason.keyCompromise, ref)

    refused("operator-role", lambda: world.revoke(signed(eve), Role.enroll))
    good = signed(ada)
    refused("message-for-another-act", lambda: world.revoke(replace(good, reason=Reason.superseded), Role.enroll))
    refused("message-for-another-act", lambda: world.revoke(replace(good, target=world.row(ada).ref), Role.enroll))
    (made,) = world.revoke(good, Role.enroll)
    assert made.ref == ref
    # Repeated, it finds the change it made.
    assert world.revoke(good, Role.enroll) == (made,)
    assert len(world.leaves("revocation")) == 1


def test_revoking_is_numbered_recorded_and_journaled(both: World) -> None:
    pairs = [both.enrol(f"pump-{n}") for n in range(3)]
    requests = [
        (RevokeRequest(both.local(Role.operator), Reason.superseded, both.row(pair).ref), both.peer(Role.operator)) for pair in pairs
    ]
    outcomes = both.revoking.revoke([*requests, (RevokeRequest(both.local(Role.operator), Reason.superseded), both.peer(Role.operator))])
    assert isinstance(outcomes[-1], FleetcaError)
    changes = [one[0].change for one in outcomes[:-1] if not isinstance(one, FleetcaError)]
    assert changes == [1, 2, 3]
    told = [testimony.read(octets) for octets in both.journal.records()]
    assert [one.revocation.change for one in told if isinstance(one, testimony.Changed)] == [1, 2, 3]
    refused(
        "no-such-certificate",
        lambda: both.revoke(RevokeRequest(both.local(Role.operator), Reason.superseded, replace(both.row(pairs[0]).ref, serial=5))),  # type: ignore[arg-type]
    )
    refused("no-such-device", lambda: both.revoke_device("nobody"))


def test_a_revocation_counts_even_when_the_journal_must_wait(world: World) -> None:
    pair = world.enrol()
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    (made,) = world.revoke_certificate(pair)
    assert world.row(pair).revocation == made
    assert world.witness.waiting
    world.journal.broken = None
    world.witness.settle()
    assert any(isinstance(testimony.read(octets), testimony.Changed) for octets in world.journal.records())


def test_revoking_a_certificate_without_status_stops_its_renewal(world: World) -> None:
    pair = world.enrol("pump-1", "device-short")
    (made,) = world.revoke_certificate(pair)
    assert not made.listed
    refused("certificate-revoked", lambda: world.renew(pair))
