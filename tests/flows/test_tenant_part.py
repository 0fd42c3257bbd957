"""A tenant's operator sees its part of the deployment over REST: what it may have, what it has, and what the log says of it, as the command line shows it
(REQ-KEY-106)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from ca.model import IssuerId, OperatorName, ProfileName, Reason, Role, TenantId
from ca.rules.tenancy import Tenant, narrowed, view
from ca.rules.two_persons import person_of
from enroll.rest import own_part
from enroll.rest.routes import PEER_CERTIFICATE
from fleetca.forms import shipped_profiles
from tests.fakes.acme import BASE, AcmeWorld
from tests.fakes.signer_world import Keypair

PART = narrowed(shipped_profiles()[ProfileName("device")], lifetime=3600, algorithms=[], approval_within=None)
TENANTS = tuple(
    Tenant(TenantId(name), f"{name}:", IssuerId(f"{name}-ca"), {ProfileName("device"): PART}, most_devices=7) for name in ("acme", "zeta")
)


class Place:
    def __init__(self, folder: Path) -> None:
        self.acme = AcmeWorld(folder, tenants=TENANTS)
        world = self.world = self.acme.world
        self.http = self.acme.app.test_client()
        self.ann, self.zoe = world.operator("ann", tenant="acme"), world.operator("zoe", "auditor", tenant="zeta")
        self.hal = world.operator("hal", "auditor")
        self.pump = world.enrol("acme:pump-1")
        for device in ("acme:pump-2", "zeta:pump-1", "pump-1"):
            world.enrol(device)
            world.revoke_device(device, Reason.cessationOfOperation)
        world.token("zeta:pump-9")
        with world.store.ledger.writing() as tx:
            tx.assign_indexes([leaf.id for leaf in tx.pending_leaves(10_000)], start=0)

    def get(self, path: str, who: Keypair | None) -> TestResponse:
        return self.http.get(path, environ_overrides={} if who is None else {PEER_CERTIFICATE: who.certificate}, base_url=BASE)

    def log(self, who: Keypair, *, limit: int = 50) -> list[dict[str, Any]]:
        """All pages."""
        found: list[dict[str, Any]] = []
        start: int | None = 0
        while start is not None:
            answer = self.get(f"/v1/log?start={start}&limit={limit}", who)
            assert answer.status_code == 200, answer.get_data(as_text=True)
            page = answer.get_json()
            assert len(page["leaves"]) <= limit
            assert page["next"] is None or page["next"] > start
            found += page["leaves"]
            start = page["next"]
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("part"))
    yield made
    made.acme.close()


@pytest.mark.req("REQ-KEY-106")
def test_a_tenant_is_told_its_quota_and_its_profiles_and_the_house_its_own(place: Place) -> None:
    own = place.get("/v1/tenant", place.ann).get_json()
    assert (own["tenant"], own["prefix"], own["issuer"], own["devices"], own["most_devices"], own["per_minute"]) == (
        "acme", "acme:", "acme-ca", 3, 7, None,
    )  # fmt: skip
    assert [(one["name"], one["lifetime"]) for one in own["profiles"]] == [("device", 3600)]
    other = place.get("/v1/tenant", place.zoe).get_json()
    assert (other["tenant"], other["devices"]) == ("zeta", 2)
    house = place.get("/v1/tenant", place.hal).get_json()
    assert (house["tenant"], house["prefix"], house["issuer"]) == ("default", None, "issuing")
    assert {one["name"] for one in house["profiles"]} >= {"device", "service"}
    assert not any("ca" in one["name"].split("-") for one in house["profiles"]), "what makes CAs is nobody's over the network"


@pytest.mark.req("REQ-KEY-106")
@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize("looked_at", [2, 2000])
def test_the_log_shows_a_tenant_what_the_command_line_shows_of_it(
    place: Place, limit: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_part, "LOOKED_AT", looked_at)
    leaves: Sequence[tuple[int, bytes]] = [
        (leaf.index, bytes(leaf.body)) for leaf in place.world.store.reading.leaves(0, 10_000) if leaf.index is not None
    ]
    for who, name in ((place.ann, "acme"), (place.zoe, "zeta")):
        shown = place.log(who, limit=limit)
        told = [(index, json.loads(body)) for index, body in view(leaves, TenantId(name), f"{name}:", {f"{name}-ca"})]
        assert [(one["index"], one["leaf"]) for one in shown] == told
        assert {"issuance", "operator"} <= {one["leaf"]["kind"] for one in shown}
        text = json.dumps(shown)
        assert ("zeta" if name == "acme" else "acme") not in text
        assert '"pump-1"' not in text, "nor what is the house's"
    assert len(place.log(place.hal, limit=limit)) == len(leaves), "the house keeps the log"


@pytest.mark.req("REQ-KEY-106")
@pytest.mark.parametrize("path", ["/v1/tenant", "/v1/log"])
def test_only_an_operator_is_told(place: Place, path: str) -> None:
    assert place.get(path, place.pump).status_code == 403
    assert place.get(path, None).status_code == 403
    name = f"gone-{len(path)}"
    gone = place.world.operator(name, tenant="acme")
    place.world.operators.disable(OperatorName(name), place.world.peer(Role.operator))
    assert place.get(path, gone).status_code == 403


@pytest.mark.parametrize(
    "query", ["start=-1", "start=x", "limit=0", "limit=100000", "tenant=zeta", "start=1&start=2", "start=9007199254740993"]
)
def test_a_question_that_makes_no_sense_is_refused(place: Place, query: str) -> None:
    assert place.get(f"/v1/log?{query}", place.ann).status_code == 400


def test_behind_the_end_there_is_nothing(place: Place) -> None:
    assert place.get("/v1/log?start=100000", place.ann).get_json() == {"leaves": [], "next": None}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Ada Lovelace", "ADA  lovelace", id="capitals and spaces"),
        pytest.param("Ren\u00e9", "Rene\u0301", id="two ways to write one letter"),
        pytest.param("Ada", "\uff21\uff44\uff41", id="wide letters"),
    ],
)
def test_a_person_is_the_same_however_the_name_is_written(one: str, other: str) -> None:
    assert person_of(one) == person_of(other)
    assert person_of(one) != person_of("Sam")
