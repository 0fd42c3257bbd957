"""`fleetca devices health`: whose renewal is failing, late or over, by what devices said of it; asked over the network as an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from fleetca.cli import output, reach

PAGE = 500


@click.command(
    help="How the renewals of devices that report stand: who is failing, late (the time has passed) or dark (the certificate has ended). Asked at the"
    " enrolment service with an operator's certificate. Ends with 8 when there is anybody."
)
@output.settings_option
@click.option("--health", type=click.Choice(["failing", "late", "dark"]), help="Only these; absent: all three.")
@click.option("--certificate", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The operator's certificate (PEM).")
@click.option("--key", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Its key (PEM).")
@click.option("--passphrase-file", type=click.Path(dir_okay=False, path_type=Path), help="What unlocks a sealed key.")
@click.option("--url", envvar="FLEETCA_URL", help="The enrolment service; from the settings when absent.")
@click.option("--root", type=click.Path(dir_okay=False, path_type=Path), help="The trusted root (PEM); from the settings when absent.")
@output.json_option
def health(
    settings: str,
    health: str | None,
    certificate: Path,
    key: Path,
    passphrase_file: Path | None,
    url: str | None,
    root: Path | None,
    as_json: bool,
) -> int:
    from fleetca.client import Client

    if url is None or root is None:
        from fleetca.cli.renew import root_of
        from fleetca.forms import read_settings

        read = read_settings(settings)
        url, root = url or read.enroll.url, root or root_of(read)
    password = bytes if passphrase_file is None else (lambda: reach.read(str(passphrase_file)).removesuffix(b"\n"))
    client = Client(url, trusted=root, certificate=certificate, key=key, password=password)
    found: list[dict[str, Any]] = []
    try:
        for one in (health,) if health else ("dark", "late", "failing"):
            cursor = None
            while True:
                asked = {"health": one, "limit": PAGE, **({"cursor": cursor} if cursor else {})}
                page = json.loads(client.get(f"/v1/fleet?{urlencode(asked)}"))
                found += page["devices"]
                cursor = page["next"]
                if cursor is None:
                    break
    finally:
        client.close()
    rows = [(one["device"], one["health"], one["code"] or "-", one["due"], one["not_after"], one["heard_at"]) for one in found]
    output.result(
        {"devices": found}, reach.table(("DEVICE", "HEALTH", "CODE", "DUE", "ENDS", "HEARD"), rows) if rows else "", as_json=as_json
    )
    if not found:
        output.note("Nobody is failing, late or dark.")
    return output.FINDINGS if found else 0
