"""EST over HTTP (RFC 7030 3.2) as a Flask blueprint. Edge: HTTP to the flow and back; no rule of its own.

Errors are plain sentences (RFC 7030 4.2.3). The client's certificate and the channel binding arrive in the WSGI environ from the TLS session; no
header is ever believed for them (R18).
"""

from __future__ import annotations

from typing import Final

import structlog
from flask import Blueprint, Response, g, request

from ca.errors import FleetcaError, Malformed, Refused, Unauthenticated, Unavailable
from ca.model import Certificate
from enroll.est import messages
from enroll.est.flow import Connection, Est, read_basic
from enroll.rest.problems import status_of
from enroll.rest.routes import PEER_CERTIFICATE

PREFIX: Final = "/.well-known/est"
TLS_UNIQUE: Final = "fleetca.tls_unique"
PENDING: Final = frozenset({"approval-pending"})
"""What somebody has to approve first: 202, and the same request again later (RFC 7030 4.2.3)."""
OPERATIONS: Final = (
    ("cacerts", "GET"),
    ("csrattrs", "GET"),
    ("simpleenroll", "POST"),
    ("simplereenroll", "POST"),
    ("serverkeygen", "POST"),
)
_log = structlog.stdlib.get_logger("fleetca.est")


def blueprint(est: Est) -> Blueprint:
    """The operations, with and without a label."""
    routes = Blueprint("est", __name__, url_prefix=PREFIX)
    answers = _Answers(est)
    for name, method in OPERATIONS:
        view = getattr(answers, name)
        routes.add_url_rule(f"/{name}", name, view, methods=[method], defaults={"label": None})
        routes.add_url_rule(f"/<label>/{name}", f"{name}-of-label", view, methods=[method])
    routes.register_error_handler(FleetcaError, _refused)
    return routes


class _Answers:
    """One method per operation."""

    def __init__(self, est: Est) -> None:
        self._est = est

    def cacerts(self, label: str | None) -> Response:
        return _encoded(self._est.cacerts(label), messages.CERTS_ONLY)

    def csrattrs(self, label: str | None) -> Response:
        return _encoded(self._est.csrattrs(label), messages.CSRATTRS)

    def simpleenroll(self, label: str | None) -> Response:
        self._est.profile(label)
        return _certificate(self._est.enroll(label, _body(), _connection()))

    def serverkeygen(self, label: str | None) -> Response:
        self._est.profile(label)
        key, issued = self._est.generate(label, _body(), _connection())
        assert issued.der is not None, "the signer returns issued certificates only"
        g.facts.update(device=issued.device, profile=issued.profile, certificate=str(issued.ref))
        body, content_type = messages.key_and_certificate(key, issued.der, boundary=f"fleetca-{g.request_id}")
        return Response(body, content_type=content_type)

    def simplereenroll(self, label: str | None) -> Response:
        self._est.profile(label)
        return _certificate(self._est.reenroll(label, _body(), _connection()))


def _body() -> bytes:
    if request.mimetype != messages.PKCS10:
        raise Malformed("unsupported-media-type", f"The body must be of type {messages.PKCS10} (RFC 7030 4.2.1).")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Malformed("unsupported-media-type", "The body is coded; send it uncompressed.")
    return request.get_data(cache=False)


def _connection() -> Connection:
    certificate, unique = request.environ.get(PEER_CERTIFICATE), request.environ.get(TLS_UNIQUE)
    return Connection(
        certificate=certificate if isinstance(certificate, bytes) else None,
        tls_unique=unique if isinstance(unique, bytes) else None,
        basic=read_basic(request.headers.get("Authorization", "")),
    )


def _encoded(der: bytes, content_type: str) -> Response:
    answer = Response(messages.encode(der), content_type=content_type)
    # Whoever still looks for it finds it; what it says is true of every body here (RFC 8951 3).
    answer.headers["Content-Transfer-Encoding"] = "base64"
    return answer


def _certificate(issued: Certificate) -> Response:
    """RFC 7030 4.2.3: the issued certificate, alone."""
    assert issued.der is not None, "the signer returns issued certificates only"
    g.facts.update(device=issued.device, profile=issued.profile, certificate=str(issued.ref))
    return _encoded(messages.certs_only([issued.der]), messages.CERTS_ONLY)


def _refused(error: FleetcaError) -> Response:
    g.code = error.code
    g.facts.update(what=error.what)
    if isinstance(error, Unavailable):
        status = 202 if error.code in PENDING else status_of(error)
        said = "It waits for approval." if status == 202 else "The service cannot do this now."
        answer = Response(f"{said} Send the same request again later.\n", status, content_type="text/plain; charset=utf-8")
        answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    if not isinstance(error, Refused):
        _log.error("failed", request_id=g.request_id, code=error.code, what=error.what, why=error.why)
        return Response("The service failed; nothing was released.\n", 500, content_type="text/plain; charset=utf-8")
    status = 401 if isinstance(error, Unauthenticated) else status_of(error)
    words = " ".join(part for part in (str(error), error.fix) if part)
    answer = Response(f"{words}\n", status, content_type="text/plain; charset=utf-8")
    if status == 401:
        # RFC 7030 3.2.3, RFC 9110 15.5.2: what would do.
        answer.headers["WWW-Authenticate"] = 'Basic realm="fleetca", charset="UTF-8"'
    return answer
