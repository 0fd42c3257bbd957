"""How the published CRLs stand, told from what readers get and not from what the publisher thinks (R05, R06). Ring 4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ca.model import Issuer, UnixTime
from crl.model import Freshness, Health, Scope
from crl.publish import scopes
from crl.rules import schedule
from crl.shelf import Shelf

_HERE: Final = {
    Freshness.late: "The publisher has missed runs; see its log, the signer and the database.",
    Freshness.urgent: "The CRL ends soon; see the publisher's log, the signer and the database now.",
    Freshness.expired: "The CRL has ended; relying parties refuse every certificate. Start the publisher: fleetca serve",
    Freshness.missing: "No CRL is published. Start the publisher: fleetca serve",
}
_CEREMONY: Final = {
    Freshness.late: "Two thirds of the CRL's window are over: plan the ceremony that makes the next one.",
    Freshness.urgent: "The CRL ends soon: hold the ceremony that makes the next one, then fleetca import its outputs.",
    Freshness.expired: "The CRL has ended; relying parties may refuse every chain. Hold the ceremony, then fleetca import its outputs.",
    Freshness.missing: "No CRL was imported: fleetca import the outputs of the ceremony.",
}


def health(shelf: Shelf, issuers: Iterable[Issuer], *, now: UnixTime) -> tuple[Health, ...]:
    """One verdict per CRL of every issuer that may sign CRLs."""
    return tuple(_of(shelf, scope, now=now) for issuer in issuers if issuer.may_sign_crl for scope in scopes(issuer))


def _of(shelf: Shelf, scope: Scope, *, now: UnixTime) -> Health:
    renewed_here = scope.issuer.key is not None
    found = shelf.look(scope)
    freshness = schedule.freshness(now, found.head, renewed_here=renewed_here)
    advice = "" if freshness is Freshness.fresh else (_HERE if renewed_here else _CEREMONY)[freshness]
    if found.trouble is not None:
        advice = f"What lies there cannot be believed ({found.trouble.what}) {advice}"
    return Health(scope.issuer.id, freshness, found.head, advice, scope.name)
