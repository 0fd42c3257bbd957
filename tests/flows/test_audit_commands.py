"""`fleetca audit` as an auditor runs it: on files in a folder, with what was kept elsewhere."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from ca.log.tiles import TileDirectory
from ca.model import LogLeaf
from ca.receipts import Receipts
from ca.rules import leaf, merkle, note, receipt
from ca.sequence import Sequencer
from ca.store.engine import open_store
from tests.databases import sqlite_url
from tests.fakes.record import FixedClock, LogKey, MemoryRecord, no_failpoint
from tests.running import exit_code

KEY = note.note_key("demo", LogKey().spki)
BODIES = [leaf.canonical({"at": 1_800_000_000 + number, "kind": "event", "name": f"n{number}"}) for number in range(40)]
ISSUED = leaf.canonical({"at": 1_800_000_040, "kind": "issuance", "tbs_sha256": sha256(b"tbs").hexdigest()})


def write_log(folder: Path, bodies: list[bytes]) -> MemoryRecord:
    ledger = MemoryRecord()
    ledger.queue(bodies)
    Sequencer(
        ledger=ledger,
        files=TileDirectory(folder),
        key=LogKey(),
        origin="demo",
        holder="a",
        clock=FixedClock(),
        failpoint=no_failpoint,
    ).run()
    return ledger


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_log(tmp_path / "log", BODIES)
    (tmp_path / "log.verifier").write_text(f"{KEY}\n")
    return tmp_path / "log"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code, printed = exit_code("audit", *arguments), capsys.readouterr()
    return code, printed.out, printed.err


def test_an_honest_log_ends_with_0_and_says_what_it_was_held_against(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    code, out, _ = run(capsys, "verify", log)
    assert code == 0
    assert "40 leaves (demo)" in out
    assert "itself only" in out
    assert "nothing that was kept elsewhere" in out
    assert "keep it elsewhere and give it with --key" in out


def test_with_kept_checkpoint_copy_and_key_there_is_nothing_to_add(capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "mirror", BODIES[:30])
    code, out, _ = run(
        capsys, "verify", log, "--since", tmp_path / "mirror" / "checkpoint", "--against", tmp_path / "mirror", "--key", KEY, "--json"
    )
    document = json.loads(out)
    assert code == 0
    assert (document["verdict"], document["size"], document["findings"], document["notes"]) == ("ok", 40, [], [])
    assert document["root"] == merkle.root_of(merkle.leaf_hash(body) for body in BODIES).hex()


def test_P8_a_rewritten_log_ends_with_8_and_names_the_leaf(capsys: pytest.CaptureFixture[str], log: Path, tmp_path: Path) -> None:
    shutil.copytree(log, tmp_path / "mirror")
    shutil.rmtree(log)
    write_log(log, [*BODIES[:7], leaf.canonical({"at": 1, "kind": "event", "name": "forged"}), *BODIES[8:]])
    code, out, _ = run(capsys, "verify", log, "--against", tmp_path / "mirror", "--key", KEY)
    assert code == 8
    assert "leaf 7 edited: was event name n7; is event name forged" in out
    code, out, _ = run(capsys, "verify", log, "--since", tmp_path / "mirror" / "checkpoint", "--key", KEY, "--json")
    assert code == 8
    assert json.loads(out)["findings"][0]["kind"] == "forked"


def test_the_database_is_compared_where_it_is_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    store = open_store(url)
    with store.ledger.writing() as tx:
        for body in BODIES:
            tx.append_leaf(LogLeaf(body))
    Sequencer(
        ledger=store.ledger,
        files=TileDirectory(tmp_path / "log"),
        key=LogKey(),
        origin="demo",
        holder="a",
        clock=FixedClock(),
        failpoint=no_failpoint,
    ).run()
    store.close()
    code, out, _ = run(capsys, "verify", tmp_path / "log", "--key", KEY, "--database", url, "--json")
    assert code == 0
    assert json.loads(out)["compared"] == ["the database"]


def test_without_a_key_the_fix_is_said(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    (log.parent / "log.verifier").unlink()
    code, out, err = run(capsys, "verify", log)
    assert (code, out) == (2, "")
    assert "[audit-key]" in err
    assert "--key" in err


@pytest.mark.parametrize("key", ["nonsense", "demo+00000000+AAAA", str(KEY)[:-4] + "AAA="])
def test_a_key_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], log: Path, key: str) -> None:
    code, _, err = run(capsys, "verify", log, "--key", key)
    assert code == 2
    assert "[bad-note-key]" in err


def test_a_folder_that_is_no_log_is_all_findings_and_no_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "verify", tmp_path, "--key", KEY)
    assert code == 8
    assert "has no checkpoint" in out
    assert "Traceback" not in err


def test_the_newest_leaves_are_shown(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    code, out, _ = run(capsys, "show", log, "--limit", 3)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["37", "38", "39"]
    assert "2027-01-15T08:00:39Z  event  name=n39" in out


@pytest.mark.parametrize(
    ("arguments", "indexes"),
    [
        pytest.param(["--start", "5", "--limit", "2"], [5, 6], id="from an index on"),
        pytest.param(["--find", "n1"], [1, *range(10, 20)], id="that hold a text"),
        pytest.param(["--find", "n1", "--limit", "2"], [18, 19], id="the newest that hold a text"),
        pytest.param(["--kind", "token"], [], id="of a kind that is not there"),
        pytest.param(["--start", "100"], [], id="past the end"),
    ],
)
def test_leaves_are_shown(capsys: pytest.CaptureFixture[str], log: Path, arguments: list[str], indexes: list[int]) -> None:
    code, out, _ = run(capsys, "show", log, *arguments, "--json")
    assert code == 0
    assert [each["index"] for each in json.loads(out)["leaves"]] == indexes


def test_a_receipt_is_verified_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ledger = write_log(tmp_path / "log", [*BODIES, ISSUED])
    made = Receipts(files=TileDirectory(tmp_path / "log"), leaves=ledger, keys=[KEY]).of(merkle.leaf_hash(ISSUED))
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt.document(made)))
    code, out, _ = run(capsys, "receipt", file, "--key", KEY)
    assert code == 0
    assert "leaf 40 of demo, in a log of 41 leaves" in out
    file.write_text(file.read_text().replace('"index": 40', '"index": 39'))
    code, _, err = run(capsys, "receipt", file, "--key", KEY)
    assert code == 5
    assert "[receipt-proof]" in err
