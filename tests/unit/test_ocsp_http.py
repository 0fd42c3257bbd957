"""OCSP over HTTP: how paths are read, what is refused, and which headers an answer carries."""

from __future__ import annotations

import base64
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import Malformed
from ocsp.model import GOOD, MAX_OCTETS, Answer, Finished, Policy, Question, ResponseStatus, Window
from ocsp.rules import http
from tests.fakes.ocsp import HOUR, NOW

POLICY = Policy()
# Its base64 has `+`, `/`, `//` and two signs of padding.
OCTETS = b"\x30\x0b" + b"\xfb\xff\xff\xff\xfb\xef\xbe\xff\xff\xff\xff\xfe"[:12] + b"\xfa"
TEXT = base64.b64encode(OCTETS).decode()
assert all(sign in TEXT for sign in ("+", "//")), TEXT


def asked(path: str) -> bytes | Answer:
    return http.request_octets(Question(method="GET", raw_path=path), POLICY)


PADDED = b"\x30\x05abcde"
PADDED_TEXT = base64.b64encode(PADDED).decode()
assert PADDED_TEXT.endswith("==")


@pytest.mark.parametrize(
    ("path", "octets"),
    [
        pytest.param("/ocsp/" + TEXT, OCTETS, id="RFC 6960 A.1: raw base64, with // inside"),
        pytest.param("/ocsp/" + quote(TEXT, safe=""), OCTETS, id="RFC 6960 A.1: + / = percent-encoded"),
        pytest.param("/ocsp/" + TEXT.replace("/", "%2f").replace("+", "%2b"), OCTETS, id="lower-case hex digits"),
        pytest.param("/ocsp/" + TEXT.replace("/", "%2F"), OCTETS, id="%2F alone"),
        pytest.param("/ocsp//" + TEXT, OCTETS, id="a URL in the certificate that ends in a slash"),
        pytest.param("/ocsp/%2F" + TEXT, OCTETS, id="the same, encoded"),
        pytest.param("/ocsp/" + TEXT.replace("+", " "), OCTETS, id="a space where a plus was"),
        pytest.param("/ocsp/" + TEXT.replace("+", "%20"), OCTETS, id="an encoded space where a plus was"),
        pytest.param("/ocsp/" + PADDED_TEXT.rstrip("="), PADDED, id="missing padding"),
        pytest.param("/ocsp/" + PADDED_TEXT.replace("=", "%3D"), PADDED, id="encoded padding"),
        pytest.param("/ocsp/" + PADDED_TEXT + "==", PADDED, id="too much padding"),
        pytest.param("/ocsp/" + TEXT[:8] + "%0D%0A" + TEXT[8:], OCTETS, id="base64 that was wrapped"),
        pytest.param("/ocsp/" + TEXT + "?a=b", OCTETS, id="a query is none of ours"),
        pytest.param("http://status.example/ocsp/" + TEXT, OCTETS, id="RFC 9112 3.2.2: absolute form"),
    ],
)
def test_RFC6960_A1_get_paths(path: str, octets: bytes) -> None:
    assert asked(path) == octets


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/ocsp/M", id="one digit is no octet"),
        pytest.param("/ocsp/MEUw*", id="a sign that is no base64"),
        pytest.param("/ocsp/MEUw%00", id="a zero octet"),
        pytest.param("/ocsp/ME=Uw", id="padding in the middle"),
        pytest.param("/ocsp/M\u00c9Uw", id="a letter outside ASCII"),
        pytest.param("/ocsp/-_-_", id="URL-safe base64"),
    ],
)
def test_what_is_not_base64_is_malformed(path: str) -> None:
    with pytest.raises(Malformed):
        asked(path)


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_path_gives_octets_an_answer_or_Malformed(path: str) -> None:
    for candidate in (path, "/ocsp/" + path):
        try:
            found = asked(candidate)
        except Malformed:
            continue
        assert isinstance(found, (bytes, Answer))


@given(st.binary(max_size=200), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_the_encoding_the_octets_come_out(rest: bytes, encode: bool, pad: bool) -> None:
    octets = b"\x30" + rest
    text = base64.b64encode(octets).decode()
    text = text if pad else text.rstrip("=")
    assert asked("/ocsp/" + (quote(text, safe="") if encode else text)) == octets


@pytest.mark.parametrize(
    ("question", "status"),
    [
        pytest.param(Question("POST", "/ocsp", b"x" * (MAX_OCTETS + 1), http.REQUEST_TYPE), 413, id="a body over 64 KiB"),
        pytest.param(Question("GET", "/ocsp/" + "M" * 200_000), 414, id="a path over any use"),
        pytest.param(Question("GET", "/ocsp/" + "M" * 100_000), 414, id="a path that decodes to over 64 KiB"),
        pytest.param(Question("POST", "/ocsp", b"x", "application/json"), 415, id="another content type"),
        pytest.param(Question("POST", "/ocsp", b"x", "application/x-www-form-urlencoded"), 415, id="a form"),
        pytest.param(Question("POST", "/ocsp/MEUw", b"x", http.REQUEST_TYPE), 404, id="POST with a path"),
        pytest.param(Question("PUT", "/ocsp", b"x"), 405, id="PUT"),
        pytest.param(Question("OPTIONS", "*"), 404, id="OPTIONS *"),
        pytest.param(Question("GET", "/ocspx/MEUw"), 404, id="a longer name"),
        pytest.param(Question("GET", "/other"), 404, id="another path"),
        pytest.param(Question("GET", ""), 404, id="no path"),
    ],
)
def test_http_refusals(question: Question, status: int) -> None:
    found = http.request_octets(question, POLICY)
    assert isinstance(found, Answer)
    assert found.status == status
    assert ("Cache-Control", "no-store") in found.headers


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("application/ocsp-request", id="the type"),
        pytest.param("Application/OCSP-Request; charset=binary", id="in other letters, with a parameter"),
        pytest.param(None, id="no type"),
    ],
)
def test_RFC6960_A1_post_takes(content_type: str | None) -> None:
    assert http.request_octets(Question("POST", "/ocsp", b"x", content_type), POLICY) == b"x"
    assert http.request_octets(Question("POST", "/ocsp/", b"x", content_type), POLICY) == b"x"


def test_RFC9919_6_errors_are_200_and_nobody_keeps_them() -> None:
    for status in list(ResponseStatus)[1:]:
        found = http.error(status)
        assert found.status == 200
        headers = dict(found.headers)
        assert headers == {"Content-Type": http.RESPONSE_TYPE, "Content-Length": "5", "Cache-Control": "no-store"}
        assert found.outcome == status.name


FINISHED = Finished(b"body", '"tag"', NOW, Window(NOW - 60, NOW + HOUR, NOW + 1800), GOOD, cacheable=True, outcome="good")


def reply(now: int = NOW, *, digest: bytes = b"\x00" * 32, method: str = "GET", if_none_match: str | None = None) -> Answer:
    question = Question(method=method, raw_path="/ocsp/x", if_none_match=if_none_match)
    return http.reply(question, FINISHED, POLICY, now=now, digest=digest)


def test_RFC9919_6_headers_of_an_answer() -> None:
    headers = dict(reply().headers)
    assert headers["Content-Type"] == "application/ocsp-response"
    assert headers["Content-Length"] == "4"
    assert headers["ETag"] == '"tag"'
    assert int(parsedate_to_datetime(headers["Last-Modified"]).timestamp()) == NOW - 60
    assert int(parsedate_to_datetime(headers["Expires"]).timestamp()) == NOW + HOUR
    assert headers["Expires"].endswith("GMT")
    assert headers["Cache-Control"] == "max-age=300, public, no-transform, must-revalidate"


def test_RFC9919_7_2_max_age_is_spread_and_ends_within_nextUpdate() -> None:
    ages = {dict(reply(digest=bytes([first]) * 32).headers)["Cache-Control"].split(",")[0] for first in range(0, 256, 5)}
    assert len(ages) > 10
    assert all(270 <= int(age.removeprefix("max-age=")) <= 300 for age in ages)
    near = dict(reply(now=NOW + HOUR - 100).headers)["Cache-Control"]
    assert near.startswith("max-age=99,")
    assert dict(reply(now=NOW + HOUR - 1).headers)["Cache-Control"].startswith("max-age=0,")


@pytest.mark.parametrize(
    ("tags", "method", "status"),
    [
        pytest.param('"tag"', "GET", 304, id="its tag"),
        pytest.param('"tag"', "HEAD", 304, id="its tag, by HEAD"),
        pytest.param('W/"tag"', "GET", 304, id="its tag, made weak by a proxy"),
        pytest.param('"other", "tag"', "GET", 304, id="among others"),
        pytest.param("*", "GET", 304, id="any"),
        pytest.param('"other"', "GET", 200, id="another tag"),
        pytest.param('"tag"', "POST", 200, id="POST is not conditional"),
        pytest.param("", "GET", 200, id="an empty header"),
    ],
)
def test_RFC9110_13_1_2_not_modified(tags: str, method: str, status: int) -> None:
    found = reply(if_none_match=tags, method=method)
    assert found.status == status
    if status == 304:
        assert found.body == b""
        assert {name for name, _ in found.headers} == {"ETag", "Last-Modified", "Expires", "Cache-Control"}
