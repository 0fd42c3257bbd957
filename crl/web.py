"""CRLs and CA certificates over plain HTTP (RFC 2585): what cRLDistributionPoints and caIssuers point to. Ring 5.

    GET /crl/ISSUER.crl    the complete CRL, DER, application/pkix-crl; a shard's is ISSUER.7.crl, the delta ISSUER.delta.crl
    GET /ca/ISSUER.cer     the issuer's own certificate, DER, application/pkix-cert (RFC 5280 4.2.2.1)
    GET /ca/ISSUER.p7c     those that others gave the same CA, and its own unless it signed that itself: certs-only, application/pkcs7-mime
    GET /crl/health        how the CRLs stand, JSON; 503 when one has ended or is missing

Needs the outlet and the issuers' certificates, and neither database nor signer (P7). A CRL whose nextUpdate is past is not handed out (P5): it
would only be refused further on, with less to tell why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import IO, cast

from flask import Blueprint, Response, jsonify, make_response, request
from werkzeug.wsgi import FileWrapper

from ca.der.bundle import certs_only
from ca.der.certificate import CertificateFacts, read_certificate
from ca.errors import StoreUnavailable
from ca.model import Issuer, IssuerId, UnixTime
from ca.outlets.handle import Handle
from ca.ports import Clock, PublishedCopy
from crl.health import health
from crl.model import Freshness, Health, Scope
from crl.publish import scopes
from crl.shelf import Shelf, Visible

_CERTIFICATE_MAX_AGE = 3600
_RETRY_AFTER = "30"
_PIECE = 1 << 18


def blueprint(
    *, shelf: Shelf, issuers: Iterable[Issuer], clock: Clock, max_age: int = 30, others: Iterable[bytes] = ()
) -> Blueprint:  # fmt: skip
    """The routes, for a Flask application.

    Args:
        shelf: says what is published and opens it.
        issuers: whose CRLs and certificates are served; a name in a URL is looked up here and never becomes a path.
        max_age: seconds for which a cache may keep a CRL, at most. Cache and publisher together must stay within the 60 s in which a revocation
            shows (P5); asking again costs a 304.
        others: further certificates of CAs (DER): links between roots, cross-certificates.
    """
    known = {issuer.id: issuer for issuer in issuers}
    published = {scope.name: scope for issuer in known.values() if issuer.may_sign_crl for scope in scopes(issuer)}
    given = _given(known.values(), others)
    routes = Blueprint("crl", __name__)

    @routes.get("/crl/<name>.crl")
    def crl(name: str) -> Response:
        scope = published.get(f"{name}.crl")
        if scope is None:
            return _problem(HTTPStatus.NOT_FOUND, "crl-unknown", "No CRL of this name is published here.")
        now, held = clock.now(), ExitStack()
        try:
            found, copy = _to_serve(shelf, scope, held, now=now)
        except StoreUnavailable as error:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, "The CRL cannot be read now.")
        if copy is None or found.head is None or found.version is None:
            held.close()
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "crl-missing", "No CRL of this issuer is published now.")
        if found.head.next_update <= now:
            held.close()
            return _problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "crl-expired", "The CRL of this issuer has ended and no newer one is published."
            )
        # Its file stays open until the answer has left, or was found to need no body.
        return _answer(
            Response(FileWrapper(cast("IO[bytes]", _Held(copy, held)), _PIECE), direct_passthrough=True),
            length=copy.size,
            kind="application/pkix-crl",
            tag=found.version,
            modified=found.head.this_update,
            expires=min(found.head.next_update, now + max_age),
            now=now,
        )

    @routes.get("/ca/<name>.cer")
    def certificate(name: str) -> Response:
        issuer = known.get(IssuerId(name))
        if issuer is None:
            return _problem(HTTPStatus.NOT_FOUND, "issuer-unknown", "No issuer of this name is known here.")
        now = clock.now()
        return _file(
            issuer.certificate,
            kind="application/pkix-cert",
            tag=sha256(issuer.certificate).hexdigest(),
            modified=issuer.not_before,
            expires=now + _CERTIFICATE_MAX_AGE,
            now=now,
        )

    @routes.get("/ca/<name>.p7c")
    def certificates(name: str) -> Response:
        issuer = known.get(IssuerId(name))
        if issuer is None:
            return _problem(HTTPStatus.NOT_FOUND, "issuer-unknown", "No issuer of this name is known here.")
        now = clock.now()
        octets = _bundle(issuer, given[issuer.id], now=now)
        return _file(
            octets,
            kind="application/pkcs7-mime",
            tag=sha256(octets).hexdigest(),
            modified=issuer.not_before,
            expires=now + _CERTIFICATE_MAX_AGE,
            now=now,
        )

    @routes.get("/crl/health")
    def stand() -> Response:
        try:
            found = health(shelf, known.values(), now=clock.now())
        except StoreUnavailable as error:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, "The published CRLs cannot be read now.")
        dark = any(one.freshness in (Freshness.expired, Freshness.missing) for one in found)
        response = jsonify({"status": "failing" if dark else "serving", "crls": [_told(one) for one in found]})
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE if dark else HTTPStatus.OK
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes


def _given(issuers: Iterable[Issuer], others: Iterable[bytes]) -> Mapping[IssuerId, Sequence[CertificateFacts]]:
    """The certificates that other CAs gave each name and key."""
    read = [read_certificate(der) for der in others]
    return {issuer.id: [one for one in read if (one.subject, one.spki) == (issuer.subject, issuer.spki)] for issuer in issuers}


def _bundle(issuer: Issuer, given: Sequence[CertificateFacts], *, now: UnixTime) -> bytes:
    """What caIssuers may point to: certificates of a CA's name and key (RFC 5280 4.2.2.1). A client picks the one that leads to its root.

    The one that a root gave itself leads nowhere: who trusts that root has it. Beside a link it does harm: OpenSSL takes whichever of the two comes first,
    never goes back from it (error 19 for who trusts the other root only), and which comes first in a set is chance.
    """
    holding = [one.der for one in given if now <= one.not_after]
    alone = not holding or issuer.parent is not None
    return certs_only([*([issuer.certificate] if alone else []), *holding])


def _to_serve(shelf: Shelf, scope: Scope, held: ExitStack, *, now: UnixTime) -> tuple[Visible, PublishedCopy | None]:
    """The visible CRL; where that cannot be believed, the one before it, as long as it holds (R09)."""
    found, copy = held.enter_context(shelf.opened(scope))
    if found.trouble is not None:
        held.close()
        found, copy = held.enter_context(shelf.fall_back(scope))
        if found.head is not None and found.head.next_update <= now:
            copy = None
    return found, copy


class _Held(Handle):
    """A published file for whoever sends it, let go at the end."""

    def __init__(self, copy: PublishedCopy, held: ExitStack) -> None:
        super().__init__(copy)
        self._held = held

    def close(self) -> None:
        self._held.close()
        super().close()


def _file(octets: bytes, *, kind: str, tag: str, modified: UnixTime, expires: UnixTime, now: UnixTime) -> Response:
    return _answer(make_response(octets), length=len(octets), kind=kind, tag=tag, modified=modified, expires=expires, now=now)


def _answer(response: Response, *, length: int, kind: str, tag: str, modified: UnixTime, expires: UnixTime, now: UnixTime) -> Response:
    response.content_type = kind
    response.content_length = length
    response.set_etag(tag)
    response.last_modified = datetime.fromtimestamp(modified, UTC)
    response.expires = datetime.fromtimestamp(expires, UTC)
    response.headers["Cache-Control"] = f"public, max-age={expires - now}, must-revalidate, no-transform"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Answers If-None-Match and If-Modified-Since by 304, and Range, so that a large CRL can be taken up again.
    response.make_conditional(request, accept_ranges=True, complete_length=length)
    # The server writes the date, from the one clock.
    response.headers.pop("Date", None)
    return response


def _told(one: Health) -> dict[str, object]:
    return {
        "issuer": one.issuer,
        "crl": one.name,
        "state": one.freshness.value,
        "number": one.head.number if one.head else None,
        "this_update": one.head.this_update if one.head else None,
        "next_update": one.head.next_update if one.head else None,
        "advice": one.advice,
    }


def _problem(status: HTTPStatus, code: str, what: str) -> Response:
    """RFC 9457."""
    response = jsonify({"type": f"urn:fleetca:error:{code}", "title": what, "status": status.value, "code": code})
    response.status_code = status
    response.content_type = "application/problem+json"
    response.headers["Cache-Control"] = "no-store"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = _RETRY_AFTER
    return response
