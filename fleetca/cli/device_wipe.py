"""`fleetca devices wipe-order`, `wiped`, `unwiped` and `waive-wipe`: retired devices wipe their keys, and say so; or it is said why they never will."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output, reach

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    "wipe-order", help="Make the signed order by which the retired device ID wipes its keys: fleetca agent wipe. Safe to repeat."
)
@click.argument("id_", metavar="ID")
@click.option("--out", required=True, type=_FILE, help="Where the order goes; must not exist.")
@output.settings_option
@output.json_option
def wipe_order(id_: str, out: Path, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        reach.write_new(str(out), signer.order_wipe(device))
    output.result({"device": device, "order": str(out)}, str(out), as_json=as_json)
    output.note(f"On the device: fleetca agent wipe --dir DIR --order {out.name} --receipt FILE")


@click.command(help="Put the wipe RECEIPT of a retired device on record: its record is closed.")
@click.argument("receipt", type=_FILE)
@output.settings_option
@output.json_option
def wiped(receipt: Path, settings: str, as_json: bool) -> None:
    octets = reach.read(str(receipt))
    with reach.signer(settings) as (_, signer):
        taken = signer.take_wipe(octets)
    output.result(
        {"device": taken.device, "at": output.iso(taken.at)},
        f"{taken.device} wiped its keys; on record since {output.iso(taken.at)}.",
        as_json=as_json,
    )


@click.command(help="Retired devices that had a certificate and sent no wipe receipt: open findings. Exit code 8: there are some.")
@output.settings_option
@output.json_option
def unwiped(settings: str, as_json: bool) -> int:
    found: list[str] = []
    with reach.signer(settings) as (_, signer):
        while page := signer.unwiped(after=found[-1] if found else ""):
            found += page
    output.result({"devices": found}, "\n".join(found), as_json=as_json)
    if found:
        output.note("One that was destroyed or lost: fleetca devices waive-wipe ID --justification WORDS")
    else:
        output.note("Every retired device that had a certificate sent its receipt.")
    return output.FINDINGS if found else 0


@click.command(
    "waive-wipe",
    help="Close the record of the retired device ID without its wipe receipt: it was destroyed, or is lost. What is said goes on record and into its timeline."
    " Where the settings want two persons for it, they say why before: fleetca approvals request waive-wipe --device ID.",
)
@click.argument("id_", metavar="ID")
@click.option("--justification", default="", metavar="WORDS", help="Why no receipt will come.")
@output.settings_option
@output.json_option
def waive_wipe(id_: str, justification: str, settings: str, as_json: bool) -> None:
    from ca.rules import ids

    device = ids.device_id(id_)
    with reach.signer(settings) as (_, signer):
        made = signer.waive_wipe(device, justification)
    document = {"device": made.device, "at": output.iso(made.at), "justification": made.justification, "actor": made.actor}
    output.result(document, f"The record of {made.device} is closed: {made.justification}", as_json=as_json)
