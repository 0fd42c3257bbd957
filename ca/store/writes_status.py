"""What revoking and publishing write: revocations with their change numbers, CRL intents, leases. Statements only.

Numbers that order things come from counter rows whose lock is held to the commit: who got n+1 waited until n was committed or given
back. So number order is commit order, and a reader that has seen n has missed nothing below it. A database sequence promises neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ca.errors import Conflict, NotFound
from ca.model import (
    CertificateRef,
    CrlIntent,
    CrlNumber,
    IssuerId,
    Lease,
    Reason,
    Revocation,
    StatusChange,
    UnixTime,
)
from ca.store import rows
from ca.store import tables as t
from ca.store.reads import insert, param, values_of
from ca.store.writes import Writes

_c, _k, _l = t.certificates.c, t.counters.c, t.leases.c

SET_HIGH_TIME = sa.update(t.counters).where(_k.name == param("the_name")).values(value=param("now"))
RAISE_HIGH_TIME = sa.update(t.counters).where(_k.name == param("the_name"), _k.value < param("now")).values(value=param("now"))
NEXT_NUMBERS = sa.update(t.counters).where(_k.name == param("the_name")).values(value=_k.value + param("count")).returning(_k.value)
# One above the greater of what was handed out and the caller's floor. The first of a scope makes the row.
# A period and its count in one number; the later period wins.
_period = insert(t.counters).values(name=param("name"), value=param("base") + param("amount"))
COUNT_IN_PERIOD = _period.on_conflict_do_update(
    index_elements=["name"],
    set_={"value": sa.case((_k.value >= param("base"), _k.value), else_=param("base")) + param("amount")},
).returning(_k.value)
_new_number = insert(t.counters).values(name=param("name"), value=param("floor") + sa.literal_column("1"))
NEXT_NUMBER_ABOVE = _new_number.on_conflict_do_update(
    index_elements=["name"],
    set_={"value": sa.case((_k.value >= _new_number.excluded.value, _k.value + sa.literal_column("1")), else_=_new_number.excluded.value)},
).returning(_k.value)
LOCK_CERTIFICATE = (
    sa.select(_c.tenant, _c.shard, _c.revocation).where(_c.serial == param("serial"), _c.issuer == param("issuer")).with_for_update()
)
ADD_REVOCATION = insert(t.revocations).values(values_of(t.revocations))
POINT_TO_REVOCATION = (
    sa.update(t.certificates)
    .where(_c.serial == param("the_serial"), _c.issuer == param("the_issuer"))
    .values(revocation=param("change"), revoked=param("revoked"))
)
RESERVE_CRL = insert(t.crls).values(values_of(t.crls, *(column.name for column in rows.CRL_COLUMNS))).on_conflict_do_nothing()
RECORD_CRL_PUBLISHED = (
    sa.update(t.crls)
    .where(t.crls.c.issuer == param("the_issuer"), t.crls.c.shard == param("the_shard"), t.crls.c.number == param("the_number"))
    .values(published_at=sa.func.coalesce(t.crls.c.published_at, param("now")))
)
ADD_SHARD_COUNT = insert(t.crl_shards).values(values_of(t.crl_shards)).on_conflict_do_nothing()
_new_lease = insert(t.leases).values(name=param("name"), holder=param("holder"), expires=param("expires"), fence=sa.literal_column("1"))
# Whoever holds it keeps it and its fence, also when it ran out and nobody came; who takes it over gets the next fence.
TAKE_LEASE = _new_lease.on_conflict_do_update(
    index_elements=["name"],
    set_={
        "holder": _new_lease.excluded.holder,
        "expires": _new_lease.excluded.expires,
        "fence": sa.case((_l.holder == _new_lease.excluded.holder, _l.fence), else_=_l.fence + sa.literal_column("1")),
    },
    where=sa.or_(_l.holder == _new_lease.excluded.holder, _l.expires <= param("now")),
).returning(_l.fence)
FENCE = sa.select(_l.fence).where(_l.name == param("name")).with_for_update()


class StatusWrites(Writes):
    def raise_high_time(self, now: UnixTime) -> None:
        """Remember that it is at least `now`; lower times change nothing."""
        self._change(RAISE_HIGH_TIME, {"the_name": t.HIGH_TIME, "now": now})

    def set_high_time(self, now: UnixTime) -> None:
        """Also back: for a person who knows that an earlier clock was wrong."""
        self._change(SET_HIGH_TIME, {"the_name": t.HIGH_TIME, "now": now})

    def count_in_period(self, name: str, *, period: int, amount: int) -> int:
        """Add to a counter that begins anew with each period; what it has then. A clock that went back counts on."""
        ((value,),) = self._all(COUNT_IN_PERIOD, {"name": name, "base": period << 32, "amount": amount})
        return int(value) & 0xFFFFFFFF

    def add_revocation(
        self,
        ref: CertificateRef,
        *,
        reason: Reason,
        now: UnixTime,
        not_after: UnixTime,
        listed: bool,
        actor: str = "",
        invalid_from: UnixTime | None = None,
        channel: str = "",
        request: str = "",
    ) -> Revocation:
        """Append a row with the next change number.

        Raises:
            NotFound: the certificate is not on record (`certificate-unknown`).
        """
        (made,) = self.add_revocations(
            [StatusChange(ref, reason, now, not_after, listed)], actor=actor, invalid_from=invalid_from, channel=channel, request=request
        )
        return made

    def add_revocations(
        self,
        changes: Sequence[StatusChange],
        *,
        actor: str = "",
        invalid_from: UnixTime | None = None,
        channel: str = "",
        request: str = "",
    ) -> Sequence[Revocation]:
        """Append a row for each, in that order, with the next change numbers.

        Raises:
            NotFound: one of the certificates is not on record (`certificate-unknown`); nothing is appended.
        """
        if not changes:
            return ()
        serials = [rows.octets_of(one.ref.serial) for one in changes]
        found = [self._locked(one.ref, serial) for one, serial in zip(changes, serials, strict=True)]
        # Last of all locks: the counter is everyone's.
        ((last,),) = self._all(NEXT_NUMBERS, {"the_name": t.CHANGE, "count": len(changes)})
        first = int(last) - len(changes) + 1
        self._change_each(
            ADD_REVOCATION,
            [
                {
                    "change": change,
                    "issuer": one.ref.issuer,
                    "shard": shard,
                    "serial": serial,
                    "reason": int(one.reason),
                    "revoked_at": one.revoked_at,
                    "not_after": one.not_after,
                    "listed": one.listed,
                    "tenant": tenant,
                    "actor": actor,
                    "invalid_from": invalid_from,
                    "channel": channel,
                    "request": request,
                    "replaces": before,
                }
                for change, (one, serial, (tenant, shard, before)) in enumerate(zip(changes, serials, found, strict=True), first)
            ],
        )
        self._change_each(
            POINT_TO_REVOCATION,
            [
                {"change": change, "revoked": one.reason is not Reason.removeFromCRL, "the_serial": serial, "the_issuer": one.ref.issuer}
                for change, (one, serial) in enumerate(zip(changes, serials, strict=True), first)
            ],
        )
        return [
            Revocation(
                change,
                one.ref,
                one.reason,
                one.revoked_at,
                not_after=one.not_after,
                listed=one.listed,
                shard=shard,
                invalid_from=invalid_from,
            )
            for change, (one, (_, shard, _)) in enumerate(zip(changes, found, strict=True), first)
        ]

    def _locked(self, ref: CertificateRef, serial: bytes) -> rows.Row:
        row = self._first(LOCK_CERTIFICATE, {"serial": serial, "issuer": ref.issuer})
        if row is None:
            raise NotFound("certificate-unknown", f"There is no certificate {ref} on record.", fix="fleetca certificates search")
        return row

    # ---- CRLs

    def next_crl_number(self, issuer: IssuerId, shard: int, *, above: CrlNumber) -> CrlNumber:
        """A number above every earlier one of that scope and above `above`."""
        (number,) = rows.only(self._all(NEXT_NUMBER_ABOVE, {"name": t.crl_counter(issuer, shard), "floor": above}))
        return int(number)

    def reserve_crl(self, intent: CrlIntent) -> None:
        """Record what is about to be signed.

        Raises:
            Conflict: that number is on record (`crl-number-taken`).
        """
        added = self._change(
            RESERVE_CRL,
            {
                "issuer": intent.issuer,
                "shard": intent.shard,
                "number": intent.number,
                "as_of": intent.as_of,
                "count": intent.count,
                "this_update": intent.this_update,
                "next_update": intent.next_update,
                "tbs_sha256": intent.tbs_sha256,
                "fence": intent.fence,
                "base": intent.base,
            },
        )
        if not added:
            raise Conflict("crl-number-taken", f"CRL {intent.number} of {intent.issuer} is on record already.")

    def record_crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, *, now: UnixTime) -> None:
        """Readers get it now. The same again is harmless; the first time stays.

        Raises:
            NotFound: no such CRL was signed, as far as the record goes (`crl-unknown`).
        """
        if not self._change(RECORD_CRL_PUBLISHED, {"the_issuer": issuer, "the_shard": shard, "the_number": number, "now": now}):
            raise NotFound("crl-unknown", f"There is no CRL {number} of {issuer} on record.")

    def add_shard_count(self, issuer: IssuerId, count: int, *, now: UnixTime) -> None:
        """New certificates are spread over so many shards. The same again is harmless."""
        self._change(ADD_SHARD_COUNT, {"issuer": issuer, "count": count, "since": now})

    # ---- leases

    def lease(self, name: str, *, holder: str, now: UnixTime, seconds: int) -> Lease | None:
        """Take, keep or refuse (None) a lease. A new holder gets the next fence.

        `now` is the caller's clock: when clocks disagree, two may believe that they hold it, and `check_fence` stops the older one.
        """
        row = self._first(TAKE_LEASE, {"name": name, "holder": holder, "now": now, "expires": now + seconds})
        return None if row is None else Lease(name=name, holder=holder, expires=now + seconds, fence=row[0])

    def check_fence(self, name: str, fence: int) -> None:
        """Fail the transaction of a holder that lost its lease; nobody takes it over before this transaction ends.

        Raises:
            Conflict: a newer holder exists (`lease-lost`).
        """
        row = self._first(FENCE, {"name": name})
        if row is None or row[0] != fence:
            raise Conflict("lease-lost", f"The lease {name} has a newer holder.", why="This process held it too long or was stopped.")
