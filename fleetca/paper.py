"""What a printed page is made of, and the same as HTML: one file that needs nothing else. `fleetca.paper_pdf` writes it as PDF. Edge: text only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; the first of a document is its title."""

    text: str
    level: int = 2
    new_page: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    share: int
    """Of the width, beside the others' shares."""
    code: bool = False
    """It holds digests and the like."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; an empty cell is for people to write in. Without names of columns it has no head."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Octets:
    """Hex digits, with what is not known yet marked: (text, whether it is marked)."""

    runs: Sequence[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Text whose lines and spaces stand as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A square code (QR): rows of dark and light modules with their light border, and what stands below it."""

    rows: Sequence[Sequence[bool]]
    caption: str


Block: TypeAlias = Heading | Text | Table | Octets | Lines | Code


@dataclass(frozen=True, slots=True)
class Paper:
    """A document to print."""

    title: str
    footer: str
    """On every page, beside its number."""
    blocks: Sequence[Block]


_STYLE: Final = """
@page { size: A4; margin: 16mm 14mm 18mm; @bottom-left { content: "%s"; font: 7pt monospace; } @bottom-right { content: counter(page) " / " counter(pages); font: 8pt serif; } }
body { font: 10.5pt/1.4 serif; color: #000; background: #fff; max-width: 182mm; margin: 0 auto; }
h1 { font-size: 17pt; } h2 { font-size: 13pt; margin-top: 1.6em; break-after: avoid; } h3 { font-size: 11pt; break-after: avoid; }
table { border-collapse: collapse; width: 100%%; margin: .5em 0 1em; } tr { break-inside: avoid; }
th, td { border: .6pt solid #000; padding: 3pt 5pt; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { background: #eee; } td:empty { height: 8mm; min-width: 14mm; } code { font: 8.5pt/1.35 monospace; overflow-wrap: anywhere; }
mark { background: #ddd; font: 8.5pt monospace; } .facts td:first-child { width: 34mm; } .new { break-before: page; }
pre { white-space: pre-wrap; } figure { break-inside: avoid; margin: 0 0 8mm; } svg { width: 110mm; height: 110mm; }
figcaption { font: 8.5pt monospace; overflow-wrap: anywhere; }
"""


def html(paper: Paper) -> str:
    """The document as HTML."""
    footer = paper.footer.replace("\\", "\\\\").replace('"', '\\"').replace("<", "")
    parts = "".join(_block(each) for each in paper.blocks)
    title, style = escape(paper.title), _STYLE % footer
    return f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>\n<body>\n{parts}\n</body></html>\n'


def _block(block: Block) -> str:
    match block:
        case Heading():
            new = ' class="new"' if block.new_page else ""
            return f"<h{block.level}{new}>{escape(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{f'<b>{escape(block.text)}</b>' if block.strong else escape(block.text)}</p>"
        case Table():
            return _table(block)
        case Octets():
            runs = "".join(f"<mark>{escape(text)}</mark>" if marked else escape(text) for text, marked in block.runs)
            return f"<p><code>{runs}</code></p>"
        case Lines():
            return f"<pre><code>{escape(block.text)}</code></pre>"
        case Code():
            size = len(block.rows)
            path = "".join(f"M{left} {top}h{right - left}v1H{left}z" for top, left, right in dark(block))
            drawn = (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" shape-rendering="crispEdges"><path d="{path}"/></svg>'
            )
            return f"<figure>{drawn}<figcaption>{escape(block.caption)}</figcaption></figure>"


def dark(code: Code) -> Iterator[tuple[int, int, int]]:
    """The dark runs of a code: row, first module, module after the last."""
    for top, row in enumerate(code.rows):
        edges = [at for at, (one, other) in enumerate(pairwise([False, *row, False])) if one is not other]
        yield from ((top, left, right) for left, right in zip(edges[::2], edges[1::2], strict=True))


def _table(table: Table) -> str:
    headed = any(each.name for each in table.columns)
    rows = [[_cell(column, cell) for column, cell in zip(table.columns, row, strict=True)] for row in table.rows]
    if headed:
        rows.insert(0, [f"<th>{escape(each.name)}</th>" for each in table.columns])
    kind = "" if headed else ' class="facts"'
    return f"<table{kind}>{''.join(f'<tr>{_joined(row)}</tr>' for row in rows)}</table>"


def _cell(column: Column, cell: str) -> str:
    return f"<td><code>{escape(cell)}</code></td>" if column.code and cell else f"<td>{escape(cell)}</td>"


def _joined(cells: Iterable[str]) -> str:
    return "".join(cells)
