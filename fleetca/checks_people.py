"""The doctor's checks of people: what two persons are demanded for, and whether somebody reviewed what was done. Edge: changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ca import audit
from ca.log.tiles import TileDirectory
from ca.model import GraveAct
from ca.rules import note as note_rule
from ca.rules.caps import Power, powers_of
from ca.rules.demand import in_words, loosens, stricter
from ca.rules.review import reviewed_until
from ca.rules.tiles import CHECKPOINT
from ca.rules.two_persons import at_load, person_of
from ca.rules.window import date
from ca.store.engine import open_store
from config.strict import duration_text
from fleetca import forms
from fleetca.verdict import Patient, Verdict, bad, note, ok


def two_persons(patient: Patient) -> Iterator[Verdict]:
    """Whether the settings leave less to two persons than the record, whether there are two, and whose roles exclude each other."""
    store = open_store(forms.store_url(patient.settings), readonly=True)
    try:
        known, operators = store.reading.accepted_demand(), store.reading.operators()
    finally:
        store.close()
    wanted = forms.demand(patient.settings)
    for wrong in at_load(operators):
        yield bad(wrong.what, wrong.why, wrong.fix)
    if known is not None and loosens(wanted, known):
        yield bad(
            "The settings leave less to two persons than was demanded before.",
            f"They say: {in_words(wanted)}. In force is: {in_words(known)}.",
            "Take the change back, or have two persons approve it: fleetca approvals request demand",
        )
    demanded = wanted if known is None else stricter(known, wanted)
    approving = {person_of(one.who) for one in operators if Power.authorize in powers_of(one)}
    if demanded.acts and len(approving) < demanded.approvers:
        yield note(
            "Nobody could approve what needs two persons.",
            f"{demanded.approvers} must approve, and {len(approving)} may.",
            "Add one: fleetca operators add NAME --role security-officer --csr FILE",
        )
    elif demanded.acts:
        yield ok(f"Two persons are demanded for {in_words(demanded)}.")
    else:
        yield ok("One person alone may do all but revive a retired id, publish a refused CRL and demand less: so the settings want it.")


def reviews(patient: Patient) -> Iterator[Verdict]:
    """Whether two persons signed, not too long ago, that they reviewed all that is on record."""
    every = patient.settings.approvals.review_every
    log = patient.settings.log
    files, key = TileDirectory(log.directory), note_rule.read_note_key(log.verifier.read_text())
    head = files.read(CHECKPOINT)
    size = 0 if head is None else note_rule.read_checkpoint(head, [key]).size
    first = next((body for _, body in audit.show(files, start=0, size=size)), None)
    if first is None:
        yield patient.missing("Nothing is on record yet that could be reviewed.", "The publisher writes the record.")
        return
    store = open_store(forms.store_url(patient.settings), readonly=True)
    try:
        signed = [one for one in store.reading.every_proposal() if one.act is GraveAct.review]
    finally:
        store.close()
    reached = reviewed_until(signed, json.loads(first)["at"])
    if patient.clock.now() - reached > every:
        yield bad(
            f"What was done since {date(reached)} was not reviewed.",
            f"The settings want a review every {duration_text(every)}, signed by two persons.",
            "Look through an evidence pack, then: fleetca approvals request review --period FROM..TO --evidence PACK",
        )
    else:
        yield ok(f"What was done before {date(reached)} was reviewed, or is not due yet.")
