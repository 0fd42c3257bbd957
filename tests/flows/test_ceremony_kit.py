"""The kit: what runs here is what is carried, it installs without a network, and a changed file is noticed by the system's own tools and by ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.errors import Conflict, FleetcaError, Misconfigured, Unacceptable
from fleetca import ceremonies, ceremony_host, ceremony_kit, ceremony_wheels
from tests.parts import need

SHEETS = Path(__file__).parents[2] / "config/ceremonies"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit") / "kit"
    made, missing = ceremonies.make_kit(SHEETS / "root-year.toml", folder)
    assert made.software_sha256 == ceremony_host.software_sha256()
    assert any("root-responder.csr" in each for each in missing)
    return folder


def test_it_holds_the_sheet_what_it_names_and_everything_that_is_needed(kit: Path) -> None:
    assert (kit / "sheet/root-year.toml").read_bytes() == (SHEETS / "root-year.toml").read_bytes()
    assert (kit / "sheet/example/root.cer").read_bytes() == (SHEETS / "example/root.cer").read_bytes()
    names = {path.name.partition("-")[0].lower() for path in (kit / "wheels").iterdir()}
    assert {"fleetca", "cryptography", "pydantic", "click", "segno", "shamir_mnemonic"} <= names
    assert not names & {"pytest", "moto", "ruff"}
    sheet, count = kit / "requirements.txt", len(list((kit / "wheels").iterdir()))
    assert sheet.read_text().count("--hash=sha256:") == count


def test_what_is_carried_is_what_runs(kit: Path) -> None:
    (wheel,) = (kit / "wheels").glob("fleetca-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, octets in ceremony_host.software_files():
            assert archive.read(name) == octets, name


def test_the_same_files_are_the_same_wheels(kit: Path) -> None:
    needed = ceremony_wheels._needed()
    for name in ("click", "cffi"):
        made = ceremony_wheels._packed(needed[name])
        assert (kit / "wheels" / made.file).read_bytes() == made.octets
    ours = needed["fleetca"]
    assert ceremony_wheels._packed(ours).octets == ceremony_wheels._packed(ours).octets


@pytest.mark.timeout(300)
def test_it_installs_and_runs_without_a_network(kit: Path, tmp_path: Path) -> None:
    need("unshare")
    there = tmp_path / "medium"
    shutil.copytree(kit, there)
    line = f"PYTHON={sys.executable} ./install && env/bin/fleetca ceremony plan sheet/root-year.toml --json"
    # Nothing of this checkout may help.
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-euc", line], cwd=there, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    digest = ceremony_kit.check(kit).digest.hex()
    assert digest in done.stdout
    assert ceremony_kit.check(there).digest.hex() == digest
    document = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert len(document["acts"]) == 28


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


HARM: list[object] = [
    pytest.param(lambda kit: _append(kit / "sheet/root-year.toml"), id="the sheet was changed"),
    pytest.param(lambda kit: _append(next((kit / "wheels").glob("fleetca-*.whl"))), id="a wheel was changed"),
    pytest.param(lambda kit: _append(kit / "install"), id="install was changed"),
    pytest.param(lambda kit: (kit / "requirements.txt").unlink(), id="a file is missing"),
    pytest.param(lambda kit: (kit / "wheels/sitecustomize-1-py3-none-any.whl").write_bytes(b"x"), id="a wheel was added"),
]


@pytest.mark.parametrize("harm", HARM)
def test_a_kit_that_was_touched_is_refused(kit: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    harm(tmp_path / "kit")
    with pytest.raises(Unacceptable) as caught:
        ceremony_kit.check(tmp_path / "kit")
    assert caught.value.code == "kit-changed"


@pytest.mark.parametrize("harm", HARM[:2])
def test_its_own_install_refuses_it_too(kit: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    harm(tmp_path / "kit")
    done = subprocess.run(["sh", "./install"], cwd=tmp_path / "kit", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "FAILED" in done.stdout
    assert not (tmp_path / "kit/env").exists()


def _planted(kit: Path) -> None:
    """A module that `python -m venv` would run in place of its own."""
    (kit / "venv").mkdir()
    (kit / "venv/__init__.py").touch()
    (kit / "venv/__main__.py").write_text(f"open({str(kit.parent / 'ran')!r}, 'w')\n")


def _poisoned(kit: Path) -> None:
    (kit / "env/lib").mkdir(parents=True)
    (kit / "env/lib/site.pth").write_text("import os\n")


@pytest.mark.parametrize(
    ("harm", "names"),
    [
        pytest.param(_planted, "venv/__main__.py", id="a module beside it"),
        pytest.param(_poisoned, "env/lib/site.pth", id="an environment that is there already"),
        pytest.param(lambda kit: (kit / "wheels/more").symlink_to("/etc"), "wheels/more", id="a link"),
    ],
)
def test_what_was_put_beside_it_later_is_refused_and_never_runs(
    kit: Path, tmp_path: Path, harm: Callable[[Path], object], names: str
) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    harm(tmp_path / "kit")
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["sh", "./install"], cwd=tmp_path / "kit", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert names in done.stdout.splitlines()
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "kit/env/bin").exists()


def test_its_whole_list_rewritten_is_another_digest_than_the_one_on_paper(kit: Path, tmp_path: Path) -> None:
    shutil.copytree(kit, tmp_path / "kit")
    sheet = tmp_path / "kit/sheet/root-year.toml"
    _append(sheet)
    sums = tmp_path / "kit/SHA256SUMS"
    lines = sums.read_text().splitlines()
    fresh = subprocess.run(
        ["sha256sum", "sheet/root-year.toml"], cwd=tmp_path / "kit", capture_output=True, text=True, check=True
    ).stdout.strip()
    sums.write_text("".join(f"{fresh if line.endswith('sheet/root-year.toml') else line}\n" for line in lines))
    assert ceremony_kit.check(tmp_path / "kit").digest != ceremony_kit.check(kit).digest


def test_a_folder_that_holds_something_is_no_place_for_a_kit(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(Conflict):
        ceremonies.make_kit(SHEETS / "demo.toml", tmp_path)


def test_no_kit_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        ceremony_kit.check(tmp_path)
    assert caught.value.code == "no-kit"


def test_a_sheet_whose_files_lie_elsewhere_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = (SHEETS / "partner.toml").read_text().replace("example/", f"{SHEETS}/example/")
    (tmp_path / "in/partner.toml").write_text(text)
    with pytest.raises(Misconfigured) as caught:
        ceremonies.make_kit(tmp_path / "in/partner.toml", tmp_path / "kit")
    assert caught.value.code == "kit-outside"


def test_an_installed_file_that_was_changed_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceremony_wheels, "_record_hash", lambda octets: "another")
    with pytest.raises(FleetcaError) as caught:
        ceremony_wheels.wheels()
    assert caught.value.code == "wheel-changed"
