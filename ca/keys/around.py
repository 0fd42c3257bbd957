"""What a key that stands around another one says of itself: all that the other one does. Ring 3."""

from __future__ import annotations

from ca.model import AlgorithmName, KeyName
from ca.ports import SigningKey


class KeyAround:
    """The part of a `SigningKey` that does not sign."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._key!r})"

    @property
    def name(self) -> KeyName:
        """Its name in its store."""
        return self._key.name

    @property
    def algorithm(self) -> AlgorithmName:
        """Its row in `ca.der.algorithms`."""
        return self._key.algorithm

    @property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo of its public half."""
        return self._key.spki
