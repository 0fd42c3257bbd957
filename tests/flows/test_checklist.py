"""The checklists' boxes: answered from the deployment as it is, each with something that shows it; what cannot be told is open (REQ-KEY-029)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from ca.store.engine import open_store
from ca.system import SystemClock
from fleetca import forms
from fleetca.cli.main import fleetca
from fleetca.doctor import Finding
from fleetca.evidence import checklist
from fleetca.verdict import bad, note, ok
from tests.fakes.evidence import Office
from tests.running import exit_code

pytestmark = pytest.mark.req("REQ-KEY-029")
ROOT = Path(__file__).parents[2]
WELL = tuple(
    Finding(name, ok("fine"))
    for name in (
        "separation",
        "secrets",
        "keys",
        "chain",
        "crl",
        "status",
        "ocsp",
        "served",
        "record",
        "clones",
        "exceptions",
        "wipes",
        "drills",
        "reviews",
    )
)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("checklist") / "fleet")


@pytest.fixture
def facts(office: Office) -> Iterator[checklist.Facts]:
    store = open_store(forms.store_url(office.settings), readonly=True)
    yield checklist.Facts(office.settings, store.reading, WELL, root_present=False, now=SystemClock().now())
    store.close()


def told(facts: checklist.Facts) -> dict[str, checklist.Answer]:
    return {box.id: said for box, said in checklist.answers(facts)}


def test_where_nothing_is_wrong_most_boxes_are_yes_and_the_others_say_why(facts: checklist.Facts) -> None:
    found = told(facts)
    assert {name: one.answer for name, one in found.items()} == {
        "generation": "yes", "storage": "yes", "offline-root": "yes", "rotation": "yes", "revocation": "yes", "audit": "yes", "duties": "yes",
        "pins": "no",  # none is published
        "backup": "yes", "wiping": "yes", "reviews": "yes",
        "root-of-trust": "no",  # nobody said it of pump-0
    }  # fmt: skip
    assert all(one.why and one.link for one in found.values())


def test_every_link_leads_somewhere(facts: checklist.Facts) -> None:
    for one in told(facts).values():
        if not one.link.startswith("fleetca "):
            assert (ROOT / one.link).is_file(), one.link
            continue
        command: click.Command = fleetca
        for word in [word for word in one.link.split()[1:] if not word.startswith("-")]:
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                assert found is not None, one.link
                command = found


@pytest.mark.parametrize(
    ("check", "box"),
    [
        ("clones", "generation"),
        ("secrets", "storage"),
        ("chain", "rotation"),
        ("crl", "revocation"),
        ("ocsp", "revocation"),
        ("record", "audit"),
        ("separation", "duties"),
        ("exceptions", "root-of-trust"),
        ("wipes", "wiping"),
        ("drills", "backup"),
        ("reviews", "reviews"),
    ],
)
def test_a_finding_of_the_doctor_is_a_no_and_silence_is_open(facts: checklist.Facts, check: str, box: str) -> None:
    others = tuple(one for one in facts.doctor if one.check != check)
    sick = told(replace(facts, doctor=(*others, Finding(check, bad("It is broken.")))))
    assert (sick[box].answer, sick[box].why) == ("no", "It is broken.")
    silent = told(replace(facts, doctor=(*others, Finding(check, note("Nothing runs.")))))
    assert silent[box].answer == "open"


def test_a_root_within_reach_is_a_no_and_a_signer_that_is_silent_leaves_it_open(facts: checklist.Facts) -> None:
    assert told(replace(facts, root_present=True))["offline-root"].answer == "no"
    assert told(replace(facts, root_present=None))["offline-root"].answer == "open"


def test_a_record_that_was_edited_is_a_no(facts: checklist.Facts, tmp_path: Path) -> None:
    import shutil

    log = tmp_path / "log"
    shutil.copytree(facts.settings.log.directory, log)
    (bundle,) = log.glob("tile/entries/*.p/*")
    bundle.write_bytes(bundle.read_bytes().replace(b"pump-0", b"pump-7"))
    settings: Any = facts.settings.model_copy(update={"log": facts.settings.log.model_copy(update={"directory": log})})
    found = told(replace(facts, settings=settings))["audit"]
    assert found.answer == "no" and "edited" in found.why


def test_a_key_past_its_period_is_a_no(facts: checklist.Facts) -> None:
    assert told(replace(facts, now=facts.now + 100 * 366 * 86400))["rotation"].answer == "no"


def test_the_command_ends_with_8_unless_all_is_yes(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("checklist", "--settings", office.made.settings, "--json") == 8
    document = json.loads(capsys.readouterr().out)
    assert [one["box"] for one in document["boxes"]] == [box.id for box in checklist.BOXES]
    assert {one["answer"] for one in document["boxes"]} <= {"yes", "no", "open"}
