"""The doctor's checks of devices: whose key two may hold (P9), whose exception is over. Edge: reads the database, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ca.model import DeviceState
from ca.rules.window import date
from ca.store.engine import open_store
from fleetca import forms
from fleetca.verdict import Patient, Verdict, bad, ok

SINCE: Final = 30 * 86400
"""How long a suspicion is told of, in seconds; revoking the device ends it at once."""
MOST: Final = 1000


def clones(patient: Patient) -> Iterator[Verdict]:
    """Devices for which two spoke, each with a certificate that wanted the same place."""
    settings, now = patient.settings, patient.clock.now()
    store = open_store(forms.store_url(settings), readonly=True)
    try:
        seen = store.reading.clones(since=now - SINCE, limit=MOST)
        devices = {one.device: store.reading.find_device(one.device) for one in seen}
    finally:
        store.close()
    active = {name for name, device in devices.items() if device is not None and device.state is DeviceState.active}
    for name in sorted(active):
        last = max((one for one in seen if one.device == name), key=lambda one: one.clone_seen_at or 0)
        yield bad(
            f"The key of device {name} may have been copied.",
            f"Certificate {last.ref} spoke on {date(last.clone_seen_at or 0)}, after another had taken its place by being used.",
            f"Was it restored from an old copy? Else: fleetca revoke --device {name} --reason keyCompromise --confirm {name}",
        )
    if not active:
        yield ok("No device spoke with two certificates that want the same place.")


def unwiped(patient: Patient) -> Iterator[Verdict]:
    """Retired devices that never said that they wiped their keys."""
    store = open_store(forms.store_url(patient.settings), readonly=True)
    try:
        missing = store.reading.unwiped(after="", limit=MOST)
    finally:
        store.close()
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        yield bad(
            f"{len(missing) if len(missing) < MOST else f'{MOST} or more'} retired devices sent no wipe receipt.",
            f"They are {shown}.",
            "Order the wipe: fleetca devices wipe-order ID --out FILE; list them: fleetca devices unwiped",
        )
    else:
        yield ok("Every retired device that had a certificate sent its wipe receipt.")


def exceptions(patient: Patient) -> Iterator[Verdict]:
    """Devices without a root of trust whose justification has ended, and which are not retired."""
    now = patient.clock.now()
    store = open_store(forms.store_url(patient.settings), readonly=True)
    try:
        ended = [
            (name, facts.exception_ends or 0)
            for name, facts in store.reading.exceptions_ended(now=now, limit=MOST)
            if (device := store.reading.find_device(name)) is not None and device.state is not DeviceState.retired
        ]
    finally:
        store.close()
    for name, ends in ended:
        yield bad(
            f"Device {name} has no root of trust, and its exception is over.",
            f"It ended on {date(ends)}.",
            f"Retire it, give it one, or justify it anew: fleetca devices describe {name} --root-of-trust none --exception-until 90d ...",
        )
    if not ended:
        yield ok("No device goes on without a root of trust after its exception ended.")
