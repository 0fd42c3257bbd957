"""Challenges (RFC 8555 7.5.1, 8): started by the client's word, asked in another thread, decided once. Verb ring.

A challenge is stored as `processing` before anything is asked. A crash leaves it so; when it has been so for long, the next look at it starts it
again. The answer counts for the authorization as it was when the question began: what was deactivated meanwhile stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from ca.errors import FleetcaError
from ca.ports import Clock
from enroll.acme.limits import hour_before, within
from enroll.acme.messages import render_problem
from enroll.acme.model import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Directory,
    Limits,
    Problem,
)
from enroll.acme.orders import AUTHORIZATION_LIFETIME, Orders
from enroll.acme.ports import Later, Prober, Protocols
from enroll.acme.requests import Asker

STALE: Final = 60
"""Seconds after which a question that was begun counts as lost."""

_log = structlog.stdlib.get_logger("fleetca.acme")


class Validating:
    def __init__(self, *, store: Protocols, orders: Orders, prober: Prober, later: Later, clock: Clock, limits: Limits) -> None:
        self._store, self._orders, self._prober, self._later = store, orders, prober, later
        self._clock, self._limits = clock, limits

    def challenge(self, asker: Asker, id_: str, kind: str) -> tuple[Authorization, Challenge]:
        """Look at a challenge, or say that it is ready to be asked (RFC 8555 7.5.1).

        Raises:
            Problem: `malformed`, `rateLimited`.
        """
        found = self._orders.own_authorization(asker, id_)
        challenge = next((one for one in found.challenges if one.kind.value == kind), None)
        if challenge is None:
            raise Problem("malformed", "There is no such challenge.", status=404)
        if asker.reads_only:
            return found, challenge
        asker.payload()  # an object; what stands in it is passed over (RFC 8555 7.5.1)
        if found.status is not AuthorizationStatus.pending or not self._startable(found, challenge):
            return found, challenge
        now = self._clock.now()
        since = hour_before(now)
        failures = self._store.failures_since(asker.known.id, since)
        within(failures, self._limits.failures_per_hour, now=now, what="failed validations of this account")
        started = replace(challenge, status=ChallengeStatus.processing, started=now)
        begun = _with(found, started)
        if not self._store.change_authorization(begun):
            raise Problem("malformed", "The authorization was changed at the same time.", status=409)
        account, directory = asker.known, asker.directory
        self._later(lambda: self._decide(account, directory, replace(begun, version=begun.version + 1), started))
        return begun, started

    def _startable(self, authorization: Authorization, challenge: Challenge) -> bool:
        running = [one for one in authorization.challenges if one.status is ChallengeStatus.processing]
        fresh = [one for one in running if one.started is not None and self._clock.now() - one.started < STALE]
        return not fresh and challenge.status in {ChallengeStatus.pending, ChallengeStatus.processing}

    def _decide(self, account: Account, directory: Directory, authorization: Authorization, challenge: Challenge) -> None:
        expected = f"{challenge.token}.{account.thumbprint}"
        problem: Problem | None = None
        try:
            self._prober.probe(challenge, authorization.identifier, networks=directory.networks, expected=expected)
        except Problem as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whatever foreign octets did to a library, the client must learn an end (R20)
            _log.exception("validation-crashed", authorization=authorization.id, error=type(error).__name__)
            problem = Problem("serverInternal", "The validation could not be made.")
        now = self._clock.now()
        if problem is None:
            decided = _with(authorization, replace(challenge, status=ChallengeStatus.valid, validated=now))
            decided = replace(decided, status=AuthorizationStatus.valid, expires=now + AUTHORIZATION_LIFETIME)
        else:
            shown: Mapping[str, object] = render_problem(problem)
            decided = _with(authorization, replace(challenge, status=ChallengeStatus.invalid, error=shown))
            decided = replace(decided, status=AuthorizationStatus.invalid)
        try:
            if problem is not None:
                self._store.add_failure(account.id, now=now)
            self._store.change_authorization(decided)
        except FleetcaError as error:
            _log.warning("validation-lost", authorization=authorization.id, code=error.code)
            return
        _log.info(
            "validated",
            authorization=authorization.id,
            identifier=authorization.identifier.value,
            challenge=challenge.kind.value,
            outcome="valid" if problem is None else problem.kind,
        )


def _with(authorization: Authorization, challenge: Challenge) -> Authorization:
    return replace(authorization, challenges=tuple(challenge if one.kind is challenge.kind else one for one in authorization.challenges))
