"""The benchmark in its quick form: that it runs, checks every answer and writes what it promises. It proves no figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts import need, refuse
from tests.running import alone_with

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1020)
FIELDS = {"contest", "rival", "ratio", "target", "better", "rounds", "spread", "ours", "theirs", "unit"}


def bench(name: str, folder: Path) -> dict[str, Any]:
    file = folder / f"{name}.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench"), name, "--quick", "--json", str(file)]
    with alone_with("bench"):  # its ports are its own
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=480)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_contest_of_issuing_runs_and_every_row_is_whole(tmp_path: Path) -> None:
    result = bench("issue", tmp_path)
    assert {"machine", "versions", "missing", "rows"} <= result.keys()
    for row in result["rows"]:
        assert row.keys() == FIELDS
        assert row["better"] in {"higher", "lower"}
        assert row["rounds"] >= 3
        assert row["spread"][0] <= row["spread"][1]
        assert min(row["ratio"], row["ours"], row["theirs"], row["target"]) > 0
    assert {row["unit"] for row in result["rows"]} >= {"ms", "answers/s"}
    if result["missing"]:
        refuse(f"left out: {result['missing']}")
    assert sum("django-ca" in row["rival"] for row in result["rows"]) == 2


def test_the_contest_of_ocsp_runs_and_every_row_is_whole(tmp_path: Path) -> None:
    for part in ("wrk", "nginx", "cfssl", "openssl"):
        need(part)
    result = bench("ocsp", tmp_path)
    for row in result["rows"]:
        assert row.keys() == FIELDS
        assert row["rounds"] >= 3
        assert min(row["ratio"], row["ours"], row["theirs"], row["target"]) > 0
    if result["missing"]:
        refuse(f"left out: {result['missing']}")
    rivals = " ".join(row["rival"] for row in result["rows"])
    assert all(rival in rivals for rival in ("nginx", "cfssl", "django-ca", "openssl ocsp"))


def test_the_contest_of_enrolling_runs_and_shows_what_a_renewal_is_made_of(tmp_path: Path) -> None:
    result = bench("enrol", tmp_path)
    found = [row for row in result["rows"] if "certbot" in row["rival"]]
    assert {row["unit"] for row in found} == {"ms", "MiB"}
    assert all(row.keys() == FIELDS for row in result["rows"])
    est = [row for row in result["rows"] if "certbot" not in row["rival"]]
    assert all(row["rounds"] >= 3 and min(row["ratio"], row["ours"], row["theirs"], row["target"]) > 0 for row in est)
    words = " ".join(row["contest"] + " " + row["rival"] for row in est)
    assert all(part in words for part in ("TLS:", "DER:", "commit:", "CSR verify + sign + handshake"))
    if result["missing"]:
        refuse(f"left out: {result['missing']}")
    assert "django-ca" in words


def test_the_contest_of_the_line_runs_and_every_unit_has_its_certificate(tmp_path: Path) -> None:
    result = bench("line", tmp_path)
    assert [row.keys() for row in result["rows"]] == [FIELDS, FIELDS]
    assert all(row["unit"] == "certificates/s" and row["target"] == 0.9 for row in result["rows"])


def test_the_contest_of_crls_runs_and_every_output_was_read_entry_by_entry(tmp_path: Path) -> None:
    for part in ("openssl", "cfssl"):
        need(part)
    result = bench("crl", tmp_path)
    assert len(result["rows"]) >= 5
    assert not result["missing"]
    for row in result["rows"]:
        assert row.keys() == FIELDS
        assert min(row["ratio"], row["ours"], row["theirs"], row["target"]) > 0
    rivals = " ".join(row["rival"] for row in result["rows"])
    assert all(rival in rivals for rival in ("openssl ca -gencrl", "cfssl gencrl", "cryptography", "SHA-256, write, fsync"))
    about = " ".join(row["contest"] for row in result["rows"])
    assert all(what in about for what in ("the gate", "peak memory", "128 shards", "time per entry", "one more revocation", "ml-dsa-65"))


@pytest.mark.full
def test_the_contest_of_mass_revocation_runs_while_others_enrol_and_ask(tmp_path: Path) -> None:
    need("openssl")
    result = bench("revoke", tmp_path)
    assert not result["missing"]
    assert all(row.keys() == FIELDS and row["ours"] > 0 for row in result["rows"])
    about = " ".join(row["contest"] for row in result["rows"])
    assert all(what in about for what in ("by one query", "to a CRL with all", "enrolments beside", "OCSP answers beside"))
