"""Collects evidence from what a web request carries, and checks who may look. Verb ring: knows rules and ports only.

Evidence for issuing and revoking is only carried to the signer, which alone believes it (P2). Looking at the record changes nothing, so it is
decided here: by a client certificate that TLS proved, byte-equal in the store, live, of the operator profile, of an enabled operator.
"""

from __future__ import annotations

import hashlib
from typing import Final

from ca.errors import Denied, Unauthenticated
from ca.model import Certificate, CertificateState, Digest, OperatorName, PresentedCertificate, ProfileName, Reason, UnixTime
from enroll.ports import Reader

OPERATOR_PROFILE: Final = ProfileName("operator")
OPERATOR_DEVICE: Final = "operator:"
"""What the device id of an operator's certificate begins with; its name follows."""


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
    """The row of a presented certificate: byte-equal on record, issued, inside its validity, not revoked, not superseded.

    Never found by subject or issuer name: a look-alike of another CA has the same (incident R34).

    Raises:
        Unauthenticated: none was presented, or it is not ours.
        Denied: it is ours and no longer holds; the code says why.
    """
    der = presented(certificate).certificate
    row = reader.find_by_der_digest(Digest(hashlib.sha256(der).digest()))
    if row is None or row.der != der or row.state is not CertificateState.issued:
        raise Unauthenticated(
            "certificate-not-ours", "The client certificate is not on record here.", why="This deployment did not issue it."
        )
    if row.revocation is not None and row.revocation.reason is not Reason.removeFromCRL:
        raise Denied("certificate-revoked", "The client certificate is revoked.")
    if not row.not_before <= now <= row.not_after:
        raise Denied("certificate-expired", "The client certificate is not valid at this time.", fix="Renew it, or set the clock right.")
    if row.superseded_at is not None:
        raise Denied("certificate-superseded", "The client certificate was superseded by its successor.", fix="Use the successor.")
    return row


def require_operator(certificate: bytes | None, *, reader: Reader, now: UnixTime) -> Certificate:
    """As `live_holder`, and the holder is an operator who is enabled.

    Raises:
        Unauthenticated, Denied: see `live_holder`; or it belongs to no operator (`operators-only`).
    """
    row = live_holder(certificate, reader=reader, now=now)
    if row.profile == OPERATOR_PROFILE and row.device.startswith(OPERATOR_DEVICE):
        operator = reader.find_operator(OperatorName(row.device.removeprefix(OPERATOR_DEVICE)))
        if operator is not None and operator.disabled_at is None and operator.tenant == row.tenant:
            return row
    raise Denied(
        "operators-only",
        "Only operators may look here.",
        why="The client certificate is not of an enabled operator.",
        fix="Connect with an operator's certificate: fleetca operators add NAME",
    )
