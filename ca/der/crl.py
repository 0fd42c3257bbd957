"""The octets of CRLs (RFC 5280 5). Ring 1: bytes out, no objects per entry.

A CRL is a frame around entries. The frame is small and made each time; the entries may be millions, are the same in every CRL that lists them, and
are never held together here. Knows nothing of which entries belong into it: `ca.rules.crl` and the store decide that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ca.der import extensions, writer
from ca.der.algorithms import ALGORITHMS
from ca.errors import Broken
from ca.model import CrlContents, CrlEntry, CrlNumber, Issuer, ListedChange, Reason, Serial, UnixTime

_V2: Final = writer.integer(1)
_TAILS_KEPT: Final = 10_000
_ONLY: Final = {CrlContents.everything: b"", CrlContents.end_entities: b"\x81\x01\xff", CrlContents.authorities: b"\x82\x01\xff"}
"""onlyContainsUserCerts [1], onlyContainsCACerts [2] (RFC 5280 5.2.5)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one kind of CRL from another."""

    url: str | None = None
    """The distribution point whose certificates it speaks of; None: of all of its issuer."""
    contents: CrlContents = CrlContents.everything
    base: CrlNumber | None = None
    """Of a delta: the complete CRL that it adds to."""
    freshest: str | None = None
    """Where deltas to it are."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A TBSCertList without its entries: `head + entries + tail`."""

    head: bytes
    tail: bytes


def _entry_extensions(reason: Reason, invalid_from: UnixTime | None) -> bytes:
    # RFC 5280 5.3.1: the reason is left out instead of saying unspecified.
    values = b"" if reason is Reason.unspecified else writer.extension("2.5.29.21", writer.enumerated(reason), critical=False)
    if invalid_from is not None:
        values += writer.extension("2.5.29.24", writer.generalized_time(invalid_from), critical=False)
    return writer.sequence(values) if values else b""


def _tail(revoked_at: UnixTime, reason: Reason, invalid_from: UnixTime | None, *, delta: bool) -> bytes:
    if reason is Reason.removeFromCRL and not delta:
        raise Broken("crl-entry", "A complete CRL cannot hold an entry with reason removeFromCRL (RFC 5280 5.3.1).")
    return writer.time(revoked_at) + _entry_extensions(reason, invalid_from)


def entry(serial: Serial, revoked_at: UnixTime, reason: Reason, invalid_from: UnixTime | None = None, *, delta: bool = False) -> bytes:
    """One revokedCertificates element."""
    return writer.tlv(writer.SEQUENCE, writer.integer(serial) + _tail(revoked_at, reason, invalid_from, delta=delta))


def entry_octets(entries: Iterable[CrlEntry], *, delta: bool = False) -> Iterator[bytes]:
    """The elements of many entries."""
    rows: Iterable[ListedChange] = (
        (0, 0, one.serial.to_bytes(20, "big"), one.reason, one.revoked_at, 0, one.invalid_from, None) for one in entries
    )
    return (octets for _, octets in Encoder(delta=delta).encode(rows))


class Encoder:
    """Makes elements of rows. Revocations come in bursts, so what follows a serial number is encoded once for the same octets and kept."""

    def __init__(self, *, delta: bool = False) -> None:
        self._delta = delta
        self._tails: dict[tuple[UnixTime, int, UnixTime | None], tuple[bytes, bytes]] = {}

    def encode(self, rows: Iterable[ListedChange]) -> Iterator[tuple[ListedChange, bytes]]:
        """Each row with its element."""
        tails = self._tails
        for row in rows:
            key = (row[4], row[3], row[6])
            known = tails.get(key)
            if known is None:
                if len(tails) > _TAILS_KEPT:
                    tails.clear()
                tail = _tail(row[4], Reason(row[3]), row[6], delta=self._delta)
                known = tails[key] = (bytes((0x30, 22 + len(tail), 0x02, 20)), tail)
            serial = row[2]
            if 0 < serial[0] < 0x80:
                # 20 octets with the sign bit clear: the form of every serial of ours.
                yield row, known[0] + serial + known[1]
            else:
                yield row, writer.tlv(writer.SEQUENCE, writer.integer(int.from_bytes(serial, "big")) + known[1])


def issuing_distribution_point(url: str | None, contents: CrlContents) -> bytes:
    """The issuingDistributionPoint, critical; nothing where it would say nothing (RFC 5280 5.2.5)."""
    name = b"" if url is None else writer.explicit(0, writer.explicit(0, writer.implicit(6, url.encode("ascii"))))
    value = name + _ONLY[contents]
    return writer.extension("2.5.29.28", writer.sequence(value), critical=True) if value else b""


def frame(
    issuer: Issuer, *, number: CrlNumber, this_update: UnixTime, next_update: UnixTime, size: int, shape: Shape | None = None
) -> Frame:
    """TBSCertList around `size` octets of entries: v2, nextUpdate, authorityKeyIdentifier and cRLNumber always there (RFC 5280 5.1.2, 5.2).

    Without entries the field revokedCertificates is absent (5.1.2.6). The issuer's name and key identifier are its certificate's octets.
    """
    shape = shape or Shape()
    fields = b"".join(
        (
            _V2,
            ALGORITHMS[issuer.algorithm].identifier,
            issuer.subject,
            writer.time(this_update),
            writer.time(next_update),
            bytes((writer.SEQUENCE,)) + writer.length(size) if size else b"",
        )
    )
    listed = [extensions.authority_key_identifier(issuer.key_identifier), extensions.crl_number(number)]
    if shape.base is not None:
        listed.append(writer.extension("2.5.29.27", writer.integer(shape.base), critical=True))
    listed.append(issuing_distribution_point(shape.url, shape.contents))
    if shape.freshest is not None:
        # cRLDistributionPoints under another name (RFC 5280 5.2.6).
        point = writer.explicit(0, writer.explicit(0, writer.implicit(6, shape.freshest.encode("ascii"))))
        listed.append(writer.extension("2.5.29.46", writer.sequence(writer.sequence(point)), critical=False))
    tail = writer.explicit(0, writer.sequence(*listed))
    return Frame(bytes((writer.SEQUENCE,)) + writer.length(len(fields) + size + len(tail)) + fields, tail)


def tbs_crl(
    issuer: Issuer,
    *,
    number: CrlNumber,
    this_update: UnixTime,
    next_update: UnixTime,
    entries: Iterable[CrlEntry],
    shape: Shape | None = None,
) -> bytes:
    """A whole TBSCertList, for lists that are short: a ceremony's."""
    delta = shape is not None and shape.base is not None
    listed = b"".join(entry_octets(entries, delta=delta))
    made = frame(issuer, number=number, this_update=this_update, next_update=next_update, size=len(listed), shape=shape)
    return made.head + listed + made.tail
