"""What the life of devices writes beside what issuing writes. Statements only; which moves are lawful is for `ca.rules.device_life`."""

from __future__ import annotations

import sqlalchemy as sa

from ca.errors import Conflict
from ca.model import DeviceChange, DeviceFacts, DeviceId
from ca.store import tables as t
from ca.store.device_reads import DeviceReads, row_of_facts
from ca.store.reads import insert, param, values_of
from ca.store.writes import Writes

_d = t.devices.c

MOVE_DEVICE = sa.update(t.devices).where(_d.id == param("the_id"), _d.state == param("state_before")).values(state=param("state"))
ADD_CHANGE = sa.insert(t.device_changes).values(
    values_of(t.device_changes, "device", "before", "after", "at", "reason", "actor", "channel", "request")
)
_new_facts = insert(t.device_facts).values(values_of(t.device_facts))
SET_FACTS = _new_facts.on_conflict_do_update(
    index_elements=["device"],
    set_={column.name: _new_facts.excluded[column.name] for column in t.device_facts.c if column.name != "device"},
)


class DeviceWrites(Writes, DeviceReads):
    def change_device(self, change: DeviceChange) -> None:
        """A device's next state, and the change. The device's row is there, in the state that `change.before` says.

        Raises:
            Conflict: it is in another state, or there is none (`device-changed`).
        """
        if change.before is not None and change.before is not change.after:
            states = {"the_id": change.device, "state_before": change.before.value, "state": change.after.value}
            if not self._change(MOVE_DEVICE, states):
                raise Conflict("device-changed", f"The device {change.device} is in another state meanwhile.", fix="Look at it again.")
        self._change(
            ADD_CHANGE,
            {
                "device": change.device,
                "before": None if change.before is None else change.before.value,
                "after": change.after.value,
                "at": change.at,
                "reason": change.reason,
                "actor": change.actor,
                "channel": change.channel,
                "request": change.request,
            },
        )

    def set_device_facts(self, device: DeviceId, facts: DeviceFacts) -> None:
        """What is said of a device from now on."""
        self._change(SET_FACTS, row_of_facts(device, facts))
