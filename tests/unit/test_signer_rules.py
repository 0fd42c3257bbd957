"""The small rules of the signer: tokens, caps, the clock, status changes, ids."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from ca.errors import Busy, ClockUntrusted, Conflict, Denied, FleetcaError, Malformed, Unacceptable, Unauthenticated
from ca.model import (
    DEFAULT_TENANT,
    Certificate,
    CertificateRef,
    CertificateState,
    DeviceId,
    Digest,
    IssuerId,
    NameKind,
    Operator,
    OperatorName,
    ProfileName,
    Reason,
    Revocation,
    Serial,
    Token,
)
from ca.rules import caps, clock, ids, renewal, revocation, token

NOW = 1_795_305_600


# ---- Tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_can_be_matched_by_scanners_and_every_typing_error_is_told() -> None:
    text = token.token_text(bytes(range(32)))
    assert re.fullmatch(r"enr_[0-9A-Za-z]{49}", text)
    assert len(token.token_hash(text)) == 32
    for at in range(4, len(text)):
        wrong = text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]
        with pytest.raises(Unauthenticated) as caught:
            token.token_hash(wrong)
        assert caught.value.code == "token-malformed"
        assert wrong not in str(caught.value) + caught.value.fix


@pytest.mark.parametrize("text", ["", "enr_", "enr_" + "\u0661" * 49, "x" * 53, "enr_" + "é" * 49, "enr_" + "0" * 5000])
def test_what_is_not_a_token_is_refused_before_anything_is_looked_up(text: str) -> None:
    with pytest.raises(Unauthenticated):
        token.token_hash(text)


def test_tokens_of_all_values_have_one_length() -> None:
    assert {len(token.token_text(octets)) for octets in (bytes(32), b"\xff" * 32, bytes(31) + b"\1")} == {53}


def _token(*, used_by: bytes | None = None, expires: int = NOW + 60) -> Token:
    return Token(
        hash=Digest(bytes(32)),
        tenant=DEFAULT_TENANT,
        device=DeviceId("pump"),
        profile=ProfileName("device"),
        names=(),
        created=NOW - 60,
        expires=expires,
        created_by="role:operator@0",
        used_at=None if used_by is None else NOW - 1,
        used_by=used_by,
    )


KEY = b"k" * 32


@pytest.mark.parametrize(
    ("row", "code"),
    [
        pytest.param(_token(), None, id="fresh"),
        pytest.param(_token(used_by=KEY), None, id="used by this very request, whose certificate was given up"),
        pytest.param(None, "token-unknown", id="unknown"),
        pytest.param(_token(used_by=b"o" * 32), "token-used", id="used by another request"),
        pytest.param(_token(expires=NOW), "token-expired", id="expired in this very second"),
        pytest.param(_token(expires=NOW + 1), None, id="in its last second"),
        pytest.param(_token(used_by=b"o" * 32, expires=NOW - 9), "token-used", id="used and expired: used says more"),
    ],
)
def test_R35_a_token_holds_once_and_for_its_time(row: Token | None, code: str | None) -> None:
    if code is None:
        assert token.usable(row, request_key=KEY, now=NOW) is row
        return
    with pytest.raises(FleetcaError) as caught:
        token.usable(row, request_key=KEY, now=NOW)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, Malformed), (-1, Malformed), (1, None), (90 * 86400, None), (90 * 86400 + 1, Unacceptable)]
)
def test_a_token_lives_90_days_at_most(seconds: int, error: type[FleetcaError] | None) -> None:
    if error is None:
        assert token.accepted_lifetime(seconds) == seconds
    else:
        with pytest.raises(error):
            token.accepted_lifetime(seconds)


# ---- Caps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cap", "device", "profile", "passes"),
    [
        (caps.Caps(), "a", "device", True),
        (caps.Caps(profiles=frozenset()), "a", "device", False),
        (caps.Caps(profiles=frozenset({ProfileName("device")})), "a", "device", True),
        (caps.Caps(profiles=frozenset({ProfileName("device")})), "a", "service", False),
        (caps.Caps(devices=("pump-*",)), "pump-1", "device", True),
        (caps.Caps(devices=("pump-*",)), "valve-1", "device", False),
        (caps.Caps(devices=("pump",)), "pump-1", "device", False),
        (caps.Caps(devices=()), "pump-1", "device", False),
    ],
)
def test_caps_take_away_and_never_give(cap: caps.Caps, device: str, profile: str, passes: bool) -> None:
    if passes:
        caps.within(cap, device=DeviceId(device), profile=ProfileName(profile))
        return
    with pytest.raises(Denied) as caught:
        caps.within(cap, device=DeviceId(device), profile=ProfileName(profile))
    assert caught.value.code == "over-the-cap"


def test_a_rate_refills_with_time_and_never_saves_up_more_than_a_minute() -> None:
    left = None
    for _ in range(3):
        left = caps.spend(left, per_minute=3, now=NOW)
    with pytest.raises(Busy) as caught:
        caps.spend(left, per_minute=3, now=NOW)
    assert caught.value.code == "over-rate"
    assert caught.value.retry_after == 20
    left = caps.spend(left, per_minute=3, now=NOW + 20)
    left = caps.spend(left, per_minute=3, now=NOW + 10_000)
    assert left.left == 2
    # A clock that goes back gives nothing.
    assert caps.spend(left, per_minute=3, now=NOW).left == 1


@pytest.mark.parametrize(
    ("roles", "disabled", "powers"),
    [
        (("admin",), None, set(caps.Power) - {caps.Power.authorize}),
        (("registrar",), None, {caps.Power.issue, caps.Power.create_token, caps.Power.approve, caps.Power.search, caps.Power.propose}),
        (("revoker",), None, {caps.Power.revoke, caps.Power.search, caps.Power.propose}),
        (("security-officer",), None, {caps.Power.authorize, caps.Power.search}),
        (("revoker", "auditor"), None, set()),
        (("emperor",), None, set()),
        ((), None, set()),
        (("admin",), NOW, set()),
    ],
)
def test_an_operator_may_what_its_roles_say_and_nothing_once_disabled(
    roles: tuple[str, ...], disabled: int | None, powers: set[caps.Power]
) -> None:
    assert caps.powers_of(Operator(OperatorName("ada"), DEFAULT_TENANT, roles, NOW, disabled)) == powers


# ---- The clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("back", "expected"), [(-100, NOW + 100), (0, NOW), (1, NOW), (2, NOW), (3, None), (86400, None)])
def test_R24_a_clock_may_go_back_two_seconds_and_then_nothing_is_signed(back: int, expected: int | None) -> None:
    if expected is not None:
        assert clock.trusted(NOW - back, high_time=NOW) == expected
        return
    with pytest.raises(ClockUntrusted) as caught:
        clock.trusted(NOW - back, high_time=NOW)
    assert caught.value.code == "clock-set-back"
    assert caught.value.fix


# ---- Status changes -------------------------------------------------------------------------------------------------


def _certificate(
    latest: Reason | None = None, *, state: CertificateState = CertificateState.issued, not_after: int = NOW + 60
) -> Certificate:
    ref = CertificateRef(IssuerId("issuing"), Serial(7))
    return Certificate(
        ref=ref,
        state=state,
        tenant=DEFAULT_TENANT,
        device=DeviceId("pump"),
        profile=ProfileName("device"),
        subject="CN=pump",
        names=(),
        spki_sha256=Digest(bytes(32)),
        not_before=NOW - 60,
        not_after=not_after,
        tbs=b"",
        der=b"der",
        parent=None,
        request_key=Digest(bytes(32)),
        intended_at=NOW - 60,
        issued_at=NOW - 60,
        superseded_at=None,
        first_used_at=None,
        delivered_at=None,
        grace_ends_at=None,
        revocable=True,
        revocation=None if latest is None else Revocation(3, ref, latest, NOW - 30, not_after, listed=True),
        leaf=Digest(bytes(32)),
    )


SAME = "same"
HOLD, RELEASE, KEY_LOST = Reason.certificateHold, Reason.removeFromCRL, Reason.keyCompromise


@pytest.mark.parametrize(
    ("latest", "asked", "expected"),
    [
        pytest.param(None, KEY_LOST, NOW, id="good -> revoked"),
        pytest.param(None, Reason.unspecified, NOW, id="good -> revoked without a reason"),
        pytest.param(None, HOLD, NOW, id="good -> on hold"),
        pytest.param(None, RELEASE, "not-on-hold", id="good is not released"),
        pytest.param(HOLD, HOLD, SAME, id="on hold again changes nothing"),
        pytest.param(HOLD, RELEASE, NOW, id="on hold -> released"),
        pytest.param(HOLD, KEY_LOST, NOW, id="on hold -> revoked, as of now"),
        pytest.param(RELEASE, RELEASE, SAME, id="released again changes nothing"),
        pytest.param(RELEASE, HOLD, NOW, id="released -> on hold again"),
        pytest.param(RELEASE, KEY_LOST, NOW, id="released -> revoked"),
        pytest.param(KEY_LOST, KEY_LOST, SAME, id="revoked again changes nothing"),
        pytest.param(Reason.superseded, KEY_LOST, NOW - 30, id="revoked -> key compromise, as of the old time"),
        pytest.param(KEY_LOST, Reason.superseded, "already-revoked", id="revoked does not become milder"),
        pytest.param(Reason.superseded, HOLD, "already-revoked", id="revoked does not become a hold"),
        pytest.param(Reason.superseded, RELEASE, "not-on-hold", id="revoked is never released"),
        pytest.param(None, Reason.cACompromise, "reason-not-for-leaves", id="CA compromise is not for leaves"),
        pytest.param(None, Reason.aACompromise, "reason-not-for-leaves", id="AA compromise is not for leaves"),
    ],
)
def test_status_changes_are_those_of_RFC_5280_5_3_1(latest: Reason | None, asked: Reason, expected: int | str) -> None:
    record = _certificate(latest)
    if expected == SAME:
        assert revocation.change(record, asked, now=NOW) is None
    elif isinstance(expected, int):
        assert revocation.change(record, asked, now=NOW) == revocation.Change(asked, expected)
    else:
        with pytest.raises(FleetcaError) as caught:
            revocation.change(record, asked, now=NOW)
        assert caught.value.code == expected


def test_every_reason_is_judged() -> None:
    for reason in Reason:
        for latest in (None, *Reason):
            try:
                revocation.change(_certificate(latest), reason, now=NOW)
            except (Unacceptable, Conflict):
                continue


def test_an_expired_certificate_is_not_revoked_but_a_void_one_is() -> None:
    with pytest.raises(Unacceptable):
        revocation.change(_certificate(not_after=NOW - 1), KEY_LOST, now=NOW)
    assert revocation.change(_certificate(not_after=NOW), KEY_LOST, now=NOW) is not None
    gone = _certificate(state=CertificateState.void, not_after=NOW - 1)
    assert revocation.change(gone, Reason.unspecified, now=NOW) is not None


@pytest.mark.parametrize(
    ("latest", "state", "now", "holds"),
    [
        (None, CertificateState.issued, NOW, True),
        (RELEASE, CertificateState.issued, NOW, True),
        (HOLD, CertificateState.issued, NOW, False),
        (KEY_LOST, CertificateState.issued, NOW, False),
        (None, CertificateState.intended, NOW, False),
        (None, CertificateState.void, NOW, False),
        (None, CertificateState.issued, NOW + 60, True),
        (None, CertificateState.issued, NOW + 61, False),
        (None, CertificateState.issued, NOW - 61, False),
    ],
)
def test_a_certificate_is_live_when_issued_in_its_time_and_not_revoked(
    latest: Reason | None, state: CertificateState, now: int, holds: bool
) -> None:
    assert renewal.live(_certificate(latest, state=state), now=now) is holds


@pytest.mark.parametrize(
    ("latest", "late", "now", "code"),
    [
        pytest.param(None, 0, NOW + 60, None, id="its last second"),
        pytest.param(None, 0, NOW + 61, "certificate-expired", id="a second late"),
        pytest.param(None, 100, NOW + 160, None, id="late, in the last second that its profile allows"),
        pytest.param(None, 100, NOW + 161, "certificate-expired", id="a second later than its profile allows"),
        pytest.param(KEY_LOST, 100, NOW + 61, "certificate-revoked", id="late and revoked"),
        pytest.param(HOLD, 100, NOW + 61, "certificate-revoked", id="late and on hold"),
        pytest.param(None, 100, NOW - 61, "certificate-not-yet-valid", id="before its beginning"),
    ],
)
def test_a_certificate_speaks_in_its_time_and_as_late_as_it_may(latest: Reason | None, late: int, now: int, code: str | None) -> None:
    if code is None:
        renewal.speaks(_certificate(latest), now=now, late=late)
        return
    with pytest.raises(Denied) as caught:
        renewal.speaks(_certificate(latest), now=now, late=late)
    assert caught.value.code == code


# ---- Superseding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("superseded_at", "grace_ends_at", "expected"),
    [
        pytest.param(None, None, False, id="no successor was used or delivered"),
        pytest.param(NOW - 1, None, True, id="its successor was used"),
        pytest.param(None, NOW + 1, False, id="the last second of its grace"),
        pytest.param(None, NOW, True, id="its grace has just ended, though nobody wrote that down yet"),
        pytest.param(NOW - 1, NOW + 99, True, id="its successor was used within the grace"),
    ],
)
def test_P9_superseded_is_decided_by_the_record_and_the_time(superseded_at: int | None, grace_ends_at: int | None, expected: bool) -> None:
    record = replace(_certificate(), superseded_at=superseded_at, grace_ends_at=grace_ends_at)
    assert renewal.superseded(record, now=NOW) is expected


OLD = CertificateRef(IssuerId("issuing"), Serial(7))
NEXT: dict[str, Any] = {"ref": CertificateRef(IssuerId("issuing"), Serial(8)), "parent": OLD}


@pytest.mark.parametrize(
    ("old", "successor", "code"),
    [
        pytest.param({}, NEXT, None, id="its own live successor"),
        pytest.param({"grace_ends_at": NOW + 9}, NEXT, None, id="a second successor within the grace of the first"),
        pytest.param({}, None, "not-your-successor", id="a certificate that nobody knows"),
        pytest.param({}, {**NEXT, "parent": None}, "not-your-successor", id="one that renewed nothing"),
        pytest.param({}, {**NEXT, "parent": NEXT["ref"]}, "not-your-successor", id="the successor of another"),
        pytest.param({}, {**NEXT, "state": CertificateState.intended}, "not-your-successor", id="one that was not signed yet"),
        pytest.param({}, {**NEXT, "state": CertificateState.void}, "not-your-successor", id="one that was given up"),
        pytest.param({"superseded_at": NOW - 1}, NEXT, "superseded", id="said by a superseded one"),
        pytest.param({"grace_ends_at": NOW}, NEXT, "superseded", id="a second successor after the grace of the first"),
        pytest.param({}, {**NEXT, "not_after": NOW - 1}, "successor-ended", id="a successor that has expired"),
        pytest.param({"superseded_at": NOW - 1}, {**NEXT, "delivered_at": NOW - 9}, None, id="said again after it was superseded"),
        pytest.param({}, {**NEXT, "delivered_at": NOW - 9, "not_after": NOW - 1}, None, id="said again after the successor expired"),
    ],
)
def test_P9_a_delivery_is_confirmed_by_the_holder_of_what_was_renewed(
    old: dict[str, Any], successor: dict[str, Any] | None, code: str | None
) -> None:
    record = replace(_certificate(), **old)
    found = None if successor is None else replace(_certificate(), **successor)
    if code is None:
        assert renewal.delivery(record, found, now=NOW) is found
        return
    with pytest.raises(Denied) as caught:
        renewal.delivery(record, found, now=NOW)
    assert caught.value.code == code


def test_P9_a_revoked_successor_retires_nobody() -> None:
    found = replace(_certificate(KEY_LOST), **NEXT)
    with pytest.raises(Denied) as caught:
        renewal.delivery(_certificate(), found, now=NOW)
    assert caught.value.code == "successor-ended"


# ---- Ids ------------------------------------------------------------------------------------------------------------

TRAVERSALS = [
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    ".hidden",
    "",
    "a\0b",
    "a\nb",
    "%2e%2e",
    "ä",
    "a" * 65,
    " a",
    "-a",
    "a b",
    "\u202ea",
]


@pytest.mark.parametrize("text", TRAVERSALS)
def test_R30_ids_never_hold_a_path(text: str) -> None:
    for rule in (ids.device_id, ids.profile_name, ids.issuer_id, ids.operator_name):
        with pytest.raises(Malformed):
            rule(text)


@pytest.mark.parametrize(
    ("kind", "value", "good"),
    [
        ("dns", "a.example", True),
        ("dns", "*.a.example", True),
        ("dns", "localhost", True),
        ("dns", "A.example", False),
        ("dns", "a..example", False),
        ("dns", "-a.example", False),
        ("dns", "a*.example", False),
        ("dns", "192.0.2.1", False),
        ("dns", "a.example.", False),
        ("ip", "192.0.2.1", True),
        ("ip", "2001:db8::1", True),
        ("ip", "2001:0db8::1", False),
        ("ip", "192.0.2.256", False),
        ("ip", "fe80::1%eth0", False),
        ("ip", "fe80::1%\n", False),
        ("uri", "urn:a:b", True),
        ("uri", "https://a.example/x", True),
        ("uri", "no scheme", False),
        ("uri", "urn:a b", False),
        ("email", "a@b.example", True),
        ("email", "a", False),
        ("x500", "CN=a", False),
    ],
)
def test_names_have_one_text_form(kind: str, value: str, good: bool) -> None:
    if good:
        assert ids.name(kind, value).kind is NameKind(kind)
    else:
        with pytest.raises(Malformed):
            ids.name(kind, value)
