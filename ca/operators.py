"""Operators: who may act on a deployment over the network. Asked for by role operator on the signer's socket only. Knows rules and ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ca.errors import Conflict, Denied, Malformed, NotFound
from ca.model import Operator, OperatorName, Peer, Role, TenantId
from ca.ports import Clock, Ledger
from ca.rules import ids, leaf, testimony
from ca.rules.caps import OPERATOR_POWERS
from ca.rules.clock import trusted
from ca.rules.two_persons import admitted
from ca.witness import Witness


class Operators:
    def __init__(self, *, ledger: Ledger, witness: Witness, tenant: TenantId, clock: Clock) -> None:
        self._ledger, self._witness, self._tenant, self._clock = ledger, witness, tenant, clock

    def add(self, name: OperatorName, roles: Sequence[str], peer: Peer, *, person: str = "", tenant: TenantId | None = None) -> Operator:
        """A new operator; the same one again is harmless.

        Args:
            person: who acts under this name, where that is not what the name says.
            tenant: whose operator; None: the house's.

        Raises:
            Malformed: a role that does not exist, or a person that cannot be shown (`bad-person`).
            Unacceptable: the person would hold roles that exclude each other (`exclusive-roles`).
            Conflict: there is one of that name with other roles, or a disabled one (`operator-exists`).
        """
        actor = _actor(peer)
        ids.operator_name(name)
        if len(person) > 64 or not person.isprintable() or person != person.strip():
            raise Malformed("bad-person", "A person has a name of at most 64 characters.", why="It holds what cannot be shown.")
        unknown = sorted(set(roles) - OPERATOR_POWERS.keys())
        if unknown or not roles:
            raise Malformed(
                "operator-role-unknown",
                "An operator needs roles that exist.",
                why=f"Unknown: {', '.join(unknown) or 'none was given'}.",
                fix=f"Choose from {', '.join(OPERATOR_POWERS)}.",
            )
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            operator = Operator(name, tenant or self._tenant, tuple(dict.fromkeys(roles)), now, None, person)
            found = tx.find_operator(name)
            if found is not None:
                if found != replace(operator, created=found.created):
                    raise Conflict("operator-exists", f"There is an operator {name!r} already, with other roles or disabled.")
                return found
            admitted(operator, tx.operators())
            tx.add_operator(operator)
            tx.append_leaf(leaf.operator(operator, actor=actor, at=now))
        self._witness.later([testimony.OperatorChanged(operator, actor, now)])
        return operator

    def disable(self, name: OperatorName, peer: Peer) -> Operator:
        """Take all powers from an operator. Its certificates go on until revoked; they open nothing any more. Safe to repeat."""
        actor = _actor(peer)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            found = tx.find_operator(name)
            if found is None:
                raise NotFound("no-such-operator", f"There is no operator {name!r}.")
            if found.disabled_at is not None:
                return found
            tx.disable_operator(name, now=now)
            gone = replace(found, disabled_at=now)
            tx.append_leaf(leaf.operator(gone, actor=actor, at=now))
        self._witness.later([testimony.OperatorChanged(gone, actor, now)])
        return gone


def _actor(peer: Peer) -> str:
    if peer.role is not Role.operator:
        raise Denied("not-allowed", f"Role {peer.role.value} does not manage operators.")
    return f"role:{peer.role.value}@{peer.uid}"
