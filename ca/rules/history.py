"""What happened between two histories of one log: which leaves were edited, dropped, inserted or moved. Pure.

Knows hashes and positions only. Growth at the end is no difference: a log may always have more leaves than it had.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ca.model import Digest


class Change(Enum):
    edited = "edited"
    dropped = "dropped"
    inserted = "inserted"
    reordered = "reordered"


@dataclass(frozen=True, slots=True)
class Difference:
    """`was`: the index in the kept history (None for an inserted leaf). `now`: the index in the found one (None for a dropped leaf)."""

    change: Change
    was: int | None
    now: int | None


def differences(kept: Sequence[Digest], found: Sequence[Digest]) -> list[Difference]:
    """How `found` differs from `kept`, in order of position.

    Leaves that both have in the same order are anchors (a longest increasing run of positions); a leaf that both have and that is no
    anchor was moved. Between two anchors, what only the one has and what only the other has are paired: those were edited in place. What
    is left over was dropped or inserted.
    """
    start = 0
    shortest = min(len(kept), len(found))
    while start < shortest and kept[start] == found[start]:
        start += 1
    places: defaultdict[Digest, deque[int]] = defaultdict(deque)
    for now in range(start, len(found)):
        places[found[now]].append(now)
    moved_to: dict[int, int] = {}
    for was in range(start, len(kept)):
        if places.get(kept[was]):
            moved_to[was] = places[kept[was]].popleft()
    anchors = _longest_rise(list(moved_to.items()))
    anchored = dict(anchors)
    changes = [Difference(Change.reordered, was, now) for was, now in moved_to.items() if was not in anchored]
    taken = set(moved_to.values())
    was, now = start, start
    for next_was, next_now in [*anchors, (len(kept), len(found))]:
        lost = [index for index in range(was, next_was) if index not in moved_to]
        new = [index for index in range(now, next_now) if index not in taken]
        changes += [Difference(Change.edited, a, b) for a, b in zip(lost, new, strict=False)]
        changes += [Difference(Change.dropped, index, None) for index in lost[len(new) :]]
        if next_was < len(kept):  # after the last leaf of the kept history, more leaves are growth
            changes += [Difference(Change.inserted, None, index) for index in new[len(lost) :]]
        was, now = next_was + 1, next_now + 1
    return sorted(changes, key=lambda change: change.was if change.was is not None else change.now or 0)


def _longest_rise(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A longest subsequence of (was, now) pairs whose `now` rises too; patience sorting, n log n."""
    tails: list[int] = []  # the smallest last `now` of a run of each length
    ends: list[int] = []  # where that run ends
    before: list[int | None] = []
    for at, (_, now) in enumerate(pairs):
        length = bisect_left(tails, now)
        before.append(ends[length - 1] if length else None)
        if length == len(tails):
            tails.append(now)
            ends.append(at)
        else:
            tails[length] = now
            ends[length] = at
    run: list[tuple[int, int]] = []
    here = ends[-1] if ends else None
    while here is not None:
        run.append(pairs[here])
        here = before[here]
    run.reverse()
    return run
