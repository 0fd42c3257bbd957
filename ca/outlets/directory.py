"""Published files in a folder of this host, which a web server or a status worker reads. Ring 3.

Owns how a file becomes visible; knows nothing of what is in it. For `issuing.crl` the folder holds:

    issuing.crl             what readers get
    issuing.crl.previous    the one before, for whoever must go back, and for comparing
    issuing.crl.number      the highest number ever made visible here (it outlives a restored database, R11)
    .issuing.crl.PID-N.new  a stage; its writer holds a lock on it, so one without a lock is the rest of a crash and is swept
    .lock                   held while something becomes visible

Writers of one host keep out of each other's way by flock, which the kernel releases when its holder dies. They may be of several users: the
folder then belongs to a group of theirs, which may write it (mode 2775).
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Final

from ca.errors import Conflict, Malformed, StoreUnavailable
from ca.model import OutletCopy, Placed
from ca.ports import Stage

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}(\.[1-9][0-9]{0,3})?(\.delta)?(\.next)?\.[a-z]{3}")
"""An issuer's, a shard's, a delta's; one that waits for its time."""
_PIECE: Final = 1 << 20
_TURN: Final = count(1)
_READABLE: Final = 0o644
_OPEN: Final = 0o755
"""Status workers may run as another user; what is published is public."""
_LOCK_TRIES: Final = 200
_LOCK_PAUSE: Final = 0.05


class FileStage:
    """A temporary file in the outlet's own folder, so that making it visible is a rename."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._named: _Named | None = None
        self.path = path

    def fileno(self) -> int:
        return self._descriptor

    def sync(self) -> None:
        self.settle()
        with _explained(self.path):
            os.fsync(self._descriptor)
            # What is read back shall come from the disk, not from the memory it was written through.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        self._named = _Named(self._descriptor)

    def settle(self) -> tuple[str, str] | None:
        """Mark and version as they were after the last sync; None: nobody knows. Nothing reads here any more when this returns."""
        return None if self._named is None else self._named.told()

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        with _explained(self.path):
            return os.pread(self._descriptor, count, start)


class _Named:
    """Finds the version of a file beside whoever reads it meanwhile for reasons of their own: SHA-256 leaves the interpreter to others."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._found: tuple[str, str] | None = None
        self._thread = Thread(target=self._read, name="stage-version")
        self._thread.start()

    def told(self) -> tuple[str, str] | None:
        self._thread.join()
        return self._found

    def _read(self) -> None:
        with suppress(OSError):  # then whoever puts it reads it
            copy = FileCopy(self._descriptor)
            self._found = (copy.mark, _version(copy))


class FileCopy:
    """A published file, held open."""

    def __init__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self._descriptor, self.size, self.modified = descriptor, found.st_size, int(found.st_mtime)
        self.mark = _mark(found)

    def read(self, start: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, start)


class DirectoryOutlet:
    """One folder. Safe for several processes of one host.

    Args:
        folder: made when it is absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions: dict[str, tuple[str, str]] = {}
        """Of each name: the mark of the file that was read last, and its version."""

    @contextmanager
    def stage(self, name: str) -> Iterator[FileStage]:
        with _explained(self._path(name)):
            self._make_folder()
            self._sweep(name)
            path, descriptor = self._create(name)
        stage = FileStage(descriptor, path)
        try:
            yield stage
        finally:
            stage.settle()
            # After a put the name is gone already. Closing releases the lock by which a sweep knows that the stage lives.
            with suppress(FileNotFoundError):
                path.unlink()
            os.close(descriptor)

    def put_if_unchanged(self, name: str, stage: Stage, *, seen: str | None) -> Placed:
        path = self._path(name)
        if not isinstance(stage, FileStage):
            raise TypeError("a stage of another outlet")
        with _explained(path), self._locked():
            before = self._placed(name)
            if (before.version if before else None) != seen:
                raise Conflict(
                    "outlet-changed",
                    f"Another publisher has replaced {name} meanwhile.",
                    why="It was faster, or the file was changed by hand.",
                )
            if before is not None:
                self._keep_previous(path, stage.path)
            # Until here readers get the old file. The rename is the moment; a crash after it leaves the new one, whole and synced.
            stage.path.replace(path)
            self._sync_folder()
            # What is visible is the file of the stage, told by its mark; then its octets are those that were read back after the sync.
            self._versions.pop(name, None)
            if (named := stage.settle()) is not None:
                self._versions[name] = named
            after = self._placed(name)
        if after is None:
            raise StoreUnavailable(
                "outlet-lost", f"{path} is gone though it was just put there.", fix=f"See who else writes in {self._folder}."
            )
        return after

    def _placed(self, name: str) -> Placed | None:
        """What is visible. A file is read once, until another one takes its place: nobody writes into one that is."""
        known = self._versions.get(name)
        with self.opened(name) as copy:
            if copy is None:
                return None
            if known is None or known[0] != copy.mark:
                known = self._versions[name] = (copy.mark, _version(copy))
            return Placed(known[1], copy.modified, copy.mark)

    def opened(self, name: str) -> AbstractContextManager[FileCopy | None]:
        return _opened(self._path(name))

    def current(self, name: str) -> OutletCopy | None:
        path = self._path(name)
        with _explained(path):
            return _read(path)

    def previous(self, name: str) -> AbstractContextManager[FileCopy | None]:
        return _opened(_previous(self._path(name)))

    def mark(self, name: str) -> str | None:
        path = self._path(name)
        with _explained(path):
            try:
                found = path.stat()
            except FileNotFoundError:
                return None
        return _mark(found)

    def high_water(self, name: str) -> int:
        path = _number(self._path(name))
        with _explained(path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return 0
        if not re.fullmatch(rb"[0-9]{1,48}\n?", text):
            # Going on as if it were absent could make a number go back after a restore; the published file holds long enough to ask.
            raise StoreUnavailable(
                "high-water-unreadable",
                f"{path} does not hold a number.",
                why="It is written whole or not at all, so something else changed it.",
                fix=f"Write the highest number ever published as {name} into it, in decimal digits.",
            )
        return int(text)

    def raise_high_water(self, name: str, number: int) -> None:
        path = _number(self._path(name))
        with _explained(path):
            self._make_folder()
            with self._locked():
                if self.high_water(name) >= number:
                    return
                # The lock keeps this name ours; the rest of a crash, perhaps another user's, is taken away.
                fresh = path.with_name(f".{path.name}.new")
                fresh.unlink(missing_ok=True)
                _write(fresh, (b"%d\n" % number,))
                fresh.replace(path)
                self._sync_folder()

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Malformed("outlet-name", "This is not a name for a published file.")
        return self._folder / name

    def _create(self, name: str) -> tuple[Path, int]:
        while True:
            path = self._folder / f".{name}.{os.getpid()}-{next(_TURN)}.new"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _READABLE)
            except FileExistsError:
                continue
            os.fchmod(descriptor, _READABLE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A sweep may have come between making and locking it; then its name is gone and we make another one.
            if path.exists():
                return path, descriptor
            os.close(descriptor)

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(_OPEN)  # published: whatever mask our process lives under

    def _sweep(self, name: str) -> None:
        """Remove stages whose writers died."""
        for path in self._folder.glob(f".{name}.*-*.new"):
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                except BlockingIOError:
                    pass  # its writer lives
                finally:
                    os.close(descriptor)

    def _keep_previous(self, path: Path, stage: Path) -> None:
        """A second name for what is visible now. A crash after it leaves previous equal to current, which harms nobody."""
        link = stage.with_suffix(".old")
        with suppress(FileNotFoundError):
            link.unlink()
        try:
            os.link(path, link)
        except PermissionError:
            # Linux links no file of another user (protected_hardlinks): the import's user and the publisher's share this folder.
            with _opened(path) as copy:
                _write(link, () if copy is None else _pieces(copy))
        link.replace(_previous(path))
        # Renaming a file over another name of the same file does nothing (rename(2)) and leaves both.
        with suppress(FileNotFoundError):
            link.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._open_to_writers(descriptor)
            for _ in range(_LOCK_TRIES):
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                Event().wait(_LOCK_PAUSE)
            else:
                raise StoreUnavailable(
                    "outlet-locked",
                    f"Another process keeps {self._folder} locked.",
                    why="It was stopped while it made a file visible.",
                    fix=f"See who holds {self._folder / '.lock'} (fuser) and let it go on, or end it.",
                )
            yield
        finally:
            os.close(descriptor)

    def _open_to_writers(self, lock: int) -> None:
        """Who may write the folder may take its lock, and nobody else: who keeps it stops publishing."""
        folder, made = self._folder.stat(), os.fstat(lock)
        shared = 0o060 if folder.st_mode & stat.S_IWGRP and made.st_gid == folder.st_gid else 0
        if made.st_uid == os.geteuid() and stat.S_IMODE(made.st_mode) != 0o600 | shared:
            os.fchmod(lock, 0o600 | shared)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mark(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _number(path: Path) -> Path:
    return path.with_name(path.name + ".number")


@contextmanager
def _opened(path: Path) -> Iterator[FileCopy | None]:
    with _explained(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = -1
    try:
        yield None if descriptor < 0 else FileCopy(descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _version(copy: FileCopy) -> str:
    digest = sha256()
    for piece in _pieces(copy):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(copy: FileCopy) -> Iterator[bytes]:
    return (copy.read(start, _PIECE) for start in range(0, copy.size, _PIECE))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """Make a file that everybody may read, durable on return."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _READABLE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _READABLE)
        file.writelines(pieces)
        file.flush()
        os.fsync(descriptor)


def _read(path: Path) -> OutletCopy | None:
    """The whole file as it was when it was opened: a rename meanwhile does not touch what we hold open."""
    try:
        with path.open("rb") as file:
            octets = file.read()
            modified = int(os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None
    return OutletCopy(sha256(octets).hexdigest(), octets, modified)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """The system's errors in our words."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            "outlet-unavailable",
            f"{path} cannot be read or written.",
            why=error.strerror or type(error).__name__,
            fix=f"Check space, rights and health of the disk below {path.parent}.",
            retry_after=30,
        ) from error
