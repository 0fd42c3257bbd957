"""What devices said of their renewals, in the database: `enroll.ports.Reports`. Knows its table and nothing of what a report means.

A fleet says a lot and little of it is urgent: words are gathered in memory, the last of each device, and written together each second by `write`. What a
crash loses, the device's next word brings.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from ca.model import DeviceId, TenantId, UnixTime
from enroll.model import Report
from enroll.store import tables as t
from enroll.store.transactions import Cursor, Transactions

param = sa.bindparam
MOST: Final = 50_000
"""Devices whose words wait at most; beyond it new ones are dropped until the database takes some."""
RENEWED_AT: Final = 0.75
"""Of the lifetime: when the middle of a fleet renews."""
_c = t.reports.c
_WORDS: Final = ("tenant", "outcome", "code", "due", "agent", "heard_at", "not_before", "not_after")
_CHANGE: Final = sa.update(t.reports).where(_c.device == param("the_device")).values({name: param(f"new_{name}") for name in _WORDS})
_ADD: Final = sa.insert(t.reports)
_PAGE: Final = (
    sa.select(_c.device, *(_c[name] for name in _WORDS))
    .where(_c.tenant == param("tenant"), _c.device > param("after"))
    .order_by(_c.device)
    .limit(param("limit"))
)
_DARK: Final = _PAGE.where(_c.not_after < param("dark_before"))
_LATE: Final = _PAGE.where(_c.due < param("late_before"), _c.not_after >= param("late_before"))
_OVERDUE: Final = sa.select(sa.func.count()).where(_c.due < param("now"), _c.not_after >= param("now"))
# By lifetime: a fleet has few different ones.
_FLEET: Final = (
    sa.select(_c.not_after - _c.not_before, sa.func.count()).where(_c.not_after >= param("now")).group_by(_c.not_after - _c.not_before)
)
_FAILED: Final = _PAGE.where(_c.outcome == "failed")


class ReportStore:
    """Safe to call from several threads."""

    def __init__(self, transactions: Transactions) -> None:
        self._do = transactions
        self._waiting: dict[DeviceId, Report] = {}
        self._lock = threading.Lock()

    def keep(self, report: Report, /) -> None:
        with self._lock:
            if len(self._waiting) < MOST or report.device in self._waiting:
                self._waiting[report.device] = report

    def write(self) -> int:
        """Write what was gathered; how many words.

        Raises:
            StoreUnavailable: nothing was written; all of it waits for the next time.
        """
        with self._lock:
            taken, self._waiting = self._waiting, {}
        if not taken:
            return 0

        def work(cursor: Cursor) -> None:
            for report in sorted(
                taken.values(), key=lambda one: one.device
            ):  # in one order, so that two workers do not wait for each other
                words = {name: getattr(report, name) for name in _WORDS}
                changed = cursor.change(_CHANGE, {"the_device": report.device, **{f"new_{name}": value for name, value in words.items()}})
                if not changed:
                    cursor.change(_ADD, {"device": report.device, **words})

        try:
            self._do.write(work)
        except BaseException:
            with self._lock:
                self._waiting = {**taken, **self._waiting}
            raise
        return len(taken)

    def load(self, now: UnixTime) -> tuple[int, float]:
        """How many devices say that their time has passed, and how many renewals a second the fleet makes on an ordinary day."""
        overdue = int(self._do.read(_OVERDUE, {"now": now})[0][0])
        lifetimes = self._do.read(_FLEET, {"now": now})
        return overdue, sum(count / max(1.0, (lifetime + 1) * RENEWED_AT) for lifetime, count in lifetimes)

    def page(
        self, *, tenant: TenantId, dark_before: UnixTime | None, late_before: UnixTime | None, failed: bool, after: str, limit: int
    ) -> Sequence[Report]:
        given: dict[str, Any] = {"tenant": tenant, "after": after, "limit": limit}
        if dark_before is not None:
            rows = self._do.read(_DARK, {**given, "dark_before": dark_before})
        elif late_before is not None:
            rows = self._do.read(_LATE, {**given, "late_before": late_before})
        else:
            rows = self._do.read(_FAILED if failed else _PAGE, given)
        return [Report(device=row[0], **dict(zip(_WORDS, row[1:], strict=True))) for row in rows]
