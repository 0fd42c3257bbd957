"""How a search finds its way: which index it walks, in which order, and where the next page begins. Knows the tables; asks nothing itself.

A search is one walk along one index. What is asked chooses the path (the most telling field first); everything else filters along the
way. So no search sorts, and none reads a whole table unless nothing but a broad filter was asked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from ca.errors import Malformed
from ca.model import CertificateQuery, DeviceState, Standing, TenantId, UnixTime
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

_STANDINGS: dict[Standing, Condition] = {
    Standing.intended: sa.text("certificates.state = 'intended' AND NOT certificates.revoked"),
    Standing.issued: sa.text("certificates.state = 'issued' AND certificates.superseded_at IS NULL AND NOT certificates.revoked"),
    # The first line is the partial index's own, word for word: so both databases see that it holds all that is asked for.
    Standing.superseded: sa.text(
        "(certificates.superseded_at IS NOT NULL OR certificates.grace_ends_at IS NOT NULL)"
        " AND certificates.state = 'issued' AND NOT certificates.revoked"
    ),
    Standing.revoked: sa.text("certificates.revoked"),
    Standing.void: sa.text("certificates.state = 'void' AND NOT certificates.revoked"),
}


def _stands(state: Standing, now: UnixTime) -> Iterator[Condition]:
    """What is true of a certificate at `now`: a grace that is over counts, whether or not the signer has written it down."""
    yield _STANDINGS[state]
    if state is Standing.issued:
        yield sa.or_(_c.grace_ends_at.is_(None), _c.grace_ends_at > now)
    if state is Standing.superseded:
        yield sa.or_(_c.superseded_at.is_not(None), _c.grace_ends_at <= now)


class _Aside(sa.ColumnElement[Any]):
    """A column that only filters: SQLite, which knows no numbers of rows, must not leave the chosen walk for this column's index.

    PostgreSQL knows them, and may.
    """

    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        self.column = column
        self.type = column.type


@compiles(_Aside)
def _plain(element: _Aside, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.column, **options))


@compiles(_Aside, "sqlite")
def _unary_plus(element: _Aside, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.column, **options)}"


@dataclass(frozen=True, slots=True)
class Walk:
    """Along which index, in which order."""

    key: tuple[sa.ColumnElement[Any], ...]
    """The columns that order it, which the cursor of the next page repeats."""
    types: tuple[type, ...]
    falling: bool = True
    by: sa.ColumnElement[Any] | None = None
    """The column that the index begins with, where that is asked for; every other column only filters."""
    source: sa.FromClause = rows.CERTIFICATES


_NAMED = t.certificate_names.join(t.certificates, _c.id == _n.certificate).outerjoin(t.revocations, _r.change == _c.revocation)

_NEWEST = Walk((_c.id,), (int,))
_WALKS = {
    "serial": Walk((_c.issuer,), (str,), falling=False, by=_c.serial),
    "device": Walk((_c.id,), (int,), by=_c.device),
    "san": Walk((_n.certificate,), (int,), source=_NAMED),
    "subject": Walk((_c.id,), (int,), by=_c.subject),
    # Partial indexes, which hold these certificates only. There is none for issued: nearly all are.
    "intended": _NEWEST,
    "void": _NEWEST,
    "superseded": _NEWEST,
    "revoked": _NEWEST,
    "subjects": Walk((_c.subject, _c.id), (str, int), falling=False, by=_c.subject),
    "expiry": Walk((_c.not_after, _c.id), (int, int), falling=False, by=_c.not_after),
    "tenant": Walk((_c.id,), (int,), by=_c.tenant),
    "all": _NEWEST,
}
_DEVICES = Walk((_d.id,), (str,), falling=False)


@dataclass(frozen=True, slots=True)
class Path:
    """A walk, and what is asked on the way."""

    name: str
    walk: Walk
    columns: Sequence[sa.ColumnElement[Any]]
    source: sa.FromClause
    where: tuple[Condition, ...]


def _beginning(column: sa.ColumnElement[str], text: str) -> tuple[Condition, ...]:
    """Text that begins so: a range of the index, which holds octets in order. No text goes beyond U+10FFFF."""
    start = text[:-1]
    return (column >= start, column < start + "\U0010ffff") if start else ()


@dataclass(frozen=True, slots=True)
class Certificates:
    """A search for certificates: of whom, and at which time its `state` is judged."""

    query: CertificateQuery
    tenant: TenantId | None
    now: UnixTime

    def path(self) -> Path:
        query = self.query
        _refuse_unfit(self.tenant, query.device, query.subject, query.san, query.expires_after, query.expires_before, self.now)
        name = self._name()
        walk = _WALKS[name]
        return Path(name, walk, rows.CERTIFICATE_COLUMNS, walk.source, tuple(self._where(walk)))

    def _name(self) -> str:
        """The most telling of what is asked."""
        query = self.query
        if query.serial is not None:
            return "serial"
        if query.device is not None:
            return "device"
        if query.san is not None:
            return "san"
        if query.subject is not None and not query.subject.endswith("*"):
            return "subject"
        if query.state is not None and query.state is not Standing.issued:
            return str(query.state.value)
        if query.subject is not None:
            return "subjects"
        if query.expires_after is not None or query.expires_before is not None:
            return "expiry"
        return "all" if self.tenant is None else "tenant"

    def _where(self, walk: Walk) -> Iterator[Condition]:
        query = self.query

        def column(found: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
            return found if found is walk.by else _Aside(found)

        if query.serial is not None:
            yield column(_c.serial) == rows.octets_of(query.serial)
        if query.device is not None:
            yield column(_c.device) == query.device
        if query.san is not None:
            named = _n.value == query.san
            yield named if walk.source is _NAMED else sa.exists().where(named, _n.certificate == _c.id)
        if query.subject is not None and query.subject.endswith("*"):
            yield from _beginning(column(_c.subject), query.subject)
        elif query.subject is not None:
            yield column(_c.subject) == query.subject
        if query.state is not None:
            yield from _stands(query.state, self.now)
        if query.spki_sha256 is not None:
            yield _c.spki_sha256 == query.spki_sha256
        if query.expires_after is not None:
            yield column(_c.not_after) >= query.expires_after
        if query.expires_before is not None:
            yield column(_c.not_after) < query.expires_before
        if self.tenant is not None:
            yield column(_c.tenant) == self.tenant


def devices(*, tenant: TenantId | None, device: str | None, state: DeviceState | None) -> Path:
    _refuse_unfit(tenant, device)
    found: list[Condition] = []
    if tenant is not None:
        found.append(_d.tenant == tenant)
    if device is not None:
        found.extend(_beginning(_d.id, device) if device.endswith("*") else (_d.id == device,))
    if state is not None:
        found.append(_d.state == state.value)
    return Path("devices", _DEVICES, rows.DEVICE_COLUMNS, t.devices, tuple(found))


def one_page(path: Path, ask: Ask, *, after: str | None, limit: int) -> tuple[Sequence[Row], str | None]:
    """A page of rows (the path's columns) and the cursor of the next, None when this was the last."""
    limit = max(1, min(limit, MOST))
    key, falling = path.walk.key, path.walk.falling
    statement = (
        sa.select(*path.columns, *key)
        .select_from(path.source)
        .where(*path.where)
        .order_by(*(column.desc() if falling else column for column in key))
        .limit(limit + 1)
    )
    if after is not None:
        start = _values(path, after)
        here: sa.ColumnElement[Any] = key[0] if len(key) == 1 else sa.tuple_(*key)
        there: Any = start[0] if len(key) == 1 else sa.tuple_(*(sa.literal(value) for value in start))
        statement = statement.where(here < there if falling else here > there)
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
        if name == path.name and [type(value) for value in values] == list(path.walk.types) and all(_fits(value) for value in values):
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
