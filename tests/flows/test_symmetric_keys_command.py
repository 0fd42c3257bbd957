"""`fleetca keys derive`, `wrap`, `group`, `hierarchy` and `pkcs12`: over files, with openssl and keytool as judges."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ca.der import pem
from ca.keys.memory import make_private_key
from ca.keys.sealed_file import seal, unseal
from ca.model import AlgorithmName
from ca.rules import wrap
from fleetca.cli.main import fleetca
from tests.fakes.certificates import drafted, key, private_key, signed
from tests.parts import need


def keys(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["keys", *map(str, arguments)])


def code(done: Any) -> str:
    return str(getattr(done.exception, "code", ""))


def secret(file: Path, text: str) -> Path:
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


@pytest.mark.req("REQ-KEY-022")
def test_a_derived_key_is_the_one_that_openssl_derives(tmp_path: Path) -> None:
    master = secret(tmp_path / "master", bytes(range(32)).hex())
    salt = bytes(range(16)).hex()
    done = keys("derive", master, "--salt", salt, "--label", "telemetry", "--device", "pump-1", "--epoch", "7", "--out", tmp_path / "k")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    info = b"fleetca derive v1\0" + b"\0\x09telemetry" + b"\0\x06pump-1" + b"\0\0" + (7).to_bytes(8) + (32).to_bytes(2)
    judged = subprocess.run(
        ["openssl", "kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", f"hexkey:{bytes(range(32)).hex()}", "-kdfopt", f"hexsalt:{salt}",
         "-kdfopt", f"hexinfo:{info.hex()}", "-binary", "HKDF"], capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert (tmp_path / "k").read_text().strip() == judged.hex()
    assert code(keys("derive", master, "--salt", "00" * 16, "--label", "x", "--out", tmp_path / "l")) == "no-salt"
    assert code(keys("derive", master, "--salt", "salt", "--label", "x", "--out", tmp_path / "l")) == "no-salt"
    assert code(keys("derive", master, "--salt", salt, "--label", "x", "--out", tmp_path / "k")) == "file-exists"
    master.chmod(0o644)
    assert code(keys("derive", master, "--salt", salt, "--label", "x", "--out", tmp_path / "l")) == "secret-exposed"


@pytest.mark.req("REQ-KEY-061")
def test_a_wrapped_key_comes_back_under_its_own_wrapping_key_only(tmp_path: Path) -> None:
    wrapped = secret(tmp_path / "key", bytes(range(32)).hex())
    kek, other = secret(tmp_path / "kek", "5a" * 31 + "01"), secret(tmp_path / "other", "5a" * 31 + "02")
    assert keys("wrap", wrapped, "--under", kek, "--out", tmp_path / "wrapped").exit_code == 0
    check = wrap.check_value(bytes(range(32)))
    assert keys("unwrap", tmp_path / "wrapped", "--under", kek, "--check", check, "--out", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back").read_text() == wrapped.read_text()
    assert code(keys("unwrap", tmp_path / "wrapped", "--under", other, "--out", tmp_path / "b")) == "unwrap-failed"
    assert code(keys("unwrap", tmp_path / "wrapped", "--under", kek, "--check", "00" * 5, "--out", tmp_path / "b")) == "wrong-key"
    assert not (tmp_path / "b").exists()


@pytest.mark.req("REQ-KEY-105")
def test_a_group_goes_through_its_epochs(tmp_path: Path) -> None:
    master = secret(tmp_path / "master", bytes(range(32)).hex())
    for name in ("ann", "ben"):
        assert keys("group", "member-key", "pumps", name, "--master", master, "--out", tmp_path / name).exit_code == 0
    assert keys("group", "begin", "pumps", "--master", master, "--member", "ann", "--out", tmp_path / "1").exit_code == 0
    assert keys("group", "change", tmp_path / "1", "--master", master, "--join", "ben", "--out", tmp_path / "2").exit_code == 0
    assert keys("group", "change", tmp_path / "2", "--master", master, "--leave", "ann", "--out", tmp_path / "3").exit_code == 0
    read = {
        (name, epoch): code(keys("group", "read", tmp_path / epoch, name, "--key", tmp_path / name, "--out", tmp_path / f"{name}-{epoch}"))
        for name in ("ann", "ben")
        for epoch in ("1", "2", "3")
    }
    assert [pair for pair, wrong in read.items() if wrong] == [("ann", "3"), ("ben", "1")]
    assert (tmp_path / "ann-2").read_text() == (tmp_path / "ben-2").read_text() != (tmp_path / "ben-3").read_text()


HIERARCHY = """
[keys.root]
purposes = ["root"]
algorithm = "aes-256"
[keys.fleet]
purposes = ["key-wrapping"]
algorithm = "aes-256"
parent = "root"
"""


@pytest.mark.req("REQ-KEY-052")
def test_a_declared_hierarchy_is_judged_and_drawn(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(HIERARCHY)
    assert keys("hierarchy", file).output == "root (root, aes-256)\n  fleet (key-wrapping, aes-256)\n"
    assert keys("hierarchy", file, "--draw", "dot").output.startswith("digraph keys {")
    assert keys("hierarchy", file, "--draw", "svg").output.startswith("<svg ")
    file.write_text(HIERARCHY.replace('parent = "root"', 'parent = "fleet"'))
    assert code(keys("hierarchy", file)) == "key-hierarchy"
    for text in ("", "keys = 1", "[keys.x]", HIERARCHY + "strength = 1\n", "[[keys]]\nname = 1\n", "\0"):
        file.write_text(text)
        assert code(keys("hierarchy", file)) == "no-hierarchy", text


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A sealed key, its certificate, and passphrases."""
    private = private_key("p256", "device")
    (tmp_path / "key.pem").write_text(seal(private, b"inside out"))
    (tmp_path / "certificate.pem").write_text(pem.pem(pem.CERTIFICATE, signed(drafted(), key("p256", "issuing"))))
    secret(tmp_path / "inside", "inside out")
    secret(tmp_path / "outside", "for the others")
    return tmp_path


def export(folder: Path, out: str, *more: str) -> Any:
    return keys(
        "pkcs12", "export", "--key", folder / "key.pem", "--key-passphrase-file", folder / "inside", "--certificate", folder / "certificate.pem",
        "--passphrase-file", folder / "outside", "--out", folder / out, "--name", "pump", *more,
    )  # fmt: skip


@pytest.mark.req("REQ-KEY-071", "REQ-KEY-087")
def test_openssl_and_keytool_open_what_we_export_and_it_is_modern(pair: Path) -> None:
    need("keytool")
    assert export(pair, "pump.p12").exit_code == 0
    assert (pair / "pump.p12").stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["openssl", "pkcs12", "-in", pair / "pump.p12", "-passin", f"file:{pair / 'outside'}", "-info", "-noout"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "PBES2, PBKDF2, AES-256-CBC" in shown
    assert "sha256" in shown
    assert "3DES" not in shown.upper()
    listed = subprocess.run(
        ["keytool", "-list", "-keystore", pair / "pump.p12", "-storetype", "PKCS12", "-storepass:file", pair / "outside"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "PrivateKeyEntry" in listed
    assert export(pair, "old.p12", "--legacy").exit_code == 0
    old = subprocess.run(
        ["openssl", "pkcs12", "-legacy", "-in", pair / "old.p12", "-passin", f"file:{pair / 'outside'}", "-info", "-noout"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    assert "pbeWithSHA1And3-KeyTripleDES-CBC" in old


@pytest.mark.req("REQ-KEY-071")
def test_what_openssl_wrote_is_imported_sealed(pair: Path) -> None:
    clear = unseal((pair / "key.pem").read_bytes(), b"inside out", what="it")
    subprocess.run(
        ["openssl", "pkcs12", "-export", "-inkey", pair / "key.pem", "-passin", f"file:{pair / 'inside'}", "-in", pair / "certificate.pem",
         "-passout", f"file:{pair / 'outside'}", "-out", pair / "theirs.p12"], check=True, capture_output=True,
    )  # fmt: skip
    assert keys("pkcs12", "import", pair / "theirs.p12", "--passphrase-file", pair / "outside", "--out", pair / "in").exit_code == 0
    text = (pair / "in" / "key.pem").read_bytes()
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    found = load_pem_private_key(text, b"for the others")
    assert found.public_key() == clear.public_key()
    assert (pair / "in" / "chain.pem").read_text() == (pair / "certificate.pem").read_text()


@pytest.mark.req("REQ-KEY-071")
def test_a_pkcs12_file_is_refused_by_name(pair: Path) -> None:
    assert export(pair, "pump.p12").exit_code == 0
    octets = (pair / "pump.p12").read_bytes()
    wrong = secret(pair / "wrong", "another one")
    asked = {
        "another passphrase": (octets, wrong, "wrong-passphrase"),
        "changed": (octets.replace(b"\x30\x82", b"\x30\x83", 2), wrong, "bad-pkcs12"),
        "cut": (octets[:-9], pair / "outside", "bad-pkcs12"),
        "nothing": (b"", pair / "outside", "bad-pkcs12"),
        "text": (b"hello", wrong, "bad-pkcs12"),
    }
    for sentence, (given, passphrase, expected) in asked.items():
        (pair / "bad.p12").write_bytes(given)
        done = keys("pkcs12", "import", pair / "bad.p12", "--passphrase-file", passphrase, "--out", pair / "none")
        assert code(done) == expected, sentence
    (pair / "key.pem").write_text(seal(make_private_key(AlgorithmName("p256")), b"inside out"))
    assert code(export(pair, "other.p12")) == "key-of-another-certificate"
    secret(pair / "outside", "short")
    assert code(export(pair, "other.p12")) == "short-passphrase"
    assert not (pair / "other.p12").exists()
