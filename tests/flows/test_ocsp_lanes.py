"""What leaves in front of Flask and what Flask would have said are the same: octet by octet where it is finished, in its ResponseData where it is
fresh."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Hashable
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp as library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.model import Reason
from ocsp.model import Finished, Policy, Status
from ocsp.rules import http, shapes
from ocsp.rules.request import read_request
from ocsp.serve import ResponderService
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import HOUR, NOW
from tests.fakes.ocsp_fleet import GOOD, HELD, REVOKED, SECOND, UNISSUED, new_world, warmed

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
    return {name.lower(): value for name, value in lines}, ready[1]


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
