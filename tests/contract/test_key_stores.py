"""One contract for every key store (REQ-KEY-004): what the port promises, held by each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from ca.der.algorithms import ALGORITHMS, load_public_key, verify
from ca.errors import Conflict, KeyUnavailable, Misconfigured, Unacceptable
from ca.model import AlgorithmName, KeyName, Protection
from ca.ports import DigestSigning, KeyStore, SigningKey
from ca.rules.key_policy import check_protection, check_store
from fleetca import forms
from tests.contract.key_stores import STARTED, STORES
from tests.fakes.kms import kms

P256, FIRST, SECOND = AlgorithmName("p256"), KeyName("first"), KeyName("second")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    monkeypatch.setattr("ca.keys.sealed_file._N", 1 << 8)  # the price of guessing is not what is tested
    with kms() if request.param == "awskms" else nullcontext():
        yield STORES[request.param](tmp_path)
    while STARTED:
        STARTED.pop().stop()


def names_for(store: KeyStore) -> tuple[KeyName, KeyName]:
    """Two lawful names: a TPM knows handles only."""
    return (KeyName("0x81020001"), KeyName("0x81020002")) if store.ability().kind == "tpm" else (FIRST, SECOND)


@pytest.mark.req("REQ-KEY-004")
def test_a_key_that_was_made_is_found_again_and_signs_what_verifies(store: KeyStore) -> None:
    name, _ = names_for(store)
    made: SigningKey = store.generate(name, P256)
    found = store.open(name)
    assert (found.spki, found.algorithm, found.name) == (made.spki, P256, name)
    for key in (made, found):
        verify(load_public_key(key.spki), key.sign(b"message"), b"message")


@pytest.mark.req("REQ-KEY-004", "REQ-KEY-086")
def test_every_kind_that_it_says_it_can_is_made_and_signs(store: KeyStore) -> None:
    offered = sorted(store.ability().algorithms)
    assert P256 in offered
    for number, algorithm in enumerate(offered):
        name = KeyName(f"0x8102001{number}" if store.ability().kind == "tpm" else f"key-{number}")
        key = store.generate(name, algorithm)
        assert key.algorithm == algorithm
        for message in (b"", b"message", bytes(70_000)):  # also none, and more than fits into one exchange with a module
            verify(load_public_key(key.spki), key.sign(message), message)


def test_a_digest_is_signed_as_its_message_would_be(store: KeyStore) -> None:
    """Large CRLs are hashed while they are written (`ca.ports.DigestSigning`)."""
    import hashlib

    for number, algorithm in enumerate(sorted(store.ability().algorithms)):
        row = ALGORITHMS[algorithm]
        if row.digest is None or algorithm == "rsa-4096":  # as the smaller one, and slow to make
            continue
        key = store.generate(KeyName(f"0x8102001{number}" if store.ability().kind == "tpm" else f"key-{number}"), algorithm)
        assert isinstance(key, DigestSigning)
        signature = key.sign_digest(hashlib.new(row.digest, b"message").digest())
        verify(load_public_key(key.spki), signature, b"message")


def test_what_it_cannot_is_said_before_anything_is_made(store: KeyStore) -> None:
    ability = store.ability()
    name, _ = names_for(store)
    for algorithm in sorted(set(ALGORITHMS) - ability.algorithms):
        with pytest.raises(Unacceptable) as refused:
            store.generate(name, algorithm)
        assert refused.value.code == "store-lacks-algorithm"
        assert algorithm in refused.value.what
        assert "p256" in refused.value.why
    assert list(store.names()) == []


def test_an_unknown_name_is_unavailable(store: KeyStore) -> None:
    name, _ = names_for(store)
    for act in (store.open, store.destroy):
        with pytest.raises(KeyUnavailable) as missing:
            act(name)
        assert missing.value.code == "no-such-key"


def test_a_name_is_never_overwritten(store: KeyStore) -> None:
    name, _ = names_for(store)
    made = store.generate(name, P256)
    with pytest.raises(Conflict) as taken:
        store.generate(name, P256)
    assert taken.value.code == "key-exists"
    assert store.open(name).spki == made.spki


@pytest.mark.req("REQ-KEY-097")
def test_what_it_holds_is_listed_by_name(store: KeyStore) -> None:
    assert list(store.held()) == []
    first, second = names_for(store)
    keys = {name: store.generate(name, P256) for name in (second, first)}
    assert list(store.names()) == [first, second]
    for held in store.held():
        assert held.spki in {None, keys[held.name].spki}  # a sealed file says nothing without its passphrase
        assert held.algorithm in {None, P256}


@pytest.mark.req("REQ-KEY-069")
def test_a_destroyed_key_is_gone_and_the_others_stay(store: KeyStore) -> None:
    first, second = names_for(store)
    store.generate(first, P256)
    stays = store.generate(second, P256)
    done = store.destroy(first)
    assert done.name == first
    assert done.store.kind == store.ability().kind
    assert done.proof
    assert list(store.names()) == [second]
    with pytest.raises(KeyUnavailable):
        store.open(first)
    verify(load_public_key(stays.spki), store.open(second).sign(b"still"), b"still")


@pytest.mark.req("REQ-KEY-069")
def test_a_key_in_hand_cannot_sign_after_its_destruction(store: KeyStore) -> None:
    name, _ = names_for(store)
    key = store.generate(name, P256)
    key.sign(b"before")
    store.destroy(name)
    if store.ability().protection < Protection.module:
        key.sign(b"after")  # it was loaded into this process, and lives as long
        return
    with pytest.raises(KeyUnavailable):
        key.sign(b"after")


@pytest.mark.req("REQ-KEY-043")
def test_a_key_shows_nothing_private(store: KeyStore) -> None:
    name, _ = names_for(store)
    key = store.generate(name, P256)
    assert name in repr(key)
    if store.ability().protection >= Protection.module:
        assert [word for word in dir(key) if "private_bytes" in word or "secret" in word] == []


@pytest.mark.req("REQ-KEY-004")
@pytest.mark.parametrize("demanded", Protection)
def test_a_profile_that_demands_more_refuses_the_store(store: KeyStore, demanded: Protection) -> None:
    shipped = forms.shipped_profiles()["issuing-ca"]  # type: ignore[index]
    profile = type(shipped)(**{name: getattr(shipped, name) for name in shipped.__slots__} | {"minimum_protection": demanded})
    ability = store.ability()
    if ability.protection >= demanded:
        check_store(ability, P256, profile)
        return
    with pytest.raises(Misconfigured) as weak:
        check_protection(ability, profile)
    assert weak.value.code == "store-too-weak"
    assert demanded.name in weak.value.why
