"""Cryptographic shredding: data that may have to be forgotten is sealed under a key of its device, and forgetting it is forgetting that key. Ring 1: pure.

    master key -- wraps --> tenant's key -- wraps --> device's key -- seals --> texts, wherever they lie

The keys stand in one document, wrapped (AES-KWP). Taking a device's entry out makes all that was sealed for it unreadable, wherever copies of it are,
also in a log that nobody can edit, whose hashes are over the sealed octets and go on verifying; taking a tenant's out does so for all its devices. A name
that was shredded stays as a tombstone. Copies of the document under the same master key would undo it: `rekey` wraps what is left under a new one.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ca.errors import Denied, Malformed, NotFound, Unauthenticated
from ca.rules import ids, wrap

KEY: Final = 32
NONCE: Final = 12
LONGEST: Final = 64 * 1024
_PREFIX: Final = "sealed1:"
_FIELDS: Final = {"tenants", "devices", "shredded"}


@dataclass(frozen=True, slots=True)
class Vault:
    """All wrapped keys. `devices` is by `tenant/device`."""

    tenants: Mapping[str, bytes]
    devices: Mapping[str, bytes]
    shredded: frozenset[str]
    """`tenant` or `tenant/device`."""


EMPTY: Final = Vault({}, {}, frozenset())


def _names(tenant: str, device: str) -> tuple[str, str]:
    return ids.device_id(tenant), f"{ids.device_id(tenant)}/{ids.device_id(device)}"


def _alive(vault: Vault, tenant: str, name: str) -> None:
    for each in (tenant, name):
        if each in vault.shredded:
            raise Denied("shredded", f"What was sealed for {each} is shredded.", why="Its key is gone; nobody can read it any more.")


def key_of(vault: Vault, master: bytes, tenant: str, device: str) -> bytes:
    """A device's key.

    Raises:
        Denied: it was shredded, or its tenant was (`shredded`).
        NotFound: there is none (`no-data-key`).
        Unauthenticated: `unwrap-failed`.
    """
    tenant, name = _names(tenant, device)
    _alive(vault, tenant, name)
    if tenant not in vault.tenants or name not in vault.devices:
        raise NotFound("no-data-key", f"Nothing was ever sealed for {name}.")
    return wrap.unwrap(vault.devices[name], wrap.unwrap(vault.tenants[tenant], master))


def with_key(vault: Vault, master: bytes, tenant: str, device: str, *, drawn: bytes) -> tuple[Vault, bytes]:
    """The vault with a key for that device, and the key.

    Args:
        drawn: 64 octets of chance, used where the tenant or the device has no key yet.

    Raises:
        Denied: `shredded`: what was forgotten does not come back under its old name.
    """
    tenant, name = _names(tenant, device)
    _alive(vault, tenant, name)
    if len(drawn) != 2 * KEY:
        raise Malformed("no-aes-key", f"It takes {2 * KEY} octets of chance.")
    if tenant not in vault.tenants:
        vault = replace(vault, tenants={**vault.tenants, tenant: wrap.wrap(drawn[:KEY], master)})
    if name not in vault.devices:
        above = wrap.unwrap(vault.tenants[tenant], master)
        vault = replace(vault, devices={**vault.devices, name: wrap.wrap(drawn[KEY:], above)})
    return vault, key_of(vault, master, tenant, device)


def shred(vault: Vault, tenant: str, device: str | None = None) -> Vault:
    """The vault without the key of a device, or of a tenant and all its devices. Repeating is harmless.

    Raises:
        NotFound: nothing was ever sealed for it (`no-data-key`): whoever misspelt a name must not believe that something is forgotten.
    """
    tenant = ids.device_id(tenant)
    named = tenant if device is None else _names(tenant, device)[1]
    if not {named, tenant} & vault.shredded and named not in vault.tenants and named not in vault.devices:
        raise NotFound("no-data-key", f"Nothing was ever sealed for {named}.")
    if device is None:
        devices = {name: octets for name, octets in vault.devices.items() if not name.startswith(f"{tenant}/")}
        tenants = {name: octets for name, octets in vault.tenants.items() if name != tenant}
        return Vault(tenants, devices, vault.shredded | {tenant})
    return replace(
        vault, devices={each: octets for each, octets in vault.devices.items() if each != named}, shredded=vault.shredded | {named}
    )


def rekey(vault: Vault, master: bytes, after: bytes) -> Vault:
    """What is left, under another master key."""
    return replace(vault, tenants={name: wrap.wrap(wrap.unwrap(octets, master), after) for name, octets in vault.tenants.items()})


def seal(text: bytes, key: bytes, *, tenant: str, device: str, nonce: bytes) -> str:
    """A text under a device's key, bound to it (AES-256-GCM; NIST SP 800-38D).

    Args:
        nonce: 12 octets, drawn for this text.
    """
    if len(text) > LONGEST or len(nonce) != NONCE:
        raise Malformed("sealed-text", f"A text has {LONGEST} octets at most.")
    return _PREFIX + base64.b64encode(nonce + AESGCM(key).encrypt(nonce, text, _names(tenant, device)[1].encode())).decode()


def unseal(sealed: str, key: bytes, *, tenant: str, device: str) -> bytes:
    """
    Raises:
        Malformed: it is no sealed text (`sealed-text`).
        Unauthenticated: it was changed, or is another device's (`sealed-wrong`).
    """
    try:
        octets = base64.b64decode(sealed.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        octets = b""
    if not sealed.startswith(_PREFIX) or len(octets) < NONCE + 16:
        raise Malformed("sealed-text", "It is no sealed text.")
    try:
        return AESGCM(key).decrypt(octets[:NONCE], octets[NONCE:], _names(tenant, device)[1].encode())
    except InvalidTag:
        raise Unauthenticated("sealed-wrong", "The text cannot be opened.", why="It was changed, or sealed for another device.") from None


# ---- Octets ---------------------------------------------------------------------------------------------------------


def write(vault: Vault) -> bytes:
    """The document: JSON, keys sorted."""
    document = {
        "tenants": {name: octets.hex() for name, octets in vault.tenants.items()},
        "devices": {name: octets.hex() for name, octets in vault.devices.items()},
        "shredded": sorted(vault.shredded),
    }
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def parse(octets: bytes) -> Vault:
    """
    Raises:
        Malformed: it is none of ours (`vault-document`).
    """
    try:
        document: Any = json.loads(octets)
        if not isinstance(document, dict) or set(document) != _FIELDS or not all(isinstance(name, str) for name in document["shredded"]):
            raise ValueError("its fields are not those of a vault")
        tenants, devices = ({name: bytes.fromhex(text) for name, text in document[part].items()} for part in ("tenants", "devices"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed("vault-document", "It is no vault of keys.", why=str(error)[:200]) from None
    return Vault(tenants, devices, frozenset(document["shredded"]))
