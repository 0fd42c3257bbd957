"""How the header fields of what we send are written. It knows no route and no socket.

Their names have no case (RFC 9110 5.1), and uvicorn writes them small. Clients in devices compare them with the usual spelling (libest's finds no
content type otherwise), and nobody minds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

_OWN: Final = {b"etag": b"ETag", b"www-authenticate": b"WWW-Authenticate"}
_END: Final = b"\r\n\r\n"
_NOT_YET: Final = b"HTTP/1.1 1"
"""100 Continue: the answer is still to come."""


@lru_cache(maxsize=256)
def usual(name: bytes) -> bytes:
    """A field name as it is usually written: `content-type` as `Content-Type`."""
    return _OWN.get(name.lower()) or name.title()


def lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The field lines of a head."""
    return b"".join([b"%s: %s\r\n" % (usual(name), value) for name, value in fields])


def respelled(octets: bytes) -> bytes:
    """What begins with the head of an answer, its field names as they are usually written."""
    head, end, body = octets.partition(_END)
    first, *others = head.split(b"\r\n")
    spelled = [usual(name) + colon + value for name, colon, value in (line.partition(b":") for line in others)]
    return b"\r\n".join([first, *spelled]) + end + body


class Respelling:
    """Stands in for the transport of a uvicorn cycle until it has written the head of its answer, and gives it back then."""

    def __init__(self, cycle: Any) -> None:
        self._cycle, self._transport = cycle, cycle.transport

    def write(self, octets: bytes) -> None:
        if not octets.startswith(_NOT_YET):
            self._cycle.transport = self._transport
            octets = respelled(octets)
        self._transport.write(octets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
