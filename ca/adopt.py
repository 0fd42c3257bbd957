"""Brings published leaves back into a database that was set back (P8). Ring 4: knows rules and ports only.

After a restore the files of the log hold leaves that the database has forgotten, and the sequencer refuses to go on (`record-ahead`): it
would publish a second history. The files are signed, so they say what happened; here each forgotten leaf gets its old place again. The
rows that those leaves tell of are the business of `ca.recover`, or stay lost: the audit then names each leaf without its row.

Run it after `ca.recover`: a leaf that recovery has queued again, octet for octet, takes the place of the published one and is not told
twice. Safe to repeat; a crash leaves a beginning of the leaves, and the sequencer waits until the last step, the checkpoint, is on record.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from itertools import islice

from ca.audit import show
from ca.errors import Broken
from ca.model import Checkpoint, LogLeaf
from ca.ports import Clock, RecordFiles, Sequencing, SequencingLedger
from ca.rules import merkle, note, tiles

_PAGE = 1000
_ALL = 10**9


def adopt(*, ledger: SequencingLedger, files: RecordFiles, keys: Sequence[note.NoteKey], clock: Clock) -> int:
    """How many leaves got their old place back; 0 where the database has forgotten nothing.

    Raises:
        Unauthenticated: the published checkpoint is not signed by one of the keys. Nothing was changed.
        Broken: the files are not what their checkpoint says, or the database has other leaves where it has any. Nothing was changed.
    """
    octets = files.read(tiles.CHECKPOINT)
    if octets is None:
        return 0
    published = note.read_checkpoint(octets, keys)
    with ledger.writing() as writing:
        start = writing.leaf_count()
        recorded = writing.last_checkpoint()
    if recorded and recorded.size >= published.size:
        return 0
    _check(ledger, files, published, start)
    adopted = max(0, published.size - start)
    while start < published.size:
        with ledger.writing() as writing:
            start = writing.leaf_count()
            bodies = [body for _, body in islice(show(files, start=start, size=published.size), _PAGE)]
            _adopt_page(writing, bodies, start)
        start += len(bodies)
    with ledger.writing() as writing:
        writing.record_checkpoint(published, now=clock.now())
    return adopted


def _check(ledger: SequencingLedger, files: RecordFiles, published: Checkpoint, count: int) -> None:
    """All leaves of the files lead to their root, and begin with those that the database still has."""
    frontier = merkle.Frontier()
    stored: list[bytes] = []
    for at, body in show(files, start=0, size=published.size):
        if at % _PAGE == 0 and at < count:
            with ledger.writing() as writing:
                stored = [leaf.body for leaf in writing.leaves(at, _PAGE)]
        if at < count and stored[at % _PAGE] != body:
            raise Broken(
                "record-forked",
                f"The database has another leaf {at} than the published log; nothing was changed.",
                why="It was edited in one of them, or the database went on by itself after it was set back.",
                fix="Run fleetca audit verify with --database and with checkpoints kept elsewhere; they tell which one is right.",
            )
        frontier = merkle.extend(frontier, [merkle.leaf_hash(body)])
    if frontier.size != published.size or frontier.root() != published.root:
        raise Broken(
            "record-files",
            "The published log is not what its checkpoint says; nothing was changed.",
            why="Its entries do not lead to the signed root.",
            fix="Run fleetca audit verify on it, and bring back a copy of the log that was kept elsewhere.",
        )


def _adopt_page(writing: Sequencing, bodies: Sequence[bytes], start: int) -> None:
    waiting = _waiting(writing)
    for body, count in Counter(bodies).items():
        for _ in range(count - len(waiting[body])):
            writing.append_leaf(LogLeaf(body))
    waiting = _waiting(writing)
    writing.assign_indexes([waiting[body].popleft() for body in bodies], start=start)


def _waiting(writing: Sequencing) -> defaultdict[bytes, deque[int]]:
    found: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for leaf in writing.pending_leaves(_ALL):
        found[leaf.body].append(leaf.id)
    return found
