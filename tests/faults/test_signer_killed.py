"""The signer is killed (-9) at every named place, on both databases; then recovery classifies every intent, and the work goes on (P1, R01, R12).

The child's key writes down the digest of what it signs before it signs, on a file of its own: the ground truth. Killing is by SIGKILL to
itself, so that no handler, flush or rollback of ours runs.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ca.errors import FleetcaError, StoreUnavailable
from ca.model import (
    Certificate,
    CertificateState,
    IssueRequest,
    OperatorName,
    PresentedCertificate,
    Reason,
    RevokeRequest,
    Role,
    TokenEvidence,
)
from ca.recover import Verdict
from ca.rules.renewal import revoked
from tests.databases import sqlite_url, started
from tests.fakes.signer_world import ISSUING, CountingKey, Keypair, World, der_of
from tests.parts import refuse

ISSUE = (
    "issue.before-intent",
    "issue.after-intent-commit",
    "issue.after-journal",
    "issue.after-sign",
    "issue.after-reread",
    "issue.before-result-commit",
    "issue.after-result-commit",
)

REVOKE = ("revoke.before-commit", "revoke.after-commit", "revoke.after-journal")
CRL = ("crl.after-intent-commit", "crl.after-sign")


class Witnessed(CountingKey):
    """Writes down what it signs, durably, before it signs."""

    def __init__(self, inner: Any, file: Path) -> None:
        super().__init__(inner)
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sign(self, message: bytes) -> bytes:
        os.write(self._file, hashlib.sha256(message).digest())
        return super().sign(message)


def signatures(folder: Path) -> list[bytes]:
    file = folder / "signatures"
    octets = file.read_bytes() if file.exists() else b""
    return [octets[at : at + 32] for at in range(0, len(octets), 32)]


def in_a_child(work: Callable[[], None]) -> int:
    """Run it in a process of its own; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"the child stumbled: {error!r}\n")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def striking(place: str, *, at: int = 1) -> Callable[[str], None]:
    """Kill this process at the `at`th time it comes to that place."""
    count = 0

    def strike(name: str) -> None:
        nonlocal count
        if name == place:
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    return strike


def watched(folder: Path, url: str, **options: Any) -> World:
    """A world whose key writes its ground truth."""
    world = World(folder, url, **options)
    world.key = Witnessed(world.key, folder / "signatures")
    world.restart()
    return world


@dataclass(frozen=True)
class Fleet:
    """What is there before the crash, and what is asked for when it comes."""

    requests: tuple[IssueRequest, ...]
    enrolled: tuple[Keypair, ...]


def fleet(folder: Path, url: str) -> Fleet:
    world = watched(folder, url)
    enrolled = [world.enrol(f"old-{n}") for n in range(2)]
    requests = [IssueRequest(Keypair().csr(), TokenEvidence(world.token(f"pump-{n}").text)) for n in range(3)]
    requests.append(IssueRequest(Keypair().csr(), PresentedCertificate(enrolled[1].certificate)))
    world.witness.settle()
    world.close()
    return Fleet(tuple(requests), tuple(enrolled))


def ask(world: World, requests: tuple[IssueRequest, ...]) -> list[Any]:
    return world.issuing.issue([(request, world.peer(Role.enroll)) for request in requests])


def classified(world: World, folder: Path, *, crls: frozenset[bytes] = frozenset()) -> list[Certificate]:
    """Every row is issued, or void and revoked; every signature has a row (or is that of one of the CRLs named)."""
    rows = world.rows()
    for row in rows:
        assert row.state in {CertificateState.issued, CertificateState.void}, row.ref
        if row.state is CertificateState.void:
            assert revoked(row)
            assert row.der is None
    intents = {hashlib.sha256(row.tbs).digest() for row in rows}
    made = signatures(folder)
    assert len(set(made)) == len(made), "something was signed twice"
    assert set(made) <= intents | crls, "a signature without an intent"
    return rows


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("place", "at"), [*((place, 1) for place in ISSUE), ("issue.after-sign", 3), ("issue.after-reread", 3)])
def test_P1_R01_killed_at_any_place_of_issuing_every_intent_is_classified(tmp_path: Path, database_url: str, place: str, at: int) -> None:
    given = fleet(tmp_path, database_url)
    before = len(signatures(tmp_path))

    def work() -> None:
        ask(watched(tmp_path, database_url, failpoint=striking(place, at=at)), given.requests)

    assert in_a_child(work) == signal.SIGKILL
    world = watched(tmp_path, database_url)
    signed = len(signatures(tmp_path)) - before
    expected = {"issue.after-sign": at, "issue.after-reread": 4, "issue.before-result-commit": 4, "issue.after-result-commit": 4}
    assert signed == expected.get(place, 0)
    left = [row.ref for row in world.rows() if row.state is CertificateState.intended]
    assert len(left) == (0 if place in {"issue.before-intent", "issue.after-result-commit"} else 4)
    report = world.recovery.recover()
    assert dict(report.intents) == dict.fromkeys(left, Verdict.void)
    assert report.unreadable == ()
    classified(world, tmp_path)
    assert world.recovery.recover().intents == ()
    # The same requests again: each gets one certificate, and its token was not lost.
    outcomes = ask(world, given.requests)
    assert not [one for one in outcomes if isinstance(one, FleetcaError)]
    assert [one.repeated for one in outcomes] == [place == "issue.after-result-commit"] * 4
    rows = classified(world, tmp_path)
    assert sum(row.state is CertificateState.issued for row in rows) == 6
    # A delivered certificate is never unknown, a void one never good (P5).
    for row in rows:
        found = world.store.reading.status_of(row.ref.issuer, row.ref.serial)
        assert found is not None
        assert (found[1] is not None) is (row.state is CertificateState.void)
    world.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("place", ISSUE)
def test_R02_without_recovery_a_repeated_request_gives_up_what_the_crash_left(tmp_path: Path, place: str) -> None:
    url = sqlite_url(tmp_path)
    given = fleet(tmp_path, url)
    assert in_a_child(lambda: ask(watched(tmp_path, url, failpoint=striking(place)), given.requests) and None) == signal.SIGKILL
    world = watched(tmp_path, url)
    assert not [one for one in ask(world, given.requests) if isinstance(one, FleetcaError)]
    classified(world, tmp_path)
    world.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("place", REVOKE)
def test_killed_at_any_place_of_revoking_it_is_done_or_not_and_can_be_asked_again(tmp_path: Path, database_url: str, place: str) -> None:
    given = fleet(tmp_path, database_url)
    targets = [pair.certificate for pair in given.enrolled]

    def requests(world: World) -> list[tuple[RevokeRequest, Any]]:
        refs = [world.row(pair).ref for pair in given.enrolled]
        peer = world.peer(Role.operator)
        return [(RevokeRequest(world.local(Role.operator), Reason.keyCompromise, ref), peer) for ref in refs]

    def work() -> None:
        world = watched(tmp_path, database_url, failpoint=striking(place))
        world.revoking.revoke(requests(world))

    assert in_a_child(work) == signal.SIGKILL
    world = watched(tmp_path, database_url)
    done = [row for row in world.rows() if revoked(row)]
    # Both or none: one transaction.
    assert len(done) == (0 if place == "revoke.before-commit" else 2)
    assert world.recovery.recover().intents == ()
    outcomes = world.revoking.revoke(requests(world))
    assert [one[0].change for one in outcomes if not isinstance(one, FleetcaError)] == [1, 2]
    assert len(world.leaves("revocation")) == 2
    assert all(row.der in targets for row in world.rows() if revoked(row))
    world.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("place", CRL)
def test_P6_killed_while_signing_a_crl_its_number_is_spent_and_the_next_is_higher(tmp_path: Path, database_url: str, place: str) -> None:
    fleet(tmp_path, database_url)

    def sign(world: World) -> int:
        with world.store.ledger.writing() as tx:
            held = tx.lease("crl:issuing", holder="test", now=world.clock.at, seconds=60)
        assert held is not None
        with (tmp_path / "crl").open("wb", buffering=0) as sink:
            return world.crls.sign(ISSUING, shard=0, above=0, fence=held.fence, sink=sink, peer=world.peer(Role.publisher)).number

    assert in_a_child(lambda: sign(watched(tmp_path, database_url, failpoint=striking(place))) and None) == signal.SIGKILL
    world = watched(tmp_path, database_url)
    assert (tmp_path / "crl").read_bytes() == b""
    spent = [leaf["number"] for leaf in world.leaves("crl")]
    assert sign(world) > spent[0]
    world.close()


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_P1_R01_killed_two_hundred_times_at_any_moment_every_intent_is_classified(tmp_path: Path, database_url: str) -> None:
    """While it does nothing but issue; each time recovery finds out what became of all that it had in hand."""
    watched(tmp_path, database_url).close()
    lost = 0
    for turn in range(200):
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                world = watched(tmp_path, database_url)
                os.write(told, b"1")
                for number in itertools.count():
                    tokens = [world.token(f"pump-{turn}-{number}-{n}").text for n in range(3)]
                    ask(world, tuple(IssueRequest(Keypair().csr(), TokenEvidence(text)) for text in tokens))
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b"1"
        os.close(ready)
        threading.Event().wait(turn * 37 % 101 / 400)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        world = watched(tmp_path, database_url)
        lost += len(world.recovery.recover().intents)
        assert world.recovery.recover().intents == ()
        if turn % 20 == 19:
            classified(world, tmp_path)
        world.close()
    assert lost > 20, "or it was never hit at work"


# ---- Failures that do not kill --------------------------------------------------------------------------------------


def _raise() -> None:
    raise RuntimeError("failpoint")


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ISSUE + REVOKE)
@pytest.mark.parametrize(("harm", "code"), [(_raise, "internal"), (_full, "disk-failed")], ids=["raise", "enospc"])
def test_R14_a_failure_at_any_place_answers_and_the_same_process_goes_on(
    tmp_path: Path, place: str, harm: Callable[[], None], code: str
) -> None:
    broken = {"now": False}

    def strike(name: str) -> None:
        if name == place and broken["now"]:
            harm()

    world = watched(tmp_path, sqlite_url(tmp_path), failpoint=strike)
    victim = world.enrol("victim")
    desk = world.server(tmp_path / "s", users={})._desk
    desk.start()
    request = IssueRequest(Keypair().csr(), TokenEvidence(world.token().text))
    prepared: Any = world.issuing.prepare(request, world.peer(Role.enroll))
    if place in REVOKE:
        asked = RevokeRequest(world.local(Role.operator), Reason.keyCompromise, world.row(victim).ref)
        prepared = world.revoking.prepare(asked, world.peer(Role.operator))
    broken["now"] = True
    with pytest.raises(FleetcaError) as caught:
        desk.do(prepared)
    assert caught.value.code == code
    broken["now"] = False
    assert desk.do(prepared)
    desk.stop()
    world.recovery.recover()
    rows = classified(world, tmp_path)
    assert sum(row.state is CertificateState.issued for row in rows) == (1 if place in REVOKE else 2)
    world.close()


def test_R26_a_full_disk_under_the_database_refuses_and_recovers(tmp_path: Path) -> None:
    """A small file system of its own: every write of the database meets ENOSPC, at whatever place it happens to be."""
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True).returncode
    ):
        refuse("a file system of our own cannot be mounted here")
    try:
        world = watched(tmp_path, sqlite_url(small))
        refused = 0
        pair = None
        for number in range(400):
            try:
                world.enrol(f"pump-{number}", pair=pair)
            except StoreUnavailable as error:
                refused += bool(error.fix)
                if refused == 3:
                    break
        assert refused == 3
        issued = {row.ref for row in world.rows() if row.state is CertificateState.issued}
        subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
        assert world.enrol("after")
        world.recovery.recover()
        rows = classified(world, tmp_path)
        assert issued <= {row.ref for row in rows if row.state is CertificateState.issued}
        world.close()
    finally:
        subprocess.run(["umount", small], check=True)


def test_R14_a_database_that_crashes_is_unavailable_and_found_again_without_restart(tmp_path: Path) -> None:
    cluster = started()
    try:
        world = watched(tmp_path, cluster.database())
        desk = world.server(tmp_path / "s", users={})._desk
        desk.start()
        requests = [IssueRequest(Keypair().csr(), TokenEvidence(world.token(f"pump-{n}").text)) for n in range(2)]
        first, second = (world.issuing.prepare(request, world.peer(Role.enroll)) for request in requests)
        assert desk.do(first)
        cluster.stop("immediate")
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                desk.do(second)
            assert caught.value.fix
        cluster.start()
        assert desk.do(second).repeated is False
        assert desk.do(first).repeated is True
        desk.stop()
        classified(world, tmp_path)
        world.close()
    finally:
        cluster.remove()


# ---- A lost database ------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[tuple[World, Path]]:
    url = sqlite_url(tmp_path)
    world = watched(tmp_path, url)
    yield world, tmp_path / "fleetca.db"
    world.close()


def test_R12_a_restored_database_gets_back_from_the_journal_what_it_had_forgotten(lost: tuple[World, Path], tmp_path: Path) -> None:
    world, file = lost
    early = world.enrol("pump-1")
    world.witness.settle()
    world.close()
    shutil.copy(file, tmp_path / "backup")
    world._open()
    # After the backup: enrolments, a renewal, revocations, a release, a CRL, and an intent that a dead key left.
    late = world.enrol("pump-2")
    renewed = world.renew(early)
    held = world.enrol("pump-3")
    world.revoke_certificate(early, Reason.superseded)
    world.revoke_certificate(held, Reason.certificateHold)
    world.revoke_certificate(held, Reason.removeFromCRL)
    world.enrol("pump-4")
    world.revoke_device("pump-4")
    with world.store.ledger.writing() as tx:
        lease = tx.lease("crl:issuing", holder="test", now=world.clock.at, seconds=60)
    assert lease is not None
    with (tmp_path / "crl").open("wb", buffering=0) as sink:
        intent = world.crls.sign(ISSUING, shard=0, above=700, fence=lease.fence, sink=sink, peer=world.peer(Role.publisher))
    world.witness.settle()
    world.confirm(renewed)
    ready = world.renew(renewed)
    world.deliver(renewed, ready)
    world.token("pump-5")
    world.operator("ada", "auditor")
    world.operators.disable(OperatorName("ada"), world.peer(Role.operator))
    world.witness.settle()
    truth = {row.ref: row for row in world.rows()}
    told = world.leaves()
    world.close()
    for stale in tmp_path.glob("fleetca.db-*"):
        stale.unlink()
    shutil.copy(tmp_path / "backup", file)
    world._open()
    assert len(world.rows()) == 1
    report = world.recovery.recover()
    assert report.forgotten == 6
    assert report.unreadable == ()
    assert [verdict for _, verdict in report.intents] == [Verdict.issued] * 6
    assert report.revocations == 4
    assert report.devices == 1
    for row in world.rows():
        assert row == truth.pop(row.ref)
    assert truth == {}
    # The record is told again in the very same words, so that the published log finds its leaves.
    assert sorted(map(str, world.leaves())) == sorted(map(str, told))
    classified(world, tmp_path, crls=frozenset({intent.tbs_sha256}))
    # Numbers go on above those that were used, and nothing that was refused before is granted now.
    with world.store.ledger.writing() as tx:
        assert tx.next_crl_number(ISSUING, 0, above=0) > intent.number
    with pytest.raises(FleetcaError):
        world.renew(early)
    with pytest.raises(FleetcaError):
        world.enrol("pump-4")
    with pytest.raises(FleetcaError):
        world.enrol("pump-9", pair=late)
    assert world.renew(renewed)
    assert world.recovery.recover().forgotten == 0


LATE = [
    pytest.param([Reason.certificateHold, Reason.removeFromCRL], [Reason.keyCompromise], Reason.keyCompromise, id="an old release"),
    pytest.param([Reason.certificateHold], [Reason.keyCompromise], Reason.keyCompromise, id="an old hold"),
    pytest.param([Reason.keyCompromise], [Reason.certificateHold], Reason.keyCompromise, id="a hold, over what was final"),
    pytest.param([Reason.superseded], [Reason.certificateHold, Reason.removeFromCRL], Reason.superseded, id="a hold and its release"),
    pytest.param([Reason.keyCompromise], [Reason.superseded], Reason.keyCompromise, id="a lesser reason"),
    pytest.param(
        [Reason.certificateHold],
        [Reason.certificateHold, Reason.removeFromCRL],
        Reason.removeFromCRL,
        id="a release, over a hold that was older",
    ),
]


@pytest.mark.parametrize(("before", "after", "truth"), LATE)
def test_R12_a_recovery_that_comes_late_takes_no_revocation_back(
    lost: tuple[World, Path], tmp_path: Path, before: list[Reason], after: list[Reason], truth: Reason
) -> None:
    """Somebody restored an old database, started the signer, and thought of `fleetca recover` only after more had been revoked."""
    world, file = lost
    pump = world.enrol("pump-1")
    world.witness.settle()
    world.close()
    shutil.copy(file, tmp_path / "backup")
    world._open()
    for reason in before:
        world.clock.at += 10
        world.revoke_certificate(pump, reason)
    world.close()
    for stale in tmp_path.glob("fleetca.db-*"):
        stale.unlink()
    shutil.copy(tmp_path / "backup", file)
    world._open()
    for reason in after:
        world.clock.at += 10
        world.revoke_certificate(pump, reason)
    for _ in range(2):
        world.recovery.recover()
        found = world.row(pump).revocation
        assert found is not None
        assert found.reason is truth
    made = len(world.leaves("revocation"))
    world.recovery.recover()
    assert len(world.leaves("revocation")) == made


def test_R28_an_empty_database_is_filled_from_the_journal_alone(tmp_path: Path, database_url: str) -> None:
    first = tmp_path / "first"
    first.mkdir()
    world = watched(tmp_path, sqlite_url(first))
    pairs = [world.enrol(f"pump-{n}") for n in range(3)]
    world.revoke_certificate(pairs[0])
    world.witness.settle()
    refs = {row.ref for row in world.rows()}
    world.close()
    again = watched(tmp_path, database_url)
    report = again.recovery.recover()
    assert {ref for ref, _ in report.intents} == refs
    assert {row.der for row in again.rows()} == {pair.certificate for pair in pairs}
    assert der_of(again.issue(IssueRequest(Keypair().csr(), PresentedCertificate(pairs[1].certificate))))
    again.close()


def test_R01_a_forged_result_in_the_journal_is_not_believed(lost: tuple[World, Path], tmp_path: Path) -> None:
    from ca.der.certificate import assemble
    from ca.keys.memory import MemoryKey, make_private_key
    from ca.model import AlgorithmName, KeyName
    from ca.rules import testimony

    world, _ = lost
    given = fleet(tmp_path / "x", sqlite_url(_made(tmp_path / "x")))
    assert given.requests
    text = world.token().text

    def work() -> None:
        other = watched(tmp_path, world.url, failpoint=striking("issue.after-journal"))
        ask(other, (IssueRequest(Keypair().csr(), TokenEvidence(text)),))

    assert in_a_child(work) == signal.SIGKILL
    (row,) = [row for row in world.rows() if row.state is CertificateState.intended]
    stranger = MemoryKey(KeyName("x"), make_private_key(AlgorithmName("p256")))
    forged = assemble(row.tbs, world.issuer.algorithm, stranger.sign(row.tbs))
    world.journal.append(
        [testimony.write(testimony.Signed(row.ref, forged, world.clock.at)), b"{}", b"not JSON", b'{"kind":"of a later version"}']
    )
    report = world.recovery.recover()
    assert dict(report.intents) == {row.ref: Verdict.void}
    assert len(report.unreadable) == 3


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
