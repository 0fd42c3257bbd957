"""How strong an algorithm is, and until when it counts: a table with its sources, and what it says of a CA that lives longer (REQ-KEY-060). Ring 1: pure.

Classical strength in bits is SP 800-57 part 1's. 112 bits are deprecated after 2030 and not allowed after 2035; what a quantum computer breaks is not
allowed after 2035, whatever its size (NIST IR 8547, initial public draft, tables 2 and 4: not final).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from ca.model import UnixTime


class Outlook(Enum):
    """What becomes of a signature with this algorithm within the life of what it signed."""

    holds = "holds"
    quantum = "quantum"
    """It may fall to a quantum computer: a successor with another algorithm is needed by then."""
    deprecated = "deprecated"
    over = "over"
    unknown = "unknown"


WHY: Final[Mapping[Outlook, str]] = {
    Outlook.quantum: "NIST IR 8547 (a draft) allows no elliptic curves and no RSA after 2035.",
    Outlook.deprecated: "112 bits of strength are deprecated after 2030 (NIST IR 8547, a draft).",
    Outlook.over: "112 bits of strength are not allowed after 2035.",
    Outlook.unknown: "Its strength is not in our table.",
}
"""What stands against a key whose signatures do not hold for that long."""


@dataclass(frozen=True, slots=True)
class Dates:
    """The last years in which an algorithm is deprecated nowhere, and allowed at all; None: no end is known."""

    strength: int
    well_until: int | None
    ends: int | None


TABLE: Final[Mapping[str, Dates]] = {
    "rsa-2048": Dates(112, 2030, 2035),
    **dict.fromkeys(("rsa-3072", "p256", "ed25519"), Dates(128, 2035, 2035)),
    "rsa-4096": Dates(140, 2035, 2035),
    "p384": Dates(192, 2035, 2035),
    "ml-dsa-44": Dates(128, None, None),
    "ml-dsa-65": Dates(192, None, None),
    "ml-dsa-87": Dates(256, None, None),
}


def outlook(algorithm: str, not_after: UnixTime) -> Outlook:
    """What the table says of a key that is believed until then."""
    dates = TABLE.get(algorithm)
    if dates is None:
        return Outlook.unknown
    # The last second of 9999 is in it, and the first of 10000 is in no calendar.
    year = datetime.fromtimestamp(min(not_after, 253_402_300_799), UTC).year
    if dates.ends is None or year <= (dates.well_until or dates.ends):
        return Outlook.holds
    if dates.strength >= 128:
        return Outlook.quantum
    return Outlook.over if year > dates.ends else Outlook.deprecated
