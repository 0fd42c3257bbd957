"""CRL entries that were encoded before: files that grow as revocations come, so that no CRL costs encoding what stood in the last one. Ring 3.

A cache of the signer's, made from the database and from nothing else: whoever deletes it loses time. For shard 0 of `issuing` the folder holds

    issuing.0.der     the elements of revokedCertificates, in the order of their changes, one after the other
    issuing.0.rows    32 octets for each: change, notAfter, where it begins, how long it is
    issuing.0.gone    8 octets for each that is not listed any more: released, revoked anew, or expired and listed once after that
    issuing.0.json    up to which change all this goes, and how long each file was then

What a crash leaves: files longer than the last line of all says, which are cut back to it. A database that tells another story than before (it was
restored) is seen by the last row, and everything is made anew. What nothing here notices the gate does, which shares none of this (P6); the publisher
then asks for the entries afresh.
"""

from __future__ import annotations

import json
import os
import struct
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, Self

from ca.der.crl import Encoder
from ca.errors import StoreUnavailable
from ca.model import ChangeNumber, IssuerId, ListedChange, Reason, UnixTime

_ROW: Final = struct.Struct(">QQQQ")
_PLACE: Final = struct.Struct(">Q")
_BLOCK: Final = 4096
"""Rows whose earliest notAfter is kept together: who looks for what expired skips the others."""
_CHUNK: Final = 1 << 20
_PAGE: Final = 10_000
_NEVER: Final = 1 << 62
_FEW: Final = 1000


class ListedReading(Protocol):
    """What entries are made of."""

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]: ...


@dataclass
class _Scope:
    """One list of entries, as its files are. Positions are row numbers."""

    up_to: ChangeNumber = 0
    rows: int = 0
    octets: int = 0
    last: list[Any] | None = None
    earliest: list[UnixTime] = field(default_factory=list)
    """Of each block: the first notAfter of what is listed."""
    gone: list[int] = field(default_factory=list)
    gone_octets: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    issuer: IssuerId
    shard: int
    as_of: ChangeNumber
    expired_before: UnixTime
    judge: Callable[[bytes], None]


class Body:
    """The entries of one CRL: how many, how long, and the octets, as often as they are asked for."""

    def __init__(self, count: int, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        self.count, self.size, self.chunks = count, size, chunks


class EntryFiles:
    """For one process at a time, which is the signer; one body at a time.

    Args:
        folder: made when it is absent; nobody else needs to read it.
    """

    def __init__(self, folder: Path, reading: ListedReading) -> None:
        self._folder, self._reading = folder, reading
        self._scopes: dict[str, _Scope] = {}

    @contextmanager
    def body(
        self,
        issuer: IssuerId,
        shard: int,
        *,
        as_of: ChangeNumber,
        expired_before: UnixTime,
        judge: Callable[[bytes], None],
        afresh: bool = False,
    ) -> Iterator[Body]:
        """What a CRL of that moment lists, oldest change first. What is encoded just now passes `judge`, in whole elements.

        Raises:
            StoreUnavailable: the database or the folder cannot be used now.
        """
        wanted = _Wanted(issuer, shard, as_of, expired_before, judge)
        name = f"{issuer}.{shard}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            scope = None if afresh else self._known(name, issuer, shard, as_of)
            if scope is None:
                scope = self._begin(name)
            with _Files(self._folder / name) as files:
                self._grow(files, scope, wanted)
                _expire(files, scope, expired_before)
                if len(scope.gone) > _FEW and len(scope.gone) * 4 > scope.rows:
                    # More gaps than are worth stepping over.
                    scope = self._scopes[name] = files.closed_up(scope)
                self._settle(name, scope)
                yield Body(scope.rows - len(scope.gone), scope.octets - scope.gone_octets, lambda: files.chunks(scope))
        except OSError as error:
            self._scopes.pop(name, None)
            raise StoreUnavailable(
                "entries-unusable",
                f"The folder of encoded CRL entries, {self._folder}, cannot be used.",
                why=error.strerror or type(error).__name__,
                fix="Mend its disk or its rights; its files may be deleted, they are made anew.",
            ) from error
        except BaseException:
            # What is in memory may be ahead of the files.
            self._scopes.pop(name, None)
            raise

    # ---- what is there

    def _known(self, name: str, issuer: IssuerId, shard: int, as_of: ChangeNumber) -> _Scope | None:
        scope = self._scopes.get(name) or self._loaded(name)
        if scope is None or scope.up_to > as_of:
            return None
        if scope.last is not None:
            change = int(scope.last[0])
            page = self._reading.listed_changes(issuer, shard, after=change - 1, as_of=change, limit=1)
            if not page or _told(page[0]) != scope.last:
                return None
        return scope

    def _loaded(self, name: str) -> _Scope | None:
        place = self._folder / name
        try:
            said = json.loads(place.with_name(f"{name}.json").read_bytes())
            scope = _Scope(said["up_to"], said["rows"], said["octets"], said["last"], said["earliest"])
            lengths = {"der": scope.octets, "rows": scope.rows * _ROW.size, "gone": said["gone"] * _PLACE.size}
            for end, length in lengths.items():
                path = place.with_name(f"{name}.{end}")
                if path.stat().st_size < length:
                    return None
                os.truncate(path, length)
            gone = place.with_name(f"{name}.gone").read_bytes()
            scope.gone = sorted({position for (position,) in _PLACE.iter_unpack(gone)})
            scope.gone_octets = said["gone_octets"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        self._scopes[name] = scope
        return scope

    def _begin(self, name: str) -> _Scope:
        for end in ("json", "der", "rows", "gone"):
            (self._folder / f"{name}.{end}").unlink(missing_ok=True)
        scope = self._scopes[name] = _Scope()
        return scope

    def _settle(self, name: str, scope: _Scope) -> None:
        """From here on the files are what they are."""
        said = {
            "up_to": scope.up_to,
            "rows": scope.rows,
            "octets": scope.octets,
            "last": scope.last,
            "earliest": scope.earliest,
            "gone": len(scope.gone),
            "gone_octets": scope.gone_octets,
        }
        fresh = self._folder / f"{name}.json.new"
        fresh.write_text(json.dumps(said))
        fresh.replace(self._folder / f"{name}.json")

    # ---- what is new

    def _grow(self, files: _Files, scope: _Scope, wanted: _Wanted) -> None:
        """Append what came since."""
        encoder = Encoder()
        while page := self._reading.listed_changes(wanted.issuer, wanted.shard, after=scope.up_to, as_of=wanted.as_of, limit=_PAGE):
            # What had its regular CRL after its end never comes back.
            listed = [row for row in page if row[3] != Reason.removeFromCRL and row[5] >= wanted.expired_before]
            elements: list[bytes] = []
            places: list[bytes] = []
            at = scope.octets
            for position, (row, octets) in enumerate(encoder.encode(listed), scope.rows):
                elements.append(octets)
                places.append(_ROW.pack(row[0], row[5], at, len(octets)))
                at += len(octets)
                if position % _BLOCK == 0:
                    scope.earliest.append(row[5])
                elif row[5] < scope.earliest[-1]:
                    scope.earliest[-1] = row[5]
            made = b"".join(elements)
            wanted.judge(made)
            files.append(made, b"".join(places))
            scope.rows, scope.octets = scope.rows + len(listed), at
            for row in page:
                if row[7] is not None and (found := files.find(scope, row[7])) is not None:
                    _drop(files, scope, *found)
            scope.up_to, scope.last = page[-1][0], _told(page[-1])
            if len(page) < _PAGE:
                break
        scope.up_to = wanted.as_of


class _Files:
    """The open files of one scope."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._der, self._rows, self._gone = (
            os.open(self._place.with_name(f"{self._place.name}.{end}"), flags | (os.O_APPEND if end == "gone" else 0), 0o600)
            for end in ("der", "rows", "gone")
        )
        for descriptor in (self._der, self._rows):
            os.lseek(descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        for descriptor in (self._der, self._rows, self._gone):
            os.close(descriptor)

    def closed_up(self, scope: _Scope) -> _Scope:
        """The same without gaps, in files of its own that take the place of these. A crash in between leaves files that fit no longer
        to what the last line of all says; then everything is made anew."""
        made, gone = _Scope(scope.up_to, last=scope.last), set(scope.gone)
        self._place.with_name(f"{self._place.name}.json").unlink(missing_ok=True)
        with _Files(self._place.with_name(f"{self._place.name}.new")) as fresh:
            fresh.empty()
            for first in range(0, scope.rows, _BLOCK):
                places = []
                kept = [row for position, row in enumerate(self.block(first, scope.rows), first) if position not in gone]
                elements = [os.pread(self._der, row[3], row[2]) for row in kept]
                for position, row in enumerate(kept, made.rows):
                    places.append(_ROW.pack(row[0], row[1], made.octets, row[3]))
                    made.octets += row[3]
                    if position % _BLOCK == 0:
                        made.earliest.append(row[1])
                    made.earliest[-1] = min(made.earliest[-1], row[1])
                made.rows += len(kept)
                fresh.append(b"".join(elements), b"".join(places))
        self.close()
        for end in ("der", "rows", "gone"):
            self._place.with_name(f"{self._place.name}.new.{end}").replace(self._place.with_name(f"{self._place.name}.{end}"))
        self.open()
        return made

    def empty(self) -> None:
        for descriptor in (self._der, self._rows, self._gone):
            os.truncate(descriptor, 0)

    def append(self, elements: bytes, places: bytes) -> None:
        _write(self._der, elements)
        _write(self._rows, places)

    def forget(self, position: int) -> None:
        _write(self._gone, _PLACE.pack(position))

    def row(self, position: int) -> tuple[ChangeNumber, UnixTime, int, int]:
        return _ROW.unpack(os.pread(self._rows, _ROW.size, position * _ROW.size))

    def block(self, first: int, rows: int) -> Iterator[tuple[ChangeNumber, UnixTime, int, int]]:
        count = min(_BLOCK, rows - first)
        return _ROW.iter_unpack(os.pread(self._rows, count * _ROW.size, first * _ROW.size))

    def find(self, scope: _Scope, change: ChangeNumber) -> tuple[int, int] | None:
        """Position and length of the entry that a change made; None where it made none."""
        low, high = 0, scope.rows
        while low < high:
            middle = (low + high) // 2
            if self.row(middle)[0] < change:
                low = middle + 1
            else:
                high = middle
        if low == scope.rows:
            return None
        found = self.row(low)
        return (low, found[3]) if found[0] == change else None

    def chunks(self, scope: _Scope) -> Iterator[bytes]:
        """The listed octets. What is gone is stepped over."""
        edges = [0]
        for position in scope.gone:
            _, _, start, length = self.row(position)
            edges += [start, start + length]
        edges.append(scope.octets)
        for start, end in list(pairwise(edges))[::2]:
            for at in range(start, end, _CHUNK):
                wanted = min(_CHUNK, end - at)
                octets = os.pread(self._der, wanted, at)
                if len(octets) != wanted:
                    raise OSError(5, "the file is shorter than it was")
                yield octets


def _expire(files: _Files, scope: _Scope, before: UnixTime) -> None:
    """Drop what ended before that second: it has stood on a CRL made after its end (RFC 5280 3.3)."""
    for number, earliest in enumerate(scope.earliest):
        if earliest >= before:
            continue
        still = _NEVER
        for position, (_, not_after, _, length) in enumerate(files.block(number * _BLOCK, scope.rows), number * _BLOCK):
            if not_after < before:
                _drop(files, scope, position, length)
            else:
                still = min(still, not_after)
        scope.earliest[number] = still


def _drop(files: _Files, scope: _Scope, position: int, length: int) -> None:
    at = bisect_left(scope.gone, position)
    if at < len(scope.gone) and scope.gone[at] == position:
        return
    insort(scope.gone, position)
    scope.gone_octets += length
    files.forget(position)


def _told(row: ListedChange) -> list[Any]:
    """A row as JSON keeps it."""
    return [row[0], row[1], bytes(row[2]).hex(), *row[3:]]


def _write(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
