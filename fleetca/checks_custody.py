"""The doctor's check of custody: was it practised to restore a CA's key from its backup, and not too long ago? Edge: reads files, opens no key."""

from __future__ import annotations

from collections.abc import Iterator

from ca.errors import FleetcaError
from ca.rules import drill
from ca.rules.window import date
from config.strict import duration_text
from fleetca.verdict import Patient, Verdict, bad, note, ok


def drills(patient: Patient) -> Iterator[Verdict]:
    """The last drill that a key of a CA signed."""
    custody, now = patient.settings.custody, patient.clock.now()
    if custody.drills is None:
        yield note(
            "Nobody said where the records of restore drills are.",
            "A backup that was never restored may be none.",
            "Keep what fleetca keys drill writes in a folder, and name it: [custody] drills",
        )
        return
    found = []
    for path in sorted(custody.drills.glob("*.json")):
        try:
            found.append(drill.read(path.read_bytes(), patient.issuers))
        except FleetcaError as error:
            yield bad(f"{path.name} among the records of drills proves nothing.", error.what, error.fix)
    last = max((one for one in found if one.at <= now), key=lambda one: one.at, default=None)
    mend = "Restore a backup in memory: fleetca keys drill BACKUP --quorum FILE --out FILE"
    if last is None:
        yield bad("That a backup of a CA's key can be restored was never shown.", f"No record of a drill is in {custody.drills}.", mend)
    elif now - last.at > custody.drill_every:
        yield bad(
            f"The last restore drill was on {date(last.at)}.",
            f"The settings want one every {duration_text(custody.drill_every)}.",
            mend,
        )
    else:
        yield ok(f"Restoring was practised on {date(last.at)}, with the key of {', '.join(last.issuers)}.")
