"""Changes in the life of devices, as a test makes them."""

from __future__ import annotations

from ca.model import Device, DeviceChange, DeviceState
from ca.rules import device_life

NOW = 1_800_000_000


def moved(device: Device, after: DeviceState) -> DeviceChange:
    return device_life.move(device, after, reason="test", actor="operator:ann", channel="operator/local", request="00", at=NOW)[1]
