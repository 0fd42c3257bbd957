"""Keys in a TPM 2.0 (swtpm): closed to everybody, a password that is tried once, machines that restart (REQ-KEY-004, -005, -014)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ca.der.algorithms import load_public_key, verify
from ca.errors import Broken, FleetcaError, KeyUnavailable, Misconfigured
from ca.keys.tpm import TpmKeyStore
from ca.model import AlgorithmName, KeyName, Protection
from tests.swtpm import SoftTpm, swtpm

P256, NAME, OTHER = AlgorithmName("p256"), KeyName("0x81020001"), KeyName("0x81020002")
PASSWORD = b"password of the tests"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with swtpm(tmp_path / "tpm") as made:
        yield made


def store_of(tpm: SoftTpm, password: bytes | None = PASSWORD) -> TpmKeyStore:
    return TpmKeyStore(tpm.device, None if password is None else lambda: password)


def refused(code: str, act: Callable[[], object]) -> FleetcaError:
    with pytest.raises(KeyUnavailable) as error:
        act()
    assert error.value.code == code, error.value
    assert error.value.fix
    assert PASSWORD.decode() not in str(error.value)
    return error.value


@pytest.mark.req("REQ-KEY-005", "REQ-KEY-014")
def test_tpm2_tools_see_a_key_that_cannot_leave(tpm: SoftTpm) -> None:
    key = store_of(tpm).generate(NAME, P256)
    said = tpm.tool("tpm2_readpublic", "-c", NAME)
    attributes = next(line.split(":")[1].strip() for line in said.split("attributes:")[1].splitlines() if "value" in line)
    assert set(attributes.split("|")) == {"fixedtpm", "fixedparent", "sensitivedataorigin", "userwithauth", "sign", "noda"}
    public = load_public_key(key.spki).public_numbers()
    assert f"{public.x:064x}" in said
    assert f"{public.y:064x}" in said
    assert NAME.upper().replace("0X", "0x") in tpm.tool("tpm2_getcap", "handles-persistent")


def test_tpm2_tools_verify_what_it_signs(tpm: SoftTpm, tmp_path: Path) -> None:
    key = store_of(tpm).generate(NAME, P256)
    (tmp_path / "message").write_bytes(b"message")
    (tmp_path / "signature").write_bytes(key.sign(b"message"))
    tpm.tool("tpm2_readpublic", "-c", NAME, "-f", "pem", "-o", str(tmp_path / "public.pem"))
    import subprocess

    command = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "public.pem", "-signature", tmp_path / "signature", tmp_path / "message"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "Verified OK\n"


def test_nothing_but_the_key_is_left_in_the_tpm(tpm: SoftTpm) -> None:
    store_of(tpm).generate(NAME, P256)
    assert tpm.tool("tpm2_getcap", "handles-transient") == ""


def test_a_key_outlives_a_restart_of_the_machine(tpm: SoftTpm) -> None:
    key = store_of(tpm).generate(NAME, P256)
    tpm.stop()
    absent = refused("tpm-absent", lambda: key.sign(b"message"))
    assert absent.retry_after > 0
    tpm.start()
    verify(load_public_key(key.spki), key.sign(b"message"), b"message")
    assert store_of(tpm).open(NAME).spki == key.spki


def test_a_child_may_use_it_too(tpm: SoftTpm) -> None:
    key = store_of(tpm).generate(NAME, P256)
    child = os.fork()
    if child == 0:
        try:
            verify(load_public_key(key.spki), key.sign(b"message"), b"message")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_another_key_under_the_same_handle_never_signs_for_this_one(tpm: SoftTpm) -> None:
    store = store_of(tpm)
    key = store.generate(NAME, P256)
    store.destroy(NAME)
    store.generate(NAME, P256)
    with pytest.raises(Broken) as broken:
        key.sign(b"message")
    assert broken.value.code == "bad-own-signature"


def test_a_wrong_password_is_tried_once_and_locks_nothing(tpm: SoftTpm) -> None:
    store_of(tpm).generate(NAME, P256)
    wrong = store_of(tpm, b"a wrong password")
    refused("wrong-pin", lambda: wrong.open(NAME))
    again = refused("wrong-pin", lambda: wrong.open(NAME))
    assert "not tried again" in again.why
    for _ in range(40):  # a signer that is started again and again; other keys would lock after 31
        refused("wrong-pin", lambda: store_of(tpm, b"a wrong password").open(NAME))
    assert "TPM2_PT_LOCKOUT_COUNTER: 0x0" in tpm.tool("tpm2_getcap", "properties-variable")
    assert store_of(tpm).open(NAME)


def test_a_short_password_is_refused_before_a_key_is_made(tpm: SoftTpm) -> None:
    refused("short-passphrase", lambda: store_of(tpm, b"short").generate(NAME, P256))
    assert list(store_of(tpm).names()) == []
    assert tpm.tool("tpm2_getcap", "handles-transient") == ""


def test_a_key_without_a_password_opens_without_one(tpm: SoftTpm) -> None:
    made = store_of(tpm, None).generate(NAME, P256)
    assert store_of(tpm, None).open(NAME).spki == made.spki


@pytest.mark.req("REQ-KEY-097")
def test_what_others_keep_in_the_tpm_is_no_key_of_ours(tpm: SoftTpm, tmp_path: Path) -> None:
    context = str(tmp_path / "primary.ctx")
    tpm.tool("tpm2_createprimary", "-C", "o", "-c", context)
    tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", context, OTHER)
    tpm.tool("tpm2_flushcontext", "-t")
    store = store_of(tpm)
    assert list(store.names()) == []
    unusable = refused("key-unreadable", lambda: store.open(OTHER))
    assert "sign" in unusable.why
    store.generate(NAME, P256)
    (held,) = store.held()
    assert (held.name, held.algorithm, dict(held.facts)["fixedtpm"]) == (NAME, "p256", "True")


def test_a_key_that_could_be_taken_elsewhere_is_not_opened(tpm: SoftTpm, tmp_path: Path) -> None:
    parent, public, private, key = (str(tmp_path / name) for name in ("parent", "public", "private", "key"))
    tpm.tool("tpm2_createprimary", "-C", "o", "-c", parent)
    tpm.tool("tpm2_flushcontext", "-t")
    arguments = ("-G", "ecc256:ecdsa-sha256", "-a", "sensitivedataorigin|userwithauth|sign", "-u", public, "-r", private)
    tpm.tool("tpm2_create", "-C", parent, *arguments)
    tpm.tool("tpm2_flushcontext", "-t")
    tpm.tool("tpm2_load", "-C", parent, "-u", public, "-r", private, "-c", key)
    tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", key, NAME)
    tpm.tool("tpm2_flushcontext", "-t")
    unusable = refused("key-unreadable", lambda: store_of(tpm, None).open(NAME))
    assert "fixedTPM, fixedParent" in unusable.why


def test_a_simulator_is_no_hardware(tpm: SoftTpm) -> None:
    ability = store_of(tpm).ability()
    assert ability.protection is Protection.module
    assert "SW" in ability.about


@pytest.mark.parametrize("name", ["issuing", "0x80000001", "0x81800000", "0x8102000g", "0x810200011", ""])
def test_only_a_persistent_handle_of_the_owner_names_a_key(name: str) -> None:
    with pytest.raises(Misconfigured):
        TpmKeyStore("/dev/absent", None).open(KeyName(name))


def test_a_device_that_is_not_there_is_said() -> None:
    refused("tpm-absent", lambda: TpmKeyStore("/dev/absent-tpm", None).open(NAME))


def test_a_tpm_that_is_broken_is_said(monkeypatch: pytest.MonkeyPatch, tpm: SoftTpm) -> None:
    from ca.keys import tpm_commands

    monkeypatch.setattr(tpm_commands._Simulator, "exchange", lambda *_: bytes.fromhex("80010000000a00000101"))  # TPM_RC_FAILURE
    store = store_of(tpm)
    for act in (store.ability, lambda: store.open(NAME), store.held, lambda: store.generate(NAME, P256)):
        refused("tpm-refused", act)


def test_an_answer_that_is_cut_off_or_foreign_is_an_error_of_ours() -> None:
    from ca.keys import tpm_commands

    class Line:
        def __init__(self, answer: bytes) -> None:
            self.answer = answer

        def exchange(self, _: bytes) -> bytes:
            return self.answer

    honest = bytes.fromhex("80010000001300000000000000000100000000")
    for end in range(len(honest)):
        with pytest.raises(KeyUnavailable):
            tpm_commands.handles(Line(honest[:end]), 0, 1)
    assert tpm_commands.handles(Line(honest), 0, 1) == []
    with pytest.raises(tpm_commands.TpmError) as error:
        tpm_commands.handles(Line(bytes.fromhex("80010000000a0000018b")), 0, 1)
    assert error.value.code == tpm_commands.RC_HANDLE
