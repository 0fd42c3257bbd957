"""Lists of keys that everybody has, beside those that are built in: no certificate is made for one, by whatever way it comes, and images are searched for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ca.errors import Misconfigured
from ca.model import DeviceId, IssueRequest, ProfileName, Role, TokenEvidence
from ca.rules.known_keys import KNOWN, read_list
from fleetca.cli.main import fleetca
from fleetca.forms import read_settings
from fleetca.known_keys import listed
from tests.fakes.factory_line import Line
from tests.fakes.signer_world import Keypair, World
from tests.flows.test_commands import SETTINGS
from tests.refusals import code_of, refused


def digest_of(key: Any) -> str:
    return hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@pytest.mark.req("REQ-KEY-051")
def test_a_listed_key_gets_no_certificate_by_token_by_an_operator_by_the_line_or_when_it_renews(world: World, tmp_path: Path) -> None:
    pair, holder = Keypair(), world.enrol("pump-1")
    line = Line(world, tmp_path / "stations")
    world.known_keys[digest_of(pair.private)] = "the vendor's default"
    csr = pair.csr()
    asked = IssueRequest(csr, TokenEvidence(world.token("pump-2").text))
    assert "the vendor's default" in refused("known-key", lambda: world.issue(asked)).why
    asked = IssueRequest(csr, world.local(Role.operator), DeviceId("pump-3"), ProfileName("device"))
    assert code_of(lambda: world.issue(asked, Role.operator)) == "known-key"
    assert code_of(lambda: world.renew(holder, pair=pair)) == "known-key"
    line.login()
    line.make("SN-1", "SN-2", pairs=[pair, Keypair()])
    assert (line.bring().certified, line.bring().refused) == (1, 1)
    assert sorted(row.device for row in world.rows() if not row.device.startswith("fleetca:")) == ["SN-2", "pump-1"]


@pytest.mark.req("REQ-KEY-051")
def test_a_list_may_be_of_digests_or_of_keys_in_PEM_of_every_form() -> None:
    curve, large = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 3072)
    texts = [
        key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        for key, form in (
            (curve, PrivateFormat.PKCS8),
            (curve, PrivateFormat.TraditionalOpenSSL),
            (large, PrivateFormat.TraditionalOpenSSL),
        )
    ]
    texts.append(curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
    assert read_list("found on the web\n" + "".join(texts)).keys() == {digest_of(curve), digest_of(large)}
    assert read_list(f"# a comment\n\n{digest_of(curve).upper()} the bench\n") == {digest_of(curve): "the bench"}
    for text in ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN NOTHING-----\n", "x"):
        refused("known-keys", lambda text=text: read_list(text))  # type: ignore[misc]


def deployment(folder: Path) -> Path:
    """Settings that name two lists."""
    text = SETTINGS.replace("[signer]\n", '[signer]\nknown_keys = ["known.txt", "lost.pem"]\n')
    assert "known_keys" in text
    (folder / "fleetca.toml").write_text(text)
    return folder / "fleetca.toml"


@pytest.mark.req("REQ-KEY-051")
def test_the_settings_name_lists_and_a_scan_of_images_looks_for_them_too(tmp_path: Path) -> None:
    settings, key = deployment(tmp_path), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "known.txt").write_text(f"{'a' * 64} one of another\n")
    (tmp_path / "lost.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = listed(read_settings(settings).signer.known_keys)
    assert found.items() >= KNOWN.items()
    assert found[digest_of(key)] == "a listed key (lost.pem)"
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(100) + key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) + bytes(100))
    done = CliRunner().invoke(fleetca, ["scan", str(image), "--settings", str(settings), "--json"])
    told = json.loads(done.stdout)["images"][0]["found"]
    assert [one["known_as"] for one in told if one["known_as"]] == ["a listed key (lost.pem)"], done.output


def test_a_list_that_is_missing_or_none_stops_the_start_and_is_named(tmp_path: Path) -> None:
    settings = deployment(tmp_path)
    files = read_settings(settings).signer.known_keys
    for write in (lambda: None, lambda: (tmp_path / "known.txt").write_text("not a digest\n")):
        write()
        with pytest.raises(Misconfigured) as caught:
            listed(files)
        assert caught.value.code == "known-keys"
        assert "known.txt" in caught.value.what
