"""Who may speak for a deployment whose database is lost: read from the signer's journal. Ring 1: pure.

The journal is read as it stands, and every certificate of an operator in it is believed only where an issuer of this deployment signed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ca.errors import FleetcaError
from ca.model import CertificateRef, Demand, Digest, Issuer, IssuerId, Operator, OperatorName, Reason
from ca.rules import testimony
from ca.rules.demand import read_demand
from ca.rules.grant import OPERATOR, OPERATOR_DEVICE, operator_of
from ca.rules.issuers import signed_by
from ca.rules.two_persons import Shown

_OF_PEOPLE: Final = tuple(f'{{"kind":"{word}",'.encode() for word in ("operator", "signed", "revocation", "demand"))
_INTENT: Final = b'{"kind":"intent",'
_OF_RECOVERY: Final = tuple(f'{{"kind":"{word}",'.encode() for word in ("void", "revocation", "proposal"))
"""What recovery itself writes; all else is of a signer at work."""


@dataclass(slots=True)
class Told:
    """What the journal says of people and of what they demanded."""

    records: int = 0
    operators: dict[OperatorName, Operator] = field(default_factory=dict)
    shown: dict[Digest, Shown] = field(default_factory=dict)
    """By the SHA-256 of the certificate."""
    revoked: dict[CertificateRef, bool] = field(default_factory=dict)
    demand: Demand | None = None
    last_work: int = 0
    """How many records there were after the last that a signer at work wrote."""


def told(records: Iterable[bytes], issuers: Mapping[IssuerId, Issuer]) -> Told:
    """What a journal says, from its beginning. What cannot be read in it says nothing."""
    found = Told()
    names: dict[CertificateRef, tuple[OperatorName, bytes]] = {}
    certificates: dict[CertificateRef, Digest] = {}
    for octets in records:
        found.records += 1
        if not octets.startswith(_OF_RECOVERY):
            found.last_work = found.records
        if not octets.startswith(_OF_PEOPLE) and not (octets.startswith(_INTENT) and OPERATOR_DEVICE.encode() in octets):
            continue
        try:
            record = testimony.read(octets)
        except FleetcaError:
            continue
        match record:
            case testimony.OperatorChanged():
                found.operators[record.operator.name] = record.operator
            case testimony.Intended():
                name, made = operator_of(record.intent.grant.device), record.intent.draft
                if name is not None and record.intent.grant.profile == OPERATOR:
                    names[CertificateRef(made.issuer, made.serial)] = name, made.tbs
            case testimony.Signed() if record.ref in names and record.ref.issuer in issuers:
                name, tbs = names[record.ref]
                if tbs in record.der and signed_by(record.der, issuers[record.ref.issuer]):
                    digest = certificates[record.ref] = Digest(hashlib.sha256(record.der).digest())
                    found.shown[digest] = Shown(record.der, name, found.revoked.get(record.ref, False))
            case testimony.Changed():
                reason = record.revocation.reason
                gone = found.revoked[record.revocation.ref] = reason not in {Reason.removeFromCRL, Reason.superseded}
                digest_of = certificates.get(record.revocation.ref)
                if digest_of is not None:
                    found.shown[digest_of] = replace(found.shown[digest_of], revoked=gone)
            case testimony.DemandAccepted():
                found.demand = read_demand(record.demand)
            case _:
                pass
    return found
