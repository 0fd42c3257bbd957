"""`fleetca recover`: classify what a crash left, and bring back from the journal what a lost or restored database forgot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fleetca.cli import output, reach


@click.command(
    help="Compare the signer's journal with the database: every intent ends as issued, or void and revoked; lost changes are written again."
    " Runs as the signer's user while the signer is stopped, and may be repeated. Exits with 8 when the journal holds records it could not use."
)
@output.settings_option
@click.option("--accept-clock", is_flag=True, help="Believe today's clock though work is on record from later: an earlier clock ran ahead.")
@output.json_option
def recover(settings: str, accept_clock: bool, as_json: bool) -> int:
    from fleetca import signing
    from fleetca.forms import read_settings

    read = read_settings(Path(settings))
    with signing.recovery(read) as recovery:
        if accept_clock and (before := recovery.accept_clock(actor=f"uid:{os.getuid()}")) is not None:
            output.note(f"The clock is believed; work stood on record up to {output.iso(before)}.")
        report = recovery.recover()
        leaves = signing.adopted_leaves(read)
    document: dict[str, Any] = {
        "intents": [{"issuer": ref.issuer, "serial": f"{ref.serial:040x}", "outcome": verdict.value} for ref, verdict in report.intents],
        "forgotten": report.forgotten,
        "revocations": report.revocations,
        "devices": report.devices,
        "leaves": leaves,
        "unreadable": list(report.unreadable),
    }
    rows = [(str(ref), verdict.value) for ref, verdict in report.intents]
    output.result(document, reach.table(("CERTIFICATE", "OUTCOME"), rows) if rows else "", as_json=as_json)
    output.note(
        f"{len(report.intents)} intents classified; written again from the journal: {report.forgotten} intents,"
        f" {report.revocations} changes of status, {report.devices} revoked devices."
    )
    if leaves:
        output.note(f"{leaves} leaves of the published log were brought back into the database.")
    if report.forgotten or report.revocations or report.devices or leaves:
        output.note("The database had lost what the journal knew. Next: fleetca audit verify, and look for where it was lost.")
    for line in report.unreadable:
        output.note(f"Not usable: {line}")
    return output.FINDINGS if report.unreadable else 0
