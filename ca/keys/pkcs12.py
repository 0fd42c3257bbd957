"""A private key with its certificates as PKCS#12 (RFC 7292): PBES2 with AES-256 and HMAC-SHA-256 by default; the old 3DES form where it is asked for,
when it is written and when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs12
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES

from ca.errors import KeyUnavailable, Malformed, Unacceptable
from ca.keys.pkcs12_shape import COSTLIEST, shape_of, with_check

ROUNDS: Final = 210_000
"""Of PBKDF2 with SHA-256, and of the check value; 2048 where old software must open it, which does not bear more."""
_LEGACY_ROUNDS: Final = 2048
LARGEST: Final = 1024 * 1024
SHORTEST: Final = 8


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a file holds. `key` is a private key of the cryptography library: it goes from here into a sealed file and nowhere else."""

    key: Any
    certificate: bytes
    chain: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Bundle({len(self.chain)} in its chain)"


def write(bundle: Bundle, passphrase: bytes, *, name: str, legacy: bool = False, pbmac1: bool = False) -> bytes:
    """The file.

    Args:
        passphrase: 8 octets at least.
        name: what key stores show it as.
        legacy: 3DES and SHA-1, for software that knows nothing better.
        pbmac1: the check value by PBMAC1 (RFC 9579), for software since 2024.

    Raises:
        Unacceptable: the key is not that of the certificate (`key-of-another-certificate`), or the passphrase is short (`short-passphrase`).
    """
    if len(passphrase) < SHORTEST:
        raise Unacceptable(
            "short-passphrase", f"A passphrase has {SHORTEST} octets at least.", why="Whoever has the file may try as often as they like."
        )
    certificate = x509.load_der_x509_certificate(bundle.certificate)
    if certificate.public_key() != bundle.key.public_key():
        raise Unacceptable("key-of-another-certificate", "The private key is not that of the certificate.")
    builder = PrivateFormat.PKCS12.encryption_builder()
    if legacy:
        how = builder.kdf_rounds(_LEGACY_ROUNDS).key_cert_algorithm(PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(SHA1())  # noqa: S303
    else:
        how = builder.kdf_rounds(ROUNDS).key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC).hmac_hash(SHA256())
    above = [x509.load_der_x509_certificate(der) for der in bundle.chain]
    octets: bytes = pkcs12.serialize_key_and_certificates(name.encode(), bundle.key, certificate, above, how.build(passphrase))
    return octets if legacy else with_check(octets, passphrase, salt=AESGCM.generate_key(128), rounds=ROUNDS, pbmac1=pbmac1)


def read(octets: bytes, passphrase: bytes, *, legacy: bool = False) -> Bundle:
    """
    Args:
        legacy: take a file that is encrypted by RC2, 3DES or nothing, or has a check value by SHA-1 or none.

    Raises:
        KeyUnavailable: it does not open: another passphrase, or damaged (`wrong-passphrase`).
        Malformed: it is none (`bad-pkcs12`), holds no private key with its certificate or several (`pkcs12-contents`), or is too large or too costly
            (`pkcs12-large`).
        Unacceptable: it is old or unprotected, and `legacy` is not said (`pkcs12-legacy`).
    """
    if len(octets) > LARGEST:
        raise Malformed("pkcs12-large", f"A PKCS#12 file has {LARGEST} octets at most.")
    shape = shape_of(octets)
    if shape.rounds > COSTLIEST:
        raise Malformed("pkcs12-large", f"A PKCS#12 file asks for {COSTLIEST} rounds at most.", why=f"This one asks for {shape.rounds}.")
    if shape.weak and not legacy:
        raise Unacceptable(
            "pkcs12-legacy", "The PKCS#12 file is protected in an old way, or not at all.", why=f"{'; '.join(shape.weak)}.",
            fix="Have it written anew (openssl 3, keytool 17), or say --legacy.",
        )  # fmt: skip
    if shape.keys > 1:
        raise Malformed(
            "pkcs12-contents", f"The PKCS#12 file holds {shape.keys} private keys.", why="Which of them is meant it does not say.",
            fix="Export the one: keytool -importkeystore -srcalias NAME",
        )  # fmt: skip
    try:
        found = pkcs12.load_pkcs12(octets, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnavailable(
            "wrong-passphrase",
            "The PKCS#12 file does not open.",
            why="It was written under another passphrase, or is damaged.",
            fix="Give the passphrase it was written under.",
        ) from None
    if found.key is None or found.cert is None or found.key.public_key() != found.cert.certificate.public_key():
        raise Malformed("pkcs12-contents", "The PKCS#12 file holds no private key with its certificate.")
    chain: Sequence[Any] = found.additional_certs
    return Bundle(
        found.key, found.cert.certificate.public_bytes(Encoding.DER), tuple(one.certificate.public_bytes(Encoding.DER) for one in chain)
    )
