"""How many connections a web process has at once, and who gives way when there is no more room (R22). It knows sockets, no HTTP and no TLS.

Every connection has a seat from the moment it is accepted, its TLS handshake included. A seat waits for its client (for a handshake, for a request,
for the next one) or is being answered. With all seats taken a newcomer gets the seat that has waited longest: first among strangers, who have
never had an answer, then, unless strangers have half of the seats, among those who are kept alive. Nobody who is being answered gives way, and
nobody who has come this very second, or a fleet that comes all at once would push itself out. When nobody gives way the newcomer is closed at once.

What came with a connection may be all that it will ever ask. Where that can be answered at once, the connection is over before anybody needs a seat.

One address whose strangers fill more than half of the seats has no such second when another comes, and gets new ones for old ones of its own only.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog

log = structlog.get_logger()

PATIENCE: Final = 1.0
"""Seconds in which nobody has to give way."""
OTHER_FILES: Final = 256
"""Descriptors that a process needs beside its connections."""
AT_ONCE: Final = 64
"""Connections taken before anything else gets its turn."""
FIRST: Final = 4096
"""Octets that are looked at before a connection has a seat."""
PAUSE: Final = 0.1
"""Seconds until the next try to accept, once the system had no descriptor to give."""
SAY_AGAIN: Final = 60.0
"""Seconds between two log lines that seats are short."""


class Seat:
    """One connection's place."""

    __slots__ = ("_room", "address", "known", "since", "socket")

    def __init__(self, room: Room, connection: socket.socket, address: str, since: float) -> None:
        self._room, self.socket, self.address, self.since = room, connection, address, since
        self.known = False
        """It has had an answer."""

    def busy(self) -> None:
        """A whole request is there; it is being answered."""
        self._room.busy(self)

    def idle(self) -> None:
        """It was answered, and may ask again."""
        self._room.idle(self)

    def left(self) -> None:
        """The connection is gone. Safe to repeat."""
        self._room.left(self)


class Room:
    """The seats of one process.

    Args:
        most: how many.
        time: a clock that never goes back.
    """

    def __init__(self, most: int, *, time: Callable[[], float]) -> None:
        self._most, self._time = most, time
        self._seats: set[Seat] = set()
        # In the order in which they began to wait.
        self._strangers: dict[Seat, None] = {}
        self._kept: dict[Seat, None] = {}
        self._crowds: Counter[str] = Counter()
        """Strangers by address."""
        self._said = -SAY_AGAIN

    def __len__(self) -> int:
        return len(self._seats)

    def enter(self, connection: socket.socket, address: str) -> Seat | None:
        """A seat for a newcomer; None when there is none to be had."""
        if len(self._seats) >= self._most and not self.give_way(address):
            return None
        seat = Seat(self, connection, address, self._time())
        self._seats.add(seat)
        self._strangers[seat] = None
        self._crowds[address] += 1
        return seat

    def give_way(self, address: str = "") -> bool:
        """Close the connection that has waited longest, if there is one that may be closed for a newcomer from that address."""
        now = self._time()
        if now - self._said >= SAY_AGAIN:
            self._said = now
            log.warning("connections-short", most=self._most, strangers=len(self._strangers), kept=len(self._kept))
        crowding = self._crowded(address)
        oldest = next(iter(self._strangers), None)
        if oldest is not None:
            waited = now - oldest.since >= PATIENCE
            mine = waited and oldest.address == address
            if mine or (not crowding and (waited or self._crowded(oldest.address))):
                return self._close(oldest)
        oldest = next(iter(self._kept), None)
        if oldest is not None and len(self._strangers) < self._most // 2 and not crowding and now - oldest.since >= PATIENCE:
            return self._close(oldest)
        return False

    def _crowded(self, address: str) -> bool:
        return self._crowds[address] > self._most // 2

    def _close(self, seat: Seat) -> bool:
        self.left(seat)
        with suppress(OSError):
            seat.socket.shutdown(socket.SHUT_RDWR)  # whatever the event loop does with it at the moment, it finds its end
        return True

    def busy(self, seat: Seat) -> None:
        if seat in self._seats:
            self._stand(seat)

    def idle(self, seat: Seat) -> None:
        if seat in self._seats:
            self._stand(seat)
            seat.known, seat.since = True, self._time()
            self._kept[seat] = None

    def left(self, seat: Seat) -> None:
        if seat in self._seats:
            self._stand(seat)
            self._seats.remove(seat)

    def _stand(self, seat: Seat) -> None:
        if seat.known:
            self._kept.pop(seat, None)
        elif self._strangers.pop(seat, self) is None:
            self._crowds[seat.address] -= 1
            if not self._crowds[seat.address]:
                del self._crowds[seat.address]


class Entrance:
    """Accepts from one listening socket, in the event loop, as long as it is open. As a server of asyncio it can be closed.

    Args:
        factory: makes the protocol of a connection that has that seat.
        context: for TLS.
        handshake: seconds that a TLS handshake may take, and the end of an answer that did not fit into the system's buffer.
        at_once: the whole response for the octets that came with a connection, after which it is closed; None: they are read the usual way.
    """

    def __init__(
        self,
        listener: socket.socket,
        room: Room,
        factory: Callable[[Seat], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None,
        handshake: float,
        at_once: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self._listener, self._room, self._factory, self._context = listener, room, factory, context
        self._at_once, self._patience = at_once, handshake
        self._more: dict[str, Any] = {} if context is None else {"ssl": context, "ssl_handshake_timeout": handshake}
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[None]] = set()
        self._open = True
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())

    async def settle(self, seconds: float) -> None:
        """Wait until everybody who was accepted has entered or was turned away, but not for longer."""
        if self._entering:
            await asyncio.wait(self._entering, timeout=seconds)

    async def wait_closed(self) -> None:
        """There is nothing to wait for."""

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: one of ours is given back, and soon we try again
                self._room.give_way()
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(PAUSE, self._listen)
                return
            if self._at_once is not None and self._answered(connection, self._at_once):
                continue
            seat = self._room.enter(connection, str(peer[0]) if isinstance(peer, tuple) else "")
            if seat is None:
                connection.close()
                continue
            connection.setblocking(False)
            self._go_on(self._enter(connection, seat))

    def _answered(self, connection: socket.socket, at_once: Callable[[bytes], bytes | None]) -> bool:
        """Whether what came with a connection was all of it; then it has its answer, and is closed. Until that is known nothing is taken from it."""
        try:
            data = connection.recv(FIRST, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            octets = at_once(data) if data else None
            if octets is None:
                return False
            connection.recv(len(data), socket.MSG_DONTWAIT)  # closing a connection with octets unread would be a reset
            # With the word that there is more, the end of the connection leaves in the same segment as the answer.
            sent = connection.send(octets, socket.MSG_DONTWAIT | socket.MSG_MORE)
        except BlockingIOError:
            return False
        except OSError:  # it is gone already
            connection.close()
            return True
        if sent < len(octets):
            self._go_on(self._finish(connection, octets[sent:]))
        else:
            connection.close()
        return True

    async def _finish(self, connection: socket.socket, rest: bytes) -> None:
        connection.setblocking(False)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._loop.sock_sendall(connection, rest)
        connection.close()

    def _go_on(self, entering: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(entering)
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket, seat: Seat) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._factory(seat), connection, **self._more)
        except (OSError, asyncio.CancelledError):  # the handshake failed, took too long, or had to give way; its reason was logged
            seat.left()
            connection.close()


def room_for(most: int) -> int:
    """How many connections can be had of so many: each takes a descriptor, and the system gives no more than its hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return most
    raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with suppress(OSError, ValueError):  # where a filter of system calls says no
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    if soft < wanted:
        log.warning("connections-capped", wanted=most, most=max(1, soft - OTHER_FILES))
    return min(most, max(1, soft - OTHER_FILES))
