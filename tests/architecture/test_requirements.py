"""Requirements and tests hold together (REQ-KEY-030): `scripts/trace` over this repository, and over small ones that are wrong on purpose."""

from __future__ import annotations

import ast
import csv
import io
import json
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ca.rules import implements

ROOT = Path(__file__).resolve().parents[2]
GOOD = '["REQ-KEY-001"]\nsays = "Keys are good."\naliases = ["REQ-KEY-OLD-01"]\nnegative = "tests/test_a.py::test_bad_keys_are_refused"\n'
TESTS = """import pytest

@pytest.mark.req("REQ-KEY-001")
@pytest.mark.parametrize("key", [1, 2])
def test_bad_keys_are_refused(key): ...

class TestMore:
    @pytest.mark.req("REQ-KEY-OLD-01")
    def test_by_its_old_name(self): ...
"""


def trace(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "trace"), "--root", str(root), *arguments], capture_output=True, text=True, check=False
    )


def small(folder: Path, requirements: str = GOOD, tests: str = TESTS) -> Path:
    (folder / "docs").mkdir()
    (folder / "tests").mkdir()
    (folder / "docs" / "requirements.toml").write_text(requirements)
    (folder / "tests" / "test_a.py").write_text(tests)
    return folder


@pytest.mark.req("REQ-KEY-030")
def test_every_requirement_has_its_test_or_a_reason_and_every_mark_a_requirement() -> None:
    done = trace(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_holds_together_is_not_blamed(tmp_path: Path) -> None:
    done = trace(small(tmp_path), "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.req("REQ-KEY-030")
@pytest.mark.parametrize(
    ("requirements", "tests", "words"),
    [
        (GOOD, TESTS.replace("-001", "-999"), "shows REQ-KEY-999, which docs/requirements.toml does not know"),
        (GOOD, TESTS.replace('"REQ-KEY-001"', "NAME"), "shows (not a plain text), which"),
        (GOOD + '["REQ-KEY-002"]\nsays = "More."\n', TESTS, "REQ-KEY-002: no test shows it, and no reason is written down"),
        (GOOD + '["REQ-KEY-002"]\nsays = "More."\nreason = " "\n', TESTS, "REQ-KEY-002: no test shows it"),
        (
            GOOD.replace('negative = "tests/test_a.py::test_bad_keys_are_refused"\n', ""),
            TESTS,
            "none of its tests is named as the negative",
        ),
        (GOOD.replace("test_bad_keys", "test_good_keys"), TESTS, "is none of its tests"),
        (GOOD + 'tests = ["tests/test_a.py::test_gone"]\n', TESTS, "names tests/test_a.py::test_gone, which is no test"),
        (GOOD.replace("Keys are good.", ""), TESTS, "nobody said what it asks"),
        (GOOD + 'flag = "Z"\n', TESTS, "its flag is one of C, X, D"),
        (GOOD + 'owner = "me"\n', TESTS, "has a key 'owner' that nobody reads"),
    ],
)
def test_the_check_names_what_is_wrong(requirements: str, tests: str, words: str, tmp_path: Path) -> None:
    done = trace(small(tmp_path, requirements, tests), "--check")
    assert done.returncode == 1
    assert words in done.stderr


RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_bad_keys_are_refused[1]"/>
<testcase classname="tests.test_a" name="test_bad_keys_are_refused[2]"><failure>no</failure></testcase>
<testcase classname="tests.test_a.TestMore" name="test_by_its_old_name"><skipped/></testcase>
</testsuite></testsuites>
"""


def test_the_matrix_tells_the_last_result_in_three_forms(tmp_path: Path) -> None:
    root = small(tmp_path, GOOD + '["REQ-KEY-002"]\nsays = "A < b."\nreason = "Later."\nlinks = ["BOOT-7"]\n')
    results = tmp_path / "results.xml"
    results.write_text(RESULTS)
    first, second = json.loads(trace(root, "--json", "--results", str(results)).stdout)
    assert (first["result"], second["result"], second["links"]) == ("failed", "no test", ["BOOT-7"])
    assert first["tests"] == {"tests/test_a.py::test_bad_keys_are_refused": "failed", "tests/test_a.py::test_by_its_old_name": "skipped"}
    assert {row["result"] for row in json.loads(trace(root, "--json").stdout)} == {"not run", "no test"}
    rows = list(csv.DictReader(io.StringIO(trace(root, "--csv", "--results", str(results)).stdout)))
    assert [(row["requirement"], row["result"], row["negative"]) for row in rows] == [
        ("REQ-KEY-001", "failed", "yes"),
        ("REQ-KEY-001", "skipped", ""),
        ("REQ-KEY-002", "no test", ""),
    ]
    page = trace(root, "--html", "--results", str(results)).stdout
    cells: list[str] = []
    parser = HTMLParser()
    parser.handle_data = cells.append  # type: ignore[method-assign]
    parser.feed(page)
    assert {"REQ-KEY-002", "A < b.", "Later.", "no test", "BOOT-7"} <= {cell.strip() for cell in cells}


# ---- Events -----------------------------------------------------------------------------------------------------------------


def leaf_kinds() -> set[str]:
    """The kinds of leaves that the sources write: the first argument of each call of `_leaf`, and what calls it with a name of its own."""
    found = set()
    for path in sorted((ROOT / "ca").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", getattr(node.func, "attr", "")) in {"_leaf", "leaf_of"}
                and node.args
            ):
                found |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return found


@pytest.mark.req("REQ-KEY-030")
def test_every_kind_of_event_says_which_requirements_it_implements() -> None:
    assert leaf_kinds() == set(implements.REQUIREMENTS)
    assert implements.of("something new") == ()


@pytest.mark.req("REQ-KEY-030")
def test_every_requirement_that_an_event_names_exists() -> None:
    known = set(tomllib.loads((ROOT / "docs/requirements.toml").read_text()))
    assert {one for ids in implements.REQUIREMENTS.values() for one in ids} <= known
