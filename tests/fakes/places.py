"""Other hosts that take files, and fail in each way that a network knows: before writing, after it, and in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Place:
    """A web folder that takes PUT with conditions. `fault` says how the next PUT of a CRL goes wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault: str | None = None
        self.puts = 0
        self.lock = threading.Lock()

    def tag(self, name: str) -> str | None:
        octets = self.files.get(name)
        return None if octets is None else f'"{sha256(octets).hexdigest()[:16]}"'


@contextmanager
def web_folder() -> Iterator[tuple[Place, str]]:
    place = Place()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _name(self) -> str:
            return self.path.rpartition("/")[2]

        def _say(self, status: int, octets: bytes = b"", tag: str | None = None) -> None:
            self.send_response(status)
            if tag:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(octets)

        def do_GET(self) -> None:
            name = self._name()
            if name not in place.files:
                return self._say(404)
            return self._say(200, place.files[name], place.tag(name))

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            name, octets = self._name(), self.rfile.read(int(self.headers["Content-Length"]))
            fault = place.fault if name.endswith(".crl") else None
            with place.lock:
                place.puts += 1
                if fault == "failed and not written":
                    place.fault = None
                    return self._say(503)
                there = place.tag(name)
                if self.headers.get("If-None-Match") == "*" and there is not None:
                    return self._say(412)
                if "If-Match" in self.headers and self.headers["If-Match"] != there:
                    return self._say(412)
                place.files[name] = octets[: len(octets) // 2] if fault == "half written" else octets
            if fault is not None:
                place.fault = None
                if fault == "answer lost":
                    self.close_connection = True
                    return None
                return self._say(500)
            return self._say(201, tag=place.tag(name))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield place, f"http://127.0.0.1:{server.server_address[1]}/crl"
    finally:
        server.shutdown()
        server.server_close()


class FaultyS3:
    """A boto3 client whose next put of a CRL goes wrong."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.fault: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **asked: Any) -> Any:
        from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

        fault = self.fault if asked["Key"].endswith(".crl") else None
        if fault is None:
            return self._client.put_object(**asked)
        self.fault = None
        if fault == "failed and not written":
            raise EndpointConnectionError(endpoint_url="https://s3.example")
        body = asked["Body"].read()
        self._client.put_object(**{**asked, "Body": body[: len(body) // 2] if fault == "half written" else body})
        raise ReadTimeoutError(endpoint_url="https://s3.example")
