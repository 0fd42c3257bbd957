"""`fleetca import`: bring the outputs of a ceremony into a deployment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fleetca.cli import output

if TYPE_CHECKING:
    from ca.system import SystemClock

TAKEN_UP_SECONDS: Final = 30.0


@click.command(
    name="import",
    help="Bring the outputs of a ceremony (the folder that `fleetca ceremony run --out` wrote) into the deployment: checks the transcript and "
    "every output, refuses rehearsals and what was imported already, places certificates and CRLs, makes or migrates the database, and certifies "
    "the first operator. After a crash the same command goes on.",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--root-sha256", help="SHA-256 fingerprint of the root certificate as noted at the ceremony; another root is refused.")
@output.settings_option
@output.json_option
def import_(folder: Path, root_sha256: str | None, settings: str, as_json: bool) -> None:
    from ca.system import SystemChance, SystemClock
    from fleetca import forms
    from fleetca.importing import import_ceremony

    clock = SystemClock()
    read = forms.read_settings(settings)
    imported = import_ceremony(read, folder, clock=clock, chance=SystemChance(), root_sha256=root_sha256)
    document = {
        "ceremony": imported.ceremony,
        "root_sha256": imported.root_sha256.hex(),
        "placed": [
            {
                "what": each.what,
                "path": str(each.path),
                "sha256": each.sha256.hex(),
                "not_after": output.iso(each.not_after),
                "new": each.new,
            }
            for each in imported.placed
        ],
        "issuers": [issuer.id for issuer in imported.issuers],
        "operators": [str(path) for path in imported.operators],
        "at_work": not imported.to_come or _taken_up(settings, frozenset(imported.to_come), clock),
    }
    now = clock.now()
    lines = [f"The ceremony {imported.ceremony} is imported."]
    for each in imported.placed:
        lines.append(f"  {each.what}{'' if each.new else ' (was there)'}: {each.path}")
        until = f"until {output.iso(each.not_after)} ({output.distance(each.not_after, now)}), " if each.not_after else ""
        lines.append(f"      {until}SHA-256 fingerprint {each.sha256.hex()}")
    lines += [f"  operator certificate: {path}" for path in imported.operators]
    if root_sha256 is None:
        lines.append(f"Compare with the paper from the ceremony: the root's SHA-256 fingerprint is\n  {imported.root_sha256.hex()}")
    if not imported.to_come:
        lines.append(f"Next: fleetca serve --settings {settings}")
    elif document["at_work"]:
        lines.append(f"At work now: {', '.join(imported.to_come)}. See: fleetca issuers list --settings {settings}")
    else:
        lines.append(
            f"Next: have the processes read the settings (SIGHUP to fleetca serve, or restart its units); then {', '.join(imported.to_come)} is at work."
        )
    output.result(document, "\n".join(lines), as_json=as_json)


def _taken_up(settings: str, wanted: frozenset[str], clock: SystemClock) -> bool:
    """Wait until a signer that was started anew names them; False where none does: it knows settings that do not await them."""
    from threading import Event

    from ca.errors import FleetcaError
    from fleetca.cli import reach

    deadline = clock.monotonic() + TAKEN_UP_SECONDS
    while clock.monotonic() < deadline:
        with suppress(FleetcaError), reach.signer(settings) as (_, signer):
            if wanted <= {issuer.id for issuer in signer.issuers()}:
                return True
        Event().wait(0.2)
    return False
