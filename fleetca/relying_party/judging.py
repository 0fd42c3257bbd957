"""Whether a CRL is what a relying party may believe: its issuer's, whole, of now, for the certificates it is used for, and not an older one again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ca.der import pem
from ca.errors import Broken, FleetcaError, Malformed, Misconfigured
from ca.model import Issuer, KeyName, UnixTime
from ca.rules.certificate import issuer_from_certificate
from crl.rules import anatomy
from crl.rules.anatomy import Anatomy, InMemory

SKEW: Final = 300


def issuers_in(file: str) -> list[Issuer]:
    """The CA certificates of a file.

    Raises:
        Misconfigured: it holds none.
    """
    octets = Path(file).read_bytes()
    ders = [octets] if octets.startswith(b"\x30") else pem.ders_of(octets, pem.CERTIFICATE)
    found = []
    for number, der in enumerate(ders):
        try:
            found.append(issuer_from_certificate(der, id=f"ca-{number}", key=KeyName("theirs")))
        except Misconfigured:
            continue  # a leaf in a chain file
    if not found:
        raise Misconfigured("no-ca-there", f"{file} holds no CA certificate.", fix="Give the chain of the issuer of the CRL, in PEM.")
    return found


def judge(octets: bytes, issuers: list[Issuer], *, point: str | None, now: UnixTime) -> tuple[Anatomy, Issuer]:
    """Check a CRL from outside.

    Args:
        point: the distribution point of the certificates that it is used for; None: not known, then none may be named.

    Raises:
        Broken: what is wrong, by code.
    """
    try:
        read = anatomy.read(InMemory(octets))
        issuer = next((one for one in issuers if one.subject == read.issuer and _signed_by(read, one)), None)
        if issuer is None:
            if any(one.subject == read.issuer for one in issuers):
                raise Broken("crl-signature", "The CRL's signature does not verify with the key of its issuer.")
            raise Broken("crl-issuer", "The CRL is of none of the issuers that are trusted here.")
        if not issuer.may_sign_crl:
            raise Broken("crl-issuer", "The CRL's issuer may not sign CRLs.", why="Its certificate lacks cRLSign (RFC 5280 6.3.3 f).")
        named = read.point()
        # RFC 5280 6.3.3 b.2: what speaks of other certificates would make those of this point look good.
        if named is not None and named.url is not None and named.url != point:
            raise Broken("crl-scope", f"The CRL speaks of certificates that point to {named.url}, and not to {point or 'it'}.")
        unknown = set(read.extensions) - _KNOWN
        if any(read.extensions[dotted][0] for dotted in unknown):
            raise Broken("crl-extension", f"The CRL has a critical extension that is not known here: {', '.join(sorted(unknown))}.")
        read.number()
        if read.this_update > now + SKEW:
            raise Broken("crl-window", "The CRL's thisUpdate lies in the future.", fix="Compare the clocks.")
        if read.next_update <= now:
            raise Broken("crl-window", "The CRL's nextUpdate is past.")
        for _ in anatomy.entries(read):
            pass
    except Malformed as error:
        raise Broken("crl-form", error.what, why=error.why) from None
    return read, issuer


_KNOWN: Final = frozenset(
    {
        anatomy.AUTHORITY_KEY_IDENTIFIER,
        anatomy.CRL_NUMBER,
        anatomy.DELTA_INDICATOR,
        anatomy.ISSUING_POINT,
        anatomy.FRESHEST,
    }
)


def _signed_by(read: Anatomy, issuer: Issuer) -> bool:
    try:
        anatomy.verify(read, issuer)
    except FleetcaError:
        return False
    return True


def gone_back(new: bytes, old: bytes) -> list[str]:
    """What is less than it was, between two CRLs of one issuer."""
    after, before = anatomy.read(InMemory(new)), anatomy.read(InMemory(old))
    found = []
    if after.number() < before.number():
        found.append(f"The number went back from {before.number()} to {after.number()} [crl-number]")
    if after.this_update < before.this_update:
        found.append("thisUpdate went back [crl-window]")
    left = {one[0] for one in anatomy.entries(before)} - {one[0] for one in anatomy.entries(after)}
    if left:
        some = ", ".join(f"{serial:x}" for serial in sorted(left)[:5])
        found.append(f"{len(left)} left the list; each must be released, or expired and listed once after that: {some} [crl-left]")
    return found
