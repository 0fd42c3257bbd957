"""Which CRLs a change concerns. Ring 4: every change is read once, for all CRLs together."""

from __future__ import annotations

from ca.model import ChangeNumber, IssuerId
from crl.model import WHOLE
from crl.ports import Reading

_PAGE = 500


class Feed:
    """Remembers the latest change of each CRL."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._from: ChangeNumber | None = None
        self._to: ChangeNumber = 0
        self._latest: dict[tuple[IssuerId, int], ChangeNumber] = {}

    def changed(self, issuer: IssuerId, shard: int, *, since: ChangeNumber) -> bool:
        """Whether a change above `since` concerns this CRL."""
        if self._from is None or since < self._from:
            self._from = self._to = since
            self._latest.clear()
        while page := self._reading.changes_since(self._to, _PAGE):
            for change in page:
                if change.listed:
                    self._latest[change.ref.issuer, WHOLE] = change.change
                    self._latest[change.ref.issuer, change.shard] = change.change
            self._to = page[-1].change
        return self._latest.get((issuer, shard), 0) > since
