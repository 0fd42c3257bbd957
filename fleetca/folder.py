"""A folder on disk that never loses or replaces a file: where ceremonies and deployments write. Edge: effects only, no rule.

A file appears whole or not at all: written beside, fsynced, linked into place (a link fails where the name is taken), folder fsynced. A
crash in between leaves a hidden `.new` file that nothing reads and the next write of the same name removes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ca.errors import Conflict, StoreUnavailable


class Folder:
    """An `Archive` (`ca.ports`) in a directory, made 0700 when the first file is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Sequence[str]:
        """The files in it, hidden ones left out."""
        with understood(self.path):
            if not self.path.is_dir():
                return []
            return sorted(each.name for each in self.path.iterdir() if not each.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """A file's octets; None where there is none."""
        with understood(self.path / name):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def put_new(self, name: str, octets: bytes, *, mode: int = 0o644) -> None:
        """Write a file that does not exist yet, whole or not at all, durable on return."""
        put_new(self.path / name, octets, mode=mode)

    def append(self, name: str, octets: bytes, *, at: int) -> None:
        """Write at offset `at` and cut off what followed, durable on return."""
        path = self.path / name
        with understood(path):
            made = not path.exists()
            make_folder(self.path)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb", buffering=0) as file:
                os.ftruncate(file.fileno(), at)
                # A disk that is almost full takes a part of them first, and says so only by the count.
                written = 0
                while written < len(octets):
                    written += os.pwrite(file.fileno(), octets[written:], at + written)
                os.fsync(file.fileno())
            if made:
                sync_folder(self.path)


def replace_file(path: Path, octets: bytes) -> None:
    """Write a file in the place of one that is there, whole or not at all, durable on return, with the mode that it had.

    Raises:
        StoreUnavailable: it cannot be written; the old one stands.
    """
    with understood(path):
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(octets)
                file.flush()
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(path.parent)


def put_new(path: Path, octets: bytes, *, mode: int = 0o644) -> None:
    """Write a file that does not exist yet, whole or not at all, durable on return.

    Raises:
        Conflict: it exists (`output-exists`); it is left alone.
        StoreUnavailable: it cannot be written; nothing of it is kept.
    """
    with understood(path):
        make_folder(path.parent)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(octets)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.link(fresh, path)
        except FileExistsError:
            raise Conflict(
                "output-exists", f"{path} exists already; it is not replaced.", fix="Move it away, or give another folder."
            ) from None
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(path.parent)


def make_folder(path: Path, *, mode: int = 0o700) -> None:
    """Make a folder and what is missing above it."""
    if not path.is_dir():
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """What the system says of a file, in our words.

    Raises:
        StoreUnavailable: it cannot be read or written (`disk-full`, `disk`).
    """
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StoreUnavailable(
            "disk-full" if full else "disk",
            f"{path} cannot be read or written.",
            why=f"{error.strerror}.",
            fix="Free some space, then run the same command again." if full else f"Check who owns {path.parent} and what it may do.",
        ) from None
