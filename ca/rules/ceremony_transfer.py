r"""Octets over an air gap as text that fits QR codes: a file in parts, each checked by itself, read back in any order. Ring 1: pure.

    FCA1:KIND:NUMBER:COUNT:DIGEST:PAYLOAD:CHECK

    KIND      csr, certificate, crl, digest, transcript, file; in capitals
    NUMBER    of this part, from 1; COUNT of all parts
    DIGEST    the first 16 hex digits (in capitals) of the SHA-256 of the whole, the same in every part
    PAYLOAD   base32 without padding (RFC 4648 6)
    CHECK     the first 8 hex digits of the SHA-256 of everything before it: a misread part is named, not used

Only characters of the QR alphanumeric mode stand in it (ISO/IEC 18004 7.4.4), which holds half as much again as octets would. Whoever reads
the parts compares the whole SHA-256 on both sides; the digest in the parts is against mix-ups, not against attackers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ca.errors import Malformed, Unacceptable

KINDS: Final = ("csr", "certificate", "crl", "digest", "transcript", "file")
PART_OCTETS: Final = 500
"""A part of 500 octets is a QR code of version 19 or so: read off a screen without trouble."""
MOST_OCTETS: Final = 256 * 1024

_FORM: Final = re.compile(r"FCA1:([A-Z]{1,12}):(\d{1,4}):(\d{1,4}):([0-9A-F]{16}):([A-Z2-7]+):([0-9A-F]{8})")


@dataclass(frozen=True, slots=True)
class Whole:
    """What came over."""

    kind: str
    octets: bytes

    @property
    def sha256(self) -> bytes:
        """What both sides compare."""
        return hashlib.sha256(self.octets).digest()


def parts(kind: str, octets: bytes, *, size: int = PART_OCTETS) -> tuple[str, ...]:
    """The parts of a file.

    Raises:
        Unacceptable: it is empty or too large for this (`too-large`).
        Malformed: an unknown kind (`bad-kind`).
    """
    if kind not in KINDS:
        raise Malformed("bad-kind", f"There is no kind {kind!r}.", why=f"Known are {', '.join(KINDS)}.")
    if not 0 < len(octets) <= MOST_OCTETS:
        raise Unacceptable(
            "too-large", f"{len(octets)} octets do not go over QR codes.", why=f"1 to {MOST_OCTETS} do.", fix="Carry the file on a medium."
        )
    count = -(-len(octets) // size)
    whole = hashlib.sha256(octets).hexdigest()[:16].upper()
    made = []
    for number in range(count):
        payload = base64.b32encode(octets[number * size : (number + 1) * size]).decode().rstrip("=")
        text = f"FCA1:{kind.upper()}:{number + 1}:{count}:{whole}:{payload}"
        made.append(f"{text}:{_check(text)}")
    return tuple(made)


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8].upper()


def collected(lines: Iterable[str]) -> Whole:
    """The file whose parts these lines hold: in any order, repeated or not, between other text.

    Raises:
        Malformed: a line begins like a part and is misread (`part-misread`), or there is none (`no-parts`).
        Unacceptable: parts are missing (`parts-missing`), of two files (`parts-mixed`), or together not the file (`parts-wrong`).
    """
    found: dict[int, bytes] = {}
    heads: set[tuple[str, int, str]] = set()
    for line in lines:
        text = "".join(line.split()).upper()
        if not text.startswith("FCA1:"):
            continue
        kind, number, count, whole, payload = _read(text)
        heads.add((kind, count, whole))
        if len(heads) > 1:
            raise Unacceptable(
                "parts-mixed",
                "These are parts of two different files.",
                why="Their heads differ.",
                fix="Collect the parts of one file only.",
            )
        if found.setdefault(number, payload) != payload:
            raise Unacceptable("parts-mixed", f"Part {number} stands here twice, with different contents.", fix="Read that part again.")
    if not heads:
        raise Malformed("no-parts", "There is no part here.", why="A part begins with FCA1:", fix="Read the codes again.")
    kind, count, whole = heads.pop()
    missing = [number for number in range(1, count + 1) if number not in found]
    if missing:
        raise Unacceptable(
            "parts-missing", f"Of {count} parts, {len(missing)} are missing: {', '.join(map(str, missing))}.", fix="Read those codes, too."
        )
    octets = b"".join(found[number] for number in range(1, count + 1))
    if hashlib.sha256(octets).hexdigest()[:16].upper() != whole:
        raise Unacceptable("parts-wrong", "Together the parts are not the file that was shown.", fix="Show and read it again.")
    return Whole(kind.lower(), octets)


def _read(text: str) -> tuple[str, int, int, str, bytes]:
    fields = _FORM.fullmatch(text)
    if fields is None or _check(text[:-9]) != fields[6] or fields[1].lower() not in KINDS:
        raise Malformed("part-misread", f"The part {text[:28]} was not read right.", why="Its check does not hold.", fix="Read it again.")
    number, count = int(fields[2]), int(fields[3])
    try:
        octets = base64.b32decode(fields[5] + "=" * (-len(fields[5]) % 8))
    except binascii.Error:
        raise Malformed("part-misread", f"Part {number} is not base32.", fix="Read it again.") from None
    if not 1 <= number <= count:
        raise Malformed("part-misread", f"There is no part {number} of {count}.", fix="Read it again.")
    return fields[1], number, count, fields[4], octets
