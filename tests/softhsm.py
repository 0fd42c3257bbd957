"""SoftHSM2 for tests: a folder of tokens for each test process, whose library can be told once only where they are."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.parts import need

PIN, SO_PIN = "pin of the tests", "so pin of the tests"


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """One folder of tokens."""

    module: Path
    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "softhsm2.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    def add(self, label: str) -> str:
        """A fresh token; returns its label."""
        self._run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN)
        return label

    def inspect(self, label: str, *arguments: str, pin: str = PIN) -> str:
        """What pkcs11-tool says, logged in."""
        return self._run(need("pkcs11-tool"), "--module", str(self.module), "--token-label", label, "--login", "--pin", pin, *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pull_out(self) -> None:
        """Take all tokens away; those who look find nothing."""
        self.tokens.rename(self.folder / "away")
        self.tokens.mkdir()

    def put_back(self) -> None:
        self.tokens.rmdir()
        (self.folder / "away").rename(self.tokens)


@cache
def softhsm() -> SoftHsm:
    """The tokens of this test process."""
    folder = Path(tempfile.mkdtemp(prefix="fleetca-softhsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = make(folder)
    os.environ["SOFTHSM2_CONF"] = str(made.configuration)
    return made


def make(folder: Path) -> SoftHsm:
    """Tokens in a folder of their own, for processes that are told by their environment."""
    module = Path(need("softhsm2"))
    need("softhsm2-util")
    made = SoftHsm(module, folder)
    made.tokens.mkdir(parents=True)
    made.configuration.write_text(f"directories.tokendir = {made.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    return made
