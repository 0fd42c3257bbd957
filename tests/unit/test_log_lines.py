"""The lines that processes write: one JSON object each, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from ca.model import CertificateRef, IssuerId, Role, Serial
from fleetca.process import write_log_lines

SUPERSEDED = CertificateRef(IssuerId("issuing"), Serial(1 << 150))


@dataclass
class Thing:
    """Whose `str` is what a line shows."""

    secret: str

    def __str__(self) -> str:
        return "a thing"


@pytest.fixture(autouse=True)
def lines() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # what is there is the test runner's, and would be closed
    write_log_lines("signer")
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one line that was written."""
    text = capsys.readouterr().err
    assert text.endswith("\n")
    (line,) = text.splitlines()
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    assert list(found)[:3] == ["at", "level", "process"]
    assert found["process"] == "signer"
    return found


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param("pump-1", "pump-1", id="text"),
        pytest.param(
            "Ärmel \u2028 \x9b31m \x1b[31m\n", "Ärmel \u2028 \x9b31m \x1b[31m\n", id="text that would end the line or colour a terminal"
        ),
        pytest.param("\ud800", "\ud800", id="half a surrogate pair"),
        pytest.param(1 << 150, 1 << 150, id="a number beyond 64 bits"),
        pytest.param(None, None, id="nothing"),
        pytest.param([1, "b", True], [1, "b", True], id="a list"),
        pytest.param(("a", {"b": 1.5}), ["a", {"b": 1.5}], id="a tuple and an object"),
        pytest.param(Role.enroll, "enroll", id="a word of ours"),
        pytest.param(SUPERSEDED, str(SUPERSEDED), id="a certificate by its name"),
        pytest.param(Thing("x"), "a thing", id="whatever else, as text"),
        pytest.param(Path("/run"), "/run", id="a path"),
        pytest.param(b"ab", "b'ab'", id="octets"),
    ],
)
def test_a_field_is_shown(capsys: pytest.CaptureFixture[str], given: object, shown: object) -> None:
    structlog.get_logger().info("issued", field=given)
    found = told(capsys)
    assert found["level"] == "info"
    assert found["event"] == "issued"
    assert found["field"] == shown


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_a_line_says_its_level(capsys: pytest.CaptureFixture[str], level: str) -> None:
    getattr(structlog.stdlib.get_logger("fleetca.enroll"), level)("request", status=200)
    assert {**told(capsys), "at": ""} == {"at": "", "level": level, "process": "signer", "status": 200, "event": "request"}


def test_a_mistake_of_ours_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        structlog.get_logger().exception("crashed", request_id="1")
    assert told(capsys)["level"] == "error"


def test_what_is_for_debugging_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().debug("x")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["token", "passphrase", "authorization", "payload"])
def test_P10_a_secret_is_not_shown_whoever_logs_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    structlog.get_logger().warning("x", device="pump-1", **{name: "enr_1"})
    found = told(capsys)
    assert (found["device"], found[name]) == ("pump-1", "(not shown)")


def test_what_a_library_says_is_such_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("Ärger")
    except ValueError:
        logging.getLogger("library").warning("it is %s", "bad", exc_info=True)
    found = told(capsys)
    assert found["level"] == "warning"
    assert found["event"] == "it is bad"
    assert found["exception"].endswith("ValueError: Ärger")


@pytest.mark.parametrize("why", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, why: OSError
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise why

    log = structlog.get_logger()
    with monkeypatch.context() as full:
        full.setattr(sys, "stderr", Full())
        log.info("issued")
        logging.getLogger("library").warning("x")
    log.info("repeated")
    assert told(capsys)["event"] == "repeated"
