"""What the record says, as octets: the gate's own second opinion of how an entry is encoded (RFC 5280 5.1.2.6). Ring 1: pure.

Shares no code with `ca.der`, so that no mistake of the writer's is made here too (P6). A CRL whose entries are these very octets has exactly the
entries of the record, each in the form that `crl.rules.anatomy` takes for right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol, TypeAlias

from ca.errors import Broken
from ca.model import ChangeNumber, CrlEntry, IssuerId, ListedChange, Reason, UnixTime

_YEAR_2050: Final = 2524608000
_PIECE: Final = 4096
_KEPT: Final = 10_000
_PAGE: Final = 4000
"""Entries that stay in a processor's own memory from the database to here."""
_SERIAL: Final = struct.Struct("20s")
_REASON: Final = bytes.fromhex("300a0603551d1504030a01")
_INVALID: Final = bytes.fromhex("30180603551d180411180f")


Page: TypeAlias = tuple[bytes, Sequence[str]]
"""Serial numbers of 20 octets each, one after the other, and for each what its entry shows beside it: `REVOKED_AT:REASON:INVALID_FROM`, the last one
empty where it is not known. Not a row each: making those in the driver would take as long as all the rest."""


def element(serial: int, revoked_at: UnixTime, reason: int, invalid_from: UnixTime | None) -> bytes:
    """One entry."""
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    rest = _rest(revoked_at, reason, invalid_from)
    return bytes((0x30, 2 + len(number) + len(rest), 0x02, len(number))) + number + rest


def _rest(revoked_at: UnixTime, reason: int, invalid_from: UnixTime | None) -> bytes:
    return _when(revoked_at) + _said(reason, invalid_from)


@lru_cache(maxsize=1024)
def _when(revoked_at: UnixTime) -> bytes:
    """A Time. Revocations come in bursts, of one second and several reasons."""
    day, second = divmod(revoked_at, 86400)
    minute, second = divmod(second, 60)
    return _day(day) + b"%02d%02d%02dZ" % (minute // 60, minute % 60, second)


@lru_cache(maxsize=1024)
def _day(day: int) -> bytes:
    """The beginning of a Time: its header, and the date. UTCTime through 2049 (RFC 5280 5.1.2.6)."""
    text = datetime.fromtimestamp(day * 86400, UTC).strftime("%Y%m%d").encode()
    return b"\x18\x0f" + text if day * 86400 >= _YEAR_2050 else b"\x17\x0d" + text[2:]


@lru_cache(maxsize=1024)
def _said(reason: int, invalid_from: UnixTime | None) -> bytes:
    said = b"" if reason == Reason.unspecified else _REASON + b"%c" % reason
    if invalid_from is not None:
        said += _INVALID + datetime.fromtimestamp(invalid_from, UTC).strftime("%Y%m%d%H%M%SZ").encode()
    return b"\x30%c" % len(said) + said if said else b""


class Recorded:
    """The entries that a CRL must have, straight from the record.

    Args:
        entries: gives them from the start each time it is called, oldest change first.
        fits: whether a certificate of that serial number may stand in this CRL; None: all may.
        pages: the same, where there may be millions.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[CrlEntry]],
        *,
        fits: Callable[[int], bool] | None = None,
        pages: Callable[[], Iterator[Page]] | None = None,
    ) -> None:
        self._entries, self._fits, self._pages = entries, fits, pages
        self.latest: UnixTime = 0
        """The latest date among them, once all octets were given."""
        self.count = 0
        """How many there are, then."""

    def entries(self) -> Iterator[CrlEntry]:
        """One by one."""
        return iter(self._entries())

    def octets(self) -> Iterator[bytes]:
        """As they must stand, a piece at a time.

        Raises:
            Broken: the record itself puts one into the wrong shard (`crl-scope`).
        """
        self.latest, self.count = 0, 0
        if self._pages is not None:
            yield from self._octets_of(self._pages())
            return
        piece: list[bytes] = []
        for one in self._entries():
            if self._fits is not None and not self._fits(one.serial):
                raise misplaced(one.serial)
            self.latest = max(self.latest, one.revoked_at)
            self.count += 1
            piece.append(element(one.serial, one.revoked_at, one.reason, one.invalid_from))
            if len(piece) == _PIECE:
                yield b"".join(piece)
                piece = []
        yield b"".join(piece)

    def _octets_of(self, pages: Iterator[Page]) -> Iterator[bytes]:
        """As `element`, in one expression a page: this runs a million times a CRL."""
        rests, fits = _Rests(), self._fits
        for serials, rows in pages:
            if fits is not None:
                for (serial,) in _SERIAL.iter_unpack(serials):
                    if not fits(int.from_bytes(serial, "big")):
                        raise misplaced(int.from_bytes(serial, "big"))
            firsts = serials[:: _SERIAL.size]
            if firsts.isascii() and 0 not in firsts:
                # 20 octets with the sign bit clear: the form of every serial number of ours.
                piece = [
                    (rest := rests[row])[0] + serial + rest[1] for (serial,), row in zip(_SERIAL.iter_unpack(serials), rows, strict=True)
                ]
            else:
                # Imported data has serial numbers of every legal length.
                piece = [
                    element(int.from_bytes(serial, "big"), *rests.read(row))
                    for (serial,), row in zip(_SERIAL.iter_unpack(serials), rows, strict=True)
                ]
            self.count += len(piece)
            self.latest = rests.latest
            yield b"".join(piece)


class _Rests(dict[str, tuple[bytes, bytes]]):
    """What stands around a serial number of 20 octets, made once for the same date, reason and invalidityDate."""

    latest: UnixTime = 0

    def __missing__(self, row: str) -> tuple[bytes, bytes]:
        if len(self) > _KEPT:
            self.clear()
        rest = _rest(*self.read(row))
        made = self[row] = (bytes((0x30, 22 + len(rest), 0x02, 20)), rest)
        return made

    def read(self, row: str) -> tuple[UnixTime, int, UnixTime | None]:
        """Revoked at, reason, invalid from."""
        revoked_at, reason, invalid_from = row.split(":")
        at = int(revoked_at)
        self.latest = max(self.latest, at)
        return at, int(reason), int(invalid_from) if invalid_from else None


class Listing(Protocol):
    """The record."""

    def listed_entries(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, expired_before: UnixTime, limit: int
    ) -> tuple[ChangeNumber, bytes, Sequence[str]] | None: ...

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]: ...

    def replaced(self, first: ChangeNumber, last: ChangeNumber, *, as_of: ChangeNumber) -> Collection[ChangeNumber]: ...


def pages(reading: Listing, issuer: IssuerId, shard: int, *, as_of: ChangeNumber, expired_before: UnixTime) -> Iterator[Page]:
    """All that a CRL of that moment lists. Where some were changed again since, that stretch is read row by row."""
    after = 0
    while page := reading.listed_entries(issuer, shard, after=after, as_of=as_of, expired_before=expired_before, limit=_PAGE):
        last, serials, rows = page
        if gone := reading.replaced(after + 1, last, as_of=as_of):
            kept: list[ListedChange] = []
            while changes := reading.listed_changes(issuer, shard, after=after, as_of=last, limit=_PAGE):
                after = changes[-1][0]
                kept += [one for one in changes if one[0] not in gone and one[3] != Reason.removeFromCRL and one[5] >= expired_before]
            serials = b"".join([one[2] for one in kept])
            rows = [f"{one[4]}:{one[3]}:{'' if one[6] is None else one[6]}" for one in kept]
        after = last
        yield serials, rows


def misplaced(serial: int) -> Broken:
    """A serial number that no count of shards ever put there (R08)."""
    return Broken("crl-scope", f"Serial {serial:040x} is recorded for this shard, and never belonged there.")


def fitting(shard: int, counts: Sequence[int]) -> Callable[[int], bool] | None:
    """Whether a serial number may stand in a shard: where one of the counts that its issuer ever had puts it. None: the complete CRL takes all."""
    if shard == 0:
        return None

    def fits(serial: int) -> bool:
        drawn = int.from_bytes(sha256(serial.to_bytes(20, "big")).digest()[:8], "big")
        return any(count and drawn % count == shard - 1 for count in counts)

    return fits
