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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ca.der import writer
from ca.errors import FleetcaError
from ca.model import CertificateRef, CertificateState, ChangeNumber, Issuer, IssuerId, RollEntry, Serial, UnixTime
from ocsp.model import UNKNOWN, Packed, Policy, SerialCheck, Status, Verdict, Window
from ocsp.ports import Answers, Roll, SpoolWriting, Stopwatch
from ocsp.rules import freshness, packed
from ocsp.rules.fresh import Envelope, Pieces, wrapped
from ocsp.rules.issuers import FORMS, prefixes, under
from ocsp.rules.issuers import status as status_of
from ocsp.rules.reread import chosen, reread
from ocsp.seats import Seat, Seats

_log = logging.getLogger("fleetca.ocsp")

_FEWEST: Final = 10
_MOST: Final = 1000
"""Certificates in a page."""
_PAGE_TAKES: Final = 0.25
"""Seconds that a page may take, since a revocation waits for it: a page of a key that signs slowly, in a token say, becomes a short one."""
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
    issuer: IssuerId
    seat: Seat
    sign: Callable[[bytes], bytes]
    key_hash: bytes
    pieces: Pieces
    envelope: Envelope
    read: dict[tuple[Verdict, bool], set[int]]
    """Status, and whether with a reason -> forms in which such answers were read again since this key signs (P11)."""
    last: tuple[Status, Window | None, set[int]] | None = None
    """Of the last status: when an answer about it holds, and what `read` has. Almost all certificates have the very same."""

    def about(self, status: Status) -> tuple[Status, Window | None, set[int]]:
        """See `last`."""
        if self.last is None or self.last[0] is not status:
            self.last = status, self.pieces.window(status), self.read.setdefault((status.verdict, bool(status.reason)), set())
        return self.last

    def renew(self, pieces: Pieces) -> None:
        """Another second has begun."""
        self.pieces, self.last = pieces, None

    def forget(self) -> None:
        """Nothing of this key counts as read any more."""
        for forms in self.read.values():
            forms.clear()


_Draft = tuple[_Hand, set[int], bytes, bytes, Serial, int, Status, UnixTime, Window, ChangeNumber]
"""An answer that is not signed yet: who signs, of `_Hand.read` what belongs to its status, its CertID and ResponseData, and what is packed of it."""
_Signed = tuple[_Hand, bytes, bytes, Packed]
"""Who signed, CertID, ResponseData, and the rest."""


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
        clock: Stopwatch,
        check: SerialCheck | None = None,
        forms: Iterable[int] = FORMS,
    ) -> None:
        self._roll, self._spool, self._files, self._seats, self._clock = roll, spool, files, seats, clock
        self._policy = freshness.judge(policy)
        self._prefixes = {one.id: {form: prefixes(one.subject, one.spki)[form][1] for form in forms} for one in issuers}
        self._forms = tuple(forms)
        self._hands: dict[IssuerId, _Hand] = {}
        self._change = spool.change()
        self._waiting: list[_Draft] = []
        """To be signed when their page is done. What is alike is done together, since a signature leaves nothing else in the caches."""
        self._newest: int | None = None
        """Up to this row everything was looked at; None before the first walk."""
        self._began: int | None = None
        """In a first walk, which found the spool empty: the row before the first certificate that mattered."""
        self._last = 0
        """The last row when a walk began."""
        self._page = _FEWEST
        self._page_began = 0.0
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
        while entries := self._entries_after(self._newest):
            welcomed = self._newest
            for entry in entries:
                self._check_serial(entry)
                if entry.state is CertificateState.intended:
                    break  # it may be issued the next time
                signed += self._sign_due(entry, as_of=as_of, now=now)[0]
                welcomed = entry.row
            self._end_page()
            self._newest = welcomed
            if welcomed != entries[-1].row:
                break
            self.follow()  # a revocation waits for no more than a page
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
        as_of = self._roll.change_number() if self._change is None else self._change
        entries = self._entries_after(progress.row)
        now = self._clock.now()
        signed = failed = 0
        if progress.row == 0:
            self._all_ours = self._check is not None
            self._began, self._last = None if self._spool.filled() else 0, self._roll.last_row()
        for entry in entries:
            self._check_serial(entry)
            if entry.state is CertificateState.intended and self._newest is None:
                self._newest = entry.row - 1  # it is welcomed once it is issued, with all that come after it
            done, not_done = self._sign_due(entry, as_of=as_of, now=now)
            signed, failed = signed + done, failed + not_done
        if self._began is not None and entries:
            self._make_room(entries[-1].row, first=not progress.signed + signed)
        refused = self._end_page()
        signed, failed = signed - refused, failed + refused
        if not entries and self._newest is None:
            self._newest = progress.row
        if not entries and self._check is not None and self._all_ours:
            self._spool.set_proven(self._check.mark)
        if not entries:
            self._began = None
        return Progress(
            seen=progress.seen + len(entries),
            signed=progress.signed + signed,
            failed=progress.failed + failed,
            row=entries[-1].row if entries else progress.row,
            done=not entries,
        )

    def _entries_after(self, row: int) -> Sequence[RollEntry]:
        """The next page."""
        self._page_began = self._clock.monotonic()
        return self._roll.statuses_after(row, self._page)

    def _end_page(self) -> int:
        """Deliver it, and make the next one as long as there is time for; how many answers were left out."""
        refused = self._deliver()
        took = self._clock.monotonic() - self._page_began
        if took > _PAGE_TAKES:
            self._page = max(_FEWEST, self._page // 2)
        elif took < _PAGE_TAKES / 3:
            self._page = min(_MOST, self._page * 2)
        return refused

    def _make_room(self, row: int, *, first: bool) -> None:
        """Tell the spool how much is to come if the rest is like what a first walk saw up to this row: copying a table costs as much as signing."""
        if first or self._began is None:
            self._began = row
        else:
            self._spool.expect((self._last - self._began) / (row - self._began))

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
        due: Sequence[int] = self._forms
        if self._began is None:  # in a first walk none was ever signed
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
        """Have the answers about one certificate in these forms signed with their page; how many those are."""
        hand = self._hand(ref.issuer, now)
        if hand is None:
            return 0
        _, window, read = hand.about(status)
        if window is None:
            return 0
        window, waiting = _spread(window, ref, now), self._waiting
        number, prefixes_of, tbs_of = writer.integer(ref.serial), self._prefixes[ref.issuer], hand.pieces.tbs
        done = 0
        for form in forms:
            octets = wrapped(prefixes_of[form] + number)
            tbs = tbs_of(octets, status, None)
            if tbs is not None:
                waiting.append((hand, read, octets, tbs, ref.serial, form, status, now, window, as_of))
                done += 1
        return done

    def _deliver(self) -> int:
        """Sign what waits, read the sample again, see that files are there, and then that the spool knows; what is not in the spool is due again.
        How many answers were left out."""
        drafts, self._waiting = self._waiting, []
        signatures = [draft[0].sign(draft[3]) for draft in drafts]
        archive, share = self._policy.archive, self._policy.reread_share
        answers: list[_Signed] = []
        again: list[_Signed] = []
        for (hand, read, certificate_id, tbs, serial, form, status, now, window, as_of), signature in zip(drafts, signatures, strict=True):
            answer = hand, certificate_id, tbs, Packed(serial, form, status, now, window, archive, as_of, hand.key_hash, signature)
            answers.append(answer)
            if form not in read or chosen(signature, share):
                read.add(form)
                again.append(answer)
        wrong = [answer for answer in again if not self._reads_back(*answer)]
        if wrong:
            answers = [answer for answer in answers if answer not in wrong]
        if self._files is not None and answers:
            for hand, certificate_id, tbs, one in answers:
                self._files.put(certificate_id, hand.envelope.response(tbs, one.signature), one.window)
            self._files.flush()
        self._spool.put((hand.issuer, one) for hand, _, _, one in answers)
        return len(wrong)

    def _reads_back(self, hand: _Hand, certificate_id: bytes, tbs: bytes, one: Packed) -> bool:
        """Whether an answer says what it should (P11), also when it is put together from its record.

        Raises:
            Broken: it does not say it.
        """
        responder = hand.seat.responder
        asked = packed.certificate_id(self._prefixes[responder.issuer][one.form], one.serial)
        body = hand.envelope.response(tbs, one.signature)
        try:
            reread(body, responder, [(asked, one.status)], produced_at=one.produced_at, window=one.window, nonce=None)
            if asked.octets == certificate_id and packed.body(one, responder, asked) == body:
                return True
        except FleetcaError:
            hand.forget()
            raise
        hand.forget()
        _log.error("a packed answer would not be the one that was signed; it is left out")
        return False

    def _hand(self, issuer: IssuerId, now: UnixTime) -> _Hand | None:
        hand, seat = self._hands.get(issuer), self._seats.current.get(issuer)
        if seat is None:
            return None
        if hand is None or hand.seat is not seat:
            self._spool.add_certificate(issuer, seat.responder.key_hash, seat.responder.certificate)
            hand = self._hands[issuer] = _Hand(
                issuer,
                seat,
                seat.key.sign,
                seat.responder.key_hash,
                Pieces(seat.responder, self._policy, now=now),
                Envelope(seat.responder),
                {},
            )
        elif hand.pieces.now != now:
            hand.renew(Pieces(seat.responder, self._policy, now=now))
        return hand


def _spread(window: Window, ref: CertificateRef, now: UnixTime) -> Window:
    """When it is due again: between a quarter and a half of what is left, at the certificate's own point."""
    share = zlib.crc32(ref.serial.to_bytes(20, "big")) / 0xFFFFFFFF
    return Window(window.this_update, window.next_update, now + int((window.next_update - now) * (0.5 - 0.25 * share)))
