"""Rules are pure: the whole suite runs with the world taken away from them (tests/conftest.py). Here: that the watch itself sees."""

from __future__ import annotations

import os
import pkgutil
import secrets
import time
import types

import pytest

import ca.der
import ca.rules
import crl.rules
import ocsp.rules
from tests.conftest import PURE, RuleAskedTheWorld


@pytest.mark.parametrize(
    "asks",
    [
        pytest.param("time.time()", id="the clock"),
        pytest.param("time.monotonic()", id="the monotonic clock"),
        pytest.param("os.urandom(4)", id="randomness of the system"),
        pytest.param("secrets.token_bytes(4)", id="secrets"),
        pytest.param("os.getenv('HOME')", id="the environment"),
        pytest.param("open('/dev/null')", id="a file"),
    ],
)
def test_P12_a_rule_that_asks_for_it_fails_its_test(asks: str) -> None:
    rule = types.ModuleType("ca.rules.planted")
    exec(f"import os, secrets, time\ndef rule():\n    return {asks}\n", rule.__dict__)
    with pytest.raises(RuleAskedTheWorld):
        rule.rule()


def test_tests_themselves_may_ask() -> None:
    assert time.time() > 0
    assert len(os.urandom(4)) == len(secrets.token_bytes(4))


def test_the_watch_covers_every_pure_package() -> None:
    for package in (ca.rules, ca.der, crl.rules, ocsp.rules):
        assert package.__name__.startswith(PURE)
        assert len(list(pkgutil.iter_modules(package.__path__))) >= 2
