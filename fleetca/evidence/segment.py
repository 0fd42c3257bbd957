"""The part of the record that a pack is about: which leaves, and what proves that they stand in the signed tree. Reads the log's files only.

The leaves are those of the period with a bundle more on either side, so that whoever reads them sees where the period begins and ends. What
lies before and behind is there as the hashes of perfect subtrees: with the leaves they lead to the signed root (RFC 9162 2.1), so one proof
serves for all leaves, and for every earlier size among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ca import audit
from ca.errors import Broken
from ca.model import Checkpoint, Digest
from ca.ports import RecordFiles
from ca.rules import merkle, tiles
from fleetca.evidence.verify import Tally, Tree


@dataclass(frozen=True, slots=True)
class Segment:
    """Leaves `start` to `end`, exclusive, of a log of `size`."""

    start: int
    end: int
    size: int
    last_at: int
    """The latest time that a leaf up to the period's end tells."""


def subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees (level, index) of a tree that together hold the leaves from `start` to `end`, exclusive, in order."""
    while start < end:
        level = (start & -start).bit_length() - 1 if start else end.bit_length() - 1
        while start + (1 << level) > end:
            level -= 1
        yield level, start >> level
        start += 1 << level


def find(files: RecordFiles, checkpoint: Checkpoint, tally: Tally) -> Segment:
    """Read the log once, in bounded memory: where the period lies in it. The tally counts on the way.

    Raises:
        Broken: a leaf is missing or none (`evidence-log`).
    """
    first, last, seen, last_at = checkpoint.size, -1, 0, 0
    for index, body in audit.show(files, start=0, size=checkpoint.size):
        leaf = read(body, index)
        seen = index + 1
        if leaf["at"] < tally.end:
            last_at = max(last_at, leaf["at"])
        if tally.begin <= leaf["at"] < tally.end:
            first, last = min(first, index), index
            tally.take(leaf)
    if seen != checkpoint.size:
        raise broken(f"leaf {seen} cannot be read")
    last = max(last, first - 1)
    start = max(0, first // tiles.WIDTH - 1) * tiles.WIDTH
    end = min(checkpoint.size, ((last + tiles.WIDTH) // tiles.WIDTH + 1) * tiles.WIDTH)
    return Segment(start, end, checkpoint.size, last_at)


def read(body: bytes, index: int) -> dict[str, Any]:
    """A leaf as an object.

    Raises:
        Broken: it is none (`evidence-log`).
    """
    try:
        leaf = json.loads(body)
    except ValueError:
        leaf = None
    if not isinstance(leaf, dict) or not isinstance(leaf.get("kind"), str) or type(leaf.get("at")) is not int or b"\n" in body:
        raise broken(f"leaf {index} is none of ours")
    return leaf


def broken(why: str) -> Broken:
    return Broken(
        "evidence-log",
        "The record does not hold; no pack is made of it.",
        why=f"{why}.",
        fix="Find out what was touched: fleetca audit verify",
    )


def bodies(files: RecordFiles, segment: Segment, checkpoint: Checkpoint) -> Iterator[bytes]:
    """The leaves, and at the end the proof that they are those of the checkpoint.

    Raises:
        Broken: they do not lead to its root (`evidence-log`).
    """
    before, after = proof(files, segment)
    tree = Tree()
    for level, digest in before:
        tree.add(level, digest)
    for index, body in audit.show(files, start=segment.start, size=segment.end):
        read(body, index)
        tree.add(0, merkle.leaf_hash(body))
        yield body
    for level, digest in after:
        tree.add(level, digest)
    if tree.root() != checkpoint.root:
        raise broken("Its leaves do not lead to the root of its checkpoint")


def proof(files: RecordFiles, segment: Segment) -> tuple[Sequence[tuple[int, Digest]], Sequence[tuple[int, Digest]]]:
    """The subtrees before and behind the leaves: level and hash."""
    node = tiles.node_reader(files.read, segment.size)
    before, after = (
        [(level, node(level, index)) for level, index in subtrees(*span)] for span in ((0, segment.start), (segment.end, segment.size))
    )
    return before, after


def consistency(files: RecordFiles, kept: Checkpoint, segment: Segment) -> Sequence[Digest]:
    """Shows that the log began as it was once signed."""
    return merkle.consistency_proof(kept.size, segment.size, tiles.node_reader(files.read, segment.size))
