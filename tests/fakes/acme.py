"""ACME over a real signer and a real database, with a prober that tests script, and a client that can be told to do everything wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from flask import Flask
from werkzeug.test import TestResponse

from ca.errors import FleetcaError
from ca.keys.memory import make_private_key
from ca.model import (
    AccountBinding,
    AlgorithmName,
    Approval,
    ApprovalDecision,
    Certificate,
    ChallengeRequest,
    ConfirmRequest,
    CreatedToken,
    Issued,
    IssueRequest,
    Name,
    NameKind,
    ProfileName,
    Proposal,
    ProposalRequest,
    RevokeRequest,
    Role,
    Token,
    TokenRequest,
)
from ca.model import Challenge as TpmChallenge
from ca.rules import token as token_rule
from ca.rules.caps import Caps, Validated
from ca.rules.chains import climb
from ca.rules.tenancy import Tenant
from ca.system import SystemChance
from enroll.acme.accounts import Accounts
from enroll.acme.model import Account, Challenge, ChallengeKind, Directory, Identifier, Limits, Problem
from enroll.acme.nonces import Nonces
from enroll.acme.orders import Orders
from enroll.acme.requests import Requests
from enroll.acme.revoking import Revoking
from enroll.acme.routes import Service, blueprint
from enroll.acme.validating import Validating
from enroll.rest.flow import Enrolment
from enroll.rest.routes import create_app
from enroll.store.acme import AcmeStore
from enroll.store.engine import migrate
from enroll.store.transactions import Transactions
from tests.databases import sqlite_url
from tests.fakes.certificates import root
from tests.fakes.factory_line import Inside
from tests.fakes.signer_world import CHECK_KEY, DEPLOYMENT, ISSUING, World

BASE = "https://enroll.test"
NETWORKS = ("127.0.0.0/8", "::1/128")
NAMES = ("*.device.test",)
DIRECTORIES = (
    Directory("service", ProfileName("service"), bound=False, dns=NAMES, networks=NETWORKS),
    Directory("gateway", ProfileName("service"), bound=True, dns=NAMES, networks=NETWORKS),
    Directory("device", ProfileName("device"), bound=True, dns=(), networks=()),
)
CAPS = Caps(
    validated={
        ProfileName("service"): Validated(open=True, bound=True, dns=NAMES, networks=NETWORKS),
        ProfileName("device"): Validated(bound=True),
    }
)


class DirectSigner(Inside):
    """`enroll.ports.Signer` without a socket."""

    def __init__(self, world: World) -> None:
        super().__init__(world, Role.enroll)
        self.trouble: FleetcaError | None = None
        self.asked: list[str] = []

    def _enter(self, verb: str) -> None:
        self.asked.append(verb)
        if self.trouble is not None:
            raise self.trouble

    def issue(self, request: IssueRequest, /) -> Issued:
        self._enter("issue")
        return self.world.issue(request)

    def revoke(self, request: RevokeRequest, /) -> Any:
        self._enter("revoke")
        return self.world.revoke(request, Role.enroll)

    def confirm(self, request: ConfirmRequest, /) -> Certificate:
        return self.world.confirming.confirm(request, self.world.peer(Role.enroll))

    def create_token(self, request: TokenRequest, /) -> CreatedToken:
        return self.world.tokens.create(request, self.world.peer(Role.enroll))

    def decide_approval(self, asked: ApprovalDecision, /) -> Approval | Proposal:
        return self.world.approving.decide(asked, self.world.peer(Role.enroll))

    def propose(self, asked: ProposalRequest, /) -> Proposal:
        return self.world.two_persons.propose(asked, self.world.peer(Role.enroll))

    def bind_account(self, asked: AccountBinding, /) -> Token:
        self._enter("bind_account")
        return self.world.tokens.bind(asked, self.world.peer(Role.enroll))

    def challenge_tpm(self, asked: ChallengeRequest, /) -> TpmChallenge:
        return self.world.challenging.challenge(asked, self.world.peer(Role.enroll))

    def ping(self) -> bool:
        self._enter("ping")
        return False


@dataclass
class ScriptedProber:
    """Answers as the test says; by default every holder answers well."""

    problem: Problem | None = None
    crash: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def probe(self, challenge: Challenge, identifier: Identifier, *, networks: Sequence[str], expected: str) -> None:
        self.asked.append((challenge.kind.value, identifier.value))
        assert expected.startswith(challenge.token + ".")
        if self.crash is not None:
            raise self.crash
        if self.problem is not None:
            raise self.problem


class AcmeWorld:
    """Everything from the HTTP request to the certificate."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits | None = None,
        refuse: float = 0.0,
        url: str | None = None,
        profiles: Any = None,
        tenants: tuple[Tenant, ...] = (),
    ) -> None:
        url = url or sqlite_url(folder)
        self.world = World(folder, url, caps={Role.enroll: CAPS}, profiles=profiles, tenants=tenants)
        migrate(url)
        self.transactions = Transactions(url)
        self.store = AcmeStore(self.transactions)
        self.signer, self.prober = DirectSigner(self.world), ScriptedProber()
        self.waiting: list[Callable[[], None]] | None = None
        """When a list: validations wait here until the test runs them."""
        self.limits = limits or Limits()
        clock, chance, reader = self.world.clock, SystemChance(), self.world.store.reading
        issuers = (root(), self.world.issuer, *self.world.tenant_issuers)
        self.nonces = Nonces(store=self.store, clock=clock, chance=chance, refuse=refuse)
        by_identifier = {issuer.key_identifier: issuer.id for issuer in issuers}
        self.orders = orders = Orders(
            store=self.store,
            signer=self.signer,
            reader=reader,
            issuers=by_identifier,
            clock=clock,
            chance=chance,
            limits=self.limits,
            token=self._token,
            profiles=self.world.profiles,
        )
        self.service = Service(
            base=BASE,
            directories={one.name: one for one in DIRECTORIES},
            requests=Requests(store=self.store, nonces=self.nonces),
            nonces=self.nonces,
            accounts=Accounts(store=self.store, signer=self.signer, clock=clock, chance=chance, limits=self.limits),
            orders=orders,
            validating=Validating(store=self.store, orders=orders, prober=self.prober, later=self._later, clock=clock, limits=self.limits),
            revoking=Revoking(signer=self.signer, reader=reader, orders=orders),
            reader=reader,
            clock=clock,
            profiles=self.world.profiles,
            issuers=by_identifier,
            chain=lambda issuer: climb(issuers, issuer),  # as `ca.rules.chains` without links
            key_identifiers={issuer.id: issuer.key_identifier for issuer in issuers},
        )
        self.app: Flask = create_app(
            Enrolment(
                signer=self.signer,
                reader=reader,
                receipts=lambda _: {},
                pins=lambda: b"{}",
                clock=clock,
                deployment=DEPLOYMENT,
                issuers=issuers,
                profiles=self.world.profiles,
                default_issuer=ISSUING,
                tenants=self.world.tenants,
                owners=self.world.policy.owners,
            ),
            chance=chance,
            version="0",
            url=BASE,
        )
        self.app.register_blueprint(blueprint(self.service))
        self.http = self.app.test_client()

    def _token(self, account: Account) -> Token | None:
        return None if account.token is None else self.world.store.reading.find_token(account.token)

    def _later(self, work: Callable[[], None]) -> None:
        if self.waiting is None:
            work()
        else:
            self.waiting.append(work)

    def close(self) -> None:
        self.transactions.close()
        self.world.close()

    def token(self, device: str = "gw-1", profile: str = "service", *, lifetime: int = 3600) -> str:
        names = (Name(NameKind.dns, f"{device}.device.test"),) if profile == "service" else ()
        return self.world.token(device, profile, lifetime=lifetime, names=names).text


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class AccountKey:
    """A key that signs as RFC 7515 says."""

    def __init__(self, kind: str = "ES256") -> None:
        self.kind = kind
        curves = {"ES256": (ec.SECP256R1(), 32, "P-256"), "ES384": (ec.SECP384R1(), 48, "P-384"), "ES512": (ec.SECP521R1(), 66, "P-521")}
        self.private: Any
        if kind in curves:
            curve, self.size, name = curves[kind]
            self.private = ec.generate_private_key(curve)
            point = self.private.public_key().public_numbers()
            x, y = (b64(value.to_bytes(self.size, "big")) for value in (point.x, point.y))
            self.jwk: dict[str, str] = {"kty": "EC", "crv": name, "x": x, "y": y}
        elif kind == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.private.public_key().public_bytes_raw())}
        else:
            self.private = rsa.generate_private_key(65537, 2048)
            numbers = self.private.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}

    def sign(self, octets: bytes) -> bytes:
        if self.kind == "EdDSA":
            return bytes(self.private.sign(octets))
        if self.kind == "RS256":
            return bytes(self.private.sign(octets, padding.PKCS1v15(), hashes.SHA256()))
        digest = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}[self.kind]
        r, s = utils.decode_dss_signature(self.private.sign(octets, ec.ECDSA(digest)))
        return r.to_bytes(self.size, "big") + s.to_bytes(self.size, "big")

    @property
    def thumbprint(self) -> str:
        said = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return b64(hashlib.sha256(said.encode()).digest())


def jws(key: AccountKey, header: Mapping[str, Any], payload: bytes) -> dict[str, str]:
    """A flattened JWS; `header` stands as it is given."""
    protected = b64(json.dumps(header).encode())
    body = b64(payload)
    return {"protected": protected, "payload": body, "signature": b64(key.sign(f"{protected}.{body}".encode()))}


class Client:
    """An ACME client. `post` takes changes to everything that it would send."""

    def __init__(self, acme: AcmeWorld, directory: str = "service", *, key: AccountKey | None = None) -> None:
        self.acme, self.directory = acme, directory
        self.key = key or AccountKey()
        self.kid: str | None = None

    def url(self, *parts: str) -> str:
        return "/".join((f"{BASE}/acme/{self.directory}", *parts))

    def nonce(self) -> str:
        return self.acme.nonces.make()

    def header(self, url: str, *, by_key: bool = False) -> dict[str, Any]:
        header: dict[str, Any] = {"alg": self.key.kind, "nonce": self.nonce(), "url": url}
        if self.kid is None or by_key:
            header["jwk"] = self.key.jwk
        else:
            header["kid"] = self.kid
        return header

    def post(
        self,
        url: str,
        payload: Any = None,
        *,
        key: AccountKey | None = None,
        by_key: bool = False,
        header: Callable[[dict[str, Any]], Any] | None = None,
        body: Callable[[dict[str, Any]], Any] | None = None,
        raw: bytes | None = None,
        content_type: str = "application/jose+json",
        to: str | None = None,
    ) -> TestResponse:
        """A signed POST; None as payload is POST-as-GET.

        Args:
            header, body: change the protected header before it is signed, the JWS after.
            raw: instead of the JSON of the body.
            to: where it is sent, when not to the address that is signed.
        """
        made = self.header(url, by_key=by_key)
        if header is not None:
            made = header(made) or made
        payload_octets = b"" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        document: Any = jws(key or self.key, made, payload_octets)
        if body is not None:
            document = body(document) or document
        octets = raw if raw is not None else json.dumps(document).encode()
        return self.acme.http.post((to or url).removeprefix(BASE), data=octets, content_type=content_type, base_url=BASE)

    # ---- What clients do --------------------------------------------------------------------------------------------

    def binding(self, token: str, *, alg: str = "HS256", **changes: Any) -> dict[str, str]:
        """An external account binding by a one-time token (RFC 8555 7.3.4)."""
        digest = token_rule.token_hash(token)
        header = {"alg": alg, "kid": token_rule.binding_id(digest), "url": self.url("new-account"), **changes.get("header", {})}
        header = {name: value for name, value in header.items() if value is not None}
        protected = b64(json.dumps(header).encode())
        payload = b64(json.dumps(changes.get("payload", self.key.jwk)).encode())
        kind = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256")
        mac = hmac.new(changes.get("mac_key", token_rule.binding_key(digest, CHECK_KEY)), f"{protected}.{payload}".encode(), kind).digest()
        return {"protected": protected, "payload": payload, "signature": b64(mac)}

    def register(self, *, token: str | None = None, **members: Any) -> TestResponse:
        payload = dict(members)
        if token is not None:
            payload["externalAccountBinding"] = self.binding(token)
        answer = self.post(self.url("new-account"), payload, by_key=True)
        assert answer.status_code in {200, 201}, answer.text
        self.kid = answer.headers["Location"]
        return answer

    def order(self, *names: str, **members: Any) -> TestResponse:
        identifiers = [{"type": "ip" if name[0].isdigit() or ":" in name else "dns", "value": name} for name in names]
        return self.post(self.url("new-order"), {"identifiers": identifiers, **members})

    def prove(self, order: TestResponse, kind: ChallengeKind = ChallengeKind.http_01) -> None:
        for url in order.json["authorizations"]:
            shown = self.post(url).json
            if shown["status"] == "valid":
                continue
            challenge = next(one for one in shown["challenges"] if one["type"] == kind.value)
            assert self.post(challenge["url"], {}).status_code == 200

    def finalize(self, order: TestResponse, csr: bytes) -> TestResponse:
        return self.post(order.json["finalize"], {"csr": b64(csr)})

    def obtain(self, *names: str, private: Any = None) -> TestResponse:
        """A whole flow; the finalized order."""
        if self.kid is None:
            self.register()
        order = self.order(*names)
        assert order.status_code == 201, order.text
        self.prove(order)
        done = self.finalize(order, csr_for(*names, private=private))
        assert done.json["status"] == "valid", done.text
        return done

    def certificate(self, order: TestResponse) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.post(order.json["certificate"]).data)[0]


def csr_for(*names: str, private: Any = None, common_name: str | None = None, extra: Sequence[x509.GeneralName] = ()) -> bytes:
    """A CSR that asks for these names."""
    import ipaddress

    private = private or make_private_key(AlgorithmName("p256"))
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    asked: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() or ":" in name else x509.DNSName(name) for name in names
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if asked or extra:
        builder = builder.add_extension(x509.SubjectAlternativeName([*asked, *extra]), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
