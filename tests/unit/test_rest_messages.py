"""What strangers may send to the REST API, and what each mistake is called."""

from __future__ import annotations

import base64
import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import FleetcaError, Malformed, Refused
from ca.model import Standing
from enroll.rest import fields, messages
from enroll.rest.fields import Body

CSR_NONSENSE = base64.b64encode(b"\x30\x03\x02\x01\x00").decode()

BODIES = [
    pytest.param(b"", messages.ENROLL, "bad-json", id="an empty body is no JSON"),
    pytest.param(b"[]", messages.ENROLL, "not-an-object", id="a list is no object"),
    pytest.param(b'"token"', messages.ENROLL, "not-an-object", id="a string is no object"),
    pytest.param(b"null", messages.ENROLL, "not-an-object", id="null is no object"),
    pytest.param(b"7", messages.ENROLL, "not-an-object", id="a number is no object"),
    pytest.param(b"{}", messages.ENROLL, "missing-field", id="a field is missing"),
    pytest.param(b'{"token": 5, "csr": "x"}', messages.ENROLL, "bad-field", id="a number stands where a string belongs"),
    pytest.param(b'{"token": null, "csr": "x"}', messages.ENROLL, "bad-field", id="null stands where a string belongs"),
    pytest.param(b'{"token": "a b", "csr": "x"}', messages.ENROLL, "bad-field", id="a space inside a token"),
    pytest.param(b'{"token": "enr_x", "csr": "x", "cn": "root"}', messages.ENROLL, "unknown-field", id="a field nobody asked for"),
    pytest.param(b'{"token": "enr_x", "csr": []}', messages.ENROLL, "bad-field", id="a list stands where a request belongs"),
    pytest.param(b'{"token": "enr_x", "csr": "%%%"}', messages.ENROLL, "bad-field", id="a request that is not base64"),
    pytest.param(b'{"token": "enr_x", "csr": "AAAA"}', messages.ENROLL, "bad-csr", id="a request that is not DER"),
    pytest.param(json.dumps({"token": "enr_x", "csr": CSR_NONSENSE}).encode(), messages.ENROLL, "bad-csr", id="DER that is no request"),
    pytest.param(
        json.dumps({"token": "enr_x", "csr": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}).encode(),
        messages.ENROLL,
        "bad-pem",
        id="PEM of something else",
    ),
    pytest.param(b'{"token": "a", "token": "b"}', messages.ENROLL, "duplicate-field", id="a field stands twice"),
    pytest.param(b'{"token": NaN}', messages.ENROLL, "bad-json", id="NaN is no JSON"),
    pytest.param(b'{"token": Infinity}', messages.ENROLL, "bad-json", id="Infinity is no JSON"),
    pytest.param(b'{"token": ' + b"9" * 5000 + b"}", messages.ENROLL, "bad-json", id="a number of five thousand digits"),
    pytest.param(b'{"token": "\\ud800"}', messages.ENROLL, "bad-json", id="half a surrogate pair"),
    pytest.param(b'{"token": "\xff"}', messages.ENROLL, "bad-encoding", id="octets that are not UTF-8"),
    pytest.param(b"\xff\xfe{\x00}\x00", messages.ENROLL, "bad-encoding", id="UTF-16"),
    pytest.param(b"[" * 30_000 + b"]" * 30_000, messages.ENROLL, "bad-json", id="thirty thousand nested lists"),
    pytest.param(b'{"a":' * 10_000, messages.ENROLL, "bad-json", id="ten thousand nested objects, never closed"),
    pytest.param(b" " * 70_000, messages.ENROLL, "body-too-large", id="a body above the bound"),
    pytest.param(b"{}", messages.RENEW, "missing-field", id="a renewal with neither request nor message"),
    pytest.param(b'{"message": "x"}', messages.RENEW, "bad-field", id="a message that is a string"),
    pytest.param(b'{"message": {}}', messages.RENEW, "missing-field", id="a message without a payload"),
    pytest.param(
        b'{"message": {"payload": "", "certificate": "", "signature": "", "alg": "none"}}',
        messages.RENEW,
        "unknown-field",
        id="a message that brings its own algorithm",
    ),
    pytest.param(
        b'{"message": {"payload": "@", "certificate": "", "signature": ""}}', messages.RENEW, "bad-field", id="base64 that is none"
    ),
    pytest.param(b'{"reason": "nonsense"}', messages.REVOKE, "bad-field", id="a reason that RFC 5280 does not know"),
    pytest.param(b'{"reason": 1}', messages.REVOKE, "bad-field", id="a reason as a number"),
    pytest.param(b"{}", messages.REVOKE, "missing-field", id="a revocation without a reason"),
    pytest.param(b'{"csr": "x"}', messages.CONFIRM, "unknown-field", id="a confirmation that carries a request"),
]


@pytest.mark.parametrize("raw, body, code", BODIES)
def test_a_wrong_body_is_refused_with_words(raw: bytes, body: Body, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        messages.read_body(raw, body)
    assert caught.value.code == code
    assert caught.value.what.endswith(".")


def test_the_error_names_the_field() -> None:
    with pytest.raises(Malformed, match="'common_name'"):
        messages.read_body(b'{"token": "enr_x", "csr": "x", "common_name": "root"}', messages.ENROLL)
    with pytest.raises(Malformed, match="'csr'"):
        messages.read_body(b'{"token": "enr_x"}', messages.ENROLL)


def test_client_text_in_an_error_is_short_and_escaped() -> None:
    with pytest.raises(Malformed) as caught:
        messages.read_body(json.dumps({"\n\x1b[31m" + "x" * 5000: 1}).encode(), messages.CONFIRM)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=400))
def test_any_octets_give_a_value_or_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(Refused):
        messages.read_body(raw, messages.RENEW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["csr", "message", "payload", "x"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_gives_a_value_or_a_refusal(value: object) -> None:
    raw = json.dumps(value).encode()
    for body in messages.BODIES:
        try:
            messages.read_body(raw, body)
        except FleetcaError as error:
            assert isinstance(error, Refused)  # noqa: PT017 - any other would be a fault of ours


def test_brackets_in_strings_are_not_nesting() -> None:
    assert fields.read_json(json.dumps({"a": "[" * 100}).encode()) == {"a": "[" * 100}


SEARCHES = [
    pytest.param([("colour", "red")], "unknown-field", id="a parameter nobody knows"),
    pytest.param([("device", "a"), ("device", "b")], "duplicate-field", id="a parameter twice"),
    pytest.param([("device", "\x00")], "bad-field", id="a zero octet, which PostgreSQL would refuse"),
    pytest.param([("device", "../../etc/passwd")], "bad-field", id="a path in place of a device"),
    pytest.param([("subject", "CN=a\nb")], "bad-field", id="a control character in a subject"),
    pytest.param([("serial", "xyz")], "bad-field", id="a serial that is not hexadecimal"),
    pytest.param([("serial", "0")], "bad-serial", id="the serial zero"),
    pytest.param([("serial", "f" * 41)], "bad-field", id="a serial of 41 digits"),
    pytest.param([("key", "ab")], "bad-field", id="a key hash that is too short"),
    pytest.param([("state", "lost")], "bad-field", id="a state that does not exist"),
    pytest.param([("limit", "0")], "bad-field", id="a page of nothing"),
    pytest.param([("limit", "501")], "bad-field", id="a page above the bound"),
    pytest.param([("limit", "-1")], "bad-field", id="a negative page"),
    pytest.param([("limit", "1e3")], "bad-field", id="a page in floating point"),
    pytest.param([("limit", "٣")], "bad-field", id="a digit of another script"),
    pytest.param([("expires_before", "tomorrow")], "bad-field", id="a time in words"),
    pytest.param([("expires_before", "2026-11-22")], "bad-field", id="a date without a time"),
    pytest.param([("expires_before", "2026-11-22T06:43:00")], "bad-field", id="a time without its zone"),
    pytest.param([("expires_before", "2026-13-45T06:43:00Z")], "bad-field", id="a month thirteen"),
    pytest.param([("cursor", "'; DROP TABLE certificates")], "bad-field", id="a cursor that is none"),
]


@pytest.mark.parametrize("pairs, code", SEARCHES)
def test_a_wrong_search_is_refused_with_words(pairs: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(Malformed) as caught:
        messages.read_search(pairs)
    assert caught.value.code == code


def test_a_search_is_read_as_meant() -> None:
    query = messages.read_search(
        [
            ("device", "pump-17"),
            ("subject", "CN=pump-17"),
            ("san", "pump-17.example"),
            ("serial", "0aFF"),
            ("key", "ab" * 32),
            ("state", "revoked"),
            ("expires_after", "2026-11-22T06:43:00Z"),
            ("expires_before", "2026-11-22T08:43:00+02:00"),
            ("limit", "7"),
        ]
    )
    assert (query.device, query.subject, query.san) == ("pump-17", "CN=pump-17", "pump-17.example")
    assert query.serial == 0xAFF
    assert query.spki_sha256 == b"\xab" * 32
    assert query.state is Standing.revoked
    assert query.expires_after == query.expires_before == 1795329780
    assert query.limit == 7


def test_every_body_is_its_own_schema() -> None:
    for body in messages.BODIES:
        schema = body.schema()
        assert schema["additionalProperties"] is False
        assert set(schema["properties"]) == {one.name for one in body.fields}


HOSTILE = [
    pytest.param(b"[" * 17 + b'"' + b'\\"' * 32_000, "bad-json", id="a string full of escaped quotes that never ends"),
    pytest.param(b"[" * 17 + b'"' + b'\\"' * 32_000 + b"\\", "bad-json", id="the same, cut inside an escape"),
    pytest.param(
        b'{"csr": "' + b"-----BEGIN A-----\\n" * 3_000 + b'", "token": "x"}', "bad-pem", id="thousands of PEM blocks begin, none ends"
    ),
]


@pytest.mark.parametrize(("raw", "code"), HOSTILE)
def test_R22_no_body_of_a_stranger_costs_more_than_reading_it(raw: bytes, code: str) -> None:
    """Not a measurement: before these were read in one walk, they held the process (and every other request) for up to 25 seconds."""
    assert len(raw) <= fields.BODY_LIMIT
    before = time.process_time()
    with pytest.raises(Malformed) as refused:
        messages.read_body(raw, messages.ENROLL)
    assert refused.value.code == code
    assert time.process_time() - before < 1
