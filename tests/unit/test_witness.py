"""The signer's second witness: what it keeps for later, and that nobody waits for the disk who need not."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ca.errors import StoreUnavailable
from ca.model import CertificateRef, IssuerId, Serial
from ca.rules import testimony
from ca.witness import Witness

PATIENCE = 60.0


def void(number: int) -> testimony.Record:
    return testimony.GivenUp(CertificateRef(IssuerId("issuing"), Serial(number)), at=1)


class SlowJournal:
    """A journal whose disk takes as long as the test wants."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reached, self.goes_on = threading.Event(), threading.Event()
        self.fails = False

    def append(self, records: Sequence[bytes]) -> None:
        self.reached.set()
        assert self.goes_on.wait(PATIENCE)
        if self.fails:
            raise StoreUnavailable("journal-unusable", "The disk is full.")
        self.written += records


def in_a_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_who_tells_the_next_records_does_not_wait_for_the_disk_and_they_stand_behind() -> None:
    journal = SlowJournal()
    witness = Witness(journal)  # type: ignore[arg-type]  # of the port only `append` is asked
    witness.later([void(1)])
    writing = in_a_thread(lambda: witness.testify([void(2)]))
    assert journal.reached.wait(PATIENCE)

    telling = in_a_thread(lambda: witness.later([void(3)]))
    telling.join(PATIENCE)

    assert not telling.is_alive()
    assert witness.waiting == 2, "the first is not on the disk yet, the third has just come"
    journal.goes_on.set()
    writing.join(PATIENCE)
    assert witness.waiting == 1
    witness.settle()
    assert journal.written == [testimony.write(void(number)) for number in (1, 2, 3)]


def test_two_who_must_have_it_on_the_disk_write_one_after_the_other_and_nothing_twice() -> None:
    journal = SlowJournal()
    witness = Witness(journal)  # type: ignore[arg-type]  # as above
    witness.later([void(1)])
    first = in_a_thread(lambda: witness.testify([void(2)]))
    assert journal.reached.wait(PATIENCE)
    second = in_a_thread(lambda: witness.testify([void(3)]))

    journal.goes_on.set()
    first.join(PATIENCE)
    second.join(PATIENCE)

    assert journal.written == [testimony.write(void(number)) for number in (1, 2, 3)]
    assert witness.waiting == 0


def test_what_the_disk_did_not_take_goes_on_waiting() -> None:
    journal = SlowJournal()
    journal.goes_on.set()
    journal.fails = True
    witness = Witness(journal)  # type: ignore[arg-type]  # as above
    witness.later([void(1)])

    with pytest.raises(StoreUnavailable):
        witness.testify([void(2)])

    assert witness.waiting == 1, "who had to have it there was told that it is not"
    journal.fails = False
    witness.settle()
    assert journal.written == [testimony.write(void(1))]
