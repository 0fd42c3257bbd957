"""Requests that wait for an operator, as they stand in the database. Statements only; what they mean is for `ca.rules.approval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ca.model import Approval, ApprovalState, DeviceId, Digest, EvidenceKind, TenantId, UnixTime
from ca.store import rows
from ca.store import tables as t
from ca.store.reads import Reads, insert, param, values_of
from ca.store.rows import Row
from ca.store.writes import Writes

_a = t.approvals.c
_WAITS = sa.text("state = 'pending'")

FIND_APPROVAL = sa.select(t.approvals).where(_a.request == param("request"))
APPROVALS_BETWEEN = sa.select(t.approvals).where(_a.request >= param("low"), _a.request <= param("high")).order_by(_a.request).limit(2)
WAITING_OF = (
    sa.select(_a.request)
    .where(_a.device == param("device"), _WAITS, _a.expires > param("now"))
    .order_by(_a.device, _a.expires)
    .limit(param("limit"))
)
WAITING = (
    sa.select(t.approvals)
    .where(_a.tenant == param("tenant"), _WAITS, sa.tuple_(_a.expires, _a.request) > sa.tuple_(param("expires"), param("request")))
    .order_by(_a.tenant, _a.expires, _a.request)
    .limit(param("limit"))
)
_new = insert(t.approvals).values(values_of(t.approvals))
ADD_APPROVAL = _new.on_conflict_do_update(
    index_elements=["request"],
    set_={column.name: _new.excluded[column.name] for column in t.approvals.c if column.name != "request"},
    where=_a.expires <= _new.excluded.asked_at,
)
DECIDE_APPROVAL = (
    sa.update(t.approvals)
    .where(_a.request == param("the_request"), _WAITS)
    .values({name: param(name) for name in ("state", "decided_at", "decided_by", "reason")})
)


def approval_of(row: Row) -> Approval:
    return Approval(
        request=row[0],
        tenant=row[1],
        device=row[2],
        profile=row[3],
        names=rows.names_of(row[4]),
        evidence=EvidenceKind(row[5]),
        actor=row[6],
        spki_sha256=row[7],
        asked_at=row[8],
        expires=row[9],
        state=ApprovalState(row[10]),
        decided_at=row[11],
        decided_by=row[12],
        reason=row[13],
    )


class ApprovalReads(Reads):
    def find_approval(self, request: Digest) -> Approval | None:
        """What an operator said, or is asked, of this request."""
        row = self._first(FIND_APPROVAL, {"request": request})
        return None if row is None else approval_of(row)

    def find_approval_by_beginning(self, beginning: str) -> Approval | None:
        """The one whose hash begins with these hexadecimal digits; None also where there are several."""
        low, high = (bytes.fromhex(beginning.ljust(64, digit)) for digit in "0f")
        found = self._all(APPROVALS_BETWEEN, {"low": low, "high": high})
        return approval_of(found[0]) if len(found) == 1 else None

    def waiting_approvals(
        self, *, tenant: TenantId, now: UnixTime, after: tuple[UnixTime, Digest] | None = None, limit: int = 100
    ) -> Sequence[Approval]:
        """Those of a tenant that nobody has decided, what ends next first, from behind `after`."""
        expires, request = after or (now, Digest(b"\xff" * 32))
        values = {"tenant": tenant, "expires": expires, "request": request, "limit": limit}
        return [approval_of(row) for row in self._all(WAITING, values)]

    def waiting_approvals_of(self, device: DeviceId, *, now: UnixTime, limit: int) -> int:
        """How many of a device wait; no more are counted than `limit`."""
        return len(self._all(WAITING_OF, {"device": device, "now": now, "limit": limit}))


class ApprovalWrites(Writes, ApprovalReads):
    def add_approval(self, approval: Approval) -> None:
        """A request that waits. The same again is harmless; it takes the place of one that is over."""
        self._change(ADD_APPROVAL, _parameters(approval))

    def decide_approval(self, approval: Approval) -> None:
        """What was decided; nothing where it was decided before."""
        values = _parameters(approval)
        self._change(
            DECIDE_APPROVAL,
            {"the_request": values["request"], **{name: values[name] for name in ("state", "decided_at", "decided_by", "reason")}},
        )


def _parameters(approval: Approval) -> dict[str, Any]:
    return {
        "request": approval.request,
        "tenant": approval.tenant,
        "device": approval.device,
        "profile": approval.profile,
        "names": rows.text_of_names(approval.names),
        "evidence": approval.evidence.value,
        "actor": approval.actor,
        "spki_sha256": approval.spki_sha256,
        "asked_at": approval.asked_at,
        "expires": approval.expires,
        "state": approval.state.value,
        "decided_at": approval.decided_at,
        "decided_by": approval.decided_by,
        "reason": approval.reason,
    }
