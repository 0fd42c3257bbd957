"""What several verbs do to certificates on record, inside a write transaction of theirs: find what was shown, note a first use or a delivery,
change a status, give an intent up. Each appends its leaf (P8) and returns what belongs into the journal. Knows rules and ports only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ca.model import (
    Certificate,
    CertificateRef,
    CertificateState,
    Digest,
    EvidenceKind,
    Issuer,
    IssuerId,
    OnSuperseded,
    Operator,
    Profile,
    ProfileName,
    Reason,
    Revocation,
    RevocationGrant,
    Role,
    TenantId,
    UnixTime,
)
from ca.ports import Writing
from ca.rules import evidence, grant, leaf, renewal, testimony
from ca.rules.revocation import change

OWN_DIGEST = Digest(bytes(32))
"""The evidence digest of what the signer does by its own rules."""


class Issuers:
    """The issuers by id, and by the octets of their subject: how a certificate that is shown finds its row without a scan."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self.by_id: Mapping[IssuerId, Issuer] = {issuer.id: issuer for issuer in issuers}
        by_subject: dict[bytes, list[IssuerId]] = {}
        for issuer in self.by_id.values():
            by_subject.setdefault(issuer.subject, []).append(issuer.id)
        self._by_subject = by_subject

    def record_of(self, claim: evidence.Claim, tx: Writing) -> Certificate | None:
        """The row of the certificate in a claim. The name only says where to look: the rule compares octets (incident R34)."""
        shown = claim.certificate
        if shown is None:
            return None
        found = None
        for issuer in self._by_subject.get(shown.issuer, ()):
            found = tx.find_certificate(CertificateRef(issuer, shown.serial))
            if found is not None and found.der == shown.der:
                break
        return found


def operator_of(record: Certificate | None, tx: Writing) -> Operator | None:
    """The operator whose certificate this is."""
    name = grant.operator_of(record.device) if record is not None else None
    return None if name is None else tx.find_operator(name)


def by_the_signer(tenant: TenantId, *, reason: Reason, why: str, now: UnixTime) -> RevocationGrant:
    """The grant for what follows from our own rules: superseding, giving up."""
    return RevocationGrant(
        tenant=tenant,
        actor=f"signer:{why}",
        role=Role.operator,
        evidence=EvidenceKind.local,
        evidence_digest=OWN_DIGEST,
        targets=(),
        device=None,
        reason=reason,
        granted_at=now,
    )


def revoke(tx: Writing, record: Certificate, by: RevocationGrant, *, now: UnixTime) -> tuple[Revocation, tuple[testimony.Record, ...]]:
    """Append the change and its leaf; the change on record where there is nothing to change.

    Raises:
        Unacceptable, Conflict: see `ca.rules.revocation.change`.
    """
    wanted = change(record, by.reason, now=now)
    if wanted is None:
        assert record.revocation is not None
        return record.revocation, ()
    made = tx.add_revocation(
        record.ref, reason=wanted.reason, now=wanted.revoked_at, not_after=record.not_after, listed=record.revocable, actor=by.actor
    )
    tx.append_leaf(leaf.revocation(made, by, at=now))
    return made, (testimony.Changed(made, by, now),)


def first_use(tx: Writing, record: Certificate, profiles: Mapping[ProfileName, Profile], *, now: UnixTime) -> tuple[testimony.Record, ...]:
    """The key of `record` authenticated to us: its ancestors are superseded (P9), and revoked where their profile says so."""
    said: list[testimony.Record] = []
    if record.first_used_at is None:
        tx.mark_first_used(record.ref, now=now)
        said.append(testimony.FirstUsed(record.ref, now))
    for ancestor in renewal.ancestors(record, tx.find_certificate):
        said += supersede(tx, ancestor, record.ref, profiles, now=now)
    return tuple(said)


def delivered(
    tx: Writing, record: Certificate, successor: Certificate, profiles: Mapping[ProfileName, Profile], *, now: UnixTime
) -> tuple[testimony.Record, ...]:
    """The holder of `record` has its successor: its grace begins (P9). A second successor does not prolong it."""
    if successor.delivered_at is not None:
        return ()
    profile = profiles.get(record.profile)
    ends = now + (profile.grace if profile is not None else 0) if record.grace_ends_at is None else record.grace_ends_at
    tx.mark_delivered(successor.ref, now=now)
    tx.begin_grace(record.ref, ends_at=ends)
    tx.append_leaf(leaf.delivery(record.ref, successor=successor.ref, grace_ends_at=ends, at=now))
    said: tuple[testimony.Record, ...] = (testimony.Delivered(record.ref, successor.ref, ends, now),)
    record = replace(record, grace_ends_at=ends)
    if record.superseded_at is None and renewal.superseded(record, now=now):
        said += supersede(tx, record, successor.ref, profiles, now=now)
    return said


def supersede(
    tx: Writing, record: Certificate, by: CertificateRef, profiles: Mapping[ProfileName, Profile], *, now: UnixTime
) -> tuple[testimony.Record, ...]:
    """Write down that a certificate is superseded, since now or since its grace ended, and revoke it where its profile says so."""
    since = now if record.grace_ends_at is None else min(now, record.grace_ends_at)
    tx.mark_superseded(record.ref, now=since)
    tx.append_leaf(leaf.supersede(record.ref, by=by, at=since))
    said: tuple[testimony.Record, ...] = (testimony.Superseded(record.ref, by, since),)
    profile = profiles.get(record.profile)
    if profile is not None and profile.on_superseded is OnSuperseded.revoke and renewal.live(record, now=now):
        said += revoke(tx, record, by_the_signer(record.tenant, reason=Reason.superseded, why="superseded", now=now), now=now)[1]
    return said


def give_up(tx: Writing, record: Certificate, *, now: UnixTime) -> tuple[testimony.Record, ...]:
    """Void an intent whose result is not on record, and revoke it: whether a signature exists nobody can know."""
    tx.record_void(record.ref, now=now)
    tx.append_leaf(leaf.void(record.ref, at=now))
    by = by_the_signer(record.tenant, reason=Reason.unspecified, why="void", now=now)
    said = revoke(tx, replace(record, state=CertificateState.void), by, now=now)[1] if record.revocation is None else ()
    return (testimony.GivenUp(record.ref, now), *said)
