"""Who signs now: a key in memory, and the certificate that each issuer gave it. Ring 4.

One thread calls `renew`; any thread reads `current`, which is replaced and never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ca.errors import Broken, FleetcaError
from ca.model import Issuer, IssuerId, UnixTime
from ocsp.model import Responder
from ocsp.ports import Certifier, Clock, KeyMaker, ResponderKey
from ocsp.rules import responder as delegates

_log = logging.getLogger("fleetca.ocsp")

_RETRY = 1
"""Seconds until a refused or failed certification is tried again; doubles each time."""
_LONGEST_RETRY = 300
_LONGEST_RETRY_SILENT = 10
"""While no responder certificate holds at all: nothing new can be answered, so the signer is asked often."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A responder and the key that signs as it; both change together."""

    responder: Responder
    key: ResponderKey


class Seats:
    """The responder certificates of one process.

    Args:
        issuers: those to answer for.
        make_key: makes a key in memory for each renewal.
        one_key: it gives the same key each time, one that is kept elsewhere.
    """

    def __init__(self, *, issuers: Iterable[Issuer], certifier: Certifier, make_key: KeyMaker, clock: Clock, one_key: bool = False) -> None:
        self._issuers = {issuer.id: issuer for issuer in issuers}
        self._certifier, self._make_key, self._clock = certifier, make_key, clock
        self._one_key = one_key
        self._key: ResponderKey | None = None
        self._retries: dict[IssuerId, tuple[UnixTime, int]] = {}
        self.current: Mapping[IssuerId, Seat] = {}

    def renew(self) -> None:
        """Get responder certificates where they are due. Failures are tried again later; never raises.

        One new key is certified by every issuer at the same time, so that one answer can speak for several of them (RFC 6960 4.2.2.2); an issuer
        that could not be had then gets the same key later. A crash here leaves nothing: the key was in memory only, and its certificates
        are of no use to anyone else.
        """
        now = self._clock.now()
        if not any(self._asks(issuer, now) for issuer in self._issuers if self._is_due(issuer, now)):
            return
        key, due = self._key, [issuer for issuer in sorted(self._issuers) if self._is_due(issuer, now)]
        if self._one_key:
            key = self._key = self._make_key()
        elif key is None or not any(seat.key is key for issuer, seat in self.current.items() if issuer not in due):
            key, due = self._new_key(), sorted(self._issuers)
        for issuer in due:
            if not self._asks(issuer, now):
                continue
            try:
                self.current = {**self.current, issuer: self._seated(self._issuers[issuer], key, now)}
                self._retries.pop(issuer, None)
            except (FleetcaError, OSError) as error:
                seat = self.current.get(issuer)
                silent = seat is None or now > seat.responder.not_after
                _, wait = self._retries.get(issuer, (0, 0))
                wait = min(_LONGEST_RETRY_SILENT if silent else _LONGEST_RETRY, wait * 2 or _RETRY)
                self._retries[issuer] = (now, wait)
                _log.warning("no new responder certificate for issuer %s, next try in %d s: %s", issuer, wait, error)

    def live(self, now: UnixTime) -> frozenset[IssuerId]:
        """The issuers for which somebody can sign."""
        return frozenset(id_ for id_, seat in self.current.items() if seat.responder.not_before <= now <= seat.responder.not_after)

    def _is_due(self, issuer: IssuerId, now: UnixTime) -> bool:
        seat = self.current.get(issuer)
        return seat is None or now >= delegates.renew_at(seat.responder) or now < seat.responder.not_before

    def _asks(self, issuer: IssuerId, now: UnixTime) -> bool:
        """Whether its last failure is long enough ago. Also bounded from below: a clock that was set back does not stop us from asking."""
        tried_at, wait = self._retries.get(issuer, (0, 0))
        return not 0 <= now - tried_at < wait

    def _new_key(self) -> ResponderKey:
        key = self._make_key()
        if any(seat.responder.spki == key.spki for seat in self.current.values()):
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
