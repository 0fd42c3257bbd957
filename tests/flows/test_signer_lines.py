"""The connections of the signer's socket, with nothing behind them: what a peer who does not read costs, and whom."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.model import Role
from ca.signer import messages
from ca.signer.address import address
from ca.signer.desk import Silence
from ca.signer.lines import Lines, Request

LONG = b"x" * (5 << 20)
"""No socket's buffer holds it."""


def _asked(request: Request) -> None:
    """Who asks for a long answer gets one, everybody else an echo."""
    text = LONG if request.body == b"long" else request.body
    request.answer(len(text).to_bytes(messages.LENGTH, "big") + text)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    made = Lines(tmp_path / "s", users={os.getuid(): frozenset(Role)}, mode=0o600, monotonic=lambda: 0.0, log=Silence(), asked=_asked)
    made.start()
    yield made
    made.stop()


def _peer(tmp_path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(60)
    with address(tmp_path / "s") as place:
        connection.connect(place)
    connection.sendall(messages.frame(messages.hello(Role.enroll)))
    assert b'"ok"' in _told(connection)
    return connection


def _ask(connection: socket.socket, text: bytes) -> None:
    connection.sendall(len(text).to_bytes(messages.LENGTH, "big") + text)


def _told(connection: socket.socket) -> bytes:
    def exactly(count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            piece = connection.recv(count - len(found))
            assert piece, "it hung up"
            found += piece
        return bytes(found)

    return exactly(int.from_bytes(exactly(messages.LENGTH), "big"))


def test_who_does_not_read_is_waited_for_and_holds_up_nobody(lines: Lines, tmp_path: Path) -> None:
    with _peer(tmp_path) as slow, _peer(tmp_path) as quick:
        for text in (b"long", b"long", b"last"):
            _ask(slow, text)
        for number in range(100):
            _ask(quick, b"%d" % number)
            assert _told(quick) == b"%d" % number
        assert [_told(slow), _told(slow), _told(slow)] == [LONG, LONG, b"last"]
        # Whoever reads again is written to at once: that its socket has room wakes nobody any more.
        _ask(slow, b"more")
        assert _told(slow) == b"more"
        assert {key.events for key in lines._selector.get_map().values()} == {selectors.EVENT_READ}
