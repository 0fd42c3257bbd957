"""A root whose key is made on a PKCS#11 token by its ceremony, and judged by openssl (REQ-KEY-002, REQ-KEY-004, REQ-KEY-086)."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from ca.errors import Misconfigured, Unacceptable
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms
from tests import softhsm
from tests.parts import need
from tests.softhsm import PIN


@pytest.fixture
def room(tmp_path: Path) -> Path:
    hsm = softhsm.softhsm()
    label = hsm.add(uuid.uuid4().hex)
    created = deployment.create(tmp_path / "pki", deployment.Wanted(name="test", sheet="demo"), chance=SystemChance())
    for path in (created.sheet, created.csr):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    place = f'key = "pkcs11:token={label};object=root?module-path={hsm.module}"'
    (tmp_path / "credentials.toml").write_text(f'[made.root]\n{place}\npassphrase = "file:pin"\n')
    return tmp_path


def hold(room: Path, out: str = "out") -> Path:
    ceremonies.run(
        room / "demo.toml", out=room / out, passphrase=lambda: b"correct horse battery staple", confirm=lambda _: True,
        clock=SystemClock(), chance=SystemChance(), credentials=room / "credentials.toml",
    )  # fmt: skip
    return room / out


def test_a_ceremony_makes_its_root_inside_the_token(room: Path) -> None:
    openssl = need("openssl")
    out = hold(room)
    assert [path.name for path in out.glob("*.key")] == []
    label = (room / "credentials.toml").read_text().split("token=")[1].split(";")[0]
    assert "never extractable" in softhsm.softhsm().inspect(label, "--list-objects", "--type", "privkey")
    command = [openssl, "verify", "-x509_strict", "-CAfile", out / "root.pem", out / "issuing.pem"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().endswith("OK")
    assert ceremonies.verify(out).root == "root"


@pytest.mark.parametrize(
    ("algorithm", "demanded", "error", "code"),
    [
        pytest.param("ml-dsa-65", "memory", Unacceptable, "store-lacks-algorithm", id="a kind that the token lacks"),
        pytest.param("p384", "hardware", Misconfigured, "store-too-weak", id="a module where hardware is demanded"),
    ],
)
def test_what_the_token_lacks_is_said_before_anything_is_made(
    room: Path, algorithm: str, demanded: str, error: type[Exception], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from ca.model import ProfileName, Protection

    shipped = dict(forms.shipped_profiles())
    shipped[ProfileName("root")] = replace(shipped[ProfileName("root")], minimum_protection=Protection[demanded])
    monkeypatch.setattr(forms, "shipped_profiles", lambda: shipped)
    sheet = room / "demo.toml"
    lines = sheet.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("algorithm"))
    lines[place] = f'algorithm = "{algorithm}"'
    sheet.write_text("\n".join(lines))
    with pytest.raises(error) as refused:
        hold(room)
    assert refused.value.code == code  # type: ignore[attr-defined]
    label = (room / "credentials.toml").read_text().split("token=")[1].split(";")[0]
    assert softhsm.softhsm().inspect(label, "--list-objects").strip() == ""
    assert not (room / "out").exists() or list((room / "out").iterdir()) == []
