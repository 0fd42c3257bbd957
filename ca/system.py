"""The only module that asks the clock and the random generator (P12).

Everything else takes `now`, `serial` or `seed` as an argument, so that every decision can be replayed at any date. A
process gets one `Clock` and one `Chance` from wiring.
"""

from __future__ import annotations

import os
import time

from ca.errors import Broken
from ca.model import UnixTime


class SystemClock:
    """The wall clock of this host."""

    def now(self) -> UnixTime:
        """Now, in whole seconds since 1970-01-01T00:00:00Z (UTC), rounded down."""
        return int(time.time())

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        return time.monotonic()


class SystemChance:
    """The operating system's random generator, tried before anything is drawn from it: one that is stuck makes no key and no serial number.

    Raises:
        Broken: it gave the same octets twice, or one octet over and over (`random-stuck`); chance alone does that less than once in 2^240 starts.
    """

    def __init__(self) -> None:
        one, other = os.urandom(32), os.urandom(32)
        if one == other or 1 in {len(set(one)), len(set(other))}:
            raise Broken(
                "random-stuck",
                "The random generator of this machine is stuck; nothing was made.",
                why="It gave octets that can be foretold, so every key and serial number from it could be.",
                fix="Do not use this machine. Make anew what was made on it since it last was known to work.",
            )

    def octets(self, count: int) -> bytes:
        """`count` octets fit for keys, serials and tokens."""
        return os.urandom(count)
