"""Reading our own answers again, with another parser (P11). Ring 1: pure.

cryptography reads what our writer wrote and must find what was asked, and the signature must hold. Nothing here uses the writer.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp

from ca.der import algorithms, reader
from ca.errors import Broken, FleetcaError
from ca.model import Reason, UnixTime
from ocsp.model import CertificateId, Responder, Status, Verdict, Window

_VERDICTS = {
    ocsp.OCSPCertStatus.GOOD: Verdict.good,
    ocsp.OCSPCertStatus.REVOKED: Verdict.revoked,
    ocsp.OCSPCertStatus.UNKNOWN: Verdict.unknown,
}


def reread(
    body: bytes,
    responder: Responder,
    entries: Sequence[tuple[CertificateId, Status]],
    *,
    produced_at: UnixTime,
    window: Window,
    nonce: bytes | None,
) -> None:
    """Compare a finished DER OCSPResponse with what it should say.

    Raises:
        Broken: it differs, or cannot be read, or its signature does not hold; it must not leave.
    """
    try:
        problem = _problem(body, responder, entries, produced_at=produced_at, window=window, nonce=nonce)
    except (ValueError, FleetcaError) as error:
        problem = str(error)
    if problem:
        raise Broken("ocsp-reread", "An OCSP answer does not say what it should.", why=problem)


def _moment(when: UnixTime) -> datetime:
    return datetime.fromtimestamp(when, UTC)


def _problem(
    body: bytes,
    responder: Responder,
    entries: Sequence[tuple[CertificateId, Status]],
    *,
    produced_at: UnixTime,
    window: Window,
    nonce: bytes | None,
) -> str:
    found = ocsp.load_der_ocsp_response(body)
    if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return "its status is not successful"
    algorithms.verify(algorithms.cached_public_key(responder.spki), found.signature, found.tbs_response_bytes)
    if _outside(body) != (responder.signature_algorithm, found.signature):
        return "another reader finds another algorithm or signature in it"
    if found.responder_key_hash != responder.key_hash or found.responder_name is not None:
        return "its responder is not named by the hash of its key"
    if [one.public_bytes(serialization.Encoding.DER) for one in found.certificates] != [responder.certificate, *responder.others]:
        return "the delegate's certificate is not in it"
    if found.produced_at_utc != _moment(produced_at):
        return "its producedAt differs"
    echoed = [one.value.nonce for one in found.extensions if isinstance(one.value, x509.OCSPNonce)]
    if echoed != ([] if nonce is None else [nonce]):
        return "its nonce differs"
    singles = list(found.responses)
    if len(singles) != len(entries):
        return "it answers for another number of certificates"
    for single, (certificate, status) in zip(singles, entries, strict=True):
        if single.this_update_utc != _moment(window.this_update) or single.next_update_utc != _moment(window.next_update):
            return "its window differs"
        if single.serial_number != certificate.serial or not _same_issuer(single, certificate):
            return "it speaks of another certificate"
        if _VERDICTS[single.certificate_status] is not status.verdict:
            return "its status differs"
        if status.verdict is Verdict.revoked:
            reason = single.revocation_reason
            said = Reason.unspecified if reason is None else Reason[_REASONS.get(reason, reason.value)]
            if single.revocation_time_utc != _moment(status.since) or said is not status.reason:
                return "its revocation differs"
    return ""


def _outside(body: bytes) -> tuple[bytes, bytes]:
    """The signatureAlgorithm and the octets of the signature (RFC 6960 4.2.1).

    cryptography compares the first with nothing, and lets the BIT STRING of the second claim unused bits that happen to be zero.
    """
    at = reader.only(body, 0x30)
    status = reader.expect(body, at.content, at.end, 0x0A)
    wrapper = reader.expect(body, status.end, at.end, 0xA0)
    typed = reader.expect(body, wrapper.content, wrapper.end, 0x30)
    kind = reader.expect(body, typed.content, typed.end, 0x06)
    octets = reader.expect(body, kind.end, typed.end, 0x04)
    basic = reader.expect(body, octets.content, octets.end, 0x30)
    tbs = reader.expect(body, basic.content, basic.end, 0x30)
    algorithm = reader.expect(body, tbs.end, basic.end, 0x30)
    signature = reader.expect(body, algorithm.end, basic.end, 0x03)
    return body[algorithm.start : algorithm.end], reader.bit_string(body, signature)


_REASONS = {x509.ReasonFlags.ca_compromise: "cACompromise", x509.ReasonFlags.aa_compromise: "aACompromise"}


def _same_issuer(single: ocsp.OCSPSingleResponse, certificate: CertificateId) -> bool:
    return certificate.prefix.endswith(single.issuer_key_hash) and single.issuer_name_hash in certificate.prefix


def chosen(body: bytes, share: float) -> bool:
    """Whether this answer is in the sampled share: decided by its own octets, the signature among them, which nobody can foresee."""
    return zlib.crc32(body) < share * 0x100000000
