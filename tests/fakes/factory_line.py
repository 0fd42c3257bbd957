"""A station of a factory line at a signer that is reached without a socket, and the people who work there."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ca.der import pem
from ca.errors import FleetcaError
from ca.keys.memory import MemoryKey, make_private_key
from ca.keys.sealed_file import seal
from ca.model import (
    AlgorithmName,
    DeviceId,
    Digest,
    IssueRequest,
    KeyName,
    ProfileName,
    RecordSeal,
    Role,
    Shift,
    ShiftRequest,
    UnitEvidence,
    UnitPart,
)
from ca.rules import line
from ca.rules.line import Unit
from ca.rules.message import Act
from fleetca.line import bringing
from fleetca.line.station import ShiftFile, Station
from tests.fakes.signer_world import Keypair, World, der_of

PASSPHRASE = b"of the station"


@cache
def sealed_key(name: str) -> tuple[str, Any]:
    """A station's key, sealed and not: sealing takes long, on purpose."""
    private = make_private_key(AlgorithmName("p256"))
    return seal(private, PASSPHRASE), private


class Inside:
    """What `ca.signer.client` does, without a socket."""

    def __init__(self, world: World, role: Role = Role.operator) -> None:
        self.world = world
        self.peer = world.peer(role)
        self._one = threading.Lock()
        """A station asks from several threads; issuing belongs to one at a time."""

    def take_units(self, file_fd: int) -> Shift:
        def pieces() -> Iterator[bytes]:
            while piece := os.read(file_fd, 4096):
                yield piece

        return self.world.provisioning.take(pieces(), self.peer)

    def issue_units(self, shift: int, lines: Sequence[bytes]) -> Sequence[bytes | FleetcaError]:
        asked = [(IssueRequest(line.read_unit(each).csr, UnitEvidence(shift, each)), self.peer) for each in lines]
        with self._one:
            found = self.world.issuing.issue(asked)
        return [one if isinstance(one, FleetcaError) else der_of(one) for one in found]

    def seal_records(self, station: str, documents: Sequence[bytes]) -> RecordSeal:
        return self.world.provisioning.seal(station, documents, self.peer)

    def take_part(self, part: UnitPart) -> Shift:
        return self.world.provisioning.take_part(part, self.peer)

    def open_shift(self, asked: ShiftRequest) -> tuple[Shift, bytes]:
        return self.world.provisioning.open_shift(asked, self.peer)


class Line:
    """A station, known to the signer, and an operator who may work there."""

    def __init__(self, world: World, folder: Path, name: str = "line-3", operator: str = "ada") -> None:
        self.world, self.signer = world, Inside(world)
        sealed, private = sealed_key(name)
        self.key = MemoryKey(KeyName("station"), private)
        (folder / name).mkdir(parents=True)
        (folder / name / "station.json").write_text(json.dumps({"station": name}))
        (folder / name / "station.key").write_text(sealed)
        (folder / name / "station.pub").write_text(pem.pem("PUBLIC KEY", self.key.spki))
        self.station = Station(folder / name)
        world.provisioning.add_station(name, self.key.spki, world.peer(Role.operator))
        self.operator = world.operator(operator, "line")

    def asked(
        self, *, count: int = 5, lifetime: int = 3600, profile: str = "device", by: Keypair | None = None, act: Act = Act.shift
    ) -> ShiftRequest:
        digest = Digest(sha256(self.key.spki).digest())
        said = self.world.message(
            by or self.operator, act, station=(self.station.name, digest.hex(), count), profile=ProfileName(profile), lifetime=lifetime
        )
        return ShiftRequest(said, self.station.name, digest, ProfileName(profile), count, lifetime)

    def login(self, *, count: int = 5, lifetime: int = 3600) -> Shift:
        shift, header = self.world.provisioning.open_shift(self.asked(count=count, lifetime=lifetime), self.world.peer(Role.operator))
        self.station.begin(shift, header, self.world.key.spki)
        return shift

    def make(self, *devices: str, pairs: Sequence[Keypair] = ()) -> Sequence[Unit]:
        """Units, with no network in sight."""
        keys = pairs or [Keypair() for _ in devices]
        units = [Unit(0, DeviceId(device), pair.csr(), 0) for device, pair in zip(devices, keys, strict=True)]
        return self.station.add(units, self.key, now=self.world.clock.at)

    @property
    def file(self) -> ShiftFile:
        return self.station.current()

    def take(self, octets: bytes | None = None) -> Shift:
        """The file as it is, or other octets in its place."""
        given = self.file.path.read_bytes() if octets is None else octets
        return self.world.provisioning.take([given], self.world.peer(Role.operator))

    def bring(self) -> bringing.Brought:
        at = self.file
        return bringing.bring(self.signer, at.path, answers=at.answers)

    def reconcile(self) -> bringing.Brought:
        """All that `fleetca line reconcile` does."""
        done = self.bring()
        bringing.write_records(self.station, self.file.path, self.key, issuers=tuple(self.world.issuers.by_id.values()))
        bringing.have_sealed(self.signer, self.station)
        return done
