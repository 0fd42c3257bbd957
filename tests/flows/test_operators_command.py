"""`fleetca operators` over the real signer process of a deployment that init, ceremony and import made."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.errors import FleetcaError
from ca.model import Role
from ca.signer.client import SignerClient
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, importing
from tests.fakes.ceremony import apart
from tests.running import eventually, here

COMMAND = [sys.executable, "-m", "fleetca.cli.main"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("operators") / "fleet"
    made = deployment.create(folder, deployment.Wanted(), chance=SystemChance())
    ceremonies.run(
        made.sheet, out=made.outputs, passphrase=lambda: b"correct horse battery", confirm=lambda step: True, clock=SystemClock(),
        chance=SystemChance(), room=apart,
    )  # fmt: skip
    settings = forms.read_settings(made.settings)
    importing.import_ceremony(settings, made.outputs, clock=SystemClock(), chance=SystemChance())
    with subprocess.Popen([*COMMAND, "process", "signer", "--settings", str(made.settings)], stderr=subprocess.DEVNULL) as signer:
        client = SignerClient(settings.signer.socket, Role.operator)
        try:
            eventually(lambda: answers(client))
            yield folder
        finally:
            client.close()
            signer.send_signal(signal.SIGTERM)
            code = signer.wait(60)
        assert code == 0


def answers(client: SignerClient) -> bool:
    try:
        client.ping()
    except FleetcaError:
        return False
    return True


def run(base: Path, *arguments: str) -> tuple[int, Any, str]:
    done = here("operators", *arguments, "--settings", base / "fleetca.toml", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_an_operator_is_added_certified_and_disabled(base: Path) -> None:
    code, found, _ = run(base, "list")
    assert (code, [operator["name"] for operator in found]) == (0, ["admin"])

    # Any CSR with a fresh key will do.
    other = deployment.create(base.parent / "another", deployment.Wanted(operator="bob"), chance=SystemChance())
    csr = other.settings.parent / "operators/bob.csr"
    code, refused, _ = run(base, "add", "bob", "--role", "revoker", "--role", "auditor", "--csr", str(csr))
    assert (code, refused["error"]["code"]) == (1, "exclusive-roles")
    code, added, said = run(base, "add", "bob", "--role", "revoker", "--role", "registrar", "--csr", str(csr))
    assert code == 0, said
    assert added["roles"] == ["revoker", "registrar"]
    certificate, issuing = x509.load_pem_x509_certificates(Path(added["certificate"]).read_bytes())
    certificate.verify_directly_issued_by(issuing)

    code, refused, said = run(base, "add", "bob", "--role", "admin")
    assert (code, refused["error"]["code"]) == (4, "operator-exists")
    assert "[operator-exists]" in said

    assert run(base, "disable", "bob", "--confirm", "bo")[0] == 2
    code, disabled, _ = run(base, "disable", "bob", "--confirm", "bob")
    assert code == 0
    assert disabled["disabled_at"] is not None
    assert [operator["disabled_at"] is None for operator in run(base, "list")[1]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("add", "../x", "--role", "admin"), 2, id="an operator is no path (R30)"),
        pytest.param(("add", "eve", "--role", "root"), 2, id="an unknown role"),
        pytest.param(("add", "eve", "--role", "admin", "--csr", "nowhere.csr"), 2, id="a CSR that is not there"),
        pytest.param(("disable", "eve", "--confirm", "eve"), 3, id="an operator that is not there"),
    ],
)
def test_bad_input_has_its_exit_code_and_changes_nothing(base: Path, arguments: tuple[str, ...], code: int) -> None:
    before = run(base, "list")
    assert run(base, *arguments)[0] == code
    assert run(base, "list") == before


def test_migrate_waits_for_the_signer_to_be_stopped_and_import_finds_what_it_brought_before(base: Path) -> None:
    for command, code in ((["migrate"], "signer-running"), (["import", str(base / "ceremony/root-and-issuing")], "ceremony-imported")):
        done = subprocess.run([*COMMAND, *command, "--settings", str(base / "fleetca.toml")], capture_output=True, text=True, check=False)
        assert done.returncode == 4
        assert f"[{code}]" in done.stderr
        assert "fix: " in done.stderr
