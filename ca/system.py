"""The only module that asks the clock and the random generator (P12).

Everything else takes `now`, `serial` or `seed` as an argument, so that every decision can be replayed at any date. A
process gets one `Clock` and one `Chance` from wiring.
"""

from __future__ import annotations

import os
import time

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
    """The operating system's random generator."""

    def octets(self, count: int) -> bytes:
        """`count` octets fit for keys, serials and tokens."""
        return os.urandom(count)
