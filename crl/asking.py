"""Asking a running publisher for a CRL now, by a file in a folder of its own. Ring 3.

Whoever may write there may already publish; a file that nobody takes does nothing.
"""

from __future__ import annotations

from pathlib import Path


class Asking:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, name: str) -> None:
        """Want the CRL of that file name anew. Safe to repeat.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / f"{name}.asked").touch()

    def asked(self, name: str) -> bool:
        """Whether somebody wants it."""
        return (self._folder / f"{name}.asked").exists()

    def done(self, name: str) -> None:
        """It is published."""
        (self._folder / f"{name}.asked").unlink(missing_ok=True)
