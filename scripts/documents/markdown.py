"""What all generated pages share: their head, tables, and reading Python sources."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ca", "enroll", "ocsp", "crl", "config", "fleetca")


def head(title: str, source: str, about: str) -> str:
    """The top of a page, and who made it."""
    return f"# {title}\n\nMade from {source} by `scripts/document`; a test keeps it fresh.\n\n{about.strip()}\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell is escaped."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


@cache
def modules() -> tuple[tuple[Path, ast.Module], ...]:
    """Every module of ours, by its path from the top, in the order of the house."""
    return tuple(read())


def read() -> Iterator[tuple[Path, ast.Module]]:
    """The same, for who changes them: read anew, which is ten times quicker than a copy."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py"), key=lambda p: (len(p.relative_to(ROOT).parts), str(p))):
            relative = path.relative_to(ROOT)
            if path.name != "__init__.py" and "migrations" not in relative.parts:
                yield relative, ast.parse(path.read_text())


def sentence(node: ast.expr | None) -> str:
    """The text that an expression makes, with a word in capitals where a value comes in; empty where nothing is known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(sentence(part) for part in parts)
        case ast.FormattedValue(value=value):
            return _placeholder(value)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return sentence(left) + sentence(right)
        case ast.IfExp(body=body):
            return sentence(body)
        case _:
            return ""


def _placeholder(value: ast.expr) -> str:
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").upper()
        case ast.Call(func=ast.Name(id="min" | "max" | "shown" | "sorted" | "str" | "next"), args=[first, *_]):
            return _placeholder(first)
        case ast.Call(func=ast.Attribute(attr="shown"), args=[first, *_]):
            return _placeholder(first)
        case ast.Subscript(value=inner):
            return _placeholder(inner)
        case ast.IfExp() | ast.Constant():
            return sentence(value) or "..."
        case ast.BoolOp(values=[first, *_]):
            return _placeholder(first)
        case _:
            return "..."
