"""CRLs and CA certificates over plain HTTP (RFC 2585): what cRLDistributionPoints and caIssuers point to. Ring 5.

    GET /crl/ISSUER.crl    the complete CRL, DER, application/pkix-crl; a shard's is ISSUER.7.crl, the delta ISSUER.delta.crl
    GET /ca/ISSUER.cer     the issuer's own certificate, DER, application/pkix-cert (RFC 5280 4.2.2.1)
    GET /ca/ISSUER.p7c     that certificate, and those that others gave the same CA: certs-only, application/pkcs7-mime
    GET /crl/health        how the CRLs stand, JSON; 503 when one has ended or is missing

Needs the outlet and the issuers' certificates, and neither database nor signer (P7). A CRL whose nextUpdate is past is not handed out (P5): it
would only be refused further on, with less to tell why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, make_response, request

from ca.der.bundle import certs_only
from ca.der.certificate import read_certificate
from ca.errors import StoreUnavailable
from ca.model import Issuer, IssuerId, OutletCopy, UnixTime
from ca.ports import Clock
from crl.health import health
from crl.model import Freshness, Head, Health, Scope
from crl.publish import scopes
from crl.shelf import Shelf, Visible

_CERTIFICATE_MAX_AGE = 3600
_RETRY_AFTER = "30"


def blueprint(
    *, shelf: Shelf, issuers: Iterable[Issuer], clock: Clock, max_age: int = 30, others: Iterable[bytes] = ()
) -> Blueprint:  # fmt: skip
    """The routes, for a Flask application.

    Args:
        shelf: keeps the octets it finds.
        issuers: whose CRLs and certificates are served; a name in a URL is looked up here and never becomes a path.
        max_age: seconds for which a cache may keep a CRL, at most. Cache and publisher together must stay within the 60 s in which a revocation
            shows (P5); asking again costs a 304.
        others: further certificates of CAs (DER): links between roots, cross-certificates.
    """
    known = {issuer.id: issuer for issuer in issuers}
    published = {scope.name: scope for issuer in known.values() if issuer.may_sign_crl for scope in scopes(issuer)}
    bundles = _bundles(known.values(), others)
    routes = Blueprint("crl", __name__)

    @routes.get("/crl/<name>.crl")
    def crl(name: str) -> Response:
        scope = published.get(f"{name}.crl")
        if scope is None:
            return _problem(HTTPStatus.NOT_FOUND, "crl-unknown", "No CRL of this name is published here.")
        now = clock.now()
        try:
            copy, head = _to_serve(shelf, scope, now=now)
        except StoreUnavailable as error:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, "The CRL cannot be read now.")
        if copy is None or head is None:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "crl-missing", "No CRL of this issuer is published now.")
        if head.next_update <= now:
            return _problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "crl-expired", "The CRL of this issuer has ended and no newer one is published."
            )
        return _file(
            copy.octets,
            kind="application/pkix-crl",
            tag=copy.version,
            modified=head.this_update,
            expires=min(head.next_update, now + max_age),
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
        now, octets = clock.now(), bundles[issuer.id]
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


def _bundles(issuers: Iterable[Issuer], others: Iterable[bytes]) -> Mapping[IssuerId, bytes]:
    """What caIssuers may point to: every certificate of a CA's name and key (RFC 5280 4.2.2.1). A client picks the one that leads to its root."""
    read = [read_certificate(der) for der in others]
    return {
        issuer.id: certs_only([issuer.certificate, *(one.der for one in read if (one.subject, one.spki) == (issuer.subject, issuer.spki))])
        for issuer in issuers
    }


def _to_serve(shelf: Shelf, scope: Scope, *, now: UnixTime) -> tuple[OutletCopy | None, Head | None]:
    """The visible CRL; where that cannot be believed, the one before it, as long as it holds (R09)."""
    found: Visible = shelf.look(scope)
    if found.trouble is not None:
        found = shelf.fall_back(scope)
        if found.head is not None and found.head.next_update <= now:
            return None, None
    return found.copy, found.head


def _file(octets: bytes, *, kind: str, tag: str, modified: UnixTime, expires: UnixTime, now: UnixTime) -> Response:
    response = make_response(octets)
    response.content_type = kind
    response.set_etag(tag)
    response.last_modified = datetime.fromtimestamp(modified, UTC)
    response.expires = datetime.fromtimestamp(expires, UTC)
    response.headers["Cache-Control"] = f"public, max-age={expires - now}, must-revalidate, no-transform"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Answers If-None-Match and If-Modified-Since by 304, and Range, so that a large CRL can be taken up again.
    response.make_conditional(request, accept_ranges=True, complete_length=len(octets))
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
