"""ACME over HTTP (RFC 8555 6, 7.1) as a Flask blueprint. Edge: HTTP to the flow and back; no rule of its own.

Every answer to a POST carries a fresh nonce, every answer a link to its directory. What is not a route of this table is not there: GET on a
resource is 405, for it is read by POST-as-GET (RFC 8555 6.3).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from flask import Blueprint, Response, g, request

from ca.errors import FleetcaError, Refused, Unavailable
from ca.model import CertificateRef, IssuerId, Profile, ProfileName
from ca.ports import Clock
from ca.rules import ids, renewal
from ca.rules.renewal_window import Plan, suggested
from enroll.acme import messages, renewal_info
from enroll.acme.accounts import Accounts
from enroll.acme.jws import LARGEST
from enroll.acme.messages import PREFIX, Addresses
from enroll.acme.model import Account, AuthorizationStatus, ChallengeStatus, Directory, Order, OrderStatus, Problem
from enroll.acme.nonces import Nonces
from enroll.acme.orders import Orders, of_refusal
from enroll.acme.requests import Asker, By, Requests
from enroll.acme.revoking import Revoking
from enroll.acme.validating import Validating
from enroll.ports import Reader

JOSE: Final = "application/jose+json"
PEM_CHAIN: Final = "application/pem-certificate-chain"
LOOK_AGAIN: Final = 3
"""Seconds. Some clients count from the Date of the answer, which may be two seconds old when they have it; what is over by then they choke on."""
_log = structlog.stdlib.get_logger("fleetca.acme")


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes call. Wiring makes it.

    Args:
        base: how clients reach us, `https://HOST[:PORT]`.
        chain: CA certificates (DER) from an issuer to its root.
        issuers: by key identifier.
    """

    base: str
    directories: Mapping[str, Directory]
    requests: Requests
    nonces: Nonces
    accounts: Accounts
    orders: Orders
    validating: Validating
    revoking: Revoking
    reader: Reader
    clock: Clock
    profiles: Mapping[ProfileName, Profile]
    issuers: Mapping[bytes, IssuerId]
    chain: Callable[[IssuerId], tuple[bytes, ...]]
    key_identifiers: Mapping[IssuerId, bytes] = field(default_factory=dict)
    plan: Callable[[], Plan] = Plan
    """What is known of the fleet, for windows of renewal."""


@dataclass(frozen=True, slots=True)
class Route:
    """One address below a directory: how it is asked, and the name of what answers."""

    path: str
    method: str
    by: By | None
    """None: without a signature."""
    name: str


ROUTES: Final = (
    Route("/directory", "GET", None, "directory"),
    Route("/new-nonce", "GET", None, "new_nonce"),
    Route("/new-account", "POST", By.key, "new_account"),
    Route("/new-order", "POST", By.account, "new_order"),
    Route("/revoke-cert", "POST", By.either, "revoke"),
    Route("/key-change", "POST", By.account, "change_key"),
    Route("/account/<id_>", "POST", By.account, "account"),
    Route("/account/<id_>/orders", "POST", By.account, "account_orders"),
    Route("/order/<id_>", "POST", By.account, "order"),
    Route("/order/<id_>/finalize", "POST", By.account, "finalize"),
    Route("/authorization/<id_>", "POST", By.account, "authorization"),
    Route("/challenge/<id_>/<kind>", "POST", By.account, "challenge"),
    Route("/certificate/<issuer>/<serial>", "POST", By.account, "certificate"),
    Route("/certificate/<issuer>/<serial>/with-root", "POST", By.account, "certificate_with_root"),
    Route("/renewal-info/<certificate>", "GET", None, "renewal_info"),
)


def blueprint(service: Service) -> Blueprint:
    """All directories of a deployment."""
    acme = Blueprint("acme", __name__, url_prefix=PREFIX)
    answers = _Answers(service)
    for route in ROUTES:
        acme.add_url_rule(f"/<directory>{route.path}", route.name, _view(service, answers, route), methods=[route.method])
    acme.register_error_handler(FleetcaError, lambda error: _refused(service, error))
    acme.after_request(lambda answer: _finished(service, answer))
    return acme


def _view(service: Service, answers: _Answers, route: Route) -> Callable[..., Response]:
    answer: Callable[..., Response] = getattr(answers, route.name)

    def view(directory: str, **parts: str) -> Response:
        found = service.directories.get(directory)
        if found is None:
            raise Problem("malformed", "There is no such directory.", status=404)
        at = Addresses(service.base, found.name)
        g.acme = at
        if route.by is None:
            return answer(at, found, **parts)
        asker = _asker(service, found, at, route.by)
        if asker.account is not None:
            g.facts["account"] = asker.account.id
        return answer(at, asker, **parts)

    return view


def _asker(service: Service, directory: Directory, at: Addresses, by: By) -> Asker:
    if request.mimetype != JOSE:
        raise Problem("malformed", f"The body must be of type {JOSE} (RFC 8555 6.2).", status=415)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem("malformed", "The body is coded; send it uncompressed.", status=415)
    body = request.get_data(cache=False)
    if len(body) > LARGEST:
        raise Problem("malformed", "The request is too large.", status=413)
    target = str(request.environ.get("RAW_URI", request.path))
    return service.requests.authenticate(
        body, directory=directory, addresses=at, url=service.base + target, by=by, address=request.remote_addr or ""
    )


class _Answers:
    """One method per route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    # ---- Without a signature ----------------------------------------------------------------------------------------

    def directory(self, at: Addresses, directory: Directory) -> Response:
        return _json(messages.render_directory(at, directory))

    def new_nonce(self, at: Addresses, _directory: Directory) -> Response:
        """RFC 8555 7.2: HEAD 200, GET 204."""
        answer = Response(b"", 200 if request.method == "HEAD" else 204)
        answer.headers["Replay-Nonce"] = self._service.nonces.make(tried=True)
        return answer

    def renewal_info(self, _at: Addresses, directory: Directory, certificate: str) -> Response:
        """RFC 9773 4.1, without authentication."""
        ref = renewal_info.read_id(certificate, self._service.issuers)
        found = self._service.reader.find_certificate(ref)
        if found is None or found.der is None or found.profile != directory.profile:
            raise Problem("malformed", "There is no such certificate.", status=404)
        when = suggested(
            found,
            self._service.profiles[found.profile],
            now=self._service.clock.now(),
            plan=self._service.plan(),
            revoked=renewal.revoked(found),
        )
        answer = _json(renewal_info.render(when))
        answer.headers["Retry-After"] = str(renewal_info.RETRY_AFTER)
        return answer

    # ---- Accounts ---------------------------------------------------------------------------------------------------

    def new_account(self, at: Addresses, asker: Asker) -> Response:
        account, new = self._service.accounts.new(asker, at=at)
        g.facts["account"] = account.id
        return self._account(at, account, status=201 if new else 200)

    def _account(self, at: Addresses, account: Account, *, status: int = 200) -> Response:
        answer = _json(messages.render_account(at, account), status)
        answer.headers["Location"] = at.account(account)
        return answer

    def account(self, at: Addresses, asker: Asker, id_: str) -> Response:
        self._own(asker, id_)
        return self._account(at, self._service.accounts.change(asker))

    def account_orders(self, at: Addresses, asker: Asker, id_: str) -> Response:
        self._own(asker, id_)
        page, following = self._service.accounts.orders(asker, after=request.args.get("after"))
        answer = _json({"orders": [at.of("order", one) for one in page]})
        if following is not None:
            answer.headers.add("Link", f'<{at.of("account", id_, "orders")}?after={following}>;rel="next"')
        return answer

    @staticmethod
    def _own(asker: Asker, id_: str) -> None:
        if asker.known.id != id_:
            raise Problem("unauthorized", "This is another account's (RFC 8555 7.3.2).")

    def change_key(self, at: Addresses, asker: Asker) -> Response:
        return self._account(at, self._service.accounts.change_key(asker, at=at))

    # ---- Orders -----------------------------------------------------------------------------------------------------

    def new_order(self, at: Addresses, asker: Asker) -> Response:
        return self._order(at, asker, self._service.orders.new(asker), status=201)

    def order(self, at: Addresses, asker: Asker, id_: str) -> Response:
        return self._order(at, asker, self._service.orders.show(asker, id_))

    def finalize(self, at: Addresses, asker: Asker, id_: str) -> Response:
        return self._order(at, asker, self._service.orders.finalize(asker, id_))

    def _order(self, at: Addresses, asker: Asker, order: Order, *, status: int = 200) -> Response:
        replaces = None
        if order.replaces is not None:
            replaces = renewal_info.write_id(self._service.key_identifiers[order.replaces.issuer], order.replaces.serial)
        answer = _json(messages.render_order(at, order, asker.directory, replaces=replaces), status)
        answer.headers["Location"] = at.order(order)
        if order.status is OrderStatus.processing:
            answer.headers["Retry-After"] = str(max(LOOK_AGAIN, order.look_again))
        return answer

    def authorization(self, at: Addresses, asker: Asker, id_: str) -> Response:
        found = self._service.orders.authorization(asker, id_)
        return _soon(_json(messages.render_authorization(at, found)), pending=found.status is AuthorizationStatus.pending)

    def challenge(self, at: Addresses, asker: Asker, id_: str, kind: str) -> Response:
        authorization, challenge = self._service.validating.challenge(asker, id_, kind)
        answer = _json(messages.render_challenge(at, authorization, challenge))
        answer.headers.add("Link", f'<{at.authorization(authorization.id)}>;rel="up"')
        return _soon(answer, pending=challenge.status is ChallengeStatus.processing)

    # ---- Certificates -----------------------------------------------------------------------------------------------

    def certificate(self, at: Addresses, asker: Asker, issuer: str, serial: str) -> Response:
        return self._certificate(at, asker, issuer, serial, root=False)

    def certificate_with_root(self, at: Addresses, asker: Asker, issuer: str, serial: str) -> Response:
        return self._certificate(at, asker, issuer, serial, root=True)

    def _certificate(self, at: Addresses, asker: Asker, issuer: str, serial: str, *, root: bool) -> Response:
        """RFC 8555 7.4.2; each chain names the other as its alternate."""
        try:
            ref = CertificateRef(ids.issuer_id(issuer), ids.serial_from_hex(serial))
        except Refused:
            raise Problem("malformed", "There is no such certificate of this account.", status=404) from None
        found = self._service.orders.certificate(asker, ref)
        assert found.der is not None
        chain = self._service.chain(ref.issuer)
        answer = Response(messages.chain((found.der, *(chain if root else chain[:-1]))), content_type=PEM_CHAIN)
        other = at.certificate(ref) + ("" if root else "/with-root")
        answer.headers.add("Link", f'<{other}>;rel="alternate"')
        return answer

    def revoke(self, _at: Addresses, asker: Asker) -> Response:
        revoked = self._service.revoking.revoke(asker)
        g.facts.update(device=revoked.device, certificate=str(revoked.ref))
        return Response(b"", 200)


# ---- What goes back -------------------------------------------------------------------------------------------------


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document, ensure_ascii=False).encode(), status, content_type="application/json")


def _soon(answer: Response, *, pending: bool) -> Response:
    """RFC 8555 7.5.1, 8.2: when to look again at what is not decided."""
    if pending:
        answer.headers["Retry-After"] = str(LOOK_AGAIN)
    return answer


def _refused(service: Service, error: FleetcaError) -> Response:
    problem = _problem_of(error)
    g.code = problem.code
    g.facts["what"] = problem.detail
    answer = Response(
        json.dumps(messages.render_problem(problem), ensure_ascii=False).encode(),
        messages.status_of(problem),
        content_type="application/problem+json",
    )
    if problem.retry_after is not None:
        answer.headers["Retry-After"] = str(problem.retry_after)
    if problem.location is not None:
        answer.headers["Location"] = problem.location
    if request.method == "POST" and "acme" in g:
        with contextlib.suppress(FleetcaError):  # the database is gone: so is the nonces' secret, and this answer says so already
            answer.headers["Replay-Nonce"] = service.nonces.make(tried=problem.kind == "badNonce")
    return answer


def _problem_of(error: FleetcaError) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Unavailable):
        _log.warning("unavailable", request_id=g.request_id, code=error.code, reason=str(error))
        detail = "The service cannot do this now; the same request may be sent again later."
        return Problem("serverInternal", detail, status=503, retry_after=error.retry_after)
    if isinstance(error, Refused):
        return of_refusal(error)
    _log.error("failed", request_id=g.request_id, code=error.code, what=error.what, why=error.why)
    return Problem("serverInternal", "The service failed; nothing was released.")


def _finished(service: Service, answer: Response) -> Response:
    at = g.get("acme")
    if at is None:
        return answer
    if request.method == "POST" and "Replay-Nonce" not in answer.headers:
        answer.headers["Replay-Nonce"] = service.nonces.make()
    if request.endpoint != "acme.directory":
        answer.headers.add("Link", f'<{at.of("directory")}>;rel="index"')
    answer.headers["Cache-Control"] = "no-store"
    return answer
