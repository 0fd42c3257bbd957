"""The one web server of all our processes: uvicorn with TLS of ours, `fleetca.protocol` for each connection, and Flask behind `fleetca.bridge`.

It owns TLS and the server's life; it knows no route and no PKI. Why uvicorn and not a WSGI server: a half-sent request must not hold a
thread (docs/adr/0006-servers.md).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from wsgiref.types import WSGIApplication

import structlog
import uvicorn

from fleetca import protocol
from fleetca.admission import Entrance, Room, Seat, room_for
from fleetca.bridge import Bridge
from fleetca.process import settle
from fleetca.protocol import Lane, Protocol

log = structlog.get_logger()

CONNECTIONS: Final = 1000


class _WatchedHandshake(ssl.SSLObject):
    """Says in our log why a handshake failed, and lets the client hear it.

    Event loops drop a connection whose handshake failed with the alert still unwritten. So a failure first asks for more to read, for which the
    loop writes what waits, the alert among it; the failure itself is raised when the client has said something more, or hung up.
    """

    _refused: ssl.SSLError | None = None

    def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002 - as it is declared
        """The client's certificate in DER. uvloop also asks for it in words, once a connection; nobody reads them, so there are none."""
        return super().getpeercert(binary_form=True) if binary_form else {}

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


def tls_context(*, trusted: Iterable[bytes], tls12: bool = False) -> ssl.SSLContext:
    """A server context: TLS 1.3, client certificates welcome and then checked against `trusted` (PEM octets).

    A certificate that does not chain to them, or has expired, ends the handshake with an alert.

    Args:
        tls12: TLS 1.2 too, with forward secrecy and authenticated encryption only, never renegotiated (RFC 9325 3, 4).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if tls12 else ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    # What is trusted is what the settings name, also where that is no root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.sslobject_class = _WatchedHandshake
    # A resumed session would carry its client certificate past a CA roll-over; full handshakes are what we pay for certainty. Over TLS 1.2 sessions
    # can be resumed by their id while this context lives: Python cannot forbid it, and a certificate is judged at each request.
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

    def __init__(self, config: uvicorn.Config, *, connections: int, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._most, self._ready = connections, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but each connection takes a seat before anything else is done for it."""
        self._loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        self.room = Room(room_for(self._most), time=self._loop.time)
        entrances: list[Any] = [self._entrance(listener) for listener in sockets or ()]
        self.servers = entrances
        self.started = True
        settle()
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, once those have entered whose handshake is under way: it knows nothing of them, and would hang up."""
        entrances: list[Any] = self.servers
        for entrance in entrances:
            entrance.close()
        for entrance in entrances:
            await entrance.settle(protocol.LAST_SECONDS)
        await super().shutdown(sockets)

    def _entrance(self, listener: socket.socket) -> Entrance:
        local = listener.family == socket.AF_UNIX
        context = None if local else self.config.ssl
        # Who speaks first over TLS is not the client's HTTP.
        at_once = None if local or context is not None else getattr(self.config.http_protocol_class, "at_once", None)
        return Entrance(
            listener,
            self.room,
            partial(self._protocol, local=local),
            context=context,
            handshake=protocol.REQUEST_SECONDS,
            at_once=at_once and partial(at_once, self.server_state),
        )

    def _protocol(self, seat: Seat, *, local: bool) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: Protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=self._loop)
        made.seat, made.by_proxy = seat, local
        return made

    def stop(self) -> None:
        self.should_exit = True


def make_server(
    application: WSGIApplication,
    *,
    threads: int,
    ready: Callable[[], None],
    context: ssl.SSLContext | None = None,
    lane: Lane | None = None,
    http: type[Protocol] = Protocol,
    connections: int = CONNECTIONS,
    proxies: frozenset[str] = frozenset(),
) -> Server:
    """A server for one Flask application; run it with `server.run(sockets=[...])`. SIGTERM and SIGINT drain it.

    Unix sockets among them are for a proxy in front of it: no TLS there, and who may connect is believed about its client (`fleetca.proxied`).

    Args:
        threads: how many requests the application works on at once; further ones wait.
        lane: in front of the application.
        http: what reads and writes on each connection.
        connections: how many at once; beyond it those that wait longest give way (`fleetca.admission`).
        proxies: addresses of proxies that are believed so on the other sockets.
    """
    config = uvicorn.Config(
        Bridge(application, threads=threads),
        http=type("Protocol", (http,), {"lane": lane, "proxies": proxies}),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=protocol.REQUEST_SECONDS,
        timeout_graceful_shutdown=8,
        backlog=2048,
    )
    config.load()
    config.ssl = context
    return Server(config, connections=connections, ready=ready)
