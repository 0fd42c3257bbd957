"""Key stores whose calls leave a trace: each is counted with its outcome, and all but signatures that were made are told one by one (REQ-KEY-091). Ring 3.

Knows no log: whom to tell is given to it. A call that the process dies in leaves nothing here; what was to be signed stands in the journal before (P1).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ca.errors import FleetcaError
from ca.keys.around import KeyAround
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, StoreAbility
from ca.ports import DigestSigning, KeyStore, SigningKey

OK = "ok"
FAILED = "internal"
"""The outcome of a call that ended in no error of ours."""


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One kind of call."""

    key: str
    """The key's name in its store; empty for calls about the whole store."""
    operation: str
    """The method's name."""
    outcome: str
    """`ok`, or the code of the error."""


class Calls:
    """Counts calls; safe from several threads."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts: Counter[Call] = Counter()

    def count(self, call: Call) -> None:
        with self._lock:
            self._counts[call] += 1

    def tell(self, call: Call) -> None:
        """Count it, and say so."""
        self.count(call)
        self._tell(call)

    def taken(self) -> Mapping[Call, int]:
        """How often what was called since the last time that this was asked, sorted."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(sorted(counts.items()))

    @contextmanager
    def watching(self, operation: str, key: str = "") -> Iterator[None]:
        """Around one call that is rare."""
        try:
            yield
        except BaseException as error:
            self.failed(operation, key, error)
            raise
        self.tell(Call(key, operation, OK))

    def failed(self, operation: str, key: str, error: BaseException) -> None:
        """Count and tell a call that ended in an error."""
        self.tell(Call(key, operation, error.code if isinstance(error, FleetcaError) else FAILED))

    def signing(self, operation: str, key: str, sign: Callable[[bytes], bytes], octets: bytes) -> bytes:
        """The signature; only counted, and with no context manager, since it stands in the way of every certificate."""
        try:
            signature = sign(octets)
        except BaseException as error:
            self.failed(operation, key, error)
            raise
        self.count(Call(key, operation, OK))
        return signature


class WatchedKey(KeyAround):
    """A `SigningKey` around another one."""

    def __init__(self, key: SigningKey, calls: Calls) -> None:
        super().__init__(key)
        self._calls = calls

    def sign(self, message: bytes) -> bytes:
        """As the key within."""
        return self._calls.signing("sign", self._key.name, self._key.sign, message)


class WatchedDigestKey(WatchedKey):
    """Around a key that signs digests too (`ca.ports.DigestSigning`)."""

    def sign_digest(self, digest: bytes) -> bytes:
        """As the key within."""
        assert isinstance(self._key, DigestSigning), "`watched` sees to it"
        return self._calls.signing("sign_digest", self._key.name, self._key.sign_digest, digest)


def watched(key: SigningKey, calls: Calls) -> WatchedKey:
    """A key that can do what it could before, no more."""
    return (WatchedDigestKey if isinstance(key, DigestSigning) else WatchedKey)(key, calls)


class WatchedStore:
    """A `KeyStore` around another one."""

    def __init__(self, store: KeyStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    def ability(self) -> StoreAbility:
        """As the store within."""
        with self._calls.watching("ability"):
            return self._store.ability()

    def open(self, name: KeyName) -> WatchedKey:
        """As the store within; the key is watched too."""
        with self._calls.watching("open", name):
            return watched(self._store.open(name), self._calls)

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> WatchedKey:
        """As the store within; the key is watched too."""
        with self._calls.watching("generate", name):
            return watched(self._store.generate(name, algorithm), self._calls)

    def names(self) -> Sequence[KeyName]:
        """As the store within."""
        with self._calls.watching("names"):
            return self._store.names()

    def held(self) -> Sequence[HeldKey]:
        """As the store within."""
        with self._calls.watching("held"):
            return self._store.held()

    def destroy(self, name: KeyName) -> Destruction:
        """As the store within."""
        with self._calls.watching("destroy", name):
            return self._store.destroy(name)
