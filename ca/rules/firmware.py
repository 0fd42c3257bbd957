"""Private keys in the octets of an image: PEM, DER (PKCS#1, PKCS#8, SEC1), raw P-256 scalars beside their public keys, and keys that everybody
has. Ring 1: pure.

Works on one piece of an image at a time (`scan`); pieces overlap by `OVERLAP`, so that what lies across an edge is whole in one of them. Shows
places and public halves, never a private octet. It does not look into what is compressed or encrypted: that is unpacked before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_ssh_private_key,
)

from ca.der.reader import element
from ca.errors import FleetcaError

LARGEST: Final = 32 * 1024
"""Octets of the largest thing that is looked for: RSA-16384 in PEM has 13 k."""
BESIDE: Final = 1024
"""So far from a public key a raw scalar is looked for, on both sides, where its place is a multiple of four."""
NEAR: Final = 160
"""So far it is looked for at every octet."""
OVERLAP: Final = LARGEST + BESIDE + 128

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{0,24}PRIVATE KEY)-----")
# A SEQUENCE that begins with version 0 or 1 and goes on with an INTEGER (PKCS#1), an OCTET STRING (SEC1) or a SEQUENCE (PKCS#8).
_PRIVATE: Final = re.compile(rb"\x30(?:[\x10-\x7f]|\x81[\x80-\xff]|\x82[\x01-\x7f][\x00-\xff])\x02\x01[\x00\x01][\x02\x04\x30]")
# EncryptedPrivateKeyInfo: AlgorithmIdentifier with PBES2 (RFC 8018 A.4) before an OCTET STRING.
_ENCRYPTED: Final = re.compile(rb"\x30(?:\x81.|\x82..)\x30[\x10-\x7f]\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d", re.DOTALL)
# SubjectPublicKeyInfo: SEQUENCE, AlgorithmIdentifier that begins with an OID. What it is decides the parser.
_PUBLIC: Final = re.compile(rb"\x30(?:[\x20-\x7f]|\x81[\x80-\xff]|\x82[\x01-\x7f][\x00-\xff])\x30[\x05-\x1f]\x06[\x03-\x0a][\x2a\x2b\x60]")

_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_FEWEST: Final = 12
"""Different octets that 32 octets of a random scalar have at least; fewer by chance once in 10^19."""


class Kind(Enum):
    private_key = "private-key"
    encrypted_key = "encrypted-private-key"
    """Whoever has the image may try passphrases."""
    known_key = "known-key"
    """The public half of a key that everybody has."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One thing that does not belong into an image."""

    offset: int
    form: str
    """`pem`, `pkcs1`, `pkcs8`, `sec1`, `raw`, `certificate`, `public-key`."""
    kind: Kind
    algorithm: str
    spki_sha256: str
    """Of its public half, lower-case hex; empty where nobody can tell."""
    name: str = ""
    """What it is known as."""


def scan(piece: bytes, *, known: Mapping[str, str], scalars: bool = True) -> Iterator[Found]:
    """All that is found in a piece of an image; offsets count from its first octet. The same thing may be told twice, in two forms.

    Args:
        known: digests of public keys -> what they are.
        scalars: look for raw scalars too.
    """
    with warnings.catch_warnings():
        # What an image holds may be old and odd; that is not for our log.
        warnings.simplefilter("ignore")
        yield from _pems(piece, known)
        yield from _ders(piece, known)
        yield from _publics(piece, known)
        if scalars:
            yield from _scalars(piece, known)


# ---- PEM ------------------------------------------------------------------------------------------------------------


def _pems(piece: bytes, known: Mapping[str, str]) -> Iterator[Found]:
    for match in _PEM.finditer(piece):
        label = match[1]
        stop = piece.find(b"-----END " + label + b"-----", match.end(), match.start() + LARGEST)
        if stop < 0:
            continue
        text = piece[match.start() : stop] + b"-----END " + label + b"-----\n"
        # In C sources and scripts line ends are written as two characters.
        text = text.replace(b"\\n", b"\n").replace(b"\\r", b"").replace(b'"', b"")
        encrypted = label.startswith(b"ENCRYPTED") or b"ENCRYPTED" in text[:120]
        load: Callable[..., Any] = load_ssh_private_key if label.startswith(b"OPENSSH") else load_pem_private_key
        found = None if encrypted else _told(partial(load, text, None), match.start(), "pem", known)
        if found is not None:
            yield found
        elif encrypted:
            yield Found(match.start(), "pem", Kind.encrypted_key, "", "")
        elif _is_base64(text):
            # Damaged, or of a kind that our library does not know: somebody meant it to be a key.
            yield Found(match.start(), "pem", Kind.private_key, "", "")


def _is_base64(text: bytes) -> bool:
    body = b"".join(line for line in text.split(b"\n")[1:] if not line.startswith(b"-----") and b":" not in line)
    try:
        return len(base64.b64decode(body.replace(b" ", b"").replace(b"\r", b""), validate=True)) >= 32
    except (binascii.Error, ValueError):
        return False


# ---- DER ------------------------------------------------------------------------------------------------------------


def _ders(piece: bytes, known: Mapping[str, str]) -> Iterator[Found]:
    for match in _PRIVATE.finditer(piece):
        octets = _whole(piece, match.start())
        if octets is None:
            continue
        form = {0x02: "pkcs1", 0x04: "sec1", 0x30: "pkcs8"}[match[0][-1]]
        found = _told(partial(load_der_private_key, octets, None), match.start(), form, known)
        if found is not None:
            yield found
    for match in _ENCRYPTED.finditer(piece):
        if _whole(piece, match.start()) is not None:
            yield Found(match.start(), "pkcs8", Kind.encrypted_key, "", "")


def _publics(piece: bytes, known: Mapping[str, str]) -> Iterator[Found]:
    for match in _PUBLIC.finditer(piece):
        octets = _whole(piece, match.start()) or b""
        digest = hashlib.sha256(octets).hexdigest()
        if digest in known and _quietly(partial(load_der_public_key, octets)) is not None:
            yield Found(match.start(), "public-key", Kind.known_key, "", digest, known[digest])


def _whole(piece: bytes, start: int) -> bytes | None:
    try:
        return piece[start : element(piece, start, min(len(piece), start + LARGEST)).end]
    except FleetcaError:
        return None


def _quietly(load: Callable[[], Any]) -> Any:
    """What it loads; None where it is nothing: most of what looks like a key is none, and parsers have many words for that."""
    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _told(load: Callable[[], Any], offset: int, form: str, known: Mapping[str, str]) -> Found | None:
    key = _quietly(load)
    if key is None:
        return None
    public = key.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki).hexdigest()
    return Found(offset, form, Kind.private_key, _algorithm(public), digest, known.get(digest, ""))


def _algorithm(public: Any) -> str:
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.curve.name
    size = getattr(public, "key_size", None)
    return type(public).__name__.removesuffix("PublicKey").lstrip("_").lower() + (f"-{size}" if size else "")


# ---- Raw scalars ----------------------------------------------------------------------------------------------------


def points(piece: bytes) -> Iterator[int]:
    """Where an uncompressed point of P-256 begins (0x04, x, y): checked on the curve, so by chance there is none."""
    start = piece.find(4, 0)
    while 0 <= start <= len(piece) - 65:
        # Runs of equal octets are fill, not coordinates: looked at by their octets at four places, before any arithmetic.
        if not piece[start + 1] == piece[start + 17] == piece[start + 33] == piece[start + 49]:
            x, y = int.from_bytes(piece[start + 1 : start + 33]), int.from_bytes(piece[start + 33 : start + 65])
            if x < _P and y < _P and (y * y - (x * x * x - 3 * x + _B)) % _P == 0:
                yield start
        start = piece.find(4, start + 1)


def _scalars(piece: bytes, known: Mapping[str, str]) -> Iterator[Found]:
    curve = ec.SECP256R1()
    for start in points(piece):
        x = piece[start + 1 : start + 33]
        low, high = max(0, start - BESIDE), min(len(piece), start + 65 + BESIDE)
        told: set[int] = set()
        for at in range(low, high - 31):
            if at % 4 and not start - NEAR <= at <= start + 65 + NEAR:
                continue
            window = piece[at : at + 32]
            if len(set(window)) < _FEWEST:
                continue
            for octets in (window, window[::-1]):
                scalar = int.from_bytes(octets)
                if not 0 < scalar < _N or scalar in told:
                    continue
                public = ec.derive_private_key(scalar, curve).public_key()
                if public.public_numbers().x.to_bytes(32) == x:
                    told.add(scalar)
                    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
                    yield Found(at, "raw", Kind.private_key, "secp256r1", digest, known.get(digest, ""))


_OUTER: Final = ("pkcs8", "pkcs1", "sec1", "raw")
"""Each may lie in one before it, close behind its beginning."""
_INSIDE: Final = 64


def apart(found: list[Found]) -> list[Found]:
    """What was found, by offset, each key once at each place: a scalar inside of a DER key, or that inside of PKCS#8, is that key."""
    kept: list[Found] = []
    rank = {form: number for number, form in enumerate(_OUTER)}
    for one in sorted(set(found), key=lambda one: (rank.get(one.form, -1), one.offset)):
        inside = any(
            other.spki_sha256 == one.spki_sha256
            and -1 < rank.get(other.form, -1) < rank.get(one.form, -1)
            and 0 < one.offset - other.offset < _INSIDE
            for other in kept
        )
        if not inside:
            kept.append(one)
    return sorted(kept, key=lambda one: (one.offset, one.form))
