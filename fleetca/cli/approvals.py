"""`fleetca approvals`: requests for certificates that wait for an operator, and grave acts that wait for a second person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import hand, offline, output, proposals, reach

if TYPE_CHECKING:
    from ca.model import Approval, Proposal

_SHORT: Final = 16
"""Digits of a request's hash that tell it from all others."""


@click.group(
    help="List what waits for an operator, approve or refuse it: requests for certificates, and acts that need two persons, which are asked for here."
    " Talks to the running signer."
)
def approvals() -> None:
    pass


approvals.add_command(proposals.request)


@approvals.command("list", help="The requests that wait, what ends next first; acts that need two persons first of all.")
@output.settings_option
@reach.page_options
@output.json_option
def list_(settings: str, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    now = reach.now()
    with reach.signer(settings) as (_, signer):
        rows, cursor = reach.pages(lambda at, size: signer.approvals(after=at, limit=size), after=after, limit=limit, everything=everything)
        grave = (
            [] if after else reach.pages(lambda at, size: signer.proposals(after=at, limit=size), after=None, limit=200, everything=True)[0]
        )
    acts = [
        (one.request.hex()[:_SHORT], one.act.value, one.subject, one.asked.operator, one.state.value, output.distance(one.expires, now))
        for one in grave
    ]
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
    tables = [
        reach.table(("REQUEST", "ACT", "EXACTLY", "ASKED BY", "STATE", "ENDS"), acts) if acts else "",
        reach.table(("REQUEST", "DEVICE", "PROFILE", "NAMES", "BY", "ENDS"), shown) if rows else "",
    ]
    output.result(
        {"approvals": [_render(row) for row in rows], "next": cursor, "proposals": [proposals.document(one) for one in grave]},
        "\n\n".join(table for table in tables if table),
        as_json=as_json,
    )
    if not rows and not grave:
        output.note("Nothing waits.")
    if cursor is not None:
        output.note(f"More: --after {cursor}")


@approvals.command(help="An act that needs two persons: what exactly was asked for, by whom, and what became of it.")
@click.argument("request")
@output.settings_option
@output.json_option
def show(request: str, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    with reach.signer(settings) as (_, signer):
        found = signer.proposal(ids.hash_beginning(request))
    proposals.show(found, as_json=as_json)


@approvals.command(
    help="Approve the request whose hash begins with REQUEST: the device gets its certificate when it asks again. An act that needs two persons is"
    " approved with your operator's key, by --certificate and --key."
)
@click.argument("request")
@click.option("--reason", default="", help="Words that go on record with it.")
@hand.options(required=False)
@output.settings_option
@output.json_option
def approve(request: str, reason: str, settings: str, as_json: bool, **key: str | None) -> None:
    _decide(request, hand.given(**key), approve=True, reason=reason, settings=settings, as_json=as_json)


@approvals.command(
    help="Refuse the request whose hash begins with REQUEST; the device is told why. Who asked for an act that needs two persons takes it back so."
)
@click.argument("request")
@click.option("--reason", required=True, help="Words that go on record and to the device.")
@hand.options(required=False)
@output.settings_option
@output.json_option
def refuse(request: str, reason: str, settings: str, as_json: bool, **key: str | None) -> None:
    _decide(request, hand.given(**key), approve=False, reason=reason, settings=settings, as_json=as_json)


@approvals.command(
    help="Approve, without a signer, what FILE asks for: look at it, sign its hash with your operator's key, and give the new file OUT to who brings the"
    " database back. Needs no settings and no network."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--out", required=True, help="Where the approval is written.")
@click.option("--reason", default="", help="Words that go with it.")
@hand.options(required=True)
@output.json_option
def sign(file: str, out: str, reason: str, as_json: bool, **key: str) -> None:
    from ca.rules.message import Act, read_message

    asked = offline.read(file)
    text = offline.shown(asked)
    by = hand.Hand(key["certificate"], key["key"], key["passphrase_file"])
    made = by.message(Act.approve, deployment=read_message(asked.payload).audience, decision=(offline.digest(asked), True, reason))
    offline.write(out, made)
    output.result({"request": offline.digest(asked), "file": out}, text, as_json=as_json)
    output.note(f"Approved; bring {out} to who asked.")


def _decide(request: str, by: hand.Hand | None, *, approve: bool, reason: str, settings: str, as_json: bool) -> None:
    from ca.model import ApprovalDecision, Proposal
    from ca.rules import ids
    from ca.rules.message import Act

    beginning = ids.hash_beginning(request)
    with reach.signer(settings) as (read, signer):
        if by is None:
            made = signer.decide_approval(ApprovalDecision(signer.local, beginning, approve, reason))
        else:
            whole = _exactly(signer.proposal(beginning)) if len(beginning) < 64 else beginning
            given = by.message(Act.approve, deployment=read.deployment.name, decision=(whole, approve, reason))
            made = signer.decide_approval(ApprovalDecision(given, whole, approve, reason))
    if isinstance(made, Proposal):
        proposals.show(made, as_json=as_json)
        return
    output.result(_render(made), "", as_json=as_json)
    output.note(f"{made.state.value}: profile {made.profile} for {made.device}.")


def _exactly(found: Proposal) -> str:
    """The hash to sign: computed here from what was asked for, not believed.

    Raises:
        Unacceptable: the signer shows one thing and names another (`approval-damaged`).
    """
    from ca.errors import Unacceptable
    from ca.rules.message import digest_of, read_message

    payload = found.asked.message.payload
    said = read_message(payload).proposal
    if digest_of(payload) != found.request or said is None or said[:2] != (found.act.value, found.subject):
        raise Unacceptable(
            "approval-damaged", "The request says something else than was signed.", why="Its hash is not that of the message."
        )
    return found.request.hex()


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
