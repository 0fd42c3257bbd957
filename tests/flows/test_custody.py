"""Custody from a set of shares to a drill: a root made under a quorum, backed up to it, restored by it (REQ-KEY-014, -015, -065, -066)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import syslog
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509

from ca.der.algorithms import load_public_key, verify
from ca.errors import Denied, KeyUnavailable, Misconfigured
from ca.model import Quorum
from ca.rules import drill
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, quorum_backups
from tests.running import command
from tests.terminal import Screen

PEOPLE = ("Ada Example", "Ben Example", "Cyd Example")


def made(folder: Path, *arguments: str | Path, code: int = 0) -> dict[str, object]:
    done = command("keys", *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def practice(folder: Path, *, name: str = "practice-root", papers: str = "papers", threshold: int = 2) -> Path:
    file = folder / f"{name}.json"
    people = [each for person in PEOPLE for each in ("--custodian", person)]
    made(folder, "quorum", "make", name, *people, "--threshold", str(threshold), "--out", file, "--practice", folder / papers)
    return file


def shares(folder: Path, *people: str, papers: str = "papers") -> list[str]:
    return [each for person in people for each in ("--share-file", str(folder / papers / f"{person}-example.share"))]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set of shares, and a ceremony whose root is sealed under it."""
    folder = tmp_path_factory.mktemp("custody")
    practice(folder)
    created = deployment.create(folder / "pki", deployment.Wanted(name="test", sheet="demo"), chance=SystemChance())
    for path in (created.sheet, created.csr):
        (folder / path.name).write_bytes(path.read_bytes())
    ceremonies.run(
        folder / "demo.toml", out=folder / "made", passphrase=lambda: b"correct horse battery staple", confirm=lambda _: True,
        clock=SystemClock(), chance=SystemChance(),
    )  # fmt: skip
    root, secret = folder / "made/root.key", folder / "passphrase"
    secret.write_text("correct horse battery staple")
    secret.chmod(0o600)
    arguments = (
        "--quorum",
        folder / "practice-root.json",
        *shares(folder, "ben", "cyd"),
        "--passphrase-file",
        secret,
        "--out",
        folder / "sealed",
    )
    made(folder, "quorum", "seal", root, *arguments)
    root.unlink()
    (folder / "sealed/root.key").rename(root)
    return folder


@pytest.mark.req("REQ-KEY-066")
def test_a_root_that_was_sealed_anew_opens_to_a_quorum_only(room: Path) -> None:
    from ca.custody import Custody
    from ca.keys.sealed_file import SealedFileKeyStore
    from ca.keys.shares import Slip39
    from ca.model import KeyName
    from ca.rules import quorum as rule

    assert (room / "made/root.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    custody = Custody(sharing=Slip39(), clock=SystemClock())
    gathering = custody.gather(rule.read((room / "practice-root.json").read_bytes()))
    for person in ("ada", "cyd"):
        gathering.give((room / f"papers/{person}-example.share").read_text())
    root = SealedFileKeyStore(room / "made", gathering.key().passphrase).open(KeyName("root"))
    certificate = x509.load_pem_x509_certificate((room / "made/root.pem").read_bytes())
    verify(load_public_key(root.spki), root.sign(b"x"), b"x")
    certificate.verify_directly_issued_by(certificate)
    with pytest.raises(KeyUnavailable):
        SealedFileKeyStore(room / "made", lambda: b"correct horse battery staple").open(KeyName("root"))


@pytest.fixture(scope="module")
def backup(room: Path) -> Path:
    out = room / "ceremony.backup"
    said = made(room, "backup", room / "made", "--to", room / "practice-root.json", "--out", out, "--of", "the demo ceremony")
    assert "made/root.key" in said["files"]
    return out


@pytest.mark.req("REQ-KEY-015", "REQ-KEY-065")
def test_a_drill_restores_a_backup_and_writes_down_that_it_did(room: Path, backup: Path) -> None:
    out = room / "drill.json"
    made(room, "drill", backup, "--quorum", room / "practice-root.json", *shares(room, "ben", "cyd"), "--out", out)
    record = json.loads(out.read_text())
    assert (record["kind"], record["custodians"]) == ("restore-drill", ["Ben Example", "Cyd Example"])
    proved = {key["name"]: key for key in record["keys"]}
    assert proved["root"]["opened"]
    assert proved["root"]["certificate_matches"]
    root = x509.load_pem_x509_certificate((room / "made/root.pem").read_bytes()).public_key()
    verify(root, bytes.fromhex(proved["root"]["signature"]), drill.signed_octets(record))
    assert list(room.glob("**/restored")) == []


@pytest.mark.req("REQ-KEY-015")
def test_a_restore_gives_back_what_was_backed_up(room: Path, backup: Path, tmp_path: Path) -> None:
    made(room, "restore", backup, "--quorum", room / "practice-root.json", *shares(room, "ada", "ben"), "--out", tmp_path / "back")
    for path in (room / "made").iterdir():
        assert (tmp_path / "back/made" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "back/made" / path.name).stat().st_mode & 0o077 == 0


def _damaged(room: Path) -> list[str]:
    words = (room / "papers/ben-example.share").read_text().split()
    words[11] = "academic" if words[11] != "academic" else "acid"
    (room / "damaged.share").write_text(" ".join(words))
    (room / "damaged.share").chmod(0o600)
    return [*shares(room, "ada"), "--share-file", str(room / "damaged.share")]


def _foreign(room: Path) -> list[str]:
    if not (room / "practice-other.json").exists():
        practice(room, name="practice-other", papers="others")
    return [*shares(room, "ada"), *shares(room, "ben", papers="others")]


TOO_LITTLE = [
    pytest.param(lambda room: shares(room, "ada"), "", id="M-1 shares"),
    pytest.param(lambda room: shares(room, "ada", "ada"), "was given already", id="one share twice"),
    pytest.param(_damaged, "checksum does not hold", id="a damaged word"),
    pytest.param(_foreign, "is not one of practice-root", id="a share of another set"),
]


@pytest.mark.req("REQ-KEY-015", "REQ-KEY-066")
@pytest.mark.parametrize(("given", "words"), TOO_LITTLE)
def test_a_backup_is_not_opened_by(room: Path, backup: Path, tmp_path: Path, given: Callable[[Path], list[str]], words: str) -> None:
    done = command("keys", "restore", backup, "--quorum", room / "practice-root.json", *given(room), "--out", tmp_path / "back")
    assert done.returncode == 6, done.stderr
    assert "[quorum-incomplete]" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "back").exists()


@pytest.mark.req("REQ-KEY-014")
def test_no_key_of_an_operator_or_device_is_backed_up(room: Path, tmp_path: Path) -> None:
    for path in (room / "pki/operators/admin.key", room / "pki/operators", room / "pki"):
        done = command(
            "keys", "backup", path, "--to", room / "practice-root.json", "--out", tmp_path / "out", "--settings", room / "pki/fleetca.toml"
        )
        assert done.returncode == 5, done.stderr
        assert "[escrow-refused]" in done.stderr
        assert not (tmp_path / "out").exists()
        line = json.loads(done.stderr.splitlines()[0])
        assert (line["process"], line["event"], line["requirement"]) == ("keys-backup", "escrow-refused", "REQ-KEY-014")
        assert line["file"].endswith(".key")


@pytest.mark.req("REQ-KEY-014")
def test_who_wants_a_copy_of_a_signing_key_stands_in_the_systems_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, object]] = []
    monkeypatch.setattr("syslog.syslog", lambda level, text: said.append({"level": level, **json.loads(text)}))
    sealed, plain = tmp_path / "device.key", tmp_path / "plain.key"
    sealed.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    plain.write_text("-----BEGIN PRIVATE KEY-----\n")
    quorum = Quorum("q", 1, 2, ("A", "B"), b"", b"", 0)
    for path, code in ((sealed, "escrow-refused"), (plain, "plaintext-key")):
        with pytest.raises(Denied) as refused:
            quorum_backups.make([path], tmp_path / "out", quorum, settings=None, of="", now=0)
        assert refused.value.code == code
        told = {"level": syslog.LOG_WARNING, "event": "escrow-refused", "requirement": "REQ-KEY-014", "code": code, "file": str(path)}
        assert said.pop() == {**told, "uid": os.getuid()}
    assert said == []


def test_an_issuing_key_is_backed_up_when_the_settings_say_that_it_is_one(room: Path, tmp_path: Path) -> None:
    issuing = room / "pki/keys/issuing.key"
    arguments = ("keys", "backup", issuing, "--to", room / "practice-root.json")
    assert command(*arguments, "--out", tmp_path / "a").returncode == 5
    assert command(*arguments, "--out", tmp_path / "b", "--settings", room / "pki/fleetca.toml").returncode == 0


def test_P10_a_plain_key_is_not_backed_up(room: Path, tmp_path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "plain.key"], check=True)
    with pytest.raises(Denied) as refused:
        quorum_backups._judge(tmp_path / "plain.key", None)
    assert refused.value.code == "plaintext-key"


def test_a_ceremony_refuses_a_store_that_is_too_weak_before_it_makes_a_key(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from ca.model import ProfileName, Protection

    shipped = dict(forms.shipped_profiles())
    shipped[ProfileName("root")] = replace(shipped[ProfileName("root")], minimum_protection=Protection.quorum)
    monkeypatch.setattr(forms, "shipped_profiles", lambda: shipped)
    with pytest.raises(Misconfigured) as weak:
        ceremonies.run(
            room / "demo.toml", out=tmp_path / "out", passphrase=lambda: b"correct horse battery staple", confirm=lambda _: True,
            clock=SystemClock(), chance=SystemChance(),
        )  # fmt: skip
    assert weak.value.code == "store-too-weak"
    assert list((tmp_path / "out").glob("*.key")) == []


def test_shares_in_files_are_practice_and_say_so(tmp_path: Path) -> None:
    people = [each for person in PEOPLE for each in ("--custodian", person)]
    for name, more in (("root-2026", ["--practice", tmp_path / "papers"]), ("practice-root", [])):
        done = command("keys", "quorum", "make", name, *people, "--threshold", "2", "--out", tmp_path / "q.json", *more)
        assert done.returncode == 2
        assert "[practice-name]" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- At a terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-066")
def test_shares_are_shown_one_by_one_read_back_and_cleared_from_the_screen(tmp_path: Path) -> None:
    people = [each for person in PEOPLE[:2] for each in ("--custodian", person)]
    out = tmp_path / "quorum.json"
    command_line: list[str | Path] = [
        sys.executable,
        "-m",
        "fleetca.cli.main",
        "keys",
        "quorum",
        "make",
        "root-2026",
        *people,
        "--threshold",
        "2",
        "--out",
        out,
    ]
    papers = {}
    with Screen(command_line) as screen:
        for person in PEOPLE[:2]:
            assert person in screen.until("look away.")
            screen.until("[Enter]: ")
            screen.type("")
            shown = screen.until("It is not shown again.")
            papers[person] = re.findall(r"\d+ ([a-z]+)", shown.split("needed", 1)[1])
            assert len(papers[person]) == 33
            screen.until("[Enter]: ")
            screen.type("")
            assert "\x1b[3J" in screen.until("nothing shows: ")
            screen.type("these are not the words" if person == PEOPLE[0] else " ".join(papers[person]))
            if person == PEOPLE[0]:
                screen.until("it was not the share that was shown")
                screen.until("nothing shows: ")
                screen.type(" ".join(word[:4] for word in papers[person]))
        assert screen.converse([]) == 0
    assert len({tuple(words) for words in papers.values()}) == 2
    assert sorted(tmp_path.iterdir()) == [out]
    assert not [pair for pair in pairwise(papers[PEOPLE[0]]) if " ".join(pair) in out.read_text()]
