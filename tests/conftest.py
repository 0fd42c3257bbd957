"""For all tests: rules run with sockets, clock, randomness, environment and files disabled (rings 1, P12).

Whatever asks the world while a rule is anywhere among its callers fails the test that made it happen. Tests themselves may ask.
"""

from __future__ import annotations

import builtins
import os
import random
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.databases import database_url, postgres, store

__all__ = ["database_url", "postgres", "store"]

PURE = ("ca.rules", "ca.der", "crl.rules", "ocsp.rules", "enroll.rest.messages", "enroll.rest.fields")

WORLD: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (time, ("time", "time_ns", "monotonic", "monotonic_ns", "sleep")),
    (os, ("urandom", "getrandom", "getenv", "open", "stat", "listdir")),
    (secrets, ("token_bytes", "token_hex", "randbelow")),
    (random, ("random", "randrange", "choice")),
    (socket, ("create_connection", "getaddrinfo", "gethostbyname")),
    (builtins, ("open",)),
)


LONG = (
    "interop/test_documents.py", "interop/test_agent_nginx.py", "interop/test_bench.py", "interop/test_serve.py", "flows/test_ceremony_kit.py",
    "faults/test_crl_publisher_faults.py", "interop/test_algorithm_matrix.py", "flows/test_agent.py", "interop/test_bad_input.py",
)  # fmt: skip
"""Modules that take longest. They begin first, so that no worker ends alone with one of them."""
CHALLENGED = ("certbot", "dehydrated", "lego")
"""Pages on which a client listens where the demo asks for answers to challenges."""
FOLDERS = ("interop", "faults", "flows", "contract", "architecture", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, small ones last; within a module the order stays. Workers must agree on names, so none may tell a place in memory."""
    here = Path(__file__).parent
    for item in items:
        if re.search(r" at 0x[0-9a-f]{6}", item.name):
            raise pytest.UsageError(f"{item.nodeid} has another name in another process: give it an id")

    def place(item: pytest.Item) -> tuple[int, int]:
        name = item.path.relative_to(here).as_posix()
        return LONG.index(name) if name in LONG else len(LONG), FOLDERS.index(name.split("/")[0])

    items.sort(key=place)


def pytest_configure() -> None:
    """Whoever runs us in the background has us ignore what a terminal sends, and all that we start would inherit it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module goes to one worker, for what its tests share. Pages share nothing, and all on one worker would be the last to end; but those
    on which a client answers challenges do so on the same port, and go to one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "test_documents.py::" in nodeid:
                return "challenges" if any(f"/{name}.md]" in nodeid for name in CHALLENGED) else nodeid
            return str(super()._split_scope(nodeid))

    return Scheduling(config, log)


class RuleAskedTheWorld(AssertionError):
    """A pure module asked for something that it must be given."""


def _importing(frame: Any) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib")


def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, unless a rule is among the callers. Loading a module is the interpreter's business, not the rule's."""

    def ask(*arguments: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if _importing(frame):
                break
            if module.startswith(PURE):
                raise RuleAskedTheWorld(f"{module} asked for {name}")
            frame = frame.f_back
        return real(*arguments, **named)

    return ask


@pytest.fixture(scope="session", autouse=True)
def _rules_are_pure() -> Iterator[None]:
    kept = [(owner, name, getattr(owner, name)) for owner, names in WORLD for name in names]
    for owner, name, real in kept:
        setattr(owner, name, watched(f"{owner.__name__}.{name}", real))
    yield
    for owner, name, real in kept:
        setattr(owner, name, real)
