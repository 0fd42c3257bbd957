"""What the life of a key writes. Statements only; which moves are lawful is for `ca.rules.key_life`."""

from __future__ import annotations

import sqlalchemy as sa

from ca.errors import Conflict
from ca.model import KeyChange, KeyRecord
from ca.store import tables as t
from ca.store.key_reads import KeyReads, row_of
from ca.store.reads import insert, param, values_of
from ca.store.writes import Writes

_k = t.key_records.c
_CHANGING = ("store", "place", "protection", "owner", "state", "period_ends", "changed")

ADD_KEY = insert(t.key_records).values(values_of(t.key_records)).on_conflict_do_nothing()
CHANGE_KEY = (
    sa.update(t.key_records)
    .where(_k.spki_sha256 == param("the_key"), _k.state == param("state_before"))
    .values({name: param(name) for name in _CHANGING})
)
ADD_CHANGE = sa.insert(t.key_changes).values(
    values_of(t.key_changes, "spki_sha256", "before", "after", "at", "reason", "actor", "evidence")
)


class KeyWrites(Writes, KeyReads):
    def add_key(self, record: KeyRecord, change: KeyChange) -> None:
        """A new key, and how it came here.

        Raises:
            Conflict: it is in the inventory (`key-known`).
        """
        if not self._change(ADD_KEY, row_of(record)):
            raise Conflict("key-known", f"The key {record.name} is in the inventory already.", fix="Look at it: fleetca keys list")
        self._note(change)

    def change_key(self, record: KeyRecord, change: KeyChange) -> None:
        """The record as it is after a change, and the change.

        Raises:
            Conflict: it is in another state (`key-changed`).
        """
        row = row_of(record)
        before = (change.before or record.state).value
        changed = self._change(
            CHANGE_KEY, {**{name: row[name] for name in _CHANGING}, "the_key": record.spki_sha256, "state_before": before}
        )
        if not changed:
            raise Conflict("key-changed", f"The key {record.name} is in another state than {before} meanwhile.", fix="Look at it again.")
        self._note(change)

    def _note(self, change: KeyChange) -> None:
        self._change(
            ADD_CHANGE,
            {
                "spki_sha256": change.spki_sha256,
                "before": None if change.before is None else change.before.value,
                "after": change.after.value,
                "at": change.at,
                "reason": change.reason,
                "actor": change.actor,
                "evidence": change.evidence,
            },
        )
