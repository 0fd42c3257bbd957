"""Every way in which we serve OCSP, on real ports, and a client that says exactly what a test wants said."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from cryptography.x509 import ocsp as library
from werkzeug.serving import WSGIRequestHandler
from werkzeug.serving import make_server as plain_server

from fleetca import finished
from fleetca.listening import listening_socket
from fleetca.server import make_server
from ocsp.web import create_app
from tests.fakes.ocsp import World

REQUEST = "application/ocsp-request"
RESPONSE = "application/ocsp-response"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, whole; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> library.OCSPResponse:
        assert self.status == 200, self
        assert self.headers["content-type"] == RESPONSE
        return library.load_der_ocsp_response(self.body)

    @property
    def said(self) -> str:
        """The certificates' statuses in words, or the error."""
        told = self.told
        if told.response_status is not library.OCSPResponseStatus.SUCCESSFUL:
            assert self.headers["cache-control"] == "no-store", "errors are not kept"
            return told.response_status.name
        return " ".join(one.certificate_status.name for one in told.responses)


class Client:
    """One connection, kept; opened again when the server closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request; its target is sent as it stands."""
        self._line.request(method, target, body, dict(headers or {}))
        answer = self._line.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())

    def post(self, body: bytes, *, kind: str | None = REQUEST, **headers: str) -> Reply:
        return self.ask("POST", "/ocsp", body, {**({"Content-Type": kind} if kind else {}), **headers})

    def close(self) -> None:
        self._line.close()


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def plain(world: World) -> Iterator[int]:
    """The Flask application behind a plain WSGI server, one thread a connection."""
    server = plain_server("127.0.0.1", 0, create_app(world.service), threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def running(**arguments: Any) -> Iterator[int]:
    """Our server with these arguments of `make_server`, in a thread."""
    listener = listening_socket("127.0.0.1:0", setting="test")
    ready = Event()
    server = make_server(ready=ready.set, **arguments)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        thread.join(60)
        listener.close()


@contextmanager
def without_front(world: World) -> Iterator[int]:
    """Our server, and every request goes to Flask."""
    with running(application=create_app(world.service), threads=4) as port:
        yield port


@contextmanager
def with_front(world: World) -> Iterator[int]:
    """As the status process serves: what is finished leaves before Flask hears of it."""
    front = type("Finished", (finished.Finished,), {"front": world.service.front})
    with running(application=create_app(world.service), threads=4, http=front) as port:
        yield port


Arrangement = Callable[[World], Any]
ARRANGEMENTS: dict[str, Arrangement] = {"plain WSGI server": plain, "our server, Flask lane": without_front, "our server": with_front}


def raw(port: int, octets: bytes, *, until: Callable[[bytes], bool] | None = None) -> bytes:
    """What comes back for these octets until the server closes, or until there is enough."""
    got = b""
    # A reset is an end too: it closed before it had read all.
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(octets)
        while part := line.recv(65536):
            got += part
            if until is not None and until(got):
                break
    return got


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
    return re.sub(rb"Date: [^\r]*", b"Date", got)
