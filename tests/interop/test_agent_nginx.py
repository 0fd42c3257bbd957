"""A real nginx under load whose certificate the agent keeps: no handshake fails while it is renewed."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.model import DeviceId, Name, NameKind, ProfileName, TokenRequest
from ca.system import SystemClock
from tests.fakes.site import Site
from tests.parts import need
from tests.running import eventually, free_ports

CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {identity}/current/certificate.pem;
        ssl_certificate_key {identity}/current/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200 "here\\n"; }}
    }}
}}
"""


class Load:
    """Clients that ask again and again, each time on a new connection that checks the certificate."""

    def __init__(self, port: int, root: Path, *, threads: int) -> None:
        self.port, self.answered, self.failures = port, 0, list[str]()
        self.serials: dict[str, None] = {}
        self._context = ssl.create_default_context(cafile=root)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.wait(0.01):
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.port), 60) as plain,
                    self._context.wrap_socket(plain, server_hostname="localhost") as tls,
                ):
                    tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while octets := tls.recv(4096):
                        answer += octets
                    shown: Any = tls.getpeercert()
                assert answer.endswith(b"here\n"), answer
                with self._lock:
                    self.answered += 1
                    self.serials[shown["serialNumber"]] = None
            except (OSError, AssertionError) as error:
                with self._lock:
                    self.failures.append(repr(error))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    "lifetime, times",
    [
        pytest.param(30, 3, id="3 times with 30 seconds", marks=pytest.mark.timeout(600)),
        pytest.param(120, 20, id="20 times with 2 minutes", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
def test_nginx_under_load_renews_with_no_failed_handshake(site: Site, tmp_path: Path, lifetime: int, times: int) -> None:
    need("nginx")
    need("root")
    site.rest.clock.now = SystemClock().now  # type: ignore[method-assign]
    profiles: Any = site.rest.door.policy.profiles
    name = ProfileName("service")
    profiles[name] = replace(profiles[name], lifetime=lifetime, max_lifetime=lifetime, backdate=2, grace=5)
    request = TokenRequest(site.rest.door.local(), DeviceId("gateway-9"), name, (Name(NameKind.dns, "localhost"),), 3600)
    token = tmp_path / "token"
    token.write_text(site.rest.door.create_token(request).text)
    identity, port = tmp_path / "identity", free_ports()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, identity=identity, port=port))
    agent = [sys.executable, "-m", "fleetca.cli.main", "agent"]
    environment = {**os.environ, "FLEETCA_AGENT_DIR": str(identity)}
    # Before there is an nginx nothing can be reloaded: the hook fails, and is tried again.
    subprocess.run(
        [*agent, "enrol", "--url", site.service.url, "--root", site.service.root, "--token-file", token, "--key", "plain",
         "--reload", f"nginx:{configuration}"], env=environment, check=True, capture_output=True,
    )  # fmt: skip
    nginx = subprocess.Popen(["nginx", "-c", configuration, "-p", tmp_path])
    keeper = None
    load = None
    try:
        eventually(lambda: listens(port))
        keeper = subprocess.Popen([*agent, "run"], env=environment, stderr=subprocess.PIPE, text=True)
        load = Load(port, site.service.root, threads=3)
        eventually(lambda: len(load.serials) > times, within=2 * (times + 1) * lifetime, every=0.5)
        load.stop()
        keeper.send_signal(signal.SIGTERM)
        _, said = keeper.communicate(timeout=60)
    finally:
        for process in (keeper, nginx):
            if process is not None:
                process.terminate()
                process.wait(60)
        if load is not None:
            load.stop()
    assert load.failures == []
    assert load.answered > 50 * times
    assert keeper.returncode == 0
    assert "failed" not in said.replace("hook-failed", "")


def test_the_shipped_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    tool = need("systemd-analyze")
    folder = Path(__file__).parents[2] / "config/deployments"
    for unit in sorted(folder.glob("fleetca-agent*")):
        text = unit.read_text().replace("/usr/local/bin/fleetca", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    assert {path.name for path in tmp_path.iterdir()} == {"fleetca-agent@.service", "fleetca-agent@.timer", "fleetca-agent-loop@.service"}
    for unit in sorted(tmp_path.iterdir()):
        done = subprocess.run([tool, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert unit.name not in done.stderr, done.stderr
