"""A software TPM for tests, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts import need


def _free_pair() -> int:
    """tpm2-tools look for the control channel on the port above."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@dataclass
class SoftTpm:
    folder: Path
    port: int = field(default_factory=_free_pair)
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
        for _ in range(200):
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            threading.Event().wait(0.02)
        raise AssertionError("swtpm does not answer")

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
