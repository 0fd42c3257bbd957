"""Keys of AWS KMS: made there, never out of it; each signature is a request. Ring 3.

Who may sign is said by the credentials of this process (boto3's chain), not by a passphrase. A message of up to 4096 octets goes as it is; of
a longer one the digest goes, and says that it is one: a digest that goes as a message would be hashed again, and the signature be of nothing.
Each is verified here before it leaves.

KMS destroys after a wait of at least seven days. From the moment of asking the key can do nothing; until the day somebody with the right
to can take that back, so the account's log belongs to the evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ca.der.algorithms import ALGORITHMS, algorithm_of, load_public_key
from ca.errors import Conflict, FleetcaError, KeyUnavailable, Misconfigured
from ca.keys.verified import released, released_digest
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, Protection, StoreAbility
from ca.rules.key_policy import check_algorithm

T = TypeVar("T")

_LONGEST_RAW: Final = 4096
_WAIT_DAYS: Final = 7
_ALIAS: Final = "alias/"
_MAKING: Final = "fleetca-making"
"""The tag of a key that has no alias yet: which one it will get."""
_SPECS: Final = {
    AlgorithmName("p256"): ("ECC_NIST_P256", "ECDSA_SHA_256"),
    AlgorithmName("p384"): ("ECC_NIST_P384", "ECDSA_SHA_384"),
    AlgorithmName("rsa-3072"): ("RSA_3072", "RSASSA_PKCS1_V1_5_SHA_256"),
    AlgorithmName("rsa-4096"): ("RSA_4096", "RSASSA_PKCS1_V1_5_SHA_256"),
}
_CONFIG: Final = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "max_attempts": 2})
_FACTS: Final = ("Origin", "KeyManager", "KeyUsage", "KeyState", "CustomKeyStoreId")


class KmsKey:
    """A `SigningKey` of KMS."""

    def __init__(self, client: Any, name: KeyName, *, arn: str, algorithm: AlgorithmName, spki: bytes) -> None:
        self._client, self._name, self._arn, self._algorithm, self._spki = client, name, arn, algorithm, spki

    def __repr__(self) -> str:
        return f"KmsKey({self._name!r}, {self._algorithm!r})"

    @property
    def name(self) -> KeyName:
        """Its alias, or its id."""
        return self._name

    @property
    def algorithm(self) -> AlgorithmName:
        """Its row in `ca.der.algorithms`."""
        return self._algorithm

    @property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo of its public half."""
        return self._spki

    def sign(self, message: bytes) -> bytes:
        """A signature that verifies.

        Raises:
            KeyUnavailable: KMS cannot be reached, refuses, or has no such key any more.
            Broken: `bad-own-signature`.
        """
        if len(message) > _LONGEST_RAW or not message:  # KMS takes no empty message
            return self.sign_digest(hashlib.new(ALGORITHMS[self._algorithm].digest or "", message).digest())
        return released(self._signed(message, "RAW"), message, spki=self._spki, name=self._name)

    def sign_digest(self, digest: bytes) -> bytes:
        """As `ca.ports.DigestSigning` says.

        Raises:
            KeyUnavailable, Broken: as `sign`.
        """
        return released_digest(self._signed(digest, "DIGEST"), digest, spki=self._spki, name=self._name)

    def _signed(self, octets: bytes, kind: str) -> bytes:
        # By ARN: an alias can be pointed at another key meanwhile.
        _, way = _SPECS[self._algorithm]
        answer = _asked(lambda: self._client.sign(KeyId=self._arn, Message=octets, MessageType=kind, SigningAlgorithm=way), self._name)
        return bytes(answer["Signature"])


class KmsKeyStore:
    """A `KeyStore` over the aliases of one region.

    Args:
        region: where the keys are.
        endpoint: another address than AWS's own: a private endpoint.
        by_id: names are key ids or ARNs, not aliases.
    """

    def __init__(self, region: str, *, endpoint: str | None = None, by_id: bool = False) -> None:
        self._region, self._endpoint, self._by_id = region, endpoint, by_id
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            try:
                self._made = boto3.client("kms", region_name=self._region, endpoint_url=self._endpoint, config=_CONFIG)
            except (BotoCoreError, ValueError) as error:
                raise Misconfigured(
                    "bad-kms", f"AWS KMS in {self._region} cannot be used.", why=str(error), fix="Check region and endpoint."
                ) from None
        return self._made

    def ability(self) -> StoreAbility:
        """What we use of KMS. That its keys are in hardware is AWS's word."""
        return StoreAbility("awskms", frozenset(_SPECS), Protection.hardware, f"AWS KMS in {self._region}")

    def open(self, name: KeyName) -> KmsKey:
        """Find a key and read its public half.

        Raises:
            KeyUnavailable: `no-such-key`, `key-unreadable`, `kms-denied`, `kms-unreachable`.
        """
        answer = _asked(lambda: self._client.get_public_key(KeyId=self._id(name)), name)
        spki = bytes(answer["PublicKey"])
        try:
            row = algorithm_of(load_public_key(spki))
        except FleetcaError as error:
            raise _unreadable(name, error.what) from None
        if row.name not in _SPECS or answer["KeyUsage"] != "SIGN_VERIFY":
            raise _unreadable(name, f"It is a {row.name} key for {answer['KeyUsage']}.")
        return KmsKey(self._client, name, arn=answer["KeyId"], algorithm=row.name, spki=spki)

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> KmsKey:
        """Have KMS make a key and give it its alias.

        A crash in between leaves a key that nobody has had, with a tag that says whose it was to be: it is found by that and taken up. The tag goes
        when the alias is there, so that a key which lost its alias later is never taken for one of these.

        Raises:
            Unacceptable: `store-lacks-algorithm`.
            Conflict: `key-exists`.
            Misconfigured: keys of this store are named by KMS itself (`kms-names-keys`).
        """
        check_algorithm(self.ability(), algorithm)
        if self._by_id:
            raise Misconfigured("kms-names-keys", "KMS gives ids itself; a key is made under an alias.", fix="Write awskms:alias/NAME.")
        if self._target(name) is not None:
            raise _exists(name)
        key_id = self._left_behind(name, algorithm) or self._create(name, algorithm)
        try:
            self._client.create_alias(AliasName=_ALIAS + name, TargetKeyId=key_id)
        except ClientError as error:
            if self._target(name) != key_id:  # else somebody took up what we made just now
                _asked(lambda: self._client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=_WAIT_DAYS), name)
            if _code(error) == "AlreadyExistsException":
                raise _exists(name) from None
            raise _named(error, name) from None
        _asked(lambda: self._client.untag_resource(KeyId=key_id, TagKeys=[_MAKING]), name)
        return self.open(name)

    def _create(self, name: KeyName, algorithm: AlgorithmName) -> str:
        spec, _ = _SPECS[algorithm]
        made = _asked(
            lambda: self._client.create_key(
                KeyUsage="SIGN_VERIFY",
                KeySpec=spec,
                Description=f"fleetca {name}",
                Origin="AWS_KMS",
                Tags=[{"TagKey": _MAKING, "TagValue": str(name)}],
            ),
            name,
        )
        return str(made["KeyMetadata"]["KeyId"])

    def _left_behind(self, name: KeyName, algorithm: AlgorithmName) -> str | None:
        """The key that a crash of `generate` left for this very alias."""
        named = {target for _, target in self._aliases()}
        pages = _asked(lambda: list(self._client.get_paginator("list_keys").paginate()), name)
        for key_id in (each["KeyId"] for page in pages for each in page["Keys"] if each["KeyId"] not in named):
            try:
                tags = self._client.list_resource_tags(KeyId=key_id)["Tags"]
            except ClientError:
                continue  # somebody else's, which we may not look at
            if {"TagKey": _MAKING, "TagValue": str(name)} not in tags:
                continue
            said = _asked(lambda found=key_id: self._client.describe_key(KeyId=found), name)["KeyMetadata"]  # type: ignore[misc]
            if said["KeyState"] == "Enabled" and said["KeySpec"] == _SPECS[algorithm][0] and said["Origin"] == "AWS_KMS":
                return str(key_id)
        return None

    def names(self) -> Sequence[KeyName]:
        """All aliases of signing keys that we can use, sorted."""
        return [held.name for held in self.held()]

    def held(self) -> Sequence[HeldKey]:
        """Every signing key with an alias of the account's own."""
        found = [self._held(KeyName(alias), target) for alias, target in self._aliases()]
        return sorted((held for held in found if held is not None), key=lambda held: held.name)

    def destroy(self, name: KeyName) -> Destruction:
        """Take the alias away and have the key deleted after the shortest wait that KMS allows.

        Raises:
            KeyUnavailable: `no-such-key`, or KMS refuses.
        """
        key = self.open(name)
        _asked(lambda: self._client.schedule_key_deletion(KeyId=key._arn, PendingWindowInDays=_WAIT_DAYS), name)  # noqa: SLF001 - our own class
        if not self._by_id:
            _asked(lambda: self._client.delete_alias(AliasName=_ALIAS + name), name)
        said = _asked(lambda: self._client.describe_key(KeyId=key._arn), name)["KeyMetadata"]  # noqa: SLF001
        proof = (
            ("key", said["Arn"]),
            ("done", f"ScheduleKeyDeletion, {_WAIT_DAYS} days"),
            ("asked again", f"KeyState {said['KeyState']}, Enabled {said['Enabled']}, deletion {said.get('DeletionDate', '-')}"),
        )
        return Destruction(name, self.ability(), proof)

    def _id(self, name: KeyName) -> str:
        return str(name) if self._by_id else _ALIAS + name

    def _aliases(self) -> list[tuple[str, str]]:
        pages = _asked(lambda: list(self._client.get_paginator("list_aliases").paginate()), KeyName("all"))
        listed = [each for page in pages for each in page["Aliases"]]
        return [
            (each["AliasName"].removeprefix(_ALIAS), each["TargetKeyId"])
            for each in listed
            if "TargetKeyId" in each and not each["AliasName"].startswith("alias/aws/")
        ]

    def _target(self, name: KeyName) -> str | None:
        return next((target for alias, target in self._aliases() if alias == name), None)

    def _held(self, name: KeyName, target: str) -> HeldKey | None:
        said = _asked(lambda: self._client.describe_key(KeyId=target), name)["KeyMetadata"]
        if said["KeyUsage"] != "SIGN_VERIFY" or said["KeyState"] == "PendingDeletion":
            return None
        facts = tuple((fact.lower(), str(said[fact])) for fact in _FACTS if fact in said)
        try:
            key = KmsKeyStore.open(self, name) if not self._by_id else None
        except KeyUnavailable:
            key = None
        return HeldKey(name, None if key is None else key.algorithm, None if key is None else key.spki, facts)


def _asked(call: Callable[[], T], name: KeyName) -> T:
    try:
        return call()
    except ClientError as error:
        raise _named(error, name) from None
    except BotoCoreError as error:
        raise KeyUnavailable(
            "kms-unreachable",
            f"AWS KMS cannot be asked for the key {name}.",
            why=str(error),
            fix="Check the network, the region, and the credentials of this process (aws sts get-caller-identity).",
        ) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _named(error: ClientError, name: KeyName) -> KeyUnavailable:
    code = _code(error)
    why = f"AWS says {code}."
    if code == "NotFoundException":
        return KeyUnavailable("no-such-key", f"AWS KMS has no key {name}.", why=why, fix="Check alias and region in the key's setting.")
    if code in {"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"}:
        return KeyUnavailable(
            "kms-denied",
            f"AWS KMS does not let this process use the key {name}.",
            why=why,
            fix="Allow kms:Sign, kms:GetPublicKey and kms:DescribeKey on this key to the role of this process.",
        )
    if code in {"DisabledException", "KMSInvalidStateException"}:
        return KeyUnavailable(
            "key-disabled",
            f"The key {name} of AWS KMS is disabled, or waits for its deletion.",
            why=why,
            fix="Enable it, if it is meant to sign.",
        )
    return KeyUnavailable("kms-unreachable", f"AWS KMS did not do what was asked with the key {name}.", why=why, fix="Repeat it later.")


def _exists(name: KeyName) -> Conflict:
    return Conflict("key-exists", f"AWS KMS has a key with the alias {name} already; it is not overwritten.", fix="Choose another alias.")


def _unreadable(name: KeyName, why: str) -> KeyUnavailable:
    return KeyUnavailable(
        "key-unreadable", f"The key {name} of AWS KMS is no kind that we use.", why=why, fix="Make a new one for signing."
    )
