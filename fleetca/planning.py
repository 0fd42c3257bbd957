"""What a web process knows of the fleet, for windows of renewal: maintenance, what operators ordered, and whether a crowd waits. Holds no rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from ca.errors import FleetcaError
from ca.model import RenewalOrder, UnixTime
from ca.ports import Clock
from ca.rules.renewal_crowd import crowd
from ca.rules.renewal_window import Plan, Window, replacements
from config.errors import ConfigurationError
from config.renewals import read_renewals

log = structlog.get_logger()

LOOK_EVERY = 2
"""Seconds after which the file is looked at again, and orders are asked for."""
COUNT_EVERY = 60
"""Seconds after which those are counted whose time has passed."""


class Load(Protocol):
    """What is known of the fleet's renewals: how many are overdue, and how many come a second on an ordinary day."""

    def load(self, now: UnixTime) -> tuple[int, float]: ...


class Planning:
    """Called for every window; asks disk and database now and then. `keep` runs beside it.

    Args:
        file: where maintenance is laid down.
        orders: what operators have ordered, as it stands on record.
    """

    def __init__(self, file: Path, load: Load, *, orders: Callable[[], Sequence[RenewalOrder]], clock: Clock) -> None:
        self._file, self._load, self._orders, self._clock = file, load, orders, clock
        self._plan = Plan()
        self._trouble = ""
        self._mark: tuple[int, int] | None = None
        self._looked = self._counted = -COUNT_EVERY
        self._lock = threading.Lock()

    def __call__(self) -> Plan:
        now = self._clock.now()
        if abs(now - self._looked) >= LOOK_EVERY and self._lock.acquire(blocking=False):
            try:
                self._looked = now
                self._read()
                if abs(now - self._counted) >= COUNT_EVERY:
                    self._counted = now
                    self._count(now)
            finally:
                self._lock.release()
        return self._plan

    def _read(self) -> None:
        try:
            found = self._file.stat()
            mark = (found.st_mtime_ns, found.st_size)
        except OSError:
            mark = (0, 0)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            said = read_renewals(self._file)
        except ConfigurationError as error:
            log.error("renewals-file-wrong", reason=str(error))  # what was laid down before goes on
            return
        self._plan = Plan(
            tuple(Window(int(one.start.timestamp()), int(one.end.timestamp())) for one in said.maintenance),
            self._plan.replacements,
            self._plan.crowd,
        )
        log.info("maintenance-planned", count=len(said.maintenance))

    def keep(self, stopping: threading.Event) -> None:
        """Hear of orders until told to stop: in a thread of its own, since nobody who asks for a window shall wait for the database."""
        self.hear()
        while not stopping.wait(LOOK_EVERY):
            self.hear()

    def hear(self) -> None:
        """Ask for the orders in force. Where that cannot be done, those known go on."""
        try:
            found = replacements(self._orders())
        except FleetcaError as error:
            if error.code != self._trouble:  # said once, not every two seconds; what was ordered before goes on
                log.warning("orders-not-heard", code=error.code)
            self._trouble = error.code
            return
        self._trouble = ""
        if found != self._plan.replacements:
            with self._lock:
                self._plan = Plan(self._plan.maintenance, found, self._plan.crowd)
            log.info("orders-heard", count=len(found))

    def _count(self, now: UnixTime) -> None:
        try:
            overdue, rate = self._load.load(now)
        except FleetcaError as error:
            log.warning("fleet-not-counted", code=error.code)
            return
        last = self._plan.crowd
        found = crowd(last, overdue=overdue, rate=rate, now=now)
        if found != last:
            log.info("crowd", count=0 if found is None else found.count)
        self._plan = Plan(self._plan.maintenance, self._plan.replacements, found)
