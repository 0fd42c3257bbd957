"""The transcript of a ceremony while it is written: what was done already, and one line more for each step. Ring 4: knows ports and the transcript's rules.

A line is durable before what it announces is done; a torn last line, which a crash leaves, is written over by the next one.
"""

from __future__ import annotations

from typing import Any

from ca.model import IssuerId, UnixTime
from ca.ports import Archive, Clock
from ca.rules import transcript
from ca.rules.ceremony import Participant
from ca.rules.transcript import Record, Transcript


class Lines:
    """One transcript, from its first line to its seal."""

    def __init__(self, archive: Archive, clock: Clock) -> None:
        self._archive, self._clock = archive, clock
        self._file, self._size = transcript.FILE, 0
        self.done: list[Record] = []

    def begin(self, file: str) -> Transcript | None:
        """What was written in this file before; None where nothing was.

        Raises:
            Unacceptable: it was changed.
        """
        self._file = file
        written = self._archive.read(file)
        # A transcript without one whole line is what a crash left of the first: nothing was made yet.
        return transcript.read(written) if written is not None and b"\n" in written else None

    def go_on(self, before: Transcript) -> None:
        """Go on behind the last whole line."""
        self.done = list(before.records)
        self._size = sum(len(record.line) + 1 for record in before.records)

    def find(self, kind: str, act: IssuerId) -> Record | None:
        """The first line of a kind about an act."""
        return next((record for record in self.done if record.kind == kind and record.fields.get("act") == act), None)

    def signed_by(self, stage: str, act: IssuerId | None, who: Participant | None) -> bool:
        """Whether this was confirmed, by this person where one is given."""
        return any(
            record.fields["stage"] == stage
            and record.fields["act"] == act
            and (who is None or (record.fields["role"], record.fields["person"]) == (who.role, who.person))
            for record in self.done
            if record.kind == "confirmed"
        )

    def write(self, kind: str, at: UnixTime | None = None, **fields: Any) -> Record:
        """One line; durable when this returns."""
        made = transcript.record(self.done, kind, at=self._clock.now() if at is None else at, **fields)
        line = made.line + b"\n"
        self._archive.append(self._file, line, at=self._size)
        self._size += len(line)
        self.done.append(made)
        return made
