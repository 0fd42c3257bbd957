"""A small client of our REST API: for `fleetca renew`, the demo and tests. Standard library only; knows no PKI beyond TLS.

Keys given here lie in files (a device's own 0600 file); Python's ssl reads them from there.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ca import errors

_BY_STATUS: Mapping[int, type[errors.FleetcaError]] = {
    400: errors.Malformed,
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.Unacceptable,
    429: errors.Busy,
    503: errors.Unavailable,
}


class Client:
    """Speaks to one enrolment service over TLS 1.3; keeps its connection.

    Args:
        url: `https://host:port`, as in `enroll_url`.
        trusted: PEM file with the root certificate.
        certificate: PEM file with the client's certificate and chain, or None.
        key: its key (PEM file).
        password: gives what unlocks the key, when it is sealed; nobody is ever asked on a terminal.
    """

    def __init__(
        self,
        url: str,
        *,
        trusted: Path,
        certificate: Path | None = None,
        key: Path | None = None,
        password: Callable[[], bytes] = bytes,
        timeout: float = 30,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            raise errors.Misconfigured("bad-address", f"{url} is not an https address.", fix="Write it as https://host:port")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        try:
            context.load_verify_locations(cafile=trusted)
            if certificate is not None:
                context.load_cert_chain(certificate, key, password)
        except (OSError, ssl.SSLError) as error:
            raise errors.Misconfigured(
                "bad-credentials",
                "The certificate files cannot be used for TLS.",
                why=f"{error}.",
                fix="Check the paths and that key and certificate belong together.",
            ) from None
        self.url = url
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, context=context, timeout=timeout)

    def get(self, path: str, *, accept: str = "application/json") -> bytes:
        """The body of a GET."""
        return self._exchange("GET", path, None, {"Accept": accept})

    def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object, get one back.

        Raises:
            FleetcaError: of the class that fits the status, with the code and words of the service's problem document.
        """
        body = self._exchange(
            "POST", path, json.dumps(document).encode(), {"Content-Type": "application/json", "Accept": "application/json"}
        )
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        # A kept connection may have been closed by the server meanwhile; every call of this API may be repeated.
        attempt = 0
        while True:
            attempt += 1
            try:
                self._connection.request(method, path, body=body, headers=dict(headers))
                response = self._connection.getresponse()
                content = response.read()
                break
            except ssl.SSLError as error:
                self._connection.close()
                raise errors.Denied(
                    "handshake-refused", f"{self.url} ended the TLS handshake.", why=f"{error.reason or error}.",
                    fix="Check that the root certificate is that of this service, and that the client certificate has not expired.",
                ) from None  # fmt: skip
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                if attempt == 2 or isinstance(error, (ConnectionRefusedError, socket.gaierror)):
                    raise errors.Unavailable(
                        "service-unreachable",
                        f"{self.url} cannot be reached.",
                        why=f"{error}.",
                        fix="Check the address and that `fleetca serve` runs.",
                    ) from None
        if response.status >= 400:
            raise self._problem(response, content)
        return content

    @staticmethod
    def _problem(response: http.client.HTTPResponse, content: bytes) -> errors.FleetcaError:
        kind = _BY_STATUS.get(response.status, errors.Unavailable if response.status >= 500 else errors.Malformed)
        try:
            problem = json.loads(content)
            code, what = str(problem["code"]), str(problem["detail"])
            why, fix = f"The service names this request {problem.get('request_id', '?')}.", str(problem.get("fix", ""))
        except (ValueError, KeyError, TypeError):
            code, what, why, fix = f"http-{response.status}", f"The service answered {response.status} {response.reason}.", "", ""
        return kind(code, what, why=why, fix=fix)
