"""What the settings say of a deployment's own keys, as the inventory has it. Edge: maps, decides nothing.

The signer enters its issuing keys with what their stores say of themselves; the log's and the offline roots' by what the settings and
certificates say, for it opens neither (P3, P4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ca.errors import FleetcaError
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Digest,
    Issuer,
    IssuerId,
    KeyName,
    KeyOrigin,
    KeyPurpose,
    KeyRecord,
    KeyState,
    Protection,
    StoreAbility,
    UnixTime,
)
from ca.rules import note
from config.key_uris import KeyReference
from config.settings import Settings

# Where the store cannot be asked: who may open the log's key is another process.
_BY_SCHEME = {"sealed": Protection.file, "pkcs11": Protection.module, "tpm": Protection.module, "awskms": Protection.hardware}
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
"""DER of a SubjectPublicKeyInfo up to the key (RFC 8410)."""


def records(
    settings: Settings, issuers: Sequence[Issuer], abilities: Mapping[IssuerId, StoreAbility], *, now: UnixTime
) -> list[KeyRecord]:  # fmt: skip
    """Every key of the settings."""
    found = [_of_issuer(settings, issuer, abilities.get(issuer.id), now=now) for issuer in issuers]
    log = _of_log(settings, now=now)
    return [*found, log] if log is not None else found


def _of_issuer(settings: Settings, issuer: Issuer, ability: StoreAbility | None, *, now: UnixTime) -> KeyRecord:
    reference = settings.issuer(issuer.id).key
    return KeyRecord(
        spki_sha256=Digest(hashlib.sha256(issuer.spki).digest()),
        tenant=DEFAULT_TENANT,
        name=KeyName(reference.name if reference is not None else issuer.id),
        purpose=KeyPurpose.root_ca if issuer.parent is None else KeyPurpose.issuing_ca,
        origin=KeyOrigin.ceremony if reference is None else _origin(reference),
        algorithm=issuer.algorithm,
        spki=issuer.spki,
        store="offline" if ability is None else ability.kind,
        place="with the custodians of its ceremony" if reference is None else reference.text,
        protection=None if ability is None else ability.protection,
        owner=f"deployment {settings.deployment.name}",
        state=KeyState.active,
        created=now,
        period_ends=issuer.not_after,
        changed=now,
    )


def _origin(reference: KeyReference) -> KeyOrigin:
    return KeyOrigin.process if reference.scheme == "sealed" else KeyOrigin.store


def _of_log(settings: Settings, *, now: UnixTime) -> KeyRecord | None:
    try:
        key = note.read_note_key(settings.log.verifier.read_text())
    except (OSError, FleetcaError):
        return None  # the doctor speaks of a verifier that cannot be read
    spki = _ED25519_HEAD + key.public
    return KeyRecord(
        spki_sha256=Digest(hashlib.sha256(spki).digest()),
        tenant=DEFAULT_TENANT,
        name=KeyName(settings.log.key.name),
        purpose=KeyPurpose.log,
        origin=_origin(settings.log.key),
        algorithm=AlgorithmName("ed25519"),
        spki=spki,
        store=settings.log.key.scheme,
        place=settings.log.key.text,
        protection=_BY_SCHEME[settings.log.key.scheme],
        owner=f"deployment {settings.deployment.name}",
        state=KeyState.active,
        created=now,
        period_ends=None,
        changed=now,
    )
