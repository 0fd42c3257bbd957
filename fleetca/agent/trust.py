"""What the identity trusts, kept up to date: signed pin sets are fetched, judged by `ca.rules.pins` and put in place. Edge: network and files.

The new trust is in place before the set is remembered: a crash between them has the same set judged once more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ca.der import pem
from ca.errors import FleetcaError, NotFound
from ca.model import UnixTime
from ca.rules import pins
from ca.rules.anchor_bundle import Bundle, Told, judge
from fleetca.agent.identity import PINS, Identity
from fleetca.agent.renewing import Service
from fleetca.client import Client
from fleetca.folder import sync_folder

PATH = "/v1/ca/pins"


def refresh(identity: Identity, service: Service, *, now: UnixTime, believed: bool = True) -> bool:
    """Fetch the pin sets and take over what counts; whether anything changed.

    Args:
        believed: False where the service cannot be believed by what is trusted now: the sets must speak for themselves.

    Raises:
        Denied: a set does not count; what is trusted stays.
        Malformed: it is no set.
    """
    client = Client(
        service.url, trusted=service.root if believed else None, proxy=service.proxy, check_time=believed and not service.unchecked_time
    )
    try:
        octets = client.get(PATH)
    except NotFound:
        return False  # this deployment has none
    finally:
        client.close()
    last = known(identity)
    anchors = tuple(pem.ders_of(identity.trust.read_bytes(), pem.CERTIFICATE))
    changed = False
    for signed in sorted(pins.read_sets(octets), key=lambda one: pins.read_set(one.payload).seq):
        if last is not None and pins.read_set(signed.payload).seq <= last[1].seq:
            continue  # went through already
        trusted = frozenset(map(pins.pin_of, anchors)) if last is None else last[1].pins
        found = pins.accept(signed, trusted=trusted, last=None if last is None else last[1], now=now)
        anchors = pins.trusted_anchors(found, anchors, now=now)
        _replace(identity.trust, "".join(pem.pem(pem.CERTIFICATE, der) for der in anchors).encode())
        last = (signed, found)
        _replace(identity.folder / PINS, pins.write_sets([signed]))
        changed = True
    return changed


def take(identity: Identity, bundle: Bundle, *, numbers: Mapping[bytes, int], now: UnixTime) -> Told:
    """Take over what an update system brought (REQ-KEY-044). No network; the caller holds the identity's lock.

    Raises:
        Denied, Malformed, Unacceptable: it does not count (`ca.rules.anchor_bundle.judge`); what is trusted stays.
    """
    last = known(identity)
    before = tuple(pem.ders_of(identity.trust.read_bytes(), pem.CERTIFICATE))
    told = judge(bundle, anchors=before, known=last, numbers=numbers, now=now)
    if told.steps:
        _replace(identity.trust, "".join(pem.pem(pem.CERTIFICATE, der) for der in told.anchors).encode())
        _replace(identity.folder / PINS, pins.write_sets([told.steps[-1][0]]))
    return told


def retire(identity: Identity, *, now: UnixTime) -> None:
    """Trust no longer what the last set does not name, once its time is over."""
    last = known(identity)
    if last is None:
        return
    anchors = tuple(pem.ders_of(identity.trust.read_bytes(), pem.CERTIFICATE))
    kept = pins.trusted_anchors(last[1], anchors, now=now)
    if set(kept) != set(anchors):
        _replace(identity.trust, "".join(pem.pem(pem.CERTIFICATE, der) for der in kept).encode())


def known(identity: Identity) -> tuple[pins.Signed, pins.PinSet] | None:
    """The set that was accepted last."""
    with suppress(OSError, FleetcaError):
        (signed,) = pins.read_sets((identity.folder / PINS).read_bytes())
        return signed, pins.read_set(signed.payload)
    return None


def _replace(file: Path, octets: bytes) -> None:
    fresh = file.with_name(f".{file.name}.new")
    with fresh.open("wb") as opened:
        opened.write(octets)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)
    sync_folder(file.parent)
