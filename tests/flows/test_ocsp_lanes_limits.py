"""Limits and time-outs of the lanes: strangers hold nothing up (R22)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fleetca import finished, protocol
from ocsp.web import create_app
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import World
from tests.fakes.ocsp_fleet import COLD, ONE, SECOND, UNISSUED, post, warmed
from tests.fakes.ocsp_wire import Client, asked_at_once, raw, running, with_front
from tests.running import eventually


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, int, Any]]:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.3)
    world, front = warmed()
    with running(application=create_app(world.service), threads=2, http=type("Finished", (finished.Finished,), {"front": front})) as port:
        yield world, port, front


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


def test_R22_hundreds_of_half_sent_requests_leave_good_ones_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 600)  # none of them ends meanwhile
    world, _ = warmed()
    with with_front(world) as port:
        lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for line in lines:
            line.sendall(post(ONE)[:-1])
        client = Client(port)
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
    assert b"Connection: close" in kept[1].recv(65536)
    for line in kept:
        line.close()
