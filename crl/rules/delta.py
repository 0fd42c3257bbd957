"""What a delta CRL must list, told by the gate's side (RFC 5280 5.2.4). Ring 1: pure. Shares no code with the writer (P6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from ca.model import ChangeNumber, CrlEntry, IssuerId, ListedChange, Reason, Serial, UnixTime

_PAGE: Final = 1000


class Changes(Protocol):
    """The record."""

    def listed_changes(
        self, issuer: IssuerId, shard: int, *, after: ChangeNumber, as_of: ChangeNumber, limit: int
    ) -> Sequence[ListedChange]: ...


def entries(
    reading: Changes, issuer: IssuerId, shard: int, *, since: ChangeNumber, as_of: ChangeNumber, expired_before: UnixTime
) -> Iterator[CrlEntry]:
    """Of each certificate whose status changed after the base the latest change, oldest first; a release as removeFromCRL.

    Which of them is the latest is told by the chain of changes: one that another took the place of is not.
    """
    rows: list[ListedChange] = []
    while page := reading.listed_changes(issuer, shard, after=since, as_of=as_of, limit=_PAGE):
        rows += page
        since = page[-1][0]
    replaced = {row[7] for row in rows}
    for change, _, serial, reason, revoked_at, not_after, invalid_from, _ in rows:
        released = reason == Reason.removeFromCRL
        if change not in replaced and (released or not_after >= expired_before):
            yield CrlEntry(Serial(int.from_bytes(serial, "big")), revoked_at, Reason(reason), invalid_from)
