"""OCSP over HTTP (RFC 6960 A.1, RFC 9919 6): from a question to the octets of a request, from a response to headers. Ring 1: pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import unquote_to_bytes

from ca.errors import Malformed
from ca.model import UnixTime
from ocsp.model import MAX_OCTETS, Answer, Finished, Policy, Question, ResponseStatus
from ocsp.rules import freshness, response, shapes

REQUEST_TYPE = "application/ocsp-request"
RESPONSE_TYPE = "application/ocsp-response"

_LONGEST_PATH = MAX_OCTETS * 2


def request_octets(question: Question, policy: Policy) -> bytes | Answer:
    """The DER that was sent, or the HTTP answer where there is none to be had.

    Raises:
        Malformed: the path of a GET is not base64.
    """
    rest = _below(question.raw_path, policy.path)
    if rest is None:
        return refusal(404, "Nothing is here. OCSP requests go to " + policy.path)
    if question.method in ("GET", "HEAD"):
        if len(rest) > _LONGEST_PATH:
            return refusal(414, "The request is too long.")
        octets = decode_path(rest)
        return octets if len(octets) <= MAX_OCTETS else refusal(414, "The request is too long.")
    if question.method != "POST":
        return refusal(405, "OCSP requests are made by GET or POST.", ("Allow", "GET, HEAD, POST"))
    if rest.strip("/"):
        return refusal(404, "Nothing is here. OCSP requests go to " + policy.path)
    kind = (question.content_type or "").partition(";")[0].strip().lower()
    # Devices that leave the type out are read; a wrong one is a client that means something else.
    if kind not in ("", REQUEST_TYPE):
        return refusal(415, f"The content type must be {REQUEST_TYPE}.", ("Accept-Post", REQUEST_TYPE))
    if len(question.body) > MAX_OCTETS:
        return too_large()
    return question.body


def _below(raw_path: str, mounted: str) -> str | None:
    """What follows the path of the responder in a raw request target; None outside of it."""
    rest = raw_path.partition("?")[0]
    if not rest.startswith("/"):
        # Absolute form (RFC 9112 3.2.2), as proxies send it.
        rest = "/" + rest.partition("://")[2].partition("/")[2]
    if not rest.startswith(mounted):
        return None
    rest = rest[len(mounted) :]
    return rest if not rest or rest.startswith("/") else None


def decode_path(rest: str) -> bytes:
    """The octets of base64 in a raw path, however a client or proxy encoded `+`, `/` and `=` (RFC 6960 A.1).

    Leading slashes go: a request is a SEQUENCE, whose base64 begins with M. Inside, each slash counts, so the path must be the raw one.
    A space is a plus that a decoder took for a form's; line breaks come from encoders that wrap; padding may be missing.

    Raises:
        Malformed: it is not base64.
    """
    text = unquote_to_bytes(rest.lstrip("/")).lstrip(b"/")
    text = text.replace(b"\r", b"").replace(b"\n", b"").replace(b" ", b"+").rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("bad-ocsp-request", "The path is not a base64 OCSP request.") from None


def file_path(certificate_id: bytes) -> str | None:
    """The path of a GET for one certificate, below the responder's, where it can be the path of a file; decoded, as web servers look files up."""
    text = binascii.b2a_base64(shapes.bare(certificate_id), newline=False).decode()
    return None if "//" in text or text.endswith("/") else text


def refusal(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An HTTP error in plain text, for what is not a matter of OCSP."""
    body = (text + "\n").encode()
    return Answer(
        status,
        (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), *headers),
        body,
        f"http-{status}",
    )


def too_large() -> Answer:
    """For a body over `MAX_OCTETS`, however it was noticed."""
    return refusal(413, f"An OCSP request has at most {MAX_OCTETS} octets.")


def error(status: ResponseStatus) -> Answer:
    """An OCSP error: HTTP 200, and nobody may keep it (RFC 9919 6: errors are unsigned)."""
    body = response.error(status)
    return Answer(200, (*_headers(body), ("Cache-Control", "no-store")), body, status.name)


def _headers(body: bytes) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", RESPONSE_TYPE), ("Content-Length", str(len(body))))


def http_date(when: UnixTime) -> str:
    """IMF-fixdate (RFC 9110 5.6.7)."""
    return formatdate(when, usegmt=True)


def reply(question: Question, finished: Finished, policy: Policy, *, now: UnixTime, digest: bytes) -> Answer:
    """An HTTP response with a signed answer.

    Only the entity tag makes a 304. If-Modified-Since is not looked at: two answers of one second can differ by a revocation (P5).
    """
    if not finished.cacheable:
        return Answer(200, (*_headers(finished.body), ("Cache-Control", "no-store")), finished.body, finished.outcome)
    age = freshness.max_age(policy, finished, now=now, digest=digest)
    caching = (
        ("ETag", finished.etag),
        ("Last-Modified", http_date(finished.window.this_update)),
        ("Expires", http_date(finished.window.next_update)),
        ("Cache-Control", f"max-age={age}, public, no-transform, must-revalidate"),
    )
    if question.method in ("GET", "HEAD") and _matches(question.if_none_match, finished.etag):
        return Answer(304, caching, b"", finished.outcome)
    return Answer(200, (*_headers(finished.body), *caching), finished.body, finished.outcome)


def digest_of(certificate_id: bytes) -> bytes:
    """What the spread of an answer's times comes from (`ocsp.rules.freshness`)."""
    return hashlib.sha256(certificate_id).digest()


def lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Header lines as they go over the wire."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


_PLAIN = Question(method="POST", raw_path="")


def ready(finished: Finished, policy: Policy, *, digest: bytes) -> Finished:
    """The same answer with its header lines, for whoever serves it again."""
    longest = freshness.max_age(policy, finished, now=0, digest=digest)
    answer = reply(_PLAIN, finished, policy, now=0, digest=digest)
    return replace(finished, head=lines(answer.headers), plain_until=finished.window.next_update - 1 - longest)


def _matches(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110 13.1.2: a list of tags, compared weakly, or `*`."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
