"""What readers get now, checked once per file. Ring 4: a verb over an outlet and the gate.

The publisher, the web and the health check look at CRLs only through this, so that a file of another issuer, a cut one or a changed one is never
taken for a CRL, whoever put it there (R09).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ca.errors import Broken, StoreUnavailable
from ca.model import Placed
from ca.ports import Outlet, PublishedCopy
from crl.model import Head, Scope
from crl.rules import gate
from crl.rules.anatomy import version_of


@dataclass(frozen=True, slots=True)
class Visible:
    """What lies in the outlet for an issuer."""

    version: str | None
    """Names the octets, believed or not; None where nothing lies."""
    head: Head | None
    """None where nothing lies, or nothing that can be believed."""
    trouble: Broken | None
    """Why it cannot be believed."""


NOTHING = Visible(None, None, None)
_TRIES = 20


class Shelf:
    """Remembers what it found until the file changes; a look then costs one stat. Keeps no octets: there may be more of them than memory."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._seen: dict[str, tuple[str, Scope, Visible]] = {}

    def look(self, scope: Scope) -> Visible:
        """What readers get.

        Raises:
            StoreUnavailable: the outlet cannot be read now.
        """
        mark = self._outlet.mark(scope.name)
        if mark is None:
            return NOTHING
        remembered = self._seen.get(scope.name)
        if remembered is not None and remembered[0] == mark and (remembered[1] is scope or remembered[1] == scope):
            return remembered[2]
        # The mark was taken first: if the file changes in between, the next look sees another mark and reads again.
        with self._outlet.opened(scope.name) as copy:
            found = NOTHING if copy is None else self._judged(scope, copy)
        self._seen[scope.name] = (mark, scope, found)
        return found

    def put(self, scope: Scope, placed: Placed, head: Head) -> None:
        """What was checked is what lies there: its version was read back. Saves checking it again."""
        mark = self._outlet.mark(scope.name)
        if mark is not None and placed.mark == mark:
            self._seen[scope.name] = (mark, scope, Visible(placed.version, head, None))

    @contextmanager
    def opened(self, scope: Scope) -> Iterator[tuple[Visible, PublishedCopy | None]]:
        """The same with its octets, held open. None where nothing lies, or nothing that can be believed.

        Raises:
            StoreUnavailable: the outlet cannot be read now, or changes all the time.
        """
        for _ in range(_TRIES):
            found = self.look(scope)
            with self._outlet.opened(scope.name) as copy:
                # The same before and after it was opened: then it is the file that was judged.
                if self.look(scope) is found:
                    yield found, copy if found.head is not None else None
                    return
        raise StoreUnavailable("outlet-busy", f"{scope.name} changes all the time.", retry_after=5)

    @contextmanager
    def fall_back(self, scope: Scope) -> Iterator[tuple[Visible, PublishedCopy | None]]:
        """What readers got before: for when the visible file cannot be believed. Not remembered."""
        with self._outlet.previous(scope.name) as copy:
            found = NOTHING if copy is None else self._judged(scope, copy)
            yield found, copy if found.head is not None else None

    def _judged(self, scope: Scope, copy: PublishedCopy) -> Visible:
        try:
            passed = gate.believe(copy, scope)
        except Broken as trouble:
            return Visible(version_of(copy), None, trouble)
        return Visible(version_of(copy), passed.head, None)
