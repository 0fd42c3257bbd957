"""The process that checks what comes in and what goes out, beside the same rules run in place."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ca.der.certificate import assemble
from ca.der.csr import Csr
from ca.errors import FleetcaError, KeyUnavailable
from ca.model import Draft, IssueRequest, Role, TokenEvidence
from ca.signer.checker import Checker
from ca.signer.desk import Desk
from tests.databases import sqlite_url
from tests.fakes.certificates import issuing, key
from tests.fakes.checker import InPlace
from tests.fakes.signer_world import Keypair, World
from tests.unit.test_certificate_bytes import drafted


@pytest.fixture
def checker() -> Iterator[Checker]:
    made = Checker()
    made.start()
    yield made
    made.close()


def told(ask: Any, work: Sequence[Any]) -> list[Any]:
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ask(work, answer.put)
    return list(answer.get(timeout=60))


def said(outcome: Any) -> Any:
    return (type(outcome), outcome.code, outcome.what, outcome.why, outcome.fix) if isinstance(outcome, FleetcaError) else outcome


def signed(kind: str, *, spoil: bool = False) -> tuple[Draft, bytes, bytes]:
    draft = drafted("device", issuer=issuing(kind), kind="p256")
    signature = bytearray(key(kind, "issuing").sign(draft.tbs))
    signature[-1] ^= spoil
    return draft, assemble(draft.tbs, draft.algorithm, bytes(signature)), issuing(kind).spki


def test_P2_the_process_reads_csrs_as_the_rules_do(checker: Checker) -> None:
    good = [Keypair(kind).csr() for kind in ("p256", "ed25519", "rsa-3072", "ml-dsa-44")]
    broken = bytearray(good[0])
    broken[-1] ^= 1
    work = [*good, bytes(broken), b"", b"no CSR", b"\x30\x80" * 100]
    found = told(checker.read, work)
    assert [said(outcome) for outcome in found] == [said(outcome) for outcome in told(InPlace().read, work)]
    assert [isinstance(outcome, Csr) for outcome in found] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa-3072", "ml-dsa-65"])
def test_P11_the_process_reads_certificates_back_as_the_rules_do(checker: Checker, kind: str) -> None:
    work = [signed(kind), signed(kind, spoil=True), (signed(kind)[0], b"\x30\x00", signed(kind)[2])]
    found = told(checker.reread, work)
    assert [said(outcome) for outcome in found] == [said(outcome) for outcome in told(InPlace().reread, work)]
    assert found[0] is None
    assert [outcome.code for outcome in found[1:]] == ["reread"] * 2


def test_P3_the_process_inherits_no_descriptor_and_no_environment(checker: Checker, tmp_path: Path) -> None:
    secret = os.open(tmp_path / "passphrase", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(secret, True)
    other = Checker()
    other.start()
    told(other.read, [b""])
    child = other._child
    assert child is not None
    descriptors = {one.name: str(one.readlink()) for one in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert str(tmp_path / "passphrase") not in descriptors.values()
    assert descriptors.keys() <= {"0", "1", "2"}
    assert [one.partition(b"=")[0] for one in Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0") if one] == [b"PYTHONPATH"]
    other.close()
    os.close(secret)
    assert child.returncode == 0


def test_R14_what_a_dying_process_had_in_hand_is_answered_and_the_next_one_goes_on(checker: Checker) -> None:
    told(checker.read, [b""])
    child = checker._child
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    checker.read([b"one", b"two"], answers.put)
    checker.reread([signed("p256")], answers.put)
    child.kill()
    for count in (2, 1):
        lost = answers.get(timeout=60)
        assert [type(outcome) for outcome in lost] == [KeyUnavailable] * count
        assert {outcome.code for outcome in lost} == {"checker-died"}
    csr = Keypair().csr()
    assert isinstance(told(checker.read, [csr])[0], Csr)


def test_a_closed_one_answers_that_it_is_gone(checker: Checker) -> None:
    checker.close()
    assert [outcome.code for outcome in told(checker.read, [b""])] == ["checker-died"]


class Striking(InPlace):
    """Dies over each re-reading until it is told to hold."""

    def __init__(self) -> None:
        self.holds = threading.Event()

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Any) -> None:
        if self.holds.is_set():
            super().reread(finished, told)
        else:
            told([KeyUnavailable("checker-died", "It ended.")] * len(finished))


def test_P1_P11_a_certificate_that_nobody_could_reread_is_void_and_its_request_may_be_repeated(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    checker = Striking()
    desk = Desk(issuing=world.issuing, revoking=world.revoking, witness=world.witness, checker=checker)
    desk.start()
    request = IssueRequest(Keypair().csr(), TokenEvidence(world.token().text))
    with pytest.raises(KeyUnavailable):
        desk.do(world.issuing.prepare(request, world.peer(Role.enroll)))
    checker.holds.set()
    issued = desk.do(world.issuing.prepare(request, world.peer(Role.enroll)))
    assert not issued.repeated
    desk.stop()
    states = sorted(row.state.value for row in world.rows())
    assert states == ["issued", "void"]
    void = next(row for row in world.rows() if row.state.value == "void")
    found = world.store.reading.status_of(void.ref.issuer, void.ref.serial)
    assert found is not None and found[1] is not None, "void is revoked (P5)"
    world.close()
