"""`fleetca devices`: list, search, show."""

from __future__ import annotations

import click

from fleetca.cli import fleet_health, output, quarantine, reach


@click.group(help="List, show and search devices.")
def devices() -> None:
    pass


devices.add_command(fleet_health.health)
devices.add_command(quarantine.quarantine)
devices.add_command(quarantine.release)


@devices.command("list", help="Devices by id.")
@output.settings_option
@click.option("--state", type=click.Choice(["active", "revoked"]), help="Only these.")
@reach.page_options
@output.json_option
def list_(settings: str, state: str | None, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    _search(settings, None, state, limit=limit, after=after, everything=everything, as_json=as_json)


@devices.command(help="Devices whose id is ID, or begins so when it ends in *.")
@click.argument("id_", metavar="ID")
@output.settings_option
@click.option("--state", type=click.Choice(["active", "revoked"]), help="Only these.")
@reach.page_options
@output.json_option
def search(id_: str, settings: str, state: str | None, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    _search(settings, id_, state, limit=limit, after=after, everything=everything, as_json=as_json)


@devices.command(help="One device and its newest certificates.")
@click.argument("id_", metavar="ID")
@output.settings_option
@output.json_option
def show(id_: str, settings: str, as_json: bool) -> None:
    from ca.errors import NotFound
    from ca.model import CertificateQuery
    from ca.rules import ids
    from enroll.rest.messages import render_certificate

    wanted = ids.device_id(id_)
    now = reach.now()
    with reach.signer(settings) as (_, signer):
        found, _ = signer.devices(device=wanted, limit=1)
        rows, cursor = signer.certificates(CertificateQuery(device=wanted, limit=reach.PAGE))
    if not found:
        raise NotFound("device-unknown", f"There is no device {wanted}.", fix="List them: fleetca devices list")
    device = found[0]
    text = reach.facts((("device", device.id), ("state", device.state.value), ("since", output.iso(device.created))))
    if rows:
        shown = [(f"{row.ref}", reach.state_of(row, now), row.profile, output.distance(row.not_after, now)) for row in rows]
        text += "\n\n" + reach.table(("CERTIFICATE", "STATE", "PROFILE", "EXPIRES"), shown)
    document = {
        "device": device.id,
        "state": device.state.value,
        "created": output.iso(device.created),
        "certificates": [render_certificate(row, now=now, with_octets=False) for row in rows],
        "next": cursor,
    }
    output.result(document, text, as_json=as_json)
    if cursor is not None:
        output.note(f"More: fleetca certificates search --device {wanted} --after {cursor}")


def _search(
    settings: str, device: str | None, state: str | None, *, limit: int, after: str | None, everything: bool, as_json: bool
) -> None:
    from ca.model import DeviceState

    with reach.signer(settings) as (_, signer):
        rows, cursor = reach.pages(
            lambda at, size: signer.devices(device=device, state=None if state is None else DeviceState(state), after=at, limit=size),
            after=after,
            limit=limit,
            everything=everything,
        )
    shown = [(row.id, row.state.value, output.iso(row.created)) for row in rows]
    output.result(
        {"devices": [{"device": row.id, "state": row.state.value, "created": output.iso(row.created)} for row in rows], "next": cursor},
        reach.table(("DEVICE", "STATE", "SINCE"), shown) if rows else "",
        as_json=as_json,
    )
    if not rows:
        output.note("No devices.")
    if cursor is not None:
        output.note(f"More: --after {cursor}")
