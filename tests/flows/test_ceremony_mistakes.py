"""Mistakes that people make before, during and after a stop of a ceremony: each stops before anything more is signed, says what, why and what mends
it, loses nothing, and once it is mended the ceremony is finished."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ca.ceremony_steps import Room, Step
from ca.der import pem
from ca.errors import Denied, FleetcaError
from ca.rules import transcript
from ca.system import SystemChance
from fleetca import ceremonies
from fleetca.ceremony_lock import FolderLock
from tests.fakes.ceremony import apart, csr

PASSPHRASE = b"correct horse battery staple"
NOW = 1_795_305_600
DAY = 86400
PEOPLE = (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))


HEAD = """
[ceremony]
name = "{name}"
confirm = ["administrator", "witness"]
"""

FIRST = """
[[acts]]
act = "root"
id = "root"
algorithm = "p256"
subject = {{ common_name = "Root", organization = "Example" }}
not_before = 2026-11-01T00:00:00Z
not_after = "20y"
[[acts]]
act = "intermediate"
id = "issuing"
issuer = "root"
csr = "issuing.csr"
algorithm = "p256"
subject = {{ common_name = "Issuing", organization = "Example" }}
not_after = "5y"
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "root-crl"
issuer = "root"
next_update = "90d"
"""

KNOWN = """
[[issuers]]
id = "root"
certificate = "first/root.pem"
"""

SECOND = """
[[acts]]
act = "rekey"
id = "issuing-2"
issuer = "root"
predecessor = "first/issuing.pem"
csr = "issuing-2.csr"
subject = {{ common_name = "Issuing", organization = "Example" }}
not_after = "5y"
crl_url = "http://pki.example/crl/root.crl"
issuer_url = "http://pki.example/ca/root.cer"
[[acts]]
act = "root-crl"
id = "next-crl"
issuer = "root"
previous = "first/root-crl.crl"
next_update = "90d"
"""


@dataclass
class Clock:
    at: int = NOW

    def now(self) -> int:
        return self.at


@dataclass
class Desk:
    """What lies on the table: sheets, keys, credentials, the clock, the machine."""

    folder: Path
    name: str = "first"
    clock: Clock = field(default_factory=Clock)
    room: Room = field(default_factory=apart)
    passphrase: bytes = PASSPHRASE
    answer: Callable[[Step], bool] = lambda step: True
    patch: pytest.MonkeyPatch | None = None
    kept: dict[str, bytes] = field(default_factory=dict)

    @property
    def sheet(self) -> Path:
        return self.folder / f"{self.name}.toml"

    @property
    def credentials(self) -> Path:
        return self.folder / f"{self.name}.credentials"

    @property
    def out(self) -> Path:
        return self.folder / self.name

    def run(self) -> None:
        ceremonies.run(
            self.sheet, out=self.out, passphrase=lambda: self.passphrase, confirm=self.answer, clock=self.clock, chance=SystemChance(),
            credentials=self.credentials, room=lambda: self.room,
        )  # fmt: skip

    def begin(self, until: str) -> None:
        """Hold it up to an act, where somebody says no."""
        self.answer = lambda step: step.act != until
        with pytest.raises(Denied):
            self.run()
        self.answer = lambda step: True
        self.clock.at += 60

    def edit(self, file: Path, old: str, new: str) -> None:
        self.kept.setdefault(str(file), file.read_bytes())
        text = file.read_text()
        assert old in text, old
        file.write_text(text.replace(old, new))

    def put(self, file: Path, octets: bytes) -> None:
        if file.exists():
            self.kept.setdefault(str(file), file.read_bytes())
        file.write_bytes(octets)

    def undo(self) -> None:
        """Bring everything back that was edited."""
        for name, octets in self.kept.items():
            Path(name).write_bytes(octets)
        self.kept.clear()

    def signed(self) -> list[str]:
        path = self.out / transcript.FILE
        said = path.read_bytes().splitlines() if path.exists() else []
        return [line.decode() for line in said if json.loads(line)["kind"] in {"signing", "seal", "key", "destroying"}]

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and path.name != transcript.FILE}


def _furnished(folder: Path) -> None:
    roles, places = "", ""
    for role, person in PEOPLE:
        name = person.lower()
        (folder / f"{name}.passphrase").write_text(f"the secret of {name}")
        (folder / f"{name}.passphrase").chmod(0o600)
        digest = ceremonies.make_role_key(name, folder, (folder / f"{name}.passphrase").read_bytes)
        roles += f'[[roles]]\nrole = "{role}"\nperson = "{person}"\nkey_sha256 = "{digest.hex()}"\n'
        places += f'[people.{person}]\nkey = "sealed:{name}.key"\npassphrase = "file:{name}.passphrase"\n'
    (folder / "issuing.csr").write_text(pem.pem(pem.REQUEST, csr()))
    (folder / "issuing-2.csr").write_text(pem.pem(pem.REQUEST, csr(name="second")))
    (folder / "first.toml").write_text(HEAD.format(name="first") + roles + FIRST.format())
    (folder / "first.credentials").write_text(places)
    (folder / "second.toml").write_text(HEAD.format(name="second") + roles + KNOWN + SECOND.format())
    (folder / "second.credentials").write_text(f'{places}[issuers.root]\nkey = "sealed:first/root.key"\n')


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Nothing held yet; and the first ceremony held."""
    empty = tmp_path_factory.mktemp("empty") / "desk"
    empty.mkdir()
    _furnished(empty)
    held = tmp_path_factory.mktemp("held") / "desk"
    shutil.copytree(empty, held)
    Desk(held).run()
    other = tmp_path_factory.mktemp("other") / "desk"
    shutil.copytree(empty, other)
    Desk(other).run()
    return {"empty": empty, "held": held, "other": other}


@dataclass(frozen=True)
class Mistake:
    """What goes wrong, and what makes it right again."""

    code: str
    make: Callable[[Desk], Any]
    mend: Callable[[Desk], Any] = lambda desk: desk.undo()
    second: bool = False
    """In the ceremony after the first one."""


def sheet(code: str, old: str, new: str, *, second: bool = False) -> Mistake:
    return Mistake(code, lambda desk: desk.edit(desk.sheet, old, new), second=second)


def later(
    code: str, make: Callable[[Desk], Any], mend: Callable[[Desk], Any] = lambda desk: desk.undo(), *, until: str = "root-crl"
) -> Mistake:
    """After a stop."""

    def both(desk: Desk) -> None:
        desk.begin(until)
        make(desk)

    return Mistake(code, both, mend)


def swapped_key(desk: Desk) -> None:
    from ca.keys.sealed_file import SealedFileKeyStore
    from ca.model import AlgorithmName, KeyName

    SealedFileKeyStore(desk.folder / "elsewhere", lambda: PASSPHRASE).generate(KeyName("root"), AlgorithmName("p256"))
    desk.put(desk.out / "root.key", (desk.folder / "elsewhere/root.key").read_bytes())


def full_disk(desk: Desk) -> None:
    assert desk.patch is not None

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    desk.patch.setattr("fleetca.folder.os.fsync", full)


def freed_disk(desk: Desk) -> None:
    assert desk.patch is not None
    desk.patch.undo()


def other_room(desk: Desk, name: str) -> bytes:
    return (desk.folder.parent / "other" / name).read_bytes()


def broken_csr(desk: Desk) -> None:
    der = csr()
    desk.put(desk.folder / "issuing.csr", der[:-1] + bytes((der[-1] ^ 1,)))


NO_KEY = '[people.Wanda]\nkey = "sealed:wanda.key"\npassphrase = "file:wanda.passphrase"\n'
LIKE_ALEX = '[people.Wanda]\nkey = "sealed:alex.key"\npassphrase = "file:alex.passphrase"\n'

MISTAKES: dict[str, Mistake] = {
    # The sheet
    "a root that ends before it begins": sheet("bad-date", '"20y"', "2020-01-01T00:00:00Z"),
    "a root beyond its profile": sheet("bad-date", '"20y"', '"40y"'),
    "an issuing CA that outlives its root": sheet("outlives-issuer", '"20y"', '"4y"'),
    "an issuing CA that begins before its root": sheet(
        "bad-date", 'csr = "issuing.csr"', 'csr = "issuing.csr"\nnot_before = 2026-01-01T00:00:00Z'
    ),
    "a date without its time zone": sheet("bad-setting", '"20y"', "2046-01-01T00:00:00"),
    "an act that is no act": sheet("unknown-act", 'act = "intermediate"', 'act = "intermediary"'),
    "a misspelt key": sheet("unknown-setting", "not_after", "notafter"),
    "a value that nothing uses": sheet("unused-value", '[[acts]]\nact = "root"\n', '[values]\nlabel = "x"\n[[acts]]\nact = "root"\n'),
    "a profile for devices under a root": sheet("unknown-profile", 'issuer = "root"\ncsr', 'issuer = "root"\nprofile = "device"\ncsr'),
    "a kind of key that does not exist": sheet("unknown-algorithm", 'id = "root"\nalgorithm = "p256"', 'id = "root"\nalgorithm = "p257"'),
    "an issuer before its act": sheet("unknown-issuer", 'id = "issuing"\nissuer = "root"', 'id = "issuing"\nissuer = "root-2"'),
    "an issuer that no act uses": sheet(
        "unused-issuer", "[[issuers]]", '[[issuers]]\nid = "old"\ncertificate = "first/root.pem"\n[[issuers]]', second=True
    ),
    "an issuing CA below one that may have none": Mistake(
        "path-length",
        lambda desk: (
            desk.edit(desk.sheet, 'certificate = "first/root.pem"', 'certificate = "first/issuing.pem"'),
            desk.edit(desk.sheet, 'act = "rekey"', 'act = "intermediate"'),
            desk.edit(desk.sheet, 'predecessor = "first/issuing.pem"\n', ""),
            desk.edit(desk.sheet, 'not_after = "5y"', 'not_after = "1y"'),
            desk.edit(desk.sheet, 'previous = "first/root-crl.crl"', "first = true"),
        ),
        second=True,
    ),
    # What is brought
    "another CSR than the one that was reviewed": sheet(
        "input-differs", 'csr = "issuing.csr"', f'csr = "issuing.csr"\ncsr_sha256 = "{"ab" * 32}"'
    ),
    "a CSR with another kind of key": Mistake("csr-key-type", lambda desk: desk.put(desk.folder / "issuing.csr", csr("p384"))),
    "a CSR whose proof does not hold": Mistake("bad-signature", broken_csr),
    "a CSR file with something else in it": Mistake("bad-file", lambda desk: desk.put(desk.folder / "issuing.csr", b"not a request")),
    "a CSR that was not brought": Mistake(
        "no-such-file",
        lambda desk: (desk.folder / "issuing.csr").rename(desk.folder / "at-home.csr"),
        lambda desk: (desk.folder / "at-home.csr").rename(desk.folder / "issuing.csr"),
    ),
    "a re-key with the old key": Mistake("key-used", lambda desk: desk.put(desk.folder / "issuing-2.csr", csr()), second=True),
    "a name that is not the same octet by octet": sheet("name-differs", 'common_name = "Issuing"', 'common_name = "issuing"', second=True),
    "a CRL without the one before it": sheet("previous-crl", 'previous = "first/root-crl.crl"\n', "", second=True),
    "a CRL of another root as the one before": Mistake(
        "previous-crl", lambda desk: desk.put(desk.folder / "first/root-crl.crl", other_room(desk, "first/root-crl.crl")), second=True
    ),
    "a CRL that is dated before the one before it": sheet(
        "crl-out-of-order",
        'previous = "first/root-crl.crl"',
        'previous = "first/root-crl.crl"\nthis_update = 2026-11-21T00:00:00Z',
        second=True,
    ),
    "a revocation that is dated after its CRL": sheet(
        "revoked-later",
        'next_update = "90d"',
        'next_update = "90d"\n[[acts.revoked]]\nserial = "4d"\nrevoked_at = 2027-06-01T00:00:00Z',
        second=True,
    ),
    # People
    "one person in two roles that exclude each other": sheet("exclusive-roles", 'person = "Aron"', 'person = "Alex"'),
    "a role that must confirm and is nobody's": sheet("missing-role", '"administrator", "witness"]', '"administrator", "custodian"]'),
    "a witness without a key": Mistake("no-role-key", lambda desk: desk.edit(desk.credentials, NO_KEY, "")),
    "another person's token": Mistake("wrong-role-key", lambda desk: desk.edit(desk.credentials, NO_KEY, LIKE_ALEX)),
    "a witness who mistypes": Mistake(
        "wrong-passphrase", lambda desk: desk.put(desk.folder / "wanda.passphrase", b"something else entirely")
    ),
    "credentials for somebody who is not in the sheet": Mistake(
        "unused-credentials",
        lambda desk: desk.edit(desk.credentials, "[people.Wanda]", '[people.Somebody]\nkey = "sealed:wanda.key"\n[people.Wanda]'),
    ),
    # The room
    "a network that is up": Mistake(
        "network-up",
        lambda desk: setattr(desk, "room", replace(apart(), interfaces=("eth0",))),
        lambda desk: setattr(desk, "room", apart()),
    ),
    "a clock that stands on another day": Mistake(
        "clock-wrong",
        lambda desk: (
            desk.edit(desk.sheet, 'name = "first"', 'name = "first"\nday = 2026-11-22'),
            setattr(desk.clock, "at", NOW - 30 * DAY),
        ),
        lambda desk: setattr(desk.clock, "at", NOW),
    ),
    "a clock before the root was made": Mistake(
        "clock-wrong", lambda desk: setattr(desk.clock, "at", NOW - 30 * DAY), lambda desk: setattr(desk.clock, "at", NOW + 60), second=True
    ),
    "a passphrase that is too short": Mistake(
        "short-passphrase", lambda desk: setattr(desk, "passphrase", b"short"), lambda desk: setattr(desk, "passphrase", PASSPHRASE)
    ),
    "a disk that is full": Mistake("disk-full", full_disk, freed_disk),
    "an output that exists": Mistake(
        "output-exists",
        lambda desk: (desk.out.mkdir(), desk.put(desk.out / "root.pem", b"precious")),
        lambda desk: desk.out.rename(desk.folder / "precious"),
    ),
    "a key that exists": Mistake(
        "output-exists",
        lambda desk: (desk.out.mkdir(), desk.put(desk.out / "root.key", b"precious")),
        lambda desk: desk.out.rename(desk.folder / "precious"),
    ),
    "the key of another root": Mistake(
        "wrong-key", lambda desk: desk.put(desk.folder / "first/root.key", other_room(desk, "first/root.key")), second=True
    ),
    "the passphrase of another root": Mistake(
        "wrong-passphrase",
        lambda desk: setattr(desk, "passphrase", b"another passphrase"),
        lambda desk: setattr(desk, "passphrase", PASSPHRASE),
        second=True,
    ),
    # After a stop
    "the sheet was changed during a stop": later("another-ceremony", lambda desk: desk.edit(desk.sheet, '"20y"', '"19y"')),
    "the CSR was exchanged during a stop": later("another-draft", lambda desk: desk.put(desk.folder / "issuing.csr", csr(name="third"))),
    "an output was exchanged during a stop": later(
        "output-changed", lambda desk: desk.put(desk.out / "issuing.pem", other_room(desk, "first/issuing.pem"))
    ),
    "the root's key was exchanged during a stop": later("wrong-key", swapped_key),
    "the transcript was edited during a stop": later(
        "transcript-broken", lambda desk: desk.edit(desk.out / transcript.FILE, '"person":"Wanda"', '"person":"Wenda"')
    ),
    "the clock was set back during a stop": later(
        "clock-went-back", lambda desk: setattr(desk.clock, "at", NOW - 10), lambda desk: setattr(desk.clock, "at", NOW + 120)
    ),
    "it goes on on another machine": later(
        "another-machine",
        lambda desk: setattr(desk, "room", replace(apart(), machine="another")),
        lambda desk: setattr(desk, "room", apart()),
    ),
    "a network came up during a stop": later(
        "network-up",
        lambda desk: setattr(desk, "room", replace(apart(), interfaces=("wlan0",))),
        lambda desk: setattr(desk, "room", apart()),
    ),
    "the disk is full after a stop": later("disk-full", full_disk, freed_disk),
    "a witness left during a stop": later("no-role-key", lambda desk: desk.edit(desk.credentials, NO_KEY, "")),
}


def test_there_are_at_least_thirty() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("name", MISTAKES)
def test_R32_a_mistake_stops_before_anything_more_is_signed_and_can_be_mended(
    name: str, rooms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake = MISTAKES[name]
    shutil.copytree(rooms["held" if mistake.second else "empty"], tmp_path / "desk")
    shutil.copytree(rooms["other"], tmp_path / "other")
    desk = Desk(tmp_path / "desk", "second" if mistake.second else "first", Clock(NOW + (3600 if mistake.second else 0)), patch=monkeypatch)
    mistake.make(desk)
    signed, files = desk.signed(), desk.files()
    with pytest.raises(FleetcaError) as caught:
        desk.run()
    error = caught.value
    assert error.code == mistake.code, error
    assert len(error.what) > 10
    assert error.why or error.fix
    assert error.fix, f"{error.code} does not say what mends it"
    assert "secret of" not in f"{error.what}{error.why}{error.fix}"
    # Nothing more was signed, no key was made, and everything that was there still is.
    assert desk.signed() == signed
    after = desk.files()
    assert {path: after.get(path) for path in files} == files
    new = {Path(path).name for path in set(after) - set(files)}
    assert not [each for each in new if each.endswith((".pem", ".crl", ".key")) and not each.startswith("input-")], new
    mistake.mend(desk)
    desk.run()
    assert (
        ceremonies.verify(desk.out, roots={"root": pem.der_of((desk.folder / "first/root.pem").read_bytes(), pem.CERTIFICATE)}).name
        == desk.name
    )


def test_it_is_finished_once(rooms: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(rooms["held"], tmp_path / "desk")
    desk = Desk(tmp_path / "desk", clock=Clock(NOW + 60))
    before = desk.files(), desk.signed()
    with pytest.raises(FleetcaError) as caught:
        desk.run()
    assert caught.value.code == "ceremony-finished"
    assert (desk.files(), desk.signed()) == before


def test_two_at_once_are_one_too_many(rooms: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(rooms["empty"], tmp_path / "desk")
    desk = Desk(tmp_path / "desk")
    with FolderLock(desk.out), pytest.raises(FleetcaError) as caught:
        desk.run()
    assert caught.value.code == "ceremony-runs"
    assert caught.value.fix
    desk.run()
