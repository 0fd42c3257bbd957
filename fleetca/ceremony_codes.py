"""Parts of a file as QR codes: on a terminal, or on a page to print. Edge: needs the extra `ceremony` (segno)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from ca.errors import Misconfigured
from fleetca.paper import Block, Code, Heading, Paper, Text


def _code(text: str) -> Any:
    try:
        import segno  # noqa: PLC0415 - comes with an extra
    except ImportError:
        raise Misconfigured(
            "extra-missing",
            "QR codes need the library segno.",
            why="It comes with the extra ceremony, which is not installed.",
            fix='pip install "fleetca[ceremony]"',
        ) from None
    return segno.make(text, mode="alphanumeric", error="m", micro=False)


def on_terminal(text: str) -> str:
    """One code in block characters."""
    out = io.StringIO()
    _code(text).terminal(out, compact=True, border=2)
    return out.getvalue()


def page(title: str, sha256: str, words: str, texts: Sequence[str]) -> Paper:
    """All codes of a file, to print, each with its text below."""
    blocks: list[Block] = [Heading(title, 1), Text(f"SHA-256 {sha256}"), Text(words)]
    for number, text in enumerate(texts, start=1):
        rows = [[bool(module) for module in row] for row in _code(text).matrix_iter(border=4)]
        blocks += [Text(f"{number} of {len(texts)}"), Code(rows, text)]
    return Paper(title, f"SHA-256 {sha256}", blocks)
