"""Failpoints for tests: FLEETCA_FAILPOINT="name=kill|raise|enospc|sleep:SECONDS" breaks this process at a named place; a number in place of a name,
when it has come by as many of them.

Without the variable it is a function that does nothing. Who can set it can kill the process anyway.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

from ca.ports import Failpoint


def _nothing(name: str) -> None:
    """What stands at every failpoint in production."""


def failpoint() -> Failpoint:
    """The failpoint of this process."""
    wanted = os.environ.get("FLEETCA_FAILPOINT")
    if not wanted:
        return _nothing
    place, _, action = wanted.partition("=")
    passed: list[str] = []

    def strike(name: str) -> None:
        passed.append(name)
        if place not in {name, str(len(passed))}:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif action.startswith("sleep:"):
            threading.Event().wait(float(action.removeprefix("sleep:")))
        else:
            raise RuntimeError(f"failpoint {name}")

    return strike
