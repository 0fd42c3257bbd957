"""One HTTP connection: uvicorn's protocol with the client's certificate, with limits, and with a lane for answers that need no thread.

It knows no route and no PKI, and no listening socket (`fleetca.server`). A lane is asked in the event loop, once the whole request is there and
where its answer is due next; what it does not take goes to the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from fleetca import fields, proxied
from fleetca.admission import Seat
from fleetca.bridge import BODY_LIMIT, PEER_CERTIFICATE, TLS12, TLS_UNIQUE

log = structlog.get_logger()

REQUEST_SECONDS = 20
"""A connection that has not sent a whole request by then is closed, and so is one idle for so long."""
HEAD_LIMIT: Final = 64 * 1024
"""Octets of a request that are not its body: request line, headers, framing of chunks, trailers."""
CHUNK_SHARE: Final = 8
"""Octets of framing that one octet of a chunked body may cost: one alone in a chunk costs five."""
PIPELINED: Final = 32
"""Requests that may wait on one connection behind the one that is answered."""
LAST_SECONDS = 2.0
"""How long a stopping process waits for the handshake, and then for the request, of a connection that it has accepted."""
STALLED_SECONDS = 20.0
"""A connection whose reader took nothing of what waits for it in that time is closed."""

Headers = Sequence[tuple[bytes, bytes]]
Answer = Callable[[int, Headers, bytes], None]
"""Status, headers and body of an answer; to be called once, in the event loop."""
Take = Callable[[bytes, Headers, bytes, "bytes | None", Answer], bool]
"""Target, headers (names in lower case), body, the client's certificate (DER), and where the answer goes. False: it is not for this lane, and
`Answer` will not be called."""


class Lane:
    """What is answered without a thread.

    Args:
        targets: of POST requests, as sent, no query; each is offered to its taker, which must not block.
    """

    def __init__(self, targets: Mapping[bytes, Take]) -> None:
        self.targets = targets


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
    _whole: RequestResponseCycle | None = None
    """For the lane, once its body is there."""
    lane: Lane | None = None
    seat: Seat | None = None
    """Where its connection is counted."""
    proxies: frozenset[str] = frozenset()
    """Addresses whose word counts for who their client is (RFC 9440)."""
    by_proxy = False
    """This connection is from one who may say so."""
    _told: list[tuple[bytes, bytes]]
    """What this request says of it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it the same way
        # All that uvicorn does, without a socket object made for each address that it asks for.
        self.connections.add(self)
        self.transport, self.flow = transport, FlowControl(transport)
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.server = (local, None) if isinstance(local, str) else local and local[:2]
        self.client = remote[:2] if isinstance(remote, tuple) else None  # who comes over a Unix socket has no address
        tls = transport.get_extra_info("ssl_object")
        self.scheme = "http" if tls is None else "https"
        peer = tls.getpeercert(binary_form=True) if tls is not None else None
        if peer is not None:
            # `app_state` is copied into every scope of this connection: the certificate belongs to the connection, not to a header.
            self.app_state = {**self.app_state, PEER_CERTIFICATE: peer}
        if tls is not None and tls.version() == "TLSv1.2":
            # RFC 5929 3; TLS 1.3 has none that Python lets us see.
            self.app_state = {**self.app_state, TLS12: True, TLS_UNIQUE: tls.get_channel_binding("tls-unique")}
        if self.proxies and self.client is not None:
            self.by_proxy = plain_address(self.client[0]) in self.proxies
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
        before = self.server_state.total_requests
        super().data_received(data)
        if self.seat is not None:
            if self._answering():
                self.seat.busy()
            elif self.server_state.total_requests != before:  # answered before we came back: nobody else can have been
                self.seat.idle()
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
        first = b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        self.transport.write(first + own_lines(self.server_state) + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing, self._headed, self._told = 0, False, []
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is never a header (RFC 9110 6.5.1): what checked the headers in front of us did not see it.
        if self._headed:
            return
        if name.lower() in proxied.HEADERS:
            self._told.append((name.lower(), value))
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._headed = True
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests wait")  # answered by 400, and the connection ends
        # parse_url drops what it takes for a scheme or host; the responder needs the target exactly as it came (RFC 6960 A.1).
        state = self.scope.get("state")
        assert state is not None, "uvicorn gives every scope its state"
        state["target"] = self.url
        if self.by_proxy:
            self._hear_proxy(state)
        super().on_headers_complete()
        if self._last:
            self.cycle.keep_alive = False

    def _hear_proxy(self, state: dict[str, Any]) -> None:
        try:
            shown = proxied.client_certificate(self._told, [value for name, value in self.headers if name == b"connection"])
            if shown is not None and PEER_CERTIFICATE in state:
                raise ValueError("Client-Cert beside a certificate of this connection's own")
        except ValueError as error:
            log.warning("proxy-header-refused", reason=str(error))
            raise  # answered by 400, and the connection ends
        if shown is not None:
            state[PEER_CERTIFICATE] = shown

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - CHUNK_SHARE * len(body))
        super().on_body(body)
        if self._whole is not None and len(self._whole.body) > BODY_LIMIT:
            self._to_application(self._whole)

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()
        if self._whole is self.cycle:
            self._to_lane(self.cycle)

    # ---- The lane ---------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """A request is next: its headers are there, or all of it where it waited for another one's answer."""
        scope: Any = cycle.scope
        fits = (
            self.lane is not None
            and scope["method"] == "POST"
            and scope["state"]["target"] in self.lane.targets
            and not cycle.waiting_for_100_continue
        )
        if not fits:
            self._to_application(cycle)
        elif cycle.more_body:
            self._whole = cycle
        else:
            self._to_lane(cycle)

    def _to_lane(self, cycle: RequestResponseCycle) -> None:
        self._whole = None
        scope: Any = cycle.scope
        state = scope["state"]
        assert self.lane is not None, "only its requests come here"
        target = state["target"]
        taken = self.lane.targets[target](
            target, scope["headers"], bytes(cycle.body), state.get(PEER_CERTIFICATE), partial(self._answer, cycle)
        )
        if not taken:
            self._to_application(cycle)

    def _to_application(self, cycle: RequestResponseCycle) -> None:
        self._whole = None
        application: Any = self.app
        cycle.transport = fields.Respelling(cycle)  # type: ignore[assignment]  # it does what a cycle asks of a transport
        super()._start_asgi_task(cycle, application)

    def _answer(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer in one write; what uvicorn's cycle does in two, header by header."""
        if cycle.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[status], own_lines(self.server_state), fields.lines(headers), b"Content-Length: %d\r\n" % len(body)]
        parts.append(b"\r\n" if cycle.keep_alive else b"Connection: close\r\n\r\n")
        parts.append(body)
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            self.transport.close()
        done, cycle.on_response = cycle.on_response, _nothing
        done()

    # ---- The end ----------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.seat is not None and not self._answering():
            self.seat.idle()
        if self._watch is None:  # also where it closes once all is read
            self._look_again(self.transport.get_write_buffer_size())

    def _look_again(self, waiting: int) -> None:
        """Whoever asks and does not read holds memory and a descriptor; closing would wait for them for ever."""
        self._watch = self.loop.call_later(STALLED_SECONDS, self._unread, waiting) if waiting else None

    def _unread(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting >= before:
            self.transport.abort()
        self._look_again(waiting)

    def pause_writing(self) -> None:
        """More waits than there should: an answer in pieces goes on when it was read, and nobody else looks whether it is."""
        super().pause_writing()
        self._look_anew(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        # Nearly all of it was taken. Where an answer goes on, its next piece says how much waits then.
        self._look_anew(0 if self._answering() else self.transport.get_write_buffer_size())

    def _look_anew(self, waiting: int) -> None:
        if self._watch is not None:
            self._watch.cancel()
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
        if self.seat is not None:
            self.seat.left()
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)


_own: tuple[object, bytes] = (None, b"")


def own_lines(state: ServerState) -> bytes:
    """The field lines that every answer has, Date among them (RFC 9110 6.6.1), as of the second that they are for."""
    global _own  # noqa: PLW0603 - made once a second, for all connections
    seen, made = _own
    if seen is not state.default_headers:
        made = fields.lines(state.default_headers)
        _own = state.default_headers, made
    return made


def plain_address(text: str) -> str:
    """An IP address as it is compared: one of IPv4 that comes over a socket of IPv6 is one of IPv4."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    return str(getattr(found, "ipv4_mapped", None) or found)


def _nothing() -> None:
    """What a cycle calls that was answered; the way back to its connection would be a circle."""
