"""`fleetca recover`: classify what a crash left, and bring back from the journal what a lost or restored database forgot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import hand, offline, output, reach

if TYPE_CHECKING:
    from fleetca.cli.hand import Hand

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    help="Compare the signer's journal with the database: every intent ends as issued, or void and revoked; lost changes are written again."
    " Runs as the signer's user while the signer is stopped, and may be repeated. Exits with 8 when the journal holds records it could not use."
)
@output.settings_option
@click.option("--accept-clock", is_flag=True, help="Believe today's clock though work is on record from later: an earlier clock ran ahead.")
@click.option("--ask", metavar="FILE", help="Change nothing; write to a new file, signed by your key, that two persons may have it so.")
@click.option("--reason", default="", help="With --ask: why; the other person reads it, and it goes on record.")
@click.option("--within", metavar="TIME", default="1d", show_default=True, help="With --ask: how long it holds; at most 30d.")
@hand.options(required=False)
@click.option("--request", "asked", type=_FILE, help="What --ask wrote.")
@click.option("--approval", "approvals", type=_FILE, multiple=True, help="What another person signed of it; may be repeated.")
@output.json_option
def recover(
    settings: str,
    accept_clock: bool,
    ask: str | None,
    reason: str,
    within: str,
    certificate: str | None,
    key: str | None,
    passphrase_file: str | None,
    asked: str | None,
    approvals: tuple[str, ...],
    as_json: bool,
) -> int:
    from ca.approve_restore import Brought
    from fleetca import signing
    from fleetca.forms import read_settings

    read, by = read_settings(Path(settings)), hand.given(certificate, key, passphrase_file)
    if (ask is None) != (by is None) or (asked is None and approvals) or (ask is not None and asked is not None):
        raise click.UsageError("--ask goes with --certificate and --key; --approval with --request; and then the one or the other.")
    with signing.recovery(read) as (recovery, approving):
        if ask is not None and by is not None:
            _ask(ask, approving.subject(accept_clock=accept_clock), by, read.deployment.name, reason=reason, within=within, as_json=as_json)
            return 0
        brought = None if asked is None else Brought(offline.read(asked), [offline.read(one) for one in approvals])
        approved = approving.allow(brought, accept_clock=accept_clock, actor=f"uid:{os.getuid()}")
        if approved is not None:
            output.note(f"{approved.asked.operator} asked for it, and {', '.join(one.operator for one in approved.answers)} approved.")
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


def _ask(file: str, subject: str, by: Hand, deployment: str, *, reason: str, within: str, as_json: bool) -> None:
    from ca.model import GraveAct
    from ca.rules.message import Act

    if not reason.strip():
        raise click.UsageError("--ask needs --reason.")
    said = (GraveAct.restore.value, subject, reach.seconds(within), reason)
    message = by.message(Act.propose, deployment=deployment, proposal=said)
    offline.write(file, message)
    output.result({"request": offline.digest(message), "file": file}, offline.shown(message), as_json=as_json)
    output.note(f"Another person looks at it and signs: fleetca approvals sign {file} --out APPROVAL")
