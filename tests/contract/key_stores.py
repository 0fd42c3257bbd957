"""The key stores that the contract suite runs against: one function each, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ca.keys.memory import MemoryKeyStore
from ca.keys.sealed_file import SealedFileKeyStore
from ca.ports import KeyStore
from tests import softhsm
from tests.fakes.kms import REGION
from tests.swtpm import SoftTpm


def memory(_: Path) -> KeyStore:
    return MemoryKeyStore()


def sealed(folder: Path) -> KeyStore:
    return SealedFileKeyStore(folder / "keys", lambda: b"correct horse battery staple")


def quorum(folder: Path) -> KeyStore:
    from ca.keys.shares import Slip39

    _, key = Slip39().split(threshold=2, count=3)
    return SealedFileKeyStore(folder / "keys", key.passphrase, quorum=True)


def pkcs11(folder: Path) -> KeyStore:
    hsm = softhsm.softhsm()
    from ca.keys.pkcs11 import Pkcs11KeyStore
    from ca.keys.pkcs11_token import TokenAddress

    label = hsm.add(f"contract {folder.name}"[:32])
    return Pkcs11KeyStore(TokenAddress(hsm.module, label=label), softhsm.PIN.encode)


def awskms(_: Path) -> KeyStore:
    from ca.keys.kms import KmsKeyStore

    return KmsKeyStore(REGION)


def tpm(folder: Path) -> KeyStore:
    from ca.keys.tpm import TpmKeyStore

    made = SoftTpm(folder / "tpm")
    made.start()
    STARTED.append(made)
    return TpmKeyStore(made.device, lambda: b"password of the tests")


STARTED: list[SoftTpm] = []
"""What the fixture ends."""

STORES: dict[str, Callable[[Path], KeyStore]] = {
    "memory": memory,
    "sealed": sealed,
    "quorum": quorum,
    "pkcs11": pkcs11,
    "awskms": awskms,
    "tpm": tpm,
}
