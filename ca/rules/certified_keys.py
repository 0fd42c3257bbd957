"""Keys of our own services and of operators, as the inventory has them: by their certificates. Ring 1: pure.

They live in the memory of a process, or with their holder, and are changed as often as certificates are; nobody destroys them before witnesses. So
no record of their own is kept: what the record of certificates says of them is what is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ca.der.algorithms import algorithm_of, load_public_key
from ca.der.certificate import read_certificate
from ca.model import (
    Certificate,
    Digest,
    KeyChange,
    KeyName,
    KeyOrigin,
    KeyPlace,
    KeyPurpose,
    KeyRecord,
    KeyState,
    Protection,
    Reason,
    UnixTime,
)
from ca.rules import renewal
from ca.rules.grant import ENROLL_DEVICE, RESPONDER_DEVICE, operator_of


def records(certificates: Iterable[Certificate], *, now: UnixTime, responder: KeyPlace | None = None) -> list[KeyRecord]:
    """One record for each key of ours among them; a key that several issuers certified is one key.

    Args:
        responder: where the one responder key rests; None: each process makes its own in memory.
    """
    found: dict[Digest, KeyRecord] = {}
    for certificate in certificates:
        made = _record(certificate, now=now)
        if made is None:
            continue
        if made.purpose is KeyPurpose.responder and responder is not None:
            made = replace(
                made,
                name=responder.name,
                store=responder.store,
                place=responder.place,
                protection=responder.protection,
                origin=responder.origin,
            )
        before = found.get(made.spki_sha256)
        if before is not None:
            assert before.period_ends is not None, "all of these end"
            assert made.period_ends is not None, "all of these end"
            made = replace(made, created=min(made.created, before.created), period_ends=max(made.period_ends, before.period_ends))
        found[made.spki_sha256] = made
    return sorted(found.values(), key=lambda record: (record.purpose.value, record.name, record.created))


def changes(certificates: Sequence[Certificate]) -> list[KeyChange]:
    """How such a key came in and what became of it; the evidence is its certificate."""
    found = []
    for certificate in certificates:
        if certificate.der is None or certificate.issued_at is None:
            continue
        evidence = hashlib.sha256(certificate.der).hexdigest()
        key = Digest(certificate.spki_sha256)
        why = f"certified by {certificate.ref.issuer}, serial {certificate.ref.serial:040x}"
        found.append(KeyChange(key, None, KeyState.active, certificate.issued_at, why, certificate.device, evidence))
        if certificate.revocation is not None and renewal.revoked(certificate):
            state, at = _revoked(certificate), certificate.revocation.revoked_at
            found.append(KeyChange(key, KeyState.active, state, at, f"revoked: {certificate.revocation.reason.name}", "signer", evidence))
    return sorted(found, key=lambda change: change.at)


def _record(certificate: Certificate, *, now: UnixTime) -> KeyRecord | None:
    operator = operator_of(certificate.device)
    purpose = {ENROLL_DEVICE: KeyPurpose.service, RESPONDER_DEVICE: KeyPurpose.responder}.get(certificate.device)
    if operator is not None:
        purpose = KeyPurpose.operator
    if purpose is None or certificate.der is None or certificate.issued_at is None or certificate.not_after < now:
        return None
    spki = read_certificate(certificate.der).spki
    return KeyRecord(
        spki_sha256=Digest(certificate.spki_sha256),
        tenant=certificate.tenant,
        name=KeyName(certificate.device),
        purpose=purpose,
        origin=KeyOrigin.process if operator is None else KeyOrigin.elsewhere,
        algorithm=algorithm_of(load_public_key(spki)).name,
        spki=spki,
        store="memory" if operator is None else "holder",
        place="the memory of its process" if operator is None else f"with {operator}",
        protection=Protection.memory if operator is None else None,
        owner=certificate.device if operator is None else f"operator {operator}",
        state=_revoked(certificate) if renewal.revoked(certificate) else KeyState.active,
        created=certificate.issued_at,
        period_ends=certificate.not_after,
        changed=certificate.issued_at if certificate.revocation is None else certificate.revocation.revoked_at,
    )


def _revoked(certificate: Certificate) -> KeyState:
    """A key whose certificate was revoked signs no more, whatever the reason; on hold it may again."""
    assert certificate.revocation is not None, "asked for by the caller"
    match certificate.revocation.reason:
        case Reason.certificateHold:
            return KeyState.suspended
        case Reason.keyCompromise:
            return KeyState.compromised
        case _:
            return KeyState.destroyed
