"""What issuing, OCSP and CRLs cost is published, each figure beside a rival or a limit (REQ-KEY-082)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PUBLISHED = ("issue", "ocsp", "crl", "enrol", "line")


def rows_of(text: str, contest: str) -> list[list[str]]:
    """The rows that a contest published; none where it published nothing or does not say on what machine and which commit."""
    found = re.search(rf"<!-- contest {contest} -->\n(.*?)<!-- end of {contest} -->", text, re.DOTALL)
    if found is None or re.search(r"^\d+ x .+; commit [0-9a-f]{7,}, Python ", found[1], re.MULTILINE) is None:
        return []
    lines = [line for line in found[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.req("REQ-KEY-082")
@pytest.mark.parametrize("contest", PUBLISHED)
def test_a_contest_is_published_with_rival_ratio_target_spread_and_both_figures(contest: str) -> None:
    rows = rows_of(DOCUMENT.read_text(), contest)
    assert len(rows) >= 2
    for what, rival, ratio, target, spread, ours, theirs, unit in rows:
        assert what and rival and unit
        measured = float(ratio.strip("*"))
        assert measured >= 0
        assert float(target.split()[-1]) > 0 and target[:2] in {">=", "<="}
        assert re.fullmatch(r"[\d.]+ to [\d.]+ in \d+ rounds", spread)
        # Ratios are cut to two places: what is near nothing says nothing about the other two.
        if measured >= 0.1:
            assert float(ours) / float(theirs) == pytest.approx(measured, rel=0.1)


@pytest.mark.req("REQ-KEY-082")
@pytest.mark.parametrize("contest", PUBLISHED)
def test_a_contest_that_is_not_published_is_noticed(contest: str) -> None:
    text = DOCUMENT.read_text()
    assert rows_of(text.replace(f"<!-- contest {contest} -->", ""), contest) == []
    assert rows_of(text.replace("; commit ", "; "), contest) == []
