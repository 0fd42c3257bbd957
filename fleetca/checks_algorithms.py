"""The doctor's check of algorithms: does a CA's key count for as long as its certificate is believed? Edge: reads certificates, opens no key."""

from __future__ import annotations

from collections.abc import Iterator

from ca.der.algorithms import kind_of, load_public_key
from ca.der.certificate import read_certificate
from ca.model import UnixTime
from ca.rules.algorithm_dates import WHY, Outlook, outlook
from ca.rules.window import date
from fleetca import forms
from fleetca.verdict import Patient, Verdict, bad, note, ok


def algorithms(patient: Patient) -> Iterator[Verdict]:
    """Our own CAs, and those whose factory certificates enrol devices."""
    found: list[tuple[str, str, UnixTime]] = [(one.id, one.algorithm, one.not_after) for one in patient.issuers if one.retired_at is None]
    for maker in forms.manufacturers(patient.settings):
        facts = read_certificate(maker.certificate)
        found.append((f"manufacturer {maker.name}", kind_of(load_public_key(facts.spki)), facts.not_after))
    quantum = []
    for name, algorithm, not_after in found:
        seen = outlook(algorithm, not_after)
        if seen is Outlook.quantum:
            quantum.append(f"{name} ({algorithm}, until {date(not_after)})")
        elif seen is not Outlook.holds:
            yield _late(name, algorithm, not_after, seen)
    if quantum:
        yield note(
            f"Believed beyond 2035, when a quantum computer may break their keys: {', '.join(quantum)}.",
            WHY[Outlook.quantum],
            "Plan a change of root to ML-DSA before: docs/how-to/rollover.md",
        )
    else:
        yield ok("No CA is believed longer than its algorithm counts.")


def _late(name: str, algorithm: str, not_after: UnixTime, seen: Outlook) -> Verdict:
    what = f"{name} has a key of {algorithm} and is believed until {date(not_after)}."
    if seen is Outlook.deprecated:
        return note(what, WHY[seen], "Have it replaced before then.")
    return bad(what, WHY[seen], "Have it replaced, or believe it no more: est.manufacturers in the settings.")
