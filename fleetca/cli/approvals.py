"""`fleetca approvals`: requests that wait for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Approval

_SHORT: Final = 16
"""Digits of a request's hash that tell it from all others."""


@click.group(help="List the requests that wait for an operator, approve or refuse them. Talks to the running signer.")
def approvals() -> None:
    pass


@approvals.command("list", help="The requests that wait, what ends next first.")
@output.settings_option
@reach.page_options
@output.json_option
def list_(settings: str, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    now = reach.now()
    with reach.signer(settings) as (_, signer):
        rows, cursor = reach.pages(lambda at, size: signer.approvals(after=at, limit=size), after=after, limit=limit, everything=everything)
    shown = [
        (
            row.request.hex()[:_SHORT],
            row.device,
            row.profile,
            ", ".join(name.value for name in row.names),
            row.evidence.value,
            output.distance(row.expires, now),
        )
        for row in rows
    ]
    output.result(
        {"approvals": [_render(row) for row in rows], "next": cursor},
        reach.table(("REQUEST", "DEVICE", "PROFILE", "NAMES", "BY", "ENDS"), shown) if rows else "",
        as_json=as_json,
    )
    if not rows:
        output.note("Nothing waits.")
    if cursor is not None:
        output.note(f"More: --after {cursor}")


@approvals.command(help="Approve the request whose hash begins with REQUEST; the device gets its certificate when it asks again.")
@click.argument("request")
@click.option("--reason", default="", help="Words that go on record with it.")
@output.settings_option
@output.json_option
def approve(request: str, reason: str, settings: str, as_json: bool) -> None:
    _decide(request, approve=True, reason=reason, settings=settings, as_json=as_json)


@approvals.command(help="Refuse the request whose hash begins with REQUEST; the device is told why.")
@click.argument("request")
@click.option("--reason", required=True, help="Words that go on record and to the device.")
@output.settings_option
@output.json_option
def refuse(request: str, reason: str, settings: str, as_json: bool) -> None:
    _decide(request, approve=False, reason=reason, settings=settings, as_json=as_json)


def _decide(request: str, *, approve: bool, reason: str, settings: str, as_json: bool) -> None:
    from ca.model import ApprovalDecision
    from ca.rules import ids

    beginning = ids.hash_beginning(request)
    with reach.signer(settings) as (_, signer):
        made = signer.decide_approval(ApprovalDecision(signer.local, beginning, approve, reason))
    output.result(_render(made), "", as_json=as_json)
    output.note(f"{made.state.value}: profile {made.profile} for {made.device}.")


def _render(row: Approval) -> dict[str, Any]:
    from ca.rules.message import names_to

    return {
        "request": row.request.hex(),
        "device": row.device,
        "profile": row.profile,
        "names": names_to(row.names),
        "evidence": row.evidence.value,
        "actor": row.actor,
        "spki_sha256": row.spki_sha256.hex(),
        "asked_at": output.iso(row.asked_at),
        "expires": output.iso(row.expires),
        "state": row.state.value,
        "decided_by": row.decided_by,
        "reason": row.reason,
    }
