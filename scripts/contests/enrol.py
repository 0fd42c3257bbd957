"""Enrolment and renewal beside rivals: what a device pays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import world_agent


def rows(*, quick: bool, missing: list[str]) -> Iterator[dict[str, Any]]:
    yield from world_agent.rows(quick=quick, missing=missing)
