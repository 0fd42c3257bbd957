"""Ceremonies before witnesses: nothing is signed before those who must have confirmed it by their own keys (REQ-KEY-016, REQ-KEY-067)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from ca.ceremony_steps import Step
from ca.errors import Conflict, Denied, FleetcaError, KeyUnavailable, Misconfigured, Unacceptable
from ca.keys.memory import MemoryKey
from ca.model import AlgorithmName, Digest, KeyName
from ca.rules import ceremony_roles, transcript
from ca.rules.ceremony import Participant, kind_of
from ca.rules.ceremony_check import SheetFacts, Verified, check
from ca.rules.ceremony_roles import EXCLUSIVE, ROLES, UNKNOWN_KEY, check_people
from tests.fakes.ceremony import Room, Stopped, apart, destroy, intermediate, known_root, root, root_crl, sheet, with_people


def facts(made: object) -> SheetFacts:
    """What fleetca reads off the sheet's file."""
    people = tuple((each.role, each.person, each.key_sha256.hex()) for each in made.participants)
    confirm = {act.id: tuple((each.role, each.person) for each in made.confirmed_by(act)) for act in made.acts}
    return SheetFacts(
        made.name, tuple(act.id for act in made.acts), {act.id: kind_of(act) for act in made.acts}, people, confirm, made.network
    )


def believed(room: Room, made: object, **roots: bytes) -> Verified:
    return check(room.files[transcript.FILE], room.files, roots=roots, sheet=facts(made))


@pytest.fixture(scope="module")
def held() -> tuple[Room, object]:
    room = Room()
    made = with_people(sheet(), room)
    room.run(made)
    return room, made


def lines(room: Room) -> list[dict[str, object]]:
    return [json.loads(line) for line in room.files[transcript.FILE].splitlines()]


@pytest.mark.req("REQ-KEY-067")
def test_everybody_confirms_the_sheet_each_act_and_the_whole(held: tuple[Room, object]) -> None:
    room, made = held
    verified = believed(room, made)
    assert verified.people == (("administrator", "Alex"), ("auditor", "Aron"), ("witness", "Wanda"))
    confirmed = [(line["stage"], line["act"], line["person"]) for line in lines(room) if line["kind"] == "confirmed"]
    acts = [("act", act, person) for act in ("root", "issuing", "root-crl") for person in ("Alex", "Wanda")]
    everybody = ("Alex", "Aron", "Wanda")
    assert confirmed == [*(("opening", None, who) for who in everybody), *acts, *(("closing", None, who) for who in everybody)]
    kinds = [line["kind"] for line in lines(room)]
    assert kinds.index("key") > kinds.index("confirmed")
    assert kinds[-1] == "seal"


def test_each_act_is_signed_after_the_last_confirmation_of_it(held: tuple[Room, object]) -> None:
    said = lines(held[0])
    for act in ("root", "issuing", "root-crl"):
        (signing,) = (line["seq"] for line in said if line["kind"] == "signing" and line["act"] == act)
        assert all(line["seq"] < signing for line in said if line["kind"] == "confirmed" and line["act"] == act)


def test_a_step_shows_the_words_of_its_digest(held: tuple[Room, object]) -> None:
    step = next(step for step in held[0].shown if step.act == "root")
    assert step.words.count("-") == 9
    assert (step.number, step.count) == (1, 3)
    assert [step.again for step in held[0].shown if step.act == "root"] == [False, True]


@pytest.mark.parametrize("who", ["Alex", "Wanda"])
@pytest.mark.parametrize("act", ["root", "issuing", "root-crl"])
def test_one_no_is_enough_and_the_run_can_go_on_later(who: str, act: str) -> None:
    def answer(step: Step) -> bool:
        assert step.participant is not None
        return not (step.act == act and step.participant.person == who)

    room = Room(answer=answer)
    made = with_people(sheet(), room)
    with pytest.raises(Denied, match="not confirmed"):
        room.run(made)
    assert f"{act}.pem" not in room.files
    assert f"{act}.crl" not in room.files
    assert not any(line["kind"] == "signing" and line["act"] == act for line in lines(room))
    room.answer = lambda step: True
    room.run(made)
    assert any("said no" in remark for remark in believed(room, made).remarks)


def _effects() -> int:
    room = Room()
    room.run(with_people(sheet(root(), root_crl()), room, confirm=("witness",)))
    return room.effects


EFFECTS = _effects()


@pytest.mark.parametrize("after_it", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("effect", range(1, EFFECTS + 1))
def test_R32_killed_anywhere_it_goes_on_and_no_confirmation_is_lost_or_used_twice(effect: int, after_it: bool) -> None:
    room = Room(stop_at=effect, stop_after=after_it)
    made = with_people(sheet(root(), root_crl()), room, confirm=("witness",))
    with pytest.raises(Stopped):
        room.run(made)
    room.stop_at = None
    if after_it and effect == EFFECTS:
        with pytest.raises(Conflict, match="is finished"):
            room.run(made)
    else:
        room.run(made)
    believed(room, made)
    assert len({octets for name, octets in room.signed if name == "root" and octets[:1] == b"\x30"}) == 2
    confirmed = [(line["stage"], line["act"], line["person"]) for line in lines(room) if line["kind"] == "confirmed"]
    assert len(confirmed) == len(set(confirmed)) == 3 + 2 + 3


# ---- Who may be what ----------------------------------------------------------------------------------------------------


def person(role: str, name: str, key: int = 1) -> Participant:
    return Participant(role, name, Digest(bytes((key,)) * 32))


@pytest.mark.req("REQ-KEY-016")
@pytest.mark.parametrize("pair", sorted(sorted(pair) for pair in EXCLUSIVE), ids=" and ".join)
def test_one_person_cannot_fill_two_exclusive_roles(pair: list[str]) -> None:
    for name in ("Sam Example", " sam  EXAMPLE "):
        made = replace(sheet(), participants=(person(pair[0], "Sam Example"), person(pair[1], name)))
        with pytest.raises(Misconfigured) as caught:
            check_people(made)
        assert caught.value.code == "exclusive-roles"


def test_roles_that_do_not_exclude_each_other_may_be_one_persons() -> None:
    check_people(replace(sheet(), participants=(person("administrator", "Sam"), person("operator", "Sam"))))
    check_people(replace(sheet(), participants=(person("auditor", "Sam"), person("witness", "Sam"))))


PEOPLE: list[object] = [
    pytest.param((person("witness", "A"), person("auditor", "B")), "role-key-shared", id="two persons with one key"),
    pytest.param((person("witness", "A", 1), person("auditor", "A", 2)), "role-key-shared", id="one person with two keys"),
    pytest.param((person("witness", "A"), person("witness", "a")), "exclusive-roles", id="the same person twice in a role"),
    pytest.param((person("judge", "A"),), "unknown-role", id="a role that does not exist"),
]


@pytest.mark.parametrize(("people", "code"), PEOPLE)
def test_people_are_told_apart(people: tuple[Participant, ...], code: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        check_people(replace(sheet(), participants=people))
    assert caught.value.code == code
    assert caught.value.fix


def test_a_role_that_must_confirm_and_is_nobodys_stops_everything() -> None:
    room = Room()
    made = replace(with_people(sheet(), room), confirm=("custodian",))
    with pytest.raises(Misconfigured) as caught:
        room.run(made)
    assert caught.value.code == "missing-role"
    assert room.files == {}


def test_example_keys_are_no_keys() -> None:
    room = Room()
    made = with_people(sheet(), room)
    made = replace(made, participants=(replace(made.participants[0], key_sha256=UNKNOWN_KEY), *made.participants[1:]))
    with pytest.raises(Misconfigured) as caught:
        room.run(made)
    assert caught.value.code == "role-key-missing"
    assert room.keys == {}


def test_another_persons_token_is_noticed_before_anything_is_made() -> None:
    room = Room()
    made = with_people(sheet(), room)
    room.people["Wanda"] = MemoryKey.generate(KeyName("wanda"), AlgorithmName("p256"))
    with pytest.raises(KeyUnavailable) as caught:
        room.run(made)
    assert caught.value.code == "wrong-role-key"
    assert room.files == {}
    assert room.keys == {}


@pytest.mark.req("REQ-KEY-069")
@pytest.mark.parametrize("confirm", [("administrator",), ("administrator", "witness")])
def test_a_key_is_destroyed_before_two_who_watch_or_not_at_all(confirm: tuple[str, ...], held: tuple[Room, object]) -> None:
    room = Room(keys=dict(held[0].keys))
    made = with_people(sheet(destroy(), issuers=(known_root(held[0]),)), room, confirm=confirm)
    with pytest.raises(Misconfigured) as caught:
        room.run(made)
    assert caught.value.code == "too-few-witnesses"
    assert KeyName("root") in room.keys


@pytest.mark.req("REQ-KEY-069")
def test_a_destroyed_key_signs_nothing_and_leaves_a_certificate_of_destruction(held: tuple[Room, object]) -> None:
    room = Room(keys=dict(held[0].keys))
    everybody = ("administrator", "auditor", "witness")
    made = with_people(sheet(destroy(), issuers=(known_root(held[0]),)), room, confirm=everybody)
    room.run(made)
    assert KeyName("root") not in room.keys
    verified = believed(room, made)
    assert verified.root == ""  # the people sealed it: the key could not
    document = json.loads(room.files["root-key.json"])
    statement = json.loads(transcript.octets_of(document["certificate_of_destruction"]))
    assert statement["issuer"] == "root"
    assert document["proof"] == [["asked again", "there is no such key"]]
    assert [each["person"] for each in document["confirmed"]] == ["Alex", "Aron", "Wanda"]
    for each in document["confirmed"]:
        message = ceremony_roles.statement(
            ceremony=document["ceremony"],
            stage="act",
            act="root-key",
            role=each["role"],
            person=each["person"],
            tbs_sha256=each["tbs_sha256"],
        )
        signature = transcript.octets_of(each["signature"])
        ceremony_roles.check_signature(message, signature, room.people[each["person"]].spki, who=each["person"])


def test_a_destruction_that_was_killed_goes_on_although_the_key_is_gone(held: tuple[Room, object]) -> None:
    everybody = ("administrator", "auditor", "witness")
    whole = Room(keys=dict(held[0].keys))
    whole.run(with_people(sheet(destroy(), issuers=(known_root(held[0]),)), whole, confirm=everybody))
    for effect in range(1, whole.effects):
        room = Room(keys=dict(held[0].keys), stop_at=effect, stop_after=True)
        made = with_people(sheet(destroy(), issuers=(known_root(held[0]),)), room, confirm=everybody)
        with pytest.raises(Stopped):
            room.run(made)
        room.stop_at = None
        room.run(made)
        assert KeyName("root") not in room.keys
        believed(room, made)


@pytest.mark.req("REQ-KEY-069")
def test_a_certificate_of_destruction_that_somebody_slipped_in_keeps_no_key_alive(held: tuple[Room, object]) -> None:
    everybody = ("administrator", "auditor", "witness")
    whole = Room(keys=dict(held[0].keys))
    whole.run(with_people(sheet(destroy(), issuers=(known_root(held[0]),)), whole, confirm=everybody))
    begun = 0
    for effect in range(1, whole.effects):
        room = Room(keys=dict(held[0].keys), stop_at=effect, stop_after=True)
        made = with_people(sheet(destroy(), issuers=(known_root(held[0]),)), room, confirm=everybody)
        with pytest.raises(Stopped):
            room.run(made)
        room.stop_at = None
        if "root-key.json" in room.files or not room.files.get(transcript.FILE, b"").count(b"\n"):
            continue
        room.files["root-key.json"] = whole.files["root-key.json"]
        if any(line["kind"] == "destroying" for line in lines(room)):
            room.run(made)
            assert KeyName("root") not in room.keys
            begun += 1
            continue
        with pytest.raises(Conflict) as caught:
            room.run(made)
        assert caught.value.code == "output-changed"
        assert KeyName("root") in room.keys
        del room.files["root-key.json"]
        room.run(made)
        assert KeyName("root") not in room.keys
        believed(room, made)
    assert begun == 2


# ---- A transcript whose writer has the root's key, and not the people's --------------------------------------------------


def resealed(room: Room, change: Callable[[list[dict[str, object]]], None]) -> Room:
    """The transcript written anew by somebody who holds the root's key."""
    said = [dict(line) for line in lines(room)]
    change(said)
    made: list[transcript.Record] = []
    for line in said:
        fields = {name: value for name, value in line.items() if name not in {"seq", "at", "kind", "previous"}}
        if line["kind"] == "seal":
            del fields["signature"]
            octets = transcript.sealed_octets(made, at=line["at"], **fields)
            fields["signature"] = transcript.text_of(room.keys[KeyName("root")].sign(octets))
        made.append(transcript.record(made, line["kind"], at=line["at"], **fields))
    files = {**room.files, transcript.FILE: b"".join(record.line + b"\n" for record in made)}
    return Room(files=files, keys=room.keys, people=room.people)


def first(said: list[dict[str, object]], **wanted: object) -> dict[str, object]:
    return next(line for line in said if all(line.get(name) == value for name, value in wanted.items()))


def _dropped(**wanted: object) -> Callable[[list[dict[str, object]]], None]:
    return lambda said: said.remove(first(said, **wanted))


def _forged(said: list[dict[str, object]]) -> None:
    line = first(said, kind="confirmed", act="root", person="Wanda")
    stranger = MemoryKey.generate(KeyName("stranger"), AlgorithmName("p256"))
    line["signature"] = transcript.text_of(stranger.sign(b"whatever"))


def _replayed(said: list[dict[str, object]]) -> None:
    first(said, kind="confirmed", act="issuing", person="Wanda")["signature"] = first(said, kind="confirmed", act="root", person="Wanda")[
        "signature"
    ]


def _other_people(said: list[dict[str, object]]) -> None:
    said[0]["people"][2]["spki"] = transcript.text_of(MemoryKey.generate(KeyName("x"), AlgorithmName("p256")).spki)  # type: ignore[index]


def _fewer(said: list[dict[str, object]]) -> None:
    said[0]["confirm"]["root"] = said[0]["confirm"]["root"][:1]  # type: ignore[index]


def _later(said: list[dict[str, object]]) -> None:
    line = first(said, kind="confirmed", act="root", person="Wanda")
    said.remove(line)
    at = said.index(first(said, kind="output", act="root"))
    said.insert(at + 1, line | {"at": said[at]["at"]})


def _other_order(said: list[dict[str, object]]) -> None:
    said[0]["acts"] = ["issuing", "root", "root-crl"]


TAMPERED: list[object] = [
    pytest.param(_dropped(kind="confirmed", act="root", person="Wanda"), {"confirmation-missing", "confirmation-forged"}, id="a witness's confirmation is dropped"),
    pytest.param(_dropped(kind="confirmed", stage="opening", person="Aron"), {"confirmation-missing", "confirmation-forged"}, id="the auditor did not confirm the sheet"),
    pytest.param(_dropped(kind="confirmed", stage="closing", person="Alex"), {"confirmation-missing", "confirmation-forged"}, id="the administrator did not sign at the end"),
    pytest.param(_forged, {"confirmation-forged"}, id="a confirmation by another key"),
    pytest.param(_replayed, {"confirmation-forged"}, id="a confirmation of another act"),
    pytest.param(_other_people, {"confirmation-missing"}, id="a witness's key is exchanged in the first line"),
    pytest.param(_fewer, {"confirmation-missing"}, id="fewer people were asked than the sheet says"),
    pytest.param(_later, {"confirmation-missing"}, id="a confirmation after the signature"),
    pytest.param(_other_order, {"another-order"}, id="the acts in another order than the sheet's"),
    pytest.param(lambda said: said[0].__setitem__("interfaces", ["eth0"]), {"sheet-changed", "confirmation-forged"}, id="a network that the sheet does not allow"),
    pytest.param(lambda said: said[0].__setitem__("ceremony", "another"), {"another-order"}, id="another name than the sheet's"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "codes"), TAMPERED)
def test_P8_the_roots_key_alone_cannot_write_a_transcript(
    held: tuple[Room, object], change: Callable[[list[dict[str, object]]], None], codes: set[str]
) -> None:
    room, made = held
    with pytest.raises(Unacceptable) as caught:
        believed(resealed(room, change), made)
    assert caught.value.code in codes
    assert caught.value.fix


def test_resealing_without_a_change_is_believed(held: tuple[Room, object]) -> None:
    believed(resealed(held[0], lambda said: None), held[1])


def _stopped(until: str) -> tuple[Room, object]:
    room = Room(answer=lambda step: step.act != until)
    made = with_people(sheet(), room)
    with pytest.raises(Denied):
        room.run(made)
    room.answer = lambda step: True
    return room, made


def _added(room: Room, kind: str, **fields: object) -> None:
    """A line by somebody who has the folder and no key: a chain that is not sealed is only hashes."""
    said = transcript.read(room.files[transcript.FILE])
    line = transcript.record(said.records, kind, at=room.now, **fields).line
    room.files[transcript.FILE] += line + b"\n"


def test_a_confirmation_that_somebody_wrote_into_the_folder_during_a_stop_signs_nothing() -> None:
    room, made = _stopped("issuing")
    (drafted,) = transcript.read(room.files[transcript.FILE]).of("drafted", "issuing")
    stranger = MemoryKey.generate(KeyName("stranger"), AlgorithmName("p256"))
    digest = drafted.fields["tbs_sha256"]
    for role, person in (("administrator", "Alex"), ("witness", "Wanda")):
        signature = transcript.text_of(stranger.sign(b"whatever"))
        _added(room, "confirmed", stage="act", act="issuing", tbs_sha256=digest, role=role, person=person, signature=signature)
    before = list(room.signed)
    with pytest.raises(Unacceptable) as caught:
        room.run(made)
    assert caught.value.code == "confirmation-forged"
    assert room.signed == before


@pytest.mark.parametrize("fields", [{}, {"role": "witness", "person": "Nobody", "signature": ""}], ids=["without a name", "of a stranger"])
def test_a_confirmation_of_nobody_signs_nothing(fields: dict[str, str]) -> None:
    room, made = _stopped("issuing")
    _added(room, "confirmed", stage="act", act="issuing", tbs_sha256="00" * 32, **fields)
    before = list(room.signed)
    with pytest.raises(Unacceptable) as caught:
        room.run(made)
    assert caught.value.code == "transcript-broken"
    assert room.signed == before


def test_an_output_that_somebody_put_into_the_folder_with_its_line_is_not_believed() -> None:
    other = Room()
    other.run(sheet())
    room, made = _stopped("issuing")
    forged = other.files["issuing.pem"]
    room.files["issuing.pem"] = forged
    _added(room, "output", act="issuing", file="issuing.pem", sha256=hashlib.sha256(forged).hexdigest())
    before = [octets for _, octets in room.signed]
    with pytest.raises(Conflict) as caught:
        room.run(made)
    assert caught.value.code == "output-changed"
    assert [octets for _, octets in room.signed] == before


# ---- The room -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-002")
def test_nothing_is_made_while_a_network_is_up() -> None:
    room = Room(place=replace(apart(), interfaces=("wlan0",)))
    with pytest.raises(Denied) as caught:
        room.run(sheet())
    assert caught.value.code == "network-up"
    assert "wlan0" in caught.value.what
    assert room.files == {}
    assert room.keys == {}


@pytest.mark.req("REQ-KEY-002")
def test_a_network_that_the_sheet_allows_lands_in_the_transcript_with_its_reason() -> None:
    room = Room(place=replace(apart(), interfaces=("wlan0",)))
    made = replace(sheet(), network="A trial on a desk")
    room.run(made)
    assert lines(room)[0]["interfaces"] == ["wlan0"]
    assert believed(room, made).remarks == ("a network was up (wlan0): A trial on a desk",)


def test_a_network_that_came_up_during_a_stop_is_noticed() -> None:
    room = Room(answer=lambda step: step.act != "issuing")
    with pytest.raises(Denied):
        room.run(sheet())
    room.answer, room.place = (lambda step: True), replace(apart(), interfaces=("eth0",))
    before = list(room.signed)
    with pytest.raises(Denied) as caught:
        room.run(sheet())
    assert caught.value.code == "network-up"
    assert room.signed == before


def test_a_run_goes_on_where_it_began_or_says_why_not() -> None:
    room = Room(answer=lambda step: step.act != "issuing")
    with pytest.raises(Denied):
        room.run(sheet())
    room.answer, room.place = (lambda step: True), replace(apart(), machine="another")
    before = list(room.signed)
    with pytest.raises(Conflict) as caught:
        room.run(sheet())
    assert caught.value.code == "another-machine"
    assert room.signed == before
    room.moved = "The first machine's disk died; witnessed by Wanda"
    room.run(sheet())
    assert any(room.moved in remark for remark in believed(room, sheet()).remarks)


def test_every_role_is_explained() -> None:
    assert all(ROLES.values())
    assert {role for pair in EXCLUSIVE for role in pair} <= set(ROLES)


def test_a_sheet_without_people_is_confirmed_at_the_terminal() -> None:
    room = Room()
    made = sheet(root(), intermediate())
    room.run(made)
    assert believed(room, made).people == ()
    assert hashlib.sha256(made.octets).digest() == made.digest


def test_errors_of_confirmation_are_ours() -> None:
    with pytest.raises(FleetcaError):
        ceremony_roles.check_signature(b"x", b"y", b"z", who="nobody")
