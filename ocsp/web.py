"""The Flask application of the responder, and the thread that listens and renews beside it. Ring 5: no rule of its own.

The whole responder is here; a faster front may answer what is finished before it gets this far, with the same bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from ca.errors import FleetcaError
from ocsp.metrics import CONTENT_TYPE, text
from ocsp.model import MAX_OCTETS, Answer, Question
from ocsp.rules import http
from ocsp.serve import ResponderService

_log = logging.getLogger("fleetca.ocsp")

RAW_PATH: Final = ("fleetca.raw_path", "RAW_URI", "REQUEST_URI")
"""Where servers put the request target as it came: ours, gunicorn and Werkzeug, uWSGI."""

LISTEN_EVERY: Final = 1.0
"""Seconds; a revocation shows within two (P5)."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class _Anything(BaseConverter):
    """The rest of a path, also empty, also beginning with a slash."""

    regex = ".*?"
    part_isolating = False


def create_app(service: ResponderService) -> Flask:
    """The responder at `policy.path` and its health at `/healthz` and `/metrics`. Other parts of the status process may add their blueprints."""
    app = Flask("fleetca.status", static_folder=None)
    # A slash is a base64 digit: `//` must reach us as it is (RFC 6960 A.1).
    app.url_map.merge_slashes = False
    app.url_map.converters["anything"] = _Anything

    def ocsp(rest: str = "") -> Response:
        del rest  # Decoded by the server already; the raw path says what was sent.
        return _response(service.reply(_question()))

    path = service.policy.path
    for rule in (path, f"{path}/<anything:rest>"):
        app.add_url_rule(rule, "ocsp", ocsp, methods=_METHODS, provide_automatic_options=False, strict_slashes=True)

    @app.get("/healthz")
    def healthz() -> Response:
        return _health(service)

    @app.get("/metrics")
    def metrics() -> Response:
        response = Response(text(service.health(), service.counted()), content_type=CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        if error.code == 413:
            return _response(http.too_large())
        allowed = getattr(error, "valid_methods", None)
        return _response(http.refusal(error.code or 500, error.name, *([("Allow", ", ".join(allowed))] if allowed else [])))

    return app


def _question() -> Question:
    body = b""
    if request.method == "POST":
        # A declared length over this is refused unread. A body without one is read up to it, and no further: one octet more than is allowed
        # is enough to know (HTTP 413 either way).
        request.max_content_length = MAX_OCTETS + 1
        body = request.get_data(cache=False)
    return Question(
        method=request.method,
        raw_path=raw_path(request.environ),
        body=body,
        content_type=request.headers.get("Content-Type"),
        if_none_match=request.headers.get("If-None-Match"),
    )


def raw_path(environ: dict[str, Any]) -> str:
    """The request target before any decoding, below the point where the application is mounted.

    Without a server that hands it over it is rebuilt from PATH_INFO: `%2F` and `//` are then what the server made of them.
    """
    mounted = environ.get("SCRIPT_NAME", "")
    for name in RAW_PATH:
        target = environ.get(name)
        if isinstance(target, str) and target:
            return target.removeprefix(mounted) if mounted else target
    return quote(environ.get("PATH_INFO", "").encode("latin-1"), safe="/+=")


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status)
    response.headers.clear()
    response.headers.extend(answer.headers)
    response.automatically_set_content_length = False
    return response


def _health(service: ResponderService) -> Response:
    """200 while there is something to answer with, 503 otherwise; a worker that does not hear of changes says so and goes on (P5, P7)."""
    health = service.health()
    alarms = health.alarms(service.now(), service.policy.lifetime)
    fine = health.heard and not health.missing
    body = {
        "status": "ok" if fine else "degraded" if health.ready else "down",
        "heard": health.heard,
        "heard_at": health.heard_at,
        "change": health.change,
        "responders": [
            {"issuer": issuer, "not_after": not_after, "renew_at": renew_at} for issuer, not_after, renew_at in health.responders
        ],
        "missing": list(health.missing),
        "finished": {"answers": health.finished, "octets": health.octets, "until": health.finished_until},
        "spool": {"answers": health.spooled, "walked_at": health.spooled_at},
        "alarms": list(alarms),
    }
    response = Response(json.dumps(body) + "\n", status=200 if health.ready else 503, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


class Background:
    """The thread that hears of changes every second and renews responder certificates.

    Two threads, in fact: waiting for the signer must not keep a revocation from being heard.
    """

    def __init__(self, service: ResponderService, *, every: float = LISTEN_EVERY) -> None:
        self._every = every
        self._stopped = Event()
        self._threads = [
            Thread(target=self._again, args=(step,), name=name, daemon=True)
            for name, step in (("ocsp-listen", service.listen), ("ocsp-renew", service.renew))
        ]

    def start(self) -> None:
        """Hear and certify once if both can be had, then go on by itself. A dead database or signer does not stop the start (P7)."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads; waits at most a few seconds."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _again(self, step: Callable[[], None]) -> None:
        quiet = False
        while True:
            try:
                step()
                quiet = False
            except FleetcaError as error:
                # Said once, not every second; health goes on saying it.
                if not quiet:
                    _log.warning("status changes are not heard: %s", error)
                quiet = True
            except Exception:  # noqa: BLE001  a thread that ends unnoticed would stop us hearing of revocations
                _log.exception("a background step of the OCSP responder failed")
            if self._stopped.wait(self._every):
                return
