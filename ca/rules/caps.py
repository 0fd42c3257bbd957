"""The limits of the roles on the signer's socket, and of operators. Ring 1: pure.

Owns what a role may get at most by its weaker evidence, and the rate. A cap only takes away: what a role may ask for at all stands in
`ca.rules.grant`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import combinations
from types import MappingProxyType
from typing import Final

from ca.errors import Busy, Denied
from ca.model import DeviceId, Name, NameKind, Operator, ProfileName, UnixTime


@dataclass(frozen=True, slots=True)
class Validated:
    """What accounts may have of one profile by names that only the web process validated.

    Args:
        open: accounts may stand for themselves.
        bound: accounts may stand for the device that an operator's token names.
        dns: names that may be validated: whole, or `*.` and the end of all that lie below it.
        networks: addresses that may be.
    """

    open: bool = False
    bound: bool = False
    dns: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def covers(self, name: Name) -> bool:
        """Could this name be validated at all?"""
        if name.kind is NameKind.dns:
            return any(below(pattern, name.value) for pattern in self.dns)
        return name.kind is NameKind.ip and inside(self.networks, name.value)


def below(pattern: str, host: str) -> bool:
    """Whether a host name is this one, or for `*.` and an end, lies below that end; `*` is every name."""
    return pattern == "*" or (host.endswith(pattern[1:]) and len(host) >= len(pattern) if pattern.startswith("*.") else host == pattern)


def inside(networks: tuple[str, ...], address: str) -> bool:
    """Whether an address lies in one of the networks. An IPv4 address in an IPv6 coat is judged without it."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in map(ipaddress.ip_network, networks) if network.version == found.version)


@dataclass(frozen=True, slots=True)
class Manufacturer:
    """Whose factory certificates enrol devices, and into what.

    Args:
        certificate: the CA that issues them directly, DER.
        prefix: what the ids of its devices begin with; the rest is the serialNumber of their subject. No two have the same.
        profiles: what they may have; the first where nothing is said.
    """

    name: str
    certificate: bytes
    prefix: str
    profiles: tuple[ProfileName, ...]


@dataclass(frozen=True, slots=True)
class TpmMaker:
    """Whose TPMs are believed.

    Args:
        name: short, for the record.
        roots: its CA certificates, DER; each of them is an end of the path.
    """

    name: str
    roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attesting:
    """What the settings say of keys that are attested.

    Args:
        makers: whose TPMs are believed.
        profiles: what a device gets that is known by a key of its hardware and brings no token; the first. Empty: nothing.
    """

    makers: tuple[TpmMaker, ...] = ()
    profiles: tuple[ProfileName, ...] = ()


@dataclass(frozen=True, slots=True)
class Caps:
    """What a role may get at most.

    `profiles` and `devices` bind evidence that only the role itself saw (presented certificates, local evidence); None is no limit beyond
    the rules. `per_minute` binds everything the role asks for, certificates, revocations and tokens each for themselves. `renew_from` is the share of the lifetime that must have passed before a
    presented certificate renews. `own_names` are the names its own certificate may carry.
    """

    profiles: frozenset[ProfileName] | None = None
    devices: tuple[str, ...] | None = None
    """Device ids, or beginnings of them that end in `*`."""
    per_minute: int | None = None
    renew_from: float = 0.0
    own_names: frozenset[Name] = frozenset()
    validated: Mapping[ProfileName, Validated] = field(default_factory=lambda: MappingProxyType({}))
    """By profile: what validated names reach. A profile that is not here is not to be had by them."""
    manufacturers: tuple[Manufacturer, ...] = ()


NO_CAPS: Final = Caps()
NO_HARDWARE: Final = Attesting()


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


def spend(before: Allowance | None, *, per_minute: int, now: UnixTime, what: str = "certificates") -> Allowance:
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
            f"Too many {what} were asked for in this minute.",
            why=f"The role may ask for {per_minute} {what} a minute.",
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
    approve = "approve"
    propose = "propose"
    """Ask for a grave act."""
    authorize = "authorize"
    """Approve a grave act that another person asked for."""
    provision = "provision"
    """Log in at a station of a factory line."""


OPERATOR_POWERS: Final = {
    "admin": frozenset(Power) - {Power.authorize},
    "registrar": frozenset({Power.issue, Power.create_token, Power.approve, Power.search, Power.propose}),
    "revoker": frozenset({Power.revoke, Power.search, Power.propose}),
    "line": frozenset({Power.provision}),
    "security-officer": frozenset({Power.authorize, Power.search}),
    "auditor": frozenset({Power.search}),
}
"""The roles an operator may hold. A word that is not here gives nothing."""

EXCLUSIVE: Final = frozenset(
    frozenset(pair)
    for pair in (
        # Who asks does not approve.
        ("admin", "security-officer"),
        ("registrar", "security-officer"),
        ("revoker", "security-officer"),
        ("line", "security-officer"),
        # Who does something does not audit it.
        ("admin", "auditor"),
        ("registrar", "auditor"),
        ("revoker", "auditor"),
        ("line", "auditor"),
        ("security-officer", "auditor"),
    )
)
"""Roles that no person holds at once."""


def conflict(roles: Iterable[str]) -> tuple[str, str] | None:
    """Two of these roles that exclude each other; None where none do."""
    for one, other in combinations(sorted(set(roles)), 2):
        if frozenset((one, other)) in EXCLUSIVE:
            return one, other
    return None


def powers_of(operator: Operator) -> frozenset[Power]:
    """What an operator may do; nothing once disabled, and nothing where its roles exclude each other."""
    if operator.disabled_at is not None or conflict(operator.roles) is not None:
        return frozenset()
    return frozenset(power for role in operator.roles for power in OPERATOR_POWERS.get(role, frozenset()))
