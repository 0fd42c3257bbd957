"""How validation reaches holders of names, over real sockets, and where it refuses to go (R19): networks, redirects, rebinding, bounds."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enroll.acme.model import Challenge, ChallengeKind, Identifier, IdentifierKind, Problem
from enroll.acme.probing import probe as probing
from enroll.acme.probing.probe import ACME_IDENTIFIER, ALPN, NetworkProber, check_answer
from enroll.acme.probing.reach import Reach

LOOPBACK = ("127.0.0.0/8",)
NAME = Identifier(IdentifierKind.dns, "gw.device.test")
EXPECTED = "token.thumbprint"
HTTP = Challenge(ChallengeKind.http_01, "token")
TLS = Challenge(ChallengeKind.tls_alpn_01, "token")
DNS = Challenge(ChallengeKind.dns_01, "token")


@dataclass
class Names:
    """A resolver that answers as the test says, and counts."""

    answers: list[list[str]] = field(default_factory=lambda: [["127.0.0.1"]])
    records: Sequence[str] = ()
    asked: int = 0

    def addresses(self, host: str) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]

    def texts(self, host: str) -> Sequence[str]:
        return self.records


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PAUSE", 0.01)
    monkeypatch.setattr(probing, "SECONDS", 30.0)


def silence(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


def prober(resolver: Any, *, http_port: int = 1, tls_port: int = 1, hosts: dict[str, str] | None = None) -> NetworkProber:
    reach = Reach(resolver=resolver, monotonic=time.monotonic, hosts=hosts or {})
    return NetworkProber(reach=reach, http_port=http_port, tls_port=tls_port)


@contextlib.contextmanager
def web(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """An HTTP server; its port, and the path and Host of each request."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, str(self.headers["Host"])))
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()


def say(body: bytes, status: int = 200, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def refused(
    prober: NetworkProber, challenge: Challenge = HTTP, identifier: Identifier = NAME, networks: Sequence[str] = LOOPBACK
) -> Problem:
    with pytest.raises(Problem) as caught:
        prober.probe(challenge, identifier, networks=networks, expected=EXPECTED)
    return caught.value


# ---- http-01 (RFC 8555 8.3) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"token.thumbprint", b"token.thumbprint\r\n", b"token.thumbprint  \n"])
def test_the_key_authorization_is_found_where_it_belongs(body: bytes) -> None:
    with web(say(body)) as (port, asked):
        prober(Names(), http_port=port).probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
        assert asked == [("/.well-known/acme-challenge/token", f"gw.device.test:{port}")]


def test_a_host_map_answers_before_the_resolver() -> None:
    names = Names([["192.0.2.1"]])
    with web(say(EXPECTED.encode())) as (port, _):
        found = prober(names, http_port=port, hosts={"*.device.test": "127.0.0.1"})
        found.probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
    assert names.asked == 0


def test_an_address_is_asked_at_itself_RFC_8738() -> None:
    with web(say(EXPECTED.encode())) as (port, asked):
        here = Identifier(IdentifierKind.ip, "127.0.0.1")
        prober(Names(), http_port=port).probe(HTTP, here, networks=LOOPBACK, expected=EXPECTED)
        assert asked[0][1] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(say(b"other.thumbprint"), "incorrectResponse", id="another token"),
        pytest.param(say(b"token.other"), "incorrectResponse", id="another account"),
        pytest.param(say(b" token.thumbprint"), "incorrectResponse", id="white space in front"),
        pytest.param(say(b"token.thumbprint more"), "incorrectResponse", id="more behind"),
        pytest.param(say(b""), "incorrectResponse", id="nothing"),
        pytest.param(say(b"token.thumbprint" + b" " * 5000 + b"x"), "incorrectResponse", id="more than is read"),
        pytest.param(say(EXPECTED.encode(), 404), "incorrectResponse", id="404 with the right words"),
        pytest.param(say(EXPECTED.encode(), 500), "incorrectResponse", id="500 with the right words"),
        pytest.param(say(EXPECTED.encode(), 206), "incorrectResponse", id="206 with the right words"),
        pytest.param(say(b"\xff\xfe\x00\x1b[2J"), "incorrectResponse", id="octets that would paint a terminal"),
        pytest.param(lambda h: h.wfile.write(b"SSH-2.0-x\r\n\r\n"), "connection", id="no HTTP"),
        pytest.param(lambda h: None, "connection", id="a connection that ends"),
        pytest.param(silence, "connection", id="silence"),
    ],
)
def test_wrong_answers_are_told(answer: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if answer is silence:
        monkeypatch.setattr(probing, "SECONDS", 1.0)
    with web(answer) as (port, _):
        problem = refused(prober(Names(), http_port=port))
    assert problem.kind == kind and "\x1b" not in problem.detail


def test_R22_a_server_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SECONDS", 1.0)

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        while True:  # until nobody listens any more
            handler.wfile.write(b"H")
            time.sleep(0.1)

    with web(drip) as (port, _):
        assert refused(prober(Names(), http_port=port)).kind == "connection"


def test_a_name_is_looked_up_again_when_it_is_not_there_yet() -> None:
    names = Names([[], ["127.0.0.1"]])
    with web(say(EXPECTED.encode())) as (port, _):
        prober(names, http_port=port).probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
    assert names.asked == 2


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ],
)
def test_R19_no_address_outside_of_the_networks_is_connected_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connects"))
    assert refused(prober(Names([[address]]))).kind == "connection"
    assert refused(prober(Names(), hosts={"*.device.test": address})).kind == "connection"


def test_R19_with_no_network_named_nothing_is_reached() -> None:
    assert refused(prober(Names()), networks=()).kind == "connection"


def test_R19_an_IPv4_address_in_an_IPv6_coat_is_judged_without_it() -> None:
    reach = Reach(resolver=Names([["::ffff:127.0.0.1"]]), monotonic=time.monotonic)
    assert len(reach.addresses("gw.device.test", LOOPBACK)) == 1


def test_R19_of_several_addresses_only_those_inside_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        seen.append(address[0])
        return real(address, timeout)

    monkeypatch.setattr(socket, "create_connection", connect)
    with web(say(EXPECTED.encode())) as (port, _):
        prober(Names([["10.0.0.1", "127.0.0.1"]]), http_port=port).probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
    assert seen == ["127.0.0.1"]


def test_R19_rebinding_finds_no_second_look_up() -> None:
    """The address that was judged is the one that is connected to: a name that changes its mind changes nothing."""
    names = Names([["127.0.0.1"], ["10.0.0.1"]])
    with web(say(EXPECTED.encode())) as (port, _):
        prober(names, http_port=port).probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
    assert names.asked == 1


def test_a_redirect_inside_is_followed() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/.well-known"):
            say(b"", 302, Location=f"http://other.device.test:{handler.server.server_address[1]}/elsewhere?x=1")(handler)  # type: ignore[misc]
        else:
            say(EXPECTED.encode())(handler)

    with web(answer) as (port, asked):
        prober(Names(), http_port=port).probe(HTTP, NAME, networks=LOOPBACK, expected=EXPECTED)
        assert asked[1] == ("/elsewhere?x=1", f"other.device.test:{port}")


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://0.0.0.0/x",
        "https://gw.device.test/x",
        "http://gw.device.test:22/x",
        "http://gw.device.test:6379/x",
        "ftp://gw.device.test/x",
        "file:///etc/passwd",
        "gopher://gw.device.test/x",
        "javascript:alert(1)",
        "http://user:secret@gw.device.test/x",
        "http://gw.device.test:99999/x",
        "http://[::1/x",
        "http://2130706433/x",
        "http://gw.device.test/\u00e4",
    ],
)
def test_R19_a_redirect_that_leads_out_is_not_followed(location: str) -> None:
    class Strict(Names):
        def addresses(self, host: str) -> Sequence[str]:
            return ["127.0.0.1"] if host.endswith("device.test") else []

    with web(say(b"", 302, Location=location)) as (port, asked):
        problem = refused(prober(Strict(), http_port=port))
    assert problem.kind in {"connection", "dns"} and len(asked) <= 3
    assert {path for path, _ in asked} == {"/.well-known/acme-challenge/token"}


def test_R19_redirects_without_end_are_left() -> None:
    with web(say(b"", 302, Location="/.well-known/acme-challenge/token")) as (port, asked):
        assert refused(prober(Names(), http_port=port)).kind == "incorrectResponse"
        assert len(asked) == probing.REDIRECTS + 1


def test_a_redirect_to_nowhere_is_an_answer() -> None:
    with web(say(EXPECTED.encode(), 302)) as (port, _):
        assert refused(prober(Names(), http_port=port)).kind == "incorrectResponse"


# ---- tls-alpn-01 (RFC 8737, RFC 8738) -------------------------------------------------------------------------------


def answer_certificate(
    *,
    names: Sequence[x509.GeneralName] = (x509.DNSName("gw.device.test"),),
    digest: bytes | None = None,
    value: bytes | None = None,
    critical: bool = True,
    with_digest: bool = True,
    by: Any = None,
) -> tuple[bytes, bytes]:
    """A certificate as RFC 8737 3 wants it, spoiled as asked; with its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    octets = value if value is not None else b"\x04\x20" + (digest or hashlib.sha256(EXPECTED.encode()).digest())
    if with_digest:
        builder = builder.add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, octets), critical=critical)
    made = builder.sign(by or key, hashes.SHA256())
    return made.public_bytes(Encoding.DER), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(
        Encoding.PEM
    )


@contextlib.contextmanager
def tls(folder: Path, pem: bytes, *, protocols: Sequence[str] = (ALPN,)) -> Iterator[tuple[int, list[str | None]]]:
    file = folder / "server.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)  # type: ignore[assignment]
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.settimeout(60)
                with context.wrap_socket(sock, server_side=True) as tls:
                    tls.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], names
    over.set()
    thread.join()
    listener.close()


def test_the_answer_is_found_in_the_certificate(tmp_path: Path) -> None:
    _, pem = answer_certificate()
    with tls(tmp_path, pem) as (port, names):
        prober(Names(), tls_port=port).probe(TLS, NAME, networks=LOOPBACK, expected=EXPECTED)
    assert names == ["gw.device.test"]


def test_an_address_is_asked_by_its_reverse_name_RFC_8738_6(tmp_path: Path) -> None:
    _, pem = answer_certificate(names=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    with tls(tmp_path, pem) as (port, names):
        here = Identifier(IdentifierKind.ip, "127.0.0.1")
        prober(Names(), tls_port=port).probe(TLS, here, networks=LOOPBACK, expected=EXPECTED)
    assert names == ["1.0.0.127.in-addr.arpa"]


@pytest.mark.parametrize("protocols", [(), ("http/1.1",), ("h2", "http/1.1")], ids=str)
def test_RFC_8737_3_another_protocol_proves_nothing(tmp_path: Path, protocols: Sequence[str]) -> None:
    _, pem = answer_certificate()
    with tls(tmp_path, pem, protocols=protocols) as (port, _):
        assert refused(prober(Names(), tls_port=port), TLS).kind in {"unauthorized", "tls"}


def test_a_port_without_TLS_is_told() -> None:
    with web(say(b"x")) as (port, _):
        assert refused(prober(Names(), tls_port=port), TLS).kind == "tls"
    assert refused(prober(Names(), tls_port=1), TLS).kind == "connection"
    assert refused(prober(Names([["10.0.0.1"]]), tls_port=1), TLS).kind == "connection"


STRANGER = ec.generate_private_key(ec.SECP256R1())
DIGEST = hashlib.sha256(EXPECTED.encode()).digest()
WRONG = [
    pytest.param({"names": [x509.DNSName("other.device.test")]}, id="another name"),
    pytest.param({"names": [x509.DNSName("gw.device.test"), x509.DNSName("other.device.test")]}, id="two names"),
    pytest.param({"names": [x509.DNSName("*.device.test")]}, id="a wildcard"),
    pytest.param({"names": [x509.RFC822Name("a@gw.device.test")]}, id="a mailbox"),
    pytest.param({"names": [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]}, id="an address for a name"),
    pytest.param({"names": ()}, id="no name"),
    pytest.param({"critical": False}, id="not critical"),
    pytest.param({"with_digest": False}, id="no acmeIdentifier"),
    pytest.param({"digest": bytes(32)}, id="another digest"),
    pytest.param({"value": DIGEST}, id="the digest without its OCTET STRING"),
    pytest.param({"value": b"\x04\x1f" + DIGEST[:31]}, id="a digest cut short"),
    pytest.param({"value": b"\x04\x20" + DIGEST + b"\0"}, id="octets behind it"),
    pytest.param({"value": b"\x03\x20" + DIGEST}, id="a BIT STRING"),
    pytest.param({"value": b""}, id="an empty acmeIdentifier"),
    pytest.param({"by": STRANGER}, id="signed by another key"),
]


@pytest.mark.parametrize("spoiled", WRONG)
def test_RFC_8737_3_other_certificates_prove_nothing(spoiled: dict[str, Any]) -> None:
    der, _ = answer_certificate(**spoiled)
    with pytest.raises(Problem) as caught:
        check_answer(der, NAME, EXPECTED)
    assert caught.value.kind in {"unauthorized", "incorrectResponse"}


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x80", b"x" * 5000], ids=["nothing", "an octet", "no end", "nonsense"])
def test_R20_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(Problem):
        check_answer(der, NAME, EXPECTED)


# ---- dns-01 (RFC 8555 8.4) ------------------------------------------------------------------------------------------


def test_the_digest_is_found_among_the_records() -> None:
    from enroll.acme.jws import encode

    names = Names(records=["other", encode(DIGEST)])
    prober(names).probe(DNS, NAME, networks=(), expected=EXPECTED)
    assert refused(prober(Names(records=["other"])), DNS).kind == "incorrectResponse"
    assert refused(prober(Names()), DNS).kind == "dns"
