"""The factory line: operators log in at stations, units are made against a signed quota with the network cut, and reconciled to the unit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ca.errors import Denied, KeyUnavailable, StoreUnavailable
from ca.keys.memory import MemoryKey
from ca.model import (
    AlgorithmName,
    DeviceId,
    EvidenceKind,
    IssueRequest,
    KeyName,
    OperatorName,
    Reason,
    Role,
    UnitEvidence,
)
from ca.rules import line as rule
from ca.rules import provisioning, rows
from ca.rules.leaf import canonical
from ca.rules.line import Unit
from fleetca.line import bringing, verifying
from fleetca.line.station import Station, read_shift
from tests.databases import sqlite_url
from tests.fakes.factory_line import Line
from tests.fakes.signer_world import Keypair, World
from tests.refusals import code_of


@pytest.fixture
def line(world: World, tmp_path: Path) -> Line:
    return Line(world, tmp_path / "stations")


# ---- A shift with the network cut ---------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-050", "REQ-KEY-012", "REQ-KEY-023")
def test_a_shift_without_a_network_is_reconciled_to_the_unit(line: Line, world: World) -> None:
    shift = line.login(count=4)
    made = line.make("SN-1", "SN-2", "SN-3")
    line.make("SN-4")
    assert [one.number for one in made] == [1, 2, 3]
    assert len(world.rows()) == 1, "the operator's own; nobody asked for more"
    done = line.reconcile()
    assert (done.shift.taken, done.certified, done.refused, done.agrees) == (4, 4, 0, True)
    assert world.store.reading.count_shift(done.shift).issued == 4
    assert [row.device for row in world.rows()][1:] == ["SN-1", "SN-2", "SN-3", "SN-4"]
    records = list(yaml.safe_load_all(line.station.records.read_text()))
    assert [one["device_id"] for one in records] == ["SN-1", "SN-2", "SN-3", "SN-4"]
    assert {one["operator"] for one in records} == {"ada"}
    assert [one["record"]["unit"] for one in records] == [f"{shift.number}/{n}" for n in (1, 2, 3, 4)]
    told = verifying.verify(line.station, [world.issuer.certificate])
    assert (told.units, told.certificates, told.records, told.sealed, list(told.findings)) == (4, 4, 4, 4, [])
    before = line.station.records.read_bytes()
    again = line.reconcile()
    assert (again.certified, line.station.records.read_bytes(), len(world.rows())) == (4, before, 5)


@pytest.mark.req("REQ-KEY-031", "REQ-KEY-050")
def test_log_in_units_and_countersignatures_stand_in_the_record(line: Line, world: World) -> None:
    line.login(count=2)
    line.make("SN-1")
    line.reconcile()
    (opened,), (taken,), (sealed,), (known,) = (world.leaves(kind) for kind in ("shift", "units", "record-seal", "station"))
    assert (opened["operator"], opened["station"], opened["count"]) == ("ada", "line-3", 2)
    assert (taken["first"], taken["taken"], taken["head"]) == (1, 1, line.file.head.hex())
    assert (sealed["count"], known["name"]) == (1, "line-3")
    (issued,) = [leaf for leaf in world.leaves("issuance") if leaf["device"] == "SN-1"]
    assert (issued["actor"], issued["evidence"]) == ("line:line-3/ada", EvidenceKind.unit.value)


@pytest.mark.req("REQ-KEY-050", "REQ-KEY-012")
def test_every_row_of_the_line_has_its_leaf_and_an_edited_row_has_not(line: Line, world: World) -> None:
    line.login(count=2)
    line.make("SN-1")
    line.reconcile()
    line.make("SN-2")
    line.reconcile()
    reading = world.store.reading
    told = {(fact.kind, fact.key): fact for leaf in reading.pending_leaves(999) if (fact := rows.of_leaf(leaf.body)[0]) is not None}
    (shift,), (station,), seals = list(reading.every_shift()), reading.stations(), list(reading.every_record_seal())
    facts = [*rows.of_shift(shift), rows.of_station(station), *map(rows.of_record_seal, seals)]
    assert len(facts) == 5
    assert all(told[fact.kind, fact.key] == fact for fact in facts)
    granted, units = rows.of_shift(replace(shift, count=99, taken=99))
    assert told["shift", granted.key] != granted
    assert told["units", units.key] != units
    assert told["record-seal", "line-3/1"] != rows.of_record_seal(replace(seals[0], last="sha256:0"))
    assert told["station", "line-3"] != rows.of_station(replace(station, spki=world.key.spki))


@pytest.mark.req("REQ-KEY-050")
def test_the_line_stops_at_its_quota_and_the_signer_too(line: Line, world: World) -> None:
    line.login(count=2)
    line.make("SN-1", "SN-2")
    assert code_of(lambda: line.make("SN-3")) == "quota-exceeded"
    at = line.file
    more = rule.write_unit(Unit(3, DeviceId("SN-3"), Keypair().csr(), world.clock.at))
    head = rule.chained(at.head, more)
    forged = at.path.read_bytes() + more + b"\n" + rule.seal(at.quota, 3, head, line.key.sign) + b"\n"
    assert code_of(lambda: line.take(forged)) == "quota-exceeded"
    assert code_of(lambda: line.signer.issue_units(1, [more])) == ""
    assert isinstance(line.signer.issue_units(1, [more])[0], Denied)
    assert line.reconcile().certified == 2


@pytest.mark.req("REQ-KEY-050")
def test_a_station_cannot_write_itself_a_larger_quota(line: Line) -> None:
    line.login(count=2)
    first, _, rest = line.file.path.read_bytes().partition(b"\n")
    document = orjson.loads(first)
    document["quota"]["count"] = 200
    forged = canonical(document) + b"\n" + rest
    assert code_of(lambda: line.take(forged)) == "shift-unknown"
    header = rule.read_header(canonical(document))
    assert code_of(lambda: rule.check_quota(header, line.world.key.spki)) == "quota-signature"


@pytest.mark.req("REQ-KEY-050")
def test_after_its_end_a_shift_makes_nothing_more_and_what_it_made_is_taken_for_a_while(line: Line, world: World) -> None:
    shift = line.login(lifetime=3600)
    line.make("SN-1")
    world.clock.at = shift.not_after + 1
    assert code_of(lambda: line.make("SN-2")) == "shift-over"
    assert line.reconcile().certified == 1
    at = line.file
    late = rule.write_unit(Unit(2, DeviceId("SN-2"), Keypair().csr(), shift.not_after + 1))
    forged = at.path.read_bytes() + late + b"\n" + rule.seal(at.quota, 2, rule.chained(at.head, late), line.key.sign) + b"\n"
    assert code_of(lambda: line.take(forged)) == "shift-over"


def test_a_shift_that_ended_too_long_ago_brings_nothing_new_but_what_was_taken_is_finished(line: Line, world: World) -> None:
    shift = line.login()
    line.make("SN-1")
    line.take()
    world.clock.at = shift.not_after
    line.make("SN-2")
    one_unit = b"".join(line.file.path.read_bytes().splitlines(keepends=True)[:3])
    world.clock.at = shift.accept_until + 1
    assert code_of(line.take) == "shift-closed"
    assert line.take(one_unit).taken == 1
    line.file.path.write_bytes(one_unit)
    # The operator's certificate has ended meanwhile; the unit was taken in time.
    assert line.bring().certified == 1


# ---- Copies, forks and other people's files --------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-050", "REQ-KEY-012")
def test_a_forked_or_older_chain_is_refused_and_the_same_again_is_harmless(line: Line, world: World) -> None:
    line.login(count=9)
    line.make("SN-1")
    copy = line.file.path.read_bytes()
    line.make("SN-2")
    assert line.take().taken == 2
    assert line.take().taken == 2
    assert len(world.leaves("units")) == 1
    assert code_of(lambda: line.take(copy)) == "line-replayed"
    whole = line.file.path.read_bytes()
    # A copy of the station goes on from the first unit by itself.
    line.file.path.write_bytes(copy)
    line.make("SN-7", "SN-8")
    assert code_of(line.take) == "line-forked"
    assert code_of(lambda: line.signer.issue_units(1, [])) == ""
    line.file.path.write_bytes(whole)
    assert line.reconcile().certified == 2
    assert {row.device for row in world.rows()} == {"fleetca:operator:ada", "SN-1", "SN-2"}


def lines_of(line: Line) -> list[bytes]:
    return line.file.path.read_bytes().splitlines(keepends=True)


def sealed_anew(line: Line, units: list[bytes], key: MemoryKey | None = None, *, first: bytes | None = None) -> bytes:
    """A file over these unit lines, sealed by the station's own key or another."""
    top = lines_of(line)[0] if first is None else first
    header = rule.read_header(top.rstrip(b"\n"))
    head = header.head
    for each in units:
        head = rule.chained(head, each.rstrip(b"\n"))
    return top + b"".join(units) + rule.seal(header.quota, len(units), head, (key or line.key).sign) + b"\n"


def forged(line: Line, sentence: str) -> bytes:
    text = lines_of(line)
    top, seal = text[0], text[-1]
    units = [each for each in text if b'"unit":' in each]
    one = orjson.loads(units[1])
    other = MemoryKey.generate(KeyName("other"), AlgorithmName("p256"))

    def changed(**fields: Any) -> bytes:
        return canonical({**one, **fields}) + b"\n"

    return {
        "nothing": b"",
        "no newline at the end": b"".join(text)[:-1],
        "the last line is missing": b"".join(text[:-1]),
        "the last unit and its seal are missing, and the seal of the whole stays": top + units[0] + units[1] + seal,
        "cut in a unit": b"".join(text)[: len(top) + 40],
        "two units change places": top + units[1] + units[0] + units[2] + seal,
        "they do, and take each other's numbers": top
        + canonical({**one, "unit": 1})
        + b"\n"
        + canonical({**orjson.loads(units[0]), "unit": 2})
        + b"\n"
        + units[2]
        + seal,
        "a unit is repeated": top + units[0] + units[0] + units[1] + units[2] + seal,
        "a unit is dropped": top + units[0] + units[2] + seal,
        "a device twice": sealed_anew(line, [units[0], changed(device="SN-1"), units[2]]),
        "a CSR twice": sealed_anew(line, [units[0], changed(csr=orjson.loads(units[0])["csr"]), units[2]]),
        "a device is renamed": top + units[0] + changed(device="SN-9") + units[2] + seal,
        "a unit's batch is added": top + units[0] + changed(batch="lot 8") + units[2] + seal,
        "another key sealed it": sealed_anew(line, units, other),
        "the seal of another count": top + units[0] + units[1] + units[2] + canonical({**orjson.loads(seal), "sealed": 2}) + b"\n",
        "no base64 in the seal": top + units[0] + units[1] + units[2] + canonical({**orjson.loads(seal), "signature": "*"}) + b"\n",
        "a field that nobody knows": sealed_anew(line, [units[0], changed(colour="red"), units[2]]),
        "a field is missing": sealed_anew(line, [units[0], canonical({k: v for k, v in one.items() if k != "date"}) + b"\n"]),
        "spaces": sealed_anew(line, [units[0], json.dumps(one).encode() + b"\n", units[2]]),
        "a field twice": sealed_anew(line, [units[0], units[1].replace(b'{"csr"', b'{"csr":"","csr"'), units[2]]),
        "a list": sealed_anew(line, [units[0], b"[]\n"]),
        "no JSON": sealed_anew(line, [units[0], b"unit\n"]),
        "no origin that is known": sealed_anew(line, [units[0], changed(origin="found")]),
        "a device that is a path": sealed_anew(line, [units[0], changed(device="../x")]),
        "a CSR that is no base64": sealed_anew(line, [units[0], changed(csr="*")]),
        "a number that is text": sealed_anew(line, [units[0], changed(unit="2")]),
        "a line without an end": top + units[0] + b"x" * (rule.LONGEST_LINE + 1),
        "a date before the shift": sealed_anew(line, [changed(unit=1, date=1)]),
        "the quota of nobody": b'{"line":1}\n' + b"".join(text[1:]),
        "a quota with a field more": canonical({**orjson.loads(top), "quota": {**orjson.loads(top)["quota"], "x": 1}}) + b"\n",
        "another version": top.replace(b'"line":1', b'"line":2') + b"".join(text[1:]),
        "another shift's quota": sealed_anew(
            line, units, first=canonical({**orjson.loads(top), "quota": {**orjson.loads(top)["quota"], "shift": 7}}) + b"\n"
        ),
    }[sentence]


BAD = {
    "nothing": "line-form",
    "no newline at the end": "line-cut",
    "the last line is missing": "line-cut",
    "the last unit and its seal are missing, and the seal of the whole stays": "line-changed",
    "cut in a unit": "line-cut",
    "two units change places": "line-order",
    "they do, and take each other's numbers": "line-changed",
    "a unit is repeated": "line-order",
    "a unit is dropped": "line-order",
    "a device twice": "line-repeats",
    "a CSR twice": "line-repeats",
    "a device is renamed": "line-changed",
    "a unit's batch is added": "line-changed",
    "another key sealed it": "line-signature",
    "the seal of another count": "line-changed",
    "no base64 in the seal": "line-form",
    "a field that nobody knows": "line-form",
    "a field is missing": "line-form",
    "spaces": "line-form",
    "a field twice": "line-form",
    "a list": "line-form",
    "no JSON": "line-form",
    "no origin that is known": "line-form",
    "a device that is a path": "bad-device-id",
    "a CSR that is no base64": "line-form",
    "a number that is text": "line-form",
    "a line without an end": "line-form",
    "a date before the shift": "line-time",
    "the quota of nobody": "line-form",
    "a quota with a field more": "line-form",
    "another version": "line-form",
    "another shift's quota": "shift-unknown",
}


@pytest.mark.req("REQ-KEY-050")
def test_a_file_that_is_not_as_its_station_made_it_is_refused_by_name_and_nothing_of_it_counts(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2", "SN-3")
    found = {sentence: code_of(lambda sentence=sentence: line.take(forged(line, sentence))) for sentence in BAD}  # type: ignore[misc]
    assert found == BAD
    assert world.leaves("units") == []
    assert all(world.store.reading.find_unit(1, number) is None for number in (1, 2, 3))
    assert line.take().taken == 3, "as it is, it holds"


def test_in_pieces_of_any_size_it_is_the_same_file(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2")
    octets = line.file.path.read_bytes()
    for size in (1, 7, 1000):
        pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
        assert world.provisioning.take(pieces, world.peer(Role.operator)).head == line.file.head


# ---- One door ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-050")
def test_a_unit_gets_its_certificate_only_as_its_line_was_taken(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1")
    (text,) = [each.rstrip(b"\n") for each in lines_of(line) if b'"unit":' in each]
    csr = rule.read_unit(text).csr

    def ask(shift: int, octets: bytes, request: bytes = csr, role: Role = Role.operator) -> str:
        return code_of(lambda: world.issue(IssueRequest(request, UnitEvidence(shift, octets)), role))

    assert ask(1, text) == "unit-unknown", "before the file was taken"
    assert ask(1, text, role=Role.enroll) == "unit-unknown"
    line.take()
    renamed = canonical({**orjson.loads(text), "device": "SN-9"})
    assert ask(1, renamed) == "unit-unknown"
    assert ask(1, canonical({**orjson.loads(text), "unit": 2})) == "unit-unknown"
    assert ask(2, text) == "unit-unknown"
    assert ask(1, text, Keypair().csr()) == "unit-unknown"
    assert ask(1, text, role=Role.publisher) == "not-allowed"
    assert world.rows()[1:] == []
    assert ask(1, text) == ""
    assert world.issue(IssueRequest(csr, UnitEvidence(1, text)), Role.operator).repeated


@pytest.mark.req("REQ-KEY-041", "REQ-KEY-013")
def test_a_unit_is_provisioned_once_and_a_key_serves_one_unit_for_ever(line: Line, world: World) -> None:
    enrolled, revoked, retired = world.enrol("SN-1"), world.enrol("SN-2"), world.enrol("SN-3")
    world.revoke_certificate(revoked, Reason.keyCompromise)
    world.revoke_device("SN-3")
    line.login(count=9)
    assert code_of(lambda: line.make("SN-8", "SN-8")) == "unit-locked"
    line.make("SN-1", "SN-2", "SN-3", "SN-4", "SN-5", "SN-6", pairs=[Keypair(), Keypair(), Keypair(), enrolled, revoked, retired])
    assert code_of(lambda: line.make("SN-4")) == "unit-locked"
    done = line.reconcile()
    said = {one["device"]: one.get("refused") for one in bringing.answers(line.file.answers)}
    assert said == {
        "SN-1": "unit-locked", "SN-2": "unit-locked", "SN-3": "unit-locked",
        "SN-4": "key-of-another-device", "SN-5": "key-of-another-device", "SN-6": "key-of-another-device",
    }  # fmt: skip
    assert (done.certified, done.refused, done.agrees) == (0, 6, False)
    assert read_records_of(line.station) == []


def read_records_of(station: Station) -> list[provisioning.Record]:
    return bringing.read_records(station.records)[0]


@pytest.mark.req("REQ-KEY-051", "REQ-KEY-013")
def test_a_key_that_everybody_has_gets_no_certificate(line: Line, world: World) -> None:
    line.login(count=9)
    pairs = [Keypair(), Keypair("ed25519"), Keypair(), Keypair()]
    pairs[0].private = ec.derive_private_key(1, ec.SECP256R1())
    pairs[1].private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    pairs[2].private, pairs[2].kind = rsa.generate_private_key(65537, 1024), "rsa-3072"
    line.make("SN-1", "SN-2", "SN-3", "SN-4", pairs=pairs)
    assert line.reconcile().certified == 1
    assert [one.get("refused") for one in bringing.answers(line.file.answers)] == ["known-key", "known-key", "weak-key", None]
    assert code_of(lambda: world.enrol("pump-1", pair=pairs[0])) == "known-key", "by every other way too"


@pytest.mark.req("REQ-KEY-041")
def test_another_stations_unit_is_locked_too(line: Line, world: World, tmp_path: Path) -> None:
    other = Line(world, tmp_path / "others", "line-4", "bob")
    for each in (line, other):
        each.login()
        each.make("SN-1")
        each.reconcile()
    assert [one.get("refused") for one in bringing.answers(other.file.answers)] == ["unit-locked"]


@pytest.mark.req("REQ-KEY-012", "REQ-KEY-053")
def test_only_an_operator_of_the_line_logs_in_with_a_key_of_their_own(line: Line, world: World, tmp_path: Path) -> None:
    def opened(asked: Any, role: Role = Role.operator) -> str:
        return code_of(lambda: world.provisioning.open_shift(asked, world.peer(role)))

    device, revoker = world.enrol("pump-1"), world.operator("eve", "revoker")
    assert opened(line.asked(by=device)) == "not-an-operator"
    assert opened(line.asked(by=revoker)) == "operator-role"
    assert opened(line.asked(), Role.publisher) == "not-allowed"
    assert opened(replace(line.asked(), count=50)) == "message-for-another-act"
    assert opened(replace(line.asked(), station="line-4")) == "message-for-another-act"
    assert opened(replace(line.asked(), lifetime=7200)) == "message-for-another-act"
    assert opened(line.asked(count=0)) == "bad-shift"
    assert opened(line.asked(lifetime=366 * 86400)) == "bad-shift"
    assert opened(line.asked(profile="operator")) == "profile-reserved"
    assert opened(line.asked(profile="nothing")) == "profile-unknown"
    assert opened(line.asked(profile="service")) == "names-required"
    other = Line(world, tmp_path / "others", "line-4", "bob")
    other.key = line.key
    assert opened(other.asked()) == "station-key-differs"
    other.station.name = "line-5"
    assert opened(other.asked()) == "no-such-station"
    world.operators.disable(OperatorName("ada"), world.peer(Role.operator))
    assert opened(line.asked()) == "operator-unknown"
    assert world.leaves("shift") == []


def test_a_disabled_operators_units_are_not_taken(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1")
    world.operators.disable(OperatorName("ada"), world.peer(Role.operator))
    assert code_of(line.take) == "operator-unknown"


def test_a_station_has_one_key_and_no_device_has_it(line: Line, world: World) -> None:
    peer = world.peer(Role.operator)
    assert world.provisioning.add_station("line-3", line.key.spki, peer).name == "line-3"
    other = MemoryKey.generate(KeyName("x"), AlgorithmName("p256"))
    assert code_of(lambda: world.provisioning.add_station("line-3", other.spki, peer)) == "station-exists"
    assert code_of(lambda: world.provisioning.add_station("line-9", line.key.spki, peer)) == "key-of-another-device"
    assert code_of(lambda: world.provisioning.add_station("../x", other.spki, peer)) == "bad-station"
    assert code_of(lambda: world.provisioning.add_station("line-9", other.spki, world.peer(Role.enroll))) == "not-allowed"


def test_somebody_is_logged_in_or_nothing_is_made(line: Line) -> None:
    assert code_of(lambda: line.make("SN-1")) == "nobody-logged-in"
    line.login()
    assert code_of(line.login) == "shift-in-progress"
    assert line.station.end() == 1
    assert code_of(lambda: line.make("SN-1")) == "nobody-logged-in"
    assert line.login().number == 3, "the one that found somebody logged in is open at the CA, and has no file"


# ---- What a crash leaves -----------------------------------------------------------------------------------------------


def test_the_same_message_opens_the_same_shift_also_after_a_crash_before_its_signature(line: Line, world: World) -> None:
    asked, peer = line.asked(), world.peer(Role.operator)
    world.key.broken = KeyUnavailable("hsm-gone", "gone")
    assert code_of(lambda: world.provisioning.open_shift(asked, peer)) == "hsm-gone"
    world.key.broken = None
    world.restart()
    first, header = world.provisioning.open_shift(asked, peer)
    second, again = world.provisioning.open_shift(asked, peer)
    assert (first.number, second.number, header) == (1, 1, again)
    assert len(world.leaves("shift")) == 1
    rule.check_quota(rule.read_header(header), world.key.spki)


def test_no_quota_is_signed_that_the_journal_does_not_have(line: Line, world: World) -> None:
    world.journal.broken = StoreUnavailable("disk", "broken")
    signed = len(world.key.signed)
    assert code_of(lambda: world.provisioning.open_shift(line.asked(), world.peer(Role.operator))) == "disk"
    assert len(world.key.signed) == signed


@pytest.mark.req("REQ-KEY-050")
def test_a_write_that_a_power_cut_tore_was_never_made(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1")
    whole = line.file.path.read_bytes()
    line.make("SN-2")
    longer = line.file.path.read_bytes()
    for end in {*range(len(whole), len(longer), 11), len(longer) - 1}:
        line.file.path.write_bytes(longer[:end])
        at = read_shift(line.file.path)
        assert (at.count, at.size) == (1, len(whole))
    (unit,) = line.make("SN-3")
    assert unit.number == 2
    assert line.reconcile().certified == 2


def test_answers_that_were_torn_are_asked_for_again(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2")
    line.reconcile()
    answers = line.file.answers
    whole = answers.read_bytes()
    for end in (0, 10, len(whole) - 1):
        answers.write_bytes(whole[:end])
        assert line.bring().certified == 2
        assert answers.read_bytes() == whole
    answers.write_bytes(whole.splitlines(keepends=True)[1])
    assert code_of(line.bring) == "answers-form"


def test_records_that_were_torn_are_written_again(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2")
    line.bring()
    issuers = tuple(world.issuers.by_id.values())
    assert bringing.write_records(line.station, line.file.path, line.key, issuers=issuers) == 2
    whole = line.station.records.read_bytes()
    second = whole.rindex(b"---")
    ends = {at + 1 for at in range(len(whole)) if whole[at : at + 1] == b"\n"} | {len(whole) - 1, second + 50, second + 2, second - 1, 3, 0}
    for end in sorted(ends - {len(whole)}):
        missing = 1 if end >= second else 2
        line.station.records.write_bytes(whole[:end])
        assert bringing.write_records(line.station, line.file.path, line.key, issuers=issuers) == missing, end
        assert len(read_records_of(line.station)) == 2
    line.station.seals.write_bytes(b'{"station":')
    assert bringing.have_sealed(line.signer, line.station) == 2
    kept = line.station.seals.read_bytes()
    line.station.seals.write_bytes(kept[:-1])
    assert bringing.have_sealed(line.signer, line.station) == 2
    assert line.station.seals.read_bytes() == kept
    assert verifying.verify(line.station, [world.issuer.certificate]).findings == []


# ---- Records and countersignatures -----------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-012", "REQ-KEY-023")
def test_the_CA_countersigns_what_it_issued_and_nothing_else(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2")
    line.bring()
    issuers = tuple(world.issuers.by_id.values())
    assert code_of(lambda: line.signer.seal_records("line-3", ())) == "bad-request"
    bringing.write_records(line.station, line.file.path, line.key, issuers=issuers)
    first, second = read_records_of(line.station)
    assert first.ours is not None

    def sealed(*records: provisioning.Record) -> str:
        return code_of(lambda: line.signer.seal_records("line-3", [one.octets for one in records]))

    def again(record: provisioning.Record, **ours: Any) -> provisioning.Record:
        assert record.ours is not None
        return provisioning.sign(replace(record, ours=replace(record.ours, **ours)), line.key.sign)

    assert sealed(second) == "record-chain"
    assert sealed(second, first) == "record-chain"
    assert sealed(replace(first, octets=first.octets.replace(b"operator: ada", b"operator: eve"))) == "record-chain"
    assert sealed(provisioning.sign(replace(first, device=DeviceId("SN-9")), line.key.sign)) == "record-certificate"
    assert sealed(again(first, serial="0b" * 20)) == "record-certificate"
    assert sealed(again(first, spki="sha256:" + "0" * 64)) == "record-certificate"
    assert sealed(again(first, station="line-4")) == "record-chain"
    assert world.leaves("record-seal") == []
    seal = line.signer.seal_records("line-3", [first.octets])
    assert (seal.count, seal.last) == (1, first.digest)
    assert line.signer.seal_records("line-3", [first.octets]) == seal
    forged = provisioning.sign(replace(first, device=DeviceId("SN-9")), line.key.sign)
    assert sealed(forged) == "record-chain", "another one was"
    assert sealed(forged, second) == "record-chain"
    # What overlaps is taken as far as it is new.
    assert line.signer.seal_records("line-3", [first.octets, second.octets]).count == 2
    assert line.signer.seal_records("line-3", [second.octets]).count == 2
    assert line.signer.seal_records("line-3", [first.octets]) == seal
    kept = provisioning.Seal("line-3", 1, first.digest, seal.signature)
    assert provisioning.judge([first, second], station_spki=line.key.spki, seals=[kept], ca_spki=world.key.spki) == []


@pytest.mark.req("REQ-KEY-012")
def test_a_countersignature_can_be_nothing_else(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1")
    line.reconcile()
    contexts = (rule.QUOTA, rule.HEAD, provisioning.SEAL, provisioning.CONTEXT, b"fleetca message v1\0", b"\x30")
    assert all(one == other or not one.startswith(other) for one in contexts for other in contexts)
    seen = [next(context for context in contexts if octets.startswith(context)) for octets in world.key.signed]
    assert {rule.QUOTA, provisioning.SEAL} <= set(seen) <= {rule.QUOTA, provisioning.SEAL, b"\x30"}
    assert not any(octets.startswith(b"\x30") for octets in (rule.quota_octets(b"0"), provisioning.seal_octets("0", 1, "")))


@pytest.mark.req("REQ-KEY-012")
def test_whoever_edits_a_stations_folder_is_told_on_with_no_network(line: Line, world: World) -> None:
    line.login()
    line.make("SN-1", "SN-2", "SN-3")
    line.reconcile()
    at = line.station

    def findings(file: Path, edit: Callable[[bytes], bytes]) -> str:
        whole = file.read_bytes()
        file.write_bytes(edit(whole))
        told = verifying.verify(at, [world.issuer.certificate])
        file.write_bytes(whole)
        return " ".join(told.findings)

    path = line.file.path
    assert findings(at.records, lambda octets: octets) == ""
    assert "The CA saw 3 records, and 2 are left" in findings(at.records, lambda octets: octets[: octets.rindex(b"---")])
    assert "Record 2 was not signed so by its station" in findings(at.records, lambda octets: octets.replace(b"SN-2", b"SN-9"))
    assert "has a certificate and no provisioning record" in findings(at.records, lambda octets: octets[: octets.rindex(b"---")])
    assert "3 records are not countersigned" in findings(at.seals, lambda _: b"")
    assert "is not the CA's" in findings(at.seals, lambda octets: octets.replace(b'"count":3', b'"count":2'))
    assert "the seal after unit 3" in findings(path, lambda octets: octets.replace(b"SN-2", b"SN-9")).lower()
    assert "does not end with a seal" in findings(path, lambda octets: b"".join(octets.splitlines(keepends=True)[:-1]))
    first, second, *_ = line.file.answers.read_bytes().splitlines(keepends=True)
    swapped = orjson.loads(first) | {"certificate": orjson.loads(second)["certificate"]}
    assert "over another key than its CSR" in findings(line.file.answers, lambda octets: octets.replace(first, canonical(swapped) + b"\n"))
    assert "units, 2 certificates" in findings(line.file.answers, lambda octets: b"".join(octets.splitlines(keepends=True)[:-1]))
    assert "The quota was not signed by that issuer" in " ".join(verifying.verify(at, [world.issuers.by_id["root"].certificate]).findings)  # type: ignore[index]


# ---- A database that was lost -------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-050")
def test_from_the_journal_alone_the_line_goes_on(line: Line, world: World, tmp_path: Path) -> None:
    line.login(count=3)
    line.make("SN-1", "SN-2")
    line.reconcile()
    line.make("SN-3")
    line.take()
    world.close()
    (tmp_path / "new").mkdir()
    world.url = sqlite_url(tmp_path / "new")
    world._open()
    world.recovery.recover()
    (shift,) = world.store.reading.shifts(before=99, limit=9)
    assert (shift.taken, shift.head) == (3, line.file.head)
    assert [one.sealed for one in world.store.reading.stations()] == [2]
    assert line.reconcile().certified == 3
    assert len({row.device for row in world.rows()}) == 4
    told = verifying.verify(line.station, [world.issuer.certificate])
    assert (told.records, told.sealed, list(told.findings)) == (3, 3, [])
