"""Reads JSON from strangers: one table per body says its fields, and the same table becomes its schema in the API description.

Owns: bounds, syntax, types, and the sentence that names what is wrong. Must not know: routes, policy, the signer. Ring 1.

Rules: a body is one JSON object (RFC 8259) in UTF-8; a field stands once; a field nobody asked for is an error, so that a misspelt wish is
never ignored; whatever the octets are, the outcome is a value or `Malformed`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from ca.errors import Malformed
from ca.model import UnixTime

BODY_LIMIT: Final = 64 * 1024
"""Octets of a request body: far above any certificate request (RSA-4096 and ML-DSA-87 stay below 12 KiB), far below what hurts."""

_DEPTH_LIMIT: Final = 16


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a body or one query parameter. `read` takes the JSON value and the field's name, and returns the value of the model."""

    name: str
    read: Callable[[object, str], Any]
    schema: Mapping[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Body:
    """The members one JSON object may have."""

    name: str
    about: str
    fields: tuple[Field, ...]
    one_of: tuple[str, ...] = field(default=())
    """Of these members exactly one stands."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of this body."""
        made: dict[str, Any] = {
            "type": "object",
            "description": self.about,
            "properties": {one.name: dict(one.schema) for one in self.fields},
            "additionalProperties": False,
        }
        if required := [one.name for one in self.fields if one.required]:
            made["required"] = required
        if self.one_of:
            made["oneOf"] = [{"required": [name]} for name in self.one_of]
        return made


def wrong(name: str, should: str) -> Malformed:
    return Malformed("bad-field", f"The field {name!r} cannot be read.", why=f"It must be {should}.")


def too_large() -> Malformed:
    return Malformed("body-too-large", "The request body is too large.", why=f"At most {BODY_LIMIT} octets are read.")


def read_json(raw: bytes) -> object:
    """The JSON value in `raw`.

    Raises:
        Malformed: too large, not UTF-8, not JSON, too deep, a member twice, a number JSON does not have, or half a surrogate pair.
    """
    if len(raw) > BODY_LIMIT:
        raise too_large()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("bad-encoding", "The request body is not UTF-8.", why=f"Octet {error.start} is wrong.") from None
    if _depth(text) > _DEPTH_LIMIT:
        raise Malformed("bad-json", "The request body is nested too deeply.", why=f"At most {_DEPTH_LIMIT} levels are read.")
    try:
        value: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        if "\\u" in text:  # half a surrogate pair is lawful JSON and unlawful text, and only an escape can write it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("bad-json", "The request body holds half a surrogate pair.") from None
    except json.JSONDecodeError as error:
        raise Malformed(
            "bad-json", "The request body is not JSON.", why=f"Line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, for one
        raise Malformed("bad-json", "The request body cannot be read as JSON.") from None
    return value


def _depth(text: str) -> int:
    """The deepest nesting, brackets inside strings not counted; done before a recursive reader sees the text."""
    most = text.count("{") + text.count("[")
    if most <= _DEPTH_LIMIT:
        return most
    deepest = level = 0
    # A string is taken whole and never given back, closed or not: otherwise each quote in one that never ends would begin the search anew.
    for bracket in re.finditer(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', text, re.DOTALL):
        sign = bracket.group()
        if sign in "[{":
            level += 1
            deepest = max(deepest, level)
        elif sign in "]}":
            level -= 1
    return deepest


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Malformed("duplicate-field", f"The field {shown(name)} stands twice.", fix="Send it once.")
        found[name] = value
    return found


def _no_constant(name: str) -> object:
    raise Malformed("bad-json", "The request body is not JSON.", why=f"{name} is no JSON number (RFC 8259, section 6).")


def shown(text: str) -> str:
    """Client text as it may stand in a message: quoted, escaped, short."""
    cut = text if len(text) <= 40 else text[:40] + "..."
    return repr(cut)


def read_object(value: object, body: Body) -> dict[str, Any]:
    """The members of a body, as values of the model; absent optional ones are absent.

    Raises:
        Malformed: not an object, a member unknown, missing or of the wrong type; the text names it.
    """
    if not isinstance(value, dict):
        raise Malformed(
            "not-an-object",
            "The request body must be a JSON object.",
            why=f"It is {_KINDS.get(type(value), 'something else')}.",
            fix=f"Send an object with: {', '.join(one.name for one in body.fields)}.",
        )
    known = {one.name: one for one in body.fields}
    for name in value:
        if name not in known:
            raise Malformed(
                "unknown-field",
                f"The field {shown(name)} is not known here.",
                fix=f"Remove it. Known are: {', '.join(known)}." if known else "Remove it. None is known.",
            )
    for one in body.fields:
        if one.required and one.name not in value:
            raise Malformed("missing-field", f"The field {one.name!r} is missing.", fix=f"Add {one.name!r} to the request body.")
    if body.one_of and sum(name in value for name in body.one_of) != 1:
        names = " and ".join(repr(name) for name in body.one_of)
        raise Malformed("missing-field", f"Exactly one of {names} must be given.")
    return {name: known[name].read(member, name) for name, member in value.items()}


_KINDS: Final[Mapping[type, str]] = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


# ---- Kinds of fields ------------------------------------------------------------------------------------------------


def text(name: str, *, pattern: str, should: str, required: bool = True, about: str = "", example: str = "") -> Field:
    """A string that matches `pattern` as a whole."""
    compiled = re.compile(pattern)

    def read(value: object, where: str) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise wrong(where, should)
        return value

    schema: dict[str, Any] = {"type": "string", "pattern": f"^{pattern}$", "description": about or should}
    if example:
        schema["examples"] = [example]
    return Field(name, read, schema, required)


def octets(name: str, *, about: str, required: bool = True) -> Field:
    """Octets as base64 (RFC 4648, section 4)."""

    def read(value: object, where: str) -> bytes:
        if not isinstance(value, str):
            raise wrong(where, "a base64 string")
        return read_base64(value, where)

    return Field(name, read, {"type": "string", "contentEncoding": "base64", "description": about}, required)


def several_octets(name: str, *, most: int, about: str) -> Field:
    """A list of octets, each as base64."""

    def read(value: object, where: str) -> tuple[bytes, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= most or not all(isinstance(one, str) for one in value):
            raise wrong(where, f"a list of 1 to {most} base64 strings")
        return tuple(read_base64(one, where) for one in value)

    items = {"type": "string", "contentEncoding": "base64"}
    return Field(name, read, {"type": "array", "items": items, "minItems": 1, "maxItems": most, "description": about})


def read_base64(value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise wrong(where, "base64 (RFC 4648, section 4) without line breaks") from None


def member(name: str, body: Body, *, required: bool = True) -> Field:
    """An object inside an object."""

    def read(value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(where, "a JSON object")
        return read_object(value, body)

    return Field(name, read, body.schema(), required)


def choice(name: str, words: Sequence[str], *, about: str, required: bool = True) -> Field:
    """One of some words."""

    def read(value: object, where: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise Malformed(
                "bad-field",
                f"The field {where!r} cannot be read.",
                why=f"It is {shown(value)}." if isinstance(value, str) else "It must be a string.",
                fix=f"Use one of: {', '.join(words)}.",
            )
        return value

    return Field(name, read, {"type": "string", "enum": list(words), "description": about}, required)


def moment(name: str, *, about: str) -> Field:
    """A time as RFC 3339 text with its zone; whole seconds are kept."""

    def read(value: object, where: str) -> UnixTime:
        should = "a time such as 2026-11-22T06:43:00Z (RFC 3339)"
        if not isinstance(value, str) or not re.fullmatch(
            r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", value, re.ASCII
        ):
            raise wrong(where, should)
        try:
            return int(datetime.fromisoformat(value.upper()).timestamp())
        except (ValueError, OverflowError):
            raise wrong(where, should) from None

    return Field(name, read, {"type": "string", "format": "date-time", "description": about}, required=False)


def count(name: str, *, least: int, most: int, about: str) -> Field:
    """A whole number within bounds, given as decimal digits."""

    def read(value: object, where: str) -> int:
        digits = value if isinstance(value, str) else str(value) if type(value) is int else ""
        if not re.fullmatch(r"\d{1,9}", digits, re.ASCII) or not least <= int(digits) <= most:
            raise wrong(where, f"a whole number from {least} to {most}")
        return int(digits)

    return Field(name, read, {"type": "integer", "minimum": least, "maximum": most, "description": about}, required=False)


@lru_cache(maxsize=1024)
def timestamp(when: UnixTime) -> str:
    """RFC 3339 text in UTC. What is made in one second shares most of its times."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
