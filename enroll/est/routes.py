"""EST over HTTP (RFC 7030 3.2) as a Flask blueprint. Edge: HTTP to the flow and back; no rule of its own.

Errors are plain sentences (RFC 7030 4.2.3). The client's certificate and the channel binding arrive in the WSGI environ from the TLS session; no
header is ever believed for them (R18).
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, g, request

from ca.errors import FleetcaError, Malformed
from enroll.est import answers, messages
from enroll.est.flow import PREFIX, Connection, Est, read_basic
from enroll.rest.answers import Reply
from enroll.rest.routes import PEER_CERTIFICATE

TLS_UNIQUE: Final = "fleetca.tls_unique"
OPERATIONS: Final = (
    ("cacerts", "GET"),
    ("csrattrs", "GET"),
    ("simpleenroll", "POST"),
    ("simplereenroll", "POST"),
    ("serverkeygen", "POST"),
)


def blueprint(est: Est) -> Blueprint:
    """The operations, with and without a label."""
    routes = Blueprint("est", __name__, url_prefix=PREFIX)
    views = _Views(est)
    for name, method in OPERATIONS:
        view = getattr(views, name)
        routes.add_url_rule(f"/{name}", name, view, methods=[method], defaults={"label": None})
        routes.add_url_rule(f"/<label>/{name}", f"{name}-of-label", view, methods=[method])
    routes.register_error_handler(FleetcaError, _refused)
    return routes


class _Views:
    """One method per operation."""

    def __init__(self, est: Est) -> None:
        self._est = est

    def cacerts(self, label: str | None) -> Response:
        return _response(answers.encoded(self._est.cacerts(label), messages.CERTS_ONLY))

    def csrattrs(self, label: str | None) -> Response:
        return _response(answers.encoded(self._est.csrattrs(label), messages.CSRATTRS))

    def simpleenroll(self, label: str | None) -> Response:
        self._est.profile(label)
        return _response(answers.certificate(self._est.enroll(label, _body(), _connection())))

    def serverkeygen(self, label: str | None) -> Response:
        self._est.profile(label)
        key, issued = self._est.generate(label, _body(), _connection())
        assert issued.der is not None, "the signer returns issued certificates only"
        g.facts.update(device=issued.device, profile=issued.profile, certificate=str(issued.ref))
        body, content_type = messages.key_and_certificate(key, issued.der, boundary=f"fleetca-{g.request_id}")
        return Response(body, content_type=content_type)

    def simplereenroll(self, label: str | None) -> Response:
        self._est.profile(label)
        return _response(answers.certificate(self._est.reenroll(label, _body(), _connection())))


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


def _response(reply: Reply) -> Response:
    g.code = reply.code
    g.facts.update(reply.facts)
    answer = Response(reply.body, reply.status, content_type=reply.content_type)
    answer.headers.extend(reply.headers)
    return answer


def _refused(error: FleetcaError) -> Response:
    return _response(answers.refusal(error, g.request_id))
