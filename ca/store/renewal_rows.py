"""What operators ordered about renewals, as it stands in the database. Statements only; what it means is for `ca.rules.renewal_window`."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ca.model import IssuerId, ProfileName, RenewalOrder, UnixTime
from ca.store import tables as t
from ca.store.reads import Reads, insert, param, values_of
from ca.store.rows import Row
from ca.store.writes import Writes

_o = t.renewal_orders.c

ORDERS = sa.select(t.renewal_orders).order_by(_o.number.desc()).limit(param("limit"))
LAST = sa.select(sa.func.coalesce(sa.func.max(_o.number), 0))
FIND = sa.select(t.renewal_orders).where(_o.number == param("number"))
ADD = insert(t.renewal_orders).values(values_of(t.renewal_orders)).on_conflict_do_nothing()
WITHDRAW = (
    sa.update(t.renewal_orders)
    .where(_o.number == param("the_number"), _o.withdrawn_at.is_(None))
    .values(withdrawn_at=param("now"), withdrawn_by=param("actor"))
)


def order_of(row: Row) -> RenewalOrder:
    return RenewalOrder(
        number=row[0],
        tenant=row[1],
        since=row[2],
        within=row[3],
        issuer=None if row[4] is None else IssuerId(row[4]),
        profile=None if row[5] is None else ProfileName(row[5]),
        reason=row[6],
        actor=row[7],
        withdrawn_at=row[8],
        withdrawn_by=row[9],
    )


class RenewalOrderReads(Reads):
    def renewal_orders(self, *, limit: int = 100) -> Sequence[RenewalOrder]:
        """The newest first, withdrawn ones too."""
        return [order_of(row) for row in self._all(ORDERS, {"limit": limit})]

    def find_renewal_order(self, number: int) -> RenewalOrder | None:
        row = self._first(FIND, {"number": number})
        return None if row is None else order_of(row)

    def last_renewal_order(self) -> int:
        """Its number; 0 before there is one."""
        (row,) = self._all(LAST, {})
        return int(row[0])


class RenewalOrderWrites(Writes, RenewalOrderReads):
    def add_renewal_order(self, order: RenewalOrder) -> bool:
        """False where one of that number is on record."""
        values = {
            "number": order.number,
            "tenant": order.tenant,
            "since": order.since,
            "within": order.within,
            "issuer": order.issuer,
            "profile": order.profile,
            "reason": order.reason,
            "actor": order.actor,
            "withdrawn_at": order.withdrawn_at,
            "withdrawn_by": order.withdrawn_by,
        }
        return bool(self._change(ADD, values))

    def withdraw_renewal_order(self, number: int, *, actor: str, now: UnixTime) -> bool:
        """False where it was withdrawn before, or never was."""
        return bool(self._change(WITHDRAW, {"the_number": number, "actor": actor, "now": now}))
