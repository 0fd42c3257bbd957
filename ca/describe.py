"""Saying what a device is: its root of trust, safety class, batch and owner; and that its line is done with it. A device that is not on record
comes onto it. Asked for by role operator on the signer's socket only. Knows rules and ports.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from ca.errors import Denied, NotFound, Unavailable
from ca.model import (
    Device,
    DeviceChange,
    DeviceDescription,
    DeviceFacts,
    DeviceState,
    EvidenceKind,
    Peer,
    Role,
)
from ca.ports import Clock, Ledger
from ca.rules import device_life, forms, grant, ids, leaf, testimony
from ca.rules.clock import trusted
from ca.rules.tenancy import within_quota
from ca.witness import Witness


class Describing:
    def __init__(self, *, ledger: Ledger, witness: Witness, policy: grant.Policy, clock: Clock) -> None:
        self._ledger, self._witness, self._policy, self._clock = ledger, witness, policy, clock

    def describe(self, said: DeviceDescription, peer: Peer) -> tuple[Device, DeviceFacts]:
        """The device, and all that is said of it now. Repeating is harmless.

        Raises:
            Denied: who asks is no operator of this machine.
            Conflict: the device is retired (`device-retired`), or past being provisioned (`device-move-illegal`).
            Unacceptable, Malformed: see `ca.rules.device_life.described`.
        """
        if peer.role is not Role.operator:
            raise Denied("not-allowed", f"Role {peer.role.value} says nothing of devices.")
        ids.device_id(said.device)
        actor, way = f"role:{peer.role.value}@{peer.uid}", device_life.channel(peer.role, EvidenceKind.local)
        request = hashlib.sha256(leaf.canonical(forms.write(said))).hexdigest()
        heard: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            now = trusted(self._clock.now(), high_time=tx.high_time())

            def step(change: DeviceChange, known: Device, facts: DeviceFacts | None = None) -> None:
                tx.change_device(change)
                tx.append_leaf(leaf.device_change(known, change))
                heard.append(testimony.DeviceMoved(known, change, facts))

            device = tx.lock_device(said.device)
            if device is not None and device.tenant != self._policy.owner(said.device):
                raise NotFound("no-such-device", "There is no such device.", why=f"{said.device} is not on record.")
            if device is None:
                tenant = self._policy.tenant_of(said.device)
                if tenant is not None and tenant.most_devices is not None:
                    within_quota(tenant, tx.count_devices(tenant.id, most=tenant.most_devices))
                device = Device(said.device, self._policy.owner(said.device), DeviceState.blank, now)
                tx.add_device(device)
                step(DeviceChange(device.id, None, DeviceState.blank, now, "registered", actor, way, request), device)
            device_life.describable(device)
            before = tx.device_facts(device.id) or DeviceFacts()
            facts = device_life.described(before, said, now=now)
            if facts != before:
                tx.set_device_facts(device.id, facts)
                tx.append_leaf(leaf.device_facts(device.id, facts, at=now))
                told = device_life.difference(before, facts)
                step(DeviceChange(device.id, device.state, device.state, now, told, actor, way, request), device, facts)
            if said.provisioned and device.state is not DeviceState.provisioned:
                device, change = device_life.move(
                    device, DeviceState.provisioned, reason="provisioned", actor=actor, channel=way, request=request, at=now
                )
                step(change, device)
            if heard:
                tx.raise_high_time(now)
        self._witness.later(heard)
        with suppress(Unavailable):
            # Committed and in force already.
            self._witness.settle()
        return device, facts
