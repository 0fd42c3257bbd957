"""Keys that hardware vouches for, at the signer's door: device, attested key and CSR are of one, and the record says why it was believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Conflict, Denied, FleetcaError, Unauthenticated
from ca.model import (
    AttestationKind,
    Challenge,
    ChallengeRequest,
    DeviceId,
    Issued,
    IssueRequest,
    KnownHardware,
    LocalEvidence,
    ManufacturerCertificate,
    PresentedCertificate,
    ProfileName,
    Role,
    RootOfTrust,
    TokenEvidence,
    TpmAttestation,
)
from ca.rules.attestation import challenge as challenges
from ca.rules.caps import Attesting, Caps, Manufacturer, TpmMaker
from ca.rules.message import Act
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.factory import factory, factory_device
from tests.fakes.signer_world import DAY, Keypair, World, changed, der_of
from tests.fakes.tpm import FREE, FakeTpm, Maker, public_area

MAKER = Maker()
ATTESTED = ProfileName("attested")
FACTORY, FACTORY_CA = factory("acme")


@pytest.fixture
def made_with() -> dict[str, Any]:
    plain = shipped_profiles()[ProfileName("device")]
    profiles = {
        ATTESTED: changed(plain, name=ATTESTED, attestation=(AttestationKind.tpm,)),
        ProfileName("rooted"): changed(plain, name=ProfileName("rooted"), roots_of_trust=(RootOfTrust.tpm,)),
        ProfileName("any"): changed(plain, name=ProfileName("any"), attestation=tuple(AttestationKind)),
    }
    caps = {
        Role.enroll: Caps(manufacturers=(Manufacturer("acme", FACTORY_CA, "acme:", (ProfileName("device"), ProfileName("any"), ATTESTED)),))
    }
    attesting = Attesting((TpmMaker("maker", (MAKER.certificate(of_root=True),)),), (ATTESTED, ProfileName("device")))
    return {"caps": caps, "profiles": profiles, "attesting": attesting}


def challenge(world: World, tpm: FakeTpm) -> Challenge:
    return world.challenging.challenge(ChallengeRequest(tpm.chain, tpm.ak_area), world.peer(Role.enroll))


def attest(world: World, tpm: FakeTpm, pair: Keypair, **changes: Any) -> TpmAttestation:
    return tpm.attestation(challenge(world, tpm), pair.private, **changes)


def enrol(world: World, tpm: FakeTpm, device: str = "pump-17", *, pair: Keypair | None = None, profile: str = ATTESTED) -> Keypair:
    pair = pair or Keypair()
    token = TokenEvidence(world.token(device, profile).text)
    pair.certificate = der_of(world.issue(IssueRequest(pair.csr(), token, attestation=attest(world, tpm, pair))))
    return pair


def refused(world: World, request: IssueRequest) -> FleetcaError:
    with pytest.raises(FleetcaError) as caught:
        world.issue(request)
    return caught.value


def timeline(world: World, device: str = "pump-17") -> str:
    events, _ = world.store.reading.device_events(DeviceId(device))
    return "\n".join(f"{one.what}: {one.about}" for one in events)


# ---- What holds ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-046", "REQ-KEY-056")
def test_an_attested_key_gets_a_certificate_and_the_record_says_why(world: World) -> None:
    tpm = FakeTpm(MAKER)
    enrol(world, tpm)
    facts = world.store.reading.device_facts(DeviceId("pump-17"))
    assert facts is not None
    assert facts.root_of_trust is RootOfTrust.tpm
    assert [(one.kind, one.source) for one in facts.anchors] == [(AttestationKind.tpm, "maker")]
    said = timeline(world)
    assert "tpm-certified: A TPM of maker maker (id:00001014, model fake, version id:0001" in said
    assert "known by tpm key sha256:" in said
    (leaf,) = world.leaves("issuance")
    assert leaf["attestation"]["rule"] == "tpm-certified"
    assert leaf["attestation"]["anchor"] == facts.anchors[0].spki_sha256.hex()


@pytest.mark.req("REQ-KEY-046")
def test_each_renewal_is_attested_anew_by_the_same_TPM(world: World) -> None:
    tpm = FakeTpm(MAKER)
    old = enrol(world, tpm)
    world.clock.at += 5 * DAY
    soft = Keypair()
    without = refused(world, IssueRequest(soft.csr(), PresentedCertificate(old.certificate)))
    assert without.code == "attestation-needed", "a renewal is no way to a key outside"
    new = Keypair()
    given = attest(world, tpm, new)
    world.issue(IssueRequest(new.csr(), PresentedCertificate(old.certificate), attestation=given))
    assert timeline(world).count("tpm-certified") == 2


@pytest.mark.req("REQ-KEY-046")
def test_a_device_whose_TPM_is_on_record_enrols_again_without_a_token(world: World) -> None:
    tpm = FakeTpm(MAKER)
    enrol(world, tpm)
    world.clock.at += 400 * DAY
    pair = Keypair()
    made = world.issue(IssueRequest(pair.csr(), KnownHardware(), attestation=attest(world, tpm, pair)))
    assert (made.certificate.device, made.certificate.profile) == ("pump-17", "attested")
    stranger = Keypair()
    unknown = refused(world, IssueRequest(stranger.csr(), KnownHardware(), attestation=attest(world, FakeTpm(MAKER), stranger)))
    assert (type(unknown), unknown.code) == (Unauthenticated, "hardware-unknown")
    assert refused(world, IssueRequest(stranger.csr(), KnownHardware())).code == "hardware-unknown"


def test_a_TPM_that_is_shown_need_not_be_told_as_well(world: World) -> None:
    """A profile for devices with a TPM takes one that proves it, and nobody has to describe the device before."""
    pair = Keypair()
    token = TokenEvidence(world.token("pump-17", "rooted").text)
    assert refused(world, IssueRequest(pair.csr(), token)).code == "root-of-trust-needed"
    world.issue(IssueRequest(pair.csr(), token, attestation=attest(world, FakeTpm(MAKER), pair)))
    facts = world.store.reading.device_facts(DeviceId("pump-17"))
    assert facts is not None
    assert facts.root_of_trust is RootOfTrust.tpm


# ---- Swaps --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-056")
def test_P9_swapped_device_swapped_key_and_swapped_request_are_each_refused_by_name(world: World) -> None:
    mine, yours = FakeTpm(MAKER), FakeTpm(MAKER)
    enrol(world, mine, "mine")
    enrol(world, yours, "yours")
    pair, another = Keypair(), Keypair()
    given = attest(world, mine, pair)

    def ask(key: Keypair, device: str, shown: TpmAttestation | None) -> IssueRequest:
        return IssueRequest(key.csr(), TokenEvidence(world.token(device, "attested").text), attestation=shown)

    assert refused(world, ask(another, "mine", given)).code == "attested-key-differs", "the CSR was swapped"
    swapped = replace(given, key=public_area(another.private.public_key()))
    assert refused(world, ask(another, "mine", swapped)).code == "attest-name", "the attested key was swapped"
    assert refused(world, ask(pair, "yours", given)).code == "tpm-of-another-device", "the device was swapped"
    third = refused(world, ask(pair, "third", given))
    assert (type(third), third.code) == (Conflict, "hardware-of-another-device"), "the TPM would become two devices"
    assert len(world.rows()) == 2
    assert world.store.reading.find_device(DeviceId("third")) is None


def test_a_TPM_that_was_replaced_is_another_device(world: World) -> None:
    enrol(world, FakeTpm(MAKER))
    pair = Keypair()
    token = TokenEvidence(world.token("pump-17", "attested").text)
    found = refused(world, IssueRequest(pair.csr(), token, attestation=attest(world, FakeTpm(MAKER), pair)))
    assert found.code == "tpm-of-another-device"


def test_what_is_shown_and_wrong_is_refused_also_where_nobody_asked(world: World) -> None:
    pair, another = Keypair(), Keypair()
    given = attest(world, FakeTpm(MAKER), another)
    assert refused(world, IssueRequest(pair.csr(), TokenEvidence(world.token().text), attestation=given)).code == "attested-key-differs"


# ---- Challenges ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-046")
def test_R02_a_challenge_is_good_for_one_request_and_for_its_repeats(world: World) -> None:
    tpm, pair = FakeTpm(MAKER), Keypair()
    asked = challenge(world, tpm)
    first = IssueRequest(
        pair.csr(), TokenEvidence(world.token("pump-17", "attested").text), attestation=tpm.attestation(asked, pair.private)
    )
    made = world.issue(first)
    world.clock.at += 2 * challenges.LIFETIME
    again = world.issue(first)
    assert (again.repeated, again.certificate.ref) == (True, made.certificate.ref), "its answer may have been lost"
    world.clock.at -= 2 * challenges.LIFETIME - 60
    other = Keypair()
    replayed = replace(first, csr=other.csr(), attestation=tpm.attestation(asked, other.private))
    replayed = replace(replayed, evidence=TokenEvidence(world.token("pump-17", "attested").text))
    found = refused(world, replayed)
    assert (type(found), found.code) == (Conflict, "challenge-used")


def test_a_challenge_ends_and_a_used_one_is_known_after_the_database_was_lost(world: World, tmp_path: Path) -> None:
    tpm, pair, late = FakeTpm(MAKER), Keypair(), Keypair()
    asked = challenge(world, tpm)
    made = IssueRequest(
        pair.csr(), TokenEvidence(world.token("pump-17", "attested").text), attestation=tpm.attestation(asked, pair.private)
    )
    world.issue(made)
    world.store.close()
    for file in tmp_path.glob("*.db*"):
        file.unlink()
    sqlite_url(tmp_path)
    world.restart()
    world.recovery.recover()
    facts = world.store.reading.device_facts(DeviceId("pump-17"))
    assert facts is not None
    assert [one.kind for one in facts.anchors] == [AttestationKind.tpm]
    token = TokenEvidence(world.token("pump-17", "attested").text)
    assert refused(world, IssueRequest(late.csr(), token, attestation=tpm.attestation(asked, late.private))).code == "challenge-used"
    fresh = attest(world, tpm, late)
    world.clock.at += challenges.LIFETIME
    assert refused(world, IssueRequest(late.csr(), token, attestation=fresh)).code == "challenge-expired"


def test_a_request_that_a_crash_cut_off_is_decided_anew_with_the_same_challenge(world: World) -> None:
    tpm, pair = FakeTpm(MAKER), Keypair()
    request = IssueRequest(pair.csr(), TokenEvidence(world.token("pump-17", "attested").text), attestation=attest(world, tpm, pair))
    world.key.broken = FleetcaError("gone", "The key is away.")
    refused(world, request)
    world.key.broken = None
    world.restart()
    world.recovery.finish()
    assert world.issue(request).certificate.device == "pump-17"


def test_only_the_enrolment_service_asks_for_challenges_and_no_more_than_its_rate(world: World) -> None:
    tpm = FakeTpm(MAKER)
    asked = ChallengeRequest(tpm.chain, tpm.ak_area)
    for role in set(Role) - {Role.enroll}:
        with pytest.raises(Denied):
            world.challenging.challenge(asked, world.peer(role))
    world.caps[Role.enroll] = replace(world.caps[Role.enroll], per_minute=2)
    world.restart()
    for _ in range(2):
        challenge(world, tpm)
    with pytest.raises(FleetcaError) as caught:
        challenge(world, tpm)
    assert caught.value.code == "over-rate"


# ---- One policy over all of it ------------------------------------------------------------------------------------------


def by_factory(world: World, idevid: bytes, pair: Keypair, profile: str, **more: Any) -> Issued:
    return world.issue(IssueRequest(pair.csr(), ManufacturerCertificate(idevid), profile=ProfileName(profile), **more))


@pytest.mark.req("REQ-KEY-056")
def test_a_factory_certificate_says_who_and_the_record_keeps_its_key(world: World) -> None:
    idevid = factory_device(FACTORY, "sn-1")
    first = Keypair()
    first.certificate = der_of(by_factory(world, idevid, first, "any"))
    assert "idevid-shown: The device showed the factory certificate that manufacturer acme gave it" in timeline(world, "acme:sn-1")
    assert "Where the new key lies it does not say." in timeline(world, "acme:sn-1")
    world.clock.at += 5 * DAY
    world.renew(first)
    assert "idevid-renewal: The current key of the device asked" in timeline(world, "acme:sn-1")
    twin = factory_device(FACTORY, "sn-1")
    with pytest.raises(FleetcaError) as caught:
        by_factory(world, twin, Keypair(), "any")
    assert caught.value.code == "factory-key-differs", "the same serial number with another key is another device"


def test_a_profile_that_wants_a_TPM_takes_no_factory_certificate_for_it(world: World) -> None:
    idevid = factory_device(FACTORY, "sn-2")
    with pytest.raises(FleetcaError) as caught:
        by_factory(world, idevid, Keypair(), "attested")
    assert caught.value.code == "attestation-needed"
    assert caught.value.why == "No TPM attested the key."
    pair = Keypair()
    made = by_factory(world, idevid, pair, "attested", attestation=attest(world, FakeTpm(MAKER), pair))
    assert made.certificate.device == "acme:sn-2"


def _signed_by_operator(world: World) -> IssueRequest:
    csr = Keypair().csr()
    message = world.message(world.operator(), Act.issue, csr=csr, device=DeviceId("pump-17"), profile=ATTESTED)
    return IssueRequest(csr, message, DeviceId("pump-17"), ATTESTED)


ROUNDABOUT: list[tuple[str, Callable[[World], IssueRequest]]] = [
    ("a token alone", lambda world: IssueRequest(Keypair().csr(), TokenEvidence(world.token("pump-17", "attested").text))),
    (
        "an operator at the machine",
        lambda world: IssueRequest(Keypair().csr(), world.local(Role.operator), DeviceId("pump-17"), ATTESTED),
    ),
    ("an operator's signature", _signed_by_operator),
]


@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in ROUNDABOUT])
@pytest.mark.req("REQ-KEY-056")
def test_P2_nobody_gets_past_what_the_profile_demands(world: World, ask: Callable[[World], IssueRequest]) -> None:
    request = ask(world)
    role = Role.operator if isinstance(request.evidence, LocalEvidence) else Role.enroll
    role = Role.operator if request.device is not None else role
    with pytest.raises(Denied) as caught:
        world.issue(request, role)
    assert caught.value.code == "attestation-needed"


def test_a_key_that_can_leave_its_TPM_is_refused_at_the_door(world: World) -> None:
    pair = Keypair()
    loose = attest(world, FakeTpm(MAKER), pair, area=public_area(pair.private.public_key(), FREE & ~0x02))
    token = TokenEvidence(world.token("pump-17", "attested").text)
    assert refused(world, IssueRequest(pair.csr(), token, attestation=loose)).code == "key-not-fixed"
    assert not world.rows()


def test_a_quarantined_device_does_not_come_back_by_its_hardware(world: World) -> None:
    from ca.model import Reason

    tpm = FakeTpm(MAKER)
    enrol(world, tpm)
    world.revoke_device("pump-17", Reason.certificateHold)
    pair = Keypair()
    found = refused(world, IssueRequest(pair.csr(), KnownHardware(), attestation=attest(world, tpm, pair)))
    assert found.code == "device-quarantined"
