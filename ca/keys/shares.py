"""A key that several people share: SLIP-39 words around it, sealed files and backups under it. Ring 3.

What is shared is a key of 256 bits that wraps others, never a CA key itself (standards 5, 6). From it come, each by HKDF with a label of its
own: the passphrase of sealed files, the key pair that backups are encrypted to, and the value that tells the right key from another.

The library that makes and joins the words (shamir-mnemonic) is a reference implementation: its own README says that it is not safe against
who can measure it. It runs here on a machine without a network, in a room with witnesses, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics
from shamir_mnemonic.share import Share as _Share
from shamir_mnemonic.wordlist import WORDLIST

from ca.errors import KeyUnavailable, Malformed
from ca.model import Share

KEY_OCTETS: Final = 32
WORDS: Final = 33
"""Of a share of 256 bits: 20 octets of header and checksum in 7 words, 26 words of value."""

SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
"""RFC 9180, base mode: whoever has the public key can encrypt, so a backup says who may open it and not who made it."""

_BY_FOUR: Final = {word[:4]: word for word in WORDLIST}
"""SLIP-39: the first four letters name a word."""


class SharedKey:
    """The key itself, in memory while a quorum is in the room. Shows nothing of itself."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_OCTETS, "every shared key has 256 bits"
        self._key = key

    def __repr__(self) -> str:
        return "SharedKey()"

    def _derived(self, label: bytes) -> bytes:
        return HKDF(hashes.SHA256(), KEY_OCTETS, salt=None, info=b"fleetca quorum v1\0" + label).derive(self._key)

    @property
    def check(self) -> bytes:
        """What `Quorum.check` must be."""
        return self._derived(b"check")

    @property
    def recipient(self) -> bytes:
        """The public key that backups are encrypted to."""
        return self._pair().public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def passphrase(self) -> bytes:
        """What seals key files: `SealedFileKeyStore(folder, key.passphrase, quorum=True)`."""
        return self._derived(b"seal").hex().encode()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What was encrypted to `recipient`.

        Raises:
            KeyUnavailable: it was encrypted to another quorum, or was changed (`not-for-this-quorum`).
        """
        try:
            return SUITE.decrypt(sealed, self._pair(), info=info)
        except Exception:  # noqa: BLE001 - the library has several, and they all mean this
            raise KeyUnavailable(
                "not-for-this-quorum",
                "This backup cannot be opened with these shares.",
                why="It was encrypted to another set of shares, or was changed.",
                fix="Compare the set's name and identifier in the backup's first line with quorum.json.",
            ) from None

    def _pair(self) -> x25519.X25519PrivateKey:
        return x25519.X25519PrivateKey.from_private_bytes(self._derived(b"backup"))


def seal_to(recipient: bytes, octets: bytes, info: bytes) -> bytes:
    """Encrypt to a quorum that is not in the room."""
    return SUITE.encrypt(octets, x25519.X25519PublicKey.from_public_bytes(recipient), info=info)


class Slip39:
    """`ca.ports.Sharing`: shares as words of SLIP-39, one group, no passphrase (a wrong one could not be told from a right one)."""

    def split(self, *, threshold: int, count: int) -> tuple[Sequence[str], SharedKey]:
        """A new key, and its shares."""
        key = AESGCM.generate_key(bit_length=8 * KEY_OCTETS)
        # Iterations slow down guessing of a passphrase, and there is none.
        (words,) = generate_mnemonics(1, [(threshold, count)], key, iteration_exponent=0)
        return words, SharedKey(key)

    def read(self, words: str) -> tuple[Share, str]:
        """What a share says of itself, and its words in full. Words may be cut to their first four letters.

        Raises:
            Malformed: `bad-share`; names the place of a word that is none. Words are not repeated.
        """
        full = self._full(words)
        try:
            share = _Share.from_mnemonic(full)
        except MnemonicError:
            raise Malformed(
                "bad-share",
                "These words are not a share.",
                why="The checksum does not hold: a word is another one, or two have changed places.",
                fix="Read them once more from the paper, word by word.",
            ) from None
        if (share.group_index, share.group_threshold, share.group_count) != (0, 1, 1) or len(full.split()) != WORDS:
            raise Malformed("bad-share", "These words are a share of something else.", why="It was not made by this program.")
        return Share(share.identifier, share.index, share.member_threshold), full

    def combine(self, shares: Sequence[str]) -> SharedKey:
        """The key, from as many shares as are needed.

        Raises:
            KeyUnavailable: they do not fit together (`shares-do-not-fit`).
        """
        try:
            key = combine_mnemonics(shares)
        except MnemonicError:
            raise KeyUnavailable(
                "shares-do-not-fit",
                "These shares do not give a key.",
                why="They are too few, or at least one is not of this set.",
                fix="Compare what is written beside the words: name of the set, number of the share.",
            ) from None
        if len(key) != KEY_OCTETS:
            raise KeyUnavailable("shares-do-not-fit", "These shares give no key of this program.")
        return SharedKey(key)

    def _full(self, words: str) -> str:
        given = re.split(r"[^a-z]+", words.strip().lower())
        given = [word for word in given if word]
        if len(given) != WORDS:
            raise Malformed(
                "bad-share", f"A share has {WORDS} words, and these are {len(given)}.", fix="Read them once more from the paper."
            )
        full = []
        for place, word in enumerate(given, start=1):
            found = _BY_FOUR.get(word[:4])
            if found is None or not (len(word) == 4 or found == word):
                raise Malformed("bad-share", f"Word {place} is none of the list.", fix="Read it once more from the paper.")
            full.append(found)
        return " ".join(full)
