"""The commands of operators over a real signer: what goes to stdout, what to stderr, and which number they end with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.der import pem
from ca.model import IssueRequest, Role, TokenEvidence
from ca.signer.alone import SignerLock
from ca.system import SystemClock
from fleetca.cli.main import main
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.signer_world import Keypair, SetClock, World

SETTINGS = """
[deployment]
name = "test"
[store]
url = "sqlite:///fleetca.db"
[signer]
socket = "signer.sock"
journal = "issuance.journal"
serial_check = "file:check.key"
[[issuers]]
id = "root"
certificate = "root.pem"
[[issuers]]
id = "issuing"
certificate = "issuing.pem"
key = "sealed:issuing.key"
passphrase = "file:issuing.passphrase"
[enroll]
url = "https://enroll.test:8443"
[log]
key = "sealed:log.key"
passphrase = "file:log.passphrase"
"""


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def _deployment(folder: Path) -> Iterator[World]:
    (folder / "fleetca.toml").write_text(SETTINGS)
    made = World(folder, sqlite_url(folder), clock=SetClock(SystemClock().now()))
    with made.store.ledger.writing() as tx:
        for issuer in (root(), made.issuer):
            tx.add_issuer(issuer)
    server = made.server(folder / "signer.sock", users={os.getuid(): frozenset(Role)})
    server.start()
    yield made
    server.stop()
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A deployment of the test's own, in the folder the commands run in."""
    yield from _deployment(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from _deployment(tmp_path_factory.mktemp("still"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture
def still(shared: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands in a deployment that none of them changes."""
    monkeypatch.chdir(shared.folder)
    return run


def csr_file(folder: Path, name: str = "device.csr") -> str:
    (folder / name).write_text(pem.pem(pem.REQUEST, Keypair().csr()))
    return name


# ---- token ----------------------------------------------------------------------------------------------------------


def test_a_token_is_printed_alone_and_enrols(world: World, run: Run) -> None:
    made = run("token", "create", "pump-17")
    assert made.code == 0
    token = made.out.strip()
    assert token.startswith("enr_")
    assert token not in made.err
    assert "pump-17" in made.err
    request = IssueRequest(Keypair().csr(), TokenEvidence(token))
    assert world.issue(request).certificate.device == "pump-17"


def test_outstanding_tokens_are_listed_and_withdrawn(world: World, run: Run) -> None:
    texts = [run("token", "create", device, "--lifetime", "15m").out.strip() for device in ("gw-1", "pump-1", "pump-1")]
    everything = run("token", "list", "--json").json["tokens"]
    assert [one["device"] for one in everything] == ["gw-1", "pump-1", "pump-1"]
    page = run("token", "list", "--limit", "2", "--json").json
    assert run("token", "list", "--after", page["next"], "--json").json == {"tokens": [everything[2]], "next": None}
    assert run("token", "list", "--limit", "1", "--all", "--json").json["tokens"] == everything
    shown = run("token", "list", "pump-1")
    assert everything[1]["hash"][:16] in shown.out
    assert not any(text in shown.out for text in texts)
    gone = run("token", "revoke", "pump-1", "--hash", everything[1]["hash"][:12].upper(), "--json")
    assert gone.json["tokens"] == [{**everything[1], "revoked_at": gone.json["tokens"][0]["revoked_at"]}]
    assert "1 token of pump-1 withdrawn" in run("token", "revoke", "pump-1").err
    assert run("token", "list", "pump-1").err.strip() == "No outstanding tokens."
    assert [one["device"] for one in run("token", "list", "--json").json["tokens"]] == ["gw-1"]
    assert len(world.leaves("token-revoked")) == 2


def test_revoking_a_device_that_has_only_a_token_says_what_to_do(world: World, run: Run) -> None:
    run("token", "create", "pump-5")
    ran = run("revoke", "--device", "pump-5", "--reason", "keyCompromise", "--confirm", "pump-5")
    assert ran.code == 3
    assert "has not enrolled; it could with 1 outstanding token" in ran.err
    assert "fleetca token revoke pump-5" in ran.err


def test_a_token_as_json_has_what_a_device_needs(world: World, run: Run) -> None:
    made = run(
        "token", "create", "gw-1", "--profile", "service", "--dns", "GW.Example.", "--ip", "2001:DB8::1", "--lifetime", "15m", "--json"
    )
    document = made.json
    assert set(document) == {"token", "device", "profile", "names", "expires", "enroll_url"}
    assert document["names"] == [{"kind": "dns", "value": "gw.example"}, {"kind": "ip", "value": "2001:db8::1"}]
    assert document["enroll_url"] == "https://enroll.test:8443"


REFUSED: list[Any] = [
    pytest.param(("token", "create", "a/b"), 2, "bad-device-id", id="a device id with a slash"),
    pytest.param(("token", "revoke", "pump-99"), 3, "no-such-token", id="withdrawing what there is not"),
    pytest.param(("token", "revoke", "pump-99", "--hash", "xyz"), 2, "bad-hash", id="a hash that is none"),
    pytest.param(("token", "list", "a/b"), 2, "bad-device-id", id="tokens of a device id with a slash"),
    pytest.param(("token", "create", "fleetca:enroll"), 5, "device-reserved", id="a token for our own service"),
    pytest.param(("token", "create", "pump", "--profile", "gadget"), 3, "profile-unknown", id="an unknown profile"),
    pytest.param(("token", "create", "pump", "--profile", "operator"), 5, "profile-reserved", id="an operator's certificate by token"),
    pytest.param(("token", "create", "pump", "--lifetime", "soon"), 2, "bad-duration", id="a lifetime in words"),
    pytest.param(("token", "create", "pump", "--lifetime", "200d"), 1, "token-lifetime", id="a lifetime above the bound"),
    pytest.param(("token", "create", "pump", "--ip", "300.1.1.1"), 2, "bad-name", id="an address that is none"),
    pytest.param(("token", "create", "pump", "--dns", "a_b"), 2, "bad-name", id="a DNS name that is none"),
    pytest.param(("issue", "missing.csr", "--device", "pump"), 2, "unreadable-file", id="a request file that is not there"),
    pytest.param(("issue", "fleetca.toml", "--device", "pump"), 2, "bad-pem", id="a file that holds no request"),
    pytest.param(("revoke", "01", "--reason", "keyCompromise"), 3, "no-such-certificate", id="a serial that was never issued"),
    pytest.param(("revoke", "xyz", "--reason", "keyCompromise"), 2, "bad-serial", id="a serial that is none"),
    pytest.param(
        ("revoke", "--certificate", "fleetca.toml", "--reason", "keyCompromise"), 2, "bad-certificate", id="a file without a certificate"
    ),
    pytest.param(("certificates", "show", "01"), 3, "no-such-certificate", id="a certificate that does not exist"),
    pytest.param(("certificates", "search", "--key", "zz"), 2, "bad-key-hash", id="a key hash that is none"),
    pytest.param(("certificates", "search", "--expires-before", "soon"), 2, "bad-time", id="a time in words"),
    pytest.param(("certificates", "list", "--after", "AAAA"), 2, "cursor-unreadable", id="a cursor that is none"),
    pytest.param(("devices", "show", "nobody"), 3, "device-unknown", id="a device that does not exist"),
    pytest.param(("issuers", "show", "nobody"), 3, "no-such-issuer", id="an issuer that does not exist"),
    pytest.param(("profiles", "show", "nobody"), 3, "profile-unknown", id="a profile that does not exist"),
    pytest.param(("recover",), 2, None, id="recovery while issuers' files are missing"),
]


@pytest.mark.parametrize("arguments, code, word", REFUSED)
def test_a_command_is_refused_with_words_and_a_number(still: Run, arguments: tuple[str, ...], code: int, word: str | None) -> None:
    plain = still(*arguments)
    assert (plain.code, plain.out) == (code, "")
    assert "Traceback" not in plain.err
    told = still(*arguments, "--json")
    assert told.code == code
    error = told.json["error"]
    assert word in (None, error["code"])
    assert f"[{error['code']}]" in plain.err


USAGE: list[Any] = [
    pytest.param(("revoke", "--reason", "keyCompromise"), id="revoke nothing"),
    pytest.param(("revoke", "01", "--device", "pump", "--reason", "keyCompromise"), id="revoke two things"),
    pytest.param(("revoke", "01", "--reason", "nonsense"), id="a reason that RFC 5280 does not know"),
    pytest.param(("revoke", "01"), id="no reason"),
    pytest.param(("issue", "x.csr"), id="issue for no device"),
    pytest.param(("certificates", "show"), id="show nothing"),
    pytest.param(("certificates", "list", "--state", "lost"), id="a state that does not exist"),
    pytest.param(("certificates", "list", "--limit", "0"), id="a page of nothing"),
]


@pytest.mark.parametrize("arguments", USAGE)
def test_wrong_usage_ends_with_two(still: Run, shared: World, arguments: tuple[str, ...]) -> None:
    assert still(*arguments).code == 2
    assert not shared.key.signed


# ---- issue, look, revoke --------------------------------------------------------------------------------------------


def test_issue_show_revoke(world: World, run: Run, tmp_path: Path) -> None:
    issued = run("issue", csr_file(tmp_path), "--device", "pump-1", "--out", "pump-1.pem", "--json")
    assert issued.code == 0
    serial = issued.json["serial"]
    leaf, issuing = x509.load_pem_x509_certificates((tmp_path / "pump-1.pem").read_bytes())
    leaf.verify_directly_issued_by(issuing)
    for named in (
        (serial,),
        (f"issuing/{serial}",),
        (":".join(serial[at : at + 2] for at in range(0, 40, 2)),),
        ("--certificate", "pump-1.pem"),
    ):
        assert run("certificates", "show", *named, "--json").json["device"] == "pump-1"
    assert "permanent-identifier:pump-1" in run("certificates", "show", serial).out
    assert [row["serial"] for row in run("certificates", "search", "--san", "pump-1", "--json").json["certificates"]] == [serial]
    revoked = run("revoke", "--certificate", "pump-1.pem", "--reason", "keyCompromise", "--json")
    assert [one["serial"] for one in revoked.json["revoked"]] == [serial]
    again = run("revoke", serial, "--reason", "keyCompromise", "--json")
    assert (again.code, again.json) == (0, revoked.json)
    assert run("certificates", "list", "--state", "revoked", "--json").json["certificates"][0]["serial"] == serial
    assert run("revoke", serial, "--reason", "superseded").code == 4


def test_issuing_again_for_the_same_request_gives_the_same(world: World, run: Run, tmp_path: Path) -> None:
    file = csr_file(tmp_path)
    first, again = (run("issue", file, "--device", "pump-1", "--json").json for _ in range(2))
    assert (first["serial"], again["repeated"]) == (again["serial"], True)


def test_an_existing_file_is_not_replaced_and_nothing_is_issued(world: World, run: Run, tmp_path: Path) -> None:
    (tmp_path / "kept.pem").write_text("mine")
    assert run("issue", csr_file(tmp_path), "--device", "pump-1", "--out", "kept.pem").code == 4
    assert (tmp_path / "kept.pem").read_text() == "mine"
    assert not world.key.signed


def test_a_device_is_revoked_only_by_its_name(world: World, run: Run, tmp_path: Path) -> None:
    for number in range(2):
        assert run("issue", csr_file(tmp_path, f"{number}.csr"), "--device", "pump-1").code == 0
    asked = ("revoke", "--device", "pump-1", "--reason", "cessationOfOperation")
    unconfirmed, wrong = run(*asked), run(*asked, "--confirm", "pump-2")
    assert (unconfirmed.code, wrong.code) == (2, 2)
    assert "--confirm pump-1" in unconfirmed.err
    assert run("devices", "show", "pump-1", "--json").json["state"] == "active"
    done = run(*asked, "--confirm", "pump-1", "--json")
    assert len(done.json["revoked"]) == 2
    assert run("devices", "show", "pump-1", "--json").json["state"] == "retired"
    assert run("issue", csr_file(tmp_path, "new.csr"), "--device", "pump-1").code == 5


def test_a_device_goes_into_quarantine_and_comes_back(world: World, run: Run, tmp_path: Path) -> None:
    for number in range(2):
        assert run("issue", csr_file(tmp_path, f"{number}.csr"), "--device", "pump-1").code == 0
    assert run("token", "create", "pump-1").code == 0
    done = run("devices", "quarantine", "pump-1", "--json")
    assert done.code == 0, done.err
    assert (len(done.json["held"]), done.json["withdrawn"]) == (2, 1)
    shown = run("devices", "show", "pump-1", "--json").json
    assert shown["state"] == "quarantined"
    assert {one["revocation"]["reason"] for one in shown["certificates"]} == {"certificateHold"}
    assert "quarantine" in run("issue", csr_file(tmp_path, "more.csr"), "--device", "pump-1").err
    assert "quarantine" in run("token", "create", "pump-1").err
    again = run("devices", "quarantine", "pump-1", "--json")
    assert (again.json["held"], again.json["withdrawn"]) == (done.json["held"], 0), "what stands is left as it is"
    back = run("devices", "release", "pump-1", "--json")
    assert len(back.json["released"]) == 2
    shown = run("devices", "show", "pump-1", "--json").json
    assert (shown["state"], {one["state"] for one in shown["certificates"]}) == ("active", {"issued"})
    assert "device-not-quarantined" in run("devices", "release", "pump-1", "--json").err
    assert run("devices", "quarantine", "nobody").code == 3


def test_what_was_revoked_for_good_is_not_released(world: World, run: Run, tmp_path: Path) -> None:
    serial = run("issue", csr_file(tmp_path), "--device", "pump-1", "--json").json["serial"]
    assert run("revoke", serial, "--reason", "keyCompromise").code == 0
    assert run("devices", "quarantine", "pump-1", "--json").json["held"] == [f"issuing/{serial}"], "on hold or worse"
    assert run("devices", "release", "pump-1", "--json").json["released"] == []
    assert run("certificates", "show", serial, "--json").json["revocation"]["reason"] == "keyCompromise"


@pytest.mark.req("REQ-KEY-020", "REQ-KEY-049")
def test_a_device_is_described_certified_retired_and_its_id_never_comes_back(world: World, run: Run, tmp_path: Path) -> None:
    said = run(
        "devices", "describe", "pump-1", "--root-of-trust", "se", "--safety-class", "C", "--batch", "lot 7", "--owner", "ward 3", "--json"
    )
    assert (said.code, said.json["state"], said.json["root_of_trust"], said.json["owner"]) == (0, "blank", "se", "ward 3"), said.err
    assert run("devices", "describe", "pump-1", "--provisioned", "--json").json["state"] == "provisioned"
    assert run("issue", csr_file(tmp_path), "--device", "pump-1").code == 0
    assert run("devices", "show", "pump-1", "--json").json["state"] == "active"
    assert "cannot become provisioned" in run("devices", "describe", "pump-1", "--provisioned").err, "it is provisioned once"
    assert run("token", "create", "pump-1").code == 0
    ended = run("devices", "retire", "pump-1", "--confirm", "pump-1", "--json")
    assert (ended.code, len(ended.json["revoked"])) == (0, 1), ended.err
    assert run("devices", "retire", "pump-1", "--confirm", "pump-1", "--json").json == ended.json, "repeating is harmless"
    for again in (
        ("issue", csr_file(tmp_path, "again.csr"), "--device", "pump-1"),
        ("token", "create", "pump-1"),
        ("devices", "describe", "pump-1", "--owner", "me"),
        ("devices", "quarantine", "pump-1"),
        ("devices", "release", "pump-1"),
    ):
        assert "is retired" in run(*again).err, again
    assert run("devices", "list", "--state", "retired", "--json").json["devices"][0]["device"] == "pump-1"


def test_a_device_without_a_root_of_trust_is_taken_with_a_reason_and_an_end_only(world: World, run: Run) -> None:
    none = ("devices", "describe", "pump-1", "--root-of-trust", "none")
    assert "needs a justification" in run(*none).err
    assert "needs a justification" in run(*none, "--justification", "prototype").err
    assert "in two years at the latest" in run(*none, "--justification", "prototype", "--exception-until", "2040-01-01T00:00:00Z").err
    assert run("devices", "show", "pump-1").code == 3, "what was refused left nothing"


@pytest.mark.req("REQ-KEY-031")
def test_the_timeline_says_when_what_by_whom_by_which_way_and_by_which_request(world: World, run: Run, tmp_path: Path) -> None:
    run("devices", "describe", "pump-1", "--batch", "lot 7", "--provisioned")
    run("issue", csr_file(tmp_path), "--device", "pump-1")
    run("token", "create", "pump-1")
    run("devices", "quarantine", "pump-1")
    run("devices", "release", "pump-1")
    run("devices", "retire", "pump-1", "--confirm", "pump-1", "--reason", "keyCompromise")
    told = run("devices", "timeline", "pump-1", "--json").json
    assert [event["what"] for event in told["events"] if event["what"] in {"blank", "provisioned", "active", "quarantined", "retired"}] == [
        "blank", "provisioned", "active", "quarantined", "active", "retired",
    ]  # fmt: skip
    words = {event["what"] for event in told["events"]}
    assert {"described", "certified", "token made", "token withdrawn", "put on hold", "hold released", "certificate revoked"} <= words
    times = [event["at"] for event in told["events"]]
    assert times == sorted(times)
    for event in told["events"]:
        if event["what"] not in {"token made", "token withdrawn"}:
            assert (event["actor"], event["channel"]) == (f"role:operator@{os.getuid()}", "operator/local"), event
            assert len(event["request"]) == 64, event
    assert "keyCompromise" in run("devices", "timeline", "pump-1").out


def test_a_short_lived_certificate_is_said_to_hold_until_it_expires(world: World, run: Run, tmp_path: Path) -> None:
    serial = run("issue", csr_file(tmp_path), "--device", "pump-1", "--profile", "device-short", "--json").json["serial"]
    assert "until they expire" in run("revoke", serial, "--reason", "keyCompromise").err


def test_lists_go_on_where_they_ended(world: World, run: Run, tmp_path: Path) -> None:
    for number in range(5):
        run("issue", csr_file(tmp_path, f"{number}.csr"), "--device", f"pump-{number}")
    for what, key in (("certificates", "device"), ("devices", "device")):
        seen: list[str] = []
        after: tuple[str, ...] = ()
        while True:
            page = run(what, "list", "--limit", "2", *after, "--json").json
            seen += [row[key] for row in page[what]]
            if page["next"] is None:
                break
            after = ("--after", page["next"])
        assert sorted(seen) == [f"pump-{number}" for number in range(5)], what
        assert len(run(what, "list", "--limit", "2", "--all", "--json").json[what]) == 5
    assert "--after" in run("certificates", "list", "--limit", "2").err
    assert len(run("devices", "search", "pump-*", "--json").json["devices"]) == 5
    assert run("devices", "search", "pump-3").out.splitlines()[1].split()[0] == "pump-3"


def test_tables_in_a_pipe_are_plain_and_whole(world: World, run: Run, tmp_path: Path) -> None:
    serial = run("issue", csr_file(tmp_path), "--device", "d" * 60, "--json").json["serial"]
    table = run("certificates", "list").out
    assert "\x1b" not in table
    assert f"issuing/{serial}" in table
    assert "d" * 60 in table
    assert run("devices", "list").out.count("\n") == 2


def test_nothing_found_is_no_failure(world: World, run: Run) -> None:
    for what in ("certificates", "devices"):
        empty = run(what, "list")
        assert (empty.code, empty.out) == (0, "")
        assert run(what, "list", "--json").json == {what: [], "next": None}


def test_profiles_and_issuers_are_shown(world: World, run: Run) -> None:
    assert {row["name"] for row in run("profiles", "list", "--json").json["profiles"]} >= {"device", "device-short", "service", "operator"}
    assert run("profiles", "show", "device", "--json").json["lifetime"] == "7d"
    assert "7d" in run("profiles", "show", "device").out
    assert run("profiles", "show", "device", "--json").json["permanent_identifier"] == "{device}"
    assert [row["id"] for row in run("issuers", "list", "--json").json["issuers"]] == ["issuing", "root"]
    assert run("issuers", "show", "root", "--json").json["parent"] is None
    assert x509.load_pem_x509_certificate(run("issuers", "show", "issuing", "--pem").out.encode())


# ---- The signer is not there ----------------------------------------------------------------------------------------


def test_a_dead_socket_is_said_to_be_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fleetca.toml").write_text(SETTINGS)
    for arguments in (("token", "create", "pump"), ("certificates", "list"), ("devices", "list"), ("issuers", "list")):
        ran = run(*arguments)
        assert ran.code == 1
        assert "[signer-down]" in ran.err
        assert "fleetca serve" in ran.err
    listed = run("profiles", "list")
    assert listed.code == 0
    assert "does not answer" in listed.err


def test_settings_that_are_not_there_are_named(run: Run) -> None:
    ran = run("token", "create", "pump", "--settings", "elsewhere.toml")
    assert ran.code == 2
    assert "elsewhere.toml" in ran.err


def test_every_command_has_help(run: Run) -> None:
    for command in ("token", "issue", "renew", "revoke", "certificates", "devices", "issuers", "profiles", "recover"):
        shown = run(command, "--help")
        assert shown.code == 0
        assert "Usage:" in shown.out


# ---- recover --------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """The signer ends here."""


def test_recover_says_what_became_of_each_intent(run: Run, tmp_path: Path) -> None:
    def stop(name: str) -> None:
        if name == "issue.after-intent-commit":
            raise Stop

    (tmp_path / "fleetca.toml").write_text(SETTINGS)
    world = World(tmp_path, sqlite_url(tmp_path), clock=SetClock(SystemClock().now()), failpoint=stop)
    for issuer in (root(), world.issuer):
        (tmp_path / f"{issuer.id}.pem").write_text(pem.pem(pem.CERTIFICATE, issuer.certificate))
    request = IssueRequest(Keypair().csr(), TokenEvidence(world.token().text))
    with pytest.raises(Stop):
        world.issue(request)
    world.close()
    with SignerLock(tmp_path / "issuance.journal"):
        assert run("recover").code == 4
    found = run("recover", "--json")
    assert found.code == 0
    assert [one["outcome"] for one in found.json["intents"]] == ["void and revoked"]
    assert not any(run("recover", "--json").json.values()), "a second run finds nothing"
    assert "0 intents classified" in run("recover").err
