"""Bringing a station's units to the CA: its file, then the certificates, then records and countersignatures. Edge: files and the signer's client.

Each step may be cut off anywhere and is gone on with by the same command: the file is taken as a whole or not at all, the signer answers a repeated unit
with the certificate that it has, and answers and records are written in the order of the units, so that their count says where to go on.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import Conflict, FleetcaError, Malformed, NotFound, Unavailable
from ca.issue import no_failpoint
from ca.keys.memory import MemoryKey
from ca.model import IssuerId, RecordSeal, Shift, UnitPart
from ca.ports import Failpoint, SigningKey
from ca.rules import line
from ca.rules import provisioning as rule
from ca.rules.leaf import canonical
from ca.rules.window import date
from fleetca.folder import put_new
from fleetca.line import station as folder

AT_ONCE: Final = 128
"""Units in one request."""
LANES: Final = 4
"""Requests under way: the signer decides one batch while it signs and re-reads others."""
TRIES: Final = 6
MOST_RECORDS: Final = 250
"""In one request to countersign."""
LARGEST_PAGE: Final = 600 * 1024
"""Octets of records in one request to countersign, on the machine of the CA."""
LARGEST_PART: Final = 48 * 1024
"""Octets of units or records in one request over the network, whose body has 64 KiB at most."""
_BEGIN: Final = b"---\n"
_UNIT: Final = re.compile(rb"^  unit: ([0-9]+/[0-9]+)$", re.MULTILINE)
REQUIREMENTS: Final = "REQ-KEY-012 REQ-KEY-023"


class Signer(Protocol):
    """What of `ca.signer.client` this needs."""

    def take_units(self, file_fd: int) -> Shift: ...

    def issue_units(self, shift: int, lines: Sequence[bytes]) -> Sequence[bytes | FleetcaError]: ...


class Sealer(Protocol):
    """Who countersigns: the signer, or the service in front of it."""

    def seal_records(self, station: str, documents: Sequence[bytes]) -> RecordSeal: ...


class Service(Protocol):
    """What of `fleetca.line.distant` this needs."""

    def bring(self, part: UnitPart) -> Sequence[bytes | FleetcaError]: ...


class Authority(Protocol):
    """A CA certificate by its name; `ca.model.Issuer` says it."""

    @property
    def id(self) -> IssuerId: ...
    @property
    def parent(self) -> IssuerId | None: ...
    @property
    def certificate(self) -> bytes: ...
    @property
    def subject(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of a file's units."""

    shift: Shift
    certified: int
    refused: int

    @property
    def agrees(self) -> bool:
        """Every unit on record has its certificate."""
        return self.certified == self.shift.taken


def bring(
    signer: Signer,
    path: Path,
    *,
    answers: Path,
    progress: Callable[[int], None] = lambda _: None,
    failpoint: Failpoint = no_failpoint,
) -> Brought:
    """Have a file's units taken and certified; what the CA said of each goes to `answers`.

    Raises:
        Malformed, Unauthenticated, Denied, Unacceptable, Conflict: the file is refused, and nothing was issued (`ca.provision.Provisioning.take`).
        Unavailable: the signer is gone, or cannot go on now: run it again.
    """
    with path.open("rb") as file:
        shift = signer.take_units(file.fileno())
    done, certified, size = _answered(answers)
    progress(done)
    left = islice(folder.unit_lines(path), done, shift.taken)
    count = done
    with ThreadPoolExecutor(LANES) as lanes:
        waiting: deque[tuple[Sequence[bytes], Future[Sequence[bytes | FleetcaError]]]] = deque()
        while True:
            while len(waiting) < LANES and (chunk := list(islice(left, AT_ONCE))):
                waiting.append((chunk, lanes.submit(_ask, signer, shift.number, chunk)))
            if not waiting:
                break
            texts, outcome = waiting.popleft()
            octets = b"".join(map(_answer, texts, outcome.result()))
            folder.append(answers, octets, at=size)
            failpoint("line.after-answers")
            size += len(octets)
            count += len(texts)
            certified += octets.count(b'"certificate":')
            progress(count)
    return Brought(shift, certified, count - certified)


def _ask(signer: Signer, shift: int, lines: Sequence[bytes]) -> Sequence[bytes | FleetcaError]:
    """Each unit's outcome; what is only not possible now is asked again."""
    found: list[bytes | FleetcaError] = []
    for attempt in range(TRIES):
        left = lines[len(found) :]
        got = signer.issue_units(shift, left)
        busy = next((place for place, one in enumerate(got) if isinstance(one, Unavailable)), len(got))
        found += got[:busy]
        if busy == len(got):
            return found
        error = got[busy]
        assert isinstance(error, Unavailable)
        if attempt + 1 == TRIES:
            raise error
        threading.Event().wait(min(error.retry_after, 5))
    raise AssertionError("unreachable")


def bring_parts(
    service: Service, path: Path, key: SigningKey, *, answers: Path, progress: Callable[[int], None] = lambda _: None
) -> Brought:
    """As `bring`, over a network: the units in parts, each under a seal that the station makes for it now.

    A part that was answered and not written down is sent again, and answered alike. Where nothing is left to bring, the last unit is sent again: so
    who signed is known.

    Raises:
        Malformed, Unauthenticated, Denied, Unacceptable, Conflict: see `ca.provision.Provisioning.take_part`.
        Unavailable: the service is out of reach, or cannot go on now: run it again.
    """
    file = folder.read_shift(path)
    done, certified, size = _answered(answers)
    progress(done)
    with path.open("rb") as octets:
        header = octets.readline().rstrip(b"\n")
    head, count = line.read_header(header).head, 0
    left = iter(islice(folder.unit_lines(path), file.count))
    for text in islice(left, max(0, min(done, file.count) - (done >= file.count))):
        head, count = line.chained(head, text), count + 1
    waiting: list[bytes] = []
    while waiting or count < file.count:
        length = sum(map(len, waiting))
        while len(waiting) < AT_ONCE and length < LARGEST_PART and (text := next(left, b"")):
            waiting.append(text)
            length += len(text)
        # The one that went over the limit waits for the next part, unless it is alone.
        part = waiting[: len(waiting) - (length >= LARGEST_PART and len(waiting) > 1)]
        waiting = waiting[len(part) :]
        for text in part:
            head = line.chained(head, text)
        seal = line.seal(file.quota, count + len(part), head, key.sign)
        outcomes = service.bring(UnitPart(header.decode(), count + 1, tuple(each.decode() for each in part), seal.decode()))
        count += len(part)
        if count > done:
            lines = b"".join(map(_answer, part, outcomes))
            folder.append(answers, lines, at=size)
            size += len(lines)
            certified += lines.count(b'"certificate":')
            progress(count)
    shift = replace(file.shift, taken=file.count)
    return Brought(shift, certified, count - certified)


def count_units(path: Path) -> int:
    """How many units a file seems to have: for a bar, before anything was judged."""
    with path.open("rb") as file:
        return sum(b'"unit":' in each for each in file)


def _answer(text: bytes, outcome: bytes | FleetcaError) -> bytes:
    unit = line.read_unit(text)
    said: dict[str, Any] = {"unit": unit.number, "device": unit.device}
    if isinstance(outcome, FleetcaError):
        said |= {"refused": outcome.code, "what": str(outcome)}
    else:
        said["certificate"] = base64.b64encode(outcome).decode()
    return canonical(said) + b"\n"


def _answered(path: Path) -> tuple[int, int, int]:
    """How many units have their answer, how many of these a certificate, and the octets of these lines; the file is there afterwards."""
    if not path.exists():
        put_new(path, b"")
    count = certified = size = 0
    with path.open("rb") as file:
        for each in file:
            if not each.endswith(b"\n"):
                break
            try:
                said = json.loads(each)
            except ValueError:
                break
            count += 1
            if not isinstance(said, dict) or said.get("unit") != count:
                raise Malformed("answers-form", f"{path} holds no answers to this file.", fix="Name another file with --out.")
            certified += "certificate" in said
            size += len(each)
    return count, certified, size


def answers(path: Path) -> Iterator[dict[str, Any]]:
    """What the CA said, in the order of the units."""
    if path.exists():
        with path.open("rb") as file:
            for each in file:
                if each.endswith(b"\n"):
                    yield json.loads(each)


# ---- Records --------------------------------------------------------------------------------------------------------


def read_records(path: Path) -> tuple[list[rule.Record], int]:
    """The provisioning records of a station, and the octets that they take; a last one that a crash tore does not count."""
    documents, size = _documents(path)
    return [rule.read(each) for each in documents], size


def _documents(path: Path) -> tuple[list[bytes], int]:
    """As `read_records`, not read: a station keeps all that it ever made, and a reconciliation needs the end of it."""
    octets = path.read_bytes() if path.exists() else b""
    *before, last = octets[: octets.rfind(b"\n") + 1].removeprefix(_BEGIN).split(b"\n" + _BEGIN)
    found = [each + b"\n" for each in before]
    if last and _whole(last):
        found.append(last)
    return found, sum(len(_BEGIN) + len(each) for each in found)


def _whole(document: bytes) -> bool:
    """The signature is the last line of a record: who has it has all of it."""
    try:
        ours = rule.read(document).ours
    except Malformed:
        return False
    return ours is not None and ours.signature != ""


class Authorities:
    """Who issued a certificate, and which root a unit got with it."""

    def __init__(self, issuers: Sequence[Authority]) -> None:
        self._by_id = {one.id: one for one in issuers}

    def issuer_of(self, facts: CertificateFacts) -> Authority:
        """The issuer on record whose key signed it.

        Raises:
            NotFound: none did (`issuer-unknown`).
        """
        named = [one for one in self._by_id.values() if one.subject == facts.issuer]
        if len(named) == 1:
            return named[0]
        certificate = x509.load_der_x509_certificate(facts.der)
        for one in named:
            with suppress(ValueError, TypeError, InvalidSignature):
                certificate.verify_directly_issued_by(x509.load_der_x509_certificate(one.certificate))
                return one
        raise NotFound("issuer-unknown", "A unit's certificate is of no issuer that is known here.")

    def root_of(self, issuer: Authority) -> Authority:
        """The anchor above it."""
        while issuer.parent is not None and issuer.parent in self._by_id:
            issuer = self._by_id[issuer.parent]
        return issuer


def write_records(at: folder.Station, path: Path, key: MemoryKey, *, issuers: Sequence[Authority]) -> int:
    """Write the records of a shift's certified units that have none yet; how many.

    Raises:
        Unacceptable: the records that are there do not hold (`record-chain`).
    """
    shift = folder.read_shift(path).shift
    with at.alone():
        if not at.records.exists():
            put_new(at.records, b"")
        documents, size = _documents(at.records)
        have = {name.decode() for each in documents for name in _UNIT.findall(each)}
        last = rule.read(documents[-1]) if documents else None
        if last is not None:
            before = rule.digest_of(documents[-2]) if len(documents) > 1 else rule.FIRST
            rule.check([last], station_spki=key.spki, after=(len(documents) - 1, before))
        made: list[rule.Record] = []
        authorities = Authorities(issuers)
        for text, said in zip(folder.unit_lines(path), answers(path.with_suffix(".answers.jsonl")), strict=False):
            name = f"{shift.number}/{said['unit']}"
            if "certificate" not in said or name in have:
                continue
            unit, der = line.read_unit(text), base64.b64decode(said["certificate"])
            facts = read_certificate(der)
            number, previous = rule.next_of(last)
            issuer = authorities.issuer_of(facts)
            last = rule.sign(
                rule.Record(
                    unit.device,
                    rule.digest_of(der),
                    rule.digest_of(authorities.root_of(issuer).certificate),
                    date(unit.date)[:10],
                    shift.operator,
                    rule.Ours(
                        station=at.name,
                        number=number,
                        previous=previous,
                        origin=unit.origin,
                        issuer=issuer.id,
                        serial=f"{facts.serial:040x}",
                        spki=rule.digest_of(facts.spki),
                        tenant=shift.tenant,
                        batch=unit.batch,
                        root_of_trust=unit.root_of_trust,
                        attestation=f"sha256:{unit.attestation}" if unit.attestation else "",
                        unit=name,
                        requirements=REQUIREMENTS,
                    ),
                ),
                key.sign,
            )
            made.append(last)
        if made:
            folder.append(at.records, rule.join(made), at=size)
    return len(made)


def have_sealed(sealer: Sealer, at: folder.Station, *, largest: int = LARGEST_PAGE) -> int:
    """Have all records countersigned and keep the countersignatures; how many records are.

    Goes on behind the last countersignature that is kept. What was countersigned and never kept is told again.

    Raises:
        Conflict: the CA countersigned other records of this station (`record-forked`).
    """
    with at.alone():
        records, _ = _documents(at.records)
        kept, size = _seals(at.seals)
        sealed = kept[-1].count if kept else 0
        while sealed < len(records):
            page: list[bytes] = []
            for one in records[sealed : sealed + MOST_RECORDS]:
                if page and sum(map(len, page)) + len(one) > largest:
                    break
                page.append(one)
            made = sealer.seal_records(at.name, page)
            if not sealed < made.count <= len(records) or rule.digest_of(records[made.count - 1]) != made.last:
                raise Conflict(
                    "record-forked", f"The CA countersigned other records of station {at.name} than those that stand here.",
                    why="This folder is an older copy, or there is another one of the same station.",
                )  # fmt: skip
            sealed = made.count
            text = _seal_line(made)
            folder.append(at.seals, text, at=size)
            size += len(text)
    return sealed


def _seal_line(seal: RecordSeal) -> bytes:
    return (
        canonical(
            {
                "station": seal.station,
                "count": seal.count,
                "last": seal.last,
                "issuer": seal.issuer,
                "at": seal.at,
                "signature": base64.b64encode(seal.signature).decode(),
            }
        )
        + b"\n"
    )


def _seals(path: Path) -> tuple[list[rule.Seal], int]:
    if not path.exists():
        put_new(path, b"")
    found: list[rule.Seal] = []
    size = 0
    for each in path.read_bytes().splitlines(keepends=True):
        if not each.endswith(b"\n"):
            break
        found.append(read_seal(each))
        size += len(each)
    return found, size


def read_seals(path: Path) -> list[rule.Seal]:
    """The countersignatures that are kept.

    Raises:
        Malformed: `record-seal-form`.
    """
    return [read_seal(each) for each in path.read_bytes().splitlines()] if path.exists() else []


def read_seal(octets: bytes) -> rule.Seal:
    """A countersignature as it is kept.

    Raises:
        Malformed: `record-seal-form`.
    """
    try:
        said = json.loads(octets)
        station, count, last, signature = said["station"], said["count"], said["last"], base64.b64decode(said["signature"], validate=True)
        if said.keys() != {"station", "count", "last", "issuer", "at", "signature"} or type(count) is not int or type(station) is not str:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Malformed("record-seal-form", "A countersignature cannot be read.") from None
    return rule.Seal(station, count, str(last), signature)
