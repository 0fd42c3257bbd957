"""Finished answers as files under the exact paths of GET requests, for nginx, a CDN or any web server. Ring 3.

A file's time of change says both times of its answer: in seconds thisUpdate, which web servers send as Last-Modified, and in nanoseconds how many
seconds later nextUpdate is. So whoever sweeps needs nothing but the folder, and does not read a single file.

Paths that cannot be files (base64 with `//` in it, or with `/` at its end) have none; a web server hands them to the responder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ca.errors import StoreUnavailable
from ca.model import UnixTime
from ocsp.model import Window
from ocsp.rules.http import file_path

_NANO: Final = 1_000_000_000
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
NEW: Final = ".new"
"""The name of the one that is not whole yet; no base64 has a dot."""


class AnswerFolder:
    """A folder of answers; one writes, anybody reads.

    Args:
        folder: what the web server serves as the responder's path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._text, self._new = f"{folder}/", f"{folder}/{NEW}"
        self._hidden = bool(_umask() & 0o044)

    def put(self, certificate_id: bytes, body: bytes, window: Window) -> bool:
        """Keep an answer in place of an older one; readers see either. False where its path cannot be a file.

        Nothing is brought to the disk: what a power cut takes is asked of the responder, and signed anew by the next walk.

        Raises:
            StoreUnavailable: it cannot be written (`answers-unwritable`).
        """
        path = file_path(certificate_id)
        if path is None:
            return False
        file, new = self._text + path, self._new
        stamp = window.this_update * _NANO + min(window.next_update - window.this_update, _NANO - 1)
        try:
            try:
                descriptor = os.open(new, _CREATE, 0o644)
            except FileNotFoundError:
                _make(self._text)
                descriptor = os.open(new, _CREATE, 0o644)
            try:
                if self._hidden:
                    os.fchmod(descriptor, 0o644)
                os.write(descriptor, body)
                os.utime(descriptor, ns=(stamp, stamp))
            finally:
                os.close(descriptor)
            try:
                os.rename(new, file)  # noqa: PTH104
            except FileNotFoundError:
                _make(file.rpartition("/")[0])
                os.rename(new, file)  # noqa: PTH104
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        return True

    def flush(self) -> None:
        """Each is there when `put` returns."""

    def drop(self, certificate_id: bytes) -> None:
        """Forget an answer."""
        path = file_path(certificate_id)
        if path is not None:
            with _writing(self._folder), suppress(FileNotFoundError):
                (self._folder / path).unlink()


def sweep(folder: Path, *, now: UnixTime, ahead: int = 0) -> int:
    """Remove every answer whose nextUpdate has come; how many those were. Needs nothing but the folder.

    Args:
        ahead: seconds before nextUpdate at which an answer goes: as long as caches are told to keep it.
    """
    gone = 0
    with _writing(folder):
        for path in _files(str(folder)):
            with suppress(FileNotFoundError):
                seconds, later = divmod(os.stat(path).st_mtime_ns, _NANO)  # noqa: PTH116  a million of them
                if now >= seconds + later - ahead:
                    os.unlink(path)  # noqa: PTH108
                    gone += 1
    return gone


def _make(folder: str) -> None:
    try:  # almost always only the last one is missing
        os.mkdir(folder)  # noqa: PTH102  a million of them
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103


def _files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.path


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        "answers-unwritable",
        f"The folder of answers {folder} cannot be written.",
        why=f"{error.strerror or error}.",
        fix="Make room, or let our user write there.",
    )


def _umask() -> int:
    """Of this process; asking for it sets it, for a moment in which others may make files."""
    found = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 8) if found else 0o777
