"""`fleetca scan` in what is packed: every kind of stream and file system of these, at any place, and what is not looked into is said (REQ-KEY-026, REQ-KEY-042)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from ca.rules import unpacking
from fleetca import scan as scanning
from fleetca.cli.main import fleetca
from tests.fakes.certificates import issuing
from tests.parts import need

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def words(count: int) -> bytes:
    """What packs well, as programs and texts do."""
    return b"".join(b"%d of them\n" % number for number in range(count // 11))[:count]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["scan", *map(str, arguments)])


def told(image: bytes, folder: Path, *options: str) -> dict[str, Any]:
    file = folder / "image.bin"
    file.write_bytes(image)
    done = run(file, "--json", *options)
    assert done.exit_code in {0, 8}, done.output
    (one,) = json.loads(done.stdout)["images"]
    return {**one, "exit": done.exit_code}


def zipped(octets: bytes, name: str = "etc/key.pem") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("readme", words(5000))
        file.writestr(name, octets)
    return out.getvalue()


def tarred(octets: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        entry = tarfile.TarInfo("etc/key.pem")
        entry.size = len(octets)
        file.addfile(entry, io.BytesIO(octets))
    return out.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zip": zipped,
    "xz": lzma.compress,
    "lzma": lambda octets: lzma.compress(octets, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
}


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize("form", PACKERS)
def test_a_key_is_found_in_what_is_packed_wherever_that_begins(form: str, tmp_path: Path) -> None:
    image = noise(3001) + PACKERS[form](words(70_000) + PEM + words(9000)) + noise(500, 2)
    found = told(image, tmp_path)
    (one,) = found["found"]
    ((packed, start),) = [(step["form"], step["offset"]) for step in one["inside"]]
    assert (packed, one["offset"], one["form"]) == (form, 70_000, "pem")
    # The second file of the zip; the others begin where the noise ends.
    assert start > 3001 if form == "zip" else start == 3001
    assert (found["exit"], found["not_looked_into"]) == (8, [])
    assert told(image, tmp_path, "--no-unpack")["found"] == []


@pytest.mark.req("REQ-KEY-042")
def test_a_key_is_found_in_a_package_in_an_image_in_an_update(tmp_path: Path) -> None:
    image = lzma.compress(words(99) + gzip.compress(tarred(zipped(words(4000) + PEM))))
    (one,) = told(image, tmp_path)["found"]
    assert [step["form"] for step in one["inside"]] == ["xz", "gzip", "zip"]
    assert f"{one['inside'][2]['offset']:#x} zip {one['offset']:#x}" in run(tmp_path / "image.bin").stdout


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize("piece", [40_000, 100_000, 4_000_000])
def test_a_key_is_found_once_whatever_the_pieces_are_in_which_an_image_is_read(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "PIECE", piece)
    inner = words(131_000) + PEM + words(70_000)
    image = noise(39_990) + gzip.compress(inner) + noise(20_000, 4) + lzma.compress(inner)
    found = told(image, tmp_path)
    assert [(one["inside"][0]["form"], one["offset"]) for one in found["found"]] == [("gzip", 131_000), ("xz", 131_000)]
    assert found["not_looked_into"] == []


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize("form", ["gzip", "zlib", "xz", "bzip2"])
def test_a_key_across_two_streams_that_follow_each_other_is_found(form: str, tmp_path: Path) -> None:
    pack, middle = PACKERS[form], len(PEM) // 2
    image = noise(64) + pack(words(5000) + PEM[:middle]) + pack(PEM[middle:] + words(5000)) + noise(64, 2)
    assert [one["offset"] for one in told(image, tmp_path)["found"]] == [5000]


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize("form", ["gzip", "xz", "lzma"])
def test_a_key_is_found_in_a_squashfs(form: str, tmp_path: Path) -> None:
    tree, image = tmp_path / "tree", tmp_path / "root.squashfs"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "key.pem").write_bytes(PEM)
    # In the middle of a file of several blocks, across the edge of two of them.
    (tree / "firmware").write_bytes(words(131_072 - 100) + PEM + words(300_000))
    (tree / "noise").write_bytes(noise(200_000))
    subprocess.run(
        [need("mksquashfs"), tree, image, "-comp", form, "-noappend", "-quiet", "-no-progress"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = told(image.read_bytes(), tmp_path)
    assert [one["form"] for one in found["found"]] == ["pem", "pem"]
    assert found["not_looked_into"] == []


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize("form", ["lzo", "lz4", "zstd"])
def test_a_squashfs_that_cannot_be_read_does_not_pass_the_gate_in_silence(form: str, tmp_path: Path) -> None:
    tree, image = tmp_path / "tree", tmp_path / "root.squashfs"
    tree.mkdir()
    (tree / "words").write_bytes(words(50_000))
    subprocess.run(
        [need("mksquashfs"), tree, image, "-comp", form, "-noappend", "-quiet", "-no-progress"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    done = run(image)
    assert (done.exit_code, done.stdout) == (8, "No private key found.\n")
    assert f"Not looked into: {image}, squashfs, {form} at 0x0: it is not unpacked here." in done.stderr
    assert run(image, "--allow-unread").exit_code == 0


def _crc7z() -> bytes:
    place = (0).to_bytes(8) + (5).to_bytes(8, "little") + (9).to_bytes(4)
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + zlib.crc32(place).to_bytes(4, "little") + place


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize(
    ("form", "octets"),
    [
        ("zstd", bytes.fromhex("28b52ffd2064") + (100 << 3 | 1).to_bytes(3, "little") + noise(100)),
        ("lz4", bytes.fromhex("04224d186440a7") + noise(100)),
        ("lzo", b"\x89LZO\x00\r\n\x1a\n\x10\x40" + noise(100)),
        ("7z", _crc7z() + noise(100)),
        ("rar", b"Rar!\x1a\x07\x01\x00" + noise(4) + b"\x0a\x01" + noise(100)),
        ("LUKS, encrypted", b"LUKS\xba\xbe\x00\x02" + noise(100)),
        ("ubifs", b"\x31\x18\x10\x06" + noise(12) + b"\x00\x10\x00\x00\x06\x00\x00\x00" + noise(100)),
        ("zip, method 14", b"PK\x03\x04\x3f\x00\x02\x00\x0e\x00" + bytes(16) + b"\x01\x00\x00\x00a" + noise(100)),
        ("zip, encrypted", b"PK\x03\x04\x14\x00\x01\x00\x08\x00" + bytes(16) + b"\x01\x00\x00\x00a" + noise(100)),
    ],
)
def test_what_is_recognised_and_not_looked_into_is_said_and_ends_with_8(form: str, octets: bytes, tmp_path: Path) -> None:
    found = told(noise(77) + octets, tmp_path)
    assert found["not_looked_into"] == [{"offset": 77, "inside": [], "form": form, "why": "it is not unpacked here"}]
    assert (found["found"], found["exit"]) == ([], 8)
    assert told(noise(77) + octets, tmp_path, "--allow-unread")["exit"] == 0


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(noise(400_000), id="noise"),
        pytest.param(words(400_000), id="words"),
        pytest.param(
            b"\x1f\x8b\x08\x00\xfd7zXZ\x00\x00\x04BZh91AY&SYPK\x03\x04\x14\x00hsqs\x28\xb5\x2f\xfd\xff\x04\x22\x4d\x18Rar!\x1a\x07\x00"
            b"7z\xbc\xaf\x27\x1c" + words(900),
            id="a program that knows the marks of packers",
        ),
        pytest.param(b"x\x9c" * 20_000, id="the mark of zlib, over and over"),
        pytest.param(gzip.compress(words(90_000)) + zipped(words(90_000)), id="packed words"),
        pytest.param(gzip.compress(words(3000))[:-900], id="a small stream that breaks off"),
    ],
)
def test_what_is_no_key_and_nothing_unread_passes_the_gate(octets: bytes, tmp_path: Path) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(octets)
    done = run(file)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "No private key found.\n", "")


@pytest.mark.req("REQ-KEY-042")
@pytest.mark.parametrize(
    ("why", "image"),
    [
        pytest.param("it ends too early", gzip.compress(noise(60_000))[:-900], id="that ends too early"),
        pytest.param("damaged", bz2.compress(noise(250_000), 1)[:-30_000] + noise(30_000, 9), id="that is damaged"),
    ],
)
def test_a_stream_is_looked_into_as_far_as_it_goes_and_the_rest_is_said(why: str, image: bytes, tmp_path: Path) -> None:
    (one,) = told(image, tmp_path)["not_looked_into"]
    assert (one["offset"], one["why"] == why or why == "damaged") == (0, True)


@pytest.mark.req("REQ-KEY-042")
def test_what_unpacks_to_more_than_the_limit_is_said_and_not_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(gzip.compress(bytes(9_000_000)))
    assert told(bomb, tmp_path)["exit"] == 0
    monkeypatch.setattr(unpacking, "MOST", 1_000_000)
    found = told(bomb, tmp_path)
    assert {one["why"] for one in found["not_looked_into"]} == {"the image unpacks to more octets than are gone through"}
    assert found["exit"] == 8


@pytest.mark.req("REQ-KEY-042")
def test_what_is_packed_too_many_times_over_is_said(tmp_path: Path) -> None:
    image = PEM
    for _ in range(unpacking.DEEPEST):
        image = gzip.compress(words(5000) + image)
    assert [len(one["inside"]) for one in told(image, tmp_path)["found"]] == [unpacking.DEEPEST]
    found = told(gzip.compress(image), tmp_path)
    assert (found["found"], [one["why"] for one in found["not_looked_into"]]) == ([], ["it is packed more than 5 times over"])


@pytest.mark.req("REQ-KEY-042")
def test_many_beginnings_without_an_end_cost_little(tmp_path: Path) -> None:
    """Each would take a decompressor of its own: those that may be open at one time are counted."""
    start = lzma.compress(noise(5000))[:2000]
    found = told(start * 100, tmp_path)
    assert f"it lies within {unpacking.TOGETHER} others" in {one["why"] for one in found["not_looked_into"]} or found["exit"] == 0


# ---- Raw keys of every kind ---------------------------------------------------------------------------------------------

SEEDED: list[tuple[str, Any, bytes]] = [
    ("secp256r1", KEY, KEY.private_numbers().private_value.to_bytes(32)),
    *[
        (curve.name, key, key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8))
        for curve in (ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1())
        for key in [ec.generate_private_key(curve)]
    ],
    *[
        (name, key, key.private_bytes_raw())
        for name, key in (
            ("ed25519", ed25519.Ed25519PrivateKey.generate()),
            ("x25519", x25519.X25519PrivateKey.generate()),
            ("ed448", ed448.Ed448PrivateKey.generate()),
            ("mldsa44", mldsa.MLDSA44PrivateKey.generate()),
            ("mldsa65", mldsa.MLDSA65PrivateKey.generate()),
            ("mldsa87", mldsa.MLDSA87PrivateKey.generate()),
        )
    ],
]


def _spki(key: Any) -> bytes:
    octets: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize(("algorithm", "key", "raw"), SEEDED, ids=[one[0] for one in SEEDED])
def test_a_raw_private_key_is_found_beside_its_public_half(algorithm: str, key: Any, raw: bytes, tmp_path: Path) -> None:
    digest = hashlib.sha256(_spki(key)).hexdigest()
    for image, offset in ((noise(101) + raw + _spki(key), 101), (noise(103) + _spki(key) + raw, 103 + len(_spki(key)))):
        found = told(image, tmp_path)["found"]
        assert [(one["offset"], one["form"], one["algorithm"], one["spki_sha256"]) for one in found] == [(offset, "raw", algorithm, digest)]


@pytest.mark.req("REQ-KEY-026")
@pytest.mark.parametrize(
    ("algorithm", "key", "raw"),
    [one for one in SEEDED if one[0] in {"secp256r1", "secp384r1", "ed25519"}],
    ids=["secp256r1", "secp384r1", "ed25519"],
)
def test_beside_public_keys_that_are_given_raw_ones_are_found_in_whatever_form_these_lie(
    algorithm: str, key: Any, raw: bytes, tmp_path: Path
) -> None:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        bare = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    else:
        bare = key.public_key().public_bytes_raw()
    image = noise(4) + bare + noise(403 - len(bare) + 1, 2) + raw + noise(50, 3)
    assert told(image, tmp_path)["exit"] == 0, "nobody knows that it is a public key"
    listed = tmp_path / "public.pem"
    listed.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = told(image, tmp_path, "--public", str(listed))["found"]
    assert [(one["offset"], one["algorithm"]) for one in found] == [(408, algorithm)]


def test_public_keys_are_given_as_certificates_too_and_a_file_without_any_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(b"")
    for name, octets in (("ca.der.pem", _pem(issuing().certificate)), ("rsa.pem", _public(rsa.generate_private_key(65537, 2048)))):
        (tmp_path / name).write_bytes(octets)
        assert run(tmp_path / "image.bin", "--public", tmp_path / name).exit_code == 0
    (tmp_path / "none").write_bytes(b"nothing")
    assert getattr(run(tmp_path / "image.bin", "--public", tmp_path / "none").exception, "code", None) == "no-public-key"


def _pem(der: bytes) -> bytes:
    from ca.der import pem

    return pem.pem(pem.CERTIFICATE, der).encode()


def _public(key: Any) -> bytes:
    octets: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return octets


@pytest.mark.req("REQ-KEY-026")
def test_a_key_store_under_a_passphrase_is_told_of(tmp_path: Path) -> None:
    """PKCS#12 holds the key as EncryptedPrivateKeyInfo, by PBES2 or by the old algorithms of PKCS#12."""
    old = PrivateFormat.PKCS12.encryption_builder().key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
    for way in (BestAvailableEncryption(b"secret"), old.build(b"secret")):
        file = pkcs12.serialize_key_and_certificates(b"name", KEY, None, None, way)
        assert [(one["kind"]) for one in told(noise(50) + file, tmp_path)["found"]] == ["encrypted-private-key"]
