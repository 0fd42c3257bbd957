"""What outlets on other hosts share: stages in local files, numbers kept beside the published file, every answer read back. Ring 3.

An adapter says in four calls how objects are read and written there; what a failure leaves is decided here. A put that failed may have been written, not
written, or half written: so after each one, whatever it said, the object is read back whole, and what is there decides. Half a file is never taken for one,
for its digest is not that of the stage, and the next put replaces it.
"""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ca.errors import Conflict, Malformed, StoreUnavailable
from ca.model import OutletCopy, Placed, UnixTime
from ca.ports import Stage

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}(\.[1-9][0-9]{0,3})?(\.delta)?(\.next)?\.[a-z]{3}")


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as it is there."""

    octets: bytes
    tag: str
    """What a conditional request names it by."""


class Refused(Exception):
    """The condition of a conditional write did not hold: another object is there."""


class FileStage:
    """A local file without a name: gone with its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def sync(self) -> None:
        """Nothing rests here: it is durable when it is there."""

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, start)


class RemoteCopy:
    """A fetched object."""

    def __init__(self, octets: bytes, modified: UnixTime) -> None:
        self._octets, self.size, self.modified = octets, len(octets), modified

    def read(self, start: int, count: int) -> bytes:
        return self._octets[start : start + count]


class RemoteOutlet(ABC):
    """`ca.ports.Outlet` over any store of whole objects with conditional writes.

    Args:
        now: stamps what is read.
    """

    def __init__(self, now: Callable[[], UnixTime]) -> None:
        self._now = now

    # ---- what an adapter says

    @abstractmethod
    def get(self, key: str) -> Remote | None:
        """The object, whole; None where there is none.

        Raises:
            OSError: it cannot be told.
        """

    @abstractmethod
    def head(self, key: str) -> str | None:
        """Its tag, without reading it."""

    @abstractmethod
    def put(self, key: str, octets: bytes, *, tag: str | None, kind: str) -> None:
        """Write it whole, only over the object of that tag, or where there is none.

        Raises:
            Refused: another one is there.
            OSError: it failed; it may be there all the same.
        """

    # ---- ca.ports.Outlet

    @contextmanager
    def stage(self, name: str) -> Iterator[FileStage]:
        _checked(name)
        with tempfile.TemporaryFile() as file:
            yield FileStage(file.fileno())

    def put_if_unchanged(self, name: str, stage: Stage, *, seen: str | None) -> Placed:
        _checked(name)
        octets = stage.read(0, stage.size)
        wanted = sha256(octets).hexdigest()
        before = self._read(name)
        version = None if before is None else sha256(before.octets).hexdigest()
        if version not in {seen, wanted}:
            raise _overtaken(name)
        if version != wanted:
            if before is not None:
                self._keep_previous(name, before)
            self._write(name, octets, before.tag if before else None)
        after = self._read(name)
        if after is None or sha256(after.octets).hexdigest() != wanted:
            raise StoreUnavailable(
                "outlet-not-written", f"{name} is not there as it was put.", why="The place lost it, or keeps half of it.", retry_after=5
            )
        return Placed(wanted, self._now(), after.tag)

    def _write(self, name: str, octets: bytes, tag: str | None) -> None:
        wanted = sha256(octets).hexdigest()
        try:
            self.put(name, octets, tag=tag, kind="application/pkix-crl")
        except Refused:
            # Either another publisher was faster, or our own first try got there and its answer was lost.
            found = self._read(name)
            if found is None or sha256(found.octets).hexdigest() != wanted:
                raise _overtaken(name) from None
        except OSError as error:
            found = self._read(name)
            if found is None or sha256(found.octets).hexdigest() != wanted:
                raise _down(name, error) from None

    def current(self, name: str) -> OutletCopy | None:
        found = self._read(_checked(name))
        return None if found is None else OutletCopy(sha256(found.octets).hexdigest(), found.octets, self._now())

    @contextmanager
    def opened(self, name: str) -> Iterator[RemoteCopy | None]:
        found = self._read(_checked(name))
        yield None if found is None else RemoteCopy(found.octets, self._now())

    @contextmanager
    def previous(self, name: str) -> Iterator[RemoteCopy | None]:
        found = self._read(f"{_checked(name)}.previous")
        yield None if found is None else RemoteCopy(found.octets, self._now())

    def mark(self, name: str) -> str | None:
        try:
            return self.head(_checked(name))
        except OSError as error:
            raise _down(name, error) from None

    def high_water(self, name: str) -> int:
        found = self._read(f"{_checked(name)}.number")
        if found is None:
            return 0
        if not re.fullmatch(rb"[0-9]{1,48}\n?", found.octets):
            raise StoreUnavailable(
                "high-water-unreadable",
                f"{name}.number does not hold a number.",
                fix=f"Write the highest number ever published as {name} into it, in decimal digits.",
            )
        return int(found.octets)

    def raise_high_water(self, name: str, number: int) -> None:
        key = f"{_checked(name)}.number"
        for _ in range(5):
            found = self._read(key)
            if found is not None and self.high_water(name) >= number:
                return
            try:
                self.put(key, b"%d\n" % number, tag=found.tag if found else None, kind="text/plain")
            except Refused:
                continue
            except OSError as error:
                if self.high_water(name) < number:
                    raise _down(key, error) from None
            return
        raise StoreUnavailable("outlet-busy", f"{key} changes all the time.", retry_after=5)

    def _keep_previous(self, name: str, before: Remote) -> None:
        """The one before, for whoever must go back. Losing it costs nothing but that, so it never stops a CRL."""
        key = f"{name}.previous"
        try:
            there = self.head(key)
            self.put(key, before.octets, tag=there, kind="application/pkix-crl")
        except (OSError, Refused):
            return

    def _read(self, key: str) -> Remote | None:
        try:
            return self.get(key)
        except OSError as error:
            raise _down(key, error) from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Malformed("outlet-name", "This is not a name for a published file.")
    return name


def _overtaken(name: str) -> Conflict:
    return Conflict(
        "outlet-changed", f"Another publisher has replaced {name} meanwhile.", why="It was faster, or the file was changed by hand."
    )


def _down(key: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        "outlet-unavailable", f"{key} cannot be read or written.", why=str(error), fix="Check the place and the way there.", retry_after=30
    )
