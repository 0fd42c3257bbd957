"""Signing answers before anybody asks: every certificate, in the forms that clients use, into the spool and into files. Ring 4.

Two things alternate: what changed is signed anew at once, and a walk over all certificates signs what is due. An answer is due from half of its
window on, up to a quarter of it earlier, at a point that belongs to its certificate: so what was signed in one go spreads over the next windows,
and a failure has the second half to be mended.

The change number is read before the statuses, so an answer is never newer than it says; and what changed meanwhile is signed again before the walk
goes on. A crash at any point leaves answers that are right as of their own change number; the next walk signs what it finds missing or late.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ca.der import writer
from ca.errors import FleetcaError, Unavailable
from ca.model import CertificateRef, CertificateState, ChangeNumber, Issuer, IssuerId, RollEntry, UnixTime
from ocsp.model import UNKNOWN, Packed, Policy, SerialCheck, Status, Verdict, Window
from ocsp.ports import Answers, Clock, Roll, SpoolWriting
from ocsp.rules import freshness, packed
from ocsp.rules.fresh import Envelope, Pieces
from ocsp.rules.issuers import FORMS, prefixes, under
from ocsp.rules.issuers import status as status_of
from ocsp.rules.reread import chosen, reread
from ocsp.seats import Seat, Seats

_log = logging.getLogger("fleetca.ocsp")

_PAGE: Final = 500
_CHANGES: Final = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    """What a walk has done so far."""

    seen: int = 0
    """Certificates whose answers were looked at."""
    signed: int = 0
    failed: int = 0
    """Answers that could not be made; an older one may still be there."""
    row: int = 0
    """Where it goes on."""
    done: bool = False


@dataclass(slots=True)
class _Hand:
    seat: Seat
    pieces: Pieces
    envelope: Envelope
    read: dict[tuple[Verdict, bool], set[int]]
    """Status, and whether with a reason -> forms in which such answers were read again since this key signs (P11)."""


_Signed = tuple[_Hand, Packed, bytes, bytes, bool]
"""Who signed, the answer, its CertID and ResponseData, and whether it is read again before it leaves (P11)."""


class Presigning:
    """Keeps the spool, and if wanted a folder of files, full of fresh answers. Not safe for several threads.

    Args:
        issuers: those to answer for.
        files: None: into the spool only.
        forms: of CertIDs, by their place in `ocsp.rules.issuers.prefixes`.
        check: of serial numbers. The spool says of it whether all on record pass, for those who answer; None says nothing.
    """

    def __init__(
        self,
        *,
        roll: Roll,
        spool: SpoolWriting,
        files: Answers | None,
        seats: Seats,
        issuers: Iterable[Issuer],
        policy: Policy,
        clock: Clock,
        check: SerialCheck | None = None,
        forms: Iterable[int] = FORMS,
    ) -> None:
        self._roll, self._spool, self._files, self._seats, self._clock = roll, spool, files, seats, clock
        self._policy = freshness.judge(policy)
        self._prefixes = {one.id: {form: prefixes(one.subject, one.spki)[form][1] for form in forms} for one in issuers}
        self._forms = tuple(forms)
        self._hands: dict[IssuerId, _Hand] = {}
        self._change = spool.change()
        self._waiting: list[_Signed] = []
        """Signed, and nowhere yet: until its page is done. What is alike is done together, since a signature leaves nothing else in the caches."""
        self._newest: int | None = None
        """Up to this row everything was looked at; None before the first walk."""
        self._began: int | None = None
        """In a walk that found the spool empty: the row before the first certificate that mattered."""
        self._check = check
        self._all_ours = check is not None
        if check is not None and spool.proven() not in {None, check.mark}:
            spool.set_proven(None)

    # ---- What changed -----------------------------------------------------------------------------------------------

    def follow(self) -> int:
        """Sign anew what changed since the last time; how many answers. One small query when nothing did. Called every second.

        Raises:
            Unavailable: the database, the key or the spool; what was not followed is followed the next time.
        """
        latest = self._roll.change_number()
        if self._change is None or latest < self._change:
            # The first time everything is due anyway; a restored database is told by the records' own change numbers.
            self._spool.set_change(latest)
            self._change = latest
            return 0
        signed = 0
        while self._change < latest:
            changes = self._roll.changes_since(self._change, _CHANGES)
            for ref in dict.fromkeys(change.ref for change in changes):
                record = self._roll.status_of(ref.issuer, ref.serial)
                if record is not None and ref.issuer in self._prefixes:
                    signed += self._sign_all(ref, under(self._policy, ref.issuer, status_of(record)), as_of=latest)
            self._deliver()
            self._change = changes[-1].change if changes else latest
            self._spool.set_change(self._change)
        return signed

    def welcome(self) -> int:
        """Sign the first answers of what was issued since the last time; how many. Called every second; a walk finds what it missed.

        Raises:
            Unavailable: see `follow`.
        """
        if self._newest is None:
            return 0
        as_of, now = self._roll.change_number(), self._clock.now()
        signed = 0
        while entries := self._roll.statuses_after(self._newest, _PAGE):
            for entry in entries:
                self._check_serial(entry)
                if entry.state is CertificateState.intended:
                    self._deliver()
                    return signed  # it may be issued the next time
                signed += self._sign_due(entry, as_of=as_of, now=now)[0]
            self._deliver()
            self._newest = entries[-1].row
        return signed

    # ---- The walk ---------------------------------------------------------------------------------------------------

    def walk(self, progress: Progress = Progress(), *, also: Callable[[Progress], object] = lambda _: None) -> Progress:
        """Sign what is due, from where `progress` says to the end.

        Args:
            also: called after each page; what it raises ends the walk.

        Raises:
            Unavailable: see `follow`; call again with the progress that `also` was told last.
        """
        while not progress.done:
            progress = self.page(progress)
            self.follow()
            also(progress)
        self._spool.keep(self._clock.now())
        return progress

    def page(self, progress: Progress) -> Progress:
        """Sign what is due in the next page of certificates.

        Raises:
            Unavailable: see `follow`.
        """
        as_of = self._roll.change_number()
        entries = self._roll.statuses_after(progress.row, _PAGE)
        now = self._clock.now()
        signed = failed = 0
        if progress.row == 0:
            self._all_ours = self._check is not None
            self._began = None if self._spool.filled() else 0
        for entry in entries:
            self._check_serial(entry)
            if entry.state is CertificateState.intended and self._newest is None:
                self._newest = entry.row - 1  # it is welcomed once it is issued, with all that come after it
            done, not_done = self._sign_due(entry, as_of=as_of, now=now)
            signed, failed = signed + done, failed + not_done
        if self._began is not None and entries:
            self._make_room(entries[-1].row, first=not progress.signed + signed)
        refused = self._deliver()
        signed, failed = signed - refused, failed + refused
        if not entries and self._newest is None:
            self._newest = progress.row
        if not entries and self._check is not None and self._all_ours:
            self._spool.set_proven(self._check.mark)
        return Progress(
            seen=progress.seen + len(entries),
            signed=progress.signed + signed,
            failed=progress.failed + failed,
            row=entries[-1].row if entries else progress.row,
            done=not entries,
        )

    def _make_room(self, row: int, *, first: bool) -> None:
        """Tell the spool how much is to come if the rest is like what a first walk saw up to this row: copying a table costs as much as signing."""
        if first or self._began is None:
            self._began = row
        else:
            self._spool.expect((self._roll.last_row() - self._began) / (row - self._began))

    def _check_serial(self, entry: RollEntry) -> None:
        """A certificate whose serial is none of ours ends the proof at once, for all issuers: it is the rare case."""
        if self._check is None or entry.ref.issuer not in self._prefixes or self._check.is_ours(entry.ref.serial):
            return
        if self._all_ours:
            _log.warning(
                "certificates are on record whose serial numbers were not made with this check key: every serial is looked up from now on"
            )
            self._spool.set_proven(None)
        self._all_ours = False

    def _sign_due(self, entry: RollEntry, *, as_of: ChangeNumber, now: UnixTime) -> tuple[int, int]:
        """How many answers of one certificate were signed, and how many could not be."""
        if entry.ref.issuer not in self._prefixes or not self._matters(entry, now):
            return 0, 0
        status = under(self._policy, entry.ref.issuer, status_of((entry.state, entry.change)))
        is_due = self._is_due
        due = [form for form in self._forms if is_due(entry.ref, form, status, now)]
        signed = self._sign(entry.ref, due, status, as_of=as_of, now=now) if due else 0
        return signed, len(due) - signed

    def _matters(self, entry: RollEntry, now: UnixTime) -> bool:
        return entry.state is CertificateState.issued and entry.not_after + (self._policy.archive or 0) >= now

    def _is_due(self, ref: CertificateRef, form: int, status: Status, now: UnixTime) -> bool:
        found = self._spool.get(ref.issuer, ref.serial, form)
        if found is None or found.status != status or found.archive != self._policy.archive:
            return True
        return not found.produced_at <= now < found.window.refresh_at

    # ---- Signing ----------------------------------------------------------------------------------------------------

    def _sign_all(self, ref: CertificateRef, status: Status, *, as_of: ChangeNumber) -> int:
        return 0 if status == UNKNOWN else self._sign(ref, self._forms, status, as_of=as_of, now=self._clock.now())

    def _sign(self, ref: CertificateRef, forms: Iterable[int], status: Status, *, as_of: ChangeNumber, now: UnixTime) -> int:
        """Sign the answers about one certificate in these forms; how many were made."""
        hand = self._hand(ref.issuer, now)
        window = None if hand is None else hand.pieces.window(status)
        if hand is None or window is None:
            return 0
        window, archive, share = _spread(window, ref, now), self._policy.archive, self._policy.reread_share
        number = writer.integer(ref.serial)
        prefixes_of, key_hash, sign, tbs_of = self._prefixes[ref.issuer], hand.seat.responder.key_hash, hand.seat.key.sign, hand.pieces.tbs
        read, waiting = hand.read.setdefault((status.verdict, bool(status.reason)), set()), self._waiting
        done = 0
        for form in forms:
            octets = writer.tlv(writer.SEQUENCE, prefixes_of[form] + number)
            tbs = tbs_of(octets, status, None)
            if tbs is None:
                continue
            signature = sign(tbs)
            one = Packed(ref.serial, form, status, now, window, archive, as_of, key_hash, signature)
            again = form not in read or chosen(signature, share)
            read.add(form)
            waiting.append((hand, one, octets, tbs, again))
            done += 1
        return done

    def _deliver(self) -> int:
        """Read the sample again, see that files are there, and then that the spool knows; what is not in the spool is due again. How many answers
        were left out."""
        waiting, self._waiting = self._waiting, []
        wrong = {at for at, signed in enumerate(waiting) if signed[4] and not self._reads_back(signed)}
        if wrong:
            waiting = [signed for at, signed in enumerate(waiting) if at not in wrong]
        if self._files is not None and waiting:
            for hand, one, certificate_id, tbs, _ in waiting:
                self._files.put(certificate_id, hand.envelope.response(tbs, one.signature), one.window)
            self._files.flush()
        for hand, one, _, _, _ in waiting:
            self._spool.put(hand.seat.responder.issuer, one)
        return len(wrong)

    def _reads_back(self, signed: _Signed) -> bool:
        """Whether an answer says what it should (P11), also when it is put together from its record.

        Raises:
            Broken: it does not say it.
        """
        hand, one, _, tbs, _ = signed
        responder, asked = hand.seat.responder, packed.certificate_id(self._prefixes[hand.seat.responder.issuer][one.form], one.serial)
        body = hand.envelope.response(tbs, one.signature)
        try:
            reread(body, responder, [(asked, one.status)], produced_at=one.produced_at, window=one.window, nonce=None)
            if packed.body(one, responder, asked) == body:
                return True
        except FleetcaError:
            hand.read.clear()  # nothing of this key counts as read any more
            raise
        hand.read.clear()
        _log.error("a packed answer would not be the one that was signed; it is left out")
        return False

    def _hand(self, issuer: IssuerId, now: UnixTime) -> _Hand | None:
        hand, seat = self._hands.get(issuer), self._seats.current.get(issuer)
        if seat is None:
            return None
        if hand is None or hand.seat is not seat:
            self._spool.add_certificate(issuer, seat.responder.key_hash, seat.responder.certificate)
            hand = self._hands[issuer] = _Hand(seat, Pieces(seat.responder, self._policy, now=now), Envelope(seat.responder), {})
        elif hand.pieces.now != now:
            hand.pieces = Pieces(seat.responder, self._policy, now=now)
        return hand


def _spread(window: Window, ref: CertificateRef, now: UnixTime) -> Window:
    """When it is due again: between a quarter and a half of what is left, at the certificate's own point."""
    share = zlib.crc32(ref.serial.to_bytes(20, "big")) / 0xFFFFFFFF
    return Window(window.this_update, window.next_update, now + int((window.next_update - now) * (0.5 - 0.25 * share)))


def quietly(step: Callable[[], object]) -> bool:
    """Do it; False where something could not be had, which the log then says."""
    try:
        step()
    except Unavailable as error:
        _log.warning("answers are not signed ahead: %s", error)
        return False
    return True
