"""Stations, shifts, units, countersignatures and wipe receipts in the database: on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from ca.model import (
    DEFAULT_TENANT,
    CertificateRef,
    Device,
    DeviceChange,
    DeviceId,
    DeviceState,
    OperatorName,
    ProfileName,
    RecordSeal,
    Shift,
    Station,
    WipeReceipt,
)
from ca.store.engine import Store
from tests.fakes.intents import ISSUER, NOW, digest, intent


def shift(number: int) -> Shift:
    return Shift(
        number, DEFAULT_TENANT, "line-3", digest(), OperatorName("ada"), ProfileName("device"), ISSUER, 9, NOW, NOW + 9, NOW + 99, digest()
    )


def test_a_station_and_a_shift_are_what_was_said_of_them_last(store: Store) -> None:
    station, first, second = Station("line-3", DEFAULT_TENANT, b"spki", NOW), shift(1), shift(2)
    with store.ledger.writing() as tx:
        assert (tx.find_station("line-3"), tx.find_shift(1), tx.last_shift()) == (None, None, 0)
        for one in (station, replace(station, sealed=4, last="sha256:0")):
            tx.set_station(one)
        for each in (first, second, replace(first, taken=3, head=digest(), signature=b"x")):
            tx.set_shift(each)
        assert tx.last_shift() == 2
    reading = store.reading
    assert [one.sealed for one in reading.stations()] == [4]
    kept = reading.find_shift(1)
    assert kept is not None
    assert (kept.taken, kept.signature, kept.request) == (3, b"x", first.request)
    assert reading.find_shift_of(second.request) == second
    assert [one.number for one in reading.shifts(before=99, limit=9)] == [2, 1]
    assert [one.number for one in reading.shifts(before=2, limit=9)] == [1]
    assert [one.number for one in reading.every_shift()] == [1, 2]


def test_units_are_found_by_shift_and_number_also_ahead_of_a_batch(store: Store) -> None:
    keys = {number: digest() for number in range(1, 130)}
    with store.ledger.writing() as tx:
        tx.set_shift(shift(1))
        tx.set_units(1, keys)
        tx.set_units(1, {2: keys[3]})
        tx.set_units(2, {1: keys[1]})
        tx.set_units(3, {})
    asked = [(1, number, DeviceId(f"SN-{number}")) for number in keys] + [(2, 1, DeviceId("SN-1")), (7, 1, DeviceId("SN-1"))]
    with store.ledger.writing() as tx, tx.foreseeing(requests=[], certificates=[], tokens=[], keys=[], units=asked):
        assert tx.find_unit(1, 2) == keys[3]
        assert all(tx.find_unit(1, number) == key for number, key in keys.items() if number != 2)
        assert (tx.find_unit(2, 1), tx.find_unit(7, 1), tx.find_unit(1, 999)) == (keys[1], None, None)
        found = tx.find_shift(1)
        assert found is not None
        assert (found.number, tx.find_shift(7), tx.lock_device(DeviceId("SN-1"))) == (1, None, None)
    assert store.reading.find_unit(1, 129) == keys[129]


def test_a_shift_counts_the_certificates_that_its_units_have(store: Store) -> None:
    first, second = intent(), intent()
    with store.ledger.writing() as tx:
        tx.set_shift(shift(1))
        tx.set_units(1, {1: first.request_key, 2: second.request_key, 3: digest()})
        for one in (first, second):
            tx.reserve(one, tenant="default", revocable=True, leaf=digest())
        tx.record_issued([(CertificateRef(first.draft.issuer, first.draft.serial), b"der")], now=NOW)
    assert store.reading.count_shift(shift(1)).issued == 1
    assert store.reading.count_shift(shift(2)).issued == 0


def test_countersignatures_come_back_shortest_first(store: Store) -> None:
    with store.ledger.writing() as tx:
        for station, count in (("line-3", 10), ("line-3", 9), ("line-4", 1), ("line-3", 2)):
            tx.set_record_seal(RecordSeal(station, count, "sha256:0", ISSUER, NOW))
        tx.set_record_seal(RecordSeal("line-3", 9, "sha256:0", ISSUER, NOW, b"signed"))
        assert [one.count for one in tx.record_seals("line-3", above=0, limit=9)] == [2, 9, 10]
        assert [one.signature for one in tx.record_seals("line-3", above=8, limit=1)] == [b"signed"]
    assert [(one.station, one.count) for one in store.reading.every_record_seal()] == [
        ("line-3", 2), ("line-3", 9), ("line-3", 10), ("line-4", 1),
    ]  # fmt: skip


def test_a_retired_device_with_a_certificate_and_without_a_receipt_is_missing(store: Store) -> None:
    names = [DeviceId(f"pump-{number}") for number in range(4)]
    states = (DeviceState.retired, DeviceState.retired, DeviceState.active, DeviceState.retired)
    with store.ledger.writing() as tx:
        for name, state in zip(names, states, strict=True):
            tx.add_device(Device(name, DEFAULT_TENANT, state, NOW))
            if name != names[3]:
                one = intent(device=name)
                tx.reserve(one, tenant="default", revocable=True, leaf=digest())
    assert list(store.reading.unwiped(after="", limit=9)) == names[:2]
    assert list(store.reading.unwiped(after=names[0], limit=9)) == names[1:2]
    assert list(store.reading.unwiped(after="", limit=1)) == names[:1]
    receipt = WipeReceipt(names[0], DEFAULT_TENANT, b"octets", NOW, "ada")
    with store.ledger.writing() as tx:
        assert tx.find_wipe(names[0], 0) is None
        assert tx.add_wipe(receipt, DEFAULT_TENANT)
        assert not tx.add_wipe(replace(receipt, octets=b"others"), DEFAULT_TENANT)
        assert tx.find_wipe(names[0], 0) == receipt
    assert list(store.reading.unwiped(after="", limit=9)) == names[1:2]
    assert list(store.reading.every_wipe()) == [receipt]
    at, retired, blank = NOW + 60, DeviceState.retired, DeviceState.blank
    lives = ((None, retired, NOW), (retired, retired, NOW + 1), (retired, blank, NOW + 2), (blank, retired, at), (retired, retired, at + 9))
    with store.ledger.writing() as tx:
        for before, after, when in lives:
            tx.change_device(DeviceChange(names[0], before, after, when, "r", "ada", "operator/local", ""))
    assert list(store.reading.unwiped(after="", limit=9)) == names[:2], "it came back, and was retired again"
    again = replace(receipt, octets=b"others", retired_at=at)
    with store.ledger.writing() as tx:
        assert tx.find_wipe(names[0], at) is None
        assert tx.add_wipe(again, DEFAULT_TENANT)
        assert not tx.add_wipe(again, DEFAULT_TENANT)
        assert (tx.find_wipe(names[0], 0), tx.find_wipe(names[0], at)) == (receipt, again)
    assert list(store.reading.unwiped(after="", limit=9)) == names[1:2]
    assert list(store.reading.every_wipe()) == [receipt, again]
