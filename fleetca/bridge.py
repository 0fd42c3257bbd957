"""Flask behind an ASGI server: runs a WSGI application in threads of its own. It knows no route and no socket.

Applications find the DER of the client's certificate in `environ["fleetca.peer_certificate"]` (absent without one), the request target as it
was sent in `environ["RAW_URI"]`, and on a connection of TLS 1.2 `environ["fleetca.tls12"]` and its channel binding in `environ["fleetca.tls_unique"]`.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Final, NamedTuple
from wsgiref.types import WSGIApplication

PEER_CERTIFICATE: Final = "fleetca.peer_certificate"
TLS_UNIQUE: Final = "fleetca.tls_unique"
TLS12: Final = "fleetca.tls12"
BODY_LIMIT: Final = 64 * 1024
"""Octets of a body that an application gets to see; with more it sees one octet too many, and refuses."""
DRAIN_LIMIT: Final = 32 * 1024 * 1024
"""Octets beyond the limit that are read and dropped, so that the sender lives to read the refusal."""
AT_ONCE: Final = 256 * 1024
"""Octets of an answer that are held together; what is longer is sent a piece at a time."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]


class Bridge:
    """Runs a WSGI application in threads for an ASGI server. A thread is taken only once the whole request is there.

    Args:
        application: the Flask application.
        threads: how many requests it works on at once; further ones wait.
    """

    def __init__(self, application: WSGIApplication, *, threads: int = 8) -> None:
        self.application = application
        self.pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, oversized = await self._body(scope, receive)
        environ = _environ(scope, body)
        loop = asyncio.get_running_loop()
        status, headers, content, rest = await loop.run_in_executor(self.pool, self._run, environ)
        if oversized:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if rest is None:
            await send({"type": "http.response.body", "body": content})
            return
        gone = asyncio.ensure_future(_gone(receive))
        try:
            while content and not gone.done():
                # A long answer leaves as fast as it is taken; a thread is needed only to fetch the next piece.
                await send({"type": "http.response.body", "body": content, "more_body": True})
                content = await loop.run_in_executor(self.pool, next, rest.pieces, b"")
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            rest.close()

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, bool]:
        """The body, cut after one octet too many, and whether it was cut."""
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        expects = any(name == b"expect" for name, _ in scope["headers"])
        if expects and stated.isdigit() and int(stated) > BODY_LIMIT:
            return bytes(BODY_LIMIT + 1), True  # refused before it is sent (RFC 9110 10.1.1)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk = message.get("body", b"")
            if size <= BODY_LIMIT:
                parts.append(chunk[: BODY_LIMIT + 1 - size])
            size += len(chunk)
            if not message.get("more_body", False) or size > DRAIN_LIMIT:
                break
        return b"".join(parts), size > BODY_LIMIT

    def _run(self, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes, _Rest | None]:
        """Status, headers, and the body; of a long one its beginning, and the rest."""
        answer: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
            answer["status"] = int(status.split(" ", 1)[0])
            answer["headers"] = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            return lambda _: None

        content: Iterable[bytes] = self.application(environ, start_response)
        pieces, close = filter(None, content), getattr(content, "close", _nothing)
        begun: list[bytes] = []
        size = 0
        try:
            for piece in pieces:
                if size >= AT_ONCE:
                    return answer["status"], answer["headers"], b"".join(begun), _Rest(chain((piece,), pieces), close)
                begun.append(piece)
                size += len(piece)
        except BaseException:
            close()
            raise
        close()
        return answer["status"], answer["headers"], b"".join(begun), None


async def _gone(receive: Receive) -> None:
    """Until whoever asked hangs up: nobody says so to who sends."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _nothing() -> None:
    """What closes an answer that holds nothing."""


class _Rest(NamedTuple):
    """What of an answer was not fetched from the application yet."""

    pieces: Iterator[bytes]
    close: Callable[[], object]


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """The WSGI environ of PEP 3333. It holds what the client sent and nothing of this process's environment."""
    state = scope.get("state", {})
    server = scope.get("server") or ("localhost", 0)
    client = scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8", "surrogateescape").decode("latin-1"),
        "RAW_URI": state.get("target", scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": str(client[0]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    environ |= {name: state[name] for name in (PEER_CERTIFICATE, TLS12, TLS_UNIQUE) if name in state}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").upper()
        if "_" in name:
            continue  # an underscore twin of a hyphenated header is a smuggling attempt, never a real header
        value = raw_value.decode("latin-1")
        key = name.replace("-", "_") if name in {"CONTENT-TYPE", "CONTENT-LENGTH"} else "HTTP_" + name.replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ and key != "CONTENT_LENGTH" else value
    # What was read is what there is: a chunked or cut body has a length now, and the application's limit sees it.
    if len(body) > BODY_LIMIT or "HTTP_TRANSFER_ENCODING" in environ or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ
