#!/usr/bin/env python3
"""Verifies an evidence pack of fleetca, on a machine that never saw fleetca: with Python's standard library and openssl, no network.

    python3 verify.py PACK --signer SHA256 [--log-key LINE] [--root SHA256] [--since CHECKPOINT]...

Ends with 0 when everything holds, with 8 when something does not and says its name, with 2 when it was asked wrongly or openssl is not there. What it
is pinned to must come from elsewhere than the pack: who made a pack could have made all of it. It says what it proved (ok), what is only said or
absent (note), and what it refuses. Needs Python 3.9 or later, and OpenSSL 3.0 or later; 3.5 for ML-DSA.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = "fleetca evidence v1"
STATEMENT = "application/vnd.in-toto+json"
PREDICATE = "tag:fleetca,2026:evidence/v1"
SEAL = b"fleetca ceremony transcript v1\0"
MESSAGE = b"fleetca message v1\0"
DRILL = b"fleetca restore drill v1\0"
RECEIPT = b"fleetca wipe receipt v1\0"
RECORD = b"fleetca provisioning record v1\0"
RECORDS = b"fleetca provisioning seal v1\0"
MOST_ENTRIES = 10_000
LONGEST_NAME = 200
LONGEST_LINE = 1 << 18
LONGEST_DOCUMENT = 64 << 20
PIECE = 1 << 20
SAMPLE = 32
_SAID = (
    "01-policy/", "03-authorities/links/", "03-authorities/pins.json", "04-inventory/cbom.json", "04-inventory/keys.json", "04-inventory/sbom.json",
    "05-issuance/lint.json", "07-devices/devices.jsonl", "07-devices/stations.json", "08-access/operators.json", "08-access/roles.json", "10-", "12-", "13-",
)  # fmt: skip
"""What no check holds against anything."""
_STAMPED = re.compile(r"09-log/stamps/[0-9]+")
NAME = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,4}")
FULL = 0xFFFFFFFF


class RefusedError(Exception):
    """The pack, or a part of it, is not what it should be: `name` says in one word how."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


def canonical(document: Any) -> bytes:
    """The one octet form of a JSON document here: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def strict_json(octets: bytes, name: str) -> Any:
    """A document in its one form: a key that stands there twice, or another spelling, is refused."""
    try:
        found = json.loads(octets)
        same = canonical(found) == octets
    except (ValueError, RecursionError):
        raise RefusedError("unreadable", f"{name} is not JSON") from None
    if not same:
        raise RefusedError("unreadable", f"{name} is not written in the one form that it has")
    return found


def day(seconds: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: UP017 - Python 3.9


def b64(text: str) -> bytes:
    """Octets from base64 in its one form: unused bits may hold nothing, or a changed text could pass for the same."""
    octets = base64.b64decode(text, validate=True)
    if base64.b64encode(octets).decode() != text:
        raise RefusedError("unreadable", "a text is not base64 in its one form")
    return octets


# ---- The container ------------------------------------------------------------------------------------------------------


class Entry:
    """A file in the pack: where its octets lie."""

    def __init__(self, name: str, crc: int, size: int, offset: int) -> None:
        self.name, self.crc, self.size, self.offset = name, crc, size, offset

    @property
    def header(self) -> bytes:
        octets = self.name.encode()
        fixed = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 0x21, self.crc, FULL, FULL, len(octets), 20)
        return fixed + octets + struct.pack("<HHQQ", 1, 16, self.size, self.size)

    @property
    def record(self) -> bytes:
        octets = self.name.encode()
        fixed = (0x02014B50, 0x032D, 45, 0, 0, 0, 0x21, self.crc, FULL, FULL, len(octets), 28, 0, 0, 0, 0o100644 << 16, FULL)
        return struct.pack("<IHHHHHHIIIHHHHHII", *fixed) + octets + struct.pack("<HHQQQ", 1, 24, self.size, self.size, self.offset)

    @property
    def data(self) -> int:
        return self.offset + len(self.header)


class Pack:
    """The container, every octet of which is accounted for: there is nothing before, between and behind what it lists."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.entries: dict[str, Entry] = {}
        self._read_directory()

    def _at(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        octets = self._file.read(count)
        if len(octets) != count:
            raise RefusedError("cut", "the pack ends before its time")
        return octets

    def _read_directory(self) -> None:
        whole = self._file.seek(0, os.SEEK_END)
        if whole < 98:
            raise RefusedError("no-pack", "this is no evidence pack")
        end = self._at(whole - 98, 98)
        signature, length, made, needed, disk, first, here, count, size, at = struct.unpack("<IQHHIIQQQQ", end[:56])
        fixed = struct.pack("<IIQI", 0x07064B50, 0, whole - 98, 1) + struct.pack(
            "<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, FULL, FULL, 0
        )
        if (signature, length, made, needed, disk, first) != (0x06064B50, 44, 0x032D, 45, 0, 0) or end[56:] != fixed or here != count:
            raise RefusedError("no-pack", "its end is not that of an evidence pack: it was cut, added to, or packed by something else")
        if count > MOST_ENTRIES or size > count * (46 + LONGEST_NAME + 28):
            raise RefusedError("oversize", f"it lists {count} files in {size} octets")
        if at + size != whole - 98:
            raise RefusedError("gap", "its list of files does not stand where it says")
        self._read_entries(self._at(at, size), count, at)

    def _read_entries(self, directory: bytes, count: int, end: int) -> None:
        at = offset = 0
        before = ""
        for _ in range(count):
            if at + 46 > len(directory):
                raise RefusedError("cut", "its list of files ends before its time")
            head = struct.unpack("<IHHHHHHIIIHHHHHII", directory[at : at + 46])
            flags, method, crc, length, extra = head[3], head[4], head[7], head[10], head[11]
            raw = directory[at + 46 : at + 46 + length]
            name = raw.decode("ascii", "backslashreplace")
            if length > LONGEST_NAME or not NAME.fullmatch(name):
                raise RefusedError("bad-name", f"{name!r} is no name for a file of a pack: it could lead elsewhere")
            if name in self.entries:
                raise RefusedError("twice", f"{name} stands there twice")
            if method != 0 or flags != 0:
                raise RefusedError("compressed", f"{name} is compressed or encrypted; nothing in a pack is")
            if extra != 28 or at + 46 + length + 28 > len(directory):
                raise RefusedError("not-the-form", f"{name} is not listed in the form that a pack has")
            size = struct.unpack("<HHQQQ", directory[at + 46 + length : at + 74 + length])[2]
            entry = Entry(name, crc, size, offset)
            if directory[at : at + 74 + length] != entry.record:
                raise RefusedError("not-the-form", f"{name} is not listed in the form that a pack has, or does not follow the one before")
            if entry.data + size > end:
                raise RefusedError("oversize", f"{name} is said to be longer than the pack")
            if self._at(offset, len(entry.header)) != entry.header:
                raise RefusedError("not-the-form", f"what stands before {name} is not what the list says of it")
            tail = ("manifest.json", "signature.json")
            if (name in tail and tail.index(name) != len(tail) - (count - len(self.entries))) or (name not in tail and name <= before):
                raise RefusedError("reordered", f"{name} does not stand in its place")
            self.entries[name] = entry
            before, at, offset = name, at + 74 + length, entry.data + size
        if at != len(directory) or offset != end:
            raise RefusedError("gap", "there is something in it that it does not list")

    def pieces(self, name: str) -> Iterator[bytes]:
        entry = self.find(name)
        at, crc = entry.data, 0
        while at < entry.data + entry.size:
            octets = self._at(at, min(PIECE, entry.data + entry.size - at))
            crc = zlib.crc32(octets, crc)
            at += len(octets)
            yield octets
        if crc != entry.crc:
            raise RefusedError("changed", f"{name} does not have the check sum that stands before it")

    def find(self, name: str) -> Entry:
        if name not in self.entries:
            raise RefusedError("missing", f"{name} is not there")
        return self.entries[name]

    def read(self, name: str, limit: int = LONGEST_DOCUMENT) -> bytes:
        if self.find(name).size > limit:
            raise RefusedError("oversize", f"{name} has {self.find(name).size} octets")
        return b"".join(self.pieces(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """Its lines, in bounded memory."""
        rest = b""
        for piece in self.pieces(name):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) > LONGEST_LINE:
                raise RefusedError("oversize", f"{name} has a line of more than {LONGEST_LINE} octets")
        if rest:
            raise RefusedError("unreadable", f"{name} does not end with a line")


# ---- openssl, and as much DER as is needed ---------------------------------------------------------------------------------


def openssl(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False, input="")
    return done.returncode, done.stdout + done.stderr


def pem(kind: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return f"-----BEGIN {kind}-----\n" + "\n".join(text[at : at + 64] for at in range(0, len(text), 64)) + f"\n-----END {kind}-----\n"


def ders(text: str, kind: str = "CERTIFICATE") -> list[bytes]:
    found = re.findall(f"-----BEGIN {kind}-----([A-Za-z0-9+/=\\s]+)-----END {kind}-----", text)
    return [base64.b64decode("".join(one.split())) for one in found]


def element(octets: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the DER element at `at`."""
    if at + 2 > len(octets):
        raise RefusedError("unreadable", "DER ends too early")
    tag, length, start = octets[at], octets[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(octets[start : start + count], "big"), start + count
    if start + length > len(octets):
        raise RefusedError("unreadable", "DER ends too early")
    return tag, start, start + length


def elements(octets: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, where it begins, where its content begins, where it ends) of each element of a content."""
    while start < end:
        tag, inner, stop = element(octets, start)
        yield tag, start, inner, stop
        start = stop


def signed_part(der: bytes) -> bytes:
    """The to-be-signed octets of a certificate or CRL."""
    _, start, _ = element(der, 0)
    return der[start : element(der, start)[2]]


def public_key(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate (RFC 5280 4.1)."""
    tbs = signed_part(certificate)
    _, start, end = element(tbs, 0)
    fields = [one for one in elements(tbs, start, end) if one[0] != 0xA0]
    return tbs[fields[5][1] : fields[5][3]]


def revoked_serials(crl: bytes) -> list[str]:
    """The serial numbers that a CRL lists, as the record writes them (RFC 5280 5.1)."""
    tbs = signed_part(crl)
    _, start, end = element(tbs, 0)
    found: list[str] = []
    for tag, _, inner, stop in list(elements(tbs, start, end))[3:]:
        if tag != 0x30:
            continue
        for _, _, at, _ in elements(tbs, inner, stop):
            _, first, last = element(tbs, at)
            found.append(f"{int.from_bytes(tbs[first:last], 'big'):040x}")
    return found


_DIGESTS = ((bytes.fromhex("06052b81040022"), "sha384"),)  # secp384r1 signs SHA-384, all others SHA-256 or the message itself


def check_signature(spki: bytes, signature: bytes, message: bytes, what: str) -> None:
    """By openssl. ML-DSA needs one of 3.5 or later."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("key", "data", "signature")]
        for path, octets in zip(paths, (pem("PUBLIC KEY", spki).encode(), message, signature)):  # noqa: B905 - Python 3.9
            Path(path).write_bytes(octets)
        key, data, made = paths
        digest = next((("-digest", name) for oid, name in _DIGESTS if oid in spki[:32]), ())
        if openssl("pkey", "-pubin", "-in", key, "-noout")[0] != 0:
            raise RefusedError("unknown-key", f"this openssl cannot read the key for {what}: take a later one, 3.5 for ML-DSA")
        code, said = openssl("pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", *digest, "-in", data, "-sigfile", made)
    if code != 0:
        raise RefusedError("signature", f"{what} does not hold ({said.strip().splitlines()[0] if said.strip() else 'openssl says no'})")


# ---- The tree of the record (RFC 9162 2.1) -----------------------------------------------------------------------------------


def leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows by perfect subtrees at its right edge."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, level: int, digest: bytes) -> None:
        if self.size % (1 << level):
            raise RefusedError("log-proof", f"a subtree of {1 << level} leaves does not begin at {self.size}")
        self.size += 1 << level
        while self._peaks and self._peaks[-1][0] == level:
            digest = node_hash(self._peaks.pop()[1], digest)
            level += 1
        self._peaks.append((level, digest))

    def root(self) -> bytes:
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def consistent(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162 2.1.4.2."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    here, last = first - 1, second - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


class Checkpoint:
    """A signed head of the record (C2SP tlog-checkpoint), its signature verified."""

    def __init__(self, octets: bytes, key: str, what: str) -> None:
        name, _, encoded = key.strip().split("+", 2)
        public = base64.b64decode(encoded)[1:]
        head, gap, tail = octets.decode("utf-8", "replace").rpartition("\n\n")
        lines = head.split("\n")
        if not gap or len(lines) < 3 or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
            raise RefusedError("checkpoint", f"{what} is no checkpoint")
        key_id = hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]
        spki = bytes.fromhex("302a300506032b6570032100") + public
        self.others = 0
        signed = False
        for line in tail.rstrip("\n").split("\n"):
            signer, _, text = line[2:].partition(" ")
            signature = base64.b64decode(text)
            if signer == name and signature[:4] == key_id:
                check_signature(spki, signature[4:], (head + "\n").encode(), f"the signature of {name} on {what}")
                signed = True
            else:
                self.others += 1
        if not signed:
            raise RefusedError("checkpoint", f"{what} is not signed by {name}")
        self.origin, self.size, self.root = lines[0], int(lines[1]), base64.b64decode(lines[2])


# ---- What the leaves of a period say --------------------------------------------------------------------------------------------


class Tally:
    """Counts the leaves of a period, in bounded memory: whoever makes a pack and whoever verifies it must get the same."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self.kinds: Counter[str] = Counter()
        self.issued: Counter[str] = Counter()
        self.revoked: Counter[str] = Counter()
        self.attested: Counter[str] = Counter()
        """Certificates by what vouched for their key."""
        self.certificates = 0
        """Sum of a hash of each certificate: says whether two lists hold the same, in whatever order."""
        self._waiting: dict[str, list[tuple[int, int]]] = {}
        self._latency: Counter[int] = Counter()
        self._crls: dict[str, list[int]] = {}

    def take(self, leaf: dict[str, Any]) -> None:
        kind, at = leaf["kind"], leaf["at"]
        if not self.begin <= at < self.end:
            return
        self.kinds[kind] += 1
        if kind == "issuance":
            self.issued[f"{leaf['issuer']}/{leaf['profile']}"] += 1
            self.certificates = add(self.certificates, leaf)
            told = leaf.get("attestation")
            self.attested[f"{told['kind']}/{told['rule']}" if told else "no"] += 1
        elif kind == "revocation":
            self.revoked[leaf["reason"]] += 1
            self._waiting.setdefault(leaf["issuer"], []).append((leaf["change"], at))
        elif kind == "crl" and leaf["shard"] == 0:
            self._take_crl(leaf)

    def _take_crl(self, leaf: dict[str, Any]) -> None:
        waiting = self._waiting.get(leaf["issuer"], [])
        for _, at in (one for one in waiting if one[0] <= leaf["as_of"]):
            self._latency[max(0, leaf["at"] - at)] += 1
        self._waiting[leaf["issuer"]] = [one for one in waiting if one[0] > leaf["as_of"]]
        if "base" not in leaf:
            # count, last nextUpdate, longest time between two, times without one in force
            seen = self._crls.setdefault(leaf["issuer"], [0, leaf["next_update"], 0, 0, leaf["this_update"]])
            seen[0] += 1
            seen[2] = max(seen[2], leaf["this_update"] - seen[4])
            seen[3] += leaf["this_update"] > seen[1]
            seen[1], seen[4] = leaf["next_update"], leaf["this_update"]

    def statistics(self) -> dict[str, Any]:
        told = {"leaves": self.kinds, "issued": self.issued, "revoked": self.revoked, "attested": self.attested}
        return {**{name: dict(counted) for name, counted in told.items()}, "void": self.kinds["void"]}

    def status(self) -> dict[str, Any]:
        total, told, at = sum(self._latency.values()), {}, 0
        for seconds in sorted(self._latency):
            at += self._latency[seconds]
            for share in (50, 95, 99, 100):
                if at * 100 >= total * share and f"p{share}" not in told:
                    told[f"p{share}"] = seconds
        return {
            "revocation_to_crl_seconds": {**told, "count": total, "waiting": sum(map(len, self._waiting.values()))},
            "crls": {
                issuer: {"count": seen[0], "longest_interval_seconds": seen[2], "lapses": seen[3], "last_next_update": seen[1]}
                for issuer, seen in self._crls.items()
            },
        }


_ELSEWHERE = ("crl", "delivery", "issuance", "revocation", "supersede")
_PLACES = {
    "04-inventory/events.jsonl": ("issuer", "key", "key-state"),
    "07-devices/events.jsonl": (
        "device",
        "device-facts",
        "manifest-refused",
        "record-seal",
        "shift",
        "station",
        "units",
        "wipe",
        "wipe-order",
        "wipe-waived",
    ),
    "08-access/events.jsonl": ("approval", "crl-override", "demand", "operator", "profile", "proposal", "token", "token-revoked"),
    "11-drills/events.jsonl": (),
}


def place(kind: str) -> str:
    """The file that repeats leaves of this kind, so that nobody has to look for them; none for what stands in lists of its own."""
    if kind in _ELSEWHERE:
        return ""
    return next((name for name, kinds in _PLACES.items() if kind in kinds), "11-drills/events.jsonl")


def add(total: int, said: dict[str, Any]) -> int:
    """The sum with a certificate more, as its leaf or the list says it."""
    digest = hashlib.sha256(canonical([said[name] for name in ("issuer", "serial", "tbs_sha256", "device", "profile")])).digest()
    return (total + int.from_bytes(digest, "big")) % (1 << 256)


def rank(root: bytes, issuer: str, serial: str) -> bytes:
    """Which certificates are looked at closely: the lowest, and nobody could choose them before the root was known."""
    return hashlib.sha256(root + f"{issuer}/{serial}".encode()).digest()


def salted(salt: bytes, value: Any) -> str:
    """What stands in place of a withheld value."""
    return hashlib.sha256(salt + canonical(value)).hexdigest()


class Beside:
    """Files that repeat leaves, or hold what leaves have the hash of: read beside the record, in its order."""

    def __init__(self, pack: Pack, *, withheld: bool) -> None:
        names = [*_PLACES, *(() if withheld else ("07-devices/receipts.jsonl", "08-access/messages.jsonl"))]
        self._lines = {name: pack.lines(name) for name in names}
        self._wrong = ""
        self._told = 0

    def take(self, leaf: dict[str, Any], line: bytes) -> None:
        kind, about = leaf["kind"], f"the leaf {leaf['kind']} at {leaf['at']}"
        if name := place(kind):
            self._told += 1
            self._hold(name, next(self._lines[name], b"") == line, about)
        if kind == "wipe" and (lines := self._lines.get("07-devices/receipts.jsonl")):
            found = hashlib.sha256(next(lines, b"") + b"\n").hexdigest()
            self._hold("07-devices/receipts.jsonl", found == leaf["receipt_sha256"], about)
        if kind == "proposal" and leaf["message_sha256"] and (lines := self._lines.get("08-access/messages.jsonl")):
            found = hashlib.sha256(b64(json.loads(next(lines, b'{"payload":""}'))["payload"])).hexdigest()
            self._hold("08-access/messages.jsonl", found == leaf["message_sha256"], about)

    def _hold(self, name: str, same: bool, about: str) -> None:  # noqa: FBT001
        if not same and not self._wrong:
            self._wrong = f"{name} does not tell what the record does: look at {about}"

    def finish(self) -> int:
        """How many leaves are repeated, when all were and no more."""
        more = [f"{name} tells more than the record does" for name, rest in self._lines.items() if next(rest, None) is not None]
        if self._wrong or more:
            raise RefusedError("events", self._wrong or more[0])
        return self._told


# ---- The checks -----------------------------------------------------------------------------------------------------------------


class Verification:
    """One pack under examination. `told` collects (ok | note | REFUSED, check, what); `hear` is told each at once."""

    def __init__(self, pack: Pack, asked: argparse.Namespace, hear: Callable[[str, str, str], None] = lambda *_: None) -> None:
        self.pack, self.asked, self._hear = pack, asked, hear
        self.told: list[tuple[str, str, str]] = []
        self.manifest: dict[str, Any] = {}
        self.ceremonies: dict[str, dict[str, Any]] = {}
        self.crl_leaves: dict[str, dict[str, Any]] = {}
        self.revocations: dict[str, dict[str, tuple[int, str]]] = {}
        self.seals: dict[str, dict[int, str]] = {}
        self.stations: dict[str, str] = {}
        self.proposals: dict[str, tuple[str, set[str]]] = {}
        self.tally = Tally(0, 0)
        self.root = b""
        self.start = 0

    def say(self, level: str, check: str, what: str) -> None:
        # What stands in a pack came from outside: it must not steer the terminal.
        what = "".join(one if one.isprintable() else "?" for one in what)
        self.told.append((level, check, what))
        self._hear(level, check, what)

    def run(self) -> bool:
        """Whether all holds. What comes first is what the rest is believed by: where it fails, the rest is not looked at."""
        first: list[tuple[str, Callable[[], None]]] = [
            ("manifest", self.check_manifest),
            ("signature", self.check_seal),
            ("files", self.check_files),
            ("log", self.check_log),
        ]
        rest: list[tuple[str, Callable[[], None]]] = [
            ("stamps", self.check_stamps),
            ("events", self.check_events),
            ("statistics", self.check_statistics),
            ("certificates", self.check_certificates),
            ("authorities", self.check_authorities),
            ("crls", self.check_crls),
            ("ceremonies", self.check_ceremonies),
            ("approvals", self.check_approvals),
            ("receipts", self.check_receipts),
            ("records", self.check_records),
            ("drills", self.check_drills),
            ("disclosed", self.check_disclosed),
        ]
        for steps, go_on in ((first, False), (rest, True)):
            for name, check in steps:
                try:
                    check()
                except RefusedError as error:
                    self.say("REFUSED", name, str(error))
                except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, struct.error) as error:
                    self.say("REFUSED", name, f"unreadable: {type(error).__name__}: {error}")
                if not go_on and self.refused:
                    return False
        self._tell_rest()
        return not self.refused

    def _tell_rest(self) -> None:
        """What nothing was held against, and what is not there."""
        for part in self.manifest["parts"]:
            said = [name.partition("/")[2] for name in part["files"] if name.startswith(_SAID)]
            if said:
                self.say("note", part["id"], f"not proved, the signer of the pack answers for it: {', '.join(said)}")
            for what in part["absent"]:
                self.say("note", part["id"], f"absent: {what}")

    @property
    def refused(self) -> bool:
        return any(level == "REFUSED" for level, _, _ in self.told)

    # -- what the rest is believed by

    def check_manifest(self) -> None:
        self.manifest = strict_json(self.pack.read("manifest.json"), "manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise RefusedError("format", f"this is {self.manifest.get('format')!r}, and I read {FORMAT!r}")
        period = self.manifest["period"]
        self.tally = Tally(period["from"], period["to"])
        if self.asked.period and self.asked.period != period["text"]:
            raise RefusedError("another-period", f"it is about {period['text']}, and {self.asked.period} was asked for")
        listed = [one["name"] for one in self.manifest["files"]]
        if listed != sorted(set(listed)):
            raise RefusedError("reordered", "the files of the manifest do not stand in their order")
        there = [name for name in self.pack.entries if name not in ("manifest.json", "signature.json")]
        for name in there:
            if name not in listed:
                raise RefusedError("added", f"{name} is in the pack and not in its manifest")
        for name in listed:
            if name not in there:
                raise RefusedError("missing", f"{name} is in the manifest and not in the pack")
        self.say("ok", "manifest", f"{self.manifest['deployment']}, {period['text']}, {len(listed)} files")

    def check_seal(self) -> None:
        envelope = strict_json(self.pack.read("signature.json", PIECE), "signature.json")
        payload = b64(envelope["payload"])
        (made,) = envelope["signatures"]
        if set(envelope) != {"payload", "payloadType", "signatures"} or set(made) != {"keyid", "sig", "spki"}:
            raise RefusedError("signature", "signature.json holds something that nobody signed")
        spki, kind = b64(made["spki"]), envelope["payloadType"]
        found = hashlib.sha256(spki).hexdigest()
        if made["keyid"] != found:
            raise RefusedError("signature", "the key of the signature is not the one that it names")
        if self.asked.signer and self.asked.signer.lower().replace(":", "") != found:
            raise RefusedError("another-signer", f"it is signed by the key {found}, and {self.asked.signer} is trusted")
        dsse = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        check_signature(spki, b64(made["sig"]), dsse, "the signature of the pack")
        statement = strict_json(payload, "the signed statement")
        said = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
        manifest = hashlib.sha256(self.pack.read("manifest.json")).hexdigest()
        if kind != STATEMENT or statement["predicateType"] != PREDICATE or said != {"manifest.json": manifest}:
            raise RefusedError("signature", "what was signed is another manifest")
        if self.asked.not_before and statement["predicate"]["signed_at"] < self.asked.not_before:
            raise RefusedError("older", f"it was signed on {day(statement['predicate']['signed_at'])}, before what was asked for")
        self.say("ok", "signature", f"signed on {day(statement['predicate']['signed_at'])} by the key {found}")
        if not self.asked.signer:
            self.say(
                "note", "signature", "PINNED TO NOTHING: whoever made this pack could have made all of it; give --signer from elsewhere"
            )

    def check_files(self) -> None:
        for one in self.manifest["files"]:
            digest, size = hashlib.sha256(), 0
            for piece in self.pack.pieces(one["name"]):
                digest.update(piece)
                size += len(piece)
            if (digest.hexdigest(), size) != (one["sha256"], one["size"]):
                raise RefusedError("changed", f"{one['name']} is not the file that the manifest speaks of")
        for part in self.manifest["parts"]:
            for name in part["files"]:
                self.pack.find(name)
        self.say("ok", "files", "each is the one that was signed for, and there is no other")
        own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        if hashlib.sha256(self.pack.read("verify.py")).hexdigest() != own:
            self.say("note", "files", "its verify.py is another one than this")

    # -- the record

    def check_log(self) -> None:
        key = self.pack.read("09-log/key", PIECE).decode()
        if self.asked.log_key and self.asked.log_key.strip() != key.strip():
            raise RefusedError("another-log", "its log has another key than the one that is trusted")
        checkpoint = Checkpoint(self.pack.read("09-log/checkpoint", PIECE), key, "its checkpoint")
        proof = strict_json(self.pack.read("09-log/proof.json"), "09-log/proof.json")
        kept = [Checkpoint(Path(path).read_bytes(), self.asked.log_key or key, path) for path in self.asked.since]
        tree = Tree()
        for level, digest in proof["before"]:
            tree.add(level, bytes.fromhex(digest))
        self.start = tree.size
        if self.start != proof["start"] or set(proof) != {"start", "before", "after", "consistency"}:
            raise RefusedError("log-proof", "its proof does not begin where it says, or says something else")
        stamped = [(name, Checkpoint(self.pack.read(name, PIECE), key, name)) for name in self.pack.entries if _STAMPED.fullmatch(name)]
        wanted = {one.size for one in kept} | {one.size for _, one in stamped}
        roots = {tree.size: tree.root()} if tree.size in wanted else {}
        withheld, edge = 0, [0, 0]
        self.beside = Beside(self.pack, withheld=self.withheld)
        for line in self.pack.lines("09-log/leaves.jsonl"):
            leaf = self._leaf(line)
            withheld += line.startswith(b'{"view":')
            tree.add(0, self._hash(line))
            if tree.size in wanted:
                roots[tree.size] = tree.root()
            edge = [leaf["at"] if tree.size == self.start + 1 else edge[0], leaf["at"]]
            self.tally.take(leaf)
            self._remember(leaf)
            if self.tally.begin <= leaf["at"] < self.tally.end:
                self.beside.take(leaf, line)
        end = tree.size
        for level, digest in proof["after"]:
            tree.add(level, bytes.fromhex(digest))
            if tree.size in wanted:
                roots[tree.size] = tree.root()
        if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
            raise RefusedError(
                "log-proof", "its leaves do not lead to the root that the log's key has signed: one was edited, dropped or moved"
            )
        self.root = checkpoint.root
        if self.start > 0 and not edge[0] < self.tally.begin:
            raise RefusedError("begins-late", "leaves of the period may stand before those that it holds")
        if end < checkpoint.size and not edge[1] >= self.tally.end:
            raise RefusedError("ends-early", "leaves of the period may stand behind those that it holds")
        told = f"leaves {self.start} to {end - 1} of {checkpoint.size} of {checkpoint.origin} lead to its signed root"
        self.say("ok", "log", told + (f"; {withheld} of them are withheld, each proved by its hash" if withheld else ""))
        self.say("note", "log", f"signatures of witnesses on its checkpoint, not judged here: {checkpoint.others}")
        self._held_against(list(zip(self.asked.since, kept)), roots, checkpoint, proof)  # noqa: B905 - Python 3.9
        if not kept:
            self.say("note", "log", "held against no checkpoint that was kept elsewhere: who holds the log's key could have rewritten it")
        self._held_against(stamped, roots, checkpoint, proof)

    def _held_against(
        self, kept: Sequence[tuple[str, Checkpoint]], roots: dict[int, bytes], mine: Checkpoint, proof: dict[str, Any]
    ) -> None:
        for path, one in kept:
            if one.origin != mine.origin:
                raise RefusedError("another-log", f"{path} is a checkpoint of {one.origin}")
            if one.size > mine.size:
                raise RefusedError(
                    "older", f"the pack's log has {mine.size} leaves, and {path} was signed for {one.size}: it is an older pack, or cut"
                )
            given = [[bytes.fromhex(digest) for digest in each["proof"]] for each in proof["consistency"] if each["size"] == one.size]
            holds = (
                roots[one.size] == one.root
                if one.size in roots
                else any(consistent(one.size, mine.size, one.root, mine.root, way) for way in given)
            )
            if one.size not in roots and not given and one.size != 0:
                raise RefusedError(
                    "no-consistency", f"it holds no proof for {one.size} leaves: ask for a pack that was made with --since {path}"
                )
            if not holds and one.size != 0:
                raise RefusedError("forked", f"its log does not begin with the {one.size} leaves that {path} was signed for")
            self.say("ok", "log", f"it begins with the {one.size} leaves of {path}")

    def _leaf(self, line: bytes) -> dict[str, Any]:
        leaf = json.loads(line)
        if line.startswith(b'{"view":'):
            if canonical(leaf) != line or set(leaf) != {"view", "withheld"}:
                raise RefusedError("unreadable", "a withheld leaf is not written in the form that it has")
            leaf = leaf["view"]
        if not isinstance(leaf, dict) or not isinstance(leaf.get("kind"), str) or type(leaf.get("at")) is not int:
            raise RefusedError("unreadable", "a leaf has no kind or no time")
        return leaf

    @property
    def withheld(self) -> bool:
        """Whether documents that hold names are left out."""
        return bool(self.manifest["sample"] == "withheld")

    def _hash(self, line: bytes) -> bytes:
        return bytes.fromhex(json.loads(line)["withheld"]) if line.startswith(b'{"view":') else leaf_hash(line)

    def _remember(self, leaf: dict[str, Any]) -> None:
        if leaf["kind"] == "crl":
            self.crl_leaves[leaf["tbs_sha256"]] = leaf
        elif leaf["kind"] == "ceremony":
            self.ceremonies[leaf["transcript_sha256"]] = leaf
        elif leaf["kind"] == "revocation":
            self.revocations.setdefault(leaf["issuer"], {})[leaf["serial"]] = (leaf["change"], leaf["reason"])
        elif self.withheld:
            return
        elif leaf["kind"] == "record-seal":
            self.seals.setdefault(leaf["station"], {})[leaf["count"]] = leaf["last"]
        elif leaf["kind"] == "station":
            self.stations[leaf["name"]] = leaf["spki_sha256"]
        elif leaf["kind"] == "proposal":
            _, persons = self.proposals.get(leaf["request"], ("", set()))
            said = {leaf["person"]} if leaf["message_sha256"] and leaf["state"] in ("open", "approved") else set()
            self.proposals[leaf["request"]] = (leaf["state"], persons | said)

    def check_stamps(self) -> None:
        """Time stamps of others on checkpoints (RFC 3161), by openssl and the certificate of who stamped."""
        for name in [name for name in self.pack.entries if _STAMPED.fullmatch(name)]:
            with tempfile.TemporaryDirectory() as folder:
                data, reply = Path(folder, "data"), Path(folder, "reply")
                data.write_bytes(self.pack.read(name, PIECE))
                reply.write_bytes(self.pack.read(f"{name}.tsr", PIECE))
                code, said = openssl("ts", "-reply", "-in", str(reply), "-text")
                at = re.search(r"Time stamp: (.+)", said)
                if code != 0 or at is None:
                    raise RefusedError("stamp", f"{name}.tsr is no time stamp")
                if not self.asked.tsa:
                    self.say("note", "stamps", f"{name} says it was stamped on {at[1]}; give --tsa to have that judged")
                    continue
                arguments = ["-verify", "-data", str(data), "-in", str(reply), "-CAfile", self.asked.tsa, "-untrusted", self.asked.tsa]
                # It held when it was made: who stamped may have ended since.
                code, said = openssl("ts", *arguments, "-no_check_time")
            if code != 0 or "Verification: OK" not in said:
                raise RefusedError("stamp", f"the time stamp on {name} does not hold: {said.strip()[-200:]}")
            self.say("ok", "stamps", f"{name} was there on {at[1]}, says who is trusted for that")

    def check_events(self) -> None:
        told = self.beside.finish()
        self.say("ok", "events", f"{told} leaves stand beside their parts as they stand in the record")

    def check_statistics(self) -> None:
        for name, counted in (("05-issuance/statistics.json", self.tally.statistics()), ("06-status/status.json", self.tally.status())):
            if strict_json(self.pack.read(name), name) != counted:
                raise RefusedError("miscounted", f"{name} does not say what the leaves of the record do")
        self.say(
            "ok",
            "statistics",
            f"{sum(self.tally.issued.values())} certificates, {sum(self.tally.revoked.values())} changes of status, counted anew",
        )

    # -- certificates

    def check_certificates(self) -> None:
        total = count = 0
        lowest: list[tuple[bytes, str]] = []
        for line in self.pack.lines("05-issuance/certificates.jsonl"):
            row = strict_json(line, "a line of 05-issuance/certificates.jsonl")
            count += 1
            total = add(total, row)
            if row["state"] == "issued":
                lowest = sorted([*lowest, (rank(self.root, row["issuer"], row["serial"]), f"{row['issuer']}-{row['serial']}")])[:SAMPLE]
        if (count, total) != (self.tally.kinds["issuance"], self.tally.certificates):
            raise RefusedError("coverage", self._uncovered())
        self.say("ok", "certificates", f"{count} in the list, {count} leaves of issuance in the record: each has the other")
        sampled = [name for _, name in lowest]
        self._check_unique(count)
        if self.withheld:
            self.say("note", "certificates", "the certificates themselves are withheld")
            return
        if sorted(f"05-issuance/sample/{name}.pem" for name in sampled) != [
            name for name in self.pack.entries if name.startswith("05-issuance/sample/")
        ]:
            raise RefusedError("sample", "its sample is not the one that the root of the record chooses")
        self._check_sample(sampled)

    def _check_unique(self, count: int) -> None:
        """That no key is of two devices; in as many passes as memory wants."""
        passes, keys = 1 + count // 500_000, 0
        for turn in range(passes):
            owners: dict[str, Any] = {}
            for row in map(json.loads, self.pack.lines("05-issuance/certificates.jsonl")):
                key = row["spki_sha256"]
                if int(key[:8], 16) % passes == turn and owners.setdefault(key, row["device"]) != row["device"]:
                    raise RefusedError("shared-key", f"the key {key} is of {owners[key]} and of {row['device']}")
            keys += len(owners)
        self.say("ok", "certificates", f"{keys} keys in them, none of two devices")

    def _uncovered(self) -> str:
        def named(said: dict[str, Any]) -> tuple[str, bytes]:
            return f"{said['issuer']}/{said['serial']}", canonical([said[name] for name in ("tbs_sha256", "device", "profile")])

        listed = {named(row) for row in map(json.loads, self.pack.lines("05-issuance/certificates.jsonl"))}
        told = set()
        for line in self.pack.lines("09-log/leaves.jsonl"):
            leaf = self._leaf(line)
            if leaf["kind"] == "issuance" and self.tally.begin <= leaf["at"] < self.tally.end:
                told.add(named(leaf))
        without = [f"{name} has no leaf that says the same" for name, _ in sorted(listed - told)]
        without += [f"{name} is on record and not so in the list" for name, _ in sorted(told - listed)]
        return "; ".join(without[:5]) or "a certificate stands in the list twice"

    def _check_sample(self, sampled: Sequence[str]) -> None:
        wanted = set(sampled)
        rows = {}
        for line in self.pack.lines("05-issuance/certificates.jsonl"):
            row = json.loads(line)
            if f"{row['issuer']}-{row['serial']}" in wanted:
                rows[f"{row['issuer']}-{row['serial']}"] = row
        with tempfile.TemporaryDirectory() as folder:
            for name in sampled:
                (der,) = ders(self.pack.read(f"05-issuance/sample/{name}.pem", PIECE).decode())
                row = rows[name]
                found = [hashlib.sha256(part).hexdigest() for part in (der, signed_part(der), public_key(der))]
                if found != [row["der_sha256"], row["tbs_sha256"], row["spki_sha256"]]:
                    raise RefusedError("sample", f"the certificate {name} is not the one of the record")
                Path(folder, f"{name}.pem").write_text(pem("CERTIFICATE", der))
            self._chains(folder, [f"{name}.pem" for name in sampled])
        if sampled:
            self.say("ok", "certificates", f"{len(sampled)} that nobody chose: each is that of its leaf, and its chain holds")

    def _chains(self, folder: str, files: Sequence[str]) -> None:
        roots, others = self._authorities()
        Path(folder, "roots").write_text("".join(pem("CERTIFICATE", der) for der in roots))
        Path(folder, "others").write_text("".join(pem("CERTIFICATE", der) for der in others))
        fixed = ["verify", "-no_check_time", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile", str(Path(folder, "roots"))]
        fixed += ["-untrusted", str(Path(folder, "others"))] if others else []
        for at in range(0, len(files), 16):
            batch = [str(Path(folder, name)) for name in files[at : at + 16]]
            code, said = openssl(*fixed, *batch)
            if code != 0 or any(f"{path}: OK" not in said for path in batch):
                wrong = [Path(path).name for path in batch if f"{path}: OK" not in said]
                raise RefusedError("chain", f"the chain of {', '.join(wrong)} does not hold: {said.strip()[-300:]}")

    def _authorities(self) -> tuple[list[bytes], list[bytes]]:
        """Roots and others; a root is a certificate that its own subject issued."""
        roots: list[bytes] = []
        others: list[bytes] = []
        for name in self.pack.entries:
            if name.startswith("03-authorities/issuers/"):
                (der,) = ders(self.pack.read(name, PIECE).decode())
                tbs = signed_part(der)
                _, start, end = element(tbs, 0)
                fields = [tbs[one[1] : one[3]] for one in elements(tbs, start, end) if one[0] != 0xA0]
                (roots if fields[2] == fields[4] else others).append(der)
        return roots, others

    def check_authorities(self) -> None:
        roots, others = self._authorities()
        pins = {pin.lower().replace(":", "") for pin in self.asked.root}
        found = {hashlib.sha256(der).hexdigest() for der in roots}
        if pins and not found <= pins:
            raise RefusedError("another-root", f"its root {min(found - pins)} is not one that is trusted")
        with tempfile.TemporaryDirectory() as folder:
            for number, der in enumerate([*roots, *others]):
                Path(folder, f"{number}.pem").write_text(pem("CERTIFICATE", der))
            self._chains(folder, [f"{number}.pem" for number in range(len(roots) + len(others))])
        self.say("ok", "authorities", f"{len(roots)} roots ({', '.join(sorted(found))}), {len(others)} below them, chains hold")
        if not pins:
            self.say("note", "authorities", "no root was given with --root: compare the fingerprints with those on paper")

    def check_crls(self) -> None:
        names = [name for name in self.pack.entries if name.startswith("03-authorities/crls/")]
        roots, others = self._authorities()
        ends = self._ends()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "all").write_text("".join(pem("CERTIFICATE", der) for der in [*roots, *others]))
            for name in names:
                der = self.pack.read(name)
                Path(folder, "crl").write_bytes(der)
                code, said = openssl(
                    "crl", "-inform", "DER", "-in", str(Path(folder, "crl")), "-noout", "-CAfile", str(Path(folder, "all"))
                )
                if code != 0 or "verify OK" not in said:
                    raise RefusedError("crl", f"the signature of {name} does not hold: {said.strip()[-200:]}")
                self._check_crl(name, der, ends)
        self.say("ok", "crls", f"{len(names)}: signatures hold")

    def _ends(self) -> dict[tuple[str, str], int]:
        """When those that a CRL must list end, as far as the list of certificates knows."""
        found = {}
        for line in self.pack.lines("05-issuance/certificates.jsonl"):
            row = json.loads(line)
            if row["revocable"] and row["serial"] in self.revocations.get(row["issuer"], {}):
                found[row["issuer"], row["serial"]] = row["not_after"]
        return found

    def _check_crl(self, name: str, der: bytes, ends: dict[tuple[str, str], int]) -> None:
        leaf = self.crl_leaves.get(hashlib.sha256(signed_part(der)).hexdigest())
        digest = hashlib.sha256(der).hexdigest()
        if leaf is None:
            if any(digest in one["outputs"].values() for one in self.ceremonies.values()):
                self.say("ok", "crls", f"{name} is an output of a ceremony on record")
            else:
                self.say(
                    "note",
                    "crls",
                    f"{name} has no leaf among those of the pack: it was signed outside of the period, or in a ceremony before it",
                )
            return
        if leaf["shard"] != 0 or "base" in leaf:
            return
        listed, issuer = set(revoked_serials(der)), leaf["issuer"]
        known = self.revocations.get(issuer, {})
        for serial, (change, reason) in known.items():
            on = serial in listed
            gone = ends.get((issuer, serial), 0) <= leaf["this_update"]
            if reason == "removeFromCRL" and on and change <= leaf["as_of"]:
                raise RefusedError("crl", f"{name} lists {serial}, which was taken off it before")
            if reason != "removeFromCRL" and not on and not gone and change <= leaf["as_of"]:
                raise RefusedError("crl", f"{name} does not list {serial}, which was revoked before (change {change})")
        strangers = sorted(listed - known.keys())
        if strangers and self.start == 0:
            raise RefusedError("crl", f"{name} lists {strangers[0]}, and the record knows of no such revocation")
        self.say(
            "ok", "crls", f"{name}: number {leaf['number']}, {len(listed)} entries, is that of its leaf and lists what the record says"
        )

    # -- ceremonies

    def check_ceremonies(self) -> None:
        for name in [name for name in self.pack.entries if re.fullmatch(r"02-ceremonies/[^/]+/transcript\.jsonl", name)]:
            folder = name.rpartition("/")[0]
            self._check_ceremony(folder, name)

    def _check_ceremony(self, folder: str, name: str) -> None:
        before, lines, begin = "00" * 32, list(self.pack.lines(name)), {}
        previous: dict[str, Any] = {}
        outputs = {}
        for number, line in enumerate(lines):
            record = strict_json(line, f"line {number + 1} of {name}")
            if (
                record["seq"] != number
                or record["previous"] != before
                or record["at"] < previous.get("at", 0)
                or previous.get("kind") == "seal"
            ):
                raise RefusedError(
                    "transcript", f"line {number + 1} of {name} does not follow the one before: lines were edited, dropped or moved"
                )
            before, previous = hashlib.sha256(line).hexdigest(), record
            if record["kind"] == "begin":
                begin = record
            if record["kind"] == "output":
                outputs[record["act"]] = (record["file"], record["sha256"])
        if previous.get("kind") != "seal":
            raise RefusedError("transcript", f"{name} has no seal at its end")
        files = dict(outputs.values())
        for file, digest in [*files.items(), ("sheet.toml", begin["sheet_sha256"])]:
            if hashlib.sha256(self.pack.read(f"{folder}/{file}")).hexdigest() != digest:
                raise RefusedError("transcript", f"{folder}/{file} is not the file that the ceremony wrote")
        seal = {key: value for key, value in previous.items() if key != "signature"}
        message = SEAL + hashlib.sha256(canonical(seal)).digest()
        check_signature(self._sealer(folder, seal, begin, outputs), b64(previous["signature"]), message, f"the seal of {name}")
        leaf = self.ceremonies.get(before)
        if leaf is None:
            self.say("note", "ceremonies", f"{folder}: holds by itself; its leaf is not among those of the pack")
        elif any(files.get(file) != digest for file, digest in leaf["outputs"].items()):
            raise RefusedError("transcript", f"the record tells of other outputs of {folder}")
        else:
            self.say("ok", "ceremonies", f"{folder}: {len(lines)} lines chained and sealed, {len(files)} outputs, on record")

    def _sealer(self, folder: str, seal: dict[str, Any], begin: dict[str, Any], outputs: dict[str, tuple[str, str]]) -> bytes:
        signer = seal["signer"]
        if signer is None:
            (found,) = [one for one in begin["people"] if (one["role"], one["person"]) == (seal["role"], seal["person"])]
            return base64.b64decode(found["spki"])
        if signer in outputs:
            return public_key(ders(self.pack.read(f"{folder}/{outputs[signer][0]}", PIECE).decode())[0])
        return public_key(ders(self.pack.read(f"03-authorities/issuers/{signer}.pem", PIECE).decode())[0])

    # -- documents behind leaves that have their hash only

    def check_approvals(self) -> None:
        """That who asked and who approved are several persons with several keys, and signed for the very same request."""
        if self.withheld:
            return
        keys: dict[str, set[bytes]] = {}
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, line in enumerate(self.pack.lines("08-access/messages.jsonl")):
                message = strict_json(line, "a line of 08-access/messages.jsonl")
                payload, certificate = b64(message["payload"]), b64(message["certificate"])
                key, said = public_key(certificate), json.loads(payload)
                check_signature(key, b64(message["signature"]), MESSAGE + payload, f"the signature of message {number + 1}")
                if said["act"] == "propose":
                    keys.setdefault(hashlib.sha256(payload).hexdigest(), set()).add(key)
                elif said["decision"] == "approve":
                    keys.setdefault(said["request"], set()).add(key)
                files.append(f"{number}.pem")
                Path(folder, files[-1]).write_text(pem("CERTIFICATE", certificate))
            self._chains(folder, files)
        done = {request: persons for request, (state, persons) in self.proposals.items() if state in ("approved", "used")}
        for request, persons in done.items():
            if self.start == 0 and (len(keys.get(request, ())) < 2 or len(persons) < 2):
                raise RefusedError("one-person", f"{request} was approved, and no two persons with keys of their own signed for it")
        if self.proposals:
            self.say(
                "ok",
                "approvals",
                f"{len(self.proposals)} proposals; {len(done)} approved, each signed for by several persons with keys of their own",
            )

    def check_receipts(self) -> None:
        """Each is that of its leaf (seen with the events); of those that the root chooses also signature and chain are judged."""
        if self.withheld:
            return
        count, lowest = 0, list[tuple[bytes, bytes]]()
        for line in self.pack.lines("07-devices/receipts.jsonl"):
            count += 1
            lowest = sorted([*lowest, (rank(self.root, "wipe", hashlib.sha256(line).hexdigest()), line)])[:SAMPLE]
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, (_, line) in enumerate(lowest):
                found = strict_json(line, "a line of 07-devices/receipts.jsonl")
                said, certificate = found["receipt"], b64(found["certificate"])
                key = public_key(certificate)
                check_signature(key, b64(found["signature"]), RECEIPT + canonical(said), f"the receipt of {said['device']}")
                if hashlib.sha256(key).hexdigest() not in said["keys"]:
                    raise RefusedError("receipt", f"the receipt of {said['device']} does not name the key that signed it as wiped")
                files.append(f"{number}.pem")
                Path(folder, files[-1]).write_text(pem("CERTIFICATE", certificate))
            self._chains(folder, files)
        if count:
            self.say("ok", "receipts", f"{count} devices wiped their keys; signatures and chains of {len(lowest)} that nobody chose hold")

    def check_records(self) -> None:
        """The provisioning records of each station: a chain, countersigned by the CA, and sealed as the record tells."""
        for name in [name for name in self.pack.entries if re.fullmatch(r"07-devices/records/[^/]+\.yaml", name)]:
            self._check_station(name, name.rpartition("/")[2][: -len(".yaml")])

    def _check_station(self, name: str, station: str) -> None:
        (key,) = ders(self.pack.read(f"07-devices/records/{station}.pub", PIECE).decode(), "PUBLIC KEY")
        if station in self.stations and hashlib.sha256(key).hexdigest() != self.stations[station]:
            raise RefusedError("another-station", f"the records of {station} come with another key than the one on record")
        wanted = dict(self.seals.get(station, {}))
        self._check_seal(station, wanted)
        count, before, lowest = 0, "sha256:" + "00" * 32, list[tuple[bytes, bytes]]()
        for count, document in enumerate(self._documents(name), 1):
            if f"\n  number: {count}\n".encode() not in document or f"\n  previous: {before}\n".encode() not in document:
                raise RefusedError(
                    "records", f"record {count} of {station} does not follow the one before: one was edited, dropped or moved"
                )
            if not re.search(f'\n  station: "?{re.escape(station)}"?\n'.encode(), document):
                raise RefusedError("records", f"record {count} is of another station than {station}")
            before = "sha256:" + hashlib.sha256(document).hexdigest()
            if wanted.get(count, before) != before:
                raise RefusedError("records", f"record {count} of {station} is not the one that the CA countersigned")
            lowest = sorted([*lowest, (rank(self.root, station, before), document)])[:SAMPLE]
        if wanted and max(wanted) > count:
            raise RefusedError("records", f"the CA countersigned {max(wanted)} records of {station}, and {count} are left")
        for _, document in lowest:
            bare, _, signature = document.rpartition(b"  signature: ")
            check_signature(key, b64(signature.decode().strip(' "\n')), RECORD + bare, f"a record of {station}")
        sealed = max(wanted, default=0)
        self.say("ok", "records", f"{count} provisioning records of {station} are one chain, of which the CA countersigned {sealed}")

    def _check_seal(self, station: str, wanted: dict[int, str]) -> None:
        """The last countersignature holds all before it."""
        seals = list(self.pack.lines(f"07-devices/records/{station}.seals.jsonl"))
        if not seals:
            return
        seal = json.loads(seals[-1])
        if wanted.setdefault(seal["count"], seal["last"]) != seal["last"]:
            raise RefusedError("records", f"the countersignature over {seal['count']} records of {station} is not the one on record")
        (issuer,) = ders(self.pack.read(f"03-authorities/issuers/{seal['issuer']}.pem", PIECE).decode())
        message = RECORDS + f"{station}\n{seal['count']}\n{seal['last']}\n".encode()
        check_signature(
            public_key(issuer), b64(seal["signature"]), message, f"the countersignature over {seal['count']} records of {station}"
        )

    def check_drills(self) -> None:
        """That keys of CAs, restored in memory, signed the record of the drill."""
        spkis = [public_key(der) for group in self._authorities() for der in group]
        for name in [name for name in self.pack.entries if name.startswith("11-drills/records/")]:
            record = strict_json(self.pack.read(name), name)
            message = DRILL + canonical({key: value for key, value in record.items() if key != "keys"})
            signed = {one["spki_sha256"]: bytes.fromhex(one["signature"]) for one in record["keys"] if one["opened"]}
            known = [spki for spki in spkis if hashlib.sha256(spki).hexdigest() in signed]
            for spki in known:
                check_signature(spki, signed[hashlib.sha256(spki).hexdigest()], message, f"the signature in {name}")
            if not known:
                raise RefusedError("drill", f"no key of the CAs of this pack signed {name}")
            self.say("ok", "drills", f"on {day(record['at'])} {len(known)} keys of CAs were restored from a backup, and signed")

    def _documents(self, name: str) -> Iterator[bytes]:
        document: list[bytes] = []
        for line in self.pack.lines(name):
            if line.rstrip() == b"---":
                if document:
                    yield b"".join(document)
                document = []
            else:
                document.append(line + b"\n")
        if document:
            yield b"".join(document)

    # -- what was withheld and is shown to this auditor

    def check_disclosed(self) -> None:
        for path in self.asked.disclosed:
            shown = json.loads(Path(path).read_bytes())
            index, body = shown["index"], shown["leaf"].encode()
            line = next((line for at, line in enumerate(self.pack.lines("09-log/leaves.jsonl"), self.start) if at == index), b"")
            if not line.startswith(b'{"view":') or self._hash(line) != leaf_hash(body):
                raise RefusedError("disclosed", f"{path} is not the leaf {index} that was withheld")
            leaf = json.loads(body)
            for field, value in json.loads(line)["view"].items():
                if isinstance(value, dict) and "salted" in value:
                    if salted(bytes.fromhex(shown["salts"][field]), leaf[field]) != value["salted"]:
                        raise RefusedError("disclosed", f"{field} of leaf {index} was withheld as something else")
                elif leaf.get(field) != value:
                    raise RefusedError("disclosed", f"{field} of leaf {index} was shown as something else")
            self.say("ok", "disclosed", f"{path} is leaf {index}: {body.decode()}")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack")
    parser.add_argument("--signer", help="SHA-256 of the public key (SubjectPublicKeyInfo) that must have signed the pack")
    parser.add_argument("--unpinned", action="store_true", help="look at a pack whose signer is not known")
    parser.add_argument("--log-key", help="the log's public key, name+id+base64, or a file with that line")
    parser.add_argument("--root", action="append", default=[], help="SHA-256 of a root certificate that is trusted; may be repeated")
    parser.add_argument("--since", action="append", default=[], help="a checkpoint that was kept elsewhere; may be repeated")
    parser.add_argument("--tsa", help="certificates (PEM) of who is trusted to stamp checkpoints with a time (RFC 3161)")
    parser.add_argument("--period", help="the period that the pack must be about: 2026-01-01..2026-12-31")
    parser.add_argument("--not-before", type=int, help="refuse a pack that was signed before this (Unix seconds)")
    parser.add_argument("--disclosed", action="append", default=[], help="a leaf that was withheld and is shown to you; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args(given)
    if not asked.signer and not asked.unpinned:
        parser.error("give --signer SHA256, or --unpinned to look at a pack whose signer you do not know")
    if asked.log_key and os.path.isfile(asked.log_key):  # noqa: PTH113
        asked.log_key = Path(asked.log_key).read_text()
    return asked


def main(given: Sequence[str] | None = None) -> int:
    asked = _arguments(given)
    told: list[dict[str, str]] = []

    def hear(level: str, check: str, what: str) -> None:
        told.append({"level": level, "check": check, "what": what})
        if not asked.json:
            sys.stdout.write(f"{level:<8} {check:<15} {what}\n")
            sys.stdout.flush()

    held = False
    try:
        openssl("version")
        with open(asked.pack, "rb") as file:  # noqa: PTH123
            held = Verification(Pack(file), asked, hear).run()
    except RefusedError as error:
        hear("REFUSED", "container", str(error))
    except OSError as error:
        # Of the machine or the command line; says nothing about the pack.
        sys.stderr.write(f"verify.py: {error.filename or asked.pack}: {error.strerror}\n")
        return 2
    if asked.json:
        sys.stdout.write(json.dumps({"verdict": "holds" if held else "refused", "told": told}, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("The pack holds.\n" if held else "The pack is REFUSED.\n")
    return 0 if held else 8


if __name__ == "__main__":
    sys.exit(main())
