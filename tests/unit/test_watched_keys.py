"""Calls to keys and their stores leave a trace (REQ-KEY-091): every method of the promises in `ca.ports` is tried, those to come too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest

from ca import model
from ca.errors import FleetcaError, KeyUnavailable
from ca.keys.memory import MemoryKeyStore
from ca.keys.watched import FAILED, Call, Calls, WatchedStore, watched
from ca.model import AlgorithmName, KeyName
from ca.ports import DigestSigning, KeyStore, SigningKey

NAME = KeyName("issuing")
ARGUMENTS: dict[Any, Any] = {KeyName: NAME, AlgorithmName: AlgorithmName("p256"), bytes: bytes(32)}


def methods(promise: type) -> list[str]:
    return sorted(name for name, kind in vars(promise).items() if inspect.isfunction(kind) and not name.startswith("_"))


def arguments(promise: type, method: str) -> list[Any]:
    """For whatever it takes; a kind of argument that is new fails here, and wants a line in the table."""
    hints = get_type_hints(getattr(promise, method), {**vars(inspect.getmodule(promise)), **vars(model)})
    return [ARGUMENTS[kind] for name, kind in hints.items() if name != "return"]


def all_calls(store: KeyStore) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Each method of each promise: its name, the key's name that it is about, and the call."""
    for method in methods(KeyStore):
        given = arguments(KeyStore, method)
        yield method, NAME if NAME in given else "", lambda method=method, given=given: getattr(store, method)(*given)  # type: ignore[misc]
    for promise in (SigningKey, DigestSigning):
        for method in methods(promise):
            given = arguments(promise, method)
            yield method, NAME, lambda method=method, given=given: getattr(store.open(NAME), method)(*given)  # type: ignore[misc]


def traceless(store: KeyStore, inner: MemoryKeyStore, calls: Calls) -> set[str]:
    """The methods whose call leaves no count with its outcome."""
    left: set[str] = set()
    for method, about, call in all_calls(store):
        inner._keys.clear()
        if method != "generate":
            inner.generate(NAME, AlgorithmName("p256"))
        calls.taken()
        call()
        if not calls.taken().get(Call(about, method, "ok")):
            left.add(method)
    return left


@pytest.mark.req("REQ-KEY-091")
def test_every_call_to_a_key_or_its_store_is_counted_with_its_outcome() -> None:
    inner, calls = MemoryKeyStore(), Calls(lambda _: None)
    assert {"open", "generate", "destroy", "sign", "sign_digest"} <= {method for method, _, _ in all_calls(inner)}
    assert traceless(WatchedStore(inner, calls), inner, calls) == set()


@pytest.mark.req("REQ-KEY-091")
def test_a_call_that_leaves_nothing_is_noticed() -> None:
    class Forgetful(WatchedStore):
        def destroy(self, name: KeyName) -> Any:
            return inner.destroy(name)

    inner, calls = MemoryKeyStore(), Calls(lambda _: None)
    assert traceless(Forgetful(inner, calls), inner, calls) == {"destroy"}
    assert traceless(inner, inner, calls) == {method for method, _, _ in all_calls(inner)}


@pytest.mark.req("REQ-KEY-091")
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(KeyUnavailable("token-gone", "The token is away."), "token-gone", id="an error of ours, by its code"),
        pytest.param(OSError("a broken cable"), FAILED, id="any other"),
    ],
)
def test_every_call_that_fails_is_told_at_once_and_fails_as_before(error: Exception, outcome: str) -> None:
    class Failing:
        """A store and a key, none of whose methods works."""

        name = NAME

        def __getattr__(self, method: str) -> Callable[..., object]:
            def fail(*_: object) -> object:
                raise error

            return fail

    told: list[Call] = []
    calls = Calls(told.append)
    failing: Any = Failing()
    key = watched(failing, calls)
    for promise, thing in ((KeyStore, WatchedStore(failing, calls)), (SigningKey, key), (DigestSigning, key)):
        for method in methods(promise):
            told.clear()
            with pytest.raises(type(error)) as raised:
                getattr(thing, method)(*arguments(promise, method))
            assert raised.value is error
            assert [(call.operation, call.outcome) for call in told] == [(method, outcome)]


def test_signatures_are_counted_and_what_is_rare_is_told() -> None:
    told: list[Call] = []
    calls = Calls(told.append)
    store = WatchedStore(MemoryKeyStore(), calls)
    key = store.generate(NAME, AlgorithmName("p256"))
    for _ in range(3):
        key.sign(b"tbs")
    with pytest.raises(FleetcaError):
        store.generate(NAME, AlgorithmName("p256"))
    assert told == [Call(NAME, "generate", "ok"), Call(NAME, "generate", "key-exists")]
    assert calls.taken() == {Call(NAME, "generate", "key-exists"): 1, Call(NAME, "generate", "ok"): 1, Call(NAME, "sign", "ok"): 3}
    assert calls.taken() == {}


def test_a_key_that_signs_no_digests_does_not_say_that_it_does() -> None:
    class Plain:
        name, algorithm, spki = NAME, AlgorithmName("ed25519"), b""

        def sign(self, message: bytes) -> bytes:
            return message

    inner: Any = MemoryKeyStore()
    inner._keys[NAME] = Plain()
    assert not isinstance(WatchedStore(inner, Calls(lambda _: None)).open(NAME), DigestSigning)
