"""From a certificate to a trusted root, by keys and never by names alone (R34). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from ca.der.algorithms import load_public_key, verify
from ca.der.certificate import read_certificate
from ca.errors import Denied, Refused
from ca.model import UnixTime

_NO_REV_AVAIL = "2.5.29.56"
_LONGEST = 8


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where a certificate says that its status and its issuer are."""

    ocsp: tuple[str, ...]
    crls: tuple[str, ...]
    issuers: tuple[str, ...]
    no_rev_avail: bool


def pointers(der: bytes) -> Pointers:
    """Read them off a certificate."""
    extensions = x509.load_der_x509_certificate(der).extensions
    ocsp: list[str] = []
    issuers: list[str] = []
    crls: list[str] = []
    short = False
    for extension in extensions:
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            for access in extension.value:
                if isinstance(access.access_location, x509.UniformResourceIdentifier):
                    places = ocsp if access.access_method == AuthorityInformationAccessOID.OCSP else issuers
                    places.append(access.access_location.value)
        elif isinstance(extension.value, x509.CRLDistributionPoints):
            crls += [
                name.value
                for point in extension.value
                for name in point.full_name or ()
                if isinstance(name, x509.UniformResourceIdentifier)
            ]
        elif extension.oid.dotted_string == _NO_REV_AVAIL:
            short = True
    return Pointers(tuple(ocsp), tuple(crls), tuple(issuers), short)


def chain(certificate: bytes, others: Sequence[bytes], roots: Sequence[bytes]) -> tuple[bytes, ...]:
    """The certificate, the CAs above it, and the root at the end (DER).

    Raises:
        Denied: it leads to no trusted root (`not-trusted`).
    """
    path = [certificate]
    while len(path) < _LONGEST:
        if path[-1] in roots:
            return tuple(path)
        above = next((one for one in (*roots, *others) if one not in path and _signed(path[-1], one)), None)
        if above is None:
            break
        path.append(above)
    raise Denied(
        "not-trusted",
        "The certificate does not lead to a trusted root.",
        fix="Give the CA certificates between with --chain, the root with --root.",
    )


def _signed(der: bytes, by: bytes) -> bool:
    above, below = read_certificate(by), x509.load_der_x509_certificate(der)
    ca = x509.load_der_x509_certificate(by)
    if above.subject != read_certificate(der).issuer:
        return False
    try:
        if not ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        if not ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return False
        verify(load_public_key(above.spki), below.signature, below.tbs_certificate_bytes)
    except (Refused, x509.ExtensionNotFound):
        return False
    return True


def outside_its_dates(path: Sequence[bytes], *, now: UnixTime, skew: int) -> bool:
    """Whether any certificate of a chain but the root is not valid now."""
    return any(not facts.not_before - skew <= now <= facts.not_after for facts in map(read_certificate, path[:-1] or path))
