"""What wiring itself makes up."""

from __future__ import annotations

import os
import socket

import pytest

from fleetca import wiring


def test_R13_two_publishers_with_one_host_name_and_process_id_are_two_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers: whoever names the lease's holder keeps its fence, so equal names would let both publish."""
    monkeypatch.setattr(socket, "gethostname", lambda: "publisher")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert wiring._holder("publisher") != wiring._holder("publisher")
