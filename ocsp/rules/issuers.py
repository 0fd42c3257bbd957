"""How requests name an issuer (RFC 6960 4.1.1), worked out once for every issuer of the deployment. Ring 1: pure.

A CertID names its issuer by hash algorithm, hash of the DER name and hash of the public key's bits. These three, as encoded, are looked up as
one octet string: both hashes are compared, always, and no issuer is ever searched for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from ca.der import reader, writer
from ca.errors import Malformed
from ca.model import CertificateState, Issuer, IssuerId, Reason, Revocation, Serial
from ocsp.model import GOOD, UNKNOWN, Policy, Status, Verdict

HASHES: Final = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}

LONGEST_SERIAL: Final = 20
"""Octets (RFC 5280 4.1.2.2)."""


def key_octets(spki: bytes) -> bytes:
    """The content of subjectPublicKey without tag, length and unused-bits octet: what OCSP hashes.

    Raises:
        Malformed: not a SubjectPublicKeyInfo.
    """
    parts = list(reader.children(spki, reader.only(spki, 0x30)))
    if len(parts) != 2 or parts[1].tag != 0x03:
        raise Malformed("bad-public-key", "The public key cannot be read.")
    return reader.bit_string(spki, parts[1])


FORMS: Final = (1, 3)
"""Of `prefixes`: SHA-1 and SHA-256, with NULL as parameters, as almost every client writes them."""
ALL_FORMS: Final = (0, 1, 2, 3)
"""Also with absent parameters: what is signed ahead where nobody signs when asked."""


def prefixes(subject: bytes, spki: bytes) -> tuple[tuple[str, bytes], ...]:
    """Every way to name an issuer: each hash, with absent parameters and with NULL (RFC 5754 2, RFC 3370 2.1 allow both).

    Returns:
        pairs of the hash's name and the encoded first three fields of a CertID.
    """
    key = key_octets(spki)
    found: list[tuple[str, bytes]] = []
    for name, dotted in HASHES.items():
        hashed = writer.octet_string(_digest(name, subject)) + writer.octet_string(_digest(name, key))
        found.extend((name, writer.sequence(writer.oid(dotted), parameters) + hashed) for parameters in (b"", writer.NULL))
    return tuple(found)


def by_prefix(issuers: Iterable[Issuer]) -> dict[bytes, tuple[IssuerId, ...]]:
    """The look-up table of all issuers; where several certificates share name and key, all of them, in the order given."""
    table: dict[bytes, tuple[IssuerId, ...]] = {}
    for issuer in issuers:
        for _, prefix in prefixes(issuer.subject, issuer.spki):
            table[prefix] = (*table.get(prefix, ()), issuer.id)
    return table


def certificate_ids(issuer: Issuer, serial: Serial) -> list[bytes]:
    """Every CertID that names a certificate: what must be forgotten when its status changes."""
    return [writer.tlv(writer.SEQUENCE, prefix + writer.integer(serial)) for _, prefix in prefixes(issuer.subject, issuer.spki)]


def possible(serial: int) -> bool:
    """Whether any certificate could have this serial: positive, at most 20 octets."""
    return 0 < serial < 1 << (8 * LONGEST_SERIAL)


def status(record: tuple[CertificateState, Revocation | None] | None) -> Status:
    """What the record of a certificate means.

    Issued and not revoked is good; anything revoked is revoked, also what a crash left void; an intent whose signature is not on record is unknown:
    it was not delivered, since delivery follows the record. Released from hold (`removeFromCRL`) is as if never revoked, since then.
    """
    if record is None:
        return UNKNOWN
    state, change = record
    if change is not None and change.reason is not Reason.removeFromCRL:
        return Status(Verdict.revoked, change.revoked_at, change.reason)
    if state is not CertificateState.issued:
        return UNKNOWN
    return GOOD if change is None else Status(Verdict.good, change.revoked_at)


def under(policy: Policy, issuer: IssuerId, found: Status) -> Status:
    """What is said of a status on record: a certificate of an issuer that was compromised is not good any more (RFC 6960 2.7)."""
    since = policy.compromised.get(issuer)
    return found if since is None or found.verdict is not Verdict.good else Status(Verdict.revoked, since, Reason.cACompromise)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.new(name, content, usedforsecurity=False).digest()
