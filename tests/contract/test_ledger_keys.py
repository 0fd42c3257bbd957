"""The inventory of keys in the database: on SQLite and PostgreSQL alike (REQ-KEY-083, REQ-KEY-097)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ca.errors import Conflict
from ca.model import Digest, KeyChange, KeyName, KeyState
from ca.rules import key_life
from ca.store.engine import Store
from tests.unit.test_key_life import NOW, RECORD


def add(store: Store, record: object = RECORD) -> None:
    with store.ledger.writing() as tx:
        tx.add_key(record, key_life.begin(record, reason="found", actor="test"))  # type: ignore[arg-type]


def test_a_key_is_found_as_it_was_written(store: Store) -> None:
    bare = replace(RECORD, spki_sha256=Digest(b"\2" * 32), name=KeyName("root"), protection=None, period_ends=None)
    add(store)
    add(store, bare)
    assert list(store.reading.key_records()) == [RECORD, bare]
    assert store.reading.find_key(RECORD.spki_sha256) == RECORD
    assert store.reading.find_key(Digest(bytes(32))) is None


def test_a_key_comes_in_once(store: Store) -> None:
    add(store)
    with pytest.raises(Conflict) as known, store.ledger.writing() as tx:
        tx.add_key(RECORD, key_life.begin(RECORD, reason="again", actor="test"))
    assert known.value.code == "key-known"
    assert len(store.reading.key_changes(RECORD.spki_sha256)) == 1


def test_what_happened_to_a_key_stays_in_order(store: Store) -> None:
    add(store)
    record = RECORD
    for number, state in enumerate((KeyState.suspended, KeyState.active, KeyState.compromised, KeyState.destroyed)):
        record, change = key_life.move(record, state, reason=f"step {number}", actor="test", at=NOW + number)
        with store.ledger.writing() as tx:
            tx.change_key(record, change)
    assert store.reading.find_key(RECORD.spki_sha256) == record
    changes = store.reading.key_changes(RECORD.spki_sha256)
    assert [change.after.value for change in changes] == ["active", "suspended", "active", "compromised", "destroyed"]
    assert [change.before for change in changes][:2] == [None, KeyState.active]


def test_a_change_of_a_key_that_has_changed_meanwhile_is_refused(store: Store) -> None:
    add(store)
    stale = KeyChange(RECORD.spki_sha256, KeyState.suspended, KeyState.active, NOW, "late", "test", "")
    with pytest.raises(Conflict) as changed, store.ledger.writing() as tx:
        tx.change_key(RECORD, stale)
    assert changed.value.code == "key-changed"
    assert len(store.reading.key_changes(RECORD.spki_sha256)) == 1
