"""Answers that are signed ahead: the packed spool behind the workers, and files under GET paths (P5, P7, R05)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import ocsp as library
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.der.writer import LAST_TIME
from ca.errors import Broken, Conflict, StoreUnavailable, Unavailable
from ca.model import CertificateState, IssuerId, Reason, RollEntry, Serial
from ca.rules.serial import make_serial
from ocsp.model import Packed, Policy, SerialCheck, Status, Verdict, Window
from ocsp.presign import Presigning, Progress
from ocsp.rules import packed
from ocsp.rules.http import file_path, http_date
from ocsp.rules.issuers import FORMS
from ocsp.seats import Seats
from ocsp.serve import ResponderService
from ocsp.spool.bucket import AnswerBucket
from ocsp.spool.bucket import sweep as sweep_bucket
from ocsp.spool.folder import AnswerFolder, sweep
from ocsp.spool.packed import SpoolReader, SpoolWriter
from tests.fakes import ocsp as fakes
from tests.fakes.ocsp import DAY, HOUR, NOW, World
from tests.fakes.ocsp_fleet import CHECK_KEY, GOOD, HELD, REVOKED, UNISSUED, new_world, ours

ISSUING = IssuerId("issuing")
HASHES = ["sha1", "sha256"]


def many(number: int) -> Serial:
    """A serial of ours for each number."""
    return make_serial(b"\5" + number.to_bytes(16, "big"), CHECK_KEY)


class Desk:
    """A presigner beside a world: its own key, the same record."""

    def __init__(
        self, world: World, folder: Path, *, files: bool = False, policy: Policy | None = None, algorithm: str = "p256", check: SerialCheck | None = None,
        bucket: AnswerBucket | None = None,
    ) -> None:  # fmt: skip
        self.world, self.spool = world, SpoolWriter(folder / "spool")
        self.keys: list[fakes.Key] = []

        def make_key() -> fakes.Key:
            self.keys.append(fakes.new_key(algorithm))
            return self.keys[-1]

        answered = [world.ca.issuer]
        self.seats = Seats(issuers=answered, certifier=world.signer, make_key=make_key, clock=world.clock)
        self.files = folder / "html"
        self.presigning = Presigning(
            roll=world.record, spool=self.spool, files=AnswerFolder(self.files) if files else bucket, seats=self.seats, issuers=answered,
            policy=policy or Policy(), clock=world.clock, check=check,
        )  # fmt: skip
        self.seats.renew()

    def walk(self) -> Progress:
        self.presigning.follow()
        return self.presigning.walk()


def worker(world: World, folder: Path, *, check: SerialCheck | None = None, policy: Policy | None = None) -> ResponderService:
    """A status worker that has just started: it has heard nothing and has no certificate."""
    spool = SpoolReader(folder / "spool")
    spool.look()
    return ResponderService(
        reading=world.record, certifier=world.signer, make_key=fakes.new_key, issuers=[world.ca.issuer], policy=policy or Policy(), clock=world.clock,
        spool=spool, check=check,
    )  # fmt: skip


def asked(world: World, serial: int, hash_name: str = "sha1", **fields: object) -> bytes:
    return fakes.request(fakes.certificate_id(world.ca.issuer, serial, hash_name=hash_name), **fields)  # type: ignore[arg-type]


def said(service: ResponderService, body: bytes) -> str:
    told = library.load_der_ocsp_response(service.reply(fakes.post(body)).body)
    if told.response_status is not library.OCSPResponseStatus.SUCCESSFUL:
        return told.response_status.name
    told.certificates[0].public_key().verify(told.signature, told.tbs_response_bytes, fakes.es256())  # type: ignore[union-attr,call-arg,arg-type]
    return told.certificate_status.name


def deafen(world: World, service: ResponderService) -> None:
    world.record.gone = world.signer.gone = True
    with pytest.raises(StoreUnavailable):
        service.listen()
    service.renew()


# ---- Records ------------------------------------------------------------------------------------------------------------

TIMES = st.integers(0, 2**32 - 2)
RECORDS = st.builds(
    Packed,
    serial=st.integers(1, (1 << 160) - 1),
    form=st.integers(0, 7),
    status=st.builds(Status, st.sampled_from([Verdict.good, Verdict.revoked]), TIMES, st.sampled_from(list(Reason))),
    produced_at=TIMES,
    window=st.builds(Window, TIMES, TIMES, TIMES),
    archive=st.none() | TIMES,
    as_of=st.integers(0, 2**63),
    key_hash=st.binary(min_size=20, max_size=20),
    signature=st.binary(min_size=60, max_size=72),
)


@given(RECORDS, st.data())
@settings(max_examples=200, deadline=None)
def test_a_record_is_read_as_it_was_written_and_a_damaged_one_not_at_all(one: Packed, data: st.DataObject) -> None:
    octets = packed.pack(one, packed.record_octets(72))
    assert packed.unpack(octets) == one
    table = octets + bytes(len(octets))
    assert packed.find(table, 0, len(octets), 2, one.serial, one.form) in {0, len(octets)}
    at = data.draw(st.integers(0, len(octets) - 1))
    damaged = bytearray(octets)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    assert packed.unpack(bytes(damaged)) is None


def test_a_spool_grows_keeps_everything_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocsp.spool.packed._FEWEST", 64)
    writer = SpoolWriter(tmp_path)
    base = Packed(Serial(1), 1, Status(Verdict.good), NOW, Window(NOW, NOW + 9, NOW + 5), None, 7, b"k" * 20, b"s" * 70)
    ones = [base._replace(serial=Serial(many(number)), form=number % 8) for number in range(3000)]
    early = SpoolReader(tmp_path)
    for one in ones:
        writer.put([(ISSUING, one)])
        writer.put([(ISSUING, one)])
    writer.keep(NOW)
    early.look()
    assert early.walked() == NOW
    for reader in (writer, early, SpoolReader(tmp_path)):
        reader.look()
        assert all(reader.get(ISSUING, one.serial, one.form) == one for one in ones)
        assert reader.get(ISSUING, ones[0].serial, 7) is None
        assert reader.filled() == 3000
    # Longer signatures need longer records.
    long = base._replace(signature=b"s" * 3309)
    writer.put([(ISSUING, long)])
    early.look()
    assert early.get(ISSUING, base.serial, 1) == long
    assert all(early.get(ISSUING, one.serial, one.form) == one for one in ones)
    with pytest.raises(Conflict, match="Another process writes"):
        SpoolWriter(tmp_path)
    writer.close()
    assert SpoolWriter(tmp_path).get(ISSUING, ones[9].serial, ones[9].form) == ones[9]


def test_a_table_that_grows_in_parts_keeps_everything_and_drops_what_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that records lie before, in, right behind and far behind the one that is put together."""
    monkeypatch.setattr("ocsp.spool.packed._FEWEST", 64)
    monkeypatch.setattr("ocsp.spool.packed._COPIED", 5)
    writer = SpoolWriter(tmp_path)
    base = Packed(Serial(1), 1, Status(Verdict.good), NOW, Window(NOW, NOW + 9, NOW + 5), None, 7, b"k" * 20, b"s" * 70)
    ones = [base._replace(serial=Serial(many(number)), form=number % 4) for number in range(500)]
    for number, one in enumerate(ones):
        writer.put([(ISSUING, one)])
        assert all(writer.get(ISSUING, earlier.serial, earlier.form) == earlier for earlier in ones[: number + 1 : 7])
    table = writer._tables[ISSUING]
    with (tmp_path / f"{ISSUING}.spool").open("r+b") as file:
        file.seek(table.find(ones[3].serial, ones[3].form) + 50)
        file.write(b"\xff")
    size = table.size
    writer.put([(ISSUING, base._replace(signature=b"s" * 200))])
    assert writer._tables[ISSUING].size > size, "longer records"
    assert [one for one in ones if writer.get(ISSUING, one.serial, one.form) != one] == [ones[3]]
    writer.tell_counts()
    assert writer.filled() == 500
    writer.close()


@pytest.mark.parametrize(
    "octets", [b"", b"x" * 5000, b"fleetca ocsp spool 1\n" + b"\xff" * 5000], ids=["empty", "noise", "a length that is not there"]
)
def test_a_damaged_spool_is_an_empty_one(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "issuing.spool").write_bytes(octets)
    reader = SpoolReader(tmp_path)
    reader.look()
    assert reader.get(ISSUING, Serial(5), 1) is None


# ---- Restarts and outages -----------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-010")
def test_P7_a_restart_while_database_and_signer_are_gone_still_answers_until_nextUpdate_and_not_longer(tmp_path: Path) -> None:
    world = new_world()
    assert Desk(world, tmp_path).walk().signed == 6, "three certificates by two hashes"
    service = worker(world, tmp_path)
    deafen(world, service)
    assert service.health().ready
    for later in (0, 100, HOUR - 62):
        world.clock.time = NOW + later
        for hash_name in HASHES:
            assert said(service, asked(world, GOOD, hash_name)) == "GOOD"
            assert said(service, asked(world, REVOKED, hash_name)) == "REVOKED"
        assert said(service, asked(world, UNISSUED)) == "TRY_LATER"
        assert said(service, asked(world, GOOD, "sha384")) == "TRY_LATER"
        assert said(service, asked(world, GOOD, extensions=[fakes.nonce_extension(b"n" * 32)])) == "GOOD", "without its nonce"
    # In front of Flask too, for all but one request a second.
    body = asked(world, GOOD)
    assert service.front.post(body) is None
    assert service.front.post(body) is not None
    world.clock.time = NOW + HOUR - 61
    assert said(service, asked(world, GOOD)) == "TRY_LATER"


def test_P5_an_answer_of_the_spool_is_as_good_as_our_own_when_nothing_changed_since(tmp_path: Path) -> None:
    world = new_world()
    Desk(world, tmp_path).walk()
    service = worker(world, tmp_path)
    service.listen()
    before = len(world.record.asked)
    assert said(service, asked(world, GOOD)) == "GOOD"
    assert len(world.record.asked) == before, "neither a query"
    assert not service.snapshot().responders, "nor a key of our own"


def test_P5_an_answer_that_a_change_made_wrong_is_never_given(tmp_path: Path) -> None:
    world = new_world()
    Desk(world, tmp_path).walk()
    ref = next(ref for ref in world.record.states if ref.serial == GOOD)
    world.record.change(ref, Reason.keyCompromise, NOW)
    fresh, running = worker(world, tmp_path), worker(world, tmp_path)
    for service in (fresh, running):
        service.listen()
        service.renew()
        assert said(service, asked(world, GOOD)) == "REVOKED"
    # Also when the database goes after that, and the answer was never asked for by this hash.
    world.record.gone = True
    assert said(running, asked(world, GOOD, "sha256")) == "TRY_LATER"


def test_P5_a_revocation_is_signed_anew_in_the_spool_and_in_its_file_when_it_is_followed(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path, files=True)
    desk.walk()
    ref = next(ref for ref in world.record.states if ref.serial == GOOD)
    world.record.change(ref, Reason.keyCompromise, NOW)
    assert desk.presigning.follow() == 2
    assert desk.presigning.follow() == 0
    service = worker(world, tmp_path)
    deafen(world, service)
    assert said(service, asked(world, GOOD)) == "REVOKED"
    if is_file(world, GOOD):
        told = library.load_der_ocsp_response((desk.files / path(world, GOOD)).read_bytes())
        assert told.certificate_status is library.OCSPCertStatus.REVOKED


def is_file(world: World, serial: int, hash_name: str = "sha1") -> bool:
    """Keys are made anew for each run: now and then the path of a request is none for a file."""
    return file_path(fakes.certificate_id(world.ca.issuer, serial, hash_name=hash_name)) is not None


def with_files() -> World:
    """A world in which the path of a request about the good certificate can be that of a file."""
    return next(
        world
        for world in (new_world(ca=fakes.authority(use=f"files {number}")) for number in range(20))
        if any(is_file(world, GOOD, hash_name) for hash_name in HASHES)
    )


def path(world: World, serial: int, hash_name: str = "sha1") -> str:
    found = file_path(fakes.certificate_id(world.ca.issuer, serial, hash_name=hash_name))
    assert found is not None
    return found


def test_a_presigner_that_was_away_follows_what_changed_meanwhile(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)
    desk.walk()
    desk.spool.close()
    ref = next(ref for ref in world.record.states if ref.serial == HELD)
    world.record.change(ref, Reason.certificateHold, NOW)
    again = Desk(world, tmp_path)
    assert again.presigning.follow() == 2
    world.record.change(ref, Reason.removeFromCRL, NOW + 1)
    world.clock.time = NOW + 2
    assert again.presigning.follow() == 2
    service = worker(world, tmp_path)
    deafen(world, service)
    assert said(service, asked(world, HELD)) == "GOOD"


@pytest.mark.parametrize("void", [0, 400], ids=["all count", "after many that do not count"])
def test_a_first_walk_copies_its_table_once_however_many_certificates_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, void: int
) -> None:
    monkeypatch.setattr("ocsp.spool.packed._FEWEST", 64)
    monkeypatch.setattr("ocsp.presign._MOST", 5)
    world = new_world()
    world.record.states.clear()
    for number in range(void + 300):
        world.record.issue("issuing", many(number), CertificateState.void if number < void else CertificateState.issued)
    desk = Desk(world, tmp_path)
    sizes: list[int] = []
    desk.presigning.walk(also=lambda _: sizes.extend(table.slots for table in desk.spool._tables.values()))
    assert sorted(set(sizes)) == [64, 1024]
    assert desk.spool.filled() == 600


@pytest.mark.parametrize(
    ("seconds", "pages"), [(0.0, 9), (0.0002, 11), (0.002, 40), (0.02, 102)], ids=["at once", "0.2 ms", "2 ms", "20 ms"]
)
def test_a_revocation_never_waits_long_for_a_page_however_slowly_the_key_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, pages: int
) -> None:
    world = new_world()
    for number in range(1000):
        world.record.issue("issuing", many(number))
    desk = Desk(world, tmp_path)
    sign = desk.keys[0].sign

    def slowly(message: bytes) -> bytes:
        world.clock.passed += seconds
        return sign(message)

    monkeypatch.setattr(desk.keys[0], "sign", slowly)
    ends = [0.0]
    desk.presigning.walk(also=lambda _: ends.append(world.clock.passed))
    assert max(after - before for before, after in pairwise(ends)) < 0.5
    assert len(ends) - 1 <= pages, "and quick keys are not kept waiting by many small questions"
    assert desk.spool.filled() == 2000 + 6


def test_only_what_is_due_is_signed_and_what_was_signed_at_once_spreads(tmp_path: Path) -> None:
    world = new_world()
    for number in range(300):
        world.record.issue("issuing", many(number))
    desk = Desk(world, tmp_path)
    assert desk.walk().signed == 606
    assert desk.walk().signed == 0
    signed = []
    for minute in range(60):
        world.clock.time = NOW + minute * 60
        signed.append(desk.walk().signed)
    assert sum(signed[:14]) == 0
    assert max(signed[15:30]) < 200, "not all of them at once"
    assert sum(signed[14:31]) >= 606
    # No answer is ever past its middle, so that half of it is left to mend what fails.
    service = worker(world, tmp_path)
    deafen(world, service)
    told = library.load_der_ocsp_response(service.reply(fakes.post(asked(world, GOOD))).body)
    assert told.next_update_utc is not None
    assert told.next_update_utc > fakes.moment(world.clock.time + HOUR // 2 - 120)


def test_what_is_issued_after_a_walk_is_signed_ahead_within_a_second(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)
    assert desk.presigning.welcome() == 0, "the first walk does it"
    desk.walk()
    assert desk.presigning.welcome() == 0
    slow = world.record.issue("issuing", many(1), CertificateState.intended)
    world.record.issue("issuing", many(2))
    assert desk.presigning.welcome() == 0, "in their order"
    world.record.states[slow] = CertificateState.issued
    assert desk.presigning.welcome() == 4
    assert desk.presigning.welcome() == 0


def test_what_was_welcomed_is_not_asked_for_again_while_one_behind_it_is_still_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)
    desk.walk()
    before, asked_for = world.record.last_row(), list[int]()
    statuses_after = world.record.statuses_after

    def asking(row: int, limit: int) -> Sequence[RollEntry]:
        asked_for.append(row)
        return statuses_after(row, limit)

    monkeypatch.setattr(type(world.record), "statuses_after", lambda _, row, limit: asking(row, limit))
    for number in range(1, 100):
        world.record.issue("issuing", many(number))
    slow = world.record.issue("issuing", many(100), CertificateState.intended)
    assert desk.presigning.welcome() == 2 * 99
    assert desk.presigning.welcome() == 0
    world.record.states[slow] = CertificateState.issued
    assert desk.presigning.welcome() == 2
    assert asked_for[0] == before
    assert asked_for[-3:] == [before + 99, before + 99, before + 100], "the one that was made, and that nothing came after it"
    assert len(asked_for) <= 6, "pages grow with what there is"


def test_P5_a_revocation_waits_for_one_page_of_new_certificates_and_not_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)
    desk.walk()
    good = next(ref for ref in world.record.states if ref.serial == GOOD)
    statuses_after, seen = world.record.statuses_after, list[Verdict]()

    def asked_for(row: int, limit: int) -> Sequence[RollEntry]:
        if not seen:
            world.record.change(good, Reason.keyCompromise)
        found = desk.spool.get(ISSUING, good.serial, FORMS[0])
        assert found is not None
        seen.append(found.status.verdict)
        return statuses_after(row, limit)

    monkeypatch.setattr(type(world.record), "statuses_after", lambda _, row, limit: asked_for(row, limit))
    for number in range(1, 1000):
        world.record.issue("issuing", many(number))
    assert desk.presigning.welcome() == 2 * 999
    assert seen[0] is Verdict.good
    assert len(seen) > 2
    assert {*seen[1:]} == {Verdict.revoked}


CHECK = SerialCheck(ours, "the key of now")


def test_P5_arithmetic_is_believed_only_while_every_serial_on_record_passes_it(tmp_path: Path) -> None:
    world = new_world()
    service = worker(world, tmp_path, check=CHECK)
    for step in (service.listen, service.renew):
        step()

    def asks_about(serial: int) -> bool:
        service.listen()
        before = len(world.record.asked)
        assert said(service, asked(world, serial)) in {"UNKNOWN", "GOOD"}
        return len(world.record.asked) > before

    assert asks_about(UNISSUED + 1), "nobody has looked yet"
    desk = Desk(world, tmp_path, check=CHECK)
    assert asks_about(UNISSUED + 1)
    desk.walk()
    assert not asks_about(UNISSUED + 1), "all that are on record pass"
    other = worker(world, tmp_path, check=SerialCheck(lambda _: False, "another key"))
    other.listen()
    assert other.snapshot().is_ours is None, "they passed by another key"
    imported = world.record.issue("issuing", 0x1234)
    desk.presigning.welcome()
    assert asks_about(UNISSUED + 1)
    assert said(service, asked(world, imported.serial)) == "GOOD"
    desk.walk()
    assert asks_about(UNISSUED + 1), "and so it stays"
    del world.record.states[imported]
    desk.walk()
    assert not asks_about(UNISSUED + 1)


def test_P5_a_presigner_with_another_check_key_takes_the_proof_of_the_one_before_back(tmp_path: Path) -> None:
    world = new_world()
    first = Desk(world, tmp_path, check=CHECK)
    first.walk()
    assert first.spool.proven() == CHECK.mark
    first.spool.close()
    later = Desk(world, tmp_path, check=SerialCheck(lambda _: False, "the key of later"))
    assert later.spool.proven() is None
    later.walk()
    assert later.spool.proven() is None


def test_RFC6960_2_7_what_was_signed_before_a_CA_was_compromised_is_signed_anew_and_not_given_before(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)
    desk.walk()
    desk.spool.close()
    policy = Policy(compromised={ISSUING: NOW - 5})
    service = worker(world, tmp_path, policy=policy)
    service.listen()
    assert said(service, asked(world, GOOD)) == "TRY_LATER", "the spool still says good; nobody can sign yet"
    Desk(world, tmp_path, policy=policy).walk()
    service.listen()
    assert said(service, asked(world, GOOD)) == "REVOKED"


def test_an_interrupted_walk_goes_on_where_it_was(tmp_path: Path) -> None:
    world = new_world()
    for number in range(1200):
        world.record.issue("issuing", many(number))
    desk = Desk(world, tmp_path)
    desk.presigning.follow()
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        world.record.gone = True

    with pytest.raises(Unavailable):
        desk.presigning.walk(also=stop)
    world.record.gone = False
    finished = desk.presigning.walk(told[-1])
    assert (finished.signed, finished.done) == (2406, True)


def test_without_a_responder_certificate_nothing_is_signed_and_said_so(tmp_path: Path) -> None:
    world = new_world()
    world.signer.gone = True
    progress = Desk(world, tmp_path).walk()
    assert (progress.signed, progress.failed) == (0, 6)


def test_R05_nextUpdate_of_what_is_signed_ahead_is_never_past_the_responder_nor_the_policy(tmp_path: Path) -> None:
    world = new_world(life=600)
    Desk(world, tmp_path).walk()
    service = worker(world, tmp_path)
    deafen(world, service)
    told = library.load_der_ocsp_response(service.reply(fakes.post(asked(world, GOOD))).body)
    assert told.next_update_utc == told.certificates[0].not_valid_after_utc == fakes.moment(NOW + 599)


@pytest.mark.parametrize("algorithm", fakes.ALGORITHMS)
def test_keys_of_every_algorithm_sign_ahead(tmp_path: Path, algorithm: str) -> None:
    if algorithm == "rsa-4096":
        return  # a second for each key; rsa-3072 is the same code
    world = new_world(Policy(archive=DAY))
    desk = Desk(world, tmp_path, files=True, policy=Policy(archive=DAY), algorithm=algorithm)
    assert desk.walk().signed == 6
    service = worker(world, tmp_path)
    deafen(world, service)
    body = service.reply(fakes.post(asked(world, REVOKED))).body
    if is_file(world, REVOKED):
        assert body == (desk.files / path(world, REVOKED)).read_bytes()
    told = library.load_der_ocsp_response(body)
    assert told.certificate_status is library.OCSPCertStatus.REVOKED
    assert told.certificates[0].public_key() == desk.keys[-1].private.public_key()


def test_P11_an_answer_that_does_not_read_back_is_left_out_and_the_next_of_its_form_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    desk = Desk(world, tmp_path, files=True, policy=Policy(reread_share=0.0))
    whole, read = packed.body, []

    def wrong_once(one: Packed, *rest: Any) -> bytes:
        read.append((one.status.verdict, one.form))
        return b"other octets" if len(read) == 1 else whole(one, *rest)

    monkeypatch.setattr("ocsp.presign.packed.body", wrong_once)
    progress = desk.walk()
    assert (progress.signed, progress.failed) == (5, 1)
    assert len(read) == len(set(read)), "the first of each form"
    assert desk.spool.filled() == 5
    assert len([file for file in desk.files.rglob("*") if file.is_file()]) <= 5
    before = len(read)
    progress = desk.walk()
    assert (progress.signed, progress.failed) == (1, 0), "it is due again"
    assert read[before:] == read[:1], "and read again"
    assert desk.spool.filled() == 6


def test_P11_an_answer_that_says_something_else_ends_the_walk_and_nothing_of_its_page_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    desk = Desk(world, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise Broken("ocsp-reread", "An OCSP answer does not say what it should.")

    with monkeypatch.context() as patched:
        patched.setattr("ocsp.presign.reread", refuse)
        for _ in range(2):
            with pytest.raises(Broken):
                desk.walk()
        desk.spool.tell_counts()
        assert desk.spool.filled() == 0
    assert desk.walk().signed == 6


def test_only_delivered_certificates_are_signed_ahead(tmp_path: Path) -> None:
    world = new_world()
    for number, state in enumerate((CertificateState.intended, CertificateState.void)):
        world.record.issue("issuing", many(number), state)
    world.record.issue("second", UNISSUED)  # an issuer that this presigner does not answer for
    assert Desk(world, tmp_path).walk().signed == 6


# ---- Files --------------------------------------------------------------------------------------------------------------


def test_files_lie_under_the_exact_path_of_the_GET_and_say_their_times(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path, files=True)
    desk.walk()
    service = worker(world, tmp_path)
    deafen(world, service)
    for serial in (GOOD, REVOKED):
        for hash_name in HASHES:
            if not is_file(world, serial, hash_name):
                continue
            file = desk.files / base64.b64encode(asked(world, serial, hash_name)).decode()
            assert service.reply(fakes.get(asked(world, serial, hash_name))).body == file.read_bytes()
            told = library.load_der_ocsp_response(file.read_bytes())
            assert told.next_update_utc is not None
            stat = file.stat()
            assert fakes.moment(stat.st_mtime_ns // 10**9) == told.this_update_utc
            assert fakes.moment(sum(divmod(stat.st_mtime_ns, 10**9))) == told.next_update_utc
            assert stat.st_mode & 0o777 == 0o644


def test_R05_the_sweeper_removes_files_at_nextUpdate_and_not_before(tmp_path: Path) -> None:
    world = new_world()
    desk = Desk(world, tmp_path, files=True)
    desk.walk()
    (desk.files / ".new-left-over").write_bytes(b"half")
    os.utime(desk.files / ".new-left-over", (NOW - DAY, NOW - DAY))
    expected = sum(is_file(world, serial, hash_name) for serial in (GOOD, REVOKED, HELD) for hash_name in HASHES)
    assert sweep(desk.files, now=NOW + HOUR - 62) == 1
    assert len([one for one in desk.files.rglob("*") if one.is_file()]) == expected
    assert sweep(desk.files, now=NOW + HOUR - 61) == expected
    assert [one for one in desk.files.rglob("*") if one.is_file()] == []


def test_paths_that_cannot_be_files_have_none() -> None:
    world = new_world()
    seen = {True: 0, False: 0}
    for number in range(4000):
        certificate_id = fakes.certificate_id(world.ca.issuer, many(number), hash_name="sha1")
        text = base64.b64encode(fakes.request(certificate_id)).decode()
        can = "//" not in text and not text.endswith("/")
        assert file_path(certificate_id) == (text if can else None)
        seen[can] += 1
    assert seen[False]


@pytest.mark.parametrize("which", ["spool", "html"])
def test_a_folder_that_cannot_be_written_is_said_and_the_old_answers_stay(
    tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    desk = Desk(world, tmp_path, files=True)
    desk.walk()
    world.clock.time = NOW + HOUR // 2

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite" if which == "spool" else "write", full)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        desk.walk()
    monkeypatch.undo()
    service = worker(world, tmp_path)
    deafen(world, service)
    assert said(service, asked(world, GOOD)) == "GOOD"


# ---- A bucket -----------------------------------------------------------------------------------------------------------


class Breaking:
    """A client of boto3 whose puts fail while `broken`."""

    def __init__(self, client: Any) -> None:
        self.client, self.broken = client, False

    def put_object(self, **given: Any) -> Any:
        if self.broken:
            raise OSError("the way there is cut")
        return self.client.put_object(**given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


@pytest.fixture
def storage() -> Iterator[Breaking]:
    """moto's S3, in this process."""
    import boto3
    import moto

    with moto.mock_aws():
        client = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y")
        client.create_bucket(Bucket="answers", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield Breaking(client)


def test_answers_lie_in_a_bucket_under_the_exact_path_of_the_GET_and_a_revocation_replaces_them(tmp_path: Path, storage: Breaking) -> None:
    world = with_files()
    bucket = AnswerBucket(storage, "answers", prefix="ocsp/", max_age=300, now=world.clock.now)
    desk = Desk(world, tmp_path, bucket=bucket)
    desk.walk()
    service = worker(world, tmp_path)
    service.listen()

    serial = GOOD

    def objects() -> dict[str, Any]:
        return {
            hash_name: storage.client.get_object(Bucket="answers", Key="ocsp/" + base64.b64encode(asked(world, serial, hash_name)).decode())
            for hash_name in HASHES
            if is_file(world, serial, hash_name)
        }

    for hash_name, found in objects().items():
        answer = service.reply(fakes.get(asked(world, serial, hash_name)))
        assert found["Body"].read() == answer.body
        headers = dict(answer.headers)
        assert found["ContentType"] == headers["Content-Type"]
        assert found["ExpiresString"] == headers["Expires"]
        assert found["CacheControl"] == "max-age=300, public, no-transform, must-revalidate"
    ref = next(ref for ref in world.record.states if ref.serial == serial)
    world.record.change(ref, Reason.keyCompromise, NOW)
    storage.broken = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="bucket"):
            desk.presigning.follow()
    storage.broken = False
    assert desk.presigning.follow() == 2, "what could not be put is put the next time"
    assert {library.load_der_ocsp_response(found["Body"].read()).certificate_status.name for found in objects().values()} <= {"REVOKED"}


def test_P5_what_a_bucket_did_not_take_is_due_again(tmp_path: Path, storage: Breaking) -> None:
    world = with_files()
    desk = Desk(world, tmp_path, bucket=AnswerBucket(storage, "answers", max_age=300, now=world.clock.now))
    storage.broken = True
    with pytest.raises(StoreUnavailable):
        desk.walk()
    assert desk.spool.filled() == 0
    storage.broken = False
    assert desk.walk().signed == 6
    assert desk.walk().signed == 0


def test_the_sweeper_asks_no_young_object_when_it_ends(storage: Breaking, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    head_object = storage.client.head_object

    def asking(**given: Any) -> Any:
        asked_for.append(given["Key"])
        return head_object(**given)

    monkeypatch.setattr(storage.client, "head_object", asking)
    storage.client.put_object(Bucket="answers", Key="one", Body=b"an answer", Expires=http_date(LAST_TIME))
    (listed,) = storage.client.list_objects_v2(Bucket="answers")["Contents"]
    put_at = int(listed["LastModified"].timestamp())  # by the clock of the storage
    for now, young, asks in [
        (put_at + 100, 101, False),
        (put_at + 100, 99, True),
        (put_at + 100, 0, True),
        (put_at - 10, 0, True),
        (put_at - 10, 100, True),  # our clock was set back: nobody knows how old it is
    ]:
        asked_for.clear()
        assert sweep_bucket(storage, "answers", now=now, young=young) == 0
        assert bool(asked_for) == asks, (now - put_at, young)
    assert sweep_bucket(storage, "answers", now=LAST_TIME, young=100) == 1


def test_R05_the_sweeper_removes_objects_at_nextUpdate_and_not_before(tmp_path: Path, storage: Breaking) -> None:
    world = new_world()
    Desk(world, tmp_path, bucket=AnswerBucket(storage, "answers", prefix="ocsp/", max_age=300, now=world.clock.now)).walk()
    storage.client.put_object(Bucket="answers", Key="ocsp/index.html", Body=b"no answer")
    expected = sum(is_file(world, serial, hash_name) for serial in (GOOD, REVOKED, HELD) for hash_name in HASHES)
    assert sweep_bucket(storage, "answers", prefix="ocsp/", now=NOW + HOUR - 62) == 0
    assert sweep_bucket(storage, "answers", prefix="other/", now=NOW + DAY) == 0
    assert sweep_bucket(storage, "answers", prefix="ocsp/", now=NOW + HOUR - 61) == expected
    assert [one["Key"] for one in storage.client.list_objects_v2(Bucket="answers")["Contents"]] == ["ocsp/index.html"]
    with pytest.raises(StoreUnavailable):
        sweep_bucket(storage, "no-such-bucket", now=NOW)
