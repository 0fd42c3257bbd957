"""The provisioning record: its YAML, judged by PyYAML; its chain, with every break named; and the commands (REQ-KEY-023, REQ-KEY-012)."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.der import pem
from ca.keys.memory import MemoryKey
from ca.keys.sealed_file import seal
from ca.model import AlgorithmName, DeviceId, KeyName
from ca.rules import provisioning as rule
from ca.rules.provisioning import Origin, Ours, Record, Seal
from fleetca.cli.main import fleetca
from tests.fakes.certificates import drafted, key, private_key, root, signed
from tests.refusals import code_of

A, B = "sha256:" + "ab" * 32, "sha256:" + "0" * 64
SOURCE = f"""device_id: SN-1001
keys:
  identity_cert: {A}
  bootstrap_ca: {B}
date: 2026-11-22
operator: line-op-7
"""
STATION = MemoryKey.generate(KeyName("station"), AlgorithmName("p256"))
CA = MemoryKey.generate(KeyName("ca"), AlgorithmName("p256"))


@pytest.mark.req("REQ-KEY-023")
def test_the_record_of_the_source_is_read_and_written_as_it_is() -> None:
    record = rule.read(SOURCE.encode())
    assert record == Record(DeviceId("SN-1001"), A, B, "2026-11-22", "line-op-7")
    assert rule.write(record) == SOURCE.encode()
    assert yaml.safe_load(SOURCE)["date"] == dt.date(2026, 11, 22)


@pytest.mark.req("REQ-KEY-023")
@pytest.mark.parametrize(
    "text",
    [
        SOURCE.replace("SN-1001", '"SN-1001"').replace(A, f"'{A}'"),
        "---\n# made by hand\n\n" + SOURCE.replace("line-op-7", "line-op-7  # night shift"),
        SOURCE.replace("  identity", "      identity").replace("  bootstrap", "      bootstrap"),
        "operator: line-op-7\ndate: '2026-11-22'\nkeys: # of the unit\n"
        + "".join(SOURCE.splitlines(keepends=True)[2:4])
        + "device_id: SN-1001\n",
    ],
)
def test_other_hands_write_the_same_record(text: str) -> None:
    assert rule.write(rule.read(text.encode())) == SOURCE.encode()


@pytest.mark.req("REQ-KEY-023")
@pytest.mark.parametrize(
    ("sentence", "text", "code"),
    [
        ("a short digest", SOURCE.replace("ab" * 32, "abcd"), "record-field"),
        ("a digest in capitals", SOURCE.replace("ab" * 32, "AB" * 32), "record-field"),
        ("another hash", SOURCE.replace("sha256:ab", "sha512:ab"), "record-field"),
        ("no such day", SOURCE.replace("11-22", "13-22"), "record-field"),
        ("a device that is a path", SOURCE.replace("SN-1001", "../x"), "record-field"),
        ("an unknown field", SOURCE + "colour: red\n", "record-form"),
        ("an unknown key", SOURCE.replace("bootstrap_ca", "other_ca"), "record-form"),
        ("a field that is missing", SOURCE.replace("operator: line-op-7\n", ""), "record-form"),
        ("a field twice", SOURCE + "operator: eve\n", "record-form"),
        ("a field that looks like a secret", SOURCE + "private_key: abc\n", "record-secret"),
        ("a passphrase below keys", SOURCE.replace("  bootstrap_ca", "  passphrase: x\n  bootstrap_ca"), "record-secret"),
        ("a value that looks like a secret", SOURCE.replace("line-op-7", '"-----BEGIN PRIVATE KEY-----"'), "record-secret"),
        ("an anchor", SOURCE.replace("line-op-7", "&a line-op-7"), "record-form"),
        ("an alias", SOURCE.replace("line-op-7", "*a"), "record-form"),
        ("a tag", SOURCE.replace("line-op-7", "!!python/object/apply:os.system [ls]"), "record-form"),
        ("a list", SOURCE.replace("line-op-7", "[a, b]"), "record-form"),
        ("a block of text", SOURCE.replace("line-op-7", "|\n  a"), "record-form"),
        ("a merge", SOURCE + "<<: x\n", "record-form"),
        ("tabs", SOURCE.replace("  identity", "\tidentity"), "record-form"),
        ("two values in a line", SOURCE.replace("line-op-7", "a: b"), "record-form"),
        ("quotes that do not close", SOURCE.replace("line-op-7", '"line'), "record-form"),
        ("something behind the quotes", SOURCE.replace("line-op-7", '"a" b'), "record-form"),
        ("three levels", SOURCE.replace(f"identity_cert: {A}", "identity_cert:\n    x: y"), "record-form"),
        ("fields below nothing", "  " + SOURCE, "record-form"),
        ("keys with a value", SOURCE.replace("keys:", "keys: x", 1), "record-form"),
        ("two documents", SOURCE + "---\n" + SOURCE, "record-form"),
        ("no UTF-8", "\udcff" + SOURCE, "record-form"),
        ("nothing", "", "record-form"),
        ("a long one", SOURCE + "#" * 20_000, "record-form"),
        ("many lines", SOURCE + "\n" * 100, "record-form"),
        ("half of our fields", SOURCE + "record:\n  station: line-3\n", "record-form"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 and " " in value else "",
)
def test_what_is_no_record_is_refused_by_name(sentence: str, text: str, code: str) -> None:
    assert code_of(lambda: rule.read(text.encode(errors="surrogateescape"))) == code, sentence


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(lambda text: text.isprintable())
HEX = st.binary(min_size=32, max_size=32).map(lambda octets: "sha256:" + octets.hex())
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,12}", fullmatch=True)
OURS = st.builds(
    Ours, NAMES, st.integers(1, 10**11), HEX, st.sampled_from(Origin), NAMES, st.from_regex(r"[0-9a-f]{2,40}", fullmatch=True), HEX, NAMES,
    st.just("") | WORDS, st.just("") | NAMES, st.just("") | HEX, st.just("") | WORDS,
)  # fmt: skip
RECORDS = st.builds(Record, NAMES.map(DeviceId), HEX, HEX, st.dates(dt.date(1000, 1, 1)).map(str), WORDS, st.none() | OURS)


@pytest.mark.req("REQ-KEY-023")
@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_every_record_goes_there_and_back_and_a_YAML_reader_sees_the_same(record: Record) -> None:
    if code_of(lambda: rule.write(record)) == "record-secret":
        return
    octets = rule.write(record)
    assert rule.read(octets) == record
    assert rule.write(rule.read(octets)) == octets
    told = yaml.safe_load(octets)
    assert (told["device_id"], told["operator"], told["keys"]) == (
        record.device,
        record.operator,
        {"identity_cert": record.identity_certificate, "bootstrap_ca": record.bootstrap_ca},
    )
    assert str(told["date"]) == record.date
    if record.ours is not None:
        assert told["record"].pop("number") == record.ours.number
        assert all(isinstance(value, str) for value in told["record"].values())
        assert told["record"]["serial"] == record.ours.serial


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_reading_ends_with_a_record_or_a_refusal(octets: bytes) -> None:
    assert code_of(lambda: rule.read(SOURCE.encode() + octets)) in {"", "record-form", "record-field", "record-secret"}


# ---- The chain ------------------------------------------------------------------------------------------------------


def chain(count: int, station: str = "line-3", by: MemoryKey = STATION, start: int = 0) -> list[Record]:
    made: list[Record] = []
    for unit in range(start, start + count):
        number, previous = rule.next_of(made[-1] if made else None)
        digest = f"sha256:{unit:064x}"
        bare = Record(
            DeviceId(f"SN-{unit}"), A, B, "2026-11-22", "line-op-7",
            Ours(station, number, previous, Origin.on_device, "issuing", f"{unit:04x}", digest),
        )  # fmt: skip
        made.append(rule.sign(bare, by.sign))
    return made


def seal_of(records: list[Record], by: MemoryKey = CA) -> Seal:
    last = records[-1]
    assert last.ours is not None
    return Seal(last.ours.station, len(records), last.digest, by.sign(rule.seal_octets(last.ours.station, len(records), last.digest)))


def judged(records: list[Record], *seals: Seal) -> list[str]:
    through = [rule.read(octets) for octets in rule.split(rule.join(records))]
    return rule.judge(through, station_spki=STATION.spki, seals=seals, ca_spki=CA.spki)


GOOD = chain(6)


def test_an_honest_chain_has_no_break() -> None:
    assert judged(GOOD, seal_of(GOOD), seal_of(GOOD[:3])) == []
    assert judged([]) == []


def edited(place: int, **change: Any) -> list[Record]:
    return [replace(one, octets=b"", **change) if number == place else one for number, one in enumerate(GOOD)]


@pytest.mark.req("REQ-KEY-012")
@pytest.mark.parametrize(
    ("sentence", "records", "words"),
    [
        ("one is dropped", GOOD[:2] + GOOD[3:], "Record 4 stands where 3 belongs"),
        ("two are swapped", [GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]], "Record 3 stands where 2 belongs"),
        ("one is repeated", [*GOOD, GOOD[5]], "Record 6 stands where 7 belongs"),
        ("an operator is changed", edited(2, operator="eve"), "Record 3 was not signed so by its station"),
        ("a unit is renamed", edited(0, device=DeviceId("SN-99")), "Record 1 was not signed so"),
        ("what follows an edit", edited(2, operator="eve"), "Record 4 does not follow the one before it"),
        ("another station's key signed", chain(2, by=CA), "Record 1 was not signed so"),
        ("another station's record", [*GOOD, *chain(1, "line-4")], "is of another station, line-4"),
        ("a record of the source alone", [*GOOD, rule.read(SOURCE.encode())], "Record 7 is of no station"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_a_break_in_the_chain_is_named(sentence: str, records: list[Record], words: str) -> None:
    found = judged(records)
    assert any(words in one for one in found), (sentence, found)
    assert code_of(lambda: rule.check(records, station_spki=STATION.spki)) == "record-chain"


@pytest.mark.req("REQ-KEY-012")
def test_a_unit_or_a_key_is_recorded_once() -> None:
    last = GOOD[-1]
    assert last.ours is not None
    number, previous = rule.next_of(last)
    for device, spki in ((GOOD[1].device, "sha256:" + "9" * 64), (DeviceId("SN-77"), last.ours.spki)):
        again = rule.sign(replace(last, device=device, ours=replace(last.ours, number=number, previous=previous, spki=spki)), STATION.sign)
        assert [one for one in judged([*GOOD, again]) if "has already" in one], device


@pytest.mark.req("REQ-KEY-012")
def test_what_the_CA_countersigned_the_station_itself_cannot_make_anew() -> None:
    seal = seal_of(GOOD)
    remade = chain(6, start=100)
    assert judged(remade) == [], "by itself it holds"
    assert judged(remade, seal) == ["Record 6 is not the one that the CA saw: the chain was made anew."]
    assert judged(GOOD[:4], seal) == ["The CA saw 6 records, and 4 are left: the end was cut off."]
    assert judged(GOOD, seal_of(GOOD, by=STATION)) == ["The countersignature over 6 records is not the CA's."]
    assert judged(GOOD, replace(seal, count=5)) == ["The countersignature over 5 records is not the CA's."]


def test_octets_beside_what_was_signed_are_noticed() -> None:
    text = rule.join(GOOD).replace(b"operator: line-op-7\n", b"operator: line-op-7  # or not\n", 1)
    found = rule.judge([rule.read(octets) for octets in rule.split(text)], station_spki=STATION.spki)
    assert any("Record 1 was not signed so" in one for one in found)


# ---- The commands ---------------------------------------------------------------------------------------------------


def line(*arguments: str | Path) -> Any:
    return CliRunner().invoke(fleetca, ["line", *map(str, arguments)])


@pytest.mark.req("REQ-KEY-012", "REQ-KEY-023")
def test_a_station_records_its_units_and_anybody_checks_them(tmp_path: Path) -> None:
    station = private_key("p256", "station")
    (tmp_path / "station.key").write_text(seal(station, b"of the station"))
    (tmp_path / "passphrase").write_text("of the station\n")
    (tmp_path / "passphrase").chmod(0o600)
    (tmp_path / "station.pub").write_text(pem.pem("PUBLIC KEY", key("p256", "station").spki))
    (tmp_path / "unit.pem").write_text(pem.pem(pem.CERTIFICATE, signed(drafted(), key("p256", "issuing"))))
    (tmp_path / "other.der").write_bytes(signed(drafted(kind="p384", number=4), key("p256", "issuing")))
    (tmp_path / "ca.pem").write_text(pem.pem(pem.CERTIFICATE, root().certificate))
    chain_file = tmp_path / "line-3.yaml"

    def record(device: str, certificate: str) -> Any:
        return line(
            "record", chain_file, "--station", "line-3", "--key", tmp_path / "station.key", "--key-passphrase-file", tmp_path / "passphrase",
            "--device", device, "--certificate", tmp_path / certificate, "--ca", tmp_path / "ca.pem", "--operator", "Ann B.", "--batch", "lot 7",
        )  # fmt: skip

    assert record("SN-1", "unit.pem").exit_code == 0
    assert record("SN-2", "other.der").exit_code == 0
    assert [each["record"]["number"] for each in yaml.safe_load_all(chain_file.read_text())] == [1, 2]
    again = record("SN-2", "other.der")
    assert getattr(again.exception, "code", None) == "record-chain", "a unit is provisioned once"
    done = line("check", chain_file, "--key", tmp_path / "station.pub")
    assert (done.exit_code, done.output.count("\n")) == (0, 3), done.output
    whole = chain_file.read_bytes()
    for broken in (whole.replace(b"SN-1", b"SN-9"), whole[: whole.rindex(b"---")].replace(b"lot 7", b"lot 8"), whole[:-40]):
        chain_file.write_bytes(broken)
        for refused in (line("check", chain_file, "--key", tmp_path / "station.pub"), record("SN-3", "unit.pem")):
            assert getattr(refused.exception, "code", None) in {"record-chain", "record-form"}
        assert chain_file.read_bytes() == broken, "nothing is added to what does not hold"
