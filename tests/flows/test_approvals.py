"""Requests that wait for an operator, over a real signer and database: EST, REST's signer side and ACME end in the same approval."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca.der import pem
from ca.errors import Busy, Conflict, Denied, FleetcaError, Malformed, NotFound, Unauthenticated, Unavailable
from ca.model import (
    DEFAULT_TENANT,
    Approval,
    ApprovalDecision,
    ApprovalState,
    Issued,
    IssueRequest,
    Name,
    NameKind,
    ProfileName,
    Role,
    TokenEvidence,
)
from ca.rules.approval import MOST_WAITING
from ca.rules.message import Act
from enroll.rest.routes import PEER_CERTIFICATE
from fleetca.forms import shipped_profiles
from tests.fakes.acme import AcmeWorld, Client, csr_for
from tests.fakes.signer_world import Keypair, World

DAY = 86400


def waiting_profiles() -> dict[ProfileName, Any]:
    shipped = shipped_profiles()
    return {ProfileName(name): replace(shipped[ProfileName(name)], approval_within=7 * DAY) for name in ("device", "service")}


@pytest.fixture
def made_with() -> dict[str, Any]:
    return {"profiles": waiting_profiles()}


def asks(world: World, pair: Keypair, text: str) -> Issued | FleetcaError:
    (outcome,) = world.issuing.issue([(IssueRequest(pair.csr_der, TokenEvidence(text)), world.peer(Role.enroll))])
    return outcome


def waiting(world: World) -> list[Approval]:
    return list(world.store.reading.waiting_approvals(tenant=DEFAULT_TENANT, now=world.clock.now()))


def decide(world: World, request: str, *, approve: bool = True, reason: str = "") -> Approval:
    return world.approving.decide(ApprovalDecision(world.local(Role.operator), request, approve, reason), world.peer(Role.operator))


class Asker(Keypair):
    """One CSR: with ECDSA, each signature makes another request."""

    def __init__(self) -> None:
        super().__init__()
        self.csr_der = self.csr()


@pytest.mark.req("REQ-KEY-007")
def test_a_request_waits_until_it_is_approved_and_then_gets_one_certificate_however_often_it_asks(both: World) -> None:
    world = both
    pair, text = Asker(), world.token("pump-1").text
    for _ in range(3):
        told = asks(world, pair, text)
        assert isinstance(told, Unavailable)
        assert (told.code, told.retry_after) == ("approval-pending", 60)
    (one,) = waiting(world)
    assert (one.device, one.profile, one.state) == ("pump-1", "device", ApprovalState.pending)
    assert world.rows() == [], "it takes neither serial nor token nor key"
    made = decide(world, one.request.hex()[:16])
    assert (made.state, made.decided_by) == (ApprovalState.approved, "role:operator@4242")
    assert decide(world, one.request.hex()) == made
    first, again = asks(world, pair, text), asks(world, pair, text)
    assert isinstance(first, Issued)
    assert isinstance(again, Issued)
    assert again.certificate.der == first.certificate.der
    assert waiting(world) == []
    (leaf,) = world.leaves("approval")
    assert (leaf["request"], leaf["decision"], leaf["actor"]) == (one.request.hex(), "approved", made.decided_by)


def test_the_approval_is_of_that_request_and_of_no_other(world: World) -> None:
    text = world.token("pump-1").text
    assert isinstance(asks(world, Asker(), text), Unavailable)
    (one,) = waiting(world)
    decide(world, one.request.hex())
    thief = asks(world, Asker(), text)
    assert isinstance(thief, Unavailable), "the same token, another key"
    assert [each.request != one.request for each in waiting(world)] == [True]


def test_a_refusal_is_final_and_says_why(world: World) -> None:
    pair, text = Asker(), world.token("pump-1").text
    asks(world, pair, text)
    (one,) = waiting(world)
    with pytest.raises(Malformed):
        decide(world, one.request.hex(), approve=False)
    decide(world, one.request.hex(), approve=False, reason="Nobody ordered this pump.")
    told = asks(world, pair, text)
    assert isinstance(told, Denied)
    assert (told.code, told.why) == ("approval-refused", "Nobody ordered this pump.")
    with pytest.raises(Conflict) as caught:
        decide(world, one.request.hex())
    assert caught.value.code == "approval-decided"


def test_what_nobody_approves_in_time_is_over_and_the_token_need_not_live_as_long(world: World) -> None:
    slow, late, text = Asker(), Asker(), world.token("pump-1", lifetime=600).text
    asks(world, slow, text)
    (one,) = waiting(world)
    world.clock.at += DAY  # the token is over; it was good when it was brought
    other = asks(world, late, text)
    assert isinstance(other, Unauthenticated)
    decide(world, one.request.hex())
    world.clock.at += 6 * DAY
    told = asks(world, slow, text)
    assert isinstance(told, FleetcaError)
    assert told.code == "token-expired"
    third, long = Asker(), world.token("pump-2", lifetime=30 * DAY).text
    asks(world, third, long)
    world.clock.at += 7 * DAY
    gone = asks(world, third, long)
    assert isinstance(gone, Denied)
    assert gone.code == "approval-expired"
    assert waiting(world) == []


def test_renewals_and_what_an_operator_asks_for_wait_for_nobody(world: World) -> None:
    pair, text = Asker(), world.token("pump-1").text
    asks(world, pair, text)
    decide(world, waiting(world)[0].request.hex())
    issued = asks(world, pair, text)
    assert isinstance(issued, Issued)
    assert issued.certificate.der is not None
    pair.certificate = issued.certificate.der
    world.renew(pair)
    by_operator = IssueRequest(Keypair().csr(), world.local(Role.operator), issued.certificate.device, ProfileName("device"))
    world.issue(by_operator, Role.operator)
    assert waiting(world) == []


def test_one_device_cannot_fill_the_list(world: World) -> None:
    text = world.token("pump-1").text
    told = [asks(world, Asker(), text) for _ in range(MOST_WAITING + 1)]
    assert isinstance(told[-1], Busy)
    assert len(waiting(world)) == MOST_WAITING
    assert isinstance(asks(world, Asker(), world.token("pump-2").text), Unavailable)
    page = world.store.reading.waiting_approvals(tenant=DEFAULT_TENANT, now=world.clock.now(), limit=3)
    rest = world.store.reading.waiting_approvals(tenant=DEFAULT_TENANT, now=0, after=(page[-1].expires, page[-1].request), limit=100)
    assert len(page) + len(rest) == MOST_WAITING + 1


@pytest.mark.req("REQ-KEY-009")
def test_an_operator_who_signed_decides_and_one_whose_roles_do_not_allow_it_does_not(world: World) -> None:
    asks(world, Asker(), world.token("pump-1").text)
    (one,) = waiting(world)
    registrar, auditor = world.operator("ada", "registrar"), world.operator("bob", "auditor")
    said = (one.request.hex(), True, "")

    def by(pair: Keypair, decision: Any = said) -> Approval:
        asked = ApprovalDecision(world.message(pair, Act.approve, decision=decision), *said)
        return world.approving.decide(asked, world.peer(Role.enroll))

    with pytest.raises(Denied) as caught:
        by(auditor)
    assert caught.value.code == "operator-role"
    with pytest.raises(Unauthenticated) as other:
        by(registrar, (one.request.hex(), False, "x"))
    assert other.value.code == "message-for-another-act"
    assert by(registrar).decided_by == "operator:ada"
    with pytest.raises(NotFound):
        decide(world, "00" * 32)


def test_an_ACME_order_is_processing_until_it_is_approved_and_a_renewal_is_not(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path, profiles=waiting_profiles())
    client = Client(acme)
    client.register()
    order = client.order("gw-1.device.test")
    client.prove(order)
    waits = client.finalize(order, csr_for("gw-1.device.test"))
    assert (waits.json["status"], waits.headers["Retry-After"]) == ("processing", "60")
    (one,) = waiting(acme.world)
    assert one.names == (Name(NameKind.dns, "gw-1.device.test"),)
    again = client.order("gw-1.device.test")
    assert client.finalize(again, csr_for("gw-1.device.test")).json["status"] == "processing", "a client that gave up and came again"
    assert len(waiting(acme.world)) == 1
    decide(acme.world, one.request.hex())
    assert client.post(again.headers["Location"]).json["status"] == "valid"
    assert client.post(order.headers["Location"]).json["status"] == "valid"
    acme.world.clock.at += 1
    client.obtain("gw-1.device.test")
    refused = client.order("gw-2.device.test")
    client.prove(refused)
    client.finalize(refused, csr_for("gw-2.device.test"))
    decide(acme.world, waiting(acme.world)[0].request.hex(), approve=False, reason="No.")
    ended = client.post(refused.headers["Location"])
    assert (ended.json["status"], ended.json["error"]["type"].rpartition(":")[2]) == ("invalid", "unauthorized")
    acme.world.clock.at += 7 * DAY
    later = client.order("gw-2.device.test")
    client.prove(later)
    assert client.finalize(later, csr_for("gw-2.device.test")).json["status"] == "processing", "it may be asked for again"
    assert [each.state for each in waiting(acme.world)] == [ApprovalState.pending]
    acme.close()


@pytest.mark.req("REQ-KEY-007")
def test_REST_says_202_and_operators_list_and_decide_by_signed_messages(tmp_path: Path) -> None:
    acme = AcmeWorld(tmp_path, profiles=waiting_profiles())
    world, pair = acme.world, Asker()
    body = {"token": world.token("pump-1").text, "csr": pem.pem(pem.REQUEST, pair.csr_der)}
    operator, auditor = world.operator("ada"), world.operator("bob", "auditor")

    def enrol() -> TestResponse:
        return acme.http.post("/v1/enroll", json=body)

    def say(who: Keypair, request: str, *, approve: bool) -> TestResponse:
        given = world.message(who, Act.approve, decision=(request, approve, ""))
        parts = {name: base64.b64encode(getattr(given, name)).decode() for name in ("payload", "certificate", "signature")}
        return acme.http.post("/v1/approvals", json={"message": parts})

    waits = enrol()
    assert (waits.status_code, waits.headers["Retry-After"], waits.json["code"]) == (202, "60", "approval-pending")
    shown = {"environ_overrides": {PEER_CERTIFICATE: auditor.certificate}}
    page = acme.http.get("/v1/approvals", **shown).json
    (one,) = page["approvals"]
    assert (one["device"], one["state"], page["next"]) == ("pump-1", "pending", None)
    assert acme.http.get("/v1/approvals").status_code == 403
    assert acme.http.get("/v1/approvals?cursor=x", **shown).status_code == 400
    assert say(auditor, one["request"], approve=True).status_code == 403
    assert say(operator, one["request"], approve=True).json["decided_by"] == "operator:ada"
    assert enrol().status_code == 201
    acme.close()
