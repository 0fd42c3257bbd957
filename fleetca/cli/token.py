"""`fleetca token`: one-time enrolment tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import Token

_SHORT: Final = 16
"""Digits of a hash that tell it from all others."""


@click.group(help="Create, list and withdraw one-time enrolment tokens.")
def token() -> None:
    pass


@token.command(help="Create a token that enrols DEVICE once. It is printed this once; only its hash is kept.")
@click.argument("device")
@output.settings_option
@click.option("--profile", default="device", show_default=True, help="The profile of the certificate it gets.")
@reach.name_options
@click.option("--lifetime", default="1h", show_default=True, help="How long the token may be used, e.g. 15m, 1h, 7d.")
@click.option("--eab", is_flag=True, help="Print it as an ACME client takes it: key id and HMAC key of an external account binding.")
@output.json_option
def create(
    device: str, settings: str, profile: str, dns: tuple[str, ...], ip: tuple[str, ...], lifetime: str, eab: bool, as_json: bool
) -> None:
    import base64

    from ca.model import TokenRequest
    from ca.rules import ids
    from ca.rules import token as token_rule
    from ca.rules.message import names_to

    with reach.signer(settings) as (deployment, signer):
        made = signer.create_token(
            TokenRequest(
                evidence=signer.local,
                device=ids.device_id(device),
                profile=ids.profile_name(profile),
                names=reach.names(dns, ip),
                lifetime=reach.seconds(lifetime),
            )
        )
    url = deployment.enroll.url
    document = {
        "token": made.text,
        "device": made.token.device,
        "profile": made.token.profile,
        "names": names_to(made.token.names),
        "expires": output.iso(made.token.expires),
        "enroll_url": url,
    }
    text = made.text
    if eab:
        key = base64.urlsafe_b64encode(made.binding_key).rstrip(b"=").decode("ascii")
        document |= {"eab_kid": token_rule.binding_id(made.token.hash), "eab_hmac_key": key}
        text = f"{document['eab_kid']} {key}"
    output.result(document, text, as_json=as_json)
    output.note(
        f"A token for {made.token.device} (profile {made.token.profile}), valid until {output.iso(made.token.expires)}"
        f" ({output.distance(made.token.expires, reach.now())}). It works once.\n"
        f"Next, on the device: send it with a certificate request to {url}/v1/enroll"
    )


@token.command("list", help="The tokens that could still be used: all, or those of DEVICE. Of a token only its hash is known.")
@click.argument("device", required=False)
@output.settings_option
@reach.page_options
@output.json_option
def list_(device: str | None, settings: str, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    from ca.rules import ids

    wanted = None if device is None else ids.device_id(device)
    now = reach.now()
    with reach.signer(settings) as (_, signer):
        rows, cursor = reach.pages(
            lambda at, size: signer.tokens(device=wanted, after=at, limit=size), after=after, limit=limit, everything=everything
        )
    shown = [(row.hash.hex()[:_SHORT], row.device, row.profile, output.distance(row.expires, now), row.created_by) for row in rows]
    output.result(
        {"tokens": [_render(row) for row in rows], "next": cursor},
        reach.table(("HASH", "DEVICE", "PROFILE", "EXPIRES", "MADE BY"), shown) if rows else "",
        as_json=as_json,
    )
    if not rows:
        output.note("No outstanding tokens.")
    if cursor is not None:
        output.note(f"More: --after {cursor}")


@token.command(
    help="Withdraw the tokens of DEVICE that could still be used. What was enrolled with one before goes on: see fleetca revoke."
)
@click.argument("device")
@output.settings_option
@click.option("--hash", "beginning", default="", metavar="HEX", help="Only the token whose hash begins so; fleetca token list shows them.")
@output.json_option
def revoke(device: str, settings: str, beginning: str, as_json: bool) -> None:
    from ca.model import TokenWithdrawal
    from ca.rules import ids

    asked = ids.device_id(device), ids.hash_beginning(beginning)
    with reach.signer(settings) as (_, signer):
        gone = signer.revoke_tokens(TokenWithdrawal(signer.local, *asked))
    output.result(
        {"tokens": [_render(row) for row in gone]},
        reach.table(("HASH", "DEVICE", "PROFILE"), [(row.hash.hex()[:_SHORT], row.device, row.profile) for row in gone]),
        as_json=as_json,
    )
    output.note(f"{len(gone)} token{'s' if len(gone) != 1 else ''} of {device} withdrawn.")


def _render(token: Token) -> dict[str, Any]:
    from ca.rules.message import names_to

    return {
        "hash": token.hash.hex(),
        "device": token.device,
        "profile": token.profile,
        "names": names_to(token.names),
        "created": output.iso(token.created),
        "created_by": token.created_by,
        "expires": output.iso(token.expires),
        "revoked_at": None if token.revoked_at is None else output.iso(token.revoked_at),
    }
