"""Custodians at a terminal: a share is on the screen while its custodian looks, then it is gone; what is typed is not echoed."""

from __future__ import annotations

from typing import Any

import click
import pytest

from ca.custody import Custody, Gathering, Given, ShareSheet
from ca.errors import Malformed
from ca.keys.shares import Slip39
from fleetca.cli import prompts
from fleetca.custodians import Terminal


class Clock:
    def now(self) -> int:
        return 1_800_000_000


class Screen:
    """What click and prompts would do on a real one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str]] = []
        self.answers: list[str] = []
        patch.setattr(prompts, "interactive", lambda: True)
        patch.setattr(prompts, "say", lambda text: self.log.append(("said", text)))
        patch.setattr(click, "echo", self._echo)
        patch.setattr(click, "prompt", self._prompt)

    def _echo(self, text: str, *, err: bool, nl: bool) -> None:
        assert err, "stdout may be kept in a file"
        self.log.append(("cleared", text))

    def _prompt(self, question: str, **named: Any) -> str:
        assert named["hide_input"] is True
        assert named["err"] is True
        if "[Enter]" in question:
            self.log.append(("paused", ""))
            return ""
        self.log.append(("asked", question))
        return self.answers.pop(0)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


def test_a_share_is_shown_to_one_and_taken_away_before_the_next(screen: Screen) -> None:
    terminal, seen = Terminal(), []

    class Copying(Terminal):
        def show(self, sheet: ShareSheet) -> None:
            seen.append(sheet.words)
            screen.answers.append(sheet.words)
            terminal.show(sheet)

        def reenter(self, custodian: str, attempt: int) -> str:
            return terminal.reenter(custodian, attempt)

    people = Copying()
    custody = Custody(sharing=Slip39(), clock=Clock())
    quorum, key = custody.make("root", ["Ada", "Ben", "Cyd"], 2, show=people.show, reenter=people.reenter)
    kinds = [kind for kind, _ in screen.log]
    # Wait until only one looks; show; wait for the copy; clear the screen and what was scrolled away; read back.
    assert kinds == ["said", "paused", "said", "said", "paused", "cleared", "asked"] * 3
    shown = [text for kind, text in screen.log if kind == "said" and text.count("\n") > 8]
    for words, text in zip(seen, shown, strict=True):
        assert all(f"{place:>2} {word}" in text for place, word in enumerate(words.split(), start=1))
    assert all("\x1b[2J" in text and "\x1b[3J" in text for kind, text in screen.log if kind == "cleared")

    screen.answers = [seen[2], "no share at all", seen[0]]
    found, came = custody.unlock(quorum, ask=terminal.ask, told=terminal.told)
    assert found.check == key.check
    assert came == ("Ada", "Cyd")


def test_what_became_of_a_share_is_said_without_its_words(screen: Screen) -> None:
    Terminal().told(Given("Ada", 1))
    Terminal().told(Malformed("bad-share", "Word 3 is none of the list.", fix="Read it once more from the paper."))
    assert [text for _, text in screen.log] == [
        "  Ada: taken; 1 more to go.",
        "  Not taken: Word 3 is none of the list.  Read it once more from the paper.",
    ]


def test_without_a_terminal_nothing_is_shown_and_nothing_asked(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "interactive", lambda: False)
    seen: dict[str, str] = {}

    def show(sheet: ShareSheet) -> None:
        seen[sheet.custodian] = sheet.words

    sharing = Slip39()
    quorum, _ = Custody(sharing=sharing, clock=Clock()).make("r", ["A", "B"], 2, show=show, reenter=lambda who, _try: seen[who])
    with pytest.raises(Malformed) as caught:
        Terminal().ask(Gathering(quorum, sharing))
    assert caught.value.code == "needs-answer"
    with pytest.raises(Malformed):
        Terminal().show(ShareSheet("r", 1, "A", 1, 2, 2, seen["A"]))
    assert screen.log == []
