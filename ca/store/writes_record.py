"""What the record needs: queued leaves, their indexes, checkpoints. Statements only; the tree itself is not kept here."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import sqlalchemy as sa

from ca.errors import Conflict
from ca.model import Checkpoint, Digest, LogLeaf, UnixTime
from ca.store import tables as t
from ca.store.reads import insert, param, values_of
from ca.store.writes import Writes

_l = t.leaves.c

APPEND_LEAF = insert(t.leaves).values(hash=param("hash"), body=param("body"))
POSITION_TAKEN = sa.select(_l.id).where(_l.position == param("position"), sa.text("position IS NOT NULL"))
ASSIGN = sa.update(t.leaves).where(_l.id == param("the_id"), sa.text("position IS NULL")).values(position=param("the_position"))
RECORD_CHECKPOINT = insert(t.checkpoints).values(values_of(t.checkpoints)).on_conflict_do_nothing()
CHECKPOINT_ROOT = sa.select(t.checkpoints.c.root, t.checkpoints.c.origin).where(t.checkpoints.c.size == param("size"))


class RecordWrites(Writes):
    def append_leaf(self, leaf: LogLeaf) -> Digest:
        """Queue a leaf for the Merkle log (P8); returns its leaf hash (RFC 9162 2.1.1). It gets its index from the sequencer."""
        digest = sha256(b"\x00" + leaf.body).digest()
        self._change(APPEND_LEAF, {"hash": digest, "body": leaf.body})
        return Digest(digest)

    def assign_indexes(self, ids: Sequence[int], *, start: int) -> None:
        """Give the leaves their places: the first of `ids` gets `start`, the next `start + 1` ...

        Raises:
            Conflict: one of them has an index, or an index is taken (`leaf-sequenced`).
        """
        for position, number in enumerate(ids, start):
            if self._first(POSITION_TAKEN, {"position": position}) is not None or not self._change(
                ASSIGN, {"the_id": number, "the_position": position}
            ):
                raise Conflict("leaf-sequenced", f"Leaf {number} or index {position} is taken already.", why="Another sequencer was here.")

    def record_checkpoint(self, checkpoint: Checkpoint, *, now: UnixTime) -> None:
        """Remember a signed checkpoint before anyone sees it. The same one again is harmless.

        Raises:
            Conflict: another root is on record for that size (`checkpoint-fork`).
        """
        added = self._change(
            RECORD_CHECKPOINT,
            {
                "size": checkpoint.size,
                "origin": checkpoint.origin,
                "root": checkpoint.root,
                "note": checkpoint.note,
                "recorded_at": now,
            },
        )
        if not added:
            there = self._first(CHECKPOINT_ROOT, {"size": checkpoint.size})
            if there is None or tuple(there) != (checkpoint.root, checkpoint.origin):
                raise Conflict(
                    "checkpoint-fork",
                    f"Another root is on record for a log of {checkpoint.size} leaves.",
                    why="The log would show two histories.",
                )
