"""Words of `ca.model` as JSON and back. Ring 1: pure.

Owns the mapping only: octets are base64, serial numbers 40 digits of lower-case hex (no other number has more than 64 bits), enums their value
(CRL reasons their RFC word), tuples lists, dataclasses objects with exactly their fields. Reading is strict: an unknown or missing field, or a value of another type, is `Malformed`. Knows no verb and no socket.
"""

from __future__ import annotations

import binascii
import operator
import re
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, IntEnum
from functools import cache
from typing import Any, Final, TypeVar, cast

from ca.errors import Malformed
from ca.model import Serial

T = TypeVar("T")
_SERIAL: Final = re.compile(r"[0-9a-f]{40}")
_Reader = Callable[[Any], Any]
_Writer = Callable[[Any], Any]


def write(value: Any) -> Any:
    """The JSON form of a word."""
    return _writer(cast("Any", type(value)))(value)


def read(kind: type[T], document: Any) -> T:
    """A word from its JSON form.

    Raises:
        Malformed: `bad-request`.
    """
    return cast("T", _reader(cast("Any", kind))(document))


def bad(why: str) -> Malformed:
    """What every unreadable request ends with."""
    return Malformed("bad-request", "The request cannot be read.", why=why)


def _plain(kind: type, word: str) -> _Reader:
    def reader(value: Any) -> Any:
        if type(value) is not kind:
            raise bad(f"{word} belongs where {type(value).__name__} stands.")
        return value

    return reader


def _number(value: Any) -> float:
    if type(value) not in {int, float}:
        raise bad("A number belongs there.")
    return float(value)


def _octets(value: Any) -> bytes:
    if type(value) is not str:
        raise bad("Base64 text belongs there.")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        raise bad("It is not base64.") from None


def _serial(value: Any) -> int:
    if type(value) is not str or not _SERIAL.fullmatch(value):
        raise bad("A serial number of 40 hexadecimal digits belongs there.")
    return int(value, 16)


# ---- Writing: one function for each class, made at its first use from its fields' types ---------------------------------


def _as_it_is(value: Any) -> Any:
    return value


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


_AS_IT_IS = frozenset({str, int, bool, float, types.NoneType})


@cache
def _writer(kind: Any) -> _Writer:
    if kind in _AS_IT_IS:
        return _as_it_is
    if kind is bytes:
        return _base64
    if is_dataclass(kind):
        return _object_writer(cast("type", kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return operator.attrgetter("_name_" if issubclass(kind, IntEnum) else "_value_")
    if kind in {list, tuple}:
        return lambda value: [write(item) for item in value]
    if kind is dict:
        return lambda value: {name: write(item) for name, item in value.items()}
    raise TypeError(f"no JSON form for {kind}")


def _object_writer(kind: type) -> _Writer:
    """Fields that are JSON already are copied together; only the others cost a call each: every certificate is written three times."""
    hints = typing.get_type_hints(kind)
    names = tuple(field.name for field in fields(kind))
    others = tuple((name, inner) for name in names if (inner := _field_writer(hints[name])) is not _as_it_is)
    values: _Writer = operator.attrgetter(*names) if len(names) > 1 else lambda value: tuple(getattr(value, name) for name in names)

    def written(value: Any) -> Any:
        made = dict(zip(names, values(value), strict=True))
        for name, inner in others:
            item = made[name]
            if item is not None:
                made[name] = inner(item)
        return made

    return written


def _serial_text(serial: int) -> str:
    return f"{serial:040x}"


def _field_writer(kind: Any) -> _Writer:
    """By the type that a field declares; where that is not one class, by the class of each value."""
    if kind is Serial:
        return _serial_text
    while isinstance(kind, typing.NewType):
        kind = kind.__supertype__
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        arms = [arm for arm in typing.get_args(kind) if arm is not types.NoneType]
        return _field_writer(arms[0]) if len(arms) == 1 else write
    if typing.get_origin(kind) is tuple:
        item = _field_writer(typing.get_args(kind)[0])
        return lambda value: [item(one) for one in value]
    return _writer(kind) if isinstance(kind, type) and kind not in {list, tuple, dict} and typing.get_origin(kind) is None else write


# ---- Reading ------------------------------------------------------------------------------------------------------------

_PLAIN: dict[Any, _Reader] = {
    str: _plain(str, "a string"),
    int: _plain(int, "a whole number"),
    bool: _plain(bool, "true or false"),
    float: _number,
    bytes: _octets,
}


def _enum(kind: type[Enum]) -> _Reader:
    words: dict[Any, Enum] = {member.name if issubclass(kind, IntEnum) else member.value: member for member in kind}

    def reader(value: Any) -> Enum:
        if type(value) is not str or value not in words:
            raise bad(f"One of {', '.join(words)} belongs there.")
        return words[value]

    return reader


def _many(item: _Reader) -> _Reader:
    def reader(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise bad("A list belongs there.")
        return tuple(item(one) for one in value)

    return reader


def _object(kind: type) -> _Reader:
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}

    def reader(value: Any) -> Any:
        if type(value) is not dict:
            raise bad(f"An object belongs where {type(value).__name__} stands.")
        if not value.keys() <= readers.keys():
            raise bad(f"Unknown: {', '.join(sorted(map(str, value.keys() - readers.keys())))[:200]}.")
        if not required <= value.keys():
            raise bad(f"Missing: {', '.join(sorted(required - value.keys()))}.")
        return kind(**{name: readers[name](item) for name, item in value.items()})

    return reader


@cache
def _reader(kind: Any) -> _Reader:
    if kind is Serial:
        return _serial
    while isinstance(kind, typing.NewType):
        kind = kind.__supertype__
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin = typing.get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        arms = typing.get_args(kind)
        inner = [arm for arm in arms if arm is not types.NoneType]
        if len(inner) != 1 or len(arms) != 2:
            raise TypeError(f"no JSON form for {kind}")
        present = _reader(inner[0])
        return lambda value: None if value is None else present(value)
    if origin is tuple:
        item, *rest = typing.get_args(kind)
        if rest != [Ellipsis]:
            raise TypeError(f"no JSON form for {kind}")
        return _many(_reader(item))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if is_dataclass(kind):
        return _object(cast("type", kind))
    raise TypeError(f"no JSON form for {kind}")
