"""How a search finds its way: which index it walks, in which order, and where the next page begins. Knows the tables; asks nothing itself.

A search is one walk along one index. What is asked chooses the path (the most telling field first); everything else filters along the
way. So no search sorts, and none reads a whole table unless nothing but a broad filter was asked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from ca.errors import Malformed
from ca.model import DeviceId, DeviceState, Digest, Reason, Serial, Standing, TenantId, UnixTime
from ca.store import rows
from ca.store import tables as t
from ca.store.reads import param
from ca.store.rows import Row

Condition: TypeAlias = sa.ColumnElement[bool] | sa.TextClause
Ask: TypeAlias = Callable[[sa.Executable, dict[str, Any]], Sequence[Row]]

_c, _r, _n, _d = t.certificates.c, t.revocations.c, t.certificate_names.c, t.devices.c

MOST = 1000
"""Rows of one page."""

OWNER_OF_KEY = sa.select(t.keys.c.device).where(t.keys.c.spki_sha256 == param("spki_sha256"))

_RELEASED = int(Reason.removeFromCRL)
_REVOKED = sa.text(f"(revocations.change IS NOT NULL AND revocations.reason <> {_RELEASED})")
_NOT_REVOKED = sa.text(f"(revocations.change IS NULL OR revocations.reason = {_RELEASED})")

_STANDINGS: dict[Standing, tuple[Condition, ...]] = {
    Standing.intended: (sa.text("certificates.state = 'intended'"), _NOT_REVOKED),
    Standing.issued: (sa.text("certificates.state = 'issued'"), sa.text("certificates.superseded_at IS NULL"), _NOT_REVOKED),
    Standing.superseded: (sa.text("certificates.superseded_at IS NOT NULL"), _NOT_REVOKED),
    Standing.revoked: (_REVOKED,),
    Standing.void: (sa.text("certificates.state = 'void'"), _NOT_REVOKED),
}


@dataclass(frozen=True, slots=True)
class Path:
    """A walk along one index: `key` are the columns that order it, which the cursor of the next page repeats."""

    name: str
    columns: Sequence[sa.ColumnElement[Any]]
    source: sa.FromClause
    where: tuple[Condition, ...]
    key: tuple[sa.ColumnElement[Any], ...]
    types: tuple[type, ...]
    falling: bool = False


def _beginning(column: sa.ColumnElement[str], text: str) -> tuple[Condition, ...]:
    """Text that begins so: a range of the index, which holds octets in order. No text goes beyond U+10FFFF."""
    start = text[:-1]
    return (column >= start, column < start + "\U0010ffff") if start else ()


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is asked of certificates."""

    tenant: TenantId | None
    device: DeviceId | None
    subject: str | None
    san: str | None
    serial: Serial | None
    spki_sha256: Digest | None
    state: Standing | None
    expires_after: UnixTime | None
    expires_before: UnixTime | None

    def path(self) -> Path:
        by_name = self.san is not None and self.serial is None and self.device is None
        where = self._where(by_name=by_name)

        def path(
            name: str,
            *key: sa.ColumnElement[Any],
            types: tuple[type, ...] = (int,),
            source: sa.FromClause = rows.CERTIFICATES,
            falling: bool = True,
        ) -> Path:
            return Path(name, rows.CERTIFICATE_COLUMNS, source, where, key, types, falling)

        if self.serial is not None:
            return path("serial", _c.issuer, types=(str,), falling=False)
        if self.device is not None:
            return path("device", _c.id)
        if by_name:
            named = t.certificate_names.join(t.certificates, _c.id == _n.certificate)
            return path("san", _n.certificate, source=named.outerjoin(t.revocations, _r.change == _c.revocation))
        if self.subject is not None and not self.subject.endswith("*"):
            return path("subject", _c.id)
        if self.state in {Standing.intended, Standing.void, Standing.superseded}:
            return path(self.state.value, _c.id)
        if self.state is Standing.revoked:
            return path("revoked", _r.change, source=t.revocations.join(t.certificates, _c.revocation == _r.change))
        if self.subject is not None:
            return path("subjects", _c.subject, _c.id, types=(str, int), falling=False)
        if self.expires_after is not None or self.expires_before is not None:
            return path("expiry", _c.not_after, _c.id, types=(int, int), falling=False)
        return path("all", _c.id)

    def _where(self, *, by_name: bool) -> tuple[Condition, ...]:
        """Args: by_name: the walk is along the names, which stand in its source; else they are looked up for each row."""
        _refuse_unfit(self.tenant, self.device, self.subject, self.san, self.expires_after, self.expires_before)
        found: list[Condition] = []
        if self.serial is not None:
            found.append(_c.serial == rows.octets_of(self.serial))
        if self.device is not None:
            found.append(_c.device == self.device)
        if by_name:
            found.append(_n.value == self.san)
        elif self.san is not None:
            found.append(sa.exists().where(_n.value == self.san, _n.certificate == _c.id))
        if self.subject is not None:
            found.extend(_beginning(_c.subject, self.subject) if self.subject.endswith("*") else (_c.subject == self.subject,))
        if self.state is not None:
            found.extend(_STANDINGS[self.state])
        if self.spki_sha256 is not None:
            found.append(_c.spki_sha256 == self.spki_sha256)
        if self.expires_after is not None:
            found.append(_c.not_after >= self.expires_after)
        if self.expires_before is not None:
            found.append(_c.not_after < self.expires_before)
        if self.tenant is not None:
            found.append(_c.tenant == self.tenant)
        return tuple(found)


def devices(*, tenant: TenantId | None, device: str | None, state: DeviceState | None) -> Path:
    _refuse_unfit(tenant, device)
    found: list[Condition] = []
    if tenant is not None:
        found.append(_d.tenant == tenant)
    if device is not None:
        found.extend(_beginning(_d.id, device) if device.endswith("*") else (_d.id == device,))
    if state is not None:
        found.append(_d.state == state.value)
    return Path("devices", rows.DEVICE_COLUMNS, t.devices, tuple(found), (_d.id,), (str,))


def one_page(path: Path, ask: Ask, *, after: str | None, limit: int) -> tuple[Sequence[Row], str | None]:
    """A page of rows (the path's columns) and the cursor of the next, None when this was the last."""
    limit = max(1, min(limit, MOST))
    key = path.key
    statement = (
        sa.select(*path.columns, *key)
        .select_from(path.source)
        .where(*path.where)
        .order_by(*(column.desc() if path.falling else column for column in key))
        .limit(limit + 1)
    )
    if after is not None:
        start = _values(path, after)
        here: sa.ColumnElement[Any] = key[0] if len(key) == 1 else sa.tuple_(*key)
        there: Any = start[0] if len(key) == 1 else sa.tuple_(*(sa.literal(value) for value in start))
        statement = statement.where(here < there if path.falling else here > there)
    found = ask(statement, {})
    if len(found) <= limit:
        return found, None
    page = found[:limit]
    return page, _cursor(path, page[-1][-len(key) :])


def _cursor(path: Path, values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([path.name, *values]).encode()).decode().rstrip("=")


def _values(path: Path, cursor: str) -> list[Any]:
    try:
        name, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        # Exactly these types: True would pass for a number, and a list would reach the database.
        if name == path.name and [type(value) for value in values] == list(path.types) and all(_fits(value) for value in values):
            return list(values)
    except (ValueError, TypeError, RecursionError):
        pass
    raise Malformed("cursor-unreadable", "The cursor does not belong to this search.", fix="Start the search anew, without a cursor.")


def _refuse_unfit(*values: str | int | None) -> None:
    if not all(value is None or _fits(value) for value in values):
        raise Malformed("search-unreadable", "The search holds a text or number that nothing on record can be equal to.")


def _fits(value: str | int) -> bool:
    """What a database can take: 64 bits, or text without NUL and lone surrogates."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return "\0" not in value and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)
