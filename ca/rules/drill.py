"""The record of a restore drill: what was restored in memory from a backup to a quorum, and that its keys signed. Ring 1: pure.

    {"kind":"restore-drill","version":1,"at":...,"quorum":{...},"custodians":[...],"backup":{...},"files":[...],"keys":[...]}

Each key of it that opened signs CONTEXT and the canonical form of all the rest: who has the CA's certificate can tell that its key was there, and when
the custodians said so. Nothing in a record is believed but what a key of a known CA signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from ca.der.algorithms import load_public_key, verify
from ca.errors import FleetcaError, Malformed
from ca.model import Issuer, IssuerId, UnixTime
from ca.rules.leaf import canonical

CONTEXT: Final = b"fleetca restore drill v1\0"
LARGEST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill that is proved."""

    at: UnixTime
    issuers: tuple[IssuerId, ...]
    """Whose keys signed."""


def signed_octets(record: Mapping[str, Any]) -> bytes:
    """What each key of a record signs."""
    return CONTEXT + canonical({name: value for name, value in record.items() if name != "keys"})


def read(octets: bytes, issuers: Iterable[Issuer]) -> Drill:
    """A record, and which of these CAs' keys signed it.

    Raises:
        Malformed: it is no record of a drill (`bad-drill`), or no key of these CAs signed it (`drill-unproved`).
    """
    try:
        record = orjson.loads(octets) if len(octets) <= LARGEST else {}
        at, keys = record["at"], [(one["spki_sha256"], bytes.fromhex(one["signature"])) for one in record["keys"] if one["opened"]]
        if record["kind"] != "restore-drill" or record["version"] != 1 or type(at) is not int:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Malformed(
            "bad-drill", "This is no record of a restore drill.", fix="Make one: fleetca keys drill BACKUP --out FILE"
        ) from None
    message = signed_octets(record)
    found = [
        one.id for one in issuers if any(digest == sha256(one.spki).hexdigest() and _signed(one, each, message) for digest, each in keys)
    ]
    if not found:
        raise Malformed("drill-unproved", "No key of a CA that is known here signed this record of a restore drill.")
    return Drill(at, tuple(found))


def _signed(issuer: Issuer, signature: bytes, message: bytes) -> bool:
    try:
        verify(load_public_key(issuer.spki), signature, message)
    except FleetcaError:
        return False
    return True
