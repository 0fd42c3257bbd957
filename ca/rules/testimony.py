"""The records of the signer's journal: bytes <-> words. Ring 1: pure.

The journal is the second witness: from it alone every intent, result and change of status that a lost or restored database has forgotten
can be written again. One record is one JSON object with `kind`; unknown kinds are kept by whoever reads, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from ca.errors import Broken, FleetcaError
from ca.model import (
    Approval,
    CertificateRef,
    CrlIntent,
    Device,
    DeviceChange,
    DeviceFacts,
    DeviceId,
    Digest,
    EvidenceKind,
    Intent,
    KeyChange,
    KeyRecord,
    Operator,
    Profile,
    Proposal,
    RecordSeal,
    RenewalOrder,
    Revocation,
    RevocationGrant,
    Role,
    Shift,
    Station,
    Token,
    UnixTime,
    WipeReceipt,
)
from ca.rules import forms


@dataclass(frozen=True, slots=True)
class Intended:
    """A certificate may be signed from here on. Written before the key is asked."""

    intent: Intent
    revocable: bool
    leaf: Digest


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate was signed, re-read and recorded."""

    ref: CertificateRef
    der: bytes
    issued_at: UnixTime


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An intent was voided."""

    ref: CertificateRef
    at: UnixTime


@dataclass(frozen=True, slots=True)
class Changed:
    """A certificate's status changed, and by whose word."""

    revocation: Revocation
    by: RevocationGrant
    at: UnixTime


@dataclass(frozen=True, slots=True)
class FirstUsed:
    """A certificate's key authenticated to us for the first time."""

    ref: CertificateRef
    at: UnixTime


@dataclass(frozen=True, slots=True)
class Delivered:
    """The holder of a certificate said that it has its successor."""

    ref: CertificateRef
    successor: CertificateRef
    grace_ends_at: UnixTime
    at: UnixTime


@dataclass(frozen=True, slots=True)
class Superseded:
    """A certificate's successor was used, or its grace was over."""

    ref: CertificateRef
    by: CertificateRef
    at: UnixTime


@dataclass(frozen=True, slots=True)
class CloneSeen:
    """A certificate's key spoke after another, `used`, had taken its place by being used."""

    ref: CertificateRef
    used: CertificateRef
    device: DeviceId
    role: Role
    evidence: EvidenceKind
    evidence_digest: Digest
    at: UnixTime


@dataclass(frozen=True, slots=True)
class DeviceMoved:
    """A device is in another state, or something else was said of it: as it is afterwards."""

    device: Device
    change: DeviceChange
    facts: DeviceFacts | None = None
    """Where something was said of it."""


@dataclass(frozen=True, slots=True)
class TokenMade:
    """A token exists, by its hash."""

    token: Token


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """A token works no more, though nobody used it."""

    token: Digest
    actor: str
    at: UnixTime


@dataclass(frozen=True, slots=True)
class RenewalsOrdered:
    """Certificates are to be replaced, or no more: the order as it is afterwards."""

    order: RenewalOrder


@dataclass(frozen=True, slots=True)
class KeyMoved:
    """A key came into the inventory, or is in another state; the record as it was afterwards."""

    record: KeyRecord
    change: KeyChange


@dataclass(frozen=True, slots=True)
class MessageUsed:
    """A signed message acted, and may not act again."""

    digest: Digest
    at: UnixTime


@dataclass(frozen=True, slots=True)
class OperatorChanged:
    """An operator exists, or lost its powers."""

    operator: Operator
    actor: str
    at: UnixTime


@dataclass(frozen=True, slots=True)
class ApprovalDecided:
    """An operator decided on a request for a certificate."""

    approval: Approval
    channel: str


@dataclass(frozen=True, slots=True)
class ProposalMoved:
    """A grave act was asked for, answered or done: the proposal as it is afterwards."""

    proposal: Proposal
    actor: str
    person: str
    channel: str
    message: Digest | None
    at: UnixTime


@dataclass(frozen=True, slots=True)
class StationKnown:
    """A station of a factory line is on record."""

    station: Station
    actor: str


@dataclass(frozen=True, slots=True)
class ShiftOpened:
    """An operator logged in at a station. Written before the quota is signed."""

    shift: Shift
    quota: bytes
    actor: str


@dataclass(frozen=True, slots=True)
class UnitsTaken:
    """A shift has so many units; which they are says its station's file."""

    shift: int
    taken: int
    head: Digest
    at: UnixTime
    actor: str


@dataclass(frozen=True, slots=True)
class RecordsSealed:
    """Provisioning records may be countersigned from here on."""

    seal: RecordSeal
    actor: str


@dataclass(frozen=True, slots=True)
class WipeOrdered:
    """A retired device may be ordered to wipe its keys. Written before the order is signed; a lost database loses nothing by it."""

    device: DeviceId
    order: str
    at: UnixTime
    actor: str


@dataclass(frozen=True, slots=True)
class Wiped:
    """A retired device sent its wipe receipt."""

    receipt: WipeReceipt


@dataclass(frozen=True, slots=True)
class ProfileAccepted:
    """A version of a profile is in force from here on."""

    profile: Profile
    request: str
    """The proposal that two persons signed; empty for the first."""
    at: UnixTime


@dataclass(frozen=True, slots=True)
class DemandAccepted:
    """What two persons are demanded for, from here on."""

    demand: str
    """The exact request of the act `demand` (`ca.rules.demand.subject_of`)."""
    request: str
    """The proposal that two persons signed; empty where nothing became looser."""
    at: UnixTime


@dataclass(frozen=True, slots=True)
class CrlIntended:
    """A CRL may be signed from here on; says which numbers are spent."""

    intent: CrlIntent


Record: TypeAlias = (
    Intended
    | Signed
    | GivenUp
    | Changed
    | FirstUsed
    | Delivered
    | Superseded
    | CloneSeen
    | DeviceMoved
    | TokenMade
    | TokenRevoked
    | RenewalsOrdered
    | MessageUsed
    | KeyMoved
    | OperatorChanged
    | ApprovalDecided
    | ProposalMoved
    | ProfileAccepted
    | DemandAccepted
    | CrlIntended
    | StationKnown
    | ShiftOpened
    | UnitsTaken
    | RecordsSealed
    | Wiped
    | WipeOrdered
)

_KINDS: dict[str, type[Any]] = {
    "intent": Intended,
    "signed": Signed,
    "void": GivenUp,
    "revocation": Changed,
    "first-use": FirstUsed,
    "delivery": Delivered,
    "supersede": Superseded,
    "clone": CloneSeen,
    "device": DeviceMoved,
    "token": TokenMade,
    "token-revoked": TokenRevoked,
    "renewals": RenewalsOrdered,
    "message": MessageUsed,
    "key-state": KeyMoved,
    "operator": OperatorChanged,
    "approval": ApprovalDecided,
    "proposal": ProposalMoved,
    "profile": ProfileAccepted,
    "demand": DemandAccepted,
    "crl": CrlIntended,
    "station": StationKnown,
    "shift": ShiftOpened,
    "units": UnitsTaken,
    "record-seal": RecordsSealed,
    "wipe": Wiped,
    "wipe-order": WipeOrdered,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}


def write(record: Record) -> bytes:
    """A record's octets."""
    return orjson.dumps({"kind": _WORDS[type(record)], **forms.write(record)})


def read(octets: bytes) -> Record | None:
    """A record; None where its kind is of a later version.

    Raises:
        Broken: `journal-damaged`.
    """
    try:
        document = orjson.loads(octets)
        kind = _KINDS.get(document.pop("kind"))
        if kind is None:
            return None
        found: Record = forms.read(kind, document)
        return found
    except (ValueError, KeyError, AttributeError, RecursionError, FleetcaError) as error:
        raise Broken("journal-damaged", "A record of the journal cannot be read.", why=str(error)) from None
