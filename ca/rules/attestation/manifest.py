"""What the maker of secure elements signs about them: one entry of a manifest, read strictly. Ring 1: pure.

The format is that of Microchip's Trust Platform: a JSON array, each element a flattened JWS (RFC 7515 7.2.2) by ES256 over one secure element:

    {"header": {"uniqueId": "0123..."}, "protected": "<base64url>", "payload": "<base64url>", "signature": "<base64url>"}

The protected header names the signer's certificate by its key identifier (`kid`) and its SHA-256 (`x5t#S256`); the payload holds `uniqueId`,
`publicKeySet` (JWKs, perhaps with certificates in `x5c`) and much that is not ours to judge: model, secrets that are encrypted to somebody. What of the
entry counts is signed: serial number, keys, time. An entry stands or falls by itself; one that is bad says nothing of its neighbours.

Its versions 1 and 3 are read; version 2 (the lite one) lists serial numbers without keys, by which no device can be known. The maker's own design tool
writes numbers without their leading zeros (RFC 7518 6.2.1.2 wants them) and certificates in base64url (RFC 7517 4.7 wants base64): both are read, since
a key is told from another by its SubjectPublicKeyInfo and not by how it was spelled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils

from ca.errors import Denied, FleetcaError, Malformed, Unacceptable, Unauthenticated
from ca.model import Digest, UnixTime
from ca.rules.key_quality import LARGEST_RSA, accepted_key

LARGEST_ENTRY: Final = 64 * 1024
"""Characters; one with two certificate chains and a set of encrypted secrets has some eight thousand."""
LARGEST_MANIFEST: Final = 512 * 1024 * 1024
MOST_KEYS: Final = 16
"""Slots of a secure element."""
_DEEPEST: Final = 16
_MEMBERS: Final = frozenset({"header", "protected", "payload", "signature"})
_UNIQUE_ID: Final = re.compile(r"[0-9A-Fa-f]{8,40}")
_CURVES: Final[Mapping[str, Any]] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_STANDARD: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class ManifestSigner:
    """Who signed a manifest, by the certificate that the maker publishes."""

    key: ec.EllipticCurvePublicKey
    thumbprint: str
    """base64url of the SHA-256 of the certificate."""
    identifier: str
    """base64url of its subjectKeyIdentifier."""
    digest: Digest
    not_before: UnixTime
    not_after: UnixTime


@dataclass(frozen=True, slots=True)
class Element:
    """One secure element, as its maker signed it."""

    unique_id: str
    """Its serial number: lower-case hexadecimal digits."""
    keys: tuple[Digest, ...]
    """SHA-256 of the SubjectPublicKeyInfo of each of its keys."""
    model: str
    made_at: UnixTime | None
    """provisioningTimestamp."""


def read_signer(der: bytes) -> ManifestSigner:
    """The certificate of a manifest's signer.

    Raises:
        Malformed: it cannot be read, has no P-256 key, or no subjectKeyIdentifier (`manifest-signer`).
    """
    try:
        loaded = x509.load_der_x509_certificate(der)
        key = loaded.public_key()
        identifier = loaded.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        first, last = (int(moment.timestamp()) for moment in (loaded.not_valid_before_utc, loaded.not_valid_after_utc))
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
        raise _signer("It cannot be read, or has no subjectKeyIdentifier.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise _signer("Its key is not on P-256, which ES256 takes.")
    digest = Digest(hashlib.sha256(der).digest())
    return ManifestSigner(key, _base64url(digest), _base64url(identifier), digest, first, last)


def _signer(why: str) -> Malformed:
    return Malformed("manifest-signer", "This is no certificate of a manifest's signer.", why=why, fix="Take the maker's own, as PEM.")


def entries(text: str) -> Iterator[str]:
    """The texts of a manifest's entries, in order; nothing of them is judged but that they are JSON.

    Raises:
        Malformed: it is no JSON array (`manifest-unreadable`).
    """
    decoder, at = json.JSONDecoder(), _past_space(text, 0)
    if text[at : at + 1] != "[":
        raise _unreadable("It must be an array.")
    at = _past_space(text, at + 1)
    if text[at : at + 1] == "]":
        at += 1
    else:
        while True:
            try:
                _, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                raise _unreadable(f"What begins at character {at} is no JSON.") from None
            yield text[at:end]
            at = _past_space(text, end)
            after = text[at : at + 1]
            at = _past_space(text, at + 1)
            if after == "]":
                break
            if after != ",":
                raise _unreadable(f"At character {at} neither a comma nor the array's end stands.")
    if _past_space(text, at) != len(text):
        raise _unreadable("There is more behind the array.")


def _past_space(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\n", "\r", "\t"}:
        at += 1
    return at


def _unreadable(why: str) -> Malformed:
    return Malformed("manifest-unreadable", "The manifest cannot be read; nothing of it was taken.", why=why, fix="Fetch it again.")


def claimed_id(text: str) -> str:
    """What an entry says that it is of, unverified: for people who look for it."""
    try:
        found = json.loads(text)["header"]["uniqueId"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return found[:40] if isinstance(found, str) and found.isprintable() else ""


def read_entry(text: str, signer: ManifestSigner) -> Element:
    """One entry, verified.

    Raises:
        Malformed: it is no signed secure element (`manifest-entry`), is too large (`manifest-entry-too-large`), has no serial number
            (`manifest-unique-id`), or a key that cannot be read (`manifest-key`).
        Unauthenticated: another signer's (`manifest-other-signer`), another algorithm (`manifest-algorithm`), or changed (`manifest-signature`).
        Denied: signed outside its signer's time (`manifest-out-of-time`).
        Unacceptable: a key that is weak (`weak-key`), of a kind that no device may have (`key-type`), known to everybody (`known-key`), or twice
            in it (`manifest-key-twice`).
    """
    if len(text) > LARGEST_ENTRY:
        raise Malformed("manifest-entry-too-large", "The entry is too large.", why=f"At most {LARGEST_ENTRY} characters are read.")
    whole = _object(text, "entry")
    if set(whole) != _MEMBERS or not all(isinstance(whole[name], str) for name in _MEMBERS - {"header"}):
        raise _entry("It must hold header, protected, payload and signature, and nothing else.")
    header, payload = (_object(_text(_octets(whole[name], name), name), name) for name in ("protected", "payload"))
    _by(header, signer)
    _verified(f"{whole['protected']}.{whole['payload']}".encode(), _octets(whole["signature"], "signature"), signer)
    unique = payload.get("uniqueId")
    outside = whole["header"]
    if not isinstance(unique, str) or not _UNIQUE_ID.fullmatch(unique):
        raise Malformed("manifest-unique-id", "The entry has no serial number.", why="uniqueId is 8 to 40 hexadecimal digits.")
    if not isinstance(outside, dict) or outside.get("uniqueId") != unique:
        raise Malformed(
            "manifest-unique-id", "The entry says two serial numbers.", why="That of its header is not the one that was signed."
        )
    made = _moment(payload.get("provisioningTimestamp"))
    if made is not None and not signer.not_before <= made <= signer.not_after:
        raise Denied("manifest-out-of-time", "The entry was made when its signer's certificate did not hold.")
    model = payload.get("model")
    return Element(unique.lower(), _keys(payload.get("publicKeySet")), model[:64] if isinstance(model, str) else "", made)


def _by(header: Mapping[str, Any], signer: ManifestSigner) -> None:
    if header.get("alg") != "ES256":
        raise Unauthenticated("manifest-algorithm", "The entry is not signed by ES256.", why="No other algorithm is taken, none above all.")
    if "crit" in header or header.get("b64", True) is not True:
        raise Unauthenticated("manifest-algorithm", "The entry's header asks for what is not known here.", why="It has crit or b64.")
    if header.get("kid", signer.identifier) != signer.identifier or header.get("x5t#S256", signer.thumbprint) != signer.thumbprint:
        raise Unauthenticated("manifest-other-signer", "The entry names another signer.", fix="Give that one's certificate: --signer FILE")


def _verified(signed: bytes, signature: bytes, signer: ManifestSigner) -> None:
    try:
        if len(signature) != 64:
            raise InvalidSignature
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
        signer.key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise Unauthenticated(
            "manifest-signature", "The entry's signature does not hold.", why="It was changed, or another key signed."
        ) from None


def _keys(found: object) -> tuple[Digest, ...]:
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or not 0 < len(keys) <= MOST_KEYS:
        raise Malformed(
            "manifest-key",
            "The entry has no keys, or too many.",
            why=f"publicKeySet holds 1 to {MOST_KEYS}; in a lite manifest (version 2) there are none.",
            fix="Ask the maker for the full manifest.",
        )
    digests = [_key(one) for one in keys]
    if len(set(digests)) != len(digests):
        raise Unacceptable("manifest-key-twice", "The entry has a key twice.")
    return tuple(digests)


def _key(jwk: object) -> Digest:
    if not isinstance(jwk, dict) or jwk.keys() & {"d", "p", "q", "k"}:
        raise Malformed("manifest-key", "A key of the entry cannot be read.", why="It must be a public JWK.")
    try:
        key = _public(jwk)
    except ValueError:
        raise Unacceptable(
            "weak-key", "A key of the entry is none.", why="Its point is not on its curve, or its numbers are no key's."
        ) from None
    accepted = accepted_key(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    _same_in_certificate(jwk.get("x5c"), accepted.spki)
    return accepted.spki_sha256


def _public(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    match jwk.get("kty"), jwk.get("crv"):
        case "EC", str(name) if name in _CURVES:
            curve = _CURVES[name]
            x, y = (_number(jwk, member, at_most=curve.key_size // 8) for member in ("x", "y"))
            return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_octets(jwk.get("x"), "x"))
        case "RSA", None:
            return rsa.RSAPublicNumbers(_number(jwk, "e", at_most=32), _number(jwk, "n", at_most=LARGEST_RSA // 8)).public_key()
    raise Unacceptable(
        "key-type",
        "A key of the entry is of a kind that is not accepted.",
        why="Accepted are P-256, P-384, Ed25519 and RSA of 3072 or 4096 bits.",
    )


def _number(jwk: Mapping[str, Any], member: str, *, at_most: int) -> int:
    octets = _octets(jwk.get(member), member)
    if len(octets) > at_most:
        raise Malformed("manifest-key", "A key of the entry cannot be read.", why=f"Its {member} is longer than such a key's.")
    return int.from_bytes(octets, "big")


def _same_in_certificate(chain: object, spki: bytes) -> None:
    """x5c (RFC 7517 4.7): its first certificate must be of the key. Whether anybody believes the chain is not asked: the maker signed the entry."""
    if chain is None:
        return
    try:
        if not isinstance(chain, list) or not 0 < len(chain) <= MOST_KEYS:
            raise ValueError
        text = chain[0].translate(_STANDARD)
        first = x509.load_der_x509_certificate(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
        same = first.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) == spki
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise Malformed("manifest-key", "A certificate of the entry cannot be read.") from None
    if not same:
        raise Malformed("manifest-key", "A certificate of the entry is of another key than the one it stands beside.")


def _moment(text: object) -> UnixTime | None:
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(str(text)).astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        raise _entry("Its provisioningTimestamp is no time (RFC 3339).") from None


# ---- Octets and JSON ----------------------------------------------------------------------------------------------------


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        if text.count("{") + text.count("[") > 4 * _DEEPEST * MOST_KEYS:
            raise ValueError
        value = json.loads(text, object_pairs_hook=_once)
    except FleetcaError:
        raise
    except (ValueError, RecursionError):
        raise _entry(f"Its {what} is no JSON.") from None
    if not isinstance(value, dict):
        raise _entry(f"Its {what} is no JSON object.")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _entry("A member stands twice.")
    return found


def _octets(value: object, what: str) -> bytes:
    """base64url without padding, in its one spelling (RFC 7515 2)."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", value, re.ASCII):
        raise _entry(f"Its {what} is no base64url without padding.")
    try:
        octets = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (ValueError, binascii.Error):
        raise _entry(f"Its {what} is no base64url without padding.") from None
    if _base64url(octets) != value:
        raise _entry(f"Its {what} is no base64url in its one spelling.")
    return octets


def _text(octets: bytes, what: str) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise _entry(f"Its {what} is no UTF-8.") from None


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _entry(why: str) -> Malformed:
    return Malformed("manifest-entry", "The entry is no signed secure element.", why=why)
