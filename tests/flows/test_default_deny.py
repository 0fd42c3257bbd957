"""The matrix of the one door (P2, R17): every route of the enrolment service x method x way of saying who one is x message type x role.

The routes come from the application itself, so a route that is added stands here before anyone has thought of it; the table of what may succeed is
written by hand. Everything that is not in it is refused with a 4xx, and leaves nothing on record.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from ca.der import pem
from ca.keys.memory import make_private_key
from ca.model import OperatorName, ProfileName, Reason, Role
from ca.rules.caps import Manufacturer
from ca.rules.message import Act
from enroll.est.flow import Est
from enroll.est.routes import blueprint as est_blueprint
from enroll.rest.routes import PEER_CERTIFICATE
from tests.fakes.acme import BASE, CAPS, AcmeWorld, Client, b64, csr_for, jws
from tests.fakes.certificates import root
from tests.fakes.factory import factory, factory_device
from tests.fakes.signer_world import Keypair

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")


@dataclass
class Request:
    """What one who says who they are sends."""

    certificate: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: dict[str, Any] | None = None
    body: bytes | None = None
    content_type: str | None = None


class House:
    """A deployment with one of everybody who may come to its door."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.acme = AcmeWorld(folder)
        world = self.world = self.acme.world
        self.maker, maker_certificate = factory("Pump Works IDevID CA")
        maker = Manufacturer("works", maker_certificate, "works:", (ProfileName("device"),))
        # The caps are the world's own mapping: the signer reads them at each request.
        world.caps[Role.enroll] = CAPS.__class__(validated=CAPS.validated, manufacturers=(maker,))
        world.restart()
        labels: dict[str | None, ProfileName] = {None: ProfileName("device"), "device": ProfileName("device")}
        issuers = (root(), world.issuer)
        self.est = Est(
            signer=self.acme.signer,
            issuers=issuers,
            profiles=world.profiles,
            labels=labels,
            factories=True,
            make_key=make_private_key,
            clock=world.clock,
        )
        self.app: Flask = self.acme.app
        self.app.register_blueprint(est_blueprint(self.est))
        self.http = self.app.test_client()
        self.device, self.revoked, self.superseded = (world.enrol(name) for name in ("pump-1", "pump-2", "pump-3"))
        world.revoke_certificate(self.revoked)
        newer = world.renew(self.superseded)
        world.confirm(newer)
        self.admin, self.auditor, self.dismissed = world.operator("ada"), world.operator("bob", "auditor"), world.operator("eve")
        world.operators.disable(OperatorName("eve"), world.peer(Role.operator))
        self.alike = Keypair()
        self.alike.certificate = self.device.certificate[:-1] + bytes([self.device.certificate[-1] ^ 1])
        self.stranger, _ = factory("Pump Works IDevID CA")
        self.token = world.token("pump-9").text
        self.account, self.ended = Client(self.acme), Client(self.acme)
        self.account.register()
        self.done = self.account.obtain("gw-1.device.test")
        self.ended.register()
        self.ended.post(str(self.ended.kid), {"status": "deactivated"})

    def close(self) -> None:
        self.acme.close()

    def rules(self) -> list[Rule]:
        return sorted(self.app.url_map.iter_rules(), key=lambda rule: rule.rule)

    def on_record(self) -> tuple[int, int]:
        # A copied key that speaks is noted (P9); that is no grant.
        granted = {"issuance", "revocation", "supersede", "delivery", "token", "device", "operator", "void"}
        return sum(leaf["kind"] in granted for leaf in self.world.leaves()), len(self.world.rows())

    # ---- Who comes --------------------------------------------------------------------------------------------------

    def callers(self) -> dict[str, Callable[[str], Request]]:
        """By name; each gets the address it asks."""

        def shown(pair: Keypair) -> Callable[[str], Request]:
            return lambda _: Request(certificate=pair.certificate)

        def header(name: str, value: str) -> Callable[[str], Request]:
            return lambda _: Request(headers={name: value})

        def basic(user: str, password: str) -> Callable[[str], Request]:
            return header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())

        certificate = base64.b64encode(self.admin.certificate).decode()
        found: dict[str, Callable[[str], Request]] = {
            "nobody": lambda _: Request(),
            "a device": shown(self.device),
            "a revoked device": shown(self.revoked),
            "a superseded certificate": shown(self.superseded),
            "a look-alike": shown(self.alike),
            "an operator": shown(self.admin),
            "an auditor": shown(self.auditor),
            "a dismissed operator": shown(self.dismissed),
            "a factory certificate": lambda _: Request(certificate=factory_device(self.maker, "SN-1")),
            "a factory certificate of a stranger": lambda _: Request(certificate=factory_device(self.stranger, "SN-1")),
            "the CA's certificate": lambda _: Request(certificate=self.world.issuer.certificate),
            "no certificate at all": lambda _: Request(certificate=b"nonsense"),
            "a token by Basic": basic("pump-9", self.token),
            "a token for another device by Basic": basic("pump-8", self.token),
            "a guess by Basic": basic("pump-9", "enr_guess"),
            "a token by Bearer": header("Authorization", f"Bearer {self.token}"),
            "a certificate in a header": header("Client-Cert", f":{certificate}:"),
            "a certificate in another header": header("X-SSL-Client-Cert", certificate),
            "a name in a header": header("X-Forwarded-User", "ada"),
            "a verified name in a header": header("X-SSL-Client-Verify", "SUCCESS"),
            "a role in a header": header("X-Role", "operator"),
            "localhost in a header": header("X-Forwarded-For", "127.0.0.1"),
            "an account": lambda url: self._signed(self.account, url),
            "an ended account": lambda url: self._signed(self.ended, url),
        }
        for act in (*Act, None):
            for who, pair in (("a device", self.device), ("an operator", self.admin), ("an auditor", self.auditor), ("a stranger", None)):
                words = f"a message to {act.value if act else 'do-anything'} by {who}"
                found[words] = lambda _, act=act, pair=pair: Request(message=self._message(act, pair))  # type: ignore[misc]
        return found

    def _signed(self, client: Client, url: str) -> Request:
        document = jws(
            client.key, client.header(url), json.dumps(ACME_PAYLOADS(self, url)).encode() if ACME_PAYLOADS(self, url) is not None else b""
        )
        return Request(body=json.dumps(document).encode(), content_type="application/jose+json")

    def _message(self, act: Act | None, pair: Keypair | None) -> dict[str, Any]:
        signer = pair or Keypair()
        row = self.world.row(self.superseded).ref
        fields: dict[Act, dict[str, Any]] = {
            Act.renew: {"csr": Keypair().csr()},
            Act.confirm: {},
            Act.revoke: {"reason": Reason.keyCompromise, "target": row},
            Act.create_token: {"device": "pump-7", "profile": ProfileName("device"), "lifetime": 60},
            Act.approve: {"decision": ("00" * 32, True, "")},
            Act.propose: {"proposal": ("revive", '{"device":"pump-7"}', 3600, "Repaired.")},
            Act.issue: {"device": "pump-7", "profile": ProfileName("device"), "csr": Keypair().csr()},
            Act.shift: {"station": ("line-1", "00" * 32, 5), "profile": ProfileName("device"), "lifetime": 3600},
        }
        made = self.world.message(signer, act or Act.confirm, **fields.get(act or Act.confirm, {}))
        payload = made.payload if act else made.payload.replace(b"confirm", b"do-anything")
        shown = self.device.certificate if pair is None else pair.certificate
        parts = {"payload": payload, "certificate": shown, "signature": made.signature if act else signer.sign(payload)}
        return {name: base64.b64encode(octets).decode() for name, octets in parts.items()}

    # ---- How they ask -----------------------------------------------------------------------------------------------

    def address(self, rule: Rule) -> str:
        """An address of this rule, where something is."""
        row = self.world.row(self.device).ref
        order = self.done.headers["Location"].rsplit("/", 1)[1]
        authorization = self.done.json["authorizations"][0].rsplit("/", 1)[1]
        certificate = self.done.json["certificate"].split("/")
        ids = {
            "account": str(self.account.kid).rsplit("/", 1)[1],
            "order": order,
            "authorization": authorization,
            "challenge": authorization,
        }
        words = rule.rule.split("/")
        parts = {
            "label": "device",
            "directory": "service",
            "issuer": row.issuer,
            "serial": f"{row.serial:040x}",
            "kind": "http-01",
            "authority": self.world.issuer.key_identifier.hex(),
            "id_": next((ids[word] for word in words if word in ids), ""),
            "certificate": "AAAA.AQ",
            "request": "00" * 32,
        }
        if "acme" in words and "certificate" in words:
            parts |= {"issuer": certificate[-2], "serial": certificate[-1]}
        found = rule.rule
        for name in rule.arguments:
            found = found.replace(f"<{name}>", parts[name])
        return found

    def ask(self, rule: Rule, method: str, caller: Callable[[str], Request]) -> TestResponse:
        path = self.address(rule)
        request = caller(BASE + path)
        body, kind = b"", None
        if request.body is not None:
            body, kind = request.body, request.content_type
        elif method in {"POST", "PUT", "PATCH"}:
            body, kind = self._body(rule, request)
        environ = {} if request.certificate is None else {PEER_CERTIFICATE: request.certificate}
        return self.http.open(
            path, method=method, data=body, content_type=kind, headers=request.headers, environ_overrides=environ, base_url=BASE
        )

    def _body(self, rule: Rule, request: Request) -> tuple[bytes, str]:
        """What would do at this address, were it from somebody who may."""
        csr = Keypair().csr()
        if rule.rule.startswith("/.well-known"):
            return base64.b64encode(bare_csr()), "application/pkcs10"
        if rule.rule.startswith("/acme"):
            return json.dumps({"protected": b64(b"{}"), "payload": "", "signature": ""}).encode(), "application/jose+json"
        if request.message is not None:
            return json.dumps({"message": request.message}).encode(), "application/json"
        if rule.endpoint == "enroll" and "Authorization" in request.headers:
            return csr, "application/pkcs10"
        documents = {
            "enroll": {"token": "enr_" + "0" * 49, "csr": pem.pem(pem.REQUEST, csr)},
            "renew": {"csr": pem.pem(pem.REQUEST, csr)},
            "revoke": {"reason": "keyCompromise"},
            "report": {"outcome": "renewed"},
            "bringUnits": {"header": '{"line":1}', "first": 1, "lines": ["{}"], "seal": '{"sealed":1}'},
            "sealRecords": {"station": "line-1", "records": ["device_id: x"]},
        }
        return json.dumps(documents.get(rule.endpoint, {})).encode(), "application/json"


def bare_csr() -> bytes:
    """Without a name, so that it renews whoever asks."""
    return csr_for()


def ACME_PAYLOADS(house: House, url: str) -> Any:
    if url.endswith("/new-order"):
        return {"identifiers": [{"type": "dns", "value": "gw-1.device.test"}]}
    if url.endswith("/finalize"):
        return {"csr": b64(csr_for("gw-2.device.test"))}
    if "/challenge/" in url:
        return {}
    return None


EVERYBODY = "everybody"
PUBLIC = {
    "chain", "bundle", "links", "about", "health", "openapi", "renewalWindow", "pins",
    "acme.directory", "acme.new_nonce",
    "est.cacerts", "est.cacerts-of-label", "est.csrattrs", "est.csrattrs-of-label",
}  # fmt: skip
"""What has no secrets. A request is answered alike, whoever asks."""
ACCOUNTS = {"acme.new_order", "acme.account", "acme.account_orders", "acme.order", "acme.authorization", "acme.challenge", "acme.certificate", "acme.certificate_with_root"}  # fmt: skip

CHANGING = {"enroll", "renew", "confirm", "revoke", "issue", "createToken", *(f"est.simple{word}" for word in ("enroll", "enroll-of-label", "reenroll", "reenroll-of-label"))}  # fmt: skip

MAY: dict[str, set[str]] = {
    "enroll": {"a token by Bearer"},
    "challengeTpm": set(),  # whose TPM a trusted maker endorsed; who that is stands in test_attestation.py
    "renew": {"a device", "a message to renew by a device"},
    "confirm": {
        "a device",
        "a message to confirm by a device",
        "a message to confirm by an operator",
        "a message to confirm by an auditor",
    },
    "revoke": {"a device", "a superseded certificate", "a message to revoke by an operator"},
    "issue": {"a message to issue by an operator"},
    "approvals": {"an operator", "an auditor"},
    "decideApproval": set(),  # nothing waits here; who may decide is in test_approvals.py
    "propose": {"a message to propose by an operator"},
    "proposals": {"an operator", "an auditor"},
    "showProposal": set(),  # nothing was asked for; who may see it is in test_two_persons.py
    "tenant": {"an operator", "an auditor"},
    "log": {"an operator", "an auditor"},
    "createToken": {"a message to create-token by an operator"},
    # There is no station here; what a station and its operators may do, and what is refused to them, stands in test_line_distant.py.
    "openShift": set(),
    "bringUnits": set(),
    "sealRecords": set(),
    # Whoever holds a live certificate speaks of it; nothing follows from what it says.
    "report": {"a device", "a superseded certificate", "an operator", "an auditor", "a dismissed operator"},
    "fleet": {"an operator", "an auditor"},
    "searchCertificates": {"an operator", "an auditor"},
    "showCertificate": {"a device", "an operator", "an auditor"},
    "showReceipt": {"a device", "an operator", "an auditor"},
    "est.simpleenroll": {"a token by Basic", "a factory certificate"},
    "est.simpleenroll-of-label": {"a token by Basic", "a factory certificate"},
    "est.serverkeygen": set(),
    "est.serverkeygen-of-label": set(),
    "est.simplereenroll": {"a device"},
    "est.simplereenroll-of-label": {"a device"},
    **{name: {"an account"} for name in ACCOUNTS},
    # What these take is more than who asks; what they refuse is in test_acme_refusals.py.
    "acme.new_account": set(),
    "acme.finalize": set(),
    "acme.revoke": set(),
    "acme.change_key": set(),
    "acme.renewal_info": set(),
    **{name: {EVERYBODY} for name in PUBLIC},
}
"""Written by hand: who may succeed at which route, with a request that would do."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


def test_every_route_stands_in_the_table(house: House) -> None:
    assert {rule.endpoint for rule in house.rules()} == set(MAY)


def test_R17_whoever_is_not_named_is_refused_at_every_route_and_leaves_nothing(house: House) -> None:
    before, asked = house.on_record(), 0
    wrong = []
    for rule in house.rules():
        for method in rule.methods or ():
            for who, caller in house.callers().items():
                if MAY[rule.endpoint] & {who, EVERYBODY}:
                    continue
                answer = house.ask(rule, method, caller)
                asked += 1
                if not 400 <= answer.status_code < 500:
                    wrong.append(f"{method} {rule.rule} by {who}: {answer.status_code}")
    assert not wrong and asked > 800, "\n".join(wrong)
    assert house.on_record() == before


def test_R17_other_methods_are_refused_whoever_asks(house: House) -> None:
    before = house.on_record()
    wrong = []
    for rule in house.rules():
        allowed = set().union(*(other.methods or () for other in house.rules() if other.rule == rule.rule))
        for method in set(METHODS) - allowed:
            for who in ("nobody", "a device", "an operator", "a token by Basic", "a message to issue by an operator"):
                answer = house.ask(rule, method, house.callers()[who])
                if answer.status_code not in {404, 405, 501}:
                    wrong.append(f"{method} {rule.rule} by {who}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)
    assert house.on_record() == before


@pytest.mark.parametrize(("endpoint", "who"), [(name, who) for name, who in sorted((n, w) for n, ws in MAY.items() for w in ws)])
def test_whoever_is_named_gets_in(tmp_path: Path, house: House, endpoint: str, who: str) -> None:
    """The refusals above mean something only if the same requests by others succeed."""
    made = House(tmp_path) if endpoint in CHANGING else house
    for rule in made.rules():
        if rule.endpoint == endpoint:
            method = next(iter((rule.methods or set()) - {"HEAD"}))
            answer = made.ask(rule, method, made.callers()["nobody" if who == EVERYBODY else who])
            assert answer.status_code < 300, answer.text
    if made is not house:
        made.close()


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/enroll", "/acme", "/acme/", "/acme/service", "/.well-known/est", "/.well-known/est/fullcmc", "/.well-known/acme-challenge/x", "/v1//enroll", "/v1/enroll/", "/V1/enroll", "/static/x", "/console", "/metrics", "/debug"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_route_is_not_there(house: House, path: str, method: str) -> None:
    answer = house.http.open(path, method=method, base_url=BASE, environ_overrides={PEER_CERTIFICATE: house.admin.certificate})
    assert answer.status_code in {404, 405}
