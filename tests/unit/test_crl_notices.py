"""The webhook: every change, in order, signed, until it is taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ca.errors import StoreUnavailable
from ca.model import Reason
from crl.notices import Notices, Place
from tests.unit.test_crl_publish import Scene, serial

SECRET = b"known to both"


class Listener:
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answers: list[int | Exception] = []

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> int:
        mac = hmac.new(SECRET, f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        self.heard.append({**json.loads(body), "id": headers["webhook-id"], "status": answer})
        return answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def notices(scene: Scene, listener: Listener, folder: Path, holder: str = "one") -> Notices:
    def latest() -> int:
        return max((one.change for one in scene.world.changes_since(0, 10_000)), default=0)

    return Notices(
        "soc",
        reading=scene.world,
        leases=scene.world,
        post=listener,
        place=Place(folder / "told"),
        secret=lambda: SECRET,
        clock=scene.clock,
        deployment="demo",
        holder=holder,
        start=latest,
    )


@pytest.mark.req("REQ-KEY-068")
def test_each_change_is_told_in_order_and_signed(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    hook = notices(scene, listener, tmp_path)
    scene.world.revoke(serial(1))
    assert hook.follow() == 0, "what was before is not told"
    scene.world.revoke(serial(2), reason=Reason.certificateHold)
    scene.world.revoke(serial(2), reason=Reason.removeFromCRL)
    scene.world.revoke(serial(3))
    assert hook.follow() == 3
    assert [one["type"] for one in listener.heard] == ["certificate.held", "certificate.released", "certificate.revoked"]
    assert listener.heard[-1]["serial"] == f"{serial(3):040x}"
    assert hook.follow() == 0


@pytest.mark.req("REQ-KEY-068")
def test_what_is_not_taken_is_told_again_and_nothing_passes_it(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    notices(scene, listener, tmp_path).follow()
    for n in range(1, 4):
        scene.world.revoke(serial(n))
    listener.answers = [204, 500]
    with pytest.raises(StoreUnavailable):
        notices(scene, listener, tmp_path).follow()
    listener.answers = [OSError("refused")]
    with pytest.raises(StoreUnavailable):
        notices(scene, listener, tmp_path).follow()
    assert notices(scene, listener, tmp_path).follow() == 2
    assert [one["change"] for one in listener.heard if one["status"] == 204] == [1, 2, 3]
    ids = [one["id"] for one in listener.heard if one["change"] == 2]
    assert len(set(ids)) == 1, "told twice under one name"


def test_one_publisher_tells(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    first, second = notices(scene, listener, tmp_path), notices(scene, listener, tmp_path, "two")
    first.follow()
    scene.world.revoke(serial(1))
    assert (second.follow(), first.follow()) == (0, 1)


def test_who_takes_over_on_another_host_leaves_nothing_out(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    first, second = notices(scene, listener, tmp_path / "here"), notices(scene, listener, tmp_path / "there", "two")
    assert (first.follow(), second.follow()) == (0, 0)
    scene.world.revoke(serial(1))
    scene.clock.time += 3600
    assert second.follow() == 1
    assert [one["change"] for one in listener.heard] == [1]


def test_a_place_that_is_no_number_is_told_and_not_taken_for_the_first_time(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    notices(scene, listener, tmp_path).follow()
    scene.world.revoke(serial(1))
    (tmp_path / "told").write_text("")
    with pytest.raises(StoreUnavailable) as told:
        notices(scene, listener, tmp_path).follow()
    assert told.value.code == "webhook-place"
    (tmp_path / "told").write_text("0")
    assert notices(scene, listener, tmp_path).follow() == 1


def test_a_database_that_was_set_back_brings_no_flood(scene: Scene, tmp_path: Path) -> None:
    listener = Listener()
    Place(tmp_path / "told").write(500)
    scene.world.revoke(serial(1))
    assert notices(scene, listener, tmp_path).follow() == 0
    scene.world.revoke(serial(2))
    assert notices(scene, listener, tmp_path).follow() == 1
