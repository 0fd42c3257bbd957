"""What flows share: a signer's world at rest, and passphrases that cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.databases import sqlite_url
from tests.fakes.signer_world import World


@pytest.fixture(scope="session", autouse=True)
def _quick_passphrases() -> Iterator[None]:
    """scrypt is dear on purpose; what is tested here is not its price."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ca.keys.sealed_file._N", 1 << 8)
        yield


@pytest.fixture
def made_with() -> dict[str, Any]:
    """What the worlds of a module are made with: a module that wants something says so in a fixture of this name."""
    return {}


@pytest.fixture
def world(tmp_path: Path, made_with: dict[str, Any]) -> Iterator[World]:
    made = World(tmp_path, sqlite_url(tmp_path), **made_with)
    yield made
    made.close()


@pytest.fixture
def both(tmp_path: Path, database_url: str, made_with: dict[str, Any]) -> Iterator[World]:
    """A world on each database."""
    made = World(tmp_path, database_url, **made_with)
    yield made
    made.close()
