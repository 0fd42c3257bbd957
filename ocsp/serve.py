"""The responder of one process: its keys and certificates, its working set, and the loop that resolves `Miss` and `Sign`. Ring 4.

`reply` is called by web threads; `listen` and `renew` by one background thread. Whatever fails, the client gets an OCSP answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from ca.errors import Broken, FleetcaError, StoreUnavailable, Unavailable
from ca.model import CertificateRef, Issuer, IssuerId, Serial, UnixTime
from ocsp import respond
from ocsp.flights import Flights
from ocsp.front import Front, Seat
from ocsp.lookup import Lookup
from ocsp.model import Answer, Finished, Found, Miss, Policy, Question, ResponseStatus, Sign, Snapshot, Status
from ocsp.ports import Certifier, Clock, KeyMaker, Reading, ResponderKey
from ocsp.rules import freshness, http
from ocsp.rules import responder as delegates
from ocsp.rules.issuers import by_prefix, certificate_ids
from ocsp.rules.reread import chosen, reread
from ocsp.working import WorkingSet

_log = logging.getLogger("fleetca.ocsp")

_PAGE = 1000
_PAGES = 20
"""More changes than this at once, and the whole working set is forgotten instead."""
_SIGNATURES = 8
"""At once, in threads; more of them wait."""
_PATIENCE = 2.0
"""Seconds to wait for a place to sign, or for another's signature of the same; then tryLater."""
_RETRY = 1
"""Seconds until a refused or failed certification is tried again; doubles each time."""
_LONGEST_RETRY = 300
_LONGEST_RETRY_SILENT = 10
"""While no responder certificate holds at all: nothing new can be answered, so the signer is asked often."""


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


class ResponderService:
    """Everything behind the web edge.

    Args:
        issuers: all of the deployment; those with a key of ours are answered for, for the others we are not authorized.
        make_key: makes a key in memory for each responder certificate.
        is_ours: proves by arithmetic that a serial was never issued here; None asks the database for each.
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
        is_ours: Callable[[Serial], bool] | None = None,
    ) -> None:
        self._policy = freshness.judge(policy)
        self._reading = reading
        self._certifier = certifier
        self._make_key = make_key
        self._clock = clock
        self._is_ours = is_ours
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._by_prefix = by_prefix(self._issuers.values())
        self._answered = frozenset(issuer.id for issuer in self._issuers.values() if issuer.key is not None)
        self._seats: Mapping[IssuerId, Seat] = {}
        self._key: ResponderKey | None = None
        self._retries: dict[IssuerId, tuple[UnixTime, int]] = {}
        self._working = WorkingSet(policy.working_octets)
        self._lookup = Lookup(reading)
        self._signing = Flights[Finished](at_once=_SIGNATURES, patience=_PATIENCE, what="signatures")
        self._deaf = False
        self._listening_since: UnixTime | None = None
        self._counted = Counter[str]()
        self._counting = Lock()
        self.front = Front(
            finished=self._working.finished,
            seats=lambda: self._seats,
            heard_at=lambda: self._working.heard_at,
            policy=self._policy,
            clock=clock,
        )
        self._templates: frozenset[tuple[str, ...]] = frozenset()

    @property
    def policy(self) -> Policy:
        """As judged."""
        return self._policy

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
        return self._snapshot(self._seats)

    def _snapshot(self, seats: Mapping[IssuerId, Seat]) -> Snapshot:
        change, heard_at = self._working.heard()
        return Snapshot(
            policy=self._policy,
            issuers=self._by_prefix,
            answered=self._answered,
            responders={issuer: seat.responder for issuer, seat in seats.items()},
            finished=self._working.finished,
            change=change,
            heard_at=heard_at,
            is_ours=self._is_ours,
        )

    def _reply(self, question: Question) -> Answer:
        # One snapshot and one now for the whole of it; its keys are those of its certificates, whatever is renewed meanwhile.
        seats = self._seats
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
        return {ref: self._lookup.status(ref, as_of=snapshot.change) for ref in miss.refs}

    def _is_deaf(self) -> bool:
        since = self._listening_since
        return self._deaf or (since is not None and self._clock.now() - since > freshness.HEARD_WITHIN)

    def _sign(self, sign: Sign, seat: Seat, snapshot: Snapshot) -> Finished:
        if not sign.keep:
            return self._signing.bounded(lambda: self._signed(sign, seat))

        def finish() -> Finished:
            octets = sign.certificates[0].octets
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
        self._listening_since = self._clock.now()
        try:
            self._listen()
            self._deaf = False
        except FleetcaError:
            self._deaf = True
            raise
        finally:
            self._listening_since = None

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
            self._working.start_over(latest, now=now)
            return
        for _ in range(_PAGES):
            changes = self._reading.changes_since(known, _PAGE)
            changed = [octets for change in changes for octets in self._certificate_ids(change.ref)]
            if len(changes) < _PAGE:
                # `latest` was read first, so what this page ends with is at least that, unless rows vanished.
                self._working.advance(max((change.change for change in changes), default=latest), changed, now=now)
                return
            known = changes[-1].change
            self._working.advance(known, changed, now=now)
        self._working.start_over(self._reading.change_number(), now=now)

    def _certificate_ids(self, ref: CertificateRef) -> list[bytes]:
        issuer = self._issuers.get(ref.issuer)
        return certificate_ids(issuer, ref.serial) if issuer else []

    # ---- Responder certificates -------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Get responder certificates where they are due. Failures are tried again later; never raises.

        One new key is certified by every issuer at the same time, so that one answer can speak for several of them (RFC 6960 4.2.2.2); an issuer
        that could not be had then gets the same key later. A crash here leaves nothing: the key was in memory only, and its certificates
        are of no use to anyone else.
        """
        now = self._clock.now()
        if not any(self._asks(issuer, now) for issuer in self._answered if self._is_due(issuer, now)):
            return
        key, issuers = self._key, [issuer for issuer in sorted(self._answered) if self._is_due(issuer, now)]
        if key is None or not any(seat.key is key for issuer, seat in self._seats.items() if issuer not in issuers):
            key, issuers = self._new_key(), sorted(self._answered)
        for issuer in issuers:
            if not self._asks(issuer, now):
                continue
            try:
                self._seats = {**self._seats, issuer: self._seated(self._issuers[issuer], key, now)}
                self._retries.pop(issuer, None)
                # Templates belong to a key (P11), so the next answer of each shape is read again.
                self._templates = frozenset()
            except (FleetcaError, OSError) as error:
                seat = self._seats.get(issuer)
                silent = seat is None or now > seat.responder.not_after
                _, wait = self._retries.get(issuer, (0, 0))
                wait = min(_LONGEST_RETRY_SILENT if silent else _LONGEST_RETRY, wait * 2 or _RETRY)
                self._retries[issuer] = (now, wait)
                _log.warning("no new responder certificate for issuer %s, next try in %d s: %s", issuer, wait, error)

    def _is_due(self, issuer: IssuerId, now: UnixTime) -> bool:
        seat = self._seats.get(issuer)
        return seat is None or now >= delegates.renew_at(seat.responder) or now < seat.responder.not_before

    def _asks(self, issuer: IssuerId, now: UnixTime) -> bool:
        """Whether its last failure is long enough ago. Also bounded from below: a clock that was set back does not stop us from asking."""
        tried_at, wait = self._retries.get(issuer, (0, 0))
        return not 0 <= now - tried_at < wait

    def _new_key(self) -> ResponderKey:
        key = self._make_key()
        if any(seat.responder.spki == key.spki for seat in self._seats.values()):
            raise Broken("responder-key-reused", "A responder key was handed out twice.", why="Each renewal has a new key.")
        self._key = key
        return key

    def _seated(self, issuer: Issuer, key: ResponderKey, now: UnixTime) -> Seat:
        info = delegates.request_info(key.spki, issuer.id)
        csr = delegates.certification_request(info, key.algorithm, key.sign(info))
        certificate = self._certifier.certify(issuer.id, csr)
        found = delegates.responder(issuer, certificate, spki=key.spki, algorithm=key.algorithm, now=now)
        _log.info("responder certificate for issuer %s holds until %d", issuer.id, found.not_after)
        return Seat(found, key)

    # ---- Health -----------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """How this worker is."""
        now = self._clock.now()
        change, heard_at = self._working.heard()
        seats = self._seats
        live = {issuer for issuer, seat in seats.items() if seat.responder.not_before <= now <= seat.responder.not_after}
        finished = len(self._working.finished)
        return Health(
            ready=bool(live or finished),
            heard=freshness.heard(heard_at, now),
            heard_at=heard_at,
            change=change,
            responders=tuple(
                (issuer, seat.responder.not_after, delegates.renew_at(seat.responder)) for issuer, seat in sorted(seats.items())
            ),
            missing=tuple(sorted(self._answered - live)),
            finished=finished,
            octets=self._working.octets,
        )
