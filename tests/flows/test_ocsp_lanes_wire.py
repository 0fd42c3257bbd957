"""On the wire nobody can tell which lane answered, nor how a connection was opened, whatever HTTP is spoken."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.x509 import ocsp as library

from ca.model import Reason
from fleetca import finished, protocol
from ocsp.front import Front
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import HOUR, NOW, World
from tests.fakes.ocsp_fleet import COLD, GOOD, LAST, ONE, PATH, TWO, get, post, warmed
from tests.fakes.ocsp_wire import asked_at_once, plain, raw, with_front, without_front


@pytest.fixture(scope="module")
def lanes() -> Iterator[tuple[World, int, int, int]]:
    """One world behind our server with and without the front, and behind a plain WSGI server."""
    world, _ = warmed()
    with with_front(world) as front, without_front(world) as flask, plain(world) as other:
        yield world, front, flask, other


DIALOGUES = [
    pytest.param([post(ONE, LAST)], id="POST"),
    pytest.param([get(LAST)], id="GET"),
    pytest.param([get(LAST, method=b"HEAD")], id="HEAD"),
    pytest.param([post(ONE), post(TWO), get(), post(COLD), get(LAST)], id="keep-alive, finished and not"),
    pytest.param([b"".join([post(ONE), post(COLD), get(), post(TWO), post(COLD), get(method=b"HEAD"), post(ONE, LAST)])], id="pipelined"),
    pytest.param([post(ONE, LAST) + post(TWO)], id="pipelined behind the last"),
    pytest.param([post(ONE, version=b"1.0")], id="HTTP/1.0"),
    pytest.param([post(ONE, b"Connection: keep-alive", version=b"1.0")], id="HTTP/1.0 that wants to stay"),
    pytest.param([get(version=b"1.0")], id="GET by HTTP/1.0"),
    pytest.param(
        [b"POST /ocsp HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/ocsp-request\r\nTransfer-Encoding: chunked\r\n\r\n"
         + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (ONE[:10], ONE[10:])) + b"0\r\n\r\n"],
        id="chunked",
    ),
    pytest.param([bytes([octet]) for octet in post(ONE, LAST)], id="octet by octet"),
    pytest.param([post(ONE)[:-20], post(ONE)[-20:] + post(TWO)[:50], post(TWO)[50:] + get(LAST)], id="cut anywhere"),
    pytest.param([post(ONE, LAST, kind=b"APPLICATION/OCSP-request; a=b")], id="the type in another spelling"),
    pytest.param([post(ONE, LAST, kind=b"text/plain")], id="another type"),
    pytest.param([post(b"", LAST)], id="an empty body"),
    pytest.param([post(b"\x30" * 600, LAST)], id="a body of no form"),
    pytest.param([post(ONE + b"\0", LAST)], id="an octet too many"),
    pytest.param([get(b"Content-Length: 5", LAST) + b"hello"], id="GET with a body"),
    pytest.param([get(LAST, path=b"/ocsp/" + PATH + b"?x=y")], id="GET with a query"),
    pytest.param([get(LAST, path=b"http://a/ocsp/" + PATH)], id="GET in absolute form"),
    pytest.param([get(LAST, path=b"/ocsp//" + PATH)], id="GET with a slash too many"),
    pytest.param([get(LAST, path=b"/ocsp")], id="GET of nothing"),
    pytest.param([get(LAST, path=b"/ocspx/" + PATH)], id="GET beside it"),
    pytest.param([get(b"If-None-Match: *", LAST)], id="If-None-Match"),
    pytest.param([get(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"), get(LAST)], id="Upgrade to HTTP/2"),
    pytest.param([get(b"Range: bytes=0-9", b"Accept-Encoding: gzip", b"Authorization: Basic eA==", LAST)], id="headers that mean nothing here"),
    pytest.param([b"\r\n" + post(ONE, LAST)], id="an empty line before"),
    pytest.param([post(ONE, b"Expect: 100-continue", LAST)], id="Expect, and the body at once"),
    pytest.param([post(ONE, b"Expect: something", LAST)], id="Expect of something else"),
    pytest.param([b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"], id="a length that is none"),
    pytest.param([b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"], id="two lengths"),
    pytest.param([b"POST /ocsp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], id="length and chunks"),
    pytest.param([b"GET /ocsp/" + PATH + b" HTTP/9.9\r\n\r\n"], id="HTTP/9.9"),
    pytest.param([b"get /ocsp/" + PATH + b" HTTP/1.1\r\n\r\n"], id="a method in small letters"),
]  # fmt: skip


def spoken(port: int, parts: list[bytes]) -> bytes:
    """Everything that comes back; dates are cut out."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            line.sendall(part)
            if len(parts) < 10:
                threading.Event().wait(0.02)
        got = b""
        try:
            while part := line.recv(65536):
                got += part
        except ConnectionResetError:
            pass
    return re.sub(rb"Date: [^\r]*", b"Date", got)


@pytest.mark.parametrize("parts", DIALOGUES)
def test_nobody_can_tell_which_lane_answered(lanes: tuple[World, int, int, int], parts: list[bytes]) -> None:
    _, front, flask, _ = lanes
    assert essential(spoken(front, parts)) == essential(spoken(flask, parts))


PIECES = [
    post(ONE), post(ONE), post(TWO), get(), get(), post(COLD), post(ONE, b"User-Agent: b"), get(b"User-Agent: b"), post(ONE + b"\0"),
    post(ONE)[:-1] + b"\0", post(b""), b"\r\n" + post(TWO), get(b"Content-Length: 5") + b"hello", get(path=b"/ocsp/" + PATH + b"?x=y"), post(b"\x30" * 87),
    post(ONE, b"Expect: something"), get(path=b"/ocsp/" + PATH[:-3]), get(path=b"/ocsp//" + PATH), post(ONE).replace(b"/ocsp ", b"/ocsp?a "),
]  # fmt: skip
"""Requests after which a connection stays open."""


@pytest.mark.parametrize("number", range(12))
def test_nobody_can_tell_whether_header_lines_were_read_or_recognised(lanes: tuple[World, int, int, int], number: int) -> None:
    """Any requests, in one piece or cut anywhere; from the second on most of their header lines are known octets."""
    _, front, flask, _ = lanes
    chance = random.Random(number)
    octets = b"".join(chance.choices(PIECES, k=12)) + chance.choice([post(ONE, LAST), get(LAST), post(ONE, version=b"1.0")])
    cuts = sorted(chance.sample(range(len(octets)), k=chance.choice([0, 1, 3])))
    parts = [octets[start:end] for start, end in pairwise([0, *cuts, len(octets)])]
    told = essential(spoken(flask, parts))
    for piece in PIECES[:10]:
        raw(front, piece, until=lambda got: b"\r\n\r\n" in got)
    for _ in range(2):
        assert essential(spoken(front, parts)) == told


def test_header_lines_that_were_read_once_are_not_read_again(lanes: tuple[World, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, front, _, _ = lanes
    read: list[bytes] = []
    taken = protocol.Protocol.data_received

    def watched(self: protocol.Protocol, data: bytes) -> None:
        read.append(data)
        taken(self, data)

    monkeypatch.setattr(protocol.Protocol, "data_received", watched)
    monkeypatch.setattr(finished.Finished, "_lines", {})
    with socket.create_connection(("127.0.0.1", front), timeout=60) as line:
        for octets, new in (
            (post(ONE), True),
            (post(TWO), True),
            (get(), True),
            (post(ONE), False),
            (get(), False),
            (post(ONE, b"A: b"), True),
        ):
            read.clear()
            line.sendall(octets)
            assert line.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
            assert read == ([octets] if new else [])
        read.clear()
        line.sendall(post(ONE) + get() + post(COLD))
        got = b""
        while got.count(b"HTTP/1.1 200 OK\r\n") < 3:
            got += line.recv(65536)
        assert read == [post(COLD)], "what is not finished goes on from there"
    for number in range(2000):
        finished.Finished._lines[b"%d" % number] = 0, True
    raw(front, post(ONE, b"C: d"), until=lambda got: b"\r\n\r\n" in got)
    assert len(finished.Finished._lines) == 1, "bounded"


def test_the_same_octets_in_the_same_second_get_the_same_octets_until_a_change_is_heard() -> None:
    world, front = warmed()
    asked = fakes.certificate_id(world.ca.issuer, GOOD)
    with with_front(world) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as line:

        def ask(body: bytes = ONE) -> bytes:
            line.sendall(post(body))
            got = b""
            while (size := re.search(rb"Content-Length: (\d+)", got)) is None or len(got.partition(b"\r\n\r\n")[2]) < int(size[1]):
                part = line.recv(65536)
                assert part, "it goes on"
                got += part
            return re.sub(rb"Date: [^\r]*", b"Date", got)

        nonce = fakes.request(asked, extensions=[fakes.nonce_extension(b"n" * 32)])
        before = [ask() for _ in range(4)]
        assert len(set(before)) == 1
        assert post(ONE) in front.repeats.sent, "recognised whole"
        assert front.counted["good"] == 4
        assert ask(nonce) != ask(nonce), "what is signed each time is never repeated"
        assert set(front.repeats.sent) == {post(ONE)}
        world.clock.time += 1
        world.service.listen()
        assert ask() == before[0], "nothing was heard"
        assert front.repeats.second == world.clock.time
        world.record.change(next(ref for ref in world.record.states if ref.serial == GOOD), Reason.keyCompromise, world.clock.time)
        world.service.listen()
        assert not front.repeats.sent
        told = ask()
        assert told not in before
        assert library.load_der_ocsp_response(told.partition(b"\r\n\r\n")[2]).certificate_status is library.OCSPCertStatus.REVOKED


def test_P5_an_answer_that_was_looked_up_before_a_change_is_not_repeated_after_it() -> None:
    world, front = warmed()
    repeats = front.repeats
    assert front.post(ONE)
    repeats = front.repeats
    assert repeats.second == NOW
    ready = front.post(ONE)  # taken, not yet sent: and now the change is heard
    world.record.change(next(ref for ref in world.record.states if ref.serial == GOOD), Reason.keyCompromise, NOW)
    world.service.listen()
    assert ready is not None
    repeats.sent[b"request"] = ready[1], "good"
    assert not front.repeats.sent
    assert front.post(ONE) is None
    assert not front.repeats.sent


def test_what_is_due_or_has_little_time_left_is_never_repeated() -> None:
    world, front = warmed()
    first = front.post(ONE)
    assert first is not None
    assert first[2] == "good"
    world.clock.time = NOW + HOUR // 2
    world.service.listen()
    assert front.post(ONE) is None, "this one has it made anew"
    going_on = front.post(ONE)
    assert going_on is not None
    assert going_on[2] is None


# ---- A connection for one answer ----------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections for which a protocol was made, by our server with the front."""
    made: list[object] = []
    whole = finished.Finished.connection_made

    def watched(self: finished.Finished, transport: Any) -> None:
        made.append(self)
        whole(self, transport)

    monkeypatch.setattr(finished.Finished, "connection_made", watched)
    monkeypatch.setattr(finished.Finished, "_lines", {})
    return made


ENDING = [
    pytest.param(post(ONE, version=b"1.0"), id="POST by HTTP/1.0"),
    pytest.param(get(version=b"1.0"), id="GET by HTTP/1.0"),
    pytest.param(post(TWO, LAST), id="POST that says it is the last"),
    pytest.param(get(LAST), id="GET that says it is the last"),
]


@pytest.mark.parametrize("octets", ENDING)
def test_nobody_can_tell_whether_a_connection_for_one_answer_was_opened(
    lanes: tuple[World, int, int, int], opened: list[object], octets: bytes
) -> None:
    _, front, flask, _ = lanes
    expected = asked_at_once(flask, octets)
    assert asked_at_once(front, octets) == expected
    assert opened, "its header lines were read"
    opened.clear()
    state = state_of_a_server()
    kind = kind_of(lanes[0].service.front)
    for _ in range(3):
        assert asked_at_once(front, octets) == expected, "whichever of them was quicker, we or it"
        assert kind.at_once(state, octets) is not None
    # Not what is not whole, or not alone, or not the last.
    counted = dict(kind.front.counted)
    for other in (octets[:-1], octets + b"\r\n", octets + octets, post(ONE), get(), b"", b"\r\n", b"GARBAGE\r\n\r\n"):
        assert kind.at_once(state, other) is None
    assert kind.front.counted == counted, "what is answered later is not asked for now"
    for other in (octets + octets, octets + b"\r\n", b"GARBAGE\r\n\r\n"):
        assert essential(asked_at_once(front, other)) == essential(asked_at_once(flask, other))


def test_what_is_sent_at_once_follows_changes_and_time() -> None:
    world, front = warmed()
    kind, state, octets = kind_of(front), state_of_a_server(), post(ONE, version=b"1.0")
    with with_front(world) as port:
        asked_at_once(port, octets)
    first = kind.at_once(state, octets)
    assert first is not None
    assert kind.at_once(state, octets) == first
    assert octets in front.repeats.last
    world.clock.time += 1
    for _ in range(2):
        assert kind.at_once(state, octets) == first, "made again, and the same"
    assert front.repeats.second == world.clock.time
    nonce = fakes.request(fakes.certificate_id(world.ca.issuer, GOOD), extensions=[fakes.nonce_extension(b"n" * 32)])
    with with_front(world) as port:
        asked_at_once(port, post(nonce, version=b"1.0"))
    assert kind.at_once(state, post(nonce, version=b"1.0")) != kind.at_once(state, post(nonce, version=b"1.0"))
    assert set(front.repeats.last) == {octets}
    world.record.change(next(ref for ref in world.record.states if ref.serial == GOOD), Reason.keyCompromise, world.clock.time)
    world.service.listen()
    assert kind.at_once(state, octets) is None, "Flask looks it up"


def kind_of(front: Front) -> Any:
    return type("Kind", (finished.Finished,), {"front": front})


def state_of_a_server() -> Any:
    return SimpleNamespace(default_headers=[(b"date", b"x")])


def test_what_is_finished_leaves_before_what_comes_behind_it_is_judged(lanes: tuple[World, int, int, int]) -> None:
    assert spoken(lanes[1], [post(ONE) * 100 + get(LAST)]).count(b"200 OK") == 101
    assert re.findall(rb"HTTP/1.1 (\d+)", spoken(lanes[1], [post(ONE) + b"GARBAGE\r\n\r\n"])) == [b"200", b"400"]


def essential(octets: bytes) -> bytes:
    """Unsigned parts as they are; of negative answers, which are signed each time, the length varies by an octet or two."""
    out = b""
    while octets:
        head, _, rest = octets.partition(b"\r\n\r\n")
        size = re.search(rb"Content-Length: (\d+)", head)
        body = rest[: int(size[1])] if size and b"304" not in head.split(b"\r\n")[0] else b""
        if b"no-store" in head and body[:4] == b"\x30\x82" + body[2:4] and len(body) > 100:
            told = library.load_der_ocsp_response(body)
            head = head.replace(size[0], b"content-length") if size else head
            out += head + told.tbs_response_bytes
        else:
            out += head + body
        octets = rest[len(body) :]
        if size and not rest.startswith(body):
            break
    return out


SAME_ELSEWHERE = [
    one
    for one in DIALOGUES
    if one.id in {"POST", "GET", "GET by HTTP/1.0", "HTTP/1.0", "If-None-Match", "an octet too many", "GET with a query", "another type"}
]


@pytest.mark.parametrize("parts", SAME_ELSEWHERE)
def test_a_plain_WSGI_server_gives_the_same_answers(lanes: tuple[World, int, int, int], parts: list[bytes]) -> None:
    _, front, _, other = lanes

    def known(octets: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        head, _, body = octets.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        return (
            first.split(b" ")[1],
            {name: value for name, value in headers.items() if name not in {b"date", b"server", b"connection"}},
            body,
        )

    ours = spoken(front, parts)
    assert ours
    assert known(ours) == known(spoken(other, parts))


def test_RFC9110_10_1_1_who_waits_for_100_is_told_to_go_on(lanes: tuple[World, int, int, int]) -> None:
    with socket.create_connection(("127.0.0.1", lanes[1]), timeout=60) as line:
        whole = post(ONE, b"Expect: 100-continue", LAST)
        line.sendall(whole[: -len(ONE)])
        assert line.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        line.sendall(ONE)
        got = b""
        while part := line.recv(65536):
            got += part
        assert b"200 OK" in got
