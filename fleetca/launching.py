"""Starts one process of a deployment: with the settings that were accepted, with its own secrets and no others, as a copy where that is right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from config.settings import Settings
from fleetca.crew import Crew, Running
from fleetca.environment import descriptors_of, environment_of, hold_descriptors

log = structlog.get_logger()

KEEPERS: Final = frozenset(("signer", "presigner"))


class Launcher:
    """What a supervisor starts processes with.

    Args:
        file: the settings file, as processes name it.
        settings: what comes over descriptors by these is held from now on.
        crew: one that is getting ready already; it is let go if its variables are secrets by these settings.
    """

    def __init__(self, file: Path, settings: Settings, *, crew: Crew | None = None) -> None:
        self._file, self._crew = file, crew
        self._held = hold_descriptors(settings)

    def prepare(self, settings: Settings) -> None:
        """See that there is a mould for copies, which gets ready while the caller goes on."""
        if self._crew is None or environment_of("", settings, self._crew.environment) != self._crew.environment:
            self.renew(settings)

    def renew(self, *known: Settings) -> None:
        """A mould of the code as it is now, without the secrets of any of these settings."""
        self.close()
        environment: Mapping[str, str] = os.environ
        for settings in known:
            environment = environment_of("", settings, environment)
        try:
            self._crew = Crew(environment)
        except OSError as error:
            log.warning("crew-lost", why=str(error))

    def close(self) -> None:
        """Let the mould go; what was started runs on."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    def launch(self, role: str, settings: Settings, *more: str, passed: Sequence[int] = (), stderr: int | None = None) -> Running:
        """Run `fleetca process` with exactly these settings, in a session of its own: Ctrl-C reaches the supervisor alone, which drains in order.

        Args:
            more: arguments.
            passed: descriptors that they name.
            stderr: the descriptor for it; ours when absent.
        """
        accepted = os.memfd_create("settings")
        try:
            os.write(accepted, settings.octets)
            os.lseek(accepted, 0, os.SEEK_SET)
            arguments = ["process", role, "--settings", str(self._file), "--accepted-fd", str(accepted)]
            arguments += ["--supervisor", str(os.getpid()), *more]
            secrets = [number for number in descriptors_of(role, settings) if number in self._held]
            descriptors = [accepted, *secrets, *passed]
            environment = environment_of(role, settings, os.environ)
            if self._crew is not None and role not in KEEPERS:  # what holds keys is no copy of what faces a network
                try:
                    return self._crew.start(arguments, environment=environment, descriptors=descriptors, stderr=stderr)
                except OSError as error:
                    log.warning("crew-lost", why=str(error))
                    self.close()
            return subprocess.Popen(
                [sys.executable, "-m", "fleetca.cli.main", *arguments],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                env=environment,
            )
        finally:
            os.close(accepted)
