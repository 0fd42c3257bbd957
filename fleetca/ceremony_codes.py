"""Parts of a file as QR codes: on a terminal, or on a page to print. Edge: needs the extra `ceremony` (segno)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from ca.errors import Misconfigured

_STYLE: Final = (
    "@page { size: A4; margin: 15mm; } body { font: 10pt monospace; } figure { break-inside: avoid; margin: 0 0 10mm; } "
    "svg { width: 110mm; height: 110mm; } figcaption { overflow-wrap: anywhere; }"
)


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


def page(title: str, sha256: str, words: str, texts: Sequence[str]) -> str:
    """All codes of a file, to print, each with its text below."""
    figures = []
    for number, text in enumerate(texts, start=1):
        out = io.BytesIO()
        _code(text).save(out, kind="svg", xmldecl=False, svgns=True, border=4, omitsize=True)
        figures.append(f"<figure>{out.getvalue().decode()}<figcaption>{number} of {len(texts)}<br>{escape(text)}</figcaption></figure>")
    head = f"<h1>{escape(title)}</h1><p>SHA-256 {sha256}<br>{escape(words)}</p>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body>{head}{''.join(figures)}</body></html>\n"
    )
