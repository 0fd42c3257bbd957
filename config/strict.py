"""How files that people write are read: strict TOML into typed forms, with errors that name the file and the key.

Owns the base of all forms, the field types they share (durations, relative paths, addresses), and the words of the errors. Knows nothing
of what the forms mean.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, Strict, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from config.errors import ConfigurationError
from config.secrets import Secret

MAX_FILE = 1 << 20
"""Octets of a file that a person is believed to have written."""


class Form(BaseModel):
    """What a person wrote, checked for shape only: strict types, no unknown keys, never changed afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


AnyForm = TypeVar("AnyForm", bound=Form)
Item = TypeVar("Item")

# TOML has arrays only; strict pydantic would want a tuple object.
Several = Annotated[tuple[Item, ...], Strict(False)]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_DURATION = re.compile(r"(?:(\d{1,9})([smhdwy]))")


def duration(text: str) -> int:
    """Seconds of `7d`, `24h`, `1h30m`: whole numbers with s, m, h, d, w or y (365 days).

    Raises:
        ValueError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(count + unit for count, unit in parts) != text:
        raise ValueError('is not a duration; write a whole number and a unit in quotes, like "30s", "5m", "24h", "7d", "10y"')
    return sum(int(count) * _UNITS[unit] for count, unit in parts)


def duration_text(seconds: int) -> str:
    """The shortest way to write it: `24h` for a day, `7d`, `90m`."""
    if seconds == _UNITS["d"]:
        return "24h"
    unit = next(unit for unit in ("y", "d", "h", "m", "s") if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def _duration(value: object) -> int:
    return duration(value if isinstance(value, str) else "")


Duration = Annotated[int, BeforeValidator(_duration), PlainSerializer(duration_text)]
"""Seconds; written as `"24h"`."""


def base_of(info: ValidationInfo) -> Path:
    """The folder that relative paths of the file being read start from."""
    context = info.context
    assert isinstance(context, Mapping)
    base = context["base"]
    assert isinstance(base, Path)
    return base


def _path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):  # a default
        return base_of(info) / value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("is not a path; write it in quotes")
    return base_of(info) / value


Location = Annotated[Path, BeforeValidator(_path)]
"""A path; a relative one starts at the file that holds it. Absolute once read."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: object) -> Address:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", value) if isinstance(value, str) else None
    if found is None or not 0 <= int(found[3]) <= 65535:
        raise ValueError('is not an address to listen on; write host:port, like "127.0.0.1:8443" or "[::1]:8443"')
    return Address(found[1] or found[2], int(found[3]))


Listen = Annotated[Address, BeforeValidator(_address), PlainSerializer(str)]


def _secret(value: object, info: ValidationInfo) -> Secret:
    return Secret.parse(value if isinstance(value, str) else "", base=base_of(info))


SecretReference = Annotated[Secret, BeforeValidator(_secret), PlainSerializer(lambda secret: secret.reference)]


# ---- Reading ----------------------------------------------------------------------------------------------------------


def read_octets(path: Path, *, kind: str) -> bytes:
    """A file's octets.

    Args:
        path: where it should be.
        kind: what it is to the reader, e.g. `settings file`.

    Raises:
        ConfigurationError: it is absent, unreadable or absurdly large.
    """
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError("no-such-file", f"There is no {kind} {path}.", fix=_where(kind)) from None
    except OSError as error:
        raise ConfigurationError(
            "unreadable-file", f"The {kind} {path} cannot be read.", why=_reason(error), fix="Mend its owner and mode."
        ) from None
    if len(octets) > MAX_FILE:
        raise ConfigurationError("unreadable-file", f"The {kind} {path} is larger than {MAX_FILE} octets.")
    return octets


def _where(kind: str) -> str:
    if kind == "settings file":
        return "Give it with --settings FILE, or make a deployment with: fleetca init"
    return "Put it there, or correct the path."


def _reason(error: OSError) -> str:
    return f"{error.strerror}." if error.strerror else str(error)


def toml_document(octets: bytes, *, file: Path) -> dict[str, Any]:
    """The TOML of a file's octets.

    Raises:
        ConfigurationError: it is none (`not-toml`); says where.
    """
    try:
        return tomllib.loads(octets.decode())
    except UnicodeDecodeError:
        raise ConfigurationError("not-toml", f"{file}: this is not UTF-8 text.", fix="Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            "not-toml", f"{file}: this is not TOML.", why=f"{error}.", fix="Correct the file at the line that it names."
        ) from None


def parse_document(form: type[AnyForm], document: Mapping[str, Any], *, file: Path) -> AnyForm:
    """Strictly read a TOML document into a form; relative paths start at the file's folder.

    Raises:
        ConfigurationError: it is not this form; names the file and the key and the nearest valid one.
    """
    try:
        return form.model_validate(document, context={"base": file.absolute().parent})
    except ValidationError as error:
        raise _explain(form, error.errors(include_url=False, include_context=True), file) from None


def parse(form: type[AnyForm], octets: bytes, *, file: Path) -> AnyForm:
    """`toml_document` and `parse_document` in one.

    Raises:
        ConfigurationError: as they do.
    """
    return parse_document(form, toml_document(octets, file=file), file=file)


def _explain(form: type[Form], problems: Sequence[ErrorDetails], file: Path) -> ConfigurationError:
    # Unknown keys first: a misspelt key is also the cause of the missing one beside it.
    ordered = sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    first, *others = (_sentence(form, problem, file) for problem in ordered)
    code, what, fix = first
    why = ""
    if others:
        shown = "; ".join(other[1].removeprefix(f"{file}: ").rstrip(".") for other in others[:4])
        why = f"Also: {shown}{' ...' if len(others) > 4 else ''}."
    return ConfigurationError(code, what, why=why, fix=fix)


def _sentence(form: type[Form], problem: ErrorDetails, file: Path) -> tuple[str, str, str]:
    location, _ = _walk(form, problem["loc"])
    key = dotted(location)
    match problem["type"]:
        case "extra_forbidden":
            above, owners = _walk(form, problem["loc"][:-1])
            known = sorted({field for owner in owners for field in owner.model_fields})
            parent = dotted(above)
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            fix = f"Did you mean {parent + '.' if parent else ''}{near[0]}?" if near else f"Known here: {', '.join(known)}."
            return "unknown-setting", f"{file}: {key} is not known.", fix
        case "missing":
            return "missing-setting", f"{file}: {key} is missing.", f"Add {key} to {file}."
        case "value_error":
            message = str(problem.get("ctx", {}).get("error", problem["msg"]))
            return "bad-setting", f"{file}: {key} {message}." if key else f"{file}: {message}.", f"Correct {key or 'it'} in {file}."
        case _:
            message = (problem["msg"][0].lower() + problem["msg"][1:]).replace("valid tuple", 'array, like ["a", "b"]')
            message = message.replace("valid dictionary or instance of", "table of settings for").replace("valid dictionary", "table")
            return "bad-setting", f"{file}: {key} is not as it must be: {message}.", f"Correct {key} in {file}."


def dotted(location: Sequence[int | str]) -> str:
    """`("issuers", 1, "key")` -> `issuers[1].key`; arrays of tables count from 1, as people do."""
    text = ""
    for part in location:
        if part != "[key]":  # pydantic's mark for "the key itself is wrong"
            text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _walk(form: type[Form], location: Sequence[int | str]) -> tuple[list[int | str], list[type[Form]]]:
    """A place in a document without pydantic's own marks, and the forms that may stand there."""
    found: list[type[Form]] = [form]
    place: list[int | str] = []
    for part in location:
        tagged = [each for each in found if any(part in get_args(field.annotation) for field in each.model_fields.values())]
        if isinstance(part, str) and len(found) > 1 and tagged:
            found = tagged  # which of several forms it is (`root`, `intermediate`): not a key of the document
            continue
        place.append(part)
        below = [inner for each in found if part in each.model_fields for inner in forms_in(each.model_fields[str(part)].annotation)]
        found = below or found
    return place, found


def forms_in(annotation: Any) -> list[type[Form]]:
    """The forms that stand somewhere inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Form):
        return [annotation]
    return [form for inner in get_args(annotation) for form in forms_in(inner)]
