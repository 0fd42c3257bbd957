"""What a PKCS#12 file is made of (RFC 7292), told before anything in it is opened; and its check value, made anew so that it is no short cut to the passphrase.

A library writes and opens the contents (`ca.keys.pkcs12`). Its check value costs whoever tries passphrases 2048 hashes, whatever the contents cost; so it is
replaced by one that costs as much as these: over the same octets, by the key derivation of RFC 7292 B, or by PBMAC1 (RFC 9579) where that is asked for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from asn1crypto import pkcs12 as asn1_pkcs12

from ca.der import reader, writer
from ca.errors import Malformed

COSTLIEST: Final = 10_000_000
"""Rounds that are gone through to open a file: more are there to make us work."""
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_HMAC_SHA256: Final = "1.2.840.113549.2.9"
_PBKDF2: Final = "1.2.840.113549.1.5.12"
_PBES2: Final = "1.2.840.113549.1.5.13"
_PBMAC1: Final = "1.2.840.113549.1.5.14"
_STRONG: Final = {"aes128_cbc", "aes192_cbc", "aes256_cbc"}
_STRONG_CHECKS: Final = {_SHA256, "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3", _PBMAC1}


@dataclass(frozen=True, slots=True)
class Shape:
    """What can be told without a passphrase."""

    keys: int
    """Private keys that lie in it where they can be counted: one each in its own encryption, as everybody writes them."""
    weak: tuple[str, ...]
    """What is old or missing in it, in words; empty where it is as good as what we write."""
    rounds: int
    """The most that any of its derivations asks for."""


def shape_of(octets: bytes) -> Shape:
    """
    Raises:
        Malformed: it is no PKCS#12 file (`bad-pkcs12`).
    """
    try:
        file = asn1_pkcs12.Pfx.load(octets, strict=True)
        parts = asn1_pkcs12.AuthenticatedSafe.load(file["auth_safe"]["content"].native)
        found = [*_check(file), *(one for part in parts for one in _part(part))]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, Malformed) as error:
        raise Malformed("bad-pkcs12", "This is no PKCS#12 file.", why=str(error)[:200]) from None
    return Shape(
        sum(keys for keys, _, _ in found),
        tuple(dict.fromkeys(weak for _, weak, _ in found if weak)),
        max((rounds for _, _, rounds in found), default=0),
    )


_Told = tuple[int, str, int]
"""Keys, what is weak, rounds."""


def _check(file: Any) -> Iterator[_Told]:
    if not file["mac_data"].native:
        yield 0, "it has no check value, so anybody may have changed it", 0
        return
    algorithm = file["mac_data"]["mac"]["digest_algorithm"]
    oid = algorithm["algorithm"].dotted
    rounds = file["mac_data"]["iterations"].native
    if oid == _PBMAC1:
        # What it says of salt and rounds stands in the algorithm; the salt is skipped (RFC 9579 4).
        rounds = _numbers(algorithm["parameters"].dump())
    yield 0, "" if oid in _STRONG_CHECKS else f"its check value is by {algorithm['algorithm'].native}", rounds


def _numbers(parameters: bytes) -> int:
    """The largest number in the parameters of PBMAC1: the others are lengths."""
    most, below = 0, [reader.only(parameters, writer.SEQUENCE)]
    while below:
        one = below.pop()
        if one.tag == 0x02:
            most = max(most, reader.integer(parameters, one))
        elif one.tag & 0x20:
            below += reader.children(parameters, one)
    return most


def _part(part: Any) -> Iterator[_Told]:
    kind = part["content_type"].native
    if kind == "encrypted_data":
        yield 0, *_encryption(part["content"]["encrypted_content_info"]["content_encryption_algorithm"])
    elif kind == "data":
        for bag in asn1_pkcs12.SafeContents.load(part["content"].native):
            named = bag["bag_id"].native
            if named == "key_bag":
                yield 1, "its private key is in clear", 0
            elif named == "pkcs8_shrouded_key_bag":
                yield 1, *_encryption(bag["bag_value"]["encryption_algorithm"])
    else:
        yield 0, f"a part of it is {kind}", 0


def _encryption(algorithm: Any) -> tuple[str, int]:
    if algorithm["algorithm"].dotted != _PBES2:
        return f"it is encrypted by {algorithm['algorithm'].native}", algorithm["parameters"]["iterations"].native
    scheme, derived = algorithm["parameters"]["encryption_scheme"]["algorithm"].native, algorithm["parameters"]["key_derivation_func"]
    rounds = derived["parameters"]["iteration_count"].native if derived["algorithm"].native == "pbkdf2" else 0
    return "" if scheme in _STRONG else f"it is encrypted by {scheme}", rounds


# ---- Check values ---------------------------------------------------------------------------------------------------


def with_check(octets: bytes, passphrase: bytes, *, salt: bytes, rounds: int, pbmac1: bool) -> bytes:
    """The file with another check value.

    Args:
        octets: as a library wrote it (DER).
        salt: drawn now.
        pbmac1: by PBMAC1, which Java and openssl know since 2024.
    """
    file = asn1_pkcs12.Pfx.load(octets, strict=True)
    inside: bytes = file["auth_safe"]["content"].native
    if pbmac1:
        prf = writer.sequence(writer.oid(_HMAC_SHA256), writer.NULL)
        derived = writer.sequence(writer.octet_string(salt), writer.integer(rounds), writer.integer(32), prf)
        algorithm = writer.sequence(writer.oid(_PBMAC1), writer.sequence(writer.sequence(writer.oid(_PBKDF2), derived), prf))
        key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, rounds, 32)
        # RFC 9579 4: salt and rounds of MacData are not used; one round is what is meant where none are written.
        outer = writer.octet_string(b"NOT USED")
    else:
        algorithm = writer.sequence(writer.oid(_SHA256), writer.NULL)
        key = mac_key(passphrase, salt, rounds)
        outer = writer.octet_string(salt) + writer.integer(rounds)
    digest = hmac.digest(key, inside, "sha256")
    check = writer.sequence(writer.sequence(algorithm, writer.octet_string(digest)), outer)
    return writer.sequence(writer.integer(3), file["auth_safe"].dump(), check)


def mac_key(passphrase: bytes, salt: bytes, rounds: int) -> bytes:
    """The key of a check value with SHA-256 (RFC 7292 B.2, ID 3): one block of the hash is as long as the key."""
    words = passphrase.decode().encode("utf-16-be") + b"\0\0"
    block = hashlib.sha256(b"\x03" * 64 + _filled(salt) + _filled(words)).digest()
    for _ in range(rounds - 1):
        block = hashlib.sha256(block).digest()
    return block


def _filled(octets: bytes) -> bytes:
    """Repeated to whole blocks of 64 octets."""
    length = -(-len(octets) // 64) * 64
    return (octets * -(-length // len(octets)))[:length]
