"""The one web server of all our processes: uvicorn's HTTP protocol with time limits and the peer certificate, and Flask behind a bridge.

It owns sockets, TLS and threads; it knows no route and no PKI. Why uvicorn and not a WSGI server: a half-sent request must not hold a
thread (docs/adr/0006-servers.md). Flask applications find the DER of the client's certificate in `environ["fleetca.peer_certificate"]`
(absent without one) and the request target as it was sent in `environ["RAW_URI"]`.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ca.errors import Misconfigured

log = structlog.get_logger()

PEER_CERTIFICATE = "fleetca.peer_certificate"
REQUEST_SECONDS = 20
"""A connection that has not sent a whole request by then is closed, and so is one idle for so long."""
BODY_LIMIT = 64 * 1024
"""Octets of a body that an application gets to see; with more it sees one octet too many, and refuses."""
DRAIN_LIMIT = 32 * 1024 * 1024
"""Octets beyond the limit that are read and dropped, so that the sender lives to read the refusal."""
HEAD_LIMIT = 64 * 1024
"""Octets of a request that are not its body: request line, headers, framing of chunks, trailers."""
CHUNK_SHARE = 8
"""Octets of framing that one octet of a chunked body may cost: one alone in a chunk costs five."""
PIPELINED = 32
"""Requests that may wait on one connection behind the one that is answered."""
LAST_SECONDS = 1.0
"""How long a stopping process waits for the request of a connection that it has accepted."""
STALLED_SECONDS = 20.0
"""A connection whose reader took nothing of what waits for it in that time is closed."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with the client certificate, and with limits where it has none (R22): how long a request may take to arrive, how
    much of it may come that is no body, how many may wait, and how long an answer may lie unread."""

    _deadline: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None
    _framing = 0
    """Octets since the message began that are not its body."""
    _headed = False
    """The headers are complete: what comes as a header now is a trailer."""
    _last = False
    """We are stopping: the request that is on its way is this connection's last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it the same way
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        peer = tls.getpeercert(binary_form=True) if tls is not None else None
        if peer is not None:
            # `app_state` is copied into every scope of this connection: the certificate belongs to the connection, not to a header.
            self.app_state = {**self.app_state, PEER_CERTIFICATE: peer}
        self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._framing += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._framing > HEAD_LIMIT:
            self._too_much()
        elif self._deadline is None and not self._answering():
            # Octets that begin no request (an empty line) have ended the idle time all the same.
            self._arm()

    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _too_much(self) -> None:
        if self._answering():
            self.transport.abort()
            return
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing, self._headed = 0, False
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is never a header (RFC 9110 6.5.1): what checked the headers in front of us did not see it.
        if not self._headed:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._headed = True
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests wait")  # answered by 400, and the connection ends
        super().on_headers_complete()
        # parse_url drops what it takes for a scheme or host; the responder needs the target exactly as it came (RFC 6960 A.1).
        state = self.scope.get("state")
        assert state is not None, "uvicorn gives every scope its state"
        state["target"] = self.url
        if self._last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - CHUNK_SHARE * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._watch is None and not self.transport.is_closing():
            self._look_again(self.transport.get_write_buffer_size())

    def _look_again(self, waiting: int) -> None:
        """Whoever asks and does not read holds memory and a descriptor; closing would wait for them for ever."""
        self._watch = self.loop.call_later(STALLED_SECONDS, self._unread, waiting) if waiting else None

    def _unread(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting >= before:
            self.transport.abort()
        self._look_again(waiting)

    def shutdown(self) -> None:
        """Drain: who has connected, or has begun to ask, is heard out; uvicorn would hang up on them."""
        if self._deadline is None or self.transport.is_closing():
            super().shutdown()
            return
        self._last = True
        self.loop.call_later(LAST_SECONDS, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if not self._answering() and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)


class Bridge:
    """Runs a WSGI application in threads for an ASGI server. A thread is taken only once the whole request is there.

    Args:
        application: the Flask application.
        threads: how many requests it works on at once; further ones wait.
    """

    def __init__(self, application: WSGIApplication, *, threads: int = 8) -> None:
        self.application = application
        self.pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, oversized = await self._body(scope, receive)
        environ = _environ(scope, body)
        loop = asyncio.get_running_loop()
        status, headers, content = await loop.run_in_executor(self.pool, self._run, environ)
        if oversized:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, bool]:
        """The body, cut after one octet too many, and whether it was cut."""
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        expects = any(name == b"expect" for name, _ in scope["headers"])
        if expects and stated.isdigit() and int(stated) > BODY_LIMIT:
            return bytes(BODY_LIMIT + 1), True  # refused before it is sent (RFC 9110 10.1.1)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk = message.get("body", b"")
            if size <= BODY_LIMIT:
                parts.append(chunk[: BODY_LIMIT + 1 - size])
            size += len(chunk)
            if not message.get("more_body", False) or size > DRAIN_LIMIT:
                break
        return b"".join(parts), size > BODY_LIMIT

    def _run(self, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        answer: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
            answer["status"] = int(status.split(" ", 1)[0])
            answer["headers"] = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            return lambda _: None

        content: Iterable[bytes] = self.application(environ, start_response)
        try:
            return_body = b"".join(content)
        finally:
            close = getattr(content, "close", None)
            if close is not None:
                close()
        return answer["status"], answer["headers"], return_body


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """The WSGI environ of PEP 3333. It holds what the client sent and nothing of this process's environment."""
    state = scope.get("state", {})
    server = scope.get("server") or ("localhost", 0)
    client = scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8", "surrogateescape").decode("latin-1"),
        "RAW_URI": state.get("target", scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": str(client[0]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    if PEER_CERTIFICATE in state:
        environ[PEER_CERTIFICATE] = state[PEER_CERTIFICATE]
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").upper()
        if "_" in name:
            continue  # an underscore twin of a hyphenated header is a smuggling attempt, never a real header
        value = raw_value.decode("latin-1")
        key = name.replace("-", "_") if name in {"CONTENT-TYPE", "CONTENT-LENGTH"} else "HTTP_" + name.replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ and key != "CONTENT_LENGTH" else value
    # What was read is what there is: a chunked or cut body has a length now, and the application's limit sees it.
    if len(body) > BODY_LIMIT or "HTTP_TRANSFER_ENCODING" in environ or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def listening_socket(address: str, *, setting: str) -> socket.socket:
    """A socket that listens on `host:port` (or `[v6]:port`).

    Raises:
        Misconfigured: the address cannot be read, or something else listens there (`port-taken`).
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise Misconfigured("bad-address", f"{setting} = {address!r} is not an address.", fix=f'Write it as {setting} = "127.0.0.1:8443".')
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as error:
        raise Misconfigured(
            "port-taken",
            f"Nothing can listen on {address}.",
            why=f"{setting}: {error.strerror or error}.",
            fix=f"Stop what listens there (ss -ltnp), or set another address in {setting}.",
        ) from None
    listener.setblocking(False)
    return listener


class _WatchedHandshake(ssl.SSLObject):
    """Says in our log why a handshake failed, and lets the client hear it.

    Event loops drop a connection whose handshake failed with the alert still unwritten. So a failure first asks for more to read, for which the
    loop writes what waits, the alert among it; the failure itself is raised when the client has said something more, or hung up.
    """

    _refused: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._refused is not None:
            raise self._refused
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or str(error)
            log.warning("handshake-refused", reason=reason)
            self._refused = error
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert goes out first") from None


def tls_context(*, trusted: Iterable[bytes]) -> ssl.SSLContext:
    """A server context: TLS 1.3, client certificates welcome and then checked against `trusted` (PEM octets).

    A certificate that does not chain to them, or has expired, ends the handshake with an alert.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.sslobject_class = _WatchedHandshake
    # A resumed session would carry its client certificate past a CA roll-over; full handshakes are what we pay for certainty.
    context.num_tickets = 0
    for pem in trusted:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    return context


def load_certificate(context: ssl.SSLContext, *, chain: bytes, key: bytes) -> None:
    """Give a context its own certificate chain and key (PEM). Connections made from now on use it.

    Python's ssl reads keys from paths only; a memfd is a path that never touches a disk (P10).
    """
    with _memory_file(chain) as chain_path, _memory_file(key) as key_path:
        context.load_cert_chain(chain_path, key_path)


@contextmanager
def _memory_file(content: bytes) -> Iterator[Path]:
    descriptor = os.memfd_create("fleetca", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


class Server(uvicorn.Server):
    """uvicorn's server, told to stop by `stop()` from any thread, and telling when it listens."""

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def stop(self) -> None:
        self.should_exit = True


def make_server(application: WSGIApplication, *, threads: int, ready: Callable[[], None], context: ssl.SSLContext | None = None) -> Server:
    """A server for one Flask application; run it with `server.run(sockets=[...])`. SIGTERM and SIGINT drain it."""
    config = uvicorn.Config(
        Bridge(application, threads=threads),
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=REQUEST_SECONDS,
        timeout_graceful_shutdown=8,
        backlog=2048,
    )
    config.load()
    config.ssl = context
    return Server(config, ready=ready)
