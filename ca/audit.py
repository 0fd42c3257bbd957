"""The audit: is the record what it was, and does the database say the same (P8)? Ring 4: knows rules and ports only.

Works on files alone and needs no running part of ours; with a database it also names each row without its leaf and each leaf without its
row. It changes nothing. What it cannot show stands in docs/explanation/record.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ca.errors import FleetcaError
from ca.model import Certificate, Checkpoint, Demand, Digest, QueuedLeaf
from ca.ports import Auditing, RecordFiles
from ca.rules import merkle, note, receipt, rows, tiles, witness
from ca.rules.demand import loosens, read_demand
from ca.rules.history import differences
from ca.rules.record import Copy, Finding, Kind, describe, leaves, read_copy

_PAGE = 2000


@dataclass(frozen=True, slots=True)
class Files:
    """A copy of the log, and what it is called in findings."""

    name: str
    files: RecordFiles


@dataclass(frozen=True, slots=True)
class Report:
    """`compared` says what the log was held against; without any of it, a rewrite by whoever holds the log's key stays unseen."""

    checkpoint: Checkpoint | None
    size: int
    root: Digest
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    compared: tuple[str, ...]


def verify(
    log: Files,
    *,
    keys: Sequence[note.NoteKey],
    checkpoints: Sequence[tuple[str, bytes]] = (),
    receipts: Sequence[tuple[str, bytes]] = (),
    copies: Sequence[Files] = (),
    database: Auditing | None = None,
) -> Report:
    """Judge a log by itself, and against all that was kept elsewhere: (name, octets) of checkpoints and receipts, copies, a database.

    Raises:
        StoreUnavailable: files or database cannot be read. Whatever can be read and does not hold is a finding.
    """
    # What the database promised comes first: a log that grows meanwhile is then only ahead of it, which is no finding.
    recorded = database.last_checkpoint() if database else None
    mine = _read(log, keys)
    findings, notes, compared = list(mine.findings), list(mine.notes), []
    kept: list[witness.Kept] = []
    promised: list[tuple[str, receipt.Receipt, Checkpoint]] = []
    for where, octets in checkpoints:
        compared.append(where)
        try:
            kept.append(witness.Kept(where, note.read_checkpoint(octets, keys)))
        except FleetcaError as error:
            findings.append(Finding(Kind.signature, f"The checkpoint {where} does not hold: {error}"))
    for where, octets in receipts:
        compared.append(where)
        try:
            read = receipt.read(octets)
            checkpoint = receipt.verify(read, keys)
        except FleetcaError as error:
            findings.append(Finding(Kind.signature, f"The receipt {where} does not hold: {error}"))
            continue
        promised.append((where, read, checkpoint))
        kept.append(witness.Kept(where, checkpoint))
    for each in copies:
        compared.append(each.name)
        other = _read(each, keys)
        findings += other.findings
        notes += other.notes
        findings += witness.against_copy(mine, other)
        if other.checkpoint:
            kept.append(witness.Kept(f"the checkpoint of {each.name}", other.checkpoint))
    if recorded:
        try:
            kept.append(witness.Kept("the checkpoint in the database", note.read_checkpoint(rows.octets(recorded.note), keys)))
        except FleetcaError as error:
            recorded = None
            findings.append(Finding(Kind.signature, f"The checkpoint in the database does not hold: {error}"))
    findings += witness.against_checkpoints(mine, kept)
    for where, read, checkpoint in promised:
        findings += witness.against_receipt(mine, where, read, checkpoint)
    if database:
        compared.append("the database")
        audit = _Database(mine, database, recorded)
        findings += audit.judge()
        notes += audit.notes
    return Report(
        checkpoint=mine.checkpoint,
        size=len(mine.hashes),
        root=merkle.root_of(mine.hashes),
        findings=tuple(dict.fromkeys(findings)),
        notes=tuple(notes),
        compared=tuple(compared),
    )


def _read(log: Files, keys: Sequence[note.NoteKey]) -> Copy:
    return read_copy(log.name, log.files.read, log.files.names(), keys)


# ---- Showing --------------------------------------------------------------------------------------------------------


def show(files: RecordFiles, *, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Leaves from `start` on with their indexes, of a log of `size` leaves; stops where files are missing or cannot be read."""
    for bundle in range(start // tiles.WIDTH, (size + tiles.WIDTH - 1) // tiles.WIDTH):
        width = min(tiles.WIDTH, size - bundle * tiles.WIDTH)
        octets = tiles.read_tile(files.read, tiles.Tile(-1, bundle, width))
        if octets is None:
            return
        for at, body in enumerate(tiles.entries(octets), bundle * tiles.WIDTH):
            if at >= start:
                yield at, body


# ---- The database ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Known:
    index: int | None
    """None for a leaf that has no index yet."""
    digest: bytes
    matched: bool = False


class _Database:
    """One walk over all leaves, one over all rows. Keeps a few dozen octets a leaf in memory."""

    def __init__(self, copy: Copy, database: Auditing, recorded: Checkpoint | None) -> None:
        self._copy = copy
        self._database = database
        self._recorded = recorded
        self._known: dict[tuple[str, str], _Known] = {}
        self._revoked: dict[str, int] = {}
        self._demand: Demand | None = None
        self._devices: set[str] = set()
        self._unpublished: dict[tuple[str, str], bytes] = {}
        self._pending: set[int] = set()
        self._read_to = 0
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def judge(self) -> list[Finding]:
        self._queued_leaves()
        self._published_leaves()
        doubtful = [fact for fact in self._facts() if not self._match(fact)]
        # Rows made or changed while we read have leaves that we have not seen yet.
        self._newer_leaves()
        for fact in doubtful:
            if not self._match(fact):
                self._blame(fact)
        self._unmatched_leaves()
        return self.findings

    def _queued_leaves(self) -> None:
        """The leaves as the database keeps them must be those of the files, in the same places."""
        found = self._copy.hashes
        told: list[Digest] = []
        gaps: list[tuple[int, int]] = []
        for leaf in self._placed(0):
            index = leaf.index or 0
            if index > len(told):
                gaps.append((len(told), index - 1))
                told += found[len(told) : index] + [Digest(b"")] * (index - max(len(found), len(told)))
            told.append(merkle.leaf_hash(rows.octets(leaf.body)))
            if index >= len(found):
                self._learn(rows.octets(leaf.body), None)
        self._read_to = len(told)
        if len(told) < len(found):
            gaps.append((len(told), len(found) - 1))
        for first, last in gaps:
            what = f"leaf without its row: {leaves(first, last)} of the log not in the database's table of leaves"
            self.findings.append(Finding(Kind.leaf_without_row, what, first, last))
        told += found[len(told) :]
        if self._database_was_there_first(told):
            changes = differences(told, found)
            self.findings += describe(changes, was=self._stored_body, now=self._copy.body, by="the database has it as it was")
        else:
            changes = differences(found, told)
            by = "in the database; the published log has it as it was"
            self.findings += describe(changes, was=self._copy.body, now=self._stored_body, by=by)
        if len(told) > len(found):
            self.notes.append(f"not in {self._copy.name} yet: {leaves(len(found), len(told) - 1)} of the database")
        waiting = 0
        for leaf in self._waiting():
            waiting += 1
            self._learn(rows.octets(leaf.body), None)
        if waiting:
            self.notes.append(f"waiting for the sequencer: {waiting} leaves")

    def _database_was_there_first(self, told: Sequence[Digest]) -> bool:
        """Which of the two was edited: the one that no longer leads to the checkpoint on record."""
        if self._recorded is None:
            return False
        size, root = self._recorded.size, self._recorded.root
        return witness.roots_at(told, [size]).get(size) == root != witness.roots_at(self._copy.hashes, [size]).get(size)

    def _placed(self, start: int) -> Iterator[QueuedLeaf]:
        while page := self._database.leaves(start, _PAGE):
            yield from page
            start = (page[-1].index or 0) + 1

    def _waiting(self) -> Iterator[QueuedLeaf]:
        """Leaves without an index, each once."""
        for leaf in self._database.pending_leaves(1_000_000):
            if leaf.id not in self._pending:
                self._pending.add(leaf.id)
                yield leaf

    def _stored_body(self, index: int) -> bytes | None:
        found = self._database.leaves(index, 1)
        return rows.octets(found[0].body) if found and found[0].index == index else None

    def _published_leaves(self) -> None:
        for index in range(len(self._copy.hashes)):
            body = self._copy.body(index)
            if body is not None:  # else it was said already
                self._learn(body, index)

    def _newer_leaves(self) -> None:
        """They may excuse a row; whether they have rows themselves is a matter of the next audit."""
        for leaf in chain(self._placed(self._read_to), self._waiting()):
            fact, _ = rows.of_leaf(rows.octets(leaf.body))
            if fact and not (fact.kind in rows.ONCE and (fact.kind, fact.key) in self._known):
                self._known[fact.kind, fact.key] = _Known(None, fact.digest, matched=True)

    def _learn(self, body: bytes, index: int | None) -> None:
        fact, document = rows.of_leaf(body)
        if document.get("kind") in ("issuance", "token"):
            self._devices.add(str(document.get("device")))
        if fact is None:
            return
        if fact.kind == "revocation" and isinstance(document.get("change"), int):
            certificate = f"{document.get('issuer')}/{document.get('serial')}"
            self._revoked[certificate] = max(document["change"], self._revoked.get(certificate, 0))
        if fact.kind == "demand":
            self._judge_demand(document, index)
        name = (fact.kind, fact.key)
        before = self._known.get(name)
        if before is not None and fact.kind in rows.ONCE:
            if before.digest == fact.digest:
                return  # told twice in the same words: what recovery after a lost database may do
            what = f"{_place(index)} tells again of {_named(fact)}, which {_place(before.index)} told of"
            self.findings.append(Finding(Kind.inserted, what, index, index))
        elif before is None or index is None or before.index is not None:
            self._known[name] = _Known(index, fact.digest)
            if index is None:
                self._unpublished[name] = body

    def _judge_demand(self, document: Mapping[str, Any], index: int | None) -> None:
        """Less is left to two persons only by their own word."""
        try:
            told = read_demand(str(document.get("subject")))
        except FleetcaError:
            return  # the row is compared with it, and differs
        if loosens(told, self._demand) and not document.get("request"):
            what = f"{_place(index)} demands less of two persons than before, and no two persons approved that"
            self.findings.append(Finding(Kind.inserted, what, index, index))
        self._demand = told

    def _facts(self) -> Iterator[rows.Fact]:
        """Every row, as what its leaf must say; checks on the way what a row says beside that."""
        database = self._database
        for certificate in database.every_certificate():
            self._judge_certificate(certificate)
            yield from rows.of_certificate(certificate)
        yield from map(rows.of_revocation, database.every_revocation())
        yield from map(rows.of_crl, database.every_crl())
        for token in database.every_token():
            yield from rows.of_token(token)
        yield from map(rows.of_issuer, database.issuers())
        yield from map(rows.of_operator, database.operators())
        yield from map(rows.of_proposal, database.every_proposal())
        yield from map(rows.of_profile, database.accepted_profiles().values())
        demand = database.accepted_demand()
        yield from () if demand is None else (rows.of_demand(demand),)
        yield from map(rows.of_key, database.key_records())
        yield from map(rows.of_station, database.stations())
        for shift in database.every_shift():
            yield from rows.of_shift(shift)
        yield from map(rows.of_record_seal, database.every_record_seal())
        yield from map(rows.of_wipe, database.every_wipe())
        for device in database.every_device():
            fact = rows.of_device(device)
            # A device comes into being with its first token or certificate; it has a leaf of its own once its state changes.
            if ("device", fact.key) in self._known or fact.key not in self._devices or device.state.value != "active":
                yield fact
        for name, facts in database.every_device_facts():
            yield rows.of_device_facts(name, facts)

    def _judge_certificate(self, row: Certificate) -> None:
        name = f"{row.ref.issuer}/{row.ref.serial:040x}"
        told, says = self._revoked.get(name, 0), row.revocation.change if row.revocation else 0
        if told > says:
            what = f"row differs: certificate {name} counts as {'changed last by ' + str(says) if says else 'not revoked'}"
            self.findings.append(Finding(Kind.row_differs, f"{what}; the record says change {told}"))
        if row.der is not None and rows.octets(row.tbs) not in rows.octets(row.der):
            self.findings.append(Finding(Kind.row_differs, f"row differs: the signed certificate {name} is not the one that was intended"))
        known = self._known.get(("issuance", name))
        if known and known.index is not None and self._copy.hashes[known.index] != row.leaf:
            self.findings.append(
                Finding(
                    Kind.row_differs, f"row differs: certificate {name} points to another leaf than {known.index}", known.index, known.index
                )
            )

    def _match(self, fact: rows.Fact) -> bool:
        known = self._known.get((fact.kind, fact.key))
        if known is None or known.digest != fact.digest:
            return False
        known.matched = True
        return True

    def _blame(self, fact: rows.Fact) -> None:
        known = self._known.get((fact.kind, fact.key))
        if known is None:
            self.findings.append(Finding(Kind.row_without_leaf, f"row without its leaf: {_named(fact)}"))
            return
        known.matched = True
        body = self._copy.body(known.index) if known.index is not None else self._unpublished.get((fact.kind, fact.key))
        leaf = rows.of_leaf(body or b"")[0]
        detail = rows.differing(leaf, fact) if leaf else "its leaf cannot be read"
        self.findings.append(Finding(Kind.row_differs, f"row differs: {_named(fact)}: {detail}", known.index, known.index))

    def _unmatched_leaves(self) -> None:
        for (kind, key), known in self._known.items():
            if not known.matched:
                what = f"leaf without its row: {_place(known.index)} tells of {_WORDS[kind]} {key}"
                self.findings.append(Finding(Kind.leaf_without_row, what, known.index, known.index))


_WORDS = {
    "issuance": "certificate",
    "void": "voided certificate",
    "delivery": "delivered successor of certificate",
    "supersede": "superseded certificate",
    "clone": "a suspected clone of certificate",
    "revocation": "revocation",
    "crl": "CRL",
    "token": "token",
    "token-revoked": "withdrawn token",
    "issuer": "issuer",
    "operator": "operator",
    "proposal": "request for two persons",
    "profile": "profile in force",
    "demand": "what is demanded of",
    "device": "device",
    "device-facts": "what is said of device",
    "key-state": "inventoried key",
    "station": "station",
    "shift": "shift",
    "units": "units of shift",
    "record-seal": "countersignature",
    "wipe": "wipe receipt of device",
    "wipe-waived": "why there is no wipe receipt of device",
}


def _named(fact: rows.Fact) -> str:
    return f"{_WORDS[fact.kind]} {fact.key}"


def _place(index: int | None) -> str:
    return f"leaf {index}" if index is not None else "a leaf that is not published yet"
