"""The life of a device as a table (REQ-KEY-041, REQ-KEY-049), and what profiles ask of devices (REQ-KEY-032)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from ca.errors import Conflict, Denied, FleetcaError
from ca.model import (
    DEFAULT_TENANT,
    Device,
    DeviceDescription,
    DeviceFacts,
    DeviceId,
    DeviceState,
    ProfileName,
    Reason,
    RootOfTrust,
    SafetyClass,
)
from ca.rules import device_life
from fleetca.forms import shipped_profiles

NOW = 1_800_000_000
DAY = 86400
PUMP = Device(DeviceId("pump-1"), DEFAULT_TENANT, DeviceState.blank, NOW)
LAWFUL = {
    "blank": {"provisioned", "active", "retired"},
    "provisioned": {"active", "quarantined", "retired"},
    "active": {"quarantined", "retired"},
    "quarantined": {"active", "provisioned", "retired"},
    "retired": {"blank"},  # by two persons
}


@pytest.mark.req("REQ-KEY-041")
@pytest.mark.parametrize(("before", "after"), list(product(DeviceState, DeviceState)), ids=lambda state: state.value)
def test_a_device_makes_lawful_moves_only(before: DeviceState, after: DeviceState) -> None:
    def go() -> tuple[Device, object]:
        return device_life.move(replace(PUMP, state=before), after, reason="test", actor="a", channel="c", request="00", at=NOW)

    if after.value not in LAWFUL[before.value]:
        with pytest.raises(Conflict) as refused:
            go()
        assert refused.value.code == "device-move-illegal"
        return
    moved, change = go()
    assert moved.state is after
    assert change == device_life.DeviceChange(PUMP.id, before, after, NOW, "test", "a", "c", "00")


@pytest.mark.parametrize(
    ("state", "reason", "certified", "outcome"),
    [
        ("active", Reason.certificateHold, True, "quarantined"),
        ("quarantined", Reason.certificateHold, True, "quarantined"),
        ("quarantined", Reason.removeFromCRL, True, "active"),
        ("quarantined", Reason.removeFromCRL, False, "provisioned"),
        ("active", Reason.removeFromCRL, True, "device-not-quarantined"),
        ("active", Reason.keyCompromise, True, "retired"),
        ("quarantined", Reason.cessationOfOperation, True, "retired"),
        ("retired", Reason.keyCompromise, True, "retired"),
        ("retired", Reason.certificateHold, True, "device-retired"),
        ("retired", Reason.removeFromCRL, True, "device-retired"),
    ],
)
def test_a_reason_asks_for_a_state(state: str, reason: Reason, certified: bool, outcome: str) -> None:
    device = replace(PUMP, state=DeviceState(state))
    try:
        assert device_life.wanted(device, reason, certified=certified).value == outcome
    except FleetcaError as error:
        assert error.code == outcome  # noqa: PT017


SAID = DeviceDescription(PUMP.id)
NONE = replace(SAID, root_of_trust=RootOfTrust.none, justification="prototype", exception_ends=NOW + DAY)


@pytest.mark.req("REQ-KEY-049")
@pytest.mark.parametrize(
    ("sentence", "before", "said", "code"),
    [
        ("none without a reason", None, replace(NONE, justification=None), "no-root-of-trust"),
        ("none with an empty reason", None, replace(NONE, justification="  "), "no-root-of-trust"),
        ("none without an end", None, replace(NONE, exception_ends=None), "no-root-of-trust"),
        ("an end that is past", None, replace(NONE, exception_ends=NOW), "no-root-of-trust"),
        ("an end beyond two years", None, replace(NONE, exception_ends=NOW + 800 * DAY), "no-root-of-trust"),
        ("a reason beside a root of trust", None, replace(SAID, root_of_trust=RootOfTrust.tpm, justification="x"), "no-root-of-trust"),
        ("an end beside a known root of trust", DeviceFacts(RootOfTrust.se), replace(SAID, exception_ends=NOW + DAY), "no-root-of-trust"),
        (
            "none again after a root of trust",
            DeviceFacts(RootOfTrust.se),
            replace(SAID, root_of_trust=RootOfTrust.none),
            "no-root-of-trust",
        ),
        ("a long owner", None, replace(SAID, owner="x" * 201), "device-words"),
        ("an owner of two lines", None, replace(SAID, owner="a\nb"), "device-words"),
        ("none with reason and end", None, NONE, ""),
        ("a root of trust", None, replace(SAID, root_of_trust=RootOfTrust.puf), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_may_be_said_of_a_device(sentence: str, before: DeviceFacts | None, said: DeviceDescription, code: str) -> None:
    try:
        device_life.described(before or DeviceFacts(), said, now=NOW)
    except FleetcaError as error:
        assert error.code == code, sentence  # noqa: PT017
    else:
        assert not code, sentence


def test_a_root_of_trust_ends_the_exception() -> None:
    excused = device_life.described(DeviceFacts(), NONE, now=NOW)
    mended = device_life.described(excused, replace(SAID, root_of_trust=RootOfTrust.se), now=NOW)
    assert (mended.justification, mended.exception_ends) == ("", None)
    assert device_life.difference(excused, mended) == "root of trust: se; justification: nothing; exception ends: nothing"


def judged(facts: DeviceFacts | None, *, now: int = NOW, **asks: object) -> str:
    profile = replace(shipped_profiles()[ProfileName("device")], **asks)  # type: ignore[arg-type]
    try:
        device_life.fits(facts, profile, now=now)
    except Denied as error:
        return error.code
    return ""


ROOTED = {"roots_of_trust": (RootOfTrust.se, RootOfTrust.tpm)}
EXCUSED = DeviceFacts(RootOfTrust.none, "prototype", NOW + DAY)


@pytest.mark.req("REQ-KEY-049")
@pytest.mark.parametrize(
    ("facts", "now", "code"),
    [
        (None, NOW, "root-of-trust-needed"),
        (DeviceFacts(RootOfTrust.se), NOW, ""),
        (DeviceFacts(RootOfTrust.puf), NOW, "root-of-trust-needed"),
        (EXCUSED, NOW + DAY - 1, ""),
        (EXCUSED, NOW + DAY, "root-of-trust-needed"),
    ],
)
def test_a_profile_for_devices_with_a_root_of_trust(facts: DeviceFacts | None, now: int, code: str) -> None:
    assert judged(facts, now=now, **ROOTED) == code
    assert judged(facts, now=now) == "", "who asks nothing gets all"


@pytest.mark.req("REQ-KEY-032")
@pytest.mark.parametrize(("good_for", "device"), list(product("ABC", "ABC-")))
def test_a_profile_serves_devices_up_to_its_safety_class(good_for: str, device: str) -> None:
    facts = None if device == "-" else DeviceFacts(safety_class=SafetyClass(device))
    assert judged(facts, safety_class=SafetyClass(good_for)) == ("" if device <= good_for and device != "-" else "safety-class-differs")
