"""`fleetca status` over a running deployment: what a gateway sees of its peers, with the root alone in its hands (REQ-KEY-024)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.interop.conftest import Demo


def status(demo: Demo, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "fleetca.cli.main", "status", *map(str, arguments), "--root", str(demo.root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.req("REQ-KEY-024")
@pytest.mark.parametrize("options", [(), ("--nonce",)], ids=["GET or POST", "with a nonce"])
def test_good_and_revoked_by_OCSP_with_the_issuing_CA_fetched(demo: Demo, options: tuple[str, ...]) -> None:
    code, said = status(demo, demo.good, *options)
    assert (code, said["verdict"], said["accepted"]) == (0, "good", True), said
    code, said = status(demo, demo.revoked, *options)
    assert (code, said["verdict"], said["accepted"]) == (8, "revoked", False)
    assert said["reason"]


def test_the_peer_of_a_TLS_connection(demo: Demo) -> None:
    code, said = status(demo, "--peer", urlsplit(demo.enroll_url).netloc)
    assert (code, said["verdict"]) == (0, "good"), said


def test_what_is_remembered_serves_when_nobody_answers(demo: Demo, tmp_path: Path) -> None:
    for certificate in (demo.good, demo.revoked):
        status(demo, certificate, "--memory", tmp_path / "memory", "--chain", demo.issuing)
    assert list((tmp_path / "memory").glob("*.json"))
    code, said = status(demo, demo.good, "--memory", tmp_path / "memory", "--chain", demo.issuing)
    assert (code, said["remembered"]) == (0, True)
