"""docs/reference/settings.md: every setting, from the forms that read it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from config.key_uris import KeyReference
from config.secrets import Secret
from config.settings import Settings
from config.strict import Address, Form, duration_text, forms_in
from documents import markdown

_HEAD = markdown.head(
    "Settings",
    "`config/settings.py`",
    """
One TOML file describes a deployment; `fleetca init` writes it. It is read strictly: an unknown key, a wrong type or a missing value is
an error that names the file and the key, and nothing starts with it. Relative paths start at the file. `SIGHUP` makes `fleetca serve`
read it again; a wrong one is refused and the old one stays.

A **secret** is never written here but named: `file:PATH` (mode 0600), `env:NAME`, `credential:NAME` (a systemd credential) or `fd:N` (an
inherited file descriptor). A **duration** is a whole number and a unit in quotes: `"30s"`, `"5m"`, `"24h"`, `"7d"`. A **key** is
`sealed:PATH` (an encrypted PKCS#8 file: PBES2, scrypt, AES-256), `pkcs11:token=NAME;object=NAME?module-path=/PATH.so` (RFC 7512; the PIN is
its passphrase), `tpm:HANDLE` (a persistent object of this machine's TPM 2.0) or `awskms:alias/NAME?region=REGION`.
""",
)

_TYPES: dict[Any, str] = {
    Path: "path",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Secret: "secret",
    Address: "`host:port`",
    datetime: "date and time",
    KeyReference: "key",
}


def page() -> str:
    """The page."""
    parts = [_HEAD]
    for name, field in Settings.model_fields.items():
        form = forms_in(field.annotation)[0]
        many = get_origin(_bare(field.annotation)) is tuple
        parts.append(_section(form, f"[[{name}]]" if many else f"[{name}]"))
    return "\n".join(parts)


def _section(form: type[Form], title: str) -> str:
    lines = [f"## `{title}`", "", f"{(form.__doc__ or '').strip()}", "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    below: list[str] = []
    for name, field in form.model_fields.items():
        inner = forms_in(field.annotation)
        if inner:
            lines.append(f"| `{name}` | table | none | {field.description} See below. |")
            many = get_origin(_bare(field.annotation)) is tuple
            below.append(_section(inner[0], f"[[{title.strip('[]')}.{name}]]" if many else f"{title[:-1]}.{name}.ROLE]"))
        else:
            lines.append(f"| `{name}` | {_type(field)} | {_default(field)} | {field.description} |")
    return "\n".join([*lines, "", *below])


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _type(field: FieldInfo) -> str:
    if any(getattr(each, "func", None) is not None and getattr(each.func, "__name__", "") == "_duration" for each in field.metadata):
        return "duration"
    return _word(field.annotation)


def _word(annotation: Any) -> str:
    if get_origin(annotation) is Annotated and any(
        getattr(getattr(m, "func", None), "__name__", "") == "_duration" for m in get_args(annotation)
    ):
        return "duration"
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_word(each) for each in arguments if each is not NoneType)
    if origin is Literal:
        return " or ".join(f'`"{each}"`' for each in arguments)
    if origin is tuple:
        return f"array of {_word(arguments[0])}"
    if origin is dict:
        return "table"
    return _TYPES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ({}, ()):
        return "none"
    if _type(field) == "duration":
        return f'`"{duration_text(value)}"`'
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{each}"' for each in value) + "]`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'
