"""Telling services of a new pair. Edge: starts other programs; knows no keys.

    nginx                  nginx -t, then nginx -s reload: connections go on, new ones get the new certificate
    nginx:FILE             the same, with that configuration
    mosquitto:PIDFILE      SIGHUP: it reads its certificates again and keeps its clients
    systemd:UNIT           systemctl try-reload-or-restart UNIT
    run:PROGRAM            any program; it finds FLEETCA_CERTIFICATE and FLEETCA_KEY, and FLEETCA_DRY_RUN=1 in a dry run

Each may run again although it has run: after a crash nobody knows. One that fails is tried again until it succeeds, and the old pair stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured, Unavailable

SECONDS: Final = 60
"""How long a hook may take."""
_FIX: Final = "fleetca agent status shows how it stands; it is tried again by itself."


def check(hooks: Sequence[str]) -> None:
    """Are these hooks?

    Raises:
        Misconfigured: one is not (`bad-hook`).
    """
    for hook in hooks:
        kind, _, what = hook.partition(":")
        if not (kind == "nginx" or (kind in {"mosquitto", "systemd", "run"} and what)):
            raise Misconfigured(
                "bad-hook", f"{hook} is no hook.", fix="One of nginx, nginx:FILE, mosquitto:PIDFILE, systemd:UNIT, run:PROGRAM."
            )


def run_all(hooks: Sequence[str], *, certificate: Path, key: str, dry: bool = False) -> None:
    """Run hooks in their order.

    Raises:
        Unavailable: one failed (`hook-failed`); those after it were not run.
    """
    environment = {**os.environ, "FLEETCA_CERTIFICATE": str(certificate), "FLEETCA_KEY": key}
    environment.pop("FLEETCA_TOKEN", None)
    if dry:
        environment["FLEETCA_DRY_RUN"] = "1"
    for hook in hooks:
        kind, _, what = hook.partition(":")
        if kind == "mosquitto":
            _hang_up(hook, Path(what))
            continue
        for command in _commands(kind, what):
            _run(hook, command, environment)


def _commands(kind: str, what: str) -> list[list[str]]:
    if kind == "nginx":
        chosen = ["-c", what] if what else []
        return [["nginx", *chosen, "-t", "-q"], ["nginx", *chosen, "-s", "reload"]]
    if kind == "systemd":
        return [["systemctl", "try-reload-or-restart", what]]
    return [[what]]


def _run(hook: str, command: Sequence[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(hook, f"{error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise _failed(hook, f"{command[0]} ended with {done.returncode}{': ' + said[-1][:300] if said else ''}")


def _hang_up(hook: str, file: Path) -> None:
    try:
        os.kill(int(file.read_text()), signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise _failed(hook, f"{error}") from None


def _failed(hook: str, why: str) -> Unavailable:
    return Unavailable("hook-failed", f"The hook {hook} failed.", why=f"{why}.", fix=_FIX)
