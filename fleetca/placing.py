"""Puts what a ceremony made where the settings say: certificates never over another one, root CRLs through the outlet and never over a newer one.
Safe to repeat. Edge: effects only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ca.der.certificate import read_certificate
from ca.errors import Conflict, FleetcaError, Unacceptable
from ca.model import Digest, Issuer, UnixTime
from ca.outlets.directory import DirectoryOutlet
from ca.rules.ceremony_check import Output
from config.settings import Settings
from crl.adopt import AHEAD, adopt, check_number_free, waiting
from crl.model import Scope
from crl.rules import gate
from crl.rules.anatomy import InMemory
from fleetca import forms
from fleetca.folder import put_new

BESIDE: Final[Mapping[str, str]] = {
    "link": "links",
    "cross-certificate": "links",
    "responder": "responders",
    "destroy-key": "destroyed",
}
"""Kind of an output that is no issuer of this deployment -> its folder beside the first issuer's certificate."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One thing that an import brought, or found there already."""

    what: str
    path: Path
    sha256: Digest
    not_after: UnixTime
    new: bool


def place_certificate(path: Path, issuer: Issuer) -> Placed:
    new = not path.exists()
    if new:
        put_new(path, forms.pem_of(issuer.certificate).encode())
    return Placed(f"certificate of {issuer.id}", path, Digest(sha256(issuer.certificate).digest()), issuer.not_after, new)


def place_beside(settings: Settings, output: Output) -> Placed:
    """A certificate that others will want, or the account of a key that is no more: never over another one."""
    path = settings.issuers[0].certificate.parent / BESIDE[output.kind] / output.file
    octets = output.der if output.is_statement else forms.pem_of(output.der).encode()
    new = not path.exists()
    if new:
        put_new(path, octets)
    elif path.read_bytes() != octets:
        raise Conflict(
            "output-differs",
            f"{path} is another file than this ceremony's {output.file}.",
            why="What was imported is never replaced.",
            fix="Give the act another id in the next sheet.",
        )
    not_after = 0 if output.is_statement else read_certificate(output.der).not_after
    return Placed(f"{output.kind} {output.act}", path, Digest(sha256(output.der).digest()), not_after, new)


def place_crl(settings: Settings, output: Output, issuers: Sequence[Issuer], *, now: UnixTime) -> Placed:
    issuer = issuer_of(output, issuers)
    scope = Scope(issuer)
    head = gate.inspect(InMemory(output.der), scope, now=now, ahead=AHEAD).head
    name = scope.name
    outlet = DirectoryOutlet(settings.crl.directory)
    here = outlet.current(name)
    path = settings.crl.directory / name
    placed = Placed(f"CRL number {head.number} of {issuer.id}", path, Digest(sha256(output.der).digest()), head.next_update, here is None)
    if here is not None and here.octets == output.der:
        return placed
    published = gate.believe(InMemory(here.octets), scope).head.number if here else 0
    check_number_free(head, output.der, issuer, outlet=outlet, published=published)
    if head.this_update > now + gate.SKEW:
        # Its time will come: the publisher puts it in the place of the one before then.
        waits = any(one.octets == output.der for one in waiting(issuer, outlet=outlet))
        adopt(output.der, issuer, outlet=outlet, clock=_At(now))
        return Placed(f"CRL number {head.number} of {issuer.id}, for later", path, placed.sha256, head.next_update, not waits)
    # The high-water file also counts CRLs that were taken away again. Its very number may come back: a crash between raising it and putting
    # the file leaves that.
    highest = max(outlet.high_water(name) - 1, published)
    if head.number <= highest:
        raise Conflict(
            "crl-number-back",
            f"The CRL of {issuer.id} in this folder has number {head.number}, and a later one was published already.",
            why="A CRL number never goes back: relying parties would keep the newer one.",
            fix="Import the latest ceremony; for a new CRL, name the published one as previous in the sheet.",
        )
    with outlet.stage(name) as stage:
        os.write(stage.fileno(), output.der)
        stage.sync()
        gate.inspect(stage, scope, now=now)
        outlet.raise_high_water(name, head.number)
        outlet.put_if_unchanged(name, stage, seen=here.version if here else None)
    return Placed(placed.what, path, placed.sha256, placed.not_after, new=True)


@dataclass(frozen=True, slots=True)
class _At:
    """The moment of the import."""

    at: UnixTime

    def now(self) -> UnixTime:
        return self.at


def issuer_of(output: Output, issuers: Sequence[Issuer]) -> Issuer:
    for issuer in issuers:
        try:
            gate.believe(InMemory(output.der), Scope(issuer))
        except FleetcaError:
            continue
        return issuer
    raise Unacceptable("crl-of-nobody", f"{output.file} is not a CRL of any issuer of this deployment.")
