"""TLS 1.2 is let in for devices: what operators and stations do is refused there, and taken over TLS 1.3 (REQ-KEY-078)."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any, Final

import pytest

from enroll.rest.openapi import OPERATIONS, PREFIX, Operation
from fleetca.agent.pairs import Pair
from tests.fakes.rest import Holder
from tests.fakes.site import Site

pytestmark = pytest.mark.req("REQ-KEY-078")

V = ssl.TLSVersion
DEVICES: Final = {"enroll", "challengeTpm", "renew", "confirm", "renewalWindow", "report", "revoke"}
EVERYBODY: Final = {"chain", "bundle", "links", "pins", "about", "health", "openapi"}
REFUSED: Final = (403, "tls13-required")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("tls12"), tls12=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def operator(site: Site) -> Pair:
    return site.device("ada", operator=True)


class Client:
    """One connection of one version, with a certificate or without."""

    def __init__(self, site: Site, version: ssl.TLSVersion, pair: Pair | None = None) -> None:
        context = ssl.create_default_context(cafile=str(site.service.root))
        context.minimum_version = context.maximum_version = version
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        host, port = site.service.url.removeprefix("https://").split(":")
        self._connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
        self._connection.connect()
        assert isinstance(self._connection.sock, ssl.SSLSocket)
        assert self._connection.sock.version() == {V.TLSv1_2: "TLSv1.2", V.TLSv1_3: "TLSv1.3"}[version]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, PREFIX + path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if "json" in (answer.getheader("Content-Type") or "") else {}

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def ask(site: Site) -> Iterator[Any]:
    opened: list[Client] = []

    def made(version: ssl.TLSVersion, pair: Pair | None = None) -> Client:
        opened.append(Client(site, version, pair))
        return opened[-1]

    yield made
    for one in opened:
        one.close()


def _told(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("code", "")


def _asked(operation: Operation) -> tuple[str, str, Any]:
    path = operation.path.format(authority="00", serial="00" * 20, issuer="issuing", request="00" * 32)
    return operation.method, path, {} if operation.method == "POST" else None


MANAGEMENT: Final = [operation for operation in OPERATIONS if operation.id not in DEVICES | EVERYBODY]


@pytest.mark.parametrize("operation", MANAGEMENT, ids=lambda operation: operation.id)
def test_what_operators_and_stations_do_is_refused_over_TLS_1_2(ask: Any, operator: Pair, operation: Operation) -> None:
    assert _told(ask(V.TLSv1_2, operator).ask(*_asked(operation))) == REFUSED
    assert _told(ask(V.TLSv1_2).ask(*_asked(operation))) == REFUSED, "before anything is said of who asks"
    assert _told(ask(V.TLSv1_3, operator).ask(*_asked(operation))) != REFUSED


def test_the_problem_names_the_setting_and_what_to_do(ask: Any, operator: Pair) -> None:
    status, problem = ask(V.TLSv1_2, operator).ask("GET", "/certificates")
    assert (status, problem["type"]) == (403, "urn:fleetca:error:tls13-required")
    assert "[est] tls12" in problem["detail"]
    assert problem["fix"] == "Connect with TLS 1.3."
    assert ask(V.TLSv1_3, operator).ask("GET", "/certificates")[0] == 200


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.id in DEVICES | EVERYBODY], ids=lambda operation: operation.id)
def test_what_devices_and_everybody_may_ask_goes_over_both(ask: Any, site: Site, operation: Operation) -> None:
    asked = _asked(operation)
    old, new = (_told(ask(version).ask(*asked)) for version in (V.TLSv1_2, V.TLSv1_3))
    assert old == new != REFUSED


def test_a_device_enrols_renews_and_revokes_its_own_certificate_over_TLS_1_2(ask: Any, site: Site) -> None:
    body = {"token": site.rest.door.token("pump-old"), "csr": Holder().csr_text()}
    assert ask(V.TLSv1_2).ask("POST", "/enroll", body)[0] == 201
    pair = site.device("pump-older")
    assert ask(V.TLSv1_2, pair).ask("POST", "/renew", {"csr": Holder().csr_text()})[0] == 201
    assert ask(V.TLSv1_2, pair).ask("POST", "/revoke", {"reason": "cessationOfOperation"})[0] == 200


def test_a_message_that_revokes_needs_TLS_1_3(ask: Any, site: Site) -> None:
    """The address is a device's too; the message is an operator's."""
    body = {"message": {"payload": "e30=", "certificate": "AA==", "signature": "AA=="}}
    assert _told(ask(V.TLSv1_2).ask("POST", "/revoke", body)) == REFUSED
    assert _told(ask(V.TLSv1_3).ask("POST", "/revoke", body)) != REFUSED
