"""What outlets on other hosts share: stages in local files, numbers kept beside the published file, every answer read back. Ring 3.

An adapter says in four calls how objects are read and written there; what a failure leaves is decided here. A put that failed may have been written, not
written, or half written: so after each one, whatever it said, the object is read back whole, and what is there decides. Half a file is never taken for one,
for its digest is not that of the stage, and the next put replaces it. Objects go and come in pieces, and lie in files without a name where they are
needed twice: a CRL may be longer than memory is wide.
"""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from typing import Final

from ca.errors import Conflict, Malformed, StoreUnavailable
from ca.model import OutletCopy, Placed, UnixTime
from ca.ports import Readable, Stage

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}(\.[1-9][0-9]{0,3})?(\.delta)?(\.next)?\.[a-z]{3}")
PIECE: Final = 1 << 20


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
    """An object that was fetched into a file without a name."""

    def __init__(self, descriptor: int, tag: str, version: str, modified: UnixTime) -> None:
        self._descriptor = descriptor
        self.tag, self.version, self.modified = tag, version, modified
        self.size = os.fstat(descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, start)


class Octets:
    """A few octets at hand, as what is read in pieces."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self.size = octets, len(octets)

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
    def get(self, key: str, take: Callable[[bytes], object]) -> str | None:
        """Give the object to `take`, a piece at a time. Its tag, which is what a conditional request names it by; None where there is none.

        Raises:
            OSError: it cannot be told; some pieces may have been given.
        """

    @abstractmethod
    def head(self, key: str) -> str | None:
        """Its tag, without reading it."""

    @abstractmethod
    def put(self, key: str, source: Readable, *, tag: str | None, kind: str) -> None:
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
        wanted = _version(stage)
        with self._fetched(name) as before:
            version = None if before is None else before.version
            if version not in {seen, wanted}:
                raise _overtaken(name)
            if version != wanted:
                if before is not None:
                    self._keep_previous(name, before)
                self._write(name, stage, wanted, before.tag if before else None)
        after, tag = self._there(name)
        if after != wanted:
            raise StoreUnavailable(
                "outlet-not-written", f"{name} is not there as it was put.", why="The place lost it, or keeps half of it.", retry_after=5
            )
        return Placed(wanted, self._now(), tag)

    def _write(self, name: str, stage: Stage, wanted: str, tag: str | None) -> None:
        try:
            self.put(name, stage, tag=tag, kind="application/pkix-crl")
        except Refused:
            # Either another publisher was faster, or our own first try got there and its answer was lost.
            if self._there(name)[0] != wanted:
                raise _overtaken(name) from None
        except OSError as error:
            if self._there(name)[0] != wanted:
                raise _down(name, error) from None

    def current(self, name: str) -> OutletCopy | None:
        with self.opened(name) as copy:
            return None if copy is None else OutletCopy(copy.version, copy.read(0, copy.size), copy.modified)

    def opened(self, name: str) -> AbstractContextManager[RemoteCopy | None]:
        return self._fetched(_checked(name))

    def previous(self, name: str) -> AbstractContextManager[RemoteCopy | None]:
        return self._fetched(f"{_checked(name)}.previous")

    def mark(self, name: str) -> str | None:
        try:
            return self.head(_checked(name))
        except OSError as error:
            raise _down(name, error) from None

    def high_water(self, name: str) -> int:
        return self._number(f"{_checked(name)}.number")[0]

    def _number(self, key: str) -> tuple[int, str | None]:
        """The number and the tag of what holds it."""
        pieces: list[bytes] = []
        tag = self._asked(key, pieces.append)
        octets = b"".join(pieces)
        if tag is None:
            return 0, None
        if not re.fullmatch(rb"[0-9]{1,48}\n?", octets):
            raise StoreUnavailable(
                "high-water-unreadable",
                f"{key} does not hold a number.",
                fix="Write the highest number ever published under this name into it, in decimal digits.",
            )
        return int(octets), tag

    def raise_high_water(self, name: str, number: int) -> None:
        key = f"{_checked(name)}.number"
        for _ in range(5):
            found, tag = self._number(key)
            if tag is not None and found >= number:
                return
            try:
                self.put(key, Octets(b"%d\n" % number), tag=tag, kind="text/plain")
            except Refused:
                continue
            except OSError as error:
                if self.high_water(name) < number:
                    raise _down(key, error) from None
            return
        raise StoreUnavailable("outlet-busy", f"{key} changes all the time.", retry_after=5)

    def _keep_previous(self, name: str, before: RemoteCopy) -> None:
        """The one before, for whoever must go back. Losing it costs nothing but that, so it never stops a CRL."""
        key = f"{name}.previous"
        with suppress(OSError, Refused):
            self.put(key, before, tag=self.head(key), kind="application/pkix-crl")

    @contextmanager
    def _fetched(self, key: str) -> Iterator[RemoteCopy | None]:
        digest = sha256()
        with tempfile.TemporaryFile() as file:

            def take(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            tag = self._asked(key, take)
            file.flush()
            yield None if tag is None else RemoteCopy(file.fileno(), tag, digest.hexdigest(), self._now())

    def _there(self, key: str) -> tuple[str | None, str | None]:
        """Version and tag of what is there, read whole."""
        digest = sha256()
        tag = self._asked(key, digest.update)
        return None if tag is None else digest.hexdigest(), tag

    def _asked(self, key: str, take: Callable[[bytes], object]) -> str | None:
        try:
            return self.get(key, take)
        except OSError as error:
            raise _down(key, error) from None


def pieces(source: Readable) -> Iterator[bytes]:
    """All of it, in order."""
    return (source.read(start, PIECE) for start in range(0, source.size, PIECE))


def _version(source: Readable) -> str:
    digest = sha256()
    for piece in pieces(source):
        digest.update(piece)
    return digest.hexdigest()


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
