"""Revocation by account, by authorised account and by the certificate's own key (RFC 8555 7.6). Verb ring: the signer decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ca.der.certificate import read_certificate
from ca.errors import Conflict, Denied, FleetcaError, Refused
from ca.model import Certificate, Digest, Evidence, PresentedCertificate, Reason, RevokeRequest, ValidatedNames
from ca.rules.renewal import revoked
from ca.rules.revocation import FOR_ONESELF
from enroll.acme import jws
from enroll.acme.keys import spki_of
from enroll.acme.model import Problem
from enroll.acme.orders import Orders
from enroll.acme.requests import Asker
from enroll.ports import Reader, Signer


class Revoking:
    def __init__(self, *, signer: Signer, reader: Reader, orders: Orders) -> None:
        self._signer, self._reader, self._orders = signer, reader, orders

    def revoke(self, asker: Asker) -> Certificate:
        """Revoke a certificate.

        Raises:
            Problem: `malformed`, `badRevocationReason`, `alreadyRevoked`, `unauthorized`.
            Unavailable: the signer cannot do it now.
        """
        payload = asker.payload()
        der = jws.decode(payload.get("certificate"), "certificate")
        reason = _reason(payload)
        found = self._reader.find_by_der_digest(Digest(hashlib.sha256(der).digest()))
        if found is None or found.der != der:
            raise Problem("malformed", "The certificate is not one of ours (RFC 8555 7.6).", status=404)
        evidence = self._evidence(asker, found)
        if revoked(found):
            raise Problem("alreadyRevoked", "The certificate is revoked already (RFC 8555 7.6).")
        try:
            self._signer.revoke(RevokeRequest(evidence, reason, target=found.ref))
        except Conflict as error:
            raise Problem("alreadyRevoked", str(error)) from None
        except Refused as error:
            raise _refusal(error) from None
        return found

    def _evidence(self, asker: Asker, found: Certificate) -> Evidence:
        if asker.account is None:
            assert found.der is not None
            if read_certificate(found.der).spki != spki_of(asker.jwk):
                raise Problem("unauthorized", "The request is not signed by the certificate's key (RFC 8555 7.6).")
            return PresentedCertificate(found.der)
        account = asker.account
        return ValidatedNames(account.id, "", asker.directory.profile, self._orders.held(account, found.names), account.token)


def _reason(payload: Mapping[str, Any]) -> Reason:
    code = payload.get("reason", 0)
    if isinstance(code, bool) or not isinstance(code, int):
        raise Problem("malformed", "reason is a number (RFC 8555 7.6).")
    if code not in {reason.value for reason in FOR_ONESELF}:
        words = ", ".join(f"{reason.value} ({reason.name})" for reason in sorted(FOR_ONESELF))
        raise Problem("badRevocationReason", f"Of reasons, these are taken: {words} (RFC 8555 7.6).")
    return Reason(code)


def _refusal(error: FleetcaError) -> Problem:
    if error.code == "certificate-revoked":
        return Problem("alreadyRevoked", str(error))
    if error.code == "certificate-expired":
        return Problem("malformed", str(error))
    return Problem("unauthorized", str(error)) if isinstance(error, Denied) else Problem("malformed", str(error))
