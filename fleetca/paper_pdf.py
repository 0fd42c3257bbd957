"""Printed pages as PDF (ISO 32000-1), A4, with the standard fonts that every reader has: text, tables, a footer. Edge: text only.

A writer of our own, because what it needs of PDF is little: a library would carry fonts and image parsers to the machine of the ceremony.
The same document gives the same octets. Text is that of Windows-1252, which is what the standard fonts have; other letters are refused, and the
HTML has them.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from ca.errors import Misconfigured
from fleetca.paper import Code, Heading, Lines, Octets, Paper, Table, Text, dark, html

_WIDTH, _HEIGHT = 595.28, 841.89
_SIDE, _TOP, _BOTTOM = 40.0, 44.0, 56.0
_INNER: Final = _WIDTH - 2 * _SIDE
_PAD: Final = 3.0
_LEADING: Final = 1.25
_CODE_SIDE: Final = 300.0
"""Points, border and all."""
_ROW_TO_WRITE_IN: Final = 24.0
"""Points: what a hand needs."""
_MOST_LINES: Final = 50
"""Of one row; a page has room for more."""
_DESCENT: Final = 0.25
"""Of the size: below the line that letters stand on."""


@dataclass(frozen=True, slots=True)
class _Face:
    """A standard font in one size."""

    name: str
    size: float

    def width(self, text: str) -> float:
        widths = _WIDTHS.get(self.name)
        if widths is None:
            return len(text) * 0.6 * self.size
        return sum(widths[ord(_base(letter)) - 32] for letter in text) * self.size / 1000


_BODY, _BOLD, _CODE = _Face("Helvetica", 9), _Face("Helvetica-Bold", 9), _Face("Courier", 7.5)
_FACES: Final = ("Helvetica", "Helvetica-Bold", "Courier")
_HEADINGS: Final = {1: _Face("Helvetica-Bold", 16), 2: _Face("Helvetica-Bold", 12), 3: _Face("Helvetica-Bold", 10)}
_FOOTER: Final = _Face("Courier", 6.5)

# Widths of U+0020 to U+007E in thousandths, as the metrics of the standard fonts say them.
_WIDTHS: Final = {
    "Helvetica": (
        278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, *([556] * 10), 278, 278, 584, 584, 584, 556, 1015,
        667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611,
        278, 278, 278, 469, 556, 333,
        556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500,
        334, 260, 334, 584,
    ),
    "Helvetica-Bold": (
        278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278, *([556] * 10), 333, 333, 584, 584, 584, 611, 975,
        722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611,
        333, 278, 333, 584, 556, 333,
        556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611, 611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500,
        389, 280, 389, 584,
    ),
}  # fmt: skip


def _base(letter: str) -> str:
    """The letter whose width is at least this one's: an accent takes no room, and what has no plain letter gets the widest."""
    plain = unicodedata.normalize("NFKD", letter)[:1]
    return plain if " " <= plain <= "~" else "@"


def pdf(paper: Paper) -> bytes:
    """The document as PDF.

    Raises:
        Misconfigured: it has letters that the standard fonts lack (`no-such-letter`).
    """
    sheets = _Sheets()
    for block in paper.blocks:
        match block:
            case Heading():
                sheets.heading(block)
            case Text():
                face = _BOLD if block.strong else _BODY
                sheets.lines(_wrapped(block.text, face, _INNER), face, after=6)
            case Table():
                sheets.table(block)
            case Octets():
                sheets.octets(block)
            case Lines():
                lines = (line for each in block.text.splitlines() for line in _cut(each, _CODE, _INNER) or [""])
                sheets.lines(lines, _CODE, after=6)
            case Code():
                sheets.code(block)
    return _file(paper, sheets.pages)


def printed(paper: Paper, file: Path) -> bytes:
    """What is written to a file: a PDF or HTML, as its name ends.

    Raises:
        Misconfigured: it ends otherwise (`no-such-paper`), or `no-such-letter`.
    """
    match file.suffix:
        case ".pdf":
            return pdf(paper)
        case ".html":
            return html(paper).encode()
        case _:
            raise Misconfigured("no-such-paper", f"{file} is neither PDF nor HTML.", fix="Give a name that ends in .pdf or .html.")


class _Sheets:
    """Pages, filled from above."""

    def __init__(self) -> None:
        self.pages: list[list[str]] = []
        self._y = 0.0
        self._new_page()

    def _new_page(self) -> None:
        self.pages.append([])
        self._y = _HEIGHT - _TOP

    def _room(self, height: float) -> bool:
        return self._y - height >= _BOTTOM

    def _fresh(self) -> bool:
        return not self.pages[-1]

    def _text(self, x: float, y: float, face: _Face, text: str) -> None:
        if text:
            self.pages[-1].append(f"BT /F{_FACES.index(face.name) + 1} {face.size:g} Tf {x:.2f} {y:.2f} Td ({_escaped(text)}) Tj ET")

    def heading(self, block: Heading) -> None:
        face = _HEADINGS[block.level]
        lines = _wrapped(block.text, face, _INNER)
        height = len(lines) * face.size * _LEADING
        # Never the last on a page: what it heads needs room, too.
        if (block.new_page and not self._fresh()) or not self._room(height + 90):
            self._new_page()
        if not self._fresh():
            self._y -= 10
        self.lines(lines, face, after=5)

    def lines(self, lines: Iterable[str], face: _Face, *, after: float) -> None:
        for line in lines:
            if not self._room(face.size * _LEADING):
                self._new_page()
            self._y -= face.size * _LEADING
            self._text(_SIDE, self._y + face.size * _DESCENT, face, line)
        self._y -= after

    def octets(self, block: Octets) -> None:
        per_line = int(_INNER / _CODE.width("0"))
        letters = [(letter, marked) for text, marked in block.runs for letter in text]
        for at in range(0, len(letters), per_line):
            line = letters[at : at + per_line]
            if not self._room(_CODE.size * _LEADING):
                self._new_page()
            self._y -= _CODE.size * _LEADING
            for start, end in _marked(line):
                x, width = _SIDE + _CODE.width("0" * start), _CODE.width("0" * (end - start))
                self.pages[-1].append(f"0.85 g {x:.2f} {self._y:.2f} {width:.2f} {_CODE.size * _LEADING:.2f} re f 0 g")
            self._text(_SIDE, self._y + _CODE.size * _DESCENT, _CODE, "".join(letter for letter, _ in line))
        self._y -= 6

    def code(self, block: Code) -> None:
        lines = list(_cut(block.caption, _CODE, _INNER))
        if not self._room(_CODE_SIDE + len(lines) * _CODE.size * _LEADING) and not self._fresh():
            self._new_page()
        module = _CODE_SIDE / len(block.rows)
        boxes = (
            f"{_SIDE + left * module:.3f} {self._y - (top + 1) * module:.3f} {(right - left) * module:.3f} {module:.3f} re"
            for top, left, right in dark(block)
        )
        self.pages[-1].append(f"{' '.join(boxes)} f")
        self._y -= _CODE_SIDE
        self.lines(lines, _CODE, after=14)

    def table(self, table: Table) -> None:
        total = sum(each.share for each in table.columns)
        widths = [each.share / total * _INNER for each in table.columns]
        faces = [_CODE if each.code else _BODY for each in table.columns]
        headed = any(each.name for each in table.columns)
        head = ([each.name for each in table.columns], widths, [_BOLD] * len(widths))
        if headed:
            self._row(*head, shaded=True)
        for row in (piece for each in table.rows for piece in _pieces(each, widths, faces)):
            height = _row_height(row, widths, faces)
            if not self._room(height):
                self._new_page()
                if headed:
                    self._row(*head, shaded=True)
            self._row(row, widths, faces)
        self._y -= 8

    def _row(self, cells: Sequence[str], widths: Sequence[float], faces: Sequence[_Face], *, shaded: bool = False) -> None:
        height = _row_height(cells, widths, faces, head=shaded)
        x = _SIDE
        for cell, width, face in zip(cells, widths, faces, strict=True):
            box = f"{x:.2f} {self._y - height:.2f} {width:.2f} {height:.2f} re"
            self.pages[-1].append(f"0.92 g {box} f 0 g {box} S" if shaded else f"{box} S")
            for number, line in enumerate(_wrapped(cell, face, width - 2 * _PAD), start=1):
                self._text(x + _PAD, self._y - _PAD - face.size * (number * _LEADING - _DESCENT), face, line)
            x += width
        self._y -= height


def _pieces(row: Sequence[str], widths: Sequence[float], faces: Sequence[_Face]) -> Iterator[Sequence[str]]:
    """A row that no page holds, as several."""
    wrapped = [_wrapped(cell, face, width - 2 * _PAD) for cell, width, face in zip(row, widths, faces, strict=True)]
    for at in range(0, max(1, *map(len, wrapped)), _MOST_LINES):
        yield [" ".join(lines[at : at + _MOST_LINES]) for lines in wrapped] if at or max(map(len, wrapped)) > _MOST_LINES else row


def _row_height(cells: Sequence[str], widths: Sequence[float], faces: Sequence[_Face], *, head: bool = False) -> float:
    heights = [
        len(_wrapped(cell, face, width - 2 * _PAD)) * face.size * _LEADING for cell, width, face in zip(cells, widths, faces, strict=True)
    ]
    least = 0.0 if head or all(cells) else _ROW_TO_WRITE_IN
    return max(*heights, least) + 2 * _PAD


def _marked(line: Sequence[tuple[str, bool]]) -> Iterator[tuple[int, int]]:
    """Where runs of marked letters begin and end."""
    edges = [at for at, (one, other) in enumerate(pairwise([("", False), *line, ("", False)])) if one[1] is not other[1]]
    yield from zip(edges[::2], edges[1::2], strict=True)


def _wrapped(text: str, face: _Face, width: float) -> list[str]:
    """Lines that fit: broken at spaces, and inside of a word where that alone is too long."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if face.width(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *whole, line = _cut(word, face, width)
        lines += whole
    return [*lines, line] if line or lines else []


def _cut(text: str, face: _Face, width: float) -> list[str]:
    pieces: list[str] = []
    start = 0
    for at in range(1, len(text) + 1):
        if at - start > 1 and face.width(text[start:at]) > width:
            pieces.append(text[start : at - 1])
            start = at - 1
    return [*pieces, text[start:]] if text else []


# ---- The file -----------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    try:
        octets = text.encode("cp1252")
    except UnicodeEncodeError as error:
        raise Misconfigured(
            "no-such-letter",
            f"The script has the letter {text[error.start]!r}, which the fonts of a PDF lack.",
            why="Every reader of PDF has fonts for western European letters only.",
            fix="Write the script as HTML, --script FILE.html, and print that: it has all letters.",
        ) from None
    # An octet that is no plain letter goes as its octal number (ISO 32000-1 7.3.4.2).
    return "".join(chr(each) if 32 <= each < 127 and each not in b"()\\" else f"\\{each:03o}" for each in octets)


def _file(paper: Paper, pages: Sequence[Sequence[str]]) -> bytes:
    count = len(pages)
    fonts = " ".join(f"/F{number} {number + 2} 0 R" for number in range(1, len(_FACES) + 1))
    first = 4 + len(_FACES)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Lang (en) >>",
        f"<< /Type /Pages /Count {count} /Kids [{' '.join(f'{first + 2 * at} 0 R' for at in range(count))}] >>".encode(),
        *(f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>".encode() for name in _FACES),
        f"<< /Title <feff{paper.title.encode('utf-16-be').hex()}> >>".encode(),
    ]
    for number, page in enumerate(pages, start=1):
        shown = f"{number} / {count}"
        footer = (
            f"BT /F3 {_FOOTER.size:g} Tf {_SIDE:.2f} 30 Td ({_escaped(paper.footer)}) Tj ET\n"
            f"BT /F1 8 Tf {_WIDTH - _SIDE - _Face('Helvetica', 8).width(shown):.2f} 30 Td ({shown}) Tj ET"
        )
        content = zlib.compress("\n".join(["0.5 w", *page, footer]).encode("ascii"), 9)
        box = f"/MediaBox [0 0 {_WIDTH} {_HEIGHT}] /Resources << /Font << {fonts} >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {first + 2 * number - 1} 0 R >>".encode())
        objects.append(f"<< /Length {len(content)} /Filter /FlateDecode >>\nstream\n".encode() + content + b"\nendstream")
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, each in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + each + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{at:010d} 00000 n \n".encode() for at in places)
    info = 3 + len(_FACES)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {info} 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)
