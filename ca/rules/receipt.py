"""Receipts: proof for whoever got a certificate that its issuance stands in the record, checkable offline for ever. Pure.

A receipt is one JSON object: the leaf, its index, the inclusion proof and the signed checkpoint it leads to. Kept by many, receipts are
what makes a rewritten log visible: each pins a leaf, a size and a root that the log's key has signed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ca.errors import Malformed, Unauthenticated
from ca.model import Checkpoint, Digest
from ca.rules import merkle, note

FORMAT = "fleetca receipt v1"
_LONGEST = 1 << 20
_MOST_HASHES = 64


@dataclass(frozen=True, slots=True)
class Receipt:
    index: int
    body: bytes
    proof: tuple[Digest, ...]
    note: bytes
    """The signed checkpoint, whole."""

    @property
    def leaf_hash(self) -> Digest:
        return merkle.leaf_hash(self.body)


def document(receipt: Receipt) -> dict[str, Any]:
    """The receipt as JSON knows it. The leaf stands there as text, so that people can read what was promised."""
    return {
        "format": FORMAT,
        "index": receipt.index,
        "leaf": receipt.body.decode(),
        "proof": [base64.b64encode(digest).decode() for digest in receipt.proof],
        "checkpoint": receipt.note.decode(),
    }


def read(octets: bytes) -> Receipt:
    """A receipt from JSON; says nothing about whether it holds.

    Raises:
        Malformed: not a receipt (`bad-receipt`).
    """
    try:
        found = json.loads(octets) if len(octets) <= _LONGEST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise Malformed("bad-receipt", "This is not a receipt.", why=f"Expected a JSON object of the format {FORMAT!r}.")
    index, leaf, proof, checkpoint = (found.get(name) for name in ("index", "leaf", "proof", "checkpoint"))
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 1 << 63:
        raise Malformed("bad-receipt", "This receipt cannot be read.", why="Its index is not a number.")
    if not isinstance(leaf, str) or not isinstance(checkpoint, str) or not isinstance(proof, list) or len(proof) > _MOST_HASHES:
        raise Malformed("bad-receipt", "This receipt cannot be read.", why="It needs leaf, proof and checkpoint.")
    try:
        digests = tuple(Digest(base64.b64decode(each, validate=True)) for each in proof)
        body, signed = leaf.encode(), checkpoint.encode()
    except (ValueError, TypeError):
        raise Malformed("bad-receipt", "This receipt cannot be read.", why="A hash or text in it is not encoded as it should be.") from None
    if any(len(digest) != 32 for digest in digests):
        raise Malformed("bad-receipt", "This receipt cannot be read.", why="A hash in it has not 32 octets.")
    return Receipt(index, body, digests, signed)


def verify(receipt: Receipt, keys: Sequence[note.NoteKey]) -> Checkpoint:
    """The checkpoint that a receipt leads to, when a trusted key signed it.

    Raises:
        Malformed: its checkpoint cannot be read.
        Unauthenticated: no trusted key signed the checkpoint, or the proof does not lead there (`receipt-proof`).
    """
    checkpoint = note.read_checkpoint(receipt.note, keys)
    if not merkle.proves_inclusion(receipt.index, checkpoint.size, receipt.leaf_hash, root=checkpoint.root, proof=receipt.proof):
        raise Unauthenticated(
            "receipt-proof",
            "The receipt does not show that its leaf stands in the log.",
            why=f"Its proof does not lead from leaf {receipt.index} to the root of the checkpoint of {checkpoint.size} leaves.",
        )
    return checkpoint


def is_for(receipt: Receipt, tbs: bytes) -> bool:
    """Whether the receipt's leaf is the issuance of the certificate with these to-be-signed octets."""
    try:
        leaf = json.loads(receipt.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(leaf, Mapping) and leaf.get("kind") == "issuance" and leaf.get("tbs_sha256") == sha256(tbs).hexdigest()
