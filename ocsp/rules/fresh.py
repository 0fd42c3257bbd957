"""The short way to a fresh answer for one certificate, with a nonce or ahead of all requests, from prepared pieces. Ring 1: pure.

The octets are those that `respond` and `response` make.
Everything but the nonce repeats: times change once a second, the status belongs to the certificate, the rest to the responder.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ca.der import writer
from ca.model import UnixTime
from ocsp.model import Policy, Responder, Status, Window
from ocsp.rules import freshness, response
from ocsp.rules.request import NONCE

_LONGEST: Final = 128

_NONCES: Final = [
    writer.explicit(1, writer.sequence(writer.extension(NONCE, writer.octet_string(bytes(octets)), critical=False)))[: -octets or None]
    for octets in range(_LONGEST + 1)
]
"""Octets of a nonce -> responseExtensions up to it."""


class Pieces:
    """What all fresh answers of one responder in one second have in common."""

    __slots__ = ("_last", "_policy", "_responder", "_statuses", "_windows", "now", "produced")

    def __init__(self, responder: Responder, policy: Policy, *, now: UnixTime) -> None:
        self.now = now
        self.produced = responder.responder_id + writer.generalized_time(now)
        self._responder, self._policy = responder, policy
        self._statuses: dict[Status, bytes | None] = {}
        self._windows: dict[Status, Window | None] = {}
        self._last: tuple[Status | None, bytes | None] = (None, None)
        """The last status and what is said of it: almost all certificates have the very same, and finding a status by its hash costs more."""

    def tbs(self, certificate_id: bytes, status: Status, nonce: bytes | None) -> bytes | None:
        """DER ResponseData; None where no time is left to say anything about."""
        last, said = self._last
        if status is not last:
            try:
                said = self._statuses[status]
            except KeyError:
                said = self._statuses[status] = self._said(status)
            self._last = status, said
        if said is None:
            return None
        single = certificate_id + said
        extensions = b"" if nonce is None else _NONCES[len(nonce)] + nonce
        content = self.produced + _wrapped(len(single)) + single + extensions
        return wrapped(content)

    def window(self, status: Status) -> Window | None:
        """When such an answer holds; its `refresh_at` is nobody's own."""
        if status not in self._windows:
            self._windows[status] = freshness.window(self._policy, self._responder, now=self.now, since=status.since, digest=b"\0\0\0\0")
        return self._windows[status]

    def _said(self, status: Status) -> bytes | None:
        window = self.window(status)
        if window is None:
            return None
        return response.said(status, window, produced_at=self.now, archive=self._policy.archive)


def wrapped(content: bytes) -> bytes:
    """SEQUENCE of content that is already encoded."""
    return _header(len(content)) + content


@lru_cache(maxsize=1024)
def _header(size: int) -> bytes:
    return b"\x30" + writer.length(size)


@lru_cache(maxsize=1024)
def _wrapped(size: int) -> bytes:
    """The headers of SEQUENCE OF SingleResponse with one of them, of that many octets."""
    inner = _header(size)
    return _header(len(inner) + size) + inner


class Envelope:
    """Answers around signed ResponseData; what depends on sizes alone is made once."""

    __slots__ = ("_after", "_before", "_responder")

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._before: dict[tuple[int, int], bytes] = {}
        self._after = responder.certificates

    def response(self, tbs: bytes, signature: bytes) -> bytes:
        """DER OCSPResponse."""
        sizes = (len(tbs), len(signature))
        before = self._before.get(sizes)
        if before is None:
            whole = response.response(self._responder, bytes(sizes[0]), bytes(sizes[1]))
            content = len(whole) - len(self._after) - len(writer.bit_string(bytes(sizes[1]))) - len(self._responder.signature_algorithm)
            before = self._before[sizes] = whole[: content - sizes[0]]
        return b"".join((before, tbs, self._responder.signature_algorithm, _bits(len(signature)), signature, self._after))


@lru_cache(maxsize=64)
def _bits(size: int) -> bytes:
    return writer.bit_string(bytes(size))[:-size]
