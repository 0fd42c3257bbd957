"""Keys on a PKCS#11 token: closed for good, a PIN that is tried once, tokens that go away and come back (REQ-KEY-005, -014, -063, -086)."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.der.algorithms import load_public_key, verify
from ca.errors import Broken, FleetcaError, KeyUnavailable
from ca.model import AlgorithmName, KeyName
from tests import softhsm
from tests.softhsm import PIN, SoftHsm

P256, NAME = AlgorithmName("p256"), KeyName("issuing")


@pytest.fixture
def hsm() -> SoftHsm:
    return softhsm.softhsm()


@pytest.fixture
def label(hsm: SoftHsm) -> str:
    return hsm.add(uuid.uuid4().hex)


def store_of(hsm: SoftHsm, label: str, pin: str = PIN, **more: object) -> object:
    from ca.keys.pkcs11 import Pkcs11KeyStore
    from ca.keys.pkcs11_token import TokenAddress

    return Pkcs11KeyStore(TokenAddress(hsm.module, label=label, **more), pin.encode)


def refused(code: str, act: Callable[[], object]) -> FleetcaError:
    with pytest.raises(KeyUnavailable) as error:
        act()
    assert error.value.code == code, error.value
    assert PIN not in str(error.value) + error.value.fix
    return error.value


# ---- Made inside, never let out -----------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-005", "REQ-KEY-014", "REQ-KEY-043")
def test_pkcs11_tool_sees_a_key_that_was_made_inside_and_stays_there(hsm: SoftHsm, label: str) -> None:
    store_of(hsm, label).generate(NAME, P256)
    said = hsm.inspect(label, "--list-objects", "--type", "privkey")
    (usage,) = [line for line in said.splitlines() if "Usage:" in line]
    assert usage.split(":")[1].split() == ["sign"]
    (access,) = [line for line in said.splitlines() if "Access:" in line]
    assert {word.strip() for word in access.split(":")[1].split(",")} == {"sensitive", "always sensitive", "never extractable", "local"}
    assert "issuing" in said
    assert "EC_POINT" in hsm.inspect(label, "--list-objects", "--type", "pubkey")


@pytest.mark.req("REQ-KEY-014", "REQ-KEY-061")
def test_the_token_gives_the_key_to_nobody(hsm: SoftHsm, label: str) -> None:
    import pkcs11
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, exceptions

    store = store_of(hsm, label)
    store.generate(NAME, P256)

    def try_all(session: object) -> None:
        key = next(iter(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: NAME})))
        with pytest.raises((exceptions.AttributeSensitive, exceptions.AttributeTypeInvalid)):
            key[Attribute.VALUE]
        wrapping = session.generate_key(KeyType.AES, 256, store=False, template={Attribute.WRAP: True})
        with pytest.raises(exceptions.PKCS11Error):
            wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
        for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
            with pytest.raises(exceptions.PKCS11Error):
                key[attribute] = value

    store._token.use(try_all)
    assert pkcs11


@pytest.mark.req("REQ-KEY-063")
def test_a_signing_key_decrypts_nothing(hsm: SoftHsm, label: str) -> None:
    from pkcs11 import Attribute, Mechanism, ObjectClass, exceptions

    store = store_of(hsm, label)
    store.generate(NAME, AlgorithmName("rsa-3072"))

    def try_it(session: object) -> None:
        key = next(iter(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))
        assert not hasattr(key, "decrypt")
        with pytest.raises((exceptions.PKCS11Error, AttributeError)):
            key.decrypt(bytes(384), mechanism=Mechanism.RSA_PKCS)

    store._token.use(try_it)


def test_a_signature_that_does_not_verify_never_leaves(hsm: SoftHsm, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ca.keys import pkcs11 as ours

    key = store_of(hsm, label).generate(NAME, P256)
    honest = ours._der_pair
    monkeypatch.setattr(ours, "_der_pair", lambda raw: honest(raw[:-1] + bytes((raw[-1] ^ 1,))))
    with pytest.raises(Broken) as broken:
        key.sign(b"message")
    assert broken.value.code == "bad-own-signature"


def test_two_keys_of_one_label_are_told_apart_by_id_or_not_used(hsm: SoftHsm, label: str) -> None:
    from ca.keys.pkcs11 import Pkcs11KeyStore
    from ca.keys.pkcs11_token import TokenAddress

    made = store_of(hsm, label).generate(NAME, P256)
    arguments = ("--keypairgen", "--key-type", "EC:prime256v1", "--label", NAME, "--id", "a1", "--usage-sign")
    hsm.inspect(label, *arguments)
    refused("key-ambiguous", lambda: store_of(hsm, label).open(NAME))
    chosen = Pkcs11KeyStore(TokenAddress(hsm.module, label=label), PIN.encode, id=b"\xa1").open(NAME)
    assert chosen.spki != made.spki
    verify(load_public_key(chosen.spki), chosen.sign(b"x"), b"x")


def test_a_key_of_another_kind_is_listed_and_not_opened(hsm: SoftHsm, label: str) -> None:
    hsm.inspect(label, "--keypairgen", "--key-type", "EC:secp521r1", "--label", NAME, "--id", "01", "--usage-sign")
    store = store_of(hsm, label)
    refused("key-unreadable", lambda: store.open(NAME))
    assert [(held.name, held.algorithm) for held in store.held()] == [(NAME, None)]


# ---- The PIN ------------------------------------------------------------------------------------------------------------


def login_by_hand(hsm: SoftHsm, label: str) -> None:
    from ca.keys.pkcs11_token import _module

    # The tool is another process, and the library reads the token's state from disk: as an operator would find it.
    hsm.inspect(label, "--list-objects")
    _module(str(hsm.module)).restart()


def test_a_wrong_pin_is_tried_once_and_never_again(hsm: SoftHsm, label: str) -> None:
    asked = []

    def pin() -> bytes:
        asked.append(1)
        return b"wrong"

    from ca.keys.pkcs11 import Pkcs11KeyStore
    from ca.keys.pkcs11_token import TokenAddress

    store = Pkcs11KeyStore(TokenAddress(hsm.module, label=label), pin)
    first = refused("wrong-pin", lambda: store.open(NAME))
    assert "PinIncorrect" in first.why
    for _ in range(20):  # SoftHSM never locks; a card would after three
        again = refused("wrong-pin", lambda: store.open(NAME))
        assert "not tried again" in again.why
    assert len(asked) == 1


def test_a_process_that_is_started_again_does_not_try_on(hsm: SoftHsm, label: str) -> None:
    store_of(hsm, label).generate(NAME, P256)
    from ca.keys.pkcs11_token import _module

    _module(str(hsm.module)).restart()  # logs us out: a login holds for all of a process
    refused("wrong-pin", lambda: store_of(hsm, label, "wrong").open(NAME))
    # As after a restart: nothing is remembered but what the token says.
    held_back = refused("pin-not-tried", lambda: store_of(hsm, label).open(NAME))
    assert "by hand" in held_back.fix
    login_by_hand(hsm, label)
    assert store_of(hsm, label).open(NAME).sign(b"x")


def test_a_pin_that_was_right_before_is_given_again(hsm: SoftHsm, label: str) -> None:
    from ca.keys.pkcs11_token import _module

    key = store_of(hsm, label).generate(NAME, P256)
    _module(str(hsm.module)).restart()
    refused("wrong-pin", lambda: store_of(hsm, label, "a typing error of somebody").open(NAME))
    assert key.sign(b"x")


# ---- Tokens that go away ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # python-pkcs11 ends operations of sessions that are over
def test_a_key_survives_that_its_session_is_lost(hsm: SoftHsm, label: str) -> None:
    from ca.keys.pkcs11_token import _module

    store = store_of(hsm, label)
    key = store.generate(NAME, P256)
    for _ in range(3):
        _module(str(hsm.module)).restart()  # C_Finalize: every session and handle is void
        verify(load_public_key(key.spki), key.sign(b"message"), b"message")
        store._token._session.close()
        verify(load_public_key(key.spki), key.sign(b"message"), b"message")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_survives_that_its_token_is_removed_and_put_back(hsm: SoftHsm, label: str) -> None:
    key = store_of(hsm, label).generate(NAME, P256)
    for _ in range(2):
        hsm.pull_out()
        try:
            for _ in range(3):
                gone = refused("token-absent", lambda: key.sign(b"message"))
                assert gone.retry_after > 0
                assert gone.fix
        finally:
            hsm.put_back()
        verify(load_public_key(key.spki), key.sign(b"message"), b"message")


def test_a_token_of_the_same_name_without_the_key_is_not_mistaken_for_it(hsm: SoftHsm, label: str) -> None:
    key = store_of(hsm, label).generate(NAME, P256)
    hsm.pull_out()
    try:
        hsm.add(label)
        refused("no-such-key", lambda: key.sign(b"message"))
    finally:
        import shutil

        shutil.rmtree(hsm.tokens)
        hsm.tokens.mkdir()
        hsm.put_back()
    verify(load_public_key(key.spki), key.sign(b"message"), b"message")


def test_two_tokens_of_one_label_are_not_guessed_between(hsm: SoftHsm, label: str) -> None:
    hsm.add(label)
    ambiguous = refused("token-ambiguous", lambda: store_of(hsm, label).open(NAME))
    assert "serial=" in ambiguous.fix


def test_an_address_that_no_token_has_names_what_to_do(hsm: SoftHsm) -> None:
    absent = refused("token-absent", lambda: store_of(hsm, "nobody").open(NAME))
    assert "--list-token-slots" in absent.fix


def test_a_library_that_is_none_is_said(hsm: SoftHsm, tmp_path: Path) -> None:
    from ca.keys.pkcs11 import Pkcs11KeyStore
    from ca.keys.pkcs11_token import TokenAddress

    for name in ("absent.so", "text.so"):
        (tmp_path / "text.so").write_text("no library")
        address = TokenAddress(tmp_path / name, label="x")
        refused("module-unusable", lambda address=address: Pkcs11KeyStore(address, PIN.encode).open(NAME))


# ---- Processes and threads ----------------------------------------------------------------------------------------------


def test_a_child_does_not_use_what_its_parent_opened(hsm: SoftHsm, label: str) -> None:
    key = store_of(hsm, label).generate(NAME, P256)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"signed"
        try:
            key.sign(b"message")
        except KeyUnavailable as error:
            said = error.code.encode()
        try:
            store_of(hsm, label).open(NAME)
        except KeyUnavailable as error:
            said += b" " + error.code.encode()
        os.write(writing, said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"key-after-fork key-after-fork"
    os.waitpid(child, 0)
    assert key.sign(b"message")


def test_threads_share_a_key(hsm: SoftHsm, label: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    key = store_of(hsm, label).generate(NAME, P256)
    with ThreadPoolExecutor(8) as pool:
        for message, signature in pool.map(lambda n: (str(n).encode(), key.sign(str(n).encode())), range(100)):
            verify(load_public_key(key.spki), signature, message)


def test_without_the_library_for_python_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pkcs11'] = None\n"
        "from config.key_uris import read_key_uri\nfrom config.secrets import Secret\nfrom fleetca import forms\n"
        "from pathlib import Path\n"
        "key = read_key_uri('pkcs11:token=a;object=b?module-path=/x.so', base=Path('/'))\n"
        "try: forms.key_store(key, Secret.parse('env:X', base=Path('/')))\n"
        "except Exception as error: print(error.code, error.fix)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split()[0] == "extra-missing", done.stderr
    assert "fleetca[hsm]" in done.stdout
