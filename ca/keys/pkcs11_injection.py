"""Keys that a token makes for a unit, and lets out only wrapped. Ring 3.

The pair lives in one session, is marked sensitive, and is never on the token's disk. CKA_EXTRACTABLE lets it be wrapped and not read: the token is asked for
the private octets, and a key that it shows is not used. The transport key is an AES key that the unit has too; it is given to the session for as long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import exceptions

from ca.der import writer
from ca.der.algorithms import ALGORITHMS, load_public_key, verify
from ca.der.request import request_info
from ca.errors import KeyUnavailable, Unacceptable
from ca.keys.injection import Injected, SharedTransport
from ca.keys.pkcs11 import _WAYS, A, M, _der_pair, _generate_on_curve, _loaded
from ca.keys.pkcs11_token import Token, TokenAddress
from ca.model import AlgorithmName

KINDS: Final = frozenset(map(AlgorithmName, ("p256", "p384")))
"""What it makes for units."""
# RFC 5649, by the name of PKCS#11 3.0 and by the one before.
_MECHANISMS: Final = (M.AES_KEY_WRAP_KWP, M.AES_KEY_WRAP_PAD)
_SPARE: Final = (exceptions.MechanismInvalid, exceptions.MechanismParamInvalid, exceptions.ArgumentsBad, exceptions.FunctionFailed)


def make(address: TokenAddress, pin: Callable[[], bytes], algorithm: AlgorithmName, transport: SharedTransport) -> Injected:
    """A key for a unit, made on a token; nothing of it stays there.

    Raises:
        Malformed, Unacceptable: the transport key cannot be used, or no such key is made for units (`store-lacks-algorithm`).
        KeyUnavailable: the token is not to be had, shows private keys (`key-not-protected`), or wraps none (`store-lacks-wrapping`).
    """
    name = transport.name
    if algorithm not in KINDS:
        raise Unacceptable(
            "store-lacks-algorithm", f"No {algorithm} keys are made on a token for units.", why=f"Known: {', '.join(sorted(KINDS))}."
        )
    if len(transport.key) != 32:
        raise Unacceptable("transport-weak", "Keys travel under AES-256.", why=f"The transport key has {len(transport.key) * 8} bits.")
    token = Token(address, pin)
    try:
        return token.use(lambda session: _made(session, algorithm, transport, name))
    finally:
        token.close()


def _made(session: Any, algorithm: AlgorithmName, transport: SharedTransport, name: str) -> Injected:
    public, private = _generate_on_curve(
        session,
        _WAYS[algorithm],
        {
            "store": False,
            "label": "unit",
            "private_template": {A.SENSITIVE: True, A.EXTRACTABLE: True, A.SIGN: True, A.DECRYPT: False, A.UNWRAP: False, A.DERIVE: False},
            "public_template": {A.VERIFY: True},
            "capabilities": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        },
    )
    wrapping = None
    try:
        if _shows(private):
            raise KeyUnavailable(
                "key-not-protected",
                "The token shows private keys; the one that was made is not used.",
                why="It gave out the value of a key that is marked sensitive, or does not mark it so.",
                fix="Use another token, or its strict (FIPS) mode.",
            )
        spki: bytes = _loaded(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        wrapping = session.create_object(
            {
                A.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                A.KEY_TYPE: pkcs11.KeyType.AES,
                A.VALUE: transport.key,
                A.TOKEN: False,
                A.SENSITIVE: True,
                A.EXTRACTABLE: False,
                A.WRAP: True,
                A.UNWRAP: False,
            }
        )
        return Injected(_csr(private, spki, algorithm), _wrapped(wrapping, private), "aes-kwp", name)
    finally:
        for each in (public, private, wrapping):
            if each is not None:
                each.destroy()


def _shows(private: Any) -> bool:
    try:
        bytes(private[A.VALUE])
    except exceptions.PKCS11Error:
        return private[A.SENSITIVE] is not True
    return True


def _csr(private: Any, spki: bytes, algorithm: AlgorithmName) -> bytes:
    way, row = _WAYS[algorithm], ALGORITHMS[algorithm]
    info = request_info({}, spki)
    assert way.digest is not None, "elliptic curves sign digests"
    signature = _der_pair(private.sign(hashlib.new(way.digest, info).digest(), mechanism=way.sign))
    verify(load_public_key(spki), signature, info)
    return writer.sequence(info, row.identifier, writer.bit_string(signature))


def _wrapped(wrapping: Any, private: Any) -> bytes:
    for mechanism in _MECHANISMS:
        try:
            return bytes(wrapping.wrap_key(private, mechanism=mechanism))
        except _SPARE:
            continue
    raise KeyUnavailable(
        "store-lacks-wrapping", "The token wraps no keys by AES-KWP (RFC 5649).", fix="Use another token, or make keys without one."
    )
