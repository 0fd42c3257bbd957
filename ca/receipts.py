"""Makes receipts from the published log. Ring 4: knows rules and ports only.

Reads the files that everybody can read; needs the database only to learn a leaf's index.
"""

from __future__ import annotations

from collections.abc import Sequence

from ca.errors import Broken, NotFound, Unavailable
from ca.model import Digest
from ca.ports import LeafIndex, RecordFiles
from ca.rules import merkle, note, receipt, tiles


class Receipts:
    """Safe to call from several threads when its ports are."""

    def __init__(self, *, files: RecordFiles, leaves: LeafIndex, keys: Sequence[note.NoteKey]) -> None:
        self._files = files
        self._leaves = leaves
        self._keys = tuple(keys)

    def of(self, leaf_hash: Digest) -> receipt.Receipt:
        """The receipt of a leaf against the newest published checkpoint.

        Raises:
            NotFound: no such leaf (`no-leaf`).
            Unavailable: it waits for the sequencer (`leaf-pending`); ask again in some seconds.
            Broken: the log's files are not what its checkpoint says (`record-files`).
        """
        leaf = self._leaves.find_leaf(leaf_hash)
        if leaf is None:
            raise NotFound("no-leaf", "There is no such leaf in the record.")
        octets = self._files.read(tiles.CHECKPOINT)
        checkpoint = note.read_checkpoint(octets, self._keys) if octets is not None else None
        if leaf.index is None or checkpoint is None or leaf.index >= checkpoint.size:
            raise Unavailable(
                "leaf-pending",
                "The leaf is recorded and not yet published.",
                why="The sequencer publishes about once a second.",
                retry_after=2,
            )
        proof = merkle.inclusion_proof(leaf.index, checkpoint.size, tiles.node_reader(self._files.read, checkpoint.size))
        made = receipt.Receipt(leaf.index, leaf.body, proof, checkpoint.note)
        if not merkle.proves_inclusion(leaf.index, checkpoint.size, leaf_hash, root=checkpoint.root, proof=proof):
            # We hand out nothing that its reader could not verify.
            raise Broken(
                "record-files",
                "The published log is not what its checkpoint says.",
                why=f"No proof leads from leaf {leaf.index} to its root.",
                fix="Run fleetca audit verify on the folder of the log.",
            )
        return made
