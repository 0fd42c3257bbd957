"""Enrolment behind a real nginx and a real HAProxy, with the configurations that we ship: who comes with a certificate is who it says, by EST, REST and
the agent; and nobody becomes somebody by what it writes into a request (R18, RFC 9440).
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca.model import CertificateQuery
from ca.store.engine import open_store
from fleetca import forms
from tests.interop.test_est import Est, certificate, name
from tests.parts import need
from tests.running import ROOT, Apart, Device, apart, eventually, free_ports, make_deployment, text

SHIPPED = ROOT / "config/deployments"
PROXIES = ("nginx", "haproxy")
V = ssl.TLSVersion
PATIENCE = "keepalive_timeout 1s; lingering_timeout 1s;"
"""How long a proxy waits for another request once it has answered; HAProxy's is changed in the same way."""


@dataclass
class Fronts:
    """A deployment, two proxies before its Unix socket, and a device whose certificate everybody knows."""

    running: Apart
    folder: Path
    ports: dict[str, int]
    est: Est
    victim: x509.Certificate

    def through(self, proxy: str) -> Est:
        """The same curl, by way of a proxy."""
        found = _Through(self.running, self.folder)
        found.address = f"https://localhost:{self.ports[proxy]}/.well-known/est"
        found.maker_key, found.count = self.est.maker_key, self.est.count
        self.est.count += 100
        return found

    def raw(self, proxy: str, octets: bytes, *, pair: tuple[Path, Path] | None = None, most: ssl.TLSVersion = V.TLSv1_3) -> bytes:
        """What comes back for octets inside TLS, until the proxy closes."""
        context = ssl.create_default_context(cafile=str(self.running.root))
        context.maximum_version = most
        if pair is not None:
            context.load_cert_chain(*pair)
        parts = []
        with (
            socket.create_connection(("127.0.0.1", self.ports[proxy]), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as line,
        ):
            try:
                line.sendall(octets)
                while part := line.recv(65536):
                    parts.append(part)
            except (ConnectionError, ssl.SSLError):
                pass
        return b"".join(parts)

    def certificates_of(self, device: str) -> int:
        store = open_store(forms.store_url(self.running.settings), readonly=True)
        rows, _ = store.reading.search_certificates(CertificateQuery(device=device, limit=100))  # type: ignore[arg-type]
        store.close()
        return len(list(rows))


class _Through(Est):
    address = ""

    @property
    def url(self) -> str:
        return self.address


def _of_the_proxies(running: Apart, folder: Path) -> None:
    """Their TLS pair, and the CAs whose certificates clients show."""
    front = Device()
    (folder / "front.csr").write_text(text(front.csr()))
    issued = running.cli("issue", folder / "front.csr", "--device", "front", "--profile", "service", "--dns", "localhost")
    assert issued.returncode == 0, issued.stderr
    chain = json.loads(issued.stdout)
    (folder / "certificate.pem").write_text(chain["certificate"] + chain["chain"])
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(front.key_pem())
    (folder / "enroll.pem").symlink_to("certificate.pem")
    (folder / "enroll.pem.key").symlink_to("key.pem")
    clients = (running.root, running.issuing, folder / "maker.pem")
    (folder / "clients.pem").write_bytes(b"".join(one.read_bytes() for one in clients))


def _nginx(folder: Path, port: int, local: Path) -> list[str]:
    shipped = (SHIPPED / "nginx-enroll.conf").read_text()
    for there, here in (
        ("/run/fleetca-enroll/proxy.sock", str(local)), ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/var/lib/fleetca-agent/enroll-front/current/", f"{folder}/"), ("/etc/nginx/fleetca/clients.pem", f"{folder}/clients.pem"),
    ):  # fmt: skip
        assert there in shipped
        shipped = shipped.replace(there, here)
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{ }}"
        f" http {{ access_log off; {PATIENCE} {temporary} {shipped} }}"
    )
    return [need("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _haproxy(folder: Path, port: int, local: Path) -> list[str]:
    shipped = (SHIPPED / "haproxy-enroll.cfg").read_text()
    for there, here in (
        ("/run/fleetca-enroll/proxy.sock", str(local)), ("bind :443", f"bind 127.0.0.1:{port}"), ("/etc/haproxy/fleetca/", f"{folder}/"),
        ("http-keep-alive 20s", "http-keep-alive 1s"),
    ):  # fmt: skip
        assert there in shipped
        shipped = shipped.replace(there, here)
    (folder / "haproxy.cfg").write_text(shipped)
    return [need("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    folder = tmp_path_factory.mktemp("fronts")
    file = make_deployment(folder / "here")
    maker_key = ec.generate_private_key(ec.SECP256R1())
    maker = certificate(name(common="Pump Works IDevID CA"), maker_key, by=maker_key, authority=True)
    (folder / "maker.pem").write_bytes(maker.public_bytes(Encoding.PEM))
    local = folder / "proxy.sock"
    content = file.read_text().replace("[enroll]\n", f'[enroll]\nproxy_socket = "{local}"\n')
    content += f'\n[est]\n[[est.manufacturers]]\nname = "pump-works"\ncertificate = "{folder}/maker.pem"\nprefix = "pump-works:"\n'
    file.write_text(content)
    base = free_ports()
    ports = {"nginx": base + 443, "haproxy": base + 80}
    with apart(file, logs=folder / "logs", roles=("signer", "enroll")) as running:
        assert local.stat().st_mode & 0o777 == 0o600
        _of_the_proxies(running, folder)
        est = Est(running, folder)
        est.maker_key = maker_key
        _, path = est.enrol("victim")
        victim = x509.load_pem_x509_certificate(path.read_bytes())
        est.count += 1000
        commands = _nginx(folder, ports["nginx"], local), _haproxy(folder, ports["haproxy"], local)
        with (folder / "proxies.log").open("ab") as log:
            started = [subprocess.Popen(command, stderr=log, stdout=log) for command in commands]
        try:
            for port in ports.values():
                eventually(partial(_answers, port))
            yield Fronts(running, folder, ports, est, victim)
        finally:
            for process in started:
                process.terminate()
                process.wait(60)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True


# ---- Who may -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-007")
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_EST_enrols_and_renews_through_a_proxy(fronts: Fronts, proxy: str, version: str) -> None:
    est, device = fronts.through(proxy), f"est-{proxy}-{version}"
    only = ["--tlsv" + version, "--tls-max", version]
    assert est.curl("cacerts", *only).status == 200
    key = est.key()
    answer = est.post("simpleenroll", est.csr(key), "--user", f"{device}:{fronts.running.token(device)}", *only)
    pair: list[str | Path] = ["--key", key, "--cert", est.keep(key, est.certificates(answer)[0])]
    renewed = est.certificates(est.post("simplereenroll", est.csr(est.key()), *pair, *only))[0]
    assert renewed.subject.rfc4514_string() == f"CN={device}"


@pytest.mark.req("REQ-KEY-078")
@pytest.mark.parametrize("proxy", PROXIES)
def test_nothing_of_REST_goes_through_a_proxy_over_TLS_1_2(fronts: Fronts, proxy: str) -> None:
    """However its address is spelled: what stands at it is told over TLS 1.3, or there is nothing at it."""
    for written in (
        "/v1/about",
        "/%761/about",
        "/v1%2Fabout",
        "/v1/about?x=/",
        "/x/../v1/about",
        "/./v1/about",
        "//v1/about",
        "http://a/v1/about",
    ):
        request = f"GET {written} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        old, new = (fronts.raw(proxy, request, most=version)[9:12] for version in (V.TLSv1_2, V.TLSv1_3))
        assert old in {b"400", b"403", b"404"}, (written, old, new)
        assert (old, new) == (b"403", b"200") or written != "/v1/about", (old, new)


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_factory_certificate_enrols_through_a_proxy(fronts: Fronts, proxy: str) -> None:
    est = fronts.through(proxy)
    made = est.certificates(est.post("simpleenroll", est.csr(est.key()), *est.device(f"SN-{proxy}")))[0]
    assert made.subject.rfc4514_string() == f"CN=pump-works:SN-{proxy}"


@pytest.mark.parametrize("proxy", ["nginx", pytest.param("haproxy", marks=pytest.mark.full)])
def test_the_agent_enrols_and_renews_through_a_proxy(fronts: Fronts, proxy: str) -> None:
    folder, device = fronts.folder / f"agent-{proxy}", f"agent-{proxy}"
    (fronts.folder / "token").write_text(fronts.running.token(device))
    agent = [sys.executable, "-m", "fleetca.cli.main", "agent"]
    url = f"https://localhost:{fronts.ports[proxy]}"
    enrol: list[str | Path] = [
        "enrol",
        "--dir",
        folder,
        "--url",
        url,
        "--root",
        fronts.running.root,
        "--token-file",
        fronts.folder / "token",
    ]
    renew: list[str | Path] = ["renew", "--dir", folder]
    for words in (enrol, renew):
        done = subprocess.run([*agent, *words], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    assert fronts.certificates_of(device) == 2


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_revoked_the_foreign_and_the_look_alike_get_nothing_through_a_proxy(fronts: Fronts, proxy: str) -> None:
    est, device = fronts.through(proxy), f"bad-{proxy}"
    key = est.key()
    answer = est.post("simpleenroll", est.csr(key), "--user", f"{device}:{fronts.running.token(device)}")
    path = est.keep(key, est.certificates(answer)[0])
    est.revoke(str(x509.load_pem_x509_certificate(path.read_bytes()).serial_number.to_bytes(20, "big").hex()))
    assert est.post("simplereenroll", est.csr(est.key()), "--key", key, "--cert", path).status == 403
    stranger = ec.generate_private_key(ec.SECP256R1())
    genuine = x509.load_pem_x509_certificate((fronts.folder / "maker.pem").read_bytes())
    alike = certificate(genuine.subject, stranger, by=stranger, authority=True)
    foreign = certificate(name(common="Elsewhere"), stranger, by=stranger, authority=True)
    for issuer in (alike, foreign):
        words = est.device("SN-9", by=stranger, maker=issuer)
        refused = est.post("simpleenroll", est.csr(est.key()), *words, fails=proxy == "haproxy")
        # HAProxy ends the handshake, as we do; nginx answers, and asks nobody behind it.
        assert refused.status == (0 if proxy == "haproxy" else 400)
        assert proxy == "haproxy" or b"SSL certificate error" in refused.body


@pytest.mark.parametrize("said", ["a stranger's", "a look-alike's", "a CA's", "nobody's"])
def test_what_a_proxy_that_verifies_nothing_lets_through_is_refused_here(fronts: Fronts, said: str) -> None:
    """A proxy proves that its client holds the key. Whose certificate counts is decided behind it."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    issuing = x509.load_pem_x509_certificate(fronts.running.issuing.read_bytes())
    alike = certificate(issuing.subject, stranger, by=stranger, authority=True)
    shown = {
        "a stranger's": certificate(name(common="victim"), stranger, by=stranger),
        "a look-alike's": certificate(fronts.victim.subject, stranger, issuer=alike, by=stranger),
        "a CA's": issuing,
    }.get(said)
    der = b"\x30\x82\x01\x00" + bytes(256) if shown is None else shown.public_bytes(Encoding.DER)
    for path, body, kind in _errands(fronts):
        head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: " + kind, b"Connection: close"]
        head += [b"Client-Cert: :" + base64.b64encode(der) + b":", b"Content-Length: %d" % len(body)]
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60)
            line.connect(str(fronts.folder / "proxy.sock"))
            line.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
            answer = line.recv(65536)
        assert int(answer.split(b" ", 2)[1]) in {400, 401, 403}, answer


def _errands(fronts: Fronts) -> list[tuple[bytes, bytes, bytes]]:
    csr = Device().csr()
    return [
        (b"/.well-known/est/simplereenroll", base64.b64encode(csr), b"application/pkcs10"),
        (b"/v1/renew", json.dumps({"csr": text(csr)}).encode(), b"application/json"),
        (b"/v1/confirm", b"{}", b"application/json"),
    ]


# ---- Who may not ---------------------------------------------------------------------------------------------------------

PATH = b"/.well-known/est/simplereenroll"


def _post(
    *lines: bytes, start: bytes = b"POST " + PATH + b" HTTP/1.1", body: bytes = b"", close: bool = True, length: bool = True
) -> bytes:
    head = [start, b"Host: localhost", b"Content-Type: application/pkcs10", *lines]
    if length:
        head.append(b"Content-Length: %d" % len(body))
    if close:
        head.append(b"Connection: close")
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _chunked(body: bytes, *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n0\r\n%b\r\n" % (len(body), extension, body, trailers)


def _header(*names: bytes, value: Callable[[bytes], bytes] = lambda shown: shown) -> Callable[[bytes, bytes, bytes], bytes]:
    def made(shown: bytes, _pem: bytes, body: bytes) -> bytes:
        return _post(*(one + b": " + value(shown) for one in names), body=body)

    return made


def _lines(*lines: str) -> Callable[[bytes, bytes, bytes], bytes]:
    r"""Header lines; `@` is what is shown, `%` PEM as it is escaped."""

    def made(shown: bytes, pem: bytes, body: bytes) -> bytes:
        return _post(*(one.encode("latin-1").replace(b"@", shown).replace(b"%PEM", pem) for one in lines), body=body)

    return made


def _target(text_: str, *lines: str) -> Callable[[bytes, bytes, bytes], bytes]:
    def made(shown: bytes, _pem: bytes, body: bytes) -> bytes:
        start = b"POST " + text_.encode("latin-1").replace(b"@", shown) + b" HTTP/1.1"
        return _post(*(one.encode().replace(b"@", shown) for one in lines), start=start, body=body)

    return made


def _hidden(shown: bytes, body: bytes) -> bytes:
    """A request that whoever reads the one before it differently takes for one of its own."""
    return _post(b"Client-Cert: " + shown, body=body)


def _half(shown: bytes) -> tuple[bytes, bytes]:
    return shown[:40], shown[40:]


Variant = Callable[[bytes, bytes, bytes], bytes]
VARIANTS: dict[str, Variant] = {
    # names
    "the header itself": _header(b"Client-Cert"),
    "in lower case": _header(b"client-cert"),
    "in upper case": _header(b"CLIENT-CERT"),
    "in mixed case": _header(b"cLiEnT-cErT"),
    "twice": _header(b"Client-Cert", b"Client-Cert"),
    "twice in two cases": _header(b"Client-Cert", b"client-CERT"),
    "a twin with an underscore": _header(b"Client_Cert"),
    "a twin in upper case, as CGI has it": _header(b"CLIENT_CERT"),
    "the twin and the header": _header(b"Client_Cert", b"Client-Cert"),
    "the header and the twin": _header(b"Client-Cert", b"Client_Cert"),
    "CGI's own name": _header(b"HTTP_CLIENT_CERT", b"HTTP-CLIENT-CERT"),
    "a dot for the hyphen": _header(b"Client.Cert"),
    "an escaped hyphen": _header(b"Client%2DCert"),
    "a soft hyphen": _header(b"Client\xadCert"),
    "a hyphen of UTF-8": _header(b"Client\xe2\x80\x90Cert"),
    "a no-break space after the name": _header(b"Client-Cert\xa0"),
    "a space before the colon": _lines("Client-Cert : @"),
    "a tab before the colon": _lines("Client-Cert\t: @"),
    "a space before the name": _lines("X-First: 1", " Client-Cert: @"),
    "a tab before the name": _lines("X-First: 1", "\tClient-Cert: @"),
    "NUL after the name": _lines("Client-Cert\0: @"),
    "NUL before the name": _lines("\0Client-Cert: @"),
    "names of other programs": _header(
        b"X-SSL-Client-Cert",
        b"X-Client-Cert",
        b"X-Forwarded-Client-Cert",
        b"X-Forwarded-Tls-Client-Cert",
        b"X-ARR-ClientCert",
        b"SSL-Client-Cert",
        b"SSL_CLIENT_CERT",
        b"X-Amzn-Mtls-Clientcert",
        b"Fleetca-Peer-Certificate",
        b"fleetca.peer_certificate",
    ),
    "the chain alone": _header(b"Client-Cert-Chain"),
    "the chain and the header": _header(b"Client-Cert", b"Client-Cert-Chain"),
    "the chain's twin": _header(b"Client_Cert_Chain"),
    # values
    "a tab before the value": _lines("Client-Cert:\t@"),
    "no space before the value": _lines("Client-Cert:@"),
    "spaces and tabs after the value": _lines("Client-Cert: @ \t "),
    "folded before the value": _lines("Client-Cert:", " @"),
    "folded by a tab": _lines("Client-Cert:", "\t@"),
    "folded inside the value": lambda shown, _, body: _post(b"Client-Cert: " + _half(shown)[0] + b"\r\n " + _half(shown)[1], body=body),
    "folded into another header": _lines("X-First: 1", " Client-Cert: @", "X-Last: 1"),
    "two joined by a comma": _lines("Client-Cert: @, @"),
    "a comma and nothing before it": _lines("Client-Cert: , @"),
    "two byte sequences": _lines("Client-Cert: @@"),
    "with parameters": _lines("Client-Cert: @;verified=?1"),
    "empty, then filled": _lines("Client-Cert:", "Client-Cert: @"),
    "filled, then empty": _lines("Client-Cert: @", "Client-Cert:"),
    "empty": _lines("Client-Cert:"),
    "an empty byte sequence": _lines("Client-Cert: ::"),
    "base64 without padding and colons": _header(b"Client-Cert", value=lambda shown: shown.strip(b":").rstrip(b"=")),
    "the other base64": _header(b"Client-Cert", value=lambda shown: shown.replace(b"+", b"-").replace(b"/", b"_")),
    "PEM, escaped": _lines("Client-Cert: %PEM"),
    "NUL inside the value": lambda shown, _, body: _post(b"Client-Cert: " + b"\0".join(_half(shown)), body=body),
    "a vertical tab before the value": _lines("Client-Cert: \x0b@"),
    "a carriage return inside the value": _lines("X-First: 1\rClient-Cert: @"),
    "a line feed alone between headers": _lines("X-First: 1\nClient-Cert: @"),
    "20 KiB of it": _header(b"Client-Cert", value=lambda shown: shown * 20),
    # framing
    "a trailer": lambda shown, _, body: (
        _post(b"Transfer-Encoding: chunked", length=False) + _chunked(body, trailers=b"Client-Cert: " + shown + b"\r\n")
    ),
    "a trailer that was announced": lambda shown, _, body: (
        _post(b"Transfer-Encoding: chunked", b"TE: trailers", b"Trailer: Client-Cert", length=False)
        + _chunked(body, trailers=b"Client-Cert: " + shown + b"\r\n")
    ),
    "a chunk extension": lambda shown, _, body: (
        _post(b"Transfer-Encoding: chunked", length=False) + _chunked(body, extension=b";Client-Cert=" + shown)
    ),
    "length and chunks, a second request behind": lambda shown, _, body: _post(
        b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "chunks and a short length": lambda shown, _, body: (
        _post(b"Content-Length: 4", b"Transfer-Encoding: chunked", close=False, length=False) + _chunked(_hidden(shown, body))
    ),
    "an unknown coding": lambda shown, _, body: _post(
        b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "two codings": lambda shown, _, body: _post(
        b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "chunked after a tab": lambda shown, _, body: _post(
        b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "chunked behind a vertical tab": lambda shown, _, body: _post(
        b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "chunked on a folded line": lambda shown, _, body: _post(
        b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "a twin of the coding": lambda shown, _, body: _post(
        b"Transfer_Encoding: chunked", body=b"0\r\n\r\n" + _hidden(shown, body), close=False
    ),
    "two lengths": lambda shown, _, body: _post(b"Content-Length: 0", body=_hidden(shown, body), close=False),
    "a list of lengths": lambda shown, _, body: _post(b"Content-Length: 0, 0", length=False, close=False) + _hidden(shown, body),
    "a length with a sign": lambda shown, _, body: _post(b"Content-Length: +0", length=False, close=False) + _hidden(shown, body),
    "no length, a request in the body": lambda shown, _, body: _post(length=False, close=False) + _hidden(shown, body),
    "a chunk size that overflows": lambda shown, _, body: (
        _post(b"Transfer-Encoding: chunked", length=False, close=False) + b"10000000000000000\r\n" + _hidden(shown, body)
    ),
    "a second request on the connection": lambda shown, _, body: _post(body=body, close=False) + _hidden(shown, body),
    # hops
    "named by Connection": lambda shown, _, body: _post(b"Client-Cert: " + shown, b"Connection: Client-Cert", body=body, close=False),
    "named by Connection, and closed": _lines("Connection: close, Client-Cert", "Client-Cert: @"),
    "its chain named by Connection": _lines("Connection: Client-Cert-Chain", "Client-Cert: @"),
    "named by Proxy-Connection and Keep-Alive": _lines("Proxy-Connection: Client-Cert", "Keep-Alive: Client-Cert", "Client-Cert: @"),
    "an upgrade to h2c": _lines(
        "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings", "Client-Cert: @"
    ),
    "an upgrade to a WebSocket": _lines("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Client-Cert: @"),
    "expecting to be told to go on": _lines("Expect: 100-continue", "Client-Cert: @"),
    "said to come from this host": _lines("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: ::1", "Client-Cert: @"),
    "the PROXY protocol before it": lambda shown, _, body: b"PROXY TCP4 127.0.0.1 127.0.0.1 1 443\r\n" + _hidden(shown, body),
    "the preface of HTTP/2 before it": lambda shown, _, body: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _hidden(shown, body),
    # targets
    "an absolute target": _target("https://localhost" + PATH.decode(), "Client-Cert: @"),
    "an absolute target of another host": _target("http://unix:" + PATH.decode(), "Client-Cert: @"),
    "an absolute target with a user": _target("https://victim:x@localhost" + PATH.decode(), "Client-Cert: @"),
    "a query": _target(PATH.decode() + "?Client-Cert=@"),
    "a line in the target": _target(PATH.decode() + "?%20HTTP/1.1%0d%0aClient-Cert:%20@%0d%0aX:%20"),
    "a bare line feed in the target": _target(PATH.decode() + " HTTP/1.1\nClient-Cert: @\nX:"),
    "a double slash": _target("/" + PATH.decode(), "Client-Cert: @"),
    "a line in Host": _lines("X-Host: a\r\nHost: b\r\nClient-Cert: @"),
    "HTTP/1.0": lambda shown, _, body: _post(b"Client-Cert: " + shown, start=b"POST " + PATH + b" HTTP/1.0", body=body),
    "HTTP/0.9": lambda shown, _, body: b"GET " + PATH + b"\r\nClient-Cert: " + shown + b"\r\n\r\n" + body,
    "another method in a header": _lines("X-HTTP-Method-Override: POST", "X-Original-URL: " + PATH.decode(), "Client-Cert: @"),
}


def _statuses(answer: bytes) -> list[int]:
    """Of all the answers on a connection; our bodies hold no line that looks like one's beginning."""
    return [int(part[:3]) for part in answer.replace(b"HTTP/1.0 ", b"HTTP/1.1 ").split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def test_there_are_sixty_variants_and_more() -> None:
    assert len(VARIANTS) >= 60


REFUSALS = {100, 400, 401, 501}
"""401: nobody came. 400, 501: somebody, the proxy or we, would not read it. 100: go on."""


def _written(fronts: Fronts, proxy: str, *, pair: tuple[Path, Path] | None = None) -> dict[str, bytes]:
    """Every variant's answers."""
    shown = b":" + base64.b64encode(fronts.victim.public_bytes(Encoding.DER)) + b":"
    pem = fronts.victim.public_bytes(Encoding.PEM).replace(b"\n", b"%0A").replace(b" ", b"%20")
    before, found = fronts.certificates_of("victim"), {}
    for words, variant in VARIANTS.items():
        found[words] = fronts.raw(proxy, variant(shown, pem, base64.b64encode(Device().csr())), pair=pair)
    assert fronts.certificates_of("victim") == before
    return found


@pytest.mark.parametrize("proxy", PROXIES)
def test_R18_nobody_becomes_somebody_by_what_it_writes(fronts: Fronts, proxy: str) -> None:
    found = _written(fronts, proxy)
    assert b"pkcs7-mime" not in b"".join(found.values())
    said = {words: _statuses(answer) for words, answer in found.items() if words != "HTTP/0.9"}  # which has no line for a status
    wrong = {words: found[words][:300] for words, statuses in said.items() if not statuses or not set(statuses) <= REFUSALS}
    assert not wrong, wrong
    assert sum(401 in statuses for statuses in said.values()) >= 50  # they reach us, and we refuse them


@pytest.mark.full
@pytest.mark.parametrize("proxy", PROXIES)
def test_R18_somebody_becomes_nobody_else_by_what_it_writes(fronts: Fronts, proxy: str) -> None:
    key, kept = fronts.through(proxy).enrol(f"mallory-{proxy}")
    found = _written(fronts, proxy, pair=(kept, key))
    said = {words: _statuses(answer) for words, answer in found.items() if words != "HTTP/0.9"}
    wrong = {words: found[words][:300] for words, statuses in said.items() if not statuses or not set(statuses) <= REFUSALS | {200}}
    assert not wrong, wrong
    renewed = sum(answer.count(b"pkcs7-mime") for answer in found.values())
    assert renewed >= 50
    assert 50 <= fronts.certificates_of(f"mallory-{proxy}") <= renewed + 1  # who asks the same twice has one
