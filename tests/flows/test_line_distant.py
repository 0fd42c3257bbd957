"""A station that is not the machine of the CA: it logs in, brings its units and has its records countersigned over the REST API, and the service in between
can hold back what it carries and change nothing of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from ca.errors import Refused, Unavailable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, Digest, KeyName, OperatorName, Role, TenantId, UnitPart
from ca.rules import line as rule
from ca.rules import provisioning
from ca.rules.leaf import canonical
from ca.rules.message import Act
from ca.system import SystemChance
from enroll.rest.flow import Enrolment
from enroll.rest.routes import create_app
from fleetca.line import bringing, distant, verifying
from fleetca.line import station as folder
from tests.databases import sqlite_url
from tests.fakes.acme import DirectSigner
from tests.fakes.certificates import root
from tests.fakes.factory_line import Inside, Line
from tests.fakes.signer_world import DEPLOYMENT, ISSUING, Keypair, World
from tests.flows.test_tenants import ACME, ZETA
from tests.refusals import code_of


class Wire:
    """Speaks HTTP to the application, and loses the answers that it is told to lose."""

    def __init__(self, app: Flask) -> None:
        self.http = app.test_client()
        self.lose = 0
        self.asked: list[tuple[str, int]] = []

    def get(self, path: str) -> bytes:
        return self._read(self.http.get(path, base_url="https://enroll.test"))

    def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        octets = json.dumps(document).encode()
        answer = self._read(self.http.post(path, data=octets, content_type="application/json", base_url="https://enroll.test"))
        self.asked.append((path, len(octets)))
        if self.lose:
            self.lose -= 1
            raise Unavailable("service-unreachable", "The answer was lost.", retry_after=0)
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    @staticmethod
    def _read(answer: Any) -> bytes:
        octets: bytes = answer.get_data()
        if answer.status_code < 400:
            return octets
        problem = json.loads(octets)
        assert answer.status_code < 500 or answer.status_code == 503, problem
        raise (Unavailable if answer.status_code == 503 else Refused)(problem["code"], problem["detail"])


def no_receipts(leaf: Digest) -> Mapping[str, Any]:
    raise Unavailable("leaf-pending", f"Nothing of {leaf.hex()} is published here.")


def served(world: World) -> Wire:
    enrolment = Enrolment(
        signer=DirectSigner(world),
        reader=world.store.reading,
        receipts=no_receipts,
        clock=world.clock,
        deployment=DEPLOYMENT,
        issuers=tuple(world.issuers.by_id.values()),
        profiles=world.profiles,
        default_issuer=ISSUING,
    )
    return Wire(create_app(enrolment, chance=SystemChance(), version="0", url="https://enroll.test"))


class Far(Line):
    """A station that has nothing of the deployment but its address and its root."""

    def __init__(self, world: World, path: Path, name: str = "line-3", operator: str = "ada") -> None:
        super().__init__(world, path, name, operator)
        self.wire = served(world)
        self.ca = distant.Distant(self.wire, [root().certificate])

    def log_in(self, count: int = 5) -> None:
        shift, header = self.ca.open_shift(self.asked(count=count).evidence)
        self.station.begin(shift, header, self.ca.issuers[shift.issuer].spki)

    def bring_units(self) -> bringing.Brought:
        at = self.file
        return bringing.bring_parts(self.ca, at.path, self.key, answers=at.answers)

    def close_books(self) -> int:
        bringing.write_records(self.station, self.file.path, self.key, issuers=tuple(self.ca.issuers.values()))
        return bringing.have_sealed(self.ca, self.station, largest=bringing.LARGEST_PART)

    def part(self, first: int = 1, count: int | None = None) -> UnitPart:
        """Units of the file, from this one on, under a seal of their own."""
        at = self.file
        with at.path.open("rb") as file:
            header = file.readline().rstrip(b"\n")
        texts = list(folder.unit_lines(at.path))
        last = len(texts) if count is None else first - 1 + count
        head = rule.read_header(header).head
        for text in texts[:last]:
            head = rule.chained(head, text)
        seal = rule.seal(at.quota, last, head, self.key.sign)
        return UnitPart(header.decode(), first, tuple(text.decode() for text in texts[first - 1 : last]), seal.decode())

    def send(self, part: UnitPart) -> str:
        return code_of(lambda: self.ca.bring(part))


@pytest.fixture
def made_with() -> dict[str, Any]:
    return {"tenants": (ACME, ZETA)}


@pytest.fixture
def far(world: World, tmp_path: Path) -> Far:
    return Far(world, tmp_path / "stations")


def issued(world: World) -> list[str]:
    return [str(row.device) for row in world.rows() if not row.device.startswith("fleetca:")]


# ---- A shift ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-012", "REQ-KEY-023", "REQ-KEY-050")
def test_a_shift_over_the_network_agrees_to_the_unit(far: Far, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "LARGEST_PART", 1200)
    far.log_in(20)
    far.make(*(f"SN-{at}" for at in range(9)))
    far.make("SN-9")
    done = far.bring_units()
    assert (done.certified, done.refused, done.agrees) == (10, 0, True)
    assert far.close_books() == 10
    parts = [size for path, size in far.wire.asked if path == "/v1/line/units"]
    assert len(parts) > 2
    assert max(parts) < 64 * 1024
    told = verifying.verify(far.station, [world.issuer.certificate])
    assert (told.units, told.certificates, told.records, told.sealed, list(told.findings)) == (10, 10, 10, 10, [])
    assert sorted(issued(world)) == [f"SN-{at}" for at in range(10)]
    leaves = world.leaves("issuance")[-10:]
    assert {(leaf["role"], leaf["evidence"], leaf["actor"]) for leaf in leaves} == {("enroll", "unit", "line:line-3/ada")}
    assert [leaf["taken"] for leaf in world.leaves("units")][-1] == 10
    # The same again changes nothing, and goes on where more was made.
    before = len(world.leaves())
    assert far.bring_units().agrees
    assert far.close_books() == 10
    assert len(world.leaves()) == before
    far.make("SN-10")
    assert far.bring_units().certified == 11
    assert far.close_books() == 11


@pytest.mark.req("REQ-KEY-050")
def test_answers_that_were_lost_are_given_again_and_nothing_is_issued_twice(
    far: Far, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "LARGEST_PART", 1000)
    far.log_in(9)
    far.make("SN-1", "SN-2", "SN-3", "SN-4")
    far.wire.lose = distant.TRIES
    assert code_of(far.bring_units) == "service-unreachable"
    assert issued(world)
    # More is made before the network is back: the next part begins with what was brought, and goes further.
    far.make("SN-5", "SN-6")
    monkeypatch.setattr(bringing, "LARGEST_PART", 3000)
    far.wire.lose = 1
    assert (far.bring_units().certified, len(issued(world))) == (6, 6)
    far.wire.lose = distant.TRIES
    assert code_of(far.close_books) == "service-unreachable"
    assert far.close_books() == 6
    assert verifying.verify(far.station, [world.issuer.certificate]).findings == []
    far.station.seals.unlink()
    assert far.close_books() == 6, "countersignatures that were never kept, or lost, are told again"


def test_who_is_refused_is_told_and_the_others_are_not_held_up(far: Far, world: World) -> None:
    taken = world.enrol("SN-2")
    far.log_in()
    far.make("SN-1", "SN-2", "SN-3", "SN-4", pairs=[Keypair(), Keypair(), taken, Keypair()])
    done = far.bring_units()
    assert (done.certified, done.refused) == (2, 2)
    refused = {one["device"]: one["refused"] for one in bringing.answers(far.file.answers) if "refused" in one}
    assert refused == {"SN-2": "unit-locked", "SN-3": "key-of-another-device"}
    assert far.close_books() == 2


# ---- What is refused ----------------------------------------------------------------------------------------------------


def changed(part: UnitPart, at: int, **words: Any) -> UnitPart:
    found = json.loads(part.lines[at]) | words
    return replace(part, lines=(*part.lines[:at], canonical(found).decode(), *part.lines[at + 1 :]))


def resealed(far: Far, part: UnitPart) -> UnitPart:
    """As a station would that tells another story."""
    head, quota = rule.read_header(part.header.encode()).head, far.file.quota
    for text in part.lines:
        head = rule.chained(head, text.encode())
    return replace(part, seal=rule.seal(quota, part.first - 1 + len(part.lines), head, far.key.sign).decode())


BAD: list[tuple[str, str, Callable[[Far, UnitPart], UnitPart]]] = [
    ("a unit was changed", "line-changed", lambda _, part: changed(part, 1, device="SN-9")),
    ("a unit was taken out", "line-order", lambda _, part: replace(part, lines=(part.lines[0], part.lines[2]))),
    ("units were moved", "line-order", lambda _, part: replace(part, lines=part.lines[::-1])),
    ("a unit stands twice", "line-order", lambda _, part: replace(part, lines=(part.lines[0], *part.lines[:2]))),
    ("its end was cut off", "line-changed", lambda _, part: replace(part, lines=part.lines[:2])),
    ("a device stands twice", "line-repeats", lambda far, part: resealed(far, changed(part, 1, device="SN-1"))),
    ("the seal is of another key", "line-signature", lambda far, part: replace(part, seal=other_seal(far, part, Keypair()))),
    ("the seal is no seal", "line-form", lambda _, part: replace(part, seal='{"sealed":3}')),
    ("the seal is a unit", "line-order", lambda _, part: replace(part, seal=part.lines[0])),
    ("a line is no JSON", "line-form", lambda _, part: replace(part, lines=("{" * 200,))),
    ("a line is in another form", "line-form", lambda _, part: replace(part, lines=(part.lines[0].replace(",", ", "), *part.lines[1:]))),
    ("a unit has a field that nobody knows", "line-form", lambda _, part: changed(part, 0, password="x")),
    ("the quota was changed", "shift-unknown", lambda _, part: replace(part, header=part.header.replace('"count":5', '"count":9'))),
    ("the quota is of another shift", "shift-unknown", lambda _, part: replace(part, header=part.header.replace('"shift":1', '"shift":7'))),
    ("the quota is none", "line-form", lambda _, part: replace(part, header='{"line":1}')),
    ("units before it are missing", "line-gap", lambda _, part: replace(part, first=3, lines=part.lines[2:])),
    ("its number is wrong", "line-gap", lambda _, part: replace(part, first=2)),
    ("it holds nothing", "bad-field", lambda _, part: replace(part, lines=())),
    ("it holds too much", "bad-field", lambda _, part: replace(part, lines=("{}",) * 257)),
    ("it is larger than any body", "body-too-large", lambda _, part: replace(part, lines=(part.lines[0] + " " * 70_000,))),
    ("its first is no number of a unit", "bad-field", lambda _, part: replace(part, first=0)),
]


def other_seal(far: Far, part: UnitPart, key: Keypair) -> str:
    found = rule.Reader(part.header.encode())
    for text in part.lines:
        found.feed(text.encode())
    return rule.seal(far.file.quota, found.count, found.head, key.sign).decode()


@pytest.mark.req("REQ-KEY-050")
def test_a_part_that_is_not_as_its_station_made_it_is_refused_by_name_and_nothing_of_it_counts(far: Far, world: World) -> None:
    far.log_in()
    far.make("SN-1", "SN-2", "SN-3")
    good = far.part()
    wrong = {words: said for words, code, spoil in BAD if (said := far.send(spoil(far, good))) != code}
    assert wrong == {}
    assert issued(world) == []
    assert world.leaves("units") == []
    assert far.send(good) == ""


@pytest.mark.req("REQ-KEY-050")
def test_what_was_taken_stays_as_it_was_taken(far: Far, world: World) -> None:
    far.log_in()
    far.make("SN-1", "SN-2")
    older = far.part(1, 1)
    far.make("SN-3")
    assert far.send(far.part()) == ""
    before = len(world.leaves())
    assert far.send(older) == "", "an older part is what stands on record, and is answered alike"
    assert far.send(far.part(2, 1)) == ""
    assert far.send(resealed(far, changed(far.part(), 1, device="SN-9"))) == "line-forked"
    assert far.send(changed(far.part(2, 1), 0, unit=3)) == "line-forked"
    # Whoever copied the station may go on from what was taken, once; the other one is told.
    far.make("SN-4")
    fork = resealed(far, changed(far.part(), 3, device="SN-9"))
    assert far.send(far.part(3)) == ""
    assert far.send(fork) == "line-forked"
    assert issued(world) == ["SN-1", "SN-2", "SN-3", "SN-4"]
    assert len(world.leaves("units")) == 2
    assert len(world.leaves()) > before


@pytest.mark.req("REQ-KEY-012")
def test_past_quota_or_time_nothing_is_taken_and_a_disabled_operators_units_neither(far: Far, world: World) -> None:
    far.log_in(2)
    far.make("SN-1", "SN-2")
    part = far.part()
    beyond = canonical(
        json.loads(part.lines[1]) | {"unit": 3, "device": "SN-3", "csr": base64.b64encode(Keypair().csr()).decode()}
    ).decode()
    assert far.send(resealed(far, replace(part, lines=(*part.lines, beyond)))) == "quota-exceeded"
    late = json.loads(part.lines[1])["date"] + 10 * 86400
    assert far.send(resealed(far, changed(part, 1, date=late))) == "shift-over"
    world.clock.at += 90 * 86400
    assert far.send(part) == "shift-closed"
    world.clock.at -= 90 * 86400
    world.operators.disable(OperatorName("ada"), world.peer(Role.operator))
    assert far.send(part) == "operator-unknown"
    assert issued(world) == []


def test_records_that_are_not_this_stations_or_not_what_was_countersigned_are_refused(far: Far, world: World) -> None:
    far.log_in()
    far.make("SN-1", "SN-2")
    far.bring_units()
    bringing.write_records(far.station, far.file.path, far.key, issuers=tuple(far.ca.issuers.values()))
    first, second = (each.octets for each in bringing.read_records(far.station.records)[0])

    def sealed(station: str, *records: bytes) -> str:
        return code_of(lambda: far.ca.seal_records(station, records))

    assert sealed("line-9", first) == "no-such-station"
    assert sealed("line-3", second) == "record-chain"
    assert sealed("line-3", first.replace(b"SN-1", b"SN-7")) == "record-chain"
    assert sealed("line-3", first + b"  token: x\n") == "record-form"
    assert sealed("line-3", first.replace(b"batch", b"secret") if b"batch" in first else b"password: x\n") == "record-secret"
    assert sealed("line-3", b"!!python/object:os.system {}\n") == "record-form"
    assert sealed("line-3", b"device_id: &a SN-1\n") == "record-form"
    assert sealed("line-3") == "bad-field"
    assert world.leaves("record-seal") == []
    assert sealed("line-3", first, second) == ""
    stranger = Keypair()
    forged = provisioning.sign(provisioning.read(first), stranger.sign).octets
    assert sealed("line-3", forged) == "record-chain", "who cannot sign as the station learns nothing of it"


def test_another_folder_of_the_same_station_is_told_that_its_records_are_not_those(far: Far, tmp_path: Path) -> None:
    far.log_in()
    far.make("SN-1")
    far.bring_units()
    far.close_books()
    text = far.station.records.read_bytes()
    record = provisioning.read(next(provisioning.split(text)))
    far.station.seals.unlink()
    other = provisioning.sign(replace(record, operator="eve"), far.key.sign)
    far.station.records.write_bytes(provisioning.join([other]))
    assert code_of(far.close_books) in {"record-forked", "record-chain"}
    assert far.station.seals.read_bytes() == b""


# ---- Who may ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-053")
def test_through_the_web_process_comes_what_a_station_or_an_operator_signed_and_nothing_else(far: Far, world: World) -> None:
    far.log_in()
    far.make("SN-1")
    web = world.peer(Role.enroll)
    line = world.provisioning
    assert code_of(lambda: line.add_station("line-8", Keypair().spki, web)) == "not-allowed"
    assert code_of(lambda: line.take([far.file.path.read_bytes()], web)) == "not-allowed"
    for role in (Role.status, Role.publisher):
        assert code_of(lambda role=role: line.take_part(far.part(), world.peer(role))) == "not-allowed"  # type: ignore[misc]
        assert code_of(lambda role=role: line.seal("line-3", [b"x"], world.peer(role))) == "not-allowed"  # type: ignore[misc]
    device = world.enrol("pump-1")
    for by in (device, world.operator("eve", "revoker"), world.operator("sam", "auditor")):
        assert code_of(lambda by=by: far.ca.open_shift(far.asked(by=by).evidence)) in {"not-an-operator", "operator-role"}  # type: ignore[misc]
    assert code_of(lambda: far.ca.open_shift(world.message(far.operator, Act.confirm))) == "message-for-another-act"
    old = world.message(far.operator, Act.shift, issued_at=world.clock.at - 3600, **shift_fields(far))
    assert code_of(lambda: far.ca.open_shift(old)) == "message-out-of-time"


def shift_fields(far: Far) -> dict[str, Any]:
    asked = far.asked()
    return {"station": (asked.station, asked.station_key.hex(), asked.count), "profile": asked.profile, "lifetime": asked.lifetime}


@pytest.mark.req("REQ-KEY-106")
def test_a_tenants_operator_works_at_a_station_of_the_tenant_and_makes_its_units_only(far: Far, world: World, tmp_path: Path) -> None:
    ann = world.operator("ann", "line", tenant="acme")
    nowhere = replace_station(far, "line-99", ann)
    assert code_of(lambda: far.ca.open_shift(far.asked(by=ann).evidence)) == nowhere == "no-such-station"
    acme = Far(world, tmp_path / "acme", "acme-1", "bea")
    assert code_of(lambda: acme.ca.open_shift(acme.asked(by=ann).evidence)) == "no-such-station", "it is the house's"
    line = acme.key.spki
    assert (
        code_of(lambda: world.provisioning.add_station("acme-1", line, world.peer(Role.operator), tenant=TenantId("acme")))
        == "station-exists"
    )
    key = MemoryKey.generate(KeyName("station"), AlgorithmName("p256"))
    world.provisioning.add_station("acme-2", key.spki, world.peer(Role.operator), tenant=TenantId("acme"))
    acme.key, acme.operator, acme.station.name = key, ann, "acme-2"
    shift, header = acme.ca.open_shift(acme.asked().evidence)
    assert (shift.tenant, shift.issuer, set(acme.ca.issuers)) == ("acme", "acme-ca", {"acme-ca", "root"})
    acme.station.begin(shift, header, acme.ca.issuers[shift.issuer].spki)
    acme.make("acme:SN-1", "SN-2", "zeta:SN-3")
    done = acme.bring_units()
    assert (done.certified, done.refused) == (1, 2)
    refused = {one["device"]: one["refused"] for one in bringing.answers(acme.file.answers) if "refused" in one}
    assert refused == {"SN-2": "device-not-yours", "zeta:SN-3": "device-not-yours"}
    (row,) = (one for one in world.rows() if one.device == "acme:SN-1")
    assert (row.tenant, row.ref.issuer) == ("acme", "acme-ca")
    assert acme.close_books() == 1
    # And the house's line makes nothing that is a tenant's.
    far.log_in()
    far.make("acme:SN-7")
    assert far.bring_units().refused == 1


def replace_station(far: Far, name: str, by: Keypair) -> str:
    kept, far.station.name = far.station.name, name
    try:
        return code_of(lambda: far.ca.open_shift(far.asked(by=by).evidence))
    finally:
        far.station.name = kept


def test_a_service_whose_issuers_do_not_lead_to_the_stations_root_is_not_believed(far: Far) -> None:
    other = distant.Distant(far.wire, [far.world.issuer.certificate[:-1]])
    assert code_of(lambda: other.open_shift(far.asked().evidence)) == "issuer-unproven"
    assert other.issuers == {}


def test_units_of_a_lost_database_are_brought_at_the_machine_of_the_CA(far: Far, world: World, tmp_path: Path) -> None:
    far.log_in()
    far.make("SN-1", "SN-2")
    far.bring_units()
    world.close()
    (tmp_path / "new").mkdir()
    world.url = sqlite_url(tmp_path / "new")
    world._open()
    world.recovery.recover()
    far.wire = served(world)
    far.ca = distant.Distant(far.wire, [root().certificate])
    assert far.send(far.part()) == "line-forgotten"
    far.signer = Inside(world)
    assert far.bring().certified == 2
    far.make("SN-3")
    assert far.send(far.part()) == ""
