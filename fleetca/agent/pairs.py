"""Where a certificate and its key lie, and how their successors take their place. Edge: files only; knows no network and no rule.

A pair in two files (`Pair`, for `fleetca renew`) is replaced by two renames; a crash between them is mended by the next run. A pair in an identity
folder (`Slots`, for the agent) is replaced by one:

    current -> pairs/2      a link: what services read is current/certificate.pem and current/key.pem
    pairs/2/                the pair in use; its old one, pairs/1, stays until the new one has worked
    pairs/3/                the next one while it is under way: key.pem (or key.name, see `stores`), then request.json, then certificate.pem

Each file is whole or absent and durable before the next step begins, so that whatever kills us leaves a pair that works.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ca.der import pem
from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import Conflict, KeyUnavailable, Malformed, StoreUnavailable
from ca.keys.memory import PrivateKey
from ca.model import AlgorithmName
from ca.ports import SigningKey
from fleetca.agent.stores import KeyFiles, Keys
from fleetca.folder import make_folder, put_new, sync_folder

CERTIFICATE: Final = "certificate.pem"
REQUEST: Final = "request.json"
RELOADED: Final = "reloaded"


class Place(Protocol):
    """A pair and its successor under way."""

    @property
    def password(self) -> Callable[[], bytes] | None:
        """What unlocks the keys; None where they are kept plain."""
        ...

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def next_certificate(self) -> Path: ...
    @property
    def next_key(self) -> Path: ...
    @property
    def request(self) -> Path:
        """The very body that is sent: after a cut connection or a crash the same one goes out again, and gets the same certificate."""
        ...

    def signing_key(self, file: Path) -> SigningKey:
        """The key of this pair, or of the next one.

        Raises:
            Malformed, KeyUnavailable: it cannot be read, or not be unlocked.
        """
        ...

    def make_next_key(self, algorithm: AlgorithmName) -> SigningKey:
        """A new key, durable when this returns."""
        ...

    def put_certificate(self, text: str) -> None:
        """Keep the next certificate, which was checked."""
        ...

    def install(self) -> bool:
        """Put the next pair in place where it is complete; True when there was one. Whatever a crash left half-done is done now."""
        ...

    def forget(self) -> None:
        """Give up the next pair."""
        ...

    def settle(self) -> None:
        """The pair in place has worked: the old one goes."""
        ...


# ---- Two files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in files of their own. Beside them lie .next, .request and .old while a renewal is under way."""

    certificate: Path
    key: Path
    password: Callable[[], bytes] | None = None
    _unsealed: dict[bytes, PrivateKey] = field(default_factory=dict, repr=False, compare=False)
    """Keys by the octets of their files: unsealing is slow on purpose, and once is enough."""

    @property
    def keys(self) -> KeyFiles:
        return KeyFiles(self.password, self._unsealed)

    @staticmethod
    def beside(file: Path, suffix: str) -> Path:
        return file.with_name(file.name + suffix)

    @property
    def next_key(self) -> Path:
        return self.beside(self.key, ".next")

    @property
    def next_certificate(self) -> Path:
        return self.beside(self.certificate, ".next")

    @property
    def request(self) -> Path:
        return self.beside(self.certificate, ".request")

    @property
    def old(self) -> tuple[tuple[Path, Path], ...]:
        return tuple((file, self.beside(file, ".old")) for file in (self.certificate, self.key))

    def signing_key(self, file: Path) -> SigningKey:
        return self.keys.load(file)

    def make_next_key(self, algorithm: AlgorithmName) -> SigningKey:
        """Sealed where the old one is (P10); plain, for its owner only, where the device keeps it plain."""
        sealed = b"ENCRYPTED" in read_octets(self.key)
        return KeyFiles(self.password if sealed else None).make(self.next_key, algorithm)

    def put_certificate(self, text: str) -> None:
        self.next_certificate.unlink(missing_ok=True)
        put_new(self.next_certificate, text.encode(), mode=self.certificate.stat().st_mode & 0o777)

    def install(self) -> bool:
        if not self.next_certificate.exists():
            return False
        spki = read_certificate(first_certificate(self.next_certificate)).spki
        with _replacing(f"{self.certificate} and {self.key}"):
            if self.next_key.exists() and self.signing_key(self.next_key).spki == spki:
                for file, old in self.old:
                    old.unlink(missing_ok=True)
                    os.link(file, old)
                sync_folder(self.key.parent)
                # Between these two renames the pair does not fit; a run after a crash there finds KEY in place and does the second.
                self.next_key.replace(self.key)
                sync_folder(self.key.parent)
            elif self.signing_key(self.key).spki != spki:
                self.next_certificate.unlink()  # of a renewal that was given up
                return False
            self.next_certificate.replace(self.certificate)
            self.request.unlink(missing_ok=True)
            sync_folder(self.certificate.parent)
        return True

    def forget(self) -> None:
        self.request.unlink(missing_ok=True)
        self.next_key.unlink(missing_ok=True)

    def settle(self) -> None:
        for _, old_file in self.old:
            old_file.unlink(missing_ok=True)


# ---- An identity folder ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slots:
    """A certificate and its key in an identity folder."""

    folder: Path
    keys: Keys = field(default_factory=KeyFiles)
    owner: tuple[int, int] | None = None
    """User and group that the files of each pair belong to; None: ours."""

    @property
    def password(self) -> Callable[[], bytes] | None:
        return self.keys.password if isinstance(self.keys, KeyFiles) else None

    @property
    def link(self) -> Path:
        return self.folder / "current"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs"

    @property
    def number(self) -> int:
        """Of the pair in use; 0 before there is one."""
        try:
            return int(self.link.readlink().name)
        except (OSError, ValueError):
            return 0

    @property
    def slot(self) -> Path:
        return self.pairs / str(self.number)

    @property
    def certificate(self) -> Path:
        return self.slot / CERTIFICATE

    @property
    def key(self) -> Path:
        return self.slot / self.keys.file

    @property
    def key_for_services(self) -> str:
        """What those who use the pair are told of its key: a path that stays, or where the key is in its store."""
        return str(self.link / self.keys.file) if isinstance(self.keys, KeyFiles) else self.keys.reference(self.key)

    @property
    def next_slot(self) -> Path:
        return self.pairs / str(self.number + 1)

    @property
    def next_certificate(self) -> Path:
        return self.next_slot / CERTIFICATE

    @property
    def next_key(self) -> Path:
        return self.next_slot / self.keys.file

    @property
    def request(self) -> Path:
        return self.next_slot / REQUEST

    def signing_key(self, file: Path) -> SigningKey:
        return self.keys.load(file)

    def make_next_key(self, algorithm: AlgorithmName) -> SigningKey:
        with _replacing(f"{self.next_slot}"):
            make_folder(self.next_slot, mode=0o700)
            if self.owner is not None:
                os.chown(self.pairs, *self.owner)
                os.chown(self.next_slot, *self.owner)
        made = self.keys.make(self.next_key, algorithm)
        self._give(self.next_key)
        return made

    def put_certificate(self, text: str) -> None:
        self.next_certificate.unlink(missing_ok=True)
        put_new(self.next_certificate, text.encode(), mode=0o644)
        self._give(self.next_certificate)

    def _give(self, file: Path) -> None:
        if self.owner is not None:
            with _replacing(f"{file}"):
                os.chown(file, *self.owner)

    def install(self) -> bool:
        if not self.next_certificate.exists():
            return False
        spki = read_certificate(first_certificate(self.next_certificate)).spki
        if self.signing_key(self.next_key).spki != spki:
            self.forget()
            return False
        with _replacing(f"{self.link}"):
            fresh = self.folder / ".current"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(Path("pairs") / self.next_slot.name)
            fresh.replace(self.link)  # the one step: before it the old pair is in use, after it the new one
            sync_folder(self.folder)
            (self.slot / REQUEST).unlink(missing_ok=True)
        return True

    def forget(self) -> None:
        """The certificate first: without it a slot is only a beginning."""
        for file in (self.next_certificate, self.request):
            file.unlink(missing_ok=True)
        with contextlib.suppress(KeyUnavailable):  # of a store that is away; making the next key begins with removing this one
            self.keys.remove(self.next_key)
        if not self.next_key.exists():
            shutil.rmtree(self.next_slot, ignore_errors=True)

    def settle(self) -> None:
        for slot in self.others():
            self.keys.remove(slot / self.keys.file)
            shutil.rmtree(slot, ignore_errors=True)

    def destroy(self) -> None:
        """Every pair goes, keys first: whatever stops us, what is left is no identity."""
        for slot in self.pairs.iterdir() if self.pairs.is_dir() else ():
            self.keys.remove(slot / self.keys.file)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.pairs)
        self.link.unlink(missing_ok=True)

    def others(self) -> list[Path]:
        """Pairs before the one in use: it has not been seen to work yet."""
        if not self.pairs.is_dir():
            return []
        return [slot for slot in self.pairs.iterdir() if slot.name.isdigit() and int(slot.name) < self.number]

    @property
    def settled(self) -> bool:
        """Whether the pair in use was seen to work, by the service and by whom it is for."""
        return not self.others()

    @property
    def reloaded(self) -> bool:
        """Whether those who use the pair were told of it."""
        return (self.slot / RELOADED).exists()

    def mark_reloaded(self) -> None:
        (self.slot / RELOADED).touch()


# ---- Files ----------------------------------------------------------------------------------------------------------


def read_pair(pair: Place) -> tuple[CertificateFacts, SigningKey]:
    """The certificate and its key.

    Raises:
        Malformed: a file cannot be read, or they do not belong together (`pair-mismatch`).
        KeyUnavailable: the key is sealed and the passphrase is not its own.
    """
    facts = read_certificate(first_certificate(pair.certificate))
    key = pair.signing_key(pair.key)
    if key.spki != facts.spki:
        raise Malformed(
            "pair-mismatch", f"{pair.key} is not the key of {pair.certificate}.", fix="Name the two files that belong together."
        )
    return facts, key


def kept_request(pair: Place) -> Mapping[str, Any] | None:
    """The request under way, if there is one that can be sent."""
    if not (pair.request.exists() and pair.next_key.exists()):
        return None
    try:
        body = json.loads(pair.request.read_bytes())
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def first_certificate(file: Path) -> bytes:
    """The DER of the first certificate in a file."""
    octets = read_octets(file)
    found = [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)
    if not found:
        raise Malformed("bad-certificate", f"{file} holds no certificate.", fix="Give a PEM or DER file.")
    return found[0]


def read_octets(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Conflict("unreadable-file", f"{file} cannot be read.", why=f"{error.strerror}.") from None


@contextmanager
def _replacing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable("disk", f"{what} cannot be replaced.", why=f"{error.strerror}.", fix="Run the same command again.") from None
