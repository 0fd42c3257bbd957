"""What a station of a factory line sends: a quota that the CA signed, and below it units, in one chain that the station signs. Ring 1: pure.

One file a shift, JSON lines, each in its canonical form (sorted keys, no spaces, UTF-8), each ended by a newline:

    {"line":1,"quota":{...},"signature":"<base64>"}                the quota, signed by the issuer over QUOTA and its canonical form
    {"csr":"<base64>","date":1795000000,"device":"SN-1001","origin":"on-device","unit":1}
    {"head":"<64 hex>","sealed":1,"signature":"<base64>"}           by the station, over HEAD, the quota's digest, count and running hash

The running hash begins as SHA-256 of the first line (without its newline) and goes on as SHA-256(hash so far || SHA-256 of the unit's line). Seals are no
part of it: a station that seals every unit and one that seals a hundred thousand at once say the same. A file ends with a seal, so that nothing of it can be
cut off, dropped, moved, repeated or changed unseen, and nothing has to be believed before its last line was read.

Knows no database: what the CA took before, and who may open a shift, is for `ca.provision` and `ca.rules.grant`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ca.der.algorithms import load_public_key, verify
from ca.errors import FleetcaError, Malformed, Unacceptable, Unauthenticated
from ca.model import DeviceId, Digest, RootOfTrust, Shift, UnixTime
from ca.rules import ids
from ca.rules.leaf import canonical
from ca.rules.provisioning import Origin

QUOTA: Final = b"fleetca line quota v1\0"
HEAD: Final = b"fleetca line head v1\0"
VERSION: Final = 1
LONGEST_LINE: Final = 100 * 1024
"""Octets; a CSR has 64 KiB at most."""
MOST_UNITS: Final = 250_000
"""Of one shift."""
LONGEST_SHIFT: Final = 31 * 86400
"""Seconds in which units may be made."""
GRACE: Final = 31 * 86400
"""Seconds after its end in which a shift's units are still taken: a line may be cut off for weeks."""
SKEW: Final = 300
"""Seconds by which a station's clock may differ from ours."""
_STATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_WORDS: Final = 120
_MAY: Final = frozenset({"batch", "root_of_trust", "attestation", "transport"})
_MUST: Final = frozenset({"unit", "device", "csr", "date", "origin"})


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit as its station made it."""

    number: int
    device: DeviceId
    csr: bytes
    """PKCS#10, DER."""
    date: UnixTime
    origin: Origin = Origin.on_device
    batch: str = ""
    root_of_trust: str = ""
    attestation: str = ""
    """SHA-256 (hex) of the evidence."""
    transport: str = ""
    """Of an injected key: what names the key that it travelled under."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line."""

    quota: bytes
    """Canonical JSON."""
    signature: bytes
    head: Digest
    """Where the running hash begins."""

    @property
    def words(self) -> Mapping[str, Any]:
        """What the quota says."""
        found: Mapping[str, Any] = orjson.loads(self.quota)
        return found


@dataclass(frozen=True, slots=True)
class Sealed:
    """A station's signature over all that stands above it."""

    count: int
    head: Digest
    signature: bytes


def bad(code: str, why: str) -> Malformed:
    """What every file that cannot be believed ends with."""
    return Malformed(code, "The station's file is not as its station made it.", why=why, fix="Fetch it from the station again.")


def station_name(text: str) -> str:
    """A station's name.

    Raises:
        Malformed: `bad-station`.
    """
    if not _STATION.fullmatch(text):
        raise Malformed("bad-station", "This is no name of a station.", why=f"It must match {_STATION.pattern}.")
    return text


# ---- The quota ------------------------------------------------------------------------------------------------------


def quota_of(shift: Shift, *, deployment: str) -> bytes:
    """What a shift may do, as it travels: canonical JSON, the same octets whenever it is asked."""
    return canonical(
        {
            "deployment": deployment,
            "tenant": shift.tenant,
            "shift": shift.number,
            "station": shift.station,
            "station_key": shift.station_key.hex(),
            "operator": shift.operator,
            "profile": shift.profile,
            "issuer": shift.issuer,
            "count": shift.count,
            "not_before": shift.not_before,
            "not_after": shift.not_after,
            "accept_until": shift.accept_until,
        }
    )


def quota_octets(quota: bytes) -> bytes:
    """What the issuer signs."""
    return QUOTA + quota


def header(quota: bytes, signature: bytes) -> bytes:
    """The first line, without its newline."""
    return canonical({"line": VERSION, "quota": orjson.loads(quota), "signature": base64.b64encode(signature).decode()})


_QUOTA_FIELDS: Final[Mapping[str, type]] = {
    "deployment": str, "tenant": str, "shift": int, "station": str, "station_key": str, "operator": str, "profile": str, "issuer": str,
    "count": int, "not_before": int, "not_after": int, "accept_until": int,
}  # fmt: skip


def read_header(line: bytes) -> Header:
    """The first line of a file.

    Raises:
        Malformed: `line-form`.
    """
    found = _object(line, "the first line")
    quota = found.get("quota")
    if found.keys() != {"line", "quota", "signature"} or found["line"] != VERSION or type(quota) is not dict:
        raise bad("line-form", "The first line holds no quota of this version.")
    if {name: type(value) for name, value in quota.items()} != _QUOTA_FIELDS:
        raise bad("line-form", "The quota lacks a field, or has one that nobody knows.")
    return Header(canonical(quota), _octets(found["signature"], "signature"), Digest(hashlib.sha256(line).digest()))


def check_quota(found: Header, issuer_spki: bytes) -> None:
    """Whether the issuer signed it.

    Raises:
        Unauthenticated: `quota-signature`.
    """
    try:
        verify(load_public_key(issuer_spki), found.signature, quota_octets(found.quota))
    except FleetcaError:
        raise Unauthenticated("quota-signature", "The quota was not signed by that issuer.") from None


# ---- Units and seals ------------------------------------------------------------------------------------------------


def write_unit(unit: Unit) -> bytes:
    """The unit's line, without its newline."""
    words = {name: value for name in _MAY if (value := getattr(unit, name))}
    return canonical(
        {
            "unit": unit.number,
            "device": unit.device,
            "csr": base64.b64encode(unit.csr).decode(),
            "date": unit.date,
            "origin": unit.origin.value,
            **words,
        }
    )


def read_unit(line: bytes) -> Unit:
    """A unit's line; says nothing about whether it is believed.

    Raises:
        Malformed: `line-form`.
    """
    return _unit(_object(line, "a unit"))


def _unit(found: Mapping[str, Any]) -> Unit:
    if not found.keys() >= _MUST or not found.keys() <= _MUST | _MAY:
        raise bad("line-form", "A unit lacks a field, or has one that nobody knows.")
    number, date, device, origin = found["unit"], found["date"], found["device"], found["origin"]
    if type(number) is not int or number < 1 or type(date) is not int or date < 0 or type(device) is not str:
        raise bad("line-form", "Number, date or device of a unit are not what they must be.")
    if origin not in _ORIGINS:
        raise bad("line-form", f"Unit {number} says nothing known of where its key was made.")
    words = {name: found[name] for name in _MAY & found.keys()}
    for name, value in words.items():
        if type(value) is not str or not value or len(value) > _WORDS or not value.isprintable():
            raise bad("line-form", f"The {name} of unit {number} is not one line of text.")
    if "root_of_trust" in words and words["root_of_trust"] not in _ROOTS:
        raise bad("line-form", f"Unit {number} has a root of trust that nobody knows.")
    if "attestation" in words and not _HEX.fullmatch(words["attestation"]):
        raise bad("line-form", f"The attestation of unit {number} is named by no SHA-256.")
    return Unit(number, ids.device_id(device), _octets(found["csr"], "csr"), date, _ORIGINS[origin], **words)


_ORIGINS: Final = {origin.value: origin for origin in Origin}
_ROOTS: Final = frozenset(root.value for root in RootOfTrust)


def chained(before: Digest, line: bytes) -> Digest:
    """The running hash after a unit's line."""
    return Digest(hashlib.sha256(before + hashlib.sha256(line).digest()).digest())


def head_octets(quota: bytes, count: int, head: Digest) -> bytes:
    """What a station signs."""
    return HEAD + f"{hashlib.sha256(quota).hexdigest()}\n{count}\n{head.hex()}\n".encode()


def seal(quota: bytes, count: int, head: Digest, key: Callable[[bytes], bytes]) -> bytes:
    """The line that closes what stands above it, without its newline."""
    signature = key(head_octets(quota, count, head))
    return canonical({"sealed": count, "head": head.hex(), "signature": base64.b64encode(signature).decode()})


def _sealed(found: Mapping[str, Any]) -> Sealed:
    count, head = found.get("sealed"), found.get("head")
    if found.keys() != {"sealed", "head", "signature"} or type(count) is not int or type(head) is not str or not _HEX.fullmatch(head):
        raise bad("line-form", "A seal holds count, running hash and signature.")
    return Sealed(count, Digest(bytes.fromhex(head)), _octets(found["signature"], "signature"))


def check_seal(quota: bytes, found: Sealed, station_spki: bytes) -> None:
    """Whether the station signed it.

    Raises:
        Unauthenticated: `line-signature`.
    """
    try:
        verify(load_public_key(station_spki), found.signature, head_octets(quota, found.count, found.head))
    except FleetcaError:
        raise Unauthenticated(
            "line-signature", "The station's file was not signed by its station.", why="The key on record of that station did not sign it."
        ) from None


# ---- A whole file ---------------------------------------------------------------------------------------------------


class Reader:
    """Goes through the lines of a file in their order and believes nothing before `finish`.

    Raises, everywhere:
        Malformed: `line-form`; a unit out of its order (`line-order`), a device or CSR that stands in it twice (`line-repeats`), a seal over something else
            (`line-changed`), a file that does not end with a seal (`line-cut`).
    """

    def __init__(self, first: bytes, *, count: int = 0, head: Digest | None = None) -> None:
        """Args:
        first: the first line.
        count: units that stand between it and the next line, and were judged before.
        head: the running hash after these.
        """
        self.header = read_header(first)
        self.head = self.header.head if head is None else head
        self.count = count
        self.sealed: Sealed | None = None
        """The last seal."""
        self._said: set[bytes] = set()

    def feed(self, line: bytes) -> Unit | None:
        """The next line: its unit, or None where it is a seal that fits."""
        found = _object(line, f"what follows unit {self.count}")
        if "sealed" in found:
            given = _sealed(found)
            if (given.count, given.head) != (self.count, self.head):
                raise bad("line-changed", f"The seal after unit {self.count} is over something else.")
            self.sealed = given
            return None
        unit = _unit(found)
        if unit.number != self.count + 1:
            raise bad("line-order", f"Unit {unit.number} stands where {self.count + 1} belongs: one was dropped, moved or repeated.")
        for what in (unit.device.encode(), hashlib.sha256(unit.csr).digest()):
            if what in self._said:
                raise bad("line-repeats", f"The device or CSR of unit {unit.number} ({unit.device}) stands in the file twice.")
            self._said.add(what)
        self.count, self.head = unit.number, chained(self.head, line)
        return unit

    def walk(self, lines: Iterable[bytes], shift: Shift) -> Iterator[tuple[Unit, bytes]]:
        """The units among the lines that follow, each judged to lie inside of its shift, with their lines.

        Raises:
            Unacceptable: see `within`.
        """
        before = shift.not_before
        for each in lines:
            unit = self.feed(each)
            if unit is not None:
                within(unit, shift, before=before)
                before = max(before, unit.date)
                yield unit, each

    def finish(self) -> Sealed:
        """The seal over all of it; its signature is still to be checked."""
        if self.sealed is None or self.sealed.count != self.count:
            raise bad("line-cut", f"It does not end with a seal over its {self.count} units: its end is missing.")
        return self.sealed


def lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that is read in pieces of any size, without their newlines.

    Raises:
        Malformed: one is too long (`line-form`), or the last has no end (`line-cut`).
    """
    rest = b""
    for piece in stream:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if len(line) > LONGEST_LINE:
                raise bad("line-form", f"A line has more than {LONGEST_LINE} octets.")
            yield line
        if len(rest) > LONGEST_LINE:
            raise bad("line-form", f"A line has more than {LONGEST_LINE} octets.")
    if rest:
        raise bad("line-cut", "Its last line has no end.")


def within(unit: Unit, shift: Shift, *, before: UnixTime) -> None:
    """Whether a unit lies inside of its shift.

    Args:
        before: the date of the unit before; of the first, the beginning of the shift.

    Raises:
        Unacceptable: the shift has no unit left (`quota-exceeded`), was over (`shift-over`), or time went back (`line-time`).
    """
    if unit.number > shift.count:
        raise Unacceptable(
            "quota-exceeded",
            f"Shift {shift.number} of station {shift.station} is for {shift.count} units.",
            why=f"Its file goes on with unit {unit.number}.",
            fix="Log in for another shift: fleetca line login",
        )
    if unit.date > shift.not_after:
        raise Unacceptable(
            "shift-over",
            f"Shift {shift.number} of station {shift.station} was over when unit {unit.number} was made.",
            fix="Log in for another shift: fleetca line login",
        )
    if unit.date < before - SKEW:
        raise Unacceptable("line-time", f"Unit {unit.number} was made before the one before it, or before its shift began.")


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except ValueError:
        found = None
    # One octet form: what is signed is what everybody reads, and no field stands in it twice.
    if type(found) is not dict or len(line) > LONGEST_LINE or canonical(found) != line:
        raise bad("line-form", f"In place of {what} stands no JSON object in its canonical form.")
    return found


def _octets(value: object, name: str) -> bytes:
    try:
        if type(value) is not str:
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise bad("line-form", f"The field {name} is no base64.") from None
