"""`fleetca migrate`: bring the database to this version's tables."""

from __future__ import annotations

import click

from fleetca.cli import output


@click.command(help="Bring the database to this version's tables; makes it where there is none. Safe to repeat.")
@output.settings_option
@output.json_option
def migrate(settings: str, as_json: bool) -> None:
    from ca.store.engine import migrate as run
    from fleetca import forms

    revision = run(forms.store_url(forms.read_settings(settings)))
    output.result({"revision": revision}, f"The database is at revision {revision}.\nNext: fleetca doctor", as_json=as_json)
