"""Which profiles are lawful, each refusal by its reason; and the shipped ones (P2, R04, R16)."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from ca.errors import Misconfigured
from ca.model import DeviceId, NameKind, OnSuperseded, Profile, SafetyClass, StatusKind
from ca.rules.profile import accept
from ca.rules.renewal_window import phase, suggested
from fleetca.forms import shipped_profiles

DAY = 86400
DEVICE: dict[str, Any] = {
    "name": "device",
    "lifetime": 7 * DAY,
    "status": "revocable",
    "crl_url": True,
    "key_algorithms": ["p256"],
    "key_usage": ["digitalSignature"],
    "extended_key_usage": ["clientAuth"],
    "common_name": "{device}",
    "digest": bytes(32),
}
CA: dict[str, Any] = DEVICE | {
    "is_ca": True,
    "key_usage": ["keyCertSign", "cRLSign"],
    "extended_key_usage": [],
    "common_name": "",
    "path_length": 0,
}
SHORT: dict[str, Any] = DEVICE | {"status": "no-rev-avail", "crl_url": False, "lifetime": DAY}
RESPONDER: dict[str, Any] = DEVICE | {"status": "nocheck", "crl_url": False, "extended_key_usage": ["OCSPSigning"], "lifetime": DAY}


@pytest.mark.parametrize("values", [DEVICE, CA, SHORT, RESPONDER], ids=["device", "CA", "short-lived", "responder"])
def test_a_lawful_profile_is_accepted(values: dict[str, Any]) -> None:
    assert accept(**values).max_lifetime == values["lifetime"]


UNLAWFUL: list[Any] = [
    pytest.param(DEVICE, {"name": "Device"}, "name", id="a name in capitals"),
    pytest.param(DEVICE, {"name": "../x"}, "name", id="R30: a name that is a path"),
    pytest.param(DEVICE, {"lifetime": 0}, "lifetime", id="no lifetime"),
    pytest.param(DEVICE, {"max_lifetime": DAY}, "lifetime", id="longer than its own limit"),
    pytest.param(DEVICE, {"backdate": -1}, "backdate", id="dated into the future"),
    pytest.param(DEVICE, {"backdate": 7 * DAY}, "backdate", id="dated back by its whole life"),
    pytest.param(DEVICE, {"renew_from": 1.0}, "renew_from", id="renewed when it is over"),
    pytest.param(DEVICE, {"grace": -1}, "grace", id="a negative grace"),
    pytest.param(DEVICE, {"renew_after_expiry": -1}, "renew_after_expiry", id="renewed before its end only"),
    pytest.param(DEVICE, {"renew_after_expiry": 90 * DAY + 1}, "renew_after_expiry", id="renewed for ever"),
    pytest.param(
        DEVICE,
        {"renew_after_expiry": DAY, "renewable": False, "renewed_by": "service"},
        "renew_after_expiry",
        id="renewed late, but never in time",
    ),
    pytest.param(DEVICE, {"status": "maybe"}, "status", id="an unknown status"),
    pytest.param(DEVICE, {"on_superseded": "burn"}, "on_superseded", id="an unknown end"),
    pytest.param(DEVICE, {"allowed_names": ["x400"]}, "allowed_names", id="an unknown kind of name"),
    pytest.param(DEVICE, {"key_algorithms": ["rsa-1024"]}, "key_algorithms", id="an unknown key"),
    pytest.param(DEVICE, {"key_algorithms": []}, "key_algorithms", id="no key"),
    pytest.param(DEVICE, {"key_algorithms": ["p256", "p256"]}, "key_algorithms", id="a key twice"),
    pytest.param(DEVICE, {"key_usage": ["signing"]}, "key_usage", id="an unknown usage"),
    pytest.param(DEVICE, {"key_usage": []}, "key_usage", id="RFC 5280 4.2.1.3: no usage"),
    pytest.param(DEVICE, {"extended_key_usage": ["any"]}, "extended_key_usage", id="an unknown purpose"),
    pytest.param(DEVICE, {"required_names": True}, "required_names", id="names required, none allowed"),
    pytest.param(DEVICE, {"common_name": ""}, "common_name", id="no subject"),
    pytest.param(DEVICE, {"common_name": "{serial}"}, "common_name", id="an unknown placeholder"),
    pytest.param(DEVICE, {"common_name": "{device.__class__}"}, "common_name", id="a placeholder that digs"),
    pytest.param(DEVICE, {"common_name": "{device!r}"}, "common_name", id="a placeholder that converts"),
    pytest.param(DEVICE, {"common_name": "{device:>99}"}, "common_name", id="a placeholder that pads"),
    pytest.param(DEVICE, {"common_name": "{device"}, "common_name", id="a broken placeholder"),
    pytest.param(DEVICE, {"uris": ["urn:x:{0}"]}, "uris", id="a numbered placeholder"),
    pytest.param(DEVICE, {"permanent_identifier": ""}, "permanent_identifier", id="RFC 4043: an empty identifier"),
    pytest.param(DEVICE, {"permanent_identifier": "{serial}"}, "permanent_identifier", id="an identifier of something unknown"),
    pytest.param(DEVICE, {"allowed_names": ["permanent-identifier"]}, "allowed_names", id="identifiers that anyone may ask for"),
    pytest.param(CA, {"permanent_identifier": "{device}"}, "uris", id="a CA with a permanent identifier"),
    pytest.param(DEVICE, {"organization": "x" * 65}, "organization", id="too long an organization"),
    pytest.param(DEVICE, {"key_usage": ["digitalSignature", "keyEncipherment"]}, "key_usage", id="keyEncipherment with an EC key"),
    pytest.param(
        DEVICE,
        {"key_usage": ["digitalSignature", "keyEncipherment"], "key_algorithms": ["rsa-3072", "ml-dsa-65"]},
        "key_usage",
        id="RFC 9881: keyEncipherment with ML-DSA",
    ),
    pytest.param(
        DEVICE, {"key_usage": ["keyAgreement"], "key_algorithms": ["ed25519"]}, "key_usage", id="RFC 8410: keyAgreement with Ed25519"
    ),
    pytest.param(DEVICE, {"key_usage": ["digitalSignature", "decipherOnly"]}, "key_usage", id="decipherOnly alone"),
    pytest.param(DEVICE, {"key_usage": ["nonRepudiation"]}, "extended_key_usage", id="RFC 5280 4.2.1.12: clientAuth with nonRepudiation"),
    pytest.param(
        DEVICE, {"extended_key_usage": ["timeStamping", "clientAuth"]}, "extended_key_usage", id="RFC 3161: timeStamping in company"
    ),
    pytest.param(DEVICE, {"extended_key_usage": ["OCSPSigning"]}, "extended_key_usage", id="R16: OCSPSigning on a device"),
    pytest.param(RESPONDER, {"extended_key_usage": ["OCSPSigning", "clientAuth"]}, "extended_key_usage", id="R16: OCSPSigning in company"),
    pytest.param(
        CA,
        {"extended_key_usage": ["OCSPSigning"], "key_usage": ["digitalSignature", "keyCertSign", "cRLSign"]},
        "extended_key_usage",
        id="R16: OCSPSigning on a CA",
    ),
    pytest.param(
        CA,
        {"extended_key_usage": ["clientAuth"], "key_usage": ["digitalSignature", "keyCertSign", "cRLSign"]},
        "extended_key_usage",
        id="a CA with a purpose",
    ),
    pytest.param(CA, {"key_usage": ["keyCertSign"]}, "key_usage", id="a CA that cannot sign CRLs"),
    pytest.param(CA, {"path_length": -1}, "path_length", id="a negative path length"),
    pytest.param(CA, {"uris": ["urn:x:y"]}, "uris", id="a CA with names"),
    pytest.param(CA, {"status": "no-rev-avail", "crl_url": False, "lifetime": DAY}, "status", id="RFC 9608: a CA with noRevAvail"),
    pytest.param(CA, {"status": "nocheck", "crl_url": False}, "status", id="a CA with nocheck"),
    pytest.param(DEVICE, {"path_length": 0}, "path_length", id="a path length on a device"),
    pytest.param(DEVICE, {"key_usage": ["digitalSignature", "keyCertSign"]}, "key_usage", id="keyCertSign on a device"),
    pytest.param(DEVICE, {"status": "anchor", "crl_url": False}, "status", id="a device as anchor"),
    pytest.param(CA, {"status": "anchor"}, "crl_url", id="a root with a CDP"),
    pytest.param(DEVICE, {"crl_url": False}, "status", id="revocable, but nowhere"),
    pytest.param(SHORT, {"crl_url": True}, "crl_url", id="RFC 9608: noRevAvail with a CDP"),
    pytest.param(SHORT, {"ocsp_url": True}, "ocsp_url", id="RFC 9608: noRevAvail with OCSP"),
    pytest.param(SHORT, {"lifetime": DAY + 1}, "max_lifetime", id="noRevAvail for more than 24 h"),
    pytest.param(SHORT, {"max_lifetime": 2 * DAY}, "max_lifetime", id="noRevAvail that may grow over 24 h"),
    pytest.param(RESPONDER, {"ocsp_url": True}, "ocsp_url", id="a responder that points at itself"),
    pytest.param(RESPONDER, {"lifetime": 31 * DAY}, "max_lifetime", id="R16: a responder of 31 days"),
    pytest.param(RESPONDER, {"extended_key_usage": ["clientAuth"]}, "status", id="nocheck on a client"),
    pytest.param(RESPONDER, {"allowed_names": ["dns"]}, "allowed_names", id="a responder with asked-for names"),
]


@pytest.mark.parametrize(("base", "change", "field"), UNLAWFUL)
def test_a_profile_is_refused(base: dict[str, Any], change: dict[str, Any], field: str) -> None:
    with pytest.raises(Misconfigured) as error:
        accept(**(base | change))
    assert error.value.code == "bad-profile"
    assert f", {field}: " in error.value.what


GRAVE: dict[str, Any] = DEVICE | {"ocsp_url": True, "safety_class": "C"}
LIVES: list[Any] = [
    pytest.param(DEVICE, {"renewable": False}, "renewed_by", id="not renewed, by nobody"),
    pytest.param(DEVICE, {"renewable": False, "renewed_by": "protocol"}, "renewed_by", id="renewed by a holder who may not"),
    pytest.param(DEVICE, {"renewed_by": "service"}, "renewed_by", id="renewed by its holder and by a service"),
    pytest.param(DEVICE, {"renewed_by": "magic"}, "renewed_by", id="renewed in an unknown way"),
    pytest.param(DEVICE, {"anchors_by": []}, "anchors_by", id="no way to another trust anchor"),
    pytest.param(DEVICE, {"anchors_by": ["hope"]}, "anchors_by", id="an unknown way to another trust anchor"),
    pytest.param(GRAVE, {"ocsp_url": False}, "safety_class", id="class C without OCSP"),
    pytest.param(GRAVE, {"crl_url": False}, "safety_class", id="class C without a CRL"),
    pytest.param(SHORT, {"safety_class": "C"}, "safety_class", id="class C that nothing revokes"),
    pytest.param(DEVICE, {"safety_class": "D"}, "safety_class", id="an unknown class"),
    pytest.param(DEVICE, {"roots_of_trust": ["luck"]}, "roots_of_trust", id="an unknown root of trust"),
]


@pytest.mark.req("REQ-KEY-027", "REQ-KEY-032")
@pytest.mark.parametrize(("base", "change", "field"), LIVES)
def test_a_profile_without_a_way_on_or_below_the_floor_is_refused(base: dict[str, Any], change: dict[str, Any], field: str) -> None:
    test_a_profile_is_refused(base, change, field)


@pytest.mark.req("REQ-KEY-009", "REQ-KEY-064")
@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("away for longer than renewal leaves", {"lifetime": 60 * DAY, "offline": 10 * DAY + 1}),
        ("away for the whole life", {"lifetime": 7 * DAY, "offline": 7 * DAY}),
        ("renewal opens too late", {"lifetime": 60 * DAY, "renew_from": 0.9, "offline": 4 * DAY}),
        ("what follows the end is too short", {"lifetime": 60 * DAY, "renew_after_expiry": DAY, "offline": 11 * DAY + 1}),
        ("nobody renews", {"renewable": False, "renewed_by": "ceremony", "offline": 1}),
    ],
)
def test_a_profile_whose_overlap_is_shorter_than_its_devices_are_away_is_refused(sentence: str, change: dict[str, Any]) -> None:
    test_a_profile_is_refused(DEVICE | {"max_lifetime": 60 * DAY}, change, "offline")


@pytest.mark.req("REQ-KEY-009", "REQ-KEY-064")
def test_devices_may_be_away_for_as_long_as_renewal_leaves_them() -> None:
    said = {"lifetime": 60 * DAY, "max_lifetime": 60 * DAY}
    assert accept(**(DEVICE | said | {"offline": 10 * DAY})).offline == 10 * DAY
    assert accept(**(DEVICE | said | {"offline": 40 * DAY, "renew_after_expiry": 30 * DAY})).offline == 40 * DAY
    latest = max((phase(DeviceId(f"d{number}")), f"d{number}") for number in range(3000))[1]
    profile = accept(**(DEVICE | said | {"offline": 10 * DAY}))
    young: Any = SimpleNamespace(device=DeviceId(latest), not_before=0, not_after=60 * DAY - 1)
    last = suggested(young, profile, now=0)
    assert 60 * DAY - last.start >= profile.offline, "who begins last still has that long"


def test_class_C_is_granted_to_what_can_always_be_asked() -> None:
    assert accept(**GRAVE).safety_class is SafetyClass.C
    assert accept(**(GRAVE | {"safety_class": "B", "ocsp_url": False})).safety_class is SafetyClass.B


SHIPPED: dict[str, Profile] = {str(name): profile for name, profile in shipped_profiles().items()}


def test_the_shipped_profiles_are_these() -> None:
    ceremony = {"root", "issuing-ca", "cross-certificate", "link", "root-responder"}
    assert set(SHIPPED) == ceremony | {"ocsp-responder", "device", "device-short", "service", "operator"}


def test_the_shipped_profiles_say_what_they_promise() -> None:
    device, short, service = SHIPPED["device"], SHIPPED["device-short"], SHIPPED["service"]
    assert (device.lifetime, device.crl_url, device.ocsp_url) == (7 * DAY, True, True)
    assert (short.max_lifetime, short.status) == (DAY, StatusKind.no_rev_avail)
    assert service.required_names
    assert set(service.allowed_names) == {NameKind.dns, NameKind.ip}
    assert set(service.extended_key_usage) == {"serverAuth", "clientAuth"}
    assert SHIPPED["operator"].extended_key_usage == ("clientAuth",)
    assert SHIPPED["issuing-ca"].path_length == 0
    named = {name for name, profile in SHIPPED.items() if profile.permanent_identifier == "{device}"}
    assert named == {"device", "device-short", "operator"}
    assert SHIPPED["ocsp-responder"].lifetime <= 30 * DAY
    assert SHIPPED["root-responder"].max_lifetime <= 30 * DAY
    assert {profile.renew_after_expiry for profile in SHIPPED.values()} == {0}
    assert all(profile.on_superseded in OnSuperseded and len(profile.digest) == 32 for profile in SHIPPED.values())


def test_R16_no_shipped_profile_but_the_responders_may_sign_ocsp() -> None:
    assert [name for name, profile in SHIPPED.items() if "OCSPSigning" in profile.extended_key_usage] == [
        "ocsp-responder",
        "root-responder",
    ]


def test_every_field_of_a_profile_can_be_given() -> None:
    names = {field.name for field in fields(Profile)} - {"digest"}
    assert names <= set(accept.__kwdefaults__ or {}) | {"name", "lifetime", "status", "key_usage", "common_name"}
