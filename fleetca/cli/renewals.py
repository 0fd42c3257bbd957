"""`fleetca renewals`: have certificates replaced before their time, see what was ordered, end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fleetca.cli import output, reach

if TYPE_CHECKING:
    from ca.model import IssuerId, RenewalOrder
    from config.settings import Settings


@click.group(help="Have certificates renewed before their time: for a lost key, a wrong profile, an emergency.")
def renewals() -> None:
    pass


@renewals.command(
    help="Have the certificates that were issued before now renewed, all of them WITHIN a time (0s: at once). The order is on record and moves the windows "
    "of every protocol within seconds; agents hear of it when they ask again, within six hours at most. Nothing is revoked."
)
@click.option(
    "--within", required=True, metavar="DURATION", help="In how much time all shall have come, like 12h; their devices are spread over it."
)
@click.option("--profile", help="Only certificates of this profile.")
@click.option("--issuer", help="Only certificates of this issuer.")
@click.option("--everything", is_flag=True, help="Every certificate, where neither is given.")
@click.option("--reason", default="", help="For people; agents show it.")
@output.settings_option
@output.json_option
def order(within: str, profile: str | None, issuer: str | None, everything: bool, reason: str, settings: str, as_json: bool) -> None:
    from ca.model import RenewalOrderRequest
    from ca.rules import ids

    if (profile is None and issuer is None) is not everything:
        raise click.UsageError("Say which certificates: --profile, --issuer or both; or --everything.")
    spread = 0 if within in {"0", "0s"} else reach.seconds(within)
    chosen = None if issuer is None else ids.issuer_id(issuer), None if profile is None else ids.profile_name(profile)
    with reach.signer(settings) as (read, signer):
        chosen = _of_tenant(read, chosen[0]), chosen[1]
        made = signer.order_renewals(RenewalOrderRequest(signer.local, spread, *chosen, reason=reason))
    output.result(_render(made), str(made.number), as_json=as_json)
    output.note(
        f"Order {made.number}: certificates issued before {output.iso(made.since)} are renewed until {output.iso(made.since + made.within)}."
    )
    output.note(
        "Who has come since: fleetca certificates list; who has not: fleetca devices health. To end it: fleetca renewals withdraw "
        + str(made.number)
    )


def _of_tenant(settings: Settings, issuer: IssuerId | None) -> IssuerId | None:
    """The issuer whose certificates are meant: with `--tenant`, only that one's.

    Raises:
        NotFound: there is no such tenant.
        Unacceptable: the issuer is not the tenant's (`issuer-of-another`).
    """
    from ca.errors import Unacceptable
    from ca.model import IssuerId
    from ca.rules.tenancy import unknown
    from fleetca import forms

    name = reach.tenant()
    if name is None:
        return issuer
    own = next((IssuerId(one.issuer) for one in settings.tenants if one.name == name), None)
    if own is None:
        raise unknown(name)
    if issuer is not None and forms.issuer_owners(settings).get(issuer) != name:
        raise Unacceptable("issuer-of-another", f"{issuer} is not an issuer of the tenant {name}.", fix="Leave --issuer out, or --tenant.")
    return own if issuer is None else issuer


@renewals.command("list", help="What was ordered, the newest first.")
@output.settings_option
@output.json_option
def list_(settings: str, as_json: bool) -> None:
    with reach.signer(settings) as (_, signer):
        found = signer.renewal_orders()
    shown = [
        (
            str(one.number), output.iso(one.since), output.iso(one.since + one.within), one.profile or "*", one.issuer or "*",
            "withdrawn" if one.withdrawn_at is not None else "in force", one.reason,
        )
        for one in found
    ]  # fmt: skip
    text = reach.table(("ORDER", "ISSUED BEFORE", "RENEWED UNTIL", "PROFILE", "ISSUER", "STATE", "REASON"), shown) if found else ""
    output.result({"orders": [_render(one) for one in found]}, text, as_json=as_json)
    if not found:
        output.note("Nothing was ordered.")


@renewals.command(help="End the order NUMBER: windows are again what they were. Who has renewed meanwhile has renewed.")
@click.argument("number", type=click.IntRange(min=1))
@output.settings_option
@output.json_option
def withdraw(number: int, settings: str, as_json: bool) -> None:
    from ca.model import RenewalOrderWithdrawal

    with reach.signer(settings) as (_, signer):
        ended = signer.withdraw_renewal_order(RenewalOrderWithdrawal(signer.local, number))
    output.result(_render(ended), "", as_json=as_json)
    output.note(f"Order {number} is withdrawn.")


def _render(one: RenewalOrder) -> dict[str, Any]:
    return {
        "number": one.number,
        "since": output.iso(one.since),
        "until": output.iso(one.since + one.within),
        "within": one.within,
        "profile": one.profile,
        "issuer": one.issuer,
        "reason": one.reason,
        "actor": one.actor,
        "withdrawn_at": None if one.withdrawn_at is None else output.iso(one.withdrawn_at),
        "withdrawn_by": one.withdrawn_by or None,
    }
