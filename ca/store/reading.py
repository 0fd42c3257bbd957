"""The database for those who only look: status workers, publishers, enrolment, the command line, the audit.

Owns no transaction: each question is one statement (or pages of one) on its own, as of the latest commit. Safe to call from several
threads and to repeat. Fits the reading ports of `ca`, `crl`, `ocsp` and `enroll` without importing them.

Raises, everywhere:
    StoreUnavailable: the database cannot be read now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import sqlalchemy as sa

from ca.model import (
    Certificate,
    CertificateQuery,
    CertificateRef,
    CertificateState,
    ChangeNumber,
    CrlIntent,
    Device,
    DeviceId,
    DeviceState,
    Digest,
    IssuerId,
    Operator,
    OperatorName,
    Outline,
    QueuedLeaf,
    Revocation,
    RollEntry,
    Serial,
    TenantId,
    Token,
    UnixTime,
)
from ca.store import rows, search
from ca.store import tables as t
from ca.store.approval_rows import ApprovalReads
from ca.store.database import Database
from ca.store.device_reads import DeviceReads
from ca.store.key_reads import KeyReads
from ca.store.line_rows import LineReads
from ca.store.proposal_rows import ProposalReads
from ca.store.reads import PAGE, Parameters, Statement, paged, param
from ca.store.renewal_rows import RenewalOrderReads
from ca.store.rows import Row

_c, _r = t.certificates.c, t.revocations.c

STATUS_OF = sa.select(*rows.STATUS_COLUMNS).select_from(rows.CERTIFICATES).where(_c.serial == param("serial"), _c.issuer == param("issuer"))
CLONES = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(sa.text("certificates.clone_seen_at IS NOT NULL"), _c.clone_seen_at >= param("since"))
    .order_by(_c.clone_seen_at)
    .limit(param("limit"))
)
STATUSES_AFTER = (
    sa.select(_c.id, _c.issuer, _c.serial, _c.revocable, *rows.STATUS_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_c.id > param("id"))
    .order_by(_c.id)
    .limit(param("limit"))
)
LAST_ROW = sa.select(_c.id).order_by(_c.id.desc()).limit(sa.literal_column("1"))
CHANGES_SINCE = sa.select(*rows.REVOCATION_COLUMNS).where(_r.change > param("change")).order_by(_r.change).limit(param("limit"))
LEAF_OF = sa.select(_c.leaf).where(_c.serial == param("serial"), _c.issuer == param("issuer"))
FIND_LEAF = (
    sa.select(*rows.LEAF_COLUMNS).where(t.leaves.c.hash == param("hash"), sa.text("position IS NOT NULL")).limit(sa.literal_column("1"))
)
FIND_PENDING_LEAF = (
    sa.select(*rows.LEAF_COLUMNS).where(t.leaves.c.hash == param("hash"), sa.text("position IS NULL")).limit(sa.literal_column("1"))
)
FIND_DEVICE = sa.select(*rows.DEVICE_COLUMNS).where(t.devices.c.id == param("id"))
EVERY_CERTIFICATE = (
    sa.select(*rows.CERTIFICATE_COLUMNS)
    .select_from(rows.CERTIFICATES)
    .where(_c.id > param("id"))
    .order_by(_c.id)
    .limit(sa.literal_column(str(PAGE)))
)
EVERY_CRL = (
    sa.select(*rows.CRL_COLUMNS)
    .where(sa.tuple_(t.crls.c.issuer, t.crls.c.shard, t.crls.c.number) > sa.tuple_(param("issuer"), param("shard"), param("number")))
    .order_by(t.crls.c.issuer, t.crls.c.shard, t.crls.c.number)
    .limit(sa.literal_column(str(PAGE)))
)
EVERY_TOKEN = (
    sa.select(*rows.TOKEN_COLUMNS).where(t.tokens.c.hash > param("hash")).order_by(t.tokens.c.hash).limit(sa.literal_column(str(PAGE)))
)
EVERY_DEVICE = (
    sa.select(*rows.DEVICE_COLUMNS).where(t.devices.c.id > param("id")).order_by(t.devices.c.id).limit(sa.literal_column(str(PAGE)))
)
TOKENS_WAITING = (
    sa.select(*rows.TOKEN_COLUMNS)
    .where(
        sa.text("used_at IS NULL AND revoked_at IS NULL"),
        sa.tuple_(t.tokens.c.device, t.tokens.c.hash) > sa.tuple_(param("device"), param("hash")),
    )
    .order_by(t.tokens.c.device, t.tokens.c.hash)
    .limit(sa.literal_column(str(PAGE)))
)
PING = sa.select(t.counters.c.value).where(t.counters.c.name == t.CHANGE)


class Reading(KeyReads, DeviceReads, ApprovalReads, ProposalReads, RenewalOrderReads, LineReads):
    """Reads only. `find_certificate`, `find_by_der_digest`, `certificates_of`, `find_token`, `change_number`, `high_time`, `crl_entries`, `last_crl`, `issuers`,
    `operators`, `find_operator`, `pending_leaves`, `leaves`, `leaf_count` and `last_checkpoint` come from `Reads`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def _all(self, statement: Statement, parameters: Parameters) -> Sequence[Row]:
        return self._database.query(statement, parameters)

    def ping(self) -> None:
        """Return when the database answers and has our tables."""
        self._all(PING, {})

    # ---- status

    def status_of(self, issuer: IssuerId, serial: Serial) -> tuple[CertificateState, Revocation | None] | None:
        """The state of a certificate and the latest change of its status; None when it is not on record. One indexed query."""
        row = self._first(STATUS_OF, {"serial": rows.octets_of(serial), "issuer": issuer})
        return None if row is None else rows.status_of(CertificateRef(issuer, serial), row)

    def statuses_after(self, row: int, limit: int) -> Sequence[RollEntry]:
        """The next revocable certificates, by row: those of one page of at most `limit` rows; empty when no row is left.

        Whoever goes on from the last entry's row sees every certificate once.
        """
        while found := self._all(STATUSES_AFTER, {"id": row, "limit": limit}):
            entries = [rows.roll_entry_of(one) for one in found if one[3]]
            if entries:
                return entries
            row = found[-1][0]
        return []

    def last_row(self) -> int:
        """The row of the certificate that came last; 0 where there is none."""
        found = self._all(LAST_ROW, {})
        return int(found[0][0]) if found else 0

    def changes_since(self, change: ChangeNumber, limit: int) -> Sequence[Revocation]:
        """The changes with a number above `change`, in number order, at most `limit`.

        Number order is commit order: who has seen change n has missed nothing at or below n.
        """
        return [rows.revocation_of(row) for row in self._all(CHANGES_SINCE, {"change": change, "limit": limit})]

    # ---- certificates, devices, operators

    def clones(self, *, since: UnixTime, limit: int) -> Sequence[Certificate]:
        """Those whose key spoke, at or after `since`, though another certificate had taken their place by being used (P9); earliest first."""
        return [rows.certificate_of(row) for row in self._all(CLONES, {"since": since, "limit": limit})]

    def search_certificates(
        self, query: CertificateQuery, *, tenant: TenantId | None = None, now: UnixTime = 0
    ) -> tuple[Sequence[Certificate], str | None]:
        """One page of the certificates for which all that is asked holds, and the cursor of the next page (None: this was the last).

        Args:
            query: what is asked.
            tenant: of one tenant; None: of all.
            now: what `state` is judged at: a grace that is over by then counts, written down or not. 0: as it is written down.

        Newest first; by expiry when only that is asked, by subject when its beginning is. Pages go on behind the last row's key, so rows
        that come or go meanwhile neither repeat nor hide others.

        Raises:
            Malformed: `after` is no cursor of this search (`cursor-unreadable`).
        """
        path = self._path(query, tenant, now)
        if path is None:
            return [], None
        page, cursor = search.one_page(path, self._database.query_once, after=query.after, limit=query.limit)
        return [rows.certificate_of(row) for row in page], cursor

    def search_outlines(
        self, query: CertificateQuery, *, tenant: TenantId | None = None, now: UnixTime = 0
    ) -> tuple[Sequence[Outline], str | None]:
        """As `search_certificates`, without what makes certificates long. The cursors are the same."""
        path = self._path(query, tenant, now)
        if path is None:
            return [], None
        path = replace(path, columns=rows.OUTLINE_COLUMNS)
        page, cursor = search.one_page(path, self._database.query_once, after=query.after, limit=query.limit)
        return [rows.outline_of(row) for row in page], cursor

    def _path(self, query: CertificateQuery, tenant: TenantId | None, now: UnixTime) -> search.Path | None:
        """How to search; None where nothing can be found."""
        if query.spki_sha256 is not None:
            owner = self._first(search.OWNER_OF_KEY, {"spki_sha256": query.spki_sha256})
            if owner is None or query.device not in (None, owner[0]):
                return None
            query = replace(query, device=owner[0])
        return search.Certificates(query, tenant, now).path()

    def find_device(self, device: DeviceId) -> Device | None:
        row = self._first(FIND_DEVICE, {"id": device})
        return None if row is None else rows.device_of(row)

    def search_devices(
        self,
        *,
        tenant: TenantId | None = None,
        device: str | None = None,
        state: DeviceState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Sequence[Device], str | None]:
        """One page of devices by id, and the cursor of the next page. `device`: an id, or its beginning followed by `*`.

        Raises:
            Malformed: `after` is no cursor of this search (`cursor-unreadable`).
        """
        path = search.devices(tenant=tenant, device=device, state=state)
        page, cursor = search.one_page(path, self._database.query_once, after=after, limit=limit)
        return [rows.device_of(row) for row in page], cursor

    def waiting_tokens(self, *, now: UnixTime, after: tuple[DeviceId, Digest] | None = None, limit: int = 100) -> Sequence[Token]:
        """Tokens that could be used now, by device and hash: those behind `after`, at most `limit`.

        Expired ones are passed over here: a database that is asked to do so, and guesses that few are left, would read and sort them all.
        """

        def page(last: Row | None) -> Sequence[Row]:
            device, digest = (last[2], last[0]) if last is not None else ("", b"") if after is None else after
            return self._all(TOKENS_WAITING, {"device": device, "hash": digest})

        found = (rows.token_of(row) for row in paged(page))
        return list(islice((token for token in found if token.expires > now), limit))

    def operator(self, name: OperatorName) -> Operator | None:
        return self.find_operator(name)

    # ---- the record

    def leaf_of(self, ref: CertificateRef) -> Digest | None:
        """The leaf hash of a certificate's issuance."""
        row = self._first(LEAF_OF, {"serial": rows.octets_of(ref.serial), "issuer": ref.issuer})
        return None if row is None else Digest(row[0])

    def find_leaf(self, leaf_hash: Digest) -> QueuedLeaf | None:
        """By its leaf hash; its index is None while the sequencer has not come by; None when no such leaf was queued."""
        row = self._first(FIND_LEAF, {"hash": leaf_hash}) or self._first(FIND_PENDING_LEAF, {"hash": leaf_hash})
        # It may have got its place between the two looks.
        row = row or self._first(FIND_LEAF, {"hash": leaf_hash})
        return None if row is None else rows.leaf_of(row)

    def every_certificate(self) -> Iterator[Certificate]:
        """All certificates, a page at a time, in the order of their rows."""
        number = rows.CERTIFICATE_ROW
        for row in paged(lambda last: self._all(EVERY_CERTIFICATE, {"id": 0 if last is None else last[number]})):
            yield rows.certificate_of(row)

    def every_revocation(self) -> Iterator[Revocation]:
        """All changes of status, in number order."""
        for row in paged(lambda last: self._all(CHANGES_SINCE, {"change": 0 if last is None else last[0], "limit": PAGE})):
            yield rows.revocation_of(row)

    def every_crl(self) -> Iterator[CrlIntent]:
        """All CRL intents, published or not."""

        def page(last: Row | None) -> Sequence[Row]:
            issuer, shard, number = ("", 0, 0) if last is None else last[:3]
            return self._all(EVERY_CRL, {"issuer": issuer, "shard": shard, "number": number})

        for row in paged(page):
            yield rows.crl_of(row)

    def every_token(self) -> Iterator[Token]:
        for row in paged(lambda last: self._all(EVERY_TOKEN, {"hash": b"" if last is None else last[0]})):
            yield rows.token_of(row)

    def every_device(self) -> Iterator[Device]:
        for row in paged(lambda last: self._all(EVERY_DEVICE, {"id": "" if last is None else last[0]})):
            yield rows.device_of(row)
