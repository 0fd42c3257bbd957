"""A deployment whose issuing key lies on a PKCS#11 token: from `fleetca init` to a device's certificate, and through the token's absence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests import softhsm
from tests.interop.test_serve import Served, change, serving
from tests.running import ROOT, eventually, free_ports
from tests.softhsm import PIN, SoftHsm

LABEL = "fleet"


def fleetca(*arguments: str | Path, hsm: SoftHsm) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleetca.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=hsm.environment)


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    made = softhsm.make(tmp_path_factory.mktemp("softhsm"))
    made.add(LABEL)
    return made


@pytest.fixture(scope="module")
def deployment(hsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, base = tmp_path_factory.mktemp("token") / "here", free_ports()
    (folder / "secrets").mkdir(parents=True)
    pin = folder / "secrets/token.pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    made = fleetca(
        "init", "--dir", folder, "--host", "127.0.0.1", "--enroll-port", base + 443, "--status-port", base + 80, "--yes",
        "--key", f"pkcs11:token={LABEL};object=issuing?module-path={hsm.module}", "--passphrase", "file:secrets/token.pin",
        hsm=hsm,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert list((folder / "keys").glob("*")) == [folder / "keys/log.key"]
    secret = folder.parent / "ceremony.passphrase"
    secret.write_text("correct horse battery staple")
    secret.chmod(0o600)
    sheet = folder / "ceremony/root-and-issuing.toml"
    sheet.write_text(sheet.read_text().replace("# allow_network = ", 'allow_network = "A test" # ', 1))
    held = fleetca("ceremony", "run", sheet, "--out", folder / "ceremony/out", "--passphrase-file", secret, "--yes", hsm=hsm)
    assert held.returncode == 0, held.stderr
    done = fleetca("import", folder / "ceremony/out", "--settings", folder / "fleetca.toml", hsm=hsm)
    assert done.returncode == 0, done.stderr
    return folder / "fleetca.toml"


@pytest.fixture(scope="module")
def served(deployment: Path, hsm: SoftHsm) -> Iterator[Served]:
    logs = deployment.parent / "logs"
    logs.mkdir()
    with serving(deployment, logs / "serve.log", SOFTHSM2_CONF=str(hsm.configuration)) as running:
        yield running


@pytest.mark.req("REQ-KEY-004", "REQ-KEY-086")
def test_devices_get_certificates_signed_inside_the_token(served: Served, hsm: SoftHsm) -> None:
    assert served.works("pump-1")
    certificate = served.enrol("pump-2").certificate
    issuing = x509.load_pem_x509_certificate(served.settings.issuer("issuing").certificate.read_bytes())
    certificate.verify_directly_issued_by(issuing)
    key = issuing.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    point = f"04{numbers.x:064x}{numbers.y:064x}"
    assert point in hsm.inspect(LABEL, "--list-objects", "--type", "pubkey").replace(" ", "")
    assert "never extractable" in hsm.inspect(LABEL, "--list-objects", "--type", "privkey")


def test_R28_enrolment_says_503_while_the_token_is_out_and_goes_on_when_it_is_back(served: Served, hsm: SoftHsm) -> None:
    assert served.works("before")
    processes = served.children()
    hsm.pull_out()
    try:
        for attempt in range(3):
            refused = served.enrol(f"during-{attempt}")
            assert refused.status == 503, refused.body
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json["code"] == "token-absent"
    finally:
        hsm.put_back()
    eventually(lambda: served.works("after"))
    assert served.children() == processes


def test_what_the_token_did_not_sign_is_void_and_nothing_else_is(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleetca.cli.main", "doctor", "--settings", served.file],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "rests in a store of its own" in done.stdout + done.stderr


def test_a_profile_that_demands_hardware_keeps_the_signer_from_starting(deployment: Path, hsm: SoftHsm, tmp_path: Path) -> None:
    shipped = (ROOT / "config/profiles/issuing-ca.toml").read_text()
    own = shipped.replace('name = "issuing-ca"', 'name = "issuing-ca-hardware"\nminimum_protection = "hardware"')
    (deployment.parent / "profiles/issuing-ca-hardware.toml").write_text(own)
    changed = tmp_path / "fleetca.toml"
    changed.write_text(deployment.read_text())
    change(changed, 'id = "issuing"', 'id = "issuing"\nprofile = "issuing-ca-hardware"')
    content = changed.read_text()
    beside = deployment.parent / "hardware.toml"
    beside.write_text(content)
    said = fleetca("process", "signer", "--settings", beside, "--trial", hsm=hsm)
    assert said.returncode == 2, said.stderr
    assert "store-too-weak" in said.stderr
