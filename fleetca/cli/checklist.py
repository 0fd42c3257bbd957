"""`fleetca checklist`: the boxes that auditors ask for, answered from the deployment as it is."""

from __future__ import annotations

from pathlib import Path

import click

from fleetca.cli import output


@click.command(
    help="Answer each box of the checklists from the deployment as it is now, with the command or page that shows it. `open`: it cannot be told from"
    " here, and why. Ends with 8 unless every answer is yes. Runs as the signer's user."
)
@output.settings_option
@output.json_option
def checklist(settings: str, as_json: bool) -> int:
    from ca.store.engine import open_store
    from ca.system import SystemClock
    from fleetca import checks_outside, doctor, forms
    from fleetca.evidence import checklist as boxes

    read = forms.read_settings(Path(settings))
    clock = SystemClock()
    health = checks_outside.signer_health(read)
    store = open_store(forms.store_url(read), readonly=True)
    try:
        facts = boxes.Facts(
            settings=read,
            reading=store.reading,
            doctor=doctor.examine(read, clock=clock),
            root_present=None if health is None else health.get("root_present"),
            now=clock.now(),
        )
        told = boxes.answers(facts)
    finally:
        store.close()
    document = [
        {"box": box.id, "asks": box.asks, "answer": said.answer, "why": said.why, "link": said.link, "requirement": box.requirement}
        for box, said in told
    ]
    lines = []
    for box, said in told:
        lines += [f"{said.answer:<5} {box.id:<14} {box.asks}", f"{'':<20} {said.why}", f"{'':<20} see: {said.link} ({box.requirement})"]
    fine = sum(said.answer == boxes.YES for _, said in told)
    lines.append(f"{fine} of {len(told)} boxes: yes.")
    output.result({"boxes": document, "yes": fine}, "\n".join(lines), as_json=as_json)
    return 0 if fine == len(told) else output.FINDINGS
