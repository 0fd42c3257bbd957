"""P12: only ca/system.py asks the clock and the random generator (key generation inside ca/keys aside)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ca", "config", "crl", "enroll", "fleetca", "ocsp")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXEMPT = {ROOT / "ca/system.py"}

# module -> what of it reads the clock or chance; None is all of it
FORBIDDEN: dict[str, set[str] | None] = {
    "time": {
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "sleep",
        "clock_gettime",
        "localtime",
        "ctime",
    },
    "datetime": {"now", "utcnow", "today"},
    "os": {"urandom", "getrandom"},
    "uuid": None,
    "secrets": None,
    "random": None,
}
# gmtime and strftime read the clock only when they are given no time.
NEED_ARGUMENT = {"gmtime": 1, "strftime": 2}


def offences(source: str) -> list[str]:
    """What of `source` asks the clock or the random generator, as `line: name`."""
    found = []
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                imported[alias.asname or top] = top
                if FORBIDDEN.get(top, set()) is None:
                    found.append(f"{node.lineno}: import {alias.name}")
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.split(".")[0]
            names = FORBIDDEN.get(top, set())
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{top}.{alias.name}"
                if names is None or alias.name in (names or set()):
                    found.append(f"{node.lineno}: from {node.module} import {alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if not isinstance(root, ast.Name) or root.id not in imported:
                continue
            module = imported[root.id].split(".")[0]
            if node.attr in (FORBIDDEN.get(module) or set()):
                found.append(f"{node.lineno}: {module} {node.attr}")
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            origin = imported.get(name, "")
            owner = node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
            if (origin.startswith("time.") or imported.get(owner) == "time") and len(node.args) < NEED_ARGUMENT.get(name, 0):
                found.append(f"{node.lineno}: {name} without a time")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.req("REQ-KEY-001")
def test_P12_no_module_but_system_asks_the_world(path: Path) -> None:
    if path not in EXEMPT:
        assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import time\ntime.time()", id="time.time"),
        pytest.param("import time as t\nt.monotonic()", id="monotonic under another name"),
        pytest.param("from time import time", id="imported by name"),
        pytest.param("from datetime import datetime\ndatetime.now()", id="datetime.now"),
        pytest.param("import datetime\ndatetime.datetime.now(datetime.UTC)", id="datetime.datetime.now"),
        pytest.param("import os\nos.urandom(3)", id="os.urandom"),
        pytest.param("import secrets", id="secrets"),
        pytest.param("from random import choice", id="random"),
        pytest.param("import uuid", id="uuid"),
        pytest.param("from time import gmtime\ngmtime()", id="gmtime of now"),
    ],
)
def test_P12_the_check_itself_sees(source: str) -> None:
    assert offences(source)


def test_P12_a_time_that_is_given_is_no_offence() -> None:
    assert offences("from time import gmtime\ngmtime(0)\nfrom datetime import datetime\ndatetime.fromtimestamp(0)") == []
