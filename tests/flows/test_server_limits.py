"""What strangers may do to the one web server of all our processes: it closes, it forgets, and it goes on answering (R22, R18)."""

from __future__ import annotations

import datetime as dt
import re
import resource
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, Response, request

from fleetca import protocol, server
from fleetca.bridge import BODY_LIMIT
from fleetca.listening import listening_socket
from fleetca.protocol import HEAD_LIMIT, PIPELINED, Lane
from fleetca.server import make_server
from tests.running import eventually, many_descriptors

BIG = 4 << 20
Address = tuple[str, int]


@pytest.fixture
def address(running: tuple[Address, server.Server]) -> Address:
    return running[0]


def lose_patience(made: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on: who was to be heard has been heard, however busy the machine. Done in the loop, between two of its callbacks."""
    done = threading.Event()

    def now() -> None:
        monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.2)
        done.set()

    made._loop.call_soon_threadsafe(now)
    assert done.wait(60)


@contextmanager
def _serving(app: Flask, listener: socket.socket, **options: Any) -> Iterator[tuple[Address, server.Server]]:
    ready = threading.Event()
    made = make_server(app, threads=2, ready=ready.set, **options)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(60)
    try:
        yield listener.getsockname(), made
    finally:
        made.stop()
        thread.join(60)


@pytest.fixture
def running() -> Iterator[tuple[Address, server.Server]]:
    """A running server."""
    app = Flask("limits")
    app.add_url_rule("/headers", "headers", lambda: dict(request.headers), methods=["GET", "POST"])
    app.add_url_rule("/big", "big", lambda: bytes(BIG))
    app.add_url_rule("/long", "long", lambda: Response((bytes(1 << 17) for _ in range(BIG >> 17)), headers={"Content-Length": str(BIG)}))
    app.add_url_rule("/length", "length", lambda: str(len(request.get_data())), methods=["POST"])
    listener = listening_socket("127.0.0.1:0", setting="test")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # so that what is not read waits in the server, on every system
    with _serving(app, listener) as served:
        yield served


def _connected(address: Address) -> socket.socket:
    connection = socket.create_connection(address)
    connection.settimeout(60)
    return connection


def _all(connection: socket.socket) -> bytes:
    """What comes until the server closes; a reset is an end too."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def _send(connection: socket.socket, part: bytes, *, most: int) -> int:
    """Send again and again until the server has had enough; how much that was."""
    sent = 0
    try:
        while sent < most:
            connection.sendall(part)
            sent += len(part)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


ENDLESS = [
    pytest.param(b"GET /headers HTTP/1.1\r\nHost: a\r\n", b"x: " + b"v" * 1000 + b"\r\n", id="headers without end"),
    pytest.param(b"GET /headers HTTP/1.1\r\nx: ", b"v" * 4096, id="one header without end"),
    pytest.param(b"GET /", b"a" * 4096, id="an address without end"),
    pytest.param(
        b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
        b"x: " + b"v" * 1000 + b"\r\n",
        id="trailers without end",
    ),
    pytest.param(
        b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"v" * 4096, id="a chunk extension without end"
    ),
]


@pytest.mark.parametrize(("begin", "part"), ENDLESS)
def test_R22_what_is_no_body_is_not_taken_without_end(address: Address, begin: bytes, part: bytes) -> None:
    with _connected(address) as connection:
        connection.sendall(begin)
        assert _send(connection, part, most=1000 * HEAD_LIMIT) < 1000 * HEAD_LIMIT


def test_R22_headers_over_the_limit_are_told_so(address: Address) -> None:
    with _connected(address) as connection:
        connection.sendall(b"GET /headers HTTP/1.1\r\nx: ")
        # Octets that arrive after the close would reset the connection, and the answer would be lost.
        while not select.select([connection], [], [], 0.01)[0]:
            connection.sendall(b"v" * 4096)
        assert b"431" in _all(connection)


def test_a_body_in_chunks_of_one_octet_is_read(address: Address) -> None:
    with _connected(address) as connection:
        octets = b"1\r\nx\r\n" * (HEAD_LIMIT // 2)
        connection.sendall(b"POST /length HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + octets + b"0\r\n\r\n")
        assert _all(connection).endswith(b"\r\n\r\n%d" % (HEAD_LIMIT // 2))


def test_R18_a_trailer_is_never_a_header(address: Address) -> None:
    with _connected(address) as connection:
        connection.sendall(
            b"POST /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
            b"Authorization: Bearer smuggled\r\n\r\n"
        )
        answer = _all(connection)
    assert b"200 OK" in answer
    assert b"smuggled" not in answer


def test_R22_many_requests_on_one_connection_wait_their_turn_up_to_a_limit(address: Address) -> None:
    ask = b"GET /headers HTTP/1.1\r\n\r\n"
    with _connected(address) as connection:
        connection.sendall(ask * (PIPELINED // 2 - 1) + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert _all(connection).count(b"200 OK") == PIPELINED // 2
    with _connected(address) as connection:
        connection.sendall(ask * 20 * PIPELINED)
        assert _all(connection).count(b"200 OK") <= PIPELINED + 1


def test_R22_an_empty_line_does_not_keep_an_idle_connection_open(
    running: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, made = running
    with _connected(address) as connection:
        connection.sendall(b"GET /headers HTTP/1.1\r\n\r\n")
        assert b"200 OK" in _answer(connection)
        lose_patience(made, monkeypatch)
        connection.sendall(b"\r\n")
        assert _all(connection) == b""


def _asks_for_much(address: Address, *, last: bool = True, path: bytes = b"/big") -> socket.socket:
    """Somebody whose system takes little of an answer before it is read.

    Args:
        last: it is the last request of this connection.
        path: /big has its answer at once, /long makes it in pieces.
    """
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    connection.settimeout(60)
    connection.sendall(b"GET " + path + b" HTTP/1.1\r\n" + (b"Connection: close\r\n\r\n" if last else b"\r\n"))
    return connection


@pytest.mark.parametrize("last", [False, True], ids=["that would stay open", "that is to close after it"])
def test_R22_an_answer_that_nobody_reads_ends_its_connection(
    running: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.3)
    address, made = running
    with _asks_for_much(address, last=last) as connection:
        _until(lambda: made.server_state.total_requests == 1)
        _until(lambda: len(made.room) == 0)
        assert len(_all(connection)) < BIG


@pytest.mark.parametrize("last", [False, True], ids=["that would stay open", "that is to close after it"])
def test_R22_an_answer_in_pieces_that_nobody_reads_ends_its_connection(
    running: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.3)
    address, made = running
    with _asks_for_much(address, last=last, path=b"/long") as connection:
        assert connection.recv(1)
        _until(lambda: len(made.room) == 0)
        assert len(_all(connection)) < BIG
    with _asks_for_much(address, path=b"/headers") as connection:
        assert b"200 OK" in _all(connection)


def test_an_answer_in_pieces_arrives_whole(address: Address) -> None:
    with _asks_for_much(address, path=b"/long") as connection:
        octets = _all(connection)
    assert len(octets.partition(b"\r\n\r\n")[2]) == BIG


def test_an_answer_that_is_read_slowly_arrives_whole(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the server looks, something of what waited has been taken; who reads as slowly as that may take for ever."""
    looks: list[tuple[protocol.Protocol, int]] = []
    monkeypatch.setattr(protocol.Protocol, "_look_again", lambda self, waiting: looks.append((self, waiting)))
    with _asks_for_much(address) as connection:
        _until(lambda: bool(looks))
        got, turns = 0, 0
        while part := connection.recv(1 << 18):
            got += len(part)
            one, waiting = looks[-1]
            if waiting and one.transport.get_write_buffer_size() < waiting:
                # Now the time is over after which it looks again.
                one.loop.call_soon_threadsafe(one._unread, waiting)
                turns += 1
                _until(lambda before=turns: len(looks) > before)  # type: ignore[misc]
        assert got > BIG
        assert turns > 10


def test_a_server_that_stops_answers_who_has_connected_already(
    running: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LAST_SECONDS", 60.0)
    address, stopping = running
    with _connected(address) as fresh, _connected(address) as kept, _connected(address) as half:
        kept.sendall(b"GET /headers HTTP/1.1\r\n\r\n")
        assert b"200 OK" in _answer(kept)
        half.sendall(b"GET /headers HTTP/1.1\r\n")
        _until(lambda: len(stopping.room) == 3)
        stopping.stop()
        # An idle connection is closed; the others are heard, once.
        assert _all(kept) == b""
        fresh.sendall(b"GET /headers HTTP/1.1\r\n\r\n")
        half.sendall(b"\r\n")
        for connection in (fresh, half):
            answer = _all(connection)
            assert answer.count(b"200 OK") == 1
            assert b"Connection: close" in answer


# ---- The lane without a thread ------------------------------------------------------------------------------------------


class Counter:
    """A lane that numbers what it takes, answers when told to, and leaves alone what begins with a question mark."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.waiting: list[protocol.Answer] = []
        self.hold = False

    def take(self, _target: bytes, _headers: protocol.Headers, body: bytes, _peer: bytes | None, answer: protocol.Answer) -> bool:
        if body.startswith(b"?"):
            return False
        self.taken.append(body)
        if self.hold:
            self.waiting.append(answer)
        else:
            answer(201, [(b"content-type", b"text/plain")], b"%d" % len(self.taken))
        return True


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def laned(counter: Counter) -> Iterator[tuple[Address, server.Server]]:
    app = Flask("laned")
    app.add_url_rule("/count", "count", lambda: f"application {len(request.get_data())}", methods=["GET", "POST"])
    with _serving(app, listening_socket("127.0.0.1:0", setting="test"), lane=Lane({b"/count": counter.take})) as served:
        yield served


def _post(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /count HTTP/1.1", b"Host: a", *headers, b"Content-Length: %d" % len(body), b"", body])


LAST = b"Connection: close"

ANSWERED: list[Any] = [
    pytest.param(_post(b"x", LAST), b"1", id="a request for the lane"),
    pytest.param(_post(b"?", LAST), b"application 1", id="one that it leaves"),
    pytest.param(_post(b"x", LAST).replace(b"/count", b"/count?a"), b"application 1", id="one with a query"),
    pytest.param(b"GET /count HTTP/1.1\r\nConnection: close\r\n\r\n", b"application 0", id="another method"),
    pytest.param(_post(b"x") + _post(b"y") + _post(b"?") + _post(b"z", LAST), b"1 2 application 1 3", id="several at once, in their order"),
    pytest.param(
        b"POST /count HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"1", id="a body in chunks"
    ),
    pytest.param(_post(b"x" * (BODY_LIMIT + 1), LAST), b"application %d" % (BODY_LIMIT + 1), id="a body over the limit"),
    pytest.param(_post(b"x" * (4 * BODY_LIMIT), LAST), b"application %d" % (BODY_LIMIT + 1), id="a body far over the limit"),
    pytest.param(_post(b"x", b"Expect: 100-continue", LAST), b"application 1", id="one that waits to be asked for its body"),
    pytest.param(b"POST /count HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", b"1", id="one of HTTP 1.0, which ends its connection"),
]


@pytest.mark.parametrize(("asked", "told"), ANSWERED)
def test_the_lane_answers_what_is_for_it_and_the_application_the_rest(
    laned: tuple[Address, server.Server], asked: bytes, told: bytes
) -> None:
    with _connected(laned[0]) as connection:
        connection.sendall(asked)
        answers = re.split(rb"HTTP/1.1 20[01] [A-Za-z]+\r\n", _all(connection))[1:]
    assert b" ".join(answer.split(b"\r\n\r\n", 1)[1] for answer in answers) == told
    assert all(b"Content-Length: " in answer for answer in answers)
    assert b"Connection: close" in answers[-1]


def test_a_lane_that_thinks_keeps_its_connection_and_the_others_go_on(
    laned: tuple[Address, server.Server], counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a request may take to arrive: that clock has stopped."""
    counter.hold = True
    with _connected(laned[0]) as thinking, _connected(laned[0]) as other, _connected(laned[0]) as gone:
        _until(lambda: len(laned[1].server_state.connections) == 3)
        lose_patience(laned[1], monkeypatch)
        thinking.sendall(_post(b"x") + _post(b"?", LAST))
        gone.sendall(_post(b"y"))
        _until(lambda: len(counter.waiting) == 2)
        gone.close()
        other.sendall(_post(b"?", LAST))
        assert b"application 1" in _all(other)
        threading.Event().wait(1.0)  # five times as long
        for answer in counter.waiting:
            laned[1]._loop.call_soon_threadsafe(answer, 201, [], b"thought")
        said = _all(thinking)
    assert said.index(b"thought") < said.index(b"application 1")


def test_a_server_that_stops_waits_for_its_lane(laned: tuple[Address, server.Server], counter: Counter) -> None:
    counter.hold = True
    with _connected(laned[0]) as connection:
        connection.sendall(_post(b"x"))
        _until(lambda: bool(counter.waiting))
        laned[1].stop()
        threading.Event().wait(0.3)
        laned[1]._loop.call_soon_threadsafe(counter.waiting[0], 201, [], b"thought")
        said = _all(connection)
    assert said.endswith(b"thought")
    assert b"Connection: close" in said


def _until(true: Callable[[], bool]) -> None:
    eventually(true, every=0.01)


# ---- The number of connections ------------------------------------------------------------------------------------------


SEATS = 40


def _identity() -> tuple[bytes, bytes]:
    """A certificate for localhost, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=localhost")
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), plain


CERTIFICATE, KEY = _identity()


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Address, server.Server]]:
    """A TLS server with few seats, in which nobody has to wait long to be put out."""
    many_descriptors()
    monkeypatch.setattr("fleetca.admission.PATIENCE", 0.1)
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 600)  # nobody leaves for having been silent
    app = Flask("crowded")
    app.add_url_rule("/hello", "hello", lambda: "hello")
    slow = threading.Event()
    app.add_url_rule("/slow", "slow", lambda: str(slow.wait(1.5)))
    context = server.tls_context(trusted=[])
    server.load_certificate(context, chain=CERTIFICATE, key=KEY)
    with _serving(app, listening_socket("127.0.0.1:0", setting="test"), context=context, connections=SEATS) as served:
        yield served


def _tls(address: Address) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=CERTIFICATE.decode())
    raw = socket.create_connection(address, timeout=60)
    try:
        return context.wrap_socket(raw, server_hostname="localhost")
    except OSError:
        raw.close()
        raise


def _let_in(address: Address) -> ssl.SSLSocket | None:
    """None where there was no room at the moment."""
    try:
        return _tls(address)
    except OSError:
        return None


def _ask(connection: ssl.SSLSocket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def _get(connection: ssl.SSLSocket, path: str) -> bytes:
    _ask(connection, path)
    return _answer(connection)


def _answer(connection: socket.socket) -> bytes:
    """One short answer, whole: head and body may come apart."""
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.split(b"\r\n\r\n", 1)[1]:
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError
        answer += part
    return answer


def _half_open(address: Address, *, source: str = "127.0.0.1") -> socket.socket:
    """Begins a TLS handshake and leaves it at that."""
    connection = socket.socket()
    connection.bind((source, 0))
    connection.connect(address)
    with suppress(OSError):  # closed at once
        connection.sendall(b"\x16\x03\x01\x02\x00\x01")
    return connection


def test_R22_a_thousand_half_open_connections_leave_room_for_good_ones(crowded: tuple[Address, server.Server]) -> None:
    address, running = crowded
    with ExitStack() as stack:
        kept = stack.enter_context(_tls(address))
        assert b"hello" in _get(kept, "/hello")
        flood = [stack.enter_context(_half_open(address, source=f"127.0.0.{2 + number % 3}")) for number in range(1000)]
        assert len(running.room) <= SEATS
        threading.Event().wait(0.2)  # by now the last of them has had its time
        for _ in range(20):
            with eventually(lambda: _let_in(address)) as good:
                assert b"hello" in _get(good, "/hello")
        assert b"hello" in _get(kept, "/hello"), "whoever was answered before outlasts strangers"
        assert len(running.room) <= SEATS
        eventually(lambda: sum(_ended(one) for one in flood[:-SEATS]) >= 1000 - 2 * SEATS)
    _until(lambda: len(running.room) == 0)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_R22_one_address_alone_cannot_take_all_seats(crowded: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back as often as it is put out; the others get in past it."""
    monkeypatch.setattr("fleetca.admission.PATIENCE", 3600.0)
    address, running = crowded
    stop = threading.Event()

    def flood(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError), _half_open(address, source="127.0.0.9") as connection:
                connection.settimeout(0.2)
                stop.wait(0.01 * number)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with _tls(address) as good:
                assert b"hello" in _get(good, "/hello")
            assert len(running.room) <= SEATS
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_idlest_connection_gives_way_and_one_that_is_answered_does_not(crowded: tuple[Address, server.Server]) -> None:
    address, running = crowded
    with ExitStack() as stack:
        idle = [stack.enter_context(_tls(address)) for _ in range(SEATS - 1)]
        for one in idle:
            assert b"hello" in _get(one, "/hello")
        slow = stack.enter_context(_tls(address))
        _ask(slow, "/slow")
        assert b"hello" in _get(idle[0], "/hello")  # now the second is the idlest
        threading.Event().wait(0.3)
        with _tls(address) as newcomer:
            assert b"hello" in _get(newcomer, "/hello")
            with pytest.raises(OSError):
                _get(idle[1], "/hello")
            assert b"hello" in _get(idle[0], "/hello")
            assert b"False" in _answer(slow)
        assert len(running.room) <= SEATS


def test_a_server_that_stops_answers_whose_handshake_is_under_way(
    crowded: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LAST_SECONDS", 60.0)
    address, stopping = crowded
    with socket.create_connection(address, timeout=60) as raw:
        _until(lambda: len(stopping.room) == 1)
        stopping.stop()
        threading.Event().wait(0.5)  # longer than it takes to stop where nobody is there
        with ssl.create_default_context(cadata=CERTIFICATE.decode()).wrap_socket(raw, server_hostname="localhost") as late:
            assert b"Connection: close" in _get(late, "/hello")


def test_a_server_without_descriptors_goes_on_with_those_it_has(
    crowded: tuple[Address, server.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can be accepted for a while, and then again."""
    monkeypatch.setattr("fleetca.admission.PATIENCE", 3600.0)  # or whoever is kept gives way, as soon as the machine is slow
    address, _ = crowded
    with _tls(address) as kept, ExitStack() as stack:
        assert b"hello" in _get(kept, "/hello")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket()
        stack.enter_context(waiting)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            waiting.connect(address)
            assert b"hello" in _get(kept, "/hello")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        with _tls(address) as good:
            assert b"hello" in _get(good, "/hello")
