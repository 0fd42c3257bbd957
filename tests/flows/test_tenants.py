"""Tenants in one deployment: each has its own, and the other's looks as if it were not there (REQ-KEY-106, REQ-KEY-107).

The probe goes through the application's own map of routes: one that is added fails here until it is said how it keeps tenants apart.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from ca.der import pem
from ca.errors import Busy, Denied, FleetcaError, NotFound, Unavailable
from ca.model import (
    ApprovalDecision,
    CertificateQuery,
    DeviceDescription,
    DeviceId,
    DeviceState,
    GraveAct,
    IssueRequest,
    IssuerId,
    ProfileName,
    Proposal,
    ProposalRequest,
    Reason,
    RevokeRequest,
    Role,
    TenantId,
    TokenEvidence,
    TokenRequest,
)
from ca.rules import two_persons as rule
from ca.rules.message import Act
from ca.rules.tenancy import Tenant, narrowed
from ca.signer.questions import Questions
from ca.store import ledger as store_ledger
from ca.store import reading as store_reading
from enroll.est.flow import Est
from enroll.est.routes import blueprint as est_blueprint
from enroll.rest.routes import PEER_CERTIFICATE
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.acme import BASE, AcmeWorld, Client, b64, csr_for, jws
from tests.fakes.signer_world import ISSUING, Keypair, World

DAY = 86400


def tenant(name: str, *profiles: str, **more: Any) -> Tenant:
    house = shipped_profiles()
    own = {
        one: narrowed(house[one], lifetime=None, algorithms=[], approval_within=None) for one in map(ProfileName, profiles or ("device",))
    }
    return Tenant(TenantId(name), f"{name}:", IssuerId(f"{name}-ca"), **{"profiles": own, **more})


ACME, ZETA = tenant("acme", "device", "service"), tenant("zeta", "device")


@pytest.fixture
def made_with() -> dict[str, Any]:
    return {"tenants": (ACME, ZETA)}


def code(act: Callable[[], object]) -> str:
    with pytest.raises(FleetcaError) as caught:
        act()
    return caught.value.code


@pytest.mark.req("REQ-KEY-106")
def test_each_tenant_has_its_own_devices_issuer_and_operators(both: World) -> None:
    world = both
    mine, theirs, house = (world.row(world.enrol(name)) for name in ("acme:pump-1", "zeta:pump-1", "pump-1"))
    assert [(one.tenant, one.ref.issuer) for one in (mine, theirs, house)] == [
        ("acme", "acme-ca"), ("zeta", "zeta-ca"), ("default", "issuing"),
    ]  # fmt: skip
    for device, owner in (("acme:pump-1", "acme"), ("pump-1", "default")):
        found = world.store.reading.find_device(DeviceId(device))
        assert found is not None
        assert found.tenant == owner
    ann = world.operator("ann", tenant="acme")
    assert world.row(ann).tenant == "acme"
    for tenant_id, rows in ((TenantId("acme"), {mine.ref, world.row(ann).ref}), (TenantId("zeta"), {theirs.ref})):
        found_rows, _ = world.store.reading.search_certificates(CertificateQuery(), tenant=tenant_id, now=world.clock.at)
        assert {one.ref for one in found_rows} == rows


@pytest.mark.req("REQ-KEY-106")
def test_an_operator_does_nothing_with_what_is_another_tenants_and_is_told_as_if_it_were_not_there(world: World) -> None:
    ann, zoe = world.operator("ann", tenant="acme"), world.operator("zoe", tenant="zeta")
    mine = world.enrol("acme:pump-1")

    def revokes(who: Keypair, **what: Any) -> str:
        said = world.message(who, Act.revoke, reason=Reason.keyCompromise, **what)
        return code(lambda: world.revoke(RevokeRequest(said, Reason.keyCompromise, **what)))

    there, nowhere = world.row(mine).ref, replace(world.row(mine).ref, serial=12345)
    assert revokes(zoe, target=there) == revokes(zoe, target=nowhere) == "no-such-certificate"
    assert revokes(zoe, device=DeviceId("acme:pump-1")) == revokes(zoe, device=DeviceId("acme:nobody")) == "no-such-device"
    world.token("acme:waits")
    assert revokes(zoe, device=DeviceId("acme:waits")) == "no-such-device"

    def token(who: Keypair, device: str) -> object:
        given: dict[str, Any] = {"device": DeviceId(device), "profile": ProfileName("device"), "lifetime": 600}
        said = world.message(who, Act.create_token, **given)
        return world.tokens.create(TokenRequest(said, given["device"], given["profile"], (), 600), world.peer(Role.enroll))

    for device in ("acme:pump-1", "acme:nobody", "pump-1"):
        assert code(lambda device=device: token(zoe, device)) == "device-not-yours"  # type: ignore[misc]
    token(ann, "acme:pump-2")

    def issues(who: Keypair, device: str) -> object:
        csr = Keypair().csr()
        said = world.message(who, Act.issue, device=DeviceId(device), profile=ProfileName("device"), csr=csr)
        return world.issue(IssueRequest(csr, said, DeviceId(device), ProfileName("device")))

    for device in ("acme:pump-1", "acme:nobody"):
        assert code(lambda device=device: issues(zoe, device)) == "device-not-yours"  # type: ignore[misc]
    issues(ann, "acme:pump-3")
    assert world.row(mine).revocation is None
    said = world.message(ann, Act.revoke, reason=Reason.keyCompromise, target=there)
    world.revoke(RevokeRequest(said, Reason.keyCompromise, target=there))


def test_another_tenants_issuer_and_profiles_are_not_to_be_had(world: World) -> None:
    def asks(device: str, profile: str, issuer: str | None) -> str:
        asked = IssueRequest(
            Keypair().csr(),
            world.local(Role.operator),
            DeviceId(device),
            ProfileName(profile),
            issuer=None if issuer is None else IssuerId(issuer),
        )
        return code(lambda: world.issue(asked, Role.operator))

    assert asks("zeta:pump-1", "device", "acme-ca") == "issuer-not-yours"
    assert asks("zeta:pump-1", "device", ISSUING) == "issuer-not-yours"
    assert asks("pump-1", "device", "acme-ca") == "issuer-not-yours"
    assert asks("zeta:gw-1", "service", None) == "profile-unknown"
    assert code(lambda: world.token("zeta:gw-1", "service")) == "profile-unknown"


@pytest.mark.req("REQ-KEY-107")
def test_what_a_tenant_narrowed_is_what_its_devices_get(tmp_path: Path) -> None:
    house = shipped_profiles()[ProfileName("device")]
    less = narrowed(house, lifetime=DAY, algorithms=[], approval_within=DAY)
    world = World(tmp_path, sqlite_url(tmp_path), tenants=(tenant("acme", profiles={ProfileName("device"): less}), ZETA))
    pair, text = Keypair(), world.token("acme:pump-1").text
    csr = pair.csr()
    asked = IssueRequest(csr, TokenEvidence(text))
    with pytest.raises(Unavailable) as caught:
        world.issue(asked)
    assert caught.value.code == "approval-pending"
    (one,) = world.store.reading.waiting_approvals(tenant=TenantId("acme"), now=world.clock.at)
    assert world.store.reading.waiting_approvals(tenant=TenantId("zeta"), now=world.clock.at) == []
    zoe, ann = world.operator("zoe", tenant="zeta"), world.operator("ann", tenant="acme")

    def decides(who: Keypair) -> object:
        said = (one.request.hex(), True, "")
        return world.approving.decide(ApprovalDecision(world.message(who, Act.approve, decision=said), *said), world.peer(Role.enroll))

    assert code(lambda: decides(zoe)) == "no-such-approval"
    decides(ann)
    made = world.issue(asked).certificate
    assert made.not_after - made.not_before < 2 * DAY
    other = world.row(world.enrol("zeta:pump-1"))
    assert other.not_after - other.not_before > 5 * DAY
    world.close()


@pytest.mark.req("REQ-KEY-106")
def test_a_quota_stops_its_tenant_and_nobody_else(tmp_path: Path, database_url: str) -> None:
    world = World(tmp_path, database_url, tenants=(tenant("acme", most_devices=2), tenant("zeta", per_minute=2)))
    first = world.enrol("acme:1")
    world.enrol("acme:2")
    assert code(lambda: world.enrol("acme:3")) == "over-quota"
    said = DeviceDescription(DeviceId("acme:4"), batch="7")
    assert code(lambda: world.describing.describe(said, world.peer(Role.operator))) == "over-quota"
    world.clock.at += 200 * DAY // 365
    world.enrol("acme:1")
    world.enrol("zeta:1")
    world.enrol("zeta:2")
    with pytest.raises(Busy) as caught:
        world.enrol("zeta:3")
    assert caught.value.code == "over-rate"
    world.enrol("pump-1")
    assert first.certificate
    world.close()


def test_a_device_is_described_and_revived_by_its_own_tenants_people(world: World) -> None:
    device, _ = world.describing.describe(DeviceDescription(DeviceId("acme:9"), batch="7"), world.peer(Role.operator))
    assert (device.tenant, device.state) == ("acme", DeviceState.blank)
    world.enrol("acme:1")
    world.revoke_device("acme:1")
    ann, sam = world.operator("ann", tenant="acme"), world.operator("sam", "security-officer", tenant="acme")
    zoe, tom = world.operator("zoe", tenant="zeta"), world.operator("tom", "security-officer", tenant="zeta")

    def asked(who: Keypair) -> Proposal:
        said = ("revive", rule.subject(GraveAct.revive, device="acme:1"), DAY, "Repaired.")
        return world.two_persons.propose(ProposalRequest(world.message(who, Act.propose, proposal=said)), world.peer(Role.operator))

    def answered(who: Keypair, one: Proposal) -> object:
        said = (one.request.hex(), True, "")
        return world.approving.decide(ApprovalDecision(world.message(who, Act.approve, decision=said), *said), world.peer(Role.enroll))

    def revives() -> object:
        return world.reviving.revive(DeviceId("acme:1"), world.peer(Role.operator))

    answered(tom, asked(zoe))
    assert code(revives) == "two-persons-needed", "two of another tenant are none of this one"
    own = asked(ann)
    assert code(lambda: answered(tom, own)) == "no-such-approval"
    answered(sam, own)
    revives()


@pytest.mark.req("REQ-KEY-106")
def test_the_command_line_asks_for_one_tenant_at_a_time(world: World) -> None:
    for name in ("acme:1", "zeta:1", "pump-1"):
        world.enrol(name)
    world.operator("ann", tenant="acme")
    world.token("zeta:2")
    with world.store.ledger.writing() as tx:
        for issuer in world.tenant_issuers:
            tx.add_issuer(issuer)
    questions = Questions(
        reading=world.store.reading,
        policy=world.policy,
        witness=world.witness,
        keys=frozenset({ISSUING}),
        roots=frozenset(),
        clock=world.clock,
    )

    def of(question: str, tenant_id: str | None, **body: Any) -> Any:
        return questions.ask(question, body if tenant_id is None else {**body, "tenant": tenant_id})

    for tenant_id, device in (("acme", "acme:1"), ("zeta", "zeta:1"), (None, "pump-1")):
        assert [one["id"] for one in of("devices", tenant_id)["rows"] if not one["id"].startswith("fleetca:")] == [device]
        assert device in {one["device"] for one in of("certificates", tenant_id)["rows"]}
    assert [one["id"] for one in of("issuers", "acme")] == ["acme-ca"]
    assert [one["name"] for one in of("operators", "acme")] == ["ann"]
    assert of("operators", "zeta") == []
    assert [one["device"] for one in of("tokens", "zeta")["rows"]] == ["zeta:2"]
    assert of("tokens", "acme", device="zeta:2")["rows"] == []
    assert {one["name"] for one in of("profiles", "zeta")} == {"device"}
    with pytest.raises(NotFound):
        of("device-events", "acme", device="zeta:1")
    with pytest.raises(NotFound):
        of("devices", "nobody")


# ---- The probe ------------------------------------------------------------------------------------------------------


class House:
    """Two tenants with one of everything that a route could name. `zoe` and her device are of zeta; what they ask for is acme's."""

    def __init__(self, folder: Path) -> None:
        waiting = narrowed(shipped_profiles()[ProfileName("device")], lifetime=None, algorithms=[], approval_within=DAY)
        acme = tenant(
            "acme",
            profiles={
                ProfileName("device"): shipped_profiles()[ProfileName("device")],
                ProfileName("service"): replace(waiting, name=ProfileName("service"), allowed_names=(), required_names=False),
            },
        )
        self.acme = AcmeWorld(folder, tenants=(acme, ZETA))
        world = self.world = self.acme.world
        labels: dict[str | None, ProfileName] = {None: ProfileName("device"), "device": ProfileName("device")}
        est = Est(
            signer=self.acme.signer, issuers=tuple(world.issuers.by_id.values()), profiles=world.profiles, labels=labels, factories=True,
            make_key=None, clock=world.clock,
        )  # fmt: skip
        self.app: Flask = self.acme.app
        self.app.register_blueprint(est_blueprint(est))
        self.http = self.app.test_client()
        self.mine, self.theirs = world.enrol("zeta:pump-1"), world.enrol("acme:pump-1")
        self.zoe, self.ann = world.operator("zoe", tenant="zeta"), world.operator("ann", tenant="acme")
        self.row = world.row(self.theirs)
        self.station = Keypair()
        world.provisioning.add_station("line-1", self.station.spki, world.peer(Role.operator), tenant=TenantId("acme"))
        text = world.token("acme:gw-1", "service").text
        with pytest.raises(Unavailable):
            world.issue(IssueRequest(Keypair().csr(), TokenEvidence(text)))
        (self.waits,) = world.store.reading.waiting_approvals(tenant=TenantId("acme"), now=world.clock.at)
        said = ("revive", rule.subject(GraveAct.revive, device="acme:pump-1"), DAY, "Repaired.")
        self.proposal = world.two_persons.propose(
            ProposalRequest(world.message(self.ann, Act.propose, proposal=said)), world.peer(Role.operator)
        )
        self.account, self.other = Client(self.acme), Client(self.acme)
        self.account.register()
        self.other.register()
        self.done = self.account.obtain("gw-1.device.test")

    def statements(self, ask: Callable[[], TestResponse]) -> tuple[TestResponse, int]:
        """The answer, and how many statements the database had for it."""
        count = 0

        def counting(inner: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*given: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                return inner(*given, **more)

            return counted

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_ledger.SqlWriting, "_all", counting(store_ledger.SqlWriting._all))
            patch.setattr(store_reading.Reading, "_all", counting(store_reading.Reading._all))
            return ask(), count

    # ---- Asking -----------------------------------------------------------------------------------------------------

    def get(self, path: str, who: Keypair | None) -> TestResponse:
        return self.http.get(path, environ_overrides={} if who is None else {PEER_CERTIFICATE: who.certificate}, base_url=BASE)

    def say(self, path: str, who: Keypair, act: Act, **said: Any) -> TestResponse:
        made = self.world.message(who, act, **said)
        parts = {name: base64.b64encode(getattr(made, name)).decode() for name in ("payload", "certificate", "signature")}
        return self.http.post(path, json={"message": parts}, base_url=BASE)

    def signed(self, path: str, payload: Any) -> TestResponse:
        """By an account that has nothing to do with what it asks for."""
        octets = b"" if payload is None else json.dumps(payload).encode()
        document = jws(self.other.key, self.other.header(BASE + path), octets)
        return self.http.post(path, data=json.dumps(document), content_type="application/jose+json", base_url=BASE)


def bare(answer: TestResponse, *names: str) -> tuple[int, str, dict[str, str]]:
    """An answer without what differs between any two: its own id, and the words that were asked for."""
    text = answer.get_data(as_text=True)
    own = answer.headers.get("X-Request-Id", "") or answer.headers.get("Request-Id", "")
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name.lower() not in {"x-request-id", "request-id", "replay-nonce", "date", "content-length"}
    }
    document = answer.get_json(silent=True)
    if isinstance(document, dict) and "instance" in document:
        text = text.replace(str(document["instance"]), "")
    for name in (*names, own):
        if name:
            text = text.replace(name, "")
    return answer.status_code, text, headers


NOTHING = "0" * 39 + "7"
NO_REQUEST = "00" * 32


def probes(house: House, zoe: Keypair) -> dict[str, tuple[Callable[[str], TestResponse], str, str]]:
    """By route: how an operator asks for something by name, the name of what is acme's, and one of nothing."""
    mine, issuer, serial = house.mine, house.row.ref.issuer, f"{house.row.ref.serial:040x}"
    path = house.done.json
    order, authorization = house.done.headers["Location"].rsplit("/", 1)[1], path["authorizations"][0].rsplit("/", 1)[1]
    certificate = path["certificate"].rsplit("/", 1)[1]
    account = str(house.account.kid).rsplit("/", 1)[1]
    acme_issuer = path["certificate"].split("/")[-2]
    nobody = "0" * 31 + "7"

    def revoke(device: str) -> TestResponse:
        return house.say("/v1/revoke", zoe, Act.revoke, reason=Reason.keyCompromise, device=DeviceId(device))

    def act_on(device: str) -> TestResponse:
        return house.say("/v1/tokens", zoe, Act.create_token, device=DeviceId(device), profile=ProfileName("device"), lifetime=60)

    def issue(device: str) -> TestResponse:
        return house.say("/v1/certificates", zoe, Act.issue, device=DeviceId(device), profile=ProfileName("device"), csr=house.zoe.csr())

    def open_shift(station: str) -> TestResponse:
        key = hashlib.sha256(house.station.spki).hexdigest()
        return house.say("/v1/line/shifts", zoe, Act.shift, station=(station, key, 5), profile=ProfileName("device"), lifetime=3600)

    def confirm(successor: str) -> TestResponse:
        said = {"successor": {"issuer": issuer, "serial": successor}}
        return house.http.post("/v1/confirm", json=said, environ_overrides={PEER_CERTIFICATE: mine.certificate}, base_url=BASE)

    return {
        "showCertificate": (lambda name: house.get(f"/v1/certificates/{issuer}/{name}", zoe), serial, NOTHING),
        "showReceipt": (lambda name: house.get(f"/v1/certificates/{issuer}/{name}/receipt", zoe), serial, NOTHING),
        "showProposal": (lambda name: house.get(f"/v1/proposals/{name}", zoe), house.proposal.request.hex(), NO_REQUEST),
        "searchCertificates": (lambda name: house.get(f"/v1/certificates?device={name}", zoe), "acme:pump-1", "acme:nobody"),
        "decideApproval": (
            lambda name: house.say("/v1/approvals", zoe, Act.approve, decision=(name, True, "")),
            house.waits.request.hex(),
            NO_REQUEST,
        ),
        "revoke": (revoke, "acme:pump-1", "acme:nobody"),
        "createToken": (act_on, "acme:pump-1", "acme:nobody"),
        "issue": (issue, "acme:pump-1", "acme:nobody"),
        "confirm": (confirm, serial, NOTHING),
        "openShift": (open_shift, "line-1", "line-9"),
        "acme.order": (lambda name: house.signed(f"/acme/service/order/{name}", None), order, nobody),
        "acme.finalize": (lambda name: house.signed(f"/acme/service/order/{name}/finalize", {"csr": b64(csr_for("x.test"))}), order, nobody),
        "acme.authorization": (lambda name: house.signed(f"/acme/service/authorization/{name}", None), authorization, nobody),
        "acme.challenge": (lambda name: house.signed(f"/acme/service/challenge/{name}/http-01", {}), authorization, nobody),
        "acme.certificate": (
            lambda name: house.signed(f"/acme/service/certificate/{acme_issuer}/{name}", None), certificate, NOTHING,
        ),
        "acme.account": (lambda name: house.signed(f"/acme/service/account/{name}", None), account, nobody),
        "acme.account_orders": (lambda name: house.signed(f"/acme/service/account/{name}/orders", None), account, nobody),
    }  # fmt: skip


LISTS = {
    "searchCertificates": "/v1/certificates",
    "approvals": "/v1/approvals",
    "proposals": "/v1/proposals",
    "fleet": "/v1/fleet",
    "tenant": "/v1/tenant",
    "log": "/v1/log",
}
"""What lists: zeta finds nothing of acme's in it."""
PUBLIC = {
    "chain", "bundle", "links", "pins", "about", "health", "openapi", "renewalWindow",
    "acme.directory", "acme.new_nonce", "acme.renewal_info",
    "est.cacerts", "est.cacerts-of-label", "est.csrattrs", "est.csrattrs-of-label",
}  # fmt: skip
"""Answered alike whoever asks: there is nobody to keep apart."""
NAMES_NOTHING = {
    # The evidence itself is all that they act on: who brings a token or a key gets what that is for.
    "enroll", "renew", "report", "propose", "challengeTpm", "bringUnits", "sealRecords",
    "est.simpleenroll", "est.simpleenroll-of-label", "est.simplereenroll", "est.simplereenroll-of-label",
    "est.serverkeygen", "est.serverkeygen-of-label",
    "acme.new_account", "acme.new_order", "acme.change_key", "acme.revoke",
    # The same as acme.certificate, with the root.
    "acme.certificate_with_root",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("tenants"))
    yield made
    made.acme.close()


@pytest.mark.req("REQ-KEY-106")
def test_every_route_says_how_it_keeps_tenants_apart(house: House) -> None:
    said = {*probes(house, house.zoe), *LISTS, *PUBLIC, *NAMES_NOTHING}
    assert {one.endpoint for one in house.app.url_map.iter_rules()} == said


@pytest.mark.req("REQ-KEY-106")
def test_at_every_route_what_is_another_tenants_is_as_what_is_not_there(house: House) -> None:
    wrong = []
    for route, (ask, theirs, nothing) in probes(house, house.zoe).items():
        found, had = house.statements(lambda ask=ask, theirs=theirs: ask(theirs))  # type: ignore[misc]
        missed, took = house.statements(lambda ask=ask, nothing=nothing: ask(nothing))  # type: ignore[misc]
        if bare(found, theirs) != bare(missed, nothing):
            wrong.append(f"{route}: {bare(found, theirs)} / {bare(missed, nothing)}")
        elif found.status_code >= 500 or (found.status_code < 400 and route not in LISTS):
            wrong.append(f"{route}: {found.status_code}")
        elif had != took:
            wrong.append(f"{route}: {had} questions to the database / {took}")
        elif not had and not route.startswith("acme."):
            wrong.append(f"{route}: nobody was asked")
    assert not wrong, "\n".join(wrong)


@pytest.mark.req("REQ-KEY-106")
def test_its_own_tenant_is_answered_otherwise(tmp_path: Path) -> None:
    house = House(tmp_path)
    for route, (ask, theirs, nothing) in probes(house, house.ann).items():
        # The issue by name stands for a new device as well; the others are not of an operator.
        if route not in {"confirm", "issue", "createToken"} and not route.startswith("acme."):
            assert bare(ask(theirs), theirs)[:2] != bare(ask(nothing), nothing)[:2], route
    house.acme.close()


@pytest.mark.req("REQ-KEY-106")
def test_no_list_has_anything_of_another_tenant(house: House) -> None:
    for path in LISTS.values():
        own, other = house.get(path, house.ann), house.get(path, house.zoe)
        assert own.status_code == other.status_code == 200
        assert "acme:" not in other.get_data(as_text=True)
    for path in ("/v1/certificates", "/v1/approvals", "/v1/proposals"):
        assert "acme:" in house.get(path, house.ann).get_data(as_text=True), "it shows its own"


@pytest.mark.req("REQ-KEY-106")
def test_what_is_public_is_the_same_for_everybody(house: House) -> None:
    addresses = {
        "chain": "/v1/ca/chain", "bundle": "/v1/ca/bundle", "links": "/v1/ca/links", "pins": "/v1/ca/pins", "about": "/v1/about",
        "health": "/v1/health", "openapi": "/v1/openapi.json",
        "renewalWindow": f"/v1/renewal/{house.world.issuers.by_id[house.row.ref.issuer].key_identifier.hex()}/{house.row.ref.serial:040x}",
        "acme.directory": "/acme/service/directory", "est.cacerts": "/.well-known/est/cacerts",
    }  # fmt: skip
    for name, path in addresses.items():
        assert name in PUBLIC
        told = {house.get(path, who).get_data() for who in (house.ann, house.zoe, house.mine, None)}
        assert len(told) == 1, name


def test_a_device_of_one_tenant_speaks_for_none_of_another(house: House) -> None:
    stolen = {"csr": pem.pem(pem.REQUEST, Keypair().csr())}
    made = house.http.post("/v1/renew", json=stolen, environ_overrides={PEER_CERTIFICATE: house.mine.certificate}, base_url=BASE)
    assert made.status_code in {201, 422}
    assert "acme:" not in made.get_data(as_text=True)
    with pytest.raises(Denied):
        said = house.world.message(house.mine, Act.revoke, reason=Reason.keyCompromise, target=house.row.ref)
        house.world.revoke(RevokeRequest(said, Reason.keyCompromise, target=house.row.ref), Role.enroll)
