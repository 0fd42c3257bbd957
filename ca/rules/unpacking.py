"""Goes through the octets of an image and through all that is packed in them, piece by piece, in bounded memory. Ring 1: pure.

One `Octets` a stream; what is packed in it is unpacked while it goes by, into an `Octets` of its own. Streams that follow each other without a gap are one
(members of a gzip file, the blocks of a file in SquashFS), so that what lies across their edges is whole. Must not know: files, and what is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ca.rules import packed

PIECE: Final = 4 * 1024 * 1024
DEEPEST: Final = 5
"""So many times over, something may be packed."""
MOST: Final = 16 * 1024 * 1024 * 1024
"""Octets that one image may unpack to, all in all."""
_CHUNK: Final = 1024 * 1024
_STEP: Final = 64 * 1024
TOGETHER: Final = 32
"""Streams that may be open at one time in one that they lie in: more is no image but an attack on what reads it."""
_DOUBTFUL: Final = 4096
"""A stream that breaks off before it gave so many octets was none."""

Path = tuple[tuple[str, int], ...]
"""What it is packed in, outermost first, each with its offset in what it lies in."""


@dataclass(frozen=True, slots=True, order=True)
class Unread:
    """What was recognised, and not looked into."""

    offset: int
    form: str
    why: str
    inside: Path = ()


@dataclass(slots=True)
class Budget:
    """What one image may cost, and what was not looked into."""

    left: int
    """Octets that it may still unpack to."""
    unread: set[Unread] = field(default_factory=set[Unread])


Look = Callable[[Path, bytes, int], None]
"""Called for each piece: what it is packed in, its octets, and the offset of the first."""


class Octets:
    """One stream of octets, looked at as it goes by.

    Args:
        overlap: octets of each piece that are seen again with the next one.
    """

    def __init__(self, inside: Path, look: Look, budget: Budget, *, overlap: int, piece: int = PIECE, unpack: bool = True) -> None:
        self._inside, self._look, self._budget, self._overlap, self._size = inside, look, budget, overlap, piece
        self._unpacks = unpack
        self._kept = b""
        self._waiting: list[bytes] = []
        self._count = 0
        self._start = 0
        self._checked = 0
        self._open: list[_Stream] = []
        self._ended: dict[int, _Stream] = {}
        self.length = 0

    def feed(self, octets: bytes) -> None:
        self._waiting.append(octets)
        self._count += len(octets)
        self.length += len(octets)
        if self._count >= self._size:
            self._go(last=False)

    def end(self) -> None:
        """No more comes; may be said again after more came all the same."""
        self._go(last=True)
        for stream in self._open:
            stream.cut()
        self._close(self._open)
        self._close(list(self._ended.values()))
        self._open, self._ended = [], {}

    def _go(self, *, last: bool) -> None:
        fresh = b"".join(self._waiting)
        self._waiting, self._count = [], 0
        if not fresh and not (last and self._kept):
            return
        piece = self._kept + fresh
        if fresh:
            self._look(self._inside, piece, self._start)
        if self._unpacks:
            self._unpack(piece, fresh, last=last)
        self._kept = piece[-self._overlap :]
        self._start += len(piece) - len(self._kept)

    def _unpack(self, piece: bytes, fresh: bytes, *, last: bool) -> None:
        for stream in self._open:
            stream.feed(fresh)
        self._ended |= {stream.ends: stream for stream in self._open if stream.ended}
        high = len(piece) if last else max(self._checked - self._start, len(piece) - packed.AHEAD)
        for begins in packed.beginnings(piece, max(0, self._checked - self._start), high):
            self._begin(begins, piece)
        self._checked = self._start + high
        self._open = [stream for stream in self._open if not stream.ended]
        self._close_before(self._checked)

    def _begin(self, begins: packed.Beginning, piece: bytes) -> None:
        at = self._start + begins.offset
        self._close_before(at)
        if begins.open is None:
            self._budget.unread.add(Unread(at, begins.form, "it is not unpacked here", self._inside))
            return
        why = f"it is packed more than {DEEPEST} times over" if len(self._inside) >= DEEPEST else ""
        if sum(not stream.ended for stream in self._open) >= TOGETHER:
            why = f"it lies within {TOGETHER} others"
        if why or self._budget.left < 0:
            if why and begins.sure:
                self._budget.unread.add(Unread(at, begins.form, why, self._inside))
            return
        before = self._ended.get(at)
        follows = before is not None and before.form == begins.form and not begins.alone
        target = self._ended.pop(at).target if follows else self._within(begins.form, at)
        stream = _Stream(at, begins, target, self._budget, self._inside)
        stream.feed(memoryview(piece)[begins.offset :])
        if stream.ended:
            self._ended[stream.ends] = stream
        else:
            self._open.append(stream)

    def _close_before(self, at: int) -> None:
        """Those that nothing can follow any more: what they hold back is looked at."""
        self._close([self._ended.pop(ends) for ends in [ends for ends in self._ended if ends < at]])

    def _within(self, form: str, at: int) -> Octets:
        return Octets((*self._inside, (form, at)), self._look, self._budget, overlap=self._overlap, piece=self._size)

    @staticmethod
    def _close(streams: list[_Stream]) -> None:
        for stream in streams:
            stream.target.end()


class _Stream:
    """Something packed, while it is unpacked."""

    def __init__(self, at: int, begins: packed.Beginning, target: Octets, budget: Budget, inside: Path) -> None:
        assert begins.open is not None, "only what can be opened becomes a stream"
        self._at, self._begins, self._budget, self._inside = at, begins, budget, inside
        self._opened = begins.open()
        self._skip, self._fed, self._gave = begins.skip, 0, 0
        self.form = begins.form
        self.target = target
        self.ended = False
        self.ends = -1
        """Where it ends, in what it lies in; -1 - `at` where it broke off, so that nothing follows it."""

    def feed(self, octets: bytes | memoryview) -> None:
        """In small steps: most of what only looks like a beginning breaks off in the first."""
        skipped = min(self._skip, len(octets))
        self._skip -= skipped
        self._fed += skipped
        try:
            for start in range(skipped, len(octets), _STEP):
                if self.ended:
                    return
                self._step(bytes(octets[start : start + _STEP]))
        except packed.ERRORS as error:
            self._broken(str(error) or "it is damaged")

    def _step(self, octets: bytes) -> None:
        self._fed += len(octets)
        self._take(self._opened.some(octets, _CHUNK))
        while not self.ended and not self._opened.hungry:
            self._take(self._opened.some(b"", _CHUNK))

    def _take(self, made: bytes) -> None:
        self._gave += len(made)
        self._budget.left -= len(made)
        if made:
            self.target.feed(made)
        if self._opened.eof:
            self.ended, self.ends = True, self._at + self._fed - len(self._opened.unused_data)
        elif self._budget.left < 0:
            self._say("the image unpacks to more octets than are gone through")
            self._stop()

    def cut(self) -> None:
        """What it lies in is over before it is."""
        self._broken("it ends too early")

    def _broken(self, why: str) -> None:
        if self._begins.sure and self._gave >= _DOUBTFUL:
            self._say(why)
        self._stop()

    def _say(self, why: str) -> None:
        self._budget.unread.add(Unread(self._at, self._begins.form, why, self._inside))

    def _stop(self) -> None:
        self.ended, self.ends = True, -1 - self._at
