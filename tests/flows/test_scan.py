"""`fleetca scan`: private keys in images made here, in every form, at every kind of place (REQ-KEY-026, REQ-KEY-042, REQ-KEY-051)."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ca.rules import firmware
from ca.rules.known_keys import KNOWN, read_list
from fleetca import scan as scanning
from fleetca.cli.main import fleetca
from tests.fakes.certificates import issuing

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
CLEAR = NoEncryption()


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def spki(key: Any) -> bytes:
    octets: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


def digest(key: Any) -> str:
    return hashlib.sha256(spki(key)).hexdigest()


def scalar(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_numbers().private_value.to_bytes(32)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["scan", *map(str, arguments)])


def found(image: bytes, tmp_path: Path, *options: str) -> list[tuple[int, str, str, str | None]]:
    file = tmp_path / "image.bin"
    file.write_bytes(image)
    done = run(file, "--json", *options)
    assert done.exit_code in {0, 8}, done.output
    (told,) = json.loads(done.stdout)["images"]
    assert told["octets"] == len(image)
    return [(one["offset"], one["kind"], one["form"], one["spki_sha256"]) for one in told["found"]]


FORMS: list[Any] = [
    pytest.param(key, form, encoding, name)
    for kind, key in (("P-256", P256), ("P-384", P384), ("RSA", RSA), ("Ed25519", ED))
    for form, encoding, name in (
        (PrivateFormat.PKCS8, Encoding.DER, "pkcs8"),
        (PrivateFormat.PKCS8, Encoding.PEM, "pem"),
        (PrivateFormat.TraditionalOpenSSL, Encoding.DER, "pkcs1" if kind == "RSA" else "sec1"),
        (PrivateFormat.TraditionalOpenSSL, Encoding.PEM, "pem"),
        (PrivateFormat.OpenSSH, Encoding.PEM, "pem"),
    )
    if kind != "Ed25519" or form is not PrivateFormat.TraditionalOpenSSL
]


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize(("key", "form", "encoding", "name"), FORMS)
def test_a_key_is_found_where_it_lies(key: Any, form: PrivateFormat, encoding: Encoding, name: str, tmp_path: Path) -> None:
    image = noise(5001) + key.private_bytes(encoding, form, CLEAR) + noise(3000, 2)
    assert found(image, tmp_path) == [(5001, "private-key", name, digest(key))]


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize(
    ("image", "offset"),
    [
        pytest.param(noise(100) + scalar(P256) + point(P256), 100, id="right before the public key"),
        pytest.param(noise(101) + point(P256) + scalar(P256) + noise(50), 166, id="right behind it, at an odd place"),
        pytest.param(noise(4000) + spki(P256) + noise(401) + scalar(P256), 4492, id="some hundred octets behind a SubjectPublicKeyInfo"),
        pytest.param(scalar(P256)[::-1] + noise(64) + point(P256), 0, id="with its octets reversed, as little-endian firmware has it"),
    ],
)
def test_a_raw_scalar_beside_its_public_key_is_found(image: bytes, offset: int, tmp_path: Path) -> None:
    assert found(image, tmp_path) == [(offset, "private-key", "raw", digest(P256))]
    assert found(image, tmp_path, "--no-raw") == []


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(noise(300_000), id="noise"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30", id="one octet"),
        pytest.param(bytes(200_000), id="zeros"),
        pytest.param(b"\4" * 20_000, id="fours, which look like the beginnings of points"),
        pytest.param(issuing().certificate, id="a certificate"),
        pytest.param(b"".join(map(spki, (P256, P384, RSA, ED))), id="public keys of every kind"),
        pytest.param(scalar(ec.generate_private_key(ec.SECP256R1())) + point(P256), id="a scalar of somebody else beside a public key"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0usage", id="a program that looks for keys"),
        pytest.param(P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, CLEAR)[:60], id="a key that was cut off"),
    ],
)
def test_what_is_no_key_passes_the_gate(image: bytes, tmp_path: Path) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(image)
    done = run(file)
    assert (done.exit_code, done.stdout) == (0, "No private key found.\n")


@pytest.mark.req("REQ-KEY-042")
def test_an_image_with_a_key_does_not_pass_and_shows_nothing_of_it(tmp_path: Path) -> None:
    pem = P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, CLEAR)
    good, bad = tmp_path / "good.bin", tmp_path / "bad.bin"
    good.write_bytes(noise(100))
    bad.write_bytes(b'static const char *key = "' + pem.replace(b"\n", b'\\n"\n"') + b'";' + point(P256) + scalar(P256))
    for arguments in ((good, bad), (good, bad, "--json")):
        done = run(*arguments)
        assert done.exit_code == 8
        assert scalar(P256).hex() not in done.output
        assert pem.split(b"\n")[1].decode() not in done.output
    assert {one[2] for one in found(bad.read_bytes(), tmp_path)} == {"pem", "raw"}


def test_a_key_across_the_edge_of_two_pieces_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "PIECE", 50_000)
    der = RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, CLEAR)
    for place in (49_000, 49_999, 50_000, 99_500):
        image = noise(place) + der + noise(120_000, 3)
        assert found(image, tmp_path) == [(place, "private-key", "pkcs8", digest(RSA))], place


def test_a_large_image_is_read_in_pieces(tmp_path: Path) -> None:
    """64 MiB of nothing with a key at the end; the file is sparse, and no more than a piece of it is in memory."""
    file = tmp_path / "image.bin"
    with file.open("wb") as out:
        out.seek(64 * 1024 * 1024)
        out.write(ED.private_bytes(Encoding.DER, PrivateFormat.PKCS8, CLEAR))
    told = scanning.scan(file, known={}, scalars=True)
    assert [(one.offset, one.form) for one in told.found] == [(64 * 1024 * 1024, "pkcs8")]
    assert told.octets == file.stat().st_size


@pytest.mark.req("REQ-KEY-026")
def test_keys_under_a_passphrase_are_told_of_and_may_be_allowed(tmp_path: Path) -> None:
    sealed = [
        P256.private_bytes(encoding, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")) for encoding in (Encoding.PEM, Encoding.DER)
    ]
    image = noise(99) + sealed[0] + noise(99) + sealed[1]
    assert [one[1] for one in found(image, tmp_path)] == ["encrypted-private-key"] * 2
    assert run(tmp_path / "image.bin").exit_code == 8
    assert run(tmp_path / "image.bin", "--allow-encrypted").exit_code == 0


@pytest.mark.req("REQ-KEY-051")
def test_the_public_half_of_a_key_that_everybody_has_is_found(tmp_path: Path) -> None:
    one = ec.derive_private_key(1, ec.SECP256R1())
    assert found(noise(7) + spki(one) + noise(9), tmp_path) == [(7, "known-key", "public-key", digest(one))]
    listed = tmp_path / "known.txt"
    listed.write_text(f"# ours\n\n{digest(RSA)} the key of the evaluation board\n")
    assert found(noise(7) + spki(RSA), tmp_path) == []
    assert found(noise(7) + spki(RSA), tmp_path, "--known", str(listed)) == [(7, "known-key", "public-key", digest(RSA))]
    assert "the key of the evaluation board" in run(tmp_path / "image.bin", "--known", listed).stdout


@pytest.mark.req("REQ-KEY-051")
def test_every_known_key_is_what_its_name_says() -> None:
    standards = {
        "RFC 6979 A.2.5": ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1()),
        "RFC 6979 A.2.6": ec.derive_private_key(
            0x6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5, ec.SECP384R1()
        ),
        "RFC 7515 A.3": ec.derive_private_key(0x8E9B109E719098BF980487DF1F5D77E9CB29606EBED2263B5F57C213DF84F4B2, ec.SECP256R1()),
        "RFC 7517 A.2": ec.derive_private_key(0xF3BD0C07A81FB932781ED52752F60CC89A6BE5E51934FE01938DDB55D8F77801, ec.SECP256R1()),
        "RFC 8032 7.1, test 1": _ed("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
        "RFC 8032 7.1, test 2": _ed("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
        "Ed25519, a seed of zeros": _ed("00" * 32),
    }
    for curve, name in ((ec.SECP256R1(), "P-256"), (ec.SECP384R1(), "P-384")):
        standards |= {f"{name}, the private key {number}": ec.derive_private_key(number, curve) for number in range(1, 9)}
    assert {digest(key): name for name, key in standards.items()} == dict(KNOWN)


def _ed(seed: str) -> Any:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))


@pytest.mark.parametrize("text", ["abc", "g" * 64, f"{'a' * 65} x", "a" * 63])
def test_a_list_of_known_keys_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "known.txt"
    file.write_text(f"{'a' * 64} fine\n{text}\n")
    (tmp_path / "image.bin").write_bytes(b"")
    done = run(tmp_path / "image.bin", "--known", file)
    assert getattr(done.exception, "code", None) == "known-keys"
    assert "Line 2" in str(done.exception)
    assert read_list(f"{'A' * 64}") == {"a" * 64: "a listed key"}


def test_an_image_that_is_not_there_is_no_clean_image(tmp_path: Path) -> None:
    assert getattr(run(tmp_path / "none.bin").exception, "code", None) == "image-unreadable"


def test_points_lie_on_the_curve() -> None:
    image = noise(1000) + point(P256) + noise(10)
    assert list(firmware.points(image)) == [1000]
    flipped = bytearray(image)
    flipped[1040] ^= 1
    assert list(firmware.points(bytes(flipped))) == []


def test_a_key_that_openssl_made_is_found(tmp_path: Path) -> None:
    def made(form: str) -> bytes:
        return subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-outform", form], capture_output=True, check=True
        ).stdout

    for form, name in (("PEM", "pem"), ("DER", "sec1")):
        assert [one[2] for one in found(noise(64) + made(form), tmp_path)] == [name]
