"""Letting the id of a retired device come back, by two persons. Asked for by role operator on the signer's socket only. Knows rules and ports.

It comes back blank: what it was issued stays revoked, and it enrols anew with a new token.
"""

from __future__ import annotations

from contextlib import suppress

from ca.errors import Denied, NotFound, Unavailable
from ca.model import Device, DeviceId, DeviceState, EvidenceKind, GraveAct, Peer, Role
from ca.ports import Clock, Ledger
from ca.rules import device_life, grant, ids, leaf, testimony
from ca.rules import two_persons as rule
from ca.rules.clock import trusted
from ca.two_persons import TwoPersons
from ca.witness import Witness


class Reviving:
    def __init__(self, *, ledger: Ledger, witness: Witness, two_persons: TwoPersons, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._two_persons, self._policy, self._clock = ledger, witness, two_persons, policy, clock

    def revive(self, name: DeviceId, peer: Peer) -> Device:
        """The device, blank again. One that is blank already is left so.

        Raises:
            Denied: who asks is no operator of this machine, or no two persons approved it (`two-persons-needed`).
            NotFound: there is no such device.
            Conflict: it is not retired (`device-not-retired`).
        """
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} revives nothing.")
        ids.device_id(name)
        actor, way = f"role:{peer.role.value}@{peer.uid}", device_life.channel(peer.role, EvidenceKind.local)
        tenant = self._policy.owner(name)
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())
            device = tx.lock_device(name)
            if device is None or device.tenant != tenant:
                raise NotFound("no-such-device", "There is no such device.", why=f"{name} is not on record.")
            device_life.revivable(device)
            subject = rule.subject(GraveAct.revive, device=name)
            done, said = self._two_persons.take(tx, GraveAct.revive, subject, tenant=tenant, actor=actor, channel=way, now=now)
            device, change = device_life.move(
                device, DeviceState.blank, reason=f"revived: {done.reason}", actor=actor, channel=way, request=done.request.hex(), at=now
            )
            tx.change_device(change)
            tx.append_leaf(leaf.device_change(device, change))
            tx.raise_high_time(now)
        self._witness.later([*said, testimony.DeviceMoved(device, change)])
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return device
