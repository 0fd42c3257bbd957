"""Certificate signing requests: any octets in, a proven public key out (RFC 2986). Ring 1.

A CSR carries a key and the proof that somebody holds it; the subject, names and extensions it may ask for are not even read (P2). The
reader is bounded and total: whatever the octets are, the answer is a `Csr` or an error with a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from ca.der import pem, reader, writer
from ca.der.algorithms import ALGORITHMS
from ca.errors import Malformed, Unacceptable
from ca.model import AlgorithmName, Digest
from ca.rules.key_quality import accepted_key

LARGEST: Final = 64 * 1024
"""In octets. The largest honest one, ML-DSA-87 with attributes, is some 8 KiB."""

_MAKE_ONE: Final = "Make one with: openssl req -new -key device.key -subj /CN=device -outform DER -out device.csr"


@dataclass(frozen=True, slots=True)
class Csr:
    """What a CSR is good for."""

    spki: bytes
    """SubjectPublicKeyInfo, canonical."""
    spki_sha256: Digest
    algorithm: AlgorithmName


def _pss(hash_oid: str, octets: int) -> bytes:
    inner = writer.sequence(writer.oid(hash_oid), writer.NULL)
    mask = writer.sequence(writer.oid("1.2.840.113549.1.1.8"), inner)
    parameters = writer.explicit(0, inner), writer.explicit(1, mask), writer.explicit(2, writer.integer(octets))
    return writer.sequence(writer.oid("1.2.840.113549.1.1.10"), writer.sequence(*parameters))


def _accepted_signatures() -> dict[bytes, tuple[frozenset[AlgorithmName], tuple[Any, ...]]]:
    """AlgorithmIdentifier -> the keys it fits, and cryptography's arguments. Device keys may sign their CSR with SHA-384, SHA-512 or PSS too."""
    table: dict[bytes, tuple[frozenset[AlgorithmName], tuple[Any, ...]]] = {}
    curves = frozenset((AlgorithmName("p256"), AlgorithmName("p384")))
    rsa_keys = frozenset((AlgorithmName("rsa-3072"), AlgorithmName("rsa-4096")))
    rows = (
        (hashes.SHA256(), "1.2.840.10045.4.3.2", "1.2.840.113549.1.1.11", "2.16.840.1.101.3.4.2.1"),
        (hashes.SHA384(), "1.2.840.10045.4.3.3", "1.2.840.113549.1.1.12", "2.16.840.1.101.3.4.2.2"),
        (hashes.SHA512(), "1.2.840.10045.4.3.4", "1.2.840.113549.1.1.13", "2.16.840.1.101.3.4.2.3"),
    )
    for digest, ecdsa, pkcs1, hash_oid in rows:
        table[writer.sequence(writer.oid(ecdsa))] = curves, (ec.ECDSA(digest),)
        table[writer.sequence(writer.oid(pkcs1), writer.NULL)] = rsa_keys, (padding.PKCS1v15(), digest)
        size = digest.digest_size
        table[_pss(hash_oid, size)] = rsa_keys, (padding.PSS(mgf=padding.MGF1(digest), salt_length=size), digest)
    for row in ALGORITHMS.values():
        if row.digest is None:
            table[row.identifier] = frozenset((row.name,)), row.arguments
    return table


_SIGNATURES: Final = _accepted_signatures()


def read_csr(der: bytes) -> Csr:
    """Read a PKCS#10 request in DER and check its proof of possession.

    Raises:
        Malformed: not a CSR (`bad-csr`), too large (`csr-too-large`), or its key cannot be read (`bad-public-key`).
        Unacceptable: its key is of a wrong kind (`key-type`) or weak (`weak-key`), its signature is made with an algorithm that proves
            nothing (`csr-algorithm`), or does not hold (`bad-signature`).
    """
    information, spki, identifier, signature = _whole(der)
    accepted = accepted_key(spki)
    algorithm = accepted.algorithm.name
    fitting, arguments = _SIGNATURES.get(identifier, (frozenset(), ()))
    if algorithm not in fitting:
        raise Unacceptable(
            "csr-algorithm",
            "The CSR is signed with an algorithm that is not accepted for its key.",
            why="Accepted are SHA-256, SHA-384 and SHA-512, Ed25519 and pure ML-DSA.",
            fix=_MAKE_ONE,
        )
    try:
        accepted.key.verify(signature, information, *arguments)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise Unacceptable(
            "bad-signature",
            "The CSR's signature does not verify.",
            why="It does not prove that its sender holds the private key.",
            fix=_MAKE_ONE,
        ) from None
    return Csr(accepted.spki, accepted.spki_sha256, algorithm)


def check_shape(der: bytes) -> None:
    """What those need who only carry a CSR to somebody who reads it: bounds and outline. Says nothing of its key or its proof.

    Raises:
        Malformed: not a CSR (`bad-csr`), or too large (`csr-too-large`).
    """
    _whole(der)


def read_csr_any(data: bytes) -> tuple[bytes, Csr]:
    """As `read_csr`, from DER or PEM. Returns the DER too: the request key is made from it.

    Raises:
        Malformed: also when neither (`bad-pem`).
    """
    if len(data) > 2 * LARGEST:
        raise Malformed("csr-too-large", f"A CSR has at most {LARGEST} octets.", why=f"This file has {len(data)}.")
    der = pem.der_of(data, pem.REQUEST)
    return der, read_csr(der)


def _whole(der: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    if len(der) > LARGEST:
        raise Malformed("csr-too-large", f"A CSR has at most {LARGEST} octets.", why=f"This one has {len(der)}.")
    try:
        return _parts(der)
    except Malformed as error:
        raise Malformed("bad-csr", "This is not a certificate signing request (PKCS#10) in DER.", why=error.what, fix=_MAKE_ONE) from None


def _parts(der: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """CertificationRequestInfo, SubjectPublicKeyInfo, signature AlgorithmIdentifier (all whole elements), and the signature's octets."""
    whole = reader.only(der, 0x30)
    information, identifier, signature = reader.row(der, whole.content, whole.end, 0x30, 0x30, 0x03)
    if signature.end != whole.end:
        raise Malformed("not-der", "There are octets after the signature.")
    version, _subject, spki = reader.row(der, information.content, information.end, 0x02, 0x30, 0x30)
    if reader.integer(der, version) != 0:
        raise Malformed("not-der", "Its version is not 1 (RFC 2986 4.1).")
    if spki.end != information.end:
        # Attributes: some tools leave them out, none is honoured, so they are only asked to be there whole.
        attributes = reader.expect(der, spki.end, information.end, 0xA0)
        if attributes.end != information.end:
            raise Malformed("not-der", "There are octets after the attributes.")
    return (
        der[information.start : information.end],
        der[spki.start : spki.end],
        der[identifier.start : identifier.end],
        reader.bit_string(der, signature),
    )
