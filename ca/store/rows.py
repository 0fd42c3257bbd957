"""Rows to words and back. Rows never leave `ca/store`: what goes out is `ca.model`. Knows no SQL statement and no connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import orjson
import sqlalchemy as sa

from ca.errors import Broken
from ca.model import (
    Certificate,
    CertificateRef,
    CertificateState,
    Checkpoint,
    CrlIntent,
    Device,
    DeviceState,
    Digest,
    Grant,
    Issuer,
    IssuerId,
    Name,
    NameKind,
    Operator,
    Outline,
    QueuedLeaf,
    Reason,
    Revocation,
    RollEntry,
    Serial,
    Token,
)
from ca.rules import leaf
from ca.store import tables as t

Row: TypeAlias = Sequence[Any]

SERIAL_OCTETS = 20

_STATES = {state.value: state for state in CertificateState}
_REASONS = {int(reason): reason for reason in Reason}
_NAME_KINDS = {kind.value: kind for kind in NameKind}


def _to_json(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def octets_of(serial: int) -> bytes:
    """A serial number as the tables keep it. One that no CA may give (RFC 5280 4.1.2.2) becomes octets that no row has."""
    try:
        return serial.to_bytes(SERIAL_OCTETS, "big")
    except OverflowError:
        return b""


def serial_of(octets: bytes) -> Serial:
    return Serial(int.from_bytes(octets, "big"))


def ref_of(issuer: str, serial: bytes) -> CertificateRef:
    return CertificateRef(IssuerId(issuer), serial_of(serial))


def text_of_names(names: Sequence[Name]) -> str:
    return _to_json([[name.kind.value, name.value] for name in names]) if names else "[]"


def names_of(text: str) -> tuple[Name, ...]:
    return tuple(Name(_NAME_KINDS[kind], value) for kind, value in orjson.loads(text)) if text != "[]" else ()


def text_of_grant(grant: Grant) -> str:
    """The grant for the record: canonical JSON, octets in hex."""
    parent, token, verdict = grant.parent, grant.token, grant.verdict
    return _to_json(
        {
            "tenant": grant.tenant,
            "device": grant.device,
            "profile": grant.profile,
            "profile_sha256": grant.profile_digest.hex(),
            "issuer": grant.issuer,
            "names": [[name.kind.value, name.value] for name in grant.names],
            "actor": grant.actor,
            "role": grant.role.value,
            "evidence": grant.evidence.value,
            "evidence_sha256": grant.evidence_digest.hex(),
            "parent": None if parent is None else str(parent),
            "token": None if token is None else token.hex(),
            "granted_at": grant.granted_at,
            "verdict": None if verdict is None else leaf.verdict_of(verdict),
        }
    )


_c, _r = t.certificates.c, t.revocations.c

CERTIFICATE_COLUMNS: tuple[sa.ColumnElement[Any], ...] = (
    _c.issuer,
    _c.serial,
    _c.state,
    _c.tenant,
    _c.device,
    _c.profile,
    _c.subject,
    _c.names,
    _c.spki_sha256,
    _c.not_before,
    _c.not_after,
    _c.tbs,
    _c.der,
    _c.parent_issuer,
    _c.parent_serial,
    _c.request_key,
    _c.intended_at,
    _c.issued_at,
    _c.superseded_at,
    _c.first_used_at,
    _c.delivered_at,
    _c.grace_ends_at,
    _c.revocable,
    _c.leaf,
    _c.id,
    _r.change,
    _r.reason,
    _r.revoked_at,
    _r.listed,
    _c.clone_seen_at,
    _r.shard,
    _r.invalid_from,
)
CERTIFICATE_ROW = 24
"""Where the row number stands in a certificate's row."""

CERTIFICATES = t.certificates.outerjoin(t.revocations, _r.change == _c.revocation)
"""Each certificate with the latest change of its status: one look at a primary key."""


OUTLINE_COLUMNS: tuple[sa.ColumnElement[Any], ...] = (_c.issuer, _c.serial, _c.device, _c.profile, _c.not_after, _c.revocable)


def outline_of(row: Row) -> Outline:
    return Outline(ref_of(row[0], row[1]), row[2], row[3], row[4], bool(row[5]))


def certificate_of(row: Row) -> Certificate:
    ref = CertificateRef(row[0], serial_of(row[1]))
    change = row[25]
    return Certificate(
        ref=ref,
        state=_STATES[row[2]],
        tenant=row[3],
        device=row[4],
        profile=row[5],
        subject=row[6],
        names=names_of(row[7]),
        spki_sha256=row[8],
        not_before=row[9],
        not_after=row[10],
        tbs=row[11],
        der=row[12],
        parent=None if row[13] is None else ref_of(row[13], row[14]),
        request_key=row[15],
        intended_at=row[16],
        issued_at=row[17],
        superseded_at=row[18],
        first_used_at=row[19],
        delivered_at=row[20],
        grace_ends_at=row[21],
        revocable=bool(row[22]),
        leaf=row[23],
        revocation=None
        if change is None
        else Revocation(
            change, ref, _REASONS[row[26]], row[27], not_after=row[10], listed=bool(row[28]), shard=row[30], invalid_from=row[31]
        ),
        clone_seen_at=row[29],
    )


REVOCATION_COLUMNS = (_r.change, _r.issuer, _r.serial, _r.reason, _r.revoked_at, _r.not_after, _r.listed, _r.shard, _r.invalid_from)


def revocation_of(row: Row) -> Revocation:
    return Revocation(
        row[0],
        ref_of(row[1], row[2]),
        _REASONS[row[3]],
        row[4],
        not_after=row[5],
        listed=bool(row[6]),
        shard=row[7],
        invalid_from=row[8],
    )


STATUS_COLUMNS = (_c.state, _c.not_after, _r.change, _r.reason, _r.revoked_at, _r.listed, _c.shard, _r.invalid_from)


def status_of(ref: CertificateRef, row: Row) -> tuple[CertificateState, Revocation | None]:
    state = _STATES[row[0]]
    if row[2] is None:
        return state, None
    return state, Revocation(
        row[2], ref, _REASONS[row[3]], row[4], not_after=row[1], listed=bool(row[5]), shard=row[6], invalid_from=row[7]
    )


def roll_entry_of(row: Row) -> RollEntry:
    """Row, issuer, serial, revocable, and then `STATUS_COLUMNS`."""
    number, issuer, serial, _, state, not_after, change, *_ = row
    ref = CertificateRef(issuer, serial_of(serial))
    return RollEntry(number, ref, _STATES[state], None if change is None else status_of(ref, row[4:])[1], not_after)


TOKEN_COLUMNS = tuple(t.tokens.c)


def token_of(row: Row) -> Token:
    return Token(
        hash=row[0],
        tenant=row[1],
        device=row[2],
        profile=row[3],
        names=names_of(row[4]),
        created=row[5],
        expires=row[6],
        created_by=row[7],
        used_at=row[8],
        used_by=row[9],
        revoked_at=row[10],
    )


DEVICE_COLUMNS = tuple(t.devices.c)


def device_of(row: Row) -> Device:
    return Device(row[0], row[1], DeviceState(row[2]), row[3])


ISSUER_COLUMNS = tuple(t.issuers.c)


def issuer_of(row: Row) -> Issuer:
    return Issuer(
        id=row[0],
        tenant=row[1],
        certificate=row[2],
        subject=row[3],
        spki=row[4],
        key_identifier=row[5],
        algorithm=row[6],
        not_before=row[7],
        not_after=row[8],
        key=row[9],
        may_issue=bool(row[10]),
        may_sign_crl=bool(row[11]),
        crl_url=row[12],
        ocsp_url=row[13],
        issuer_url=row[14],
        parent=row[15],
        successor=row[16],
        issues_until=row[17],
        last_ends=row[18],
        retired_at=row[19],
    )


OPERATOR_COLUMNS = tuple(t.operators.c)


def operator_of(row: Row) -> Operator:
    return Operator(row[0], row[1], tuple(orjson.loads(row[2])), row[3], row[4], row[5])


CRL_COLUMNS = tuple(column for column in t.crls.c if column.name != "published_at")


def crl_of(row: Row) -> CrlIntent:
    return CrlIntent(
        issuer=row[0],
        shard=row[1],
        number=row[2],
        as_of=row[3],
        count=row[4],
        this_update=row[5],
        next_update=row[6],
        tbs_sha256=row[7],
        fence=row[8],
        base=row[9],
    )


LISTED_COLUMNS = (_r.change, _r.shard, _r.serial, _r.reason, _r.revoked_at, _r.not_after, _r.invalid_from, _r.replaces)
"""As `ca.model.ListedChange` has them."""


LEAF_COLUMNS = (t.leaves.c.id, t.leaves.c.body, t.leaves.c.position)


def leaf_of(row: Row) -> QueuedLeaf:
    return QueuedLeaf(row[0], row[1], row[2])


CHECKPOINT_COLUMNS = (t.checkpoints.c.origin, t.checkpoints.c.size, t.checkpoints.c.root, t.checkpoints.c.note)


def checkpoint_of(row: Row) -> Checkpoint:
    return Checkpoint(row[0], row[1], Digest(row[2]), row[3])


def only(rows: Sequence[Row]) -> Row:
    """The one row that a statement must give."""
    if len(rows) != 1:
        raise Broken("store-rows", f"A statement that gives one row gave {len(rows)}.")
    return rows[0]
