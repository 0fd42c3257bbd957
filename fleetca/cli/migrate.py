"""`fleetca migrate`: bring the database to this version's tables."""

from __future__ import annotations

import click

from fleetca.cli import output


@click.command(help="Bring the database to this version's tables; makes it where there is none. The signer must not run. Safe to repeat.")
@output.settings_option
@output.json_option
def migrate(settings: str, as_json: bool) -> None:
    from ca.signer.alone import SignerLock
    from ca.store.engine import migrate as run
    from enroll.store.engine import migrate as run_protocols
    from fleetca import forms

    read = forms.read_settings(settings)
    with SignerLock(read.signer.journal):
        revision = run(forms.store_url(read))
        run_protocols(forms.store_url(read))
    output.result({"revision": revision}, f"The database is at revision {revision}.\nNext: fleetca doctor", as_json=as_json)
