"""`fleetca devices`: list, search, show; what happens to a device stands in `device_life`."""

from __future__ import annotations

import click

from fleetca.cli import device_collisions, device_life, device_wipe, fleet_health, manifests, output, reach


@click.group(help="List, show and search devices.")
def devices() -> None:
    pass


devices.add_command(fleet_health.health)
devices.add_command(device_collisions.collisions)
devices.add_command(manifests.import_manifest)
for command in (
    device_life.describe,
    device_life.quarantine,
    device_life.release,
    device_life.retire,
    device_life.revive,
    device_life.timeline,
    device_life.explain,
    device_wipe.wipe_order,
    device_wipe.wiped,
    device_wipe.unwiped,
    device_wipe.waive_wipe,
):
    devices.add_command(command)

_STATES = click.Choice(["blank", "provisioned", "active", "quarantined", "retired"])


@devices.command("list", help="Devices by id.")
@output.settings_option
@click.option("--state", type=_STATES, help="Only these.")
@reach.page_options
@output.json_option
def list_(settings: str, state: str | None, limit: int, after: str | None, everything: bool, as_json: bool) -> None:
    _search(settings, None, state, limit=limit, after=after, everything=everything, as_json=as_json)


@devices.command(help="Devices whose id is ID, or begins so when it ends in *.")
@click.argument("id_", metavar="ID")
@output.settings_option
@click.option("--state", type=_STATES, help="Only these.")
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
        said = signer.device_facts(wanted) if found else None
        judged = {one.ref: one.verdict for one in signer.judged_keys(wanted)} if found else {}
    if not found:
        raise NotFound("device-unknown", f"There is no device {wanted}.", fix="List them: fleetca devices list")
    device = found[0]
    text = reach.facts(
        (("device", device.id), ("state", device.state.value), ("since", output.iso(device.created)), *device_life.facts_of(said))
    )
    if rows:
        rules = {ref: "" if verdict is None else verdict.rule for ref, verdict in judged.items()}
        shown = [
            (f"{row.ref}", reach.state_of(row, now), row.profile, output.distance(row.not_after, now), rules.get(row.ref, ""))
            for row in rows
        ]
        text += "\n\n" + reach.table(("CERTIFICATE", "STATE", "PROFILE", "EXPIRES", "ATTESTED"), shown)
    document = {
        "device": device.id,
        "state": device.state.value,
        "created": output.iso(device.created),
        **device_life.document_of(said),
        "anchors": device_life.anchors_of(said),
        "certificates": [
            {**render_certificate(row, now=now, with_octets=False), "attestation": device_life.verdict_document(judged.get(row.ref))}
            for row in rows
        ],
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
