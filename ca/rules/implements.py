"""Which requirements an event of the record implements (REQ-KEY-030): by the kind of its leaf. Ring 1: pure.

The ids are those of docs/requirements.toml. They stand here and in no leaf: what an event shows may be told better later, a leaf never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "approval": ("REQ-KEY-067",),
    "ceremony": ("REQ-KEY-002",),
    "clock": ("REQ-KEY-031",),
    "clone": ("REQ-KEY-013",),
    "crl": ("REQ-KEY-010",),
    "crl-override": ("REQ-KEY-067",),
    "crl-shards": ("REQ-KEY-010",),
    "delivery": ("REQ-KEY-007",),
    "demand": ("REQ-KEY-067",),
    "device": ("REQ-KEY-031", "REQ-KEY-041"),
    "device-facts": ("REQ-KEY-049",),
    "issuance": ("REQ-KEY-003", "REQ-KEY-013", "REQ-KEY-031"),
    "issuer": ("REQ-KEY-097",),
    "key": ("REQ-KEY-091",),
    "key-state": ("REQ-KEY-083",),
    "manifest-refused": ("REQ-KEY-045",),
    "operator": ("REQ-KEY-016",),
    "profile": ("REQ-KEY-067",),
    "proposal": ("REQ-KEY-067",),
    "record-seal": ("REQ-KEY-012",),
    "renewals": ("REQ-KEY-104",),
    "revocation": ("REQ-KEY-010", "REQ-KEY-031"),
    "shift": ("REQ-KEY-050",),
    "station": ("REQ-KEY-012",),
    "supersede": ("REQ-KEY-007",),
    "token": ("REQ-KEY-062",),
    "token-revoked": ("REQ-KEY-062",),
    "units": ("REQ-KEY-012", "REQ-KEY-050"),
    "void": (),
    "wipe": ("REQ-KEY-020",),
    "wipe-order": ("REQ-KEY-020",),
    "wipe-waived": ("REQ-KEY-020",),
}
"""A kind that implements none is here with none, so that none is forgotten."""


def of(kind: object) -> tuple[str, ...]:
    """The requirements of a kind of event; none for kinds that are not known."""
    return REQUIREMENTS.get(str(kind), ())
