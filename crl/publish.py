"""Publishing the CRLs of an issuer whose key is ours. Ring 4: rules and ports only.

    look      what readers have, what is on record, what changed since: is one due?
    lease     crl:ISSUER with its fencing number, then look again: another publisher may just have been here
    sign      the signer records the intent and writes the CRL into a stage that nobody sees
    gate      the stage is synced, read back from the disk and checked by code of another make (P6)
    number    the high-water file rises before the CRL is visible: a number that was ever visible is never used again (R11)
    put       only over the very file that was looked at, by rename
    probe     what readers get now is read again
    record    the signer writes down that it is published; from then on entries that it listed after expiry may go (R07)

What a crash leaves: before `put`, the old CRL and a skipped number; after it, the new CRL and a record that is behind by one, which `_catch_up` mends
on the next look. A pause anywhere, of any length, ends in a lost lease, a fence that the signer refuses, or a put that finds another file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from shutil import copyfileobj

from ca.errors import Broken, Conflict, Denied, FleetcaError, NotFound
from ca.model import (
    CertificateRef,
    CrlIntent,
    CrlNumber,
    GraveAct,
    Issuer,
    IssuerId,
    Lease,
    ListedChange,
    ProposalState,
    Reason,
    Revocation,
    Serial,
    UnixTime,
)
from ca.ports import Clock, Failpoint, Outlet, Stage
from ca.rules import override
from crl.feed import Feed
from crl.model import WHOLE, Cause, Head, Outcome, Policy, Result, Scope, lease_name
from crl.ports import CrlSigner, Leases, Reading, Tallies, Tally
from crl.refusals import Refused, RefusedFolder
from crl.rules import delta, elements, gate, schedule
from crl.rules.gate import Before, Expected, Passed
from crl.shelf import Shelf, Visible

_LOOKED_AT = 20
"""Certificates of a shard whose distribution points are held against its CRL's."""
_RECENT = 1000
"""Changes of all shards among which the latest of this one are looked for first."""
"""Certificates of each CRL whose own octets are looked at: the youngest it lists."""
AUDIT_EVERY = 86400


@dataclass(frozen=True, slots=True)
class _Look:
    """How one CRL stands."""

    visible: Visible
    recorded: CrlIntent | None
    whole: CrlIntent | None
    """The complete CRL of the same numbers: for a delta its base, else `recorded`."""
    cause: Cause | None

    @property
    def number(self) -> CrlNumber:
        return max(self.visible.head.number if self.visible.head else 0, self.recorded.number if self.recorded else 0)


def scopes(issuer: Issuer) -> tuple[Scope, ...]:
    """The CRLs of an issuer: the complete one, its shards, its delta."""
    delta_too = (Scope(issuer, WHOLE, delta=True),) if issuer.crls.deltas else ()
    return (Scope(issuer), *(Scope(issuer, shard) for shard in range(1, issuer.crls.shards + 1)), *delta_too)


class Publisher:
    """One publisher among any number; the database decides which of them acts.

    Args:
        holder: names this publisher in leases; no two running ones share it.
        tallies: what the gate remembers from one CRL to the next; without it every CRL is compared with the whole record.
    """

    def __init__(
        self,
        *,
        reading: Reading,
        leases: Leases,
        signer: CrlSigner,
        outlet: Outlet,
        clock: Clock,
        failpoint: Failpoint,
        policy: Policy,
        holder: str,
        tallies: Tallies | None = None,
        refusals: RefusedFolder | None = None,
    ) -> None:
        self._reading = reading
        self._leases = leases
        self._signer = signer
        self._outlet = outlet
        self._clock = clock
        self._failpoint = failpoint
        self._policy = policy
        self._holder = holder
        self._tallies = tallies
        self._refusals = refusals
        self._shelf = Shelf(outlet)
        self._feed = Feed(reading)
        self._unknown: dict[str, CrlNumber] = {}
        """Published numbers that the record does not know and will not learn."""
        self._afresh: set[str] = set()
        """CRLs that were refused for what they list: the next one uses nothing that was encoded before."""
        self._audited: dict[str, int] = {}

    def publish(self, scope: Scope, *, asked: bool = False) -> Outcome:
        """Publish if it is due, or if somebody asks.

        Raises:
            Broken: the gate refused; readers keep what they have.
            Conflict: another publisher was faster.
            Unavailable: database, signer, key or disk is not to be had; repeating is safe.
        """
        issuer = scope.issuer
        if issuer.key is None or not issuer.may_sign_crl:
            return _outcome(scope, Result.no_key, None, self._shelf.look(scope).head)
        look = self._look(scope, asked=asked)
        if look.cause is None and not self._record_is_behind(scope, look):
            return _outcome(scope, Result.not_due, None, look.visible.head)
        lease = self._take(issuer)
        if lease is None:
            return _outcome(scope, Result.led_elsewhere, look.cause, look.visible.head)
        self._catch_up(scope, lease)
        # Whoever held the lease before may have published between our first look and now.
        look = self._look(scope, asked=asked)
        head = look.visible.head if look.cause is None else self._make(scope, lease, look)
        self._give_back(issuer)
        return _outcome(scope, Result.not_due if look.cause is None else Result.published, look.cause, head)

    def _look(self, scope: Scope, *, asked: bool) -> _Look:
        issuer, visible = scope.issuer, self._shelf.look(scope)
        whole = self._reading.last_crl(issuer.id, scope.shard)
        recorded = self._reading.last_delta(issuer.id, scope.shard) if scope.delta else whole
        if scope.delta and whole is None:
            return _Look(visible, recorded, None, None)  # there is nothing yet that a delta could add to
        cause = schedule.due(
            self._clock.now(),
            scope=scope,
            published=visible.head,
            recorded=recorded.number if recorded else 0,
            changed=self._feed.changed(issuer.id, scope.shard, since=recorded.as_of if recorded else 0),
            policy=self._policy,
        )
        return _Look(visible, recorded, whole, Cause.asked if asked and cause is None else cause)

    def _take(self, issuer: Issuer) -> Lease | None:
        with self._leases.writing() as book:
            return book.lease(lease_name(issuer.id), holder=self._holder, now=self._clock.now(), seconds=self._policy.lease)

    def _give_back(self, issuer: Issuer) -> None:
        """Between publications nobody holds the lease, so who is killed or replaced then holds up no revocation (P5: a minute)."""
        with suppress(FleetcaError), self._leases.writing() as book:  # then it ends by itself
            book.lease(lease_name(issuer.id), holder=self._holder, now=self._clock.now(), seconds=0)

    def _record_is_behind(self, scope: Scope, look: _Look) -> bool:
        """Whether readers have a CRL that is not recorded as published: a crash between put and record leaves that."""
        visible, recorded = look.visible, look.recorded
        if visible.head is None or self._unknown.get(scope.name) == visible.head.number:
            return False
        return recorded is None or recorded.number < visible.head.number

    def _catch_up(self, scope: Scope, lease: Lease) -> None:
        look = self._look(scope, asked=False)
        if look.visible.head is None or not self._record_is_behind(scope, look):
            return
        try:
            self._signer.crl_published(scope.issuer.id, scope.shard, look.visible.head.number, lease.fence)
        except NotFound:
            # The record is older than the files: it was restored. The number of the file still counts, and the gate compares its entries.
            self._unknown[scope.name] = look.visible.head.number

    def _above(self, scope: Scope, look: _Look) -> CrlNumber:
        """The highest number known from anywhere; a complete CRL and its deltas count together (RFC 5280 5.2.3)."""
        others = (Scope(scope.issuer, scope.shard, delta=not scope.delta),) if scope.issuer.crls.deltas else ()
        visible = [self._shelf.look(other).head for other in others]
        return max(
            self._outlet.high_water(scope.numbered),
            look.number,
            look.whole.number if look.whole else 0,
            *(head.number for head in visible if head is not None),
        )

    def _make(self, scope: Scope, lease: Lease, look: _Look) -> Head:
        issuer, above = scope.issuer, self._above(scope, look)
        answered = self._answered_for(scope, look)
        if answered is not None:
            # What they signed may count no more by now: then it is made as ever.
            with suppress(Denied):
                return self._put_answered(scope, lease, look, answered, above=above)
        with self._outlet.stage(scope.name) as stage:
            intent = self._signer.sign_crl(
                issuer.id,
                shard=scope.shard,
                above=above,
                fence=lease.fence,
                sink_fd=stage.fileno(),
                base=look.whole.number if scope.delta and look.whole else None,
                afresh=scope.name in self._afresh,
            )
            stage.sync()
            self._failpoint("publish.after-write")
            tally = self._tally(scope)
            try:
                passed = self._gate(stage, scope, intent=intent, above=above, look=look, tally=tally)
            except Broken as error:
                if self._refusals is not None:
                    self._refusals.keep(scope.name, stage, intent, error, over=look.visible.version)
                raise
            self._outlet.raise_high_water(scope.numbered, passed.head.number)
            self._still_ours(issuer, lease)
            placed = self._outlet.put_if_unchanged(scope.name, stage, seen=look.visible.version)
        self._failpoint("publish.after-rename")
        with self._outlet.opened(scope.name) as copy:
            there = copy is not None and gate.same(copy, passed)
        now_there = self._shelf.look(scope).head if not there else None
        if now_there is not None and now_there.number > passed.head.number:
            raise _overtaken(scope)
        if not there:
            raise Broken("crl-not-put", f"What readers get as {scope.name} is not what was put there.")
        self._shelf.put(scope, placed, passed.head)
        self._failpoint("publish.before-record")
        if tally is not None:
            tally.passed(passed.head.tbs_sha256)
        if self._refusals is not None:
            self._refusals.forget(scope.name)
        self._signer.crl_published(issuer.id, scope.shard, passed.head.number, lease.fence)
        return passed.head

    # ---- what the gate refused and people answer for

    def _answered_for(self, scope: Scope, look: _Look) -> Refused | None:
        """The refused CRL, where two persons approved exactly it."""
        held = None if self._refusals is None else self._refusals.held(scope.name)
        if held is None or self._refusals is None or held.over != look.visible.version:
            return None
        # The signer judges them; here only what was never approved is kept from it.
        now, subject = self._clock.now(), override.subject_of(held.intent)
        answered = {ProposalState.approved, ProposalState.used}
        found = self._reading.proposals_of(GraveAct.crl_override, subject)
        return held if any(one.state in answered and now < one.expires for one in found) else None

    def _put_answered(self, scope: Scope, lease: Lease, look: _Look, held: Refused, *, above: CrlNumber) -> Head:
        assert self._refusals is not None
        with self._outlet.stage(scope.name) as stage:
            with open(stage.fileno(), "wb", closefd=False) as file, held.path.open("rb") as octets:
                copyfileobj(octets, file)
            stage.sync()
            expected = Expected(
                intent=held.intent,
                above=above,
                now=self._clock.now(),
                lifetime=self._policy.lifetime,
                wanted=elements.Recorded(lambda: ()),
                answered_for=True,
            )
            passed = gate.check(stage, scope, expected=expected, before=None)
            # On record first, so that nothing becomes visible by two people's word of which nobody knows.
            self._signer.crl_overridden(scope.issuer.id, scope.shard, held.intent.number, lease.fence)
            self._outlet.raise_high_water(scope.numbered, passed.head.number)
            self._still_ours(scope.issuer, lease)
            self._outlet.put_if_unchanged(scope.name, stage, seen=look.visible.version)
        self._signer.crl_published(scope.issuer.id, scope.shard, passed.head.number, lease.fence)
        self._refusals.forget(scope.name)
        return passed.head

    # ---- the gate

    def _tally(self, scope: Scope) -> Tally | None:
        if self._tallies is None or scope.delta:
            return None
        return self._tallies.of(scope, self._reading.shard_counts(scope.issuer.id))

    def _gate(self, stage: Stage, scope: Scope, *, intent: CrlIntent, above: int, look: _Look, tally: Tally | None) -> Passed:
        until = schedule.listed_until(look.whole, intent)
        try:
            with ExitStack() as held:
                wanted = (
                    self._wanted(scope, intent, until, look)
                    if tally is None
                    else held.enter_context(self._kept(scope, intent, until, tally))
                )
                expected = Expected(
                    intent=intent,
                    above=above,
                    now=self._clock.now(),
                    lifetime=self._policy.delta_lifetime if scope.delta else self._policy.lifetime,
                    wanted=wanted,
                    bases=lambda number: self._reading.find_crl(scope.issuer.id, scope.shard, number),
                    certificates=self._youngest(scope, intent),
                )
                before = None if scope.delta else self._before(scope, look, tally, until, held)
                passed = gate.check(stage, scope, expected=expected, before=before)
        except Broken:
            # Once more from the record itself, on both sides: then what stays wrong is the record, or the writer.
            self._afresh.add(scope.name)
            if tally is not None:
                tally.forget()
            raise
        self._afresh.discard(scope.name)
        return passed

    def _before(self, scope: Scope, look: _Look, tally: Tally | None, until: UnixTime, held: ExitStack) -> Before | None:
        """What readers have, which may be of another kind than is asked for now; where it is nobody's CRL, what they had before."""
        copy = held.enter_context(self._outlet.opened(scope.name))
        if (None if copy is None else self._shelf.look(scope).version) != look.visible.version:
            raise _overtaken(scope)
        head = look.visible.head
        if copy is not None and (head is not None or gate.signed(copy, scope)):
            # What readers have counts as published even where the record has not caught up; entries go by the later of the two.
            left = None if tally is None or head is None else tally.left_since(head.tbs_sha256)
            return Before(copy, max(until, head.this_update if head else 0), self._departed(scope.issuer.id), head, left)
        previous = held.enter_context(self._outlet.previous(scope.name))
        if previous is None or not gate.signed(previous, scope):
            return None
        return Before(previous, until, self._departed(scope.issuer.id))

    def _wanted(self, scope: Scope, intent: CrlIntent, until: UnixTime, look: _Look) -> gate.Wanted:
        """What the CRL must list. The signer drops by its record alone, so it may list more than readers' copies make it and never less."""
        issuer, reading = scope.issuer.id, self._reading
        fits = elements.fitting(scope.shard, reading.shard_counts(issuer))
        if scope.delta:
            since = look.whole.as_of if look.whole else 0
            return elements.Recorded(
                lambda: delta.entries(reading, issuer, scope.shard, since=since, as_of=intent.as_of, expired_before=until), fits=fits
            )
        return elements.Recorded(
            lambda: reading.crl_entries(issuer, scope.shard, as_of=intent.as_of, expired_before=until),
            fits=fits,
            pages=lambda: elements.pages(reading, issuer, scope.shard, as_of=intent.as_of, expired_before=until),
        )

    def _kept(self, scope: Scope, intent: CrlIntent, until: UnixTime, tally: Tally) -> AbstractContextManager[gate.Wanted]:
        tally.bring(as_of=intent.as_of, expired_before=until)
        now = self._clock.now()
        if not 0 <= now - self._audited.get(scope.name, -AUDIT_EVERY) < AUDIT_EVERY:
            if not tally.audited():
                raise Broken(
                    "crl-tally",
                    f"What the gate knew {scope.name} to list is not what the record says; it begins anew.",
                    why="Its files were changed, or a disk lost some of them.",
                )
            self._audited[scope.name] = now
        return tally.opened()

    def _youngest(self, scope: Scope, intent: CrlIntent) -> Sequence[bytes]:
        """Certificates that a shard's CRL lists, as they were issued: what they point to must be this CRL (R08).

        Of a shard where nothing happened of late, the oldest: none goes unchecked that lists anybody.
        """
        if scope.url is None:
            return ()
        found: list[bytes] = []
        rows: Sequence[ListedChange] = ()
        for after in (max(0, intent.as_of - _RECENT), 0):
            rows = rows or self._reading.listed_changes(scope.issuer.id, scope.shard, after=after, as_of=intent.as_of, limit=_LOOKED_AT)
        for row in rows:
            ref = CertificateRef(scope.issuer.id, Serial(int.from_bytes(row[2], "big")))
            record = self._reading.find_certificate(ref)
            if row[3] != Reason.removeFromCRL and record is not None and record.der is not None:
                found.append(record.der)
        return found

    def _departed(self, issuer: IssuerId) -> _Departed:
        return _Departed(self._reading, issuer)

    def _still_ours(self, issuer: Issuer, lease: Lease) -> None:
        """Signing and checking may have lasted longer than the lease."""
        kept = self._take(issuer)
        if kept is None or kept.fence != lease.fence:
            raise Conflict(
                "lease-lost", f"Another publisher took over the CRL of {issuer.id} meanwhile.", why="This one was paused for too long."
            )


class _Departed:
    """Asks the record about one serial."""

    def __init__(self, reading: Reading, issuer: IssuerId) -> None:
        self._reading = reading
        self._issuer = issuer

    def __call__(self, serial: Serial) -> Revocation | None:
        found = self._reading.status_of(self._issuer, serial)
        return found[1] if found else None


def _outcome(scope: Scope, result: Result, cause: Cause | None, head: Head | None) -> Outcome:
    return Outcome(scope.issuer.id, result, cause, head, shard=scope.shard, delta=scope.delta)


def _overtaken(scope: Scope) -> Conflict:
    return Conflict("outlet-changed", f"Another publisher has replaced {scope.name} meanwhile.")
