"""The printed script of a ceremony as PDF, read back by poppler: everything is on the paper, in its column, and each page says which sheet it is of."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

from ca.errors import Misconfigured
from ca.system import SystemChance
from config.sheet import shipped_sheet
from fleetca import ceremonies, ceremony_script, paper, paper_pdf
from fleetca.paper import Block, Code, Column, Heading, Lines, Octets, Paper, Table, Text
from tests.parts import need

DAY = 1_799_917_200


@dataclass(frozen=True)
class Word:
    page: int
    left: float
    right: float
    top: float
    text: str


def words_of(octets: bytes, folder: Path) -> list[Word]:
    (folder / "paper.pdf").write_bytes(octets)
    said = subprocess.run([need("pdftotext"), "-bbox", "paper.pdf", "-"], cwd=folder, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    found, page = [], 0
    for line in said.stdout.splitlines():
        if "<page " in line:
            page += 1
        if place := re.search(r'<word xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="[\d.]+">(.*)</word>', line):
            left, top, right = (float(place[each]) for each in (1, 2, 3))
            found.append(Word(page, left, right, top, unescape(place[4])))
    return found


def letters(blocks: Paper) -> Iterator[str]:
    for block in blocks.blocks:
        match block:
            case Table():
                yield from (each.name for each in block.columns)
                yield from (cell for row in block.rows for cell in row)
            case Octets():
                yield from (text for text, _ in block.runs)
            case Code():
                yield block.caption
            case _:
                yield block.text


@pytest.fixture(scope="module")
def script() -> Paper:
    sheet = shipped_sheet("witnessed-root")
    form, _ = ceremonies.planned_day(sheet)
    return ceremony_script.script(ceremonies.plan(sheet, at=DAY, chance=SystemChance()), form)


@pytest.fixture(scope="module")
def printed(script: Paper, tmp_path_factory: pytest.TempPathFactory) -> list[Word]:
    return words_of(paper_pdf.pdf(script), tmp_path_factory.mktemp("paper"))


def test_every_letter_of_the_script_is_on_the_paper(script: Paper, printed: list[Word]) -> None:
    wanted = Counter("".join("".join(letters(script)).split()))
    assert wanted - Counter("".join(word.text for word in printed)) == Counter()


def test_every_key_and_every_share_has_a_line_for_who_keeps_it() -> None:
    sheet = shipped_sheet("quorum-root")
    form, _ = ceremonies.planned_day(sheet)
    made = ceremony_script.script(ceremonies.plan(sheet, at=DAY, chance=SystemChance()), form)
    (kept,) = [block for block in made.blocks if isinstance(block, Table) and block.columns[0].name == "Key or share"]
    assert kept.columns[1].name == "Module, its FIPS 140-3 certificate"
    people = [each.person for each in form.roles if each.role == "custodian"]
    assert [(row[0], row[3]) for row in kept.rows] == [
        *((f"share {number} of {len(people)}, root-quorum", person) for number, person in enumerate(people, start=1)),
        ("key of root, p384", ""),
    ]


def test_nothing_runs_off_the_paper_or_into_the_footer(printed: list[Word]) -> None:
    assert all(word.left >= 39 and word.right <= 556.5 and 40 < word.top < 815 for word in printed)
    body = [word.top for word in printed if word.top < 795]
    assert max(body) < 841.89 - 56


def test_each_page_says_which_sheet_it_is_of_and_its_number(script: Paper, printed: list[Word]) -> None:
    count = max(word.page for word in printed)
    digest = script.footer.rpartition(" ")[2]
    for page in range(1, count + 1):
        foot = [word.text for word in printed if word.page == page and word.top > 795]
        assert foot[-3:] == [str(page), "/", str(count)]
        assert digest in foot


def test_people_have_columns_to_write_in_on_every_page_of_steps(printed: list[Word]) -> None:
    pages = {word.page for word in printed if re.fullmatch(r"5\.\d+\.\d+", word.text)}
    assert len(pages) > 20
    for page in pages:
        text = [word.text for word in printed if word.page == page]
        assert {"Activity", "Expected", "Real", "Initials", "Time"} <= set(text)


def test_what_is_known_before_the_day_has_its_hash_in_the_column_for_it(tmp_path: Path) -> None:
    """A link between two roots that are there, on a given day, is known but for its serial number; a destruction is known whole."""
    sheet = shipped_sheet("retire-root")
    form, _ = ceremonies.planned_day(sheet)
    plan = ceremonies.plan(sheet, at=DAY, chance=SystemChance())
    script = ceremony_script.script(plan, form)
    tables = [block for block in script.blocks if isinstance(block, Table) and any(row[0].startswith("5.") for row in block.rows)]
    expected = [[row[2] for row in table.rows if row[2]] for table in tables]
    assert len(expected) == len(plan.acts)
    assert [len(each) == 1 for each in expected] == [not act.placeholders for act in plan.acts]
    assert any(expected)


def test_the_words_of_a_cell_stay_between_its_lines(tmp_path: Path) -> None:
    """That the widths we reckon with are those of the fonts."""
    columns = (Column("one", 20), Column("two", 30), Column("three", 50, code=True))
    cell = "The quick brown fox (jumps) over \\ the lazy dog; WAVES, 1234567890 & <more>. Größe: 10 € – «für alle», ÅÉÎÕÜ æøß"
    rows = [(cell, cell.upper(), "0123456789abcdef" * 9), (cell * 3, "", "f" * 64), ("", "i" * 300, "W" * 300)]
    blocks: list[Block] = [Heading("Widths", 1), Table(columns, rows)]
    words = words_of(paper_pdf.pdf(Paper("Widths", "foot", blocks)), tmp_path)
    edges = [40 + 515.28 * share / 100 for share in (0, 20, 50, 100)]
    inside = [any(low <= word.left and word.right <= high for low, high in pairwise(edges)) for word in words if 60 < word.top < 790]
    assert len(inside) > 100
    assert all(inside)
    wanted = Counter("".join("".join(row) for row in rows).replace(" ", ""))
    assert wanted - Counter("".join(word.text for word in words)) == Counter()


def test_a_row_that_no_page_holds_goes_on_on_the_next(tmp_path: Path) -> None:
    rows = [("long", " ".join(f"word{number}" for number in range(3000)), "")]
    words = words_of(paper_pdf.pdf(Paper("Long", "foot", [Table((Column("a", 1), Column("b", 3), Column("c", 1)), rows)])), tmp_path)
    assert [word.text for word in words if word.text.startswith("word")] == [f"word{number}" for number in range(3000)]
    assert max(word.top for word in words if word.text.startswith("word")) < 841.89 - 56
    assert max(word.page for word in words) > 2


def test_lines_and_octets_stand_as_they_are(tmp_path: Path) -> None:
    sheet = '[ceremony]\nname = "x"   # with spaces\n\n' + "a" * 200
    made = Paper("T", "foot", [Lines(sheet), Octets([("30820179", False), ("serial number: 20 octets", True), ("ff" * 300, False)])])
    octets = paper_pdf.pdf(made)
    (tmp_path / "paper.pdf").write_bytes(octets)
    said = subprocess.run([need("pdftotext"), "-layout", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert 'name = "x"   # with spaces' in said
    assert "30820179serial number: 20 octetsff" in said
    assert paper_pdf.pdf(made) == octets


def test_a_letter_that_the_fonts_lack_is_refused_and_html_has_it() -> None:
    named = Paper("Script", "foot", [Text("Łukasz signs")])
    with pytest.raises(Misconfigured) as caught:
        paper_pdf.pdf(named)
    assert caught.value.code == "no-such-letter"
    assert "Ł" in caught.value.what
    assert ".html" in caught.value.fix
    assert "Łukasz signs" in paper.html(named)
