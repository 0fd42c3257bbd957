"""Attestation judged by others: a software TPM answers, tpm2-tools make and open credentials both ways, and say what ours say."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key

from ca.der import pem
from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import FleetcaError, KeyUnavailable
from ca.keys.tpm import TpmKey, TpmKeyStore
from ca.keys.tpm_attest import TpmAttester
from ca.model import (
    AlgorithmName,
    AttestationKind,
    DeviceId,
    IssueRequest,
    KeyName,
    KnownHardware,
    Name,
    NameKind,
    ProfileName,
    Role,
    TokenEvidence,
    TpmAttestation,
)
from ca.ports import SigningKey
from ca.rules.attestation.challenge import nonce_of
from ca.rules.attestation.credential import CHANCE, make_credential
from ca.rules.attestation.structures import check_signature, read_certified, read_public
from ca.rules.caps import Attesting, TpmMaker
from ca.system import SystemChance, SystemClock
from enroll.rest import messages
from enroll.rest.flow import Enrolment
from enroll.rest.routes import create_app
from fleetca.agent.attesting import Attesting as Answering
from fleetca.agent.identity import Identity, Setup
from fleetca.agent.renewing import Hand
from fleetca.agent.work import Agent
from fleetca.forms import shipped_profiles
from fleetca.server import load_certificate, make_server, tls_context
from tests.databases import sqlite_url
from tests.fakes.acme import DirectSigner
from tests.fakes.certificates import root
from tests.fakes.signer_world import DEPLOYMENT, ISSUING, Keypair, SetClock, World, changed, der_of
from tests.parts import refuse
from tests.swtpm import SoftTpm, TpmCa, swtpm

ATTESTED = ProfileName("attested")


@dataclass
class Bench:
    """A software TPM with endorsement certificates, and a folder for the tools' files."""

    tpm: SoftTpm
    ca: TpmCa
    folder: Path

    def tool(self, name: str, *words: str) -> str:
        return self.tpm.tool(name, *(word.replace("@", f"{self.folder}/") for word in words))

    def octets(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def forget(self) -> None:
        """No resource manager is here: what the tools leave loaded is unloaded by hand."""
        self.tool("tpm2_flushcontext", "-t")

    def roots(self) -> tuple[bytes, ...]:
        return tuple(pem.der_of(file.read_bytes(), pem.CERTIFICATE) for file in self.ca.certificates)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("tpm")
    ca = TpmCa(folder)
    ca.endorse(folder / "state")
    with swtpm(folder / "state") as tpm:
        yield Bench(tpm, ca, folder)


def world_in(folder: Path, bench: Bench, clock: SetClock) -> World:
    plain = shipped_profiles()[ProfileName("device")]
    profiles = {ATTESTED: changed(plain, name=ATTESTED, attestation=(AttestationKind.tpm,))}
    attesting = Attesting((TpmMaker("swtpm", bench.roots()),), (ATTESTED,))
    return World(folder, sqlite_url(folder), profiles=profiles, attesting=attesting, clock=clock)


@pytest.fixture
def world(tmp_path: Path, bench: Bench) -> Iterator[World]:
    made = world_in(tmp_path, bench, SetClock(SystemClock().now()))
    yield made
    made.close()


# ---- Credentials, both ways ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
@pytest.mark.req("REQ-KEY-046")
def test_the_TPM_opens_what_we_seal_and_we_what_the_tools_seal(bench: Bench, kind: str) -> None:
    tool = bench.tool
    tool("tpm2_createek", "-c", "@ek.ctx", "-G", kind, "-u", "@ek.pub")
    tool("tpm2_createak", "-C", "@ek.ctx", "-c", "@ak.ctx", "-G", "ecc", "-s", "ecdsa", "-g", "sha256", "-u", "@ak.pub", "-n", "@ak.name")
    bench.forget()
    tool("tpm2_readpublic", "-c", "@ek.ctx", "-f", "pem", "-o", "@ek.pem")
    bench.forget()
    key: Any = load_pem_public_key(bench.octets("ek.pem"))
    name = read_public(bench.octets("ak.pub")[2:], "key").name
    assert name == bench.octets("ak.name"), "the name of a key is what its TPM calls it"
    secret = hashlib.sha256(b"whatever").digest()
    sealed = make_credential(key, name, secret, chance=os.urandom(CHANCE))
    blob = b"".join(struct.pack(">H", len(part)) + part for part in (sealed.blob, sealed.seed))
    (bench.folder / "ours").write_bytes(struct.pack(">II", 0xBADCC0DE, 1) + blob)
    assert _opened(bench, "ours") == secret
    (bench.folder / "secret").write_bytes(secret)
    # The other way round: for the TPM's own endorsement key and the attestation key that the agent makes.
    attester = TpmAttester(bench.tpm.device)
    ours = read_public(attester.introduce().attestation_key, "attestation key").name
    index, template = {"rsa": ("0x01c00002", "rsa"), "ecc": ("0x01c00016", "ecc384")}[kind]
    tool("tpm2_nvread", "-C", "o", index, "-o", "@ek.der")
    given = TpmAttester(bench.tpm.device, (_whole(bench.octets("ek.der")),))
    tool("tpm2_createek", "-c", "@ek.ctx", "-G", template, "-u", "@ek.pub")
    bench.forget()
    tool("tpm2_makecredential", "-T", "none", "-u", "@ek.pub", "-s", "@secret", "-n", ours.hex(), "-o", "@theirs")
    theirs = bench.octets("theirs")[8:]
    (size,) = struct.unpack(">H", theirs[:2])
    assert given.activate(theirs[2 : 2 + size], theirs[4 + size :]) == secret
    damaged = theirs[2 : 1 + size] + bytes([theirs[1 + size] ^ 1])
    with pytest.raises(KeyUnavailable) as caught:
        given.activate(damaged, theirs[4 + size :])
    assert caught.value.code == "credential-for-another-tpm"


def _whole(octets: bytes) -> bytes:
    return octets[: 4 + int.from_bytes(octets[2:4], "big")]


def _opened(bench: Bench, name: str) -> bytes:
    bench.tool("tpm2_startauthsession", "--policy-session", "-S", "@session.ctx")
    bench.tool("tpm2_policysecret", "-S", "@session.ctx", "-c", "e")
    bench.tool("tpm2_activatecredential", "-c", "@ak.ctx", "-C", "@ek.ctx", "-i", f"@{name}", "-o", "@opened", "-P", "session:@session.ctx")
    bench.tool("tpm2_flushcontext", "@session.ctx")
    bench.forget()
    return bench.octets("opened")


# ---- What a TPM attests -------------------------------------------------------------------------------------------------


def csr_of(key: SigningKey) -> bytes:
    asked = request_info({"common_name": "device"}, key.spki)
    return assemble(asked, key.algorithm, key.sign(asked))


class Direct:
    """The service's answer to a challenge, without TLS: `fleetca.client.Client` as far as the agent asks it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        assert path == "/v1/attestation"
        asked = messages.challenge_of(messages.read_body(messages.json_octets(document), messages.CHALLENGE))
        return messages.render_challenge(self.world.challenging.challenge(asked, self.world.peer(Role.enroll)))


def attested(world: World, bench: Bench, key: SigningKey, **more: Any) -> TpmAttestation:
    answering: Any = Answering(TpmAttester(bench.tpm.device, **more))
    made = answering(Direct(world), key)
    found = messages.attestation_of(
        messages.read_body(messages.json_octets({"token": "x", "csr": _base64(csr_of(key)), "attestation": made}), messages.ENROLL)
    )
    assert found is not None
    return found


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


@pytest.mark.req("REQ-KEY-046", "REQ-KEY-056")
@pytest.mark.parametrize("algorithm", ["p256", "p384", pytest.param("rsa-3072", marks=pytest.mark.full)])
def test_a_key_made_in_the_TPM_is_attested_by_it_and_certified(world: World, bench: Bench, algorithm: str) -> None:
    # Certifying takes the key's own password, as signing does.
    store = TpmKeyStore(bench.tpm.device, (lambda: b"a password of the key's own") if algorithm == "p384" else None)
    if AlgorithmName(algorithm) not in store.ability().algorithms:
        refuse(f"this TPM makes no {algorithm} keys")
    key = store.generate(KeyName("0x81020010"), AlgorithmName(algorithm))
    try:
        given = attested(world, bench, key)
        made = world.issue(IssueRequest(csr_of(key), TokenEvidence(world.token("pump-17", "attested").text), attestation=given))
        assert made.certificate.device == "pump-17"
        assert read_certified(given.attest).nonce == nonce_of(given.ticket)
        assert bench.tool("tpm2_readpublic", "-c", "0x81020010").split("name: ")[1].startswith(read_public(given.key, "key").name.hex())
    finally:
        store.destroy(KeyName("0x81020010"))


@pytest.mark.req("REQ-KEY-046")
def test_a_key_that_may_leave_the_TPM_is_refused_whatever_attests_it(world: World, bench: Bench) -> None:
    """Made by tpm2-tools under the owner's storage key, neither fixedTPM nor fixedParent; certified by the TPM all the same."""
    store = TpmKeyStore(bench.tpm.device, None)
    tool = bench.tool
    tool("tpm2_createprimary", "-C", "o", "-c", "@srk.ctx", "-G", "ecc")
    tool(
        "tpm2_create", "-C", "@srk.ctx", "-G", "ecc", "-u", "@loose.pub", "-r", "@loose.priv", "-a", "sensitivedataorigin|userwithauth|sign"
    )
    bench.forget()
    tool("tpm2_load", "-C", "@srk.ctx", "-u", "@loose.pub", "-r", "@loose.priv", "-c", "@loose.ctx")
    tool("tpm2_evictcontrol", "-C", "o", "-c", "@loose.ctx", "0x81020011")
    bench.forget()
    honest = store.generate(KeyName("0x81020010"), AlgorithmName("p256"))
    try:
        tool("tpm2_createek", "-c", "@ek.ctx", "-G", "rsa", "-u", "@ek.pub")
        tool("tpm2_createak", "-C", "@ek.ctx", "-c", "@ak.ctx", "-G", "ecc", "-s", "ecdsa", "-g", "sha256", "-u", "@ak.pub")
        bench.forget()
        tool("tpm2_certify", "-c", "0x81020011", "-C", "@ak.ctx", "-g", "sha256", "-o", "@attest", "-s", "@signature")
        bench.forget()
        certified, public = read_certified(bench.octets("attest")), read_public(bench.octets("loose.pub")[2:], "key")
        check_signature(read_public(bench.octets("ak.pub")[2:], "key"), bench.octets("signature"), bench.octets("attest"))
        assert certified.name == public.name
        assert certified.nonce == b"\x00\xff\x55\xaa", "what the tool takes where nobody gives it any"
        assert not {"fixedTPM", "fixedParent"} & public.attributes
        answering: Any = Answering(TpmAttester(bench.tpm.device))
        loose = _persistent(store, bench)
        shown = answering(Direct(world), loose)
        body = messages.json_octets({"token": "x", "csr": _base64(csr_of(honest)), "attestation": shown})
        wrong = messages.attestation_of(messages.read_body(body, messages.ENROLL))
        with pytest.raises(FleetcaError) as caught:
            world.issue(IssueRequest(csr_of(honest), TokenEvidence(world.token("pump-17", "attested").text), attestation=wrong))
        assert caught.value.code == "key-not-fixed"
    finally:
        store.destroy(KeyName("0x81020010"))
        tool("tpm2_evictcontrol", "-C", "o", "-c", "0x81020011")


def _persistent(store: TpmKeyStore, bench: Bench) -> Any:
    """Our own store opens no such key: it is put into the agent's hand by force."""
    with pytest.raises(KeyUnavailable):
        store.open(KeyName("0x81020011"))
    spki = read_public(bench.octets("loose.pub")[2:], "key").spki
    return TpmKey(store, KeyName("0x81020011"), handle=0x81020011, algorithm=AlgorithmName("p256"), spki=spki)


@pytest.mark.req("REQ-KEY-046")
def test_a_TPM_without_a_certificate_of_its_own_is_given_one_and_no_other(world: World, bench: Bench) -> None:
    chain = TpmAttester(bench.tpm.device).introduce().endorsement
    store = TpmKeyStore(bench.tpm.device, None)
    key = store.generate(KeyName("0x81020010"), AlgorithmName("p256"))
    try:
        given = attested(world, bench, key, chain=chain)
        world.issue(IssueRequest(csr_of(key), TokenEvidence(world.token("pump-17", "attested").text), attestation=given))
        again = store.generate(KeyName("0x81020012"), AlgorithmName("p256"))
        try:
            made = world.issue(IssueRequest(csr_of(again), KnownHardware(), attestation=attested(world, bench, again)))
            assert made.certificate.device == "pump-17"
        finally:
            store.destroy(KeyName("0x81020012"))
    finally:
        store.destroy(KeyName("0x81020010"))
    with pytest.raises(KeyUnavailable) as caught:
        TpmAttester(bench.tpm.device, (bench.roots()[0],)).introduce()
    assert caught.value.code == "no-endorsement"


def test_a_TPM_that_shows_no_endorsement_says_so(tmp_path: Path) -> None:
    with swtpm(tmp_path / "bare") as bare, pytest.raises(KeyUnavailable) as caught:
        TpmAttester(bare.device).introduce()
    assert caught.value.code == "no-endorsement"


# ---- The agent, over TLS ------------------------------------------------------------------------------------------------


class Live(SetClock):
    """As late as it is: the agent goes by the machine's clock, and so does TLS."""

    def now(self) -> int:
        return SystemClock().now()


class Service:
    """Enrolment behind our own TLS server, over a real signer and a real database."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world = world
        app = create_app(
            Enrolment(
                signer=DirectSigner(world),
                reader=world.store.reading,
                receipts=lambda _: {},
                clock=world.clock,
                deployment=DEPLOYMENT,
                issuers=(root(), world.issuer),
                profiles=world.profiles,
                default_issuer=ISSUING,
            ),
            chance=SystemChance(),
            version="0",
            url="https://localhost",
        )
        pair = Keypair()
        names = (Name(NameKind.dns, "localhost"),)
        asked = IssueRequest(pair.csr(), world.local(Role.operator), DeviceId("gateway"), ProfileName("service"), names)
        chain = pem.pem(pem.CERTIFICATE, der_of(world.issue(asked, Role.operator))) + pem.pem(pem.CERTIFICATE, world.issuer.certificate)
        context = tls_context(trusted=[pem.pem(pem.CERTIFICATE, one.certificate).encode() for one in (root(), world.issuer)])
        key = pair.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        load_certificate(context, chain=chain.encode(), key=key)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        ready = threading.Event()
        self.server = make_server(app, threads=2, ready=ready.set, context=context)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        assert ready.wait(60)
        self.trust = pem.pem(pem.CERTIFICATE, root().certificate).encode()
        self.url = f"https://localhost:{listener.getsockname()[1]}"

    def agent(self, folder: Path, bench: Bench, first: int, **more: Any) -> Agent:
        """The agent of an identity whose keys rest in the TPM from that handle on."""
        identity = Identity(folder, SystemChance())
        setup = Setup(self.url, key_store="tpm", key_name=f"{first:#x}", device=bench.tpm.device, proxy="none", **more)
        identity.set_up(setup, trust=self.trust)
        return Agent(identity, Hand(SystemClock(), SystemChance()), version="test/1")

    def close(self) -> None:
        self.server.stop()
        self._thread.join(60)


@pytest.mark.req("REQ-KEY-046", "REQ-KEY-056")
def test_the_agent_enrols_renews_and_comes_back_with_what_its_TPM_says(tmp_path: Path, bench: Bench) -> None:
    world = world_in(tmp_path, bench, Live(SystemClock().now()))
    service = Service(tmp_path, world)
    try:
        token = world.token("pump-17", "attested").text
        worker = service.agent(tmp_path / "pump", bench, 0x81020040, attest=True)
        assert worker.enrol(token).did == "enrolled"
        assert worker.wake(force=True).did == "renewed"
        rules = [one.verdict.rule for one in world.store.reading.judged_keys(DeviceId("pump-17"), limit=9) if one.verdict is not None]
        assert rules == ["tpm-certified", "tpm-certified"]
        Identity(tmp_path / "pump", SystemChance()).forget()
        back = service.agent(tmp_path / "back", bench, 0x81020040, attest=True)
        assert back.enrol(None, known=True).did == "enrolled", "no token, and a new folder"
        other = service.agent(tmp_path / "other", bench, 0x81020050, attest=True)
        with pytest.raises(FleetcaError) as caught:
            other.enrol(world.token("pump-18", "attested").text)
        assert caught.value.code == "hardware-of-another-device"
        without = service.agent(tmp_path / "without", bench, 0x81020060)
        with pytest.raises(FleetcaError) as caught:
            without.enrol(world.token("pump-17", "attested").text)
        assert caught.value.code == "attestation-needed"
        for folder in ("back", "other", "without"):
            Identity(tmp_path / folder, SystemChance()).forget()
        assert {row.device for row in world.rows()} == {"gateway", "pump-17"}
    finally:
        service.close()
        world.close()


def test_only_a_key_in_a_TPM_is_attested(tmp_path: Path) -> None:
    with pytest.raises(FleetcaError) as caught:
        Identity(tmp_path / "files", SystemChance()).set_up(Setup("https://localhost:1", attest=True), trust=b"")
    assert caught.value.code == "bad-key-store"
