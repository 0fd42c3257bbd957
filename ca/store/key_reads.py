"""Questions about the inventory of keys, for readers and writers alike. Statements and rows to words, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ca.model import (
    AlgorithmName,
    Digest,
    KeyChange,
    KeyName,
    KeyOrigin,
    KeyPurpose,
    KeyRecord,
    KeyState,
    Protection,
    TenantId,
)
from ca.store import tables as t
from ca.store.reads import Reads, param
from ca.store.rows import Row

_k, _h = t.key_records.c, t.key_changes.c

FIND_KEY = sa.select(t.key_records).where(_k.spki_sha256 == param("spki_sha256"))
KEY_RECORDS = sa.select(t.key_records)  # a few dozen rows at most: sorted here
KEY_CHANGES = (
    sa.select(_h.spki_sha256, _h.before, _h.after, _h.at, _h.reason, _h.actor, _h.evidence)
    .where(_h.spki_sha256 == param("spki_sha256"))
    .order_by(_h.id)
)


def record_of(row: Row) -> KeyRecord:
    spki_sha256, tenant, name, purpose, origin, algorithm, spki, store, place, protection, owner, state, created, ends, changed = row
    return KeyRecord(
        spki_sha256=Digest(bytes(spki_sha256)),
        tenant=TenantId(tenant),
        name=KeyName(name),
        purpose=KeyPurpose(purpose),
        origin=KeyOrigin(origin),
        algorithm=AlgorithmName(algorithm),
        spki=bytes(spki),
        store=store,
        place=place,
        protection=None if protection is None else Protection[protection],
        owner=owner,
        state=KeyState(state),
        created=created,
        period_ends=ends,
        changed=changed,
    )


def row_of(record: KeyRecord) -> dict[str, Any]:
    return {
        "spki_sha256": record.spki_sha256,
        "tenant": record.tenant,
        "name": record.name,
        "purpose": record.purpose.value,
        "origin": record.origin.value,
        "algorithm": record.algorithm,
        "spki": record.spki,
        "store": record.store,
        "place": record.place,
        "protection": None if record.protection is None else record.protection.name,
        "owner": record.owner,
        "state": record.state.value,
        "created": record.created,
        "period_ends": record.period_ends,
        "changed": record.changed,
    }


class KeyReads(Reads):
    def find_key(self, spki_sha256: Digest) -> KeyRecord | None:
        """The key with that public half."""
        row = self._first(FIND_KEY, {"spki_sha256": spki_sha256})
        return None if row is None else record_of(row)

    def key_records(self) -> Sequence[KeyRecord]:
        """The inventory of keys, by name and age."""
        found = [record_of(row) for row in self._all(KEY_RECORDS, {})]
        return sorted(found, key=lambda each: (each.name, each.created, each.spki_sha256))

    def key_changes(self, spki_sha256: Digest) -> Sequence[KeyChange]:
        """What happened to a key, oldest first."""
        return [
            KeyChange(Digest(bytes(key)), None if before is None else KeyState(before), KeyState(after), at, reason, actor, evidence)
            for key, before, after, at, reason, actor, evidence in self._all(KEY_CHANGES, {"spki_sha256": spki_sha256})
        ]
