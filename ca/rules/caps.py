"""The limits of the roles on the signer's socket, and of operators. Ring 1: pure.

Owns what a role may get at most by its weaker evidence, and the rate. A cap only takes away: what a role may ask for at all stands in
`ca.rules.grant`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from ca.errors import Busy, Denied
from ca.model import DeviceId, Name, Operator, ProfileName, UnixTime


@dataclass(frozen=True, slots=True)
class Caps:
    """What a role may get at most.

    `profiles` and `devices` bind evidence that only the role itself saw (presented certificates, local evidence); None is no limit beyond
    the rules. `per_minute` binds everything the role asks for. `renew_from` is the share of the lifetime that must have passed before a
    presented certificate renews. `own_names` are the names its own certificate may carry.
    """

    profiles: frozenset[ProfileName] | None = None
    devices: tuple[str, ...] | None = None
    """Device ids, or beginnings of them that end in `*`."""
    per_minute: int | None = None
    renew_from: float = 0.0
    own_names: frozenset[Name] = frozenset()


NO_CAPS: Final = Caps()


def within(caps: Caps, *, device: DeviceId, profile: ProfileName) -> None:
    """Does weaker evidence reach this far?

    Raises:
        Denied: `over-the-cap`.
    """
    if caps.profiles is not None and profile not in caps.profiles:
        raise Denied(
            "over-the-cap",
            "This role may not ask for that profile.",
            why=f"Its caps do not list {profile!r}.",
            fix="Add it to [signer.caps.<role>] profiles, if that is meant.",
        )
    if caps.devices is not None and not any(_covers(pattern, device) for pattern in caps.devices):
        raise Denied("over-the-cap", "This role may not ask for that device.", why="Its caps do not cover it.")


def _covers(pattern: str, device: DeviceId) -> bool:
    return device.startswith(pattern[:-1]) if pattern.endswith("*") else device == pattern


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a role's rate: refilled with time, never above one minute's worth."""

    left: float
    at: UnixTime


def spend(before: Allowance | None, *, per_minute: int, now: UnixTime) -> Allowance:
    """Take one from the allowance.

    Raises:
        Busy: `over-rate`.
    """
    passed = 0 if before is None else max(0, now - before.at)
    left = float(per_minute) if before is None else min(float(per_minute), before.left + passed * per_minute / 60)
    if left < 1:
        wait = max(1, round((1 - left) * 60 / per_minute))
        raise Busy(
            "over-rate",
            "Too many certificates were asked for in this minute.",
            why=f"The role may ask for {per_minute} a minute.",
            fix="Wait, or raise [signer.caps.<role>] per_minute.",
            retry_after=wait,
        )
    return Allowance(left - 1, max(now, before.at) if before else now)


class Power(Enum):
    """What an operator may do over the network."""

    issue = "issue"
    create_token = "create-token"
    revoke = "revoke"
    search = "search"


OPERATOR_POWERS: Final = {
    "admin": frozenset(Power),
    "registrar": frozenset({Power.issue, Power.create_token, Power.search}),
    "revoker": frozenset({Power.revoke, Power.search}),
    "auditor": frozenset({Power.search}),
}
"""The roles an operator may hold. A word that is not here gives nothing."""


def powers_of(operator: Operator) -> frozenset[Power]:
    """What an operator may do; nothing once disabled."""
    if operator.disabled_at is not None:
        return frozenset()
    return frozenset(power for role in operator.roles for power in OPERATOR_POWERS.get(role, frozenset()))
