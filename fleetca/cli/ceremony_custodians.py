"""Custodians at the terminal of a ceremony: one looks at a share, copies it, reads it back; nobody else sees it, and nothing keeps it."""

from __future__ import annotations

from typing import Final

import click

from ca.custody import Gathering, Given, ShareSheet
from ca.errors import FleetcaError
from fleetca.cli import prompts

_ROW: Final = 3


class Terminal:
    """Shows shares on the screen, one after the other, and asks for them without echo."""

    def show(self, sheet: ShareSheet) -> None:
        """Show a share to its custodian, and take it from the screen."""
        who = f"{sheet.custodian}: share {sheet.number} of {sheet.count} of {sheet.quorum} (set {sheet.identifier})"
        self._pause(f"\n{who}\n  Only {sheet.custodian} looks at the screen now, with paper and pen; everybody else turns away.")
        words = sheet.words.split()
        rows = [words[at : at + _ROW] for at in range(0, len(words), _ROW)]
        lines = [
            "   ".join(f"{row * _ROW + place:>2} {word:<10}" for place, word in enumerate(each, start=1)) for row, each in enumerate(rows)
        ]
        prompts.say(f"{who}; {sheet.threshold} are needed\n\n" + "\n".join(lines))
        self._pause("\n  Copied, with the name of the set and the number? It is not shown again.")
        click.clear()
        # The terminal keeps what was scrolled away, unless it is told otherwise.
        click.echo("\x1b[3J", nl=False)

    def reenter(self, custodian: str, attempt: int) -> str:
        """The custodian reads the share back from the paper."""
        again = "" if attempt == 1 else f" (try {attempt}: it was not the share that was shown)"
        return self._ask(f"{custodian}, type the words from your paper{again}; four letters of each are enough")

    def ask(self, gathering: Gathering) -> str:
        """One custodian gives a share."""
        return self._ask(f"{gathering.quorum.name}: {gathering.left} more of {gathering.quorum.shape}; the next custodian types a share")

    def told(self, outcome: Given | FleetcaError) -> None:
        """What became of it."""
        if isinstance(outcome, Given):
            prompts.say(f"  {outcome.custodian}: taken; {outcome.left} more are needed.")
        else:
            prompts.say(f"  {outcome.what} {outcome.why} {outcome.fix}".rstrip())

    def _pause(self, text: str) -> None:
        prompts.require(text.strip(), "a terminal: shares are shown to people")
        prompts.say(text)
        click.pause("  [Enter]", err=True)

    def _ask(self, question: str) -> str:
        prompts.require(question, "a terminal: shares are typed by people")
        return str(click.prompt(question, hide_input=True, err=True))
