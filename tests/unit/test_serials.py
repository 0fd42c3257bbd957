"""Serial numbers: 20 octets, positive, 134 random bits, and a check value that only we can make (R03)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.der import writer as W
from ca.errors import Broken
from ca.rules.serial import is_ours, make_serial
from ca.rules.window import last_second, lifetime_of
from ca.system import SystemChance

KEY = bytes(range(32))


@given(st.binary(min_size=17, max_size=17))
def test_R03_every_serial_number_has_20_octets_and_is_positive(random: bytes) -> None:
    made = make_serial(random, KEY)
    assert made > 0
    assert len(W.integer(made)) == 22
    assert is_ours(made, KEY)


@given(st.binary(min_size=17, max_size=17), st.integers(min_value=0, max_value=157))
def test_a_changed_serial_number_is_recognised(random: bytes, bit: int) -> None:
    # A flip in the random part keeps its check value with a chance of 2^-24; with these 158 x 100 it will not be seen.
    assert not is_ours(make_serial(random, KEY) ^ 1 << bit, KEY)


@given(st.integers(min_value=-(1 << 200), max_value=1 << 200))
def test_numbers_of_any_size_are_judged_without_an_error(number: int) -> None:
    assert is_ours(number, KEY) in (True, False)
    if not 1 << 158 <= number < 1 << 159:
        assert not is_ours(number, KEY)


def test_another_key_makes_and_believes_other_check_values() -> None:
    made = make_serial(bytes(17), KEY)
    assert not is_ours(made, bytes(32))
    assert made >> 24 == make_serial(bytes(17), bytes(32)) >> 24


def test_R03_bits_are_balanced_and_numbers_do_not_repeat() -> None:
    chance = SystemChance()
    made = [make_serial(chance.octets(17), KEY) for _ in range(4000)]
    assert len(set(made)) == len(made)
    for bit in range(158):
        ones = sum(number >> bit & 1 for number in made)
        # Six standard deviations.
        assert abs(ones - 2000) < 6 * 32


@pytest.mark.parametrize(("random", "key"), [(bytes(16), KEY), (bytes(18), KEY), (bytes(17), bytes(31)), (b"", b"")])
def test_too_little_chance_or_key_makes_no_serial_number(random: bytes, key: bytes) -> None:
    with pytest.raises(Broken):
        make_serial(random, key)


@given(st.integers(min_value=0, max_value=1 << 40), st.integers(min_value=1, max_value=1 << 32))
def test_R04_lifetime_and_last_second_are_each_others_inverse(start: int, lifetime: int) -> None:
    assert lifetime_of(start, last_second(start, lifetime)) == lifetime
