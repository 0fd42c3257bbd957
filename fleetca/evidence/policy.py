"""Policy documents made from a deployment's settings: their form, and what has changed since one was made (REQ-KEY-021). Pure.

A document is a list of clauses. A clause says what the settings say, and which of them; where they say nothing it has the words of those who run
the deployment, or `No stipulation.` (RFC 3647 6). Each clause ends with a mark over its text, so that a page that was edited by hand shows it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ca.errors import Malformed

NOTHING: Final = "No stipulation."
_HEADING: Final = re.compile(r"^#{2,3} (\S+) (.*)$")
_MARK: Final = re.compile(r"<!-- clause ([0-9a-f]{16}) -->")


@dataclass(frozen=True, slots=True)
class Clause:
    """`sources` are the settings that decide the text; none for what is in nobody's settings."""

    id: str
    title: str
    text: str = ""
    sources: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        said = self.text.strip() or NOTHING
        return said + (f"\n\nFrom: {', '.join(f'`{one}`' for one in self.sources)}." if self.sources else "")

    @property
    def mark(self) -> str:
        return hashlib.sha256(f"{self.id}\n{self.title}\n{self.body}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Difference:
    """A clause of a document that is not what it should be."""

    clause: str
    what: str


def with_words(clauses: Sequence[Clause], words: Mapping[str, str]) -> Sequence[Clause]:
    """The clauses with what those who run the deployment say, behind what the settings say.

    Raises:
        Malformed: there is no such clause (`no-such-clause`).
    """
    unknown = sorted(words.keys() - {one.id for one in clauses})
    if unknown:
        raise Malformed(
            "no-such-clause", f"There is no clause {unknown[0]}.", fix="Take the numbers of the document that is made without words."
        )
    return [replace(one, text=f"{one.text}\n\n{words[one.id].strip()}".strip()) if one.id in words else one for one in clauses]


def write(title: str, about: str, clauses: Sequence[Clause]) -> str:
    """The document: Markdown."""
    digest = hashlib.sha256("".join(one.mark for one in clauses).encode()).hexdigest()
    lines = [f"# {title}", "", about.strip(), "", f"SHA-256 over its clauses: `{digest}`", ""]
    for one in clauses:
        level = "##" if "." not in one.id else "###"
        lines += [f"{level} {one.id} {one.title}", "", one.body, "", f"<!-- clause {one.mark} -->", ""]
    return "\n".join(lines).rstrip() + "\n"


def compare(document: str, clauses: Sequence[Clause]) -> Sequence[Difference]:
    """What of a document is not as the settings have it now, by clause.

    Raises:
        Malformed: it is no such document (`no-policy`).
    """
    there = dict(_clauses(document))
    if not there:
        raise Malformed("no-policy", "This is no policy document that fleetca made.", fix="Make one: fleetca policy cps --out cps.md")
    found = []
    for one in clauses:
        if one.id not in there:
            found.append(Difference(one.id, f"{one.id} {one.title} is missing"))
            continue
        body, mark = there[one.id]
        if mark != hashlib.sha256(f"{one.id}\n{body}".encode()).hexdigest()[:16]:
            found.append(Difference(one.id, f"{one.id} {one.title} was edited by hand"))
        elif mark != one.mark:
            found.append(Difference(one.id, f"{one.id} {one.title} is not what the settings say now"))
    known = {one.id for one in clauses}
    return [*found, *(Difference(id_, f"{id_} is no clause any more") for id_ in there if id_ not in known)]


def _clauses(document: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(id, (title and body, mark)) of each clause."""
    id_, title, lines = "", "", list[str]()
    for line in document.splitlines():
        heading, mark = _HEADING.match(line), _MARK.fullmatch(line)
        if heading:
            id_, title, lines = heading[1], heading[2], []
        elif mark and id_:
            yield id_, (f"{title}\n" + "\n".join(lines).strip(), mark[1])
            id_ = ""
        elif id_:
            lines.append(line)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; nothing where there are no rows."""
    if not rows:
        return ""
    shown = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*shown, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])
