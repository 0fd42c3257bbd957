"""The to-be-signed octets of a CRL (RFC 5280 5.1). Ring 1: bytes out, no objects per entry.

Knows nothing of which entries belong into it: `ca.rules.crl` and the store decide that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ca.der import extensions, writer
from ca.der.algorithms import ALGORITHMS
from ca.errors import Broken
from ca.model import CrlEntry, CrlNumber, Issuer, Reason, Serial, UnixTime

_V2: Final = writer.integer(1)


def _entry_extensions(reason: Reason) -> bytes:
    if reason is Reason.unspecified:
        # RFC 5280 5.3.1: the extension is left out instead of saying unspecified.
        return b""
    value = writer.extension("2.5.29.21", writer.enumerated(reason), critical=False)
    return writer.sequence(value)


_REASONS: Final = {reason: _entry_extensions(reason) for reason in Reason if reason is not Reason.removeFromCRL}
"""removeFromCRL belongs into delta CRLs only (RFC 5280 5.3.1)."""


def _tail(revoked_at: UnixTime, reason: Reason) -> bytes:
    if reason not in _REASONS:
        raise Broken("crl-entry", "A complete CRL cannot hold an entry with reason removeFromCRL (RFC 5280 5.3.1).")
    return writer.time(revoked_at) + _REASONS[reason]


def entry(serial: Serial, revoked_at: UnixTime, reason: Reason) -> bytes:
    """One revokedCertificates element."""
    return writer.tlv(writer.SEQUENCE, writer.integer(serial) + _tail(revoked_at, reason))


def entry_octets(entries: Iterable[CrlEntry]) -> Iterator[bytes]:
    """The elements of many entries. Revocations come in bursts, so time and reason are encoded once per pair and kept."""
    tails: dict[tuple[UnixTime, Reason], tuple[bytes, bytes]] = {}
    for one in entries:
        pair = (one.revoked_at, one.reason)
        known = tails.get(pair)
        if known is None:
            if len(tails) > 100_000:
                tails.clear()
            tail = _tail(*pair)
            known = tails[pair] = (bytes((0x30, 22 + len(tail), 0x02, 20)), tail)
        serial = one.serial
        if serial.bit_length() // 8 == 19:
            # 20 octets with the sign bit clear: the form of every serial of ours.
            yield known[0] + serial.to_bytes(20, "big") + known[1]
        else:
            yield writer.tlv(writer.SEQUENCE, writer.integer(serial) + known[1])


def tbs_crl(issuer: Issuer, *, number: CrlNumber, this_update: UnixTime, next_update: UnixTime, entries: Iterable[CrlEntry]) -> bytes:
    """TBSCertList of a complete CRL: v2, nextUpdate, authorityKeyIdentifier and cRLNumber always there (RFC 5280 5.1.2, 5.2).

    Without entries the field revokedCertificates is absent (5.1.2.6). The issuer's name and key identifier are its certificate's octets.
    """
    revoked = b"".join(entry_octets(entries))
    body = b"".join(
        (
            _V2,
            ALGORITHMS[issuer.algorithm].identifier,
            issuer.subject,
            writer.time(this_update),
            writer.time(next_update),
            writer.tlv(writer.SEQUENCE, revoked) if revoked else b"",
            writer.explicit(
                0,
                writer.sequence(extensions.authority_key_identifier(issuer.key_identifier), extensions.crl_number(number)),
            ),
        )
    )
    return writer.tlv(writer.SEQUENCE, body)
