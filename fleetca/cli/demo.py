"""`fleetca demo`: a whole PKI on loopback."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetca.cli import output

if TYPE_CHECKING:
    from fleetca.demo import Demo


@click.command(
    help="Make a whole PKI on loopback (marked NOT FOR PRODUCTION): ceremony, issuing CA, two devices, one revoked. Checks everything with "
    "openssl, then goes on serving."
)
@click.option("--dir", "directory", type=click.Path(file_okay=False), default="fleetca-demo", show_default=True, help="Where it goes.")
@click.option("--port-base", type=int, default=8000, show_default=True, help="Status listens on this + 80, enrolment on this + 443.")
@click.option("--once", is_flag=True, help="Do all, check all, stop; the exit code tells.")
@click.option("--down", is_flag=True, help="Stop a demo and remove its folder.")
@output.json_option
def demo(directory: str, port_base: int, once: bool, down: bool, as_json: bool) -> None:
    from fleetca import demo as it
    from fleetca.process import write_log_lines

    folder = Path(directory).absolute()
    if down:
        if not it.down(folder):
            raise it.missing(folder)
        output.result({"removed": str(folder)}, f"Removed {folder}.", as_json=as_json)
        return
    write_log_lines("demo")
    shown: list[Demo] = []

    def ready(made: Demo) -> None:
        shown.append(made)
        output.result(made.document, _told(made, directory, once=once), as_json=as_json)

    held = it.run(folder, port_base=port_base, once=once, ready=ready, say=output.note)
    if not held and shown:
        raise it.failed(shown[0])


def _told(made: Demo, directory: str, *, once: bool) -> str:
    from cryptography import x509

    from ca.system import SystemClock

    document = made.document
    now = SystemClock().now()

    def until(path: str) -> str:
        not_after = int(x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc.timestamp())
        return f"until {output.iso(not_after)} ({output.distance(not_after, now)})"

    settings = document["settings"]
    # From a checkout the command is not on the PATH: show it as it can be typed.
    command = "fleetca" if shutil.which("fleetca") else sys.argv[0]
    lines = [
        "",
        "A private PKI is ready (NOT FOR PRODUCTION):" if not once else "A private PKI was made and checked (NOT FOR PRODUCTION):",
        f"  root       {document['root']}  {until(document['root'])}",
        f"  issuing    {document['issuing']}  {until(document['issuing'])}",
        f"  good       {document['good']['certificate']}  {until(document['good']['certificate'])}",
        f"  revoked    {document['revoked']['certificate']}",
        f"  enrolment  {document['enroll_url']}",
        f"  OCSP       {document['ocsp_url']}",
        f"  CRL        {document['crl_url']}",
        f"  checks     {sum(check.held for check in made.checks)} of {len(made.checks)} held",
        "",
        "Try next:",
        f"  openssl ocsp -issuer {document['issuing']} -cert {document['good']['certificate']} \\",
        f"    -url {document['ocsp_url']} -CAfile {document['root']} -verify_other {document['issuing']}",
        f"  {command} token create pump-7 --settings {settings}",
        f"  {command} certificates list --settings {settings}",
        f"  {command} revoke --device demo-good --reason superseded --confirm demo-good --settings {settings}",
        f"  {command} audit show {Path(settings).parent / 'public/log'}",
        f"  {command} demo --down --dir {directory}",
    ]
    if once:
        lines.append(f"  {command} serve --settings {settings}")
    return "\n".join(lines)
