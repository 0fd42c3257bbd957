"""`fleetca doctor`: check a deployment and say what to mend."""

from __future__ import annotations

import sys

import click

from fleetca.cli import output

_MARKS = {"ok": "ok", "note": "note", "finding": "FINDING"}


@click.command(help="Check a deployment and say what to mend. Changes nothing. Ends with 8 when there are findings.")
@output.settings_option
@output.json_option
def doctor(settings: str, as_json: bool) -> None:
    from ca.system import SystemClock
    from fleetca import forms
    from fleetca.doctor import examine
    from fleetca.verdict import Level

    found = examine(forms.read_settings(settings), clock=SystemClock())
    findings = sum(each.verdict.level is Level.finding for each in found)
    document = {
        "findings": findings,
        "checks": [
            {
                "check": each.check,
                "level": each.verdict.level.value,
                "what": each.verdict.what,
                "why": each.verdict.why,
                "fix": each.verdict.fix,
            }
            for each in found
        ],
    }
    lines = []
    for each in found:
        lines.append(f"{_MARKS[each.verdict.level.value]:<8} {each.check:<11} {each.verdict.what}")
        if each.verdict.level is not Level.ok:
            lines += [f"{'':<20}  {word}: {text}" for word, text in (("why", each.verdict.why), ("fix", each.verdict.fix)) if text]
    lines.append(f"{findings} finding{'' if findings == 1 else 's'}." if findings else "No findings.")
    output.result(document, "\n".join(lines), as_json=as_json)
    if findings:
        sys.exit(output.FINDINGS)
