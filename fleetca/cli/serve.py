"""`fleetca serve`: all processes of a deployment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output

if TYPE_CHECKING:
    from fleetca.serve import Supervisor


@click.command(
    help="Start and watch all processes of a deployment. SIGTERM and Ctrl-C drain and stop them; SIGHUP reads the settings again, and "
    "keeps the old ones if the new ones are wrong."
)
@output.settings_option
@output.json_option
def serve(settings: str, as_json: bool) -> None:
    from fleetca.crew import PLAIN, Crew

    # It loads what the processes need while we load what we need.
    crew = Crew({name: os.environ[name] for name in PLAIN & os.environ.keys()})
    from fleetca.process import write_log_lines
    from fleetca.serve import serve as run

    write_log_lines("serve")

    def ready(supervisor: Supervisor) -> None:
        read = supervisor.settings
        document = {
            "deployment": read.deployment.name,
            "enroll_url": read.enroll.url,
            "ocsp_url": f"{read.status.url}/ocsp",
            "processes": {child.plan.name: child.process.pid for child in supervisor.children.values()},
        }
        output.result(
            document,
            f"{read.deployment.name} is up.\n"
            f"  enrol   {read.enroll.url}  (listens on {read.enroll.listen})\n"
            f"  status  {read.status.url}  (listens on {read.status.listen})\n"
            f"Next: fleetca token create DEVICE --settings {supervisor.file}",
            as_json=as_json,
        )

    run(Path(settings), ready=ready, crew=crew)
