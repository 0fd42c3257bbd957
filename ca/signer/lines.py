"""The connections of the signer's socket: who is there, whole frames in, whole frames out. Edge: knows no verb.

A Unix socket; the kernel says the peer's user id (SO_PEERCRED), the settings say its roles, the peer names one of them in its first frame and
keeps it. One thread serves all connections, so that hundreds of waiting callers cost nothing; it never waits for one of them, nor for what
they asked. Requests of one connection are taken one after the other.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from ca.errors import Denied, FleetcaError, Misconfigured
from ca.model import Peer, Role
from ca.signer import messages
from ca.signer.address import address
from ca.signer.desk import Log

MOST_CONNECTIONS: Final = 512
KEPT_FOR_OTHERS: Final = 64
"""Connections that one user never gets: a stolen web process must not keep operators and publisher out."""
STRANGERS: Final = 8
"""Connections of a user who has no role."""
PATIENCE: Final = 10.0
"""Seconds for the greeting, and for the rest of a frame that has begun. Between frames a peer may be silent for ever."""
_PIECE: Final = 1 << 16


class _Line:
    """One connection."""

    __slots__ = ("asking", "closing", "descriptor", "full", "inbox", "outbox", "peer", "socket", "uid")

    def __init__(self, connection: socket.socket, uid: int) -> None:
        self.socket, self.uid = connection, uid
        self.peer: Peer | None = None
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.descriptor: int | None = None
        """It came with the frame that is being read."""
        self.asking = False
        """A request of it is under way."""
        self.closing = False
        """Once its answers are sent it is closed."""
        self.full = False
        """Its peer does not read; we are told when it can be written to again."""


class Request:
    """One frame of a peer who was greeted. To be answered once, from any thread."""

    __slots__ = ("_line", "_lines", "body", "descriptor", "peer")

    def __init__(self, lines: Lines, line: _Line, peer: Peer, body: bytes) -> None:
        self._lines, self._line = lines, line
        self.peer, self.body = peer, body
        self.descriptor, line.descriptor = line.descriptor, None
        """An open file that came with it; whoever takes the request closes it."""

    def answer(self, frame: bytes) -> None:
        if threading.current_thread() is self._lines.thread:
            self._lines.answered(self._line, frame)
        else:
            self._lines.soon(lambda: self._lines.answered(self._line, frame))

    def soon(self, act: Callable[[], None]) -> None:
        """Do something in the thread that serves the connections; it must be quick."""
        self._lines.soon(act)


class Lines:
    """Listens from `start` to `stop`.

    Args:
        users: the roles of each user id; nobody else gets past the greeting.
        mode: of the socket: 0o600, or 0o660 where other users share its group.
        monotonic: seconds on a clock that never goes back.
        asked: takes each request, in the thread that serves the connections: it must be quick, and not raise.
    """

    def __init__(
        self,
        path: Path,
        *,
        users: Mapping[int, frozenset[Role]],
        mode: int,
        monotonic: Callable[[], float],
        log: Log,
        asked: Callable[[Request], None],
    ) -> None:
        self._path, self._users, self._mode, self._monotonic, self._log, self._asked = path, users, mode, monotonic, log, asked
        self._listener: socket.socket | None = None
        self._lines: dict[_Line, None] = {}
        self._of_user: Counter[int] = Counter()
        self._late: dict[_Line, float] = {}
        """When each that owes us octets is given up; the earliest stands first, for all have the same patience."""
        self._acts: deque[Callable[[], None]] = deque()
        self._rung = False
        self._lock = threading.Lock()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="signer-lines", daemon=True)

    # ---- Life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. A socket left by a dead signer is taken over: the caller holds the signer's lock.

        Raises:
            Misconfigured: the path cannot be a socket.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(self._path.lstat().st_mode):
                    raise Misconfigured(
                        "socket-taken", f"{self._path} is there and is no socket.", fix="Change [signer] socket, or move the file away."
                    )
                self._path.unlink()
            # Bound under a mask of its own, so that there is no moment at which others may connect.
            before = os.umask(0o177)
            try:
                with address(self._path) as place:
                    listener.bind(place)
            finally:
                os.umask(before)
            self._path.chmod(self._mode)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise Misconfigured(
                "socket-unusable",
                f"The signer cannot listen on {self._path}.",
                why=error.strerror or str(error),
                fix="Mend the folder, or choose another path in [signer] socket.",
            ) from None
        except FleetcaError:
            listener.close()
            raise
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        for one in (listener, self._bell, self._ringer):
            one.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell, selectors.EVENT_READ, self._called)
        self.thread.start()

    def refuse_new(self) -> None:
        """Take no new connection from here on."""
        self.soon(self._close_listener)

    def stop(self) -> None:
        """Return when every answer was sent, or after a while; all connections are closed then."""
        self.soon(self._stop)
        self.thread.join(timeout=30)

    def _stop(self) -> None:
        self._stopping = True
        self._close_listener()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def soon(self, act: Callable[[], None]) -> None:
        """From any thread: have it done by the thread that serves the connections."""
        with self._lock:
            self._acts.append(act)
            ring, self._rung = not self._rung, True
        if ring:
            with contextlib.suppress(OSError):
                self._ringer.send(b"\0")

    # ---- The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._stopping and not any(line.asking or line.outbox for line in self._lines)):
            wait = max(next(iter(self._late.values())) - self._monotonic(), 0.0) if self._late else None
            for key, mask in self._selector.select(wait):
                self._safely(key.data, mask)
            if self._late:
                self._give_up()
        for line in list(self._lines):
            self._close(line)
        self._selector.close()
        self._bell.close()
        self._ringer.close()

    def _give_up(self) -> None:
        now = self._monotonic()
        for line, end in list(self._late.items()):
            if end > now:
                return
            self._close(line)

    def _called(self, _mask: int) -> None:
        with self._lock:
            self._bell.recv(16)
            self._rung = False
            acts, self._acts = self._acts, deque()
        for act in acts:
            self._safely(act)

    def _safely(self, act: Callable[..., None], *what: int) -> None:
        try:
            act(*what)
        except Exception as error:  # noqa: BLE001 - one connection must not take the others with it
            self._log.error("internal", kind=type(error).__name__, why=str(error))

    def _accept(self, _mask: int) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Gone again, or we are out of descriptors: the connections we have will give some back.
            threading.Event().wait(0.01)
            return
        uid = _peer_uid(connection)
        most = MOST_CONNECTIONS - KEPT_FOR_OTHERS if self._users.get(uid) else STRANGERS
        if self._of_user[uid] >= most or len(self._lines) >= MOST_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        line = _Line(connection, uid)
        self._lines[line] = None
        self._of_user[uid] += 1
        self._selector.register(connection, selectors.EVENT_READ, partial(self._ready, line))
        self._expect(line)

    def _close(self, line: _Line) -> None:
        if line not in self._lines:
            return
        del self._lines[line]
        self._late.pop(line, None)
        self._of_user[line.uid] -= 1
        self._selector.unregister(line.socket)
        line.socket.close()
        if line.descriptor is not None:
            os.close(line.descriptor)
            line.descriptor = None

    def _expect(self, line: _Line) -> None:
        """It owes us the rest of a frame, or its greeting."""
        if line not in self._late:
            self._late[line] = self._monotonic() + PATIENCE

    def _ready(self, line: _Line, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._send(line)
        if mask & selectors.EVENT_READ and line in self._lines:
            self._receive(line)

    # ---- Frames -----------------------------------------------------------------------------------------------------

    def _receive(self, line: _Line) -> None:
        try:
            octets, descriptors, _, _ = socket.recv_fds(line.socket, _PIECE, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self._close(line)
            return
        for descriptor in descriptors:
            if line.descriptor is None:
                line.descriptor = descriptor
            else:
                os.close(descriptor)
        if not octets:
            # What it asked for is decided and can be asked for again.
            self._close(line)
            return
        line.inbox += octets
        if line.asking:
            if len(line.inbox) > messages.LONGEST_REQUEST + messages.LENGTH:
                self._close(line)
            return
        self._take(line)

    def _take(self, line: _Line) -> None:
        """The next whole frame, where there is one."""
        while not line.asking and not line.closing and not self._stopping:
            inbox = line.inbox
            if len(inbox) >= messages.LENGTH:
                try:
                    end = messages.LENGTH + messages.frame_length(bytes(inbox[: messages.LENGTH]), longest=messages.LONGEST_REQUEST)
                except FleetcaError as error:
                    # Where the next frame begins is not known any more.
                    self._log.warning("refused", uid=line.uid, verb="?", code=error.code, what=error.what)
                    self._last(line, error)
                    return
                if len(inbox) >= end:
                    body = bytes(inbox[messages.LENGTH : end])
                    del inbox[:end]
                    self._late.pop(line, None)
                    self._frame(line, body)
                    continue
            if inbox or line.peer is None:
                self._expect(line)
            return

    def _frame(self, line: _Line, body: bytes) -> None:
        if line.peer is None:
            self._greet(line, body)
            return
        line.asking = True
        self._asked(Request(self, line, line.peer, body))

    def _greet(self, line: _Line, body: bytes) -> None:
        try:
            role = messages.read_hello(messages.unframe(body))
            if role not in self._users.get(line.uid, frozenset()):
                raise Denied(
                    "role-not-yours",
                    f"User id {line.uid} does not have role {role.value} here.",
                    fix="Give it the role under [signer.users], if that is meant.",
                )
        except FleetcaError as error:
            self._log.warning("refused", uid=line.uid, verb="hello", code=error.code, what=error.what)
            self._last(line, error)
            return
        if line.descriptor is not None:
            os.close(line.descriptor)
            line.descriptor = None
        line.peer = Peer(role, line.uid)
        line.outbox += messages.frame({"ok": {"role": role.value}})
        self._send(line)

    def _last(self, line: _Line, error: FleetcaError) -> None:
        line.closing = True
        line.outbox += messages.frame(messages.write_error(error))
        self._expect(line)
        self._send(line)

    def answered(self, line: _Line, frame: bytes) -> None:
        line.asking = False
        if line not in self._lines:
            return
        line.outbox += frame
        self._send(line)
        if line in self._lines:
            self._take(line)

    def _send(self, line: _Line) -> None:
        try:
            sent = line.socket.send(line.outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(line)
            return
        del line.outbox[:sent]
        if line.outbox:
            self._expect(line)
        elif line.closing:
            self._close(line)
            return
        elif not line.inbox and line.peer is not None:
            self._late.pop(line, None)
        if line.full != bool(line.outbox):
            line.full = not line.full
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.full else 0)
            self._selector.modify(line.socket, wanted, partial(self._ready, line))


def _peer_uid(connection: socket.socket) -> int:
    """As the kernel says it."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
