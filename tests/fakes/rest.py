"""The REST API over a door in memory, and clients of it. Every answer is checked against the API's own description as it passes.

`Rest.call` is the hook: status, media type, headers and body must be what the OpenAPI document says of that operation, or, for what is no operation,
a problem document. So each test of the API is a test of its description too.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.types import WSGIApplication

from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_schema_validator import OAS31Validator
from werkzeug.test import TestResponse

from ca.der.certificate import assemble
from ca.der.request import request_info
from ca.errors import FleetcaError, Unavailable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, Digest, Issued, IssueRequest, KeyName, MessageEvidence
from ca.rules.message import Act, Message, signed_octets, write_message
from ca.rules.renewal_window import Plan
from ca.system import SystemChance
from enroll.est.prompt import Prompt as EstPrompt
from enroll.model import Report
from enroll.rest.flow import Enrolment
from enroll.rest.openapi import OPERATIONS, PREFIX, document
from enroll.rest.prompt import Prompt
from enroll.rest.routes import PEER_CERTIFICATE, create_app
from tests.fakes.door import NOW, Authority, Door, FixedClock, SignerSide

DEPLOYMENT = "test"
URL = "https://enroll.test:8443"


@dataclass
class Holder:
    """A key, and what it can do: sign a request, sign a message."""

    algorithm: str = "p256"
    certificate: bytes | None = None
    key: MemoryKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = MemoryKey.generate(KeyName("holder"), AlgorithmName(self.algorithm))

    def csr(self, name: str = "pump-17") -> bytes:
        asked = request_info({"common_name": name}, self.key.spki)
        return assemble(asked, self.key.algorithm, self.key.sign(asked))

    def csr_text(self) -> str:
        return base64.b64encode(self.csr()).decode()

    def message(self, act: Act, *, at: int = NOW, audience: str = DEPLOYMENT, **fields: Any) -> dict[str, str]:
        """The JSON form of a signed message."""
        payload = write_message(Message(act, audience, at, SystemChance().octets(16).hex(), **fields))
        return self.sign(payload)

    def sign(self, payload: bytes) -> dict[str, str]:
        assert self.certificate is not None
        evidence = MessageEvidence(payload, self.certificate, self.key.sign(signed_octets(payload)))
        return {name: base64.b64encode(getattr(evidence, name)).decode() for name in ("payload", "certificate", "signature")}


class AtOnce:
    """A signer for those who do not wait, who never have to."""

    def __init__(self, signer: Any) -> None:
        self._signer = signer

    def issue_soon(self, request: IssueRequest, told: Callable[[Issued | FleetcaError], None], /) -> None:
        try:
            outcome: Issued | FleetcaError = self._signer.issue(request)
        except FleetcaError as error:
            outcome = error
        told(outcome)


class InFront:
    """The lane without a thread before the application, as our server has it."""

    def __init__(self, application: WSGIApplication, prompt: Prompt | EstPrompt) -> None:
        self.application, self.prompt = application, prompt
        self.taken = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = (environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")).encode("latin-1")
        if not environ.get("CONTENT_LENGTH"):
            return self.application(environ, start_response)
        given = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(given)
        headers = [
            (name.removeprefix("HTTP_").replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        ]
        told: list[tuple[int, Sequence[tuple[bytes, bytes]], bytes]] = []
        fits = environ["REQUEST_METHOD"] == "POST" and target in self.prompt.targets
        if not fits or not self.prompt.take(target, headers, given, environ.get(PEER_CERTIFICATE), lambda *answer: told.append(answer)):
            return self.application(environ, start_response)
        self.taken += 1
        ((status, answered, body),) = told
        start_response(f"{status} OK", [(name.decode(), value.decode("latin-1")) for name, value in answered])
        return [body]


class Rest:
    """An application, its door, and a client that checks what it gets."""

    def __init__(self, *, authority: Authority | None = None, prompt: bool = False) -> None:
        self.clock = FixedClock()
        self.door = Door(self.clock, deployment=DEPLOYMENT, authority=authority)
        self.pending: set[Digest] = set()
        self.plan = Plan()
        self.pins: bytes | None = None
        self.heard: dict[str, Report] = {}
        self.enrolment = enrolment = Enrolment(
            signer=SignerSide(self.door),
            reader=self.door,
            receipts=self._receipt,
            clock=self.clock,
            deployment=DEPLOYMENT,
            issuers=(self.door.authority.root, self.door.authority.issuing),
            profiles=self.door.authority.profiles,
            default_issuer=self.door.authority.issuing.id,
            plan=lambda: self.plan,
            reports=self,
            pins=lambda: self.pins,
        )
        self.app = create_app(enrolment, chance=SystemChance(), version="0", url=URL)
        if prompt:
            self.app.wsgi_app = InFront(self.app.wsgi_app, Prompt(enrolment, signer=AtOnce(SignerSide(self.door)), chance=SystemChance()))  # type: ignore[method-assign]
        self.client: FlaskClient = self.app.test_client()
        self.checked = 0

    def _receipt(self, leaf: Digest) -> dict[str, Any]:
        if leaf in self.pending:
            raise Unavailable("leaf-pending", "The leaf is recorded and not yet published.", retry_after=2)
        return {"leaf": leaf.hex()}

    # ---- What devices say of their renewals -------------------------------------------------------------------------

    def keep(self, report: Report, /) -> None:
        self.heard[report.device] = report

    def page(
        self, *, tenant: str, dark_before: int | None, late_before: int | None, failed: bool, after: str, limit: int
    ) -> Sequence[Report]:
        found = [
            one
            for device, one in sorted(self.heard.items())
            if device > after
            and one.tenant == tenant
            and (dark_before is None or one.not_after < dark_before)
            and (late_before is None or (one.due < late_before <= one.not_after))
            and (not failed or one.outcome == "failed")
        ]
        return found[:limit]

    # ---- Asking -----------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, *, certificate: bytes | None = None, **more: Any) -> TestResponse:
        environ = {} if certificate is None else {PEER_CERTIFICATE: certificate}
        answer = self.client.open(path, method=method, environ_overrides=environ, **more)
        check(answer, method, path.partition("?")[0])
        self.checked += 1
        return answer

    def get(self, path: str, *, certificate: bytes | None = None, **more: Any) -> TestResponse:
        return self.call("GET", PREFIX + path, certificate=certificate, **more)

    def post(self, path: str, body: object = None, *, certificate: bytes | None = None, **more: Any) -> TestResponse:
        if body is not None:
            more.setdefault("data", json.dumps(body))
            more.setdefault("content_type", "application/json")
        return self.call("POST", PREFIX + path, certificate=certificate, **more)

    # ---- What tests start from --------------------------------------------------------------------------------------

    def enrolled(self, device: str = "pump-17", algorithm: str = "p256") -> Holder:
        """A device with a live certificate."""
        holder = Holder(algorithm)
        answer = self.post(
            "/enroll", {"token": self.door.token(device), "csr": holder.csr_text()}, headers={"Accept": "application/pkix-cert"}
        )
        assert answer.status_code == 201, answer.text
        holder.certificate = answer.data
        return holder

    def operator(self, name: str = "alice", *roles: str) -> Holder:
        """An operator with a live certificate."""
        holder = Holder()
        holder.certificate = self.door.add_operator(name, holder.csr(), *roles)
        return holder


# ---- The contract ---------------------------------------------------------------------------------------------------

DOCUMENT = document(version="0", url=URL)
_SCHEMAS = {
    name: OAS31Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})
    for name in DOCUMENT["components"]["schemas"]
}
_FORMATS = Draft202012Validator.FORMAT_CHECKER


def _operation(method: str, path: str) -> dict[str, Any] | None:
    parts = path.split("/")
    for operation in OPERATIONS:
        shape = (PREFIX + operation.path).split("/")
        fits = len(shape) == len(parts) and all(one == two or (one.startswith("{") and two) for one, two in zip(shape, parts, strict=True))
        if fits and operation.method == method:
            found: dict[str, Any] = DOCUMENT["paths"][PREFIX + operation.path][method.lower()]
            return found
    return None


def check(answer: TestResponse, method: str, path: str) -> None:
    """Hold an answer against the description."""
    where = f"{method} {path} -> {answer.status_code}"
    assert answer.headers["X-Request-Id"], where
    assert answer.headers["X-Content-Type-Options"] == "nosniff", where
    assert answer.headers["Cache-Control"], where
    if method == "HEAD":
        return
    media = answer.mimetype
    described = _operation(method, path)
    if described is None:
        assert answer.status_code in (404, 405), where
        schema = "Problem"
        assert media == "application/problem+json", where
    else:
        responses = described["responses"]
        assert str(answer.status_code) in responses, f"{where}: not described: {answer.text}"
        response = responses[str(answer.status_code)]
        assert media in response["content"], f"{where}: {media} is not described"
        for name, header in response.get("headers", {}).items():
            assert not header["required"] or name in answer.headers, f"{where}: no {name}"
        schema = response["content"][media]["schema"]["$ref"].rpartition("/")[2]
    if media.endswith("json"):
        body = json.loads(answer.data)
        _SCHEMAS[schema].validate(body)
        if schema == "Problem":
            assert body["status"] == answer.status_code, where
            assert body["type"].endswith(body["code"]), where
            assert body["request_id"] == answer.headers["X-Request-Id"], where
    elif schema == "Pem":
        assert answer.data.startswith(b"-----BEGIN CERTIFICATE-----\n"), where
    else:
        assert answer.data.startswith(b"\x30"), where
