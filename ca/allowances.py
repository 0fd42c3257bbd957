"""How much of a role's rate is left, for one verb. A verb's tool: remembers, in memory only, what `ca.rules.caps` works out.

Each verb has its own, so that who spends one cannot keep another from being done: a stolen web process that asks for certificates as fast as it may
keeps nobody from revoking. A new process begins with whole allowances, which gives away at most one minute's worth.
"""

from __future__ import annotations

from collections.abc import Callable

from ca.model import Role, UnixTime
from ca.rules import caps


class Allowances:
    """For the one thread that decides.

    Args:
        caps_of: the caps of a role.
        what: what is asked for, for people, in the plural.
    """

    def __init__(self, caps_of: Callable[[Role], caps.Caps], what: str) -> None:
        self._caps_of, self._what = caps_of, what
        self._left: dict[Role, caps.Allowance] = {}

    def spend(self, role: Role, *, now: UnixTime) -> None:
        """Take one.

        Raises:
            Busy: `over-rate`.
        """
        rate = self._caps_of(role).per_minute
        if rate is not None:
            self._left[role] = caps.spend(self._left.get(role), per_minute=rate, now=now, what=self._what)
