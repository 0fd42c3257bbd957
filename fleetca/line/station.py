"""A station's folder: its key, the files of its shifts, its provisioning records. Edge: files; the rules are `ca.rules.line` and `provisioning`.

    station.json  station.key  station.pub     its name, its key (sealed), the public half
    session                                    the number of the shift whose operator is logged in
    shift-000007.jsonl                         quota, units and seals (`ca.rules.line`)
    shift-000007.answers.jsonl                 what the CA said of each unit, one line a unit, in their order
    records.yaml  seals.jsonl                  the provisioning records, and the CA's countersignatures

A unit's line and its seal are one write, durable before anybody hears of it. What a crash leaves behind the last seal was never said, and is cut off by
whoever writes next. One process at a time works in the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ca.der import pem
from ca.errors import Conflict, Denied, Malformed, NotFound
from ca.keys.memory import MemoryKey, make_private_key
from ca.keys.sealed_file import seal, unseal
from ca.model import AlgorithmName, DeviceId, Digest, IssuerId, KeyName, OperatorName, ProfileName, Shift, TenantId, UnixTime
from ca.rules import line
from ca.rules.line import Unit
from fleetca.folder import make_folder, put_new, understood

PIECE: Final = 1 << 18
FEW: Final = 8
"""Units at once, up to which their names are looked for in a file before it is taken apart."""


@dataclass(frozen=True, slots=True)
class ShiftFile:
    """A shift's file as far as it is sealed."""

    path: Path
    shift: Shift
    quota: bytes
    count: int
    head: Digest
    last: UnixTime
    """The date of the last unit; before there is one, the beginning of the shift."""
    size: int
    """Octets up to the last seal."""
    devices: frozenset[str]

    @property
    def answers(self) -> Path:
        """What the CA said of its units."""
        return self.path.with_suffix(".answers.jsonl")

    def cut(self) -> None:
        """Drop what a crash left behind the last seal: nobody heard of it."""
        append(self.path, b"", at=self.size)


class Station:
    """The folder of one station."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads((path / "station.json").read_bytes())
            self.name = line.station_name(found["station"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotFound("no-station-folder", f"{path} is no folder of a station.", fix="Make one: fleetca line setup DIR") from None

    @classmethod
    def create(cls, path: Path, name: str, passphrase: bytes) -> Station:
        """A new folder with a new key.

        Raises:
            Conflict: there is one (`output-exists`).
        """
        line.station_name(name)
        private = make_private_key(AlgorithmName("p256"))
        key = MemoryKey(KeyName("station"), private)
        make_folder(path)
        put_new(path / "station.key", seal(private, passphrase).encode(), mode=0o600)
        put_new(path / "station.pub", pem.pem("PUBLIC KEY", key.spki).encode())
        put_new(path / "station.json", json.dumps({"station": name}).encode() + b"\n")
        return cls(path)

    @property
    def spki(self) -> bytes:
        """The public key on file."""
        return pem.ders_of((self.path / "station.pub").read_bytes(), "PUBLIC KEY")[0]

    @property
    def records(self) -> Path:
        """The provisioning records."""
        return self.path / "records.yaml"

    @property
    def seals(self) -> Path:
        """The countersignatures."""
        return self.path / "seals.jsonl"

    def open_key(self, passphrase: bytes) -> MemoryKey:
        """The station's key.

        Raises:
            KeyUnavailable: another passphrase (`wrong-passphrase`).
        """
        file = self.path / "station.key"
        return MemoryKey(KeyName("station"), unseal(file.read_bytes(), passphrase, what=str(file)))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes here meanwhile; waits for whoever does."""
        with understood(self.path), (self.path / "station.json").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- Shifts -----------------------------------------------------------------------------------------------------

    def begin(self, shift: Shift, header: bytes, issuer_spki: bytes) -> None:
        """A shift was opened for this station: keep its file, and log its operator in.

        Raises:
            Unauthenticated: the quota is not the issuer's (`quota-signature`).
            Conflict: somebody is logged in (`shift-in-progress`).
        """
        found = line.read_header(header)
        line.check_quota(found, issuer_spki)
        with self.alone():
            if (self.path / "session").exists():
                raise Conflict("shift-in-progress", "Somebody is logged in at this station.", fix="Log out first: fleetca line logout")
            file = self._file(shift.number)
            if not file.exists():
                put_new(file, header + b"\n")
            put_new(self.path / "session", f"{shift.number}\n".encode())

    def end(self) -> int:
        """Log out; the number of the shift that ended."""
        with self.alone():
            number = self._session()
            (self.path / "session").unlink()
        return number

    def _session(self) -> int:
        try:
            return int((self.path / "session").read_text())
        except (OSError, ValueError):
            raise Denied("nobody-logged-in", "Nobody is logged in at this station.", fix="Log in: fleetca line login") from None

    def _file(self, number: int) -> Path:
        return self.path / f"shift-{number:06d}.jsonl"

    def files(self) -> Sequence[Path]:
        """The files of all shifts, the oldest first."""
        return sorted(self.path.glob("shift-[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"))

    def current(self) -> ShiftFile:
        """The shift of who is logged in.

        Raises:
            Denied: nobody is (`nobody-logged-in`).
        """
        return read_shift(self._file(self._session()))

    def add(self, units: Sequence[Unit], key: MemoryKey, *, now: UnixTime) -> Sequence[Unit]:
        """Put units on record against the quota of who is logged in: their lines, and one seal over them.

        Args:
            units: their numbers and dates are given here.

        Raises:
            Denied: nobody is logged in, or a unit was provisioned here before (`unit-locked`).
            Unacceptable: see `ca.rules.line.within`; then none of the units is on record.
        """
        with self.alone():
            at = self.current()
            known = at.devices | self.made_before([one.device for one in units], but=at.path)
            text, count, head, before = list[bytes](), at.count, at.head, at.last
            made, fresh = list[Unit](), set[str]()
            for one in units:
                if one.device in known or one.device in fresh:
                    raise _locked(one.device)
                fresh.add(one.device)
                count += 1
                # A clock that was set back by a little must not stop the line.
                unit = replace(one, number=count, date=max(now, before) if now >= before - line.SKEW else now)
                line.within(unit, at.shift, before=before)
                before = unit.date
                octets = line.write_unit(unit)
                head = line.chained(head, octets)
                text.append(octets)
                made.append(unit)
            if made:
                text.append(line.seal(at.quota, count, head, key.sign))
                append(at.path, b"\n".join(text) + b"\n", at=at.size)
        return made

    def check(self, devices: Sequence[str], *, now: UnixTime) -> None:
        """Whether units of these names could be put on record now.

        Raises:
            Denied, Unacceptable: as `add`.
        """
        at = self.current()
        known = at.devices | self.made_before(devices, but=at.path)
        for place, device in enumerate(devices, 1):
            if device in known:
                raise _locked(device)
            line.within(Unit(at.count + place, DeviceId(device), b"", now), at.shift, before=at.last)

    def made_before(self, devices: Sequence[str], *, but: Path) -> set[str]:
        """Those of some units that stand in a shift, all but one.

        Years of shifts lie here, and a unit is asked for every few seconds: a file is taken apart only where the octets of a name are in it.
        """
        found: set[str] = set()
        for file in self.files():
            if file != but and (len(devices) > FEW or _names_one(file, devices)):
                found |= read_shift(file).devices.intersection(devices)
        return found


def _names_one(file: Path, devices: Sequence[str]) -> bool:
    octets = file.read_bytes()
    # As a unit's line has it: canonical JSON, in which an id needs no escapes.
    return any(f'"device":"{device}"'.encode() in octets for device in devices)


def _locked(device: str) -> Denied:
    return Denied("unit-locked", f"The unit {device} was provisioned already at this station.", why="A unit is provisioned once.")


def read_shift(path: Path) -> ShiftFile:
    """A shift's file as far as it is sealed; what stands behind the last seal is as if it were not there.

    Raises:
        Malformed: see `ca.rules.line.Reader`.
    """
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise Malformed("unreadable-file", f"{path} cannot be read.", why=f"{error.strerror}.") from None
    first, _, rest = octets.partition(b"\n")
    reader = line.Reader(first)
    shift = shift_of(reader.header)
    size = at = len(first) + 1
    count, head, last = 0, reader.head, shift.not_before
    sealed_last, devices, waiting = last, set[str](), set[str]()
    for each in rest.split(b"\n")[:-1]:
        at += len(each) + 1
        try:
            unit = reader.feed(each)
        except Malformed:
            if b'"sealed":' in rest[at - len(first) - 1 :]:
                raise
            break  # a torn write: nothing sealed follows
        if unit is not None:
            waiting.add(unit.device)
            last = max(last, unit.date)
            continue
        devices |= waiting
        waiting.clear()
        count, head, size, sealed_last = reader.count, reader.head, at, last
    return ShiftFile(path, shift, reader.header.quota, count, head, sealed_last, size, frozenset(devices))


def shift_of(header: line.Header) -> Shift:
    """What a quota says, as a word of ours."""
    said = header.words
    return Shift(
        number=said["shift"],
        tenant=TenantId(said["tenant"]),
        station=said["station"],
        station_key=Digest(bytes.fromhex(said["station_key"])),
        operator=OperatorName(said["operator"]),
        profile=ProfileName(said["profile"]),
        issuer=IssuerId(said["issuer"]),
        count=said["count"],
        not_before=said["not_before"],
        not_after=said["not_after"],
        accept_until=said["accept_until"],
        request=Digest(bytes(32)),
    )


def unit_lines(path: Path, *, size: int | None = None) -> Iterator[bytes]:
    """The lines of a file's units, in their order; the file was judged before."""
    with path.open("rb") as file:
        for each in line.lines(_pieces(file.fileno(), size)):
            if b'"unit":' in each:
                yield each


def _pieces(descriptor: int, size: int | None) -> Iterator[bytes]:
    left = 1 << 62 if size is None else size
    while left > 0 and (piece := os.read(descriptor, min(PIECE, left))):
        left -= len(piece)
        yield piece


def append(path: Path, octets: bytes, *, at: int) -> None:
    """Write at `at`, which is the end or where a torn write began; durable on return."""
    with understood(path), path.open("r+b", buffering=0) as file:
        file.truncate(at)
        file.seek(at)
        left = memoryview(octets)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
