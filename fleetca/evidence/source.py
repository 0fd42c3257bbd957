"""What a pack is made of: a deployment's database, record and settings, and what was given besides. Edge: reads only; knows no part.

It asks no clock: the same database, record, settings and files give the same octets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ca.errors import Malformed
from ca.model import Checkpoint, Issuer, UnixTime
from ca.ports import RecordFiles
from ca.rules.leaf import canonical
from ca.store.reading import Reading
from config.settings import Settings
from fleetca.evidence import segment, verify
from fleetca.evidence.redaction import Redaction
from fleetca.evidence.segment import Segment
from fleetca.evidence.verify import Tally

File = tuple[str, Iterable[bytes]]


@dataclass(slots=True)
class Source:
    """All that a pack is made of."""

    settings: Settings
    version: str
    reading: Reading
    files: RecordFiles
    issuers: Sequence[Issuer]
    period: str
    checkpoint: Checkpoint
    tally: Tally
    segment: Segment
    redaction: Redaction
    since: Sequence[Checkpoint] = ()
    """Checkpoints that the auditor kept."""
    stamps: Sequence[tuple[Checkpoint, bytes]] = ()
    """Checkpoints with the time stamps that others gave for them (RFC 3161), by their size."""
    ceremonies: Sequence[Path] = ()
    stations: Sequence[Path] = ()
    matrix: Path | None = None
    doctor: Path | None = None
    checklist: Path | None = None
    absent: list[str] = field(default_factory=list)
    """What the part at work lacks."""

    @property
    def as_of(self) -> UnixTime:
        """The latest time that the record tells of, within the period or before it: what counts as now."""
        return min(self.segment.last_at, self.tally.end)

    def uuid(self, name: str) -> str:
        """A UUID that the record decides (RFC 9562 5.8)."""
        digest = hashlib.sha256(name.encode() + self.checkpoint.root).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"

    def leaves(self) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """The leaves of the period, once more: octets and object."""
        for body in segment.bodies(self.files, self.segment, self.checkpoint):
            leaf = json.loads(body)
            if self.tally.begin <= leaf["at"] < self.tally.end:
                yield body, leaf

    def events(self, name: str) -> File:
        """The leaves that a part repeats, as they stand in the record."""
        return name, (self.redaction.line(body) + b"\n" for body, leaf in self.leaves() if verify.place(leaf["kind"]) == name)


def document(value: Any) -> list[bytes]:
    """A JSON document in its one form."""
    return [canonical(value)]


def pieces(path: Path) -> Iterator[bytes]:
    """A file as it is."""
    with path.open("rb") as file:
        while octets := file.read(1 << 20):
            yield octets


def given(path: Path, what: str, made: str) -> Any:
    """What another command printed as JSON.

    Raises:
        Malformed: it is no JSON (`bad-report`).
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Malformed("bad-report", f"{path} is no {what}.", why=str(error), fix=f"Make it: {made}") from None
