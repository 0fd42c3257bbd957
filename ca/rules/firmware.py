"""Private keys in the octets of an image: PEM, DER (PKCS#1, PKCS#8, SEC1), raw scalars and seeds beside their public keys, and keys that everybody
has. Ring 1: pure.

Works on one piece of an image at a time (`scan`); pieces overlap by `OVERLAP`, so that what lies across an edge is whole in one of them. Shows
places and public halves, never a private octet. It does not look into what is packed: `ca.rules.unpacking` gives it what is in there, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, x25519
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
# EncryptedPrivateKeyInfo: AlgorithmIdentifier with PBES2 (RFC 8018 A.4) or of PKCS#12 (RFC 7292 C) before an OCTET STRING.
_ENCRYPTED: Final = re.compile(
    rb"\x30(?:[\x40-\x7f]|\x81.|\x82..)\x30[\x10-\x7f]\x06(?:\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d|\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01[\x01-\x06])",
    re.DOTALL,
)
# SubjectPublicKeyInfo: SEQUENCE, AlgorithmIdentifier that begins with an OID. What it is decides the parser.
_PUBLIC: Final = re.compile(rb"\x30(?:[\x20-\x7f]|\x81[\x80-\xff]|\x82[\x01-\x7f][\x00-\xff])\x30[\x05-\x1f]\x06[\x03-\x0a][\x2a\x2b\x60]")

_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
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
    inside: tuple[tuple[str, int], ...] = ()
    """What it is packed in, outermost first, each with its offset in what it lies in; `offset` counts in the innermost."""


def scan(piece: bytes, *, known: Mapping[str, str], scalars: bool = True, public: Publics = ()) -> Iterator[Found]:
    """All that is found in a piece of an image; offsets count from its first octet. The same thing may be told twice, in two forms.

    Args:
        known: digests of public keys -> what they are.
        scalars: look for raw scalars and seeds too.
        public: public halves, beside which they are looked for whatever these look like there.
    """
    with warnings.catch_warnings():
        # What an image holds may be old and odd; that is not for our log.
        warnings.simplefilter("ignore")
        yield from _pems(piece, known)
        yield from _ders(piece, known)
        yield from _publics(piece, known)
        if scalars:
            yield from _raws(piece, known, public)


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


# ---- Raw keys -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Public:
    """The public half of a key, as raw private ones are looked for beside it."""

    algorithm: str
    octets: bytes
    """What it is known by where it lies: the x coordinate of a curve's point, or the whole raw public key."""
    size: int
    """Octets of the private half: a scalar or a seed."""
    made: Callable[[bytes], Any]
    """The private key of those octets; raises ValueError for none."""
    both_ways: bool
    """Whether firmware may hold it with its octets reversed: numbers, not seeds."""

    def is_of(self, private: Any) -> bool:
        return _known_by(private.public_key()) == self.octets


Publics = Sequence[Public]


def public_of(key: Any) -> Public | None:
    """The half of a public key (of the cryptography library); None where private ones are no 66 octets that stand alone (RSA)."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve = key.curve
        return Public(
            curve.name, _known_by(key), (key.key_size + 7) // 8, lambda octets: ec.derive_private_key(int.from_bytes(octets), curve), True
        )
    for kind, size, made in _SEEDS:
        if isinstance(key, kind):
            return Public(_algorithm(key), _known_by(key), size, made, False)
    return None


_SEEDS: Final[tuple[tuple[Any, int, Callable[[bytes], Any]], ...]] = (
    (ed25519.Ed25519PublicKey, 32, ed25519.Ed25519PrivateKey.from_private_bytes),
    (x25519.X25519PublicKey, 32, x25519.X25519PrivateKey.from_private_bytes),
    (ed448.Ed448PublicKey, 57, ed448.Ed448PrivateKey.from_private_bytes),
    (mldsa.MLDSA44PublicKey, 32, mldsa.MLDSA44PrivateKey.from_seed_bytes),
    (mldsa.MLDSA65PublicKey, 32, mldsa.MLDSA65PrivateKey.from_seed_bytes),
    (mldsa.MLDSA87PublicKey, 32, mldsa.MLDSA87PrivateKey.from_seed_bytes),
)


def _known_by(public: Any) -> bytes:
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_numbers().x.to_bytes((public.key_size + 7) // 8)
    raw: bytes = public.public_bytes_raw()
    return raw


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


def _raws(piece: bytes, known: Mapping[str, str], public: Publics) -> Iterator[Found]:
    curve = ec.SECP256R1()
    for start in points(piece):
        x = piece[start + 1 : start + 33]
        half = Public(curve.name, x, 32, lambda octets: ec.derive_private_key(int.from_bytes(octets), curve), True)
        yield from _beside(piece, half, (start, start + 65), BESIDE, known)
    for start, end, half in _halves(piece):
        yield from _beside(piece, half, (start, end), NEAR, known)
    for half in public:
        start = piece.find(half.octets)
        while start >= 0:
            yield from _beside(piece, half, (start, start + len(half.octets)), BESIDE, known)
            start = piece.find(half.octets, start + 1)


def _halves(piece: bytes) -> Iterator[tuple[int, int, Public]]:
    """The other keys, where they lie as SubjectPublicKeyInfo; points of P-256 are found wherever they lie."""
    for match in _PUBLIC.finditer(piece):
        octets = _whole(piece, match.start())
        key = None if octets is None else _quietly(partial(load_der_public_key, octets))
        half = None if key is None else public_of(key)
        if octets is not None and half is not None and half.algorithm != "secp256r1":
            yield match.start(), match.start() + len(octets), half


def _beside(piece: bytes, half: Public, place: tuple[int, int], far: int, known: Mapping[str, str]) -> Iterator[Found]:
    start, end = place
    low, high = max(0, start - far), min(len(piece), end + far)
    near = NEAR if far > NEAR else 0
    told: set[bytes] = set()
    for at in range(low, high - half.size + 1):
        # Right before it and right behind it too, whatever the place; what overlaps it is no private half of it.
        if start - half.size < at < end or (at % 4 and at not in {start - half.size, end} and not start - near <= at < end + near):
            continue
        window = piece[at : at + half.size]
        if len(set(window)) < _FEWEST:
            continue
        for octets in (window, window[::-1]) if half.both_ways else (window,):
            private = None if octets in told else _quietly(partial(half.made, octets))
            if private is not None and half.is_of(private):
                told.add(octets)
                yield _raw(private.public_key(), at, known)


def _raw(public: Any, at: int, known: Mapping[str, str]) -> Found:
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return Found(at, "raw", Kind.private_key, _algorithm(public), digest, known.get(digest, ""))


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
