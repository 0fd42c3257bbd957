"""A device with a secure element: the maker's manifest lists its key, the agent uses that key through PKCS#11, and never makes or removes one (REQ-KEY-045)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ca.errors import FleetcaError, KeyUnavailable, Misconfigured
from ca.model import AlgorithmName, AttestationKind, DeviceId, Digest, KeyName, ManifestImport, ProfileName, Role, RootOfTrust
from ca.rules.caps import Attesting
from ca.system import SystemChance, SystemClock
from fleetca.agent import wiping
from fleetca.agent.identity import Identity, Setup
from fleetca.agent.renewing import Hand
from fleetca.agent.work import Agent
from fleetca.forms import shipped_profiles
from tests import softhsm
from tests.databases import sqlite_url
from tests.fakes.manifest import ElementMaker
from tests.fakes.signer_world import World, changed
from tests.interop.test_tpm_attestation import Live, Service
from tests.softhsm import PIN, SoftHsm

LISTED, ONCE = ProfileName("listed"), ProfileName("listed-once")
SERIAL = "0123000000000000ff"
DEVICE = DeviceId(f"se:{SERIAL}")
MAKER = ElementMaker(now=SystemClock().now())


@dataclass
class Element:
    """A token that stands for a secure element, with one key that its maker put there, and the folder of its device."""

    folder: Path
    hsm: SoftHsm
    label: str
    service: Service

    def setup(self, **more: Any) -> Setup:
        given = {"key_store": "pkcs11", "key_name": "slot0", "key_there": True, "module": str(self.hsm.module), "token": self.label}
        return Setup(**{"url": self.service.url, "passphrase_file": str(self.folder / "pin"), "proxy": "none", **given, **more})

    def agent(self, name: str = "pump", **more: Any) -> Agent:
        identity = Identity(self.folder / name, SystemChance())
        identity.set_up(self.setup(**more), trust=self.service.trust)
        return Agent(identity, Hand(SystemClock(), SystemChance()), version="test/1")

    @property
    def store(self) -> Any:
        keys: Any = Identity(self.folder / "any", SystemChance())._keys(self.setup())
        return keys.store


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> ProfileName:
    """What the element's devices get."""
    return getattr(request, "param", LISTED)


@pytest.fixture
def world(tmp_path: Path, profile: ProfileName) -> Iterator[World]:
    plain = shipped_profiles()[ProfileName("device")]
    asks = {"attestation": (AttestationKind.se,), "roots_of_trust": (RootOfTrust.se,)}
    profiles = {name: changed(plain, name=name, key_reuse=name == LISTED, **asks) for name in (LISTED, ONCE)}
    made = World(
        tmp_path, sqlite_url(tmp_path), profiles=profiles, attesting=Attesting(profiles=(profile,)), clock=Live(SystemClock().now())
    )
    yield made
    made.close()


@pytest.fixture
def element(tmp_path: Path, world: World) -> Iterator[Element]:
    service = Service(tmp_path, world)
    try:
        hsm = softhsm.softhsm()
        (tmp_path / "pin").touch(mode=0o600)
        (tmp_path / "pin").write_text(PIN)
        made = Element(tmp_path, hsm, hsm.add(uuid.uuid4().hex), service)
        key = made.store.generate(KeyName("slot0"), AlgorithmName("p256"))
        entry = json.dumps(MAKER.entry(SERIAL, load_der_public_key(key.spki)))
        (told,) = world.manifests.take(ManifestImport(Digest(bytes(32)), MAKER.certificate, "se:", 1, (entry,)), world.peer(Role.operator))
        assert told.state == "recorded"
        yield made
    finally:
        service.close()


def rules(world: World) -> list[str]:
    return [one.verdict.rule for one in world.store.reading.judged_keys(DEVICE, limit=9) if one.verdict is not None]


@pytest.mark.req("REQ-KEY-045", "REQ-KEY-056")
@pytest.mark.parametrize(
    "profile",
    [pytest.param(LISTED, id="a profile that lets a key serve again"), pytest.param(ONCE, id="a profile of one certificate a key")],
    indirect=True,
)
def test_the_agent_enrols_and_renews_with_the_key_that_the_maker_listed(element: Element, world: World, profile: ProfileName) -> None:
    worker = element.agent()
    assert worker.enrol(None, known=True).did == "enrolled"
    assert [(row.device, row.profile) for row in world.rows() if row.device != "gateway"] == [(DEVICE, profile)]
    assert element.store.names() == ["slot0"]
    if profile == LISTED:
        assert worker.wake(force=True).did == "renewed"
        assert rules(world) == ["se-listed", "se-listed"]
        assert worker.rehearse().did == "rehearsed"
    else:
        done = worker.wake(force=True)
        assert getattr(done.error, "code", None) == "key-used-before"
        assert rules(world) == ["se-listed"]
    assert element.store.names() == ["slot0"], "no key was made in the element, and none removed"
    Identity(element.folder / "pump", SystemChance()).forget()
    assert element.store.names() == ["slot0"], "nor when the identity is wiped"


@pytest.mark.req("REQ-KEY-020", "REQ-KEY-045")
def test_a_retired_device_signs_that_its_key_is_gone_only_after_the_element_let_it_go(
    element: Element, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    element.agent().enrol(None, known=True)
    world.revoke_device(DEVICE)
    order, out = world.wiping.order(DEVICE, world.peer(Role.operator)), element.folder / "receipt"
    identity = Identity(element.folder / "pump", SystemChance())
    identity.remember(replace(identity.recall(), device=DEVICE))

    def kept(*_: Any) -> None:
        raise KeyUnavailable("key-not-destroyed", "The element keeps it.")

    store: Any = type(element.store)
    with monkeypatch.context() as held, identity.locked():
        held.setattr(store, "destroy", kept)
        with pytest.raises(KeyUnavailable):
            wiping.run(identity, order, out, now=7, agent="test")
    assert not out.exists(), "an element that cannot destroy its key leaves an open finding, and no receipt that says otherwise"
    with identity.locked():
        assert len(wiping.run(identity, order, out, now=7, agent="test").keys) == 1
    assert list(element.store.names()) == []
    assert world.wiping.take(out.read_bytes(), world.peer(Role.operator)).device == DEVICE


@pytest.mark.req("REQ-KEY-045")
def test_another_key_of_the_same_token_is_not_the_elements(element: Element, world: World) -> None:
    made = element.agent("made", key_name="made", key_there=False)
    with pytest.raises(FleetcaError) as caught:
        made.enrol(None, known=True)
    assert caught.value.code == "hardware-unknown"
    assert element.store.names() == ["slot0"], "what was made for it is gone again"
    assert {row.device for row in world.rows()} == {"gateway"}


@pytest.mark.parametrize("more", [{"algorithm": "p384"}, {"key_name": "slot9"}], ids=["of another kind", "that is not there"])
def test_a_key_that_does_not_fit_is_named_before_anything_is_asked(more: dict[str, str], element: Element, world: World) -> None:
    with pytest.raises(FleetcaError) as caught:
        element.agent(**more).enrol(None, known=True)
    assert caught.value.code == ("bad-key-store" if "algorithm" in more else "no-such-key")
    assert {row.device for row in world.rows()} == {"gateway"}


def test_a_key_that_is_there_is_in_a_store(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        Identity(tmp_path / "files", SystemChance()).set_up(Setup("https://localhost:1", key_there=True), trust=b"")
    assert caught.value.code == "bad-key-store"
