"""Publishing the CRL of an issuer whose key is ours. Ring 4: rules and ports only.

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

from contextlib import suppress

from ca.errors import Broken, Conflict, FleetcaError, NotFound
from ca.model import ChangeNumber, CrlIntent, CrlNumber, Issuer, IssuerId, Lease, OutletCopy, Revocation, Serial
from ca.ports import Clock, Failpoint, Outlet
from crl.model import WHOLE, Cause, Head, Outcome, Policy, Result, file_name, lease_name
from crl.ports import CrlSigner, Leases, Reading
from crl.rules import gate, schedule
from crl.rules.gate import Before, Expected
from crl.shelf import Shelf, Visible

_PAGE = 500


class Publisher:
    """One publisher among any number; the database decides which of them acts.

    Args:
        holder: names this publisher in leases; no two running ones share it.
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
    ) -> None:
        self._reading = reading
        self._leases = leases
        self._signer = signer
        self._outlet = outlet
        self._clock = clock
        self._failpoint = failpoint
        self._policy = policy
        self._holder = holder
        self._shelf = Shelf(outlet, keep=False)
        self._nothing_up_to: dict[IssuerId, ChangeNumber] = {}
        self._unknown: dict[IssuerId, CrlNumber] = {}
        """Published numbers that the record does not know and will not learn."""

    def publish(self, issuer: Issuer, *, asked: bool = False) -> Outcome:
        """Publish if it is due, or if somebody asks.

        Raises:
            Broken: the gate refused; readers keep what they have.
            Conflict: another publisher was faster.
            Unavailable: database, signer, key or disk is not to be had; repeating is safe.
        """
        if issuer.key is None or not issuer.may_sign_crl:
            return Outcome(issuer.id, Result.no_key, None, self._shelf.look(issuer).head)
        visible, recorded, cause = self._look(issuer, asked=asked)
        if cause is None and not self._record_is_behind(issuer, visible, recorded):
            return Outcome(issuer.id, Result.not_due, None, visible.head)
        lease = self._take(issuer)
        if lease is None:
            return Outcome(issuer.id, Result.led_elsewhere, cause, visible.head)
        self._catch_up(issuer, lease)
        # Whoever held the lease before may have published between our first look and now.
        visible, recorded, cause = self._look(issuer, asked=asked)
        head = visible.head if cause is None else self._make(issuer, lease, visible=visible, recorded=recorded)
        self._give_back(issuer)
        return Outcome(issuer.id, Result.not_due if cause is None else Result.published, cause, head)

    def _look(self, issuer: Issuer, *, asked: bool) -> tuple[Visible, CrlIntent | None, Cause | None]:
        visible = self._shelf.look(issuer)
        recorded = self._reading.last_crl(issuer.id, WHOLE)
        cause = schedule.due(
            self._clock.now(),
            issuer=issuer,
            published=visible.head,
            recorded=recorded.number if recorded else 0,
            changed=self._changed(issuer.id, since=recorded.as_of if recorded else 0),
            policy=self._policy,
        )
        return visible, recorded, Cause.asked if asked and cause is None else cause

    def _changed(self, issuer: IssuerId, *, since: ChangeNumber) -> bool:
        """Whether a change above `since` concerns this issuer's CRL. Each change is looked at once: what concerned others is not read again."""
        at = max(since, self._nothing_up_to.get(issuer, 0))
        while page := self._reading.changes_since(at, _PAGE):
            if any(change.ref.issuer == issuer and change.listed for change in page):
                return True
            at = page[-1].change
            self._nothing_up_to[issuer] = at
        return False

    def _take(self, issuer: Issuer) -> Lease | None:
        with self._leases.writing() as book:
            return book.lease(lease_name(issuer.id), holder=self._holder, now=self._clock.now(), seconds=self._policy.lease)

    def _give_back(self, issuer: Issuer) -> None:
        """Between publications nobody holds the lease, so who is killed or replaced then holds up no revocation (P5: a minute)."""
        with suppress(FleetcaError), self._leases.writing() as book:  # then it ends by itself
            book.lease(lease_name(issuer.id), holder=self._holder, now=self._clock.now(), seconds=0)

    def _record_is_behind(self, issuer: Issuer, visible: Visible, recorded: CrlIntent | None) -> bool:
        """Whether readers have a CRL that is not recorded as published: a crash between put and record leaves that."""
        if visible.head is None or self._unknown.get(issuer.id) == visible.head.number:
            return False
        return recorded is None or recorded.number < visible.head.number

    def _catch_up(self, issuer: Issuer, lease: Lease) -> None:
        visible = self._shelf.look(issuer)
        if visible.head is None or not self._record_is_behind(issuer, visible, self._reading.last_crl(issuer.id, WHOLE)):
            return
        try:
            self._signer.crl_published(issuer.id, WHOLE, visible.head.number, lease.fence)
        except NotFound:
            # The record is older than the files: it was restored. The number of the file still counts, and the gate compares its entries.
            self._unknown[issuer.id] = visible.head.number

    def _make(self, issuer: Issuer, lease: Lease, *, visible: Visible, recorded: CrlIntent | None) -> Head:
        name = file_name(issuer.id)
        above = max(
            self._outlet.high_water(name),
            visible.head.number if visible.head else 0,
            recorded.number if recorded else 0,
        )
        with self._outlet.stage(name) as stage:
            intent = self._signer.sign_crl(issuer.id, shard=WHOLE, above=above, fence=lease.fence, sink_fd=stage.fileno())
            stage.sync()
            self._failpoint("publish.after-write")
            head = self._gate(stage.octets(), issuer, intent=intent, above=above, visible=visible, recorded=recorded)
            self._outlet.raise_high_water(name, head.number)
            self._still_ours(issuer, lease)
            copy = self._outlet.put_if_unchanged(name, stage, seen=visible.version)
        self._failpoint("publish.after-rename")
        self._probe(copy, issuer, head)
        self._failpoint("publish.before-record")
        self._signer.crl_published(issuer.id, WHOLE, head.number, lease.fence)
        return head

    def _gate(self, octets: bytes, issuer: Issuer, *, intent: CrlIntent, above: int, visible: Visible, recorded: CrlIntent | None) -> Head:
        listed_until = recorded.this_update if recorded else 0
        before = None
        if visible.head is not None:
            copy = self._outlet.current(file_name(issuer.id))
            if copy is None or copy.version != visible.version:
                raise _overtaken(issuer)
            # What readers have counts as published even where the record has not caught up; entries go by the later of the two.
            before = Before(copy.octets, max(listed_until, visible.head.this_update), self._departed(issuer.id))
        # The signer drops by its record alone, so it may list more than it must and never less.
        entries = self._reading.crl_entries(issuer.id, WHOLE, as_of=intent.as_of, expired_before=listed_until)
        expected = Expected(intent=intent, above=above, now=self._clock.now(), lifetime=self._policy.lifetime, entries=entries)
        return gate.check(octets, issuer, expected=expected, before=before)

    def _departed(self, issuer: IssuerId) -> _Departed:
        return _Departed(self._reading, issuer)

    def _still_ours(self, issuer: Issuer, lease: Lease) -> None:
        """Signing and checking may have lasted longer than the lease."""
        kept = self._take(issuer)
        if kept is None or kept.fence != lease.fence:
            raise Conflict(
                "lease-lost", f"Another publisher took over the CRL of {issuer.id} meanwhile.", why="This one was paused for too long."
            )

    def _probe(self, copy: OutletCopy, issuer: Issuer, head: Head) -> None:
        if gate.believe(copy.octets, issuer) != head:
            raise Broken("crl-not-put", f"What readers get as the CRL of {issuer.id} is not what was put there.")


class _Departed:
    """Asks the record about one serial."""

    def __init__(self, reading: Reading, issuer: IssuerId) -> None:
        self._reading = reading
        self._issuer = issuer

    def __call__(self, serial: Serial) -> Revocation | None:
        found = self._reading.status_of(self._issuer, serial)
        return found[1] if found else None


def _overtaken(issuer: Issuer) -> Conflict:
    return Conflict("outlet-changed", f"Another publisher has replaced the CRL of {issuer.id} meanwhile.")
