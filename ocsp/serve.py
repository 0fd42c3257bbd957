"""The responder of one process: its keys and certificates, its working set, and the loop that resolves `Miss` and `Sign`. Ring 4.

`reply` is called by web threads; `listen` and `renew` by one background thread. Whatever fails, the client gets an OCSP answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from ca.errors import FleetcaError, StoreUnavailable, Unavailable
from ca.model import CertificateRef, ChangeNumber, Issuer, IssuerId, Revocation, UnixTime
from ca.rules.window import date
from ocsp import respond
from ocsp.flights import Flights
from ocsp.front import Front
from ocsp.known import Known
from ocsp.lookup import Lookup
from ocsp.model import Answer, Finished, Found, Miss, Policy, Question, ResponseStatus, SerialCheck, Sign, Snapshot, Status
from ocsp.ports import Certifier, Clock, KeyMaker, Reading, Spool
from ocsp.rules import freshness, http
from ocsp.rules import responder as delegates
from ocsp.rules.issuers import ALL_FORMS, by_prefix, certificate_ids, prefixes
from ocsp.rules.reread import chosen, reread
from ocsp.seats import Seat, Seats
from ocsp.working import WorkingSet

_log = logging.getLogger("fleetca.ocsp")

_PAGE = 1000
_PAGES = 20
"""More changes than this at once, and the whole working set is forgotten instead."""
_SIGNATURES = 8
"""At once, in threads; more of them wait."""
_PATIENCE = 2.0
"""Seconds to wait for a place to sign, or for another's signature of the same; then tryLater."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a load balancer and an operator want to know of one worker."""

    ready: bool
    """It can sign, or has something finished."""
    heard: bool
    """The change number was confirmed within the last two seconds (P5)."""
    heard_at: UnixTime | None
    change: int | None
    responders: tuple[tuple[IssuerId, UnixTime, UnixTime], ...]
    """Issuer, notAfter, and when the next certificate is due."""
    missing: tuple[IssuerId, ...]
    """Issuers whose status we answer and for which no responder certificate is valid now."""
    finished: int
    octets: int
    finished_until: UnixTime | None
    """The latest nextUpdate among them."""
    spooled: int
    spooled_at: UnixTime | None
    """When the presigner last went through all certificates."""

    def alarms(self, now: UnixTime, lifetime: int) -> tuple[str, ...]:
        """Which clock is running out, and when; nothing while all is well."""
        found: list[str] = []
        if not self.heard:
            found.append("changes have not been heard since " + ("the start" if self.heard_at is None else date(self.heard_at)))
        found += [f"issuer {issuer} has no responder certificate that holds" for issuer in self.missing]
        found += [
            f"the responder certificate of issuer {issuer} ends at {date(not_after)} and should have been renewed at {date(renew_at)}"
            for issuer, not_after, renew_at in self.responders
            if issuer not in self.missing and now > (renew_at + not_after) // 2
        ]
        if (self.missing or not self.heard) and self.finished_until is not None:
            found.append(f"the last answer in memory ends at {date(self.finished_until)}")
        if self.spooled_at is not None and now - self.spooled_at > lifetime // 4:
            found.append(
                f"answers have not been signed ahead since {date(self.spooled_at)}; the last of them end by {date(self.spooled_at + lifetime)}"
            )
        return tuple(found)


class ResponderService:
    """Everything behind the web edge.

    Args:
        issuers: all of the deployment; those with a key of ours are answered for, for the others we are not authorized.
        make_key: makes a key in memory for each responder certificate.
        check: of serial numbers. Believed while the spool says that all on record pass; without a spool, on the word of who calls. None, or where
            it is not believed: the database is asked for each.
        spool: answers that somebody signed before, also while we were not there (P7).
        signs: False: nobody signs here, ever; what is in the spool is all there is.
    """

    def __init__(
        self,
        *,
        reading: Reading,
        certifier: Certifier,
        make_key: KeyMaker,
        issuers: Iterable[Issuer],
        policy: Policy,
        clock: Clock,
        check: SerialCheck | None = None,
        spool: Spool | None = None,
        signs: bool = True,
    ) -> None:
        self._policy = freshness.judge(policy)
        self._reading = reading
        self._clock = clock
        self._check, self._signs = check, signs
        self._is_ours = check.is_ours if check is not None and spool is None else None
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._by_prefix = by_prefix(self._issuers.values())
        self._answered = frozenset(issuer.id for issuer in self._issuers.values() if issuer.key is not None)
        answered = [issuer for issuer in self._issuers.values() if issuer.id in self._answered]
        self._ahead = None if signs else frozenset(prefixes(one.subject, one.spki)[form][1] for one in answered for form in ALL_FORMS)
        self._seats = Seats(
            issuers=[issuer for issuer in self._issuers.values() if signs and issuer.key is not None],
            certifier=certifier,
            make_key=make_key,
            clock=clock,
        )
        self._spool = spool
        self._working = WorkingSet(policy.working_octets)
        self._known = Known(
            self._working, spool, issuers=self._issuers.values(), by_prefix=self._by_prefix, policy=self._policy, clock=clock
        )
        self._lookup = Lookup(reading)
        self._signing = Flights[Finished](at_once=_SIGNATURES, patience=_PATIENCE, what="signatures")
        self._deaf = False
        self._listening_since: UnixTime | None = None
        self._counted = Counter[str]()
        self._counting = Lock()
        self.front = Front(
            finished=self._working.finished,
            seats=lambda: self._seats.current,
            heard_at=lambda: self._working.heard_at,
            policy=self._policy,
            clock=clock,
        )
        self._templates: frozenset[tuple[str, ...]] = frozenset()

    @property
    def policy(self) -> Policy:
        """As judged."""
        return self._policy

    def now(self) -> UnixTime:
        """By the clock of this worker."""
        return self._clock.now()

    # ---- Answering --------------------------------------------------------------------------------------------------

    def reply(self, question: Question) -> Answer:
        """The answer to a question; never raises."""
        try:
            answer = self._reply(question)
        except Exception:  # noqa: BLE001  the last line of defence: no client ever sees our fault as an HTTP 500
            _log.exception("an OCSP request could not be answered")
            answer = http.error(ResponseStatus.internalError)
        with self._counting:
            self._counted[answer.outcome] += 1
        return answer

    def counted(self) -> Mapping[str, int]:
        """Answers given since the start, by outcome, in front of Flask and behind it."""
        with self._counting:
            return self._counted + self.front.counted

    def snapshot(self) -> Snapshot:
        """What answers depend on now."""
        return self._snapshot(self._seats.current)

    def _snapshot(self, seats: Mapping[IssuerId, Seat]) -> Snapshot:
        change, heard_at = self._working.heard()
        return Snapshot(
            policy=self._policy,
            issuers=self._by_prefix,
            answered=self._answered,
            responders={issuer: seat.responder for issuer, seat in seats.items()},
            finished=self._known,
            change=change,
            heard_at=heard_at,
            is_ours=self._is_ours,
            ahead=self._ahead,
        )

    def _reply(self, question: Question) -> Answer:
        # One snapshot and one now for the whole of it; its keys are those of its certificates, whatever is renewed meanwhile.
        seats = self._seats.current
        snapshot = self._snapshot(seats)
        now = self._clock.now()
        found = Found()
        while True:
            decided = respond.answer(question, snapshot, now=now, found=found)
            if isinstance(decided, Answer):
                return decided
            try:
                if isinstance(decided, Miss):
                    found = replace(found, statuses=self._look_up(decided, snapshot))
                else:
                    found = replace(found, finished=self._sign(decided, seats[decided.responder.issuer], snapshot))
            except Unavailable as error:
                _log.warning("answering from what is finished: %s", error)
                found = replace(found, unavailable=True)

    def _look_up(self, miss: Miss, snapshot: Snapshot) -> dict[CertificateRef, Status]:
        if self._is_deaf():
            # Whoever waits for a database that is gone holds a thread that others need.
            raise StoreUnavailable("store-not-heard", "The database did not answer the last time it was asked for changes.")
        known = partial(self._kept_status, miss.only)
        return {ref: self._lookup.status(ref, as_of=snapshot.change, known=partial(known, ref)) for ref in miss.refs}

    def _kept_status(self, octets: bytes | None, ref: CertificateRef) -> Status | None:
        """What a whole other reply to the same question has found out since the snapshot."""
        now = self._clock.now()
        kept = None if octets is None else self._working.finished.get(octets)
        if (
            kept is None
            or kept.issuer != ref.issuer
            or not freshness.is_fresh(kept, now)
            or not freshness.heard(self._working.heard_at, now)
        ):
            return None
        return kept.status

    def _is_deaf(self) -> bool:
        since = self._listening_since
        return self._deaf or (since is not None and self._clock.now() - since > freshness.HEARD_WITHIN)

    def _sign(self, sign: Sign, seat: Seat, snapshot: Snapshot) -> Finished:
        if not sign.keep:
            return self._signing.bounded(lambda: self._signed(sign, seat))

        def finish() -> Finished:
            octets = sign.certificates[0].octets
            kept = self._working.finished.get(octets)
            if kept is not None and freshness.is_fresh(kept, self._clock.now()):
                # Kept since the snapshot, by a flight that had landed before this one could join it.
                return kept
            finished = http.ready(self._signed(sign, seat), self._policy, digest=http.digest_of(octets))
            self._working.keep(octets, finished, as_of=snapshot.change)
            return finished

        # A stampede signs once. Who has heard of a newer change does not take what was begun before it.
        return self._signing.once((sign.certificates[0].octets, snapshot.change, sign.statuses), finish)

    def _signed(self, sign: Sign, seat: Seat) -> Finished:
        finished = respond.conclude(sign, seat.key.sign(sign.tbs))
        if sign.template not in self._templates or chosen(finished.body, self._policy.reread_share):
            reread(
                finished.body,
                sign.responder,
                tuple(zip(sign.certificates, sign.statuses, strict=True)),
                produced_at=sign.produced_at,
                window=sign.window,
                nonce=sign.nonce,
            )
            self._templates |= {sign.template}
        return finished

    # ---- Listening --------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Take in what changed since the last time: one small query when nothing did. Called every second.

        Raises:
            StoreUnavailable: nothing was heard; what is finished goes on, and misses are tryLater without asking.
        """
        self._known.look()
        if self._check is not None and self._spool is not None:
            self._is_ours = self._check.is_ours if self._spool.proven() == self._check.mark else None
        self._listening_since = self._clock.now()
        before, _ = self._working.heard()
        try:
            self._listen()
            self._deaf = False
        except FleetcaError:
            self._deaf = True
            raise
        finally:
            self._listening_since = None
            if self._working.heard()[0] != before:  # also where only some of the changes could be read
                self.front.forget()

    def _listen(self) -> None:
        now = self._clock.now()
        known, _ = self._working.heard()
        latest = self._reading.change_number()
        if latest == known:
            self._working.advance(latest, (), now=now)
            return
        if known is None or latest < known:
            if known is not None:
                _log.error("the change number went back from %d to %d: the database was restored", known, latest)
            self._known.judge_from(latest, self._changes_before(latest))
            self._working.start_over(latest, now=now)
            return
        for _ in range(_PAGES):
            changes = self._reading.changes_since(known, _PAGE)
            changed = [octets for change in changes for octets in self._certificate_ids(change.ref)]
            self._known.changed(changes)
            if len(changes) < _PAGE:
                # `latest` was read first, so what this page ends with is at least that, unless rows vanished.
                self._working.advance(max((change.change for change in changes), default=latest), changed, now=now)
                return
            known = changes[-1].change
            self._working.advance(known, changed, now=now)
        latest = self._reading.change_number()
        self._known.judge_from(latest, ())
        self._working.start_over(latest, now=now)

    def _changes_before(self, latest: ChangeNumber) -> list[Revocation]:
        """The last changes up to a number, so that answers of the spool which are a little older than it can be judged."""
        found: list[Revocation] = []
        since = max(0, latest - _PAGE * _PAGES)
        while changes := self._reading.changes_since(since, _PAGE):
            found += changes
            since = changes[-1].change
        return found

    def _certificate_ids(self, ref: CertificateRef) -> list[bytes]:
        issuer = self._issuers.get(ref.issuer)
        return certificate_ids(issuer, ref.serial) if issuer else []

    # ---- Responder certificates -------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Get responder certificates where they are due; see `Seats.renew`."""
        before = self._seats.current
        self._seats.renew()
        if self._seats.current is not before:
            # Templates belong to a key (P11), so the next answer of each shape is read again.
            self._templates = frozenset()

    # ---- Health -----------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """How this worker is."""
        now = self._clock.now()
        change, heard_at = self._working.heard()
        seats = self._seats.current
        live = self._seats.live(now)
        finished = list(self._working.finished.values())
        spooled, spooled_at = self._known.spooled()
        return Health(
            ready=bool(live or finished or spooled),
            heard=freshness.heard(heard_at, now),
            heard_at=heard_at,
            change=change,
            responders=tuple(
                (issuer, seat.responder.not_after, delegates.renew_at(seat.responder)) for issuer, seat in sorted(seats.items())
            ),
            missing=tuple(sorted(self._answered - live)) if self._signs else (),
            finished=len(finished),
            octets=self._working.octets,
            finished_until=max((one.window.next_update for one in finished), default=None),
            spooled=spooled,
            spooled_at=spooled_at,
        )
