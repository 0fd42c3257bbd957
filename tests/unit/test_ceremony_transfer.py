"""Files over an air gap as parts: whatever order they come in, what was misread or is missing is named, and nothing wrong passes."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import FleetcaError, Malformed, Unacceptable
from ca.rules.ceremony_transfer import KINDS, MOST_OCTETS, PART_OCTETS, collected, parts
from ca.rules.ceremony_words import WORDS, words

ALPHANUMERIC = re.compile(r"[0-9A-Z $%*+\-./:]+")


@given(octets=st.binary(min_size=1, max_size=4000), kind=st.sampled_from(KINDS), seed=st.integers(), size=st.integers(1, 900))
@settings(max_examples=60, deadline=None)
def test_what_is_shown_is_what_is_collected_in_any_order(octets: bytes, kind: str, seed: int, size: int) -> None:
    made = list(parts(kind, octets, size=size)) if len(octets) / size < 9999 else []
    shuffled = [*made, *made[:2], "a line of something else"]
    random.Random(seed).shuffle(shuffled)
    if made:
        whole = collected(f"  {line.lower()}\n" for line in shuffled)
        assert (whole.kind, whole.octets) == (kind, octets)


def test_a_part_holds_only_what_the_alphanumeric_mode_of_qr_codes_has() -> None:
    for part in parts("csr", bytes(range(256)) * 8):
        assert ALPHANUMERIC.fullmatch(part)


def test_every_misread_character_is_noticed() -> None:
    made = parts("certificate", b"some octets of a certificate " * 8, size=60)
    first = made[1]
    for at in range(5, len(first)):
        wrong = first[:at] + ("A" if first[at] != "A" else "B") + first[at + 1 :]
        with pytest.raises(FleetcaError):
            collected([made[0], wrong, *made[2:]])


WRONG = [
    pytest.param(lambda made, other: made[:-1], "parts-missing", "5", id="a part is missing"),
    pytest.param(lambda made, other: [*made[:2], *other], "parts-mixed", "two different files", id="parts of two files"),
    pytest.param(lambda made, other: [], "no-parts", "no part", id="nothing"),
    pytest.param(lambda made, other: ["-----BEGIN CERTIFICATE-----"], "no-parts", "no part", id="something else"),
    pytest.param(lambda made, other: [made[0][:-1], *made[1:]], "part-misread", "not read right", id="a part that was cut"),
    pytest.param(
        lambda made, other: [made[0].replace(":CSR:", ":XYZ:"), *made[1:]], "part-misread", "not read right", id="an unknown kind"
    ),
]


@pytest.mark.parametrize(("change", "code", "says"), WRONG)
def test_what_is_wrong_is_said(change: object, code: str, says: str) -> None:
    made, other = list(parts("csr", b"x" * 250, size=50)), list(parts("csr", b"y" * 250, size=50))
    with pytest.raises((Malformed, Unacceptable)) as caught:
        collected(change(made, other))  # type: ignore[operator]
    assert caught.value.code == code
    assert says in caught.value.what
    assert caught.value.fix


def test_nothing_and_too_much_are_not_shown() -> None:
    for octets in (b"", bytes(MOST_OCTETS + 1)):
        with pytest.raises(Unacceptable):
            parts("file", octets)
    with pytest.raises(Malformed):
        parts("picture", b"x")


@pytest.mark.parametrize("octets", [1, PART_OCTETS, PART_OCTETS + 1, 2600])
def test_each_part_becomes_a_qr_code_that_a_camera_reads(octets: int) -> None:
    import segno

    for part in parts("csr", bytes(octets)):
        code = segno.make(part, mode="alphanumeric", error="m", micro=False)
        assert int(code.version) <= 25


def test_codes_are_drawn_for_the_terminal_and_for_paper() -> None:
    from fleetca import ceremony_codes, paper

    made = parts("digest", b"0123456789abcdef" * 4)
    assert len(ceremony_codes.on_terminal(made[0]).splitlines()) > 10
    page = paper.html(ceremony_codes.page("issuing.csr", "ab" * 32, "some words", made))
    assert page.count("<svg") == len(made)
    assert made[0] in page
    assert not re.search(r'(src|href)="', page)


# ---- Words --------------------------------------------------------------------------------------------------------------


def test_words_are_many_different_short_and_plain() -> None:
    assert len(set(WORDS)) == 256
    assert all(re.fullmatch(r"[a-z]{3,9}", word) for word in WORDS)
    assert list(WORDS) == sorted(WORDS)


@given(one=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_words_differ_where_the_first_twelve_octets_do(one: bytes, other: bytes) -> None:
    assert (words(one) == words(other)) is (one[:12] == other[:12])


def test_words_are_golden() -> None:
    assert words(bytes(range(12)) + bytes(20)) == "acorn-actor-adobe-agent  album-alley-amber-anchor  angle-ankle-apple-apron"
