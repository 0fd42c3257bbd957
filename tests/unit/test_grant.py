"""The one door (P2): what is not allowed by a line is denied, for every verb, role and kind of evidence there is or may come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest

from ca.errors import Denied, FleetcaError
from ca.model import (
    DEFAULT_TENANT,
    ConfirmRequest,
    DeviceId,
    Digest,
    EvidenceKind,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    Name,
    NameKind,
    Peer,
    PresentedCertificate,
    Profile,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    StatusKind,
    TokenEvidence,
)
from ca.rules import asking, grant, permission
from ca.rules import evidence as first_half
from ca.rules.caps import Caps
from ca.rules.evidence import ALLOWED, Claim, Verb
from ca.rules.grant import Policy
from fleetca.forms import shipped_profiles
from tests.fakes.certificates import NOW

PROFILES = shipped_profiles()
OWN = frozenset({Name(NameKind.dns, "enroll.example"), Name(NameKind.ip, "192.0.2.1")})
EVERYTHING = list(product(Verb, Role, EvidenceKind))


def policy(**caps: Caps) -> Policy:
    given = {Role(role): cap for role, cap in caps.items()}
    return Policy("test", DEFAULT_TENANT, IssuerId("issuing"), PROFILES, {Role.enroll: Caps(own_names=OWN), **given})


EXPECTED = {
    Verb.issue: {
        Role.enroll: {"token", "presented", "message", "local", "validated", "manufacturer", "hardware", "unit"},
        Role.status: {"local"},
        Role.publisher: {"local"},
        Role.operator: {"local", "message", "unit"},
    },
    Verb.revoke: {
        Role.enroll: {"presented", "message", "validated"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"local", "message"},
    },
    Verb.create_token: {
        Role.enroll: {"message"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"local", "message"},
    },
    Verb.revoke_token: {
        Role.enroll: set(),
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"local"},
    },
    Verb.order_renewals: {
        Role.enroll: set(),
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"local"},
    },
    Verb.bind_account: {
        Role.enroll: {"binding"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: set(),
    },
    Verb.approve: {
        Role.enroll: {"message"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"local", "message"},
    },
    Verb.open_shift: {
        Role.enroll: {"message"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"message"},
    },
    Verb.propose: {
        Role.enroll: {"message"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: {"message"},
    },
    Verb.confirm: {
        Role.enroll: {"presented", "message"},
        Role.status: set(),
        Role.publisher: set(),
        Role.operator: set(),
    },
}
"""Written a second time, by hand: a line that is added to the rule must be added here by somebody who means it."""


@pytest.mark.parametrize(("verb", "role", "kind"), EVERYTHING, ids=[f"{v.value} as {r.value} by {k.value}" for v, r, k in EVERYTHING])
def test_R17_each_verb_role_and_evidence_is_allowed_by_a_line_or_denied(verb: Verb, role: Role, kind: EvidenceKind) -> None:
    peer = Peer(role, 1)
    if kind.value in EXPECTED[verb][role]:
        first_half.allowed(verb, peer, kind)
        assert (verb, role, kind) in ALLOWED
        return
    with pytest.raises(Denied) as caught:
        first_half.allowed(verb, peer, kind)
    assert caught.value.code == "not-allowed"


def test_R17_the_table_of_this_test_is_whole() -> None:
    assert set(EXPECTED) == set(Verb)
    assert all(set(rows) == set(Role) for rows in EXPECTED.values())
    assert sum(len(kinds) for rows in EXPECTED.values() for kinds in rows.values()) == len(ALLOWED)


@dataclass(frozen=True)
class Handshake:
    """Evidence of a kind that nobody wrote a line for."""

    certificate: bytes = b""


class DressedUp(TokenEvidence):
    """A subclass of known evidence is not known evidence."""


@pytest.mark.parametrize("evidence", [Handshake(), DressedUp("enr_x"), None, "enr_x", {"kind": "token"}, 7])
@pytest.mark.parametrize("verb", list(Verb))
def test_R17_unknown_evidence_is_denied(verb: Verb, evidence: Any) -> None:
    with pytest.raises(Denied) as caught:
        first_half.claim(verb, evidence, Peer(Role.enroll, 1), deployment="test", now=NOW)
    assert caught.value.code == "evidence-unknown"


@pytest.mark.parametrize("kind", [None, "token", 7])
def test_R17_a_claim_of_an_unknown_kind_is_denied_in_every_second_half(kind: Any) -> None:
    claim = Claim(Verb.issue, Peer(Role.enroll, 1), kind, Digest(bytes(32)))
    request = IssueRequest(b"", LocalEvidence(Role.enroll, 1))
    with pytest.raises(Denied):
        asking.asked_for(claim, request, policy(), key=Digest(bytes(32)), token=None, record=None, operator=None, now=NOW)
    revoke = RevokeRequest(LocalEvidence(Role.enroll, 1), Reason.unspecified, device=DeviceId("a"))
    with pytest.raises(Denied):
        grant.revocation(claim, revoke, policy(), record=None, operator=None, target=None, now=NOW)
    with pytest.raises(Denied):
        confirm = ConfirmRequest(LocalEvidence(Role.enroll, 1))
        permission.confirmation(claim, confirm, policy(), record=None, successor=None, now=NOW)


def test_local_evidence_speaks_for_the_peer_of_the_socket_only() -> None:
    for forged in (LocalEvidence(Role.operator, 1), LocalEvidence(Role.enroll, 2)):
        with pytest.raises(Denied):
            first_half.claim(Verb.issue, forged, Peer(Role.enroll, 1), deployment="test", now=NOW)


def asked(role: Role, *, policy_: Policy | None = None, **wishes: Any) -> grant.Asked:
    evidence = LocalEvidence(role, 1)
    claim = first_half.claim(Verb.issue, evidence, Peer(role, 1), deployment="test", now=NOW)
    request = IssueRequest(b"csr", evidence, **wishes)
    return asking.asked_for(claim, request, policy_ or policy(), key=Digest(bytes(32)), token=None, record=None, operator=None, now=NOW)


NAME = Name(NameKind.dns, "enroll.example")
OTHER = Name(NameKind.dns, "bank.example")


@pytest.mark.parametrize(
    ("role", "wishes", "expected"),
    [
        # The web process: its own certificate.
        pytest.param(Role.enroll, {}, ("fleetca:enroll", "service"), id="enroll gets its own TLS certificate"),
        pytest.param(Role.enroll, {"names": (NAME,)}, ("fleetca:enroll", "service"), id="enroll gets one of its names"),
        pytest.param(Role.enroll, {"names": (OTHER,)}, "names-not-own", id="enroll does not get another's name"),
        pytest.param(Role.enroll, {"names": (NAME, OTHER)}, "names-not-own", id="enroll does not slip in another's name"),
        pytest.param(
            Role.enroll, {"profile": ProfileName("device")}, "evidence-for-another-profile", id="enroll gets no device certificate"
        ),
        pytest.param(Role.enroll, {"profile": ProfileName("operator")}, "evidence-for-another-profile", id="enroll gets no operator"),
        pytest.param(
            Role.enroll, {"profile": ProfileName("ocsp-responder")}, "evidence-for-another-profile", id="enroll gets no responder"
        ),
        pytest.param(Role.enroll, {"profile": ProfileName("issuing-ca")}, "evidence-for-another-profile", id="enroll gets no CA"),
        pytest.param(Role.enroll, {"device": DeviceId("pump-1")}, "evidence-for-another-device", id="enroll gets none for a device"),
        pytest.param(Role.enroll, {"device": DeviceId("fleetca:operator:ada")}, "evidence-for-another-device", id="enroll is no operator"),
        pytest.param(Role.enroll, {"issuer": IssuerId("root")}, "issuer-not-yours", id="enroll chooses no issuer"),
        # The responder.
        pytest.param(Role.status, {}, ("fleetca:ocsp", "ocsp-responder"), id="status gets a responder certificate"),
        pytest.param(Role.status, {"issuer": IssuerId("other")}, ("fleetca:ocsp", "ocsp-responder"), id="status chooses the issuer"),
        pytest.param(Role.status, {"profile": ProfileName("service")}, "not-allowed", id="status gets no service certificate"),
        pytest.param(Role.status, {"profile": ProfileName("device")}, "not-allowed", id="status gets no device certificate"),
        pytest.param(Role.status, {"device": DeviceId("pump-1")}, "not-allowed", id="status gets none for a device"),
        pytest.param(
            Role.status,
            {"device": DeviceId("fleetca:enroll")},
            "not-allowed",
            id="status does not speak as another of our services",
        ),
        pytest.param(Role.status, {"names": (NAME,)}, "names-not-own", id="status gets no names"),
        pytest.param(Role.publisher, {}, ("fleetca:ocsp", "ocsp-responder"), id="publisher gets a responder certificate to sign ahead"),
        pytest.param(Role.publisher, {"profile": ProfileName("device")}, "not-allowed", id="publisher gets no device certificate"),
        pytest.param(Role.publisher, {"device": DeviceId("pump-1")}, "not-allowed", id="publisher gets none for a device"),
        # An operator at the machine.
        pytest.param(
            Role.operator, {"device": DeviceId("p"), "profile": ProfileName("device")}, ("p", "device"), id="operator issues to a device"
        ),
        pytest.param(Role.operator, {"device": DeviceId("p")}, "bad-request", id="operator must name a profile"),
        pytest.param(Role.operator, {"profile": ProfileName("device")}, "bad-request", id="operator must name a device"),
        pytest.param(
            Role.operator,
            {"device": DeviceId("p"), "profile": ProfileName("issuing-ca")},
            "profile-reserved",
            id="operator makes no CA (P4)",
        ),
        pytest.param(
            Role.operator, {"device": DeviceId("p"), "profile": ProfileName("root")}, "profile-reserved", id="operator makes no root (P4)"
        ),
        pytest.param(
            Role.operator,
            {"device": DeviceId("p"), "profile": ProfileName("ocsp-responder")},
            "profile-reserved",
            id="operator makes no responder (R16)",
        ),
        pytest.param(
            Role.operator, {"device": DeviceId("p"), "profile": ProfileName("operator")}, "profile-reserved", id="a device is no operator"
        ),
        pytest.param(
            Role.operator,
            {"device": DeviceId("fleetca:enroll"), "profile": ProfileName("service")},
            "device-reserved",
            id="operator is no service of ours",
        ),
        pytest.param(
            Role.operator,
            {"device": DeviceId("fleetca:operator:ada"), "profile": ProfileName("operator")},
            "operator-unknown",
            id="operator certificates are for operators on record",
        ),
        pytest.param(
            Role.operator,
            {"device": DeviceId("fleetca:operator:ada"), "profile": ProfileName("device")},
            "not-allowed",
            id="operators get operator certificates only",
        ),
        pytest.param(
            Role.operator, {"device": DeviceId("p"), "profile": ProfileName("nonsense")}, "profile-unknown", id="the profile must exist"
        ),
    ],
)
def test_P2_what_a_role_may_get_by_itself(role: Role, wishes: dict[str, Any], expected: tuple[str, str] | str) -> None:
    if isinstance(expected, tuple):
        found = asked(role, **wishes)
        assert (found.device, found.profile) == expected
        assert found.actor == f"role:{role.value}@1"
        return
    with pytest.raises(FleetcaError) as caught:
        asked(role, **wishes)
    assert caught.value.code == expected


def test_P2_without_names_in_the_settings_the_web_process_gets_nothing() -> None:
    with pytest.raises(Denied):
        asked(Role.enroll, policy_=policy(enroll=Caps()))


def test_P2_caps_bind_what_a_role_gets_by_itself() -> None:
    with pytest.raises(Denied) as caught:
        asked(Role.enroll, policy_=policy(enroll=Caps(own_names=OWN, profiles=frozenset({ProfileName("device")}))))
    assert caught.value.code == "over-the-cap"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"extended_key_usage": ("clientAuth",)}, id="another usage"),
        pytest.param({"status": StatusKind.revocable}, id="without nocheck"),
        pytest.param({"is_ca": True}, id="a CA (R16)"),
    ],
)
def test_R16_a_responder_profile_that_is_none_gives_nothing(fields: dict[str, Any]) -> None:
    changed: Profile = replace(PROFILES[ProfileName("ocsp-responder")], **fields)
    wrong = replace(policy(), profiles={**PROFILES, ProfileName("ocsp-responder"): changed})
    with pytest.raises(Denied):
        asked(Role.status, policy_=wrong)


def test_evidence_never_shows_its_secret() -> None:
    assert "enr_secret" not in repr(TokenEvidence("enr_secret"))


def test_the_request_key_tells_kinds_evidence_and_csr_apart() -> None:
    peer = Peer(Role.enroll, 1)
    keys = {
        first_half.request_key(Claim(Verb.issue, peer, kind, Digest(digest)), csr)
        for kind in EvidenceKind
        for digest in (bytes(32), b"\1" * 32)
        for csr in (b"a", b"b")
    }
    assert len(keys) == len(EvidenceKind) * 4


def test_presented_octets_that_are_no_certificate_are_malformed() -> None:
    with pytest.raises(FleetcaError) as caught:
        first_half.claim(Verb.issue, PresentedCertificate(b"\x30\x00"), Peer(Role.enroll, 1), deployment="test", now=NOW)
    assert caught.value.code == "bad-certificate"
