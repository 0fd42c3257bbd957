"""One HTTP exchange for a relying party: bounded in time and size, whatever the other side does. Knows no PKI."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ca.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Asked:
    """What to send; a body makes it a POST."""

    url: str
    body: bytes | None = None
    kind: str = ""


def fetch(asked: Asked, *, timeout: float, longest: int) -> bytes:
    """The body of an answer with HTTP 200. No redirects: addresses come from certificates.

    Args:
        timeout: seconds for all of it. Whoever sends an octet now and then gets no more.

    Raises:
        Unavailable: no such answer (`no-answer`).
    """
    parts = urlsplit(asked.url)
    if parts.scheme != "http" or not parts.hostname:
        raise Unavailable("no-answer", f"{asked.url} is not an http address (RFC 5280 8).")
    line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError, AttributeError):
            line.sock.shutdown(socket.SHUT_RDWR)

    alarm = threading.Timer(timeout, hang_up)
    alarm.daemon = True
    alarm.start()
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    answer: http.client.HTTPResponse | None = None
    try:
        line.request(
            "GET" if asked.body is None else "POST", path or "/", asked.body, {"Content-Type": asked.kind} if asked.body is not None else {}
        )
        answer = line.getresponse()
        octets = answer.read(longest + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = (
            f"It took longer than {timeout:g} s."
            if late.is_set() or isinstance(error, TimeoutError)
            else str(error) or type(error).__name__
        )
        raise Unavailable("no-answer", f"{parts.netloc} does not answer.", why=why) from None
    finally:
        alarm.cancel()
        if answer is not None:
            answer.close()
        line.close()
    if late.is_set():
        raise Unavailable("no-answer", f"{parts.netloc} does not answer.", why=f"It took longer than {timeout:g} s.")
    assert answer is not None, "whatever else happens was raised"
    if answer.status != 200:
        raise Unavailable("no-answer", f"{parts.netloc} answers {answer.status}.")
    if len(octets) > longest:
        raise Unavailable("no-answer", f"{parts.netloc} sends too much.", why=f"At most {longest} octets are read.")
    return octets
