"""Ceremonies: what is made is what was shown, nothing gets two signatures, and a transcript that was touched is not believed (P4, P8, R32)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509

from ca.errors import Broken, ClockUntrusted, Conflict, Denied, FleetcaError, KeyUnavailable, Misconfigured, Refused, Unacceptable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, CrlEntry, KeyName, Reason, Serial
from ca.rules import transcript
from ca.rules.ceremony import Sheet
from ca.rules.ceremony_check import check
from ca.rules.ceremony_dates import accept, after
from tests.fakes.ceremony import NOW, YEAR, Room, Stopped, intermediate, known_root, profiles, root, root_crl, sheet


def lines(room: Room) -> list[dict[str, object]]:
    return [json.loads(line) for line in room.files[transcript.FILE].splitlines()]


def believed(room: Room, **roots: bytes) -> None:
    check(room.files[transcript.FILE], room.files, roots=roots)


@pytest.fixture(scope="module")
def finished() -> Room:
    room = Room()
    room.run(sheet())
    return room


def copy_of(room: Room) -> Room:
    return Room(files=dict(room.files), keys=dict(room.keys), now=room.now)


# ---- What a ceremony makes ----------------------------------------------------------------------------------------------


def test_P8_a_finished_ceremony_is_believed_by_anyone_with_its_files(finished: Room) -> None:
    verified = check(finished.files[transcript.FILE], finished.files)
    assert [output.file for output in verified.outputs] == ["root.pem", "issuing.pem", "root-crl.crl"]
    assert verified.root == "root"


def test_each_act_is_shown_with_the_digest_of_what_is_signed_then(finished: Room) -> None:
    assert [step.act for step in finished.shown] == ["root", "issuing", "root-crl"]
    tbs = [octets for _, octets in finished.signed if not octets.startswith(transcript.CONTEXT)]
    assert [step.tbs_sha256 for step in finished.shown] == [hashlib.sha256(octets).digest() for octets in tbs]


@pytest.mark.req("REQ-KEY-017")
def test_the_chain_holds_and_the_periods_are_inclusive(finished: Room) -> None:
    anchor, issuing = (x509.load_pem_x509_certificate(finished.files[name]) for name in ("root.pem", "issuing.pem"))
    issuing.verify_directly_issued_by(anchor)
    assert int(anchor.not_valid_before_utc.timestamp()) == NOW
    assert int(anchor.not_valid_after_utc.timestamp()) == after(NOW, "20y") - 1
    crl = x509.load_der_x509_crl(finished.files["root-crl.crl"])
    assert crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 1


def test_lint_and_drafts_come_before_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise Broken("lint", "found something")

    monkeypatch.setattr("ca.rules.ceremony_drafts.lint_crl", failing)
    room = Room()
    with pytest.raises(Broken, match="found something"):
        room.run(sheet())
    assert room.keys == {}
    assert room.files == {}
    assert room.signed == []


@pytest.mark.parametrize("algorithm", ["p384", "ed25519", "ml-dsa-65"])
def test_roots_of_other_kinds_are_made_the_same_way(algorithm: str) -> None:
    room = Room()
    room.run(sheet(root(algorithm=algorithm), intermediate(), root_crl()))
    believed(room)


# ---- Stopped and resumed ------------------------------------------------------------------------------------------------


def _effects() -> int:
    room = Room()
    room.run(sheet())
    return room.effects


EFFECTS = _effects()


@pytest.mark.parametrize("after_it", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("effect", range(1, EFFECTS + 1))
def test_R32_a_run_killed_at_any_effect_goes_on_and_signs_no_two_octet_strings_for_an_act(effect: int, after_it: bool) -> None:
    room = Room(stop_at=effect, stop_after=after_it)
    with pytest.raises(Stopped):
        room.run(sheet())
    room.stop_at = None
    room.now += 3600
    if after_it and effect == EFFECTS:
        # Everything was done, and only the word of it was lost.
        with pytest.raises(Conflict, match="is finished"):
            room.run(sheet())
    else:
        room.run(sheet())
    believed(room)
    signed = {octets for _, octets in room.signed if not octets.startswith(transcript.CONTEXT)}
    assert len(signed) == 3
    assert sorted(room.keys) == ["issuing", "root"]
    said = [line for line in lines(room) if line["kind"] == "signing" and line["again"]]
    assert len(said) <= 1


def test_who_says_no_signs_nothing_and_can_go_on_later() -> None:
    room = Room(answer=lambda step: step.act != "issuing")
    with pytest.raises(Denied, match="not confirmed") as caught:
        room.run(sheet())
    assert caught.value.fix
    assert "issuing.pem" not in room.files
    room.answer = lambda step: True
    assert room.run(sheet()).resumed
    believed(room)
    assert [line["kind"] for line in lines(room)].count("refused") == 1


BEGUN: list[object] = [
    pytest.param(lambda room: room.run(sheet(text=b"another")), "another-ceremony", Conflict, id="another sheet in the same folder"),
    pytest.param(lambda room: room.run(replace(sheet(), acts=(root(not_after="10y"), intermediate(), root_crl()))), "another-draft", Conflict, id="the same sheet with another meaning"),
    pytest.param(lambda room: (room.files.__setitem__("root.pem", b"x"), room.run(sheet())), "output-changed", Conflict, id="an output was changed between two runs"),
    pytest.param(lambda room: (room.files.pop("root.pem"), room.run(sheet())), "output-changed", Conflict, id="an output was taken away between two runs"),
    pytest.param(lambda room: (room.keys.__setitem__(KeyName("root"), MemoryKey.generate(KeyName("root"), AlgorithmName("p256"))), room.run(sheet())), "wrong-key", KeyUnavailable, id="the root key was exchanged between two runs"),
    pytest.param(lambda room: (setattr(room, "now", NOW - 10), room.run(sheet())), "clock-went-back", ClockUntrusted, id="the clock was set back between two runs"),
    pytest.param(lambda room: (room.files.__setitem__(transcript.FILE, room.files[transcript.FILE].replace(b"Root", b"Boot")), room.run(sheet())), "transcript-broken", Unacceptable, id="the transcript was edited between two runs"),
]  # fmt: skip


@pytest.mark.parametrize(("again", "code", "kind"), BEGUN)
def test_R32_a_run_that_was_stopped_does_not_go_on_with_something_else(
    again: Callable[[Room], object], code: str, kind: type[FleetcaError]
) -> None:
    room = Room(answer=lambda step: step.act != "root-crl")
    with pytest.raises(Denied):
        room.run(sheet())
    before = list(room.signed)
    room.answer = lambda step: True
    with pytest.raises(kind) as caught:
        again(room)
    assert caught.value.code == code
    assert caught.value.fix
    assert room.signed == before


@pytest.mark.parametrize("name", ["root.pem", "issuing.pem", "root-crl.crl", "sheet.toml"])
def test_R32_an_existing_output_stops_everything_before_a_key_is_made(name: str) -> None:
    room = Room(files={name: b"precious"})
    with pytest.raises(Conflict) as caught:
        room.run(sheet())
    assert caught.value.code == "output-exists"
    assert room.files == {name: b"precious"}
    assert room.keys == {}


def test_R32_an_existing_key_stops_everything() -> None:
    room = Room(keys={KeyName("root"): MemoryKey.generate(KeyName("root"), AlgorithmName("p256"))})
    with pytest.raises(Conflict, match=r"root\.key"):
        room.run(sheet())
    assert room.signed == []


def test_a_finished_ceremony_is_not_run_again(finished: Room) -> None:
    room = copy_of(finished)
    with pytest.raises(Conflict, match="is finished"):
        room.run(sheet())
    assert room.files == finished.files


# ---- Mistakes in the sheet ----------------------------------------------------------------------------------------------

MISTAKES: list[object] = [
    pytest.param(sheet(root(not_after=NOW - 1)), "bad-date", "does not lie after", id="a root that ends before it begins"),
    pytest.param(sheet(root(not_before=NOW - 2 * YEAR, not_after=NOW - YEAR)), "bad-date", "in the past", id="a root that has ended already"),
    pytest.param(sheet(root(not_after="now")), "bad-date", "does not lie after", id="a root of no duration"),
    pytest.param(sheet(root(not_after="40y")), "bad-date", "longer than profile", id="a root beyond its profile"),
    pytest.param(sheet(root(), intermediate(not_before=NOW - 86400)), "bad-date", "begins before its issuer", id="an issuing CA older than its root"),
    pytest.param(sheet(root(not_after="3y"), intermediate()), "outlives-issuer", "would outlive", id="an issuing CA that outlives its root"),
    pytest.param(sheet(root(not_after="1y"), root_crl(next_update="2y")), "outlives-issuer", "would outlive", id="a CRL that outlives its root"),
    pytest.param(sheet(intermediate(), root()), "unknown-issuer", "no root root before", id="an issuing CA before its root"),
    pytest.param(sheet(root(), intermediate(issuer="other")), "unknown-issuer", "no root other", id="an issuer that nobody makes"),
    pytest.param(sheet(root(), intermediate(), intermediate(id="second", issuer="issuing")), "unknown-issuer", "no root issuing", id="an issuing CA below an issuing CA"),
    pytest.param(sheet(root(), intermediate(id="root")), "id-twice", "root twice", id="an id used twice"),
    pytest.param(sheet(root(profile="device")), "unknown-profile", "no CA profile device", id="a device profile for a root (P2)"),
    pytest.param(sheet(root(profile="nothing")), "unknown-profile", "no CA profile nothing", id="an unknown profile"),
    pytest.param(sheet(root(algorithm="rsa-2048")), "unknown-algorithm", "rsa-2048", id="an unknown algorithm"),
    pytest.param(sheet(root(profile="issuing-ca", not_after="5y")), "ca-profile", "", id="an issuing profile for a root"),
    pytest.param(sheet(root(), intermediate(profile="root")), "ca-profile", "", id="a root profile for an issuing CA"),
    pytest.param(sheet(root(subject={"common_name": "x" * 65})), "bad-subject", "", id="a name that is too long"),
    pytest.param(sheet(root(), intermediate(csr=b"\x30\x00", algorithm=None)), "bad-csr", "", id="a CSR that is none"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "code", "words"), MISTAKES)
def test_R32_a_mistake_in_the_sheet_stops_before_anything_is_made(wrong: Sheet, code: str, words: str) -> None:
    room = Room()
    with pytest.raises((Misconfigured, Refused)) as caught:
        room.run(wrong)
    assert caught.value.code == code
    assert words in caught.value.what
    assert (room.files, room.keys, room.signed) == ({}, {}, [])


def test_years_are_calendar_years() -> None:
    leap_day = 1_835_395_200  # 2028-02-29T00:00:00Z
    assert after(leap_day, "4y") == leap_day + 4 * YEAR + 86400
    assert after(leap_day, "1y") == leap_day + 366 * 86400  # 2029-03-01
    assert after(NOW, "90d") == NOW + 90 * 86400


def test_a_csr_is_signed_for_its_key_and_nothing_else_of_it() -> None:
    from tests.fakes.certificates import HASHES, private_key

    key = private_key("p256", "issuing")
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Evil Root")]))
    from cryptography.hazmat.primitives.serialization import Encoding

    csr = builder.sign(key, HASHES["p256"]).public_bytes(Encoding.DER)
    room = Room()
    room.run(sheet(root(), intermediate(csr=csr, algorithm=None)))
    made = x509.load_pem_x509_certificate(room.files["issuing.pem"])
    assert made.public_key() == key.public_key()
    assert "Evil" not in made.subject.rfc4514_string()
    assert sorted(room.keys) == ["root"]


# ---- The next ceremony --------------------------------------------------------------------------------------------------


def next_room(finished: Room) -> tuple[Room, Callable[..., Sheet]]:
    room = Room(keys={KeyName("root"): finished.keys[KeyName("root")]}, now=NOW + 100 * 86400)
    known = known_root(finished)

    def made(*acts: object, **changes: object) -> Sheet:
        return sheet(*acts, issuers=(replace(known, **changes),))  # type: ignore[arg-type]

    return room, made


def test_P6_the_next_root_crl_keeps_every_entry_and_raises_the_number(finished: Room) -> None:
    room, made = next_room(finished)
    first = CrlEntry(Serial(77), NOW + 5, Reason.keyCompromise)
    room.run(made(root_crl(previous=finished.files["root-crl.crl"], revoked=(first,))))
    believed(room, root=known_root(finished).certificate)
    later, remade = next_room(finished)
    later.now += 86400
    second = CrlEntry(Serial(78), NOW + 6, Reason.unspecified)
    later.run(remade(root_crl(previous=room.files["root-crl.crl"], revoked=(second, replace(first, revoked_at=NOW + 9)))))
    crl = x509.load_der_x509_crl(later.files["root-crl.crl"])
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    assert {(entry.serial_number, int(entry.revocation_date_utc.timestamp())) for entry in crl} == {(77, NOW + 5), (78, NOW + 6)}


def test_two_crls_of_one_root_in_one_ceremony_have_rising_numbers() -> None:
    room = Room()
    room.run(sheet(root(), root_crl(), root_crl(id="second-crl", next_update="2y")))
    numbers = [
        x509.load_der_x509_crl(room.files[name]).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for name in ("root-crl.crl", "second-crl.crl")
    ]
    assert numbers == [1, 2]


def test_P6_a_root_crl_without_the_one_before_is_refused(finished: Room) -> None:
    room, made = next_room(finished)
    with pytest.raises(Misconfigured, match="which CRL came before"):
        room.run(made(root_crl()))
    room.run(made(root_crl(first=True)))


def test_a_root_that_no_act_uses_is_not_unlocked(finished: Room) -> None:
    room, made = next_room(finished)
    with pytest.raises(Misconfigured, match="No act uses"):
        room.run(made(root(id="another")))


def test_P6_a_crl_of_another_root_is_no_previous_one(finished: Room) -> None:
    other = Room()
    other.run(sheet())
    room, made = next_room(finished)
    for wrong in (other.files["root-crl.crl"], b"no crl"):
        with pytest.raises(Unacceptable, match="previous CRL"):
            room.run(made(root_crl(previous=wrong)))
    assert room.signed == []


def test_a_key_of_another_root_signs_nothing(finished: Room) -> None:
    room, made = next_room(finished)
    room.keys[KeyName("root")] = MemoryKey.generate(KeyName("root"), AlgorithmName("p256"))
    with pytest.raises(KeyUnavailable, match="does not belong"):
        room.run(made(root_crl(previous=finished.files["root-crl.crl"])))
    assert room.signed == []


# ---- Tampering ----------------------------------------------------------------------------------------------------------


def edited(old: bytes, new: bytes) -> Callable[[Room], None]:
    def act(room: Room) -> None:
        said = room.files[transcript.FILE]
        assert old in said
        room.files[transcript.FILE] = said.replace(old, new, 1)

    return act


def reshaped(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Room], None]:
    def act(room: Room) -> None:
        said = room.files[transcript.FILE].splitlines(keepends=True)
        room.files[transcript.FILE] = b"".join(change(said))

    return act


def rewritten(room: Room) -> None:
    """By somebody who can compute hashes, and does not have the root key."""
    said = transcript.read(room.files[transcript.FILE])
    made: list[transcript.Record] = []
    for record in said.records:
        fields = dict(record.fields)
        if record.kind == "begin":
            fields["software"] = "another"
        made.append(transcript.record(made, record.kind, at=record.at, **fields))
    room.files[transcript.FILE] = b"".join(record.line + b"\n" for record in made)


def swapped(room: Room) -> None:
    other = Room()
    other.run(sheet())
    room.files["issuing.pem"] = other.files["issuing.pem"]


TAMPERED: list[object] = [
    pytest.param(edited(b"the first one", b"the first two"), "transcript-broken", id="a word was edited"),
    pytest.param(edited(b'"kind":"confirmed"', b'"kind":"conformed"'), "transcript-broken", id="a kind was edited"),
    pytest.param(edited(b'"seq":3', b'"seq": 3'), "transcript-broken", id="a space was added"),
    pytest.param(reshaped(lambda said: said[:4] + said[5:]), "transcript-broken", id="a line was dropped"),
    pytest.param(reshaped(lambda said: [*said[:4], said[5], said[4], *said[6:]]), "transcript-broken", id="two lines were swapped"),
    pytest.param(reshaped(lambda said: [*said[:4], said[3], *said[4:]]), "transcript-broken", id="a line was doubled"),
    pytest.param(reshaped(lambda said: [*said, said[-1]]), "transcript-broken", id="a line was added after the seal"),
    pytest.param(reshaped(lambda said: said[:-1]), "transcript-incomplete", id="the seal was cut off"),
    pytest.param(reshaped(lambda said: said[: len(said) // 2]), "transcript-incomplete", id="half was cut off"),
    pytest.param(reshaped(lambda said: [*said[:-1], said[-1][:-9]]), "transcript-incomplete", id="the end was torn"),
    pytest.param(reshaped(lambda said: [b"[]\n"]), "transcript-broken", id="a list in place of an object"),
    pytest.param(reshaped(lambda said: []), "transcript-broken", id="an empty transcript"),
    pytest.param(rewritten, "transcript-seal", id="the whole chain was computed anew without the root key"),
    pytest.param(lambda room: room.files.__setitem__("root.pem", room.files["issuing.pem"]), "output-changed", id="an output was replaced by another"),
    pytest.param(swapped, "output-changed", id="an output was replaced by one of another ceremony"),
    pytest.param(lambda room: room.files.pop("root-crl.crl"), "output-missing", id="an output is missing"),
    pytest.param(lambda room: room.files.__setitem__("sheet.toml", b"another sheet"), "sheet-changed", id="the sheet was replaced"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "code"), TAMPERED)
def test_P8_tampering_is_detected_offline(finished: Room, tamper: Callable[[Room], object], code: str) -> None:
    room = copy_of(finished)
    tamper(room)
    with pytest.raises(Unacceptable) as caught:
        believed(room)
    assert caught.value.code == code
    assert caught.value.fix


def test_every_octet_of_the_transcript_counts(finished: Room) -> None:
    said = finished.files[transcript.FILE]
    for at in range(0, len(said), 97):
        room = copy_of(finished)
        room.files[transcript.FILE] = said[:at] + bytes((said[at] ^ 1,)) + said[at + 1 :]
        with pytest.raises(Unacceptable):
            believed(room)


def test_a_later_ceremony_is_believed_only_with_its_root(finished: Room) -> None:
    room, made = next_room(finished)
    room.run(made(root_crl(previous=finished.files["root-crl.crl"])))
    other = Room()
    other.run(sheet())
    believed(room, root=known_root(finished).certificate)
    for roots in ({}, {"root": known_root(other).certificate}):
        with pytest.raises(Unacceptable, match="is not here"):
            believed(room, **roots)


def test_accept_is_pure_and_says_the_dates() -> None:
    periods = accept(sheet(), profiles=profiles(), now=NOW)  # type: ignore[arg-type]
    assert periods["root"].start == NOW  # type: ignore[index]
    assert {id_: when.end - when.start + 1 for id_, when in periods.items()}["root-crl"] == YEAR
