"""Secrets in CMS: openssl opens what we write, we open what openssl writes, and what is changed, foreign or weak is refused by name."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ca.der import pem
from ca.errors import FleetcaError, Unacceptable
from ca.keys import cms
from ca.keys.cms import Certified, Opener, Shared
from ca.keys.sealed_file import seal
from ca.rules.wrap import check_value
from tests.parts import need
from tests.running import exit_code

pytestmark = pytest.mark.req("REQ-KEY-061")
SECRET = bytes(range(32))
KEK = Shared(b"k" * 32, b"line-7")
KINDS: dict[str, tuple[str, ...]] = {
    "p256": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "rsa": ("-newkey", "rsa:2048"),
}


def openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with key.pem and cert.pem for each kind of key."""
    need("openssl")
    found = {}
    for kind, how in KINDS.items():
        folder = found[kind] = tmp_path_factory.mktemp(kind)
        openssl(
            "req", "-x509", *how, "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", f"/CN={kind}", "-days", 9
        )
    return found


def opener(folder: Path) -> Opener:
    private: Any = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    return Opener(private, certified(folder).certificate)


def certified(folder: Path) -> Certified:
    return Certified(pem.der_of((folder / "cert.pem").read_bytes(), pem.CERTIFICATE))


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_opens_what_is_written_to_a_certificate_and_so_do_we(
    holders: dict[str, Path], kind: str, authenticated: bool, tmp_path: Path
) -> None:
    made = cms.write(SECRET, [certified(holders[kind]), KEK], authenticated=authenticated)
    (tmp_path / "made").write_bytes(made)
    given = ("-inkey", holders[kind] / "key.pem", "-recip", holders[kind] / "cert.pem")
    openssl("cms", "-decrypt", "-inform", "DER", "-in", tmp_path / "made", *given, "-out", tmp_path / "opened")
    assert (tmp_path / "opened").read_bytes() == SECRET
    openssl(
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-in",
        tmp_path / "made",
        "-secretkey",
        KEK.key.hex(),
        "-secretkeyid",
        KEK.name.hex(),
        "-out",
        tmp_path / "by",
    )
    assert (tmp_path / "by").read_bytes() == SECRET
    assert cms.read(made, opener(holders[kind])) == cms.read(made, KEK) == SECRET


@pytest.mark.parametrize("cipher", ["-aes256", "-aes-128-gcm", "-aes-256-gcm", "-aes-192-cbc"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("p256", ()),
        ("p384", ("-keyopt", "ecdh_kdf_md:sha256")),
        ("rsa", ("-keyopt", "rsa_padding_mode:oaep")),
        ("rsa", ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")),
    ],
)
def test_we_open_what_openssl_writes(holders: dict[str, Path], kind: str, more: tuple[str, ...], cipher: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    shared = ("-secretkey", KEK.key.hex(), "-secretkeyid", KEK.name.hex())
    for form in (("-outform", "DER"), ("-outform", "DER", "-stream")):
        openssl(
            "cms", "-encrypt", "-binary", cipher, "-in", tmp_path / "secret", *form, "-out", tmp_path / "made", *shared,
            "-recip", holders[kind] / "cert.pem", *more,
        )  # fmt: skip
        made = (tmp_path / "made").read_bytes()
        assert cms.read(made, opener(holders[kind])) == SECRET
        assert cms.read(made, KEK) == SECRET


def refused(octets: bytes, by: Opener | Shared) -> str:
    with pytest.raises(FleetcaError) as told:
        cms.read(octets, by)
    return told.value.code


def test_what_is_for_others_weak_or_no_cms_is_refused_by_name(holders: dict[str, Path], tmp_path: Path) -> None:
    made = cms.write(SECRET, [certified(holders["p256"]), KEK])
    assert refused(made, opener(holders["rsa"])) == "cms-not-for-us"
    assert refused(made, Shared(b"k" * 32, b"line-8")) == "cms-not-for-us"
    assert refused(made, Shared(b"l" * 32, b"line-7")) == "unwrap-failed"
    assert refused(made, Opener(opener(holders["p384"]).private, certified(holders["p256"]).certificate)) in {"bad-cms", "unwrap-failed"}
    for octets in (b"", b"x", made[:-1], made + b"x", b"\x30\x80", bytes(600_000)):
        assert refused(octets, KEK) == "bad-cms"
    (tmp_path / "secret").write_bytes(SECRET)
    openssl("cms", "-encrypt", "-in", tmp_path / "secret", "-outform", "DER", "-out", tmp_path / "old", holders["rsa"] / "cert.pem")
    assert refused((tmp_path / "old").read_bytes(), opener(holders["rsa"])) == "cms-algorithm"
    openssl("cms", "-data_create", "-in", tmp_path / "secret", "-outform", "DER", "-out", tmp_path / "data")
    assert refused((tmp_path / "data").read_bytes(), KEK) == "cms-algorithm"


@pytest.mark.parametrize("kind", KINDS)
def test_every_octet_that_is_changed_is_noticed_or_harmless(holders: dict[str, Path], kind: str) -> None:
    """Authenticated is the content, and with it its key; a name in it may change, and then it is for nobody."""
    made = cms.write(SECRET, [certified(holders[kind])])
    by = opener(holders[kind])
    codes: set[str] = set()
    for at in range(0, len(made), 3):
        changed = bytearray(made)
        changed[at] ^= 1
        try:
            found = cms.read(bytes(changed), by)
        except FleetcaError as error:
            codes.add(error.code)
        else:
            assert found == SECRET, at
    assert codes <= {"bad-cms", "cms-algorithm", "cms-not-for-us", "unwrap-failed"}
    assert "unwrap-failed" in codes


def test_nothing_is_written_to_what_is_weak(tmp_path: Path) -> None:
    need("openssl")
    for how in (("rsa:1024",), ("ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), ("ed25519",)):
        openssl("req", "-x509", "-newkey", *how, "-nodes", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=x")
        with pytest.raises(Unacceptable) as told:
            cms.write(SECRET, [certified(tmp_path)])
        assert told.value.code == "transport-weak"
    for secret, recipients in ((b"", [KEK]), (SECRET, []), (SECRET, [Shared(b"k" * 16, b"x")])):
        with pytest.raises(Unacceptable):
            cms.write(secret, recipients)


run = partial(exit_code, "keys")


def test_the_commands_wrap_and_unwrap_in_cms(holders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ca.keys.sealed_file._N", 1 << 8)
    for name, octets in (("data.key", SECRET), ("kek.key", b"k" * 32), ("passphrase", b"correct horse battery")):
        (tmp_path / name).write_text(octets.decode() if name == "passphrase" else octets.hex())
        (tmp_path / name).chmod(0o600)
    certificate = holders["p256"] / "cert.pem"
    (tmp_path / "sealed.key").write_text(seal(opener(holders["p256"]).private, b"correct horse battery"))
    assert run("wrap", tmp_path / "data.key", "--to", certificate, "--out", tmp_path / "to.cms") == 0
    assert run("wrap", tmp_path / "data.key", "--under", tmp_path / "kek.key", "--cms", "--cbc", "--out", tmp_path / "kek.cms") == 0
    private = ("--key", tmp_path / "sealed.key", "--key-passphrase-file", tmp_path / "passphrase", "--certificate", certificate)
    assert run("unwrap", tmp_path / "to.cms", *private, "--check", check_value(SECRET), "--out", tmp_path / "one") == 0
    assert run("unwrap", tmp_path / "kek.cms", "--under", tmp_path / "kek.key", "--cms", "--out", tmp_path / "two") == 0
    assert {(tmp_path / name).read_text() for name in ("one", "two")} == {SECRET.hex() + "\n"}
    assert run("unwrap", tmp_path / "to.cms", *private, "--check", "00" * 5, "--out", tmp_path / "three") == 5
    assert run("unwrap", tmp_path / "to.cms", "--under", tmp_path / "kek.key", "--cms", "--out", tmp_path / "three") == 5
    assert run("wrap", tmp_path / "data.key", "--out", tmp_path / "x") == 2
    assert run("wrap", tmp_path / "data.key", "--cms", "--out", tmp_path / "x") == 2
    assert run("unwrap", tmp_path / "to.cms", "--out", tmp_path / "x") == 2
