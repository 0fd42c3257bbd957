"""Published files in memory, for tests and for trying things out. Ring 3.

Keeps the promises of `ca.ports.Outlet` within one process and checks its callers: what is put must have been synced, and a number never goes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Lock

from ca.errors import Conflict
from ca.model import OutletCopy, Placed, UnixTime
from ca.ports import Stage


class MemoryStage:
    """An anonymous file in memory: the signer needs a descriptor to write to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.synced: bytes | None = None

    def fileno(self) -> int:
        return self._descriptor

    def sync(self) -> None:
        self.synced = self.octets()

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, start)

    def octets(self) -> bytes:
        return self.read(0, self.size)


class MemoryCopy:
    """A published file."""

    def __init__(self, copy: OutletCopy) -> None:
        self._octets, self.size, self.modified = copy.octets, len(copy.octets), copy.modified

    def read(self, start: int, count: int) -> bytes:
        return self._octets[start : start + count]


class MemoryOutlet:
    """A dictionary that keeps its promises.

    Args:
        now: stamps what is put.
    """

    def __init__(self, now: Callable[[], UnixTime]) -> None:
        self._now = now
        self._lock = Lock()
        self._current: dict[str, OutletCopy] = {}
        self._previous: dict[str, OutletCopy] = {}
        self._numbers: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[MemoryStage]:
        descriptor = os.memfd_create(name)
        try:
            yield MemoryStage(descriptor)
        finally:
            os.close(descriptor)

    def put_if_unchanged(self, name: str, stage: Stage, *, seen: str | None) -> Placed:
        if not isinstance(stage, MemoryStage):
            raise TypeError("a stage of another outlet")
        octets = stage.octets()
        if stage.synced != octets:
            raise AssertionError("put without sync: a crash could leave half a file")
        with self._lock:
            before = self._current.get(name)
            if (before.version if before else None) != seen:
                raise Conflict("outlet-changed", f"Another publisher has replaced {name} meanwhile.")
            if before is not None:
                self._previous[name] = before
            made = self._current[name] = OutletCopy(sha256(octets).hexdigest(), octets, self._now())
            return Placed(made.version, made.modified)

    @contextmanager
    def opened(self, name: str) -> Iterator[MemoryCopy | None]:
        found = self._current.get(name)
        yield None if found is None else MemoryCopy(found)

    def current(self, name: str) -> OutletCopy | None:
        return self._current.get(name)

    @contextmanager
    def previous(self, name: str) -> Iterator[MemoryCopy | None]:
        found = self._previous.get(name)
        yield None if found is None else MemoryCopy(found)

    def mark(self, name: str) -> str | None:
        found = self._current.get(name)
        return found.version if found else None

    def high_water(self, name: str) -> int:
        return self._numbers.get(name, 0)

    def raise_high_water(self, name: str, number: int) -> None:
        with self._lock:
            self._numbers[name] = max(number, self._numbers.get(name, 0))
