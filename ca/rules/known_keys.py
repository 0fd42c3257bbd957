"""Keys that everybody has: those of examples in standards, and those of no chance at all. Ring 1: pure.

By SHA-256 of their SubjectPublicKeyInfo (DER), so that nothing here is a key. A test makes each of them anew from what its name says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from ca.der import pem
from ca.errors import Malformed, Unacceptable
from ca.model import Digest

KNOWN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4": "RFC 6979 A.2.5",
        "2f95601fa82060b909bfc6b979dbd303d34d34e0afb27ea496beac362f242a4b": "RFC 6979 A.2.6",
        "2bd1bb0c44a897c30a7aa0991cde38d8062fe441de50da0f46825344f602e827": "RFC 7515 A.3",
        "51b944cdfa544d4c3273aa6bf350625a7dd53bbb6a71723274f538b19a207760": "RFC 7517 A.2",
        "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9": "RFC 8032 7.1, test 1",
        "deb2ded39dc26fce0e6085b6fc34bf6b5941913bbfe2ea614113cff9e004c170": "RFC 8032 7.1, test 2",
        "339e2ff917630507b6a423b5ce084e285d1fa65d93b3e27a6195d3bbebc9ae23": "Ed25519, a seed of zeros",
        "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3": "P-256, the private key 1",
        "29f8fe74f38c49d49810cec736a26732a30bff2e64827b709a1c63340d4f7181": "P-384, the private key 1",
        "dc0ce633dbcc913dafafa4b89ac44d8ce683fdfc3f60c8bdf21213b9f2b534ba": "P-256, the private key 2",
        "e04caab525cff38094dc994b28e8873b81fc5c8d1f4ce89413ff8fb31670fa82": "P-384, the private key 2",
        "2b985badf1bac8293f6b92e8c0acc1139bc5a5ecbbf97a6271dcf0d4f6c68af6": "P-256, the private key 3",
        "86d5eff39312850996dac2e1bc3297a9fe58aa656947f3c35348e50e6a59ba08": "P-384, the private key 3",
        "3eab3fba5026b61d007cbf411b90f3c88ff89cf0a8088cbbfc3eaaca867dd663": "P-256, the private key 4",
        "63ecefee431d49523bc1136c4e72d0206a477086caf606cd5cf025686c109cf8": "P-384, the private key 4",
        "dafc418eb082e83c76a48f0c526fe45e9ca4d4ecfa82366de3fccd37099fca01": "P-256, the private key 5",
        "d4cd42484763444ac1848cce26719f680a414e952546c2e560e29859e1e149ab": "P-384, the private key 5",
        "e26630d1233ed92d8ac231a4bf230fddb2d924d6eace7489946e1e82e9523a70": "P-256, the private key 6",
        "c6992595dd84c72fcb8dca8ebe5c44e5f92d9c7d1fa5f1f844c162b639ba5b2e": "P-384, the private key 6",
        "11086649cd3e5d1892200a4200b165bbea5c9f9b47ca83792d4f9a1ef0dc8921": "P-256, the private key 7",
        "bda6ea3f5363ada79ff2819d271abfd0a746a6e3fe89eca74e0c19c85fea0c7b": "P-384, the private key 7",
        "8449111985c4e015d12e2c0b4847278c9d9e5f84a383fd4056a6d89bab795c5d": "P-256, the private key 8",
        "13113c459cb5257f13a04ee4057057f8544331010dc51f143b2249c6c1297dc7": "P-384, the private key 8",
    }
)
"""Digest (lower-case hex) -> what it is."""


NEW_KEY: Final = "Make a new key, for example: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out device.key"
LARGEST_LIST: Final = 128 * 1024 * 1024
"""Octets."""
_PEM: Final[Mapping[str, Callable[[bytes], Any]]] = MappingProxyType(
    {
        "PUBLIC KEY": load_der_public_key,
        pem.CERTIFICATE: lambda der: x509.load_der_x509_certificate(der).public_key(),
        "PRIVATE KEY": lambda der: load_der_private_key(der, None).public_key(),
        "RSA PRIVATE KEY": lambda der: load_pem_private_key(pem.pem("RSA PRIVATE KEY", der).encode(), None).public_key(),
        "EC PRIVATE KEY": lambda der: load_pem_private_key(pem.pem("EC PRIVATE KEY", der).encode(), None).public_key(),
    }
)


def refuse(spki_sha256: Digest, listed: Mapping[str, str] = KNOWN) -> None:
    """Whether a key is none of these.

    Raises:
        Unacceptable: it is (`known-key`).
    """
    name = listed.get(spki_sha256.hex())
    if name is not None:
        raise Unacceptable("known-key", "Everybody has the private half of this key.", why=f"It is {name}.", fix=NEW_KEY)


def read_list(text: str) -> dict[str, str]:
    """More of them: one digest a line (hex), and after it what the key is; empty lines and those that begin with # say nothing. Or PEM: public keys,
    certificates, private keys that are not encrypted, as collections of lost keys have them.

    Raises:
        Malformed: `known-keys`.
    """
    found: dict[str, str] = {}
    if "-----BEGIN " in text:
        return _read_pem(text.encode())
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.strip().partition(" ")
        if not digest or digest.startswith("#"):
            continue
        if len(digest) != 64 or not set(digest.lower()) <= set("0123456789abcdef"):
            raise Malformed(
                "known-keys", f"Line {number} of the list holds no SHA-256 digest.", fix="Write 64 hexadecimal digits, a space, a name."
            )
        found[digest.lower()] = name.strip() or "a listed key"
    return found


def _read_pem(octets: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, load in _PEM.items():
        for number, der in enumerate(pem.ders_of(octets, label), 1):
            try:
                spki = load(der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
                raise Malformed(
                    "known-keys",
                    f"{label} number {number} of the list cannot be read.",
                    fix="Leave it out, or write its digest: see --help.",
                ) from None
            found[hashlib.sha256(spki).hexdigest()] = "a listed key"
    if not found:
        raise Malformed("known-keys", "The list holds no key that can be read.", fix="Write 64 hexadecimal digits, a space, a name.")
    return found
