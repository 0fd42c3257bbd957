"""What is wrong with a deployment, and what mends it. Edge: looks at everything, changes nothing, opens no key (P3).

Each check is a function that yields verdicts; a new one is a function and a line in `CHECKS`. An error that a check meets is its finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ca.errors import FleetcaError
from ca.model import Issuer
from ca.ports import Clock
from ca.store.engine import open_store
from config.settings import Settings
from fleetca import checks_algorithms, checks_answers, checks_custody, checks_devices, checks_inside, checks_outside, checks_people, forms
from fleetca.verdict import Patient, Verdict, bad

CHECKS: Final[tuple[tuple[str, Callable[[Patient], Iterator[Verdict]]], ...]] = (
    ("separation", checks_inside.separation),
    ("two-persons", checks_people.two_persons),
    ("reviews", checks_people.reviews),
    ("secrets", checks_inside.secrets),
    ("keys", checks_inside.keys),
    ("chain", checks_inside.chain),
    ("algorithms", checks_algorithms.algorithms),
    ("database", checks_inside.database),
    ("disks", checks_inside.disks),
    ("clock", checks_inside.clock),
    ("crl", checks_outside.crls),
    ("status", checks_outside.status),
    ("ocsp", checks_answers.responder),
    ("served", checks_answers.served),
    ("record", checks_outside.record),
    ("clones", checks_devices.clones),
    ("exceptions", checks_devices.exceptions),
    ("wipes", checks_devices.unwiped),
    ("drills", checks_custody.drills),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict and the check it comes from."""

    check: str
    verdict: Verdict


def examine(settings: Settings, *, clock: Clock) -> tuple[Finding, ...]:
    """Run every check. Never raises for a sick deployment: what a check meets is its finding."""
    found: list[Finding] = []
    try:
        issuers: Sequence[Issuer] = forms.at_work(settings, lambda: _recorded(settings))
    except FleetcaError as error:
        found.append(Finding("chain", _from_error(error)))
        issuers = ()
    patient = Patient(settings, clock, issuers, checks_outside.signer_health(settings), checks_outside.status_health(settings))
    for name, check in CHECKS:
        try:
            found += [Finding(name, verdict) for verdict in check(patient)]
        except FleetcaError as error:
            found.append(Finding(name, _from_error(error)))
        except OSError as error:
            found.append(Finding(name, bad(f"The check stopped at {error.filename or 'a file'}.", f"{error.strerror}.")))
    return tuple(found)


def _recorded(settings: Settings) -> Sequence[Issuer]:
    store = open_store(forms.store_url(settings), readonly=True)
    try:
        return store.reading.issuers()
    finally:
        store.close()


def _from_error(error: FleetcaError) -> Verdict:
    return bad(f"{error.what} [{error.code}]", error.why, error.fix)
