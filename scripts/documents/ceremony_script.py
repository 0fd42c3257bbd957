"""docs/how-to/ceremony-script.html: the printable script of the shipped sheet before witnesses, planned for a fixed day."""

from __future__ import annotations

from typing import Final

from ca.system import SystemChance
from config.sheet import shipped_sheet
from fleetca import ceremonies, ceremony_script, paper

_DAY: Final = 1_799_917_200  # 2027-01-14 09:00:00Z


def page() -> str:
    """The same every time: what is drawn or made for the plan alone is marked in it, not shown."""
    sheet = shipped_sheet("witnessed-root")
    form, _ = ceremonies.planned_day(sheet)
    return paper.html(ceremony_script.script(ceremonies.plan(sheet, at=_DAY, chance=SystemChance()), form))
