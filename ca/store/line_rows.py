"""Stations, their shifts and units, countersignatures, and wipe receipts, as they stand in the database. Statements only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa

from ca.model import DeviceId, Digest, RecordSeal, Shift, ShiftCount, Station, TenantId, UnixTime, WipeReceipt
from ca.rules import forms
from ca.store import tables as t
from ca.store.reads import PAGE, Reads, insert, paged, param, values_of
from ca.store.writes import Writes

T = TypeVar("T")
_h = t.device_changes.c
_s, _u, _e, _c, _d, _w = t.line_shifts.c, t.line_units.c, t.line_seals.c, t.certificates.c, t.devices.c, t.wipe_receipts.c

FIND_STATION = sa.select(t.line_stations.c.body).where(t.line_stations.c.name == param("name"))
STATIONS = sa.select(t.line_stations.c.body).order_by(t.line_stations.c.name).limit(sa.literal_column(str(PAGE)))
FIND_SHIFT = sa.select(_s.body).where(_s.number == param("number"))
FIND_SHIFT_OF = sa.select(_s.body).where(_s.request == param("request"))
LAST_SHIFT = sa.select(sa.func.coalesce(sa.func.max(_s.number), 0))
SHIFTS = sa.select(_s.body).where(_s.number < param("before")).order_by(_s.number.desc()).limit(param("limit"))
FIND_UNIT = sa.select(_u.request_key).where(_u.shift == param("shift"), _u.number == param("number"))
# Each unit's certificate is found by its request: a shift of a million units is a million look-ups, asked for by people only.
ISSUED_OF = (
    sa.select(sa.func.count())
    .select_from(t.line_units.join(t.certificates, sa.and_(_c.request_key == _u.request_key, sa.text("certificates.state <> 'void'"))))
    .where(_u.shift == param("shift"), sa.text("certificates.state = 'issued'"))
)
SEALS = (
    sa.select(t.line_seals.c.body)
    .where(t.line_seals.c.station == param("station"), t.line_seals.c.count > param("above"))
    .order_by(t.line_seals.c.count)
    .limit(param("limit"))
)
# When a device was retired last. What is said of a device that is retired already changes nothing of that.
_RETIRED_AT = (
    sa.select(sa.func.max(_h.at))
    .where(
        _h.device == _d.id,
        sa.text("device_changes.after = 'retired'"),
        sa.text("(device_changes.before IS NULL OR device_changes.before <> 'retired')"),
    )
    .scalar_subquery()
)
# Devices that were retired after they had a certificate, and never said that they wiped its key.
UNWIPED = (
    sa.select(_d.id)
    .where(
        sa.text("devices.state = 'retired'"),
        _d.id > param("after"),
        sa.exists().where(_c.device == _d.id, sa.text("certificates.state <> 'void'")),
        ~sa.exists().where(_w.device == _d.id, _w.retired_at >= sa.func.coalesce(_RETIRED_AT, 0)),
    )
    .order_by(_d.id)
    .limit(param("limit"))
)
FIND_WIPE = sa.select(_w.body).where(_w.device == param("device"), _w.retired_at == param("retired_at"))
EVERY_SHIFT = sa.select(_s.number, _s.body).where(_s.number > param("number")).order_by(_s.number).limit(sa.literal_column(str(PAGE)))
EVERY_SEAL = (
    sa.select(_e.station, _e.count, _e.body)
    .where(sa.tuple_(_e.station, _e.count) > sa.tuple_(param("station"), param("count")))
    .order_by(_e.station, _e.count)
    .limit(sa.literal_column(str(PAGE)))
)
EVERY_WIPE = (
    sa.select(_w.device, _w.retired_at, _w.body)
    .where(sa.tuple_(_w.device, _w.retired_at) > sa.tuple_(param("device"), param("retired_at")))
    .order_by(_w.device, _w.retired_at)
    .limit(sa.literal_column(str(PAGE)))
)

_station = insert(t.line_stations).values(values_of(t.line_stations))
SET_STATION = _station.on_conflict_do_update(index_elements=["name"], set_={"body": _station.excluded.body})
_shift = insert(t.line_shifts).values(values_of(t.line_shifts))
SET_SHIFT = _shift.on_conflict_do_update(index_elements=["number"], set_={"body": _shift.excluded.body})
_unit = insert(t.line_units).values(values_of(t.line_units))
SET_UNIT = _unit.on_conflict_do_update(index_elements=["shift", "number"], set_={"request_key": _unit.excluded.request_key})
_seal = insert(t.line_seals).values(values_of(t.line_seals))
SET_SEAL = _seal.on_conflict_do_update(index_elements=["station", "count"], set_={"body": _seal.excluded.body})
ADD_WIPE = insert(t.wipe_receipts).values(values_of(t.wipe_receipts)).on_conflict_do_nothing()


def _body(word: object) -> str:
    return orjson.dumps(forms.write(word)).decode()


def _word(kind: type[T], body: str) -> T:
    return forms.read(kind, orjson.loads(body))


class LineReads(Reads):
    def find_station(self, name: str) -> Station | None:
        """A station by its name."""
        row = self._first(FIND_STATION, {"name": name})
        return None if row is None else _word(Station, row[0])

    def stations(self) -> Sequence[Station]:
        """By name."""
        return [_word(Station, row[0]) for row in self._all(STATIONS, {})]

    def find_shift(self, number: int) -> Shift | None:
        """A shift by its number."""
        row = self._first(FIND_SHIFT, {"number": number})
        return None if row is None else _word(Shift, row[0])

    def find_shift_of(self, request: Digest) -> Shift | None:
        """The shift that this message opened."""
        row = self._first(FIND_SHIFT_OF, {"request": request})
        return None if row is None else _word(Shift, row[0])

    def last_shift(self) -> int:
        """Its number; 0 before there is one."""
        (row,) = self._all(LAST_SHIFT, {})
        return int(row[0])

    def shifts(self, *, before: int, limit: int) -> Sequence[Shift]:
        """The newest first, of those with a number below `before`."""
        return [_word(Shift, row[0]) for row in self._all(SHIFTS, {"before": before, "limit": limit})]

    def count_shift(self, shift: Shift) -> ShiftCount:
        """How many certificates the units of a shift have."""
        (row,) = self._all(ISSUED_OF, {"shift": shift.number})
        return ShiftCount(shift, int(row[0]))

    def find_unit(self, shift: int, number: int) -> Digest | None:
        """The request key of a unit's line, where its station's file was taken that far; None otherwise."""
        row = self._first(FIND_UNIT, {"shift": shift, "number": number})
        return None if row is None else Digest(bytes(row[0]))

    def record_seals(self, station: str, *, above: int, limit: int) -> Sequence[RecordSeal]:
        """Countersignatures over more than `above` records of a station, the shortest chain first."""
        return [_word(RecordSeal, row[0]) for row in self._all(SEALS, {"station": station, "above": above, "limit": limit})]

    def unwiped(self, *, after: str, limit: int) -> Sequence[DeviceId]:
        """Retired devices that had a certificate and of which there is no wipe receipt since they were retired last, by id."""
        return [DeviceId(row[0]) for row in self._all(UNWIPED, {"after": after, "limit": limit})]

    def find_wipe(self, device: DeviceId, retired_at: UnixTime) -> WipeReceipt | None:
        """The wipe receipt of a device that was retired then."""
        row = self._first(FIND_WIPE, {"device": device, "retired_at": retired_at})
        return None if row is None else _word(WipeReceipt, row[0])

    def every_shift(self) -> Iterator[Shift]:
        """All shifts, by number."""
        for row in paged(lambda last: self._all(EVERY_SHIFT, {"number": 0 if last is None else last[0]})):
            yield _word(Shift, row[1])

    def every_record_seal(self) -> Iterator[RecordSeal]:
        """All countersignatures, by station."""
        for row in paged(
            lambda last: self._all(EVERY_SEAL, {"station": "" if last is None else last[0], "count": 0 if last is None else last[1]})
        ):
            yield _word(RecordSeal, row[2])

    def every_wipe(self) -> Iterator[WipeReceipt]:
        """All receipts, by device."""
        for row in paged(
            lambda last: self._all(EVERY_WIPE, {"device": "" if last is None else last[0], "retired_at": 0 if last is None else last[1]})
        ):
            yield _word(WipeReceipt, row[2])


class LineWrites(Writes, LineReads):
    def set_station(self, station: Station) -> None:
        """A station as it is from now on."""
        self._change(SET_STATION, {"name": station.name, "body": _body(station)})

    def set_shift(self, shift: Shift) -> None:
        """A shift as it is from now on."""
        self._change(SET_SHIFT, {"number": shift.number, "request": shift.request, "body": _body(shift)})

    def set_units(self, shift: int, keys: Mapping[int, Digest]) -> None:
        """The request keys of units, by their number. They count once `Shift.taken` has come so far."""
        rows: list[dict[str, Any]] = [{"shift": shift, "number": number, "request_key": key} for number, key in keys.items()]
        if rows:
            self._change_each(SET_UNIT, rows)

    def set_record_seal(self, seal: RecordSeal) -> None:
        """A countersignature as it is from now on."""
        self._change(SET_SEAL, {"station": seal.station, "count": seal.count, "body": _body(seal)})

    def add_wipe(self, receipt: WipeReceipt, tenant: TenantId) -> bool:
        """False where there is one of that device and retirement."""
        return bool(
            self._change(ADD_WIPE, {"device": receipt.device, "retired_at": receipt.retired_at, "tenant": tenant, "body": _body(receipt)})
        )
