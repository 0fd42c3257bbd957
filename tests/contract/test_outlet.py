"""What every outlet promises (`ca.ports.Outlet`), held against each of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ca.errors import Conflict, Malformed, StoreUnavailable
from ca.outlets.directory import DirectoryOutlet
from ca.outlets.http_put import HttpPutOutlet
from ca.outlets.memory import MemoryOutlet
from ca.outlets.s3 import S3Outlet
from tests.fakes.places import FaultyS3, web_folder

NAME = "issuing.crl"


def now() -> int:
    return 1_800_000_000


@contextmanager
def bucket() -> Iterator[FaultyS3]:
    """moto's S3, in this process."""
    import boto3
    import moto

    with moto.mock_aws():
        client = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y")
        client.create_bucket(Bucket="crls", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield FaultyS3(client)


@pytest.fixture(params=["directory", "memory", "http-put", "s3"])
def outlet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    match request.param:
        case "directory":
            yield DirectoryOutlet(tmp_path / "public" / "crl")
        case "memory":
            yield MemoryOutlet(now)
        case "http-put":
            with web_folder() as (_, url):
                yield HttpPutOutlet(url, now=now)
        case _:
            with bucket() as client:
                yield S3Outlet("crls", now=now, prefix="public/", client=client)


@pytest.fixture(params=["http-put", "s3"])
def faulty(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Callable[[str], None]]]:
    """An outlet on another host, and how to make its next put fail."""
    if request.param == "http-put":
        with web_folder() as (place, url):
            yield HttpPutOutlet(url, now=now), lambda fault: setattr(place, "fault", fault)
    else:
        with bucket() as client:
            yield S3Outlet("crls", now=now, client=client), lambda fault: setattr(client, "fault", fault)


def put(outlet: Any, octets: bytes, *, seen: str | None) -> Any:
    with outlet.stage(NAME) as stage:
        os.write(stage.fileno(), octets)
        stage.sync()
        assert stage.read(0, stage.size) == octets
        return outlet.put_if_unchanged(NAME, stage, seen=seen)


def before(outlet: Any) -> bytes | None:
    """What readers got before what they get now."""
    with outlet.previous(NAME) as copy:
        return None if copy is None else copy.read(0, copy.size)


def test_nothing_is_there_before_something_is_put(outlet: Any) -> None:
    assert outlet.current(NAME) is None
    assert before(outlet) is None
    assert outlet.mark(NAME) is None
    assert outlet.high_water(NAME) == 0


def test_what_was_put_is_what_readers_get(outlet: Any) -> None:
    copy = put(outlet, b"one", seen=None)
    assert outlet.current(NAME).octets == b"one"
    assert outlet.current(NAME).version == copy.version
    assert copy.version == sha256(b"one").hexdigest()


def test_the_mark_changes_with_the_file(outlet: Any) -> None:
    first = put(outlet, b"one", seen=None)
    mark = outlet.mark(NAME)
    assert mark == outlet.mark(NAME)
    put(outlet, b"two", seen=first.version)
    assert outlet.mark(NAME) != mark


def test_the_one_before_is_kept(outlet: Any) -> None:
    version = None
    for octets in (b"one", b"two", b"three"):
        version = put(outlet, octets, seen=version).version
    assert outlet.current(NAME).octets == b"three"
    assert before(outlet) == b"two"


def test_a_stage_is_invisible_and_gone_without_a_put(outlet: Any) -> None:
    with outlet.stage(NAME) as stage:
        os.write(stage.fileno(), b"half")
        assert outlet.current(NAME) is None
    assert outlet.current(NAME) is None


def test_an_empty_stage_reads_as_nothing(outlet: Any) -> None:
    with outlet.stage(NAME) as stage:
        stage.sync()
        assert stage.read(0, stage.size) == b""


@pytest.mark.parametrize("seen", [None, sha256(b"another").hexdigest()], ids=["saw nothing", "saw another file"])
def test_who_was_overtaken_puts_nothing(outlet: Any, seen: str | None) -> None:
    put(outlet, b"one", seen=None)
    with pytest.raises(Conflict) as refused:
        put(outlet, b"two", seen=seen)
    assert refused.value.code == "outlet-changed"
    assert outlet.current(NAME).octets == b"one"
    assert before(outlet) is None


def test_a_number_never_goes_back(outlet: Any) -> None:
    for number, kept in ((5, 5), (3, 5), (6, 6), (1 << 150, 1 << 150)):
        outlet.raise_high_water(NAME, number)
        assert outlet.high_water(NAME) == kept


# ---- places on other hosts: what a failed put leaves ------------------------------------------------------------------


def test_failed_and_not_written_leaves_the_old_one_and_may_be_repeated(faulty: tuple[Any, Callable[[str], None]]) -> None:
    place, fail = faulty
    first = put(place, b"one" * 100, seen=None)
    fail("failed and not written")
    with pytest.raises(StoreUnavailable):
        put(place, b"two" * 100, seen=first.version)
    assert place.current(NAME).octets == b"one" * 100
    assert put(place, b"two" * 100, seen=first.version).version == sha256(b"two" * 100).hexdigest()


@pytest.mark.parametrize("fault", ["failed but written", "answer lost"])
def test_failed_but_written_is_found_to_be_there(faulty: tuple[Any, Callable[[str], None]], fault: str) -> None:
    place, fail = faulty
    first = put(place, b"one" * 100, seen=None)
    fail(fault)
    assert put(place, b"two" * 100, seen=first.version).version == sha256(b"two" * 100).hexdigest()
    assert place.current(NAME).octets == b"two" * 100
    assert before(place) == b"one" * 100


def test_half_written_is_no_success_and_the_next_put_mends_it(faulty: tuple[Any, Callable[[str], None]]) -> None:
    place, fail = faulty
    first = put(place, b"one" * 100, seen=None)
    fail("half written")
    with pytest.raises(StoreUnavailable):
        put(place, b"two" * 100, seen=first.version)
    half = place.current(NAME)
    assert put(place, b"two" * 100, seen=half.version).version == sha256(b"two" * 100).hexdigest()


# ---- the folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "crl"


@pytest.mark.parametrize(
    "name", ["../issuing.crl", "/etc/passwd", "issuing.crl/x", "", ".lock", "issuing.crl.number", "Issuing.crl", "a\0.crl", "%2e%2e.crl"]
)
def test_R30_names_are_never_paths(folder: Path, name: str) -> None:
    outlet = DirectoryOutlet(folder)
    for act in (
        outlet.current,
        outlet.mark,
        outlet.high_water,
        *(lambda n, opening=opening: opening(n).__enter__() for opening in (outlet.opened, outlet.previous, outlet.stage)),
    ):
        with pytest.raises(Malformed):
            act(name)


def test_the_folder_holds_what_its_description_says(folder: Path) -> None:
    outlet = DirectoryOutlet(folder)
    first = put(outlet, b"one", seen=None)
    put(outlet, b"two", seen=first.version)
    outlet.raise_high_water(NAME, 12)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "issuing.crl", "issuing.crl.number", "issuing.crl.previous"]
    assert (folder / "issuing.crl.number").read_text() == "12\n"
    for name in ("issuing.crl", "issuing.crl.number", "issuing.crl.previous"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o644


def test_readers_may_read_whatever_mask_the_publisher_lives_under(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        put(DirectoryOutlet(folder), b"one", seen=None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("mode", "lock"),
    [
        pytest.param(0o755, 0o600, id="the lock of a folder of one user is its own"),
        pytest.param(0o775, 0o660, id="the lock of a folder that a group may write is the group's"),
    ],
)
def test_the_number_is_for_readers_and_the_lock_for_writers(folder: Path, mode: int, lock: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    before = os.umask(0o077)
    try:
        DirectoryOutlet(folder).raise_high_water(NAME, 3)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / ".lock").stat().st_mode) == lock
    assert stat.S_IMODE((folder / "issuing.crl.number").stat().st_mode) == 0o644


def test_what_another_user_put_there_is_kept_as_previous_though_it_cannot_be_linked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    outlet = DirectoryOutlet(folder)
    first = put(outlet, b"one", seen=None)
    monkeypatch.setattr(os, "link", refused)
    put(outlet, b"two", seen=first.version)
    assert before(outlet) == b"one"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "issuing.crl", "issuing.crl.previous"]


def test_putting_the_same_octets_again_keeps_the_one_before(folder: Path) -> None:
    outlet = DirectoryOutlet(folder)
    first = put(outlet, b"one", seen=None)
    second = put(outlet, b"one", seen=first.version)
    assert second.version == first.version
    assert before(outlet) == b"one"


def test_the_rest_of_a_crash_is_swept_and_a_living_stage_is_not(folder: Path) -> None:
    outlet = DirectoryOutlet(folder)
    folder.mkdir()
    dead = folder / ".issuing.crl.123-1.new"
    dead.write_bytes(b"half a fi")
    with outlet.stage(NAME) as living:
        assert not dead.exists()
        with outlet.stage(NAME) as other:
            assert living.path.exists()
            assert other.path.exists()
    assert not living.path.exists()


def test_a_high_water_file_that_is_no_number_is_told_and_not_taken_for_zero(folder: Path) -> None:
    outlet = DirectoryOutlet(folder)
    outlet.raise_high_water(NAME, 9)
    (folder / "issuing.crl.number").write_text("nine")
    with pytest.raises(StoreUnavailable) as told:
        outlet.high_water(NAME)
    assert told.value.code == "high-water-unreadable"
    assert "decimal" in told.value.fix


def test_the_system_s_errors_come_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outlet = DirectoryOutlet(tmp_path / "file")
    acts: list[Callable[[], Any]] = [
        lambda: outlet.current(NAME),
        lambda: outlet.stage(NAME).__enter__(),
        lambda: outlet.raise_high_water(NAME, 1),
        lambda: outlet.mark(NAME),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable) as told:
            act()
        assert told.value.code == "outlet-unavailable"
        assert told.value.fix


def test_R26_a_full_disk_is_told_and_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outlet = DirectoryOutlet(folder)
    first = put(outlet, b"one", seen=None)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable) as told:
        put(outlet, b"two", seen=first.version)
    assert told.value.why == "No space left on device"
    monkeypatch.undo()
    assert outlet.current(NAME).octets == b"one"
    assert [path.name for path in folder.glob(".*new")] == []
