"""Renewing through the verbs, over a real database and journal: what a certificate that is shown gets, and what a signed message does."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.model import (
    ConfirmRequest,
    DeviceId,
    Issued,
    IssueRequest,
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
from ca.rules.caps import Caps
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import DAY, NOW, Keypair, World
from tests.refusals import refused

DEVICE = ProfileName("device")


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
    twisted = copy(pair)
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
