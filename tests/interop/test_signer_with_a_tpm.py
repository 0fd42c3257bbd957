"""A signer whose issuing key is in a TPM 2.0: it issues, says so while the TPM is away, and goes on when it is back (REQ-KEY-004)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms
from fleetca.importing import import_ceremony
from tests.parts import need
from tests.running import apart, command
from tests.swtpm import swtpm


@pytest.mark.req("REQ-KEY-004", "REQ-KEY-005")
def test_a_certificate_is_signed_by_a_key_in_the_tpm(tmp_path: Path) -> None:
    openssl = need("openssl")
    with swtpm(tmp_path / "tpm") as tpm:
        (tmp_path / "pki/secrets").mkdir(parents=True)
        password = tmp_path / "pki/secrets/tpm.password"
        password.write_text("password of the tests")
        password.chmod(0o600)
        wanted = deployment.Wanted(
            name="test", sheet="demo", key=f"tpm:0x81020001?simulator={tpm.device}", passphrase="file:secrets/tpm.password"
        )  # fmt: skip
        created = deployment.create(tmp_path / "pki", wanted, chance=SystemChance())
        ceremonies.run(
            created.sheet, out=created.outputs, passphrase=lambda: b"correct horse battery staple", confirm=lambda _: True,
            clock=SystemClock(), chance=SystemChance(),
        )  # fmt: skip
        settings = forms.read_settings(created.settings)
        import_ceremony(settings, created.outputs, clock=SystemClock(), chance=SystemChance())
        assert [path.name for path in (tmp_path / "pki/keys").iterdir()] == ["log.key"]
        with apart(created.settings, logs=tmp_path / "logs", roles=("signer",)):

            def issue(device: str) -> subprocess.CompletedProcess[str]:
                csr = tmp_path / f"{device}.csr"
                request = [openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/"]
                subprocess.run([*request, "-keyout", tmp_path / f"{device}.key", "-out", csr], check=True, capture_output=True)
                out = tmp_path / f"{device}.pem"
                return command("issue", csr, "--device", device, "--out", out, "--settings", created.settings)

            assert issue("pump-1").returncode == 0
            tpm.stop()
            away = issue("pump-2")
            assert away.returncode == 6, away.stderr
            assert "[tpm-absent]" in away.stderr
            tpm.start()
            assert issue("pump-3").returncode == 0
            listed = command("keys", "list", "--settings", created.settings).stdout
            assert "0x81020001" in listed
            assert " tpm " in listed
            checked = command("keys", "check", "--settings", created.settings)
            assert checked.returncode == 0, checked.stdout
    issuing = x509.load_pem_x509_certificate(settings.issuer("issuing").certificate.read_bytes())
    for device in ("pump-1", "pump-3"):
        x509.load_pem_x509_certificates((tmp_path / f"{device}.pem").read_bytes())[0].verify_directly_issued_by(issuing)
