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
PLACES_TAKEN = (
    sa.select(_l.position)
    .where(_l.position >= param("start"), _l.position < param("end"), sa.text("position IS NOT NULL"))
    .order_by(_l.position)
    .limit(sa.literal_column("1"))
)
ASSIGN = sa.update(t.leaves).where(_l.id == param("the_id"), sa.text("position IS NULL")).values(position=param("the_position"))
RECORD_CHECKPOINT = insert(t.checkpoints).values(values_of(t.checkpoints)).on_conflict_do_nothing()
CHECKPOINT_ROOT = sa.select(t.checkpoints.c.root, t.checkpoints.c.origin).where(t.checkpoints.c.size == param("size"))


class RecordWrites(Writes):
    unwritten: list[tuple[bytes, bytes]]
    """Hash and body of each leaf that this transaction will write."""

    def append_leaf(self, leaf: LogLeaf) -> Digest:
        """Queue a leaf for the Merkle log (P8); returns its leaf hash (RFC 9162 2.1.1). It gets its index from the sequencer.

        All leaves of a transaction are written together when it ends, in order: one that cannot be written undoes all of it.
        """
        digest = sha256(b"\x00" + leaf.body).digest()
        self.unwritten.append((digest, leaf.body))
        return Digest(digest)

    def write_leaves(self) -> None:
        """Called once, before the commit."""
        if self.unwritten:
            self._change_each(APPEND_LEAF, [{"hash": digest, "body": body} for digest, body in self.unwritten])
            self.unwritten.clear()

    def assign_indexes(self, ids: Sequence[int], *, start: int) -> None:
        """Give the leaves their places: the first of `ids` gets `start`, the next `start + 1` ...

        Raises:
            Conflict: one of them has an index, or an index is taken (`leaf-sequenced`). Undo the transaction.
        """
        end = start + len(ids)
        taken = self._first(PLACES_TAKEN, {"start": start, "end": end})
        each = [{"the_id": number, "the_position": position} for position, number in enumerate(ids, start)]
        if taken is not None or self._change_each(ASSIGN, each) != len(ids):
            raise Conflict(
                "leaf-sequenced",
                f"One of {len(ids)} leaves, or an index from {start} to {end - 1}, is taken.",
                why="Another sequencer was here.",
            )

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
