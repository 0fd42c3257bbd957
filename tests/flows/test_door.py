"""The signer for an event loop: over the real socket, and over one that misbehaves."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.errors import FleetcaError, Unavailable
from ca.model import IssueRequest, Role, TokenEvidence
from ca.signer import messages
from ca.signer.server import SignerServer
from enroll.model import Granted
from fleetca.door import Door
from tests.databases import sqlite_url
from tests.fakes.signer_world import Keypair, World

Outcome = Granted | FleetcaError


class Signer:
    """A signer behind its socket."""

    def __init__(self, folder: Path) -> None:
        self.world, self.socket = World(folder, sqlite_url(folder)), folder / "signer.sock"
        self.server = self.started()

    def started(self) -> SignerServer:
        server = self.world.server(self.socket, users={os.getuid(): frozenset({Role.enroll})})
        server.start()
        return server

    def again(self) -> None:
        self.server.stop()
        self.server = self.started()

    def request(self, device: str) -> IssueRequest:
        return IssueRequest(Keypair().csr(), TokenEvidence(self.world.token(device).text))


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    made = Signer(tmp_path)
    yield made
    made.server.stop()
    made.world.close()


def code_of(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, FleetcaError) else "issued"


def run(story: Callable[[Door], Coroutine[None, None, list[Outcome]]], path: Path, **more: Any) -> list[Outcome]:
    """What came of a story with a door in an event loop."""

    async def told() -> list[Outcome]:
        door = Door(path, **{"role": Role.enroll, **more})
        outcomes = await story(door)
        door.close()
        await asyncio.sleep(0)  # the loop closes what was let go
        return outcomes

    return asyncio.run(told())


def asked(path: Path, *requests: IssueRequest, **more: Any) -> list[str]:
    return [code_of(one) for one in run(lambda door: ask(door, *requests), path, **more)]


async def ask(door: Door, *requests: IssueRequest) -> list[Outcome]:
    """All of them at once."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[Outcome]] = []
    for request in requests:
        told: asyncio.Future[Outcome] = loop.create_future()
        door.issue_soon(request, told.set_result)
        waiting.append(told)
    return list(await asyncio.wait_for(asyncio.gather(*waiting), 60))


def test_many_at_once_each_get_their_own(signer: Signer) -> None:
    requests = [signer.request(f"pump-{number}") for number in range(100)]
    outcomes = run(lambda door: ask(door, *requests), signer.socket, connections=8)
    granted = [outcome.certificate for outcome in outcomes if not isinstance(outcome, FleetcaError)]
    assert [one.device for one in granted] == [f"pump-{n}" for n in range(100)]
    assert [one.ref.serial for one in granted] == [x509.load_der_x509_certificate(one.der or b"").serial_number for one in granted]


def test_R02_a_hundred_repeats_at_once_get_one_certificate(signer: Signer) -> None:
    request = signer.request("pump-1")
    outcomes = run(lambda door: ask(door, *[request] * 100), signer.socket)
    assert len({outcome.leaf for outcome in outcomes if not isinstance(outcome, FleetcaError)}) == 1
    assert sum(not isinstance(outcome, FleetcaError) and not outcome.repeated for outcome in outcomes) == 1


def test_a_refusal_arrives_as_the_error_that_it_was(signer: Signer) -> None:
    used = signer.request("pump-1")
    other = IssueRequest(Keypair().csr(), used.evidence)
    broken = IssueRequest(b"\x30\x00", signer.request("pump-2").evidence)
    assert asked(signer.socket, used, other, broken, connections=1) == ["issued", "token-used", "bad-csr"]


def test_a_restarted_signer_is_found_without_a_failure(signer: Signer) -> None:
    async def story(door: Door) -> list[Outcome]:
        first = await ask(door, *[signer.request(f"a-{n}") for n in range(4)])
        await asyncio.to_thread(signer.again)
        return first + await ask(door, *[signer.request(f"b-{n}") for n in range(4)])

    assert [code_of(one) for one in run(story, signer.socket)] == ["issued"] * 8


def test_a_signer_that_is_down_is_said_and_waited_for(signer: Signer) -> None:
    request = signer.request("pump-1")

    async def story(door: Door) -> list[Outcome]:
        signer.server.stop()
        down = await ask(door, request, request)
        signer.server = signer.started()
        return down + await ask(door, request)

    assert [code_of(one) for one in run(story, signer.socket)] == ["signer-down", "signer-down", "issued"]


def test_a_role_that_is_not_ours_is_refused(signer: Signer) -> None:
    requests = signer.request("pump-1"), signer.request("pump-2")
    assert asked(signer.socket, *requests, role=Role.operator) == ["role-not-yours"] * 2


# ---- A signer that misbehaves -------------------------------------------------------------------------------------------


class Odd:
    """Greets, reads one request, and then does what it was told to."""

    def __init__(self, folder: Path, *deeds: str) -> None:
        self.path, self.deeds, self.seen = folder / "odd.sock", list(deeds), 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.kept: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.thread.join(60)
        for one in (self.listener, *self.kept):
            one.close()

    def _serve(self) -> None:
        for deed in self.deeds:
            connection, _ = self.listener.accept()
            self.kept.append(connection)
            _frame(connection)
            connection.sendall(messages.frame({"ok": {}}))
            if _frame(connection):
                self.seen += 1
            if deed == "hang up":
                connection.close()
            elif deed == "lie":
                connection.sendall(b"\x7f\xff\xff\xff")
            elif deed == "babble":
                connection.sendall(b"\x00\x00\x00\x02[]")
            elif deed == "refuse, in small pieces":
                for octet in messages.frame(messages.write_error(Unavailable("later", "Later."))):
                    connection.sendall(bytes([octet]))


def _frame(connection: socket.socket) -> bytes:
    head = connection.recv(4, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


REQUEST = IssueRequest(b"\x30\x00", TokenEvidence("enr_"))
SILENCE = 1.5
"""Seconds after which a door gives up; on a busy machine, too, enough for a signer that does answer."""


@pytest.fixture
def odd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Odd]:
    made = Odd(tmp_path, *request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        pytest.param(["hang up"], "signer-down", id="it hangs up"),
        pytest.param(["say nothing"], "signer-down", id="it says nothing"),
        pytest.param(["lie"], "bad-answer", id="it claims two gibioctets"),
        pytest.param(["babble"], "bad-request", id="it answers a list"),
        pytest.param(["refuse, in small pieces"], "later", id="its answer comes octet by octet"),
    ],
    indirect=["odd"],
)
def test_whatever_the_signer_does_there_is_one_outcome(odd: Odd, code: str) -> None:
    assert asked(odd.path, REQUEST, timeout=SILENCE if odd.deeds == ["say nothing"] else 60) == [code]
    assert odd.seen == 1


@pytest.mark.parametrize("odd", [["say nothing", "refuse, in small pieces"]], indirect=True)
def test_an_answer_that_came_too_late_is_nobody_elses(odd: Odd) -> None:
    """The connection ends with its request: the next one on it would get the wrong answer."""

    async def story(door: Door) -> list[Outcome]:
        first = await ask(door, REQUEST)
        door._timeout = 60  # the second one is answered, when the machine gets to it
        return first + await ask(door, REQUEST)

    assert [code_of(one) for one in run(story, odd.path, connections=1, timeout=SILENCE)] == ["signer-down", "later"]


def test_nobody_listens(tmp_path: Path) -> None:
    assert asked(tmp_path / "none.sock", REQUEST) == ["signer-down"]


@pytest.mark.parametrize("odd", [["say nothing"]], indirect=True)
def test_a_queue_that_is_full_says_so(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetca.door.LONGEST_QUEUE", 3)
    assert sorted(asked(odd.path, *[REQUEST] * 5, connections=1, timeout=SILENCE)) == ["signer-busy"] * 2 + ["signer-down"] * 3
