"""The end of a device's keys: the order to wipe them, which the CA signs, and the receipt, which the device signs with the key that goes. Ring 1: pure.

    order    {"order":{...},"issuer":"<base64 DER>","signature":"<base64>"}        over ORDER and the canonical form of the order
    receipt  {"receipt":{...},"certificate":"<base64 DER>","signature":"<base64>"}   over RECEIPT and the canonical form of the receipt

A device has one order: the same octets whenever it is asked for. The receipt says that the device, which still had its key, ran the wipe; not that its flash is
blank. The signature of a key that was lost proves nothing, so a certificate that was revoked for keyCompromise gives no receipt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ca.der.algorithms import load_public_key, verify
from ca.errors import FleetcaError, Malformed, Unauthenticated
from ca.model import DeviceId, Digest, TenantId, UnixTime
from ca.rules import ids
from ca.rules.leaf import canonical

ORDER: Final = b"fleetca wipe order v1\0"
RECEIPT: Final = b"fleetca wipe receipt v1\0"
FORMAT: Final = "fleetca wipe v1"
LARGEST: Final = 64 * 1024
MOST_KEYS: Final = 64
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Order:
    """A device shall wipe its keys."""

    deployment: str
    tenant: TenantId
    device: DeviceId
    retired_at: UnixTime

    @property
    def octets(self) -> bytes:
        """Its canonical form."""
        return canonical(
            {"format": FORMAT, "deployment": self.deployment, "tenant": self.tenant, "device": self.device, "retired_at": self.retired_at}
        )

    @property
    def digest(self) -> str:
        """SHA-256 of that, in hex."""
        return hashlib.sha256(self.octets).hexdigest()


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """As it travels."""

    order: Order
    issuer: bytes
    """The certificate of who signed (DER)."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A device wiped its keys."""

    device: DeviceId
    order: str
    """SHA-256 of the order, in hex."""
    at: UnixTime
    """By the device's clock."""
    keys: tuple[str, ...]
    """SHA-256 of the SubjectPublicKeyInfo of each, in hex."""
    agent: str
    certificate: bytes = b""
    """Whose key signed (DER)."""
    signature: bytes = b""

    @property
    def octets(self) -> bytes:
        """What is signed, without its context: canonical JSON."""
        return canonical(
            {"format": FORMAT, "device": self.device, "order": self.order, "at": self.at, "keys": list(self.keys), "agent": self.agent}
        )


def _bad(code: str, why: str) -> Malformed:
    return Malformed(code, "This is no order or receipt of a wipe.", why=why)


def write_order(order: Order, issuer: bytes, signature: bytes) -> bytes:
    """The order as a file."""
    return canonical({"order": orjson.loads(order.octets), "issuer": _text(issuer), "signature": _text(signature)}) + b"\n"


def read_order(octets: bytes) -> SignedOrder:
    """An order from its file; says nothing about whether it holds.

    Raises:
        Malformed: `wipe-form`.
    """
    found = _object(octets, {"order", "issuer", "signature"})
    said = _fields(found["order"], {"format": str, "deployment": str, "tenant": str, "device": str, "retired_at": int})
    order = Order(said["deployment"], TenantId(said["tenant"]), ids.device_id(said["device"]), said["retired_at"])
    return SignedOrder(order, _octets(found["issuer"]), _octets(found["signature"]))


def check_order(found: SignedOrder, issuer_spki: bytes) -> None:
    """Whether that key signed it.

    Raises:
        Unauthenticated: `wipe-signature`.
    """
    _verify(issuer_spki, found.signature, ORDER + found.order.octets, "The order to wipe was not signed by the CA.")


def sign_receipt(receipt: Receipt, key: Callable[[bytes], bytes]) -> bytes:
    """The receipt as a file."""
    signature = key(RECEIPT + receipt.octets)
    document = {"receipt": orjson.loads(receipt.octets), "certificate": _text(receipt.certificate), "signature": _text(signature)}
    return canonical(document) + b"\n"


def read_receipt(octets: bytes) -> Receipt:
    """A receipt from its file; says nothing about whether it holds.

    Raises:
        Malformed: `wipe-form`.
    """
    found = _object(octets, {"receipt", "certificate", "signature"})
    said = _fields(found["receipt"], {"format": str, "device": str, "order": str, "at": int, "keys": list, "agent": str})
    keys: Sequence[Any] = said["keys"]
    if not 0 < len(keys) <= MOST_KEYS or not all(type(one) is str and _HEX.fullmatch(one) for one in (*keys, said["order"])):
        raise _bad("wipe-form", "Order and keys are named by their SHA-256.")
    if len(said["agent"]) > 100 or not said["agent"].isprintable():
        raise _bad("wipe-form", "The agent's name is no line of text.")
    return Receipt(
        device=ids.device_id(said["device"]),
        order=said["order"],
        at=said["at"],
        keys=tuple(keys),
        agent=said["agent"],
        certificate=_octets(found["certificate"]),
        signature=_octets(found["signature"]),
    )


def check_receipt(found: Receipt, spki: bytes) -> None:
    """Whether the key of its certificate signed it, and is among those that went.

    Raises:
        Unauthenticated: `wipe-signature`.
    """
    _verify(spki, found.signature, RECEIPT + found.octets, "The receipt was not signed by the device.")
    if hashlib.sha256(spki).hexdigest() not in found.keys:
        raise Unauthenticated("wipe-signature", "The receipt does not name the key that signed it as wiped.")


def digest_of(octets: bytes) -> Digest:
    """What names a receipt."""
    return Digest(hashlib.sha256(octets).digest())


def _verify(spki: bytes, signature: bytes, octets: bytes, what: str) -> None:
    try:
        verify(load_public_key(spki), signature, octets)
    except FleetcaError:
        raise Unauthenticated("wipe-signature", what) from None


def _object(octets: bytes, names: set[str]) -> dict[str, Any]:
    try:
        found = orjson.loads(octets) if len(octets) <= LARGEST else None
    except ValueError:
        found = None
    if type(found) is not dict or found.keys() != names or canonical(found) + b"\n" != octets:
        raise _bad("wipe-form", f"It is no JSON object in its canonical form with {', '.join(sorted(names))}.")
    return found


def _fields(found: object, kinds: dict[str, type]) -> dict[str, Any]:
    if type(found) is not dict or {name: type(value) for name, value in found.items()} != kinds or found["format"] != FORMAT:
        raise _bad("wipe-form", f"It holds {', '.join(sorted(kinds))}, in this version's format.")
    return found


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(value: object) -> bytes:
    try:
        if type(value) is not str:
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("wipe-form", "Something in it is no base64.") from None
