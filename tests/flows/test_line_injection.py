"""Keys that the line's store makes for a unit: they leave it wrapped to the unit's transport key and in no other form."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from ca.der.csr import read_csr
from ca.errors import Unauthenticated
from ca.keys import injection
from ca.keys.injection import CertifiedTransport, SharedTransport
from ca.model import AlgorithmName
from ca.rules.wrap import unwrap
from ca.system import SystemClock
from fleetca.cli.main import fleetca
from fleetca.line import verifying
from tests.databases import sqlite_url
from tests.fakes.factory_line import PASSPHRASE, Line
from tests.fakes.signer_world import World
from tests.parts import need
from tests.refusals import code_of
from tests.softhsm import PIN, softhsm

KEK = bytes(range(32))
P256 = AlgorithmName("p256")


def spki_of(plain: bytes) -> bytes:
    # A token may fill up to eight octets before it wraps: what follows the PKCS#8 element is zeros.
    size = 2 + plain[1] if plain[1] < 0x80 else 2 + (plain[1] & 0x7F) + int.from_bytes(plain[2 : 2 + (plain[1] & 0x7F)], "big")
    assert plain[size:] == bytes(len(plain) - size)
    octets: bytes = load_der_private_key(plain[:size], None).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets


@pytest.mark.req("REQ-KEY-040")
@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "ml-dsa-44"])
def test_a_key_travels_wrapped_and_is_that_of_its_CSR(kind: str) -> None:
    made = injection.make(AlgorithmName(kind), SharedTransport(KEK))
    assert spki_of(unwrap(made.wrapped, KEK)) == read_csr(made.csr).spki
    assert (made.form, made.transport) == ("aes-kwp", SharedTransport(KEK).name)
    with pytest.raises(Unauthenticated):
        unwrap(made.wrapped, bytes(32))


@pytest.mark.req("REQ-KEY-040")
@pytest.mark.parametrize(
    "kind", [("rsa:2048",), ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), ("ec", "-pkeyopt", "ec_paramgen_curve:P-384")]
)
def test_openssl_opens_what_was_wrapped_to_a_certificate(kind: tuple[str, ...], tmp_path: Path) -> None:
    made, opened = injection.make(P256, CertifiedTransport(certificate(tmp_path, *kind))), tmp_path / "plain.der"
    (tmp_path / "wrapped").write_bytes(made.wrapped)
    command = ["cms", "-decrypt", "-inform", "DER", "-in", "wrapped", "-inkey", "t.key", "-recip", "t.pem", "-binary", "-out", "plain.der"]
    subprocess.run([need("openssl"), *command], cwd=tmp_path, check=True, capture_output=True)
    assert spki_of(opened.read_bytes()) == read_csr(made.csr).spki
    opened.unlink()
    # One octet of the tag differs: nothing comes out.
    (tmp_path / "wrapped").write_bytes(made.wrapped[:-1] + bytes([made.wrapped[-1] ^ 1]))
    assert subprocess.run([need("openssl"), *command], cwd=tmp_path, check=False, capture_output=True).returncode != 0


def certificate(folder: Path, *kind: str) -> bytes:
    subject = ["-noenc", "-keyout", "t.key", "-out", "t.pem", "-subj", "/CN=unit", "-days", "9"]
    subprocess.run([need("openssl"), "req", "-x509", "-newkey", *kind, *subject], cwd=folder, check=True, capture_output=True)
    return x509.load_pem_x509_certificate((folder / "t.pem").read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.req("REQ-KEY-040")
def test_a_transport_key_that_is_weak_wraps_nothing(tmp_path: Path) -> None:
    assert code_of(lambda: injection.make(P256, SharedTransport(KEK[:16]))) == "transport-weak"
    assert code_of(lambda: injection.make(P256, SharedTransport(KEK[:7]))) == "no-aes-key"
    for kind in (("rsa:1024",), ("ed25519",)):
        weak = CertifiedTransport(certificate(tmp_path, *kind))
        assert code_of(lambda weak=weak: injection.make(P256, weak)) == "transport-weak"  # type: ignore[misc]


@pytest.mark.req("REQ-KEY-040")
def test_the_plain_octets_are_gone_when_the_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real = SharedTransport.wrap

    def spying(self: SharedTransport, key: bytes) -> bytes:
        assert load_der_private_key(key, None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == key
        seen.append(key)
        return real(self, key)

    monkeypatch.setattr(SharedTransport, "wrap", spying)
    injection.make(P256, SharedTransport(KEK))
    (plain,) = seen
    assert plain == bytes(len(plain))
    monkeypatch.setattr(SharedTransport, "wrap", lambda _self, key: seen.append(key) or 1 / 0)  # type: ignore[func-returns-value]
    with pytest.raises(ZeroDivisionError):
        injection.make(P256, SharedTransport(KEK))
    assert seen[1] == bytes(len(seen[1])), "also where wrapping fails"


@pytest.mark.req("REQ-KEY-040")
def test_a_token_makes_the_key_and_shows_it_to_nobody() -> None:
    from ca.keys import pkcs11_injection
    from ca.keys.pkcs11_token import TokenAddress

    tokens = softhsm()
    tokens.add("line")
    address = TokenAddress(tokens.module, label="line")
    for kind in ("p256", "p384"):
        made = pkcs11_injection.make(address, PIN.encode, AlgorithmName(kind), SharedTransport(KEK))
        assert spki_of(unwrap(made.wrapped, KEK)) == read_csr(made.csr).spki
    assert "Private Key" not in tokens.inspect("line", "--list-objects"), "nothing stays on the token"
    assert (
        code_of(lambda: pkcs11_injection.make(address, PIN.encode, AlgorithmName("ed25519"), SharedTransport(KEK)))
        == "store-lacks-algorithm"
    )
    assert code_of(lambda: pkcs11_injection.make(address, PIN.encode, P256, SharedTransport(KEK[:16]))) == "transport-weak"


@pytest.mark.req("REQ-KEY-040", "REQ-KEY-041")
def test_an_injected_unit_says_so_in_its_record_and_its_key_is_nowhere(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    line = Line(world, tmp_path / "stations")
    line.world.clock.at = SystemClock().now()
    line.operator = world.operator("bob", "line")
    line.login(lifetime=86400)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    (tmp_path / "kek").write_text(KEK.hex())
    for secret in ("passphrase", "kek"):
        (tmp_path / secret).chmod(0o600)

    def inject(device: str, out: str, *more: str) -> Any:
        given = ["--key-passphrase-file", str(tmp_path / "passphrase"), "--device", device, "--out", str(tmp_path / out)]
        return CliRunner().invoke(fleetca, ["line", "inject", str(line.station.path), *given, *more])

    shared = ("--transport-key-file", str(tmp_path / "kek"))
    done = inject("SN-1", "SN-1.wrapped", *shared)
    assert done.exit_code == 0, done.output
    assert getattr(inject("SN-1", "again", *shared).exception, "code", "") == "unit-locked"
    assert not (tmp_path / "again").exists(), "no key was made"
    assert getattr(inject("SN-2", "SN-1.wrapped", *shared).exception, "code", "") == "file-exists"
    assert inject("SN-2", "x").exit_code == 2
    assert line.reconcile().certified == 1
    assert b"origin: injected" in line.station.records.read_bytes()
    assert f'"transport":"aes-kwp:{SharedTransport(KEK).name}"'.encode() in line.file.path.read_bytes()
    assert list(verifying.verify(line.station, [world.issuer.certificate]).findings) == []
    plain = unwrap((tmp_path / "SN-1.wrapped").read_bytes(), KEK)
    scalar = load_der_private_key(plain, None).private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    world.close()
    for each in tmp_path.rglob("*"):
        if each.is_file():
            octets = each.read_bytes()
            assert scalar not in octets, each
            assert scalar.hex().encode() not in octets, each
    assert os.access(tmp_path / "SN-1.wrapped", os.R_OK)
