"""A key that several custodians share: M open it, M-1 do not, and no damaged, foreign or repeated share passes (REQ-KEY-015, -066)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.custody import Custody, Gathering, ShareSheet
from ca.errors import Conflict, Denied, FleetcaError, KeyUnavailable, Malformed, Misconfigured, Unacceptable
from ca.keys.quorum_backup import CHUNK, Sealing, opened, read_header
from ca.keys.shares import Slip39
from ca.model import AlgorithmName, KeyName, Quorum
from ca.ports import SharedKey
from ca.rules import quorum as rule

PEOPLE = ["Ada Example", "Ben Example", "Cyd Example", "Dee Example", "Eli Example"]
NAME, P256 = KeyName("root"), AlgorithmName("p256")


class Clock:
    def now(self) -> int:
        return 1_800_000_000


class Room:
    """Custodians who copy what they are shown and read it back."""

    def __init__(self, misread: Callable[[str, int, str], str] = lambda _custodian, _attempt, words: words) -> None:
        self.papers: dict[str, ShareSheet] = {}
        self.misread = misread
        self.custody = Custody(sharing=Slip39(), clock=Clock())

    def show(self, sheet: ShareSheet) -> None:
        assert sheet.custodian not in self.papers, "a share is shown once"
        self.papers[sheet.custodian] = sheet

    def reenter(self, custodian: str, attempt: int) -> str:
        assert list(self.papers)[-1] == custodian, "read back by whom it was shown to, before the next one is shown"
        return self.misread(custodian, attempt, self.papers[custodian].words)

    def make(self, threshold: int = 3, people: list[str] = PEOPLE, name: str = "root-2026") -> tuple[Quorum, SharedKey]:
        return self.custody.make(name, people, threshold, show=self.show, reenter=self.reenter)

    def words(self, *people: str) -> list[str]:
        return [self.papers[person].words for person in people]


def gathered(room: Room, quorum: Quorum, words: list[str]) -> Gathering:
    gathering = room.custody.gather(quorum)
    for share in words:
        gathering.give(share)
    return gathering


@pytest.fixture(scope="module")
def made() -> tuple[Room, Quorum, SharedKey]:
    room = Room()
    return (room, *room.make())


# ---- Making -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-066")
def test_every_three_of_five_give_the_key(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, key = made
    for people in itertools.combinations(PEOPLE, 3):
        gathering = gathered(room, quorum, room.words(*people))
        assert gathering.custodians == people
        assert gathering.key().passphrase() == key.passphrase()


@pytest.mark.req("REQ-KEY-066", "REQ-KEY-015")
def test_two_of_five_are_not_enough_for_us_nor_for_the_words_themselves(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    for people in itertools.combinations(PEOPLE, 2):
        gathering = gathered(room, quorum, room.words(*people))
        with pytest.raises(Denied) as refused:
            gathering.key()
        assert refused.value.code == "quorum-incomplete"
        with pytest.raises(KeyUnavailable):
            Slip39().combine(room.words(*people))


def test_each_share_goes_to_one_custodian_once(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    assert [sheet.custodian for sheet in room.papers.values()] == PEOPLE
    assert len({sheet.words for sheet in room.papers.values()}) == 5
    assert {(sheet.identifier, sheet.threshold, sheet.count) for sheet in room.papers.values()} == {(quorum.identifier, 3, 5)}
    assert quorum.shape == "3 of 5"


def test_nothing_of_a_share_or_key_is_shown_in_text(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, key = made
    gathering = gathered(room, quorum, room.words("Ada Example"))
    shown = " ".join(map(repr, (key, gathering, *room.papers.values()))) + rule.write(quorum).decode()
    for sheet in room.papers.values():
        words = sheet.words.split()
        assert not [pair for pair in itertools.pairwise(words) if " ".join(pair) in shown]
    assert key.passphrase().decode() not in shown


@pytest.mark.parametrize("wrong_tries", [1, 2])
def test_who_misreads_may_read_again_without_seeing_it_again(wrong_tries: int) -> None:
    def misread(custodian: str, attempt: int, words: str) -> str:
        return " ".join(words.split()[:-1]) if custodian == "Ben Example" and attempt <= wrong_tries else words

    room = Room(misread)
    quorum, key = room.make()
    assert gathered(room, quorum, room.words(*PEOPLE[:3])).key().check == key.check


MISREADINGS = [
    pytest.param(lambda room, words: words.replace(words.split()[9], "academic" if words.split()[9] != "academic" else "acid"), id="one word is another"),
    pytest.param(lambda room, words: " ".join([*words.split()[:-2], words.split()[-1], words.split()[-2]]), id="two words have changed places"),
    pytest.param(lambda room, words: room.papers[PEOPLE[0]].words, id="it is another custodian's"),
    pytest.param(lambda room, words: "", id="nothing is read back"),
]  # fmt: skip


@pytest.mark.req("REQ-KEY-066")
@pytest.mark.parametrize("misread", MISREADINGS)
def test_a_set_is_given_up_when_a_share_is_not_read_back(misread: Callable[[Room, str], str]) -> None:
    room = Room()
    room.misread = lambda custodian, _, words: misread(room, words) if custodian == PEOPLE[2] else words
    with pytest.raises(Denied) as given_up:
        room.make()
    assert given_up.value.code == "share-not-verified"
    assert PEOPLE[2] in given_up.value.what
    assert list(room.papers) == PEOPLE[:3], "nobody after is shown anything"


UNLAWFUL = [
    pytest.param("root", PEOPLE, 1, id="one alone"),
    pytest.param("root", PEOPLE, 6, id="more than there are"),
    pytest.param("root", PEOPLE[:1], 2, id="one custodian"),
    pytest.param("root", [f"person {n}" for n in range(17)], 3, id="seventeen"),
    pytest.param("root", ["Ada", "ADA", "Ben"], 2, id="one person twice"),
    pytest.param("root", ["Ada", "", "Ben"], 2, id="nobody"),
    pytest.param("root", ["Ada", "Ben\n", "Cyd"], 2, id="a name over two lines"),
    pytest.param("Root 1", PEOPLE, 3, id="a name that is none"),
]


@pytest.mark.parametrize(("name", "people", "threshold"), UNLAWFUL)
def test_an_unlawful_set_is_refused_before_a_share_is_made(name: str, people: list[str], threshold: int) -> None:
    room = Room()
    with pytest.raises(Misconfigured):
        room.make(threshold, people, name)
    assert room.papers == {}


# ---- Giving -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-066")
def test_a_share_of_another_set_is_refused(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    other = Room()
    other.make(name="root-2036")
    gathering = gathered(room, quorum, room.words(PEOPLE[0]))
    with pytest.raises(Unacceptable) as refused:
        gathering.give(other.papers[PEOPLE[1]].words)
    assert refused.value.code == "share-of-another-set"
    assert gathering.left == 2


def test_a_set_of_the_same_identifier_is_told_apart_by_its_key(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    swapped = Quorum(quorum.name, quorum.identifier, 3, quorum.custodians, bytes(32), quorum.recipient, 0)
    with pytest.raises(KeyUnavailable) as refused:
        gathered(room, swapped, room.words(*PEOPLE[:3])).key()
    assert refused.value.code == "shares-do-not-fit"


def test_a_share_counts_once(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    gathering = gathered(room, quorum, room.words(PEOPLE[0]))
    for words in (room.papers[PEOPLE[0]].words, room.papers[PEOPLE[0]].words.upper()):
        with pytest.raises(Conflict) as refused:
            gathering.give(words)
        assert refused.value.code == "share-given"


@pytest.mark.req("REQ-KEY-066")
@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 32), other=st.integers(0, 1023))
def test_a_damaged_word_is_refused(place: int, other: int) -> None:
    from shamir_mnemonic.wordlist import WORDLIST

    words = _ONE.split()
    if words[place] == WORDLIST[other]:
        return
    words[place] = WORDLIST[other]
    with pytest.raises(Malformed) as refused:
        Slip39().read(" ".join(words))
    assert refused.value.code == "bad-share"
    assert not set(words) & set(f"{refused.value.what} {refused.value.why}".split())


_ONE = Slip39().split(threshold=2, count=3)[0][1]


def test_a_word_may_be_typed_by_its_first_four_letters_and_in_any_case() -> None:
    short = ",".join(f" {word[:4].upper()}" for word in _ONE.split())
    assert Slip39().read(short) == Slip39().read(_ONE)


@pytest.mark.parametrize("words", ["", "academic", "x" * 10_000, "\0", "academic " * 33, "zzzz " * 33])
def test_what_is_no_share_is_refused_in_words(words: str) -> None:
    with pytest.raises(Malformed) as refused:
        Slip39().read(words)
    assert refused.value.fix


def test_a_word_that_is_none_is_named_by_its_place() -> None:
    words = _ONE.split()
    words[6] = "zebra"
    with pytest.raises(Malformed) as refused:
        Slip39().read(" ".join(words))
    assert refused.value.what == "Word 7 is none of the list."


def test_unlocking_asks_until_it_has_enough_and_says_what_it_refuses(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, key = made
    other = Room()
    other.make()
    answers = iter(
        [
            room.papers[PEOPLE[4]].words,
            "damaged",
            room.papers[PEOPLE[4]].words,
            other.papers[PEOPLE[0]].words,
            *room.words(PEOPLE[1], PEOPLE[2]),
        ]
    )
    heard: list[object] = []
    found, people = room.custody.unlock(quorum, ask=lambda _: next(answers), told=heard.append)
    assert found.check == key.check
    assert people == (PEOPLE[1], PEOPLE[2], PEOPLE[4])
    assert [each.code for each in heard if isinstance(each, FleetcaError)] == ["bad-share", "share-given", "share-of-another-set"]


def test_a_custodian_can_check_a_paper_without_anybody_else(made: tuple[Room, Quorum, SharedKey]) -> None:
    room, quorum, _ = made
    assert room.custody.verify_share(quorum, room.papers[PEOPLE[3]].words).custodian == PEOPLE[3]


# ---- The public description ---------------------------------------------------------------------------------------------


def test_the_description_survives_writing_and_reading(made: tuple[Room, Quorum, SharedKey]) -> None:
    _, quorum, _ = made
    assert rule.read(rule.write(quorum)) == quorum


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_description_is_refused(damage: bytes) -> None:
    with pytest.raises(Malformed):
        rule.read(damage)


def test_a_changed_description_is_refused(made: tuple[Room, Quorum, SharedKey]) -> None:
    _, quorum, _ = made
    octets = rule.write(quorum)
    for old, new in (
        (b'"threshold":3', b'"threshold":1'),
        (b'"identifier"', b'"ident"'),
        (b'"version":1', b'"version":2'),
        (b":3", b':"3"'),
    ):
        with pytest.raises(Malformed):
            rule.read(octets.replace(old, new))


# ---- Backups ------------------------------------------------------------------------------------------------------------


def backup(quorum: Quorum, octets: bytes) -> bytes:
    out = io.BytesIO()
    sealing = Sealing(out, quorum, of="a test", now=1)
    for start in range(0, len(octets), 300_000):
        sealing.write(octets[start : start + 300_000])
    sealing.close()
    return out.getvalue()


@pytest.mark.req("REQ-KEY-015")
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
def test_a_backup_gives_back_what_went_in(size: int, made: tuple[Room, Quorum, SharedKey]) -> None:
    _, quorum, key = made
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sealed = backup(quorum, content)
    assert b"".join(opened(io.BytesIO(sealed), key)) == content
    header, _ = read_header(io.BytesIO(sealed))
    assert (header["quorum"], header["identifier"], header["of"]) == (quorum.name, quorum.identifier, "a test")


@pytest.mark.req("REQ-KEY-015")
def test_another_quorum_opens_nothing(made: tuple[Room, Quorum, SharedKey]) -> None:
    _, quorum, _ = made
    _, other = Room().make()
    with pytest.raises(KeyUnavailable) as refused:
        list(opened(io.BytesIO(backup(quorum, b"secret")), other))
    assert refused.value.code == "not-for-this-quorum"


def test_a_backup_that_was_touched_is_refused(made: tuple[Room, Quorum, SharedKey]) -> None:
    _, quorum, key = made
    sealed = backup(quorum, bytes(2 * CHUNK + 9))
    first = sealed.index(b"\n") + 1 + 80
    step = CHUNK + 16
    parts = [sealed[:first], sealed[first : first + step], sealed[first + step : first + 2 * step], sealed[first + 2 * step :]]
    head, one, two, three = parts
    for damage in (
        head + two + one + three,
        head + one + two,
        head + one,
        head,
        head + one + two + three[:-1],
        head + one + three,
        head + one + two + three + b"x",
    ):
        with pytest.raises(Malformed) as refused:
            list(opened(io.BytesIO(damage), key))
        assert refused.value.code == "backup-damaged"
    for place in (5, first - 40, first + 3, len(sealed) - 1):
        octets = bytearray(sealed)
        octets[place] ^= 1
        with pytest.raises((Malformed, KeyUnavailable)):
            list(opened(io.BytesIO(bytes(octets)), key))
