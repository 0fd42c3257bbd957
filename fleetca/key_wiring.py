"""Opens the keys of a deployment and puts the life of keys together. Only what runs as the signer calls it (P3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ca.errors import FleetcaError, KeyUnavailable, Misconfigured
from ca.key_life import KeyLife
from ca.keys.watched import Calls, WatchedStore
from ca.model import DEFAULT_TENANT, IssuerId, KeyName, Profile, ProfileName, Protection, StoreAbility, StoreHeld
from ca.ports import KeyStore, SigningKey
from ca.rules.key_policy import check_protection
from ca.signer.alone import SignerLock
from ca.store.engine import Store, open_store
from ca.store.file_journal import FileJournal
from ca.system import SystemClock
from ca.witness import Witness
from config.settings import IssuerSetting, Settings
from fleetca import forms


@dataclass(frozen=True, slots=True)
class Opened:
    """The issuing keys, and what holds them."""

    keys: Mapping[IssuerId, SigningKey]
    stores: Mapping[IssuerId, KeyStore]
    abilities: Mapping[IssuerId, StoreAbility]
    """Those to come among them."""
    to_come: Mapping[IssuerId, SigningKey]
    """Keys that wait for their certificates; those that cannot be had are no reason not to work."""


def holding(settings: Settings, found: Opened) -> Callable[[], Sequence[StoreHeld]]:
    """Asks every store that the settings name, each once, for all that it holds. One that cannot be asked says why: the log's and the responder's may
    belong to another user. Stores are opened once, so that nobody logs in to a token again and again."""
    stores: dict[str, KeyStore] = {}
    named = [(setting.key, setting.passphrase) for setting in settings.issuers if setting.key is not None]
    named += [(settings.log.key, settings.log.passphrase)]
    if settings.ocsp.responder_key is not None:
        named += [(settings.ocsp.responder_key, settings.ocsp.responder_passphrase)]
    for setting in settings.issuers:
        if setting.key is not None and IssuerId(setting.id) in found.stores:
            stores[setting.key.text] = found.stores[IssuerId(setting.id)]

    def ask() -> Sequence[StoreHeld]:
        said: dict[str, StoreHeld] = {}
        for key, secret in named:
            about = key.text
            try:
                store = stores.get(key.text) or stores.setdefault(key.text, forms.key_store(key, secret)[0])
                ability = store.ability()
                about = ability.about
                asked = said.get(about) or StoreHeld(ability, (), tuple(store.held()))
            except (FleetcaError, OSError) as error:
                asked = StoreHeld(StoreAbility(key.scheme, frozenset(), Protection.memory, about), (), trouble=str(error))
            said[about] = replace(asked, places=(*asked.places, key.text))
        return list(said.values())

    return ask


def opened(settings: Settings, calls: Calls | None = None) -> Opened:
    """Open every issuing key.

    Args:
        calls: what each call to a store or key leaves its trace in; absent, none is left.

    Raises:
        KeyUnavailable: one is not to be had.
        Misconfigured: its store keeps it less well than its profile demands (`store-too-weak`), or there is no such profile.
    """
    known = forms.profiles(settings)
    keys: dict[IssuerId, SigningKey] = {}
    stores: dict[IssuerId, KeyStore] = {}
    abilities: dict[IssuerId, StoreAbility] = {}
    to_come: dict[IssuerId, SigningKey] = {}
    for setting in settings.issuers:
        if setting.key is None:
            continue
        if setting.to_come:
            _open_early(settings, setting, stores, abilities, to_come, calls=calls)
            continue
        id_ = IssuerId(setting.id)
        stores[id_], name = _watched(settings, setting.id, calls)
        abilities[id_] = stores[id_].ability()
        check_protection(abilities[id_], _profile(setting, known))
        keys[id_] = stores[id_].open(name)
    return Opened(keys, stores, abilities, to_come)


def _watched(settings: Settings, id_: str, calls: Calls | None) -> tuple[KeyStore, KeyName]:
    store, name = store_of(settings, id_)
    return store if calls is None else WatchedStore(store, calls), name


def _open_early(
    settings: Settings,
    setting: IssuerSetting,
    stores: dict[IssuerId, KeyStore],
    abilities: dict[IssuerId, StoreAbility],
    to_come: dict[IssuerId, SigningKey],
    *,
    calls: Calls | None,
) -> None:
    id_ = IssuerId(setting.id)
    try:
        store, name = _watched(settings, setting.id, calls)
        ability, key = store.ability(), store.open(name)
    except (KeyUnavailable, Misconfigured):
        return  # `prepare` said so when it made it; the import will say so again
    stores[id_], abilities[id_], to_come[id_] = store, ability, key


def _profile(setting: IssuerSetting, known: Mapping[ProfileName, Profile]) -> Profile:
    profile = known.get(ProfileName(setting.profile))
    if profile is None:
        raise Misconfigured(
            "unknown-profile", f"Issuer {setting.id} names the profile {setting.profile}, which there is not.", fix="fleetca profiles list"
        )
    return profile


def store_of(settings: Settings, id_: str) -> tuple[KeyStore, KeyName]:
    """The store of an issuer's key (or, for `log`, of the log's), and the key's name there.

    Raises:
        Misconfigured: it has none here (`no-key-here`).
    """
    setting = None if id_ == "log" and all(each.id != "log" for each in settings.issuers) else settings.issuer(id_)
    key, secret = (settings.log.key, settings.log.passphrase) if setting is None else (setting.key, setting.passphrase)
    if key is None:
        raise Misconfigured(
            "no-key-here", f"The settings name no key of {id_}.", fix="Its key is offline; what happens to it, a ceremony does."
        )
    return forms.key_store(key, secret)


def life(settings: Settings, store: Store, witness: Witness) -> KeyLife:
    """The verb over a store."""
    return KeyLife(
        ledger=store.ledger,
        find=store.reading.find_by_der_digest,
        tenant=DEFAULT_TENANT,
        deployment=settings.deployment.name,
        clock=SystemClock(),
        witness=witness,
    )


@contextmanager
def alone(settings: Settings) -> Iterator[tuple[Store, KeyLife]]:
    """The inventory for those who change it, as the signer's user while the signer is stopped: it would go on with a key that must not sign.

    Raises:
        Conflict: the signer runs (`signer-running`).
    """
    with SignerLock(settings.signer.journal):
        store = open_store(forms.store_url(settings))
        try:
            yield store, life(settings, store, Witness(FileJournal(settings.signer.journal)))
        finally:
            store.close()
