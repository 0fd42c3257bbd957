"""The signer for an event loop: issuing over the signer's socket without a thread that waits.

It speaks as `ca.signer.client` does (the frames are `ca.signer.messages`), on connections of its own: each has one request under way, idle ones are
kept, and what comes while all are busy waits in order. A request whose kept connection turns out to be dead is sent again once on a new one: every verb
is safe to repeat. Belongs to one event loop; nothing of it may be called from another thread. Decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ca.errors import Broken, Busy, FleetcaError, Malformed, Unavailable
from ca.model import CertificateRef, Digest, IssueRequest, Role
from ca.rules import forms
from ca.signer import messages
from ca.signer.address import address
from enroll.model import Delivery, Granted, Grantee

CONNECTIONS: Final = 64
"""As many requests share one of the signer's commits (its default batch)."""
LONGEST_QUEUE: Final = 4096
"""As long as the signer's own."""

Outcome = Granted | FleetcaError
Told = Callable[[Outcome], None]


class _Job:
    """One request, until somebody was told what came of it."""

    __slots__ = ("again", "line", "octets", "timer", "told")

    def __init__(self, octets: bytes, told: Told) -> None:
        self.octets = octets
        self.told: Told | None = told
        self.timer: asyncio.TimerHandle | None = None
        self.line: _Line | None = None
        self.again = False
        """A kept connection took it with it."""

    def end(self, outcome: Outcome) -> None:
        told, self.told, self.line = self.told, None, None
        if self.timer is not None:
            self.timer.cancel()
        if told is not None:
            told(outcome)


class Door:
    """Opens no connection before the first request.

    Args:
        socket_path: where the signer listens.
        role: the role to speak in; the signer checks it against this process's user id.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, socket_path: str | Path, role: Role, *, connections: int = CONNECTIONS, timeout: float = 30.0) -> None:
        self._path, self._role, self._most, self._timeout = Path(socket_path), role, connections, timeout
        self._lines: set[_Line] = set()
        self._idle: list[_Line] = []
        self._open = 0
        """Connections, those that are being opened included."""
        self._queue: deque[_Job] = deque()
        self._opening: set[asyncio.Task[None]] = set()

    def issue_soon(self, request: IssueRequest, told: Told) -> None:
        """Ask for a certificate; `told` gets it, or why there is none, later. The same request again gets the same certificate."""
        loop = asyncio.get_running_loop()
        octets = messages.frame(messages.request("issue", messages.write_issue(request)))
        if len(octets) > messages.LONGEST_REQUEST:
            loop.call_soon(told, forms.bad("It is longer than the signer reads."))
            return
        if len(self._queue) >= LONGEST_QUEUE:
            loop.call_soon(told, Busy("signer-busy", "Too many requests wait for the signer.", retry_after=1))
            return
        job = _Job(octets, told)
        job.timer = loop.call_later(self._timeout, self._too_late, job)
        if self._idle:
            self._idle.pop().ask(job)
        else:
            self._wait(job)

    def close(self) -> None:
        """Close all connections; for when nobody waits any more."""
        for line in self._lines:
            line.hang_up()

    # ---- Connections ------------------------------------------------------------------------------------------------

    def _wait(self, job: _Job, *, first: bool = False) -> None:
        if first:
            self._queue.appendleft(job)
        else:
            self._queue.append(job)
        if self._open < self._most:
            self._open += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            with address(self._path) as place:
                connection.connect(place)  # never waits: a Unix socket takes it, or does not
            await asyncio.get_running_loop().create_unix_connection(lambda: _Line(self, self._role), sock=connection)
        except OSError as error:
            connection.close()
            self._open -= 1
            self._refused(self._down(error))

    def opened(self, line: _Line) -> None:
        self._lines.add(line)

    def free(self, line: _Line) -> None:
        """A connection has nothing to do."""
        while self._queue:
            job = self._queue.popleft()
            if job.told is not None:
                line.ask(job)
                return
        self._idle.append(line)

    def lost(self, line: _Line, job: _Job | None, why: Exception | None, *, greeted: bool) -> None:
        """A connection has ended."""
        self._lines.discard(line)
        self._open -= 1
        if line in self._idle:
            self._idle.remove(line)
        error = why if isinstance(why, FleetcaError) else self._down(why)
        if job is not None and job.told is not None:
            # A kept connection may have died with an earlier signer; a new one that fails is news.
            if line.answered and not job.again:
                job.again, job.line = True, None
                self._wait(job, first=True)
            else:
                job.end(error)
        elif not greeted:
            self._refused(error)
        elif self._queue and self._open < self._most:
            self._wait(self._queue.popleft(), first=True)

    def _refused(self, error: FleetcaError) -> None:
        """No connection is to be had: what waits for one hears it, unless others are at work."""
        while self._queue and self._open == 0:
            self._queue.popleft().end(error)

    def _too_late(self, job: _Job) -> None:
        line = job.line
        job.end(self._down(TimeoutError("it took too long")))
        if line is not None:
            line.hang_up()  # its answer would be taken for the next one's

    def _down(self, error: BaseException | None) -> Unavailable:
        cause = error.strerror if isinstance(error, OSError) else None
        return Unavailable(
            "signer-down",
            "The signer does not answer.",
            why=f"{self._path}: {cause or str(error or '') or 'it hung up'}",
            fix="Start it with `fleetca serve`, or look into its log.",
        )


class _Line(asyncio.Protocol):
    """One connection to the signer."""

    def __init__(self, door: Door, role: Role) -> None:
        self._door, self._role = door, role
        self._transport: Any = None
        self._begun = bytearray()
        """Of a frame that is not all there yet."""
        self._job: _Job | None = None
        self._greeted = False
        self._why: Exception | None = None
        self.answered = False
        """It has served before."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._door.opened(self)
        self._transport.write(messages.frame(messages.hello(self._role)))

    def ask(self, job: _Job) -> None:
        self._job, job.line = job, self
        self._transport.write(job.octets)

    def hang_up(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._begun:
            self._begun += data
            data = bytes(self._begun)
        at = 0
        while len(data) - at >= messages.LENGTH:
            end = at + messages.LENGTH + int.from_bytes(data[at : at + messages.LENGTH], "big")
            if end - at > messages.LONGEST_ANSWER:
                self._why = Broken("bad-answer", "The signer's answer is too long.")
                self.hang_up()
                return
            if end > len(data):
                break
            self._frame(data[at + messages.LENGTH : end])
            at = end
        self._begun = bytearray(data[at:]) if at < len(data) else bytearray()

    def _frame(self, body: bytes) -> None:
        if not self._greeted:
            try:
                messages.read_answer(messages.unframe(body))
            except FleetcaError as error:
                self._why = error
                self.hang_up()
                return
            self._greeted = True
            self._door.free(self)
            return
        job, self._job, self.answered = self._job, None, True
        outcome: Outcome
        try:
            outcome = _granted(messages.read_answer(messages.unframe(body)))
        except FleetcaError as error:
            outcome = error
        # First the next one on its way, then the words about this one.
        self._door.free(self)
        if job is not None:
            job.end(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        job, self._job = self._job, None
        self._door.lost(self, job, self._why or exc, greeted=self._greeted)


def _granted(document: Any) -> Grantee:
    """What the device is told, out of the words of `ca.model.Issued`. The rest of the row is not even looked at: reading it costs more than all this.

    Raises:
        Broken: the signer says something else (`bad-answer`).
    """
    try:
        row = document["certificate"]
        ref = forms.read(CertificateRef, row["ref"])
        der, leaf = a2b_base64(row["der"]), Digest(a2b_base64(document["leaf"]))
        delivery = Delivery(ref, row["device"], row["profile"], der, row["not_before"], row["not_after"], row["intended_at"])
        return Grantee(delivery, leaf, document["repeated"])
    except (KeyError, TypeError, ValueError, Malformed):
        raise Broken("bad-answer", "The signer's answer cannot be read.") from None
