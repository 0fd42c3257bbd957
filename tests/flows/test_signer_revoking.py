"""Tokens and revoking through the verbs, over a real database and journal: who may, and what is on record then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ca.errors import FleetcaError, StoreUnavailable
from ca.model import (
    DeviceId,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
)
from ca.rules import testimony
from ca.rules.message import Act
from tests.fakes.signer_world import Keypair, World
from tests.refusals import refused

DEVICE = ProfileName("device")


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
