"""The three questions of RFC 8555 8 and RFC 8737, asked over the network. Adapter. Implements `enroll.acme.ports.Prober`.

Whatever answers is a stranger: every read is bounded in octets and in time, and nothing that it says is quoted back but its status and a few
printable characters.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from cryptography import x509

from ca.der import reader
from ca.errors import Malformed
from enroll.acme import jws
from enroll.acme.model import Challenge, ChallengeKind, Identifier, IdentifierKind, Problem
from enroll.acme.probing.reach import Reach

SECONDS: Final = 10.0
LARGEST_ANSWER: Final = 1024
REDIRECTS: Final = 5
TRIES: Final = 3
PAUSE: Final = 1.0
USER_AGENT: Final = "fleetca-acme"
ALPN: Final = "acme-tls/1"
ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


@dataclass(frozen=True, slots=True)
class NetworkProber:
    """Asks over the network.

    Args:
        http_port: of http-01, also for redirects that name no port.
        tls_port: of tls-alpn-01.
    """

    reach: Reach
    http_port: int = 80
    tls_port: int = 443

    def probe(self, challenge: Challenge, identifier: Identifier, *, networks: Sequence[str], expected: str) -> None:
        questions = {
            ChallengeKind.http_01: self._http,
            ChallengeKind.tls_alpn_01: self._tls,
            ChallengeKind.dns_01: self._dns,
        }
        question = questions[challenge.kind]
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                question(identifier, challenge.token, networks, expected)
            except Problem as error:
                # A server that is just starting, a name that is just being published: ask again. An answer is an answer.
                if error.kind not in {"connection", "dns"} or not tries_left:
                    raise
                threading.Event().wait(PAUSE)
            else:
                return

    # ---- http-01 (RFC 8555 8.3) -------------------------------------------------------------------------------------

    def _http(self, identifier: Identifier, token: str, networks: Sequence[str], expected: str) -> None:
        host, port, path = identifier.value, self.http_port, f"/.well-known/acme-challenge/{token}"
        deadline = self.reach.monotonic() + SECONDS
        for _ in range(REDIRECTS + 1):
            status, location, body = self._get(host, port, path, networks, deadline)
            if status in {301, 302, 303, 307, 308} and location is not None:
                host, port, path = self._redirected(host, port, path, location)
                continue
            if status != 200:
                raise Problem("incorrectResponse", f"{host} answered with status {status} instead of the key authorization (RFC 8555 8.3).")
            if len(body) > LARGEST_ANSWER or not hmac.compare_digest(body.rstrip(b" \t\r\n"), expected.encode("ascii")):
                shown = "".join(chr(octet) if 0x20 < octet < 0x7F else "." for octet in body[:40])
                raise Problem("incorrectResponse", f"{host} answered {shown!r} instead of the key authorization (RFC 8555 8.3).")
            return
        raise Problem("incorrectResponse", f"{identifier.value} redirects more than {REDIRECTS} times.")

    def _redirected(self, host: str, port: int, path: str, location: str) -> tuple[str, int, str]:
        """Where a redirect leads, if that is plain HTTP at the port of http-01: the networks are asked anew for each (R19)."""
        shown = f"[{host}]" if ":" in host else host
        try:
            target = urlsplit(urljoin(f"http://{shown}:{port}{path}", location))
            found = target.hostname, target.port
        except ValueError:
            raise Problem("connection", f"{host} redirects to something that is no address.") from None
        if target.scheme != "http" or not found[0] or target.username is not None:
            raise Problem("connection", f"{host} redirects to something other than plain HTTP.")
        if found[1] not in {None, 80, self.http_port}:
            raise Problem("connection", f"{host} redirects to a port that is not that of http-01.")
        if not (target.path + target.query).isascii() or any(char <= " " for char in target.path + target.query):
            raise Problem("connection", f"{host} redirects to something that is no address.")
        return found[0], self.http_port, (target.path or "/") + (f"?{target.query}" if target.query else "")

    def _get(self, host: str, port: int, path: str, networks: Sequence[str], deadline: float) -> tuple[int, str | None, bytes]:
        sock = self.reach.connect(host, port, networks)
        shown = f"[{host}]" if ":" in host else host
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        connection.sock = sock
        watch = threading.Timer(max(0.1, deadline - self.reach.monotonic()), _shut, [sock])
        watch.daemon = True
        watch.start()
        try:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", shown if port == 80 else f"{shown}:{port}")
            connection.putheader("User-Agent", USER_AGENT)
            connection.putheader("Accept", "*/*")
            connection.putheader("Connection", "close")
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.getheader("Location"), answer.read(LARGEST_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Problem("connection", f"{host} gave no answer that HTTP knows ({type(error).__name__}).") from None
        finally:
            watch.cancel()
            connection.close()

    # ---- tls-alpn-01 (RFC 8737, RFC 8738 6) -------------------------------------------------------------------------

    def _tls(self, identifier: Identifier, _token: str, networks: Sequence[str], expected: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A self-signed certificate that holds the answer is what we came for: we read it, we do not trust it.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([ALPN])
        name = identifier.value
        if identifier.kind is IdentifierKind.ip:
            name = ipaddress.ip_address(identifier.value).reverse_pointer
        sock = self.reach.connect(identifier.value, self.tls_port, networks)
        sock.settimeout(SECONDS)
        watch = threading.Timer(SECONDS, _shut, [sock])
        watch.daemon = True
        watch.start()
        try:
            with context.wrap_socket(sock, server_hostname=name) as tls:
                protocol, der = tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True)
        except (OSError, ValueError) as error:
            raise Problem("tls", f"{identifier.value} does no TLS with {ALPN} ({type(error).__name__}) (RFC 8737 3).") from None
        finally:
            watch.cancel()
            sock.close()
        if protocol != ALPN:
            raise Problem("unauthorized", f"{identifier.value} did not choose {ALPN} (RFC 8737 3).")
        check_answer(der or b"", identifier, expected)

    # ---- dns-01 (RFC 8555 8.4) --------------------------------------------------------------------------------------

    def _dns(self, identifier: Identifier, _token: str, _networks: Sequence[str], expected: str) -> None:
        wanted = jws.encode(hashlib.sha256(expected.encode("ascii")).digest())
        host = f"_acme-challenge.{identifier.value}"
        found = self.reach.resolver.texts(host)
        if not found:
            raise Problem("dns", f"{host} has no TXT record (RFC 8555 8.4).")
        if wanted not in found:
            raise Problem("incorrectResponse", f"No TXT record of {host} is the digest of the key authorization (RFC 8555 8.4).")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def check_answer(der: bytes, identifier: Identifier, expected: str) -> None:
    """Is this the certificate that RFC 8737 3 asks for?

    Raises:
        Problem: `unauthorized`, `incorrectResponse`.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        extension = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
        certificate.verify_directly_issued_by(certificate)
    except x509.ExtensionNotFound:
        raise Problem("unauthorized", "The certificate lacks subjectAltName or acmeIdentifier (RFC 8737 3).") from None
    except Exception:  # noqa: BLE001 - whatever a library says about foreign octets (R20)
        raise Problem("unauthorized", "The certificate cannot be read, or is not self-signed (RFC 8737 3).") from None
    wanted: x509.GeneralName = (
        x509.IPAddress(ipaddress.ip_address(identifier.value)) if identifier.kind is IdentifierKind.ip else x509.DNSName(identifier.value)
    )
    found = [x509.DNSName(name.value.lower()) if isinstance(name, x509.DNSName) else name for name in names]
    if found != [wanted]:
        raise Problem("unauthorized", "The certificate is for another name, or for more than one (RFC 8737 3).")
    if not extension.critical:
        raise Problem("unauthorized", "acmeIdentifier is not critical (RFC 8737 3).")
    value = extension.value
    octets = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    try:
        whole = reader.only(octets, 0x04)
    except Malformed:
        raise Problem("unauthorized", "acmeIdentifier is not a digest (RFC 8737 3).") from None
    if not hmac.compare_digest(octets[whole.content : whole.end], hashlib.sha256(expected.encode("ascii")).digest()):
        raise Problem("incorrectResponse", "acmeIdentifier is not the digest of the key authorization (RFC 8737 3).")
