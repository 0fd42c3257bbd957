"""Keys on a PKCS#11 token: smart cards, USB tokens, HSMs, SoftHSM. Made inside, never let out. Ring 3.

A key is a pair of objects under one label and id. `generate` asks the token for SENSITIVE and not EXTRACTABLE and believes it only after
reading both back, with LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE. The name of a key is its label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from pkcs11 import exceptions

from ca.der.algorithms import algorithm_of
from ca.errors import Conflict, FleetcaError, KeyUnavailable
from ca.keys.pkcs11_token import Token, TokenAddress
from ca.keys.verified import released, released_digest
from ca.model import AlgorithmName, Destruction, HeldKey, KeyName, Protection, StoreAbility
from ca.rules.key_policy import check_algorithm

A = pkcs11.Attribute
M = pkcs11.Mechanism

_ID_OCTETS: Final = 16
_P256_OID: Final = bytes.fromhex("06082a8648ce3d030107")
_P384_OID: Final = bytes.fromhex("06052b81040022")
# PKCS#11 3.0 2.3.5: the curve name as PrintableString; SoftHSM 2.6 and some HSMs want the OID of RFC 8410.
_ED25519_OID: Final = bytes.fromhex("06032b6570")
_SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_ED25519_NAME: Final = bytes.fromhex("130c") + b"edwards25519"


@dataclass(frozen=True, slots=True)
class _Way:
    """How a token makes and uses a kind of key."""

    generate: Any
    sign: Any
    bits: int
    kind: Any
    parameters: bytes = b""
    digest: str | None = None
    """What we hash with before the token signs; None where it takes the message."""
    head: bytes = b""
    """What stands before the digest: PKCS#1 signs a DigestInfo (RFC 8017 9.2), which CKM_RSA_PKCS leaves to us."""
    raw_pair: bool = False
    """The signature comes as r and s side by side (PKCS#11 2.40, 2.3.1) and X.509 wants DER."""


_WAYS: Final = {
    AlgorithmName("p256"): _Way(M.EC_KEY_PAIR_GEN, M.ECDSA, 256, pkcs11.KeyType.EC, _P256_OID, "sha256", raw_pair=True),
    AlgorithmName("p384"): _Way(M.EC_KEY_PAIR_GEN, M.ECDSA, 384, pkcs11.KeyType.EC, _P384_OID, "sha384", raw_pair=True),
    AlgorithmName("ed25519"): _Way(M.EC_EDWARDS_KEY_PAIR_GEN, M.EDDSA, 0, pkcs11.KeyType.EC_EDWARDS, _ED25519_OID),
    AlgorithmName("rsa-3072"): _Way(M.RSA_PKCS_KEY_PAIR_GEN, M.RSA_PKCS, 3072, pkcs11.KeyType.RSA, digest="sha256", head=_SHA256_INFO),
    AlgorithmName("rsa-4096"): _Way(M.RSA_PKCS_KEY_PAIR_GEN, M.RSA_PKCS, 4096, pkcs11.KeyType.RSA, digest="sha256", head=_SHA256_INFO),
}

_CLOSED: Final = {
    A.TOKEN: True,
    A.PRIVATE: True,
    A.SENSITIVE: True,
    A.EXTRACTABLE: False,
    A.SIGN: True,
    # It signs and does nothing else, whoever asks.
    A.SIGN_RECOVER: False,
    A.DECRYPT: False,
    A.UNWRAP: False,
    A.DERIVE: False,
}
_MUST_SAY: Final = {
    A.SENSITIVE: True,
    A.EXTRACTABLE: False,
    A.ALWAYS_SENSITIVE: True,
    A.NEVER_EXTRACTABLE: True,
    A.LOCAL: True,
    A.SIGN: True,
    A.DECRYPT: False,
    A.UNWRAP: False,
}


class Pkcs11Key:
    """A `SigningKey` on a token."""

    def __init__(self, token: Token, name: KeyName, *, id: bytes | None, algorithm: AlgorithmName, spki: bytes) -> None:  # noqa: A002
        self._token, self._name, self._id = token, name, id
        self._algorithm, self._spki = algorithm, spki
        self._way = _WAYS[algorithm]
        self._held: tuple[Any, Any, bool] | None = None

    def __repr__(self) -> str:
        return f"Pkcs11Key({self._name!r}, {self._algorithm!r})"

    @property
    def name(self) -> KeyName:
        """Its label."""
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
            KeyUnavailable: the token is away, or has no such key any more.
            Broken: `bad-own-signature`.
        """
        way = self._way
        if way.digest is not None:
            return self.sign_digest(hashlib.new(way.digest, message).digest())
        signature = self._signed(message)
        return released(signature, message, spki=self._spki, name=self._name)

    def sign_digest(self, digest: bytes) -> bytes:
        """As `ca.ports.DigestSigning` says; asked only where the algorithm signs a digest.

        Raises:
            KeyUnavailable, Broken: as `sign`.
        """
        signature = self._signed(self._way.head + digest)
        if self._way.raw_pair:
            signature = _der_pair(signature)
        return released_digest(signature, digest, spki=self._spki, name=self._name)

    def _signed(self, octets: bytes) -> bytes:
        def act(session: Any) -> bytes:
            private, asks = self._private(session)
            pin = {"pin": self._token.pin()} if asks else {}
            signature: bytes = private.sign(octets, mechanism=self._way.sign, **pin)
            return signature

        return self._token.use(act)

    def _private(self, session: Any) -> tuple[Any, bool]:
        """The key's object, and whether it wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE: slot 9c of a PIV card)."""
        if self._held is None or self._held[0] is not session:
            found = _objects(session, pkcs11.ObjectClass.PRIVATE_KEY, self._name, self._id)
            if len(found) != 1:
                raise _no_such_key(self._name)
            # A handle lives as long as its session.
            self._held = (session, found[0], _attribute(found[0], A.ALWAYS_AUTHENTICATE) is True)
        return self._held[1], self._held[2]


class Pkcs11KeyStore:
    """A `KeyStore` over one token.

    Args:
        address: which token.
        pin: asked once, when the token is first needed; may raise `KeyUnavailable` itself.
        id: the CKA_ID that a key must have beside its label, where a label alone does not name it.
    """

    def __init__(self, address: TokenAddress, pin: Callable[[], bytes], *, id: bytes | None = None) -> None:  # noqa: A002
        self._token = Token(address, pin)
        self._id = id

    def ability(self) -> StoreAbility:
        """What its mechanisms say.

        Raises:
            KeyUnavailable: the token is not to be had.
        """
        about, hardware, slot = self._token.about()
        return StoreAbility("pkcs11", _algorithms(slot), Protection.hardware if hardware else Protection.module, about)

    def open(self, name: KeyName) -> Pkcs11Key:
        """Find a key.

        Raises:
            KeyUnavailable: `no-such-key`, `key-ambiguous`, `key-unreadable`, or what `Token.use` says.
        """

        def find(session: Any) -> Pkcs11Key:
            private = self._one(session, name)
            spki, algorithm = _public(session, private, name)
            return Pkcs11Key(self._token, name, id=bytes(private[A.ID]), algorithm=algorithm, spki=spki)

        return self._token.use(find)

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> Pkcs11Key:
        """Have the token make a key pair.

        A crash in between leaves nothing, or the whole pair under that name. Asking again for the name is then refused.

        Raises:
            Unacceptable: `store-lacks-algorithm`; nothing was made.
            Conflict: `key-exists`.
            KeyUnavailable: the token made a key that it does not keep closed (`key-not-protected`); it was destroyed again.
        """
        check_algorithm(self.ability(), algorithm)
        way = _WAYS[algorithm]

        def make(session: Any) -> None:
            if any(_objects(session, kind, name, None) for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY)):
                raise Conflict(
                    "key-exists", f"The token has a key called {name} already; it is not overwritten.", fix="Choose another name."
                )
            id_ = self._id or session.generate_random(_ID_OCTETS * 8)
            public_says = {A.VERIFY: True, A.ENCRYPT: False, A.WRAP: False}
            arguments = {
                "store": True,
                "label": name,
                "id": id_,
                "private_template": {key: value for key, value in _CLOSED.items() if key is not A.TOKEN},
                "public_template": public_says,
                "capabilities": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            }
            if way.kind is pkcs11.KeyType.RSA:
                pair = session.generate_keypair(way.kind, way.bits, mechanism=way.generate, **arguments)
            else:
                pair = _generate_on_curve(session, way, arguments)
            said = {attribute: _attribute(pair[1], attribute) for attribute in _MUST_SAY}
            wrong = [attribute.name for attribute, value in _MUST_SAY.items() if said[attribute] is not value]
            if wrong:
                for half in pair:
                    half.destroy()
                raise KeyUnavailable(
                    "key-not-protected",
                    f"The token does not keep the key {name} closed; it was destroyed again.",
                    why=f"It answers otherwise than asked for {', '.join(wrong)}.",
                    fix="Use another token, or its strict (FIPS) mode.",
                )

        self._token.use(make)
        return self.open(name)

    def names(self) -> Sequence[KeyName]:
        """The labels of all private keys, sorted."""
        return [held.name for held in self.held()]

    def held(self) -> Sequence[HeldKey]:
        """Every private key of the token, also of kinds that we cannot use."""

        def look(session: Any) -> list[HeldKey]:
            found = session.get_objects({A.CLASS: pkcs11.ObjectClass.PRIVATE_KEY})
            return sorted((_held(session, private) for private in list(found)), key=lambda key: key.name)

        return self._token.use(look)

    def destroy(self, name: KeyName) -> Destruction:
        """Have the token destroy both halves, and ask it for them again.

        Raises:
            KeyUnavailable: `no-such-key`, or the token keeps it (`key-not-destroyed`).
        """
        ability = self.ability()

        def remove(session: Any) -> tuple[tuple[str, str], ...]:
            private = self._one(session, name)
            id_ = bytes(private[A.ID])
            said = tuple((attribute.name.lower(), str(_attribute(private, attribute))) for attribute in _MUST_SAY)
            for half in (private, *_objects(session, pkcs11.ObjectClass.PUBLIC_KEY, name, id_)):
                half.destroy()
            left = sum(len(_objects(session, kind, name, None)) for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY))
            if left:
                raise KeyUnavailable(
                    "key-not-destroyed", f"The token still has the key {name}.", why=f"{left} objects of that label are left."
                )
            return (("id", id_.hex()), *said, ("done", "C_DestroyObject: CKR_OK"), ("asked again", "no object of that label"))

        return Destruction(name, ability, self._token.use(remove))

    def _one(self, session: Any, name: KeyName) -> Any:
        found = _objects(session, pkcs11.ObjectClass.PRIVATE_KEY, name, self._id)
        if not found:
            raise _no_such_key(name)
        if len(found) > 1:
            raise KeyUnavailable(
                "key-ambiguous", f"The token has {len(found)} private keys called {name}.", fix="Say id= in the key's setting."
            )
        return found[0]


def _no_such_key(name: KeyName) -> KeyUnavailable:
    return KeyUnavailable("no-such-key", f"The token has no private key called {name}.", fix="Check object= in the key's setting.")


def _algorithms(slot: Any) -> frozenset[AlgorithmName]:
    offered = set(slot.get_mechanisms())
    found = set()
    for name, way in _WAYS.items():
        if {way.generate, way.sign} <= offered:
            size = slot.get_mechanism_info(way.generate)
            if not way.bits or size.min_key_length <= way.bits <= size.max_key_length:
                found.add(name)
    return frozenset(found)


def _objects(session: Any, kind: Any, name: KeyName, id_: bytes | None) -> list[Any]:
    wanted = {A.CLASS: kind, A.LABEL: name} | ({} if id_ is None else {A.ID: id_})
    return list(session.get_objects(wanted))


def _generate_on_curve(session: Any, way: _Way, arguments: dict[str, Any]) -> tuple[Any, Any]:
    def make(parameters: bytes) -> tuple[Any, Any]:
        domain = session.create_domain_parameters(way.kind, {A.EC_PARAMS: parameters}, local=True)
        pair: tuple[Any, Any] = domain.generate_keypair(mechanism=way.generate, **arguments)
        return pair

    try:
        return make(way.parameters)
    except (exceptions.DomainParamsInvalid, exceptions.AttributeValueInvalid, exceptions.ArgumentsBad):
        if way.kind is not pkcs11.KeyType.EC_EDWARDS:
            raise
        return make(_ED25519_NAME)


def _attribute(half: Any, attribute: Any) -> Any:
    try:
        return half[attribute]
    except exceptions.PKCS11Error:
        return None


def _public(session: Any, private: Any, name: KeyName) -> tuple[bytes, AlgorithmName]:
    """Read off the public half. One without it cannot be told what it is (most tokens do not say the point of a private key).

    Cards give the public half another label, or have it in the certificate only: what belongs together has one CKA_ID (PKCS#11 2.40, 4.9;
    for PIV, OpenSC and ykcs11 see to it). Whether it is the right half shows in each signature, which is verified before it leaves.
    """
    try:
        public: Any = _public_half(session, name, bytes(private[A.ID]))
        row = None if public is None else algorithm_of(public)
    except (ValueError, KeyError, FleetcaError, exceptions.PKCS11Error) as error:
        raise KeyUnavailable("key-unreadable", f"The key {name} on the token is no kind that we use.", why=str(error)) from None
    if public is None or row is None:
        raise KeyUnavailable(
            "key-unreadable",
            f"The token has no public half of the key {name}.",
            why="A public key or certificate with the id of the private one is needed.",
            fix="Write the public key beside the private one (pkcs11-tool --write-object --type pubkey), or its certificate (--type cert).",
        )
    spki: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return spki, row.name


def _public_half(session: Any, name: KeyName, id_: bytes) -> Any:
    labelled = _objects(session, pkcs11.ObjectClass.PUBLIC_KEY, name, id_)
    if labelled or not id_:
        return _loaded(labelled[0]) if labelled else None
    for kind, read in ((pkcs11.ObjectClass.PUBLIC_KEY, _loaded), (pkcs11.ObjectClass.CERTIFICATE, _certified)):
        found = list(session.get_objects({A.CLASS: kind, A.ID: id_}))
        if found:
            return read(found[0])
    return None


def _certified(certificate: Any) -> Any:
    return x509.load_der_x509_certificate(bytes(certificate[A.VALUE])).public_key()


def _loaded(public: Any) -> Any:
    kind = public[A.KEY_TYPE]
    if kind is pkcs11.KeyType.RSA:
        modulus, exponent = (int.from_bytes(public[each], "big") for each in (A.MODULUS, A.PUBLIC_EXPONENT))
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    point, parameters = bytes(public[A.EC_POINT]), bytes(public[A.EC_PARAMS])
    if kind is pkcs11.KeyType.EC_EDWARDS:
        if parameters not in (_ED25519_OID, _ED25519_NAME):
            raise ValueError("It is on another curve than Ed25519.")
        return ed25519.Ed25519PublicKey.from_public_bytes(point[-32:])
    curve = {_P256_OID: ec.SECP256R1, _P384_OID: ec.SECP384R1}[parameters]()
    # CKA_EC_POINT is the point inside an OCTET STRING (PKCS#11 2.40, 2.3.3); some tokens leave that out.
    size = 1 + 2 * curve.key_size // 8
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, point[-size:])


def _held(session: Any, private: Any) -> HeldKey:
    name = KeyName(str(_attribute(private, A.LABEL) or ""))
    said = tuple((attribute.name.lower(), str(_attribute(private, attribute))) for attribute in _MUST_SAY)
    facts = (("id", bytes(_attribute(private, A.ID) or b"").hex()), *said)
    try:
        spki, algorithm = _public(session, private, name)
    except KeyUnavailable:
        return HeldKey(name, None, None, facts)
    return HeldKey(name, algorithm, spki, facts)


def _der_pair(raw: bytes) -> bytes:
    half = len(raw) // 2
    return utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
