"""The wheel holds exactly our packages, what they ship as data, and no private key."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("fleetca-*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_top_level_names_are_exactly_ours(names: list[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ca", "config", "crl", "enroll", "fleetca", "ocsp"}


def test_what_is_shipped_as_data_is_inside(names: list[str]) -> None:
    for folder in ("config/profiles", "config/ceremonies", "config/mappings"):
        here = {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.toml")}
        assert here
        assert here <= set(names)
    assert any(name.startswith("ca/store/migrations/versions/") for name in names)


def test_no_key_and_no_test_is_inside(names: list[str]) -> None:
    assert not [name for name in names if name.endswith((".pem", ".key", ".db")) or name.startswith(("tests/", "scripts/"))]
