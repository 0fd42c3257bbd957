"""TPM2_MakeCredential, done here: a secret that only the TPM with this endorsement key gives out, and only if it holds that other key too. Ring 1.

TPM 2.0 Library (1.59), part 1: key derivation 11.4.10 (KDFa, KDFe), credential protection 24, secret sharing B.10.4 (RSA) and C.6.4 (elliptic
curve). Pure: what is random comes in, so that every credential can be made again and compared (P12). No private key of anybody's is in here.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ca.errors import Unacceptable

CHANCE: Final = 128
"""Octets of randomness that one credential takes."""
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """A credential, as TPM2_ActivateCredential takes it: the contents of a TPM2B_ID_OBJECT and of a TPM2B_ENCRYPTED_SECRET."""

    blob: bytes
    seed: bytes


@dataclass(frozen=True, slots=True)
class _Template:
    """What an endorsement key of this kind is made with: the templates of the TCG EK Credential Profile (B.3, B.4)."""

    digest: str
    """Its nameAlg."""
    aes: int
    """Bits of the cipher that protects what is under it."""

    @property
    def octets(self) -> int:
        return hashlib.new(self.digest).digest_size


_LOW: Final = _Template("sha256", 128)
_HIGH: Final = _Template("sha384", 256)


def _template(key: Any) -> _Template | None:
    if isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e == 65537:
        return {2048: _LOW, 3072: _HIGH, 4096: _HIGH}.get(key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": _LOW, "secp384r1": _HIGH}.get(key.curve.name)
    return None


def fits(key: Any) -> bool:
    """Whether a public key is of a kind that endorsement keys have."""
    return _template(key) is not None


def make_credential(key: Any, name: bytes, secret: bytes, *, chance: bytes) -> Sealed:
    """Protect a secret for the TPM whose endorsement key this is, to be given out only beside the object of that name.

    Args:
        key: RSA or elliptic curve public key, of a kind that `fits`.
        name: of the other key: hash algorithm and hash of its public area.
        secret: at most 32 octets.
        chance: `CHANCE` octets from the random generator.

    Raises:
        Unacceptable: no endorsement key is of that kind (`endorsement-kind`).
    """
    template = _template(key)
    if template is None:
        raise Unacceptable("endorsement-kind", "No endorsement key is of this kind.", why="RSA-2048 to 4096, P-256 and P-384 are known.")
    assert len(chance) == CHANCE, "wiring gives as much as is asked for"
    assert 0 < len(secret) <= template.octets, "a credential is at most as long as the hash"
    if isinstance(key, rsa.RSAPublicKey):
        seed = chance[: template.octets]
        shared = _oaep(key, seed, template.digest, salt=chance[48 : 48 + template.octets])
    else:
        seed, shared = _agreed(key, template, chance[: key.curve.key_size // 8 + 8])
    cipher = kdfa(template.digest, seed, b"STORAGE", u=name, bits=template.aes)
    identity = _cfb(cipher, struct.pack(">H", len(secret)) + secret)
    mac = kdfa(template.digest, seed, b"INTEGRITY", bits=template.octets * 8)
    outer = hmac.new(mac, identity + name, template.digest).digest()
    return Sealed(struct.pack(">H", len(outer)) + outer + identity, shared)


def kdfa(digest: str, key: bytes, label: bytes, *, u: bytes = b"", v: bytes = b"", bits: int) -> bytes:
    """KDFa (11.4.10.2): SP 800-108 in counter mode with HMAC; the label ends with a zero octet."""
    fixed = label + b"\0" + u + v + struct.pack(">I", bits)
    return _counted(lambda counter: hmac.new(key, counter + fixed, digest).digest(), bits)


def kdfe(digest: str, z: bytes, label: bytes, *, u: bytes, v: bytes, bits: int) -> bytes:
    """KDFe (11.4.10.3): SP 800-56A's, with the x coordinates of both parties."""
    return _counted(lambda counter: hashlib.new(digest, counter + z + label + b"\0" + u + v).digest(), bits)


def _counted(block: Callable[[bytes], bytes], bits: int) -> bytes:
    out = b""
    counter = 0
    while len(out) * 8 < bits:
        counter += 1
        out += block(struct.pack(">I", counter))
    return out[: bits // 8]


def _cfb(key: bytes, plain: bytes) -> bytes:
    """AES in CFB mode with an initial vector of zeros; each key is used once."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time: the feedback is ours
    out, before = b"", bytes(_BLOCK)
    for start in range(0, len(plain), _BLOCK):
        part = plain[start : start + _BLOCK]
        before = _mixed(part, block.update(before))
        out += before
    return out


def _mixed(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))


def _oaep(key: rsa.RSAPublicKey, message: bytes, digest: str, *, salt: bytes) -> bytes:
    """RSAES-OAEP (RFC 8017 7.1.1) with the label IDENTITY and a given salt: encryption only, so nothing here can be an oracle."""
    numbers = key.public_numbers()
    length = key.key_size // 8
    size = hashlib.new(digest).digest_size
    label = hashlib.new(digest, b"IDENTITY\0").digest()
    data = label + bytes(length - len(message) - 2 * size - 2) + b"\x01" + message
    masked = _mixed(data, _mgf1(salt, len(data), digest))
    head = _mixed(salt, _mgf1(masked, size, digest))
    return pow(int.from_bytes(head + masked, "big"), numbers.e, numbers.n).to_bytes(length, "big")


def _mgf1(seed: bytes, length: int, digest: str) -> bytes:
    out = b""
    counter = 0
    while len(out) < length:
        out += hashlib.new(digest, seed + struct.pack(">I", counter)).digest()
        counter += 1
    return out[:length]


_ORDERS: Final = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("ff" * 24 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
}


def _agreed(key: ec.EllipticCurvePublicKey, template: _Template, chance: bytes) -> tuple[bytes, bytes]:
    """A seed that both sides compute (C.6.4), and our half of the agreement as a TPMS_ECC_POINT."""
    size = key.curve.key_size // 8
    # 64 bits more than the order has, so that the remainder is as good as uniform (FIPS 186-5 A.2.1).
    scalar = int.from_bytes(chance, "big") % (_ORDERS[key.curve.name] - 1) + 1
    ours = ec.derive_private_key(scalar, key.curve)
    point, theirs = ours.public_key().public_numbers(), key.public_numbers()
    x, y = (number.to_bytes(size, "big") for number in (point.x, point.y))
    z = ours.exchange(ec.ECDH(), key)
    seed = kdfe(template.digest, z, b"IDENTITY", u=x, v=theirs.x.to_bytes(size, "big"), bits=template.octets * 8)
    return seed, struct.pack(">H", size) + x + struct.pack(">H", size) + y
