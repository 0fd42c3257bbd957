"""The generated part of docs/architecture.md: every module with the first sentence of its docstring."""

from __future__ import annotations

import ast

from documents import markdown

BEGIN, END = "<!-- tree: made by scripts/document -->", "<!-- end of tree -->"


def into(text: str) -> str:
    """The page with a fresh tree between the two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{_tree()}\n{END}{rest.split(END)[1]}"


def _tree() -> str:
    lines = ["```text"]
    package = ""
    for path, module in markdown.modules():
        if package not in {"", path.parts[0]}:
            lines.append("")
        package = path.parts[0]
        lines.append(f"{path!s:<38} {_first_sentence(module)}")
    return "\n".join([*lines, "```"])


def _first_sentence(module: ast.Module) -> str:
    line = (ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " ").strip()
    for stop in (". ", ": "):
        if stop in line:
            line = line.split(stop)[0]
            break
    return line.rstrip(".:")
