"""What the settings say of a deployment's own keys, as the inventory has it. Edge: maps, decides nothing.

The signer enters its issuing keys with what their stores say of themselves; the log's and the offline roots' by what the settings and
certificates say, for it opens neither (P3, P4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from ca.errors import FleetcaError
from ca.key_life import OFFLINE
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Digest,
    Issuer,
    IssuerId,
    KeyName,
    KeyOrigin,
    KeyPlace,
    KeyPurpose,
    KeyRecord,
    KeyState,
    Protection,
    StoreAbility,
    UnixTime,
)
from ca.ports import SigningKey
from ca.rules import note, serial
from ca.store.database import Database
from config.key_uris import KeyReference
from config.settings import Settings
from enroll.store.secrets import secrets as enroll_secrets
from fleetca import forms

# Where the store cannot be asked: who may open the log's key is another process.
_BY_SCHEME = {"sealed": Protection.file, "pkcs11": Protection.module, "tpm": Protection.module, "awskms": Protection.hardware}
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
"""DER of a SubjectPublicKeyInfo up to the key (RFC 8410)."""


def records(
    settings: Settings,
    issuers: Sequence[Issuer],
    abilities: Mapping[IssuerId, StoreAbility],
    *,
    now: UnixTime,
    to_come: Mapping[IssuerId, SigningKey] | None = None,
) -> list[KeyRecord]:
    """Every key of the settings.

    Args:
        issuers: those at work.
        to_come: keys that wait for their certificates.
    """
    found = [_of_issuer(settings, issuer, abilities.get(issuer.id), now=now) for issuer in issuers]
    found += [_to_come(settings, id_, key, abilities[id_], now=now) for id_, key in (to_come or {}).items()]
    found.append(_of_serial_check(settings, now=now))
    log = _of_log(settings, now=now)
    return [*found, log] if log is not None else found


def _to_come(settings: Settings, id_: IssuerId, key: SigningKey, ability: StoreAbility, *, now: UnixTime) -> KeyRecord:
    reference = settings.issuer(id_).key
    assert reference is not None, "it was opened by it"
    return KeyRecord(
        spki_sha256=Digest(hashlib.sha256(key.spki).digest()),
        tenant=DEFAULT_TENANT,
        name=KeyName(reference.name),
        purpose=KeyPurpose.issuing_ca,
        origin=_origin(reference),
        algorithm=key.algorithm,
        spki=key.spki,
        store=ability.kind,
        place=reference.text,
        protection=ability.protection,
        owner=f"deployment {settings.deployment.name}",
        state=KeyState.pre_activation,
        created=now,
        period_ends=None,
        changed=now,
    )


def _of_serial_check(settings: Settings, *, now: UnixTime) -> KeyRecord:
    """It has no public half: a digest stands for it that names it and does not tell it."""
    mark = serial.mark(forms.serial_check_key(settings))
    reference = settings.signer.serial_check
    return KeyRecord(
        spki_sha256=Digest(hashlib.sha256(mark.encode()).digest()),
        tenant=DEFAULT_TENANT,
        name=KeyName("serial-check"),
        purpose=KeyPurpose.serial_check,
        origin=KeyOrigin.process,
        algorithm=AlgorithmName("hmac-sha256"),
        spki=b"",
        store="secret",
        place=reference.reference,
        protection=None,
        owner=f"deployment {settings.deployment.name}",
        state=KeyState.active,
        created=now,
        period_ends=None,
        changed=now,
    )


def secrets(settings: Settings) -> Callable[[UnixTime], Sequence[KeyRecord]]:
    """The symmetric keys that the workers of the protocols share, as their rows say: whoever asks hears of those in force now."""

    def found(now: UnixTime) -> Sequence[KeyRecord]:
        database = Database(forms.store_url(settings), writes=False)
        try:
            rows = enroll_secrets(database, now=now)
        finally:
            database.dispose()
        return [
            KeyRecord(
                spki_sha256=Digest(hashlib.sha256(b"fleetca enroll secret v1\0" + secret.value).digest()),
                tenant=DEFAULT_TENANT,
                name=KeyName(secret.name),
                purpose=KeyPurpose.nonces,
                origin=KeyOrigin.process,
                algorithm=AlgorithmName("hmac-sha256"),
                spki=b"",
                store="database",
                place="enroll_secrets",
                protection=None,
                owner=f"deployment {settings.deployment.name}",
                state=KeyState.active,
                created=secret.created,
                period_ends=secret.ends,
                changed=secret.created,
            )
            for secret in rows
        ]

    return found


def responder(settings: Settings) -> KeyPlace | None:
    """Where the one responder key rests, if the settings name one."""
    key = settings.ocsp.responder_key
    return None if key is None else KeyPlace(KeyName(key.name), key.scheme, key.text, _BY_SCHEME[key.scheme], _origin(key))


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
        store=OFFLINE if ability is None else ability.kind,
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
