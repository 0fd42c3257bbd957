"""A batch from a factory line, beside issuing in the `issue` contest: the same world, the same desk, the same number of requests under way.

Ours begins with the station's sealed file: it is judged to its end and taken, then every unit gets its certificate. `fleetca line batch` does the same through
the signer's socket, and writes each answer durably.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import measure
import world
from issue import CALLERS, inside, scratch

from ca.keys.injection import csr_of
from ca.keys.memory import MemoryKey, make_private_key
from ca.model import (
    AlgorithmName,
    DeviceId,
    Digest,
    IssueRequest,
    KeyName,
    LocalEvidence,
    MessageEvidence,
    OperatorName,
    Peer,
    ProfileName,
    Role,
    ShiftRequest,
)
from ca.rules import line
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE
from ca.rules.line import Unit
from ca.rules.message import Act, Message, signed_octets, write_message
from ca.signer.line_desk import request_for
from ca.signer.server import SignerServer
from ca.system import SystemChance, SystemClock
from fleetca.line import bringing, station

PEER = Peer(Role.operator, 0)
PROFILE = ProfileName("device")


class Station:
    """A station and an operator of the world's deployment."""

    def __init__(self, here: world.World) -> None:
        self._here, self._made = here, 0
        verbs = here.parts.verbs
        self._key = MemoryKey(KeyName("station"), make_private_key(AlgorithmName("p256")))
        self._operator = MemoryKey(KeyName("operator"), make_private_key(AlgorithmName("p256")))
        verbs.provisioning.add_station("line-1", self._key.spki, PEER)
        verbs.operators.add(OperatorName("ada"), ["line"], PEER)
        asked = IssueRequest(csr_of(self._operator), LocalEvidence(PEER.role, PEER.uid), DeviceId(OPERATOR_DEVICE + "ada"), OPERATOR)
        self._certificate = here.desk.do(here.issuing.prepare(asked, PEER)).certificate.der
        self._deployment = verbs.issuing._policy.deployment  # noqa: SLF001 - a bench asks what no client needs

    def file(self, csrs: Sequence[bytes], path: Path) -> Path:
        """A shift's file with a unit for each CSR, sealed once."""
        now, digest = SystemClock().now(), Digest(sha256(self._key.spki).digest())
        asked = Message(
            Act.shift, self._deployment, now, SystemChance().octets(16).hex(), profile=PROFILE, lifetime=3600,
            station=("line-1", digest.hex(), len(csrs)),
        )  # fmt: skip
        payload = write_message(asked)
        said = MessageEvidence(payload, self._certificate, self._operator.sign(signed_octets(payload)))
        _, first = self._here.parts.verbs.provisioning.open_shift(ShiftRequest(said, "line-1", digest, PROFILE, len(csrs), 3600), PEER)
        header = line.read_header(first)
        head, text = header.head, [first]
        for number, csr in enumerate(csrs, 1):
            self._made += 1
            text.append(line.write_unit(Unit(number, DeviceId(f"unit-{self._made}"), csr, now)))
            head = line.chained(head, text[-1])
        text.append(line.seal(header.quota, len(csrs), head, self._key.sign))
        path.write_bytes(b"\n".join(text) + b"\n")
        return path


def batch(here: world.World, path: Path, *, callers: int) -> float:
    """Units a second, from the file to the certificates, with `callers` requests under way at once."""
    done, outcomes = threading.Event(), list[Any]()
    began = time.perf_counter()
    with path.open("rb") as file:
        shift = here.parts.verbs.provisioning.take(iter(lambda: file.read(station.PIECE), b""), PEER)
    waiting = list(station.unit_lines(path))

    def ask() -> None:
        here.desk.submit(here.issuing.prepare(request_for(shift.number, waiting.pop()), PEER), answered)

    def answered(outcome: Any) -> None:
        outcomes.append(outcome)
        if waiting:
            ask()
        elif len(outcomes) == shift.taken:
            done.set()

    for _ in range(min(callers, shift.taken)):
        ask()
    done.wait()
    seconds = time.perf_counter() - began
    here.check([outcome.certificate.der for outcome in outcomes], shift.taken)
    return shift.taken / seconds


def command(here: world.World, worker: measure.Worker, path: Path) -> float:
    """The same as `fleetca line batch` does it, in a process of its own."""
    told = worker.ask({"file": str(path)})
    assert told["certified"] == told["units"]
    here.check([base64.b64decode(one["certificate"]) for one in bringing.answers(path.with_suffix(".answers"))], told["units"])
    return float(told["units"] / told["seconds"])


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    del missing
    count, rounds = (48, 3) if quick else (1536, 7)
    pool = world.csrs(count * 4 * (rounds + 2))

    def take(number: int) -> list[bytes]:
        return [next(pool) for _ in range(number)]

    with scratch() as folder, world.opened(folder) as here:
        at, files = Station(here), iter(range(1000))

        def fresh(number: int) -> Path:
            return at.file(take(number), folder / f"{next(files)}.jsonl")

        batch(here, fresh(count // 4), callers=CALLERS)  # both warm up
        inside(here, take(count // 4), callers=CALLERS)
        made = [fresh(count) for _ in range(rounds)]
        ours, theirs = measure.interleave(
            rounds, lambda: batch(here, made.pop(), callers=CALLERS), lambda: inside(here, take(count), callers=CALLERS)
        )
        yield measure.row(
            contest=f"a station's file of {count} units, judged, taken and certified inside the signer", rival="issuing with tokens inside the signer",
            ours=ours, theirs=theirs, target=0.9, better="higher", unit="certificates/s",
        )  # fmt: skip
        yield from _by_the_command(here, folder, fresh, take, count=count, rounds=rounds)


def _by_the_command(
    here: world.World,
    folder: Path,
    fresh: Callable[[int], Path],
    take: Callable[[int], list[bytes]],
    *,
    count: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    users = {os.getuid(): frozenset({Role.operator})}
    server = SignerServer(folder / "s", verbs=here.parts.verbs, desk=here.desk, users=users, monotonic=SystemClock().monotonic)
    lines = server._lines  # noqa: SLF001 - without the desk, which runs already
    lines.start()
    worker = measure.Worker(sys.executable, Path(__file__).parent / "world_line.py", folder / "s")
    command(here, worker, fresh(count // 4))
    made = [fresh(count) for _ in range(rounds)]
    ours, theirs = measure.interleave(rounds, lambda: command(here, worker, made.pop()), lambda: inside(here, take(count), callers=CALLERS))
    worker.close()
    lines.stop()
    yield measure.row(
        contest=f"the same by `fleetca line batch`, through the socket, {count} units", rival="issuing with tokens inside the signer",
        ours=ours, theirs=theirs, target=0.9, better="higher", unit="certificates/s",
    )  # fmt: skip
