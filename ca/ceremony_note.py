"""What people remark during a ceremony: a deviation from the script, an observation. A line of the transcript like any other. Ring 4."""

from __future__ import annotations

from ca.errors import Conflict, Malformed, NotFound
from ca.ports import Archive, Clock
from ca.rules import transcript
from ca.rules.transcript import Record

LONGEST = 1000


def add_note(archive: Archive, text: str, *, clock: Clock, file: str = transcript.FILE) -> Record:
    """Write a remark into the transcript of a ceremony that has begun and is not finished.

    Raises:
        Malformed: no text, too long, or with characters that do not print (`bad-note`).
        NotFound: no ceremony has begun there (`no-transcript`).
        Conflict: it is finished (`ceremony-finished`).
        Unacceptable: the transcript does not hold (`transcript-broken`).
        ClockUntrusted: the clock went back.
    """
    if not 0 < len(text.strip()) <= LONGEST or not all(character.isprintable() for character in text):
        raise Malformed("bad-note", f"A note is one line of 1 to {LONGEST} characters.", fix="Write it anew, or write several notes.")
    octets = archive.read(file)
    if octets is None or b"\n" not in octets:
        raise NotFound("no-transcript", "No ceremony has begun in this folder.", fix="Give the folder of fleetca ceremony run --out.")
    said = transcript.read(octets)
    if said.sealed:
        raise Conflict(
            "ceremony-finished",
            "The ceremony in this folder is finished, and its transcript sealed.",
            why="Nothing can be added.",
            fix="Write it on the paper script, and keep that with the folder.",
        )
    made = transcript.record(said.records, "note", at=clock.now(), text=text.strip())
    archive.append(file, made.line + b"\n", at=sum(len(record.line) + 1 for record in said.records))
    return made
