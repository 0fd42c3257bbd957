"""docs/architecture.md is true: its links lead somewhere, its paths exist. That its tree is the code's stands in test_documents.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/architecture.md"


@pytest.mark.parametrize("page", sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_path_it_names_exists() -> None:
    prose = DOCUMENT.read_text().split("## Every module")[0].replace("lint-imports", "")
    for path in re.findall(r"`((?:ca|crl|ocsp|enroll|config|fleetca|scripts|tests|docs)/[\w./-]+)`", prose):
        assert (ROOT / path).exists(), path


def test_every_decision_is_linked() -> None:
    text = DOCUMENT.read_text()
    for decision in (ROOT / "docs/adr").glob("*.md"):
        assert f"adr/{decision.name}" in text, decision.name
