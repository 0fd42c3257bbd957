"""Whether there is anything to do, told without opening key or certificate: what a timer asks, ten times an hour. Standard library only.

When in doubt there is: the agent proper looks then.
"""

from __future__ import annotations

import json
from pathlib import Path

from ca.model import UnixTime

SLACK = 600
"""Seconds by which a clock may go back without anybody being wrong."""


def nothing_due(folder: Path, *, now: UnixTime) -> UnixTime | None:
    """When there will be something to do; None: now, or nobody knows."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        slot, saved, later = state["slot"], state["saved_at"], state["next_at"]
        in_use = (folder / "current").readlink().name
        pairs = {each.name for each in (folder / "pairs").iterdir()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if type(saved) is not int or type(later) is not int or state.get("told") is not True or state.get("failures") != 0:
        return None
    finished = slot == in_use and pairs == {in_use} and (folder / "pairs" / in_use / "reloaded").exists()
    return later if finished and saved - SLACK <= now < later else None
