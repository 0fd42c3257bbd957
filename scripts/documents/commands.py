"""docs/reference/cli.md: every command and option, read from click."""

from __future__ import annotations

from collections.abc import Iterator

import click

from documents import markdown
from fleetca.cli import output
from fleetca.cli.main import fleetca

_ABOUT = """
`fleetca` is one command with subcommands. What it found or made goes to stdout, everything else to stderr. Every command with a result takes
`--json` and then prints exactly one JSON document, an error included (`{"error": {"code", "what", "why", "fix"}}`). Questions are asked on a
terminal only, and each has an option. Secrets come from files, descriptors or the environment, never as arguments. Times are UTC.

Commands that ask the running signer are known there by their user id: see [trust.md](../explanation/trust.md). The codes of errors are explained in
[errors.md](errors.md).

| environment | meaning |
|---|---|
| `FLEETCA_SETTINGS` | the settings file, in place of `--settings` |
| `FLEETCA_URL` | the enrolment service for `fleetca renew`, in place of `--url` |
| `FLEETCA_DEBUG` | any text: print a traceback when something fails that should not |
| `NO_COLOR` | any text: no colours |
"""


def page() -> str:
    """The page."""
    parts = [markdown.head("Commands", "the command line", _ABOUT)]
    parts += ["## Exit codes\n", markdown.table(("code", "meaning"), [(str(code), about) for code, about in output.EXIT_CODES.items()])]
    parts += [_section(path, command) for path, command in commands()]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed: no groups, whose help only lists their members."""
    yield from _below("fleetca", fleetca)


def _below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None, name
        yield from _below(f"{path} {name}", inner)


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    lines = [f"\n## {path}\n", _text(command.help), "", "```text", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    rows = [_row(each, context) for each in shown if isinstance(each, click.Option)]
    if rows:
        lines += [markdown.table(("option", "meaning"), rows), ""]
    return "\n".join(lines)


def _row(option: click.Option, context: click.Context) -> tuple[str, str]:
    record = option.get_help_record(context)
    assert record is not None, option.name
    flags, about = record
    return f"`{flags}`", _text(about.replace("[", r"\["))


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("<", "&lt;")
