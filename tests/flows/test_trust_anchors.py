"""New trust anchors arrive signed by old ones, never go back, and carry a device over a change of roots (REQ-KEY-019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ca.der import pem
from ca.errors import Denied, Malformed
from ca.keys.memory import MemoryKey
from ca.keys.sealed_file import seal
from ca.model import AlgorithmName, Digest, KeyName
from ca.rules import pins
from ca.rules.pins import PinSet, Signed, accept, read_set, read_sets, write_set, write_sets
from ca.system import SystemChance, SystemClock
from fleetca.agent import trust
from fleetca.agent.identity import Identity, Setup
from fleetca.agent.renewing import Hand
from fleetca.agent.work import Agent
from fleetca.cli.ceremony_pins import pins as command
from tests.fakes.door import Authority
from tests.fakes.site import Site

NOW = SystemClock().now()
OLD, NEW, OTHER = (Authority(now=NOW) for _ in range(3))
BACKUP = Digest(MemoryKey.generate(KeyName("backup"), AlgorithmName("p256")).spki[-32:])


def pin(authority: Authority) -> Digest:
    return pins.pin_of(authority.root.certificate)


def both(seq: int = 1, **changed: Any) -> PinSet:
    """The set in the middle of a change: the old root in use, the new one known."""
    made = PinSet("test", seq, (pin(OLD),), (pin(NEW),), NOW - 60, NOW + 3600, (OLD.root.certificate, NEW.root.certificate))
    return replace(made, **changed)


def only_new(seq: int = 2, **changed: Any) -> PinSet:
    return replace(PinSet("test", seq, (pin(NEW),), (BACKUP,), NOW - 60, NOW + 3600, (NEW.root.certificate,)), **changed)


def signed(found: PinSet, by: Authority) -> Signed:
    payload = write_set(found)
    return Signed(payload, by.root_key.spki, by.root_key.sign(pins.signed_octets(payload)))


# ---- The rule -------------------------------------------------------------------------------------------------------


@pytest.mark.req("REQ-KEY-019")
def test_a_set_signed_by_an_old_pin_is_accepted_with_old_and_new_pins() -> None:
    found = accept(signed(both(), OLD), trusted=frozenset({pin(OLD)}), last=None, now=NOW)
    assert found.pins == {pin(OLD), pin(NEW)}
    after = accept(signed(only_new(), NEW), trusted=found.pins, last=found, now=NOW)
    assert after.pins == {pin(NEW), BACKUP}


@pytest.mark.req("REQ-KEY-019")
@pytest.mark.parametrize(
    "found, by, last, now, code",
    [
        pytest.param(both(), OTHER, None, NOW, "pins-not-signed", id="signed by a stranger"),
        pytest.param(only_new(), NEW, None, NOW, "pins-not-signed", id="signed by the new root that nobody has named yet"),
        pytest.param(both(2), OLD, both(2), NOW, "pins-rolled-back", id="the same number again"),
        pytest.param(both(1), OLD, both(2), NOW, "pins-rolled-back", id="an older set replayed"),
        pytest.param(both(not_before=NOW + 1), OLD, None, NOW, "pins-too-early", id="one that does not count yet"),
        pytest.param(both(3, deployment="other"), OLD, both(2), NOW, "pins-for-another-deployment", id="another deployment's"),
    ],
)
def test_a_set_that_does_not_count_changes_nothing(found: PinSet, by: Authority, last: PinSet | None, now: int, code: str) -> None:
    with pytest.raises(Denied) as caught:
        accept(signed(found, by), trusted=frozenset({pin(OLD)}) if last is None else last.pins, last=last, now=now)
    assert caught.value.code == code


def test_a_signature_over_other_octets_does_not_count() -> None:
    one = signed(both(), OLD)
    with pytest.raises(Denied):
        accept(replace(one, payload=write_set(both(9))), trusted=frozenset({pin(OLD)}), last=None, now=NOW)


@pytest.mark.req("REQ-KEY-019")
@pytest.mark.parametrize(
    "found, code",
    [
        pytest.param(both(next=()), "pins-without-backup", id="no backup at all"),
        pytest.param(both(next=(pin(OLD),)), "pins-without-backup", id="the backup is the key in use"),
        pytest.param(both(anchors=(NEW.root.certificate,)), "pins-without-anchor", id="no root certificate of a current key"),
        pytest.param(
            both(anchors=(OLD.root.certificate, OTHER.root.certificate)), "pins-without-anchor", id="the root of a key that is not named"
        ),
        pytest.param(both(current=()), "bad-pins", id="no current key"),
        pytest.param(both(0), "bad-pins", id="number zero"),
    ],
)
def test_a_set_that_nobody_could_live_with_is_neither_written_nor_read(found: PinSet, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        write_set(found)
    assert caught.value.code == code


def test_what_is_written_reads_back_as_the_same() -> None:
    assert read_set(write_set(both())) == both()
    sets = (signed(both(), OLD), signed(only_new(), NEW))
    assert read_sets(write_sets(sets)) == sets


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"sets": 1}',
        b'{"sets": [1]}',
        b'{"sets": [{"payload": "!", "spki": "", "signature": ""}]}',
        b" " * 300_000,
    ],
)
def test_what_is_no_file_of_sets_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(Malformed):
        read_sets(octets)


@pytest.mark.parametrize("octets", [b"", b"{}", b"[]", b'{"seq": 1}', write_set(both()).replace(b'"seq":1', b'"seq":true')])
def test_what_is_no_set_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(Malformed):
        read_set(octets)


# ---- The agent ------------------------------------------------------------------------------------------------------


class Roots:
    """A site whose own certificate is of a root that a test chooses, and a device that trusts the old one."""

    def __init__(self, folder: Path, roof: Authority) -> None:
        (folder / "site").mkdir(parents=True)
        self.site = Site(folder / "site", roof=roof)
        self.folder = folder / "device"
        self.clock = SystemClock()

    def device(self, trusted: Authority) -> Identity:
        identity = Identity(self.folder, SystemChance())
        given = [pem.pem(pem.CERTIFICATE, one).encode() for one in (trusted.root.certificate,)]
        identity.set_up(Setup(self.site.service.url, plain=True), trust=b"".join(given))
        return identity

    def publish(self, *sets: Signed) -> None:
        self.site.rest.pins = write_sets(sets)

    def trusted(self) -> set[bytes]:
        return set(pem.ders_of((self.folder / "trust.pem").read_bytes(), pem.CERTIFICATE))


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Roots]:
    made = Roots(tmp_path, NEW)
    yield made
    made.site.close()


def service(roots: Roots, identity: Identity) -> Any:
    return replace(roots.site.service, root=identity.trust)


def test_CA_roll_over_a_device_that_slept_through_it_finds_its_way(moved: Roots) -> None:
    identity = moved.device(OLD)
    moved.publish(signed(both(1, anchors=(OLD.root.certificate, NEW.root.certificate)), OLD), signed(only_new(2), NEW))
    own = moved.site.rest.door.authority
    with (identity.folder / "trust.pem").open("ab") as file:  # the chain of its own certificates goes on under its own root
        file.write(pem.pem(pem.CERTIFICATE, own.root.certificate).encode())
    worker = Agent(Identity(identity.folder, SystemChance()), Hand(SystemClock(), SystemChance()), version="test/1")
    assert worker.enrol(moved.site.rest.door.token("sleeper", "device")).did == "enrolled"
    assert NEW.root.certificate in moved.trusted()
    found = trust.known(identity)
    assert found is not None
    assert found[1].seq == 2
    assert OLD.root.certificate in moved.trusted(), "until its time is over"
    trust.retire(identity, now=NOW + 3600)
    assert moved.trusted() == {NEW.root.certificate}
    worker = Agent(Identity(identity.folder, SystemChance()), Hand(SystemClock(), SystemChance()), version="test/1")
    assert worker.wake().did == "nothing"


def test_a_service_of_an_unknown_root_without_signed_sets_is_not_believed(moved: Roots) -> None:
    identity = moved.device(OLD)
    worker = Agent(Identity(identity.folder, SystemChance()), Hand(SystemClock(), SystemChance()), version="test/1")
    for sets in ((), (signed(only_new(5), NEW),), (signed(both(5), OTHER),)):
        moved.publish(*sets)
        with pytest.raises(Denied) as caught:
            worker.enrol(moved.site.rest.door.token("victim", "device"))
        assert caught.value.code == "handshake-refused"
    assert moved.trusted() == {OLD.root.certificate}


def test_a_set_that_goes_back_is_refused_and_the_trust_stays(moved: Roots) -> None:
    identity = moved.device(OLD)
    moved.publish(signed(both(4), OLD))
    assert trust.refresh(identity, service(moved, identity), now=NOW, believed=False)
    kept = moved.trusted()
    assert not trust.refresh(identity, service(moved, identity), now=NOW), "the same again is nothing new"
    moved.publish(signed(both(3, next=(pin(OTHER),), anchors=(OLD.root.certificate, OTHER.root.certificate)), OLD))
    assert not trust.refresh(identity, service(moved, identity), now=NOW)
    assert moved.trusted() == kept


@pytest.mark.parametrize("place", ["trust.pem", "pins.json"])
def test_a_stop_between_trust_and_its_memory_is_mended_by_the_next_run(moved: Roots, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = moved.device(OLD)
    moved.publish(signed(both(4), OLD))
    real = trust._replace

    def stopping(file: Path, octets: bytes) -> None:
        if file.name == place:
            raise KeyboardInterrupt
        real(file, octets)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trust, "_replace", stopping)
        trust.refresh(identity, service(moved, identity), now=NOW, believed=False)
    assert trust.refresh(identity, service(moved, identity), now=NOW, believed=False)
    assert moved.trusted() == {OLD.root.certificate, NEW.root.certificate}


def test_garbage_for_sets_is_remembered_and_harms_no_renewal(tmp_path: Path) -> None:
    roots = Roots(tmp_path, OLD)
    try:
        identity = roots.device(OLD)
        own = roots.site.rest.door.authority
        with (identity.folder / "trust.pem").open("ab") as file:
            file.write(pem.pem(pem.CERTIFICATE, own.root.certificate).encode())
        worker = Agent(Identity(identity.folder, SystemChance()), Hand(SystemClock(), SystemChance()), version="test/1")
        worker.enrol(roots.site.rest.door.token("steady", "device"))
        roots.site.rest.pins = b"nonsense"
        worker.memory.ask_at = 0
        identity.remember(worker.memory)
        worker = Agent(Identity(identity.folder, SystemChance()), Hand(SystemClock(), SystemChance()), version="test/1")
        assert worker.wake().error is None
        assert identity.recall().code == "bad-pins"
        assert worker.wake(force=True).did == "renewed"
    finally:
        roots.site.close()


def test_sets_are_gone_through_in_order_whatever_order_they_come_in(moved: Roots) -> None:
    identity = moved.device(OLD)
    sets: Sequence[Signed] = (signed(only_new(2), NEW), signed(both(1), OLD))
    moved.publish(*sets)
    assert trust.refresh(identity, service(moved, identity), now=NOW, believed=False)
    found = trust.known(identity)
    assert found is not None
    assert found[1].seq == 2


# ---- The command ----------------------------------------------------------------------------------------------------


def test_sets_are_signed_by_a_command_one_after_the_other(tmp_path: Path) -> None:
    for name, authority in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.pem").write_text(pem.pem(pem.CERTIFICATE, authority.root.certificate))
        (tmp_path / f"{name}.key").write_text(seal(authority.root_key._sign.__self__, b"correct horse"))
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "passphrase").chmod(0o600)

    def sign(key: str, out: str, *more: str | Path) -> Any:
        given = ["--deployment", "test", "--key", tmp_path / f"{key}.key", "--passphrase-file", tmp_path / "passphrase", *more]
        return CliRunner().invoke(command, [*map(str, given), "--out", str(tmp_path / out), "--json"])

    one = sign("old", "one.json", "--current", tmp_path / "old.pem", "--next", tmp_path / "new.pem")
    assert one.exit_code == 0, one.output
    two = sign("new", "two.json", "--current", tmp_path / "new.pem", "--next", BACKUP.hex(), "--before", tmp_path / "one.json")
    assert two.exit_code == 0, two.output
    sets = read_sets((tmp_path / "two.json").read_bytes())
    first = accept(sets[0], trusted=frozenset({pin(OLD)}), last=None, now=SystemClock().now())
    assert accept(sets[1], trusted=first.pins, last=first, now=SystemClock().now()).seq == 2
    lost = sign("new", "three.json", "--current", tmp_path / "new.pem", "--next", BACKUP.hex())
    assert lost.exception is None or lost.exit_code, "a first set of the new root is one for devices that trust it"
    stranger = sign("old", "four.json", "--current", tmp_path / "new.pem", "--next", BACKUP.hex(), "--before", tmp_path / "two.json")
    assert isinstance(stranger.exception, Denied), "nobody is handed a set that devices would refuse"
    assert not (tmp_path / "four.json").exists()
