"""The agent with keys that never leave a token or a TPM: every renewal makes a new one inside, and the old one is destroyed once the new one was used."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Conflict, FleetcaError, KeyUnavailable, Misconfigured
from ca.system import SystemChance
from fleetca.agent.identity import Identity
from fleetca.agent.pairs import read_pair
from tests import softhsm
from tests.fakes.site import Site
from tests.flows.test_agent import STEPS, Device
from tests.softhsm import PIN, SoftHsm
from tests.swtpm import SoftTpm, swtpm

BASE = 0x81020000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hsm() -> SoftHsm:
    return softhsm.softhsm()


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    with swtpm(tmp_path_factory.mktemp("tpm") / "state") as made:
        yield made


def on_token(site: Site, folder: Path, hsm: SoftHsm, **more: Any) -> Device:
    pin = folder / "pin"
    pin.touch(mode=0o600)
    pin.write_text(PIN + "\n")
    label = hsm.add(uuid.uuid4().hex)
    given = {"key_store": "pkcs11", "key_name": "pump", "module": str(hsm.module), "token": label, "passphrase_file": str(pin)}
    return Device(site, folder, plain=False, **{**given, **more})


def in_tpm(site: Site, folder: Path, tpm: SoftTpm, **more: Any) -> Device:
    return Device(site, folder, plain=False, key_store="tpm", key_name=f"0x{BASE:08x}", device=tpm.device, **more)


def held(device: Device) -> list[str]:
    """What the store holds, as it says itself."""
    keys: Any = Identity(device.identity.folder, SystemChance()).keys
    return list(keys.store.names())


def no_key_in_files(device: Device) -> bool:
    return not any(b"PRIVATE KEY" in path.read_bytes() for path in device.identity.folder.rglob("*") if path.is_file())


# ---- A token ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-003", "REQ-KEY-014")
def test_P10_a_key_on_a_token_is_made_there_used_there_and_destroyed_after_its_successor_was_used(
    site: Site, tmp_path: Path, hsm: SoftHsm
) -> None:
    device = on_token(site, tmp_path, hsm)
    told = tmp_path / "told"
    program = tmp_path / "hook"
    program.write_text(f'#!/bin/sh\necho "$FLEETCA_KEY" >> {told}\n')
    program.chmod(0o755)
    setup = device.setup
    words = ("--key", "pkcs11", "--key-name", "pump", "--module", setup.module, "--token", setup.token)
    reload = ("--passphrase-file", setup.passphrase_file, "--reload", f"run:{program}")
    made = device.enrol_command(*words, *reload, SOFTHSM2_CONF=str(hsm.configuration))
    uri = f"pkcs11:token={setup.token};object=pump.1;type=private?module-path={setup.module}"
    assert made["key"] == uri
    assert held(device) == ["pump.1"]
    access = hsm.inspect(setup.token, "--list-objects", "--type", "privkey")
    assert "always sensitive, never extractable, local" in access
    assert device.agent().wake(force=True).did == "renewed"
    assert held(device) == ["pump.2"]
    assert told.read_text().splitlines() == [uri, uri.replace("pump.1", "pump.2")]
    assert device.agent().rehearse().did == "rehearsed"
    assert held(device) == ["pump.2"], "a dry run leaves no key"
    assert no_key_in_files(device)
    assert PIN not in "".join(
        path.read_text() for path in device.identity.folder.rglob("*.*") if path.is_file() and path.name != ".reserve"
    )
    device.command("wipe", "--revoke", "--confirm", device.name, SOFTHSM2_CONF=str(hsm.configuration))
    assert hsm.inspect(setup.token, "--list-objects", "--type", "privkey").strip() == ""
    assert device.rows()[-1].revocation is not None


AFTER_KEYS = [
    step if step in {"agent.after-key", "agent.after-answer", "agent.after-confirm"} else pytest.param(step, marks=pytest.mark.full)
    for step in STEPS
]


@pytest.mark.parametrize("step", AFTER_KEYS)
def test_a_kill_leaves_a_key_that_works_and_none_that_nobody_knows(site: Site, tmp_path: Path, hsm: SoftHsm, step: str) -> None:
    device = on_token(site, tmp_path, hsm).enrolled()
    device.command("renew", ok=-9, FLEETCA_FAILPOINT=f"{step}=kill", SOFTHSM2_CONF=str(hsm.configuration))
    read_pair(device.identity.slots)  # the pair in use works
    device.agent().wake(force=step == "agent.after-key")
    assert held(device) == ["pump.2"]
    assert len(device.rows()) == 2


def test_a_name_that_was_written_before_its_key_was_made_stands_for_nothing(site: Site, tmp_path: Path, hsm: SoftHsm) -> None:
    device = on_token(site, tmp_path, hsm).enrolled()
    beginning = device.identity.slots.next_slot
    beginning.mkdir()
    (beginning / "key.name").write_text("pump.2\n")
    assert device.agent().wake(force=True).did == "renewed"
    assert held(device) == ["pump.2"]


def test_a_key_of_somebody_else_is_never_touched(site: Site, tmp_path: Path, hsm: SoftHsm) -> None:
    device = on_token(site, tmp_path, hsm)
    device.set_up()
    keys: Any = device.identity.keys
    keys.store.generate("pump.1", "p256")
    with pytest.raises(Conflict) as caught:
        device.agent().enrol(device.token.read_text())
    assert caught.value.code == "key-exists"
    assert held(device) == ["pump.1"]


def test_a_token_that_is_away_costs_a_try_and_comes_back(site: Site, tmp_path: Path, hsm: SoftHsm) -> None:
    device = on_token(site, tmp_path, hsm).enrolled()
    worker = device.agent()  # logged in, as the loop is
    hsm.pull_out()
    try:
        done = worker.wake(force=True)
        assert isinstance(done.error, KeyUnavailable)
    finally:
        hsm.put_back()
    assert device.agent().wake(force=True).did == "renewed"
    assert worker.wake(force=True).did == "renewed", "the one that lost its session goes on as well"
    assert held(device) == ["pump.3"]


def test_a_PIN_comes_from_a_file_that_nobody_else_reads(site: Site, tmp_path: Path, hsm: SoftHsm) -> None:
    device = on_token(site, tmp_path, hsm).enrolled()
    pin = Path(device.setup.passphrase_file)
    pin.chmod(0o644)
    done = device.agent().wake(force=True)
    assert done.error is not None
    assert done.error.code == "open-secret"
    pin.chmod(0o600)
    pin.write_text("another one\n")
    refused = device.command("renew", ok=6, SOFTHSM2_CONF=str(hsm.configuration))["error"]
    assert refused["code"] == "wrong-pin"
    assert "another one" not in str(refused)
    pin.write_text(PIN)
    hsm.inspect(device.setup.token, "--list-objects")  # until somebody has logged in by hand, nobody risks the tries that are left
    assert device.command("renew", SOFTHSM2_CONF=str(hsm.configuration))["did"] == "renewed"


# ---- A TPM --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-003")
def test_P10_a_key_in_a_TPM_never_leaves_it_and_five_handles_are_enough_for_ever(site: Site, tmp_path: Path, tpm: SoftTpm) -> None:
    device = in_tpm(site, tmp_path, tpm).enrolled()
    shown = tpm.tool("tpm2_readpublic", "-c", f"0x{BASE + 1:08x}")
    assert "fixedtpm|fixedparent|sensitivedataorigin" in shown
    for number in (2, 3, 4, 5):
        assert device.agent().wake(force=True).did == "renewed"
        assert held(device) == [f"0x{BASE + number % 4:08x}"]
    assert device.agent().rehearse().did == "rehearsed"
    tpm.stop()
    tpm.start()  # the machine was started again
    assert device.agent().wake(force=True).did == "renewed"
    assert len(device.rows()) == 6
    assert no_key_in_files(device)
    device.identity.forget()
    assert held(device) == []


# ---- What is not allowed ------------------------------------------------------------------------------------------------

WRONG: list[Any] = [
    pytest.param({"module": "libsofthsm2.so"}, id="a library without its path"),
    pytest.param({"token": ""}, id="no token is named"),
    pytest.param({"key_name": ""}, id="no name for its keys"),
    pytest.param({"passphrase_file": ""}, id="no PIN"),
    pytest.param({"by": "tls"}, id="TLS, which takes files only"),
    pytest.param({"plain": True}, id="plain as well"),
    pytest.param({"key_store": "vault"}, id="a store that there is not"),
    pytest.param({"key_store": "tpm", "key_name": "pump"}, id="a TPM's key that is no handle"),
    pytest.param({"key_store": "tpm", "key_name": "0x817ffffe"}, id="handles beyond the owner's"),
]


@pytest.mark.parametrize("change", WRONG)
def test_a_place_that_is_none_is_said_so_before_anything_is_made(site: Site, tmp_path: Path, change: dict[str, Any]) -> None:
    given = {"key_store": "pkcs11", "key_name": "pump", "module": "/x.so", "token": "t", "passphrase_file": "/pin", "plain": False}
    device = Device(site, tmp_path, **{**given, **change})
    _refused("bad-key-store", device.set_up)
    assert not device.identity.folder.exists()


def _refused(code: str, act: Callable[[], object]) -> FleetcaError:
    with pytest.raises(Misconfigured) as caught:
        act()
    assert caught.value.code == code
    return caught.value
