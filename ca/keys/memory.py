"""Private keys that live in this process only: responder keys, throw-away keys of rehearsals, tests. Ring 3.

Also where loaded private keys of every store become a `SigningKey`. Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from ca.der.algorithms import algorithm_of, digest_arguments
from ca.errors import Broken, Conflict, KeyUnavailable
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, Protection, StoreAbility

# cryptography's private keys have no common type.
PrivateKey = Any

_MAKERS: Final = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa-3072": lambda: rsa.generate_private_key(public_exponent=65537, key_size=3072),
    "rsa-4096": lambda: rsa.generate_private_key(public_exponent=65537, key_size=4096),
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}

ALL_KINDS: Final = frozenset(map(AlgorithmName, _MAKERS))


def make_private_key(algorithm: AlgorithmName) -> PrivateKey:
    """A fresh private key of a row of the algorithm table."""
    return _MAKERS[algorithm]()


class MemoryKey:
    """A `SigningKey` around a private key in memory. It never shows the private part."""

    def __init__(self, name: KeyName, private_key: PrivateKey) -> None:
        public = private_key.public_key()
        row = algorithm_of(public)
        self._name = name
        self._algorithm = row.name
        self._arguments = row.arguments
        self._digest_arguments = digest_arguments(row)
        self._sign = private_key.sign
        self._spki: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"MemoryKey({self._name!r}, {self._algorithm!r})"

    @classmethod
    def generate(cls, name: KeyName, algorithm: AlgorithmName) -> MemoryKey:
        """A key that is gone when the process is."""
        return cls(name, make_private_key(algorithm))

    @property
    def name(self) -> KeyName:
        """Its name in its store."""
        return self._name

    @property
    def algorithm(self) -> AlgorithmName:
        """Its row in `ca.der.algorithms`."""
        return self._algorithm

    @property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo of its public half."""
        return self._spki

    def sign(self, message: bytes) -> bytes:
        """The signature octets over a message, as `ca.ports.SigningKey` says."""
        signature: bytes = self._sign(message, *self._arguments)
        return signature

    def sign_digest(self, digest: bytes) -> bytes:
        """The signature octets over the message that has this digest, as `ca.ports.DigestSigning` says."""
        if self._digest_arguments is None:
            raise Broken("key-signs-messages", f"A key of kind {self._algorithm} signs messages, not digests.")
        signature: bytes = self._sign(digest, *self._digest_arguments)
        return signature


class MemoryKeyStore:
    """A `KeyStore` that forgets everything when the process ends."""

    def __init__(self) -> None:
        self._keys: dict[KeyName, MemoryKey] = {}

    def ability(self) -> StoreAbility:
        """Every kind of key, kept by nothing."""
        return StoreAbility("memory", ALL_KINDS, Protection.memory, "the memory of one process")

    def open(self, name: KeyName) -> MemoryKey:
        """The key of that name."""
        try:
            return self._keys[name]
        except KeyError:
            raise KeyUnavailable("no-such-key", f"There is no key called {name!r} in memory.") from None

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> MemoryKey:
        """Make a key under a name that is free."""
        if name in self._keys:
            raise Conflict("key-exists", f"A key called {name!r} exists already.")
        key = self._keys[name] = MemoryKey.generate(name, algorithm)
        return key

    def names(self) -> Sequence[KeyName]:
        """All names, sorted."""
        return sorted(self._keys)

    def held(self) -> Sequence[HeldKey]:
        """All keys, by name."""
        return [HeldKey(name, self._keys[name].algorithm, self._keys[name].spki) for name in self.names()]

    def destroy(self, name: KeyName) -> Destruction:
        """Forget a key."""
        self.open(name)
        del self._keys[name]
        return Destruction(name, self.ability(), (("forgotten", "no process holds it"),))
