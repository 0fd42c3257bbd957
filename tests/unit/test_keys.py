"""Keys in memory and in sealed files: what they sign, who may read them, what a crash leaves (P3, P10, R29, R30)."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from ca.der.algorithms import ALGORITHMS, load_public_key, verify
from ca.errors import FleetcaError, KeyUnavailable, Misconfigured, Unacceptable
from ca.keys.memory import MemoryKey
from ca.keys.sealed_file import SealedFileKeyStore, seal, unseal
from ca.model import AlgorithmName, KeyName
from tests.fakes.certificates import KINDS, key, private_key
from tests.parts import need

P256, NAME = AlgorithmName("p256"), KeyName("issuing")
SECRET = b"correct horse battery staple"


def sealed(folder: Path, passphrase: bytes = SECRET) -> SealedFileKeyStore:
    return SealedFileKeyStore(folder / "keys", lambda: passphrase)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt is dear on purpose; where its price is not what is tested, it is not paid."""
    monkeypatch.setattr("ca.keys.sealed_file._N", 1 << 8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_signs_what_its_row_verifies(kind: str) -> None:
    signer = key(kind, "device")
    public = load_public_key(signer.spki)
    signature = signer.sign(b"message")
    public.verify(signature, b"message", *ALGORITHMS[AlgorithmName(kind)].arguments)
    verify(public, signature, b"message")
    with pytest.raises(Unacceptable):
        verify(public, signature, b"another message")
    with pytest.raises(InvalidSignature):
        public.verify(signature[:-1] + bytes((signature[-1] ^ 1,)), b"message", *ALGORITHMS[AlgorithmName(kind)].arguments)


def test_R29_a_key_shows_nothing_private_in_its_text() -> None:
    made = MemoryKey.generate(NAME, P256)
    assert repr(made) == "MemoryKey('issuing', 'p256')"


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa-3072", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"])
def test_every_kind_is_sealed_and_opened(kind: str, tmp_path: Path) -> None:
    made = sealed(tmp_path).generate(KeyName(kind), AlgorithmName(kind))
    found = sealed(tmp_path).open(KeyName(kind))
    assert found.spki == made.spki
    verify(load_public_key(found.spki), found.sign(b"x"), b"x")


def test_P10_a_key_file_is_sealed_and_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        sealed(tmp_path).generate(NAME, P256)
    finally:
        os.umask(old)
    (file,) = (tmp_path / "keys").iterdir()
    assert file.name == "issuing.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")


@pytest.mark.usefixtures("cheap")
def test_two_seals_of_one_key_have_nothing_in_common() -> None:
    private = private_key("p256", "device")
    first, second = seal(private, SECRET), seal(private, SECRET)
    assert first.splitlines()[4:-2] != second.splitlines()[4:-2]


def test_openssl_opens_a_sealed_key_with_the_right_passphrase_only(tmp_path: Path) -> None:
    openssl = need("openssl")
    made = sealed(tmp_path).generate(NAME, P256)
    file = tmp_path / "keys" / "issuing.key"

    def ask(passphrase: str) -> subprocess.CompletedProcess[bytes]:
        command = [openssl, "pkcs8", "-in", str(file), "-passin", "env:PASS"]
        return subprocess.run(command, capture_output=True, check=False, env={"PASS": passphrase})

    plain = ask(SECRET.decode())
    loaded = serialization.load_pem_private_key(plain.stdout, None)
    spki = loaded.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki == made.spki
    assert ask("wrong").returncode != 0


def test_a_key_sealed_by_openssl_is_opened(tmp_path: Path) -> None:
    openssl = need("openssl")
    store = sealed(tmp_path)
    (tmp_path / "keys").mkdir()
    plain = subprocess.run([openssl, "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True).stdout
    command = [openssl, "pkcs8", "-topk8", "-scrypt", "-passout", "env:PASS", "-out", str(store.path(NAME))]
    subprocess.run(command, input=plain, check=True, env={"PASS": SECRET.decode()})
    store.path(NAME).chmod(0o600)
    assert store.open(NAME).algorithm == "ed25519"


def _flip(file: Path) -> None:
    octets = bytearray(file.read_bytes())
    octets[-60] ^= 2
    file.write_bytes(octets)


def _plain(file: Path) -> None:
    file.write_bytes(
        private_key("p256").private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir(mode=0o700)


DAMAGE = [
    pytest.param(lambda file: file.chmod(0o640), "key-permissions", id="readable by the group"),
    pytest.param(lambda file: file.chmod(0o604), "key-permissions", id="readable by everybody"),
    pytest.param(lambda file: file.unlink(), "no-such-key", id="gone"),
    pytest.param(lambda file: file.write_bytes(b""), "bad-key-file", id="empty"),
    pytest.param(lambda file: file.write_bytes(b"text"), "bad-key-file", id="text"),
    pytest.param(_plain, "bad-key-file", id="P10: in plain text"),
    pytest.param(_flip, "wrong-passphrase", id="with a flipped bit"),
    pytest.param(lambda file: file.write_bytes(file.read_bytes()[:200]), "wrong-passphrase", id="cut off"),
    pytest.param(_folder, "bad-key-file", id="a folder"),
]


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(("damage", "code"), DAMAGE)
def test_a_key_file_is_refused_that_is(damage: Callable[[Path], None], code: str, tmp_path: Path) -> None:
    store = sealed(tmp_path)
    store.generate(NAME, P256)
    damage(store.path(NAME))
    with pytest.raises(KeyUnavailable) as error:
        store.open(NAME)
    assert error.value.code == code
    assert SECRET.decode() not in str(error.value)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("passphrase", [b"wrong", b"", SECRET + b"\n"])
def test_a_wrong_passphrase_is_said_and_not_shown(passphrase: bytes, tmp_path: Path) -> None:
    sealed(tmp_path).generate(NAME, P256)
    with pytest.raises(KeyUnavailable) as error:
        sealed(tmp_path, passphrase).open(NAME)
    assert error.value.code == "wrong-passphrase"
    assert error.value.fix


def test_a_key_is_never_sealed_under_an_empty_passphrase(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable):
        sealed(tmp_path, b"").generate(NAME, P256)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "A", "x" * 64, "a\0", "a\n"])
def test_R30_a_name_never_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    for act in (sealed(tmp_path).open, lambda given: sealed(tmp_path).generate(given, P256)):
        with pytest.raises(Misconfigured):
            act(KeyName(name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cheap")
def test_a_leftover_of_a_crash_is_no_key_and_no_hindrance(tmp_path: Path) -> None:
    store = sealed(tmp_path)
    (tmp_path / "keys").mkdir(mode=0o700)
    left = tmp_path / "keys" / f".issuing.key.{os.getpid()}.new"
    left.write_text("half")
    assert list(store.names()) == []
    store.generate(NAME, P256)
    assert not left.exists()
    assert list(store.names()) == ["issuing"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(FleetcaError) as error:
        sealed(tmp_path).generate(NAME, P256)
    assert error.value.code == "key-not-written"


@pytest.mark.usefixtures("cheap")
def test_unseal_is_total_for_damaged_base64() -> None:
    text = seal(private_key("p256"), SECRET).encode()
    for count in range(0, len(text), 40):
        with pytest.raises(KeyUnavailable):
            unseal(text[:count], SECRET, what="the key")
