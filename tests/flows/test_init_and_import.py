"""From nothing to a deployment: init, the ceremony it wrote the sheet for, import; and every way in which that can go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.errors import Conflict, FleetcaError, KeyUnavailable, Malformed, Misconfigured, Unacceptable
from ca.model import CertificateState, DeviceId, Role
from ca.signer.alone import SignerLock
from ca.signer.client import SignerClient
from ca.signer.server import SignerServer
from ca.store.engine import open_store
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, importing, signing
from fleetca.cli.main import fleetca
from tests.fakes.ceremony import apart

PASSPHRASE = "correct horse battery staple"


def create(folder: Path, **wanted: Any) -> deployment.Created:
    return deployment.create(folder, deployment.Wanted(**({"host": "pki.example"} | wanted)), chance=SystemChance())


def hold(made: deployment.Created, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "out": made.outputs, "passphrase": PASSPHRASE.encode, "confirm": lambda step: True, "clock": SystemClock(), "chance": SystemChance(),
        "room": apart,
    }  # fmt: skip
    ceremonies.run(made.sheet, **(arguments | changes))
    return made.outputs


def allow_network(sheet: Path) -> None:
    """For commands, which look at this very machine."""
    sheet.write_text(re.sub(r"(?m)^# allow_network = .*$", 'allow_network = "a test"', sheet.read_text()))


def bring(made: deployment.Created, **changes: Any) -> importing.Imported:
    settings = forms.read_settings(made.settings)
    return importing.import_ceremony(settings, made.outputs, clock=SystemClock(), chance=SystemChance(), **changes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> deployment.Created:
    """A deployment whose ceremony is done and not imported."""
    made = create(tmp_path_factory.mktemp("deployment") / "fleet")
    hold(made)
    return made


@pytest.fixture
def made(template: deployment.Created, tmp_path: Path) -> deployment.Created:
    """A copy of it to break."""
    there = tmp_path / "fleet"
    shutil.copytree(template.settings.parent, there)

    def moved(path: Path) -> Path:
        return there / path.relative_to(template.settings.parent)

    assert template.operator_key is not None
    return deployment.Created(
        moved(template.settings), moved(template.sheet), moved(template.csr), moved(template.outputs), moved(template.operator_key)
    )


# ---- init ---------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-005")
def test_P10_nothing_secret_is_plain_or_open_to_others(template: deployment.Created) -> None:
    base = template.settings.parent
    for path in base.rglob("*"):
        if not path.is_file():
            continue
        octets = path.read_bytes()
        assert b"PRIVATE KEY" not in octets or octets.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"), path
        if path.suffix in {".key", ".passphrase"} or path.parent.name == "secrets":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.req("REQ-KEY-002")
def test_P4_init_makes_no_root_key_and_its_settings_name_none(tmp_path: Path) -> None:
    made = create(tmp_path / "fleet")
    assert sorted(path.name for path in made.settings.parent.rglob("*.key")) == ["admin.key", "issuing.key", "log.key", "serial-check.key"]
    assert forms.read_settings(made.settings).issuer("root").key is None


def test_the_settings_it_writes_are_read_again_and_say_what_was_wanted(tmp_path: Path) -> None:
    made = create(tmp_path / "fleet", name="fleet-7", host="2001:db8::1", enroll_port=443, status_port=80)
    settings = forms.read_settings(made.settings)
    assert (settings.deployment.name, settings.enroll.url, settings.status.url) == (
        "fleet-7", "https://[2001:db8::1]", "http://[2001:db8::1]",
    )  # fmt: skip
    assert settings.enroll.names == ("2001:db8::1",)
    assert "http://[2001:db8::1]/crl/root.crl" in ceremonies.read(made.sheet)[0].acts[1].crl_url  # type: ignore[union-attr]


def test_a_deployment_is_never_overwritten(template: deployment.Created) -> None:
    before = {path: path.read_bytes() for path in template.settings.parent.rglob("*") if path.is_file()}
    with pytest.raises(Conflict) as caught:
        create(template.settings.parent)
    assert caught.value.code == "deployment-exists"
    assert before == {path: path.read_bytes() for path in template.settings.parent.rglob("*") if path.is_file()}


def test_init_leaves_a_folder_alone_that_holds_something_else(tmp_path: Path) -> None:
    """Its default folder in a checkout is that of our own sources."""
    folder = tmp_path / "fleetca"
    folder.mkdir()
    (folder / "__init__.py").touch()
    done = CliRunner().invoke(fleetca, ["init", "--dir", str(folder), "--yes"])
    assert isinstance(done.exception, Conflict)
    assert done.exception.code == "folder-in-use"
    assert [path.name for path in folder.iterdir()] == ["__init__.py"]


@pytest.mark.parametrize("survivors", range(1, 12))
def test_a_run_that_was_stopped_goes_on_with_the_same_keys(tmp_path: Path, survivors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(BaseException):
        pass

    written: list[Path] = []
    whole = deployment.put_new

    def put_new(path: Path, octets: bytes, *, mode: int = 0o644) -> None:
        if len(written) == survivors:
            raise Stopped
        whole(path, octets, mode=mode)
        written.append(path)

    monkeypatch.setattr(deployment, "put_new", put_new)
    try:
        create(tmp_path / "fleet")
    except Stopped:
        keys = {path: path.read_bytes() for path in (tmp_path / "fleet").rglob("*.key")}
        assert not (tmp_path / "fleet/fleetca.toml").exists()
        monkeypatch.setattr(deployment, "put_new", whole)
        made = create(tmp_path / "fleet")
        assert {path: path.read_bytes() for path in keys} == keys
        forms.read_settings(made.settings)


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        pytest.param({"name": "My Fleet"}, Misconfigured, "deployment.name", id="a name with spaces"),
        pytest.param({"host": "pki example"}, Misconfigured, "url", id="a host with spaces"),
        pytest.param({"host": "https://pki.example"}, Misconfigured, "url", id="an address in place of a host"),
        pytest.param({"passphrase": "hunter2"}, Misconfigured, "passphrase", id="a passphrase in place of where it is"),
        pytest.param({"passphrase": "env:NO_SUCH_VARIABLE"}, KeyUnavailable, "NO_SUCH_VARIABLE", id="a passphrase that is not there"),
        pytest.param({"operator": "../x"}, Malformed, "operator", id="an operator that is a path (R30)"),
        pytest.param({"operator": "log"}, Misconfigured, "log", id="an operator that would take the log key's passphrase"),
        pytest.param({"sheet": "nothing"}, Misconfigured, "nothing", id="an unknown sheet"),
    ],
)
def test_bad_wishes_are_refused(tmp_path: Path, wanted: dict[str, Any], kind: type[FleetcaError], words: str) -> None:
    with pytest.raises(kind) as caught:
        create(tmp_path / "fleet", **wanted)
    assert words in caught.value.what
    assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
    assert not (tmp_path / "fleet/fleetca.toml").exists()


def run(*arguments: str, answers: str = "") -> Any:
    return CliRunner().invoke(fleetca, list(arguments), input=answers, catch_exceptions=True)


def test_yes_asks_nothing_and_json_is_one_document(tmp_path: Path) -> None:
    result = run("init", "--yes", "--dir", str(tmp_path / "fleet"), "--host", "pki.example", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert Path(document["settings"]).is_file()
    assert document["next"][0].startswith("fleetca ceremony run")


def test_it_asks_at_most_four_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetca.cli.prompts.interactive", lambda: True)
    monkeypatch.chdir(tmp_path)
    result = run("init", answers="\n\npki.example\n\n")
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"\[[^\]]+\]:", result.stderr)) == 4
    assert forms.read_settings(tmp_path / "pki/fleetca.toml").status.url == "http://pki.example:8080"


def test_without_a_terminal_a_question_is_an_error_that_names_its_option(tmp_path: Path) -> None:
    result = run("init", "--name", "x")
    assert isinstance(result.exception, Malformed)
    assert result.exception.code == "needs-answer"
    assert "--dir" in result.exception.fix


# ---- The ceremony's command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "mode", "code"),
    [
        pytest.param(b"short", 0o600, "short-passphrase", id="a passphrase too short to guess slowly"),
        pytest.param(b"", 0o600, "secret-empty", id="an empty passphrase file"),
        pytest.param(PASSPHRASE.encode(), 0o644, "secret-exposed", id="a passphrase that others can read"),
        pytest.param(None, 0, "secret-missing", id="a passphrase file that is not there"),
    ],
)
def test_a_ceremony_without_a_proper_passphrase_makes_no_key(tmp_path: Path, secret: bytes | None, mode: int, code: str) -> None:
    made = create(tmp_path / "fleet")
    allow_network(made.sheet)
    file = tmp_path / "passphrase"
    if secret is not None:
        file.write_bytes(secret)
        file.chmod(mode)
    result = run("ceremony", "run", str(made.sheet), "--out", str(made.outputs), "--passphrase-file", str(file), "--yes")
    assert isinstance(result.exception, KeyUnavailable)
    assert result.exception.code == code
    assert list(made.outputs.glob("*.key")) == []
    assert list(made.outputs.glob("*.pem")) == []


def test_a_resumed_ceremony_wants_the_same_passphrase(tmp_path: Path) -> None:
    made = create(tmp_path / "fleet")
    with pytest.raises(FleetcaError, match="not confirmed"):
        hold(made, confirm=lambda step: step.act == "root")
    with pytest.raises(KeyUnavailable) as caught:
        hold(made, passphrase=lambda: b"another passphrase")
    assert caught.value.code == "wrong-passphrase"
    hold(made)
    assert ceremonies.verify(made.outputs).name == "root-and-issuing"


def test_the_command_shows_every_step_and_prints_one_document(tmp_path: Path) -> None:
    made = create(tmp_path / "fleet")
    allow_network(made.sheet)
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE.encode() + b"\n")
    os.close(writing)
    result = run(
        "ceremony", "run", str(made.sheet), "--out", str(made.outputs), "--passphrase-fd", str(reading), "--yes", "--json"
    )  # fmt: skip
    os.close(reading)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [output["act"] for output in document["outputs"]] == ["root", "issuing", "root-crl"]
    assert result.stderr.count("SHA-256 of TBS") == 3
    assert PASSPHRASE not in result.output
    sealed = (made.outputs / "root.key").read_bytes()
    serialization.load_pem_private_key(sealed, PASSPHRASE.encode())
    verified = run("ceremony", "verify", str(made.outputs), "--json")
    assert json.loads(verified.stdout)["root_sha256"] == document["outputs"][0]["fingerprint"]


def test_without_a_terminal_and_without_yes_nothing_is_signed(tmp_path: Path) -> None:
    made = create(tmp_path / "fleet")
    allow_network(made.sheet)
    file = tmp_path / "passphrase"
    file.write_text(PASSPHRASE)
    file.chmod(0o600)
    result = run("ceremony", "run", str(made.sheet), "--out", str(made.outputs), "--passphrase-file", str(file))
    assert isinstance(result.exception, Malformed)
    assert "--yes" in result.exception.fix
    assert list(made.outputs.glob("*.pem")) == []


def test_verify_of_a_folder_without_a_transcript(tmp_path: Path) -> None:
    result = run("ceremony", "verify", str(tmp_path))
    assert isinstance(result.exception, Misconfigured)
    assert result.exception.code == "no-transcript"


# ---- import -------------------------------------------------------------------------------------------------------------


def test_an_import_leaves_a_deployment_with_issuers_a_root_crl_and_an_operator(made: deployment.Created) -> None:
    imported = bring(made)
    settings = forms.read_settings(made.settings)
    assert [issuer.id for issuer in imported.issuers] == ["root", "issuing"]
    assert (settings.crl.directory / "root.crl").is_file()
    chain = x509.load_pem_x509_certificates(imported.operators[0].read_bytes())
    chain[0].verify_directly_issued_by(chain[1])
    chain[1].verify_directly_issued_by(x509.load_pem_x509_certificate((made.settings.parent / "ca/root.pem").read_bytes()))
    store = open_store(forms.store_url(settings), readonly=True)
    (record,) = store.reading.certificates_of(DeviceId("fleetca:operator:admin"))
    operator = store.reading.operator("admin")  # type: ignore[arg-type]
    kinds = [json.loads(leaf.body)["kind"] for leaf in store.reading.pending_leaves(20)]
    store.close()
    assert record.state is CertificateState.issued
    assert operator is not None
    assert operator.roles == ("admin",)
    assert kinds[:3] == ["issuer", "issuer", "ceremony"]
    assert "operator" in kinds
    assert "issuance" in kinds


def test_P4_no_root_key_comes_into_the_deployment(made: deployment.Created) -> None:
    bring(made)
    assert not (made.settings.parent / "keys/root.key").exists()


def test_a_replayed_import_is_refused_and_changes_nothing(made: deployment.Created) -> None:
    bring(made)
    with pytest.raises(Conflict) as caught:
        bring(made)
    assert caught.value.code == "ceremony-imported"
    store = open_store(forms.store_url(forms.read_settings(made.settings)), readonly=True)
    kinds = [json.loads(leaf.body)["kind"] for leaf in store.reading.pending_leaves(50)]
    store.close()
    assert kinds.count("ceremony") == 1
    assert kinds.count("issuance") == 1


def test_the_roots_fingerprint_from_the_paper_is_compared(made: deployment.Created) -> None:
    right = bring(made).root_sha256.hex()
    with pytest.raises(Conflict, match="imported already"):  # It is the right root, so that is all there is to say.
        bring(made, root_sha256=":".join(right[at : at + 2].upper() for at in range(0, 64, 2)))
    with pytest.raises(Unacceptable) as caught:
        bring(made, root_sha256="00" * 32)
    assert caught.value.code == "another-root"


def _another_ceremony(made: deployment.Created) -> None:
    other = create(made.settings.parent.parent / "other")
    shutil.copy(made.csr, other.csr)
    shutil.rmtree(made.outputs)
    hold(deployment.Created(made.settings, other.sheet, other.csr, made.outputs, None))


def _another_csr(made: deployment.Created) -> None:
    other = create(made.settings.parent.parent / "other")
    shutil.rmtree(made.outputs)
    hold(deployment.Created(made.settings, other.sheet, other.csr, made.outputs, None))


def _edit(made: deployment.Created, name: str, old: str, new: str) -> None:
    path = made.outputs / name
    path.write_text(path.read_text().replace(old, new, 1))


def _settings(made: deployment.Created, old: str, new: str) -> None:
    text = made.settings.read_text()
    assert old in text
    made.settings.write_text(text.replace(old, new, 1))


BROKEN: list[Any] = [
    pytest.param(lambda made: _edit(made, "transcript.jsonl", "Root CA", "Boot CA"), Unacceptable, "transcript-broken", id="an edited transcript"),
    pytest.param(lambda made: (made.outputs / "transcript.jsonl").unlink(), Misconfigured, "no-transcript", id="no transcript"),
    pytest.param(lambda made: (made.outputs / "root-crl.crl").unlink(), Unacceptable, "output-missing", id="a missing output"),
    pytest.param(lambda made: shutil.copy(made.outputs / "root.pem", made.outputs / "issuing.pem"), Unacceptable, "output-changed", id="a replaced output"),
    pytest.param(_another_csr, Misconfigured, "key-of-another-issuer", id="a ceremony over the CSR of another deployment"),
    pytest.param(lambda made: _settings(made, 'certificate = "ca/root.pem"               # offline: no key here', 'certificate = "ca/root.pem"\nkey = "sealed:keys/log.key"\npassphrase = "file:secrets/log.passphrase"'), Misconfigured, "root-key-online", id="a setting that gives the root a key (P4)"),
    pytest.param(lambda made: (made.settings.parent / "secrets/issuing.passphrase").write_text("wrong"), KeyUnavailable, "wrong-passphrase", id="a wrong passphrase"),
    pytest.param(lambda made: (made.settings.parent / "secrets/issuing.passphrase").unlink(), KeyUnavailable, "secret-missing", id="a missing passphrase"),
    pytest.param(lambda made: (made.settings.parent / "secrets/issuing.passphrase").chmod(0o640), KeyUnavailable, "secret-exposed", id="a passphrase that others can read"),
    pytest.param(lambda made: (made.settings.parent / "keys/issuing.key").chmod(0o644), KeyUnavailable, "key-permissions", id="a key that others can read"),
    pytest.param(lambda made: (made.settings.parent / "keys/issuing.key").unlink(), KeyUnavailable, "no-such-key", id="a missing key"),
    pytest.param(lambda made: _settings(made, 'id = "issuing"', 'id = "other"\n') or _settings(made, 'default_issuer = "issuing"', 'default_issuer = "other"'), Misconfigured, "unknown-issuer", id="an issuer that the settings do not know"),
]  # fmt: skip


@pytest.mark.parametrize(("breaking", "kind", "code"), BROKEN)
def test_R32_an_import_that_is_refused_places_nothing(
    made: deployment.Created, breaking: Callable[[deployment.Created], Any], kind: type[FleetcaError], code: str
) -> None:
    breaking(made)
    with pytest.raises(kind) as caught:
        bring(made)
    assert caught.value.code == code
    assert caught.value.fix
    assert list((made.settings.parent / "ca").iterdir()) == []
    assert not (made.settings.parent / "state/fleetca.db").exists()


def test_an_issuer_never_changes_its_certificate(made: deployment.Created) -> None:
    bring(made)
    before = (made.settings.parent / "ca/issuing.pem").read_bytes()
    _another_ceremony(made)
    with pytest.raises(Conflict) as caught:
        bring(made)
    assert caught.value.code == "issuer-changed"
    assert (made.settings.parent / "ca/issuing.pem").read_bytes() == before


def _next_root_crl(made: deployment.Created, name: str, previous: Path) -> deployment.Created:
    sheet = made.sheet.parent / f"{name}.toml"
    sheet.write_text(
        f'[ceremony]\nname = "{name}"\n[[issuers]]\nid = "root"\ncertificate = "{made.outputs}/root.pem"\n'
        f'[[acts]]\nact = "root-crl"\nid = "next"\nissuer = "root"\nprevious = "{previous}"\nnext_update = "90d"\n'
    )
    credentials = made.sheet.parent / f"{name}.credentials"
    credentials.write_text(f'[issuers.root]\nkey = "sealed:{made.outputs}/root.key"\n')
    outputs = made.sheet.parent / name
    following = deployment.Created(made.settings, sheet, made.csr, outputs, None)
    hold(following, credentials=credentials)
    return following


def test_P6_a_newer_root_crl_replaces_the_older_and_never_the_other_way(made: deployment.Created) -> None:
    bring(made)
    second = _next_root_crl(made, "second", made.outputs / "root-crl.crl")
    bring(second)
    published = forms.read_settings(made.settings).crl.directory / "root.crl"
    assert x509.load_der_x509_crl(published.read_bytes()).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    with pytest.raises(Conflict) as caught:
        bring(made)
    assert caught.value.code == "crl-number-back"
    published.unlink()
    with pytest.raises(Conflict):  # The high-water file remembers.
        bring(made)
    bring(second)


def test_an_import_waits_for_no_signer_and_disturbs_none(made: deployment.Created) -> None:
    with SignerLock(forms.read_settings(made.settings).signer.journal), pytest.raises(Conflict) as caught:
        bring(made)
    assert caught.value.code == "signer-running"
    assert list((made.settings.parent / "ca").iterdir()) == []
    bring(made)


def test_the_commands_print_one_document_each(made: deployment.Created) -> None:
    settings = ["--settings", str(made.settings), "--json"]
    imported = json.loads(run("import", str(made.outputs), *settings).stdout)
    assert imported["issuers"] == ["root", "issuing"]
    assert json.loads(run("migrate", *settings).stdout)["revision"]


@pytest.mark.req("REQ-KEY-002")
def test_P4_what_serves_has_no_code_path_to_a_root_key() -> None:
    """What a ceremony made it may verify and record: rules that know no key, and the verb that uses them."""
    code = (
        "import sys, fleetca.signing, fleetca.wiring, fleetca.serve, fleetca.process, fleetca.server\n"
        "known = ('ca.rules.', 'ca.record_ceremony')\n"
        "print(*sorted(m for m in sys.modules if ('ceremon' in m and not m.startswith(known)) or m == 'ca.keys.sealed_file'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---- beside a running signer --------------------------------------------------------------------------------------------


@pytest.fixture
def running(made: deployment.Created) -> Iterator[deployment.Created]:
    """A deployment with its first ceremony imported, whose signer runs."""
    bring(made)
    settings = forms.read_settings(made.settings)
    with signing.signer_parts(settings) as parts:
        server = SignerServer(
            settings.signer.socket,
            verbs=parts.verbs,
            desk=parts.desk,
            users={os.getuid(): frozenset(Role)},
            monotonic=SystemClock().monotonic,
        )
        server.start()
        try:
            yield made
        finally:
            server.stop()


def _ceremonies(made: deployment.Created) -> list[str]:
    store = open_store(forms.store_url(forms.read_settings(made.settings)))
    try:
        leaves = [json.loads(leaf.body) for leaf in store.reading.pending_leaves(1000)]
    finally:
        store.close()
    return [leaf["name"] for leaf in leaves if leaf["kind"] == "ceremony"]


def _published_number(made: deployment.Created) -> int:
    published = forms.read_settings(made.settings).crl.directory / "root.crl"
    return x509.load_der_x509_crl(published.read_bytes()).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_roots_next_crl_is_imported_while_the_signer_runs(running: deployment.Created) -> None:
    first = _ceremonies(running)
    second = _next_root_crl(running, "second", running.outputs / "root-crl.crl")
    imported = bring(second)
    with pytest.raises(Conflict, match="imported already"):
        bring(second)
    assert _published_number(running) == 2
    assert _ceremonies(running) == [*first, "second"]
    assert [each.new for each in imported.placed if "certificate" in each.what] == [False, False]
    assert imported.operators == ()


def test_what_does_not_hold_is_refused_by_the_signer_itself(running: deployment.Created) -> None:
    """Whoever calls it may have checked nothing: every octet is verified where it is recorded."""
    first = _ceremonies(running)
    second = _next_root_crl(running, "second", running.outputs / "root-crl.crl")
    files = {path.name: path.read_bytes() for path in second.outputs.iterdir() if path.suffix != ".key"}
    settings = forms.read_settings(running.settings)

    def recorded(role: Role = Role.operator, **changes: bytes | None) -> str:
        given = {name: octets for name, octets in {**files, **changes}.items() if octets is not None}
        client = SignerClient(settings.signer.socket, role)
        try:
            return client.record_ceremony(given)
        except FleetcaError as error:
            return error.code
        finally:
            client.close()

    crl, script = next(name for name in files if name.endswith(".crl")), files["transcript.jsonl"]
    lines = script.splitlines(keepends=True)
    assert recorded(**{crl: files[crl][:-1] + bytes([files[crl][-1] ^ 1])}) == "output-changed"
    assert recorded(**{crl: None}) == "output-missing"
    assert recorded(**{"sheet.toml": b"another"}) == "sheet-changed"
    assert recorded(**{"transcript.jsonl": b"".join(lines[:-1])}) in {"transcript-incomplete", "transcript-seal"}
    assert recorded(**{"transcript.jsonl": None}) in {"transcript-broken", "transcript-incomplete"}
    assert [recorded(role) for role in Role if role is not Role.operator] == ["not-allowed"] * 3
    assert _ceremonies(running) == first
    assert recorded() == "second"
    assert _ceremonies(running) == [*first, "second"]


def test_P4_another_roots_ceremony_is_nobodys_and_a_new_issuer_waits_for_a_stop(running: deployment.Created, tmp_path: Path) -> None:
    other = create(tmp_path / "other")
    hold(other)
    client = SignerClient(forms.read_settings(running.settings).signer.socket, Role.operator)
    files = {path.name: path.read_bytes() for path in other.outputs.iterdir() if path.suffix != ".key"}
    with pytest.raises(Conflict) as caught:
        client.record_ceremony(files)
    client.close()
    assert caught.value.code == "issuer-changed"
    (running.settings.parent / "ca/issuing.pem").unlink()
    with pytest.raises(Conflict) as caught:
        bring(running)
    assert caught.value.code == "signer-running"
    assert "new issuer issuing" in caught.value.why
    assert not (running.settings.parent / "ca/issuing.pem").exists()
