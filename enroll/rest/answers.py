"""What goes back over HTTP for an issuance or an error, and the line in our log about it. Edge; knows no Flask.

Both lanes of the API, the Flask application (`routes`) and the one without a thread (`prompt`), make their answers here, so that they are the
same octets. The log never holds bodies, queries, tokens or header values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ca.errors import FleetcaError, Unauthenticated
from enroll.model import Issuance
from enroll.rest import messages, openapi, problems

_SECRET: Final = re.compile(r"enr_[0-9A-Za-z]+")
_log = structlog.stdlib.get_logger("fleetca.enroll")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer without the headers that every answer has."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    code: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the log says beside method, path and status."""


def sealing(request_id: str) -> tuple[tuple[str, str], ...]:
    """The headers that every answer has; the last one only where it has no other of that name."""
    return ("X-Request-Id", request_id), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")


def send(reply: Reply, request_id: str, target: bytes, tell: Callable[[int, Sequence[tuple[bytes, bytes]], bytes], None]) -> None:
    """Answer a POST without a thread, and write its line."""
    write_line(request_id=request_id, method="POST", path=target.decode("ascii"), status=reply.status, code=reply.code, facts=reply.facts)
    headers = [(b"Content-Type", reply.content_type.encode("latin-1"))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*reply.headers, *sealing(request_id))]
    tell(reply.status, headers, reply.body)


def issuance(issued: Issuance, media_type: str) -> Reply:
    """A certificate for its holder."""
    certificate = issued.certificate
    assert certificate.der is not None, "the signer returns issued certificates only"
    ref = str(certificate.ref)
    if media_type == openapi.PKIX_CERT:
        body = certificate.der
    elif media_type == openapi.PEM_CHAIN:
        body = messages.pem_chain((certificate.der, *issued.chain)).encode()
    else:
        body = messages.issuance_octets(issued)
    return Reply(
        200 if issued.repeated else 201,
        media_type,
        body,
        (("Location", f"{openapi.PREFIX}/certificates/{ref}"),),
        facts={"device": certificate.device, "profile": certificate.profile, "certificate": ref, "repeated": issued.repeated},
    )


def problem(found: problems.Problem, request_id: str, *, facts: Mapping[str, Any] | None = None) -> Reply:
    """A problem document."""
    after = () if found.retry_after is None else (("Retry-After", str(found.retry_after)),)
    return Reply(found.status, problems.MEDIA_TYPE, messages.json_octets(found.document(request_id)), after, found.code, facts or {})


def refusal(error: FleetcaError, request_id: str, *, by_token: bool) -> Reply:
    """An error of ours: its words for the client as far as they concern it, all of them for the log.

    Args:
        by_token: the address takes a token, so that RFC 9110, section 15.5.2 can be kept: a 401 names the scheme that would do.
    """
    found = problems.problem_of(error)
    if found.status >= 500 and found.retry_after is None:
        _log.error("failed", request_id=request_id, code=error.code, what=clean(error.what), why=clean(error.why))
    facts = {"what": error.what, "why": error.why}
    if by_token and isinstance(error, Unauthenticated):
        made = {**found.document(request_id), "status": 401}
        return Reply(
            401, problems.MEDIA_TYPE, messages.json_octets(made), (("WWW-Authenticate", 'Bearer realm="fleetca"'),), found.code, facts
        )
    return problem(found, request_id, facts=facts)


def crashed(error: Exception, request_id: str) -> Reply:
    """A mistake of ours: the traceback is for the log, the client gets the request id. Call it where the error is handled."""
    _log.exception("crashed", request_id=request_id, error=type(error).__name__)
    return problem(problems.INTERNAL, request_id)


def clean(text: str) -> str:
    """A token that a client put where none belongs (a path, a field's name) does not get into the log."""
    return _SECRET.sub("enr_...", text) if "enr_" in text else text


def write_line(*, request_id: str, method: str, path: str, status: int, code: str | None, facts: Mapping[str, Any]) -> None:
    """The line about one request."""
    said = {name: clean(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
    _log.info("request", request_id=request_id, method=method, path=clean(path)[:200], status=status, code=code, **said)
