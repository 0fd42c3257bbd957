"""The mapping files: each pointer leads somewhere, the CRA's letters are the right ones, and what is wrong is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.mappings import read_mappings
from fleetca.evidence.parts import PARTS

ROOT = Path(__file__).parents[2]
NAMES = ["cra", "en-303-645", "fda", "iec-62443", "iec-81001-5-1", "webtrust"]


def test_there_is_one_for_each_framework() -> None:
    assert [one.name for one in read_mappings()] == NAMES


def pointers(folder: Path | None = None) -> list[str]:
    """What points nowhere."""
    known = set(tomllib.loads((ROOT / "docs/requirements.toml").read_text()))
    parts = {id_ for id_, _, _ in PARTS}
    return [
        f"{mapping.name} {row.id}: {pointer}"
        for mapping in read_mappings(folder)
        for row in mapping.rows
        for pointer in (*(one for one in row.requirements if one not in known), *(one for one in row.parts if one not in parts))
    ]


@pytest.mark.req("REQ-KEY-055")
def test_every_pointer_leads_to_a_requirement_or_a_part() -> None:
    assert pointers() == []


@pytest.mark.req("REQ-KEY-055")
def test_a_pointer_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        'title = "X"\nedition = "1"\n[[rows]]\nid = "1"\nasks = "Something."\nrequirements = ["REQ-KEY-999"]\nparts = ["99-nothing"]\n'
    )
    assert pointers(tmp_path) == ["x 1: REQ-KEY-999", "x 1: 99-nothing"]


@pytest.mark.req("REQ-KEY-055")
def test_the_letters_of_the_cra_are_the_right_ones() -> None:
    """Annex I Part I (2): (e) is confidentiality and (f) integrity; sources have them mixed up."""
    rows = {row.id: row for mapping in read_mappings() if mapping.name == "cra" for row in mapping.rows}
    assert "secret" in rows["I.2.e"].asks
    assert "changed unseen" in rows["I.2.f"].asks
    assert {f"I.2.{letter}" for letter in "abcdefghijklm"} <= set(rows)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('id = "1"\nasks = "x"\nrequirements = []\nparts = []', "neither a requirement nor a note"),
        ('id = "1"\nrequirements = []\nparts = []\nnote = "x"', "asks"),
        ('id = "1"\nasks = "x"\nrequirements = []\nparts = []\nnote = "x"\nowner = "me"', "owner"),
        (
            'id = "1"\nasks = "x"\nrequirements = []\nparts = []\nnote = "x"\n[[rows]]\nid = "1"\nasks = "x"\nrequirements = []\nparts = []\nnote = "x"',
            "twice",
        ),
    ],
)
def test_a_mapping_that_is_wrong_is_refused_by_name(tmp_path: Path, row: str, words: str) -> None:
    (tmp_path / "x.toml").write_text(f'title = "X"\nedition = "1"\n[[rows]]\n{row}\n')
    with pytest.raises(ConfigurationError) as told:
        read_mappings(tmp_path)
    assert words in f"{told.value}" and "x.toml" in f"{told.value}"
