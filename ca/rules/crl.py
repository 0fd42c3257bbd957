"""Windows and contents of CRLs. Ring 1: pure. The gate of `crl` shares nothing with this module (P6)."""

from __future__ import annotations

from ca.errors import Misconfigured, Unacceptable
from ca.model import Issuer, UnixTime
from ca.rules.window import last_second


def crl_window(issuer: Issuer, *, now: UnixTime, lifetime: int) -> tuple[UnixTime, UnixTime]:
    """The thisUpdate and nextUpdate of a CRL that is made now. nextUpdate never lies after the issuer's own end (R05).

    Raises:
        Misconfigured: the issuer may not sign CRLs (`no-crl-sign`), or the lifetime is not positive (`crl-lifetime`).
        Unacceptable: the issuer does not hold now (`issuer-expired`).
    """
    if not issuer.may_sign_crl:
        raise Misconfigured("no-crl-sign", f"Issuer {issuer.id!r} may not sign CRLs.", why="Its key usage lacks cRLSign.")
    if lifetime < 1:
        raise Misconfigured("crl-lifetime", "The lifetime of a CRL must be positive.", fix="Set [crl] lifetime, for example 24h.")
    if not issuer.not_before <= now <= issuer.not_after:
        raise Unacceptable("issuer-expired", f"Issuer {issuer.id!r} does not hold now.", why="A CRL of it would be believed by nobody.")
    return now, min(last_second(now, lifetime), issuer.not_after)


def keeps_from(previous_this_update: UnixTime | None) -> UnixTime:
    """Entries whose certificate's notAfter is at or after this second stay.

    An entry may go once it has stood on one CRL made after the certificate's validity (RFC 5280 3.3, R07). The last published CRL was
    that one for every certificate that had ended before its thisUpdate; without such a CRL nothing may go.
    """
    return 0 if previous_this_update is None else previous_this_update
