"""Who gets a seat when all are taken, and who gives way (R22)."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from fleetca import admission
from fleetca.admission import PATIENCE, Entrance, Room, Seat

GOOD, BAD = "192.0.2.1", "203.0.113.9"


class Hall:
    """A room, a clock, and sockets whose other ends say whether they were closed."""

    def __init__(self, most: int) -> None:
        self.at = 0.0
        self.room = Room(most, time=lambda: self.at)
        self.ends: dict[Seat, socket.socket] = {}
        self.all: list[socket.socket] = []

    def come(self, address: str = GOOD) -> Seat | None:
        """One second after the one before."""
        ours, theirs = socket.socketpair()
        self.all += [ours, theirs]
        seat = self.room.enter(ours, address)
        if seat is not None:
            self.ends[seat] = theirs
        return seat

    def seat(self, address: str = GOOD) -> Seat:
        seat = self.come(address)
        assert seat is not None
        return seat

    def gave_way(self) -> list[Seat]:
        """Those whose connection has ended since the last time."""
        found = []
        for seat, end in list(self.ends.items()):
            end.setblocking(False)
            try:
                assert end.recv(1) == b""
            except BlockingIOError:
                continue
            found.append(seat)
            del self.ends[seat]
        return found


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall(4)
    yield made
    for one in made.all:
        one.close()


def test_whoever_has_waited_longest_gives_way(hall: Hall) -> None:
    seats = []
    for hall.at in range(4):
        seats.append(hall.seat())
    hall.at = 10
    hall.seat()
    hall.seat()
    assert hall.gave_way() == seats[:2]
    assert len(hall.room) == 4


def test_nobody_gives_way_in_the_second_in_which_they_came(hall: Hall) -> None:
    for _ in range(4):
        hall.seat()
    assert hall.come() is None
    assert not hall.gave_way()
    hall.at = PATIENCE
    assert hall.come() is not None


def test_strangers_give_way_before_those_who_were_answered(hall: Hall) -> None:
    kept = hall.seat()
    kept.busy()
    kept.idle()
    strangers = []
    for hall.at in (5, 6, 7):
        strangers.append(hall.seat())
    for hall.at in (20, 21, 22):
        hall.seat().busy()
    assert hall.gave_way() == strangers
    hall.at = 30
    hall.seat()
    assert hall.gave_way() == [kept]


def test_of_those_who_are_kept_alive_the_idlest_goes(hall: Hall) -> None:
    first, second, *_ = seats = [hall.seat() for _ in range(4)]
    for hall.at, seat in enumerate(seats, 1):
        seat.busy()
        seat.idle()
    hall.at = 10
    first.busy()
    first.idle()
    hall.at = 20
    hall.seat()
    assert hall.gave_way() == [second]


def test_a_flood_of_strangers_takes_half_of_the_seats_of_those_who_were_answered(hall: Hall) -> None:
    kept = [hall.seat() for _ in range(4)]
    for hall.at, seat in enumerate(kept, 1):
        seat.busy()
        seat.idle()
    hall.at = 10
    for number in range(4):
        hall.come(f"203.0.113.{number}")  # two of them in vain
    assert hall.gave_way() == kept[:2]


def test_who_is_being_answered_never_gives_way(hall: Hall) -> None:
    for _ in range(4):
        hall.seat().busy()
    hall.at = 1000
    assert hall.come() is None
    assert not hall.gave_way()


def test_who_leaves_makes_room_once(hall: Hall) -> None:
    seats = [hall.seat() for _ in range(4)]
    for _ in range(2):
        seats[0].left()
    seats[0].busy()
    seats[0].idle()
    assert len(hall.room) == 3
    hall.seat()
    assert hall.come() is None


def test_one_address_that_fills_the_room_lets_the_others_in_at_once(hall: Hall) -> None:
    flood = [hall.seat(BAD) for _ in range(4)]
    assert hall.come(BAD) is None
    hall.seat(GOOD)
    assert hall.gave_way() == flood[:1]
    hall.seat(GOOD)
    assert hall.gave_way() == flood[1:2]
    # Half and half: nobody floods any more, and everybody has a second.
    assert hall.come(GOOD) is None
    assert hall.come(BAD) is None


def test_one_address_that_fills_the_room_gets_new_seats_for_its_old_ones(hall: Hall) -> None:
    """All clients may come from one address, through a proxy for one."""
    flood = [hall.seat(BAD) for _ in range(4)]
    hall.at = PATIENCE
    hall.seat(BAD)
    assert hall.gave_way() == flood[:1]


def test_one_address_that_fills_the_room_takes_no_seat_of_another(hall: Hall) -> None:
    other = hall.seat(GOOD)
    for _ in range(3):
        hall.seat(BAD)
    hall.at = 5
    assert hall.come(BAD) is None
    other.busy()
    other.idle()
    hall.at = 6
    assert hall.come(BAD) is not None
    assert other not in hall.gave_way()


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(admission.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(admission.resource, "setrlimit", lambda _, given: limits.append(given))
    assert admission.room_for(500) == 500
    assert admission.room_for(1000) == 1000
    assert limits[-1] == (1256, 4096)
    assert admission.room_for(100_000) == 4096 - admission.OTHER_FILES
    assert limits[-1] == (4096, 4096)
    limits.append((1024, resource.RLIM_INFINITY))
    assert admission.room_for(100_000) == 100_000


def test_where_the_limit_may_not_be_raised_there_are_fewer_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, __: object) -> None:
        raise PermissionError

    monkeypatch.setattr(admission.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(admission.resource, "setrlimit", refuse)
    assert admission.room_for(1000) == 1024 - admission.OTHER_FILES


# ---- What came with a connection ----------------------------------------------------------------------------------------


class Listener(asyncio.Protocol):
    """What a connection that was let in says."""

    def __init__(self) -> None:
        self.made, self.came = asyncio.Event(), asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.came.set_result(data)


class Door:
    """An entrance whose clients have connected, and said what they had to say, before it opens."""

    def __init__(self, *clients: bytes, send_buffer: int | None = None) -> None:
        self.listener = socket.socket()
        if send_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(10)
        self.clients = [socket.create_connection(self.listener.getsockname(), timeout=60) for _ in clients]
        for client, octets in zip(self.clients, clients, strict=True):
            client.sendall(octets)
        self.shown: list[bytes] = []
        self.let_in: list[Listener] = []

    def open(self, answer: bytes | None, *, patience: float = 60) -> Entrance:
        def at_once(data: bytes) -> bytes | None:
            self.shown.append(data)
            return answer

        def factory(seat: Seat) -> asyncio.Protocol:
            del seat
            self.let_in.append(Listener())
            return self.let_in[-1]

        self.room = Room(10, time=asyncio.get_running_loop().time)
        return Entrance(self.listener, self.room, factory, context=None, handshake=patience, at_once=at_once)

    def close(self) -> None:
        for one in (self.listener, *self.clients):
            one.close()


def heard(client: socket.socket) -> bytes:
    got = b""
    while part := client.recv(65536):
        got += part
    return got


def test_who_has_said_all_of_it_is_answered_and_takes_no_seat() -> None:
    door = Door(b"one", b"two", b"three")

    async def serve() -> None:
        entrance = door.open(b"answer")
        assert [await asyncio.to_thread(heard, client) for client in door.clients] == [b"answer"] * 3
        entrance.close()
        assert (door.let_in, len(door.room)) == ([], 0)

    asyncio.run(serve())
    assert sorted(door.shown) == [b"one", b"three", b"two"]
    door.close()


def test_who_is_not_answered_at_once_is_read_as_if_nobody_had_looked() -> None:
    door = Door(b"half of it", b"")

    async def serve() -> None:
        entrance = door.open(None)
        while len(door.let_in) < 2:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        for one in door.let_in:
            await one.made.wait()
        assert door.shown == [b"half of it"], "who said nothing is not shown"
        assert len(door.room) == 2
        done, _ = await asyncio.wait([one.came for one in door.let_in], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result() for one in done] == [b"half of it"]
        for one in door.let_in:
            one.transport.close()
        entrance.close()

    asyncio.run(serve())
    door.close()


def test_an_answer_that_does_not_fit_into_the_system_is_sent_to_its_end() -> None:
    door = Door(b"ask", send_buffer=4096)
    answer = random.Random(1).randbytes(400_000)

    async def serve() -> None:
        entrance = door.open(answer)
        assert await asyncio.to_thread(heard, door.clients[0]) == answer
        entrance.close()

    asyncio.run(serve())
    door.close()


def test_R22_an_answer_that_nobody_reads_is_given_up() -> None:
    door = Door(b"ask", send_buffer=4096)

    async def serve() -> None:
        entrance = door.open(bytes(64_000_000), patience=0.2)
        while not door.shown or entrance._entering:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        entrance.close()

    asyncio.run(serve())
    with suppress(ConnectionResetError):
        assert len(heard(door.clients[0])) < 64_000_000
    door.close()


def test_who_has_gone_before_the_answer_harms_nobody() -> None:
    door = Door(b"ask", b"ask", b"ask")
    door.clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    door.clients[0].close()  # a reset
    door.clients[1].close()

    async def serve() -> None:
        entrance = door.open(b"answer")
        assert await asyncio.to_thread(heard, door.clients[2]) == b"answer"
        entrance.close()
        assert len(door.room) == 0

    asyncio.run(serve())
    door.close()
