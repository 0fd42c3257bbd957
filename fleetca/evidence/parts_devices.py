"""Parts 07 and 13 of an evidence pack: devices, how they came and went, and what of it is not in order. Edge: reads only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ca.errors import Malformed
from ca.model import DeviceId, DeviceState, GraveAct, ProposalState
from ca.rules import key_life
from ca.rules.leaf import canonical, facts_of
from fleetca.evidence import redaction
from fleetca.evidence.source import File, Source, document, given, pieces
from fleetca.line.station import Station as Folder

_PAGE = 500


def devices(source: Source) -> Iterator[File]:
    """Devices as they are, what happened to them, and what they and the stations signed."""
    yield "07-devices/devices.jsonl", _devices(source)
    yield source.events("07-devices/events.jsonl")
    if source.redaction.classes:
        source.absent.append("wipe receipts and provisioning records: withheld, they hold names; the record holds the hash of each")
    else:
        yield "07-devices/receipts.jsonl", _receipts(source)
        yield from sorted(_records(source), key=lambda file: file[0])
    yield "07-devices/stations.json", document(_stations(source))


def _devices(source: Source) -> Iterator[bytes]:
    said = dict(source.reading.every_device_facts())
    shown = source.redaction.shown
    for device in source.reading.every_device():
        facts = said.get(device.id)
        about = None if facts is None else facts_of(facts)
        if about is not None:
            about |= {name: shown(about[name], redaction.DEVICES) for name in ("justification", "batch", "owner", "anchors")}
        row = {
            "id": source.redaction.device(device.id),
            "tenant": shown(device.tenant, redaction.TENANTS),
            "state": device.state.value,
            "created": device.created,
            "facts": about,
        }
        yield canonical(row) + b"\n"


def _receipts(source: Source) -> Iterator[bytes]:
    """Each is one line as it came, in the record's order."""
    for _, leaf in source.leaves():
        if leaf["kind"] == "wipe":
            known = source.reading.find_wipe(DeviceId(leaf["device"]), leaf["retired_at"])
            yield b"\n" if known is None else known.octets


def _records(source: Source) -> Iterator[File]:
    """What the folders of stations hold, held against what is on record of each."""
    known = {one.name: one for one in source.reading.stations()}
    for path in source.stations:
        at = Folder(path)
        if at.name not in known or hashlib.sha256(at.spki).digest() != hashlib.sha256(known[at.name].spki).digest():
            raise Malformed("another-station", f"{path} is the folder of a station {at.name} that is not known here.")
        known.pop(at.name)
        if not at.records.exists():
            source.absent.append(f"provisioning records of the station {at.name}: there are none yet")
            continue
        for name, file in (("pub", at.path / "station.pub"), ("seals.jsonl", at.seals), ("yaml", at.records)):
            yield f"07-devices/records/{at.name}.{name}", pieces(file) if file.exists() else [b""]
    source.absent += [f"provisioning records of the station {name}: give its folder with --station" for name in sorted(known)]


def _stations(source: Source) -> dict[str, Any]:
    """Stations and their shifts, with the counts that must agree."""
    shown = source.redaction.shown
    return {
        "stations": [
            {
                "name": one.name,
                "tenant": shown(one.tenant, redaction.TENANTS),
                "since": one.since,
                "spki_sha256": hashlib.sha256(one.spki).hexdigest(),
                "records_countersigned": one.sealed,
            }
            for one in source.reading.stations()
        ],
        "shifts": [
            {
                "number": one.number,
                "station": one.station,
                "operator": shown(one.operator, redaction.OPERATORS),
                "profile": one.profile,
                "quota": one.count,
                "from": one.not_before,
                "to": one.not_after,
                "units": one.taken,
                "certificates": source.reading.count_shift(one).issued,
            }
            for one in source.reading.every_shift()
            if one.not_before < source.tally.end and one.accept_until >= source.tally.begin
        ],
    }


# ---- 13 -----------------------------------------------------------------------------------------------------------------


def findings(source: Source) -> Iterator[File]:
    """What is open or over by the last time that the record tells of; and what the looking commands said, where that was given."""
    for name, path, made in (
        ("checklist", source.checklist, "fleetca checklist --json"),
        ("doctor", source.doctor, "fleetca doctor --json"),
    ):
        if path is None:
            source.absent.append(f"what `{made}` says of the running deployment: give what it printed with --{name}")
        else:
            yield f"13-findings/{name}.json", document(given(path, f"report of the {name}", f"{made} > {name}.json"))
    told = {
        "exceptions": _exceptions(source),
        "keys": _keys(source),
        "unwiped": [source.redaction.device(one) for one in _unwiped(source)],
        "closed_without_receipt": _waived(source),
        "copied_keys": _clones(source),
        "reviews": _reviews(source),
        "shifts": [one for one in _stations(source)["shifts"] if one["units"] != one["certificates"]],
    }
    yield "13-findings/findings.json", document(told)


def _exceptions(source: Source) -> Sequence[Any]:
    return [
        {
            "device": source.redaction.device(device),
            "what": "no root of trust",
            "justification": source.redaction.shown(facts.justification, redaction.DEVICES),
            "ends": facts.exception_ends,
            "over": facts.exception_ends <= source.as_of,
        }
        for device, facts in source.reading.every_device_facts()
        if facts.exception_ends is not None and not _retired(source, device)
    ]


def _retired(source: Source, device: DeviceId) -> bool:
    known = source.reading.find_device(device)
    return known is not None and known.state is DeviceState.retired


def _keys(source: Source) -> Sequence[Any]:
    return [
        {"key": record.name, "what": "its period is over, and it exists", "period_ended": record.period_ends}
        for record in sorted(source.reading.key_records(), key=lambda one: (one.name, one.spki_sha256))
        if key_life.overdue(record, now=source.as_of)
    ]


def _unwiped(source: Source) -> Iterator[DeviceId]:
    after = ""
    while page := source.reading.unwiped(after=after, limit=_PAGE):
        yield from page
        after = page[-1]


def _reviews(source: Source) -> Sequence[Any]:
    """Those that count. What is unreviewed the doctor says; the signed messages stand in part 08."""
    return [
        {**json.loads(one.subject), "request": one.request.hex(), "asked_at": one.asked.at}
        for one in sorted(source.reading.every_proposal(), key=lambda one: (one.asked.at, one.request))
        if one.act is GraveAct.review and one.state is ProposalState.approved and one.asked.at <= source.as_of
    ]


def _waived(source: Source) -> Sequence[Any]:
    return [
        {
            "device": source.redaction.device(one.device),
            "justification": source.redaction.shown(one.justification, redaction.DEVICES),
            "at": one.at,
            "actor": source.redaction.shown(one.actor, redaction.OPERATORS),
        }
        for one in source.reading.every_wipe()
        if not one.octets
    ]


def _clones(source: Source) -> Sequence[Any]:
    return [
        {"device": source.redaction.device(one.device), "certificate": str(one.ref), "seen_at": one.clone_seen_at}
        for one in source.reading.clones(since=source.tally.begin, limit=_PAGE)
        if (one.clone_seen_at or 0) < source.tally.end
    ]
