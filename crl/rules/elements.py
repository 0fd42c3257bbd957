"""What the record says, as octets: the gate's own second opinion of how an entry is encoded (RFC 5280 5.1.2.6). Ring 1: pure.

Shares no code with `ca.der`, so that no mistake of the writer's is made here too (P6). A CRL whose entries are these very octets has exactly the
entries of the record, each in the form that `crl.rules.anatomy` takes for right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, TypeAlias

from ca.errors import Broken
from ca.model import ChangeNumber, CrlEntry, ListedChange, Reason, UnixTime

_YEAR_2050: Final = 2524608000
_PIECE: Final = 4096
_KEPT: Final = 100_000
_RELEASED: Final = int(Reason.removeFromCRL)
_REASON: Final = bytes.fromhex("300a0603551d1504030a01")
_INVALID: Final = bytes.fromhex("30180603551d180411180f")


Page: TypeAlias = tuple[Sequence[ListedChange], Collection[ChangeNumber]]


def element(serial: int, revoked_at: UnixTime, reason: int, invalid_from: UnixTime | None) -> bytes:
    """One entry."""
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    rest = _rest(revoked_at, reason, invalid_from)
    return bytes((0x30, 2 + len(number) + len(rest), 0x02, len(number))) + number + rest


@lru_cache(maxsize=65536)
def _rest(revoked_at: UnixTime, reason: int, invalid_from: UnixTime | None) -> bytes:
    when = datetime.fromtimestamp(revoked_at, UTC)
    text = when.strftime("%Y%m%d%H%M%SZ").encode()
    date = b"\x18\x0f" + text if revoked_at >= _YEAR_2050 else b"\x17\x0d" + text[2:]
    said = b""
    if reason != Reason.unspecified:
        said += _REASON + b"%c" % reason
    if invalid_from is not None:
        said += _INVALID + datetime.fromtimestamp(invalid_from, UTC).strftime("%Y%m%d%H%M%SZ").encode()
    return date + (b"\x30%c" % len(said) + said if said else b"")


class Recorded:
    """The entries that a CRL must have, straight from the record.

    Args:
        entries: gives them from the start each time it is called, oldest change first.
        fits: whether a certificate of that serial number may stand in this CRL; None: all may.
        pages: the same as rows, where there may be millions: pages of the changes that CRLs are made of, each with those of its changes that count
            no longer.
        expired_before: of rows: what ended before that second is not listed.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[CrlEntry]],
        *,
        fits: Callable[[int], bool] | None = None,
        pages: Callable[[], Iterator[Page]] | None = None,
        expired_before: UnixTime = 0,
    ) -> None:
        self._entries, self._fits, self._pages, self._expired_before = entries, fits, pages, expired_before
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
        """As `element`, in one loop: this runs a million times a CRL."""
        rests: dict[tuple[UnixTime, int, UnixTime | None], tuple[bytes, bytes]] = {}
        fits, until = self._fits, self._expired_before
        for rows, gone in pages:
            piece: list[bytes] = []
            for change, _, serial, reason, revoked_at, not_after, invalid_from, _ in rows:
                if not_after < until or reason == _RELEASED or change in gone:
                    continue
                key = (revoked_at, reason, invalid_from)
                known = rests.get(key)
                if known is None:
                    if len(rests) > _KEPT:
                        rests.clear()
                    self.latest = max(self.latest, revoked_at)
                    rest = _rest(revoked_at, reason, invalid_from)
                    known = rests[key] = (bytes((0x30, 24 - 2 + len(rest), 0x02, 20)), rest)
                if fits is not None and not fits(int.from_bytes(serial, "big")):
                    raise misplaced(int.from_bytes(serial, "big"))
                if 0 < serial[0] < 0x80:
                    piece.append(known[0] + serial + known[1])
                else:
                    piece.append(element(int.from_bytes(serial, "big"), revoked_at, reason, invalid_from))
            self.count += len(piece)
            yield b"".join(piece)


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
