"""The transcript of a ceremony: one JSON line a step, each holding the hash of the line before, the last one signed. Ring 1: pure.

    line   = canonical JSON (sorted keys, no spaces, UTF-8), ended by one newline
    every line has  seq (0, 1, 2 ...), at (Unix seconds, never going back), kind, previous (SHA-256 of the line before; zeros for the first)
    seal   = the last line; `signature` is the root key's over CONTEXT || SHA-256 of this line without `signature`

So a line cannot be edited, dropped, moved or added afterwards without the root key, and a transcript that was cut has no seal. Knows
nothing of files, keys or what the steps did; `ca.rules.ceremony` judges that.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ca.der.algorithms import load_public_key, verify
from ca.errors import ClockUntrusted, FleetcaError, Unacceptable
from ca.model import Digest, UnixTime
from ca.rules.leaf import canonical

CONTEXT: Final = b"fleetca ceremony transcript v1\0"
"""Begins with no DER tag of ours, so that a signature over a transcript can never be one over a certificate or CRL."""
FILE: Final = "transcript.jsonl"

_FIRST: Final = "00" * 32
_OURS: Final = frozenset({"seq", "at", "kind", "previous"})


@dataclass(frozen=True, slots=True)
class Record:
    """One line, without its newline."""

    line: bytes
    seq: int
    at: UnixTime
    kind: str
    fields: Mapping[str, Any]

    @property
    def digest(self) -> Digest:
        """What the next line holds as `previous`."""
        return Digest(hashlib.sha256(self.line).digest())


@dataclass(frozen=True, slots=True)
class Transcript:
    """All whole lines, chain checked."""

    records: tuple[Record, ...]
    torn: int
    """Octets after the last newline: what a crash left of a line. None of it counts."""

    @property
    def sealed(self) -> bool:
        """Whether its last line is a seal."""
        return bool(self.records) and self.records[-1].kind == "seal"

    @property
    def digest(self) -> Digest:
        """Of the last line, and so of everything."""
        return self.records[-1].digest

    def of(self, kind: str, act: str | None = None) -> tuple[Record, ...]:
        """The lines of a kind, for one act or all."""
        return tuple(record for record in self.records if record.kind == kind and (act is None or record.fields.get("act") == act))


def record(before: Sequence[Record], kind: str, *, at: UnixTime, **fields: Any) -> Record:
    """The next line.

    Raises:
        ClockUntrusted: `at` lies before the line before.
    """
    last = before[-1] if before else None
    if last is not None and at < last.at:
        raise ClockUntrusted(
            "clock-went-back",
            "The clock went back during the ceremony.",
            why=f"The last step was at {last.at}, now it is {at}.",
            fix="Set the clock right (UTC), then run the same command again.",
        )
    seq = len(before)
    line = canonical({**fields, "seq": seq, "at": at, "kind": kind, "previous": last.digest.hex() if last else _FIRST})
    return Record(line, seq, at, kind, fields)


def sealed_octets(before: Sequence[Record], *, at: UnixTime, **fields: Any) -> bytes:
    """What the seal's signature is over: everything before it, by the chain, and its own other fields."""
    return CONTEXT + record(before, "seal", at=at, **fields).digest


def read(octets: bytes) -> Transcript:
    """Read a transcript and check its chain.

    Raises:
        Unacceptable: a line is not ours, or the chain does not hold (`transcript-broken`); names the line.
    """
    *lines, rest = octets.split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        records.append(_read_line(line, number, records))
    return Transcript(tuple(records), len(rest))


def _broken(number: int, why: str) -> Unacceptable:
    return Unacceptable(
        "transcript-broken",
        f"Line {number} of the transcript is not what the ceremony wrote.",
        why=why,
        fix="Take the transcript from another copy; if no copy holds, the outputs must not be used.",
    )


def _read_line(line: bytes, number: int, before: Sequence[Record]) -> Record:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        raise _broken(number, "It is not JSON.") from None
    if not isinstance(body, dict) or not set(body) >= _OURS or not isinstance(body["kind"], str) or type(body["at"]) is not int:
        raise _broken(number, "It lacks one of seq, at, kind, previous.")
    if canonical(body) != line:
        raise _broken(number, "It is not in the one form that such lines have.")
    if body["seq"] != number - 1:
        raise _broken(
            number, f"It says it is line {body['seq'] + 1 if type(body['seq']) is int else '?'}: lines were dropped, added or moved."
        )
    if body["previous"] != (before[-1].digest.hex() if before else _FIRST):
        raise _broken(number - 1 if before else 1, "The next line holds the hash of another line in its place.")
    if before and body["at"] < before[-1].at:
        raise _broken(number, "Its time lies before that of the line before.")
    if before and before[-1].kind == "seal":
        raise _broken(number, "It comes after the seal.")
    return Record(line, number - 1, body["at"], body["kind"], {key: value for key, value in body.items() if key not in _OURS})


def text_of(octets: bytes) -> str:
    """Octets as they stand in a line."""
    return base64.b64encode(octets).decode()


def octets_of(text: str) -> bytes:
    """Octets from a line.

    Raises:
        ValueError: not base64 in its one form: unused bits may hold nothing, or a changed line could pass for the same.
    """
    octets = base64.b64decode(text, validate=True)
    if text_of(octets) != text:
        raise ValueError("This is not base64 in its one form.")
    return octets


def verify_seal(transcript: Transcript, spki: bytes) -> None:
    """Check that the transcript is complete and signed by this key.

    Raises:
        Unacceptable: it has no seal (`transcript-incomplete`), or the seal is not this key's (`transcript-seal`).
    """
    if not transcript.sealed or transcript.torn:
        raise Unacceptable(
            "transcript-incomplete",
            "The transcript has no seal at its end.",
            why="The ceremony was not finished, or its end was cut off.",
            fix="Finish it: run fleetca ceremony run again with the same sheet and folder.",
        )
    seal = transcript.records[-1]
    try:
        fields = dict(seal.fields)
        signature = octets_of(fields.pop("signature"))
        verify(load_public_key(spki), signature, sealed_octets(transcript.records[:-1], at=seal.at, **fields))
    except (FleetcaError, KeyError, TypeError, ValueError, IndexError):
        raise Unacceptable(
            "transcript-seal",
            "The transcript's seal does not hold.",
            why="It was not made by the root key over these lines.",
            fix="Take the transcript from another copy; if no copy holds, the outputs must not be used.",
        ) from None
