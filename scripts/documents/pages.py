"""Which pages are generated, and from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from documents import ceremony_script, commands, errors, events, profiles, routes, settings, sheets, tree

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and what makes its text from the text that stands there now (only the tree keeps any of it)."""

    file: Path
    make: Callable[[str], str]

    def is_fresh(self) -> bool:
        return self.file.exists() and self.file.read_text() == self.make(self.file.read_text())

    def write(self) -> None:
        self.file.write_text(self.make(self.file.read_text() if self.file.exists() else ""))


def _whole(make: Callable[[], str]) -> Callable[[str], str]:
    return lambda _: make()


PAGES = (
    Page(DOCS / "architecture.md", tree.into),
    Page(DOCS / "how-to/ceremony-script.html", _whole(ceremony_script.page)),
    Page(DOCS / "reference/ceremony-sheets.md", _whole(sheets.page)),
    Page(DOCS / "reference/cli.md", _whole(commands.page)),
    Page(DOCS / "reference/errors.md", _whole(errors.page)),
    Page(DOCS / "reference/log-lines.md", _whole(events.page)),
    Page(DOCS / "reference/profiles.md", _whole(profiles.page)),
    Page(DOCS / "reference/rest.md", _whole(routes.page)),
    Page(DOCS / "reference/settings.md", _whole(settings.page)),
)
