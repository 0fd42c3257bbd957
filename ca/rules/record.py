"""Judges one copy of the record by itself: do entries, tiles and checkpoint tell one story, and if not, which leaf was touched. Pure.

Reads files through a function and knows nothing of folders or databases. What copies, receipts and kept checkpoints say against each
other stands in `ca.rules.witness`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from ca.errors import FleetcaError, Malformed
from ca.model import Checkpoint, Digest
from ca.rules import merkle, note, tiles
from ca.rules.history import Change, Difference, differences
from ca.rules.leaf import canonical
from ca.rules.tiles import Read, Tile

_PATH = re.compile(r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class Kind(StrEnum):
    """What the audit can find. The first four name leaves; `forked` says that the log's key signed two histories."""

    edited = "edited"
    dropped = "dropped"
    inserted = "inserted"
    reordered = "reordered"
    forked = "forked"
    missing = "missing"
    damaged = "damaged"
    malformed = "malformed"
    signature = "signature"
    other_log = "other-log"
    row_without_leaf = "row-without-leaf"
    leaf_without_row = "leaf-without-row"
    row_differs = "row-differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """`first` and `last` are the leaves it is about, both inclusive; None where it is about no leaf in particular."""

    kind: Kind
    what: str
    first: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Copy:
    """One copy of the log. `hashes` is the history that it stands for: the one its checkpoint signs where that can be told."""

    name: str
    checkpoint: Checkpoint | None
    hashes: list[Digest]
    body: Callable[[int], bytes | None]
    """A leaf's body, as the entry bundles have it now."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def leaves(first: int, last: int) -> str:
    return f"leaf {first}" if first == last else f"leaves {first} to {last}"


def label(body: bytes | None) -> str:
    """A leaf in a few words, for people."""
    if body is None:
        return "nothing readable"
    try:
        document = json.loads(body)
        kind = str(document["kind"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{len(body)} octets that are no leaf of ours"
    what = [f"{document['issuer']}/{document['serial']}"] if "serial" in document and "issuer" in document else []
    what += [f"{name} {document[name]}" for name in ("device", "id", "name", "hash", "number", "reason") if document.get(name) is not None]
    return " ".join([kind, *what])


def describe(
    found: Iterable[Difference], *, was: Callable[[int], bytes | None], now: Callable[[int], bytes | None], by: str
) -> list[Finding]:
    """Differences as findings; runs of neighbours become one. `by` says what shows it."""
    runs: list[list[Difference]] = []
    for each in found:
        before = runs[-1][-1] if runs else None
        follows = before is not None and before.change is each.change and each.change is not Change.reordered
        if follows and before and _place(each) == _place(before) + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [_finding(run, was=was, now=now, by=by) for run in runs]


def _place(difference: Difference) -> int:
    place = difference.was if difference.was is not None else difference.now
    assert place is not None
    return place


def _finding(run: Sequence[Difference], *, was: Callable[[int], bytes | None], now: Callable[[int], bytes | None], by: str) -> Finding:
    first, last = _place(run[0]), _place(run[-1])
    one = run[0]
    where = leaves(first, last)
    detail = ""
    if one.change is Change.edited:
        if len(run) == 1 and one.was is not None and one.now is not None:
            detail = f": was {label(was(one.was))}; is {label(now(one.now))}"
        what = f"{where} edited{detail}"
    elif one.change is Change.dropped:
        what = f"{where} dropped" + (f": was {label(was(first))}" if len(run) == 1 else "")
    elif one.change is Change.inserted:
        what = f"{where} inserted" + (f": is {label(now(first))}" if len(run) == 1 else "")
    else:
        what = f"{where} reordered: stands at {one.now} now ({label(was(first))})"
    return Finding(Kind(one.change.value), f"{what} ({by})", first, last)


# ---- Reading a copy -------------------------------------------------------------------------------------------------


def read_copy(name: str, read: Read, names: Iterable[str], keys: Sequence[note.NoteKey]) -> Copy:
    """Read every file of a copy and hold them against each other."""
    files = sorted(names)
    findings: list[Finding] = []
    checkpoint = _checkpoint(name, read, keys, findings)
    size = checkpoint.size if checkpoint else _size_of(files)

    @lru_cache(maxsize=2)
    def entries(bundle: int) -> list[bytes]:
        return _entries(read, Tile(-1, bundle, max(1, _width(size, -1, bundle))))

    def body(index: int) -> bytes | None:
        bundle, at = divmod(index, tiles.WIDTH)
        return entries(bundle)[at] if at < len(entries(bundle)) else None

    copy = Copy(name, checkpoint, [], body, findings)
    told, tiled, whole = _leaf_level(copy, read, size)
    root = checkpoint.root if checkpoint else None
    told_root, tiled_root = merkle.root_of(told), merkle.root_of(tiled)
    upper = _upper_levels(copy, read, told if root == told_root and len(told) == size else tiled, size)
    copy.hashes = tiled if root == tiled_root != told_root else told
    if told != tiled:
        if root == told_root and len(told) == size:
            wrong = sorted({index // tiles.WIDTH for index in range(size) if told[index] != tiled[index]})
            copy.findings += [_damaged(copy, Tile(0, index, _width(size, 0, index)), size) for index in wrong]
        else:
            changes = differences(tiled, told)
            copy.findings += describe(changes, was=lambda _: None, now=copy.body, by=f"the hash tiles of {name} name other entries")
            if not changes:  # only more of them
                copy.findings.append(
                    Finding(Kind.inserted, f"{name} holds {len(told)} entries where its size is {size}", size, len(told) - 1)
                )
    if root is not None and whole and root not in (told_root, tiled_root):
        spans = [span for span, _ in upper] or [merkle.Span(0, size)]
        copy.findings += [
            Finding(Kind.edited, f"{span} of {name} do not lead to the root of its own checkpoint", span.start, span.end - 1)
            for span in spans
        ]
    else:
        copy.findings += [_damaged(copy, tile, size) for _, tile in upper]
    _left_over(copy, read, files, tiled, size)
    return copy


def _checkpoint(name: str, read: Read, keys: Sequence[note.NoteKey], findings: list[Finding]) -> Checkpoint | None:
    octets = read(tiles.CHECKPOINT)
    if octets is None:
        findings.append(Finding(Kind.missing, f"{name} has no checkpoint"))
        return None
    try:
        return note.read_checkpoint(octets, keys)
    except FleetcaError as error:
        findings.append(Finding(Kind.signature, f"The checkpoint of {name} does not hold: {error}"))
        return None


def _size_of(files: Sequence[str]) -> int:
    """How many leaves the entry bundles could hold: where no checkpoint says it."""
    return max((tile.index * tiles.WIDTH + tile.width for tile in map(_tile, files) if tile and tile.level < 0), default=0)


def _tile(path: str) -> Tile | None:
    match = _PATH.fullmatch(path)
    if not match:
        return None
    level, number, width = match.groups()
    index = int(number.replace("x", "").replace("/", ""))
    return Tile(-1 if level == "entries" else int(level), index, int(width) if width else tiles.WIDTH)


def _width(size: int, level: int, index: int) -> int:
    return min(tiles.WIDTH, (size >> (8 * max(level, 0))) - index * tiles.WIDTH)


def _leaf_level(copy: Copy, read: Read, size: int) -> tuple[list[Digest], list[Digest], bool]:
    """The leaf hashes as the entries tell them, as the tiles tell them, and whether every leaf is told by either."""
    told: list[Digest] = []
    tiled: list[Digest] = []
    whole = True
    for index in range((size + tiles.WIDTH - 1) // tiles.WIDTH):
        width = _width(size, 0, index)
        first = index * tiles.WIDTH
        bodies = _bodies(copy, read, Tile(-1, index, width))
        row = _row(copy, read, Tile(0, index, width), first, first + width - 1)
        entered = [merkle.leaf_hash(body) for body in bodies] if bodies is not None else None
        copy.findings += [
            Finding(Kind.malformed, f"leaf {first + at} of {copy.name} is not a leaf in canonical JSON", first + at, first + at)
            for at, body in enumerate(bodies or ())
            if not _is_leaf(body)
        ]
        if entered is None and row is None:
            whole = False
            unknown = [Digest(b"unknown %d" % at) for at in range(first, first + width)]
            entered = row = unknown
        told += entered if entered is not None else row or []
        tiled += row if row is not None else (entered or [])[:width]
    return told, tiled, whole


def _is_leaf(body: bytes) -> bool:
    try:
        document = json.loads(body)
        return isinstance(document, dict) and isinstance(document.get("kind"), str) and canonical(document) == body
    except (ValueError, RecursionError):
        return False


def _bodies(copy: Copy, read: Read, tile: Tile) -> list[bytes] | None:
    first, last = tile.index * tiles.WIDTH, tile.index * tiles.WIDTH + tile.width - 1
    try:
        octets = tiles.read_tile(read, tile)
        if octets is not None:
            return tiles.entries(octets)
    except Malformed as error:
        copy.findings.append(
            Finding(Kind.damaged, f"{tile.path} of {copy.name} ({leaves(first, last)}) cannot be read: {error}", first, last)
        )
        return None
    copy.findings.append(Finding(Kind.missing, f"{tile.path} of {copy.name} is missing: {leaves(first, last)}", first, last))
    return None


def _row(copy: Copy, read: Read, tile: Tile, first: int, last: int) -> list[Digest] | None:
    octets = tiles.read_tile(read, tile)
    if octets is None:
        copy.findings.append(
            Finding(Kind.missing, f"{tile.path} of {copy.name} is missing: hashes over {leaves(first, last)}", first, last)
        )
        return None
    if len(octets) != tile.width * tiles.HASH:
        copy.findings.append(
            Finding(Kind.damaged, f"{tile.path} of {copy.name} has {len(octets)} octets, not {tile.width * tiles.HASH}", first, last)
        )
        return None
    return tiles.hashes(octets)


def _upper_levels(copy: Copy, read: Read, tiled: Sequence[Digest], size: int) -> list[tuple[merkle.Span, Tile]]:
    """Where a tile above level 0 does not hold the hashes of what stands below it, and the leaves that is about."""
    wrong: list[tuple[merkle.Span, Tile]] = []
    row = list(tiled)
    level = 0
    while len(row) >= tiles.WIDTH:
        row = [merkle.perfect_root(row[at : at + tiles.WIDTH]) for at in range(0, len(row) - tiles.WIDTH + 1, tiles.WIDTH)]
        level += 1
        reach = 8 * level
        for index in range((len(row) + tiles.WIDTH - 1) // tiles.WIDTH):
            tile = Tile(level, index, _width(size, level, index))
            start = index * tiles.WIDTH
            expected = row[start : start + tile.width]
            found = _row(copy, read, tile, start << reach, ((start + tile.width) << reach) - 1)
            if found is not None and found != expected:
                at = [start + place for place in range(tile.width) if found[place] != expected[place]]
                wrong += [(merkle.Span(place << reach, (place + 1) << reach), tile) for place in at]
    return wrong


def _damaged(copy: Copy, tile: Tile, size: int) -> Finding:
    reach = 8 * (tile.level + 1)
    first, last = tile.index << reach, min(size, (tile.index + 1) << reach) - 1
    return Finding(Kind.damaged, f"{tile.path} of {copy.name} does not hold the hashes of {leaves(first, last)}", first, last)


def _left_over(copy: Copy, read: Read, files: Sequence[str], tiled: Sequence[Digest], size: int) -> None:
    """Partial files of earlier and later sizes: they must tell the same story where they speak of the same leaves."""
    beyond = size
    for path in files:
        tile = _tile(path)
        if tile is None or tile.level > 0:
            continue
        first = tile.index * tiles.WIDTH
        octets = read(path)
        if octets is None:  # a running sequencer drops partial files once their full one is there
            continue
        try:
            row = tiles.hashes(octets) if tile.level == 0 else [merkle.leaf_hash(body) for body in tiles.entries(octets)]
        except Malformed:
            if tile.width != _width(size, 0, tile.index):
                copy.findings.append(Finding(Kind.damaged, f"{path} of {copy.name} cannot be read", first, first + tile.width - 1))
            continue
        beyond = max(beyond, first + len(row))
        if tile.width == _width(size, 0, tile.index):
            continue  # one of the files that were judged already
        for at, (here, there) in enumerate(zip(tiled[first : first + tile.width], row, strict=False)):
            if here != there:
                copy.findings.append(
                    Finding(Kind.edited, f"leaf {first + at} edited: {path} of {copy.name} still has another one", first + at, first + at)
                )
    if beyond > size:
        copy.notes.append(
            f"{copy.name} holds files of {leaves(size, beyond - 1)}, which its checkpoint does not cover: "
            "left by a crash, or the checkpoint was set back"
        )


def _entries(read: Read, tile: Tile) -> list[bytes]:
    try:
        octets = tiles.read_tile(read, tile)
        return tiles.entries(octets) if octets is not None else []
    except Malformed:
        return []
