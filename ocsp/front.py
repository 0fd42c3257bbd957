"""Answers that need no thread: what is finished, and what one quick signature finishes. Ring 4: rules only.

It takes the octets of a request and gives header lines and body, or None: then `ResponderService.reply` answers, which knows everything. Where
both could, they give the same octets (finished answers) or the same ResponseData (fresh ones); tests hold them together. It is called by the
one thread of the event loop and must not wait for anything.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from ca.errors import FleetcaError, Malformed
from ca.model import AlgorithmName, IssuerId, UnixTime
from ocsp.model import MAX_OCTETS, Finished, Policy, Question, ResponseStatus, Status
from ocsp.ports import Clock
from ocsp.rules import freshness, http, shapes
from ocsp.rules.fresh import Envelope, Pieces
from ocsp.rules.request import read_request
from ocsp.rules.reread import chosen, reread
from ocsp.seats import Seat

_log = logging.getLogger("fleetca.ocsp")

Ready = tuple[bytes, bytes, str | None]
"""Header lines and body of a response with HTTP 200, and what it is counted as where it may be repeated in the same second (`Front.repeats`)."""

QUICK: Final = frozenset(map(AlgorithmName, ("p256", "ed25519")))
"""Keys that sign in some ten microseconds; others would hold everybody up and sign in threads."""
_AGAIN = 1
"""Seconds between two requests for one certificate that are let through to have its answer made anew."""
_TARGETS = 20_000
"""So many GET targets are remembered with the CertID that they mean."""
_DUE = 10_000
"""So many due answers are remembered as asked for."""


class Repeats:
    """What was sent for the same octets in the same second, kept by who sends it; over once a second or a change has gone by."""

    __slots__ = ("last", "second", "sent")

    def __init__(self, second: UnixTime) -> None:
        self.second = second
        self.sent: dict[bytes, tuple[bytes, str]] = {}
        """Octets of a request -> octets of the response, and what it is counted as."""
        self.last: dict[bytes, tuple[bytes, str]] = {}
        """The same for requests that are the last of their connection."""


class _Hand:
    """What one seat signs with in one second, and the forms of answers that were read again since it is there."""

    __slots__ = ("envelope", "pieces", "read", "seat")

    def __init__(self, seat: Seat, pieces: Pieces) -> None:
        self.seat, self.pieces = seat, pieces
        self.envelope = Envelope(seat.responder)
        self.read: set[tuple[bytes, bool, str]] = set()


class Front:
    """In front of a `ResponderService`.

    Args:
        finished: the working set, as it changes.
        seats: who can sign now.
        heard_at: when the change number was last confirmed.
    """

    def __init__(
        self,
        *,
        finished: Mapping[bytes, Finished],
        seats: Callable[[], Mapping[IssuerId, Seat]],
        heard_at: Callable[[], UnixTime | None],
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._finished, self._seats, self._heard_at = finished, seats, heard_at
        self._policy, self._clock = policy, clock
        self._hands: dict[IssuerId, _Hand] = {}
        self._targets: dict[bytes, bytes] = {}
        self._due: dict[bytes, UnixTime] = {}
        self.path: Final = policy.path.encode()
        self.below: Final = self.path + b"/"
        self.posts: Final = b"POST " + self.path
        self.gets: Final = b"GET " + self.below
        error = http.error(ResponseStatus.tryLater)
        self.later: Final[Ready] = (http.lines(error.headers), error.body, None)
        """For when too many wait already."""
        malformed = http.error(ResponseStatus.malformedRequest)
        self._malformed: Final[Ready] = (http.lines(malformed.headers), malformed.body, None)
        self.now: Final = clock.now
        self.repeats = Repeats(-1)
        """Whoever adds to it takes it before asking for the answer: then nothing that a change has ended since can come into the next one."""
        self.counted: Final = Counter[str]()
        """Answers given here, by outcome."""

    def post(self, body: bytes) -> Ready | None:
        """The answer to a POST whose content type is right or absent."""
        certificate_id = shapes.certificate_id(body)
        if certificate_id is not None:
            ready = self._kept(certificate_id)
        else:
            shape = shapes.with_nonce(body)
            ready = None if shape is None else self._fresh(body, *shape)
        return ready or self._refused(body)

    def _refused(self, body: bytes) -> Ready | None:
        """What cannot be read is refused here: whoever sends much of it takes no thread from others (R22)."""
        try:
            read_request(body, max_certificates=self._policy.max_certificates)
        except Malformed:
            self.counted[ResponseStatus.malformedRequest.name] += 1
            return self._malformed
        return None

    def get(self, target: bytes) -> Ready | None:
        """The answer to a GET; `target` as it was sent."""
        certificate_id = self._targets.get(target)
        if certificate_id is not None:
            return self._kept(certificate_id)
        octets = shapes.octets_of(target[len(self.below) :])
        if octets is None:
            return self._undecodable(target)
        ready = self.post(octets)
        certificate_id = shapes.certificate_id(octets)
        if ready is not None and certificate_id is not None:
            # Only what has an answer is remembered, so nobody can fill this but with targets that are asked for.
            if len(self._targets) >= _TARGETS:
                self._targets.clear()
            self._targets[target] = certificate_id
        return ready

    def _undecodable(self, target: bytes) -> Ready | None:
        rest = target.partition(b"?")[0][len(self.path) :]
        try:
            octets = http.decode_path(rest.decode("ascii"))
        except (Malformed, UnicodeDecodeError):
            octets = b""
        return self._refused(octets) if len(octets) <= MAX_OCTETS else None

    def _kept(self, certificate_id: bytes) -> Ready | None:
        finished = self._finished.get(certificate_id)
        if finished is None:
            return None
        now = self._clock.now()
        window = finished.window
        # Almost always the first; `is_fresh` says the same with more care.
        fresh = finished.produced_at <= now < window.refresh_at or freshness.is_fresh(finished, now)
        if not fresh and not self._goes_on(certificate_id, finished, now):
            return None
        self.counted[finished.outcome] += 1
        if now > finished.plain_until:
            return self._shorter(certificate_id, finished, now), finished.body, None
        if self.repeats.second != now:
            self.repeats = Repeats(now)
        return finished.head, finished.body, finished.outcome if fresh else None

    def forget(self) -> None:
        """Repeat nothing: answers have just been taken out of the working set. Called by the one who hears of changes."""
        self.repeats = Repeats(-1)

    def _goes_on(self, certificate_id: bytes, finished: Finished, now: UnixTime) -> bool:
        """Whether an answer that should be made anew is given meanwhile: to all but one request a second, which has it made."""
        if not finished.produced_at <= now < finished.window.next_update:
            return False
        if self._due.get(certificate_id, 0) > now - _AGAIN:
            return True
        if len(self._due) > _DUE:
            self._due.clear()
        self._due[certificate_id] = now
        return False

    def _shorter(self, certificate_id: bytes, finished: Finished, now: UnixTime) -> bytes:
        question = Question(method="POST", raw_path=self._policy.path)
        return http.lines(http.reply(question, finished, self._policy, now=now, digest=http.digest_of(certificate_id)).headers)

    # ---- Fresh answers ----------------------------------------------------------------------------------------------

    def _fresh(self, body: bytes, certificate_id: bytes, nonce: bytes) -> Ready | None:
        finished = self._finished.get(certificate_id)
        if finished is None or finished.status is None or finished.issuer is None:
            return None
        now = self._clock.now()
        seat = self._seats().get(finished.issuer)
        if seat is None or seat.key.algorithm not in QUICK:
            return None
        if not freshness.is_fresh(finished, now) or not freshness.heard(self._heard_at(), now):
            return None
        hand = self._hands.get(finished.issuer)
        if hand is None or hand.seat is not seat:
            hand = self._hands[finished.issuer] = _Hand(seat, Pieces(seat.responder, self._policy, now=now))
        elif hand.pieces.now != now:
            hand.pieces = Pieces(seat.responder, self._policy, now=now)
        try:
            signed = self._signed(hand, body, (certificate_id, nonce), finished.status, now)
        except FleetcaError as error:
            _log.warning("a fresh answer goes the long way: %s", error)
            return None
        if signed is None:
            return None
        self.counted[finished.outcome] += 1
        return b"Content-Type: application/ocsp-response\r\nContent-Length: %d\r\nCache-Control: no-store\r\n" % len(signed), signed, None

    def _signed(self, hand: _Hand, body: bytes, asked: tuple[bytes, bytes], status: Status, now: UnixTime) -> bytes | None:
        certificate_id, nonce = asked
        tbs = hand.pieces.tbs(certificate_id, status, nonce)
        if tbs is None:
            return None
        answer = hand.envelope.response(tbs, hand.seat.key.sign(tbs))
        # A CertID begins with its hash algorithm, in one of the eight forms in which our issuers are named.
        template = (certificate_id[2 : 4 + certificate_id[3]], bool(status.reason), status.verdict.value)
        if template not in hand.read or chosen(answer, self._policy.reread_share):
            window = freshness.window(self._policy, hand.seat.responder, now=now, since=status.since, digest=http.digest_of(certificate_id))
            assert window is not None, "there was time to say something"
            (found,) = read_request(body, max_certificates=1).certificates
            reread(answer, hand.seat.responder, [(found, status)], produced_at=now, window=window, nonce=nonce)
            hand.read.add(template)
        return answer
