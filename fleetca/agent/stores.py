"""Where the keys of an identity rest: in files of its pairs, or inside a token or TPM that never gives them out. Edge: adapts `ca.keys`.

In a store, each pair has a key of its own under a name of its own, and `key.name` in the pair's folder says it. That file is written before the key is
made: after a crash at any point the name stands for our own beginnings only, so what lies under it may be removed, and nobody else's key ever is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ca.errors import Conflict, KeyUnavailable, Malformed, Misconfigured
from ca.keys.memory import MemoryKey, PrivateKey, make_private_key
from ca.keys.sealed_file import seal
from ca.model import AlgorithmName, KeyName
from ca.ports import KeyStore, SigningKey
from fleetca.folder import put_new

ROUND: Final = 4
"""How many handles of a TPM an identity takes in turn: the pair in use, the one before, the next; and one above them for rehearsals."""


class Keys(Protocol):
    """How the keys of pairs are kept. `file` is what lies in the pair's folder."""

    @property
    def file(self) -> str:
        """What that is called."""
        ...

    def load(self, file: Path) -> SigningKey:
        """Raises:
        Malformed, KeyUnavailable: it cannot be read, unlocked or found.
        """
        ...

    def make(self, file: Path, algorithm: AlgorithmName) -> SigningKey:
        """A new key, durable when this returns. What an earlier run began under that file is removed first."""
        ...

    def remove(self, file: Path) -> None:
        """The key and the file are gone when this returns. Safe to repeat."""
        ...

    def reference(self, file: Path) -> str:
        """What programs that use the key are told: a path, or a URI."""
        ...


# ---- Files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """PKCS#8 files, sealed under a passphrase or plain."""

    password: Callable[[], bytes] | None = None
    unsealed: dict[bytes, PrivateKey] = field(default_factory=dict, repr=False, compare=False)
    """Keys by the octets of their files: unsealing is slow on purpose, and once is enough."""
    file: str = "key.pem"

    def load(self, file: Path) -> SigningKey:
        try:
            octets = file.read_bytes()
        except OSError as error:
            raise Conflict("unreadable-file", f"{file} cannot be read.", why=f"{error.strerror}.") from None
        if octets not in self.unsealed:
            self.unsealed[octets] = self._unseal(octets, file)
        return MemoryKey(KeyName("device"), self.unsealed[octets])

    def _unseal(self, octets: bytes, file: Path) -> PrivateKey:
        sealed = b"ENCRYPTED" in octets
        if sealed and self.password is None:
            raise KeyUnavailable("passphrase-required", f"{file} is sealed.", fix="Give --passphrase-file FILE.")
        try:
            return serialization.load_pem_private_key(octets, self.password() if sealed and self.password else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if sealed:
                raise KeyUnavailable(
                    "wrong-passphrase", f"{file} cannot be unlocked.", why="The passphrase is another, or it is damaged."
                ) from None
            raise Malformed("bad-key-file", f"{file} holds no private key.", fix="Give a PEM file.") from None

    def make(self, file: Path, algorithm: AlgorithmName) -> SigningKey:
        private = make_private_key(algorithm)
        if self.password is not None:
            octets = seal(private, self.password()).encode()
        else:
            octets = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.unlink(missing_ok=True)  # of a run that stopped before it asked
        put_new(file, octets, mode=0o600)
        return MemoryKey(KeyName("next"), private)

    def remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def reference(self, file: Path) -> str:
        return str(file)


# ---- Tokens and TPMs ------------------------------------------------------------------------------------------------


def gone(store: KeyStore, name: KeyName) -> None:
    """Destroy a key. Safe to repeat."""
    try:
        store.destroy(name)
    except KeyUnavailable as error:
        if error.code != "no-such-key":
            raise


@dataclass(frozen=True, slots=True)
class KeysInside:
    """Keys that a store made and never gives out.

    Args:
        store: which.
        names: the key's name in it, for the folder of a pair.
        uri: how other programs name a key of it.
    """

    store: KeyStore
    names: Callable[[Path], KeyName]
    uri: Callable[[KeyName], str]
    file: str = "key.name"

    def load(self, file: Path) -> SigningKey:
        return self.store.open(self.said(file))

    def make(self, file: Path, algorithm: AlgorithmName) -> SigningKey:
        name = self.names(file.parent)
        if file.exists():
            gone(self.store, self.said(file))
        file.unlink(missing_ok=True)
        if name in self.store.names():
            raise Conflict(
                "key-exists",
                f"There is a key called {name} already; it is not overwritten.",
                why="It is none of this identity's.",
                fix="Choose another --key-name, or remove that key.",
            )
        put_new(file, f"{name}\n".encode(), mode=0o600)
        return self.store.generate(name, algorithm)

    def remove(self, file: Path) -> None:
        if file.exists():
            gone(self.store, self.said(file))
        file.unlink(missing_ok=True)

    def reference(self, file: Path) -> str:
        return self.uri(self.said(file))

    @staticmethod
    def said(file: Path) -> KeyName:
        with suppress(OSError, UnicodeDecodeError):
            text = file.read_text().strip()
            if text:
                return KeyName(text)
        raise Malformed("bad-key-file", f"{file} names no key.", fix="Wipe the identity and enrol it again.")


@dataclass(frozen=True, slots=True)
class KeyThere:
    """A key that was in its store before us, as a secure element's own is: every pair's. It is used and never made, and goes only where the device does."""

    store: KeyStore
    name: KeyName
    uri: Callable[[KeyName], str]
    file: str = "key.name"

    def load(self, file: Path) -> SigningKey:
        return self.store.open(KeysInside.said(file))

    def make(self, file: Path, algorithm: AlgorithmName) -> SigningKey:
        key = self.store.open(self.name)
        if key.algorithm != algorithm:
            raise Misconfigured(
                "bad-key-store",
                f"The key {self.name} is {key.algorithm}, and {algorithm} was asked for.",
                fix=f"Give --algorithm {key.algorithm}.",
            )
        file.unlink(missing_ok=True)
        put_new(file, f"{self.name}\n".encode(), mode=0o600)
        return key

    def remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)

    def reference(self, file: Path) -> str:
        return self.uri(KeysInside.said(file))

    def destroy(self) -> None:
        """At the end of the device's life: whoever signs that its keys are gone must have seen it go.

        Raises:
            KeyUnavailable: the store keeps it (`key-not-destroyed`), or is away.
        """
        gone(self.store, self.name)


def inside(kind: str, said: Mapping[str, str], secret: Callable[[], bytes] | None, *, there: bool = False) -> KeysInside | KeyThere:
    """The store that the settings of an identity describe.

    Args:
        kind: `pkcs11` or `tpm`.
        said: `key_name`, and `module`, `token` or `device`.
        secret: PIN or password; asked once.
        there: the key is in it already, under that very name.

    Raises:
        Misconfigured: something is missing or makes no sense (`bad-key-store`), or the library is not installed (`extra-missing`).
    """
    try:
        found = _token(said, secret) if kind == "pkcs11" else _tpm(said, secret)
    except ImportError as error:
        raise Misconfigured(
            "extra-missing", f"What speaks to {kind} is missing.", why=f"{error}.", fix="pip install 'fleetca[hsm]'"
        ) from None
    return KeyThere(found.store, KeyName(said["key_name"]), found.uri) if there else found


def _token(said: Mapping[str, str], secret: Callable[[], bytes] | None) -> KeysInside:
    from ca.keys.pkcs11 import Pkcs11KeyStore  # noqa: PLC0415 - where there is no token there need be no library for it
    from ca.keys.pkcs11_token import TokenAddress  # noqa: PLC0415 - as above

    module, label, name = said["module"], said["token"], said["key_name"]
    if not module.startswith("/") or not label or not name:
        raise _wrong("A token needs --module with the absolute path of its library, --token and --key-name.")
    if secret is None:
        raise _wrong("A token needs its PIN: --passphrase-file.")

    def uri(key: KeyName) -> str:
        return f"pkcs11:token={quote(label)};object={quote(key)};type=private?module-path={quote(module)}"

    store = Pkcs11KeyStore(TokenAddress(Path(module), label=label), secret)
    return KeysInside(store, lambda folder: KeyName(f"{name}.{_place(folder) or 'rehearsal'}"), uri)


def _tpm(said: Mapping[str, str], secret: Callable[[], bytes] | None) -> KeysInside:
    from ca.keys.tpm import TpmKeyStore  # noqa: PLC0415 - as for tokens

    try:
        base = int(said["key_name"], 16)
    except ValueError:
        base = 0
    if not 0x81000000 <= base <= 0x817FFFFF - ROUND:
        raise _wrong(f"A TPM's keys are called by handles: --key-name 0x81020000 stands for that one and the {ROUND} above it.")

    def name(folder: Path) -> KeyName:
        place = _place(folder)
        return KeyName(f"0x{base + (ROUND if place is None else place % ROUND):08x}")

    return KeysInside(TpmKeyStore(said["device"] or "/dev/tpmrm0", secret), name, lambda key: f"handle:{key}")


def _place(folder: Path) -> int | None:
    """The number of a pair; None in a rehearsal."""
    return int(folder.name) if folder.parent.parent.name != REHEARSAL else None


REHEARSAL: Final = ".rehearsal"
"""Below an identity: where a dry run makes its pair."""


def _wrong(why: str) -> Misconfigured:
    return Misconfigured("bad-key-store", "These settings name no place for keys.", why=why, fix="docs/how-to/agent.md shows each.")
