"""What the doctor's checks say, and what they all look at. Edge: words only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ca.model import Issuer
from ca.ports import Clock
from config.settings import Settings


class Level(Enum):
    """How much a verdict matters."""

    ok = "ok"
    note = "note"
    """True, and worth knowing; nothing to mend."""
    finding = "finding"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check says."""

    level: Level
    what: str
    why: str = ""
    fix: str = ""


def ok(what: str) -> Verdict:
    return Verdict(Level.ok, what)


def note(what: str, why: str = "", fix: str = "") -> Verdict:
    return Verdict(Level.note, what, why, fix)


def bad(what: str, why: str = "", fix: str = "") -> Verdict:
    return Verdict(Level.finding, what, why, fix)


@dataclass(slots=True)
class Patient:
    """The deployment under examination; what several checks want is found out once."""

    settings: Settings
    clock: Clock
    issuers: Sequence[Issuer]
    signer: dict[str, Any] | None
    """The signer's health; None when it does not answer."""
    status: dict[str, Any] | None
    """A status worker's health; None when it does not answer."""

    @property
    def runs(self) -> bool:
        """Whether anything of it runs here."""
        return self.signer is not None or self.status is not None

    def missing(self, what: str, why: str) -> Verdict:
        """Not running at all is a state; half of it is a fault."""
        fix = f"fleetca serve --settings {self.settings.file}"
        return bad(what, why, fix) if self.runs else note(what, why, fix)
