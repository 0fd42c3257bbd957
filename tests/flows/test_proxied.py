"""Whom a proxy has before it (RFC 9440): from whom the header counts, and in which form. Over sockets, against our own server."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, request

from ca.errors import Misconfigured
from fleetca import proxied, server
from fleetca.bridge import PEER_CERTIFICATE
from fleetca.listening import listening_socket, local_socket
from fleetca.protocol import Lane, plain_address
from fleetca.server import make_server
from tests.flows.test_server_limits import CERTIFICATE, KEY

DER = ssl.PEM_cert_to_DER_cert(CERTIFICATE.decode())
OTHER = DER[:-1] + bytes([DER[-1] ^ 1])
SHOWN = b":" + base64.b64encode(DER) + b":"
PADDED = b"\x30\x81\x80" + bytes(128)
"""Its base64 ends in padding, whatever was made today."""


def _app() -> Flask:
    def who() -> bytes:
        der = request.environ.get(PEER_CERTIFICATE)
        told = [name for name in request.headers.keys() if name.lower().startswith("client")]  # noqa: SIM118 - not a mapping
        return b"headers " + ",".join(told).encode() if told else b"nobody" if der is None else b"holder" if der == DER else b"somebody"

    app = Flask("behind")
    app.add_url_rule("/", "who", who, methods=["GET", "POST"])
    told = ("wsgi.url_scheme", "REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT")
    app.add_url_rule("/where", "where", lambda: " ".join(str(request.environ[name]) for name in told))
    return app


class House:
    """Our server on a Unix socket and on TLS."""

    def __init__(self, folder: Path, proxies: frozenset[str]) -> None:
        self.local = folder / "proxy.sock"
        context = server.tls_context(trusted=[CERTIFICATE])
        server.load_certificate(context, chain=CERTIFICATE, key=KEY)
        listeners = [listening_socket("127.0.0.1:0", setting="test"), local_socket(self.local, setting="test")]
        self.address = listeners[0].getsockname()
        ready = threading.Event()

        def take(_target: bytes, headers: object, _body: bytes, peer: bytes | None, answer: Callable[..., None]) -> bool:
            answer(200, [], b"lane " + (b"nobody" if peer is None else b"holder" if peer == DER else b"somebody"))
            return True

        lane = Lane({b"/lane": take})
        self.server = make_server(_app(), threads=2, ready=ready.set, context=context, proxies=proxies, lane=lane)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": listeners})
        self.thread.start()
        assert ready.wait(60)

    def close(self) -> None:
        self.server.stop()
        self.thread.join(60)

    def by_socket(self, octets: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.local))
            return _exchange(connection, octets)

    def by_tls(self, octets: bytes, *, certificate: Path | None = None) -> bytes:
        context = ssl.create_default_context(cadata=CERTIFICATE.decode())
        if certificate is not None:
            context.load_cert_chain(certificate)
        with (
            socket.create_connection(self.address, timeout=60) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as connection,
        ):
            return _exchange(connection, octets)


def _exchange(connection: socket.socket, octets: bytes) -> bytes:
    connection.sendall(octets)
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def _asking(*lines: bytes, start: bytes = b"GET / HTTP/1.1", last: bool = True) -> bytes:
    return b"\r\n".join([start, b"Host: a", *lines, *([b"Connection: close"] if last else []), b"", b""])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"), frozenset())
    yield made
    made.close()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("trusting"), frozenset({"127.0.0.1"}))
    yield made
    made.close()


def test_RFC9440_the_certificate_that_a_proxy_names_over_the_unix_socket_counts(house: House) -> None:
    assert house.by_socket(_asking(b"Client-Cert: " + SHOWN)).endswith(b"\r\nholder")
    assert house.by_socket(_asking(b"Client-Cert: " + SHOWN, b"Client-Cert-Chain: " + SHOWN)).endswith(b"\r\nholder")
    assert house.by_socket(_asking()).endswith(b"\r\nnobody")
    assert house.by_socket(_asking(b"client-cert: " + SHOWN, b"Content-Length: 0", start=b"POST /lane HTTP/1.1")).endswith(b"lane holder")


def test_RFC9440_each_request_of_a_connection_speaks_for_itself(house: House) -> None:
    other = b":" + base64.b64encode(OTHER) + b":"
    three = _asking(b"Client-Cert: " + SHOWN, last=False) + _asking(last=False) + _asking(b"Client-Cert: " + other, last=False) + _asking()
    said = house.by_socket(three)
    assert [said.count(word) for word in (b"holder", b"nobody", b"somebody")] == [1, 2, 1]


def test_RFC9440_from_anybody_else_the_header_counts_for_nothing_and_is_seen_by_nobody(house: House) -> None:
    for value in (SHOWN, b"nonsense"):
        assert house.by_tls(_asking(b"Client-Cert: " + value, b"Client-Cert-Chain: " + value)).endswith(b"\r\nnobody")
    lane = _asking(b"Client-Cert: " + SHOWN, b"Content-Length: 0", start=b"POST /lane HTTP/1.1")
    assert house.by_tls(lane).endswith(b"lane nobody")


def test_RFC9440_a_proxy_on_another_host_is_known_by_its_address(trusting: House, tmp_path: Path) -> None:
    assert trusting.by_tls(_asking(b"Client-Cert: " + SHOWN)).endswith(b"\r\nholder")
    assert trusting.by_tls(_asking()).endswith(b"\r\nnobody")


def test_RFC9440_a_certificate_of_the_connection_and_one_in_the_header_are_refused(trusting: House, tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    pair.write_bytes(CERTIFICATE + KEY)
    assert trusting.by_tls(_asking(), certificate=pair).endswith(b"\r\nholder")
    assert trusting.by_tls(_asking(b"Client-Cert: " + SHOWN), certificate=pair).startswith(b"HTTP/1.1 400")


REFUSED = [
    pytest.param([b"Client-Cert: " + SHOWN, b"Client-Cert: " + SHOWN], id="twice"),
    pytest.param([b"Client-Cert: " + SHOWN, b"CLIENT-CERT: " + SHOWN], id="twice, in another case"),
    pytest.param([b"Client-Cert: " + SHOWN + b", " + SHOWN], id="two joined by a comma"),
    pytest.param([b"Client-Cert: " + SHOWN + SHOWN], id="two byte sequences"),
    pytest.param([b"Client-Cert:"], id="empty"),
    pytest.param([b"Client-Cert: ::"], id="an empty byte sequence"),
    pytest.param([b"Client-Cert: :"], id="half of one"),
    pytest.param([b"Client-Cert: " + SHOWN[1:]], id="without its first colon"),
    pytest.param([b"Client-Cert: " + SHOWN[:-1]], id="without its last colon"),
    pytest.param([b"Client-Cert: " + base64.b64encode(DER)], id="bare base64"),
    pytest.param([b"Client-Cert: " + SHOWN + b";verified"], id="with a parameter"),
    pytest.param([b'Client-Cert: "' + base64.b64encode(DER) + b'"'], id="a string"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(PADDED).rstrip(b"=") + b":"], id="base64 without its padding"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER + b"\0") + b":"], id="an octet after the certificate"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER[:-1]) + b":"], id="a certificate cut short"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(b"\x31" + DER[1:]) + b":"], id="no SEQUENCE"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(b"\x30\x80" + DER[4:] + b"\0\0") + b":"], id="BER of indefinite length"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(b"\x30\x83\x00" + DER[2:]) + b":"], id="a length with a zero before it"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER[:30]) + b" " + base64.b64encode(DER[30:]) + b":"], id="a space inside"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER[:30]) + b"\t" + base64.b64encode(DER[30:]) + b":"], id="a tab inside"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER[:30]) + b"\r\n " + base64.b64encode(DER[30:]) + b":"], id="folded"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(DER[:30]) + b"=" + base64.b64encode(DER[30:]) + b":"], id="padding inside"),
    pytest.param([b"Client-Cert: :" + base64.urlsafe_b64encode(b"\x30\x82\x03\xff" + b"\xfb\xff" * 511 + b"\xfb") + b":"], id="base64url"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(b"\x30\x82\x50\x00" + bytes(0x5000)) + b":"], id="20 KiB"),
    pytest.param([b"Client-Cert: " + CERTIFICATE.replace(b"\n", b"%0A")], id="PEM, as nginx escapes it"),
    pytest.param([b"Client-Cert: :" + base64.b64encode(CERTIFICATE) + b":"], id="PEM in base64"),
    pytest.param([b"Client-Cert: :" + DER.hex().encode() + b":"], id="hexadecimal"),
    pytest.param([b"Client-Cert: :" + DER[:200].replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"") + b":"], id="DER itself"),
    pytest.param([b"Client-Cert-Chain: " + SHOWN], id="a chain alone"),
    pytest.param([b"Connection: Client-Cert", b"Client-Cert: " + SHOWN], id="named by Connection"),
    pytest.param([b"Connection: keep-alive, client-cert-chain"], id="its chain named by Connection"),
    pytest.param([b"Client-Cert: too-long"], id="what our nginx says of a certificate that it cannot write"),
]


@pytest.mark.parametrize("lines", REFUSED)
def test_R18_RFC9440_what_is_said_in_any_other_way_is_refused(house: House, lines: list[bytes]) -> None:
    answer = house.by_socket(_asking(*lines))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"holder" not in answer


@pytest.mark.parametrize("name", [b"Client_Cert", b"CLIENT_CERT", b"Client-Cert_", b"X-Client-Cert", b"HTTP_CLIENT_CERT", b"Client.Cert"])
def test_R18_RFC9440_no_other_name_stands_for_it(house: House, name: bytes) -> None:
    assert b"holder" not in house.by_socket(_asking(name + b": " + SHOWN))


def test_R18_a_trailer_of_that_name_says_nothing(house: House) -> None:
    chunked = b"1\r\nx\r\n0\r\nClient-Cert: " + SHOWN + b"\r\n\r\n"
    answer = house.by_socket(_asking(b"Transfer-Encoding: chunked", b"Trailer: Client-Cert", start=b"POST / HTTP/1.1") + chunked)
    assert answer.endswith(b"\r\nnobody")


def test_bits_beyond_the_last_octet_are_no_second_way_of_writing_a_certificate() -> None:
    text = base64.b64encode(PADDED)
    other = text.replace(b"A=", b"B=")
    assert other != text
    assert base64.b64decode(other) == PADDED
    assert proxied.client_certificate([(proxied.CERTIFICATE, b":" + text + b":")], []) == PADDED
    with pytest.raises(ValueError, match="base64"):
        proxied.client_certificate([(proxied.CERTIFICATE, b":" + other + b":")], [])


def test_an_application_knows_both_ends_of_its_connection(house: House) -> None:
    asked = _asking(start=b"GET /where HTTP/1.1")
    assert house.by_tls(asked).endswith(b"\r\nhttps 127.0.0.1 127.0.0.1 %d" % house.address[1])
    assert b"\r\nhttp  /" in house.by_socket(asked), "who comes over a Unix socket has no address"


def test_an_address_is_the_same_however_it_arrives() -> None:
    assert plain_address("::ffff:10.0.0.7") == "10.0.0.7" == plain_address("10.0.0.7")
    assert plain_address("FD00:0::7%eth0") == "fd00::7"
    assert plain_address("") == ""


def test_a_socket_is_made_for_us_alone_and_replaces_only_sockets(tmp_path: Path) -> None:
    path = tmp_path / "run" / "proxy.sock"
    first = local_socket(path, setting="enroll.proxy_socket")
    assert path.stat().st_mode & 0o777 == 0o600
    second = local_socket(path, setting="enroll.proxy_socket")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        accepted, _ = _waited(second).accept()
        accepted.close()
    assert [file.name for file in path.parent.iterdir()] == ["proxy.sock"]
    first.close()
    second.close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(Misconfigured, match="Nothing can listen"):
        local_socket(path, setting="enroll.proxy_socket")
    assert path.read_text() == "mine"
    with pytest.raises(Misconfigured):
        local_socket(tmp_path / ("x" * 150), setting="enroll.proxy_socket")


def _waited(listener: socket.socket) -> socket.socket:
    listener.setblocking(True)
    return listener
