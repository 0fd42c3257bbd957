"""The published log as a directory of C2SP tlog-tiles files. Ring 3: adapts the file system to `ca.ports.RecordFiles`.

Any static web server can serve the directory as it is. Knows nothing of what the files mean.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ca.errors import StoreUnavailable


class TileDirectory:
    """A log's files below one folder, 0644 in 0755: they are meant to be read by everybody.

    A file is put in place by writing it under another name, fsync, rename, fsync of its folder: a crash leaves the old file or the new
    one, and perhaps a hidden temporary file that nobody reads.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable("read", self._root / path, error) from error

    def write(self, files: Sequence[tuple[str, bytes]]) -> None:
        folders: dict[Path, None] = {}
        for path, octets in files:
            target = self._root / path
            folder = target.parent
            try:
                if folder not in folders:
                    _make_folder(folder)
                    folders[folder] = None
                _put(target, octets)
            except OSError as error:
                raise _unavailable("written", target, error) from error
        for folder in folders:
            try:
                _sync_folder(folder)
            except OSError as error:
                raise _unavailable("written", folder, error) from error

    def remove_partials(self, path: str) -> None:
        shutil.rmtree(self._root / f"{path}.p", ignore_errors=True)

    def names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            for name in sorted(files):
                if not name.startswith("."):
                    yield (Path(folder) / name).relative_to(self._root).as_posix()


def _make_folder(folder: Path) -> None:
    """Make it and its parents, each durable in its own parent before anything is put into it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # published: whatever mask our process lives under
    _sync_folder(folder.parent)


def _put(target: Path, octets: bytes) -> None:
    # The name is ours alone while we live: process and thread stand in it. What a dead namesake left is overwritten.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(done: str, path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        "log-files",
        f"The file {path} of the record cannot be {done}.",
        why=error.strerror or str(error),
        fix="Make room or mend the permissions of the folder; the sequencer goes on by itself.",
    )
