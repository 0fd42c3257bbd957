"""Secrets in CMS: enveloped to certificates (RSAES-OAEP, RFC 3560; ephemeral ECDH, RFC 5753) or under shared AES keys (RFC 3565), and opened again. Ring 3.

Written is AuthEnvelopedData with AES-256-GCM (RFC 5083, RFC 5084), or EnvelopedData with AES-256-CBC (RFC 5652) for what knows only that: it does
not show that it was changed. Read is what openssl writes too, but never PKCS#1 v1.5: whoever may try can read what was encrypted so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from asn1crypto import cms as asn1_cms
from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.der import writer
from ca.errors import Malformed, Unacceptable, Unauthenticated
from ca.rules.wrap import SIZES

LARGEST: Final = 256 * 1024
SMALLEST_RSA: Final = 2048
_DATA: Final = "1.2.840.113549.1.7.1"
_ENVELOPED: Final = "1.2.840.113549.1.7.3"
_AUTH_ENVELOPED: Final = "1.2.840.113549.1.9.16.1.23"
_AES: Final = "2.16.840.1.101.3.4.1."
_GCM: Final = {f"{_AES}6": 16, f"{_AES}26": 24, f"{_AES}46": 32}
_CBC: Final = {f"{_AES}2": 16, f"{_AES}22": 24, f"{_AES}42": 32}
_WRAP: Final = {f"{_AES}5": 16, f"{_AES}25": 24, f"{_AES}45": 32}
_WRAP_OF: Final = {size: oid for oid, size in _WRAP.items()}
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_OAEP: Final = "1.2.840.113549.1.1.7"
_MGF1: Final = "1.2.840.113549.1.1.8"
_EC_KEY: Final = "1.2.840.10045.2.1"
_ECDH_SHA256: Final = "1.3.132.1.11.1"
_ECDH: Final[dict[str, hashes.HashAlgorithm]] = {
    "1.3.133.16.840.63.0.2": hashes.SHA1(),  # noqa: S303 - as a KDF it stands; openssl writes it unless told otherwise
    "1.3.132.1.11.0": hashes.SHA224(),
    _ECDH_SHA256: hashes.SHA256(),
    "1.3.132.1.11.2": hashes.SHA384(),
    "1.3.132.1.11.3": hashes.SHA512(),
}
_OAEP_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - as above
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Certified:
    """Whoever has the key of a certificate (DER)."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class Shared:
    """Whoever has an AES key, and what it is called between the two."""

    key: bytes
    name: bytes

    def __repr__(self) -> str:
        return f"Shared({self.name!r})"


@dataclass(frozen=True, slots=True)
class Opener:
    """A private key of the cryptography library with its certificate (DER)."""

    private: Any
    certificate: bytes

    def __repr__(self) -> str:
        return "Opener()"


def write(secret: bytes, recipients: Sequence[Certified | Shared], *, authenticated: bool = True) -> bytes:
    """ContentInfo (DER) with the secret as id-data.

    Raises:
        Unacceptable: a key that nothing can be encrypted to, or a weak one (`transport-weak`); a secret that is too long (`cms-length`).
    """
    if not recipients or not 0 < len(secret) <= LARGEST:
        raise Unacceptable("cms-length", f"A secret has 1 to {LARGEST} octets, and a recipient at least.")
    content, chance = AESGCM.generate_key(256), AESGCM.generate_key(128)
    infos = sorted(_to(one, content) for one in recipients)
    every = writer.tlv(writer.SET, b"".join(infos))
    if authenticated:
        sealed = AESGCM(content).encrypt(chance[:12], secret, None)
        algorithm = writer.sequence(writer.oid(f"{_AES}46"), writer.sequence(writer.octet_string(chance[:12]), writer.integer(16)))
        inner = writer.sequence(writer.oid(_DATA), algorithm, writer.implicit(0, sealed[:-16]))
        return _content(_AUTH_ENVELOPED, writer.integer(0), every, inner, writer.octet_string(sealed[-16:]))
    padder, sealer = PKCS7(128).padder(), Cipher(AES(content), modes.CBC(chance)).encryptor()
    octets = sealer.update(padder.update(secret) + padder.finalize()) + sealer.finalize()
    algorithm = writer.sequence(writer.oid(f"{_AES}42"), writer.octet_string(chance))
    # RFC 5652 6.1: 0 where every recipient is named by version 0 of KeyTransRecipientInfo, 2 otherwise.
    version = 0 if all(info[0] == writer.SEQUENCE for info in infos) else 2
    return _content(_ENVELOPED, writer.integer(version), every, writer.sequence(writer.oid(_DATA), algorithm, writer.implicit(0, octets)))


def _content(kind: str, *elements: bytes) -> bytes:
    return writer.sequence(writer.oid(kind), writer.explicit(0, writer.sequence(*elements)))


def _to(recipient: Certified | Shared, content: bytes) -> bytes:
    if isinstance(recipient, Shared):
        if len(recipient.key) != 32:
            raise _weak(f"The wrapping key has {len(recipient.key) * 8} bits, and 256 are asked for.")
        named = writer.sequence(writer.octet_string(recipient.name))
        wrapping = writer.sequence(writer.oid(_WRAP_OF[32]))
        return writer.tlv(0xA2, writer.integer(4) + named + wrapping + writer.octet_string(aes_key_wrap(recipient.key, content)))
    found = x509.load_der_x509_certificate(recipient.certificate)
    public = found.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= SMALLEST_RSA:
        return _by_oaep(found, public, content)
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= 256:
        return _by_ecdh(found, public, content)
    raise _weak("RSA-2048, P-256 and above are taken.")


def _weak(why: str) -> Unacceptable:
    return Unacceptable("transport-weak", "Nothing is encrypted to a key of that kind or size.", why=why)


def _named(found: x509.Certificate) -> bytes:
    return writer.sequence(found.issuer.public_bytes(), writer.integer(found.serial_number))


def _by_oaep(found: x509.Certificate, public: rsa.RSAPublicKey, content: bytes) -> bytes:
    sha256 = writer.sequence(writer.oid(_SHA256), writer.NULL)
    parameters = writer.sequence(writer.explicit(0, sha256), writer.explicit(1, writer.sequence(writer.oid(_MGF1), sha256)))
    wrapped = public.encrypt(content, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    return writer.sequence(writer.integer(0), _named(found), writer.sequence(writer.oid(_OAEP), parameters), writer.octet_string(wrapped))


def _by_ecdh(found: x509.Certificate, public: ec.EllipticCurvePublicKey, content: bytes) -> bytes:
    ephemeral = ec.generate_private_key(public.curve)
    wrapping = writer.sequence(writer.oid(_WRAP_OF[32]))
    key = X963KDF(hashes.SHA256(), 32, _shared_info(wrapping, None, 256)).derive(ephemeral.exchange(ec.ECDH(), public))
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    originator = writer.tlv(0xA1, writer.sequence(writer.oid(_EC_KEY)) + writer.bit_string(point))
    keys = writer.sequence(writer.sequence(_named(found), writer.octet_string(aes_key_wrap(key, content))))
    agreement = writer.sequence(writer.oid(_ECDH_SHA256), wrapping)
    return writer.tlv(0xA1, writer.integer(3) + writer.explicit(0, originator) + agreement + keys)


def _shared_info(wrapping: bytes, user: bytes | None, bits: int) -> bytes:
    """ECC-CMS-SharedInfo (RFC 5753 7.2)."""
    more = b"" if user is None else writer.explicit(0, writer.octet_string(user))
    return writer.sequence(wrapping, more, writer.explicit(2, writer.octet_string(bits.to_bytes(4, "big"))))


# ---- Opening -------------------------------------------------------------------------------------------------------------


def read(octets: bytes, by: Opener | Shared) -> bytes:
    """The secret in a ContentInfo (DER or BER).

    Raises:
        Malformed: it is none (`bad-cms`).
        Unacceptable: it is written in a way that is not read here (`cms-algorithm`).
        Unauthenticated: it is for somebody else (`cms-not-for-us`), or another key wrapped it or it was changed since (`unwrap-failed`).
    """
    if len(octets) > 2 * LARGEST:
        raise Malformed("bad-cms", "This is no enveloped secret.", why=f"It has {len(octets)} octets.")
    try:
        info = asn1_cms.ContentInfo.load(octets, strict=True)
        kind = info["content_type"].dotted
        body = info["content"]
        if kind not in {_ENVELOPED, _AUTH_ENVELOPED}:
            raise _unread(f"Its content type is {kind}.")
        inner = body["encrypted_content_info" if kind == _ENVELOPED else "auth_encrypted_content_info"]
        algorithm, sealed = inner["content_encryption_algorithm"], inner["encrypted_content"].native
        mac = body["mac"].native if kind == _AUTH_ENVELOPED else b""
        attributes = body["auth_attrs"] if kind == _AUTH_ENVELOPED else None
        # RFC 5083 2.2: what was authenticated is the DER of a SET, whatever tag it stands under.
        also = b"" if attributes is None or isinstance(attributes, core.Void) else attributes.untag().dump(force=True)
        content = _content_key(body["recipient_infos"], by)
        return _opened(algorithm, content, sealed or b"", mac, also)
    except (InvalidTag, InvalidUnwrap):
        raise Unauthenticated(
            "unwrap-failed", "The key cannot be unwrapped.", why="It was wrapped under another key, or changed since.",
            fix="Compare the check values of the wrapping keys.",
        ) from None  # fmt: skip
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise Malformed("bad-cms", "This is no enveloped secret.", why=str(error)[:200]) from None


def _unread(why: str) -> Unacceptable:
    return Unacceptable(
        "cms-algorithm", "The secret is enveloped in a way that is not read here.", why=why,
        fix="Use AES-GCM or AES-CBC with ECDH, RSAES-OAEP (openssl cms -keyopt rsa_padding_mode:oaep) or AES key wrap.",
    )  # fmt: skip


def _opened(algorithm: Any, content: bytes, sealed: bytes, mac: bytes, also: bytes) -> bytes:
    oid = algorithm["algorithm"].dotted
    if oid in _GCM and len(content) == _GCM[oid] and len(mac) >= 12:
        nonce = core.Sequence.load(algorithm["parameters"].dump())[0].native if mac else b""
        opened = Cipher(AES(content), modes.GCM(nonce, mac, min_tag_length=12)).decryptor()
        opened.authenticate_additional_data(also)
        return opened.update(sealed) + opened.finalize()
    if oid in _CBC and len(content) == _CBC[oid] and not mac:
        opener = Cipher(AES(content), modes.CBC(core.OctetString.load(algorithm["parameters"].dump()).native)).decryptor()
        unpadder = PKCS7(128).unpadder()
        try:
            return unpadder.update(opener.update(sealed) + opener.finalize()) + unpadder.finalize()
        except ValueError:
            raise InvalidTag from None
    raise _unread(f"Its content is encrypted with {oid}.")


def _content_key(infos: Any, by: Opener | Shared) -> bytes:
    own = None if isinstance(by, Shared) else x509.load_der_x509_certificate(by.certificate)
    for info in infos:
        found = info.chosen
        if isinstance(by, Shared):
            if info.name == "kekri" and found["kekid"]["key_identifier"].native == by.name:
                return _unwrapped(found["key_encryption_algorithm"]["algorithm"].dotted, by.key, found["encrypted_key"].native)
        elif own is not None and info.name == "ktri" and _is(found["rid"], own):
            return _from_oaep(found, by.private)
        elif own is not None and info.name == "kari":
            for each in found["recipient_encrypted_keys"]:
                if _is(each["rid"], own):
                    return _from_ecdh(found, each["encrypted_key"].native, by.private)
    raise Unauthenticated(
        "cms-not-for-us", "The secret is enveloped for somebody else.", why="None of its recipients is the key that was given."
    )


def _is(rid: Any, own: x509.Certificate) -> bool:
    if rid.name == "issuer_and_serial_number":
        return bool(rid.chosen["serial_number"].native == own.serial_number and rid.chosen["issuer"].dump() == own.issuer.public_bytes())
    identifier = rid.chosen["subject_key_identifier"].native if rid.name == "r_key_id" else rid.chosen.native
    try:
        return bool(own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest == identifier)
    except x509.ExtensionNotFound:
        return False


def _from_oaep(found: Any, private: Any) -> bytes:
    algorithm = found["key_encryption_algorithm"]
    if algorithm["algorithm"].dotted != _OAEP:
        raise _unread("Its key is encrypted by PKCS#1 v1.5.")
    parameters = algorithm["parameters"]
    digest = _OAEP_HASHES[parameters["hash_algorithm"]["algorithm"].native]
    mask = _OAEP_HASHES[parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native]
    try:
        opened: bytes = private.decrypt(found["encrypted_key"].native, padding.OAEP(padding.MGF1(mask), digest, None))
    except ValueError:
        raise InvalidUnwrap from None
    return opened


def _from_ecdh(found: Any, wrapped: bytes, private: ec.EllipticCurvePrivateKey) -> bytes:
    algorithm = found["key_encryption_algorithm"]
    oid = algorithm["algorithm"].dotted
    if oid not in _ECDH or found["originator"].name != "originator_key":
        raise _unread(f"Its key is agreed on by {oid}.")
    wrapping = core.Sequence.load(algorithm["parameters"].dump())
    name = wrapping[0].dotted
    if name not in _WRAP:
        raise _unread(f"Its key is wrapped by {name}.")
    point = bytes(found["originator"].chosen["public_key"].native)
    public = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, point)
    user = found["ukm"].native
    size = _WRAP[name]
    key = X963KDF(_ECDH[oid], size, _shared_info(wrapping.dump(), user, size * 8)).derive(private.exchange(ec.ECDH(), public))
    return _unwrapped(name, key, wrapped)


def _unwrapped(oid: str, key: bytes, wrapped: bytes) -> bytes:
    if oid not in _WRAP:
        raise _unread(f"Its key is wrapped by {oid}.")
    if len(key) != _WRAP[oid] or len(key) not in SIZES:
        raise InvalidUnwrap
    return aes_key_unwrap(key, wrapped)
