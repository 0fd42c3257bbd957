"""Places that follow the folder: each by itself, never back, never with what cannot be believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.errors import StoreUnavailable
from ca.outlets.http_put import HttpPutOutlet
from ca.outlets.memory import MemoryOutlet
from crl.mirror import Mirror
from tests.fakes.crl_world import LIFETIME
from tests.fakes.places import web_folder
from tests.unit.test_crl_publish import HOUR, ISSUER, NAME, SCOPE, Scene, T, serial


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_mirror_gets_what_the_folder_has_and_nothing_twice(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    with web_folder() as (place, url):
        mirror = Mirror(scene.outlet, HttpPutOutlet(url, now=scene.clock.now), issuers=(ISSUER,))
        assert mirror.follow() == 1
        puts = place.puts
        assert mirror.follow() == 0
        assert place.puts == puts
        scene.world.revoke(serial(3))
        scene.clock.time += 5
        scene.first.publish(SCOPE)
        assert mirror.follow() == 1
        copy = scene.outlet.current(NAME)
        assert copy is not None
        assert place.files[NAME] == copy.octets
        assert place.files[f"{NAME}.number"] == b"2\n"


def test_one_place_that_is_down_stops_neither_the_folder_nor_another_place(scene: Scene) -> None:
    good = MemoryOutlet(scene.clock.now)
    down = Mirror(scene.outlet, HttpPutOutlet("http://127.0.0.1:9/crl", now=scene.clock.now), issuers=(ISSUER,))
    up = Mirror(scene.outlet, good, issuers=(ISSUER,))
    scene.first.publish(SCOPE)
    with pytest.raises(StoreUnavailable) as failed:
        down.follow()
    assert failed.value.code == "mirror-behind"
    assert up.follow() == 1
    assert scene.number() == 1


def test_R09_R11_a_mirror_is_never_set_back_nor_given_what_is_not_ours(scene: Scene) -> None:
    target = MemoryOutlet(scene.clock.now)
    mirror = Mirror(scene.outlet, target, issuers=(ISSUER,))
    scene.first.publish(SCOPE)
    old = scene.outlet.current(NAME)
    scene.clock.time = T + HOUR
    scene.first.publish(SCOPE)
    mirror.follow()
    newer = target.current(NAME)
    scene.outlet._current[NAME] = old
    with pytest.raises(StoreUnavailable):
        Mirror(scene.outlet, target, issuers=(ISSUER,)).follow()
    assert target.current(NAME) == newer
    scene.clock.time = T + LIFETIME // 2
    from ca.model import OutletCopy

    scene.outlet._current[NAME] = OutletCopy("0" * 64, b"<html>", T)
    assert Mirror(scene.outlet, target, issuers=(ISSUER,)).follow() == 0
    assert target.current(NAME) == newer


def test_a_half_file_at_a_mirror_is_replaced(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    with web_folder() as (place, url):
        place.files[NAME] = b"\x30\x82half"
        assert Mirror(scene.outlet, HttpPutOutlet(url, now=scene.clock.now), issuers=(ISSUER,)).follow() == 1
        copy = scene.outlet.current(NAME)
        assert copy is not None
        assert place.files[NAME] == copy.octets
