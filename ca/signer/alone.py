"""One signer at a time. Edge.

The lock lies beside the journal: who writes the journal or acts as the signer (`import`, `recover`, `restore`) holds it. It ends with the
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ca.errors import Conflict, StoreUnavailable


class SignerLock:
    """Held while open; use it as a context manager."""

    def __init__(self, journal: str | Path) -> None:
        self.path = Path(f"{journal}.lock")
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            Conflict: `signer-running`.
            StoreUnavailable: its folder cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(
                "journal-unwritable",
                "The signer's lock cannot be made.",
                why=str(error),
                fix="Mend owner and mode of the journal's folder.",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Conflict(
                "signer-running",
                "A signer of this deployment is running.",
                why=f"Process {holder or 'unknown'} holds {self.path}.",
                fix="Stop it first (fleetca serve, or its systemd unit).",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
