"""What is an operator's own of a deployment, over the REST API: its tenant as the settings have it, and its view of the log. Verb ring: knows ports and rules only.

The house's operators see the whole log, and of tenants nothing here: that is asked where the settings are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ca.model import DEFAULT_TENANT, IssuerId, Profile, ProfileName, TenantId
from ca.ports import Clock
from ca.rules.tenancy import Tenant, speaks_of
from enroll import evidence
from enroll.ports import Reader

MOST_COUNTED: Final = 1_000_000
LOOKED_AT: Final = 2000
"""Leaves that one question looks at: a page may be shorter than was asked for, and empty, and the next one goes on."""


class OwnPart:
    """The verbs.

    Args:
        tenants: those of the settings.
        owners: whose an issuer is that is not the house's.
        profiles: of the house.
        default_issuer: of the house.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        clock: Clock,
        tenants: Sequence[Tenant],
        owners: Mapping[IssuerId, TenantId],
        profiles: Mapping[ProfileName, Profile],
        default_issuer: IssuerId,
    ) -> None:
        self._reader, self._clock, self._owners = reader, clock, owners
        self._tenants = {one.id: one for one in tenants}
        self._profiles, self._default_issuer = profiles, default_issuer

    def tenant(self, *, certificate: bytes | None) -> Mapping[str, Any]:
        """The tenant of an operator: what it may have, and what it has."""
        name = self._of(certificate)
        own = self._tenants.get(name)
        profiles = self._profiles if own is None else own.profiles
        return {
            "tenant": name,
            "prefix": None if own is None else own.prefix,
            "issuer": self._default_issuer if own is None else own.issuer,
            "devices": self._reader.count_devices(name, most=MOST_COUNTED),
            "most_devices": None if own is None else own.most_devices,
            "per_minute": None if own is None else own.per_minute,
            "profiles": [
                {
                    "name": one.name,
                    "lifetime": one.lifetime,
                    "algorithms": list(one.key_algorithms),
                    "approval_within": one.approval_within,
                }
                for one in (profiles[each] for each in sorted(profiles))
                if not one.is_ca
            ],
        }

    def log(self, *, certificate: bytes | None, start: int, limit: int) -> tuple[Sequence[tuple[int, Mapping[str, Any]]], int | None]:
        """Leaves of the log that speak of the operator's tenant, from an index on, and where to go on; None: the log ends here."""
        name = self._of(certificate)
        own = self._tenants.get(name)
        issuers = {issuer for issuer, owner in self._owners.items() if owner == name}
        found: list[tuple[int, Mapping[str, Any]]] = []
        leaves = self._reader.leaves(start, LOOKED_AT)
        for leaf in leaves:
            assert leaf.index is not None, "it was asked for by its index"
            document = json.loads(leaf.body)
            if name == DEFAULT_TENANT or (own is not None and speaks_of(document, name, own.prefix, issuers)):
                found.append((leaf.index, document))
            if len(found) == limit:
                return found, leaf.index + 1
        return found, start + len(leaves) if len(leaves) == LOOKED_AT else None

    def _of(self, certificate: bytes | None) -> TenantId:
        return evidence.require_search(certificate, reader=self._reader, now=self._clock.now()).tenant
