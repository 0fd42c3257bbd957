"""Checks a station's folder with nothing but the CA's certificate: no network, no deployment. Edge: reads files; the rules are `ca.rules`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ca.der.algorithms import load_public_key
from ca.der.algorithms import verify as verify_signature
from ca.der.certificate import read_certificate
from ca.der.csr import read_csr
from ca.der.reader import bit_string, expect, only
from ca.errors import FleetcaError, Malformed
from ca.rules import line
from ca.rules import provisioning as rule
from fleetca.line import bringing
from fleetca.line import station as folder


@dataclass(frozen=True, slots=True)
class Told:
    """What stands in a station's folder, and what is wrong with it."""

    shifts: int
    units: int
    certificates: int
    records: int
    sealed: int
    findings: Sequence[str]


def verify(at: folder.Station, authorities: Sequence[bytes]) -> Told:
    """Judge all of it.

    Args:
        authorities: certificates (DER) of the CAs that may have signed.

    Raises:
        Malformed: the records cannot be read at all.
    """
    spkis = [read_certificate(each).spki for each in authorities]
    found: list[str] = []
    units = certificates = 0
    digests: dict[str, str] = {}
    for path in at.files():
        try:
            count, issued = _shift(at, path, spkis, digests)
        except (FleetcaError, OSError, ValueError, KeyError) as error:
            found.append(f"{path.name}: {error}")
            continue
        units += count
        certificates += issued
        if issued != count:
            found.append(f"{path.name}: {count} units, {issued} certificates.")
    records = [rule.read(each) for each in rule.split(at.records.read_bytes())] if at.records.exists() else []
    seals = bringing.read_seals(at.seals)
    found += rule.judge(records, station_spki=at.spki)
    found += _seals(seals, records, spkis)
    found += _missing(records, digests)
    sealed = max((one.count for one in seals), default=0)
    if sealed < len(records):
        found.append(f"{len(records) - sealed} records are not countersigned.")
    return Told(len(at.files()), units, certificates, len(records), sealed, found)


def _shift(at: folder.Station, path: Path, spkis: Sequence[bytes], digests: dict[str, str]) -> tuple[int, int]:
    with path.open("rb") as file:
        text = line.lines(iter(lambda: file.read(folder.PIECE), b""))
        reader = line.Reader(next(text, b""))
        _by_any(lambda spki: line.check_quota(reader.header, spki), spkis)
        shift = folder.shift_of(reader.header)
        if shift.station != at.name or shift.station_key != hashlib.sha256(at.spki).digest():
            raise Malformed("line-form", "It is of another station.")
        said = bringing.answers(path.with_suffix(".answers.jsonl"))
        issued = 0
        for unit, _ in reader.walk(text, shift):
            answer = next(said, {})
            if "certificate" in answer:
                digests[f"{shift.number}/{unit.number}"] = _certified(unit, base64.b64decode(answer["certificate"]), spkis)
                issued += 1
        if reader.count:
            line.check_seal(reader.header.quota, reader.finish(), at.spki)
    return reader.count, issued


def _certified(unit: line.Unit, der: bytes, spkis: Sequence[bytes]) -> str:
    """A unit's certificate is over the key of its CSR, and one of these CAs signed it."""
    if read_certificate(der).spki != read_csr(unit.csr).spki:
        raise Malformed("line-form", f"The certificate of unit {unit.number} is over another key than its CSR.")
    whole = only(der, 0x30)
    tbs = expect(der, whole.content, whole.end, 0x30)
    algorithm = expect(der, tbs.end, whole.end, 0x30)
    signature = bit_string(der, expect(der, algorithm.end, whole.end, 0x03))
    _by_any(lambda spki: verify_signature(load_public_key(spki), signature, der[tbs.start : tbs.end]), spkis)
    return rule.digest_of(der)


def _by_any(check: Callable[[bytes], None], spkis: Sequence[bytes]) -> None:
    last: FleetcaError | None = None
    for spki in spkis:
        try:
            check(spki)
        except FleetcaError as error:
            last = error
        else:
            return
    raise last or Malformed("bad-certificate", "No CA was given to judge by.")


def _seals(seals: Sequence[rule.Seal], records: Sequence[rule.Record], spkis: Sequence[bytes]) -> Iterator[str]:
    for seal in seals:
        told = [list(rule.judge_seal(seal, records, spki)) for spki in spkis]
        if told and all(told):
            yield from told[-1]


def _missing(records: Sequence[rule.Record], digests: dict[str, str]) -> Iterator[str]:
    have = {one.ours.unit: one.identity_certificate for one in records if one.ours is not None and one.ours.unit}
    for unit, digest in digests.items():
        if unit not in have:
            yield f"Unit {unit} has a certificate and no provisioning record."
        elif have[unit] != digest:
            yield f"The provisioning record of unit {unit} names another certificate."
    for unit in have.keys() - digests.keys():
        yield f"There is a provisioning record of unit {unit}, which has no certificate here."
