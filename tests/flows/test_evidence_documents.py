"""What stands in a pack beside the record: events of each part, wipe receipts, messages of two persons, provisioning records; and every lie about them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ca.keys.memory import MemoryKey, make_private_key
from ca.lineage import Issuers
from ca.model import (
    AlgorithmName,
    ApprovalDecision,
    DeviceId,
    GraveAct,
    KeyName,
    MessageEvidence,
    ProposalRequest,
    Reason,
    Role,
)
from ca.ports import SigningKey
from ca.rules import drill, two_persons, wipe
from ca.rules.message import Act
from ca.store.engine import open_store
from ca.system import SystemClock
from fleetca import checks_custody, forms, signing
from fleetca.cli.main import main
from fleetca.evidence import container, pack, verify
from fleetca.verdict import Level, Patient
from tests.fakes.evidence import ISSUING, Office, period
from tests.fakes.factory_line import Line
from tests.fakes.signer_world import Keypair, World
from tests.interop import judges
from tests.parts import need

pytestmark = pytest.mark.req("REQ-KEY-054")
Files = dict[str, bytes]


class AtWork(World):
    """The people of a signer's world, at the signer of a real deployment."""

    def __init__(self, office: Office, parts: Any) -> None:
        verbs, self.settings = parts.verbs, office.settings
        self.store = open_store(forms.store_url(office.settings))
        self.issuer = next(one for one in self.store.reading.issuers() if one.id == "issuing")
        self.issuers = Issuers(self.store.reading.issuers())
        self.key: Any = SimpleNamespace(spki=self.issuer.spki)
        self.issuing, self.revoking, self.tokens, self.operators = verbs.issuing, verbs.revoking, verbs.tokens, verbs.operators
        self.approving, self.two_persons, self.reviving = verbs.approving, verbs.two_persons, verbs.reviving
        self.wiping, self.provisioning, self.confirming = verbs.wiping, verbs.provisioning, verbs.confirming
        self._ids = itertools.count(1)

    @property
    def clock(self) -> Any:  # type: ignore[override]
        now = SystemClock().now()
        return SimpleNamespace(at=now, now=lambda: now)

    def message(self, pair: Keypair, act: Act, **fields: Any) -> MessageEvidence:
        return super().message(pair, act, audience=self.settings.deployment.name, **fields)


class Fleet:
    """A deployment where devices were wiped, one came back by two persons, and a line made units."""

    def __init__(self, folder: Path) -> None:
        self.office = Office(folder / "fleet")
        with signing.signer_parts(self.office.settings) as parts:
            world = AtWork(self.office, parts)
            for device in ("valve-1", "valve-2"):
                pair = world.enrol(device)
                world.revoke_device(device, Reason.cessationOfOperation)
                if device == "valve-1":
                    self._wipe(world, device, pair)
            self._revive(world)
            line = Line(world, folder / "stations", operator="lena")
            line.login()
            line.make("SN-1", "SN-2", "SN-3")
            line.reconcile()
            line.make("SN-4")
            line.reconcile()
            self.station = line.station.path
            world.close()
        self.office.sequence()

    def _wipe(self, world: AtWork, device: str, pair: Keypair) -> None:
        operator = world.peer(Role.operator)
        order = wipe.read_order(world.wiping.order(DeviceId(device), operator)).order
        key = MemoryKey(KeyName("x"), pair.private)
        said = wipe.Receipt(
            DeviceId(device), order.digest, world.clock.at, (hashlib.sha256(key.spki).hexdigest(),), "test", pair.certificate
        )
        world.wiping.take(wipe.sign_receipt(said, key.sign), operator)

    def _revive(self, world: AtWork) -> None:
        subject = two_persons.subject(GraveAct.revive, device=DeviceId("valve-1"))
        sam = world.operator("sam", "security-officer")
        said = ("revive", subject, 86400, "It was repaired.")
        asked = world.two_persons.propose(
            ProposalRequest(world.message(world.operator("ada"), Act.propose, proposal=said)), world.peer(Role.operator)
        )
        digits = asked.request.hex()
        given = world.message(sam, Act.approve, decision=(digits, True, ""))
        world.approving.decide(ApprovalDecision(given, digits, True, ""), world.peer(Role.enroll))
        world.reviving.revive(DeviceId("valve-1"), world.peer(Role.operator))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    need("openssl")
    return Fleet(tmp_path_factory.mktemp("documents"))


def make(fleet: Fleet, out: Path, *more: object) -> int:
    made = fleet.office.made
    with pytest.raises(SystemExit) as ended:
        main([
            "evidence", "--period", period(), "--out", str(out), "--key", str(made.operator_key), "--passphrase-file",
            str(made.settings.parent / "secrets/admin.passphrase"), "--settings", str(made.settings), *map(str, more),
        ])  # fmt: skip
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def files(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What a pack of all of it holds."""
    out = tmp_path_factory.mktemp("pack") / "pack.zip"
    assert make(fleet, out, "--ceremony", fleet.office.made.outputs, "--station", fleet.station) == 0
    return read(out)


def read(path: Path) -> Files:
    with path.open("rb") as file:
        opened = verify.Pack(file)
        return {name: opened.read(name) for name in opened.entries}


@pytest.fixture(scope="module")
def signer() -> MemoryKey:
    """Somebody whom the auditor trusts, and who lies."""
    return MemoryKey(KeyName("liar"), make_private_key(AlgorithmName("p256")))


def check(files: Files, signer: MemoryKey, out: Path, *more: object) -> tuple[int, list[tuple[str, str, str]]]:
    """What the verifier says of these files under a manifest and a signature that fit."""
    kept = {name: octets for name, octets in sorted(files.items()) if name not in {"manifest.json", "signature.json"}}
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [{"name": name, "size": len(octets), "sha256": hashlib.sha256(octets).hexdigest()} for name, octets in kept.items()]
    for part in manifest["parts"]:
        part["files"] = [name for name in part["files"] if name in kept]
    octets = verify.canonical(manifest)
    kept |= {"manifest.json": octets, "signature.json": verify.canonical(pack._signed(octets, signer, 1_800_000_000))}
    with out.open("w+b") as file:
        writer = container.Writer(file)
        for name, each in kept.items():
            writer.put(name, each)
        writer.close()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = verify.main([str(out), "--signer", hashlib.sha256(signer.spki).hexdigest(), "--json", *map(str, more)])
    return code, [(one["level"], one["check"], one["what"]) for one in json.loads(said.getvalue())["told"]]


def rows(octets: bytes) -> list[Any]:
    return [json.loads(line) for line in octets.splitlines()]


def test_all_of_it_is_in_the_pack_and_proved(files: Files, signer: MemoryKey, tmp_path: Path) -> None:
    code, told = check(files, signer, tmp_path / "pack.zip")
    assert code == 0, told
    proved = {name: what for level, name, what in told if level == "ok"}
    assert {"events", "approvals", "receipts", "records"} <= proved.keys()
    assert "1 proposals; 1 approved" in proved["approvals"]
    assert "4 provisioning records of line-3 are one chain, of which the CA countersigned 4" in proved["records"]
    assert any("keys in them, none of two devices" in what for _, _, what in told)
    assert [json.loads(line)["receipt"]["device"] for line in files["07-devices/receipts.jsonl"].splitlines()] == ["valve-1"]
    kinds = {name: {row["kind"] for row in rows(octets)} for name, octets in files.items() if name.endswith("/events.jsonl")}
    assert {"wipe", "wipe-order", "station", "shift", "units", "record-seal", "device", "device-facts"} <= kinds["07-devices/events.jsonl"]
    assert {"operator", "proposal", "token"} <= kinds["08-access/events.jsonl"]
    assert {"key-state", "issuer"} <= kinds["04-inventory/events.jsonl"]
    assert "ceremony" in kinds["11-drills/events.jsonl"]


def test_what_is_open_is_among_the_findings(files: Files) -> None:
    told = json.loads(files["13-findings/findings.json"])
    assert told["unwiped"] == ["pump-0", "valve-2"], "valve-1 sent its receipt"
    assert [one["device"] for one in told["exceptions"]] == ["pump-1"]
    assert told["shifts"] == told["copied_keys"] == []
    (shift,) = json.loads(files["07-devices/stations.json"])["shifts"]
    assert (shift["units"], shift["certificates"], shift["operator"]) == (4, 4, "lena")


def test_every_certificate_of_the_sample_has_its_lint_verdict(files: Files) -> None:
    told = json.loads(files["05-issuance/lint.json"])
    sample = {name.removeprefix("05-issuance/sample/").removesuffix(".pem") for name in files if "/sample/" in name}
    assert told.keys() == sample
    assert set(told.values()) == {"holds"}


@pytest.mark.req("REQ-KEY-097")
def test_the_bill_of_software_is_CycloneDX_and_has_what_runs(files: Files) -> None:
    from importlib.metadata import version

    octets = files["04-inventory/sbom.json"]
    assert judges.cyclonedx(octets.decode()) == ""
    bill = json.loads(octets)
    parts = {one["name"].lower(): one["version"] for one in bill["components"]}
    assert (parts["cryptography"], parts["sqlalchemy"]) == (version("cryptography"), version("sqlalchemy"))
    assert not parts.keys() & {"pytest", "mypy", "ruff"}, "what only developing needs does not run"
    assert {one["ref"] for one in bill["dependencies"]} == {one["bom-ref"] for one in (*bill["components"], bill["metadata"]["component"])}


def _lines(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Files], Files]:
    return lambda files: {**files, name: b"".join(change(files[name].splitlines(keepends=True)))}


def _edit(name: str, old: bytes, new: bytes) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        assert old in files[name], name
        return {**files, name: files[name].replace(old, new, 1)}

    return change


def _from_another_key(files: Files) -> Files:
    """The approval is signed anew by the key of who asked."""
    lines = [json.loads(line) for line in files["08-access/messages.jsonl"].splitlines()]
    lines[1] |= {"certificate": lines[0]["certificate"]}
    return {**files, "08-access/messages.jsonl": b"".join(verify.canonical(line) + b"\n" for line in lines)}


RECORDS, SEALS, PUB = (f"07-devices/records/line-3.{name}" for name in ("yaml", "seals.jsonl", "pub"))
RECEIPTS, MESSAGES = "07-devices/receipts.jsonl", "08-access/messages.jsonl"


def _documents(files: Files, change: Callable[[list[bytes]], list[bytes]]) -> Files:
    documents = [one for one in files[RECORDS].split(b"---\n") if one]
    return {**files, RECORDS: b"".join(b"---\n" + one for one in change(documents))}


LIES: list[tuple[str, Callable[[Files], Files], str]] = [
    ("an event is left out", _lines("07-devices/events.jsonl", lambda lines: lines[1:]), "events"),
    ("an event is told twice", _lines("08-access/events.jsonl", lambda lines: [*lines, lines[-1]]), "events"),
    ("events change places", _lines("08-access/events.jsonl", lambda lines: [lines[1], lines[0], *lines[2:]]), "events"),
    ("an event says something else", _edit("11-drills/events.jsonl", b'"name":"', b'"name":"x'), "events"),
    ("the events of a part are missing", lambda files: {name: one for name, one in files.items() if name != "04-inventory/events.jsonl"}, "missing"),
    ("a receipt is missing", lambda files: {**files, RECEIPTS: b""}, "events"),
    ("a receipt is edited", _edit(RECEIPTS, b'"agent":"test"', b'"agent":"best"'), "events"),
    ("a receipt too many", lambda files: {**files, RECEIPTS: files[RECEIPTS] * 2}, "events"),
    ("a message is missing", _lines(MESSAGES, lambda lines: lines[1:]), "events"),
    ("messages change places", _lines(MESSAGES, lambda lines: lines[::-1]), "events"),
    ("an approval is somebody else's", _from_another_key, "signature"),
    ("a record is edited", _edit(RECORDS, b"operator: lena", b"operator: lina"), "records"),
    ("a record in the middle is dropped", lambda files: _documents(files, lambda one: [one[0], *one[2:]]), "records"),
    ("the last record is dropped", lambda files: _documents(files, lambda one: one[:-1]), "records"),
    ("records change places", lambda files: _documents(files, lambda one: [one[1], one[0], *one[2:]]), "records"),
    ("a record is added", lambda files: _documents(files, lambda one: [*one, one[-1]]), "records"),
    ("a record's signature is another", lambda files: _documents(files, lambda one: [*one[:-1], _unsigned(one[-1])]), "records"),
    ("the station's key is another", lambda files: {**files, PUB: _other_key()}, "another-station"),
    ("a countersignature is edited", _lines(SEALS, lambda lines: [*lines[:-1], lines[-1].replace(b'"last":"sha256:', b'"last":"sha256:0')]), "records"),
    ("a device is hidden from its certificate", _edit("05-issuance/certificates.jsonl", b'"device":"SN-1"', b'"device":"SN-9"'), "coverage"),
]  # fmt: skip


def _unsigned(document: bytes) -> bytes:
    bare, name, signature = document.rpartition(b"signature: ")
    return bare + name + signature.swapcase()


def _other_key() -> bytes:
    return verify.pem("PUBLIC KEY", MemoryKey(KeyName("x"), make_private_key(AlgorithmName("p256"))).spki).encode()


@pytest.mark.parametrize(("what", "change", "word"), LIES, ids=[one[0] for one in LIES])
def test_a_lie_of_who_may_sign_is_refused_by_name(
    files: Files, signer: MemoryKey, tmp_path: Path, what: str, change: Callable[[Files], Files], word: str
) -> None:
    code, told = check(change(files), signer, tmp_path / "lie.zip")
    words = {text.partition(":")[0] for level, _, text in told if level == "REFUSED"}
    assert code == 8 and word in words, (what, told)
    assert "unreadable" not in words, told


def test_a_key_of_two_devices_is_found_however_many_there_are(tmp_path: Path) -> None:
    line = {"spki_sha256": "00" * 32, "device": "a"}
    lines = [line, {**line, "device": "b"}]
    verification = verify.Verification(SimpleNamespace(lines=lambda _: map(verify.canonical, lines)), SimpleNamespace())  # type: ignore[arg-type]
    for count in (2, 3_000_000):
        with pytest.raises(verify.RefusedError) as told:
            verification._check_unique(count)
        assert told.value.name == "shared-key"
    lines.pop()
    verification._check_unique(1)


def test_names_can_be_withheld_from_all_of_it(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("5a" * 32)
    (tmp_path / "key").chmod(0o600)
    for number, classes in enumerate((("devices", "operators", "tenants"), ("devices",), ("operators",), ("tenants",))):
        out = tmp_path / f"{number}.zip"
        given = [word for name in classes for word in ("--redact", name)]
        assert make(fleet, out, *given, "--redaction-key", tmp_path / "key") == 0, classes
        held = read(out)
        with out.open("rb") as file:
            verification = verify.Verification(verify.Pack(file), verify._arguments([str(out), "--unpinned"]))
            assert verification.run(), verification.told
        text = b"\n".join(octets for name, octets in held.items() if name != "verify.py")
        hidden = {"devices": (b"valve-", b"pump-", b"SN-"), "operators": (b"lena", b"operator:ada", b"beatrice"), "tenants": ()}
        for name in (name for word in classes for name in hidden[word]):
            assert name not in text, (classes, name)


def test_a_folder_of_another_station_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    stranger = tmp_path / "station"
    stranger.mkdir()
    (stranger / "station.json").write_text('{"station":"line-3"}')
    (stranger / "station.pub").write_bytes(_other_key())
    assert make(fleet, tmp_path / "pack.zip", "--station", stranger) == 2
    assert not (tmp_path / "pack.zip").exists()


def test_what_the_looking_commands_said_goes_with_it(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "doctor.json").write_text('{"findings": 0, "checks": []}')
    assert make(fleet, tmp_path / "pack.zip", "--doctor", tmp_path / "doctor.json") == 0
    assert json.loads(read(tmp_path / "pack.zip")["13-findings/doctor.json"]) == {"findings": 0, "checks": []}
    (tmp_path / "doctor.json").write_text("No findings.")
    assert make(fleet, tmp_path / "other.zip", "--doctor", tmp_path / "doctor.json") == 2


# ---- What is proved, and what is only said -------------------------------------------------------------------------------


def _said(files: Files) -> list[str]:
    return [name for name in files if name.startswith(verify._SAID)]


def _other(octets: bytes) -> bytes:
    middle = len(octets) // 2
    return octets[:middle] + bytes((octets[middle] ^ 1,)) + octets[middle + 1 :] if octets else b"x\n"


def test_what_no_check_holds_against_anything_is_named(files: Files, signer: MemoryKey, tmp_path: Path) -> None:
    changed = {name: _other(octets) if name in _said(files) else octets for name, octets in files.items()}
    code, told = check(changed, signer, tmp_path / "pack.zip")
    assert code == 0, told
    named = " ".join(what for level, _, what in told if level == "note" and what.startswith("not proved"))
    assert all(name.partition("/")[2] in named for name in _said(files))


@pytest.mark.full
def test_every_other_file_is_proved(files: Files, signer: MemoryKey, tmp_path: Path) -> None:
    """Under a signature that fits: whatever was changed, something in the record speaks against it."""
    for name in files.keys() - {"00-readme.txt", "verify.py", "manifest.json", "signature.json", *_said(files)}:
        code, _ = check({**files, name: _other(files[name])}, signer, tmp_path / "pack.zip")
        assert code == 8, f"{name} was changed, and nothing spoke against it"


def test_what_is_wrong_with_the_machine_is_not_blamed_on_the_pack(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(tmp_path / "none.zip"), "--unpinned"]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verify.main([str(tmp_path / "none.zip"), "--unpinned"]) == 2
    said = capsys.readouterr()
    assert "none.zip: No such file" in said.err and "openssl: No such file" in said.err
    assert "REFUSED" not in said.out


@pytest.mark.parametrize(
    "line", [b'{"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", b'{"at":1,"kind":"\x1b[31m"}\n', b"\xff\n", b"x" * 300_000 + b"\n"]
)
def test_a_leaf_that_is_a_trap_is_refused(files: Files, signer: MemoryKey, tmp_path: Path, line: bytes) -> None:
    code, told = check({**files, "09-log/leaves.jsonl": line + files["09-log/leaves.jsonl"]}, signer, tmp_path / "trap.zip")
    assert code == 8
    assert all(what.isprintable() for _, _, what in told)


# ---- Restore drills -------------------------------------------------------------------------------------------------------


def _record(key: SigningKey, at: int, **fields: Any) -> dict[str, Any]:
    said = {"kind": "restore-drill", "version": 1, "at": at, "custodians": ["Ben Example"], **fields}
    digest = hashlib.sha256(key.spki).hexdigest()
    return {**said, "keys": [{"name": "x", "opened": True, "spki_sha256": digest, "signature": key.sign(drill.signed_octets(said)).hex()}]}


@pytest.mark.req("REQ-KEY-065", "REQ-KEY-015")
def test_an_overdue_drill_is_a_finding_and_a_record_that_nobody_signed_is_none(fleet: Fleet, tmp_path: Path) -> None:
    settings, now = fleet.office.settings, SystemClock().now()
    issuers = open_store(forms.store_url(settings)).reading.issuers()
    issuing = signing.open_keys(settings)[ISSUING]
    cases = [
        (None, Level.finding, "never shown"),
        (_record(issuing, now - 86400), Level.ok, "with the key of issuing"),
        (_record(issuing, now - 400 * 86400), Level.finding, "last restore drill was on"),
        ({**_record(issuing, now - 400 * 86400), "at": now - 1}, Level.finding, "never shown"),
        (_record(MemoryKey(KeyName("x"), make_private_key(AlgorithmName("p256"))), now), Level.finding, "never shown"),
        (_record(issuing, now + 86400), Level.finding, "never shown"),
        ({"kind": "restore-drill"}, Level.finding, "never shown"),
    ]
    for number, (record, level, words) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        if record is not None:
            (folder / "drill.json").write_text(json.dumps(record, indent=2))
        looked = settings.model_copy(update={"custody": settings.custody.model_copy(update={"drills": folder})})
        *_, last = checks_custody.drills(Patient(looked, SystemClock(), issuers, None, None))
        assert last.level is level and words in last.what, (number, last)
    (silent,) = checks_custody.drills(Patient(settings, SystemClock(), issuers, None, None))
    assert silent.level is Level.note


def test_a_drill_that_a_key_of_a_CA_signed_is_proved_and_another_is_refused(
    fleet: Fleet, files: Files, signer: MemoryKey, tmp_path: Path
) -> None:
    issuing = signing.open_keys(fleet.office.settings)[ISSUING]
    record = _record(issuing, 1_800_000_000)
    name = "11-drills/records/0.json"
    code, told = check({**files, name: verify.canonical(record)}, signer, tmp_path / "1.zip")
    assert code == 0 and "1 keys of CAs" in next(what for _, check, what in told if check == "drills")
    other = _record(MemoryKey(KeyName("x"), make_private_key(AlgorithmName("p256"))), 1)
    for changed, word in (({**record, "at": 1_900_000_000}, "signature"), (other, "drill")):
        code, told = check({**files, name: verify.canonical(changed)}, signer, tmp_path / "2.zip")
        assert code == 8 and word in {what.partition(":")[0] for level, _, what in told if level == "REFUSED"}, told


# ---- Time stamps of others (RFC 3161), given and judged by openssl -----------------------------------------------------------


class Stamper:
    """A time-stamping authority."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.certificate = folder, folder / "tsa.pem"
        (folder / "tsa.cnf").write_text(
            "[tsa]\ndefault_tsa = one\n[one]\nserial = serial\ndefault_policy = 1.2.3.4\ndigests = sha256\nsigner_digest = sha256\n"
            "ess_cert_id_alg = sha256\n[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = usage\n[name]\nCN = Notary\n"
            "[usage]\nextendedKeyUsage = critical, timeStamping\nkeyUsage = critical, digitalSignature\nbasicConstraints = CA:false\n"
        )
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30",
                  "-config", "tsa.cnf", "-keyout", "tsa.key", "-out", "tsa.pem")  # fmt: skip

    def stamp(self, checkpoint: bytes, at: Path) -> None:
        """A checkpoint kept at `at`, with its stamp beside."""
        at.write_bytes(checkpoint)
        self._run("ts", "-query", "-data", str(at), "-sha256", "-cert", "-out", "query")
        self._run(
            "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-inkey", "tsa.key", "-signer", "tsa.pem", "-out", f"{at}.tsr"
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


def test_a_checkpoint_that_somebody_else_stamped_was_there_then(fleet: Fleet, signer: MemoryKey, tmp_path: Path) -> None:
    notary, other = Stamper(tmp_path / "notary"), Stamper(tmp_path / "other")
    kept = tmp_path / "checkpoint"
    notary.stamp(fleet.office.checkpoint, kept)
    assert make(fleet, tmp_path / "pack.zip", "--stamp", kept) == 0
    held = read(tmp_path / "pack.zip")
    (name,) = [name for name in held if name.startswith("09-log/stamps/") and not name.endswith(".tsr")]
    assert held[name] == fleet.office.checkpoint
    code, told = check(held, signer, tmp_path / "1.zip")
    assert code == 0 and any("give --tsa" in what for _, check, what in told if check == "stamps")
    code, told = check(held, signer, tmp_path / "2.zip", "--tsa", notary.certificate)
    assert code == 0 and any(level == "ok" for level, check, _ in told if check == "stamps"), told
    other.stamp(fleet.office.checkpoint + b"\n", tmp_path / "another")
    stranger = {**held, f"{name}.tsr": (tmp_path / "another.tsr").read_bytes()}
    for files, trusted in ((held, other), (stranger, other), ({**held, f"{name}.tsr": b"x"}, notary)):
        code, told = check(files, signer, tmp_path / "3.zip", "--tsa", trusted.certificate)
        assert code == 8 and ("REFUSED", "stamps", "stamp") in {(level, check, what.partition(":")[0]) for level, check, what in told}, told
    forked = Office(tmp_path / "fork", devices=0)
    notary.stamp(forked.checkpoint, kept)
    assert make(fleet, tmp_path / "never.zip", "--stamp", kept) != 0, "a checkpoint of another log"
