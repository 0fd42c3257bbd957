"""The provisioning record of a unit (REQ-KEY-PROV-02): its fields, its YAML, and the chain that the records of a station form. Ring 1: pure.

    device_id: SN-1001
    keys:
      identity_cert: sha256:<64 hex>      SHA-256 of the DER certificate
      bootstrap_ca: sha256:<64 hex>
    date: 2026-11-22
    operator: line-op-7
    record:                               ours, all of it or nothing
      station: line-3
      number: 17                          1, 2, 3 ... for each station
      previous: sha256:<64 hex>           of the octets of the record before; zeros for the first
      ...
      signature: <base64>                 by the station's key, over CONTEXT and the octets above this line

A record is a YAML document that every YAML reader understands and that has one octet form: what was read and is in that form is written as it was. A
chain is its documents one after the other, each begun by `---`. The CA's countersignature is over station, count and the digest of the last record:
what stood in the chain then can be neither changed nor dropped afterwards, also by the station itself.

The reader takes what this needs (two levels of `key: value`, text plain or in quotes, comments) and refuses the rest by name. Every value is text: a
date is no number of seconds and `no` is no truth.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from ca.der.algorithms import load_public_key, verify
from ca.errors import FleetcaError, Malformed, Unacceptable
from ca.model import DeviceId
from ca.rules import ids

CONTEXT: Final = b"fleetca provisioning record v1\0"
SEAL: Final = b"fleetca provisioning seal v1\0"
LARGEST: Final = 16 * 1024
MOST_LINES: Final = 80
FIRST: Final = "sha256:" + "00" * 32
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
_LINE: Final = re.compile(r"( *)([A-Za-z_][A-Za-z0-9_]{0,39}):(?: +(.*?))?\s*")
# What YAML 1.1 readers take for something else than text: it is written in quotes.
_NOT_TEXT: Final = re.compile(
    r"(?i)(y|n|yes|no|on|off|true|false|null|~|[-+]?[0-9][0-9_.:,e+-]*|0[xob][0-9a-f_]+|[-+]?\.(inf|nan)|\d{4}-\d\d?-\d\d?.*)"
)
_SECRET: Final = re.compile(r"(?i)private|secret|passw|passphrase|seed|\bpin\b|_pin|-----BEGIN")


class Origin(Enum):
    """Where the unit's key was made."""

    on_device = "on-device"
    injected = "injected"


@dataclass(frozen=True, slots=True)
class Ours:
    """What we say beside the five fields of the source."""

    station: str
    number: int
    previous: str
    origin: Origin
    issuer: str
    serial: str
    """Of the identity certificate, lower-case hex."""
    spki: str
    """`sha256:` of its public key."""
    tenant: str = "default"
    batch: str = ""
    root_of_trust: str = ""
    attestation: str = ""
    """`sha256:` of the evidence."""
    requirements: str = ""
    """Ids that this record serves, with spaces between."""
    signature: str = ""
    unit: str = ""
    """`SHIFT/NUMBER` in its station's file, where it was made in a shift."""


@dataclass(frozen=True, slots=True)
class Record:
    """One unit."""

    device: DeviceId
    identity_certificate: str
    bootstrap_ca: str
    date: str
    operator: str
    ours: Ours | None = None
    octets: bytes = field(default=b"", compare=False, repr=False)
    """As it was read."""

    @property
    def digest(self) -> str:
        """What the next record of the station holds as `previous`."""
        return _sha256(self.octets or write(self))


def _sha256(octets: bytes) -> str:
    return "sha256:" + hashlib.sha256(octets).hexdigest()


def digest_of(der: bytes) -> str:
    """A certificate as a record names it."""
    return _sha256(der)


# ---- Writing --------------------------------------------------------------------------------------------------------

_OWN: Final = (
    "station", "number", "previous", "origin", "issuer", "serial", "spki", "tenant", "batch", "root_of_trust", "attestation", "unit", "requirements",
    "signature",
)  # fmt: skip
_MAY_MISS: Final = frozenset({"batch", "root_of_trust", "attestation", "unit", "requirements", "signature"})


def write(record: Record) -> bytes:
    """The one octet form.

    Raises:
        Malformed: a field cannot be written (`record-field`).
    """
    _judge(record)
    lines = [
        f"device_id: {_text(record.device)}",
        "keys:",
        f"  identity_cert: {record.identity_certificate}",
        f"  bootstrap_ca: {record.bootstrap_ca}",
        # As the source has it; a reader of YAML 1.1 makes a date of it, which is what it is.
        f"date: {record.date}",
        f"operator: {_text(record.operator)}",
    ]
    if record.ours is not None:
        lines.append("record:")
        for name, value in _own(record.ours).items():
            lines.append(f"  {name}: {value if name == 'number' else _text(value)}")
    return ("\n".join(lines) + "\n").encode()


def _own(ours: Ours) -> dict[str, str]:
    words = {name: getattr(ours, name) for name in _OWN}
    words["number"], words["origin"] = str(ours.number), ours.origin.value
    return {name: value for name, value in words.items() if value or name not in _MAY_MISS}


def _text(value: str) -> str:
    plain = _WORD.fullmatch(value) and not _NOT_TEXT.fullmatch(value) and not value.endswith(":")
    return value if plain else json.dumps(value, ensure_ascii=False)


# ---- Reading --------------------------------------------------------------------------------------------------------


def _bad(why: str, *, code: str = "record-form") -> Malformed:
    return Malformed(code, "It is no provisioning record.", why=why)


def read(octets: bytes) -> Record:
    """A record from YAML.

    Raises:
        Malformed: it is too long, no such YAML or has other fields (`record-form`), looks as if it held a secret (`record-secret`), or a value is not what its
            field needs (`record-field`).
    """
    if len(octets) > LARGEST:
        raise _bad(f"It has more than {LARGEST} octets.")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise _bad("It is not UTF-8.") from None
    found = _tree(text)
    source = _exactly(found, {"device_id", "keys", "date", "operator"}, {"record"}, "the record")
    keys = _exactly(_map(source["keys"], "keys"), {"identity_cert", "bootstrap_ca"}, set(), "keys")
    ours = None
    if "record" in source:
        given = _exactly(_map(source["record"], "record"), frozenset(_OWN) - _MAY_MISS, _MAY_MISS, "record")
        ours = _read_ours({name: _word(value, name) for name, value in given.items()})
    record = Record(
        DeviceId(_word(source["device_id"], "device_id")),
        _word(keys["identity_cert"], "identity_cert"),
        _word(keys["bootstrap_ca"], "bootstrap_ca"),
        _word(source["date"], "date"),
        _word(source["operator"], "operator"),
        ours,
        octets,
    )
    _judge(record)
    return record


def _read_ours(given: Mapping[str, str]) -> Ours:
    if not re.fullmatch(r"[1-9][0-9]{0,11}", given["number"]):
        raise _bad("number is not 1, 2, 3 ...", code="record-field")
    if given["origin"] not in {origin.value for origin in Origin}:
        raise _bad(f"origin is {' or '.join(origin.value for origin in Origin)}.", code="record-field")
    words = {name: value for name, value in given.items() if name not in {"number", "origin"}}
    return Ours(number=int(given["number"]), origin=Origin(given["origin"]), **words)


def _exactly(found: Mapping[str, object], needed: Collection[str], allowed: Collection[str], where: str) -> Mapping[str, object]:
    for name in found:
        if _SECRET.search(name):
            raise _bad(f"The field {name!r} looks like a secret; a record holds none.", code="record-secret")
        if name not in needed and name not in allowed:
            raise _bad(f"{where} has a field {name!r} that nobody knows.")
    missing = sorted(set(needed) - found.keys())
    if missing:
        raise _bad(f"{where} lacks {', '.join(missing)}.")
    return found


def _map(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _bad(f"{name} holds fields of its own.")
    return value


def _word(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _bad(f"{name} is one value.")
    return value


def _tree(text: str) -> dict[str, object]:
    """Two levels of `key: value`."""
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        raise _bad(f"It has more than {MOST_LINES} lines.")
    found: dict[str, object] = {}
    inner: dict[str, object] | None = None
    depth = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#") or (number == 1 and line.rstrip() == "---"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\t" in line:
            raise _bad(f"Line {number} is not `key: value`, two levels deep at most.")
        indent, name, value = len(match[1]), match[2], match[3]
        if indent == 0:
            inner = None
        elif inner is None or (depth and indent != depth):
            raise _bad(f"Line {number} is indented and stands below nothing.")
        else:
            depth = indent
        place = found if indent == 0 or inner is None else inner
        if name in place:
            raise _bad(f"Line {number} says {name} again.")
        if value is None or value.startswith("#"):
            if indent:
                raise _bad(f"Line {number} goes three levels deep.")
            inner, depth = {}, 0
            place[name] = inner
        else:
            place[name] = _value(value, number)
    return found


def _value(value: str, number: int) -> str:
    if value[0] == '"':
        try:
            found, end = json.JSONDecoder().raw_decode(value)
        except ValueError:
            raise _bad(f"The quotes in line {number} do not close, or hold an escape that JSON does not have.") from None
        rest = value[end:]
    elif value[0] == "'":
        match = re.match(r"'((?:[^']|'')*)'", value)
        if match is None:
            raise _bad(f"The quotes in line {number} do not close.")
        found, rest = match[1].replace("''", "'"), value[match.end() :]
    elif value[0] in "&*!|>%@`[]{},?-":
        raise _bad(f"Line {number} uses {value[0]!r}: anchors, tags, lists and blocks of text are not taken.")
    else:
        found, _, _ = value.partition(" #")
        found, rest = found.rstrip(), ""
        if ": " in found or found.endswith(":"):
            raise _bad(f"Line {number} holds two values.")
    if rest.strip() and not rest.lstrip().startswith("#"):
        raise _bad(f"Something stands behind the quotes in line {number}.")
    if not isinstance(found, str):
        raise _bad(f"Line {number} holds no text.")
    return found


def _judge(record: Record) -> None:
    def wrong(name: str, why: str) -> Malformed:
        return Malformed("record-field", f"The field {name} of the provisioning record is not what it must be.", why=why)

    words = {"device_id": record.device, "operator": record.operator, "date": record.date}
    if record.ours is not None:
        words |= {name: value for name, value in _own(record.ours).items() if name != "signature"}
    for name, value in words.items():
        if _SECRET.search(value):
            raise _bad(f"The value of {name} looks like a secret; a record holds none.", code="record-secret")
        if not value.isprintable() or len(value) > 500:
            raise wrong(name, "It is text of 500 characters at most, on one line.")
    try:
        ids.device_id(record.device)
    except FleetcaError as error:
        raise wrong("device_id", error.what) from None
    digests = [("identity_cert", record.identity_certificate), ("bootstrap_ca", record.bootstrap_ca)]
    if record.ours is not None:
        ours = record.ours
        digests += [("previous", ours.previous), ("spki", ours.spki)] + ([("attestation", ours.attestation)] if ours.attestation else [])
        if not _WORD.fullmatch(ours.station) or not _WORD.fullmatch(ours.issuer) or not _WORD.fullmatch(ours.tenant):
            raise wrong("station", "Station, issuer and tenant are single words.")
        if not re.fullmatch(r"[0-9a-f]{2,40}", ours.serial):
            raise wrong("serial", "It is 2 to 40 hexadecimal digits.")
        if ours.unit and not re.fullmatch(r"[1-9][0-9]{0,11}/[1-9][0-9]{0,11}", ours.unit):
            raise wrong("unit", "It is SHIFT/NUMBER.")
        if ours.number < 1:
            raise wrong("number", "It is 1, 2, 3 ...")
    for name, value in digests:
        if not _DIGEST.fullmatch(value):
            raise wrong(name, "It is sha256: and 64 hexadecimal digits.")
    if not _DATE.fullmatch(record.date):
        raise wrong("date", "It is YYYY-MM-DD.")
    if not record.operator:
        raise wrong("operator", "Somebody did it.")


# ---- The chain ------------------------------------------------------------------------------------------------------


def sign(record: Record, key: Callable[[bytes], bytes]) -> Record:
    """The record with its station's signature.

    Raises:
        Malformed: it has none of our fields (`record-form`).
    """
    if record.ours is None:
        raise _bad("Only a record of a station is signed.")
    bare = replace(record, ours=replace(record.ours, signature=""), octets=b"")
    signature = base64.b64encode(key(CONTEXT + write(bare))).decode()
    signed = replace(bare, ours=replace(bare.ours or record.ours, signature=signature))
    return replace(signed, octets=write(signed))


def next_of(last: Record | None) -> tuple[int, str]:
    """Number and `previous` of the record that follows."""
    if last is None:
        return 1, FIRST
    if last.ours is None:
        raise _bad("Only records of a station follow each other.")
    return last.ours.number + 1, last.digest


@dataclass(frozen=True, slots=True)
class Seal:
    """The CA's word for a chain as it was: so many records of a station, the last with this digest."""

    station: str
    count: int
    last: str
    signature: bytes


def seal_octets(station: str, count: int, last: str) -> bytes:
    """What the CA signs."""
    return SEAL + f"{station}\n{count}\n{last}\n".encode()


def split(octets: bytes) -> Iterator[bytes]:
    """The documents of a chain, without their `---` lines."""
    document: list[bytes] = []
    for line in octets.splitlines(keepends=True):
        if line.rstrip() == b"---":
            if document:
                yield b"".join(document)
            document = []
        else:
            document.append(line)
    if document:
        yield b"".join(document)


def join(records: Sequence[Record]) -> bytes:
    """A chain as a file."""
    return b"".join(b"---\n" + (record.octets or write(record)) for record in records)


def judge(
    records: Sequence[Record],
    *,
    station_spki: bytes,
    seals: Sequence[Seal] = (),
    ca_spki: bytes | None = None,
    after: tuple[int, str] = (0, FIRST),
) -> list[str]:
    """Everything that is wrong with a station's chain, each with the number where it is.

    Args:
        station_spki: the station's public key (SubjectPublicKeyInfo, DER).
        seals: countersignatures that were kept, by the CA whose key `ca_spki` is.
        after: number and digest of the record that the first of these follows.
    """
    wrong: list[str] = []
    before: Record | None = None
    count, last = after
    units: dict[str, int] = {}
    for place, record in enumerate(records, count + 1):
        ours = record.ours
        if ours is None:
            wrong.append(f"Record {place} is of no station.")
            continue
        number, previous = next_of(before) if before is not None else (count + 1, last)
        if before is not None and before.ours is not None and ours.station != before.ours.station:
            wrong.append(f"Record {place} is of another station, {ours.station}.")
        if ours.number != number:
            wrong.append(f"Record {ours.number} stands where {number} belongs: one was dropped, added or moved.")
        elif ours.previous != previous:
            wrong.append(f"Record {ours.number} does not follow the one before it, which was changed or is another.")
        if not _signed(record, station_spki):
            wrong.append(f"Record {ours.number} was not signed so by its station.")
        for what in (record.device, ours.spki):
            if what in units:
                wrong.append(f"Record {ours.number} is of a unit or key that record {units[what]} has already.")
            units.setdefault(what, ours.number)
        before = record
    for seal in seals:
        wrong += judge_seal(seal, records, ca_spki)
    return wrong


def _signed(record: Record, spki: bytes) -> bool:
    assert record.ours is not None
    bare = write(replace(record, ours=replace(record.ours, signature=""), octets=b""))
    line = f"  signature: {_text(record.ours.signature)}\n".encode()
    if record.octets and record.octets != bare + line:
        return False  # signed is the one octet form, and nothing beside it
    try:
        signature = base64.b64decode(record.ours.signature, validate=True)
        verify(load_public_key(spki), signature, CONTEXT + bare)
    except (FleetcaError, binascii.Error, ValueError):
        return False
    return True


def judge_seal(seal: Seal, records: Sequence[Record], ca_spki: bytes | None) -> Iterator[str]:
    """What is wrong with a countersignature over these records, all of a station's."""
    if ca_spki is None:
        yield "There are countersignatures, and no CA to judge them by."
        return
    try:
        verify(load_public_key(ca_spki), seal.signature, seal_octets(seal.station, seal.count, seal.last))
    except FleetcaError:
        yield f"The countersignature over {seal.count} records is not the CA's."
        return
    if seal.count > len(records):
        yield f"The CA saw {seal.count} records, and {len(records)} are left: the end was cut off."
    elif seal.count and (records[seal.count - 1].digest != seal.last or _station(records[seal.count - 1]) != seal.station):
        yield f"Record {seal.count} is not the one that the CA saw: the chain was made anew."


def _station(record: Record) -> str:
    return "" if record.ours is None else record.ours.station


def check(
    records: Sequence[Record],
    *,
    station_spki: bytes,
    seals: Sequence[Seal] = (),
    ca_spki: bytes | None = None,
    after: tuple[int, str] = (0, FIRST),
) -> None:
    """As `judge`.

    Raises:
        Unacceptable: `record-chain`; the text names each break.
    """
    wrong = judge(records, station_spki=station_spki, seals=seals, ca_spki=ca_spki, after=after)
    if wrong:
        raise Unacceptable("record-chain", f"The provisioning records do not hold: {len(wrong)} findings.", why=" ".join(wrong))
