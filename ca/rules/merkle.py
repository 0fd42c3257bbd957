"""The Merkle tree of the record: hashes, roots, inclusion and consistency proofs (RFC 9162 2.1). Pure.

Knows octets and numbers only; not what a leaf says, nor where hashes are kept. Who keeps them hands in a `Node`: a function that gives
the hash of any perfect subtree. Proofs are made from spans (`inclusion_spans`, `consistency_spans`), so that an auditor can also say
which leaves a proof's hash stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from ca.model import Digest

EMPTY_ROOT = Digest(sha256(b"").digest())
"""The root of a tree without leaves (RFC 9162 2.1.1)."""

Node: TypeAlias = Callable[[int, int], Digest]
"""`node(level, index)`: the hash of the perfect subtree over leaves `index << level` to `(index + 1) << level`, exclusive."""


def leaf_hash(body: bytes) -> Digest:
    """RFC 9162 2.1.1: 0x00 keeps leaves apart from nodes."""
    return Digest(sha256(b"\x00" + body).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """RFC 9162 2.1.1: 0x01."""
    return Digest(sha256(b"\x01" + left + right).digest())


@dataclass(frozen=True, slots=True)
class Span:
    """The leaves from `start` to `end`, exclusive, as a subtree of an RFC 9162 tree."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"leaf {self.start}" if self.end == self.start + 1 else f"leaves {self.start} to {self.end - 1}"


def _split(count: int) -> int:
    """The greatest power of two below `count`, which is at least 2 (RFC 9162 2.1.1)."""
    return 1 << ((count - 1).bit_length() - 1)


# ---- Growing a tree -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree reduced to what its growth needs: the roots of its perfect subtrees, greatest first."""

    size: int = 0
    peaks: tuple[Digest, ...] = ()

    def root(self) -> Digest:
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def extend(frontier: Frontier, leaves: Iterable[Digest]) -> Frontier:
    """The tree with more leaf hashes at its end."""
    size, peaks = frontier.size, list(frontier.peaks)
    for leaf in leaves:
        peak, bits = leaf, size
        while bits & 1:
            peak = node_hash(peaks.pop(), peak)
            bits >>= 1
        peaks.append(peak)
        size += 1
    return Frontier(size, tuple(peaks))


def root_of(leaves: Iterable[Digest]) -> Digest:
    """MTH over leaf hashes (RFC 9162 2.1.1)."""
    return extend(Frontier(), leaves).root()


def perfect_root(hashes: Sequence[Digest]) -> Digest:
    """The root over 2**n hashes of equal height: what a full tile becomes in the tile above."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def span_root(span: Span, node: Node) -> Digest:
    """The hash of a subtree that may be ragged at its right edge, from perfect ones."""
    roots: list[Digest] = []
    start = span.start
    while start < span.end:
        level = (span.end - start).bit_length() - 1
        roots.append(node(level, start >> level))
        start += 1 << level
    root = roots.pop()
    while roots:
        root = node_hash(roots.pop(), root)
    return root


def tree_root(size: int, node: Node) -> Digest:
    """The root of the tree of the first `size` leaves."""
    return span_root(Span(0, size), node) if size else EMPTY_ROOT


# ---- Making proofs --------------------------------------------------------------------------------------------------


def inclusion_spans(index: int, size: int) -> list[Span]:
    """What each hash of an inclusion proof stands for, in its order (RFC 9162 2.1.3.1). Needs 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    spans.reverse()
    return spans


def consistency_spans(first: int, second: int) -> list[Span]:
    """What each hash of a consistency proof stands for, in its order (RFC 9162 2.1.4.1). Needs 0 <= first <= second."""
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {first} is no beginning of one of {second}")
    if first in (0, second):
        return []
    spans: list[Span] = []
    start, end, whole = 0, second, True
    # SUBPROOF of the RFC as a loop: walk towards the old tree's right edge, keep what is passed on the other side.
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start, whole = middle, False
    if not whole:
        spans.append(Span(start, end))
    spans.reverse()
    return spans


def inclusion_proof(index: int, size: int, node: Node) -> tuple[Digest, ...]:
    """Shows that a leaf stands at `index` of the tree of the first `size` leaves."""
    return tuple(span_root(span, node) for span in inclusion_spans(index, size))


def consistency_proof(first: int, second: int, node: Node) -> tuple[Digest, ...]:
    """Shows that the tree of `second` leaves begins with the tree of `first` leaves."""
    return tuple(span_root(span, node) for span in consistency_spans(first, second))


# ---- Checking proofs ------------------------------------------------------------------------------------------------


def root_from_inclusion(index: int, size: int, leaf: Digest, proof: Sequence[bytes]) -> Digest | None:
    """The root that an inclusion proof leads to (RFC 9162 2.1.3.2), or None when the proof has not the shape of its numbers.

    The numbers alone fix how many hashes there are and on which side each goes, so a proof cannot be re-read as one for another index.
    """
    if not 0 <= index < size:
        return None
    here, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if here & 1 or here == last:
            root = node_hash(sibling, root)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        here >>= 1
        last >>= 1
    return root if last == 0 else None


def proves_inclusion(index: int, size: int, leaf: Digest, *, root: Digest, proof: Sequence[bytes]) -> bool:
    return root_from_inclusion(index, size, leaf, proof) == root


def proves_consistency(first: int, second: int, *, first_root: Digest, second_root: Digest, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that one tree begins with the other (RFC 9162 2.1.4.2).

    The RFC defines it for 0 < first; a tree without leaves begins every tree.
    """
    if not 0 <= first <= second:
        return False
    if first == 0:
        return not proof and first_root == EMPTY_ROOT and (second > 0 or second_root == EMPTY_ROOT)
    if first == second:
        return not proof and first_root == second_root
    if not proof:
        return False
    path = list(proof)
    if first & (first - 1) == 0:  # the old tree is perfect: its root is the first hash, left out of the proof
        path.insert(0, first_root)
    here, last = first - 1, second - 1
    while here & 1:
        here >>= 1
        last >>= 1
    old = new = Digest(path[0])
    for sibling in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        here >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root
