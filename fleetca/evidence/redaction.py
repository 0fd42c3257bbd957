"""What is withheld from a pack, so that what remains still verifies. Pure.

A leaf that holds something to be withheld stands in the pack as the hash that the log's tree has for it, beside a view of it in which each such
value is a salted digest. The tree still leads to the signed root, counts still agree, and the same value is the same digest throughout, so that
an auditor can follow a device that has no name. The salts come from one key that stays here: with it a single leaf can be shown later.

Digests that stand in a leaf (of requests, evidence, tokens) are withheld with it: they are what keeps a name from being found by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ca.errors import Malformed
from ca.model import DEFAULT_TENANT, OWN_SERVICES
from ca.rules import grant
from ca.rules.caps import OPERATOR_POWERS
from ca.rules.leaf import canonical
from ca.rules.merkle import leaf_hash
from fleetca.evidence.verify import salted

OPERATORS: Final = "operators"
DEVICES: Final = "devices"
TENANTS: Final = "tenants"
CLASSES: Final = (DEVICES, OPERATORS, TENANTS)
KEY: Final = 32

_PLAIN: Final = frozenset({
    "kind", "at", "issuer", "serial", "tbs_sha256", "profile", "profile_sha256", "role", "evidence", "parent", "change", "revoked_at", "invalid_from",
    "shard", "number", "as_of", "count", "this_update", "next_update", "base", "expires", "decision", "successor", "grace_ends_at", "by", "used",
    "certificate_sha256", "roles", "disabled_at", "state", "before", "root_of_trust", "exception_ends", "safety_class", "event", "algorithm",
    "spki_sha256", "purpose", "store", "protection", "transcript_sha256", "outputs", "within", "since", "channel",
})  # fmt: skip
"""Fields that name nobody. What is not known here is withheld with any class."""
_CLASS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("batch", "owner", "justification"), DEVICES),
    "operators": OPERATORS,
    "tenant": TENANTS,
}
_NAMING: Final = frozenset({"device", "id", "name", "names", "actor", "operators", "owner", "batch", "tenant"})
"""Fields that hold names, not words: none of them may stand elsewhere."""
_PEOPLE: Final = ("operator:", "device:", "account:")
"""How actors begin that are named; others are parts of ours, or user ids."""
_BLIND: Final = frozenset({"request_key", "request", "evidence_sha256", "hash"})
_WORD: Final = re.compile(r"[A-Za-z0-9._:@-]+")


@dataclass(slots=True)
class Redaction:
    """What is withheld, and what was so far."""

    classes: frozenset[str]
    key: bytes
    values: set[str] = field(default_factory=set)
    """Every name that was withheld: none of it may stand anywhere else in the pack."""
    exposed: set[str] = field(default_factory=set)
    """Kinds of withheld leaves that hold no secret digest: who guesses the name can recognise it."""

    def __post_init__(self) -> None:
        unknown = self.classes - set(CLASSES)
        if unknown:
            raise Malformed(
                "no-such-redaction", f"Nothing is called {min(unknown)!r} that could be withheld.", fix=f"Name {', '.join(CLASSES)}."
            )
        if self.classes and len(self.key) != KEY:
            raise Malformed(
                "redaction-key", "To withhold something takes a key of 32 octets.", fix="Make one: openssl rand -hex 32 > redaction.key"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.classes

    def salt(self, value: Any) -> bytes:
        return hmac.new(self.key, canonical({"value": value}), hashlib.sha256).digest()[:16]

    def _salted(self, value: Any) -> dict[str, str]:
        return {"salted": salted(self.salt(value), value)}

    def shown(self, value: Any, name: str) -> Any:
        """A value of a class, or what stands in its place."""
        if name not in self.classes or value in (None, "", []):
            return value
        self._note(value)
        return self._salted(value)

    def line(self, body: bytes) -> bytes:
        """How a leaf stands in the pack."""
        if not self.classes:
            return body
        leaf = json.loads(body)
        held = {name for name, value in leaf.items() if value not in (None, "", []) and self._withheld(leaf, name)}
        if not held:
            return body
        blind = {name for name in _BLIND if leaf.get(name)}
        if not blind:
            self.exposed.add(str(leaf["kind"]))
        for name in held & _NAMING:
            if name != "actor" or str(leaf[name]).startswith(_PEOPLE):
                self._note(leaf[name])
        view = {name: self._salted(value) if name in held or name in blind else value for name, value in leaf.items()}
        if leaf.get("attestation"):  # how, but not by which key
            view["attestation"] = {**{name: leaf["attestation"][name] for name in ("kind", "rule")}, **view["attestation"]}
        return canonical({"view": view, "withheld": leaf_hash(body).hex()})

    def salts(self, leaf: Mapping[str, Any]) -> dict[str, str]:
        """What opens each digest of a leaf's view."""
        return {name: self.salt(value).hex() for name, value in leaf.items()}

    def leaks(self, document: bytes) -> str | None:
        """A withheld text that stands in a document all the same."""
        if not self.values:
            return None
        text = document.decode(errors="replace")
        words = set(_WORD.findall(text)) | set(re.split(r"[^A-Za-z0-9._-]+", text))
        return min(
            (words & self.values) - OPERATOR_POWERS.keys(), default=None
        )  # roles are no names, though an operator may be called like one

    def device(self, name: str) -> Any:
        """A device's id, or what stands in its place."""
        kind = _class_of_device(name)
        return name if kind is None else self.shown(name, kind)

    def _withheld(self, leaf: Mapping[str, Any], name: str) -> bool:
        kind = str(leaf["kind"])
        if name == "actor":
            return (DEVICES if str(leaf[name]).startswith(("device:", "account:")) else OPERATORS) in self.classes
        if name in {"device", "names"} or (name == "id" and kind in {"device", "device-facts"}):
            return _class_of_device(str(leaf.get("device") or leaf.get("id"))) in self.classes
        if name == "id":
            return False
        if name == "name":
            return kind == "operator" and OPERATORS in self.classes
        if name == "reason":  # in words of the record, or of a person
            return kind != "revocation"
        return _CLASS[name] in self.classes if name in _CLASS else name not in _PLAIN and name not in _BLIND

    def _note(self, value: Any) -> None:
        if value == DEFAULT_TENANT:
            return  # a word of ours, which names nobody
        if isinstance(value, str):
            self.values.add(value)
            self.values.add(value.rpartition(":")[2])
        elif isinstance(value, list):
            for one in value:
                self._note(one["value"] if isinstance(one, dict) and "value" in one else one)


def _class_of_device(name: str) -> str | None:
    """Operators have certificates as devices have; our own services are nobody."""
    if name.startswith(grant.OPERATOR_DEVICE):
        return OPERATORS
    return None if name.startswith(OWN_SERVICES) else DEVICES
