"""Delegated responder certificates (RFC 6960 4.2.2.2): asking for one, judging what came, when to ask again. Ring 1: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.der import algorithms, writer
from ca.errors import Broken, Refused
from ca.model import AlgorithmName, Issuer, IssuerId, UnixTime
from ocsp.model import Responder
from ocsp.rules.freshness import spread
from ocsp.rules.issuers import key_octets

_COMMON_NAME: Final = "2.5.4.3"


def request_info(spki: bytes, issuer: IssuerId) -> bytes:
    """DER CertificationRequestInfo for a key (RFC 2986 4.1), without attributes, since the profile supplies everything.

    The subject is the issuer's id, which nobody reads: requests for one key to several issuers must differ, or the signer takes the second for
    a repetition of the first.
    """
    name = writer.sequence(writer.tlv(writer.SET, writer.sequence(writer.oid(_COMMON_NAME), writer.tlv(0x0C, issuer.encode()))))
    return writer.sequence(writer.integer(0), name, spki, writer.tlv(0xA0, b""))


def certification_request(info: bytes, algorithm: AlgorithmName, signature: bytes) -> bytes:
    """DER PKCS#10 around a signed CertificationRequestInfo."""
    return writer.sequence(info, algorithms.ALGORITHMS[algorithm].identifier, writer.bit_string(signature))


def key_hash(spki: bytes) -> bytes:
    """KeyHash of ResponderID: SHA-1 of the public key's bits, whatever else uses another hash (RFC 6960 4.2.1, RFC 9654 A.1)."""
    return hashlib.sha1(key_octets(spki), usedforsecurity=False).digest()


def responder(issuer: Issuer, certificate: bytes, *, spki: bytes, algorithm: AlgorithmName, now: UnixTime) -> Responder:
    """What answers for an issuer, if the certificate lets it.

    Args:
        certificate: DER, as it came back from the signer.
        spki: of the key that will sign.

    Raises:
        Broken: relying parties would refuse its answers; the text says why. The old responder goes on.
    """
    try:
        loaded = x509.load_der_x509_certificate(certificate)
        problem = _problem(issuer, loaded, spki, now)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _unusable(issuer, f"It cannot be read, or lacks an extension: {error}") from None
    except Refused as error:
        raise _unusable(issuer, str(error)) from None
    if problem:
        raise _unusable(issuer, problem)
    hashed = key_hash(spki)
    return Responder(
        issuer=issuer.id,
        issuer_not_after=issuer.not_after,
        certificate=certificate,
        spki=spki,
        algorithm=algorithm,
        not_before=int(loaded.not_valid_before_utc.timestamp()),
        not_after=int(loaded.not_valid_after_utc.timestamp()),
        key_hash=hashed,
        responder_id=writer.explicit(2, writer.octet_string(hashed)),
        signature_algorithm=algorithms.ALGORITHMS[algorithm].identifier,
        certificates=writer.explicit(0, writer.sequence(certificate)),
    )


def _unusable(issuer: Issuer, why: str) -> Broken:
    return Broken("bad-responder-certificate", f"The responder certificate for issuer {issuer.id} cannot be used.", why=why)


def _problem(issuer: Issuer, found: x509.Certificate, spki: bytes, now: UnixTime) -> str:
    """Why relying parties would not believe it, or nothing."""
    its_key = found.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if its_key != spki:
        return "It is for another key."
    if found.issuer.public_bytes() != issuer.subject:
        return "Another CA is its issuer (RFC 6960 4.2.2.2: the CA named in the request signs it directly)."
    algorithms.verify(algorithms.cached_public_key(issuer.spki), found.signature, found.tbs_certificate_bytes)
    if not found.subject.rdns:
        return "Its subject is empty."
    if list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) != [ExtendedKeyUsageOID.OCSP_SIGNING]:
        return "Its extended key usage is not OCSPSigning alone (RFC 6960 4.2.2.2)."
    if not found.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
        return "Its key usage lacks digitalSignature."
    if found.extensions.get_extension_for_class(x509.OCSPNoCheck).critical:
        return "Its nocheck extension is critical (RFC 6960 4.2.2.2.1)."
    if not found.not_valid_before_utc.timestamp() <= now <= found.not_valid_after_utc.timestamp():
        return "It is not valid now."
    return ""


def renew_at(found: Responder) -> UnixTime:
    """When the next one is due: after half its life, up to a tenth earlier, so that workers do not all ask at once."""
    life = found.not_after - found.not_before
    return found.not_before + int(life * (0.5 - 0.1 * spread(found.key_hash)))


def together(delegates: Sequence[Responder]) -> Responder | None:
    """The one responder of an answer about certificates of several issuers: the same key, with a delegate certificate by each of them
    (RFC 6960 4.2.2.2: a delegate speaks only for the CA that signed it, R16). None where they have different keys.
    """
    first, *more = delegates
    if not more:
        return first
    if any(one.spki != first.spki for one in more):
        return None
    return replace(
        first,
        issuer_not_after=min(one.issuer_not_after for one in delegates),
        not_before=max(one.not_before for one in delegates),
        not_after=min(one.not_after for one in delegates),
        certificates=writer.explicit(0, writer.sequence(*(one.certificate for one in delegates))),
        others=tuple(one.certificate for one in more),
    )
