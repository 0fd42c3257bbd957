"""What a process tells those who started it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fleetca.process import Process


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_who_started_it_hears_that_it_is_ready_by_descriptor_and_as_systemd_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"\0fleetca-test-{os.getpid()}"
    ready, told = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        Process(ready_fd=told).ready()
        assert notify.recv(64) == b"READY=1"
    assert os.read(ready, 1) == b"1"
    os.close(ready)


def test_a_listener_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Process().ready()
