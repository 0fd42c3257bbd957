"""`fleetca devices collisions`: keys that several devices have, seeded here in every form that discovery tools write (REQ-KEY-025)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ca.errors import FleetcaError
from ca.rules.known_keys import KNOWN
from fleetca.cli.main import fleetca
from tests.fakes.signer_world import Keypair, World
from tests.flows.test_commands import _deployment

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("own", "shared")}


def digest(which: str) -> str:
    return hashlib.sha256(KEYS[which].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def certificate(key: Any, *names: str, serial: int = 7, san: str = "") -> bytes:
    """Of a CA elsewhere, whatever that is."""
    kinds = (NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER)
    subject = x509.Name([x509.NameAttribute(kind, name) for kind, name in zip(kinds, names, strict=False)])
    made = x509.CertificateBuilder(
        subject, subject, key.public_key(), serial, datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    )
    if san:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def block(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


OWN, SHARED = KEYS["own"], KEYS["shared"]
THREE = (certificate(OWN, "a"), certificate(SHARED, "b"), certificate(SHARED, "c"))


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["devices", "collisions", *map(str, arguments), "--json"])


def told(folder: Path, *contents: str | bytes, code: int) -> Any:
    files = [folder / f"found-{number}" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run(*files)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def refused(folder: Path, content: bytes) -> str:
    (folder / "found").write_bytes(content)
    error = run(folder / "found").exception
    assert isinstance(error, FleetcaError)
    return error.code


SEEDED = [
    pytest.param(["".join(map(block, THREE))], id="a bundle of PEM"),
    pytest.param(["Devices of hall 2\n" + "text\n".join(map(block, THREE))], id="PEM with text around it"),
    pytest.param(list(THREE), id="a file of DER each"),
    pytest.param([f"device,spki_sha256\na,{digest('own')}\nb,{digest('shared')}\nc,{digest('shared').upper()}\n"], id="CSV of digests"),
    pytest.param(
        [f'port,"device" ,spki_sha256\r\n1,b,{digest("shared")}\r\n2,c,{digest("shared")}\r\n'], id="CSV as spreadsheets write it"
    ),
    pytest.param(
        ["device,certificate\n" + "".join(f'{name},"{block(THREE[1])}"\n' for name in "bc")], id="CSV, one certificate at two devices"
    ),
    pytest.param(
        ["\n\n".join(json.dumps({"device": name, "certificate": base64.b64encode(THREE[1]).decode()}) for name in "bc")],
        id="JSON lines, one certificate at two devices",
    ),
    pytest.param(
        ["\ufeff" + "".join(json.dumps({"certificate": block(der), "port": 443}) + "\n" for der in THREE)], id="JSON lines of PEM"
    ),
    pytest.param([block(THREE[1]), f"device,spki_sha256\nc,{digest('shared')}\n"], id="two files of two tools"),
]


@pytest.mark.req("REQ-KEY-025")
@pytest.mark.parametrize("contents", SEEDED)
def test_the_seeded_collision_is_found_and_nothing_else(contents: list[str | bytes], tmp_path: Path) -> None:
    document = told(tmp_path, *contents, code=8)
    assert [(one["spki_sha256"], one["devices"]) for one in document["collisions"]] == [(digest("shared"), ["b", "c"])]
    assert document["not_read"] == []
    assert all(str(tmp_path) in place for place in document["collisions"][0]["places"])


@pytest.mark.req("REQ-KEY-025")
@pytest.mark.parametrize(
    ("contents", "devices"),
    [
        pytest.param(
            (certificate(SHARED, "model 3", "0001"), certificate(SHARED, "model 3", "0002")), 2, id="one model, two serial numbers"
        ),
        pytest.param((certificate(SHARED, san="a.test"), certificate(SHARED, san="b.test")), 2, id="no subject, two alternative names"),
        pytest.param((certificate(SHARED, serial=1), certificate(SHARED, serial=2)), 2, id="no name at all, two certificates"),
        pytest.param(
            (certificate(SHARED, "b", serial=1), certificate(SHARED, "b", serial=2)), 0, id="one device that renewed with its key"
        ),
        pytest.param((certificate(OWN, "b"), certificate(SHARED, "b")), 0, id="one device with two keys"),
        pytest.param((certificate(OWN, "a"), certificate(SHARED, "b")), 0, id="two devices with two keys"),
    ],
)
def test_whose_a_certificate_is_stands_in_its_names(contents: tuple[bytes, ...], devices: int, tmp_path: Path) -> None:
    document = told(tmp_path, *contents, code=8 if devices else 0)
    assert [len(one["devices"]) for one in document["collisions"]] == ([devices] if devices else [])


@pytest.mark.req("REQ-KEY-025")
def test_a_key_that_everybody_has_is_found_at_a_single_device(tmp_path: Path) -> None:
    built_in = next(iter(KNOWN))
    file, listed = tmp_path / "found.csv", tmp_path / "known.txt"
    file.write_text(f"device,spki_sha256\na,{built_in}\nb,{digest('own')}\n")
    listed.write_text(f"{digest('own')} the board of the lab\n")
    assert [one["known_as"] for one in json.loads(run(file).stdout)["collisions"]] == [KNOWN[built_in]]
    done = run(file, "--known", listed)
    assert done.exit_code == 8
    assert {one["known_as"] for one in json.loads(done.stdout)["collisions"]} == {KNOWN[built_in], "the board of the lab (known.txt)"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x30\x03\x02\x01\x01", id="DER that is no certificate"),
        pytest.param(THREE[0][:-1], id="a certificate that was cut off"),
        pytest.param("device,spki_sha256\na,12\n", id="a digest that is too short"),
        pytest.param("device,spki_sha256\na," + "g" * 64 + "\n", id="a digest that is not hexadecimal"),
        pytest.param("device,spki_sha256\n," + "0" * 64 + "\n", id="a digest of nobody"),
        pytest.param("device,spki_sha256\na\n", id="a line that is too short"),
        pytest.param("device,certificate\na,!!!\n", id="a certificate that is not base64"),
        pytest.param("device,certificate\na," + "A" * 200_000 + "\n", id="a field that never ends"),
        pytest.param('device,certificate\na,"-----BEGIN CERTIFICATE-----"\n', id="a block that never ends"),
        pytest.param('{"device": 1, "spki_sha256": 2}', id="numbers for names"),
        pytest.param("{" * 100_000, id="nested without end"),
        pytest.param('{"device": "a"}', id="a device without a key"),
    ],
)
def test_what_cannot_be_read_is_told_and_no_clean_report_is_given(content: str | bytes, tmp_path: Path) -> None:
    document = told(tmp_path, content, code=8)
    assert document["collisions"] == []
    ((unread),) = document["not_read"]
    assert unread["why"]


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"", id="nothing"), pytest.param(b"name,key\na,b\n", id="other columns"), pytest.param(b"\xff" * 99, id="noise")],
)
def test_a_file_that_names_no_keys_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refused(tmp_path, content) == "discovery-unreadable"


def test_more_than_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetca.discovery.LARGEST", 100)
    assert refused(tmp_path, b"device,spki_sha256\n" * 10) == "discovery-unreadable"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from _deployment(tmp_path)


@pytest.mark.req("REQ-KEY-025")
def test_a_key_that_is_on_record_for_one_device_is_found_at_another(world: World, tmp_path: Path) -> None:
    device = Keypair()
    (tmp_path / "pump-1.csr").write_bytes(device.csr())
    mine = tmp_path / "pump-1.pem"
    issue = ("issue", tmp_path / "pump-1.csr", "--device", "pump-1", "--settings", tmp_path / "fleetca.toml", "--out", mine)
    issued = CliRunner().invoke(fleetca, list(map(str, issue)))
    assert issued.exit_code == 0, issued.output
    mine.write_bytes(x509.load_pem_x509_certificates(mine.read_bytes())[0].public_bytes(Encoding.PEM))
    known = hashlib.sha256(device.spki).hexdigest()
    field = tmp_path / "field.csv"
    settings = ("--settings", tmp_path / "fleetca.toml")
    field.write_text(f"device,spki_sha256\npump-1,{known}\npump-2,{digest('own')}\n")
    # Its own device with its own certificate, whatever that calls it, is no collision.
    assert run(field, mine, *settings).exit_code == 0
    field.write_text(f"device,spki_sha256\npump-9,{known}\npump-2,{digest('own')}\n")
    assert run(field).exit_code == 0, "the files alone show one device"
    done = run(field, *settings)
    assert done.exit_code == 8
    (one,) = json.loads(done.stdout)["collisions"]
    assert (one["spki_sha256"], one["devices"], one["on_record"]) == (known, ["pump-1", "pump-9"], ["pump-1"])
