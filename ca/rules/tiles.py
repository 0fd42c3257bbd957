"""The published form of the record: C2SP tlog-tiles paths, hash tiles and entry bundles, and how they grow. Pure.

Knows which octets stand in which file of a log of a given size; reads and writes none. A tile holds up to 256 hashes of one height
(level L: subtrees of 256**L leaves), a bundle the bodies of up to 256 leaves. Full tiles never change; a partial one (`.p/W`) is a file
of its own for each width, so that a reader who holds a checkpoint always finds the very octets it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ca.errors import Broken, Malformed
from ca.model import Digest
from ca.rules import merkle

WIDTH = 256
HASH = 32
MAX_ENTRY = 0xFFFF
"""Entries carry a length of two octets."""
CHECKPOINT = "checkpoint"

Read: TypeAlias = Callable[[str], bytes | None]
"""Gives a file's octets by its path, None when there is none."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """One file: `level` -1 is the entry bundle beside the level 0 tile of the same index."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        kind = "entries" if self.level < 0 else str(self.level)
        return f"tile/{kind}/{_number(self.index)}" + ("" if self.width == WIDTH else f".p/{self.width}")

    @property
    def full_path(self) -> str:
        return Tile(self.level, self.index, WIDTH).path


def _number(index: int) -> str:
    """Three digits an element, all but the last marked: 1234067 is `x001/x234/067`."""
    elements = [f"{index % 1000:03d}"]
    while index := index // 1000:
        elements.append(f"x{index % 1000:03d}")
    return "/".join(reversed(elements))


def tiles_of(size: int) -> Iterator[Tile]:
    """Every file that a log of `size` leaves consists of, beside its checkpoint."""
    for level in (-1, *range(_levels(size))):
        full, partial = divmod(size >> (8 * max(level, 0)), WIDTH)
        yield from (Tile(level, index, WIDTH) for index in range(full))
        if partial:
            yield Tile(level, full, partial)


def _levels(size: int) -> int:
    count = 0
    while size >> (8 * count):
        count += 1
    return count


# ---- Entry bundles --------------------------------------------------------------------------------------------------


def bundle(bodies: Sequence[bytes]) -> bytes:
    """Entries one after the other, each behind its length in two octets.

    Raises:
        Broken: an entry is longer than that can say (`leaf-too-long`).
    """
    for body in bodies:
        if len(body) > MAX_ENTRY:
            raise Broken(
                "leaf-too-long",
                "A leaf does not fit into the log.",
                why=f"It has {len(body)} octets; a tlog-tiles entry has at most {MAX_ENTRY}.",
            )
    return b"".join(len(body).to_bytes(2, "big") + body for body in bodies)


def entries(octets: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        Malformed: it ends in the middle of an entry (`bad-bundle`).
    """
    bodies: list[bytes] = []
    at = 0
    while at < len(octets):
        end = at + 2 + int.from_bytes(octets[at : at + 2], "big")
        if at + 2 > len(octets) or end > len(octets):
            raise Malformed(
                "bad-bundle", "An entry bundle ends in the middle of an entry.", why=f"Entry {len(bodies)} begins at octet {at}."
            )
        bodies.append(octets[at + 2 : end])
        at = end
    return bodies


def hashes(octets: bytes) -> list[Digest]:
    """The hashes of a tile.

    Raises:
        Malformed: not a whole number of them, none, or too many (`bad-tile`).
    """
    if len(octets) % HASH or not 0 < len(octets) <= HASH * WIDTH:
        raise Malformed("bad-tile", "A hash tile has a length that no tile has.", why=f"It has {len(octets)} octets.")
    return [Digest(octets[at : at + HASH]) for at in range(0, len(octets), HASH)]


# ---- Reading --------------------------------------------------------------------------------------------------------


def read_tile(read: Read, tile: Tile) -> bytes | None:
    """A tile's or bundle's octets; a partial one that is gone is cut from its full successor, as tlog-tiles allows."""
    octets = read(tile.path)
    if octets is not None or tile.width == WIDTH:
        return octets
    whole = read(tile.full_path)
    if whole is None:
        return None
    if tile.level >= 0:
        return whole[: HASH * tile.width]
    return bundle(entries(whole)[: tile.width])


def node_reader(read: Read, size: int) -> merkle.Node:
    """The perfect subtrees of a log of `size` leaves, from its tiles; each tile is read once.

    The function raises Malformed (`bad-tile`, `no-tile`) where the files do not hold what a log of that size must.
    """
    seen: dict[tuple[int, int], list[Digest]] = {}

    def tile_hashes(level: int, index: int) -> list[Digest]:
        if (level, index) not in seen:
            tile = Tile(level, index, min(WIDTH, (size >> (8 * level)) - index * WIDTH))
            octets = read_tile(read, tile)
            if octets is None:
                raise Malformed("no-tile", f"The file {tile.path} of the log is missing.")
            found = hashes(octets)
            if len(found) != tile.width:
                raise Malformed("bad-tile", f"The file {tile.path} of the log holds {len(found)} hashes, not {tile.width}.")
            seen[level, index] = found
        return seen[level, index]

    def node(height: int, index: int) -> Digest:
        level, rest = divmod(height, 8)
        first = index << rest
        row = tile_hashes(level, first // WIDTH)
        at = first % WIDTH
        return merkle.perfect_root(row[at : at + (1 << rest)])

    return node


# ---- Growing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a log: all that its growth needs. `rows[L]` are the hashes of level L's partial tile, `bodies` those of the bundle."""

    size: int = 0
    rows: tuple[tuple[Digest, ...], ...] = ()
    bodies: tuple[bytes, ...] = ()

    def root(self) -> Digest:
        """The root of the tree, from the rows: each is a run of perfect subtrees of equal height, the highest level leftmost."""
        roots: list[Digest] = []
        for row in reversed(self.rows):
            start = 0
            while start < len(row):
                count = 1 << ((len(row) - start).bit_length() - 1)
                roots.append(merkle.perfect_root(row[start : start + count]))
                start += count
        if not roots:
            return merkle.EMPTY_ROOT
        root = roots.pop()
        while roots:
            root = merkle.node_hash(roots.pop(), root)
        return root


def read_edge(read: Read, size: int) -> Edge:
    """The edge of a log of `size` leaves, from its files.

    Raises:
        Malformed: a file is missing, has the wrong length, or the bundle is not what the level 0 tile says
            (`no-tile`, `bad-tile`, `bad-bundle`).
    """
    rows: list[tuple[Digest, ...]] = []
    bodies: tuple[bytes, ...] = ()
    for level in (*range(_levels(size)), -1):
        index, width = divmod(size >> (8 * max(level, 0)), WIDTH)
        if not width:
            if level >= 0:
                rows.append(())
            continue
        tile = Tile(level, index, width)
        octets = read_tile(read, tile)
        if octets is None:
            raise Malformed("no-tile", f"The file {tile.path} of the log is missing.")
        if level < 0:
            bodies = tuple(entries(octets))
            if tuple(merkle.leaf_hash(body) for body in bodies) != rows[0]:
                raise Malformed("bad-bundle", f"The entries in {tile.path} are not those that the hash tile beside it names.")
        else:
            row = tuple(hashes(octets))
            if len(row) != width:
                raise Malformed("bad-tile", f"The file {tile.path} of the log holds {len(row)} hashes, not {width}.")
            rows.append(row)
    return Edge(size, tuple(rows), bodies)


def grow(edge: Edge, bodies: Sequence[bytes]) -> tuple[Edge, list[tuple[Tile, bytes]]]:
    """The log with more leaves: its new edge, and the full tiles and bundles that growth completed. Partial ones: `partials`."""
    rows = [list(row) for row in edge.rows]
    pending = list(edge.bodies)
    done: list[tuple[Tile, bytes]] = []
    size = edge.size
    for body in bodies:
        pending.append(body)
        size += 1
        carry, level = merkle.leaf_hash(body), 0
        while True:
            if level == len(rows):
                rows.append([])
            row = rows[level]
            row.append(carry)
            if len(row) < WIDTH:
                break
            index = (size >> (8 * (level + 1))) - 1
            if level == 0:
                done.append((Tile(-1, index, WIDTH), bundle(pending)))
                pending = []
            done.append((Tile(level, index, WIDTH), b"".join(row)))
            carry = merkle.perfect_root(row)
            rows[level] = []
            level += 1
    return Edge(size, tuple(tuple(row) for row in rows), tuple(pending)), done


def partials(edge: Edge) -> list[tuple[Tile, bytes]]:
    """The partial tiles and the partial bundle that a checkpoint of this size needs."""
    found = [(Tile(level, edge.size >> (8 * (level + 1)), len(row)), b"".join(row)) for level, row in enumerate(edge.rows) if row]
    if edge.bodies:
        found.insert(0, (Tile(-1, edge.size >> 8, len(edge.bodies)), bundle(edge.bodies)))
    return found
