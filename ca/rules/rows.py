"""Which leaf each row of the database must have, and which row each leaf. Pure.

A row and its leaf state the same facts, each in its own form; here both become `Fact`s, which are compared. What a leaf alone knows
(actor, evidence) is not compared: the row it would be compared with could have been written by whoever edited the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

from ca.model import (
    Certificate,
    CertificateState,
    CrlIntent,
    Demand,
    Device,
    DeviceFacts,
    DeviceId,
    Issuer,
    KeyRecord,
    Name,
    Operator,
    Profile,
    Proposal,
    RecordSeal,
    Revocation,
    Shift,
    Station,
    Token,
    WipeReceipt,
)
from ca.rules.demand import subject_of
from ca.rules.leaf import canonical, facts_of

# kind -> (the fields that name the row, the fields that must be the same in both)
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "issuance": (("issuer", "serial"), ("at", "tbs_sha256", "device", "profile", "tenant", "names", "request_key", "parent")),
    "void": (("issuer", "serial"), ()),
    "delivery": (("issuer", "serial"), ("grace_ends_at",)),
    "supersede": (("issuer", "serial"), ()),
    "clone": (("issuer", "serial"), ("at",)),
    "revocation": (("change",), ("issuer", "serial", "reason", "revoked_at")),
    "crl": (("issuer", "shard", "number"), ("as_of", "count", "tbs_sha256", "this_update", "next_update")),
    "token": (("hash",), ("at", "tenant", "device", "profile", "actor", "names", "expires")),
    "token-revoked": (("hash",), ("at", "device")),
    "issuer": (("id",), ("tenant", "certificate_sha256")),
    "operator": (("name",), ("tenant", "roles", "person", "disabled_at")),
    "proposal": (("request",), ("tenant", "act", "subject", "state", "expires")),
    "profile": (("name",), ("digest",)),
    "demand": (("name",), ("subject",)),
    "device": (("id",), ("tenant", "state")),
    "device-facts": (("id",), ("root_of_trust", "justification", "exception_ends", "safety_class", "batch", "owner", "anchors")),
    "station": (("name",), ("tenant", "spki_sha256")),
    "shift": (("number",), ("tenant", "station", "operator", "profile", "issuer", "count", "not_after", "accept_until", "request")),
    "units": (("shift",), ("station", "taken", "head")),
    "record-seal": (("station", "count"), ("last", "issuer")),
    "wipe": (("device", "retired_at"), ("receipt_sha256",)),
    "wipe-waived": (("device", "retired_at"), ("justification",)),
    "key-state": (("spki_sha256",), ("tenant", "name", "purpose", "store", "protection", "state")),
}
ONCE = frozenset({"issuance", "revocation", "crl", "token", "token-revoked", "shift", "record-seal", "wipe", "wipe-waived"})
"""Events that happen once: a second leaf for the same row is a forgery or a fault. Of the others the newest leaf counts."""


@dataclass(frozen=True, slots=True)
class Fact:
    kind: str
    key: str
    fields: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """What the fields say, in few octets: a log of millions of leaves is compared in memory."""
        return blake2b(canonical(self.fields), digest_size=12).digest()

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


def of_leaf(body: bytes) -> tuple[Fact | None, Mapping[str, Any]]:
    """The row a leaf speaks of (None for kinds without one), and the leaf as a whole; nothing where it cannot be read."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None, {}
    if not isinstance(document, dict):
        return None, {}
    named = _FIELDS.get(str(document.get("kind")))
    if named is None:
        return None, document
    key, fields = named
    return _fact(
        document["kind"], "/".join(str(document.get(name)) for name in key), {name: document.get(name) for name in fields}
    ), document


def _fact(kind: str, key: str, fields: Mapping[str, Any]) -> Fact:
    if "names" in fields:
        names = fields["names"] if isinstance(fields["names"], list) else []
        fields = {**fields, "names": sorted(json.dumps(name, sort_keys=True) for name in names)}
    return Fact(kind, key, fields)


def of_station(row: Station) -> Fact:
    return _fact("station", row.name, {"tenant": row.tenant, "spki_sha256": sha256(octets(row.spki)).hexdigest()})


def of_shift(row: Shift) -> list[Fact]:
    """One for what was granted, one more for the units that were taken."""
    fields = {
        name: getattr(row, name) for name in ("tenant", "station", "operator", "profile", "issuer", "count", "not_after", "accept_until")
    }
    found = [_fact("shift", str(row.number), {**fields, "request": octets(row.request).hex()})]
    if row.taken:
        found.append(_fact("units", str(row.number), {"station": row.station, "taken": row.taken, "head": octets(row.head).hex()}))
    return found


def of_record_seal(row: RecordSeal) -> Fact:
    return _fact("record-seal", f"{row.station}/{row.count}", {"last": row.last, "issuer": row.issuer})


def of_wipe(row: WipeReceipt) -> Fact:
    key = f"{row.device}/{row.retired_at}"
    if not octets(row.octets):
        return _fact("wipe-waived", key, {"justification": row.justification})
    return _fact("wipe", key, {"receipt_sha256": sha256(octets(row.octets)).hexdigest()})


def of_key(row: KeyRecord) -> Fact:
    protection = None if row.protection is None else row.protection.name
    fields = {"tenant": row.tenant, "name": row.name, "purpose": row.purpose.value, "store": row.store, "protection": protection}
    return _fact("key-state", octets(row.spki_sha256).hex(), {**fields, "state": row.state.value})


def octets(value: object) -> bytes:
    """SQLite keeps whatever it is given: who edits a table may leave text where octets belong, and must be named all the same."""
    return value if isinstance(value, bytes) else str(value).encode()


def of_certificate(row: Certificate) -> list[Fact]:
    """One for its issuance, one more each when it is void, when its successor was delivered, when it is superseded, and when it spoke after that."""
    key = f"{row.ref.issuer}/{row.ref.serial:040x}"
    fields = {
        "at": row.intended_at,
        "tbs_sha256": sha256(octets(row.tbs)).hexdigest(),
        "device": row.device,
        "profile": row.profile,
        "tenant": row.tenant,
        "names": _names(row.names),
        "request_key": octets(row.request_key).hex(),
        "parent": str(row.parent) if row.parent else None,
    }
    facts = [_fact("issuance", key, fields)]
    if row.state is CertificateState.void:
        facts.append(Fact("void", key, {}))
    if row.grace_ends_at is not None:
        facts.append(Fact("delivery", key, {"grace_ends_at": row.grace_ends_at}))
    if row.superseded_at is not None:
        facts.append(Fact("supersede", key, {}))
    if row.clone_seen_at is not None:
        facts.append(Fact("clone", key, {"at": row.clone_seen_at}))
    return facts


def of_revocation(row: Revocation) -> Fact:
    fields: dict[str, str | int] = {
        "issuer": row.ref.issuer,
        "serial": f"{row.ref.serial:040x}",
        "reason": row.reason.name,
        "revoked_at": row.revoked_at,
    }
    if row.invalid_from is not None:
        fields["invalid_from"] = row.invalid_from
    return Fact("revocation", str(row.change), fields)


def of_crl(row: CrlIntent) -> Fact:
    fields: dict[str, str | int] = {
        "as_of": row.as_of,
        "count": row.count,
        "tbs_sha256": octets(row.tbs_sha256).hex(),
        "this_update": row.this_update,
        "next_update": row.next_update,
    }
    if row.base is not None:
        fields["base"] = row.base
    return Fact("crl", f"{row.issuer}/{row.shard}/{row.number}", fields)


def of_token(row: Token) -> list[Fact]:
    """One for its making, one more when it was withdrawn."""
    fields = {
        "at": row.created,
        "tenant": row.tenant,
        "device": row.device,
        "profile": row.profile,
        "actor": row.created_by,
        "names": _names(row.names),
        "expires": row.expires,
    }
    key = octets(row.hash).hex()
    withdrawn = [] if row.revoked_at is None else [Fact("token-revoked", key, {"at": row.revoked_at, "device": row.device})]
    return [_fact("token", key, fields), *withdrawn]


def of_issuer(row: Issuer) -> Fact:
    return Fact("issuer", row.id, {"tenant": row.tenant, "certificate_sha256": sha256(octets(row.certificate)).hexdigest()})


def of_operator(row: Operator) -> Fact:
    return Fact("operator", row.name, {"tenant": row.tenant, "roles": list(row.roles), "person": row.who, "disabled_at": row.disabled_at})


def of_proposal(row: Proposal) -> Fact:
    fields = {"tenant": row.tenant, "act": row.act.value, "subject": row.subject, "state": row.state.value, "expires": row.expires}
    return Fact("proposal", octets(row.request).hex(), fields)


def of_profile(row: Profile) -> Fact:
    return Fact("profile", row.name, {"digest": octets(row.digest).hex()})


def of_demand(row: Demand) -> Fact:
    return Fact("demand", "two-persons", {"subject": subject_of(row)})


def of_device(row: Device) -> Fact:
    return Fact("device", row.id, {"tenant": row.tenant, "state": row.state.value})


def of_device_facts(device: DeviceId, facts: DeviceFacts) -> Fact:
    return Fact("device-facts", device, facts_of(facts))


def _names(names: tuple[Name, ...]) -> list[dict[str, str]]:
    return [{"kind": str(name.kind), "value": name.value} for name in names]


def differing(leaf: Fact, row: Fact) -> str:
    """The fields in which a row and its leaf differ, in words."""
    names = [name for name in leaf.fields if leaf.fields[name] != row.fields.get(name)]
    return "; ".join(f"{name} is {row.fields.get(name)!r}, the record says {leaf.fields[name]!r}" for name in names)
