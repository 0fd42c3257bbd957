"""The desk under load: what is decided while earlier requests are still on their way to the record."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ca.errors import FleetcaError
from ca.model import Draft, Issued, IssueRequest, Role, TokenEvidence
from ca.signer.desk import WORTH_A_COMMIT, Desk
from tests.databases import sqlite_url
from tests.fakes.checker import InPlace
from tests.fakes.signer_world import Keypair, World

PATIENCE = 60


class Holding(InPlace):
    """Re-reads a batch when the test says so."""

    def __init__(self) -> None:
        self.held: queue.SimpleQueue[tuple[Sequence[tuple[Draft, bytes, bytes]], Any]] = queue.SimpleQueue()

    def reread(self, finished: Sequence[tuple[Draft, bytes, bytes]], told: Any) -> None:
        self.held.put((finished, told))

    def release(self, batch: tuple[Sequence[tuple[Draft, bytes, bytes]], Any]) -> None:
        super().reread(*batch)


def test_P1_beside_a_batch_that_is_not_on_record_another_is_decided_where_it_is_worth_a_commit(tmp_path: Path) -> None:
    world, checker = World(tmp_path, sqlite_url(tmp_path)), Holding()
    desk = Desk(issuing=world.issuing, revoking=world.revoking, witness=world.witness, checker=checker)
    desk.start()
    outcomes: queue.SimpleQueue[Issued | FleetcaError] = queue.SimpleQueue()

    def ask(count: int) -> None:
        for _ in range(count):
            request = IssueRequest(Keypair().csr(), TokenEvidence(world.token().text))
            desk.submit(world.issuing.prepare(request, world.peer(Role.enroll)), outcomes.put)

    def reached() -> tuple[Sequence[tuple[Draft, bytes, bytes]], Any]:
        return checker.held.get(timeout=PATIENCE)

    ask(1)
    alone = reached()
    ask(WORTH_A_COMMIT - 1)  # too few: they wait for one more, or for the first one's result
    ask(1)
    beside = reached()
    ask(WORTH_A_COMMIT)  # beside two they wait, however many of a full batch they are
    assert outcomes.empty(), "nobody gets what is not on record"
    checker.release(alone)
    last = reached()
    checker.release(beside)
    checker.release(last)

    assert [len(batch) for batch, _ in (alone, beside, last)] == [1, WORTH_A_COMMIT, WORTH_A_COMMIT]
    issued = [outcomes.get(timeout=PATIENCE) for _ in range(1 + 2 * WORTH_A_COMMIT)]
    assert len({one.certificate.ref for one in issued if isinstance(one, Issued)}) == len(issued)
    desk.stop()
    world.close()
