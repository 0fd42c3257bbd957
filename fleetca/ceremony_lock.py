"""One process at a time works in a ceremony's folder: two would write two transcripts. Edge: effects only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from ca.errors import Conflict
from fleetca.folder import make_folder, understood


class FolderLock:
    """Held until the block ends, or the process does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> None:
        """Take it.

        Raises:
            Conflict: another process has it (`ceremony-runs`).
            StoreUnavailable: there is no such folder, and none can be made.
        """
        with understood(self._folder):
            make_folder(self._folder)
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Conflict(
                "ceremony-runs", f"A ceremony runs in {self._folder} already.", fix="Wait for it, or give another folder with --out."
            ) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
