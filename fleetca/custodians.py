"""Custodians at a terminal: a share on the screen for one pair of eyes, then gone; shares typed back in. Edge: shows and asks, decides nothing.

`Practice` does the same with files, for rehearsals, tests and the pages of the documentation: a share in a file is nobody's custody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from ca.custody import Gathering, Given, ShareSheet
from ca.errors import FleetcaError, KeyUnavailable, Misconfigured
from config.secrets import Secret
from fleetca import forms
from fleetca.cli import prompts
from fleetca.folder import make_folder, put_new

PRACTICE: Final = "practice-"
_A_ROW: Final = 3
# Erase the screen and what was scrolled away, cursor home (ECMA-48, and xterm's 3J).
_CLEAR: Final = "\x1b[2J\x1b[3J\x1b[H"


class Terminal:
    """One custodian after the other, at one screen."""

    def show(self, sheet: ShareSheet) -> None:
        """Show a share to its custodian, and clear the screen."""
        prompts.asked(
            f"Share {sheet.number} of {sheet.count} is for {sheet.custodian} alone. Everybody else looks away. Enter goes on",
            "",
            flag="a terminal",
        )
        words = sheet.words.split()
        lines = [
            f"{sheet.quorum}, set {sheet.identifier}, share {sheet.number} of {sheet.count}, {sheet.threshold} needed: {sheet.custodian}"
        ]
        rows = [list(enumerate(words, start=1))[start : start + _A_ROW] for start in range(0, len(words), _A_ROW)]
        lines += ["   ".join(f"{place:2d} {word:<10}" for place, word in row) for row in rows]
        prompts.say("\n".join(lines))
        prompts.asked("Written down on paper, also the first line? Enter clears the screen", "", flag="a terminal")
        self._clear()

    def reenter(self, custodian: str, attempt: int) -> str:
        """Have it read back."""
        again = "" if attempt == 1 else "That was not it. "
        words = prompts.asked(f"{again}{custodian}, type the words from the paper (four letters of each are enough)", "", flag="a terminal")
        self._clear()
        return words

    def ask(self, gathering: Gathering) -> str:
        """Have a share given."""
        words = prompts.asked(
            f"{gathering.left} more share{'s' if gathering.left > 1 else ''} of {gathering.quorum.name} (set {gathering.quorum.identifier})",
            "",
            flag="--share-file",
        )
        self._clear()
        return words

    def told(self, said: Given | FleetcaError) -> None:
        """Say what became of it."""
        prompts.say(heard(said))

    def _clear(self) -> None:
        click.echo(_CLEAR, err=True, nl=False)


def heard(said: Given | FleetcaError) -> str:
    """What became of a share, in words."""
    if isinstance(said, Given):
        return f"The share of {said.custodian} was taken; {said.left} to go."
    return f"Not taken: {said}{f' {said.fix}' if said.fix else ''}"


class Practice:
    """Shares as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def show(self, sheet: ShareSheet) -> None:
        """Write a share where only our own user reads it."""
        make_folder(self._folder)
        put_new(self._path(sheet.custodian), f"{sheet.words}\n".encode(), mode=0o600)

    def reenter(self, custodian: str, attempt: int) -> str:
        """Read it back."""
        return self._path(custodian).read_text()

    def _path(self, custodian: str) -> Path:
        return self._folder / f"{re.sub(r'[^a-z0-9]+', '-', custodian.lower()).strip('-')}.share"


def from_files(files: Sequence[str]) -> Callable[[Gathering], str]:
    """Gives shares from files of mode 0600, one after the other.

    Raises (when called):
        KeyUnavailable: there are no more (`quorum-incomplete`), or a file cannot be read.
    """
    waiting = list(files)

    def ask(gathering: Gathering) -> str:
        if not waiting:
            raise KeyUnavailable(
                "quorum-incomplete", f"{gathering.left} more shares of {gathering.quorum.name} are needed.", fix="Give more --share-file."
            )
        return forms.secret(Secret("file", waiting.pop(0), Path.cwd()))().decode("utf-8", "replace")

    return ask


def check_practice(name: str, folder: Path | None) -> None:
    """Shares in files are for practice only, and say so in their name.

    Raises:
        Misconfigured: they do not (`practice-name`).
    """
    if (folder is not None) != name.startswith(PRACTICE):
        raise Misconfigured(
            "practice-name",
            f"A set of shares in files is called {PRACTICE}..., and no other is.",
            why="Who has the files has the key.",
            fix=f"Call it {PRACTICE}{name}, or leave --practice out and sit down at a terminal."
            if folder is not None
            else "Choose another name.",
        )
