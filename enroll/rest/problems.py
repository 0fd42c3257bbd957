"""Errors as answers: RFC 9457 problem documents. Edge: the one place of this package where an error becomes an HTTP status.

Every code keeps its type (`urn:fleetca:error:CODE`) for ever; docs/reference/errors.md explains each. What a client may read: the sentences of
a refusal, which is about its own request. Of our own troubles it learns the code and when to come again; the reason stays in our log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ca import errors

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:fleetca:error:"

_STATUSES: Final[tuple[tuple[type[errors.FleetcaError], int], ...]] = (
    (errors.Malformed, 400),
    (errors.Unauthenticated, 403),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unacceptable, 422),
    (errors.Refused, 400),
    (errors.Busy, 429),
    (errors.Unavailable, 503),
    (errors.FleetcaError, 500),
)

# A code whose status HTTP itself has a better word for.
_BY_CODE: Final[Mapping[str, int]] = {"body-too-large": 413, "unsupported-media-type": 415, "signer-busy": 503, "approval-pending": 202}

_OURS: Final[Mapping[int, str]] = {
    202: "An operator has to approve this; send the same request again later.",
    429: "Too many requests at the moment; the same request may be sent again later.",
    500: "The service failed; nothing was released. Quote the request id when you report it.",
    503: "The service cannot do this now; the same request may be sent again later.",
}

HTTP_CODES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad-request", "The request cannot be read."),
    404: ("no-such-resource", "There is nothing at this address."),
    405: ("method-not-allowed", "This address does not take this method."),
    408: ("request-timeout", "The request took too long to arrive."),
    411: ("length-required", "The request needs a Content-Length."),
    413: ("body-too-large", "The request body is too large."),
    414: ("uri-too-long", "The address is too long."),
    415: ("unsupported-media-type", "The request body has a type that is not taken here."),
    431: ("headers-too-large", "The request headers are too large."),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What the client is told."""

    status: int
    code: str
    detail: str
    fix: str
    retry_after: int | None = None

    def document(self, request_id: str) -> dict[str, Any]:
        """RFC 9457, section 3; `code`, `fix` and `request_id` are extension members."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:fleetca:request:{request_id}",
            "code": self.code,
            "fix": self.fix,
            "request_id": request_id,
        }


def status_of(error: errors.FleetcaError) -> int:
    """401 is not among them: RFC 9110, section 15.5.2 wants a challenge with it, and only the token route has one to give."""
    return _BY_CODE.get(error.code) or next(status for kind, status in _STATUSES if isinstance(error, kind))


def problem_of(error: errors.FleetcaError) -> Problem:
    """What a client reads of an error of ours."""
    status = status_of(error)
    retry_after = error.retry_after if isinstance(error, errors.Unavailable) else None
    if isinstance(error, errors.Refused):
        return Problem(status, error.code, str(error), error.fix)
    return Problem(status, error.code if status != 500 else "internal", _OURS.get(status, _OURS[500]), "", retry_after)


def problem_of_status(status: int) -> Problem:
    """For what the HTTP library refused before any of our code saw it."""
    code, detail = HTTP_CODES.get(status, ("internal", _OURS[500]) if status >= 500 else HTTP_CODES[400])
    return Problem(status, code, detail, "")


INTERNAL: Final = Problem(500, "internal", _OURS[500], "")
