"""Published files on a web server that takes PUT (WebDAV and its like), with If-Match and If-None-Match. Ring 3."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from ca.errors import Misconfigured
from ca.model import UnixTime
from ca.outlets.remote import PIECE, Refused, RemoteOutlet, pieces
from ca.ports import Readable

_TIMEOUT: Final = 30.0
_OK: Final = frozenset({200, 201, 204})
_REFUSED: Final = frozenset({409, 412})


class HttpPutOutlet(RemoteOutlet):
    """Args:
    url: the folder, without a slash at the end.
    credentials: asked for each time: `user:password`, or a bearer token.
    """

    def __init__(self, url: str, *, now: Callable[[], UnixTime], credentials: Callable[[], bytes] | None = None) -> None:
        super().__init__(now)
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misconfigured("outlet-url", f"{url!r} is not an http address.")
        self._parts, self._credentials = parts, credentials

    def get(self, key: str, take: Callable[[bytes], object]) -> str | None:
        with self._answered("GET", key) as answer:
            if answer.status == http.client.NOT_FOUND:
                return None
            if answer.status != http.client.OK:
                raise OSError(f"GET {key} answers {answer.status}")
            length, taken = answer.headers.get("Content-Length"), 0
            while piece := answer.read(PIECE):
                take(piece)
                taken += len(piece)
            if length is not None and taken != int(length):
                raise OSError(f"{key} was cut on its way")
            # A server without entity tags cannot refuse: what is read stands for itself.
            return answer.headers.get("ETag") or ""

    def head(self, key: str) -> str | None:
        with self._answered("HEAD", key) as answer:
            if answer.status == http.client.NOT_FOUND:
                return None
            if answer.status != http.client.OK:
                raise OSError(f"HEAD {key} answers {answer.status}")
            return answer.headers.get("ETag") or ""

    def put(self, key: str, source: Readable, *, tag: str | None, kind: str) -> None:
        condition = {"If-None-Match": "*"} if tag is None else {"If-Match": tag}
        headers = {"Content-Type": kind, "Content-Length": str(source.size), **condition}
        with self._answered("PUT", key, pieces(source), headers) as answer:
            if answer.status in _REFUSED:
                raise Refused(key)
            if answer.status not in _OK:
                raise OSError(f"PUT {key} answers {answer.status}")

    @contextmanager
    def _answered(
        self, verb: str, key: str, body: Iterator[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            connection.request(verb, f"{self._parts.path}/{key}", body=body, headers={**(headers or {}), **self._authorization()})
            yield connection.getresponse()
        except http.client.HTTPException as error:
            raise OSError(f"{verb} {key}: {type(error).__name__}") from None
        finally:
            connection.close()

    def _authorization(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        secret = self._credentials()
        if b":" in secret:
            return {"Authorization": "Basic " + base64.b64encode(secret).decode("ascii")}
        return {"Authorization": "Bearer " + secret.decode("ascii")}
