"""`fleetca process`: one process of a deployment, for `fleetca serve`, systemd and containers."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fleetca.cli import output


@click.command(help="Run one process of a deployment until SIGTERM. `fleetca serve` starts them all.")
@click.argument("role", type=click.Choice(["signer", "enroll", "status", "publisher", "presigner"]))
@output.settings_option
@click.option("--accepted-fd", type=int, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--socket-fd", "socket_fds", type=int, multiple=True, hidden=True)
@click.option("--supervisor", type=int, hidden=True)
@click.option("--after-fd", type=int, hidden=True)
@click.option("--trial", is_flag=True, help="Read everything it would read, open its keys, and stop there; the exit code tells.")
def process(
    role: str,
    settings: str,
    accepted_fd: int | None,
    ready_fd: int | None,
    socket_fds: tuple[int, ...],
    supervisor: int | None,
    after_fd: int | None,
    trial: bool,
) -> None:
    from fleetca.forms import read_settings
    from fleetca.process import Process, write_log_lines

    context = Process(ready_fd, socket_fds, supervisor, after_fd)
    context.begin()
    write_log_lines(role)
    accepted = None
    if accepted_fd is not None:
        with os.fdopen(accepted_fd, "rb") as stream:
            accepted = stream.read()
    read = read_settings(Path(settings), accepted=accepted)
    if trial:
        from fleetca import trials

        trials.TRIALS[role](read)
        return
    if role == "signer":
        from fleetca import signing

        signing.signer(read, context)
        return
    from fleetca import wiring

    {"enroll": wiring.enroll, "status": wiring.status, "publisher": wiring.publisher, "presigner": wiring.presigner}[role](read, context)
