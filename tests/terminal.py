"""Somebody at a terminal: a real pseudo-terminal that a process of ours has as its own, read and typed at like one."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.running import ROOT

_SILENT = 240
"""Seconds without a word, after which nobody waits any longer."""
_OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the process's own, so that what asks /dev/tty asks there."""


class Screen:
    """A terminal with one process at it; its stdout is not the terminal, and is kept."""

    def __init__(self, command: Sequence[str | Path], *, environment: dict[str, str] | None = None) -> None:
        controller, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN, *map(str, command)], stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, cwd=ROOT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self.controller = controller
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in the middle of a character
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody stays at a terminal that is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.controller)

    def _more(self) -> bool:
        ready, _, _ = select.select([self.controller], [], [], _SILENT)
        assert ready, self.seen[self._read :]
        try:
            octets = os.read(self.controller, 4096)
        except OSError:  # the other side is closed
            return False
        self.seen += self._decoder.decode(octets)
        return bool(octets)

    def until(self, text: str) -> str:
        """What was shown since, up to and with `text`."""
        while text not in self.seen[self._read :]:
            assert self._more(), self.seen[self._read :]
        at = self.seen.index(text, self._read) + len(text)
        said, self._read = self.seen[self._read : at], at
        return said

    def type(self, text: str, *, end: str = "\n") -> None:
        """Type a line; its end may be another key."""
        os.write(self.controller, f"{text}{end}".encode())

    def converse(self, answers: Sequence[tuple[str, Callable[[re.Match[str], str], str]]]) -> int:
        """Answer each question as it comes: a pattern of its end, and what is typed for it, told the match and what was shown since the last.

        Returns the exit code.
        """
        while True:
            shown = self.seen[self._read :]
            found = next((done for pattern, answer in answers if (done := _matched(pattern, answer, shown)) is not None), None)
            if found is not None:
                self._read = len(self.seen)
                self.type(found)
            elif not self._more():
                break
        return self.process.wait(_SILENT)

    def output(self) -> str:
        """What it wrote to stdout; it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()


def _matched(pattern: str, answer: Callable[[re.Match[str], str], str], shown: str) -> str | None:
    match = re.search(f"(?:{pattern})$", shown)
    return None if match is None else answer(match, shown)
