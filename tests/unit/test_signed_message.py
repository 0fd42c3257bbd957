"""What a signed message must be to count: its form, its purpose, its audience, its time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ca.errors import FleetcaError, Malformed, Unauthenticated
from ca.model import CertificateRef, DeviceId, IssuerId, Name, NameKind, ProfileName, Reason, Serial
from ca.rules.message import LONGEST_PAYLOAD, WINDOW, Act, Message, check_message, read_message, write_message

NOW = 1_795_305_600
ID = "0" * 32
BASE: dict[str, Any] = {"act": "confirm", "audience": "test", "issued_at": NOW, "id": ID}
REVOKE = {**BASE, "act": "revoke", "reason": "keyCompromise"}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Message(Act.renew, "test", NOW, ID, csr=b"\x30\x00"), id="renew"),
        pytest.param(Message(Act.confirm, "test", NOW, ID), id="confirm"),
        pytest.param(
            Message(Act.confirm, "test", NOW, ID, target=CertificateRef(IssuerId("issuing"), Serial(77))), id="confirm a delivery"
        ),
        pytest.param(
            Message(Act.revoke, "test", NOW, ID, reason=Reason.superseded, target=CertificateRef(IssuerId("issuing"), Serial(77))),
            id="revoke a certificate",
        ),
        pytest.param(Message(Act.revoke, "test", NOW, ID, reason=Reason.unspecified, device=DeviceId("pump-1")), id="revoke a device"),
        pytest.param(
            Message(
                Act.create_token,
                "test",
                NOW,
                ID,
                device=DeviceId("pump-1"),
                profile=ProfileName("service"),
                names=(Name(NameKind.dns, "a.example"), Name(NameKind.ip, "192.0.2.1")),
                lifetime=60,
            ),
            id="create a token",
        ),
        pytest.param(
            Message(Act.issue, "test", NOW, ID, device=DeviceId("pump-1"), profile=ProfileName("device"), csr=b"\x30\x00"), id="issue"
        ),
    ],
)
def test_what_is_written_reads_back_as_the_same(message: Message) -> None:
    assert read_message(write_message(message)) == message


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"", "bad-message", id="nothing"),
        pytest.param(b"\xff\xfe", "bad-message", id="not UTF-8"),
        pytest.param(b"[]", "bad-message", id="a list in place of an object"),
        pytest.param(b"[" * 50_000, "bad-message", id="nested too deeply to read"),
        pytest.param(b'"' + b"a" * LONGEST_PAYLOAD + b'"', "bad-message", id="too long"),
        pytest.param({**BASE, "act": "obey"}, "bad-message", id="an act that does not exist"),
        pytest.param({**BASE, "act": ["renew"]}, "bad-message", id="an act that is a list"),
        pytest.param({**BASE, "csr": "MAA="}, "bad-message", id="a field that this act does not have"),
        pytest.param({**BASE, "act": "renew"}, "bad-message", id="a renewal without a CSR"),
        pytest.param({**BASE, "act": "renew", "csr": "!!"}, "bad-message", id="a CSR that is not base64"),
        pytest.param({key: BASE[key] for key in BASE if key != "id"}, "bad-message", id="no id"),
        pytest.param({**BASE, "id": "short"}, "bad-message", id="an id too short to be random"),
        pytest.param({**BASE, "issued_at": True}, "bad-message", id="a time that is true"),
        pytest.param({**BASE, "issued_at": 1.5}, "bad-message", id="a time that is not whole"),
        pytest.param({**BASE, "issued_at": -1}, "bad-message", id="a negative time"),
        pytest.param({**BASE, "issuer": "issuing"}, "bad-message", id="the delivery of an issuer"),
        pytest.param({**BASE, "serial": "01"}, "bad-message", id="the delivery of a serial of any issuer"),
        pytest.param({**BASE, "device": "pump-1"}, "bad-message", id="the delivery of a device"),
        pytest.param({**BASE, "act": "renew", "csr": "MAA=", "issuer": "a", "serial": "01"}, "bad-message", id="a renewal that names one"),
        pytest.param(REVOKE, "bad-message", id="a revocation of nothing"),
        pytest.param({**REVOKE, "serial": "01"}, "bad-message", id="a serial without an issuer"),
        pytest.param({**REVOKE, "serial": "01", "issuer": "a", "device": "b"}, "bad-message", id="a certificate and a device at once"),
        pytest.param({**REVOKE, "serial": "xyz", "issuer": "a"}, "bad-serial", id="a serial that is not hex"),
        pytest.param({**REVOKE, "device": "../etc"}, "bad-device-id", id="a path in place of a device id (R30)"),
        pytest.param({**REVOKE, "device": "a", "reason": "boredom"}, "unknown-reason", id="a reason that no RFC knows"),
        pytest.param(
            b'{"act":"confirm","act":"renew","audience":"test","issued_at":1,"id":"00000000000000000000000000000000"}',
            "bad-message",
            id="a key that stands twice: two readers would read two messages",
        ),
    ],
)
def test_R17_what_is_not_a_message_is_malformed(payload: bytes | dict[str, Any], code: str) -> None:
    octets = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(Malformed) as caught:
        read_message(octets)
    assert caught.value.code == code


@pytest.mark.parametrize("act", list(Act))
@pytest.mark.parametrize("late", [-1, 0, 1])
def test_a_message_counts_within_its_window_and_not_a_second_longer(act: Act, late: int) -> None:
    message = Message(act, "test", NOW - WINDOW[act] - late, ID)
    if late <= 0:
        check_message(message, acts=frozenset({act}), deployment="test", now=NOW)
    else:
        with pytest.raises(Unauthenticated) as caught:
            check_message(message, acts=frozenset({act}), deployment="test", now=NOW)
        assert caught.value.code == "message-out-of-time"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"acts": frozenset({Act.revoke})}, "message-for-another-act", id="signed for another purpose"),
        pytest.param({"deployment": "other"}, "message-for-another-deployment", id="signed for another deployment"),
        pytest.param({"now": NOW - WINDOW[Act.renew] - 1}, "message-out-of-time", id="signed in the future"),
    ],
)
def test_a_message_counts_for_its_purpose_only(change: dict[str, Any], code: str) -> None:
    given: dict[str, Any] = {"acts": frozenset({Act.renew}), "deployment": "test", "now": NOW, **change}
    with pytest.raises(FleetcaError) as caught:
        check_message(Message(Act.renew, "test", NOW, ID), **given)
    assert caught.value.code == code
