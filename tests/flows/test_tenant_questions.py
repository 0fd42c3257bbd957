"""What the command line asks through the signer's socket, of one tenant at a time: another tenant's is as what is not there (REQ-KEY-106).

The probe goes through the signer's own list of questions: one that is added fails here until it is said how it keeps tenants apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ca.errors import FleetcaError
from ca.model import DeviceId, GraveAct, IssuerId, ProfileName, ProposalRequest, Reason, Role, TenantId
from ca.rules import two_persons as rule
from ca.rules.message import Act
from ca.rules.tenancy import Tenant
from ca.signer.questions import Questions
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.signer_world import ISSUING, World

PROFILES = {ProfileName("device"): shipped_profiles()[ProfileName("device")]}
NOTHING = "0" * 39 + "7"
HOUSE = {"keys", "key", "keys-held"}
"""What is of the whole deployment: the keys of its issuers and services, which are shown where they are kept."""


class House:
    def __init__(self, folder: Path) -> None:
        tenants = tuple(Tenant(TenantId(name), f"{name}:", IssuerId(f"{name}-ca"), PROFILES) for name in ("acme", "zeta"))
        world = self.world = World(folder, sqlite_url(folder), tenants=tenants)
        self.ann = world.operator("ann", tenant="acme")
        self.pump = world.enrol("acme:pump-1")
        world.enrol("acme:gone")
        world.revoke_device("acme:gone", Reason.cessationOfOperation)
        world.token("acme:pump-2")
        with world.store.ledger.writing() as tx:
            for issuer in world.tenant_issuers:
                tx.add_issuer(issuer)
        said = (GraveAct.revive.value, rule.subject(GraveAct.revive, device="acme:gone"), 86400, "Repaired.")
        asked = ProposalRequest(world.message(self.ann, Act.propose, proposal=said))
        self.request = world.two_persons.propose(asked, world.peer(Role.operator)).request.hex()
        self.questions = Questions(
            reading=world.store.reading,
            policy=world.policy,
            witness=world.witness,
            keys=frozenset({ISSUING}),
            roots=frozenset(),
            clock=world.clock,
        )

    def ask(self, tenant: str, question: str, body: dict[str, Any]) -> str:
        """The answer as text, or the refusal."""
        try:
            return json.dumps(self.questions.ask(question, {**body, "tenant": tenant}), sort_keys=True, default=str)
        except FleetcaError as error:
            return f"{type(error).__name__} {error.code} {error.what} {error.why} {error.fix}"


def named(house: House) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """By question: how something of acme's is asked for by name, and the same of nothing."""
    row = house.world.row(house.pump)
    device = {"device": "acme:pump-1"}, {"device": "acme:nobody"}
    serials = tuple({"issuer": row.ref.issuer, "serial": text} for text in (f"{row.ref.serial:040x}", NOTHING))
    return {
        "certificate": [(serials[0], serials[1])],
        "certificates": [device],
        "outlines": [device],
        "devices": [device, ({}, {"device": "acme:nobody"})],
        "device-facts": [device],
        "judged-keys": [device],
        "device-events": [device],
        "tokens": [({"device": "acme:pump-2"}, {"device": "acme:nobody"})],
        "proposal": [({"request": house.request}, {"request": "00" * 32})],
    }


LISTS = {"tokens", "approvals", "proposals", "issuers", "operators", "renewal-orders", "stations", "shifts", "unwiped", "devices", "certificates", "outlines", "device-count", "profiles"}  # fmt: skip
"""What lists, or counts."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("questions"))
    yield made
    made.world.close()


@pytest.mark.req("REQ-KEY-106")
def test_every_question_says_how_it_keeps_tenants_apart(house: House) -> None:
    assert {*named(house), *LISTS, *HOUSE} == Questions.NAMES


@pytest.mark.req("REQ-KEY-106")
def test_what_is_another_tenants_is_as_what_is_not_there(house: House) -> None:
    wrong = []
    for question, pairs in named(house).items():
        for theirs, nothing in pairs:
            found, missed = house.ask("zeta", question, theirs), house.ask("zeta", question, nothing)
            for body, _ in ((theirs, 0), (nothing, 0)):
                for value in body.values():
                    found, missed = found.replace(str(value), ""), missed.replace(str(value), "")
            own = house.ask("acme", question, theirs)
            if found != missed:
                wrong.append(f"{question}: {found} / {missed}")
            if own == house.ask("zeta", question, theirs):
                wrong.append(f"{question}: its own tenant is answered the same: {own}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.req("REQ-KEY-106")
@pytest.mark.parametrize("question", sorted(LISTS))
def test_no_list_has_anything_of_another_tenant(house: House, question: str) -> None:
    body = {} if question in {"issuers", "operators", "renewal-orders", "stations", "device-count", "profiles"} else {"limit": 100}
    if question == "unwiped":
        body["after"] = ""  # type: ignore[assignment]
    own, other = house.ask("acme", question, body), house.ask("zeta", question, body)
    assert "acme" not in other, other
    assert "Malformed" not in own, own
    if question in {"tokens", "proposals", "issuers", "operators", "devices", "certificates", "outlines", "unwiped"}:
        assert "acme" in own, own


def test_a_device_of_the_house_is_no_tenants(house: House) -> None:
    house.world.enrol("pump-1")
    assert "pump-1" not in house.ask("acme", "devices", {"device": "pump-1"}).replace("acme:pump-1", "")
    house.world.revoke_device("pump-1", Reason.cessationOfOperation)
    for tenant, unwiped in (("default", ["pump-1"]), ("acme", ["acme:gone"]), ("zeta", [])):
        assert house.ask(tenant, "unwiped", {"after": "", "limit": 1}) == json.dumps(unwiped)
    assert DeviceId("pump-1") in house.ask("default", "devices", {"device": "pump-1"})
