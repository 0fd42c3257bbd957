"""Enrolment and renewal beside rivals: what a service gives, and what a device pays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import world_agent
import world_enrol


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    yield from world_enrol.rows(quick=quick, missing=missing, scratch=scratch)
    yield from world_agent.rows(quick=quick, missing=missing)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk of the repository, where the rival's database is too."""
    with tempfile.TemporaryDirectory(prefix="fleetca-bench-", dir=measure.JUDGES) as name:
        yield Path(name)
