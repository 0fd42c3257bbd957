"""What leaves in front of Flask and what Flask would have said are the same: octet by octet where it is finished, in its ResponseData where it is
fresh; and on the wire nobody can tell which of them answered, whatever HTTP they speak. Strangers hold nothing up (R22)."""

from __future__ import annotations

import base64
import random
import re
import socket
import threading
from collections.abc import Callable, Hashable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp as library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.model import Reason
from fleetca import finished, protocol
from ocsp.front import Front
from ocsp.model import Finished, Policy, Status
from ocsp.rules import http, shapes
from ocsp.rules.request import read_request
from ocsp.serve import ResponderService
from ocsp.web import create_app
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import HOUR, NOW, World
from tests.fakes.ocsp_wire import Client, plain, raw, running, with_front, without_front
from tests.flows.test_ocsp_wire import GOOD, HELD, REVOKED, SECOND, UNISSUED, new_world
from tests.running import eventually

# ---- On functions: any request ------------------------------------------------------------------------------------------

SERIALS = [GOOD, REVOKED, HELD, UNISSUED, 5, 0x7F << 150]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    ca = draw(st.sampled_from([fakes.authority(), fakes.authority(), SECOND]))
    ids = [
        fakes.certificate_id(
            ca.issuer,
            draw(st.sampled_from(SERIALS)),
            hash_name=draw(st.sampled_from(["sha1", "sha256", "sha384"])),
            parameters=draw(st.sampled_from([b"", b"\x05\x00"])),
        )
        for _ in range(draw(st.sampled_from([1, 1, 1, 2])))
    ]
    extensions = []
    if draw(st.booleans()):
        extensions.append(
            fakes.nonce_extension(draw(st.binary(min_size=0, max_size=80)), critical=draw(st.sampled_from([False, False, True])))
        )
    if draw(st.sampled_from([False, False, True])):
        extensions.insert(
            draw(st.integers(0, len(extensions))), fakes.writer.extension("1.3.6.1.5.5.7.48.1.8", b"\x30\x00", critical=False)
        )
    octets = bytearray(fakes.request(*ids, extensions=extensions))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(st.integers(0, 255))
    return bytes(octets)


@given(requests())
@settings(max_examples=600, deadline=None)
def test_what_a_shape_recognises_is_what_the_reader_reads(body: bytes) -> None:
    bare, pair = shapes.certificate_id(body), shapes.with_nonce(body)
    assert bare is None or pair is None
    octets, nonce = (bare, None) if bare is not None else pair if pair is not None else (None, None)
    if octets is None:
        return
    try:
        found = read_request(body, max_certificates=1)
    except Malformed:
        # Only inside the CertID: then no answer is known by it.
        with pytest.raises(Malformed):
            read_request(fakes.request(octets), max_certificates=1)
        return
    assert (found.certificates[0].octets, found.nonce) == (octets, nonce)


@pytest.mark.parametrize("octets", [1, 5, 15, 16, 17, 20, 31, 32, 33, 64])
@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
def test_the_forms_that_clients_use_are_recognised(octets: int, hash_name: str) -> None:
    for parameters in (b"", b"\x05\x00"):
        asked = fakes.certificate_id(fakes.authority().issuer, GOOD, hash_name=hash_name, parameters=parameters)
        nonce = bytes(range(octets))
        assert shapes.certificate_id(fakes.request(asked)) == asked
        assert shapes.with_nonce(fakes.request(asked, extensions=[fakes.nonce_extension(nonce)])) == (asked, nonce)


@given(st.binary(max_size=200), st.sampled_from(["", "/", "/+=", "/+"]), st.sampled_from([b"", b"=", b"?q", b"%", b" ", b"%00", b"\n"]))
@settings(max_examples=300, deadline=None)
def test_a_path_that_is_decoded_quickly_is_decoded_right(body: bytes, safe: str, behind: bytes) -> None:
    body = b"0" + body if len(body) % 2 else body
    path = quote(base64.b64encode(body).decode(), safe=safe).encode() + behind
    octets = shapes.octets_of(path)
    if octets is not None:
        assert octets == http.decode_path(path.decode())
    if not behind and body.startswith(b"0"):
        assert octets == body


def told(ready: tuple[bytes, bytes, str | None] | None) -> tuple[dict[str, str], bytes] | None:
    if ready is None:
        return None
    lines = [line.split(": ", 1) for line in ready[0].decode().split("\r\n") if line]
    return {line[0]: line[1] for line in lines}, ready[1]


def warmed(policy: Policy | None = None) -> tuple[World, Front]:
    world = new_world(policy)
    for ca, serials in ((world.ca, (GOOD, REVOKED, HELD)), (SECOND, (GOOD,))):
        for serial in serials:
            for name in ("sha1", "sha256"):
                for parameters in (b"", b"\x05\x00"):
                    world.service.reply(
                        fakes.post(fakes.request(fakes.certificate_id(ca.issuer, serial, hash_name=name, parameters=parameters)))
                    )
    return world, world.service.front


WORLDS = {None: warmed(), 86400: warmed(Policy(archive=86400))}


@given(requests(), st.sampled_from(list(WORLDS)), st.integers(0, 1500), st.booleans())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_P11_both_lanes_give_the_same_answer(body: bytes, archive: int | None, later: int, get: bool) -> None:
    world, front = WORLDS[archive]
    world.clock.time = NOW + later
    world.service.listen()
    question = fakes.get(body) if get else fakes.post(body)
    ready = front.get(question.raw_path.encode()) if get else front.post(body)
    if ready is None:
        return
    slow = world.service.reply(question)
    headers, answer = told(ready)  # type: ignore[misc]
    expected = {name.lower(): value for name, value in slow.headers}
    assert headers == expected | {"content-length": str(len(answer))}
    if headers["cache-control"] == "no-store" and answer != slow.body:  # an error is the same, a fresh answer has another signature
        quick, long = (library.load_der_ocsp_response(one) for one in (answer, slow.body))
        assert quick.tbs_response_bytes == long.tbs_response_bytes
        quick.certificates[0].public_key().verify(quick.signature, quick.tbs_response_bytes, fakes.es256())  # type: ignore[union-attr,call-arg,arg-type]
    else:
        assert answer == slow.body


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
@pytest.mark.parametrize("nonce", [0, 16, 32])
def test_the_front_answers_what_is_finished_and_what_a_quick_signature_finishes(hash_name: str, nonce: int) -> None:
    world = new_world()
    extensions = [fakes.nonce_extension(bytes(range(nonce)))] if nonce else []
    asked = fakes.certificate_id(world.ca.issuer, GOOD, hash_name=hash_name)
    body = fakes.request(asked, extensions=extensions)
    assert world.service.front.post(body) is None, "nothing is finished yet"
    world.service.reply(fakes.post(fakes.request(asked)))
    assert world.service.front.post(body) is not None
    assert world.service.front.counted == {"good": 1}
    assert world.service.front.post(fakes.request(fakes.certificate_id(world.ca.issuer, UNISSUED))) is None


def test_P5_the_front_forgets_with_the_working_set_and_says_nothing_fresh_when_it_has_not_heard() -> None:
    world, front = warmed()
    asked = fakes.certificate_id(world.ca.issuer, GOOD)
    plain_one, with_nonce = fakes.request(asked), fakes.request(asked, extensions=[fakes.nonce_extension(b"n" * 32)])
    assert front.post(plain_one)
    world.clock.time = NOW + 3
    assert front.post(plain_one), "finished answers go on"
    assert front.post(with_nonce) is None
    world.record.change(next(ref for ref in world.record.states if ref.serial == GOOD), Reason.keyCompromise, NOW + 3)
    world.service.listen()
    assert front.post(plain_one) is None
    assert front.post(with_nonce) is None


def test_an_answer_that_is_due_is_made_anew_by_one_request_a_second_while_the_others_are_answered() -> None:
    world, front = warmed()
    body = fakes.request(fakes.certificate_id(world.ca.issuer, GOOD))
    first = front.post(body)
    world.clock.time = NOW + HOUR // 2
    world.service.listen()
    assert front.post(body) is None, "this one goes to Flask"
    assert told(front.post(body)) == told(first)
    world.service.reply(fakes.post(body))
    assert told(front.post(body)) != told(first)
    # With the database gone it goes on, with a shorter and shorter max-age, up to nextUpdate.
    second = front.post(body)
    assert second is not None
    world.record.gone = True
    ends = NOW + HOUR // 2 - 60 + HOUR - 1
    for left in (301, 200, 2, 1):
        world.clock.time = ends - left
        assert front.post(body) is None
        again = told(front.post(body))
        assert again is not None
        assert again[1] == second[1]
        assert int(again[0]["cache-control"].split(",")[0].removeprefix("max-age=")) <= left - 1
        assert world.service.reply(fakes.post(body)).body == second[1]
    world.clock.time = ends
    assert front.post(body) is None


def test_P7_with_a_database_that_is_gone_a_miss_does_not_wait_for_it() -> None:
    world = new_world()
    world.record.gone = True
    with pytest.raises(Exception, match="does not answer"):
        world.service.listen()
    world.record.gone = False
    body = fakes.request(fakes.certificate_id(world.ca.issuer, GOOD))
    before = len(world.record.asked)
    assert world.service.reply(fakes.post(body)).outcome == "tryLater"
    assert len(world.record.asked) == before
    world.service.listen()
    assert world.service.reply(fakes.post(body)).outcome == "good"


def test_a_stampede_signs_once() -> None:
    world = new_world()
    key = world.keys[-1]
    body = fakes.request(fakes.certificate_id(world.ca.issuer, GOOD))
    entered, go = threading.Event(), threading.Event()
    sign = key.sign

    def slow(message: bytes) -> bytes:
        entered.set()
        assert go.wait(60)
        return sign(message)

    key.sign = slow  # type: ignore[method-assign]
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(world.service.reply(fakes.post(body)).body)) for _ in range(16)]
    before = len(key.signed)
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    go.set()
    for thread in threads:
        thread.join()
    assert len(key.signed) == before + 1
    assert len(set(bodies)) == 1


def test_who_missed_the_flight_takes_what_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    key = world.keys[-1]
    question = fakes.post(fakes.request(fakes.certificate_id(world.ca.issuer, GOOD)))
    bodies: list[bytes] = []
    signing = world.service._signing

    def late(of: Hashable, work: Callable[[], Finished]) -> Finished:
        # Between looking at what is finished and asking to sign, a whole other reply comes and goes.
        monkeypatch.undo()
        bodies.append(world.service.reply(question).body)
        return signing.once(of, work)

    before = len(key.signed)
    monkeypatch.setattr(signing, "once", late)
    bodies.append(world.service.reply(question).body)
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert len(key.signed) == before + 1


def test_who_missed_the_query_takes_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    question = fakes.post(fakes.request(fakes.certificate_id(world.ca.issuer, GOOD)))
    flights = world.service._lookup._flights

    def late(of: Hashable, work: Callable[[], Status]) -> Status:
        # Between looking at what is finished and asking the database, a whole other reply comes and goes.
        monkeypatch.undo()
        assert world.service.reply(question).outcome == "good"
        return flights.once(of, work)

    before = len(world.record.asked)
    monkeypatch.setattr(flights, "once", late)
    assert world.service.reply(question).outcome == "good"
    assert len(world.record.asked) == before + 1


def test_RFC9919_3_2_3_where_all_answers_are_signed_ahead_what_never_will_be_is_unauthorized() -> None:
    world = new_world()
    keyless = ResponderService(
        reading=world.record, certifier=world.signer, make_key=fakes.new_key, issuers=[world.ca.issuer], policy=Policy(), clock=world.clock, signs=False
    )  # fmt: skip
    keyless.listen()

    def said(*names: str, parameters: bytes = b"\x05\x00") -> str:
        asked = [fakes.certificate_id(world.ca.issuer, GOOD, hash_name=name, parameters=parameters) for name in names]
        return keyless.reply(fakes.post(fakes.request(*asked))).outcome

    for parameters in (b"", b"\x05\x00"):
        assert [said(name, parameters=parameters) for name in ("sha1", "sha256", "sha384", "sha512")] == [
            "tryLater", "tryLater", "unauthorized", "unauthorized",
        ]  # fmt: skip
    assert said("sha1", "sha256") == "unauthorized", "each is signed ahead by itself"


# ---- On the wire: any HTTP ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lanes() -> Iterator[tuple[World, int, int, int]]:
    """One world behind our server with and without the front, and behind a plain WSGI server."""
    world, _ = warmed()
    with with_front(world) as front, without_front(world) as flask, plain(world) as other:
        yield world, front, flask, other


ONE = fakes.request(fakes.certificate_id(fakes.authority().issuer, GOOD))
TWO = fakes.request(fakes.certificate_id(fakes.authority().issuer, REVOKED, hash_name="sha1"))
COLD = fakes.request(fakes.certificate_id(fakes.authority().issuer, UNISSUED))
PATH = quote(base64.b64encode(ONE).decode(), safe="").encode()


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", kind: bytes = b"application/ocsp-request") -> bytes:
    lines = [b"POST /ocsp HTTP/" + version, b"Host: a", b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(*headers: bytes, method: bytes = b"GET", version: bytes = b"1.1", path: bytes = b"/ocsp/" + PATH) -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/" + version, b"Host: a", *headers]) + b"\r\n\r\n"


LAST = b"Connection: close"
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
    return re.sub(rb"date: [^\r]*", b"date", got)


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
            while (size := re.search(rb"content-length: (\d+)", got)) is None or len(got.partition(b"\r\n\r\n")[2]) < int(size[1]):
                part = line.recv(65536)
                assert part, "it goes on"
                got += part
            return re.sub(rb"date: [^\r]*", b"date", got)

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


def asked_at_once(port: int, octets: bytes) -> bytes:
    """Sent with the first segment: whoever accepts finds all of it there."""
    with socket.socket() as line:
        line.settimeout(60)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.connect(("127.0.0.1", port))
        line.sendall(octets)
        got = b""
        try:
            while part := line.recv(65536):
                got += part
        except ConnectionResetError:
            pass  # it sent more than was read
    return re.sub(rb"date: [^\r]*", b"date", got)


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


def test_R22_half_of_a_request_that_would_be_the_last_is_waited_for(
    impatient: tuple[World, int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port, _ = impatient
    octets = post(ONE, version=b"1.0")
    raw(port, octets[:-1])  # cut off after a while
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 60)
    assert b"200 OK" in asked_at_once(port, octets)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(octets[:-1])
        threading.Event().wait(0.1)
        line.sendall(octets[-1:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(octets)
        line.shutdown(socket.SHUT_WR)
        assert line.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n"), "whoever says no more is answered all the same"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(octets)  # and gone before it has its answer
    assert b"200 OK" in asked_at_once(port, octets)


def test_what_is_finished_leaves_before_what_comes_behind_it_is_judged(lanes: tuple[World, int, int, int]) -> None:
    assert spoken(lanes[1], [post(ONE) * 100 + get(LAST)]).count(b"200 OK") == 101
    assert re.findall(rb"HTTP/1.1 (\d+)", spoken(lanes[1], [post(ONE) + b"GARBAGE\r\n\r\n"])) == [b"200", b"400"]


def essential(octets: bytes) -> bytes:
    """Unsigned parts as they are; of negative answers, which are signed each time, the length varies by an octet or two."""
    out = b""
    while octets:
        head, _, rest = octets.partition(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", head)
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


# ---- Limits and time-outs -----------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, int, Any]]:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.3)
    world, front = warmed()
    with running(application=create_app(world.service), threads=2, http=type("Finished", (finished.Finished,), {"front": front})) as port:
        yield world, port, front


SILENCES = [
    pytest.param(b"", id="nothing said"),
    pytest.param(b"POST /ocsp HTTP/1.1\r\nHost: a\r\n", id="half a head"),
    pytest.param(post(ONE)[:-1], id="half a body"),
    pytest.param(post(ONE), id="idle after an answer of the front"),
    pytest.param(post(COLD), id="idle after an answer of Flask"),
    pytest.param(post(ONE) + b"\r\n", id="an empty line after an answer"),
    pytest.param(post(ONE) + post(ONE)[:-1], id="half a request after an answer"),
    pytest.param(post(COLD) + post(ONE)[:-1], id="half a request behind one that Flask answers"),
]


@pytest.mark.parametrize("octets", SILENCES)
def test_R22_a_connection_that_says_nothing_more_is_closed(impatient: tuple[World, int, Any], octets: bytes) -> None:
    raw(impatient[1], octets)  # returns when the server closes, or times out


def test_R22_a_slow_request_is_cut_off_and_a_busy_connection_is_not(
    impatient: tuple[World, int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    taken = finished.Finished.data_received

    def watched(self: finished.Finished, data: bytes) -> None:
        taken(self, data)
        ends.append(self._limit)

    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 60)
    with monkeypatch.context() as watching:
        watching.setattr(finished.Finished, "data_received", watched)
        with socket.create_connection(("127.0.0.1", impatient[1]), timeout=60) as line:
            for answered in range(1, 6):
                line.sendall(post(ONE))
                assert line.recv(65536).startswith(b"HTTP/1.1 200")
                eventually(lambda so_many=answered: len(ends) == so_many, every=0.01)  # type: ignore[misc]
                threading.Event().wait(0.02)
    assert ends == sorted(set(ends)), "with each request its time begins anew"
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 1.5)
    with socket.create_connection(("127.0.0.1", impatient[1]), timeout=60) as line, pytest.raises(OSError):
        for octet in post(ONE):
            line.sendall(bytes([octet]))
            threading.Event().wait(0.05)


def test_R22_who_asks_and_does_not_read_is_closed_and_holds_no_memory(
    impatient: tuple[World, int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 60)
    _, port, front = impatient
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        line.settimeout(60)
        with pytest.raises(ConnectionError):
            for _ in range(3000):
                line.sendall(post(ONE) * 100)
    assert front.counted["good"] < 30_000
    client = Client(port)
    assert client.post(ONE).said == "GOOD"
    client.close()


def test_R22_hundreds_of_half_sent_requests_leave_good_ones_as_they_are(
    lanes: tuple[World, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 600)  # none of them ends meanwhile
    lines = [socket.create_connection(("127.0.0.1", lanes[1])) for _ in range(200)]
    for line in lines:
        line.sendall(post(ONE)[:-1])
    client = Client(lanes[1])
    for _ in range(50):
        assert client.post(ONE).said == "GOOD"
        assert client.post(COLD).said == "UNKNOWN"
    client.close()
    for line in lines:
        line.close()


def test_where_too_many_wait_for_Flask_the_next_is_told_tryLater(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "MOST_WAITING", 4)
    world, front = warmed()
    go = threading.Event()
    world.record.before_answer = lambda: go.wait(60)
    cold = [
        fakes.request(fakes.certificate_id(SECOND.issuer, UNISSUED + (number << 24) * 0, hash_name=name))
        for number, name in enumerate(["sha1", "sha256", "sha384", "sha512"])
    ]
    handed: list[None] = []

    class Counted(finished.Finished):
        def _hand_over(self) -> None:
            handed.append(None)
            super()._hand_over()

    with running(application=create_app(world.service), threads=1, http=type("Finished", (Counted,), {"front": front})) as port:
        lines = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in cold]
        for line, body in zip(lines, cold, strict=True):
            line.sendall(post(body))
        eventually(lambda: len(handed) == len(cold), every=0.01)
        client = Client(port)
        assert client.post(COLD).said == "TRY_LATER"
        assert client.post(ONE).said == "GOOD", "what is finished goes on"
        go.set()
        for line in lines:
            assert b"200 OK" in line.recv(65536)
            line.close()
        # Whose answer has left may be counted for one more turn of the loop.
        eventually(lambda: client.post(COLD).said == "UNKNOWN", every=0.01)
        client.close()


def test_a_server_that_stops_hears_out_who_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LAST_SECONDS", 5.0)
    world, front = warmed()
    kept: list[socket.socket] = []
    heard: list[bytes] = []
    told: list[finished.Finished] = []

    class Watched(finished.Finished):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            heard.append(data)

        def shutdown(self) -> None:
            super().shutdown()
            told.append(self)

    def end_of_it() -> None:
        eventually(lambda: len(told) == 3, every=0.01)
        kept[1].sendall(post(ONE)[-1:])

    with running(application=create_app(world.service), threads=2, http=type("Finished", (Watched,), {"front": front})) as port:
        for number, octets in enumerate((b"", post(ONE)[:-1], post(ONE))):
            kept.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            if octets:
                kept[-1].sendall(octets)
                eventually(lambda so_many=number: len(heard) == so_many, every=0.01)  # type: ignore[misc]
        assert kept[2].recv(65536).startswith(b"HTTP/1.1 200")
        later = threading.Thread(target=end_of_it)
        later.start()
    later.join()
    assert b"connection: close" in kept[1].recv(65536)
    for line in kept:
        line.close()
