"""When this device's clock is wrong: what the service's clock says instead. Edge; asks one question.

A device without a battery wakes in 1970, and then every certificate is not valid yet. The service is still known by its name and by the chain to the
trusted root; only the dates cannot be judged by our clock. So the service's own clock is asked over such a connection, and its certificate must hold by
what that says, which must not lie before our own certificate began: nobody brings us back to a time that we know is over. What is learned counts for
this run; this host's clock is its owner's to set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import Denied
from ca.model import UnixTime
from ca.ports import Clock
from fleetca.agent.renewing import Service
from fleetca.client import Client

SLACK: Final = 600
"""Seconds around which clocks may differ without anybody being wrong; certificates are dated back by less."""


@dataclass(frozen=True, slots=True)
class Shifted:
    """Another clock, and what it is off by."""

    clock: Clock
    by: int

    def now(self) -> UnixTime:
        return self.clock.now() + self.by


def is_behind(facts: CertificateFacts, now: UnixTime) -> bool:
    """Whether a clock is surely wrong: it says that the certificate which we have is not valid yet."""
    return now < facts.not_before - SLACK


def service_time(service: Service, *, floor: UnixTime) -> UnixTime:
    """What the service's clock says.

    Raises:
        Denied: what it says cannot be (`clock-unknown`).
        Unavailable: it cannot be reached.
    """
    client = Client(service.url, trusted=service.root, proxy=service.proxy, check_time=False)
    try:
        client.get("/v1/about")
        then, peer = client.date, client.peer
    finally:
        client.close()
    if then is not None and peer is not None and then >= floor - SLACK:
        shown = read_certificate(peer)
        if shown.not_before - SLACK <= then <= shown.not_after:
            return then
    raise Denied(
        "clock-unknown",
        "This device's clock is wrong, and the service's cannot be believed.",
        why="What it says lies before this device's certificate began, or its own certificate does not hold then.",
        fix="Set this device's clock right.",
    )
