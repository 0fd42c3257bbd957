"""docs/reference/rest.md: every route of the enrolment service from its OpenAPI document, and those of the status service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ca.rules import message
from documents import markdown
from enroll.rest import openapi, problems

_ABOUT = """
JSON over HTTPS (TLS 1.3) at `[enroll] url`; the service itself tells the same at `/v1/openapi.json` (OpenAPI 3.1). Every request may be repeated as it
is: the same request gets the same result. Bodies have at most 64 KiB; an unknown member is refused. Errors are RFC 9457 problems whose `code`
stands in [errors.md](errors.md). Every answer carries `X-Request-Id`, which the log has too.

**Evidence.** A *token* (`enr_...`) enrols once. A *certificate* is presented in TLS: a live one of this deployment. A *message* is signed with the key
of a live certificate, and works where TLS cannot carry it; [operators.md](../how-to/operators.md) shows how to make one. "-" means that no evidence
is needed.

**TLS 1.2** is taken where `[est] tls12` lets it in, for what devices and everybody may ask. What operators and stations ask is answered over TLS 1.3 only,
and refused otherwise with 403 and `tls13-required`; each such route says so. Behind a proxy the proxy's own settings hold that: those shipped
let nothing of REST through over TLS 1.2.
"""

_SIGNED = """
## Signed messages

A message is JSON in UTF-8; its signature is over the text `fleetca message v1`, one zero octet, and the message as it is sent. Every message has `act`,
`audience` (the deployment's name, `GET /v1/about`), `issued_at` (Unix seconds) and `id` (16 to 128 characters that were never used before).
"""

_STATUS = """
## The status service

Plain HTTP at `[status] url`, because its answers are signed themselves (RFC 5280, section 8).

| route | answer |
|---|---|
| `POST /ocsp` | an OCSP answer (RFC 6960) to the request in the body, `application/ocsp-request`, at most 64 KiB |
| `GET /ocsp/{request}` | the same; the request is base64, plain or percent-encoded |
| `GET /crl/{issuer}.crl` | the issuer's current CRL, DER, `application/pkix-crl`, with ETag and Last-Modified |
| `GET /ca/{issuer}.cer` | the issuer's own certificate, DER, `application/pkix-cert` |
| `GET /crl/health` | how old the CRLs are, JSON; 503 when one has ended or is missing |
| `GET /healthz` | whether the responder can answer, and whether it hears of changes; JSON |
"""


def page() -> str:
    """The page."""
    described = openapi.document(version="", url="")
    parts = [markdown.head("REST", "the OpenAPI document in `enroll/rest/openapi.py`", _ABOUT)]
    parts.append(markdown.table(("route", "what it does", "evidence"), [_line(*each) for each in operations(described)]))
    parts += [_section(*each) for each in operations(described)]
    parts += [
        _refusals(described),
        "\n## Bodies and answers\n",
        *(_schema(name, schema) for name, schema in _schemas(described)),
        _SIGNED.lstrip(),
        _acts(),
        _STATUS,
    ]
    return "\n".join(parts)


def operations(described: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Method, path and operation of each route."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _line(method: str, path: str, operation: Mapping[str, Any]) -> tuple[str, ...]:
    return f"[`{method} {path}`](#{_anchor(method, path)})", operation["summary"], _evidence(operation)


def _anchor(method: str, path: str) -> str:
    return re.sub(r"[/{}.]", "", f"{method} {path}".lower()).replace(" ", "-")


def _evidence(operation: Mapping[str, Any]) -> str:
    names = [name for one in operation["security"] for name in one]
    body = json.dumps(operation.get("requestBody", {}))
    if any(f"schemas/{name}" in body for name in ("RenewRequest", "ConfirmRequest", "RevokeRequest", "MessageRequest")):
        names.append("message")
    return " or ".join(names) or "-"


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [f"\n## {method} {path}\n", f"{operation['summary']} {operation['description']}".strip(), ""]
    parameters = operation["parameters"]
    if parameters:
        rows = [(f"`{one['name']}`", one["in"], _type(one["schema"]), one["description"]) for one in parameters]
        lines += [markdown.table(("parameter", "in", "type", "meaning"), rows), ""]
    if "requestBody" in operation:
        optional = "" if operation["requestBody"]["required"] else " (may be absent)"
        lines += [f"Body{optional}: {_content(operation['requestBody']['content'])}.", ""]
    answers: list[tuple[str, Any]] = sorted((status, answer) for status, answer in operation["responses"].items() if status != "default")
    made = [(status, answer["description"], _content(answer["content"])) for status, answer in answers if not _is_refusal(answer)]
    lines += [markdown.table(("status", "meaning", "answer"), made), ""]
    refused = [status for status, answer in answers if _is_refusal(answer)]
    lines += [f"[Refusals](#refusals): {', '.join(refused)}."] if refused else []
    return "\n".join(lines)


def _is_refusal(answer: Mapping[str, Any]) -> bool:
    return problems.MEDIA_TYPE in answer["content"]


def _refusals(described: Mapping[str, Any]) -> str:
    meanings = {
        status: answer["description"]
        for _, _, operation in operations(described)
        for status, answer in operation["responses"].items()
        if status != "default" and _is_refusal(answer)
    }
    return "\n## Refusals\n\nEach is a [Problem](#problem); its `code` says which.\n\n" + markdown.table(
        ("status", "meaning"), sorted(meanings.items())
    )


def _content(content: Mapping[str, Any]) -> str:
    return " or ".join(f"`{media}` {_type(one['schema'])}".removesuffix(" text").strip() for media, one in content.items())


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return "" if name in {"Der", "Pem", "OpenApi"} else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    kind = schema.get("type", "object")
    kinds: list[str] = kind if isinstance(kind, list) else [kind]
    if "array" in kinds:
        return f"list of {_type(schema['items'])}"
    if schema.get("properties"):
        return f"object with {', '.join(f'`{name}`' for name in schema['properties'])}"
    words = {"string": "time" if schema.get("format") == "date-time" else "text", "integer": "number", "boolean": "true or false"}
    return " or ".join(words.get(one, one) for one in kinds)


def _schemas(described: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, schema in sorted(described["components"]["schemas"].items()):
        if schema.get("properties"):
            yield name, schema


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (f"`{member}`", _type(one), "" if member in required else "optional", one.get("description", ""))
        for member, one in schema["properties"].items()
    ]
    return f"### {name}\n\n{schema.get('description', '')}\n\n{markdown.table(('member', 'type', '', 'meaning'), rows)}\n"


def _acts() -> str:
    rows = []
    for act in message.Act:
        required, optional = message.FIELDS[act]
        fields = [*(f"`{name}`" for name in sorted(required)), *(f"`{name}` (optional)" for name in sorted(optional))]
        rows.append((f"`{act.value}`", ", ".join(fields) or "-", f"{message.WINDOW[act]} s"))
    return markdown.table(("act", "fields", "counts for"), rows)
