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


@dataclass(frozen=True)
class TpmCa:
    """The CA of a maker of software TPMs, with a root above it, as swtpm_setup makes it."""

    folder: Path

    def endorse(self, state: Path) -> None:
        """Make a TPM whose NV memory holds endorsement certificates (RSA-2048 and P-384)."""
        state.mkdir(parents=True)
        setup, ca = self.folder / "setup.conf", self.folder / "ca.conf"
        issued = self.folder / "ca"
        names = {
            "statedir": issued,
            "signingkey": issued / "signkey.pem",
            "issuercert": issued / "issuercert.pem",
            "certserial": issued / "serial",
        }
        ca.write_text("".join(f"{name} = {path}\n" for name, path in names.items()))
        options = self.folder / "ca.options"
        options.write_text("--platform-manufacturer Fleet\n--platform-version 1\n--platform-model Board\n")
        lines = (
            f"create_certs_tool = {need('swtpm_localca')}",
            f"create_certs_tool_config = {ca}",
            f"create_certs_tool_options = {options}",
        )
        setup.write_text("\n".join((*lines, "active_pcr_banks = sha256", "")))
        command = [need("swtpm_setup"), "--tpm2", "--tpmstate", str(state), "--create-ek-cert", "--config", str(setup), "--overwrite"]
        for _ in range(3):  # it waits for a TPM of its own, and not for long
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode == 0:
                return
        raise AssertionError(made.stdout + made.stderr)

    @property
    def certificates(self) -> list[Path]:
        """The CA and its root (PEM)."""
        return [self.folder / "ca" / name for name in ("issuercert.pem", "swtpm-localca-rootca-cert.pem")]
