"""JSON Web Signatures as ACME uses them (RFC 7515, 7517, 7518, 7638, 8037; RFC 8555 6.2): octets in, a verified request out. Ring 1: pure.

Strict where libraries made for clients are kind: flattened JSON only, no unprotected header, one of jwk and kid, an allow-list of algorithms
that each fit one kind of key, unpadded base64url in its one spelling, no member twice. Knows no account, nonce or address: the flow compares those.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from enroll.acme.model import Problem

LARGEST: Final = 64 * 1024
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "RS256")
"""What account keys may sign with; ES256 MUST, EdDSA SHOULD be there (RFC 8555 6.2)."""
BINDING_ALGORITHMS: Final = ("HS256", "HS384", "HS512")

Jwk: TypeAlias = Mapping[str, str]
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int]]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_EC_ALGORITHMS: Final[Mapping[str, tuple[str, hashes.HashAlgorithm]]] = {
    "ES256": ("P-256", hashes.SHA256()),
    "ES384": ("P-384", hashes.SHA384()),
    "ES512": ("P-521", hashes.SHA512()),
}
MAC_DIGESTS: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "EC": frozenset({"crv", "kty", "x", "y"}),
    "OKP": frozenset({"crv", "kty", "x"}),
    "RSA": frozenset({"e", "kty", "n"}),
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
SMALLEST_RSA: Final = 2048
LARGEST_RSA: Final = 4096


@dataclass(frozen=True, slots=True)
class Signed:
    """A JWS that was read and not yet believed."""

    algorithm: str
    url: str
    nonce: str | None
    jwk: Jwk | None
    kid: str | None
    payload: bytes
    signature: bytes
    signing_input: bytes


def malformed(detail: str, *, status: int | None = None) -> Problem:
    return Problem("malformed", detail, status=status)


def encode(octets: bytes) -> str:
    """Base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def decode(text: object, what: str) -> bytes:
    """Octets of unpadded base64url, in its one spelling: padding, other alphabets and loose bits are refused (RFC 8555 6.1)."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise malformed(f"{what} is not base64url without padding (RFC 8555 6.1).")
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(octets) != text:
        raise malformed(f"{what} is not base64url in its one spelling (RFC 4648 3.5).")
    return octets


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise malformed("A JSON object holds a member twice (RFC 7515 4).")
    return found


def _number(text: str) -> float:
    raise malformed(f"{text} is no number of JSON (RFC 8259 6).")


def read_json(octets: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which nothing stands twice."""
    try:
        document = json.loads(octets.decode("utf-8"), object_pairs_hook=_once, parse_constant=_number)
    except (ValueError, RecursionError):
        raise malformed(f"{what} is not JSON.") from None
    if not isinstance(document, dict):
        raise malformed(f"{what} is not a JSON object.")
    return document


def read(octets: bytes) -> Signed:
    """A request's body.

    Raises:
        Problem: `malformed`, `badSignatureAlgorithm`.
    """
    if len(octets) > LARGEST:
        raise malformed("The request is too large.", status=413)
    return _read(read_json(octets, "The request's body"), algorithms=ALGORITHMS, nonce=True)


def read_inner(document: object, *, algorithms: tuple[str, ...]) -> Signed:
    """A JWS inside another's payload: a key change (RFC 8555 7.3.5) or an external account binding (7.3.4). Neither carries a nonce."""
    if not isinstance(document, dict):
        raise malformed("The inner JWS is not a JSON object.")
    return _read(document, algorithms=algorithms, nonce=False)


def _read(document: Mapping[str, Any], *, algorithms: tuple[str, ...], nonce: bool) -> Signed:
    if "signatures" in document:
        raise malformed("A JWS with several signatures is not taken (RFC 8555 6.2).")
    if "header" in document:
        raise malformed("A JWS with an unprotected header is not taken (RFC 8555 6.2).")
    if set(document) != {"protected", "payload", "signature"}:
        raise malformed("The body must be a flattened JWS: protected, payload and signature (RFC 8555 6.2).")
    header = read_json(decode(document["protected"], "protected"), "The protected header")
    if "crit" in header:
        raise malformed("Critical header parameters are not known here (RFC 7515 4.1.11).")
    if "b64" in header:
        raise malformed("The payload must be encoded (RFC 8555 6.2, RFC 7797).")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise Problem("badSignatureAlgorithm", "The signature's algorithm is not taken here (RFC 8555 6.2).", algorithms=algorithms)
    url = header.get("url")
    if not isinstance(url, str):
        raise malformed("The protected header holds no url (RFC 8555 6.4).")
    if ("nonce" in header) is not nonce:
        if nonce:
            raise Problem("badNonce", "The protected header holds no nonce (RFC 8555 6.5).")
        raise malformed("The inner JWS must not hold a nonce (RFC 8555 7.3.4, 7.3.5).")
    value = header.get("nonce")
    if nonce:
        decode(value, "nonce")  # RFC 8555 6.5.2: malformed where it is not base64url
    jwk, kid = header.get("jwk"), header.get("kid")
    if ("jwk" in header) is ("kid" in header):
        raise malformed("The protected header must hold one of jwk and kid (RFC 8555 6.2).")
    if "kid" in header and not isinstance(kid, str):
        raise malformed("kid is not text (RFC 7515 4.1.4).")
    if "jwk" in header and not isinstance(jwk, dict):
        raise malformed("jwk is not an object (RFC 7517 4).")
    return Signed(
        algorithm=algorithm,
        url=url,
        nonce=value if isinstance(value, str) else None,
        jwk=canonical(jwk) if isinstance(jwk, dict) else None,
        kid=kid if isinstance(kid, str) else None,
        payload=decode(document["payload"], "payload"),
        signature=decode(document["signature"], "signature"),
        signing_input=f"{document['protected']}.{document['payload']}".encode("ascii"),
    )


# ---- Keys -----------------------------------------------------------------------------------------------------------


def canonical(jwk: Mapping[str, Any]) -> Jwk:
    """The members of a public key that its thumbprint is made of (RFC 7638 3.2), checked to be a key that may sign for an account.

    Raises:
        Problem: `malformed`, `badPublicKey`.
    """
    kind = jwk.get("kty")
    members = _MEMBERS.get(kind) if isinstance(kind, str) else None
    if members is None:
        raise Problem("badPublicKey", "Account keys are EC, Ed25519 or RSA keys.", algorithms=ALGORITHMS)
    if _PRIVATE & jwk.keys():
        raise Problem("badPublicKey", "The key holds private members: make a new one (RFC 7517 9.2).")
    if not members <= jwk.keys() or not all(isinstance(jwk[name], str) for name in members):
        raise malformed("The key lacks members of its kind (RFC 7518 6, RFC 8037 2).")
    found = {name: str(jwk[name]) for name in sorted(members)}
    public_key(found)
    return found


def public_key(jwk: Jwk) -> PublicKey:
    """The key itself.

    Raises:
        Problem: `badPublicKey`.
    """
    if jwk["kty"] == "EC":
        curve, size = _CURVES.get(jwk["crv"], (None, 0))
        if curve is None:
            raise Problem("badPublicKey", "The curve is not taken here: P-256, P-384 and P-521 are.")
        x, y = decode(jwk["x"], "x"), decode(jwk["y"], "y")
        if len(x) != size or len(y) != size:
            raise Problem("badPublicKey", "A coordinate has not the length of its curve (RFC 7518 6.2.1.2).")
        try:
            return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
        except ValueError:
            raise Problem("badPublicKey", "The point is not on its curve.") from None
    if jwk["kty"] == "OKP":
        point = decode(jwk["x"], "x")
        if jwk["crv"] != "Ed25519" or len(point) != 32:
            raise Problem("badPublicKey", "Of the Edwards curves, Ed25519 is taken.")
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    return _rsa(decode(jwk["n"], "n"), decode(jwk["e"], "e"))


def _rsa(modulus: bytes, exponent: bytes) -> rsa.RSAPublicKey:
    if modulus[:1] in {b"", b"\0"} or exponent[:1] in {b"", b"\0"}:
        raise Problem("badPublicKey", "A number of the key begins with zero (RFC 7518 2).")
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    if not SMALLEST_RSA <= n.bit_length() <= LARGEST_RSA or n % 2 == 0:
        raise Problem("badPublicKey", f"RSA keys have {SMALLEST_RSA} to {LARGEST_RSA} bits.")
    if not 65537 <= e < 1 << 32 or e % 2 == 0:
        raise Problem("badPublicKey", "The public exponent is too small, too large or even.")
    return rsa.RSAPublicNumbers(e, n).public_key()


def thumbprint(jwk: Jwk) -> str:
    """RFC 7638 with SHA-256, base64url."""
    said = json.dumps(dict(jwk), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return encode(hashlib.sha256(said.encode()).digest())


# ---- Signatures -----------------------------------------------------------------------------------------------------


def verify(signed: Signed, jwk: Jwk) -> None:
    """Was it signed by this key, with an algorithm that is this key's?

    Raises:
        Problem: `unauthorized`, `badSignatureAlgorithm`.
    """
    key = public_key(jwk)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and signed.algorithm in _EC_ALGORITHMS:
            _verify_ec(key, signed, jwk)
        elif isinstance(key, ed25519.Ed25519PublicKey) and signed.algorithm == "EdDSA":
            key.verify(signed.signature, signed.signing_input)
        elif isinstance(key, rsa.RSAPublicKey) and signed.algorithm == "RS256":
            key.verify(signed.signature, signed.signing_input, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise Problem("badSignatureAlgorithm", "The algorithm is not one of this key (RFC 7518 3.1).", algorithms=ALGORITHMS)
    except InvalidSignature:
        raise Problem("malformed", "The signature of the JWS does not verify (RFC 8555 6.2).") from None


def _verify_ec(key: ec.EllipticCurvePublicKey, signed: Signed, jwk: Jwk) -> None:
    curve, digest = _EC_ALGORITHMS[signed.algorithm]
    if jwk["crv"] != curve:
        raise Problem("badSignatureAlgorithm", "The algorithm is not one of this curve (RFC 7518 3.4).", algorithms=ALGORITHMS)
    size = _CURVES[curve][1]
    if len(signed.signature) != 2 * size:
        raise InvalidSignature
    r, s = int.from_bytes(signed.signature[:size], "big"), int.from_bytes(signed.signature[size:], "big")
    key.verify(utils.encode_dss_signature(r, s), signed.signing_input, ec.ECDSA(digest))
