"""The end of a device's keys: an order that the CA signed, a wipe that a crash does not undo, a receipt that only the device can make (REQ-KEY-020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from ca.der import pem
from ca.errors import StoreUnavailable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, DeviceId, KeyName, Reason, Role
from ca.rules import wipe as rule
from ca.rules.leaf import canonical
from ca.system import SystemChance
from fleetca.agent import wiping
from fleetca.agent.identity import Identity, Memory, Setup
from fleetca.cli.main import fleetca
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.signer_world import Keypair, World
from tests.refusals import code_of


def identity_of(world: World, folder: Path, name: str = "pump-1") -> tuple[Identity, Keypair]:
    """An agent's folder as enrolling leaves it, with the pair before still there."""
    made = Identity(folder, SystemChance())
    made.set_up(Setup(url="https://ca.example", plain=True), trust=pem.pem(pem.CERTIFICATE, root().certificate).encode())
    pair = world.enrol(name)
    later = world.renew(pair)
    for number, each in ((1, pair), (2, later)):
        slot = folder / "pairs" / str(number)
        slot.mkdir(parents=True)
        key = each.private.private_bytes(*_plain())
        (slot / "key.pem").write_bytes(key)
        (slot / "certificate.pem").write_text(pem.pem(pem.CERTIFICATE, each.certificate))
    (folder / "current").symlink_to(Path("pairs") / "2")
    made.remember(Memory(device=name))
    return made, later


def _plain() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()


def wipe(identity: Identity, order: bytes, out: Path) -> rule.Receipt:
    with identity.locked():
        return wiping.run(identity, order, out, now=7, agent="test")


def left(identity: Identity) -> set[str]:
    return {each.name for each in identity.folder.rglob("*")} - {"lock"}


@pytest.mark.req("REQ-KEY-020")
def test_a_retired_device_wipes_its_keys_and_its_receipt_closes_the_record(world: World, tmp_path: Path) -> None:
    operator = world.peer(Role.operator)
    identity, pair = identity_of(world, tmp_path / "agent")
    world.enrol("pump-2")
    assert code_of(lambda: world.wiping.order(DeviceId("pump-1"), operator)) == "device-not-retired"
    world.revoke_device("pump-1")
    assert world.store.reading.unwiped(after="", limit=9) == ["pump-1"]
    order = world.wiping.order(DeviceId("pump-1"), operator)
    receipt = wipe(identity, order, tmp_path / "receipt")
    assert left(identity) == set()
    assert len(receipt.keys) == 2
    octets = (tmp_path / "receipt").read_bytes()
    taken = world.wiping.take(octets, operator)
    assert (taken.device, world.wiping.take(octets, operator)) == ("pump-1", taken)
    assert world.store.reading.unwiped(after="", limit=9) == []
    assert len(world.leaves("wipe")) == len(world.leaves("wipe-order")) == 1
    events, _ = world.store.reading.device_events(DeviceId("pump-1"))
    assert "wiped" in {one.about for one in events}
    assert code_of(lambda: world.enrol("pump-1")) == "device-retired", "its id stays closed"
    assert pair.certificate == receipt.certificate


@pytest.mark.req("REQ-KEY-020")
def test_a_receipt_that_proves_nothing_is_refused_by_name(world: World, tmp_path: Path) -> None:
    operator = world.peer(Role.operator)
    _, pair = identity_of(world, tmp_path / "agent")
    other = world.enrol("pump-2")
    for device in ("pump-1", "pump-2"):
        world.revoke_device(device)
    order = rule.read_order(world.wiping.order(DeviceId("pump-1"), operator)).order
    keep = rule.Receipt(order.device, order.digest, 7, (sha(pair),), "test", pair.certificate)

    def taken(octets: bytes, role: Role = Role.operator) -> str:
        return code_of(lambda: world.wiping.take(octets, world.peer(role)))

    def signed(by: Keypair = pair, **fields: Any) -> bytes:
        from dataclasses import replace

        return rule.sign_receipt(replace(keep, **fields), MemoryKey(KeyName("x"), by.private).sign)

    good = signed()
    document = orjson.loads(good)
    assert taken(good, Role.enroll) == "not-allowed"
    assert taken(signed(other)) == "wipe-signature"
    assert taken(signed(keys=(sha(other),))) == "wipe-signature", "the key that signed is not among those that went"
    assert taken(signed(other, certificate=other.certificate, keys=(sha(other),))) == "certificate-unknown"
    assert taken(signed(order="0" * 64)) == "wipe-other-order"
    assert taken(signed(device=DeviceId("pump-9"))) == "no-such-device"
    assert taken(canonical({**document, "receipt": {**document["receipt"], "at": 8}}) + b"\n") == "wipe-signature"
    for damaged in (b"", b"[]\n", good[:-1], good + b" ", good * 2000, good.replace(b'"signature":"', b'"signature":"*'), b"{}\n"):
        assert taken(damaged) == "wipe-form"
    for fields in ({"keys": ()}, {"keys": ("x",)}, {"agent": "\n"}, {"order": "x"}):
        assert taken(signed(**fields)) == "wipe-form"  # type: ignore[arg-type]
    assert world.leaves("wipe") == []
    assert taken(good) == ""
    assert taken(signed(at=9)) == "wipe-known"
    world.revoke_certificate(other, Reason.keyCompromise)
    stolen = rule.read_order(world.wiping.order(DeviceId("pump-2"), operator)).order
    lost = signed(other, device=stolen.device, order=stolen.digest, keys=(sha(other),), certificate=other.certificate)
    assert taken(lost) == "wipe-unproven"


def sha(pair: Keypair) -> str:
    from hashlib import sha256

    return sha256(pair.spki).hexdigest()


@pytest.mark.req("REQ-KEY-020")
def test_a_device_wipes_itself_only_on_its_own_CAs_order_for_itself(world: World, tmp_path: Path) -> None:
    operator = world.peer(Role.operator)
    identity, _ = identity_of(world, tmp_path / "agent")
    world.enrol("pump-2")
    for device in ("pump-1", "pump-2"):
        world.revoke_device(device)
    order = world.wiping.order(DeviceId("pump-1"), operator)
    found = rule.read_order(order)
    before = left(identity)
    stranger = MemoryKey.generate(KeyName("x"), AlgorithmName("p256"))
    forged = rule.write_order(found.order, found.issuer, stranger.sign(rule.ORDER + found.order.octets))
    own = rule.write_order(found.order, self_signed(tmp_path), stranger.sign(rule.ORDER + found.order.octets))
    out = tmp_path / "receipt"
    for bad, code in (
        (forged, "wipe-signature"),
        (own, "wipe-signature"),
        (world.wiping.order(DeviceId("pump-2"), operator), "wipe-other-device"),
        (order[:-1], "wipe-form"),
        (order.replace(b'"retired_at":', b'"retired_at":1'), "wipe-signature"),
        (b"", "wipe-form"),
    ):
        assert code_of(lambda bad=bad: wipe(identity, bad, out)) == code  # type: ignore[misc]
    assert code_of(lambda: wipe(identity, order, identity.folder / "receipt")) == "wipe-place"
    out.write_bytes(b"mine")
    assert code_of(lambda: wipe(identity, order, out)) == "output-exists"
    assert left(identity) == before, "nothing of it was touched"


def self_signed(folder: Path) -> bytes:
    import subprocess

    from tests.parts import need

    command = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
        "-keyout",
        "k",
        "-out",
        "c",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([need("openssl"), *command], cwd=folder, check=True, capture_output=True)
    return pem.ders_of((folder / "c").read_bytes(), pem.CERTIFICATE)[0]


@pytest.mark.req("REQ-KEY-020")
@pytest.mark.parametrize("place", ["put_new", "_overwrite", "forget", "rmtree", "second put_new"])
def test_cut_off_anywhere_the_same_command_goes_on_and_no_receipt_comes_before_the_wipe(
    world: World, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = world.peer(Role.operator)
    identity, _ = identity_of(world, tmp_path / "agent")
    world.revoke_device("pump-1")
    order, out, calls = world.wiping.order(DeviceId("pump-1"), operator), tmp_path / "receipt", []

    def broken(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if place == "second put_new" and len(calls) == 1:
            return real(*given, **named)
        raise StoreUnavailable("disk", "full")

    name = place.removeprefix("second ")
    owner: Any = {"forget": Identity, "rmtree": wiping.shutil}.get(name, wiping)
    real = getattr(owner, name)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, broken)
        assert code_of(lambda: wipe(identity, order, out)) == "disk"
    assert not out.exists()
    receipt = wipe(Identity(identity.folder, SystemChance()), order, out)
    assert left(identity) == set()
    assert world.wiping.take(out.read_bytes(), operator).device == receipt.device


@pytest.mark.req("REQ-KEY-020")
def test_from_the_journal_alone_a_receipt_stays_on_record(world: World, tmp_path: Path) -> None:
    operator = world.peer(Role.operator)
    identity, _ = identity_of(world, tmp_path / "agent")
    world.revoke_device("pump-1")
    wipe(identity, world.wiping.order(DeviceId("pump-1"), operator), tmp_path / "receipt")
    world.wiping.take((tmp_path / "receipt").read_bytes(), operator)
    world.close()
    (tmp_path / "new").mkdir()
    world.url = sqlite_url(tmp_path / "new")
    world._open()
    assert world.recovery.recover().unreadable == ()
    assert world.store.reading.unwiped(after="", limit=9) == []


def test_the_command_on_the_device_says_what_it_did(world: World, tmp_path: Path) -> None:
    identity, _ = identity_of(world, tmp_path / "agent")
    world.revoke_device("pump-1")
    (tmp_path / "order").write_bytes(world.wiping.order(DeviceId("pump-1"), world.peer(Role.operator)))
    given = ["--dir", str(identity.folder), "--order", str(tmp_path / "order"), "--receipt", str(tmp_path / "receipt"), "--json"]
    done = CliRunner().invoke(fleetca, ["agent", "wipe", *given])
    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout)["device"] == "pump-1"
