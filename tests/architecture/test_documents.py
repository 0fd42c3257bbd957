"""The generated pages of docs/ are fresh, and name every command, setting, error code, route, profile and log event there is."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from ca.errors import FleetcaError
from ca.rules.caps import OPERATOR_POWERS, Power
from config.errors import ConfigurationError
from config.settings import Settings
from config.strict import forms_in
from enroll.rest.openapi import OPERATIONS, PREFIX
from fleetca.cli import output

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
PACKAGES = ("ca", "enroll", "ocsp", "crl", "config", "fleetca")

sys.path.insert(0, str(ROOT / "scripts"))
from documents import commands, errors, events, pages  # noqa: E402 - the generators are a script's parts, not a package of ours


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.file.name)
def test_the_page_is_fresh(page: pages.Page) -> None:
    assert page.is_fresh(), f"{page.file.relative_to(ROOT)} is stale: run scripts/document"


def test_the_script_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where the sources have been read."""
    monkeypatch.setattr(sys, "argv", ["document", "--check"])
    script = runpy.run_path(str(ROOT / "scripts/document"), run_name="document")
    assert script["main"]() == 0


WRITTEN = {REFERENCE / "ocsp.md"}
"""What no code says in words: each row of it is shown on the wire by a test that it names."""


def test_every_page_of_the_reference_is_generated() -> None:
    assert {page.file for page in pages.PAGES if page.file.parent == REFERENCE} | WRITTEN == set(REFERENCE.glob("*.md"))


# ---- Every command ----------------------------------------------------------------------------------------------------


def test_every_command_and_option_is_documented() -> None:
    text = (REFERENCE / "cli.md").read_text()
    sections = {part.split("\n")[0]: part for part in text.split("\n## ")}
    for path, command in commands.commands():
        for parameter in command.params:
            if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                assert all(name in sections[path] for name in parameter.opts), f"{path} {parameter.name}"


def test_every_command_says_what_it_does() -> None:
    assert [path for path, command in commands.commands() if not command.help] == []


def test_every_exit_code_is_documented() -> None:
    text = (REFERENCE / "cli.md").read_text()
    for code, about in output.EXIT_CODES.items():
        assert f"| {code} | {about} |" in text


# ---- Every setting ------------------------------------------------------------------------------------------------------


def _settings(form: Any) -> list[str]:
    names = []
    for name, field in form.model_fields.items():
        names.append(name)
        for inner in forms_in(field.annotation):
            names += _settings(inner)
    return names


def test_every_setting_is_documented() -> None:
    text = (REFERENCE / "settings.md").read_text()
    for section, field in Settings.model_fields.items():
        assert f"[{section}]" in text, section
        for form in forms_in(field.annotation):
            for name in _settings(form):
                assert f"| `{name}` |" in text, f"{section}.{name}"


# ---- Every error code ---------------------------------------------------------------------------------------------------


def _kinds(base: type[Exception]) -> set[str]:
    # ACME's problems carry RFC 8555's types (6.7), which are no codes of ours; whether they are loaded depends on what ran before.
    below: list[type[Exception]] = [kind for kind in base.__subclasses__() if not kind.__module__.startswith("enroll.acme")]
    return {base.__name__}.union(*(_kinds(kind) for kind in below))


def _written_codes() -> set[str]:
    """What stands first in the making of an error; found without the generator's help."""
    kinds = _kinds(FleetcaError) | _kinds(ConfigurationError)
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", getattr(node.func, "attr", "")) in kinds:
                    found |= {
                        part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    }
    return {code for code in found if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", code)}


def test_every_error_code_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text()
    documented = set(re.findall(r'^\| <a id="([a-z0-9-]+)"></a>`\1` \|', text, re.MULTILINE))
    assert _written_codes() - documented == set()
    assert documented == {one.code for one in errors.found()}


@pytest.mark.parametrize(
    "code", ["bad-device-id", "output-missing", "store-schema", "missing-setting", "disk-full", "crl-expired", "no-such-resource"]
)
def test_codes_are_found_where_they_do_not_stand_first(code: str) -> None:
    assert code in {one.code for one in errors.found()}


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    rows = [line for line in (REFERENCE / "errors.md").read_text().splitlines() if line.startswith('| <a id="')]
    assert rows
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 6 and all(cells), row


def test_advice_is_given_for_codes_that_exist_only() -> None:
    from documents.advice import BY_CODE

    assert set(BY_CODE) - {one.code for one in errors.found()} == set()


def test_every_code_that_a_page_speaks_of_exists() -> None:
    known = {one.code for one in errors.found()}
    for page in (ROOT / "docs").rglob("*.md"):
        for code in re.findall(r"errors\.md#([a-z0-9-]+)", page.read_text()):
            assert code in known | {"classes", "codes"}, f"{page.relative_to(ROOT)}: {code}"


# ---- Every role -----------------------------------------------------------------------------------------------------------


def test_the_roles_of_operators_are_told_as_they_are() -> None:
    text = (ROOT / "docs/how-to/operators.md").read_text()
    powers = list(Power)
    rows = [("role", *(power.value for power in powers))]
    rows += [(f"`{role}`", *("yes" if power in given else "no" for power in powers)) for role, given in OPERATOR_POWERS.items()]
    for row in rows:
        assert f"| {' | '.join(row)} |" in text


# ---- Every route, and every event ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.id)
def test_every_route_is_documented(operation: Any) -> None:
    assert f"\n## {operation.method} {PREFIX}{operation.path}\n" in (REFERENCE / "rest.md").read_text()


def test_every_log_event_has_a_meaning() -> None:
    named = {event for event, _, _ in events.events() if " " not in event}
    assert named == set(events.MEANINGS)
