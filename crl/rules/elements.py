"""What the record says, as octets: the gate's own second opinion of how an entry is encoded (RFC 5280 5.1.2.6). Ring 1: pure.

Shares no code with `ca.der`, so that no mistake of the writer's is made here too (P6). A CRL whose entries are these very octets has exactly the
entries of the record, each in the form that `crl.rules.anatomy` takes for right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from ca.errors import Broken
from ca.model import CrlEntry, Reason, UnixTime

_YEAR_2050: Final = 2524608000
_PIECE: Final = 4096
_REASON: Final = bytes.fromhex("300a0603551d1504030a01")
_INVALID: Final = bytes.fromhex("30180603551d180411180f")


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
        fits: whether a certificate of that serial number may stand in this CRL.
    """

    def __init__(self, entries: Callable[[], Iterable[CrlEntry]], *, fits: Callable[[int], bool]) -> None:
        self._entries, self._fits = entries, fits
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
        piece: list[bytes] = []
        self.latest, self.count, fits = 0, 0, self._fits
        for one in self._entries():
            if not fits(one.serial):
                raise misplaced(one.serial)
            self.latest = max(self.latest, one.revoked_at)
            self.count += 1
            piece.append(element(one.serial, one.revoked_at, one.reason, one.invalid_from))
            if len(piece) == _PIECE:
                yield b"".join(piece)
                piece = []
        yield b"".join(piece)


def misplaced(serial: int) -> Broken:
    """A serial number that no count of shards ever put there (R08)."""
    return Broken("crl-scope", f"Serial {serial:040x} is recorded for this shard, and never belonged there.")


def fitting(shard: int, counts: Sequence[int]) -> Callable[[int], bool]:
    """Whether a serial number may stand in a shard: where one of the counts that its issuer ever had puts it. The complete CRL takes all."""
    if shard == 0:
        return lambda _: True

    def fits(serial: int) -> bool:
        drawn = int.from_bytes(sha256(serial.to_bytes(20, "big")).digest()[:8], "big")
        return any(count and drawn % count == shard - 1 for count in counts)

    return fits
