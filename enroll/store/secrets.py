"""The secrets that the workers of the protocols share, for the inventory of keys: that they are there, since when, until when. Never what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from ca.model import UnixTime
from ca.store.database import Database
from ca.store.reads import param
from enroll.store import tables as t

LIVE = sa.select(t.secrets.c.name, t.secrets.c.value, t.secrets.c.created, t.secrets.c.ends).where(t.secrets.c.ends >= param("now"))


@dataclass(frozen=True, slots=True)
class Secret:
    """One of them."""

    name: str
    value: bytes = field(repr=False)
    created: UnixTime
    ends: UnixTime


def secrets(database: Database, *, now: UnixTime) -> Sequence[Secret]:
    """Those in force, by name.

    Raises:
        StoreUnavailable: they cannot be read.
    """
    return sorted((Secret(row[0], bytes(row[1]), row[2], row[3]) for row in database.query(LIVE, {"now": now})), key=lambda one: one.name)
