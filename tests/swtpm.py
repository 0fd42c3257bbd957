"""A software TPM for tests, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts import need
from tests.running import eventually, free_ports


@dataclass
class SoftTpm:
    folder: Path
    port: int = field(default_factory=free_ports)
    """tpm2-tools look for the control channel on the port above."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def device(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                need("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={self.folder}",
                "--server", f"type=tcp,port={self.port},disconnect", "--ctrl", f"type=tcp,port={self.port + 1}",
                "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self._answers, every=0.02)

    def _answers(self) -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tool(self, name: str, *arguments: str) -> str:
        """What a tool of tpm2-tools says."""
        environment = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:host=127.0.0.1,port={self.port}"}
        done = subprocess.run([need(name), *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def swtpm(folder: Path) -> Iterator[SoftTpm]:
    made = SoftTpm(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
