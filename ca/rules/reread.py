"""Whether what was signed is what was meant. Ring 1: pure.

The second parser: cryptography, which did not write these octets, reads the finished certificate back (P11). Nothing is released before.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.der import reader
from ca.der.algorithms import ALGORITHMS, cached_public_key
from ca.der.certificate import UNREADABLE
from ca.errors import Broken
from ca.model import AlgorithmName, Draft, Issuer, Serial, UnixTime


class Meant(NamedTuple):
    """What of a draft is compared, for those who do not have all of it."""

    tbs: bytes
    algorithm: AlgorithmName
    serial: Serial
    not_after: UnixTime


def _broken(why: str) -> Broken:
    return Broken(
        "reread",
        "A finished certificate is not what was meant to be signed; it is not released.",
        why=why,
        fix="Keep the database and the journal as they are and report it: the key or this program is at fault.",
    )


def reread(draft: Draft, der: bytes, issuer: Issuer) -> None:
    """Read a finished certificate and compare it with its draft; check the signature with the issuer's certified key.

    Raises:
        Broken: it cannot be read, differs from the draft, or does not verify (`reread`).
    """
    verify_signed(draft, der, issuer.spki)


def verify_signed(draft: Draft | Meant, der: bytes, spki: bytes) -> None:
    """As `reread`, where only the signer's public key is at hand (a self-signed root).

    Raises:
        Broken: as there.
    """
    try:
        loaded = x509.load_der_x509_certificate(der)
        row = ALGORITHMS[draft.algorithm]
        tbs, algorithm, signature = _parts(der)
        if algorithm != row.identifier:
            # RFC 5280 4.1.1.2: the same as inside, parameters too; cryptography does not compare them.
            raise _broken("Its signatureAlgorithm is not the one inside.")
        if loaded.signature != signature:
            raise _broken("A second parser reads another signature in it.")
        if tbs != draft.tbs:
            raise _broken("Its to-be-signed octets differ from the draft.")
        if loaded.serial_number != draft.serial or loaded.not_valid_after_utc != _moment(draft.not_after):
            raise _broken("A second parser reads another serial number or notAfter in it.")
        # Reading the extensions parses each of them whole.
        if len(loaded.extensions) == 0:
            raise _broken("A second parser finds no extensions in it.")
        cached_public_key(spki).verify(signature, draft.tbs, *row.arguments)
    except InvalidSignature:
        raise _broken("Its signature does not verify with the issuer's key.") from None
    except UNREADABLE as error:
        raise _broken(f"A second parser cannot read it: {error}") from None


# Many certificates end in the same second.
@lru_cache(maxsize=64)
def _moment(when: UnixTime) -> datetime:
    return datetime.fromtimestamp(when, UTC)


def _parts(der: bytes) -> tuple[bytes, bytes, bytes]:
    """The to-be-signed octets, the signatureAlgorithm, and the octets of the signatureValue.

    cryptography lets a BIT STRING claim unused bits that happen to be zero, as every second signature's last one is; verifiers differ.
    """
    whole = reader.only(der, 0x30)
    tbs, algorithm, signature = reader.row(der, whole.content, whole.end, 0x30, 0x30, 0x03)
    if signature.end != whole.end:
        raise _broken("It goes on after its signature.")
    return der[tbs.start : tbs.end], der[algorithm.start : algorithm.end], reader.bit_string(der, signature)
