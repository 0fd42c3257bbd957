"""Keys whose signatures are verified before anyone gets them. Ring 3.

A module may sign with a worn-out memory cell, a broken cable or another key than the one it named: what does not verify never leaves.
"""

from __future__ import annotations

from ca.der.algorithms import cached_public_key, verify, verify_digest
from ca.errors import Broken, Unacceptable
from ca.keys.around import KeyAround
from ca.model import KeyName


def released(signature: bytes, message: bytes, *, spki: bytes, name: KeyName) -> bytes:
    """The signature, if it is one of that key over that message.

    Raises:
        Broken: it is not (`bad-own-signature`); the octets are dropped.
    """
    try:
        verify(cached_public_key(spki), signature, message)
    except Unacceptable:
        raise _bad(name) from None
    return signature


def released_digest(signature: bytes, digest: bytes, *, spki: bytes, name: KeyName) -> bytes:
    """As `released`, where only the message's digest is at hand.

    Raises:
        Broken: `bad-own-signature`.
    """
    try:
        verify_digest(cached_public_key(spki), signature, digest)
    except Unacceptable:
        raise _bad(name) from None
    return signature


def _bad(name: KeyName) -> Broken:
    return Broken(
        "bad-own-signature",
        f"The key {name} made a signature that does not verify; it was not released.",
        why="Its store is faulty, or holds another key under that name.",
        fix="Check the store (fleetca doctor) before anything more is signed with it.",
    )


class VerifiedKey(KeyAround):
    """A `SigningKey` around another one, for documents that nobody re-reads after signing."""

    def sign(self, message: bytes) -> bytes:
        """A signature that verifies."""
        return released(self._key.sign(message), message, spki=self.spki, name=self.name)
