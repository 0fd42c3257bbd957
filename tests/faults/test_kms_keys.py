"""Keys of AWS KMS (moto): what is sent, what is refused, and the digest that must not be hashed twice (REQ-KEY-004)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ca.der.algorithms import load_public_key, verify
from ca.errors import Broken, Conflict, FleetcaError, KeyUnavailable, Misconfigured
from ca.keys.kms import KmsKeyStore
from ca.model import AlgorithmName, KeyName
from tests.fakes.kms import REGION, kms

P256, NAME = AlgorithmName("p256"), KeyName("issuing")


@pytest.fixture(autouse=True)
def cloud() -> Iterator[None]:
    with kms():
        yield


@pytest.fixture
def client() -> Any:
    return boto3.client("kms", region_name=REGION)


def refused(code: str, act: Callable[[], object]) -> FleetcaError:
    with pytest.raises(KeyUnavailable) as error:
        act()
    assert error.value.code == code, error.value
    assert error.value.fix
    return error.value


def test_the_account_sees_a_signing_key_made_inside(client: Any) -> None:
    store = KmsKeyStore(REGION)
    store.generate(NAME, P256)
    said = client.describe_key(KeyId="alias/issuing")["KeyMetadata"]
    assert (said["KeyUsage"], said["KeySpec"], said["Origin"], said["KeyManager"]) == (
        "SIGN_VERIFY",
        "ECC_NIST_P256",
        "AWS_KMS",
        "CUSTOMER",
    )
    (held,) = store.held()
    assert (held.name, dict(held.facts)["origin"]) == (NAME, "AWS_KMS")


@pytest.mark.parametrize(("size", "kind"), [(0, "DIGEST"), (1, "RAW"), (4096, "RAW"), (4097, "DIGEST"), (1_000_000, "DIGEST")])
def test_a_long_message_goes_as_its_digest_and_says_so(size: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KmsKeyStore(REGION).generate(NAME, P256)
    sent: list[dict[str, Any]] = []
    honest = key._client.sign
    monkeypatch.setattr(key._client, "sign", lambda **given: (sent.append(given), honest(**given))[1])
    verify(load_public_key(key.spki), key.sign(bytes(size)), bytes(size))
    assert [each["MessageType"] for each in sent] == [kind]


def test_a_digest_that_was_hashed_again_never_leaves() -> None:
    """What moto does by itself, and what a DIGEST sent as RAW would be."""
    key = KmsKeyStore(REGION).generate(NAME, P256)
    honest = key._client.sign
    key._client.sign = lambda **given: honest(**{**given, "MessageType": "RAW"})
    with pytest.raises(Broken) as broken:
        key.sign(bytes(5000))
    assert broken.value.code == "bad-own-signature"


def test_an_alias_that_is_pointed_elsewhere_changes_nothing_for_an_opened_key(client: Any) -> None:
    store = KmsKeyStore(REGION)
    key = store.generate(NAME, P256)
    other = store.generate(KeyName("other"), P256)
    client.update_alias(AliasName="alias/issuing", TargetKeyId=other._arn)
    verify(load_public_key(key.spki), key.sign(b"x"), b"x")
    assert store.open(NAME).spki == other.spki  # a signer that starts now refuses: it is not the certificate's key


def test_a_key_by_its_id_is_used_and_not_made() -> None:
    made = KmsKeyStore(REGION).generate(NAME, P256)
    store = KmsKeyStore(REGION, by_id=True)
    name = KeyName(made._arn.rpartition("/")[2])
    assert store.open(name).spki == made.spki
    with pytest.raises(Misconfigured):
        store.generate(KeyName("x"), P256)


def test_a_destroyed_key_waits_for_its_end_and_can_do_nothing(client: Any) -> None:
    store = KmsKeyStore(REGION)
    key = store.generate(NAME, P256)
    done = store.destroy(NAME)
    assert "PendingDeletion" in dict(done.proof)["asked again"]
    assert client.describe_key(KeyId=key._arn)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    refused("key-disabled", lambda: key.sign(b"x"))


def test_a_key_for_something_else_is_not_opened(client: Any) -> None:
    made = client.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_3072")["KeyMetadata"]
    client.create_alias(AliasName="alias/issuing", TargetKeyId=made["KeyId"])
    store = KmsKeyStore(REGION)
    with pytest.raises(KeyUnavailable):
        store.open(NAME)
    assert list(store.names()) == []


REFUSALS = [
    pytest.param("AccessDeniedException", "kms-denied", id="no right to use it"),
    pytest.param("ExpiredTokenException", "kms-denied", id="credentials that have expired"),
    pytest.param("DisabledException", "key-disabled", id="a disabled key"),
    pytest.param("ThrottlingException", "kms-unreachable", id="too many requests"),
    pytest.param("KMSInternalException", "kms-unreachable", id="a failure of KMS"),
    pytest.param("NotFoundException", "no-such-key", id="a key that is gone"),
]


@pytest.mark.parametrize(("said", "code"), REFUSALS)
def test_what_kms_refuses_is_said_in_our_words(said: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KmsKeyStore(REGION).generate(NAME, P256)

    def fail(**_: object) -> None:
        raise ClientError({"Error": {"Code": said, "Message": "x"}}, "Sign")

    monkeypatch.setattr(key._client, "sign", fail)
    assert refused(code, lambda: key.sign(b"x")).retry_after > 0


def test_an_address_where_nobody_answers_is_said() -> None:
    store = KmsKeyStore(REGION, endpoint="http://127.0.0.1:1")
    refused("kms-unreachable", lambda: store.open(NAME))


class Died(BaseException):
    """A kill -9."""


def die_at(store: KmsKeyStore, call: str, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
    honest = getattr(store._client, call)

    def dying(**given: Any) -> None:
        if after:
            honest(**given)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(store._client, call, dying)
        with pytest.raises(Died):
            store.generate(NAME, P256)


def ids(client: Any) -> set[str]:
    return {each["KeyId"] for each in client.list_keys()["Keys"]}


def test_R32_a_key_without_its_alias_is_taken_up_by_the_next_try(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(KmsKeyStore(REGION), "create_alias", monkeypatch)
    (left,) = ids(client)
    # Of another alias, or of another kind, it is not.
    KmsKeyStore(REGION).generate(KeyName("other"), P256)
    with monkeypatch.context() as patch:
        patch.setattr("ca.keys.kms._SPECS", {**kms_specs(), AlgorithmName("p256"): kms_specs()[AlgorithmName("p384")]})
        assert KmsKeyStore(REGION)._left_behind(NAME, P256) is None
    key = KmsKeyStore(REGION).generate(NAME, P256)
    assert key._arn.endswith(left)
    assert len(ids(client)) == 2
    assert client.list_resource_tags(KeyId=left)["Tags"] == []


def kms_specs() -> dict[AlgorithmName, tuple[str, str]]:
    from ca.keys import kms as adapter

    return dict(adapter._SPECS)


def test_a_key_that_was_had_and_lost_its_alias_is_no_new_one(client: Any) -> None:
    before = KmsKeyStore(REGION).generate(NAME, P256)
    client.delete_alias(AliasName="alias/issuing")
    assert KmsKeyStore(REGION).generate(NAME, P256).spki != before.spki


def test_a_key_left_behind_that_is_disabled_is_not_taken_up(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(KmsKeyStore(REGION), "create_alias", monkeypatch)
    (left,) = ids(client)
    client.disable_key(KeyId=left)
    assert not KmsKeyStore(REGION).generate(NAME, P256)._arn.endswith(left)


def test_who_was_overtaken_by_another_alias_leaves_no_key_and_by_ones_own_no_deletion(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KmsKeyStore(REGION)
    honest = store._client.create_alias

    def overtaken(target: Callable[[str], str]) -> None:
        def late(**given: Any) -> None:
            client.create_alias(AliasName=given["AliasName"], TargetKeyId=target(given["TargetKeyId"]))
            honest(**given)

        with monkeypatch.context() as patch:
            patch.setattr(store._client, "create_alias", late)
            with pytest.raises(Conflict) as caught:
                store.generate(NAME, P256)
            assert caught.value.code == "key-exists"

    foreign = client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["KeyId"]
    overtaken(lambda _: foreign)
    states = {each: client.describe_key(KeyId=each)["KeyMetadata"]["KeyState"] for each in ids(client)}
    assert states.pop(foreign) == "Enabled"
    assert list(states.values()) == ["PendingDeletion"]
    client.delete_alias(AliasName="alias/issuing")
    # Another process found the key that we have just made, and was first to name it: it is that one's now.
    overtaken(lambda ours: ours)
    KmsKeyStore(REGION).open(NAME).sign(b"x")
