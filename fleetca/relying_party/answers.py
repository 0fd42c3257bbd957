"""OCSP from the other side (RFC 6960 3.2, RFC 9919 4): the request for a certificate, and whether an answer may be believed. Pure.

An answer counts only if all of it holds: it is about this very certificate of this issuer, it holds now, who signed it is the issuer itself or a
delegate that the issuer signed for nothing but this, and, where a nonce was sent, it brings that nonce.
"""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.der import algorithms, writer
from ca.der.certificate import read_certificate, time_of
from ca.errors import Broken, Refused, Unavailable
from ca.model import Reason, UnixTime
from fleetca.relying_party.words import Policy, Source, Verdict, Word
from ocsp.rules.issuers import prefixes
from ocsp.rules.request import NONCE
from ocsp.rules.responder import key_hash

LONGEST: Final = 64 * 1024
"""Octets of an answer about one certificate."""
_SHORT_GET: Final = 255
"""RFC 9919 5: up to so many octets of URL a GET must be used."""
_KNOWN: Final = frozenset((NONCE, "1.3.6.1.5.5.7.48.1.9", "1.3.6.1.5.5.7.48.1.6"))
_REASONS: Final = {x509.ReasonFlags.ca_compromise: Reason.cACompromise, x509.ReasonFlags.aa_compromise: Reason.aACompromise}


def request(certificate: bytes, issuer: bytes, *, nonce: bytes | None) -> bytes:
    """DER OCSPRequest about one certificate, by SHA-256 (RFC 9919 3.1.1)."""
    ca = read_certificate(issuer)
    prefix = dict(prefixes(ca.subject, ca.spki))["sha256"]
    certificate_id = writer.tlv(writer.SEQUENCE, prefix + writer.integer(read_certificate(certificate).serial))
    listed = writer.sequence(writer.sequence(certificate_id))
    if nonce is None:
        return writer.sequence(writer.sequence(listed))
    extension = writer.extension(NONCE, writer.octet_string(nonce), critical=False)
    return writer.sequence(writer.sequence(listed, writer.explicit(2, writer.sequence(extension))))


def target(url: str, request_: bytes) -> str | None:
    """The address of the GET for a request; None where it has to be a POST."""
    whole = f"{url.rstrip('/')}/{quote(base64.b64encode(request_).decode(), safe='')}"
    return whole if len(whole) <= _SHORT_GET else None


def judge(body: bytes, *, certificate: bytes, issuer: bytes, nonce: bytes | None, now: UnixTime, policy: Policy) -> Word:
    """What an answer says.

    Raises:
        Broken: it may not be believed; the text says why (`bad-ocsp-answer`).
        Unavailable: the responder says that it cannot answer now, or not this (`ocsp-error`).
    """
    if len(body) > LONGEST:
        raise _bad(f"It is longer than {LONGEST} octets.")
    try:
        told = ocsp.load_der_ocsp_response(body)
        if told.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Unavailable("ocsp-error", f"The responder says {told.response_status.name.lower()}.")
        return _judged(told, read_certificate(certificate).serial, issuer, nonce=nonce, now=now, policy=policy)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _bad(f"It cannot be read: {error}") from None


def _bad(why: str) -> Broken:
    return Broken("bad-ocsp-answer", "The OCSP answer cannot be believed.", why=why)


def _judged(told: ocsp.OCSPResponse, serial: int, issuer: bytes, *, nonce: bytes | None, now: UnixTime, policy: Policy) -> Word:
    ca = read_certificate(issuer)
    ours = {name: prefix for name, prefix in prefixes(ca.subject, ca.spki)}  # noqa: C416  the last of two forms counts, both hash alike
    single = next(
        (
            one
            for one in told.responses
            if one.serial_number == serial
            and ours.get(one.hash_algorithm.name, b"").endswith(one.issuer_key_hash)
            and one.issuer_name_hash in ours[one.hash_algorithm.name]
        ),
        None,
    )
    if single is None:
        raise _bad("It is about another certificate, or another issuer's.")
    for extension in told.extensions:
        if extension.critical and extension.oid.dotted_string not in _KNOWN:
            raise _bad(f"Its critical extension {extension.oid.dotted_string} is not known here.")
    echoed = [one.value.nonce for one in told.extensions if isinstance(one.value, x509.OCSPNonce)]
    if nonce is not None and echoed != [nonce]:
        raise _bad(
            "It does not bring the nonce of the request: it may be an older one."
            if not echoed
            else "It brings another nonce: it is a replay."
        )
    _check_signer(told, issuer, now=now, skew=policy.skew)
    if single.next_update_utc is None:
        raise _bad("It has no nextUpdate (RFC 9919 3.2.4).")
    this_update, next_update = time_of(single.this_update_utc), time_of(single.next_update_utc)
    if this_update > now + policy.skew:
        raise _bad("It is from the future. Compare the clocks.")
    if next_update <= now:
        raise _bad("Its nextUpdate is past.")
    verdict = Verdict[single.certificate_status.name.lower()]
    if verdict is not Verdict.revoked:
        return Word(verdict, Source.ocsp, this_update, next_update)
    assert single.revocation_time_utc is not None, "a revoked one has it"
    flag = single.revocation_reason
    reason = Reason.unspecified if flag is None else _REASONS.get(flag) or Reason[flag.value]
    return Word(verdict, Source.ocsp, this_update, next_update, reason, time_of(single.revocation_time_utc))


def _check_signer(told: ocsp.OCSPResponse, issuer: bytes, *, now: UnixTime, skew: int) -> None:
    """RFC 6960 4.2.2.2: the issuer itself, or a delegate of its own."""
    ca = x509.load_der_x509_certificate(issuer)
    for candidate in (ca, *told.certificates):
        spki = candidate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        named = (
            key_hash(spki) == told.responder_key_hash if told.responder_key_hash is not None else candidate.subject == told.responder_name
        )
        if not named:
            continue
        if candidate is not ca:
            _check_delegate(candidate, ca, now=now, skew=skew)
        try:
            algorithms.verify(algorithms.load_public_key(spki), told.signature, told.tbs_response_bytes)
        except Refused:
            raise _bad("Its signature does not verify.") from None
        return
    raise _bad("Who signed it is neither the issuer nor among its certificates.")


def _check_delegate(delegate: x509.Certificate, ca: x509.Certificate, *, now: UnixTime, skew: int) -> None:
    facts = read_certificate(delegate.public_bytes(Encoding.DER))
    try:
        if delegate.issuer != ca.subject:
            raise _bad("Its delegate was signed by another CA (RFC 6960 4.2.2.2).")
        algorithms.verify(
            algorithms.load_public_key(ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
            delegate.signature,
            delegate.tbs_certificate_bytes,
        )
    except Refused:
        raise _bad("Its delegate was not signed by the issuer of the certificate (RFC 6960 4.2.2.2).") from None
    if not facts.not_before - skew <= now <= facts.not_after:
        raise _bad("Its delegate's certificate is not valid now.")
    extensions = delegate.extensions
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        extensions.get_extension_for_class(x509.OCSPNoCheck)
    except x509.ExtensionNotFound:
        raise _bad("Its delegate is none: OCSPSigning or nocheck is missing, and nobody says whether it is revoked.") from None
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usages:
        raise _bad("Its delegate may not sign OCSP answers.")
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
            raise _bad("Its delegate's key may not sign.")
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise _bad("Its delegate is a CA (R16).")
