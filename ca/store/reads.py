"""Questions that readers and writers ask alike. Each is one indexed statement, or pages of one; none leaves a cursor open.

Knows the tables; not how statements reach a database: a subclass says so in `_all` (`Reading` outside, `SqlWriting` inside of a write
transaction).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from ca.model import (
    Certificate,
    CertificateRef,
    ChangeNumber,
    Checkpoint,
    CrlEntry,
    CrlIntent,
    CrlNumber,
    Digest,
    Issuer,
    IssuerId,
    ListedChange,
    Operator,
    OperatorName,
    QueuedLeaf,
    Reason,
    Token,
    UnixTime,
)
from ca.store import rows
from ca.store import tables as t
from ca.store.rows import Row

Statement: TypeAlias = sa.Executable
Parameters: TypeAlias = Mapping[str, Any]

insert = postgresql.insert
"""INSERT with ON CONFLICT: PostgreSQL's construct, which the SQLite compiler renders as well."""

PAGE = 1000
CRL_PAGE = 10_000

_c, _r = t.certificates.c, t.revocations.c


def param(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name)


def values_of(table: sa.Table, *names: str) -> dict[str, Any]:
    """Each column of the table (or those named) bound to a parameter of its own name."""
    return {name: param(name) for name in names or table.c.keys()}


FIND_CERTIFICATE = (
    sa.select(*rows.CERTIFICATE_COLUMNS).select_from(rows.CERTIFICATES).where(_c.serial == param("serial"), _c.issuer == param("issuer"))
)
CERTIFICATES_OF_DEVICE = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_c.device == param("device"), sa.text("certificates.state <> 'void'"))
    .order_by(_c.id.desc())
)
LATEST_OF_DEVICE = CERTIFICATES_OF_DEVICE.limit(param("limit"))
# Along the device's own index, from the parent's row on: who renews it came later, and nobody has many of those. It needs no index of its own.
_parent = t.certificates.alias("parent")
RENEWALS_OF = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(
        _c.device == param("device"),
        _c.id > sa.select(_parent.c.id).where(_parent.c.serial == param("serial"), _parent.c.issuer == param("issuer")).scalar_subquery(),
        _c.parent_serial == param("serial"),
        _c.parent_issuer == param("issuer"),
        sa.text("certificates.state <> 'void'"),
    )
    .order_by(_c.id)
)
TOKENS_BETWEEN = sa.select(*rows.TOKEN_COLUMNS).where(t.tokens.c.hash >= param("low"), t.tokens.c.hash <= param("high")).limit(2)
OUTSTANDING_TOKENS = (
    sa.select(*rows.TOKEN_COLUMNS)
    .where(
        sa.text("used_at IS NULL AND revoked_at IS NULL"),
        t.tokens.c.device == param("device"),
        t.tokens.c.hash > param("after"),
        t.tokens.c.expires > param("now"),
    )
    .order_by(t.tokens.c.hash)
    .limit(sa.literal_column(str(PAGE)))
)
FIND_BY_DER = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_c.der_sha256 == param("der_sha256"), sa.text("der_sha256 IS NOT NULL"))
)
FIND_TOKEN = sa.select(*rows.TOKEN_COLUMNS).where(t.tokens.c.hash == param("hash"))
COUNTER = sa.select(t.counters.c.value).where(t.counters.c.name == param("name"))
# The complete CRL: every shard's. The number of the row is all that this needs, so the table is walked as it grew.
LISTED_CHANGES = (
    sa.select(*rows.LISTED_COLUMNS)
    .where(
        _r.change > param("after"),
        _r.change <= param("as_of"),
        # Behind a function, so that no index on the issuer tempts anyone to sort.
        sa.func.coalesce(_r.issuer, sa.literal_column("''")) == param("issuer"),
        _r.listed.is_(sa.true()),
    )
    .order_by(_r.change)
    .limit(param("limit"))
)
LISTED_CHANGES_OF_SHARD = (
    sa.select(*rows.LISTED_COLUMNS)
    .where(
        _r.issuer == param("issuer"),
        _r.shard == param("shard"),
        _r.change > param("after"),
        _r.change <= param("as_of"),
        _r.listed.is_(sa.true()),
    )
    .order_by(_r.change)
    .limit(param("limit"))
)


class _Hexadecimal(FunctionElement[str]):
    """Octets as text, which both databases can join."""

    inherit_cache = True


@compiles(_Hexadecimal, "sqlite")
def _hex(element: _Hexadecimal, compiler: SQLCompiler, **more: Any) -> str:
    return f"hex({compiler.process(element.clauses, **more)})"


@compiles(_Hexadecimal, "postgresql")
def _encode(element: _Hexadecimal, compiler: SQLCompiler, **more: Any) -> str:
    return f"encode({compiler.process(element.clauses, **more)}, 'hex')"


class _Words(FunctionElement[str]):
    """The texts of all rows, a space between two of them."""

    inherit_cache = True


@compiles(_Words, "sqlite")
def _group_concat(element: _Words, compiler: SQLCompiler, **more: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **more)}, ' ')"


@compiles(_Words, "postgresql")
def _string_agg(element: _Words, compiler: SQLCompiler, **more: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **more)}, ' ')"


def _joined(changes: sa.Select[*tuple[Any, ...]]) -> Statement:
    """What entries show, joined in the database: one row for thousands, where making a row of each would cost the most.

    Both databases join in the order of the subquery, which its limit keeps; were it another, the gate would refuse every CRL.
    """
    listed = (
        changes.with_only_columns(_r.change, _r.serial, _r.reason, _r.revoked_at, _r.invalid_from)
        .where(_r.reason != sa.literal_column(str(int(Reason.removeFromCRL))), _r.not_after >= param("expired_before"))
        .subquery()
    )
    c, colon = listed.c, sa.literal_column("':'", sa.Text())
    invalid_from = sa.func.coalesce(sa.cast(c.invalid_from, sa.Text()), sa.literal_column("''", sa.Text()))
    shown = sa.cast(c.revoked_at, sa.Text()).concat(colon).concat(sa.cast(c.reason, sa.Text())).concat(colon).concat(invalid_from)
    return sa.select(sa.func.max(c.change), _Words(_Hexadecimal(c.serial)), _Words(shown))


LISTED_ENTRIES = _joined(LISTED_CHANGES)
LISTED_ENTRIES_OF_SHARD = _joined(LISTED_CHANGES_OF_SHARD)
REPLACED = sa.select(_r.replaces).where(
    sa.text("replaces IS NOT NULL"), _r.replaces >= param("first"), _r.replaces <= param("last"), _r.change <= param("as_of")
)
LAST_CRL = (
    sa.select(*rows.CRL_COLUMNS)
    .where(t.crls.c.issuer == param("issuer"), t.crls.c.shard == param("shard"), sa.text("published_at IS NOT NULL AND base IS NULL"))
    .order_by(t.crls.c.number.desc())
    .limit(sa.literal_column("1"))
)
LAST_DELTA = (
    sa.select(*rows.CRL_COLUMNS)
    .where(t.crls.c.issuer == param("issuer"), t.crls.c.shard == param("shard"), sa.text("published_at IS NOT NULL AND base IS NOT NULL"))
    .order_by(t.crls.c.number.desc())
    .limit(sa.literal_column("1"))
)
FIND_CRL = sa.select(*rows.CRL_COLUMNS).where(
    t.crls.c.issuer == param("issuer"),
    t.crls.c.shard == param("shard"),
    t.crls.c.number == param("number"),
    sa.text("published_at IS NOT NULL"),
)
FIND_CRL_INTENT = sa.select(*rows.CRL_COLUMNS).where(
    t.crls.c.issuer == param("issuer"), t.crls.c.shard == param("shard"), t.crls.c.number == param("number")
)
SHARD_COUNTS = sa.select(t.crl_shards.c.count).where(t.crl_shards.c.issuer == param("issuer")).order_by(t.crl_shards.c.count)
ISSUERS = sa.select(*rows.ISSUER_COLUMNS).order_by(t.issuers.c.id)
OPERATORS = sa.select(*rows.OPERATOR_COLUMNS).order_by(t.operators.c.name)
FIND_OPERATOR = sa.select(*rows.OPERATOR_COLUMNS).where(t.operators.c.name == param("name"))
PENDING_LEAVES = sa.select(*rows.LEAF_COLUMNS).where(sa.text("position IS NULL")).order_by(t.leaves.c.id).limit(param("limit"))
LEAVES = (
    sa.select(*rows.LEAF_COLUMNS)
    .where(sa.text("position IS NOT NULL"), t.leaves.c.position >= param("start"), t.leaves.c.position < param("end"))
    .order_by(t.leaves.c.position)
)
LEAF_COUNT = (
    sa.select(t.leaves.c.position).where(sa.text("position IS NOT NULL")).order_by(t.leaves.c.position.desc()).limit(sa.literal_column("1"))
)
LAST_CHECKPOINT = sa.select(*rows.CHECKPOINT_COLUMNS).order_by(t.checkpoints.c.size.desc()).limit(sa.literal_column("1"))


class Reads(ABC):
    """What can be asked inside and outside of a write transaction."""

    @abstractmethod
    def _all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        """Every row that a statement gives."""

    def _first(self, statement: Statement, parameters: Parameters) -> Row | None:
        found = self._all(statement, parameters)
        return found[0] if found else None

    # ---- certificates and tokens

    def find_certificate(self, ref: CertificateRef) -> Certificate | None:
        row = self._first(FIND_CERTIFICATE, {"serial": rows.octets_of(ref.serial), "issuer": ref.issuer})
        return None if row is None else rows.certificate_of(row)

    def find_by_der_digest(self, digest: Digest) -> Certificate | None:
        """The certificate whose DER has this SHA-256: byte-equal or absent."""
        row = self._first(FIND_BY_DER, {"der_sha256": digest})
        return None if row is None else rows.certificate_of(row)

    def certificates_of(self, device: str) -> Sequence[Certificate]:
        """Every certificate of a device that is issued or intended, newest first."""
        return [rows.certificate_of(row) for row in self._all(CERTIFICATES_OF_DEVICE, {"device": device})]

    def latest_of(self, device: str, *, limit: int) -> Sequence[Certificate]:
        """The newest of these."""
        return [rows.certificate_of(row) for row in self._all(LATEST_OF_DEVICE, {"device": device, "limit": limit})]

    def renewals_of(self, parent: CertificateRef, device: str) -> Sequence[Certificate]:
        """Every certificate of a device that is issued or intended and renews `parent`, oldest first."""
        found = self._all(RENEWALS_OF, {"device": device, "serial": rows.octets_of(parent.serial), "issuer": parent.issuer})
        return [rows.certificate_of(row) for row in found]

    def outstanding_tokens(self, device: str, *, now: UnixTime) -> Sequence[Token]:
        """The tokens of a device that could be used now, by their hash."""

        def page(last: Row | None) -> Sequence[Row]:
            return self._all(OUTSTANDING_TOKENS, {"device": device, "after": b"" if last is None else last[0], "now": now})

        return [rows.token_of(row) for row in paged(page)]

    def find_token(self, token: Digest) -> Token | None:
        row = self._first(FIND_TOKEN, {"hash": token})
        return None if row is None else rows.token_of(row)

    def find_token_by_beginning(self, octets: bytes) -> Token | None:
        """The token whose hash begins with these octets; None also where there are several."""
        found = self._all(TOKENS_BETWEEN, {"low": octets.ljust(32, b"\x00"), "high": octets.ljust(32, b"\xff")})
        return rows.token_of(found[0]) if len(found) == 1 else None

    # ---- status

    def change_number(self) -> ChangeNumber:
        """The last change number handed out and committed (or handed out in this transaction); 0 when there was none."""
        return int(rows.only(self._all(COUNTER, {"name": t.CHANGE}))[0])

    def high_time(self) -> UnixTime:
        """The latest time any transaction recorded; 0 in an empty store."""
        return int(rows.only(self._all(COUNTER, {"name": t.HIGH_TIME}))[0])

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int = CRL_PAGE
    ) -> Sequence[ListedChange]:
        """The changes above `after` up to `as_of` that CRLs are made of, in their order, at most `limit`; shard 0 has those of all shards.

        Rows are never changed, so the answer for a past `as_of` is always the same.
        """
        asked = {"issuer": issuer, "after": after, "as_of": as_of, "limit": limit}
        if shard == 0:
            return cast("Sequence[ListedChange]", self._all(LISTED_CHANGES, asked))
        return cast("Sequence[ListedChange]", self._all(LISTED_CHANGES_OF_SHARD, asked | {"shard": shard}))

    def listed_entries(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, expired_before: UnixTime, limit: int
    ) -> tuple[ChangeNumber, bytes, Sequence[str]] | None:
        """Of those changes the ones that list somebody whose notAfter is at or after `expired_before`, in number order, at most `limit`: the last one's
        number, their serials of 20 octets one after the other, and of each `REVOKED_AT:REASON:INVALID_FROM`. None where there is none.

        Those that were changed again since are among them.
        """
        asked = {"issuer": issuer, "after": after, "as_of": as_of, "expired_before": expired_before, "limit": limit}
        statement = LISTED_ENTRIES if shard == 0 else LISTED_ENTRIES_OF_SHARD
        last, serials, shown = rows.only(self._all(statement, asked if shard == 0 else asked | {"shard": shard}))
        return None if last is None else (last, bytes.fromhex(serials), shown.split(" "))

    def replaced(self, first: ChangeNumber, last: ChangeNumber, *, as_of: ChangeNumber) -> frozenset[ChangeNumber]:
        """Those of the changes from `first` to `last` that, as of a change, were not any more their certificate's latest."""
        return frozenset(row[0] for row in self._all(REPLACED, {"first": first, "last": last, "as_of": as_of}))

    def crl_entries(
        self, issuer: IssuerId, shard: int, *, expired_before: UnixTime, as_of: ChangeNumber | None = None
    ) -> Iterator[CrlEntry]:
        """The listed certificates whose latest change at or below `as_of` is not a release and whose notAfter is at or after
        `expired_before`, oldest change first. Shard 0 has those of all shards.

        Reads the append-only history, not a state, so the answer for a past `as_of` never changes, however many pages it takes and
        whoever revokes meanwhile. Without `as_of`: the last committed change.
        """
        as_of = self.change_number() if as_of is None else as_of
        after = 0
        while page := self.listed_changes(issuer, shard, after=after, as_of=as_of, limit=CRL_PAGE):
            after = page[-1][0]
            gone = self.replaced(page[0][0], after, as_of=as_of)
            for change, _, serial, reason, revoked_at, not_after, invalid_from, _ in page:
                if change not in gone and reason != Reason.removeFromCRL and not_after >= expired_before:
                    yield CrlEntry(rows.serial_of(serial), revoked_at, Reason(reason), invalid_from)
            if len(page) < CRL_PAGE:
                return

    def last_crl(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published complete CRL with the highest number."""
        row = self._first(LAST_CRL, {"issuer": issuer, "shard": shard})
        return None if row is None else rows.crl_of(row)

    def last_delta(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published delta with the highest number."""
        row = self._first(LAST_DELTA, {"issuer": issuer, "shard": shard})
        return None if row is None else rows.crl_of(row)

    def find_crl(self, issuer: IssuerId, shard: int, number: CrlNumber) -> CrlIntent | None:
        """A CRL by its number, where it was published."""
        row = self._first(FIND_CRL, {"issuer": issuer, "shard": shard, "number": number})
        return None if row is None else rows.crl_of(row)

    def find_crl_intent(self, issuer: IssuerId, shard: int, number: CrlNumber) -> CrlIntent | None:
        """A CRL that was intended, published or not."""
        row = self._first(FIND_CRL_INTENT, {"issuer": issuer, "shard": shard, "number": number})
        return None if row is None else rows.crl_of(row)

    def shard_counts(self, issuer: IssuerId) -> Sequence[int]:
        """Every number of shards that new certificates of an issuer were ever spread over, rising."""
        return [row[0] for row in self._all(SHARD_COUNTS, {"issuer": issuer})]

    # ---- issuers and operators

    def issuers(self) -> Sequence[Issuer]:
        return [rows.issuer_of(row) for row in self._all(ISSUERS, {})]

    def operators(self) -> Sequence[Operator]:
        return [rows.operator_of(row) for row in self._all(OPERATORS, {})]

    def find_operator(self, name: OperatorName) -> Operator | None:
        row = self._first(FIND_OPERATOR, {"name": name})
        return None if row is None else rows.operator_of(row)

    # ---- the log

    def pending_leaves(self, limit: int) -> Sequence[QueuedLeaf]:
        """Leaves without an index, oldest id first."""
        return [rows.leaf_of(row) for row in self._all(PENDING_LEAVES, {"limit": limit})]

    def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]:
        """Leaves with indexes from `start` on, in index order, at most `count`."""
        return [rows.leaf_of(row) for row in self._all(LEAVES, {"start": start, "end": start + count})]

    def leaf_count(self) -> int:
        """How many leaves have an index; the next free index."""
        row = self._first(LEAF_COUNT, {})
        return 0 if row is None else int(row[0]) + 1

    def last_checkpoint(self) -> Checkpoint | None:
        """The recorded checkpoint with the greatest size."""
        row = self._first(LAST_CHECKPOINT, {})
        return None if row is None else rows.checkpoint_of(row)


def paged(page: Callable[[Row | None], Sequence[Row]], *, size: int = PAGE) -> Iterator[Row]:
    """All rows, a page at a time: `page` gives those after a row (None: from the start), at most `size`."""
    last: Row | None = None
    while found := page(last):
        yield from found
        if len(found) < size:
            return
        last = found[-1]
