"""Tenants: whose a device is, and what its tenant narrows. Ring 1: pure.

A tenant owns every device id that begins with its prefix, whether it is on record or not: so whose something is never depends on what is there, and
who asks for another tenant's device learns nothing. What begins with no tenant's prefix is the house's (`DEFAULT_TENANT`). A tenant has its own issuer,
and of the house's profiles those that it names, narrowed: nothing it says makes one wider.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ca.errors import Busy, Misconfigured, NotFound
from ca.model import (
    DEFAULT_TENANT,
    OWN_SERVICES,
    AlgorithmName,
    DeviceId,
    Digest,
    IssuerId,
    Profile,
    ProfileName,
    TenantId,
)
from ca.rules.renewal_window import overlap

RESERVED: Final = frozenset({OWN_SERVICES, "account:"})
"""Beginnings of ids that are the house's."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """What the settings say of a tenant.

    Args:
        prefix: what its device ids begin with, a colon at the end and nowhere else.
        issuer: who signs for it, and for nobody else.
        profiles: those it may have, narrowed already.
        most_devices: how many devices it may have on record; None: no limit.
        per_minute: how many certificates it may have in a minute; None: no limit.
    """

    id: TenantId
    prefix: str
    issuer: IssuerId
    profiles: Mapping[ProfileName, Profile]
    most_devices: int | None = None
    per_minute: int | None = None


def prefix_of(device: DeviceId) -> str:
    """The part of a device id that says whose it is."""
    head, colon, _ = device.partition(":")
    return head + colon if colon else ""


def checked(tenants: Sequence[Tenant]) -> Mapping[str, Tenant]:
    """By prefix.

    Raises:
        Misconfigured: two share a name, a prefix or an issuer, or one takes what is the house's (`tenant-clash`).
    """
    said: Sequence[tuple[str, list[str]]] = (
        ("name", [one.id for one in tenants]),
        ("prefix", [one.prefix for one in tenants]),
        ("issuer", [one.issuer for one in tenants]),
    )
    for what, values in said:
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise Misconfigured("tenant-clash", f"Two tenants have the {what} {twice[0]}.", fix="Give each its own.")
    for one in tenants:
        if one.id == DEFAULT_TENANT or one.prefix in RESERVED or prefix_of(DeviceId(one.prefix)) != one.prefix:
            raise Misconfigured("tenant-clash", f"The tenant {one.id} cannot be called so, or have the prefix {one.prefix!r}.")
    return {one.prefix: one for one in tenants}


def narrowed(profile: Profile, *, lifetime: int | None, algorithms: Sequence[AlgorithmName], approval_within: int | None) -> Profile:
    """A profile as a tenant has it: never more than the house gives.

    Raises:
        Misconfigured: something would be wider (`tenant-loosens`), or its devices may be away longer than renewal would leave them (`tenant-offline`).
    """

    def wider(what: str) -> Misconfigured:
        return Misconfigured(
            "tenant-loosens",
            f"A tenant's {what} is wider than profile {profile.name!r} allows.",
            why="A tenant only narrows what the house gives.",
            fix="Narrow it, leave it out, or change the profile of the house.",
        )

    if lifetime is not None and not 0 < lifetime <= profile.lifetime:
        raise wider(f"lifetime of {lifetime} s")
    if algorithms and not set(algorithms) <= set(profile.key_algorithms):
        raise wider(f"list of algorithms ({', '.join(algorithms)})")
    if approval_within is not None and (approval_within <= 0 or 0 < profile.approval_within < approval_within):
        raise wider(f"approval within {approval_within} s")
    made = replace(
        profile,
        lifetime=profile.lifetime if lifetime is None else lifetime,
        max_lifetime=profile.max_lifetime if lifetime is None else min(lifetime, profile.max_lifetime),
        key_algorithms=tuple(one for one in profile.key_algorithms if not algorithms or one in algorithms),
        approval_within=profile.approval_within if approval_within is None else approval_within,
    )
    if made == profile:
        return profile
    if made.offline > overlap(made):
        raise Misconfigured(
            "tenant-offline",
            f"A tenant's lifetime of {made.lifetime} s is too short for profile {made.name!r}.",
            why=f"Its devices may be out of reach for {made.offline} s, and renewal leaves them {overlap(made)} s (REQ-KEY-009).",
            fix="Let the tenant's certificates live longer, or give it a profile whose devices are away for less.",
        )
    words = [profile.digest.hex(), made.lifetime, made.max_lifetime, made.key_algorithms, made.approval_within]
    return replace(made, digest=Digest(hashlib.sha256(json.dumps(["fleetca tenant profile", *words]).encode()).digest()))


def within_quota(tenant: Tenant | None, devices: int) -> None:
    """May the tenant have one more device?

    Raises:
        Busy: `over-quota`.
    """
    if tenant is not None and tenant.most_devices is not None and devices >= tenant.most_devices:
        raise Busy(
            "over-quota",
            "The tenant has as many devices as it may have.",
            why=f"Its quota is {tenant.most_devices}.",
            fix="Raise devices of the tenant in the settings.",
            retry_after=3600,
        )


def unknown(tenant: str) -> NotFound:
    return NotFound("no-such-tenant", f"There is no tenant {tenant!r}.", fix="They stand in the settings, under [[tenants]].")


# ---- The log, as one tenant sees it ---------------------------------------------------------------------------------


def view(leaves: Iterable[tuple[int, bytes]], tenant: TenantId, prefix: str, issuers: Container[str]) -> Iterator[tuple[int, bytes]]:
    """The leaves of the log that speak of a tenant and of nobody else.

    Args:
        issuers: those that are the tenant's.
    """
    for index, body in leaves:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and speaks_of(document, tenant, prefix, issuers):
            yield index, body


def speaks_of(document: Mapping[str, Any], tenant: TenantId, prefix: str, issuers: Container[str]) -> bool:
    """Whether a leaf speaks of a tenant: it names the tenant, or a device of it, or else an issuer of it, which signs for nobody else."""
    if "tenant" in document:
        return bool(document["tenant"] == tenant)
    if any(prefix and str(document[name]).startswith(prefix) for name in ("device", "id") if name in document):
        return True
    return str(document.get("issuer", "")) in issuers
