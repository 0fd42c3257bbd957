"""The sequencer: gives queued leaves their places, writes tiles, signs checkpoints (P8). Ring 4: knows rules and ports only.

Order of one round, and what a crash leaves after each step:

1. Under the lease `sequencer`, one transaction reads the oldest pending leaves and gives them the next indexes. From then on their order
   is fixed. A crash here leaves indexed leaves without tiles: the next round reads them again and writes the very same tiles, since bodies
   and indexes decide every octet.
2. Tiles and entry bundles are written: new files, or files that no checkpoint speaks of yet. A crash leaves some of them; the next
   round writes the same octets again.
3. The checkpoint is signed (Ed25519: the same text gives the same signature) and recorded under the fence in the database. A holder
   that lost its lease fails here, before anyone has seen its checkpoint. A crash leaves a recorded checkpoint that is not published;
   the next round publishes it.
4. The file `checkpoint` is replaced. A holder that sleeps just here and lost its lease puts an older checkpoint of the same log in
   place; the next round puts the newer one back.

A log must never sign two checkpoints of which one does not begin with the other (C2SP tlog-checkpoint). So before it signs, the
sequencer holds three witnesses against each other: the published checkpoint, the tiles, and the last recorded checkpoint. Where they
disagree it signs nothing and says so (`Broken`, codes `record-...`); issuing goes on, for leaves wait in the database. Files that are
missing as a whole (a lost or new disk) are written anew from the database, and must then lead to the recorded root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ca.errors import Broken, FleetcaError
from ca.model import Checkpoint
from ca.ports import Clock, Failpoint, RecordFiles, SequencingLedger, SigningKey
from ca.rules import note, tiles

LEASE = "sequencer"
LEASE_SECONDS = 10
"""A round takes far less; this is how long the log stands still after a holder was killed. Losing it too early costs a round, no more."""
ROUND = 4096
"""Leaves that get their index in one transaction."""
_PAGE = 16 * tiles.WIDTH


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What a round did. `assigned` leaves got their index; `more` says that others still wait."""

    checkpoint: Checkpoint
    assigned: int
    more: bool
    rebuilt: bool
    """The files were missing and were written anew from the database: worth a word to whoever watches."""


@dataclass(frozen=True, slots=True)
class _Plan:
    fence: int
    count: int
    fresh: Sequence[bytes]
    """Bodies of the leaves that got their index just now: the last ones of `count`."""
    more: bool
    recorded: Checkpoint | None


class Sequencer:
    """Runs rounds. One at a time holds the lease; any number may stand by.

    Args:
        holder: names this process in the lease; unique among those that run.
        origin: the log's name; first line of every checkpoint, and the name of its key.
    """

    def __init__(
        self,
        *,
        ledger: SequencingLedger,
        files: RecordFiles,
        key: SigningKey,
        origin: str,
        holder: str,
        clock: Clock,
        failpoint: Failpoint,
        limit: int = ROUND,
    ) -> None:
        self._ledger = ledger
        self._files = files
        self._key = key
        self._note_key = note.note_key(origin, key.spki)
        self._origin = origin
        self._holder = holder
        self._clock = clock
        self._failpoint = failpoint
        self._limit = limit

    @property
    def note_key(self) -> note.NoteKey:
        """What verifiers need; hand it to auditors."""
        return self._note_key

    def run(self) -> Sequenced | None:
        """One round; None when another holder has the lease or nothing was to do. Safe to repeat after any error.

        Raises:
            StoreUnavailable: database or files; nothing is lost.
            KeyUnavailable: the log's key; tiles are written, the next round signs.
            Conflict: the lease was lost meanwhile (`lease-lost`).
            Broken: the witnesses disagree; nothing was signed.
        """
        published = self._published()
        plan = self._assign(published)
        if plan is None:
            return None
        self._failpoint("sequence.after-assign")
        if published and plan.recorded and published.size == plan.recorded.size == plan.count:
            return None
        return self._publish(plan, published)

    def release(self) -> None:
        """Give the lease back, so that the next process need not wait until it is over. For an orderly end; harmless without the lease."""
        with self._ledger.writing() as writing:
            writing.lease(LEASE, holder=self._holder, now=self._clock.now(), seconds=0)

    def _assign(self, published: Checkpoint | None) -> _Plan | None:
        with self._ledger.writing() as writing:
            lease = writing.lease(LEASE, holder=self._holder, now=self._clock.now(), seconds=LEASE_SECONDS)
            if lease is None:
                return None
            count = writing.leaf_count()
            recorded = writing.last_checkpoint()
            # Before any index is given: what is raised here undoes the transaction, so a wrong database is not made worse.
            _compare(published, recorded, count)
            pending = writing.pending_leaves(self._limit)
            if pending:
                writing.assign_indexes([leaf.id for leaf in pending], start=count)
            fresh = [leaf.body for leaf in pending]
            return _Plan(lease.fence, count + len(fresh), fresh, len(fresh) == self._limit, recorded)

    def _published(self) -> Checkpoint | None:
        octets = self._files.read(tiles.CHECKPOINT)
        if octets is None:
            return None
        try:
            found = note.read_checkpoint(octets, [self._note_key])
        except FleetcaError as error:
            raise _disagree(f"The published checkpoint is not one of this log: {error}") from error
        if found.origin != self._origin:
            raise _disagree(f"The published checkpoint is of {found.origin}, this log is {self._origin}.")
        return found

    def _publish(self, plan: _Plan, published: Checkpoint | None) -> Sequenced:
        edge = self._edge(published)
        rebuilt = published is None and plan.recorded is not None
        if edge.size < plan.count:
            edge = self._write_tiles(edge, plan)
        self._failpoint("sequence.after-tiles")
        if plan.recorded and plan.recorded.size == plan.count:
            checkpoint = plan.recorded
        else:
            text = note.checkpoint_text(self._origin, edge.size, edge.root())
            signed = note.signed_note(text, self._note_key, self._key.sign(text.encode()))
            # What is about to be published is read back as any verifier would: a key that signs wrongly is found here.
            checkpoint = note.read_checkpoint(signed, [self._note_key])
        self._failpoint("sequence.before-checkpoint")
        with self._ledger.writing() as writing:
            writing.check_fence(LEASE, plan.fence)
            writing.record_checkpoint(checkpoint, now=self._clock.now())
        self._files.write([(tiles.CHECKPOINT, checkpoint.note)])
        self._prune(published.size if published else 0, checkpoint.size)
        return Sequenced(checkpoint, len(plan.fresh), plan.more, rebuilt)

    def _edge(self, published: Checkpoint | None) -> tiles.Edge:
        """The right edge of the published log, which must be what its checkpoint says."""
        if published is None:
            return tiles.Edge()
        try:
            edge = tiles.read_edge(self._files.read, published.size)
        except FleetcaError as error:
            raise _disagree(str(error)) from error
        if edge.root() != published.root:
            raise _disagree(f"The tiles of the published log do not lead to the root of its checkpoint of {published.size} leaves.")
        return edge

    def _write_tiles(self, edge: tiles.Edge, plan: _Plan) -> tiles.Edge:
        known = {tile for tile, _ in tiles.partials(edge)}
        recorded = plan.recorded
        full: list[tuple[tiles.Tile, bytes]] = []
        for bodies in self._pages(edge.size, plan):
            self._files.write([(tile.path, octets) for tile, octets in full])
            edge, full = tiles.grow(edge, bodies)
            if recorded and edge.size == recorded.size and edge.root() != recorded.root:
                raise _forked(edge.size)
        self._files.write([(tile.path, octets) for tile, octets in (*full, *tiles.partials(edge)) if tile not in known])
        return edge

    def _pages(self, start: int, plan: _Plan) -> Iterator[Sequence[bytes]]:
        """Bodies of the leaves to add, in pages; a page ends where the recorded checkpoint does, so that its root can be compared.

        Those that have just got their index were read with it. Earlier ones are read only after a crash, or to write a lost log anew.
        """
        placed = plan.count - len(plan.fresh)
        while start < placed:
            end = min(placed, start + _PAGE)
            if plan.recorded and start < plan.recorded.size < end:
                end = plan.recorded.size
            with self._ledger.writing() as writing:
                # Writing a whole log anew takes longer than a lease: it is kept page by page.
                writing.lease(LEASE, holder=self._holder, now=self._clock.now(), seconds=LEASE_SECONDS)
                writing.check_fence(LEASE, plan.fence)
                found = writing.leaves(start, end - start)
            if [leaf.index for leaf in found] != list(range(start, end)):
                raise Broken(
                    "record-gap",
                    f"The database does not have every leaf from {start} to {end - 1}.",
                    why="Leaves that had their place in the log are gone.",
                    fix="Restore the database; nothing was signed.",
                )
            yield [leaf.body for leaf in found]
            start = end
        if plan.fresh:
            yield plan.fresh

    def _prune(self, before: int, after: int) -> None:
        """Partial forms of what is full now; tlog-tiles allows to drop them. A crash before this leaves them, which harms nobody."""
        for level in (-1, *range(8)):
            span = 8 * (max(level, 0) + 1)
            for index in range(before >> span, after >> span):
                self._files.remove_partials(tiles.Tile(level, index, tiles.WIDTH).path)


def _compare(published: Checkpoint | None, recorded: Checkpoint | None, count: int) -> None:
    """Hold the published checkpoint, the recorded one and the leaves in the database against each other.

    Each step of a round makes the next one possible, so without foul play or a restore: published <= recorded <= count.
    """
    size = recorded.size if recorded else 0
    if count < size:
        raise Broken(
            "record-shrunk",
            f"The database has {count} leaves in the log, and a checkpoint for {size}.",
            why="Leaves that were published are gone from the database.",
            fix="Run fleetca audit verify with --database; it names them. Then restore the database.",
        )
    if published and published.size > size:
        raise Broken(
            "record-ahead",
            f"The published log has {published.size} leaves, the database published {size}.",
            why="The database was set back to an older state, or the files belong to another deployment.",
            fix="Restore the newest backup of the database, then run fleetca recover: the files of the log hold every leaf since.",
        )
    if published and recorded and published.size == size and published.root != recorded.root:
        raise _disagree(f"Its checkpoint for {size} leaves has another root than the one on record.")


def _disagree(why: str) -> Broken:
    return Broken(
        "record-files",
        "The published log is not what this deployment published; nothing was signed.",
        why=why,
        fix="Keep the folder as evidence: move it away and run fleetca audit verify on it. The sequencer then writes the log anew.",
    )


def _forked(size: int) -> Broken:
    return Broken(
        "record-forked",
        f"The leaves in the database do not lead to the checkpoint that was signed for {size} of them; nothing was signed.",
        why="A leaf was edited, dropped or moved in the database after it was published.",
        fix="Run fleetca audit verify with --database against a copy of the log; it names the leaf.",
    )
