"""A whole deployment, started once as a user starts it: `fleetca demo --json`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ca.der import pem
from tests.running import free_ports


class Demo:
    """The demo's JSON, its process, and what tests often need of them."""

    def __init__(self, document: Mapping[str, Any], process: subprocess.Popen[str]) -> None:
        self.document = document
        self.process = process
        self.root = Path(document["root"])
        self.issuing = Path(document["issuing"])
        self.chain = Path(document["chain"])
        self.good = Path(document["good"]["certificate"])
        self.revoked = Path(document["revoked"]["certificate"])
        self.settings = Path(document["settings"])
        self.ocsp_url = str(document["ocsp_url"])
        self.crl_url = str(document["crl_url"])
        self.enroll_url = str(document["enroll_url"])

    def cli(self, *arguments: str | Path, ok: bool = True) -> Any:
        """`fleetca ... --settings FILE --json`; its document."""
        command = [sys.executable, "-m", "fleetca.cli.main", *map(str, arguments), "--settings", str(self.settings), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo") / "here"
    process = subprocess.Popen(
        [sys.executable, "-m", "fleetca.cli.main", "demo", "--json", "--dir", str(folder), "--port-base", str(free_ports())],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        text = ""
        for line in process.stdout:
            text += line
            if line.rstrip() == "}":
                break
        document = json.loads(text or "{}")
        if "root" not in document:
            pytest.fail(f"fleetca demo ended with {process.wait(60)} before it was ready: {text}")
        yield Demo(document, process)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def crls(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The issuing CA's CRL and the root's, fetched from where the certificates say, as PEM files."""
    from fleetca.checks import fetch

    folder = tmp_path_factory.mktemp("crls")
    found = []
    for name, url in (("issuing", demo.crl_url), ("root", demo.crl_url.replace("issuing.crl", "root.crl"))):
        path = folder / f"{name}.crl"
        path.write_text(pem.pem(pem.CRL, fetch(url)))
        found.append(path)
    return found[0], found[1]
