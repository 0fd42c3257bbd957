"""The leaves of the Merkle log: one function for each kind of event (P8). Ring 1: pure.

Owns the form of every leaf: canonical JSON (sorted keys, no spaces, UTF-8), always with `kind` and `at` (Unix seconds). Digests, serials
and request keys are lower-case hex; serials have 40 digits. A leaf holds no secret: tokens stand in it by their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ca.model import (
    Anchor,
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
    Issuer,
    IssuerId,
    KeyChange,
    KeyRecord,
    LogLeaf,
    Name,
    Operator,
    Profile,
    Proposal,
    RecordSeal,
    RenewalOrder,
    Revocation,
    RevocationGrant,
    Role,
    Serial,
    Shift,
    Station,
    Token,
    UnixTime,
    Verdict,
    WipeReceipt,
)


def canonical(document: Mapping[str, Any]) -> bytes:
    """Sorted keys, no spaces, UTF-8: the one octet form of a JSON object. Whole numbers have at most 64 bits."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _leaf(kind: str, at: UnixTime, **fields: Any) -> LogLeaf:
    return LogLeaf(canonical({"kind": kind, "at": at, **fields}))


def _hex(serial: Serial) -> str:
    return f"{serial:040x}"


def _names(names: Sequence[Name]) -> list[dict[str, str]]:
    return [{"kind": str(name.kind), "value": name.value} for name in names]


def issuance(intent: Intent) -> LogLeaf:
    """A certificate may be signed: the whole grant, and the digest of what is signed."""
    draft, grant = intent.draft, intent.grant
    return _leaf(
        "issuance",
        intent.intended_at,
        issuer=draft.issuer,
        serial=_hex(draft.serial),
        tbs_sha256=hashlib.sha256(draft.tbs).hexdigest(),
        device=grant.device,
        profile=grant.profile,
        profile_sha256=grant.profile_digest.hex(),
        actor=grant.actor,
        role=grant.role.value,
        evidence=grant.evidence.value,
        evidence_sha256=grant.evidence_digest.hex(),
        parent=str(grant.parent) if grant.parent else None,
        tenant=grant.tenant,
        names=_names(draft.names),
        request_key=intent.request_key.hex(),
        **({} if grant.verdict is None else {"attestation": verdict_of(grant.verdict)}),
    )


def verdict_of(verdict: Verdict) -> dict[str, str]:
    """Why a key counted as attested."""
    return {"kind": verdict.kind.value, "rule": verdict.rule, "words": verdict.words, "anchor": verdict.anchor.hex()}


def void(ref: CertificateRef, *, at: UnixTime) -> LogLeaf:
    """An intent was given up."""
    return _leaf("void", at, issuer=ref.issuer, serial=_hex(ref.serial))


def revocation(made: Revocation, grant: RevocationGrant, *, at: UnixTime) -> LogLeaf:
    """A certificate's status changed."""
    known = {} if made.invalid_from is None else {"invalid_from": made.invalid_from}
    return _leaf(
        "revocation",
        at,
        issuer=made.ref.issuer,
        serial=_hex(made.ref.serial),
        reason=made.reason.name,
        change=made.change,
        revoked_at=made.revoked_at,
        actor=grant.actor,
        role=grant.role.value,
        evidence=grant.evidence.value,
        evidence_sha256=grant.evidence_digest.hex(),
        **known,
    )


def crl(intent: CrlIntent, *, at: UnixTime) -> LogLeaf:
    """A CRL may be signed."""
    base = {} if intent.base is None else {"base": intent.base}
    return _leaf(
        "crl",
        at,
        issuer=intent.issuer,
        shard=intent.shard,
        number=intent.number,
        as_of=intent.as_of,
        count=intent.count,
        tbs_sha256=intent.tbs_sha256.hex(),
        this_update=intent.this_update,
        next_update=intent.next_update,
        **base,
    )


def token(made: Token) -> LogLeaf:
    """A one-time token exists, by its hash."""
    return _leaf(
        "token",
        made.created,
        hash=made.hash.hex(),
        tenant=made.tenant,
        device=made.device,
        profile=made.profile,
        actor=made.created_by,
        names=_names(made.names),
        expires=made.expires,
    )


def renewals_ordered(order: RenewalOrder) -> LogLeaf:
    """An operator has certificates replaced before their time, or ends that."""
    ended = order.withdrawn_at is not None
    return _leaf(
        "renewals",
        order.since if order.withdrawn_at is None else order.withdrawn_at,
        number=order.number,
        tenant=order.tenant,
        event="withdrawn" if ended else "ordered",
        since=order.since,
        within=order.within,
        issuer=order.issuer,
        profile=order.profile,
        reason=order.reason,
        actor=order.withdrawn_by if ended else order.actor,
    )


def token_revoked(known: Token, *, actor: str, at: UnixTime) -> LogLeaf:
    """A token works no more, though nobody used it."""
    return _leaf("token-revoked", at, hash=known.hash.hex(), device=known.device, actor=actor)


def approval(decided: Approval, *, channel: str) -> LogLeaf:
    """An operator decided on a request."""
    assert decided.decided_at is not None, "only decisions are put on record"
    return _leaf(
        "approval",
        decided.decided_at,
        request=decided.request.hex(),
        device=decided.device,
        profile=decided.profile,
        names=_names(decided.names),
        spki_sha256=decided.spki_sha256.hex(),
        decision=decided.state.value,
        actor=decided.decided_by,
        channel=channel,
        reason=decided.reason,
    )


def proposal(known: Proposal, *, actor: str, person: str, channel: str, message: Digest | None, at: UnixTime) -> LogLeaf:
    """A grave act was asked for, approved, refused, withdrawn or done: the proposal as it is afterwards.

    Args:
        message: the digest of what was signed; None where nothing was.
    """
    return _leaf(
        "proposal",
        at,
        request=known.request.hex(),
        tenant=known.tenant,
        act=known.act.value,
        subject=known.subject,
        state=known.state.value,
        expires=known.expires,
        actor=actor,
        person=person,
        channel=channel,
        message_sha256=None if message is None else message.hex(),
        reason=known.words or known.reason,
    )


def delivery(ref: CertificateRef, *, successor: CertificateRef, grace_ends_at: UnixTime, at: UnixTime) -> LogLeaf:
    """The holder of a certificate said that it has its successor (P9)."""
    return _leaf("delivery", at, issuer=ref.issuer, serial=_hex(ref.serial), successor=str(successor), grace_ends_at=grace_ends_at)


def supersede(ref: CertificateRef, *, by: CertificateRef, at: UnixTime) -> LogLeaf:
    """A certificate's successor was used, or its grace was over (P9)."""
    return _leaf("supersede", at, issuer=ref.issuer, serial=_hex(ref.serial), by=str(by))


def clone(
    ref: CertificateRef,
    *,
    used: CertificateRef,
    device: DeviceId,
    role: Role,
    evidence: EvidenceKind,
    evidence_digest: Digest,
    at: UnixTime,
) -> LogLeaf:
    """A certificate's key spoke after another had taken its place by being used (P9): `used` is that other."""
    return _leaf(
        "clone",
        at,
        issuer=ref.issuer,
        serial=_hex(ref.serial),
        used=str(used),
        device=device,
        role=role.value,
        evidence=evidence.value,
        evidence_sha256=evidence_digest.hex(),
    )


def station(known: Station, *, actor: str, at: UnixTime) -> LogLeaf:
    """A station of a factory line is known by this key."""
    return _leaf("station", at, name=known.name, tenant=known.tenant, spki_sha256=hashlib.sha256(known.spki).hexdigest(), actor=actor)


def shift(opened: Shift, *, quota: bytes, actor: str) -> LogLeaf:
    """An operator logged in at a station; the quota may be signed."""
    return _leaf(
        "shift",
        opened.not_before,
        number=opened.number,
        tenant=opened.tenant,
        station=opened.station,
        operator=opened.operator,
        profile=opened.profile,
        issuer=opened.issuer,
        count=opened.count,
        not_after=opened.not_after,
        accept_until=opened.accept_until,
        request=opened.request.hex(),
        quota_sha256=hashlib.sha256(quota).hexdigest(),
        actor=actor,
    )


def units(taken: Shift, *, first: int, actor: str, at: UnixTime) -> LogLeaf:
    """Units of a shift, from `first` on, were taken from their station."""
    return _leaf("units", at, shift=taken.number, station=taken.station, first=first, taken=taken.taken, head=taken.head.hex(), actor=actor)


def record_seal(sealed: RecordSeal, *, actor: str) -> LogLeaf:
    """So many provisioning records of a station may be countersigned."""
    return _leaf("record-seal", sealed.at, station=sealed.station, count=sealed.count, last=sealed.last, issuer=sealed.issuer, actor=actor)


def wipe_order(device_id: DeviceId, *, order_sha256: str, issuer: IssuerId, actor: str, at: UnixTime) -> LogLeaf:
    """A retired device may be ordered to wipe its keys."""
    return _leaf("wipe-order", at, device=device_id, order_sha256=order_sha256, issuer=issuer, actor=actor)


def wipe(receipt: WipeReceipt) -> LogLeaf:
    """A retired device said that it wiped its keys."""
    digest = hashlib.sha256(receipt.octets).hexdigest()
    return _leaf("wipe", receipt.at, device=receipt.device, retired_at=receipt.retired_at, receipt_sha256=digest, actor=receipt.actor)


def wipe_waived(said: WipeReceipt) -> LogLeaf:
    """A retired device's record is closed, and no receipt will come."""
    return _leaf("wipe-waived", said.at, device=said.device, retired_at=said.retired_at, justification=said.justification, actor=said.actor)


def issuer(known: Issuer, *, at: UnixTime) -> LogLeaf:
    """This deployment knows an issuer."""
    return _leaf("issuer", at, id=known.id, tenant=known.tenant, certificate_sha256=hashlib.sha256(known.certificate).hexdigest())


def operator(made: Operator, *, actor: str, at: UnixTime) -> LogLeaf:
    """An operator exists, or changed."""
    return _leaf(
        "operator",
        at,
        name=made.name,
        tenant=made.tenant,
        roles=list(made.roles),
        person=made.who,
        actor=actor,
        disabled_at=made.disabled_at,
    )


def device(known: Device, *, actor: str, at: UnixTime) -> LogLeaf:
    """A device exists."""
    return _leaf("device", at, id=known.id, tenant=known.tenant, state=known.state.value, actor=actor)


def device_facts(device_id: DeviceId, facts: DeviceFacts, *, at: UnixTime) -> LogLeaf:
    """All that is said of a device now."""
    return _leaf("device-facts", at, id=device_id, **facts_of(facts))


def facts_of(facts: DeviceFacts) -> dict[str, Any]:
    return {
        "root_of_trust": None if facts.root_of_trust is None else facts.root_of_trust.value,
        "justification": facts.justification,
        "exception_ends": facts.exception_ends,
        "safety_class": None if facts.safety_class is None else facts.safety_class.value,
        "batch": facts.batch,
        "owner": facts.owner,
        "anchors": anchors_of(facts.anchors),
    }


def anchors_of(anchors: Sequence[Anchor]) -> list[dict[str, Any]]:
    return [{"kind": one.kind.value, "spki_sha256": one.spki_sha256.hex(), "source": one.source, "at": one.at} for one in anchors]


def manifest_refused(*, manifest: Digest, number: int, entry: Digest, code: str, actor: str, at: UnixTime) -> LogLeaf:
    """An entry of a maker's manifest of secure elements was refused."""
    return _leaf("manifest-refused", at, manifest_sha256=manifest.hex(), number=number, entry_sha256=entry.hex(), code=code, actor=actor)


def device_change(known: Device, change: DeviceChange) -> LogLeaf:
    """A device is in another state, or something else was said of it."""
    return _leaf(
        "device",
        change.at,
        id=known.id,
        tenant=known.tenant,
        state=known.state.value,
        before=None if change.before is None else change.before.value,
        reason=change.reason,
        actor=change.actor,
        channel=change.channel,
        request=change.request,
    )


def key_event(issuer_id: IssuerId, *, event: str, algorithm: str, spki_sha256: Digest, at: UnixTime) -> LogLeaf:
    """A CA key was opened, or ceased to be usable."""
    return _leaf("key", at, issuer=issuer_id, event=event, algorithm=algorithm, spki_sha256=spki_sha256.hex())


def key_state(record: KeyRecord, change: KeyChange) -> LogLeaf:
    """A key came into the inventory, or is in another state."""
    return _leaf(
        "key-state",
        change.at,
        spki_sha256=record.spki_sha256.hex(),
        tenant=record.tenant,
        name=record.name,
        purpose=record.purpose.value,
        algorithm=record.algorithm,
        store=record.store,
        protection=None if record.protection is None else record.protection.name,
        owner=record.owner,
        before=None if change.before is None else change.before.value,
        state=change.after.value,
        reason=change.reason,
        actor=change.actor,
        evidence_sha256=change.evidence,
    )


def clock(*, before: UnixTime, actor: str, at: UnixTime) -> LogLeaf:
    """A person said that the clock was wrong before and is right now."""
    return _leaf("clock", at, before=before, actor=actor)


def profile(accepted: Profile, *, request: str, at: UnixTime) -> LogLeaf:
    """A version of a profile is in force from here on: the first, or one that two persons approved."""
    return _leaf("profile", at, name=accepted.name, digest=accepted.digest.hex(), request=request or None)


def demand(subject: str, *, request: str, at: UnixTime) -> LogLeaf:
    """What two persons are demanded for, from here on: as much as before and more, or what two persons approved."""
    return _leaf("demand", at, name="two-persons", subject=subject, request=request or None)


def ceremony(name: str, *, transcript_sha256: Digest, outputs: Mapping[str, str], at: UnixTime) -> LogLeaf:
    """The outputs of a ceremony came into this deployment: file name -> SHA-256 hex."""
    return _leaf("ceremony", at, name=name, transcript_sha256=transcript_sha256.hex(), outputs=dict(outputs))


def crl_shards(issuer: IssuerId, *, count: int, at: UnixTime) -> LogLeaf:
    """From here on new certificates are spread over so many CRLs."""
    return _leaf("crl-shards", at, issuer=issuer, count=count)


def crl_override(issuer: IssuerId, *, shard: int, tbs_sha256: Digest, operators: Sequence[str], at: UnixTime) -> LogLeaf:
    """Operators answer for a CRL that the gate refused."""
    return _leaf("crl-override", at, issuer=issuer, shard=shard, tbs_sha256=tbs_sha256.hex(), operators=sorted(operators))
