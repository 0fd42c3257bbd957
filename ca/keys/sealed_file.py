"""Private keys as files under a passphrase: PKCS#8 with PBES2, scrypt and AES-256-CBC (RFC 8018, RFC 7914). Ring 3.

`openssl pkcs8 -in NAME.key` reads them. A key file is written once, 0600, durable when `generate` returns, and never overwritten; a crash
in between leaves at most a sealed `.new` file that nothing reads. The passphrase is asked for when it is needed and not kept.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ca.der import pem, writer
from ca.errors import Conflict, KeyUnavailable, Misconfigured
from ca.keys.memory import ALL_KINDS, MemoryKey, PrivateKey, make_private_key
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, Protection, StoreAbility

SUFFIX: Final = ".key"
LARGEST: Final = 64 * 1024

# OpenSSL gives scrypt 32 MiB when it reads PKCS#8, and 128 * r * N must stay below; the cost comes from p instead (OWASP's N=2^14, p=5).
_N: Final = 1 << 14
_R: Final = 8
_P: Final = 5

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def seal(private_key: PrivateKey, passphrase: bytes) -> str:
    """The PEM text (ENCRYPTED PRIVATE KEY) of a private key under a passphrase.

    Raises:
        KeyUnavailable: the passphrase is empty (`empty-passphrase`).
    """
    if not passphrase:
        raise KeyUnavailable("empty-passphrase", "A key is not sealed under an empty passphrase.", fix="Give one that is not empty.")
    plain = private_key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Salt and IV are drawn as keys are; both are public afterwards.
    drawn = AESGCM.generate_key(bit_length=256)
    salt, vector = drawn[:16], drawn[16:]
    key = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = writer.sequence(
        writer.oid("1.3.6.1.4.1.11591.4.11"),
        writer.sequence(writer.octet_string(salt), writer.integer(_N), writer.integer(_R), writer.integer(_P)),
    )
    cipher = writer.sequence(writer.oid("2.16.840.1.101.3.4.1.42"), writer.octet_string(vector))
    scheme = writer.sequence(writer.oid("1.2.840.113549.1.5.13"), writer.sequence(derivation, cipher))
    return pem.pem(pem.ENCRYPTED_KEY, writer.sequence(scheme, writer.octet_string(sealed)))


def unseal(text: bytes, passphrase: bytes, *, what: str) -> PrivateKey:
    """The private key in a sealed PEM file.

    Raises:
        KeyUnavailable: not a sealed key (`bad-key-file`), or another passphrase (`wrong-passphrase`).
    """
    if not text.lstrip().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"):
        raise KeyUnavailable(
            "bad-key-file",
            f"{what} is not an encrypted PKCS#8 private key.",
            why="Its first line is not BEGIN ENCRYPTED PRIVATE KEY; plaintext keys are refused (P10).",
            fix="Seal it with: openssl pkcs8 -topk8 -scrypt -in PLAIN -out SEALED",
        )
    if not passphrase:
        raise KeyUnavailable("wrong-passphrase", f"The passphrase of {what} is empty.", fix="Give the passphrase it was sealed with.")
    try:
        return serialization.load_pem_private_key(text, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # A wrong passphrase and a damaged file look the same to the padding.
        raise KeyUnavailable(
            "wrong-passphrase",
            f"{what} cannot be unlocked.",
            why="The passphrase is not the one it was sealed with, or the file is damaged.",
            fix="Check the passphrase file named in the settings; a lost passphrase cannot be recovered.",
        ) from None


class SealedFileKeyStore:
    """A `KeyStore` over one folder: key NAME lies in NAME.key.

    Args:
        directory: made on the first `generate`, 0700, where it is missing.
        passphrase: called each time a key is opened or made; may raise `KeyUnavailable` itself.
        quorum: True where the passphrase is a key that custodians share (`ca.keys.shares`).
    """

    def __init__(self, directory: Path | str, passphrase: Callable[[], bytes], *, quorum: bool = False) -> None:
        self._directory = Path(directory)
        self._passphrase = passphrase
        self._quorum = quorum

    def ability(self) -> StoreAbility:
        """Every kind of key."""
        kind, protection = ("quorum", Protection.quorum) if self._quorum else ("sealed", Protection.file)
        return StoreAbility(kind, ALL_KINDS, protection, f"sealed files in {self._directory}")

    def path(self, name: KeyName) -> Path:
        """Where that key lies, or would.

        Raises:
            Misconfigured: no name for a key (`bad-key-name`): names never lead out of the folder.
        """
        if not _NAME.fullmatch(name):
            raise Misconfigured("bad-key-name", f"{name!r} cannot name a key.", why="Use lower-case letters, digits, dot, hyphen.")
        return self._directory / f"{name}{SUFFIX}"

    def open(self, name: KeyName) -> MemoryKey:
        """Unlock a key.

        Raises:
            KeyUnavailable: `no-such-key`, `key-permissions`, `bad-key-file`, `wrong-passphrase`.
        """
        path = self.path(name)
        text = _read(path)
        return MemoryKey(name, unseal(text, self._passphrase(), what=str(path)))

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> MemoryKey:
        """Make a key and write it, sealed and durable, before it is handed out.

        Raises:
            Conflict: the file exists (`key-exists`); it is left alone.
            KeyUnavailable: the folder cannot be written (`key-not-written`).
        """
        path = self.path(name)
        if path.exists():
            raise _exists(path)
        private = make_private_key(algorithm)
        self.put(name, private)
        return MemoryKey(name, private)

    def reseal(self, name: KeyName, into: SealedFileKeyStore) -> MemoryKey:
        """Put the same key under another store's passphrase, under the same name. The file here stays until it is destroyed.

        Raises:
            Conflict: there is one of that name (`key-exists`).
            KeyUnavailable: it cannot be opened here or written there.
        """
        private = unseal(_read(self.path(name)), self._passphrase(), what=str(self.path(name)))
        into.put(name, private)
        return MemoryKey(name, private)

    def put(self, name: KeyName, private: PrivateKey) -> None:
        """Seal a key that is in memory and write it, durable when this returns.

        Raises:
            Conflict: `key-exists`.
            KeyUnavailable: `key-not-written`.
        """
        path = self.path(name)
        if path.exists():
            raise _exists(path)
        text = seal(private, self._passphrase())
        try:
            if not self._directory.is_dir():
                self._directory.mkdir(mode=0o700, parents=True)
            _write_new(path, text.encode())
        except OSError as error:
            if path.exists():
                # Somebody else made it while we did: theirs stays.
                raise _exists(path) from None
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise KeyUnavailable(
                "key-not-written",
                f"The key {path} cannot be written.",
                why=f"{error.strerror}.",
                fix="Free some space, then run the same command again." if full else f"Check who owns {path.parent} and what it may do.",
            ) from None

    def names(self) -> Sequence[KeyName]:
        """The names of all key files in the folder, sorted."""
        if not self._directory.is_dir():
            return []
        found = (path.name.removesuffix(SUFFIX) for path in self._directory.iterdir() if path.name.endswith(SUFFIX))
        return sorted(KeyName(name) for name in found if _NAME.fullmatch(name))

    def held(self) -> Sequence[HeldKey]:
        """All key files. Of what kind they are stands inside the seal."""
        return [HeldKey(name, None, None, (("file", str(self.path(name))),)) for name in self.names()]

    def destroy(self, name: KeyName) -> Destruction:
        """Overwrite the file's octets where the file system lets us, and remove it.

        Copies elsewhere (snapshots, backups, worn-out blocks of a disk) stay sealed as they were: what ends those is the end of the passphrase.

        Raises:
            KeyUnavailable: `no-such-key`, or it cannot be removed (`key-not-destroyed`).
        """
        path = self.path(name)
        sealed = _read(path)
        try:
            with path.open("r+b") as file:
                file.write(AESGCM.generate_key(bit_length=256) * (len(sealed) // 32 + 1))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            _sync_folder(path.parent)
        except OSError as error:
            raise KeyUnavailable("key-not-destroyed", f"The key {path} cannot be destroyed.", why=str(error)) from None
        proof = (
            ("file", str(path)),
            ("sha256 of the sealed file", hashlib.sha256(sealed).hexdigest()),
            ("done", "overwritten, synchronised, unlinked"),
            ("asked again", "there is no such file" if not path.exists() else "the file is there"),
        )
        return Destruction(name, self.ability(), proof)


def _exists(path: Path) -> Conflict:
    return Conflict("key-exists", f"The key {path} exists already; it is not overwritten.", fix="Choose another name, or move it away.")


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe in the key's place would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyUnavailable("no-such-key", f"There is no key file {path}.", fix="Check the key's path in the settings.") from None
    except OSError as error:
        raise KeyUnavailable("no-such-key", f"The key file {path} cannot be opened.", why=str(error)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise KeyUnavailable("bad-key-file", f"{path} is not a file.")
        if mode & 0o077:
            raise KeyUnavailable(
                "key-permissions",
                f"The key file {path} is open to others.",
                why=f"Its mode is {stat.S_IMODE(mode):04o}.",
                fix=f"chmod 0600 {path}",
            )
        return os.read(descriptor, LARGEST)
    finally:
        os.close(descriptor)


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that does not exist yet, whole or not at all, durable on return."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name is taken, a rename would replace it.
        os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
