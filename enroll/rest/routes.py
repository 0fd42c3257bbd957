"""The REST API as a Flask application. Edge: HTTP to messages and back; no rule of its own.

Each operation of `openapi.OPERATIONS` is bound to the method of its id below, so that address, method and document cannot differ. The DER of the
client certificate arrives in `environ["fleetca.peer_certificate"]`, put there by our server from the TLS session; no header is ever believed
(incident R18). Every answer and every log line carries the request id. The log never holds bodies, queries, tokens or header values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from ca.errors import Denied, FleetcaError, Malformed, Unauthenticated
from ca.model import CertificateRef, Proposal
from ca.ports import Chance
from ca.rules.message import names_to
from ca.rules.renewal_health import Health
from enroll.model import Issuance
from enroll.rest import answers, fields, line_messages, messages, openapi, problems
from enroll.rest.fields import BODY_LIMIT, Body
from enroll.rest.flow import Enrolment

PEER_CERTIFICATE: Final = "fleetca.peer_certificate"
TLS12: Final = "fleetca.tls12"
"""In the environ where the connection is of TLS 1.2."""
ASK_AFTER: Final = 6 * 3600
"""Seconds after which a window is asked for again (RFC 9773 4.3.2: a default of six hours)."""
_TLS13: Final = frozenset(operation.id for operation in openapi.OPERATIONS if not operation.tls12)


class _Rest:
    """One method per operation id."""

    def __init__(self, enrolment: Enrolment, *, described: Mapping[str, Any]) -> None:
        self._enrolment = enrolment
        self._described = described

    # ---- Issuing ----------------------------------------------------------------------------------------------------

    def enroll(self) -> Response:
        if request.mimetype == openapi.PKCS10:
            return _issuance(self._enrolment.enroll({"token": _bearer(), "csr": messages.csr_octets(_octets())}))
        return _issuance(self._enrolment.enroll(_members(messages.ENROLL)))

    def challengeTpm(self) -> Response:  # noqa: N802 - the operation's id, in the spelling of OpenAPI
        return _json(messages.render_challenge(self._enrolment.challenge(_members(messages.CHALLENGE))))

    def renew(self) -> Response:
        members = {"csr": messages.csr_octets(_octets())} if request.mimetype == openapi.PKCS10 else _members(messages.RENEW)
        return _issuance(self._enrolment.renew(certificate=_peer(), members=members))

    def issue(self) -> Response:
        return _issuance(self._enrolment.issue(_members(messages.MESSAGE_ONLY)))

    def confirm(self) -> Response:
        members = _members(messages.CONFIRM) if request.content_length else {}
        confirmed = self._enrolment.confirm(certificate=_peer(), members=members)
        _note(device=confirmed.device, certificate=str(confirmed.ref))
        return _json(messages.render_certificate(confirmed, now=self._enrolment.now(), with_octets=True))

    def report(self) -> Response:
        heard = self._enrolment.report(certificate=_peer(), members=_members(messages.REPORT))
        _note(device=heard.device, outcome=heard.outcome, reported=heard.code)
        return _json({"device": heard.device})

    def revoke(self) -> Response:
        members = _members(messages.REVOKE)
        if "message" in members:
            _require_tls13()
        revoked = self._enrolment.revoke(certificate=_peer(), members=members)
        _note(revoked=[str(one.ref) for one in revoked])
        return _json({"revoked": [messages.render_revoked(one) for one in revoked]})

    def approvals(self) -> Response:
        query = messages.read_approvals(list(request.args.items(multi=True)))
        rows, following = self._enrolment.approvals(certificate=_peer(), after=query.get("cursor"), limit=query.get("limit", 50))
        return _json({"approvals": [messages.render_approval(row) for row in rows], "next": following})

    def decideApproval(self) -> Response:  # noqa: N802
        made = self._enrolment.decide(_members(messages.MESSAGE_ONLY))
        if isinstance(made, Proposal):
            _note(act=made.act.value, decision=made.state.value, by=made.answers[-1].operator)
            return _json(messages.render_proposal(made))
        _note(device=made.device, decision=made.state.value, by=made.decided_by)
        return _json(messages.render_approval(made))

    def propose(self) -> Response:
        made = self._enrolment.propose(_members(messages.MESSAGE_ONLY))
        _note(act=made.act.value, by=made.asked.operator)
        return _json(messages.render_proposal(made))

    def proposals(self) -> Response:
        query = messages.read_approvals(list(request.args.items(multi=True)))
        rows, following = self._enrolment.proposals(certificate=_peer(), after=query.get("cursor"), limit=query.get("limit", 50))
        return _json({"proposals": [messages.render_proposal(row) for row in rows], "next": following})

    def showProposal(self, request: str) -> Response:  # noqa: N802
        return _json(messages.render_proposal(self._enrolment.proposal(request, certificate=_peer())))

    def tenant(self) -> Response:
        return _json(self._enrolment.own.tenant(certificate=_peer()))

    def log(self) -> Response:
        query = messages.read_log(list(request.args.items(multi=True)))
        rows, following = self._enrolment.own.log(certificate=_peer(), start=query.get("start", 0), limit=query.get("limit", 50))
        return _json({"leaves": [{"index": index, "leaf": leaf} for index, leaf in rows], "next": following})

    def createToken(self) -> Response:  # noqa: N802 - the operation's id, in the spelling of OpenAPI
        made = self._enrolment.create_token(_members(messages.MESSAGE_ONLY))
        _note(device=made.token.device, profile=made.token.profile)
        document = {
            "token": made.text,
            "device": made.token.device,
            "profile": made.token.profile,
            "names": names_to(made.token.names),
            "expires": fields.timestamp(made.token.expires),
        }
        return _json(document, 201)

    # ---- Stations of a factory line ---------------------------------------------------------------------------------

    def openShift(self) -> Response:  # noqa: N802
        shift, header, issuers = self._enrolment.stations.open_shift(_members(messages.MESSAGE_ONLY))
        _note(shift=shift.number, station=shift.station, by=shift.operator)
        return _json(line_messages.render_shift(shift, header, issuers))

    def bringUnits(self) -> Response:  # noqa: N802
        answer = self._enrolment.stations.bring_units(_members(line_messages.UNITS))
        _note(shift=answer.shift.number, station=answer.shift.station, taken=answer.shift.taken)
        return _json(line_messages.render_units(answer))

    def sealRecords(self) -> Response:  # noqa: N802
        seal = self._enrolment.stations.seal_records(_members(line_messages.RECORDS))
        _note(station=seal.station, sealed=seal.count)
        return _json(line_messages.render_seal(seal))

    # ---- Looking ----------------------------------------------------------------------------------------------------

    def searchCertificates(self) -> Response:  # noqa: N802
        query = messages.read_search(list(request.args.items(multi=True)))
        rows, following = self._enrolment.search(query, certificate=_peer())
        now = self._enrolment.now()
        page = [messages.render_certificate(row, now=now, with_octets=False) for row in rows]
        return _json({"certificates": page, "next": following})

    def renewalWindow(self, authority: str, serial: str) -> Response:  # noqa: N802
        window = self._enrolment.window(authority, serial)
        document = {
            "start": fields.timestamp(window.start),
            "end": fields.timestamp(window.end),
            "reason": window.reason or None,
            "ask_after": ASK_AFTER,
        }
        return _json(document)

    def fleet(self) -> Response:
        query = messages.read_fleet(list(request.args.items(multi=True)))
        health = Health(query["health"]) if "health" in query else None
        rows, following = self._enrolment.fleet(health, certificate=_peer(), after=query.get("cursor", ""), limit=query.get("limit", 50))
        now = self._enrolment.now()
        return _json({"devices": [messages.render_report(row, now=now) for row in rows], "next": following})

    def showCertificate(self, issuer: str, serial: str) -> Response:  # noqa: N802
        found = self._enrolment.certificate(_ref(issuer, serial), certificate=_peer())
        if found.der is not None and _wants(openapi.PKIX_CERT):
            return Response(found.der, content_type=openapi.PKIX_CERT)
        return _json(messages.render_certificate(found, now=self._enrolment.now(), with_octets=True))

    def showReceipt(self, issuer: str, serial: str) -> Response:  # noqa: N802
        return _json(self._enrolment.receipt(_ref(issuer, serial), certificate=_peer()))

    def chain(self) -> Response:
        return _public(messages.pem_chain(self._enrolment.chain()).encode(), openapi.PEM_CHAIN)

    def bundle(self) -> Response:
        return _public(messages.pem_chain(self._enrolment.bundle()).encode(), openapi.PEM_CHAIN)

    def links(self) -> Response:
        return _public(messages.pem_chain(self._enrolment.links()).encode(), openapi.PEM_CHAIN)

    def pins(self) -> Response:
        return _public(self._enrolment.pins(), openapi.JSON)

    def about(self) -> Response:
        return _json({"deployment": self._enrolment.deployment, "version": self._described["info"]["version"]})

    def health(self) -> Response:
        health = self._enrolment.health()
        document = {
            "status": "ready" if health.ready else "degraded",
            "signer": health.signer,
            "store": health.store,
            "root_present": health.root_present,
        }
        return _json(document, 200 if health.ready else 503)

    def openapi(self) -> Response:
        return _public(json.dumps(self._described, separators=(",", ":"), ensure_ascii=False).encode(), openapi.JSON)


# ---- What a request carries -----------------------------------------------------------------------------------------


def _peer() -> bytes | None:
    der = request.environ.get(PEER_CERTIFICATE)
    return der if isinstance(der, bytes) else None


def _require_tls13() -> None:
    """For what operators and stations do. Behind a proxy on a Unix socket it is the proxy that knows, and its settings that say so."""
    if request.environ.get(TLS12):
        raise Denied(
            "tls13-required",
            "Management is taken over TLS 1.3 only.",
            why="This connection is of TLS 1.2, which `[est] tls12` lets in for devices.",
            fix="Connect with TLS 1.3.",
        )


def _octets() -> bytes:
    """The body, bounded before it is read. A body that is coded (gzip) is not unpacked: it could unpack to anything."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Malformed(
            "unsupported-media-type", "The request body is coded.", why="Only `identity` is taken.", fix="Send it uncompressed."
        )
    raw = request.get_data(cache=False)
    if len(raw) > BODY_LIMIT:
        raise fields.too_large()
    return raw


def _members(body: Body) -> Mapping[str, Any]:
    raw = _octets()
    if request.mimetype != openapi.JSON:
        raise Malformed(
            "unsupported-media-type",
            "The request body has a type that is not taken here.",
            why=f"It is {fields.shown(request.mimetype) if request.mimetype else 'not said'}.",
            fix=f"Send Content-Type: {openapi.JSON}",
        )
    return messages.read_body(raw, body)


def _bearer() -> str:
    """RFC 6750, section 2.1."""
    given = request.headers.get("Authorization", "")
    found = re.fullmatch(r"bearer +([\x21-\x7e]{1,200}) *", given, re.IGNORECASE | re.ASCII)
    if found is None:
        raise Unauthenticated(
            "token-required",
            "A one-time enrolment token is required.",
            why="The Authorization header holds none." if given else "There is no Authorization header.",
            fix="Send Authorization: Bearer enr_...; an operator makes one with: fleetca token create DEVICE",
        )
    return found.group(1)


def _ref(issuer: str, serial: str) -> CertificateRef:
    return messages.read_ref(issuer, serial)


def _wants(media_type: str) -> bool:
    """JSON unless the client names another of our types; `*/*` is JSON."""
    return request.accept_mimetypes.best_match([openapi.JSON, media_type]) == media_type


# ---- What goes back -------------------------------------------------------------------------------------------------


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(messages.json_octets(document), status, content_type=openapi.JSON)


def _public(body: bytes, content_type: str) -> Response:
    answer = Response(body, content_type=content_type)
    answer.headers["Cache-Control"] = "max-age=300"
    return answer


def _issuance(issued: Issuance) -> Response:
    wanted = (media for media in (openapi.PKIX_CERT, openapi.PEM_CHAIN) if _wants(media))
    return _response(answers.issuance(issued, next(wanted, openapi.JSON)))


def _response(reply: answers.Reply) -> Response:
    g.code = reply.code
    _note(**reply.facts)
    answer = Response(reply.body, reply.status, content_type=reply.content_type)
    answer.headers.extend(reply.headers)
    return answer


def _refused(error: FleetcaError) -> Response:
    return _response(answers.refusal(error, g.request_id, by_token=request.endpoint == "enroll"))


def _http_error(error: HTTPException) -> Response:
    """What Flask refuses before our code sees it: unknown address, method, size."""
    answer = _response(answers.problem(problems.problem_of_status(error.code or 500), g.request_id))
    for name, value in error.get_headers(request.environ):
        if name == "Allow":
            answer.headers["Allow"] = value
    return answer


def _crashed(error: Exception) -> Response:
    return _response(answers.crashed(error, g.request_id))


def _note(**facts: Any) -> None:
    """Add to this request's log line."""
    g.facts.update(facts)


# ---- The application ------------------------------------------------------------------------------------------------


def create_app(enrolment: Enrolment, *, chance: Chance, version: str, url: str) -> Flask:
    """The application. Wiring makes `enrolment`, which knows signer, reader and clock.

    Args:
        version: of this program, for the API description.
        url: where devices reach us, without the prefix.
    """
    app = Flask("fleetca.enroll", static_folder=None)
    # One octet more than we take: werkzeug cuts a body without a stated length at its limit silently, and a cut body must be seen to be one.
    app.config.update(MAX_CONTENT_LENGTH=BODY_LIMIT + 1, PROPAGATE_EXCEPTIONS=False, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    rest = _Rest(enrolment, described=openapi.document(version=version, url=url))
    for operation in openapi.OPERATIONS:
        path = openapi.PREFIX + operation.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(path, operation.id, getattr(rest, operation.id), methods=[operation.method])

    app.before_request(partial(_begin, chance))
    app.after_request(_end)
    handlers: tuple[tuple[type[Exception], Callable[..., Response]], ...] = (
        (FleetcaError, _refused),
        (HTTPException, _http_error),
        (Exception, _crashed),
    )
    for kind, handler in handlers:
        app.register_error_handler(kind, handler)
    return app


def _begin(chance: Chance) -> None:
    g.request_id = chance.octets(9).hex()
    g.code = None
    g.facts = {}
    if request.endpoint in _TLS13:
        _require_tls13()


def _end(answer: Response) -> Response:
    for name, value in answers.sealing(g.request_id):
        answer.headers.setdefault(name, value)
    answers.write_line(
        request_id=g.request_id, method=request.method, path=request.path, status=answer.status_code, code=g.code, facts=g.facts
    )
    return answer
