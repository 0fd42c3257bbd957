"""docs/reference/settings.md says what the code reads."""

from __future__ import annotations

from pathlib import Path

from config.reference import markdown

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == markdown(), "run: .venv/bin/python -m config.reference > docs/reference/settings.md"
