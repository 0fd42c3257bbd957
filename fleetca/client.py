"""A small client of our REST API: for the agent, `fleetca renew`, the demo and tests. Standard library only; knows no PKI beyond TLS.

Keys given here lie in files (a device's own 0600 file); Python's ssl reads them from there.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ca import errors

_BY_STATUS: Mapping[int, type[errors.FleetcaError]] = {
    202: errors.Unavailable,
    400: errors.Malformed,
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.Unacceptable,
    429: errors.Busy,
    503: errors.Unavailable,
}

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which Python has no name."""
_NOT_YET, _OVER = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Client:
    """Speaks to one enrolment service over TLS 1.3; keeps its connection.

    Args:
        url: `https://host:port`, as in `enroll_url`.
        trusted: PEM file with the root certificates; None: the service is not believed, and what it says must prove itself.
        certificate: PEM file with the client's certificate and chain, or None.
        key: its key (PEM file).
        password: gives what unlocks the key, when it is sealed; nobody is ever asked on a terminal.
        proxy: `http://[USER:PASSWORD@]HOST:PORT` of a proxy that tunnels; TLS is spoken through it with the service itself.
        check_time: False where this host's clock is known to be wrong: names and signatures are checked, dates are the caller's.
    """

    def __init__(
        self,
        url: str,
        *,
        trusted: Path | None,
        certificate: Path | None = None,
        key: Path | None = None,
        password: Callable[[], bytes] = bytes,
        timeout: float = 30,
        proxy: str | None = None,
        check_time: bool = True,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            raise errors.Misconfigured("bad-address", f"{url} is not an https address.", fix="Write it as https://host:port")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if not check_time:
            context.verify_flags |= _NO_CHECK_TIME
        try:
            if trusted is None:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            else:
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
        self.date: int | None = None
        """What the service's clock said with its last answer (RFC 9110 6.6.1)."""
        self.peer: bytes | None = None
        """The service's own certificate, of the last answer."""
        self._connection = _connection(parts.hostname, parts.port or 443, proxy, context=context, timeout=timeout)

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
                tls = self._connection.sock
                self.peer = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLSocket) else None
                response = self._connection.getresponse()
                content = response.read()
                break
            except ssl.SSLCertVerificationError as error:
                self._connection.close()
                if error.verify_code not in {_NOT_YET, _OVER}:
                    raise self._refused(error) from None
                raise errors.Denied(
                    "service-out-of-time", f"By this host's clock the certificate of {self.url} does not hold now.",
                    why=f"{error.verify_message}.", fix="Set this host's clock right.",
                ) from None  # fmt: skip
            except ssl.SSLError as error:
                self._connection.close()
                raise self._refused(error) from None
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                if attempt == 2 or isinstance(error, (ConnectionRefusedError, socket.gaierror)):
                    raise errors.Unavailable(
                        "service-unreachable",
                        f"{self.url} cannot be reached.",
                        why=f"{error}.",
                        fix="Check the address and that `fleetca serve` runs.",
                    ) from None
        self.date = _date(response.headers.get("Date"))
        if response.status >= 400 or response.status == 202:  # somebody has to approve it: the same again later
            raise self._problem(response, content)
        return content

    def _refused(self, error: ssl.SSLError) -> errors.Denied:
        return errors.Denied(
            "handshake-refused",
            f"{self.url} ended the TLS handshake.",
            why=f"{error.reason or error}.",
            fix="Check that the root certificate is that of this service, and that the client certificate has not expired.",
        )

    @staticmethod
    def _problem(response: http.client.HTTPResponse, content: bytes) -> errors.FleetcaError:
        kind = _BY_STATUS.get(response.status, errors.Unavailable if response.status >= 500 else errors.Malformed)
        try:
            problem = json.loads(content)
            code, what = str(problem["code"]), str(problem["detail"])
            why, fix = f"The service names this request {problem.get('request_id', '?')}.", str(problem.get("fix", ""))
        except (ValueError, KeyError, TypeError):
            code, what, why, fix = f"http-{response.status}", f"The service answered {response.status} {response.reason}.", "", ""
        if issubclass(kind, errors.Unavailable):
            after = response.headers.get("Retry-After", "")
            return kind(code, what, why=why, fix=fix, retry_after=int(after) if after.isdecimal() else 5)
        return kind(code, what, why=why, fix=fix)


def _connection(host: str, port: int, proxy: str | None, *, context: ssl.SSLContext, timeout: float) -> http.client.HTTPSConnection:
    if proxy is None:
        return http.client.HTTPSConnection(host, port, context=context, timeout=timeout)
    parts = urlsplit(proxy)
    if parts.scheme != "http" or parts.hostname is None:
        raise errors.Misconfigured("bad-address", f"{proxy} is not the address of a proxy.", fix="Write it as http://host:port")
    made = http.client.HTTPSConnection(parts.hostname, parts.port or 3128, context=context, timeout=timeout)
    headers = {}
    if parts.username is not None:
        given = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(given.encode()).decode()}"
    # http.client puts the name as it is into CONNECT, where an IPv6 address stands in brackets (RFC 9110 9.3.6); TLS asks for it without.
    made.set_tunnel(host, port, headers)
    return made


def _date(text: str | None) -> int | None:
    try:
        return None if text is None else int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError):
        return None
