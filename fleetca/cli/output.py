"""The manners of the command line: what goes where, and which number it ends with.

stdout holds the result only; stderr holds talk, progress and errors. `--json` prints exactly one JSON document on stdout. Exit codes are
in `EXIT_CODES` and docs/reference/cli.md. Colour and bars only on a terminal, and NO_COLOR is honoured (rich does both).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from ca import errors
from ca.model import UnixTime

EXIT_CODES: Mapping[int, str] = {
    0: "ok",
    1: "failure",
    2: "usage: an argument, setting or sheet is wrong",
    3: "not found",
    4: "conflict with what is on record",
    5: "denied",
    6: "a key or token is unavailable",
    7: "storage is unavailable",
    8: "completed, with findings",
    130: "interrupted",
}
FINDINGS = 8

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))

_EXITS: tuple[tuple[type[errors.FleetcaError], int], ...] = (
    (errors.Malformed, 2),
    (errors.Misconfigured, 2),
    (errors.NotFound, 3),
    (errors.Conflict, 4),
    (errors.Unauthenticated, 5),
    (errors.Denied, 5),
    (errors.KeyUnavailable, 6),
    (errors.StoreUnavailable, 7),
)


def exit_code(error: errors.FleetcaError) -> int:
    """The process's exit code for an error of ours."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), 1)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, the same on every command; arrives as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def settings_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--settings FILE`; arrives as the argument `settings` (a path)."""
    return click.option(
        "--settings",
        type=click.Path(dir_okay=False),
        envvar="FLEETCA_SETTINGS",
        default="fleetca.toml",
        show_default=True,
        help="The deployment's settings file (or FLEETCA_SETTINGS).",
    )(command)


def result(document: Mapping[str, Any] | list[Any], text: str, *, as_json: bool) -> None:
    """Print the one result: `document` for machines, or `text` for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif text:
        click.echo(text)


def note(text: str) -> None:
    """Say something on stderr."""
    click.echo(text, err=True)


def iso(when: UnixTime) -> str:
    """ISO 8601 in UTC: `2026-11-22T06:43:00Z`."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def distance(when: UnixTime, now: UnixTime) -> str:
    """`in 6 days`, `3 hours ago`: in the largest unit that fits."""
    seconds = abs(when - now)
    if seconds == 0:
        return "now"
    unit, size = next((unit, size) for unit, size in _UNITS if seconds >= size)
    count = seconds // size
    words = f"{count} {unit}{'s' if count != 1 else ''}"
    return f"in {words}" if when > now else f"{words} ago"


def report(error: errors.FleetcaError, *, as_json: bool) -> int:
    """Print an error (on stderr; with `--json` as one document on stdout too) and return the exit code."""
    code = exit_code(error)
    if as_json:
        document = {"error": {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    lines = [f"fleetca: {error.what} [{error.code}]"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.fix:
        lines.append(f"  fix: {error.fix}")
    click.echo("\n".join(lines), err=True)
    return code
