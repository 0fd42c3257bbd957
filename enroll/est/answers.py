"""What goes back over EST for a certificate or an error (RFC 7030 4.2.3). Edge; knows no Flask.

Both lanes, the Flask blueprint (`routes`) and the one without a thread (`prompt`), make their answers here, so that they are the same octets.
Errors are plain sentences.
"""

from __future__ import annotations

from typing import Final

import structlog

from ca.der.bundle import certs_only
from ca.errors import FleetcaError, Refused, Unauthenticated, Unavailable
from enroll.est import messages
from enroll.model import Delivered
from enroll.rest.answers import Reply, clean
from enroll.rest.problems import status_of

WORDS: Final = "text/plain; charset=utf-8"
CHALLENGE: Final = 'Basic realm="fleetca", charset="UTF-8"'
_log = structlog.stdlib.get_logger("fleetca.est")


def encoded(der: bytes, content_type: str) -> Reply:
    """DER as EST sends it."""
    # Whoever still looks for the header finds it; what it says is true of every body here (RFC 8951 3).
    return Reply(200, content_type, messages.encode(der), (("Content-Transfer-Encoding", "base64"),))


def certificate(issued: Delivered) -> Reply:
    """The issued certificate, alone."""
    assert issued.der is not None, "the signer returns issued certificates only"
    plain = encoded(certs_only([issued.der]), messages.CERTS_ONLY)
    facts = {"device": issued.device, "profile": issued.profile, "certificate": str(issued.ref)}
    return Reply(plain.status, plain.content_type, plain.body, plain.headers, facts=facts)


def refusal(error: FleetcaError, request_id: str) -> Reply:
    """An error of ours: what concerns the client in words for it, the rest for the log."""
    status = status_of(error)
    facts = {"what": error.what, "why": error.why}
    if isinstance(error, Unavailable):
        said = "It waits for approval." if status == 202 else "The service cannot do this now."
        after = ("Retry-After", str(error.retry_after))
        return Reply(status, WORDS, f"{said} Send the same request again later.\n".encode(), (after,), error.code, facts)
    if not isinstance(error, Refused):
        _log.error("failed", request_id=request_id, code=error.code, what=clean(error.what), why=clean(error.why))
        return Reply(500, WORDS, b"The service failed; nothing was released.\n", (), error.code, facts)
    # RFC 7030 3.2.3, RFC 9110 15.5.2: a 401 says what would do.
    unknown = isinstance(error, Unauthenticated)
    headers = (("WWW-Authenticate", CHALLENGE),) if unknown else ()
    words = " ".join(part for part in (str(error), error.fix) if part)
    # Who has shown nothing yet is asked (RFC 9110 11.6.1), which is no error: clients, Bouncy Castle's among them, read no body there.
    body = b"" if error.code == "token-required" else f"{words}\n".encode()
    return Reply(401 if unknown else status, WORDS, body, headers, error.code, facts)
