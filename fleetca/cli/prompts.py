"""Questions to a person. Asked on a terminal only; every question has a flag, so that scripts never meet one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from ca.errors import Malformed
from fleetca.cli import output


def interactive() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str, *, flag: str) -> bool:
    """A yes or no.

    Raises:
        Malformed: nobody is there to answer (`needs-answer`).
    """
    require(question, flag)
    return click.confirm(question, default=False, err=True)


def asked(question: str, default: str, *, flag: str) -> str:
    """A line of text."""
    require(question, flag)
    answer = click.prompt(question, default=default, err=True)
    return str(answer)


def passphrase(about: str, *, file: str | None, descriptor: int | None, twice: bool) -> Callable[[], bytes]:
    """Where a passphrase comes from: a file (0600), a descriptor, or the terminal, without echo. Never from arguments."""
    from config.secrets import Secret
    from fleetca import forms

    if file is not None and descriptor is not None:
        raise click.UsageError("Give --passphrase-file or --passphrase-fd, not both.")
    if file is not None:
        return forms.secret(Secret("file", file, Path.cwd()))
    if descriptor is not None:
        return forms.secret(Secret("fd", str(descriptor), Path.cwd()))

    def ask() -> bytes:
        require(f"Passphrase of {about}", "--passphrase-file or --passphrase-fd")
        text = click.prompt(f"Passphrase of {about}", hide_input=True, confirmation_prompt=twice, err=True)
        return str(text).encode()

    return ask


def require(question: str, flag: str) -> None:
    """Somebody must be there to answer.

    Raises:
        Malformed: nobody is (`needs-answer`).
    """
    if not interactive():
        raise Malformed("needs-answer", f"{question}: nobody is at the terminal to answer.", fix=f"Give {flag}.")


def fact(name: str, value: object) -> str:
    """One aligned line of a result."""
    return f"  {name:<12} {value}"


def say(text: str) -> None:
    """Talk, on stderr."""
    output.note(text)
