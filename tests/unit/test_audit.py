"""P8: the record cannot be edited. An attacker who holds the log's key rewrites everything that is on the host; what others kept tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.audit import Files, Report, show, verify
from ca.errors import Malformed, NotFound, Unauthenticated, Unavailable
from ca.log.memory import MemoryFiles
from ca.model import Checkpoint, Digest, LogLeaf
from ca.receipts import Receipts
from ca.rules import history, leaf, merkle, note, receipt, tiles
from ca.rules.history import Change
from ca.rules.record import Kind
from tests.fakes.record import LogKey, MemoryRecord

KEY = LogKey()
ORIGIN = "demo"
NOTE_KEY = note.note_key(ORIGIN, KEY.spki)


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [leaf.canonical({"at": 1_800_000_000 + index, "kind": "event", "name": f"n{index}"}) for index in range(start, start + count)]


def signed(size: int, root: Digest, *, key: LogKey = KEY, origin: str = ORIGIN) -> bytes:
    text = note.checkpoint_text(origin, size, root)
    return note.signed_note(text, note.note_key(origin, key.spki), key.sign(text.encode()))


def log_of(leaves: Sequence[bytes], *, key: LogKey = KEY, origin: str = ORIGIN) -> MemoryFiles:
    """A whole log, all of whose files agree: what someone with the log's key can make of any leaves."""
    edge, full = tiles.grow(tiles.Edge(), leaves)
    files = MemoryFiles({tile.path: octets for tile, octets in [*full, *tiles.partials(edge)]})
    files.files["checkpoint"] = signed(edge.size, edge.root(), key=key, origin=origin)
    return files


def checkpoint_of(leaves: Sequence[bytes]) -> bytes:
    return log_of(leaves).files["checkpoint"]


def receipt_for(leaves: Sequence[bytes], index: int) -> bytes:
    files = log_of(leaves)
    proof = merkle.inclusion_proof(index, len(leaves), tiles.node_reader(files.read, len(leaves)))
    return json.dumps(receipt.document(receipt.Receipt(index, leaves[index], proof, files.files["checkpoint"]))).encode()


def judge(
    files: MemoryFiles,
    *,
    since: Sequence[bytes] = (),
    receipts: Sequence[bytes] = (),
    against: Sequence[MemoryFiles] = (),
    database: MemoryRecord | None = None,
) -> Report:
    return verify(
        Files("LOG", files),
        keys=[NOTE_KEY],
        checkpoints=[(f"KEPT{at}", octets) for at, octets in enumerate(since)],
        receipts=[(f"RECEIPT{at}", octets) for at, octets in enumerate(receipts)],
        copies=[Files(f"COPY{at}", copy) for at, copy in enumerate(against)],
        database=database,
    )


def named(report: Report) -> set[tuple[str, int | None, int | None]]:
    return {(finding.kind.value, finding.first, finding.last) for finding in report.findings}


OLD = bodies(300)
NOW = bodies(700)


def edited(at: int) -> list[bytes]:
    return [*NOW[:at], leaf.canonical({"at": 1, "kind": "event", "name": "forged"}), *NOW[at + 1 :]]


def dropped(at: int) -> list[bytes]:
    return [*NOW[:at], *NOW[at + 1 :]]


def swapped(a: int, b: int) -> list[bytes]:
    found = list(NOW)
    found[a], found[b] = found[b], found[a]
    return found


def inserted(at: int) -> list[bytes]:
    return [*NOW[:at], leaf.canonical({"at": 1, "kind": "event", "name": "slipped in"}), *NOW[at:]]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 300, 700])
def test_an_honest_log_has_no_findings_against_anything_that_was_kept(size: int) -> None:
    sizes = [each for each in (0, 1, 128, 256, 300) if each <= size]
    report = judge(
        log_of(NOW[:size]),
        since=[checkpoint_of(NOW[:each]) for each in sizes],
        receipts=[receipt_for(NOW[:each], each - 1) for each in sizes if each],
        against=[log_of(NOW[:each]) for each in sizes],
    )
    assert report.findings == ()
    assert report.notes == ()
    assert (report.size, report.root) == (size, merkle.root_of(merkle.leaf_hash(body) for body in NOW[:size]))


# ---- The attacker has the key: every file agrees, every signature holds ----------------------------------------------

REWRITES = [
    pytest.param(lambda: edited(5), ("edited", 5, 5), id="edits a leaf"),
    pytest.param(lambda: edited(299), ("edited", 299, 299), id="edits the last leaf that anybody saw"),
    pytest.param(lambda: dropped(256), ("dropped", 256, 256), id="drops a leaf"),
    pytest.param(lambda: inserted(17), ("inserted", 17, 17), id="slips a leaf in"),
    pytest.param(lambda: swapped(40, 290), ("reordered", 290, 290), id="swaps two leaves"),
    pytest.param(lambda: NOW[:250], ("dropped", 250, 299), id="cuts the tail"),
    pytest.param(lambda: [*NOW[:250], *bodies(500, 5000)], ("edited", 250, 299), id="cuts the tail and writes another one"),
    pytest.param(list, ("dropped", 0, 299), id="begins again"),
]


@pytest.mark.req("REQ-KEY-092")
@pytest.mark.parametrize(("rewrite", "expected"), REWRITES)
def test_P8_who_holds_the_log_key_and(rewrite: Callable[[], list[bytes]], expected: tuple[str, int, int]) -> None:
    forged = log_of(rewrite())
    assert judge(forged).findings == (), "by itself the forged log is flawless"
    # A copy kept elsewhere names the leaf.
    assert expected in named(judge(forged, against=[log_of(OLD)]))
    # A checkpoint kept elsewhere, a hundred octets, shows that there was a rewrite.
    assert {finding.kind for finding in judge(forged, since=[checkpoint_of(OLD)]).findings} <= {Kind.forked, Kind.dropped}
    assert judge(forged, since=[checkpoint_of(OLD)]).findings
    # The database too, where it was left alone.
    database = database_of(OLD)
    assert expected in named(judge(forged, database=database))


def database_of(leaves: Sequence[bytes]) -> MemoryRecord:
    database = MemoryRecord()
    database.queue(leaves)
    database.assign_indexes([each.id for each in database.pending_leaves(len(leaves))], start=0)
    root = merkle.root_of(merkle.leaf_hash(body) for body in leaves)
    database.record_checkpoint(Checkpoint(ORIGIN, len(leaves), root, signed(len(leaves), root)), now=0)
    return database


def test_P8_several_kept_checkpoints_narrow_a_rewrite_down() -> None:
    kept = [checkpoint_of(NOW[:size]) for size in (10, 100, 200, 300)]
    report = judge(log_of(edited(150)), since=kept)
    assert named(report) == {("forked", 100, 199)}
    assert "KEPT2" in report.findings[0].what


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        pytest.param(lambda: edited(77), ("edited", 77, 77), id="its leaf was edited"),
        pytest.param(lambda: dropped(77), ("edited", 77, 77), id="its leaf was dropped and others moved up"),
        pytest.param(lambda: dropped(3), ("reordered", 77, 77), id="a leaf before it was dropped"),
        pytest.param(lambda: NOW[:60], ("dropped", 77, 77), id="the tail with its leaf was cut"),
        pytest.param(lambda: edited(76), ("forked", 76, 76), id="its neighbour was edited: the proof names it"),
        pytest.param(lambda: edited(100), ("forked", 96, 127), id="a leaf further off was edited: the proof narrows it down"),
    ],
)
def test_P8_a_receipt_handed_to_a_client_tells_that(rewrite: Callable[[], list[bytes]], expected: tuple[str, int, int]) -> None:
    assert expected in named(judge(log_of(rewrite()), receipts=[receipt_for(OLD, 77)]))


def test_P8_two_histories_signed_by_the_same_key_are_a_fork_that_both_copies_prove() -> None:
    one, two = log_of([*OLD, *bodies(50, 1000)]), log_of([*OLD, *bodies(60, 2000)])
    for report in (judge(one, against=[two]), judge(two, against=[one])):
        assert any(finding.kind is Kind.forked and finding.first == 300 for finding in report.findings)


def test_a_checkpoint_of_another_log_is_no_accusation() -> None:
    other = signed(5, merkle.EMPTY_ROOT, origin="elsewhere")
    report = verify(Files("LOG", log_of(NOW)), keys=[NOTE_KEY, note.note_key("elsewhere", KEY.spki)], checkpoints=[("KEPT", other)])
    assert [finding.kind for finding in report.findings] == [Kind.other_log]


def test_what_another_key_signed_counts_for_nothing() -> None:
    stranger = LogKey(b"stranger")
    report = judge(log_of(NOW, key=stranger))
    assert [finding.kind for finding in report.findings] == [Kind.signature]
    kept = log_of(edited(5), key=stranger).files["checkpoint"]
    assert [finding.kind for finding in judge(log_of(NOW), since=[kept]).findings] == [Kind.signature]


# ---- The attacker has no key: files contradict each other ------------------------------------------------------------


def replace(path: str, old: bytes, new: bytes) -> Callable[[MemoryFiles], None]:
    def deed(files: MemoryFiles) -> None:
        assert old in files.files[path]
        files.files[path] = files.files[path].replace(old, new)

    return deed


def reentered(index: int, change: Callable[[list[bytes]], None]) -> Callable[[MemoryFiles], None]:
    def deed(files: MemoryFiles) -> None:
        path = tiles.Tile(-1, index, 256).path
        found = tiles.entries(files.files[path])
        change(found)
        files.files[path] = tiles.bundle(found)

    return deed


def rehashed(index: int) -> Callable[[MemoryFiles], None]:
    def deed(files: MemoryFiles) -> None:
        """Rewrite an entry and its level 0 tile, and nothing above."""
        bundle, tile = tiles.Tile(-1, index // 256, 256), tiles.Tile(0, index // 256, 256)
        found = tiles.entries(files.files[bundle.path])
        found[index % 256] = edited(0)[0]
        files.files[bundle.path] = tiles.bundle(found)
        files.files[tile.path] = b"".join(merkle.leaf_hash(body) for body in found)

    return deed


def set_back(files: MemoryFiles) -> None:
    files.files["checkpoint"] = checkpoint_of(OLD)


def without(path: str) -> Callable[[MemoryFiles], None]:
    def deed(files: MemoryFiles) -> None:
        del files.files[path]

    return deed


def drop(found: list[bytes]) -> None:
    del found[9]


def swap(found: list[bytes]) -> None:
    found[3], found[200] = found[200], found[3]


@pytest.mark.parametrize(
    ("deed", "expected"),
    [
        pytest.param(replace("tile/entries/001", b'"n300"', b'"n3o0"'), {("edited", 300, 300)}, id="an entry was edited"),
        pytest.param(reentered(1, drop), {("dropped", 265, 265)}, id="an entry was dropped"),
        pytest.param(reentered(0, swap), {("reordered", 200, 200), ("reordered", 3, 3)}, id="two entries were swapped"),
        pytest.param(reentered(0, lambda found: found.insert(9, edited(0)[0])), {("inserted", 9, 9)}, id="an entry was slipped in"),
        pytest.param(rehashed(300), {("edited", 256, 511)}, id="an entry and its tile were edited: the tile above names the 256"),
        pytest.param(lambda files: files.files.update({"tile/0/001": bytes(8192)}), {("damaged", 256, 511)}, id="a tile was overwritten"),
        pytest.param(
            lambda files: files.files.update({"tile/1/000.p/2": bytes(64)}), {("damaged", 0, 699)}, id="an upper tile was overwritten"
        ),
        pytest.param(lambda files: files.files.update({"tile/0/001": bytes(64)}), {("damaged", 256, 511)}, id="a tile was cut short"),
        pytest.param(
            lambda files: files.files.update({"tile/entries/001": b"\xff\xff"}), {("damaged", 256, 511)}, id="a bundle is garbage"
        ),
        pytest.param(without("tile/entries/000"), {("missing", 0, 255)}, id="a bundle is missing"),
        pytest.param(without("tile/0/002.p/188"), {("missing", 512, 699)}, id="a partial tile is missing"),
        pytest.param(without("checkpoint"), {("missing", None, None)}, id="the checkpoint is missing"),
        pytest.param(replace("checkpoint", b"700", b"300"), {("signature", None, None)}, id="the checkpoint was edited"),
    ],
)
def test_P8_files_that_contradict_each_other_name_the_leaf_when(
    deed: Callable[[MemoryFiles], None], expected: set[tuple[str, int | None, int | None]]
) -> None:
    files = log_of(NOW)
    deed(files)
    found = named(judge(files))
    assert found
    assert found <= expected
    assert len(found) == 1 or found == expected


def test_both_a_bundle_and_its_tile_missing_is_said_and_the_rest_is_still_compared() -> None:
    files = log_of(edited(600))
    for path in ("tile/entries/000", "tile/0/000"):
        files.files.pop(path)
    found = named(judge(files, against=[log_of(NOW)]))
    assert ("missing", 0, 255) in found
    assert ("edited", 600, 600) in found


def test_a_checkpoint_set_back_leaves_a_note_and_a_kept_one_a_finding() -> None:
    files = log_of(NOW)
    files.write(list(log_of(OLD).files.items()))
    set_back(files)
    report = judge(files)
    assert report.findings == ()
    assert "299" not in report.notes[0]
    assert "leaves 300 to 699" in report.notes[0]
    assert named(judge(files, since=[checkpoint_of(NOW)])) == {("dropped", 300, 699)}


def test_an_older_partial_file_that_was_forgotten_tells_on_a_rewrite() -> None:
    files = log_of(edited(270))
    files.files["tile/entries/001.p/44"] = log_of(OLD).files["tile/entries/001.p/44"]
    files.files["tile/0/001.p/44"] = log_of(OLD).files["tile/0/001.p/44"]
    assert named(judge(files)) == {("edited", 270, 270)}


def test_a_leaf_that_is_not_canonical_json_is_named() -> None:
    assert named(judge(log_of([*OLD, b'{"kind": "event"}']))) == {("malformed", 300, 300)}


def test_an_edit_is_told_with_what_was_and_what_is() -> None:
    report = judge(log_of(edited(5)), against=[log_of(OLD)])
    assert any("leaf 5 edited: was event name n5; is event name forged" in finding.what for finding in report.findings)


# ---- Histories -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=25), st.lists(st.integers(0, 30), max_size=25))
def test_differences_are_empty_exactly_when_the_kept_history_begins_the_found_one(kept: list[int], found: list[int]) -> None:
    a, b = ([Digest(b"%d" % number) for number in each] for each in (kept, found))
    changes = history.differences(a, b)
    assert (not changes) == (b[: len(a)] == a)
    assert all(0 <= change.was < len(a) for change in changes if change.was is not None)
    assert all(0 <= change.now < len(b) for change in changes if change.now is not None)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.data())
def test_one_deed_is_told_as_one_difference(size: int, data: st.DataObject) -> None:
    kept = [Digest(b"%d" % number) for number in range(size)]
    at = data.draw(st.integers(0, size - 1))
    grown = [Digest(b"later"), Digest(b"still later")]
    one = [*kept[:at], Digest(b"x"), *kept[at + 1 :], *grown]
    assert history.differences(kept, one) == [history.Difference(Change.edited, at, at)]
    if at < size - 1:  # what is put after the last leaf, or in place of it, is growth or an edit
        assert history.differences(kept, [*kept[:at], *kept[at + 1 :], *grown]) == [history.Difference(Change.dropped, at, None)]
        assert history.differences(kept, [*kept[:at], Digest(b"x"), *kept[at:], *grown]) == [history.Difference(Change.inserted, None, at)]


# ---- Receipts --------------------------------------------------------------------------------------------------------


def test_receipts_are_made_from_files_and_verify_offline() -> None:
    database = database_of(NOW)
    receipts = Receipts(files=log_of(NOW), leaves=database, keys=[NOTE_KEY])
    for index in (0, 255, 256, 511, 699):
        made = receipts.of(merkle.leaf_hash(NOW[index]))
        again = receipt.read(json.dumps(receipt.document(made)).encode())
        assert again == made
        assert receipt.verify(again, [NOTE_KEY]).size == 700


def test_a_leaf_that_is_not_published_yet_has_no_receipt_yet() -> None:
    database = database_of(NOW)
    receipts = Receipts(files=log_of(OLD), leaves=database, keys=[NOTE_KEY])
    with pytest.raises(Unavailable) as pending:
        receipts.of(merkle.leaf_hash(NOW[300]))
    assert pending.value.code == "leaf-pending"
    with pytest.raises(NotFound):
        receipts.of(merkle.leaf_hash(b"never"))


def test_a_receipt_says_which_certificate_it_is_for() -> None:
    tbs = b"to be signed"
    body = leaf.canonical({"at": 1, "kind": "issuance", "tbs_sha256": "cb2c5f8ceb1bd5d0a4d5c1e5f4ed8b1ac1a5d2ab" + "0" * 24})
    assert not receipt.is_for(receipt.Receipt(0, body, (), b""), tbs)
    body = leaf.canonical({"at": 1, "kind": "issuance", "tbs_sha256": sha256(tbs).hexdigest()})
    assert receipt.is_for(receipt.Receipt(0, body, (), b""), tbs)
    assert not receipt.is_for(receipt.Receipt(0, b"[]", (), b""), tbs)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"index": 78}, Unauthenticated, id="another index"),
        pytest.param({"leaf": OLD[78].decode()}, Unauthenticated, id="another leaf"),
        pytest.param({"proof": []}, Unauthenticated, id="no proof"),
        pytest.param({"checkpoint": checkpoint_of(NOW).decode()}, Unauthenticated, id="another checkpoint"),
        pytest.param({"checkpoint": log_of(OLD, key=LogKey(b"x")).files["checkpoint"].decode()}, Unauthenticated, id="another key"),
        pytest.param({"checkpoint": "nothing"}, Malformed, id="no checkpoint"),
        pytest.param({"format": "other"}, Malformed, id="another format"),
        pytest.param({"index": "77"}, Malformed, id="an index that is text"),
        pytest.param({"index": True}, Malformed, id="an index that is a truth value"),
        pytest.param({"index": -1}, Malformed, id="an index below zero"),
        pytest.param({"proof": ["AAAA"]}, Malformed, id="a hash that is too short"),
        pytest.param({"proof": [1]}, Malformed, id="a hash that is a number"),
        pytest.param({"proof": {}}, Malformed, id="a proof that is no list"),
        pytest.param({"leaf": "\ud800"}, Malformed, id="a leaf that is no text"),
        pytest.param({"leaf": None}, Malformed, id="no leaf"),
    ],
)
def test_a_receipt_is_refused_that_has(change: dict[str, object], error: type[Exception]) -> None:
    octets = json.dumps({**json.loads(receipt_for(OLD, 77)), **change}).encode()
    with pytest.raises(error):
        receipt.verify(receipt.read(octets), [NOTE_KEY])


@pytest.mark.parametrize("octets", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null", b'"x"'])
def test_what_is_no_receipt_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(Malformed):
        receipt.read(octets)


# ---- Showing ---------------------------------------------------------------------------------------------------------


def test_leaves_are_shown_from_any_index_on() -> None:
    assert list(show(log_of(NOW), start=250, size=700)) == list(enumerate(NOW))[250:]
    assert list(show(log_of(NOW), start=700, size=700)) == []


# ---- The database's own leaves ---------------------------------------------------------------------------------------


def test_a_leaf_edited_in_the_database_is_named() -> None:
    database = database_of(NOW)
    database.state.queue[41] = dataclasses.replace(database.state.queue[41], body=edited(0)[0])
    report = judge(log_of(NOW), database=database)
    assert named(report) == {("edited", 41, 41)}
    assert "in the database" in report.findings[0].what


def test_leaves_deleted_from_the_database_are_named() -> None:
    database = database_of(NOW)
    del database.state.queue[41:43]
    assert named(judge(log_of(NOW), database=database)) == {("leaf-without-row", 41, 42)}
    del database.state.queue[600:]
    assert named(judge(log_of(NOW), database=database)) == {("leaf-without-row", 41, 42), ("leaf-without-row", 602, 699)}


def test_leaves_that_wait_are_a_note_and_no_finding() -> None:
    database = database_of(NOW)
    database.queue([LogLeaf(body).body for body in bodies(3, 9000)])
    report = judge(log_of(NOW), database=database)
    assert report.findings == ()
    assert report.notes == ("waiting for the sequencer: 3 leaves",)


def test_a_log_whose_checkpoint_was_set_back_is_told_by_the_database() -> None:
    assert named(judge(log_of(OLD), database=database_of(NOW))) == {("dropped", 300, 699)}
