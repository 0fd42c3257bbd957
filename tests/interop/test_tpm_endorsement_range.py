"""Endorsement keys of every template of the TCG's profile that we know, in a software TPM: each is endorsed by a maker, challenged, and vouches for a key."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.errors import KeyUnavailable
from ca.keys import tpm_attest
from ca.keys import tpm_commands as tpm
from ca.keys.tpm import TpmKeyStore
from ca.keys.tpm_attest import TpmAttester
from ca.model import AlgorithmName, AttestationKind, IssueRequest, KeyName, ProfileName, TokenEvidence
from ca.rules.caps import Attesting, TpmMaker
from enroll.rest import messages
from fleetca.agent.attesting import Attesting as Answering
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.signer_world import World, changed
from tests.fakes.tpm import Maker
from tests.interop.test_tpm_attestation import Direct, csr_of
from tests.swtpm import SoftTpm, swtpm

ATTESTED = ProfileName("attested")
MAKER = Maker()
TEMPLATES = {
    "P-256, low range": 0x01C0000A,
    "P-256, high range": 0x01C00014,
    "P-384": 0x01C00016,
    "RSA-2048, low range": 0x01C00002,
    "RSA-2048, high range": 0x01C00012,
    "RSA-3072": 0x01C0001C,
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    """A TPM without any certificate."""
    with swtpm(tmp_path_factory.mktemp("tpm") / "state") as made:
        yield made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    profiles = {ATTESTED: changed(shipped_profiles()[ProfileName("device")], name=ATTESTED, attestation=(AttestationKind.tpm,))}
    made = World(
        tmp_path,
        sqlite_url(tmp_path),
        profiles=profiles,
        attesting=Attesting((TpmMaker("maker", (MAKER.certificate(of_root=True),)),), (ATTESTED,)),
    )
    yield made
    made.close()


def area_of(bare: SoftTpm, index: int) -> bytes:
    """TPMT_PUBLIC of the endorsement key whose certificate belongs at that index."""
    (template,) = [one for one in tpm_attest._TEMPLATES if one.index == index]
    with tpm.conversation(bare.device) as channel:
        handle = tpm.create_primary(channel, template.public, hierarchy=tpm.ENDORSEMENT)
        try:
            return tpm.read_public(channel, handle)
        finally:
            tpm.flush_context(channel, handle)


def key_of(area: bytes) -> Any:
    """The key at its end: a modulus, or the two coordinates of a point."""
    if area[:2] == b"\0\x01":
        bits = 3072 if area[2:4] == b"\0\x0c" else 2048
        return rsa.RSAPublicNumbers(65537, int.from_bytes(area[-bits // 8 :])).public_key()
    curve: Any = ec.SECP384R1() if area[2:4] == b"\0\x0c" else ec.SECP256R1()
    size = curve.key_size // 8
    x, y = area[-2 * size - 2 : -size - 2], area[-size:]
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()


def test_all_templates_are_tried() -> None:
    assert {one.index for one in tpm_attest._TEMPLATES} == set(TEMPLATES.values())


@pytest.mark.req("REQ-KEY-046")
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_TPM_with_such_an_endorsement_key_vouches_for_a_key_that_is_certified(name: str, bare: SoftTpm, world: World) -> None:
    chain = (MAKER.endorse(key_of(area_of(bare, TEMPLATES[name]))), MAKER.certificate())
    store = TpmKeyStore(bare.device, None)
    key = store.generate(KeyName("0x81020010"), AlgorithmName("p256"))
    try:
        answering: Any = Answering(TpmAttester(bare.device, chain))
        asked = {"token": "x", "csr": base64.b64encode(csr_of(key)).decode(), "attestation": answering(Direct(world), key)}
        given = messages.attestation_of(messages.read_body(messages.json_octets(asked), messages.ENROLL))
        made = world.issue(IssueRequest(csr_of(key), TokenEvidence(world.token("pump-17", "attested").text), attestation=given))
        assert made.certificate.device == "pump-17"
    finally:
        store.destroy(KeyName("0x81020010"))


@pytest.mark.req("REQ-KEY-046")
@pytest.mark.parametrize("name", ["RSA-2048, high range", "RSA-3072", "P-256, high range"])
def test_the_certificate_is_found_where_the_profile_has_it(name: str, bare: SoftTpm, tmp_path: Path) -> None:
    index = TEMPLATES[name]
    der = MAKER.endorse(key_of(area_of(bare, index)))
    (tmp_path / "ek.der").write_bytes(der)
    bare.tool("tpm2_nvdefine", f"{index:#x}", "-C", "o", "-s", str(len(der)), "-a", "ownerread|ownerwrite|authread|authwrite")
    try:
        bare.tool("tpm2_nvwrite", f"{index:#x}", "-C", "o", "-i", str(tmp_path / "ek.der"))
        assert TpmAttester(bare.device).introduce().endorsement == (der,)
    finally:
        bare.tool("tpm2_nvundefine", f"{index:#x}", "-C", "o")
    with pytest.raises(KeyUnavailable):
        TpmAttester(bare.device).introduce()


@pytest.mark.parametrize(
    ("name", "kind"), [("P-384", "ecc384"), ("RSA-3072", "rsa3072"), ("RSA-2048, low range", "rsa"), ("P-256, low range", "ecc")]
)
def test_the_tools_make_the_same_endorsement_key(name: str, kind: str, bare: SoftTpm, tmp_path: Path) -> None:
    bare.tool("tpm2_createek", "-c", str(tmp_path / "ek.ctx"), "-G", kind, "-u", str(tmp_path / "ek.pub"))
    bare.tool("tpm2_flushcontext", "-t")
    assert (tmp_path / "ek.pub").read_bytes()[2:] == area_of(bare, TEMPLATES[name])


@pytest.mark.parametrize(
    ("digest", "policy", "secret", "authorized"),
    [
        (
            "sha256",
            tpm_attest._POLICY_B_LOW,
            "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
            "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde",
        ),
        (
            "sha384",
            tpm_attest._POLICY_B,
            "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53",
            "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165",
        ),
    ],
)
def test_the_policies_of_the_high_range_are_what_the_profile_makes_them_of(
    digest: str, policy: bytes, secret: str, authorized: str
) -> None:
    """TPM2_PolicyOR of the endorsement hierarchy's secret and of what an NV index authorizes (EK Credential Profile, B.6.5)."""
    parts = bytes.fromhex(secret) + bytes.fromhex(authorized)
    assert hashlib.new(digest, bytes(len(policy)) + struct.pack(">I", 0x171) + parts).digest() == policy
