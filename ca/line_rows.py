"""What the factory line leaves on record, written when it happens and from the journal after a lost database. Knows rules and ports only."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ca.model import OWN_SERVICES, DeviceId, Digest, Shift, Station
from ca.ports import Writing
from ca.rules import leaf, testimony


def add_station(tx: Writing, said: testimony.StationKnown) -> None:
    # A key serves one holder, ever (P9): no device gets a certificate for a station's.
    tx.claim_key(
        Digest(hashlib.sha256(said.station.spki).digest()), DeviceId(f"{OWN_SERVICES}station:{said.station.name}"), now=said.station.since
    )
    tx.set_station(said.station)
    tx.append_leaf(leaf.station(said.station, actor=said.actor, at=said.station.since))


def add_shift(tx: Writing, said: testimony.ShiftOpened) -> None:
    tx.set_shift(said.shift)
    tx.append_leaf(leaf.shift(said.shift, quota=said.quota, actor=said.actor))


def take(tx: Writing, after: Shift, said: testimony.UnitsTaken, *, first: int) -> None:
    tx.set_shift(after)
    tx.append_leaf(leaf.units(after, first=first, actor=said.actor, at=said.at))


def seal(tx: Writing, station: Station, said: testimony.RecordsSealed) -> None:
    tx.set_record_seal(said.seal)
    tx.set_station(replace(station, sealed=said.seal.count, last=said.seal.last))
    tx.append_leaf(leaf.record_seal(said.seal, actor=said.actor))


def recall(
    tx: Writing,
    said: testimony.StationKnown
    | testimony.ShiftOpened
    | testimony.UnitsTaken
    | testimony.RecordsSealed
    | testimony.Wiped
    | testimony.WipeOrdered,
) -> None:
    """What the journal tells and the database has forgotten."""
    match said:
        case testimony.StationKnown():
            if tx.find_station(said.station.name) is None:
                add_station(tx, said)
        case testimony.ShiftOpened():
            if tx.find_shift(said.shift.number) is None:
                add_shift(tx, said)
        case testimony.UnitsTaken():
            shift = tx.find_shift(said.shift)
            if shift is not None and shift.taken < said.taken:
                take(tx, replace(shift, taken=said.taken, head=said.head), said, first=shift.taken + 1)
        case testimony.RecordsSealed():
            station = tx.find_station(said.seal.station)
            if station is not None and station.sealed < said.seal.count:
                seal(tx, station, said)
        case testimony.Wiped():
            if tx.add_wipe(said.receipt, said.receipt.tenant):
                tx.append_leaf(leaf.wipe(said.receipt) if said.receipt.octets else leaf.wipe_waived(said.receipt))
        case testimony.WipeOrdered():
            pass  # it is a leaf of the log, and no row
