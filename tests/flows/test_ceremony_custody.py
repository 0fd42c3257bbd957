"""Custodians at a ceremony: a root under their shares, opened by a quorum, shares made anew, a backup, a drill (REQ-KEY-015, -065, -066)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.custody import Custody, Gathering, Given, ShareSheet
from ca.der import pem
from ca.errors import Denied, FleetcaError, KeyUnavailable, Misconfigured
from ca.keys.sealed_file import SealedFileKeyStore
from ca.keys.shares import Slip39
from ca.model import KeyName, ProfileName, Protection
from ca.rules import quorum as rule
from ca.rules import transcript
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, forms
from tests.fakes.ceremony import KNOWN, OPENED, ROOT, SHARES, apart

PASSPHRASE = b"correct horse battery staple"
CUSTODIANS = ("Carol", "Cyrus", "Chloe")
EVERYBODY = (("administrator", "Alex"), ("witness", "Wanda"), *(("custodian", each) for each in CUSTODIANS))


class Stopped(BaseException):
    """A kill -9."""


class Paper:
    """Custodians with paper: each keeps what they were shown, and gives it when asked."""

    def __init__(self, *, misread: Callable[[str, int, str], str] = lambda _who, _try, words: words) -> None:
        self.papers: dict[tuple[str, str], str] = {}
        self.sheets: list[ShareSheet] = []
        self.asked: list[str] = []
        self.heard: list[Given | FleetcaError] = []
        self.misread = misread
        self.first: list[str] = []
        """Given before the right ones."""

    def show(self, sheet: ShareSheet) -> None:
        assert (sheet.quorum, sheet.custodian) not in self.papers, "a share is shown once"
        self.papers[sheet.quorum, sheet.custodian] = sheet.words
        self.sheets.append(sheet)

    def reenter(self, custodian: str, attempt: int) -> str:
        return self.misread(custodian, attempt, self.papers[self.sheets[-1].quorum, custodian])

    def ask(self, gathering: Gathering) -> str:
        self.asked.append(gathering.quorum.name)
        if self.first:
            return self.first.pop(0)
        who = next(each for each in gathering.quorum.custodians if each not in gathering.custodians)
        return self.papers[gathering.quorum.name, who]

    def told(self, outcome: Given | FleetcaError) -> None:
        self.heard.append(outcome)


def write(folder: Path, name: str, acts: str, *, credentials: str = "") -> None:
    roles, places = "", ""
    for role, person in EVERYBODY:
        file = folder / f"{person.lower()}.json"
        if not file.exists():
            file.write_text(ceremonies.make_role_key(person.lower(), folder, lambda: PASSPHRASE).hex())
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{file.read_text()}"\n'
        places += f'[people.{person}]\nkey = "sealed:{person.lower()}.key"\n'
    (folder / f"{name}.toml").write_text(f'[ceremony]\nname = "{name}"\nconfirm = ["administrator", "witness"]\n{roles}{acts}')
    (folder / f"{name}.credentials").write_text(places + credentials)


def hold(folder: Path, name: str, people: Paper | None, **changes: Any) -> None:
    ceremonies.run(
        folder / f"{name}.toml", out=folder / name, passphrase=lambda: PASSPHRASE, confirm=changes.pop("confirm", lambda step: True),
        clock=SystemClock(), chance=SystemChance(), credentials=folder / f"{name}.credentials", room=apart, custodians=people, **changes,
    )  # fmt: skip


def verified(folder: Path, name: str) -> None:
    root = pem.der_of((folder / "first/root.pem").read_bytes(), pem.CERTIFICATE)
    assert ceremonies.verify(folder / name, roots={"root": root}).name == name


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Paper]:
    folder, paper = tmp_path_factory.mktemp("custody") / "room", Paper()
    folder.mkdir()
    write(folder, "first", SHARES + ROOT)
    hold(folder, "first", paper)
    return folder, paper


@pytest.fixture
def room(template: tuple[Path, Paper], tmp_path: Path) -> tuple[Path, Paper]:
    shutil.copytree(template[0], tmp_path / "room")
    paper = Paper()
    paper.papers = dict(template[1].papers)
    return tmp_path / "room", paper


def shared(folder: Path, words: list[str], file: str = "first/quorum.quorum.json") -> bytes:
    gathering = Custody(sharing=Slip39(), clock=SystemClock()).gather(rule.read((folder / file).read_bytes()))
    for each in words:
        gathering.give(each)
    return gathering.key().passphrase()


@pytest.mark.req("REQ-KEY-066")
def test_the_root_rests_under_shares_that_one_custodian_each_has_seen_once(template: tuple[Path, Paper]) -> None:
    folder, paper = template
    verified(folder, "first")
    assert [sheet.custodian for sheet in paper.sheets] == list(CUSTODIANS)
    words = list(paper.papers.values())
    key = SealedFileKeyStore(folder / "first", lambda: shared(folder, words[1:])).open(KeyName("root"))
    assert pem.der_of((folder / "first/root.pem").read_bytes(), pem.CERTIFICATE).find(key.spki) > 0
    with pytest.raises(Denied):
        shared(folder, words[:1])
    with pytest.raises(KeyUnavailable):
        SealedFileKeyStore(folder / "first", lambda: PASSPHRASE).open(KeyName("root"))


def test_no_word_of_a_share_is_in_any_file(template: tuple[Path, Paper]) -> None:
    folder, paper = template
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for words in paper.papers.values():
        assert " ".join(words.split()[-3:]).encode() not in everything


def test_nobody_was_asked_for_shares_while_the_key_was_still_here(template: tuple[Path, Paper]) -> None:
    assert template[1].asked == []


@pytest.mark.parametrize("until", ["root", "root-crl", "root-backup"])
def test_a_run_that_was_stopped_goes_on_when_a_quorum_comes(template: tuple[Path, Paper], tmp_path: Path, until: str) -> None:
    paper = Paper()
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    with pytest.raises(Denied):
        hold(folder, "first", paper, confirm=lambda step: step.act != until)
    assert paper.asked == []
    hold(folder, "first", paper)
    assert len(paper.asked) == 2
    assert len(paper.sheets) == 3
    verified(folder, "first")


@pytest.mark.parametrize(("place", "made"), [("ceremony.before-custody", 1), ("ceremony.after-custody", 1)])
def test_R32_killed_while_shares_were_made(template: tuple[Path, Paper], tmp_path: Path, place: str, made: int) -> None:
    folder, paper = tmp_path / "room", Paper()
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))

    def strike(name: str) -> None:
        if name == place:
            raise Stopped

    with pytest.raises(Stopped):
        hold(folder, "first", paper, failpoint=strike)
    hold(folder, "first", paper)
    verified(folder, "first")
    assert len(paper.sheets) == 3 * made


def test_a_share_that_is_read_back_wrongly_three_times_ends_the_set_and_seals_nothing(template: tuple[Path, Paper], tmp_path: Path) -> None:
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    paper = Paper(misread=lambda who, _try, words: "wrong words" if who == "Cyrus" else words)
    with pytest.raises(Denied) as caught:
        hold(folder, "first", paper)
    assert caught.value.code == "share-not-verified"
    assert not (folder / "first/root.key").exists()
    assert not (folder / "first/quorum.quorum.json").exists()
    hold(folder, "first", Paper())
    verified(folder, "first")


def test_a_set_that_somebody_put_there_before_is_not_taken_for_ours(template: tuple[Path, Paper], tmp_path: Path) -> None:
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    (folder / "first").mkdir()
    shutil.copy(template[0] / "first/quorum.quorum.json", folder / "first")
    with pytest.raises(FleetcaError) as caught:
        hold(folder, "first", Paper())
    assert caught.value.code == "output-exists"


def test_without_anybody_at_a_terminal_no_share_is_made(template: tuple[Path, Paper], tmp_path: Path) -> None:
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    with pytest.raises(KeyUnavailable) as caught:
        hold(folder, "first", None)
    assert caught.value.code == "no-custody"
    assert not list((folder / "first").glob("*.key"))


# ---- The quorum comes again ---------------------------------------------------------------------------------------------

NEXT = f"""{KNOWN}
[[acts]]
act = "root-crl"
id = "next-crl"
issuer = "root"
previous = "first/root-crl.crl"
next_update = "90d"
"""


@pytest.mark.req("REQ-KEY-015")
def test_a_quorum_opens_the_root_and_a_share_of_another_set_or_a_damaged_one_does_not(room: tuple[Path, Paper]) -> None:
    folder, paper = room
    write(folder, "next", NEXT, credentials=OPENED)
    other = Paper()
    Custody(sharing=Slip39(), clock=SystemClock()).make("other", list(CUSTODIANS), 2, show=other.show, reenter=other.reenter)
    right = paper.papers["quorum", "Carol"]
    damaged = " ".join([*right.split()[:-1], "academic" if right.split()[-1] != "academic" else "acid"])
    paper.first = [other.papers["other", "Carol"], damaged, right, right]
    hold(folder, "next", paper)
    verified(folder, "next")
    refused = [each.code for each in paper.heard if isinstance(each, FleetcaError)]
    assert refused == ["share-of-another-set", "bad-share", "share-given"]


REISSUE = f"""{KNOWN}
[[acts]]
act = "share-reissue"
id = "quorum-2"
replaces = "first/quorum.quorum.json"
custodians = ["Carol", "Chloe"]
threshold = 2
keys = ["root"]
"""


@pytest.mark.req("REQ-KEY-066")
@pytest.mark.parametrize("place", [None, "ceremony.before-custody", "ceremony.after-custody"])
def test_shares_made_anew_open_the_key_and_the_old_ones_only_the_old_file(room: tuple[Path, Paper], place: str | None) -> None:
    folder, paper = room
    write(folder, "again", REISSUE, credentials=OPENED)

    def strike(name: str) -> None:
        if name == place:
            raise Stopped

    if place is not None:
        with pytest.raises(Stopped):
            hold(folder, "again", paper, failpoint=strike)
    hold(folder, "again", paper)
    verified(folder, "again")
    new = [paper.papers["quorum-2", each] for each in ("Carol", "Chloe")]
    fresh = SealedFileKeyStore(folder / "again", lambda: shared(folder, new, "again/quorum-2.quorum.json")).open(KeyName("root"))
    old = [paper.papers["quorum", each] for each in ("Carol", "Chloe")]
    before = SealedFileKeyStore(folder / "first", lambda: shared(folder, old)).open(KeyName("root"))
    assert fresh.spki == before.spki
    with pytest.raises(KeyUnavailable):
        SealedFileKeyStore(folder / "again", lambda: shared(folder, old)).open(KeyName("root"))
    record = json.loads((folder / "again/quorum-2.json").read_bytes())
    assert ["key of root", "sealed anew in root.key; the old file stays until it is destroyed"] in record["proof"]


DRILL = f"""{KNOWN}
[[acts]]
act = "restore-drill"
id = "drill"
issuer = "root"
quorum_file = "first/quorum.quorum.json"
backup = "first/root-backup.backup"
"""


@pytest.mark.req("REQ-KEY-015", "REQ-KEY-065")
def test_a_restore_drill_leaves_a_record_and_no_key(room: tuple[Path, Paper]) -> None:
    folder, paper = room
    write(folder, "drill", DRILL)
    hold(folder, "drill", paper)
    verified(folder, "drill")
    record = json.loads((folder / "drill/drill.json").read_bytes())
    assert json.loads(transcript.octets_of(record["statement"]))["act"] == "restore-drill"
    assert ["shares given by", "Carol, Cyrus"] in record["proof"]
    assert [each["person"] for each in record["confirmed"]] == ["Alex", "Wanda"]
    assert not list((folder / "drill").glob("*.key"))


WRONG: list[object] = [
    pytest.param(lambda octets: octets[:-9], "backup-damaged", id="its end is missing"),
    pytest.param(lambda octets: octets[:-1] + bytes((octets[-1] ^ 1,)), "backup-damaged", id="an octet was changed"),
    pytest.param(lambda octets: octets.replace(b'"name"', b'"nome"').replace(b'"version":1', b'"version":2'), "bad-backup", id="its first line was changed"),
    pytest.param(lambda octets: b"nothing of ours", "bad-backup", id="something else"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code"), WRONG)
def test_a_backup_that_does_not_hold_is_said(room: tuple[Path, Paper], change: Callable[[bytes], bytes], code: str) -> None:
    folder, paper = room
    file = folder / "first/root-backup.backup"
    file.write_bytes(change(file.read_bytes()))
    write(folder, "drill", DRILL)
    with pytest.raises(FleetcaError) as caught:
        hold(folder, "drill", paper)
    assert caught.value.code == code
    assert not (folder / "drill/drill.json").exists()


@pytest.mark.req("REQ-KEY-015")
def test_a_backup_is_opened_by_its_own_quorum_only(room: tuple[Path, Paper]) -> None:
    folder, paper = room
    write(folder, "again", REISSUE, credentials=OPENED)
    hold(folder, "again", paper)
    write(folder, "drill", DRILL.replace("first/quorum.quorum.json", "again/quorum-2.quorum.json"))
    with pytest.raises(KeyUnavailable) as caught:
        hold(folder, "drill", paper)
    assert caught.value.code == "not-for-this-quorum"


# ---- What a sheet may say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        pytest.param('"Cyrus", "Chloe"]', '"Cyrus", "Nobody"]', "missing-role", id="a custodian who is not in the room"),
        pytest.param('"Cyrus", "Chloe"]', '"Cyrus", "Carol"]', "bad-quorum", id="two shares for one person"),
        pytest.param("threshold = 2", "threshold = 1", "bad-quorum", id="a quorum of one"),
        pytest.param("threshold = 2", "threshold = 4", "bad-quorum", id="more than there are"),
        pytest.param('quorum = "quorum"\n[[acts]]\nact = "root-crl"', 'quorum = "other"\n[[acts]]\nact = "root-crl"', "unknown-quorum", id="shares that no act makes"),
    ],
)  # fmt: skip
def test_wrong_sets_are_refused_before_anything_is_made(
    template: tuple[Path, Paper], tmp_path: Path, old: str, new: str, code: str
) -> None:
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    sheet = folder / "first.toml"
    assert old in sheet.read_text()
    sheet.write_text(sheet.read_text().replace(old, new))
    with pytest.raises(Misconfigured) as caught:
        hold(folder, "first", Paper())
    assert caught.value.code == code
    assert not list((folder / "first").glob("*")) if (folder / "first").exists() else True


@pytest.mark.req("REQ-KEY-004")
def test_a_store_weaker_than_the_profile_demands_is_refused_before_anything_is_made(
    template: tuple[Path, Paper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "room"
    shutil.copytree(template[0], folder, ignore=shutil.ignore_patterns("first"))
    shipped = dict(forms.shipped_profiles())
    shipped[ProfileName("root")] = replace(shipped[ProfileName("root")], minimum_protection=Protection.quorum)
    monkeypatch.setattr(forms, "shipped_profiles", lambda: shipped)
    sheet = folder / "first.toml"
    whole = sheet.read_text()
    sheet.write_text(whole.replace('quorum = "quorum"\n[[acts]]\nact = "root-crl"', '[[acts]]\nact = "root-crl"'))
    with pytest.raises(Misconfigured) as caught:
        hold(folder, "first", Paper())
    assert caught.value.code == "store-too-weak"
    sheet.write_text(whole)
    hold(folder, "first", Paper())
