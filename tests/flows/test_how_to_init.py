"""The commands of docs/how-to/init.md work as they stand there, in their order."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/how-to/init.md"


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    text = PAGE.read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 5
    (tmp_path / "root.passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "root.passphrase").chmod(0o600)
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "fleetca"
        done = subprocess.run(
            [sys.executable, "-m", "fleetca.cli.main", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    # The yearly sheet, run where the root is.
    (yearly,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "outputs/root-crl-2.toml").write_text(yearly)
    run = "ceremony run outputs/root-crl-2.toml --out second --passphrase-file root.passphrase --yes"
    for arguments in (
        shlex.split(run),
        ["ceremony", "verify", "second", "--root", "outputs/root.pem"],
        ["import", "second", "--settings", "fleetca/fleetca.toml"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "fleetca.cli.main", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
