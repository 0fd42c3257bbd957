"""Windows and contents of CRLs. Ring 1: pure. The gate of `crl` shares nothing with this module (P6)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ca.errors import Misconfigured, Unacceptable
from ca.model import Issuer, UnixTime
from ca.rules.window import last_second

WHOLE: Final = 0
"""The shard number of the complete CRL, which lists what every shard lists."""


def shard_of(serial: int, count: int) -> int:
    """The shard of a fresh certificate, 1 to `count`, as a function of its serial number alone; `WHOLE` where there are no shards.

    It is hashed first, so that serial numbers that count up spread as well as ours. A certificate is asked about once, when it is made: what its
    distribution point then says holds for its life, also when there are more shards later.
    """
    return int.from_bytes(sha256(serial.to_bytes(20, "big")).digest()[:8], "big") % count + 1 if count else WHOLE


def shard_url(crl_url: str, shard: int) -> str:
    """Where a shard's CRL is: `issuing.crl` has the shards `issuing.1.crl`, `issuing.2.crl` ..."""
    return f"{crl_url.removesuffix('.crl')}.{shard}.crl" if shard else crl_url


def delta_url(crl_url: str) -> str:
    """Where the delta of the complete CRL is."""
    return f"{crl_url.removesuffix('.crl')}.delta.crl"


def check_growth(issuer: Issuer, recorded: Sequence[int]) -> bool:
    """Whether the shard count of the settings is news.

    Raises:
        Misconfigured: it is less than it was (`crl-shards-fewer`): certificates point to the shards that would be gone.
    """
    wanted, most = issuer.crls.shards, max(recorded, default=0)
    if wanted < most:
        raise Misconfigured(
            "crl-shards-fewer",
            f"The settings give issuer {issuer.id} {wanted} CRL shards, and it had {most}.",
            why="Certificates carry the addresses of the shards they were put into.",
            fix=f"Set crl_shards of issuer {issuer.id} to {most} or more.",
        )
    return wanted > most


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


def keeps_from(previous_this_update: UnixTime | None, *, this_update: UnixTime, next_update: UnixTime) -> UnixTime:
    """Entries whose certificate's notAfter is at or after this second stay on a CRL with these dates.

    An entry may go once it has stood on one regularly scheduled CRL made after the certificate's validity (RFC 5280 3.3, R07). A regular CRL
    comes within a third of the window before it, and others between them whenever somebody is revoked: so it stands on all that are made
    in a third of a window after its end, and on one at least. Without a published CRL nothing may go.
    """
    if previous_this_update is None:
        return 0
    return min(previous_this_update, this_update - (next_update - this_update) // 3)
