"""Ceremonies of custodians at a real terminal: shares are shown once and read back, a quorum comes again, shares are made anew, a backup is tried."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ca.custody import Custody
from ca.der import pem
from ca.errors import FleetcaError
from ca.keys.sealed_file import SealedFileKeyStore
from ca.keys.shares import Slip39
from ca.model import KeyName
from ca.rules import quorum as rule
from ca.system import SystemClock
from fleetca import ceremonies
from tests.fakes.ceremony import KNOWN, OPENED, ROOT, SHARES
from tests.terminal import Screen

PASSPHRASE = b"correct horse battery staple"
CUSTODIANS = ("Carol", "Cyrus", "Chloe")
EVERYBODY = (("administrator", "Alex"), ("witness", "Wanda"), *(("custodian", each) for each in CUSTODIANS))
# scrypt is dear on purpose, and its price is not what is tried here.
COMMAND = (
    sys.executable,
    "-c",
    "import ca.keys.sealed_file as s; s._N = 256; from fleetca.cli.main import main; main()",
    "ceremony",
    "run",
)


@dataclass
class People:
    """Who sits at the terminal, one after the other, with paper and pen."""

    papers: dict[tuple[str, str], str] = field(default_factory=dict)
    """(set, custodian) -> the words they copied."""
    misread: list[str] = field(default_factory=list)
    """Typed before the right words, when a share is read back."""
    given: list[str] = field(default_factory=list)
    """Typed when the next custodian is asked for a share."""
    reading: tuple[str, str] = ("", "")

    @property
    def answers(self) -> list[tuple[str, Callable[[re.Match[str], str], str]]]:
        return [
            (r"do you confirm this\? \[y/N\]: ", lambda *_: "y"),
            (r"Passphrase of Wanda \(witness\): ", lambda *_: "the secret of wanda"),
            (r"look away\.\r\n  \[Enter\]: ", lambda *_: ""),
            (r"not shown again\.\r\n  \[Enter\]: ", self._copied),
            (r"(Carol|Cyrus|Chloe), type the words from your paper.*nothing shows: ", self._read_back),
            (r"the next custodian types a share, nothing shows: ", lambda *_: self.given.pop(0)),
        ]

    def _copied(self, _: re.Match[str], shown: str) -> str:
        head = re.search(r"(\w+): share \d of \d of (\S+) \(set \d+\); \d are needed", shown)
        assert head is not None, shown
        words = dict(re.findall(r"(\d+) ([a-z]+)", shown[head.end() :]))
        assert list(words) == [str(number) for number in range(1, 34)]
        self.reading = (head[2], head[1])
        assert self.reading not in self.papers, "a share is shown once"
        self.papers[self.reading] = " ".join(words.values())
        return ""

    def _read_back(self, match: re.Match[str], shown: str) -> str:
        assert match[1] == self.reading[1]
        if "try " not in match[0]:
            assert "\x1b[2J\x1b[3J\x1b[H" in shown, "the share is still on the screen"
        return self.misread.pop(0) if self.misread else self.papers[self.reading]


def write(folder: Path, name: str, acts: str, *, credentials: str = "") -> None:
    roles, places = "", ""
    for role, person in EVERYBODY:
        file = folder / f"{person.lower()}.sha256"
        if not file.exists():
            secret = f"the secret of {person.lower()}".encode()
            file.write_text(ceremonies.make_role_key(person.lower(), folder, partial(bytes, secret)).hex())
            (folder / f"{person.lower()}.pass").write_bytes(secret)
            (folder / f"{person.lower()}.pass").chmod(0o600)
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{file.read_text()}"\n'
        # Wanda types hers.
        where = "ask" if person == "Wanda" else f"file:{person.lower()}.pass"
        places += f'[people.{person}]\nkey = "sealed:{person.lower()}.key"\npassphrase = "{where}"\n'
    head = f'[ceremony]\nname = "{name}"\nallow_network = "a trial"\nconfirm = ["administrator", "witness"]\n'
    (folder / f"{name}.toml").write_text(f"{head}{roles}{acts}")
    (folder / f"{name}.credentials").write_text(places + credentials)


def sit_down(folder: Path, name: str) -> Screen:
    return Screen([*COMMAND, folder / f"{name}.toml", "--out", folder / name, "--credentials", folder / f"{name}.credentials", "--json"])


def hold(folder: Path, name: str, people: People) -> str:
    """The whole ceremony at a terminal; what was on the screen."""
    with sit_down(folder, name) as screen:
        assert screen.converse(people.answers) == 0, screen.seen
        said = screen.output()
    assert json.loads(said)["ceremony"] == name
    everything = said.encode() + b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for (_, custodian), words in people.papers.items():
        # Typed twice and shown once; nothing keeps it.
        shown = " ".join(re.findall(r"\d+ ([a-z]+)", screen.seen))
        assert shown.count(words) <= 1, custodian
        assert words not in screen.seen
        assert " ".join(words.split()[-3:]).encode() not in everything
    root = pem.der_of((folder / "first/root.pem").read_bytes(), pem.CERTIFICATE)
    assert ceremonies.verify(folder / name, roots={"root": root}).name == name
    return screen.seen


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, People]:
    folder, people = tmp_path_factory.mktemp("terminal") / "room", People()
    folder.mkdir()
    write(folder, "first", SHARES + ROOT)
    people.misread = ["these are no words", "academic acid acne"]
    seen = hold(folder, "first", people)
    assert seen.count("it was not the share that was shown") == 2
    return folder, people


def opened(folder: Path, store: str, quorum: str, words: list[str]) -> bytes:
    gathering = Custody(sharing=Slip39(), clock=SystemClock()).gather(rule.read((folder / quorum).read_bytes()))
    for each in words:
        gathering.give(each)
    return SealedFileKeyStore(folder / store, gathering.key().passphrase).open(KeyName("root")).spki


def damaged(words: str) -> str:
    *before, last = words.split()
    return " ".join([*before, "academic" if last != "academic" else "acid"])


@pytest.mark.req("REQ-KEY-015", "REQ-KEY-066")
def test_each_custodian_saw_one_share_once_and_two_of_them_open_the_root(room: tuple[Path, People]) -> None:
    folder, people = room
    assert list(people.papers) == [("quorum", each) for each in CUSTODIANS]
    papers = list(people.papers.values())
    assert len(set(papers)) == 3
    assert opened(folder, "first", "first/quorum.quorum.json", papers[1:])
    with pytest.raises(FleetcaError):
        opened(folder, "first", "first/quorum.quorum.json", papers[:1])


@pytest.mark.req("REQ-KEY-015", "REQ-KEY-065")
def test_a_drill_with_wrong_words_first_and_a_custodian_who_leaves_in_the_middle(room: tuple[Path, People]) -> None:
    folder, people = room
    acts = '[[acts]]\nact = "restore-drill"\nid = "drill"\nissuer = "root"\nquorum_file = "first/quorum.quorum.json"\nbackup = "first/root-backup.backup"\n'
    write(folder, "drill", KNOWN + acts)
    carol, chloe = people.papers["quorum", "Carol"], people.papers["quorum", "Chloe"]
    foreign: dict[str, str] = {}
    ours = rule.read((folder / "first/quorum.quorum.json").read_bytes()).identifier
    Custody(sharing=Slip39(), clock=SystemClock()).make(
        "other",
        ["Carol", "X"],
        2,
        unlike=ours,
        show=lambda sheet: foreign.update({sheet.custodian: sheet.words}),
        reenter=lambda who, _: foreign[who],
    )
    # One share is not enough: its custodian waits for another one, and goes home.
    with sit_down(folder, "drill") as screen:
        alone = People(given=[carol])
        waiting = [(r": 1 more of .*types a share, nothing shows: ", lambda *_: "\x03"), *alone.answers]
        assert screen.converse(waiting) != 0
        assert "Carol: taken" in screen.seen
        assert "Traceback" not in screen.seen
    assert not (folder / "drill/drill.json").exists()

    people.given = [damaged(carol), foreign["Carol"], carol, carol, chloe]
    seen = hold(folder, "drill", people)
    assert seen.count("Not taken") == 3
    assert seen.count("taken; ") == 2
    record = json.loads((folder / "drill/drill.json").read_bytes())
    assert ["shares given by", "Carol, Chloe"] in record["proof"]
    assert not list((folder / "drill").glob("*.key"))


@pytest.mark.req("REQ-KEY-066")
def test_shares_are_made_anew_before_a_quorum_of_the_old_ones(room: tuple[Path, People]) -> None:
    folder, people = room
    acts = 'act = "share-reissue"\nid = "quorum-2"\nreplaces = "first/quorum.quorum.json"\ncustodians = ["Carol", "Chloe"]\nthreshold = 2\nkeys = ["root"]\n'
    write(folder, "again", f"{KNOWN}[[acts]]\n{acts}", credentials=OPENED)
    people.given = [people.papers["quorum", "Cyrus"], people.papers["quorum", "Chloe"]]
    hold(folder, "again", people)
    old = [people.papers["quorum", each] for each in ("Carol", "Chloe")]
    new = [people.papers["quorum-2", each] for each in ("Carol", "Chloe")]
    assert opened(folder, "again", "again/quorum-2.quorum.json", new) == opened(folder, "first", "first/quorum.quorum.json", old)
    with pytest.raises(FleetcaError):
        opened(folder, "again", "again/quorum-2.quorum.json", old)
