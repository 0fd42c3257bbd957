"""Keys inside this machine's TPM 2.0: made there under the owner's storage key, kept there under a persistent handle. Ring 3.

A key's name is its handle as tpm2-tools write it (`0x81020001`). It is made fixedTPM and fixedParent: the TPM gives it out under no other
parent and to no other TPM, so a copied disk is no copy of it, and a dead mainboard is its end. Every use opens the device anew: nothing is
kept that a fork, a restart or a suspended machine could make stale.

A key's password does not take part in the TPM's dictionary-attack protection (noDA): that counts for the whole machine, and a restarting
signer with a wrong secret would lock what others keep there, disk encryption too. In its place the password has to be long. A process tries
a password that was refused never again.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from ca.errors import Conflict, KeyUnavailable, Misconfigured
from ca.keys import tpm_commands as tpm
from ca.keys.verified import released, released_digest
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, Protection, StoreAbility
from ca.rules.key_policy import check_algorithm

_RSA, _ECC, _NULL, _ECDSA, _RSASSA = 0x0001, 0x0023, 0x0010, 0x0018, 0x0014
_HASHES: Final = {"sha256": 0x000B, "sha384": 0x000C}
_ATTRIBUTES: Final = {
    "fixedTPM": 1 << 1,
    "fixedParent": 1 << 4,
    "sensitiveDataOrigin": 1 << 5,
    "userWithAuth": 1 << 6,
    "noDA": 1 << 10,
    "restricted": 1 << 16,
    "decrypt": 1 << 17,
    "sign": 1 << 18,
}
"""TPMA_OBJECT, part 2, 8.3."""
_KEY: Final = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "sign")
_MADE: Final = (*_KEY, "noDA")
_STORAGE: Final = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "decrypt")
_FIRST: Final = 0x81000000
_LAST: Final = 0x817FFFFF
_MOST: Final = 254
_SHORTEST: Final = 16


_Said = TypeVar("_Said")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of key as the TPM knows it."""

    type: int
    scheme: int
    digest: str
    size: int
    curve: int = 0

    @property
    def parameters(self) -> bytes:
        """TPMU_PUBLIC_PARMS."""
        head = struct.pack(">HHH", _NULL, self.scheme, _HASHES[self.digest])
        if self.type == _RSA:
            return head + struct.pack(">HI", self.size, 0)
        return head + struct.pack(">HH", self.curve, _NULL)


_KINDS: Final = {
    AlgorithmName("p256"): _Kind(_ECC, _ECDSA, "sha256", 32, 0x0003),
    AlgorithmName("p384"): _Kind(_ECC, _ECDSA, "sha384", 48, 0x0004),
    AlgorithmName("rsa-3072"): _Kind(_RSA, _RSASSA, "sha256", 3072),
    AlgorithmName("rsa-4096"): _Kind(_RSA, _RSASSA, "sha256", 4096),
}
_STORAGE_KEY: Final = (
    struct.pack(">HHI", _ECC, _HASHES["sha256"], sum(_ATTRIBUTES[each] for each in _STORAGE))
    + tpm.sized(b"")
    # AES-128-CFB protects the children; no scheme, P-256, no key derivation, no point asked for.
    + struct.pack(">HHHHHH", 0x0006, 128, 0x0043, _NULL, 0x0003, _NULL)
    + tpm.sized(b"")
    + tpm.sized(b"")
)
"""The storage key that every tool makes alike (TCG EK Credential Profile's template for an SRK), so that it need not be kept."""


class TpmKey:
    """A `SigningKey` in a TPM."""

    def __init__(self, store: TpmKeyStore, name: KeyName, *, handle: int, algorithm: AlgorithmName, spki: bytes) -> None:
        self._store, self._name, self._handle = store, name, handle
        self._algorithm, self._spki = algorithm, spki
        self._kind = _KINDS[algorithm]

    def __repr__(self) -> str:
        return f"TpmKey({self._name!r}, {self._algorithm!r})"

    @property
    def name(self) -> KeyName:
        """Its handle."""
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
            KeyUnavailable: the TPM is not there, has no such key any more, or refuses the password.
            Broken: `bad-own-signature`: also where another key lies under the handle now.
        """
        digest = hashlib.new(self._kind.digest, message).digest()
        return released(self._signed(digest), message, spki=self._spki, name=self._name)

    def sign_digest(self, digest: bytes) -> bytes:
        """As `ca.ports.DigestSigning` says.

        Raises:
            KeyUnavailable, Broken: as `sign`.
        """
        return released_digest(self._signed(digest), digest, spki=self._spki, name=self._name)

    def certified(self, act: Callable[[tpm.Channel, int, bytes], _Said]) -> _Said:
        """Do something that takes its handle and password (`ca.keys.tpm_attest`).

        Raises:
            KeyUnavailable: as `sign`.
        """
        return self._store.use_password(self._name, lambda channel, auth: act(channel, self._handle, auth))

    def _signed(self, digest: bytes) -> bytes:
        said = self._store.use_password(self._name, lambda channel, auth: tpm.sign(channel, self._handle, digest, auth))
        said.take(4)  # algorithm and hash: the key has one scheme, and the signature is verified
        if self._kind.type == _RSA:
            return said.sized()
        r, s = said.sized(), said.sized()
        return utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


class TpmKeyStore:
    """A `KeyStore` over one TPM.

    Args:
        device: `/dev/tpmrm0`, or `HOST:PORT` of a simulator.
        password: asked once; None where keys have none.
    """

    def __init__(self, device: str, password: Callable[[], bytes] | None) -> None:
        self._device = device
        self._ask = password
        self._password: bytes | None = None if password is not None else b""
        self._refused = False
        self._lock = threading.Lock()

    def ability(self) -> StoreAbility:
        """What the TPM says of itself.

        Raises:
            KeyUnavailable: `tpm-absent`.
        """
        with tpm.conversation(self._device) as channel:
            maker = _text(tpm.property_of(channel, tpm.PT_MANUFACTURER))
            words = "".join(_text(tpm.property_of(channel, tpm.PT_VENDOR + number)) for number in range(4)).strip()
            kinds = frozenset(name for name, kind in _KINDS.items() if tpm.can_make(channel, kind.type, kind.parameters))
        software = not self._device.startswith("/") or words.startswith("SW")
        protection = Protection.module if software else Protection.hardware
        return StoreAbility("tpm", kinds, protection, f"TPM 2.0 of {maker.strip()} {words} at {self._device}")

    def open(self, name: KeyName) -> TpmKey:
        """Find a key, and let it sign a word of its own: a wrong password is known now, and not at the first certificate.

        Raises:
            KeyUnavailable: `no-such-key`, `key-unreadable`, `tpm-absent`, `wrong-pin`, `short-passphrase`.
            Broken: `bad-own-signature`.
        """
        handle = _handle(name)
        with tpm.conversation(self._device) as channel:
            found = _look(channel, handle)
        if found is None:
            raise _no_such_key(name)
        algorithm, public, wrong = found
        if algorithm is None or public is None or wrong:
            raise KeyUnavailable(
                "key-unreadable",
                f"The object {name} of the TPM is no signing key that we use.",
                why=f"It lacks {', '.join(wrong)}." if wrong else "It is of another kind.",
                fix="Make a new one: fleetca init --key, or the ceremony.",
            )
        key = TpmKey(self, name, handle=handle, algorithm=algorithm, spki=_spki(public))
        key.sign(b"fleetca key confirmation\0" + key.spki)
        return key

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> TpmKey:
        """Have the TPM make a key and keep it under its handle.

        A crash before the last step leaves nothing that outlives the conversation (with a simulator, until it is restarted).

        Raises:
            Unacceptable: `store-lacks-algorithm`.
            Conflict: `key-exists`.
            KeyUnavailable: the owner's hierarchy is closed (`tpm-owner`), or the TPM is full (`tpm-refused`).
        """
        handle = _handle(name)
        check_algorithm(self.ability(), algorithm)
        kind = _KINDS[algorithm]
        head = struct.pack(">HHI", kind.type, _HASHES["sha256"], sum(_ATTRIBUTES[each] for each in _MADE)) + tpm.sized(b"")
        public = head + kind.parameters + (tpm.sized(b"") if kind.type == _RSA else tpm.sized(b"") * 2)
        with self._lock, tpm.conversation(self._device) as channel:
            if handle in tpm.handles(channel, handle, 1):
                raise _exists(name)
            loaded: list[int] = []
            try:
                loaded.append(tpm.create_primary(channel, _STORAGE_KEY))
                private, made = tpm.create(channel, loaded[0], public, self._known())
                loaded.append(tpm.load(channel, loaded[0], private, made))
                tpm.evict_control(channel, loaded[1], handle)
            except tpm.TpmError as error:
                raise _exists(name) if error.code == tpm.RC_NV_DEFINED else _refused(error, name) from None
            finally:
                for each in reversed(loaded):
                    tpm.flush_context(channel, each)
        return self.open(name)

    def names(self) -> Sequence[KeyName]:
        """The handles of all signing keys, sorted."""
        return [held.name for held in self.held()]

    def held(self) -> Sequence[HeldKey]:
        """Every persistent object of the owner that signs freely: not storage, endorsement or attestation keys."""
        found = []
        with tpm.conversation(self._device) as channel:
            for handle in tpm.handles(channel, _FIRST, _MOST):
                seen = _object(channel, handle) if handle <= _LAST else None
                if seen is None or not seen[1] & _ATTRIBUTES["sign"] or seen[1] & _ATTRIBUTES["restricted"]:
                    continue
                facts = tuple((word.lower(), str(bool(seen[1] & _ATTRIBUTES[word]))) for word in _KEY)
                algorithm, public = _kind_of(seen[0])
                spki = None if public is None else _spki(public)
                found.append(HeldKey(KeyName(f"0x{handle:08x}"), algorithm, spki, facts))
        return found

    def destroy(self, name: KeyName) -> Destruction:
        """Remove the object: without its persistent copy the TPM cannot make it again, and its private half never was elsewhere.

        Raises:
            KeyUnavailable: `no-such-key`, or the TPM refuses (`tpm-refused`).
        """
        handle, ability = _handle(name), self.ability()
        with self._lock, tpm.conversation(self._device) as channel:
            seen = _object(channel, handle)
            if seen is None:
                raise _no_such_key(name)
            try:
                tpm.evict_control(channel, handle, handle)
            except tpm.TpmError as error:
                raise _refused(error, name) from None
            gone = handle not in tpm.handles(channel, handle, 1)
        if not gone:
            raise KeyUnavailable("key-not-destroyed", f"The TPM still has the key {name}.", fix="tpm2_evictcontrol, then ask again.")
        proof = (
            *((word, str(bool(seen[1] & _ATTRIBUTES[word]))) for word in _KEY),
            ("done", "TPM2_EvictControl: TPM_RC_SUCCESS"),
            ("asked again", "no object under that handle (TPM2_GetCapability)"),
        )
        return Destruction(name, ability, proof)

    @property
    def device(self) -> str:
        """Which TPM."""
        return self._device

    def use_password(self, name: KeyName, act: Callable[[tpm.Channel, bytes], _Said]) -> _Said:
        """Do something that the key's password allows; the password is tried once."""
        with self._lock, tpm.conversation(self._device) as channel:
            if self._refused:
                raise _wrong(name, "It was refused before, and is not tried again.")
            try:
                said = act(channel, self._known())
            except tpm.TpmError as error:
                if error.code in tpm.RC_AUTH_FAIL:
                    self._refused = True
                    raise _wrong(name, "The TPM says TPM_RC_AUTH_FAIL.") from None
                raise _refused(error, name) from None
            return said

    def _known(self) -> bytes:
        if self._password is None:
            assert self._ask is not None, "it is empty where there is none to ask for"
            passphrase = self._ask()
            if len(passphrase) < _SHORTEST:
                raise KeyUnavailable(
                    "short-passphrase",
                    f"The password of a TPM's key has at least {_SHORTEST} characters.",
                    why="Nothing but its length keeps others from guessing it.",
                    fix="Use a random one.",
                )
            # A TPM's password has at most the octets of its name's hash: the digest of any passphrase fits.
            self._password = hashlib.sha256(b"fleetca tpm v1\0" + passphrase).digest()
        return self._password


# ---- Reading objects ----------------------------------------------------------------------------------------------------


def _object(channel: tpm.Channel, handle: int) -> tuple[bytes, int] | None:
    """The TPMT_PUBLIC of an object and its attributes; None where there is none."""
    try:
        octets = tpm.read_public(channel, handle)
    except tpm.TpmError as error:
        if error.code == tpm.RC_HANDLE:
            return None
        raise KeyUnavailable("tpm-refused", "The TPM does not show an object.", why=f"{error}.", fix="Repeat it later.") from None
    return octets, int.from_bytes(octets[4:8], "big")


def _look(channel: tpm.Channel, handle: int) -> tuple[AlgorithmName | None, Any, list[str]] | None:
    seen = _object(channel, handle)
    if seen is None:
        return None
    algorithm, public = _kind_of(seen[0])
    return algorithm, public, [word for word in _KEY if not seen[1] & _ATTRIBUTES[word]]


def _kind_of(octets: bytes) -> tuple[AlgorithmName | None, Any]:
    said = tpm.Reader(octets, 8)
    said.sized()  # the policy
    kind = int.from_bytes(octets[:2], "big")
    for name, known in _KINDS.items():
        parameters = known.parameters
        if kind == known.type and octets[said.at : said.at + len(parameters)] == parameters:
            said.take(len(parameters))
            if kind == _RSA:
                return name, rsa.RSAPublicNumbers(65537, int.from_bytes(said.sized(), "big")).public_key()
            x, y = (int.from_bytes(said.sized(), "big") for _ in range(2))
            curve = ec.SECP256R1() if known.size == 32 else ec.SECP384R1()
            return name, ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    return None, None


def _spki(public: Any) -> bytes:
    octets: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return octets


def _handle(name: KeyName) -> int:
    try:
        handle = int(name, 16) if name.startswith("0x81") and len(name) == 10 else 0
    except ValueError:
        handle = 0
    if not _FIRST <= handle <= _LAST:
        raise Misconfigured(
            "bad-key-name",
            f"{name!r} cannot name a key of a TPM.",
            why="Its keys are called 0x81000000 to 0x817fffff.",
            fix="Write 0x81020001.",
        )
    return handle


def _text(number: int) -> str:
    return number.to_bytes(4, "big").replace(b"\0", b"").decode("ascii", "replace")


def _no_such_key(name: KeyName) -> KeyUnavailable:
    return KeyUnavailable("no-such-key", f"The TPM has no object {name}.", fix="List them: tpm2_getcap handles-persistent")


def _exists(name: KeyName) -> Conflict:
    return Conflict("key-exists", f"The TPM has an object {name} already; it is not overwritten.", fix="Choose another handle.")


def _wrong(name: KeyName, why: str) -> KeyUnavailable:
    return KeyUnavailable(
        "wrong-pin",
        f"The password of the key {name} is wrong.",
        why=why,
        fix="Correct the secret that the setting passphrase names, then start again.",
    )


def _refused(error: tpm.TpmError, name: KeyName) -> KeyUnavailable:
    if error.code == tpm.RC_LOCKOUT:
        return KeyUnavailable(
            "pin-locked", "The TPM is locked.", why="It got too many wrong passwords.", fix="tpm2_dictionarylockout --clear-lockout"
        )
    if error.code == tpm.RC_HANDLE:
        return _no_such_key(name)
    if error.code in tpm.RC_AUTH_FAIL:
        return KeyUnavailable(
            "tpm-owner",
            "The TPM's owner hierarchy has a password.",
            why="Keys are made and removed in its name.",
            fix="tpm2_changeauth -c owner, for as long as that takes.",
        )
    return KeyUnavailable(
        "tpm-refused",
        f"The TPM does not do what was asked with {name}.",
        why=f"It says {error}.",
        fix="tpm2_rc_decode says what that means.",
    )
