"""Requests that are each well-formed and together an attack: seen, copied, mixed or sent twice (P2, R02, R17)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ca.errors import FleetcaError
from ca.model import (
    ConfirmRequest,
    DeviceId,
    Issued,
    IssueRequest,
    IssuerId,
    MessageEvidence,
    Name,
    NameKind,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    TokenEvidence,
    TokenRequest,
)
from ca.rules.caps import Caps
from ca.rules.grant import OPERATOR_DEVICE
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.certificates import DAY, NOW
from tests.fakes.signer_world import Keypair, World
from tests.refusals import refused

BROKER, BANK = Name(NameKind.dns, "broker.example"), Name(NameKind.dns, "bank.example")


# ---- Signed messages that passed by ---------------------------------------------------------------------------------


def test_R17_a_release_that_was_seen_does_not_release_a_later_hold(world: World) -> None:
    ada, pump = world.operator(), world.enrol()
    ref = world.row(pump).ref

    def asked(reason: Reason) -> RevokeRequest:
        return RevokeRequest(world.message(ada, Act.revoke, reason=reason, target=ref), reason, target=ref)

    hold, release, again = asked(Reason.certificateHold), asked(Reason.removeFromCRL), asked(Reason.certificateHold)
    for step in (hold, release, again):
        world.revoke(step, Role.enroll)
    refused("message-replayed", lambda: world.revoke(release, Role.enroll))
    assert world.row(pump).revocation is not None
    assert world.row(pump).revocation.reason is Reason.certificateHold  # type: ignore[union-attr]
    # And a hold that was lifted does not come back by its old message.
    world.revoke(asked(Reason.removeFromCRL), Role.enroll)
    refused("message-replayed", lambda: world.revoke(again, Role.enroll))
    refused("message-replayed", lambda: world.revoke(hold, Role.enroll))


def test_R02_a_revocation_that_is_sent_again_finds_what_it_made(world: World) -> None:
    ada, pump = world.operator(), world.enrol()
    ref = world.row(pump).ref
    asked = RevokeRequest(world.message(ada, Act.revoke, reason=Reason.keyCompromise, target=ref), Reason.keyCompromise, target=ref)
    assert world.revoke(asked, Role.enroll) == world.revoke(asked, Role.enroll)


def test_R17_a_message_signed_again_by_a_stranger_gets_nothing(world: World) -> None:
    pump, csr = world.enrol(), Keypair().csr()
    said = world.message(pump, Act.renew, csr=csr)
    first = world.issue(IssueRequest(csr, said))
    stranger = world.enrol("valve-1")
    copied = MessageEvidence(said.payload, stranger.certificate, stranger.sign(said.payload))
    refused("key-of-another-device", lambda: world.issue(IssueRequest(csr, copied)))
    made_up = Keypair()
    made_up.certificate = _self_signed(made_up)
    copied = MessageEvidence(said.payload, made_up.certificate, made_up.sign(said.payload))
    refused("certificate-unknown", lambda: world.issue(IssueRequest(csr, copied)))
    # Its owner is answered as ever, also after a cut connection; ECDSA gives another signature each time.
    again = MessageEvidence(said.payload, pump.certificate, pump.sign(said.payload))
    assert world.issue(IssueRequest(csr, again)).certificate.ref == first.certificate.ref


def _self_signed(pair: Keypair) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pump-17")])
    start = datetime.fromtimestamp(NOW - DAY, UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(pair.private.public_key()).serial_number(7)
    made = made.not_valid_before(start).not_valid_after(start + timedelta(days=9))
    return made.sign(pair.private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


# ---- Equal requests with unequal wishes -----------------------------------------------------------------------------

WISHES = [
    pytest.param({"device": DeviceId("broker-2")}, id="another device"),
    pytest.param({"profile": ProfileName("device")}, id="another profile"),
    pytest.param({"names": (BANK,)}, id="another name"),
    pytest.param({"names": (BROKER, BANK)}, id="one name more"),
    pytest.param({"issuer": IssuerId("root")}, id="another issuer"),
]


@pytest.mark.parametrize("together", [pytest.param(True, id="in one batch"), pytest.param(False, id="one after the other")])
@pytest.mark.parametrize("other", WISHES)
def test_R02_the_same_csr_with_other_wishes_never_gets_the_first_ones_certificate(
    world: World, other: dict[str, Any], together: bool
) -> None:
    csr = Keypair().csr()
    first = IssueRequest(csr, world.local(Role.operator), DeviceId("broker-1"), ProfileName("service"), (BROKER,))
    second = replace(first, **other)
    peer = world.peer(Role.operator)
    batches = [[(first, peer), (second, peer)]] if together else [[(first, peer)], [(second, peer)]]
    outcomes = [outcome for batch in batches for outcome in world.issuing.issue(batch)]
    assert isinstance(outcomes[0], Issued)
    assert isinstance(outcomes[1], FleetcaError)
    assert outcomes[1].code == "request-differs"


# ---- Presenting what others hold ------------------------------------------------------------------------------------


def test_P2_what_a_web_process_only_presents_is_bound_by_its_caps_also_in_revoking_and_confirming(tmp_path: Path) -> None:
    caps = {Role.enroll: Caps(profiles=frozenset({ProfileName("device")}), devices=("pump-*",))}
    world = World(tmp_path, sqlite_url(tmp_path), caps=caps)
    pump, valve, short = world.enrol("pump-1"), world.enrol("valve-1"), world.enrol("pump-2", "device-short")
    for beyond in (valve, short):
        shown = PresentedCertificate(beyond.certificate)
        refused("over-the-cap", lambda shown=shown: world.revoke(RevokeRequest(shown, Reason.keyCompromise), Role.enroll))  # type: ignore[misc]
        refused("over-the-cap", lambda shown=shown: world.confirming.confirm(ConfirmRequest(shown), world.peer(Role.enroll)))  # type: ignore[misc]
    world.confirm(pump)
    world.revoke(RevokeRequest(PresentedCertificate(pump.certificate), Reason.keyCompromise), Role.enroll)
    world.close()


def test_P2_a_stolen_web_process_does_not_lock_operators_out_by_presenting_their_certificates(world: World) -> None:
    ada = world.operator()
    shown = PresentedCertificate(ada.certificate)
    refused("not-by-presenting", lambda: world.revoke(RevokeRequest(shown, Reason.keyCompromise), Role.enroll))
    refused("not-by-presenting", lambda: world.confirming.confirm(ConfirmRequest(shown), world.peer(Role.enroll)))
    # Its key may.
    ref = world.row(ada).ref
    asked = world.message(ada, Act.revoke, reason=Reason.keyCompromise, target=ref)
    assert world.revoke(RevokeRequest(asked, Reason.keyCompromise, target=ref), Role.enroll)[0].ref == ref
    assert world.row(ada).device == OPERATOR_DEVICE + "ada"


# ---- After a restore ------------------------------------------------------------------------------------------------


def _restored(world: World, backup: Path) -> None:
    """The database as it was, and then what the journal knows."""
    world.store.close()
    shutil.copy(backup, world.folder / "fleetca.db")
    world._open()
    world.recovery.recover()


def test_a_message_that_acted_acts_no_second_time_on_a_restored_database(world: World, tmp_path: Path) -> None:
    """Within the 300 seconds in which it counts, whoever saw it could send it again."""
    ada, pair = world.operator(), world.enrol()
    ref = world.row(pair).ref
    world.witness.settle()
    world.store.close()
    backup = tmp_path / "backup.db"
    shutil.copy(world.folder / "fleetca.db", backup)
    world._open()

    said: dict[str, Any] = {"device": DeviceId("pump-1"), "profile": ProfileName("device"), "lifetime": 60}
    order = TokenRequest(world.message(ada, Act.create_token, **said), names=(), **said)
    made = world.tokens.create(order, world.peer(Role.enroll))
    hold, release = (
        RevokeRequest(world.message(ada, Act.revoke, reason=reason, target=ref), reason, ref)
        for reason in (Reason.certificateHold, Reason.removeFromCRL)
    )
    for one in (hold, release):
        world.revoke(one, Role.enroll)
    for _ in range(2):
        _restored(world, backup)
        refused("message-replayed", lambda: world.tokens.create(order, world.peer(Role.enroll)))
        refused("message-replayed", lambda: world.revoke(hold, Role.enroll))
        assert [leaf["hash"] for leaf in world.leaves("token")].count(made.token.hash.hex()) == 1
        world.recovery.recover()  # again: harmless
    # The token itself is known, and works once.
    csr = Keypair().csr()
    assert world.issue(IssueRequest(csr, TokenEvidence(made.text))).certificate.device == "pump-1"
