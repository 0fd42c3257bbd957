"""The protocol of status connections: OCSP answers that are finished, or that one quick signature finishes, leave in the event loop; everything
else goes to Flask on the same connection.

It owns the short way only: a POST to the responder's path or a GET below it, with a body of known length that is small, with no header that asks
for more than an answer, and where no earlier request of the connection still waits for its own. Keep-alive, pipelining, parsing and limits stay
those of `fleetca.protocol` and uvicorn. It knows no OCSP: `Front` says what to send, or that it cannot.

Clients send the same header lines again and again. Lines that the parser has read once, in a request that was answered here, are recognised as
octets the next time, on any connection, and the parser is not asked: the same octets mean the same. Everything else goes through the parser.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from fleetca import protocol

MOST_WAITING: Final = 512
"""Requests that may be on their way through Flask; further ones for the responder are told to come back."""
_LONGEST: Final = 512
"""Octets of a body that is looked at here; what is longer is never in a form that the front knows."""
_WRITES: Final = 256 * 1024
"""Octets that may wait for a client before no more of its requests are read."""
_TYPE: Final = b"application/ocsp-request"
_LINES: Final = 1024
"""Octets of header lines that are recognised again, and how many such sets of lines are remembered."""
_BATCH: Final = 64 * 1024
"""Octets of answers that are gathered for requests that came together; what is behind them is read by the parser, which waits for slow clients."""
_IDLE: Final = 0.1
"""Seconds by which a connection may have had its last answer later than its seat knows."""
_END: Final = b"\r\n\r\n"
_VERSION: Final = len(b" HTTP/1.1")
_CLOSES: Final = b"Connection: close\r\n\r\n"
# Headers that make a difference to more than keep-alive: what carries one is for Flask to answer.
_TELLING: Final = frozenset((b"expect", b"transfer-encoding", b"if-none-match", b"upgrade"))

_REPEATED: Final = 2048
"""Requests of one second that are recognised whole when they come again within it."""

Ready = tuple[bytes, bytes, str | None]


class Repeats(Protocol):
    """What was sent in one second; replaced by who gives the answers once they may have changed."""

    second: int
    sent: dict[bytes, tuple[bytes, str]]
    last: dict[bytes, tuple[bytes, str]]


class Front(Protocol):
    """What answers without waiting. Called in the event loop."""

    @property
    def path(self) -> bytes:
        """Where POST goes."""
        ...

    @property
    def below(self) -> bytes:
        """What GET targets begin with."""
        ...

    @property
    def posts(self) -> bytes:
        """The request line of a POST, up to the version."""
        ...

    @property
    def gets(self) -> bytes:
        """What request lines of GETs begin with."""
        ...

    @property
    def later(self) -> Ready:
        """Header lines and body for when too many wait."""
        ...

    @property
    def repeats(self) -> Repeats:
        """What may be sent again in its second: whole requests, and the response with what it is counted as."""
        ...

    @property
    def now(self) -> Callable[[], int]:
        """The second that it is."""
        ...

    @property
    def counted(self) -> Counter[str]:
        """Answers given, by what they are counted as."""
        ...

    def post(self, body: bytes) -> Ready | None:
        """Header lines and body of a response with HTTP 200, and what it is counted as if it may be repeated; or None: ask Flask."""
        ...

    def get(self, target: bytes) -> Ready | None:
        """The same for a GET, by its target as it was sent."""
        ...


class Finished(protocol.Protocol):
    """A connection of the status service, which speaks plain HTTP (RFC 5280 8). Subclass it with a `front`."""

    front: Front

    _mine = False
    """The request that is being read may be answered here: uvicorn has not heard of it yet."""
    _plain = True
    """No header so far says otherwise."""
    _get = False
    _octets = b""
    _limit = inf
    """When what the connection is to do next is late. One timer looks at it: arming one for each request would cost more than an answer."""
    _timer: asyncio.TimerHandle | None = None
    _seen = 0.0
    """Until then the seat knows well enough when its connection was answered."""
    _ready = False
    """Nothing of this connection is under way: what comes next may be answered by itself. Found out by `_recognised`, over with anything else."""
    _between = True
    """No message has begun that is not read to its end."""
    _came = b""
    """What is being parsed, where it begins between two messages."""
    _dated: ClassVar[tuple[object, bytes]] = (None, b"")
    """Status line and the server's own headers, as of the second that they are for; shared by all connections."""
    _lines: ClassVar[dict[bytes, tuple[int, bool]]] = {}
    """Version and header lines, from behind the target to the empty line, that the parser found to ask for an answer only -> octets of the body, and
    whether the connection lasts."""

    # ---- Time ---------------------------------------------------------------------------------------------------

    @property
    def _deadline(self) -> asyncio.TimerHandle | None:  # type: ignore[override]  # the base's attribute, now for reading only
        return None if self._limit == inf else self._timer

    def _arm(self) -> None:
        self._limit = self.loop.time() + protocol.REQUEST_SECONDS
        if self._timer is None:
            self._timer = self.loop.call_later(protocol.REQUEST_SECONDS, self._look_at_the_clock)

    def _disarm(self) -> None:
        self._limit = inf

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self._limit == inf or self.transport.is_closing():
            return
        left = self._limit - self.loop.time()
        if left <= 0:
            self._too_slow()
        else:
            self._timer = self.loop.call_later(left, self._look_at_the_clock)

    # ---- Reading ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it the same way
        # What uvicorn does here, less the addresses, which only `_hand_over` needs: two system calls that a connection for one answer would feel.
        self.connections.add(self)
        self.transport, self.flow, self.scheme = transport, FlowControl(transport), "http"
        transport.set_write_buffer_limits(high=_WRITES)
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._ready:
            front = self.front
            repeats = front.repeats
            again = repeats.sent.get(data)
            if again is not None and front.now() == repeats.second:
                octets, outcome = again
                self.transport.write(octets)
                front.counted[outcome] += 1
                self._served()
                return
        if not self._between:
            super().data_received(data)
            return
        rest = self._recognised(data)
        if rest:
            self._came = rest
            super().data_received(rest)
            self._came = b""

    def _recognised(self, data: bytes) -> bytes:
        """Answer the requests at the beginning that are recognised by their octets; what is left."""
        if self._answering() or self.pipeline or self._last or self.flow.write_paused or self.transport.is_closing():
            return data
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._ready = True
        repeats, lines = self.front.repeats, self._first_lines(self.server_state)
        out: list[bytes] = []
        at = size = answers = 0
        whole, lasts, repeated = len(data), True, None
        while lasts and at < whole and size < _BATCH:
            found = self._answer_to(data, at)
            if found is None:
                break
            (head, body, repeated), at, lasts = found
            out += (lines, head, b"\r\n" if lasts else _CLOSES, body)
            size, answers = size + len(body), answers + 1
        if not answers:
            return data
        octets = b"".join(out)
        self.transport.write(octets)
        if not lasts:
            self._disarm()
            self.transport.close()
            return b""
        if repeated is not None and answers == 1 and at == whole and len(repeats.sent) < _REPEATED:
            repeats.sent[data] = octets, repeated
        self._served()
        return data[at:] if at < whole else b""

    @classmethod
    def _answer_to(cls, data: bytes, at: int, *, last: bool = False) -> tuple[Ready, int, bool] | None:
        """The answer to the request that begins there, where it ends, and whether the connection lasts; None where it is not recognised.

        Args:
            last: only if it is the last of its connection, and nothing comes behind it.
        """
        first = data.find(b"\r\n", at)
        end = data.find(_END, first) + 4
        known = cls._lines.get(data[first - _VERSION : end])
        if known is None:
            return None
        octets, lasts = known
        stop, front = end + octets, cls.front
        if stop > len(data) or (last and (lasts or stop < len(data))):
            return None
        if data[at : first - _VERSION] == front.posts:
            ready = front.post(data[end:stop])
        elif octets == 0 and data.startswith(front.gets, at):
            ready = front.get(data[at + 4 : first - _VERSION])
        else:
            return None
        return None if ready is None else (ready, stop, lasts)

    @classmethod
    def at_once(cls, state: ServerState, data: bytes) -> bytes | None:
        """The response for a connection of which no more is known than the octets that came with it: where they are one whole request, recognised,
        and its last. None: it goes the usual way."""
        front = cls.front
        repeats = front.repeats
        again = repeats.last.get(data)
        if again is not None and front.now() == repeats.second:
            octets, outcome = again
            front.counted[outcome] += 1
            return octets
        found = cls._answer_to(data, 0, last=True)
        if found is None:
            return None
        (head, body, repeated), _, _ = found
        octets = b"".join((cls._first_lines(state), head, _CLOSES, body))
        if repeated is not None and len(repeats.last) < _REPEATED:
            repeats.last[data] = octets, repeated
        return octets

    def _served(self) -> None:
        moment = self.loop.time()
        self._limit = moment + protocol.REQUEST_SECONDS
        if moment > self._seen:
            self._seen = moment + _IDLE
            if self.seat is not None:
                self.seat.idle()

    def _remember(self, *, lasts: bool) -> None:
        """The parser has read one message and nothing else, and it was answered here: its header lines are known from now on."""
        came = self._came
        first = came.find(b"\r\n")
        end = came.find(_END, first) + 4
        if first < _VERSION or end < 4 or end - first > _LINES or len(came) != end + len(self._octets):
            return
        target = came[: first - _VERSION]
        if (target == self.front.posts or target.startswith(self.front.gets)) and came.startswith(
            (b" HTTP/1.1", b" HTTP/1.0"), first - _VERSION
        ):
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[came[first - _VERSION : end]] = len(self._octets), lasts

    def on_message_begin(self) -> None:
        # What uvicorn prepares here is prepared once somebody needs it (`_hand_over`).
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._framing, self._headed, self._plain, self._octets = 0, False, True, b""
        self._between = self._ready = False
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            return
        name = name.lower()
        self.headers.append((name, value))
        if name in _TELLING:
            self._plain = False
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        elif name == b"content-type" and value != _TYPE:
            self._plain = False

    def on_headers_complete(self) -> None:
        self._headed = True
        if self._plain and not self._answering() and not self.pipeline and not self.flow.write_paused:
            parser: Any = self.parser  # None once the connection is lost
            method = parser.get_method()
            self._get = method == b"GET"
            self._mine = self.url.startswith(self.front.below) if self._get else method == b"POST" and self.url == self.front.path
            if self._mine:
                return
        self._hand_over()

    def on_body(self, body: bytes) -> None:
        if not self._mine:
            super().on_body(body)
            return
        self._octets += body
        if len(self._octets) > _LONGEST:
            self._hand_over()

    def on_message_complete(self) -> None:
        self._between = True
        if not self._mine:
            super().on_message_complete()
            return
        if self.transport.is_closing():
            self._mine = False  # what came behind a request that was the last
            return
        ready = self._asked()
        if ready is None and len(self.tasks) >= MOST_WAITING:
            ready = self.front.later
        if ready is None:
            self._hand_over()
            super().on_message_complete()
        else:
            self._mine = False
            self._send(*ready)

    def _asked(self) -> Ready | None:
        if not self._get:
            return self.front.post(self._octets)
        return None if self._octets else self.front.get(self.url)

    def _hand_over(self) -> None:
        """To uvicorn and Flask, as if they had seen it from the beginning."""
        self._mine = False
        if self.server is None:
            self.server, self.client = get_local_addr(self.transport), get_remote_addr(self.transport)
        url, headers, expects, octets = self.url, self.headers, self.expect_100_continue, self._octets
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue, self._octets = url, expects, b""
        self.headers.extend(headers)
        super().on_headers_complete()
        if octets:
            super().on_body(octets)

    # ---- Writing ------------------------------------------------------------------------------------------------

    def _send(self, head: bytes, body: bytes, _: str | None) -> None:
        parser: Any = self.parser
        lasts = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        if self._came:
            self._remember(lasts=lasts)
        lasts = lasts and not self._last
        self.transport.write(b"".join((self._first_lines(self.server_state), head, b"\r\n" if lasts else _CLOSES, body)))
        self.server_state.total_requests += 1
        if lasts:
            self._arm()  # from here on it is idle
        else:
            self._disarm()
            self.transport.close()

    @staticmethod
    def _first_lines(state: ServerState) -> bytes:
        own = state.default_headers
        seen, lines = Finished._dated
        if seen is not own:
            lines = STATUS_LINE[200] + protocol.own_lines(state)
            Finished._dated = (own, lines)
        return lines

    def pause_writing(self) -> None:
        self._ready = False
        super().pause_writing()
        self.flow.pause_reading()
        if self._watch is None:
            self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        self._ready = False
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ready = False
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
