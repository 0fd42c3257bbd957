"""What readers get now, checked once per file. Ring 4: a verb over an outlet and the gate.

The publisher, the web and the health check look at CRLs only through this, so that a file of another issuer, a cut one or a changed one is never
taken for a CRL, whoever put it there (R09).
"""

from __future__ import annotations

from dataclasses import dataclass

from ca.errors import Broken
from ca.model import Issuer, IssuerId, OutletCopy
from ca.ports import Outlet
from crl.model import Head, file_name
from crl.rules import gate


@dataclass(frozen=True, slots=True)
class Visible:
    """What lies in the outlet for an issuer."""

    version: str | None
    """Names the octets, believed or not; None where nothing lies."""
    head: Head | None
    """None where nothing lies, or nothing that can be believed."""
    trouble: Broken | None
    """Why it cannot be believed."""
    copy: OutletCopy | None
    """The octets, where this shelf keeps them and they can be believed."""


class Shelf:
    """Remembers what it found until the file changes; a look then costs one stat.

    Args:
        keep: whether to keep the octets in memory: the web does, the publisher does not.
    """

    def __init__(self, outlet: Outlet, *, keep: bool) -> None:
        self._outlet = outlet
        self._keep = keep
        self._seen: dict[IssuerId, tuple[str, Issuer, Visible]] = {}

    def look(self, issuer: Issuer) -> Visible:
        """What readers get.

        Raises:
            StoreUnavailable: the outlet cannot be read now.
        """
        name = file_name(issuer.id)
        mark = self._outlet.mark(name)
        if mark is None:
            return Visible(None, None, None, None)
        remembered = self._seen.get(issuer.id)
        if remembered is not None and remembered[0] == mark and remembered[1] is issuer:
            return remembered[2]
        # The mark was taken first: if the file changes in between, the next look sees another mark and reads again.
        found = self._judge(issuer, self._outlet.current(name))
        self._seen[issuer.id] = (mark, issuer, found)
        return found

    def fall_back(self, issuer: Issuer) -> Visible:
        """What readers got before: for when the visible file cannot be believed. Not remembered."""
        return self._judge(issuer, self._outlet.previous(file_name(issuer.id)))

    def _judge(self, issuer: Issuer, copy: OutletCopy | None) -> Visible:
        if copy is None:
            return Visible(None, None, None, None)
        try:
            head = gate.believe(copy.octets, issuer)
        except Broken as trouble:
            return Visible(copy.version, None, trouble, None)
        return Visible(copy.version, head, None, copy if self._keep else None)
