"""What evidence proves by itself, before any database is asked: the first half of the one door (P2). Ring 1: pure.

The rule of this file: **what is not in `ALLOWED` is denied**. A new kind of evidence, a new role or a new verb reaches nothing until a line is
written for it here (incident R17). Who may not bring a kind of evidence at all is refused before it is parsed. The second half,
which judges a claim by what is on record, is `ca.rules.grant`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import Denied, FleetcaError, Malformed, Unauthenticated
from ca.model import (
    AccountBinding,
    Digest,
    Evidence,
    EvidenceKind,
    KnownHardware,
    LocalEvidence,
    ManufacturerCertificate,
    MessageEvidence,
    Peer,
    PresentedCertificate,
    Role,
    TokenEvidence,
    UnitEvidence,
    UnixTime,
    ValidatedNames,
)
from ca.rules import ids, line
from ca.rules import token as token_rule
from ca.rules.message import Act, Message, check_message, digest_of, read_message, signed_octets


class Verb(Enum):
    """What a peer asks the signer to do and what needs evidence."""

    issue = "issue"
    revoke = "revoke"
    create_token = "create-token"
    revoke_token = "revoke-token"
    bind_account = "bind-account"
    order_renewals = "order-renewals"
    approve = "approve"
    propose = "propose"
    confirm = "confirm"
    open_shift = "open-shift"


ALLOWED: Final = frozenset(
    {
        # A device enrols by a token, renews by its certificate or a message; the web process gets its own TLS certificate.
        (Verb.issue, Role.enroll, EvidenceKind.token),
        (Verb.issue, Role.enroll, EvidenceKind.presented),
        (Verb.issue, Role.enroll, EvidenceKind.message),
        (Verb.issue, Role.enroll, EvidenceKind.local),
        # An account whose names the web process validated, as far as the settings let it (ACME).
        (Verb.issue, Role.enroll, EvidenceKind.validated),
        # A device fresh from a factory whose CA the settings trust (EST).
        (Verb.issue, Role.enroll, EvidenceKind.manufacturer),
        # A device that is on record by a key of its hardware.
        (Verb.issue, Role.enroll, EvidenceKind.hardware),
        # A responder gets its delegated certificate, and so does whoever signs answers ahead.
        (Verb.issue, Role.status, EvidenceKind.local),
        (Verb.issue, Role.publisher, EvidenceKind.local),
        # An operator at the machine, or one who signed.
        (Verb.issue, Role.operator, EvidenceKind.local),
        (Verb.issue, Role.operator, EvidenceKind.message),
        # Units of a factory line, whose station's file was taken onto the record before.
        (Verb.issue, Role.operator, EvidenceKind.unit),
        (Verb.issue, Role.enroll, EvidenceKind.unit),
        # An operator logs in at a station, with a key of their own and by no other way.
        (Verb.open_shift, Role.operator, EvidenceKind.message),
        (Verb.open_shift, Role.enroll, EvidenceKind.message),
        # A device gives up its own certificate; an operator any.
        (Verb.revoke, Role.enroll, EvidenceKind.presented),
        (Verb.revoke, Role.enroll, EvidenceKind.message),
        (Verb.revoke, Role.enroll, EvidenceKind.validated),
        (Verb.revoke, Role.operator, EvidenceKind.local),
        (Verb.revoke, Role.operator, EvidenceKind.message),
        # Tokens come from operators only.
        (Verb.create_token, Role.enroll, EvidenceKind.message),
        (Verb.create_token, Role.operator, EvidenceKind.local),
        (Verb.create_token, Role.operator, EvidenceKind.message),
        # Operators decide on requests that wait.
        (Verb.approve, Role.enroll, EvidenceKind.message),
        (Verb.approve, Role.operator, EvidenceKind.local),
        (Verb.approve, Role.operator, EvidenceKind.message),
        # Grave acts are asked for by a signature and by nothing else.
        (Verb.propose, Role.enroll, EvidenceKind.message),
        (Verb.propose, Role.operator, EvidenceKind.message),
        # At the machine only: no signed message asks for it.
        (Verb.revoke_token, Role.operator, EvidenceKind.local),
        (Verb.order_renewals, Role.operator, EvidenceKind.local),
        # Who makes an account holds a token's binding key.
        (Verb.bind_account, Role.enroll, EvidenceKind.binding),
        # A successor was used.
        (Verb.confirm, Role.enroll, EvidenceKind.presented),
        (Verb.confirm, Role.enroll, EvidenceKind.message),
    }
)

_ACTS: Final[Mapping[Verb, frozenset[Act]]] = {
    Verb.issue: frozenset({Act.renew, Act.issue}),
    Verb.revoke: frozenset({Act.revoke}),
    Verb.create_token: frozenset({Act.create_token}),
    Verb.confirm: frozenset({Act.confirm}),
    Verb.approve: frozenset({Act.approve}),
    Verb.open_shift: frozenset({Act.shift}),
    Verb.propose: frozenset({Act.propose}),
}
_KINDS: Final[Mapping[type, EvidenceKind]] = {
    TokenEvidence: EvidenceKind.token,
    MessageEvidence: EvidenceKind.message,
    PresentedCertificate: EvidenceKind.presented,
    LocalEvidence: EvidenceKind.local,
    ValidatedNames: EvidenceKind.validated,
    ManufacturerCertificate: EvidenceKind.manufacturer,
    AccountBinding: EvidenceKind.binding,
    UnitEvidence: EvidenceKind.unit,
    KnownHardware: EvidenceKind.hardware,
}
_ACCOUNT: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What evidence proves by itself, before the database is asked."""

    verb: Verb
    peer: Peer
    kind: EvidenceKind
    digest: Digest
    """What makes repeated evidence the same evidence."""
    token: Digest | None = None
    certificate: CertificateFacts | None = None
    """The certificate that was presented, or whose key signed the message."""
    message: Message | None = None
    validated: ValidatedNames | None = None
    """The names that the web process says it validated."""
    binding: AccountBinding | None = None
    """Not verified yet: that takes the token's row."""
    shift: int = 0
    unit: line.Unit | None = None
    """What a station's line says; whether it is on record takes its row."""


def kind_of(evidence: Evidence) -> EvidenceKind:
    """The kind of a piece of evidence, by its exact type.

    Raises:
        Denied: `evidence-unknown`.
    """
    kind = _KINDS.get(type(evidence))
    if kind is None:
        raise Denied("evidence-unknown", "This kind of evidence is not known.")
    return kind


def allowed(verb: Verb, peer: Peer, kind: EvidenceKind) -> None:
    """May this role bring this kind of evidence for this verb at all?

    Raises:
        Denied: `not-allowed`.
    """
    if (verb, peer.role, kind) not in ALLOWED:
        raise Denied(
            "not-allowed",
            f"Role {peer.role.value} may not ask for this with evidence of kind {kind.value}.",
            why=f"No rule allows {verb.value} that way.",
        )


def claim(verb: Verb, evidence: Evidence, peer: Peer, *, deployment: str, now: UnixTime) -> Claim:
    """Read and verify evidence as far as it speaks for itself.

    Raises:
        Denied: this role may not bring this evidence here.
        Malformed: evidence that cannot be read.
        Unauthenticated: evidence that does not hold.
    """
    kind = kind_of(evidence)
    allowed(verb, peer, kind)
    if isinstance(evidence, TokenEvidence):
        digest = token_rule.token_hash(evidence.token)
        return Claim(verb, peer, kind, digest, token=digest)
    if isinstance(evidence, PresentedCertificate | ManufacturerCertificate):
        return Claim(verb, peer, kind, _sha256(evidence.certificate), certificate=read_certificate(evidence.certificate))
    if isinstance(evidence, LocalEvidence):
        if evidence.role is not peer.role or evidence.uid != peer.uid:
            raise Denied("not-allowed", "Local evidence speaks for the peer of the socket only.")
        return Claim(verb, peer, kind, _sha256(f"{peer.role.value}@{peer.uid}".encode()))
    if isinstance(evidence, ValidatedNames):
        return _validated(verb, evidence, peer)
    if isinstance(evidence, AccountBinding):
        if not _ACCOUNT.fullmatch(evidence.account):
            raise Malformed("bad-request", "This is no account.", why="It is 32 hexadecimal digits.")
        return Claim(verb, peer, kind, _sha256(evidence.account.encode() + evidence.mac), binding=evidence)
    if isinstance(evidence, KnownHardware):
        return Claim(verb, peer, kind, _sha256(b""))  # the CSR is the evidence: a repeated one is the same request
    if isinstance(evidence, UnitEvidence):
        digest = _unit_digest(evidence.shift, evidence.line)
        return Claim(verb, peer, kind, digest, shift=evidence.shift, unit=line.read_unit(evidence.line))
    message = read_message(evidence.payload)
    check_message(message, acts=_ACTS[verb], deployment=deployment, now=now)
    signer = read_certificate(evidence.certificate)
    try:
        verify(load_public_key(signer.spki), evidence.signature, signed_octets(evidence.payload))
    except FleetcaError as error:
        raise Unauthenticated(
            "bad-signature",
            "The signature of the message does not hold.",
            why=error.what,
            fix="Sign the context and the payload with the key of the certificate you send.",
        ) from None
    return Claim(verb, peer, kind, digest_of(evidence.payload), certificate=signer, message=message)


def _validated(verb: Verb, evidence: ValidatedNames, peer: Peer) -> Claim:
    if not _ACCOUNT.fullmatch(evidence.account) or (evidence.purpose and not _ACCOUNT.fullmatch(evidence.purpose)):
        raise Malformed("bad-request", "This is no account or order.", why="They are 32 hexadecimal digits.")
    if evidence.token is not None and len(evidence.token) != 32:
        raise Malformed("bad-request", "A token is named by its SHA-256.")
    if len(evidence.names) > ids.MOST_NAMES:
        raise Malformed("bad-request", "There are too many names.", why=f"At most {ids.MOST_NAMES} are taken.")
    names = [[name.kind.value, ids.name(name.kind, name.value).value] for name in evidence.names]
    token = None if evidence.token is None else evidence.token.hex()
    replaces = None if evidence.replaces is None else str(evidence.replaces)
    said = json.dumps([evidence.account, evidence.purpose, evidence.profile, names, token, replaces], separators=(",", ":"))
    return Claim(verb, peer, EvidenceKind.validated, _sha256(said.encode()), token=evidence.token, validated=evidence)


def _sha256(octets: bytes) -> Digest:
    return Digest(hashlib.sha256(octets).digest())


def unit_key(shift: int, text: bytes, csr: bytes) -> Digest:
    """The request key of a unit's line, as `request_key` will make it when the unit asks for its certificate."""
    return _sha256(EvidenceKind.unit.value.encode() + b"\0" + _unit_digest(shift, text) + csr)


def _unit_digest(shift: int, text: bytes) -> Digest:
    return _sha256(f"unit {shift}\0".encode() + text)


def request_key(found: Claim, csr: bytes) -> Digest:
    """What makes a repeated request the same request: kind and digest of the evidence, who signed it, and the CSR.

    The signer's key is in it because the digest is of the payload alone: whoever saw one could sign it with a key of theirs, and would be
    answered as the one who asked.
    """
    signer = b"" if found.message is None or found.certificate is None else hashlib.sha256(found.certificate.spki).digest()
    return _sha256(found.kind.value.encode() + b"\0" + found.digest + signer + csr)
