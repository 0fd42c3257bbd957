"""What the gate knows the record to list: its own entries, in its own files, so that a CRL of a million is judged without reading a million rows.

Ring 3. Grows from the database by change number, like the signer's files and with nothing in common with them: other code makes the octets
(`crl.rules.elements`), other code keeps them. For shard 0 of `issuing` the folder holds

    issuing.0/MANIFEST     up to which change it goes, its parts in their order, and the CRL that was let through last
    issuing.0/N.part       the elements of some thousand entries
    issuing.0/N.rows       28 octets for each: change, notAfter, date, length

A part is never changed: whoever leaves the list leaves it by a new part in the place of the old one, and the manifest names it. What a crash leaves is
parts that no manifest names; they are swept. A database that tells another story than before is seen by the last row, and the tally begins anew. That
the tally itself is right is shown by `Tally.audited`, which reads the whole record and compares: at every start, and once a day.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ca.errors import StoreUnavailable
from ca.model import ChangeNumber, CrlEntry, IssuerId, ListedChange, Reason, Serial, UnixTime
from crl.model import Scope
from crl.rules import elements

_ROW: Final = struct.Struct(">QqqI")
_FULL: Final = 32768
"""Entries in a part."""
_PAGE: Final = 10_000
_PIECE: Final = 1 << 20


class Reading(Protocol):
    """The record."""

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]: ...

    def listed_entries(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, expired_before: UnixTime, limit: int
    ) -> tuple[ChangeNumber, bytes, Sequence[str]] | None: ...

    def replaced(self, first: ChangeNumber, last: ChangeNumber, *, as_of: ChangeNumber) -> Collection[ChangeNumber]: ...

    def crl_entries(self, issuer: IssuerId, shard: int, *, as_of: ChangeNumber, expired_before: UnixTime) -> Iterator[CrlEntry]: ...


@dataclass
class _Part:
    number: int
    first: ChangeNumber
    last: ChangeNumber
    count: int
    ends: UnixTime
    """The earliest notAfter in it."""
    latest: UnixTime
    """The latest date in it."""


@dataclass
class _State:
    up_to: ChangeNumber = 0
    last: list[Any] | None = None
    parts: list[_Part] = field(default_factory=list)
    next: int = 1
    passed: str = ""
    """SHA-256 of the signed octets of the CRL that was let through last."""
    left: set[int] = field(default_factory=set)
    """Serial numbers that were taken off the list since then and did not come back."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a tally knows a CRL to list."""

    descriptors: Sequence[int]
    count: int
    latest: UnixTime
    """The latest date among the entries."""
    recorded: Callable[[], Iterator[CrlEntry]]

    def octets(self) -> Iterator[bytes]:
        for descriptor in self.descriptors:
            at = 0
            while piece := os.pread(descriptor, _PIECE, at):
                yield piece
                at += len(piece)

    def entries(self) -> Iterator[CrlEntry]:
        return self.recorded()


class Tally:
    """One CRL's. For one process at a time that holds its lease; two that do not know it make work for each other and no mistakes.

    Args:
        fits: whether a serial number may stand in this CRL.
    """

    def __init__(self, folder: Path, reading: Reading, issuer: IssuerId, shard: int, *, fits: Callable[[int], bool] | None) -> None:
        self._folder, self._reading, self._issuer, self._shard, self._fits = folder / f"{issuer}.{shard}", reading, issuer, shard, fits
        self._state: _State | None = None
        self._expired_before = 0
        self._begun_here = False
        """Whether all of it was read from the record since we started."""

    @contextmanager
    def opened(self) -> Iterator[Kept]:
        """What it knows, for the gate: `crl.rules.gate.Wanted`. All files are open then, so that a rule only reads."""
        parts = self._known().parts
        descriptors: list[int] = []
        try:
            for part in parts:
                descriptors.append(os.open(self._path(part.number, "part"), os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401 - closed where one fails
            latest = max((part.latest for part in parts), default=0)
            yield Kept(descriptors, sum(part.count for part in parts), latest, self.entries)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def entries(self) -> Iterator[CrlEntry]:
        """Straight from the record: asked only when something is wrong."""
        return self._reading.crl_entries(self._issuer, self._shard, as_of=self._known().up_to, expired_before=self._expired_before)

    # ---- keeping up

    def bring(self, *, as_of: ChangeNumber, expired_before: UnixTime) -> None:
        """Go on to where the record stood then.

        Raises:
            StoreUnavailable: the database or the folder cannot be used now.
            Broken: the record puts an entry into the wrong shard (`crl-scope`).
        """
        try:
            state = self._matching(as_of)
            self._begun_here = self._begun_here or state.up_to == 0
            self._expired_before = expired_before
            while page := self._reading.listed_changes(self._issuer, self._shard, after=state.up_to, as_of=as_of, limit=_PAGE):
                self._take(state, page, expired_before)
                if len(page) < _PAGE:
                    break
            state.up_to = as_of
            for part in list(state.parts):
                if part.ends < expired_before:
                    self._thin(state, part, lambda row: row[1] < expired_before)
            self._save(state)
        except OSError as error:
            self._state = None
            raise StoreUnavailable(
                "tally-unusable",
                f"The gate's folder {self._folder} cannot be used.",
                why=error.strerror or type(error).__name__,
                fix="Mend its disk or its rights; what is in it may be deleted, it is made anew.",
            ) from error
        except BaseException:
            self._state = None
            raise

    def left_since(self, tbs_sha256: bytes) -> tuple[Serial, ...] | None:
        """Who left the list since a CRL; None where that is not the one that was let through here last."""
        state = self._known()
        return tuple(map(Serial, sorted(state.left))) if state.passed == tbs_sha256.hex() else None

    def passed(self, tbs_sha256: bytes) -> None:
        """A CRL was let through and is visible."""
        state = self._known()
        state.passed, state.left = tbs_sha256.hex(), set()
        self._save(state)

    def audited(self) -> bool:
        """Whether this is what the whole record says, read again from its first row. What is not is forgotten, and made anew next time."""
        state = self._known()
        if self._begun_here:
            return True

        def pages() -> Iterator[elements.Page]:
            return elements.pages(self._reading, self._issuer, self._shard, as_of=state.up_to, expired_before=self._expired_before)

        recorded = elements.Recorded(self.entries, fits=self._fits, pages=pages)
        with self.opened() as kept:
            same = _same(kept.octets(), recorded.octets())
        if not same:
            self.forget()
        return same and state is self._state

    def forget(self) -> None:
        """Begin anew."""
        (self._folder / "MANIFEST").unlink(missing_ok=True)
        self._state, self._begun_here = None, False

    # ---- inside

    def _known(self) -> _State:
        assert self._state is not None, "bring it first"
        return self._state

    def _matching(self, as_of: ChangeNumber) -> _State:
        state = self._state or self._loaded()
        if state.last is not None:
            change = int(state.last[0])
            page = self._reading.listed_changes(self._issuer, self._shard, after=change - 1, as_of=change, limit=1)
            if state.up_to > as_of or not page or _told(page[0]) != state.last:
                state = _State(next=state.next)
        elif state.up_to > as_of:
            state = _State(next=state.next)
        self._state = state
        return state

    def _loaded(self) -> _State:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            said = json.loads((self._folder / "MANIFEST").read_bytes())
            state = _State(
                said["up_to"], said["last"], [_Part(*one) for one in said["parts"]], said["next"], said["passed"], set(said["left"])
            )
            whole = all(self._path(part.number, "rows").stat().st_size == part.count * _ROW.size for part in state.parts)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            whole, state = False, _State()
        if not whole:
            state = _State(next=1 + max((int(path.stem) for path in self._folder.glob("*.part")), default=0))
        named = {part.number for part in state.parts}
        for path in self._folder.glob("*.*"):
            if path.suffix in {".part", ".rows"} and int(path.stem) not in named:
                path.unlink(missing_ok=True)
        return state

    def _take(self, state: _State, page: Sequence[ListedChange], expired_before: UnixTime) -> None:
        replaced = [row[7] for row in page if row[7] is not None]
        fresh: list[tuple[ChangeNumber, UnixTime, UnixTime, bytes]] = []
        for change, _, serial, reason, revoked_at, not_after, invalid_from, _ in page:
            number = int.from_bytes(serial, "big")
            if self._fits is not None and not self._fits(number):
                raise elements.misplaced(number)
            if reason != Reason.removeFromCRL and not_after >= expired_before:
                fresh.append((change, not_after, revoked_at, elements.element(number, revoked_at, reason, invalid_from)))
        if replaced:
            gone = set(replaced)
            fresh = [one for one in fresh if one[0] not in gone]
            for part in list(state.parts):
                if any(part.first <= change <= part.last for change in gone):
                    self._thin(state, part, lambda row: row[0] in gone)
        state.left -= {_serial_in(one[3]) for one in fresh}
        if fresh and state.parts and state.parts[-1].count + len(fresh) <= _FULL:
            # The last part grows by being written anew, so that none is small for long.
            tail = state.parts.pop()
            fresh = self._listed(tail) + fresh
        for start in range(0, len(fresh), _FULL):
            state.parts.append(self._written(state, fresh[start : start + _FULL]))
        state.up_to, state.last = page[-1][0], _told(page[-1])

    def _thin(self, state: _State, part: _Part, goes: Callable[[tuple[ChangeNumber, UnixTime, UnixTime, bytes]], bool]) -> None:
        """Put a part without some of its entries in its place."""
        listed = self._listed(part)
        kept = [row for row in listed if not goes(row)]
        if len(kept) == len(listed):
            return
        if state.passed:
            state.left |= {_serial_in(row[3]) for row in listed if goes(row)}
        at = state.parts.index(part)
        state.parts[at : at + 1] = [self._written(state, kept)] if kept else []

    def _listed(self, part: _Part) -> list[tuple[ChangeNumber, UnixTime, UnixTime, bytes]]:
        octets, rows, at = self._path(part.number, "part").read_bytes(), [], 0
        for change, not_after, revoked_at, length in _ROW.iter_unpack(self._path(part.number, "rows").read_bytes()):
            rows.append((change, not_after, revoked_at, octets[at : at + length]))
            at += length
        return rows

    def _written(self, state: _State, rows: Sequence[tuple[ChangeNumber, UnixTime, UnixTime, bytes]]) -> _Part:
        number, state.next = state.next, state.next + 1
        self._path(number, "part").write_bytes(b"".join([row[3] for row in rows]))
        self._path(number, "rows").write_bytes(b"".join([_ROW.pack(row[0], row[1], row[2], len(row[3])) for row in rows]))
        return _Part(number, rows[0][0], rows[-1][0], len(rows), min(row[1] for row in rows), max(row[2] for row in rows))

    def _save(self, state: _State) -> None:
        said = {
            "up_to": state.up_to,
            "last": state.last,
            "parts": [[part.number, part.first, part.last, part.count, part.ends, part.latest] for part in state.parts],
            "next": state.next,
            "passed": state.passed,
            "left": sorted(state.left),
        }
        fresh = self._folder / "MANIFEST.new"
        fresh.write_text(json.dumps(said))
        fresh.replace(self._folder / "MANIFEST")
        named = {part.number for part in state.parts}
        for path in self._folder.glob("*.part"):
            if int(path.stem) not in named:
                path.unlink(missing_ok=True)
                path.with_suffix(".rows").unlink(missing_ok=True)

    def _path(self, number: int, end: str) -> Path:
        return self._folder / f"{number}.{end}"


class TallyFolder:
    """Every CRL's tally."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self._folder, self._reading = folder, reading
        self._known: dict[str, tuple[tuple[int, ...], Tally]] = {}

    def of(self, scope: Scope, counts: Sequence[int]) -> Tally:
        known = self._known.get(scope.name)
        if known is None or known[0] != tuple(counts):
            fits = elements.fitting(scope.shard, counts)
            known = tuple(counts), Tally(self._folder, self._reading, scope.issuer.id, scope.shard, fits=fits)
            self._known[scope.name] = known
        return known[1]


def _serial_in(element: bytes) -> int:
    return int.from_bytes(element[4 : 4 + element[3]], "big")


def _same(left: Iterator[bytes], right: Iterator[bytes]) -> bool:
    held = b""
    for piece in left:
        while len(held) < len(piece):
            more = next(right, None)
            if more is None:
                return False
            held += more
        if held[: len(piece)] != piece:
            return False
        held = held[len(piece) :]
    return not held and all(not more for more in right)


def _told(row: ListedChange) -> list[Any]:
    """A row as JSON keeps it."""
    return [row[0], row[1], bytes(row[2]).hex(), *row[3:]]
