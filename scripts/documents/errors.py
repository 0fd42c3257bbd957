"""docs/reference/errors.md: every stable error code that the code raises, found by reading its sources (AST).

A code stands where an error is made: `Conflict("token-used", "This token was used.", fix="...")`. Where a function of ours makes the error and its
caller gives the code, the caller is read; where the code comes from a table of (code, what, fix), the table is.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Final

from ca import errors
from documents import markdown
from documents.advice import BY_CLASS, BY_CODE
from enroll.rest import problems
from fleetca.cli import output

_OURS: Final[Mapping[str, type[errors.FleetcaError]]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.FleetcaError)
}
# config knows no PKI and has two words of its own; fleetca/forms.py turns them into these.
CLASSES: Final = {**_OURS, "ConfigurationError": errors.Misconfigured, "SecretUnavailable": errors.KeyUnavailable}
HTTP: Final = "HTTP"
"""In place of a class: what a web process answers without an error of ours."""

_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Found:
    """One place where a code is made."""

    code: str
    kind: str
    what: str
    fix: str
    status: int | None = None


@cache
def found() -> tuple[Found, ...]:
    """Every place, in the order of the sources."""
    sources = [_Said().visit(module) for _, module in markdown.read()]
    owns = [{maker.name: maker for maker in _makers(module)} for module in sources]
    makers = {name: maker for own in owns for name, maker in own.items()}
    made: list[Found] = []
    for module, own in zip(sources, owns, strict=True):
        calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
        for node in calls:
            made += _made_by(node, makers if _name(node.func) not in own else own)
        if any(_from_a_table(node) for node in calls):
            made += _in_tables(module)
    made += [Found(code, HTTP, what, "", status) for status, (code, what) in problems.HTTP_CODES.items()]
    made.append(Found("internal", HTTP, problems.INTERNAL.detail, "", 500))
    return tuple(made)


# ---- Reading the sources ----------------------------------------------------------------------------------------------


class _Said(ast.NodeTransformer):
    """Puts a text that a function keeps in a variable of its own (`what = f"..."`) where the error is made with it."""

    def __init__(self) -> None:
        self._texts: dict[str, ast.expr] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self._texts = self._texts, {}
        for each in ast.walk(node):
            if isinstance(each, ast.Assign) and len(each.targets) == 1:
                self._texts |= _assigned(each.targets[0], each.value)
        made = self.generic_visit(node)
        self._texts = outer
        return made

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _name(node.func) in CLASSES:
            node.args = [*node.args[:1], *(self._text(each) for each in node.args[1:])]
            for keyword in node.keywords:
                keyword.value = self._text(keyword.value)
        return node

    def _text(self, node: ast.expr) -> ast.expr:
        return self._texts.get(node.id, node) if isinstance(node, ast.Name) else node


def _assigned(target: ast.expr, value: ast.expr) -> dict[str, ast.expr]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return {name: text for one, other in zip(target.elts, value.elts, strict=False) for name, text in _assigned(one, other).items()}
    return {target.id: value} if isinstance(target, ast.Name) and markdown.sentence(value) else {}


@dataclass(frozen=True, slots=True)
class _Maker:
    """A function that makes an error whose code its caller gives, whole or in part (`bad-{what}-id`)."""

    name: str
    kind: str
    parameter: int
    code: ast.expr
    what: ast.expr | None
    fix: str
    parameters: tuple[str, ...]


def _makers(module: ast.Module) -> Iterator[_Maker]:
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = tuple(argument.arg for argument in (*function.args.args, *function.args.kwonlyargs) if argument.arg != "self")
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _name(node.func) in CLASSES and node.args:
                used = [part.id for part in ast.walk(node.args[0]) if isinstance(part, ast.Name) and part.id in names]
                if len(used) == 1 and not isinstance(node.args[0], ast.Attribute):
                    what = node.args[1] if len(node.args) > 1 else None
                    yield _Maker(function.name, _name(node.func), names.index(used[0]), node.args[0], what, _fix(node), names)


def _made_by(call: ast.Call, makers: Mapping[str, _Maker]) -> Iterator[Found]:
    name = _name(call.func)
    if name in CLASSES and call.args:
        for code in _codes(call.args[0]):
            yield Found(code, name, markdown.sentence(call.args[1]) if len(call.args) > 1 else "", _fix(call))
    elif name in makers and len(call.args) > makers[name].parameter:
        maker = makers[name]
        given = call.args[maker.parameter]
        for word in _codes(given):
            said = {maker.parameters[maker.parameter]: word}
            code = word if isinstance(maker.code, ast.Name) else _filled(maker.code, said)
            yield Found(code, maker.kind, _said(maker, call, said), _fix(call) or maker.fix)
    elif len(call.args) == 3 and isinstance(call.args[0], ast.Attribute) and _name(call.args[0].value) == "HTTPStatus":
        for code in _codes(call.args[1]):
            yield Found(code, HTTP, markdown.sentence(call.args[2]), "", HTTPStatus[call.args[0].attr].value)


def _said(maker: _Maker, call: ast.Call, said: Mapping[str, str]) -> str:
    if isinstance(maker.what, ast.Name) and maker.what.id in maker.parameters:
        index = maker.parameters.index(maker.what.id)
        return markdown.sentence(call.args[index]) if index < len(call.args) else ""
    return "" if maker.what is None else _filled(maker.what, said)


def _filled(template: ast.expr, said: Mapping[str, str]) -> str:
    if isinstance(template, ast.JoinedStr):
        return "".join(_filled(part, said) for part in template.values)
    if isinstance(template, ast.FormattedValue) and isinstance(template.value, ast.Name) and template.value.id in said:
        return said[template.value.id]
    return markdown.sentence(template)


def _from_a_table(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) in CLASSES and bool(node.args) and ast.unparse(node.args[0]) == "code"


def _in_tables(module: ast.Module) -> Iterator[Found]:
    kind = next(_name(node.func) for node in ast.walk(module) if isinstance(node, ast.Call) and _from_a_table(node))
    for node in ast.walk(module):
        if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[0], ast.Constant):
            code, what, fix = node.elts
            if isinstance(what, ast.Constant | ast.JoinedStr | ast.IfExp) and markdown.sentence(what):
                for word in _codes(code):
                    yield Found(word, kind, markdown.sentence(what), markdown.sentence(fix))


def _codes(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(code)) if _CODE.fullmatch(code):
            return [code]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_codes(body), *_codes(orelse)]
        case _:
            return []


def _fix(call: ast.Call) -> str:
    return next((markdown.sentence(each.value) for each in call.keywords if each.arg == "fix"), "")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


# ---- The page -----------------------------------------------------------------------------------------------------------

_ABOUT = """
Every error says what failed, why, and what mends it, and carries a **code** that never changes its meaning. The command line prints it in brackets
(`fleetca: ... [token-used]`, with `--json` as `error.code`), REST sends it as `code` of an RFC 9457 problem (`type` is
`urn:fleetca:error:CODE`), and log lines have it as `code`. Words in capitals stand for what the message names.

The **class** says whose move it is, and decides the HTTP status and the [exit code](cli.md#exit-codes). A client hears the sentences of a refusal; of
our own troubles it hears code and status only, and the reason stands in our log under the request id. `POST /v1/enroll` says 401 where other
routes say 403 for evidence that does not hold.
"""

_MOVES = {
    "Refused": "The asker's.",
    "Unavailable": "Nobody's: send the same again later; nothing was lost.",
    "Misconfigured": "An operator's: mend the file, setting or command that it names.",
    "Broken": "Ours: an invariant failed and nothing was released.",
}


def page() -> str:
    """The page."""
    parts = [markdown.head("Errors", "the sources", _ABOUT), "## Classes\n", _classes(), "\n## Codes\n", _table(found()), ""]
    return "\n".join(parts)


def _classes() -> str:
    rows = []
    for name, kind in _OURS.items():
        if kind is errors.FleetcaError:
            continue
        about = (kind.__doc__ or "").strip().split("\n\n")[0]
        family = next(base for base in _MOVES if issubclass(kind, _OURS[base]))
        rows.append((f"`{name}`", about, _MOVES[family], str(_status(kind)), str(output.exit_code(kind("x", "x")))))
    return markdown.table(("class", "meaning", "whose move", "HTTP", "exit"), rows)


def _status(kind: type[errors.FleetcaError], code: str = "x") -> int:
    return problems.status_of(kind(code, ""))


def _table(places: Sequence[Found]) -> str:
    by_code: dict[str, list[Found]] = defaultdict(list)
    for place in places:
        by_code[place.code].append(place)
    rows = [_row(code, made) for code, made in sorted(by_code.items())]
    return markdown.table(("code", "class", "HTTP", "exit", "what it means", "what to do"), rows)


def _row(code: str, made: Sequence[Found]) -> tuple[str, ...]:
    kinds = sorted({CLASSES[one.kind].__name__ for one in made if one.kind != HTTP})
    statuses = {str(one.status) for one in made if one.status is not None}
    statuses |= {str(_status(_OURS[kind], code)) for kind in kinds}
    exits = {str(output.exit_code(_OURS[kind]("x", "x"))) for kind in kinds} or {"-"}
    advice = BY_CODE.get(code) or _several([one.fix for one in made]) or _several([BY_CLASS[kind] for kind in kinds or [HTTP]])
    return (
        f'<a id="{code}"></a>`{code}`',
        ", ".join(kinds) or "-",
        ", ".join(sorted(statuses)),
        ", ".join(sorted(exits)),
        _several([one.what for one in made]),
        advice,
    )


def _several(sentences: Sequence[str]) -> str:
    """Different sentences, each once, at most three of them."""
    different = list(dict.fromkeys(text.replace("\n", " ").replace("<", "&lt;").strip() for text in sentences if text.strip(" .")))
    return " / ".join(different[:3]) + (" ..." if len(different) > 3 else "")
