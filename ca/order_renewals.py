"""Ordering renewals: certificates that must go before their time, for a lost key or a wrong profile, and the end of such an order. Rules and ports only.

An order moves the windows that every protocol suggests, and lets those renew whose profile or role would hold it to be too early. It revokes nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ca.errors import Malformed, NotFound, Unavailable
from ca.lineage import Issuers
from ca.model import Peer, RenewalOrder, RenewalOrderRequest, RenewalOrderWithdrawal
from ca.ports import Clock, Ledger
from ca.rules import evidence, grant, leaf, permission, testimony
from ca.rules.clock import trusted
from ca.witness import Witness

LONGEST = 366 * 86400
"""Seconds over which an order may be spread."""
LONGEST_REASON = 200


class Ordering:
    """The verb."""

    def __init__(self, *, ledger: Ledger, witness: Witness, issuers: Issuers, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._issuers, self._policy, self._clock = ledger, witness, issuers, policy, clock

    def order(self, request: RenewalOrderRequest, peer: Peer) -> RenewalOrder:
        """Have certificates replaced: those that were issued before now.

        Raises:
            Denied: who asks is no operator of this machine.
            Malformed: it makes no sense (`bad-renewal-order`).
            NotFound: there is no such issuer (`unknown-issuer`) or profile (`profile-unknown`).
        """
        actor = self._actor(request, peer)
        self._judge(request)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            order = RenewalOrder(
                number=tx.last_renewal_order() + 1,
                tenant=self._policy.tenant,
                since=now,
                within=request.within,
                issuer=request.issuer,
                profile=request.profile,
                reason=request.reason,
                actor=actor,
            )
            tx.add_renewal_order(order)
            tx.append_leaf(leaf.renewals_ordered(order))
            tx.raise_high_time(now)
        self._tell(order)
        return order

    def withdraw(self, request: RenewalOrderWithdrawal, peer: Peer) -> RenewalOrder:
        """End an order: windows are again what they were. Who has renewed meanwhile has renewed. Safe to repeat.

        Raises:
            Denied: who asks is no operator of this machine.
            NotFound: there is no such order (`no-such-order`).
        """
        actor = self._actor(request, peer)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            order = tx.find_renewal_order(request.number)
            if order is None or order.tenant != self._policy.tenant:
                raise NotFound("no-such-order", f"There is no order {request.number}.", fix="List them: fleetca renewals list")
            if not tx.withdraw_renewal_order(order.number, actor=actor, now=now):
                return order
            order = replace(order, withdrawn_at=now, withdrawn_by=actor)
            tx.append_leaf(leaf.renewals_ordered(order))
            tx.raise_high_time(now)
        self._tell(order)
        return order

    def _actor(self, request: RenewalOrderRequest | RenewalOrderWithdrawal, peer: Peer) -> str:
        claim = evidence.claim(
            evidence.Verb.order_renewals, request.evidence, peer, deployment=self._policy.deployment, now=self._clock.now()
        )
        return permission.local_actor(claim)

    def _judge(self, request: RenewalOrderRequest) -> None:
        if not 0 <= request.within <= LONGEST:
            raise Malformed("bad-renewal-order", "A year is the longest time for an order.", why=f"{request.within} s were asked for.")
        if len(request.reason) > LONGEST_REASON or not request.reason.isprintable():
            raise Malformed("bad-renewal-order", f"A reason is one line of at most {LONGEST_REASON} characters.")
        if request.issuer is not None and request.issuer not in self._issuers.by_id:
            raise NotFound("unknown-issuer", f"There is no issuer {request.issuer}.", fix="fleetca issuers list")
        if request.profile is not None:
            self._policy.profile(request.profile)

    def _tell(self, order: RenewalOrder) -> None:
        self._witness.later([testimony.RenewalsOrdered(order)])
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
