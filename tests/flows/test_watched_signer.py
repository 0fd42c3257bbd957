"""What the signer asks of its keys stands in its log: each rare call, and how many signatures (REQ-KEY-091)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from ca.der import pem
from fleetca import forms, signing
from fleetca.cli.main import fleetca
from tests.fakes.signer_world import Keypair
from tests.running import make_deployment


class Lines:
    """A log that is read back."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.said.append({"level": level, "event": event, **fields})

    def about_keys(self) -> set[tuple[str, str, str, str, int]]:
        return {
            (one["event"], one["level"], one["operation"], one["outcome"], one.get("count", 0))
            for one in self.said
            if one["event"].startswith("key-call")
        }


@pytest.mark.req("REQ-KEY-091")
def test_each_call_of_the_signer_to_its_keys_stands_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = forms.read_settings(make_deployment(tmp_path / "here"))
    lines = Lines()
    monkeypatch.setattr(signing, "log", lines)

    def issue() -> None:
        """While the signer is up: three certificates."""
        for number in range(3):
            request = tmp_path / f"{number}.csr"
            request.write_text(pem.pem(pem.REQUEST, Keypair().csr()))
            done = CliRunner().invoke(fleetca, ["issue", str(request), "--device", f"pump-{number}", "--settings", str(settings.file)])
            assert done.exit_code == 0, done.output

    # Told to stop as soon as it is up and has done that.
    process = SimpleNamespace(wait_for_others=lambda: None, ready=issue, stopping=SimpleNamespace(wait=lambda _seconds: True))
    signing.signer(settings, cast("Any", process))
    assert {
        ("key-called", "info", "ability", "ok", 0),
        ("key-called", "info", "open", "ok", 0),
        ("key-calls", "info", "ability", "ok", 1),
        ("key-calls", "info", "open", "ok", 1),
        ("key-calls", "info", "sign", "ok", 3),
    } == lines.about_keys()
