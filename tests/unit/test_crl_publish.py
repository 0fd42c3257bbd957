"""The publisher in a small world: when it acts, what it refuses, what it mends."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ca.errors import Broken, Conflict, StoreUnavailable, Unacceptable
from ca.model import CrlEntry, CrlIntent, IssuerId, OutletCopy, Placed, Reason, Serial
from ca.outlets.directory import DirectoryOutlet
from ca.outlets.memory import MemoryOutlet
from crl.adopt import adopt, take_over
from crl.health import health
from crl.model import Cause, Freshness, Policy, Result, Scope
from crl.publish import Publisher
from crl.shelf import Shelf
from tests.fakes.crl_world import LIFETIME, Authority, Clock, World, authority

T = 1_800_000_000
HOUR = 3600
POLICY = Policy(interval=HOUR, nudge=5, lifetime=LIFETIME, lease=60)
AUTHORITY = authority(not_before=T - 10**7, not_after=T + 10**8)
ISSUER = AUTHORITY.issuer
SCOPE = Scope(ISSUER)
OTHER = authority(called="other", not_before=T - 10**7, not_after=T + 10**8)
NAME = "issuing.crl"
LONG = 1 << 26


def serial(n: int) -> int:
    return (0x41 << 152) + n


class Scene:
    """A world, an outlet and publishers on them."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(T)
        self.world = World(folder / "world.db", AUTHORITY, self.clock)
        self.outlet = MemoryOutlet(self.clock.now)
        self.failpoints: dict[str, Callable[[], None]] = {}
        self.first = self.publisher("first")

    def publisher(self, holder: str, **parts: Any) -> Publisher:
        given: dict[str, Any] = {
            "reading": self.world,
            "leases": self.world,
            "signer": self.world,
            "outlet": self.outlet,
            "clock": self.clock,
            "failpoint": self.at,
            "policy": POLICY,
            "holder": holder,
        }
        return Publisher(**{**given, **parts})

    def at(self, name: str) -> None:
        self.failpoints.pop(name, lambda: None)()

    def crl(self) -> x509.CertificateRevocationList:
        copy = self.outlet.current(NAME)
        assert copy is not None
        return x509.load_der_x509_crl(copy.octets)

    def number(self) -> int:
        return self.crl().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def serials(self) -> list[int]:
        return [one.serial_number - serial(0) for one in self.crl()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_first_crl_is_empty_and_recorded(scene: Scene) -> None:
    outcome = scene.first.publish(SCOPE)
    assert (outcome.result, outcome.cause) == (Result.published, Cause.missing)
    assert (scene.number(), scene.serials()) == (1, [])
    assert scene.outlet.high_water(NAME) == 1
    recorded = scene.world.last_crl(ISSUER.id, 0)
    assert recorded is not None
    assert recorded.number == 1


def test_nothing_happens_until_it_is_due(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    for scene.clock.time in (T + 1, T + HOUR - 1):
        assert scene.first.publish(SCOPE).result is Result.not_due
    scene.clock.time = T + HOUR
    assert scene.first.publish(SCOPE).cause is Cause.regular
    assert scene.number() == 2


def test_P5_a_revocation_brings_a_crl_at_once_and_a_burst_shares_one(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    scene.clock.time = T + 100
    scene.world.revoke(serial(1))
    assert scene.first.publish(SCOPE).cause is Cause.nudged
    assert scene.serials() == [1]
    for n in range(2, 5):
        scene.world.revoke(serial(n))
        scene.clock.time += 1
        assert scene.first.publish(SCOPE).result is Result.not_due
    scene.clock.time = T + 105
    scene.first.publish(SCOPE)
    assert (scene.number(), scene.serials()) == (3, [1, 2, 3, 4])


@pytest.mark.parametrize(
    "other", [{"listed": False}, {"issuer": "another"}], ids=["of a certificate that stands in no CRL", "of another issuer's certificate"]
)
def test_a_change_that_no_crl_shows_brings_none(scene: Scene, other: dict[str, Any]) -> None:
    scene.first.publish(SCOPE)
    scene.clock.time = T + 100
    for n in range(1200):
        if n % 400 == 0:
            scene.world.revoke(serial(n), **other)
    assert scene.first.publish(SCOPE).result is Result.not_due
    scene.world.revoke(serial(7))
    assert scene.first.publish(SCOPE).cause is Cause.nudged
    assert scene.serials() == [7]


def test_a_release_from_hold_leaves_the_list(scene: Scene) -> None:
    scene.world.revoke(serial(1), reason=Reason.certificateHold)
    scene.world.revoke(serial(2))
    scene.first.publish(SCOPE)
    assert scene.serials() == [1, 2]
    scene.world.revoke(serial(1), reason=Reason.removeFromCRL)
    scene.clock.time = T + 10
    scene.first.publish(SCOPE)
    assert scene.serials() == [2]


def test_RFC5280_3_3_R07_an_entry_stays_until_it_stood_on_a_regular_crl_after_expiry(scene: Scene) -> None:
    """Windows of a day: a regular CRL comes within eight hours. Those that others' revocations bring in between are none."""
    scene.world.revoke(serial(1), not_after=T + 90 * 60)
    scene.world.revoke(serial(2))
    seen = []
    for hour in range(12):
        scene.clock.time = T + hour * HOUR
        if hour == 2:
            scene.world.revoke(serial(3))
        scene.first.publish(SCOPE)
        seen.append(scene.serials())
    assert seen == [[1, 2]] * 2 + [[1, 2, 3]] * 8 + [[2, 3]] * 2


def test_R07_thirty_simulated_days(scene: Scene) -> None:
    """Every three hours somebody is revoked whose certificate ends within two days; after each step the list is compared with a plain model."""
    ends: dict[int, int] = {}
    published: list[int] = []
    policy = replace(POLICY, interval=6 * HOUR)
    publisher = scene.publisher("month", policy=policy)
    for step in range(30 * 8):
        scene.clock.time = T + step * 3 * HOUR
        if step % 2 == 0:
            ends[step] = scene.clock.time + (step * 7919 % 48 + 1) * HOUR
            scene.world.revoke(serial(step), not_after=ends[step])
        if publisher.publish(SCOPE).result is Result.published:
            last = published[-1] if published else 0
            stays = min(last, scene.clock.time - (LIFETIME - 1) // 3) if published else 0
            assert scene.serials() == [n for n in sorted(ends) if ends[n] >= stays]
            published.append(scene.clock.time)
    assert len(published) >= 30 * 4


def test_P4_nothing_is_signed_for_an_issuer_without_a_key(scene: Scene) -> None:
    root = replace(ISSUER, key=None)
    assert scene.first.publish(Scope(root), asked=True).result is Result.no_key
    assert scene.world.calls == []


def test_somebody_may_ask(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    assert scene.first.publish(SCOPE, asked=True).cause is Cause.asked
    assert scene.number() == 2


# ---- R11: numbers ---------------------------------------------------------------------------------------------------


def test_R11_the_number_stays_above_the_high_water_file(scene: Scene) -> None:
    scene.outlet.raise_high_water(NAME, 41)
    scene.first.publish(SCOPE)
    assert scene.number() == 42


def test_R11_after_a_restored_database_the_number_rises_and_nobody_is_forgotten(scene: Scene, tmp_path: Path) -> None:
    for hour in range(3):
        scene.clock.time = T + hour * HOUR
        scene.first.publish(SCOPE)
    restored = World(tmp_path / "restored.db", AUTHORITY, scene.clock)
    second = scene.publisher("second", reading=restored, leases=restored, signer=restored)
    scene.clock.time += HOUR
    assert second.publish(SCOPE).cause is Cause.regular
    assert scene.number() == 4


def test_R12_a_restored_database_that_forgot_a_revocation_publishes_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.world.revoke(serial(5))
    scene.first.publish(SCOPE)
    restored = World(tmp_path / "restored.db", AUTHORITY, scene.clock)
    second = scene.publisher("second", reading=restored, leases=restored, signer=restored)
    scene.clock.time += HOUR
    with pytest.raises(Broken) as refused:
        second.publish(SCOPE)
    assert refused.value.code == "crl-forgotten"
    assert f"{serial(5):040x}" in refused.value.what
    assert (scene.number(), scene.serials()) == (1, [5])
    restored.revoke(serial(5))
    second.publish(SCOPE)
    assert scene.serials() == [5]
    assert scene.number() > 1


def test_lost_files_are_published_anew_with_a_higher_number(scene: Scene) -> None:
    scene.first.publish(SCOPE)
    empty = MemoryOutlet(scene.clock.now)
    scene.outlet = empty
    assert scene.publisher("first", outlet=empty).publish(SCOPE).cause is Cause.missing
    assert scene.number() == 2


def test_old_files_put_back_by_hand_are_replaced_at_once(scene: Scene, tmp_path: Path) -> None:
    outlet = DirectoryOutlet(tmp_path / "crl")
    publisher = scene.publisher("first", outlet=outlet)
    publisher.publish(SCOPE)
    old = (tmp_path / "crl" / NAME).read_bytes()
    scene.clock.time += HOUR
    publisher.publish(SCOPE)
    (tmp_path / "crl" / NAME).write_bytes(old)
    assert publisher.publish(SCOPE).cause is Cause.behind
    copy = outlet.current(NAME)
    assert copy is not None
    assert Shelf(outlet).look(SCOPE).head.number == 3  # type: ignore[union-attr]


# ---- R09: the gate stands in the way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda der: der[:-1], id="cut"),
        pytest.param(lambda der: der[:50] + bytes([der[50] ^ 1]) + der[51:], id="a bit flipped"),
        pytest.param(lambda der: OTHER.crl(number=2, this_update=T + HOUR, next_update=T + HOUR + LIFETIME - 1), id="another issuer's CRL"),
        pytest.param(lambda der: AUTHORITY.crl(number=2, this_update=T + HOUR, next_update=T + HOUR + LIFETIME - 1), id="entries left out"),
        pytest.param(lambda der: b"", id="nothing written"),
    ],
)
def test_R09_what_the_gate_refuses_is_never_seen(scene: Scene, tamper: Callable[[bytes], bytes]) -> None:
    scene.world.revoke(serial(1))
    scene.first.publish(SCOPE)
    old = scene.outlet.current(NAME)
    scene.clock.time = T + HOUR
    scene.world.tamper = tamper
    with pytest.raises(Broken):
        scene.first.publish(SCOPE)
    assert scene.outlet.current(NAME) == old
    assert scene.outlet.high_water(NAME) == 1
    scene.world.tamper = None
    scene.first.publish(SCOPE)
    assert scene.number() == 3, "the refused CRL's number is skipped"


@pytest.mark.parametrize(
    "wrong", [b"", b"<html>", OTHER.crl(number=9, this_update=T, next_update=T + 9999)], ids=["empty", "a web page", "another's"]
)
def test_R09_a_published_file_that_cannot_be_believed_is_replaced_at_once(scene: Scene, tmp_path: Path, wrong: bytes) -> None:
    outlet = DirectoryOutlet(tmp_path / "crl")
    publisher = scene.publisher("first", outlet=outlet)
    publisher.publish(SCOPE)
    (tmp_path / "crl" / NAME).write_bytes(wrong)
    assert publisher.publish(SCOPE).cause is Cause.missing
    head = Shelf(outlet).look(SCOPE).head
    assert head is not None
    assert head.number == 2


def test_R09_a_published_file_of_any_length_that_cannot_be_believed_costs_no_memory(scene: Scene, tmp_path: Path) -> None:
    outlet, folder = DirectoryOutlet(tmp_path / "crl"), tmp_path / "crl"
    publisher = scene.publisher("first", outlet=outlet)
    publisher.publish(SCOPE)
    for name in (NAME, f"{NAME}.previous"):
        with (folder / name).open("ab") as file:
            file.truncate(LONG)
    tracemalloc.start()
    try:
        assert publisher.publish(SCOPE).cause is Cause.missing
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LONG / 4
    assert Shelf(outlet).look(SCOPE).head.number == 2  # type: ignore[union-attr]


def test_R07_where_the_published_file_cannot_be_believed_nobody_of_the_one_before_is_forgotten(scene: Scene, tmp_path: Path) -> None:
    outlet, folder = DirectoryOutlet(tmp_path / "crl"), tmp_path / "crl"
    publisher = scene.publisher("first", outlet=outlet)
    folder.mkdir()
    known_once = AUTHORITY.crl(
        number=0, this_update=T, next_update=T + LIFETIME - 1, entries=[CrlEntry(Serial(serial(7)), T - 5, Reason.keyCompromise)]
    )
    (folder / f"{NAME}.previous").write_bytes(known_once)
    (folder / NAME).write_bytes(b"<html>")
    with pytest.raises(Broken) as refused:
        publisher.publish(SCOPE)
    assert refused.value.code == "crl-forgotten"
    assert f"{serial(7):040x}" in refused.value.what


# ---- crashes and rivals ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def die() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("failpoint", "visible", "then"),
    [
        ("publish.after-write", 1, 3),
        ("publish.after-rename", 2, 2),
        ("publish.before-record", 2, 2),
    ],
)
def test_a_crash_leaves_the_old_crl_or_the_new_one_and_the_next_look_mends_the_record(
    scene: Scene, failpoint: str, visible: int, then: int
) -> None:
    scene.first.publish(SCOPE)
    scene.clock.time = T + HOUR
    scene.failpoints[failpoint] = die
    with pytest.raises(Killed):
        scene.first.publish(SCOPE)
    assert scene.number() == visible
    scene.clock.time += 61
    second = scene.publisher("second")
    second.publish(SCOPE)
    assert scene.number() == then
    recorded = scene.world.last_crl(ISSUER.id, 0)
    assert recorded is not None
    assert recorded.number == then


def test_R13_the_lease_keeps_others_out_while_one_publishes_and_no_longer(scene: Scene) -> None:
    second = scene.publisher("second")
    meanwhile: list[Result] = []
    scene.failpoints["publish.after-write"] = lambda: meanwhile.append(second.publish(SCOPE, asked=True).result)
    assert scene.first.publish(SCOPE).result is Result.published
    assert meanwhile == [Result.led_elsewhere]
    assert second.publish(SCOPE, asked=True).result is Result.published
    assert scene.number() == 2


def test_R13_who_died_while_publishing_keeps_others_out_until_its_lease_ends(scene: Scene) -> None:
    def die() -> None:
        raise RuntimeError("killed")

    scene.failpoints["publish.after-write"] = die
    with pytest.raises(RuntimeError):
        scene.first.publish(SCOPE)
    second = scene.publisher("second")
    scene.clock.time = T + POLICY.lease - 1
    assert second.publish(SCOPE).result is Result.led_elsewhere
    scene.clock.time = T + POLICY.lease
    assert second.publish(SCOPE).result is Result.published


@pytest.mark.parametrize("failpoint", ["publish.after-write", "publish.after-rename", "publish.before-record"])
def test_R13_who_was_paused_beyond_the_lease_takes_nothing_back(scene: Scene, failpoint: str) -> None:
    """The second publisher publishes while the first one sleeps; the first one wakes and goes on."""
    scene.first.publish(SCOPE)
    scene.clock.time = T + HOUR
    second = scene.publisher("second")

    def sleep() -> None:
        scene.clock.time += 2 * POLICY.lease
        scene.world.revoke(serial(3))
        scene.clock.time += 5
        assert second.publish(SCOPE).result is Result.published

    scene.failpoints[failpoint] = sleep
    with pytest.raises(Conflict) as lost:
        scene.first.publish(SCOPE)
    assert lost.value.code in ("lease-lost", "outlet-changed")
    assert (scene.number(), scene.serials()) == (3, [3])
    recorded = scene.world.last_crl(ISSUER.id, 0)
    assert recorded is not None
    assert recorded.number == 3


def test_R13_even_a_lease_that_lies_cannot_put_an_older_crl_over_a_newer_one(scene: Scene) -> None:
    """Clocks five minutes apart: both believe that they lead. The file that was looked at decides."""
    scene.first.publish(SCOPE)
    scene.clock.time = T + HOUR
    ahead = Clock(T + HOUR + 300)
    second = scene.publisher("second", clock=ahead)
    scene.failpoints["publish.after-write"] = lambda: second.publish(SCOPE) and None  # type: ignore[func-returns-value]
    with pytest.raises(Conflict):
        scene.first.publish(SCOPE)
    assert scene.number() == 3
    assert scene.first.publish(SCOPE).result is Result.not_due


def test_R13_who_lost_the_lease_after_signing_makes_nothing_visible(scene: Scene) -> None:
    """The new holder has not published yet, so the file is unchanged; the fence in hand is old."""
    scene.first.publish(SCOPE)
    scene.clock.time = T + HOUR

    def lose() -> None:
        scene.clock.time += 2 * POLICY.lease
        with scene.world.writing() as book:
            assert book.lease("crl:issuing", holder="second", now=scene.clock.time, seconds=POLICY.lease) is not None

    scene.failpoints["publish.after-write"] = lose
    with pytest.raises(Conflict) as lost:
        scene.first.publish(SCOPE)
    assert lost.value.code == "lease-lost"
    assert scene.number() == 1


class Lossy(MemoryOutlet):
    """Puts an older file, and damages what is staged, when it is told to."""

    wrong: bytes | None = None
    damaged = False

    def put_if_unchanged(self, name: str, stage: Any, *, seen: str | None) -> Placed:
        placed = super().put_if_unchanged(name, stage, seen=seen)
        if self.wrong is not None:
            self._current[name] = OutletCopy(sha256(self.wrong).hexdigest(), self.wrong, placed.modified)
        return placed

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        with super().stage(name) as stage:
            if self.damaged:
                stage.read = lambda start, count: root_crl(8)[start : start + count]  # type: ignore[method-assign]
            yield stage


def test_what_readers_get_is_read_again_before_it_is_recorded(scene: Scene) -> None:
    outlet = Lossy(scene.clock.now)
    publisher = scene.publisher("first", outlet=outlet)
    publisher.publish(SCOPE)
    old = outlet.current(NAME)
    assert old is not None
    outlet.wrong = old.octets
    scene.clock.time = T + HOUR
    with pytest.raises(Broken) as refused:
        publisher.publish(SCOPE)
    assert refused.value.code == "crl-not-put"
    recorded = scene.world.last_crl(ISSUER.id, 0)
    assert recorded is not None
    assert recorded.number == 1


def test_a_ceremony_s_crl_that_changed_on_its_way_is_not_put(scene: Scene) -> None:
    outlet = Lossy(scene.clock.now)
    outlet.damaged = True
    with pytest.raises((Broken, Unacceptable)):
        adopt(root_crl(1), ROOT.issuer, outlet=outlet, clock=scene.clock)
    assert outlet.current("root.crl") is None


def test_a_signer_that_is_down_leaves_the_old_crl(scene: Scene) -> None:
    scene.first.publish(SCOPE)

    class Down(World):
        def sign_crl(self, issuer: IssuerId, *, shard: int, above: int, fence: int, sink_fd: int, **more: Any) -> CrlIntent:
            raise StoreUnavailable("signer-down", "The signer does not answer.")

    down = Down(scene.world.path, AUTHORITY, scene.clock)
    scene.clock.time = T + HOUR
    with pytest.raises(StoreUnavailable):
        scene.publisher("first", signer=down).publish(SCOPE)
    assert scene.number() == 1


# ---- CRLs from a ceremony -------------------------------------------------------------------------------------------

YEAR = 365 * 86400
ROOT = authority(called="root", not_before=T - 10**7, not_after=T + 20 * YEAR, ours=False)


def root_crl(number: int, *, by: Authority = ROOT, this_update: int = T) -> bytes:
    return by.crl(number=number, this_update=this_update, next_update=this_update + YEAR)


def test_a_root_crl_is_adopted_once_and_again(scene: Scene) -> None:
    assert adopt(root_crl(1), ROOT.issuer, outlet=scene.outlet, clock=scene.clock).number == 1
    assert scene.outlet.high_water("root.crl") == 1
    copy = scene.outlet.current("root.crl")
    assert copy is not None
    assert adopt(copy.octets, ROOT.issuer, outlet=scene.outlet, clock=scene.clock).number == 1
    assert adopt(root_crl(2), ROOT.issuer, outlet=scene.outlet, clock=scene.clock).number == 2


@pytest.mark.parametrize(
    ("octets", "error", "code"),
    [
        pytest.param(lambda: root_crl(2), Conflict, "crl-not-newer", id="another CRL of the same number"),
        pytest.param(lambda: root_crl(1), Conflict, "crl-not-newer", id="an older one"),
        pytest.param(lambda: root_crl(9, by=OTHER), Unacceptable, "crl-issuer", id="another issuer's"),
        pytest.param(lambda: root_crl(9, this_update=T - 2 * YEAR), Unacceptable, "crl-window", id="over already"),
        pytest.param(lambda: b"-----BEGIN X509 CRL-----", Unacceptable, "crl-form", id="PEM"),
    ],
)
def test_a_root_crl_that_does_not_fit_is_refused(scene: Scene, octets: Callable[[], bytes], error: type[Exception], code: str) -> None:
    adopt(root_crl(2), ROOT.issuer, outlet=scene.outlet, clock=scene.clock)
    with pytest.raises(error) as refused:
        adopt(octets(), ROOT.issuer, outlet=scene.outlet, clock=scene.clock)
    assert refused.value.code == code  # type: ignore[attr-defined]
    assert scene.outlet.high_water("root.crl") == 2


def test_a_root_crl_whose_import_was_cut_off_before_it_was_put_is_adopted(scene: Scene) -> None:
    adopt(root_crl(1), ROOT.issuer, outlet=scene.outlet, clock=scene.clock)
    scene.outlet.raise_high_water("root.crl", 2)
    assert adopt(root_crl(2), ROOT.issuer, outlet=scene.outlet, clock=scene.clock).number == 2


def test_the_next_root_crl_takes_over_by_itself_when_its_time_comes(scene: Scene) -> None:
    """R06: a ceremony makes several at once, and nobody has to remember the second."""
    dated = [root_crl(number, this_update=T + (number - 1) * YEAR // 2) for number in (1, 2, 3)]
    for octets in (dated[2], dated[0], dated[1], dated[1]):
        adopt(octets, ROOT.issuer, outlet=scene.outlet, clock=scene.clock)

    def visible() -> int:
        head = Shelf(scene.outlet).look(Scope(ROOT.issuer)).head
        assert head is not None
        return head.number

    assert visible() == 1
    assert take_over(ROOT.issuer, outlet=scene.outlet, clock=scene.clock) is None
    scene.clock.time = T + YEAR // 2
    assert take_over(ROOT.issuer, outlet=scene.outlet, clock=scene.clock) is not None
    assert take_over(ROOT.issuer, outlet=scene.outlet, clock=scene.clock) is None
    assert visible() == 2
    # Asleep for a while: the latest whose time has come, never one after the other.
    scene.clock.time = T + YEAR + 5
    take_over(ROOT.issuer, outlet=scene.outlet, clock=scene.clock)
    assert (visible(), scene.outlet.high_water("root.crl")) == (3, 3)
    with pytest.raises(Conflict):
        adopt(dated[1], ROOT.issuer, outlet=scene.outlet, clock=scene.clock)


def test_R06_health_is_told_from_what_readers_get(scene: Scene) -> None:
    shelf = Shelf(scene.outlet)
    issuers = (ISSUER, ROOT.issuer)

    def told() -> list[tuple[str, Freshness]]:
        return [(one.issuer, one.freshness) for one in health(shelf, issuers, now=scene.clock.now())]

    assert told() == [("issuing", Freshness.missing), ("root", Freshness.missing)]
    scene.first.publish(SCOPE)
    adopt(root_crl(1), ROOT.issuer, outlet=scene.outlet, clock=scene.clock)
    assert told() == [("issuing", Freshness.fresh), ("root", Freshness.fresh)]
    scene.clock.time = T + 2 * LIFETIME // 3
    assert told()[0] == ("issuing", Freshness.late)
    scene.clock.time = T + 250 * 86400
    found = health(shelf, issuers, now=scene.clock.now())
    assert [one.freshness for one in found] == [Freshness.expired, Freshness.late]
    assert "ceremony" in found[1].advice
