"""What several verbs do to certificates on record, inside a write transaction of theirs: find what was shown, note a first use or a delivery,
change a status, give an intent up. Each appends its leaf (P8) and returns what belongs into the journal. Knows rules and ports only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ca.errors import Conflict, FleetcaError
from ca.model import (
    Anchor,
    Certificate,
    CertificateRef,
    CertificateState,
    Device,
    DeviceChange,
    DeviceFacts,
    DeviceState,
    Digest,
    EvidenceKind,
    Grant,
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
    StatusChange,
    TenantId,
    Token,
    UnixTime,
    ValidatedNames,
)
from ca.ports import Ledger, Writing
from ca.rules import device_life, evidence, grant, leaf, renewal, testimony
from ca.rules.device_life import channel, move
from ca.rules.revocation import change as change_of
from ca.witness import Witness

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

    def refs_of(self, claim: evidence.Claim) -> Sequence[CertificateRef]:
        """Where the certificate in a claim may be on record: under each issuer of the name it bears."""
        shown = claim.certificate
        return () if shown is None else [CertificateRef(issuer, shown.serial) for issuer in self._by_subject.get(shown.issuer, ())]

    def record_of(self, claim: evidence.Claim, tx: Writing) -> Certificate | None:
        """The row of the certificate in a claim. The name only says where to look: the rule compares octets (incident R34)."""
        shown = claim.certificate
        if shown is None:
            return None
        found = None
        for ref in self.refs_of(claim):
            found = tx.find_certificate(ref)
            if found is not None and found.der == shown.der:
                break
        return found


def operator_of(record: Certificate | None, tx: Writing) -> Operator | None:
    """The operator whose certificate this is."""
    name = grant.operator_of(record.device) if record is not None else None
    return None if name is None else tx.find_operator(name)


SAME_IDENTITY: Final = 64
"""Certificates of a device that are looked through for the last one of the same identity: who has more under way starts a new line."""


def predecessor(tx: Writing, asked: grant.Asked, said: ValidatedNames, profile: Profile, *, now: UnixTime) -> Certificate | None:
    """The certificate that an account's new one comes after."""
    if said.replaces is not None:
        return tx.find_certificate(said.replaces)
    return renewal.predecessor(tx.latest_of(asked.device, limit=SAME_IDENTITY), profile, asked.names, now=now)


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
    (made,), said = revoke_each(tx, [record], by, now=now)
    return made, said


def revoke_each(
    tx: Writing, records: Sequence[Certificate], by: RevocationGrant, *, now: UnixTime
) -> tuple[tuple[Revocation, ...], tuple[testimony.Record, ...]]:
    """As `revoke`, for different certificates: their changes, in the order of the records.

    Raises:
        Unacceptable, Conflict: see `ca.rules.revocation.change`; nothing was appended.
    """
    wanted = [change_of(record, by.reason, now=now) for record in records]
    made = iter(
        tx.add_revocations(
            [
                StatusChange(record.ref, one.reason, one.revoked_at, record.not_after, record.revocable)
                for record, one in zip(records, wanted, strict=True)
                if one is not None
            ],
            actor=by.actor,
            invalid_from=by.invalid_from,
            channel=channel(by.role, by.evidence),
            request=by.evidence_digest.hex(),
        )
    )
    told: list[Revocation] = []
    said: list[testimony.Record] = []
    for record, one in zip(records, wanted, strict=True):
        if one is None:
            assert record.revocation is not None
            told.append(record.revocation)
            continue
        new = next(made)
        tx.append_leaf(leaf.revocation(new, by, at=now))
        # The journal's records are read one by one: each names its own certificate and not everybody's.
        said.append(testimony.Changed(new, by if len(by.targets) < 2 else replace(by, targets=(new.ref,)), now))
        told.append(new)
    return tuple(told), tuple(said)


def first_use(tx: Writing, record: Certificate, profiles: Mapping[ProfileName, Profile], *, now: UnixTime) -> tuple[testimony.Record, ...]:
    """The key of `record` authenticated to us: its ancestors are superseded (P9), and revoked where their profile says so.

    So are, the first time, the other renewals of its parent: of all that were asked for with one key, the one that is used first stays, and
    whoever holds another is noticed when it speaks (docs/adr/0009-one-place.md).
    """
    said: list[testimony.Record] = []
    for ancestor in renewal.ancestors(record, tx.find_certificate):
        said += supersede(tx, ancestor, record.ref, profiles, now=now)
    if record.first_used_at is None:
        if record.parent is not None:
            for sibling in renewal.displaced(record, tx.renewals_of(record.parent, record.device)):
                said += supersede(tx, sibling, record.ref, profiles, now=now)
        tx.mark_first_used(record.ref, now=now)
        # The last word of this use: a journal cut off before it makes the next use the first one again, which says the rest.
        said.append(testimony.FirstUsed(record.ref, now))
    return tuple(said)


def refused(
    tx: Writing, error: FleetcaError, claim: evidence.Claim, issuers: Issuers, *, now: UnixTime
) -> tuple[FleetcaError, tuple[testimony.Record, ...]]:
    """What a refusal is told as, once what was refused is undone: did a certificate speak whose place another took by being used?

    Then two may hold what is one device's. That goes on record, once for each certificate: whoever asks again and again writes nothing more.
    """
    if error.code not in renewal.PLACE_TAKEN or claim.certificate is None:
        return error, ()
    record = issuers.record_of(claim, tx)
    if record is None or record.der != claim.certificate.der:
        return error, ()
    siblings = () if record.parent is None else tx.renewals_of(record.parent, record.device)
    used = renewal.rival(record, siblings=siblings, successors=tx.renewals_of(record.ref, record.device), now=now)
    if used is None:
        return error, ()
    said: tuple[testimony.Record, ...] = ()
    if record.clone_seen_at is None:
        seen = testimony.CloneSeen(record.ref, used.ref, record.device, claim.peer.role, claim.kind, claim.digest, now)
        clone_seen(tx, seen)
        said = (seen,)
    return renewal.contested(record, used, error), said


def refusal(
    ledger: Ledger, witness: Witness, error: FleetcaError, claim: evidence.Claim, issuers: Issuers, *, now: UnixTime
) -> FleetcaError:
    """As `refused`, for a verb whose whole transaction was undone by the refusal."""
    if error.code not in renewal.PLACE_TAKEN:
        return error
    with ledger.writing() as tx:
        told, said = refused(tx, error, claim, issuers, now=now)
    witness.later(said)
    return told


def clone_seen(tx: Writing, seen: testimony.CloneSeen) -> None:
    """Write down that a certificate spoke after another had taken its place."""
    tx.mark_clone_seen(seen.ref, now=seen.at)
    tx.append_leaf(
        leaf.clone(
            seen.ref,
            used=seen.used,
            device=seen.device,
            role=seen.role,
            evidence=seen.evidence,
            evidence_digest=seen.evidence_digest,
            at=seen.at,
        )
    )


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
    # One that is being signed will hold in a moment.
    holds = renewal.live(record, now=now) or (record.state is CertificateState.intended and not renewal.revoked(record))
    if profile is not None and profile.on_superseded is OnSuperseded.revoke and holds:
        said += revoke(tx, record, by_the_signer(record.tenant, reason=Reason.superseded, why="superseded", now=now), now=now)[1]
    return said


def moved(
    tx: Writing, device: Device, after: DeviceState, by: Grant | RevocationGrant, *, reason: str, now: UnixTime
) -> tuple[testimony.Record, ...]:
    """Take a device to its next state.

    Raises:
        Conflict: there is no such step (`device-move-illegal`).
    """
    way = channel(by.role, by.evidence)
    known, change = move(device, after, reason=reason, actor=by.actor, channel=way, request=by.evidence_digest.hex(), at=now)
    tx.change_device(change)
    tx.append_leaf(leaf.device_change(known, change))
    return (testimony.DeviceMoved(known, change),)


def anchored(
    tx: Writing, device: Device, known: DeviceFacts | None, anchor: Anchor, by: Grant, *, now: UnixTime
) -> tuple[testimony.Record, ...]:
    """A device is known by a key of its hardware from now on, and that key is no other device's, for ever (P9).

    Raises:
        Conflict: it is another's (`hardware-of-another-device`).
    """
    claim_anchor(tx, anchor, device)
    before = known or DeviceFacts()
    facts = device_life.anchored(before, anchor)
    told = device_life.difference(before, facts)
    way = channel(by.role, by.evidence)
    change = DeviceChange(device.id, device.state, device.state, now, told, by.actor, way, by.evidence_digest.hex())
    tx.set_device_facts(device.id, facts)
    tx.append_leaf(leaf.device_facts(device.id, facts, at=now))
    tx.change_device(change)
    tx.append_leaf(leaf.device_change(device, change))
    return (testimony.DeviceMoved(device, change, facts),)


def claim_anchor(tx: Writing, anchor: Anchor, device: Device) -> None:
    """Bind a key of hardware to a device.

    Raises:
        Conflict: it is another's (`hardware-of-another-device`).
    """
    try:
        tx.claim_key(anchor.spki_sha256, device.id, now=anchor.at)
    except Conflict:
        raise Conflict(
            "hardware-of-another-device",
            "This hardware is another device's.",
            why=f"Key sha256:{anchor.spki_sha256.hex()[:16]} ({anchor.kind.value}) stands on its record.",
            fix="Its record says whose it is; a board is one device, for ever.",
        ) from None


def withdraw(tx: Writing, tokens: Iterable[Token], *, actor: str, now: UnixTime) -> tuple[tuple[Token, ...], tuple[testimony.Record, ...]]:
    """Make outstanding tokens work no more; those that were, as they are now."""
    gone: list[Token] = []
    said: list[testimony.Record] = []
    for token in tokens:
        if tx.revoke_token(token.hash, now=now):
            gone.append(replace(token, revoked_at=now))
            tx.append_leaf(leaf.token_revoked(token, actor=actor, at=now))
            said.append(testimony.TokenRevoked(token.hash, actor, now))
    return tuple(gone), tuple(said)


def give_up(tx: Writing, record: Certificate, *, now: UnixTime) -> tuple[testimony.Record, ...]:
    """Void an intent whose result is not on record, and revoke it: whether a signature exists nobody can know."""
    tx.record_void(record.ref, now=now)
    tx.append_leaf(leaf.void(record.ref, at=now))
    by = by_the_signer(record.tenant, reason=Reason.unspecified, why="void", now=now)
    said = revoke(tx, replace(record, state=CertificateState.void), by, now=now)[1] if record.revocation is None else ()
    return (testimony.GivenUp(record.ref, now), *said)
