"""Collects evidence from what a web request carries, and checks who may look. Verb ring: knows rules and ports only.

Evidence for issuing and revoking is only carried to the signer, which alone believes it (P2). Looking at the record changes nothing, so it is
decided here: by a client certificate that TLS proved, byte-equal in the store, live, of the operator profile, of an enabled operator.
"""

from __future__ import annotations

import hashlib

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Denied, FleetcaError, Unauthenticated
from ca.model import Certificate, Digest, MessageEvidence, PresentedCertificate, UnixTime
from ca.rules import renewal
from ca.rules.caps import Power, powers_of
from ca.rules.grant import OPERATOR, operator_of
from ca.rules.message import signed_octets
from enroll.ports import Reader


def presented(certificate: bytes | None) -> PresentedCertificate:
    """The client certificate of the connection as evidence.

    Raises:
        Unauthenticated: there is none (`certificate-required`).
    """
    if not certificate:
        raise Unauthenticated(
            "certificate-required",
            "A client certificate is required.",
            why="None was presented in the TLS handshake.",
            fix="Connect with the current certificate and its key, or send a message signed with that key.",
        )
    return PresentedCertificate(certificate)


def live_holder(certificate: bytes | None, *, reader: Reader, now: UnixTime) -> Certificate:
    """The row of a presented certificate: byte-equal on record, issued, inside its validity and not revoked.

    Never found by subject or issuer name: a look-alike of another CA has the same (incident R34).

    Raises:
        Unauthenticated: none was presented, or it is not ours (`certificate-unknown`).
        Denied: it is ours and no longer holds; the code says why.
    """
    der = presented(certificate).certificate
    row = renewal.known(reader.find_by_der_digest(Digest(hashlib.sha256(der).digest())), der)
    renewal.speaks(row, now=now)
    return row


def check_signature(given: MessageEvidence) -> None:
    """Did the key of the certificate that goes with a message sign it?

    Raises:
        Unauthenticated: it did not (`bad-signature`).
    """
    try:
        verify(load_public_key(read_certificate(given.certificate).spki), given.signature, signed_octets(given.payload))
    except FleetcaError:
        raise Unauthenticated("bad-signature", "The signature of the message does not hold.") from None


def may_search(row: Certificate, *, reader: Reader) -> bool:
    """Whether the holder of a live certificate is an operator of its tenant who may look at everything of it."""
    name = operator_of(row.device) if row.profile == OPERATOR else None
    operator = None if name is None else reader.find_operator(name)
    return operator is not None and operator.tenant == row.tenant and Power.search in powers_of(operator)


def require_search(certificate: bytes | None, *, reader: Reader, now: UnixTime) -> Certificate:
    """As `live_holder`, and the holder is an operator who may search.

    Raises:
        Unauthenticated, Denied: see `live_holder`; or the holder is no such operator (`operators-only`).
    """
    row = live_holder(certificate, reader=reader, now=now)
    if not may_search(row, reader=reader):
        raise Denied(
            "operators-only",
            "Only operators may look here.",
            why="The client certificate is not that of an enabled operator whose roles allow a search.",
            fix="Connect with an operator's certificate: fleetca operators add NAME",
        )
    return row
