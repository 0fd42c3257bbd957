"""A TPM in Python, as the specification describes it and not as our code does: what it says, and everything that somebody could say in its place.

Key derivation, ciphers and padding are the library's; the structures are written out here once more.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from ca.model import Challenge, TpmAttestation
from tests.fakes.certificates import NOW

FREE = 0x00040072
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign."""
ATTESTER = 0x00050072
"""The same, restricted."""
EK_PURPOSE = "2.23.133.8.1"
SAYS = (("2.23.133.2.1", "id:00001014"), ("2.23.133.2.2", "fake"), ("2.23.133.2.3", "id:0001"))


def sized(octets: bytes) -> bytes:
    return struct.pack(">H", len(octets)) + octets


def public_area(key: Any, attributes: int = FREE, *, digest: int = 0x000B, scheme: bytes | None = None, policy: bytes = b"") -> bytes:
    """TPMT_PUBLIC."""
    if isinstance(key, rsa.RSAPublicKey):
        chosen = struct.pack(">HH", 0x0014, 0x000B) if scheme is None else scheme
        size = key.key_size // 8
        body = (
            struct.pack(">H", 0x0010) + chosen + struct.pack(">HI", key.key_size, 0) + sized(key.public_numbers().n.to_bytes(size, "big"))
        )
        return struct.pack(">HHI", 0x0001, digest, attributes) + sized(policy) + body
    point, size = key.public_numbers(), key.curve.key_size // 8
    chosen = struct.pack(">HH", 0x0018, 0x000B) if scheme is None else scheme
    body = struct.pack(">H", 0x0010) + chosen + struct.pack(">HH", {32: 3, 48: 4}[size], 0x0010)
    body += sized(point.x.to_bytes(size, "big")) + sized(point.y.to_bytes(size, "big"))
    return struct.pack(">HHI", 0x0023, digest, attributes) + sized(policy) + body


def name_of(area: bytes) -> bytes:
    return b"\x00\x0b" + hashlib.sha256(area).digest()


def attest_of(nonce: bytes, name: bytes, *, magic: int = 0xFF544347, kind: int = 0x8017, more: bytes = b"") -> bytes:
    """TPMS_ATTEST."""
    clock = struct.pack(">QIIB", 123456, 2, 0, 1)
    head = struct.pack(">IH", magic, kind) + sized(b"\x00\x0b" + bytes(32)) + sized(nonce) + clock + struct.pack(">Q", 0x2019)
    return head + sized(name) + sized(b"\x00\x0b" + bytes(32)) + more


def signature_of(key: Any, message: bytes) -> bytes:
    """TPMT_SIGNATURE."""
    if isinstance(key, rsa.RSAPrivateKey):
        return struct.pack(">HH", 0x0014, 0x000B) + sized(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    size = key.curve.key_size // 8
    return struct.pack(">HH", 0x0018, 0x000B) + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))


@dataclass
class Maker:
    """A maker of TPMs: a root and a CA below it."""

    name: str = "maker"
    root: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def certificate(self, *, of_root: bool = False, **more: Any) -> bytes:
        subject = f"{self.name} root" if of_root else f"{self.name} CA"
        key = self.root if of_root else self.key
        return make(
            subject, key.public_key(), f"{self.name} root", self.root, [(x509.BasicConstraints(ca=True, path_length=None), True)], **more
        )

    def endorse(
        self,
        key: Any,
        *,
        says: Sequence[tuple[str, str]] = SAYS,
        purposes: Sequence[str] = (EK_PURPOSE,),
        usage: Sequence[str] | None = None,
        authority: bool = False,
        more: Sequence[tuple[Any, bool]] = (),
        **dates: int,
    ) -> bytes:
        """An endorsement certificate."""
        fitting = ("key_encipherment",) if isinstance(key, rsa.RSAPublicKey) else ("key_agreement",)
        words = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
             "encipher_only", "decipher_only"), False,
        ) | dict.fromkeys(fitting if usage is None else usage, True)  # fmt: skip
        name = x509.Name([x509.NameAttribute(ObjectIdentifier(oid), value) for oid, value in says])
        extensions: list[tuple[Any, bool]] = [(x509.BasicConstraints(ca=authority, path_length=None), True), (x509.KeyUsage(**words), True)]
        if says:
            extensions.append((x509.SubjectAlternativeName([x509.DirectoryName(name)]), True))
        if purposes:
            extensions.append((x509.ExtendedKeyUsage([ObjectIdentifier(one) for one in purposes]), False))
        return make("", key, f"{self.name} CA", self.key, [*extensions, *more], **dates)


def make(
    subject: str,
    key: Any,
    issuer: str,
    signer: Any,
    extensions: Sequence[tuple[Any, bool]],
    *,
    first: int = NOW - 86400,
    last: int = NOW + 30 * 365 * 86400,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(first, tz=dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(last, tz=dt.UTC))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


class FakeTpm:
    """Holds its keys as every program does, and answers challenges."""

    def __init__(self, maker: Maker, endorsement: Any = None, attester: Any = None) -> None:
        self.ek = endorsement or ec.generate_private_key(ec.SECP256R1())
        self.ak = attester or ec.generate_private_key(ec.SECP256R1())
        self.chain: tuple[bytes, ...] = (maker.endorse(self.ek.public_key()), maker.certificate())
        self.ak_area = public_area(self.ak.public_key(), ATTESTER)

    def activate(self, credential: bytes, seed: bytes, *, name: bytes | None = None) -> bytes | None:
        """TPM2_ActivateCredential; None where the integrity value is wrong."""
        name = name_of(self.ak_area) if name is None else name
        digest: Any = hashes.SHA256()
        if isinstance(self.ek, rsa.RSAPrivateKey):
            digest = hashes.SHA256() if self.ek.key_size == 2048 else hashes.SHA384()
            plain = self.ek.decrypt(seed, padding.OAEP(padding.MGF1(digest), digest, b"IDENTITY\0"))
        else:
            size = self.ek.curve.key_size // 8
            digest = hashes.SHA256() if size == 32 else hashes.SHA384()
            x, y = (int.from_bytes(seed[at : at + size], "big") for at in (2, 4 + size))
            theirs = ec.EllipticCurvePublicNumbers(x, y, self.ek.curve).public_key()
            own = self.ek.public_key().public_numbers().x.to_bytes(size, "big")
            parties = b"IDENTITY\0" + x.to_bytes(size, "big") + own
            plain = ConcatKDFHash(digest, digest.digest_size, parties).derive(self.ek.exchange(ec.ECDH(), theirs))
        (length,) = struct.unpack(">H", credential[:2])
        integrity, identity = credential[2 : 2 + length], credential[2 + length :]
        mac = _kdfa(digest, plain, b"INTEGRITY", b"", digest.digest_size)
        if integrity != hmac.digest(mac, identity + name, digest.name):
            return None
        cipher = _kdfa(digest, plain, b"STORAGE", name, 16 if digest.digest_size == 32 else 32)
        decryptor = Cipher(algorithms.AES(cipher), CFB(bytes(16))).decryptor()
        opened = decryptor.update(identity) + decryptor.finalize()
        (length,) = struct.unpack(">H", opened[:2])
        return opened[2 : 2 + length]

    def attestation(self, challenge: Challenge, key: Any, **changes: Any) -> TpmAttestation:
        """What goes with a request for a certificate of that key, as an honest TPM says it; `changes` says otherwise."""
        area = changes.pop("area", None) or public_area(key.public_key())
        attest = changes.pop("attest", None) or attest_of(changes.pop("nonce", challenge.nonce), changes.pop("name", name_of(area)))
        secret = changes.pop("secret", None) or self.activate(challenge.credential, challenge.seed)
        signature = changes.pop("signature", None) or signature_of(changes.pop("signer", self.ak), attest)
        made = {"endorsement": self.chain, "attestation_key": self.ak_area, "ticket": challenge.ticket, "secret": secret or b""}
        return TpmAttestation(**{**made, "key": area, "attest": attest, "signature": signature, **changes})


def _kdfa(digest: Any, key: bytes, label: bytes, context: bytes, length: int) -> bytes:
    location = CounterLocation.BeforeFixed
    return KBKDFHMAC(digest, Mode.CounterMode, length, 4, 4, location, label, context, None).derive(key)
