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
    """One custodian after the other, at one screen. All of it goes to stderr: what is kept of stdout has no share in it."""

    def show(self, sheet: ShareSheet) -> None:
        """Show a share to its custodian, and take it from the screen."""
        who = f"{sheet.custodian}: share {sheet.number} of {sheet.count} of {sheet.quorum} (set {sheet.identifier})"
        self._pause(
            f"\n{who}\n  Only {sheet.custodian} looks at the screen now, with paper and pen; everybody else and the camera look away."
        )
        words = sheet.words.split()
        rows = [list(enumerate(words, start=1))[start : start + _A_ROW] for start in range(0, len(words), _A_ROW)]
        lines = ["   ".join(f"{place:>2} {word:<10}" for place, word in row) for row in rows]
        prompts.say(f"{who}; {sheet.threshold} are needed\n\n" + "\n".join(lines))
        self._pause("\n  Copied, with the name of the set and the number? It is not shown again.")
        click.echo(_CLEAR, err=True, nl=False)

    def reenter(self, custodian: str, attempt: int) -> str:
        """The custodian reads the share back from the paper."""
        again = "" if attempt == 1 else f" (try {attempt}: it was not the share that was shown)"
        return self._ask(f"{custodian}, type the words from your paper{again}; four letters of each are enough, nothing shows")

    def ask(self, gathering: Gathering) -> str:
        """One custodian gives a share."""
        found = gathering.quorum
        return self._ask(
            f"{found.name} (set {found.identifier}): {gathering.left} more of {found.shape}; the next custodian types a share, nothing shows"
        )

    def told(self, outcome: Given | FleetcaError) -> None:
        """What became of it."""
        if isinstance(outcome, Given):
            prompts.say(f"  {outcome.custodian}: taken; {outcome.left} more to go.")
        else:
            prompts.say(f"  Not taken: {outcome.what} {outcome.why} {outcome.fix}".rstrip())

    def _pause(self, text: str) -> None:
        prompts.require(text.strip(), "a terminal: shares are shown to people")
        prompts.say(text)
        click.prompt("  [Enter]", default="", show_default=False, hide_input=True, err=True)

    def _ask(self, question: str) -> str:
        prompts.require(question, "a terminal: shares are typed by people")
        return str(click.prompt(question, hide_input=True, err=True))


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
