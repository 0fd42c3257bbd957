"""The doctor's check of what two persons are demanded for. Edge: reads settings and database, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from ca.rules.caps import Power, powers_of
from ca.rules.demand import in_words, loosens, stricter
from ca.rules.two_persons import at_load, person_of
from ca.store.engine import open_store
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
