"""A batch said ahead (`Writing.foreseeing`) does what its requests do one by one, or nothing: on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from ca.errors import Conflict, FleetcaError
from ca.model import (
    DEFAULT_TENANT,
    CertificateRef,
    CertificateState,
    Device,
    DeviceId,
    DeviceState,
    Intent,
    LogLeaf,
    Name,
    NameKind,
    Reason,
    Token,
)
from ca.ports import Overtaken
from ca.store.engine import Store
from ca.store.ledger import SqlWriting
from tests.fakes.intents import NOW, digest, intent, ref_of, token

LEAF = digest()


@dataclasses.dataclass(frozen=True)
class Case:
    """A request and its token."""

    token: Token
    intent: Intent


def cases(store: Store, count: int) -> list[Case]:
    """Requests whose tokens are on record."""
    made: list[Case] = []
    with store.ledger.writing() as writing:
        for _ in range(count):
            one = intent(names=(Name(NameKind.dns, "same.example"), Name(NameKind.dns, f"{digest().hex()[:9]}.example")))
            bound = token(one.grant.device)
            writing.add_token(bound)
            made.append(Case(bound, one))
    return made


@contextmanager
def foreseeing(writing: SqlWriting, batch: Sequence[Case], *shown: CertificateRef) -> Iterator[None]:
    with writing.foreseeing(
        requests=[one.intent.request_key for one in batch],
        certificates=shown,
        tokens=[one.token.hash for one in batch],
        keys=[one.intent.draft.spki_sha256 for one in batch],
    ):
        yield


def enrol(writing: SqlWriting, case: Case) -> None:
    """What issuing asks and writes for one enrolment, in its order."""
    one, device = case.intent, case.intent.grant.device
    with writing.savepoint():
        assert writing.find_by_request(one.request_key) is None
        found = writing.find_token(case.token.hash)
        assert found is not None
        assert found.device == case.token.device
        if writing.lock_device(device) is None:
            writing.add_device(Device(device, DEFAULT_TENANT, DeviceState.active, NOW))
        writing.claim_key(one.draft.spki_sha256, device, now=NOW)
        writing.use_token(case.token.hash, request_key=one.request_key, now=NOW)
        writing.append_leaf(LogLeaf(one.request_key.hex().encode()))
        writing.reserve(one, tenant="default", revocable=True, leaf=LEAF)


def enrolled(store: Store, case: Case) -> bool:
    """All of it is there, or nothing."""
    one, device = case.intent, case.intent.grant.device
    with store.ledger.writing() as writing:
        found = writing.find_certificate(ref_of(one))
        bound = writing.find_token(case.token.hash)
        known = writing.lock_device(device)
        assert bound is not None
        leaves = [leaf.body for leaf in writing.pending_leaves(99)]
        names = [store.reading.find_certificate(ref_of(one))] if found else []
        there = (found is not None, bound.used_by == one.request_key, known is not None, one.request_key.hex().encode() in leaves)
        assert len(set(there)) == 1, there
        assert [name.names for name in names if name] == ([one.draft.names] if found else [])
        if found is not None:
            assert not writing.claim_key(one.draft.spki_sha256, device, now=NOW)
    return found is not None


@pytest.mark.parametrize("count", [1, 5, 70])
def test_all_of_a_batch_is_on_record_when_it_ends(store: Store, count: int) -> None:
    batch = cases(store, count)
    with store.ledger.writing() as writing, writing.savepoint(), foreseeing(writing, batch):
        for case in batch:
            enrol(writing, case)
    assert all(enrolled(store, case) for case in batch)


def test_who_is_refused_leaves_nothing_and_takes_nobody_along(store: Store) -> None:
    batch = cases(store, 5)
    thief = dataclasses.replace(batch[3], intent=dataclasses.replace(batch[3].intent, draft=dataclasses.replace(batch[3].intent.draft, spki_sha256=batch[1].intent.draft.spki_sha256)))  # fmt: skip
    again = Case(batch[0].token, intent(batch[0].token.device))
    refused: list[str] = []
    with store.ledger.writing() as writing, writing.savepoint(), foreseeing(writing, batch):
        for case in (batch[0], batch[1], thief, again, batch[2], batch[4]):
            try:
                enrol(writing, case)
            except FleetcaError as error:
                refused.append(error.code)
    assert refused == ["key-of-another-device", "token-used"]
    assert [enrolled(store, case) for case in batch] == [True, True, True, False, True]
    assert store.reading.find_certificate(ref_of(again.intent)) is None


def test_what_was_told_is_seen_by_whoever_asks_in_the_same_block(store: Store) -> None:
    batch = cases(store, 4)
    first, second = batch[0], Case(batch[1].token, intent(batch[0].intent.grant.device))
    with store.ledger.writing() as writing, writing.savepoint(), foreseeing(writing, batch):
        enrol(writing, first)
        known = writing.lock_device(first.intent.grant.device)
        assert known is not None
        assert [found.ref for found in writing.certificates_of(known.id)] == [ref_of(first.intent)]
        found = writing.find_by_request(first.intent.request_key)
        assert found is not None
        assert found.state is CertificateState.intended
        with pytest.raises(Conflict) as error, writing.savepoint():
            writing.use_token(first.token.hash, request_key=second.intent.request_key, now=NOW)
        assert error.value.code == "token-used"
        assert not writing.claim_key(first.intent.draft.spki_sha256, known.id, now=NOW)
    assert enrolled(store, first)


def test_what_is_written_of_other_things_in_the_block_keeps_its_place_and_its_savepoint(store: Store) -> None:
    old, batch = cases(store, 1), cases(store, 4)
    with store.ledger.writing() as writing:
        enrol(writing, old[0])
        writing.record_issued([(ref_of(old[0].intent), b"der")], now=NOW)
    ref = ref_of(old[0].intent)

    def revoke(writing: SqlWriting) -> None:
        writing.add_revocation(ref, reason=Reason.superseded, now=NOW, not_after=NOW + 9, listed=True)

    with store.ledger.writing() as writing, writing.savepoint(), foreseeing(writing, batch, ref):
        enrol(writing, batch[0])
        with pytest.raises(RuntimeError), writing.savepoint():
            enrol(writing, batch[1])
            revoke(writing)
            raise RuntimeError
        shown = writing.find_certificate(ref)
        assert shown is not None
        assert shown.revocation is None
        with writing.savepoint():
            enrol(writing, batch[2])
            revoke(writing)
        shown = writing.find_certificate(ref)
        assert shown is not None
        assert shown.revocation is not None
        enrol(writing, batch[3])
    assert [enrolled(store, case) for case in batch] == [True, False, True, True]


def test_a_serial_that_comes_twice_undoes_the_block_and_the_transaction_goes_on(store: Store) -> None:
    batch = cases(store, 4)
    serial = batch[1].intent.draft.serial
    batch[2] = Case(batch[2].token, dataclasses.replace(batch[2].intent, draft=dataclasses.replace(batch[2].intent.draft, serial=serial)))
    with store.ledger.writing() as writing:
        with pytest.raises(Overtaken), writing.savepoint(), foreseeing(writing, batch):
            for case in batch:
                enrol(writing, case)
        enrol(writing, batch[0])
        enrol(writing, batch[1])
        with pytest.raises(Conflict) as error:
            enrol(writing, batch[2])
        assert error.value.code == "serial-taken"
    assert [enrolled(store, case) for case in (batch[0], batch[1], batch[3])] == [True, True, False]


def test_who_was_overtaken_by_another_transaction_undoes_the_block(store: Store) -> None:
    if store.databases[0].is_sqlite:
        return  # writers queue here: nobody comes between
    batch = cases(store, 4)
    key, device = batch[2].intent.draft.spki_sha256, DeviceId("quicker")
    with store.ledger.writing() as writing:
        with pytest.raises(Overtaken), writing.savepoint(), foreseeing(writing, batch):
            with store.ledger.writing() as other:
                other.claim_key(key, device, now=NOW)
            for case in batch:
                enrol(writing, case)
        with pytest.raises(Conflict) as error:
            enrol(writing, batch[2])
        assert error.value.code == "key-of-another-device"
    assert not any(enrolled(store, case) for case in batch)


def test_certificates_that_are_shown_come_with_their_devices_and_parents(store: Store) -> None:
    parents = cases(store, 70)
    with store.ledger.writing() as writing:
        for case in parents:
            enrol(writing, case)
    children = [intent(case.intent.grant.device, parent=ref_of(case.intent)) for case in parents]
    with store.ledger.writing() as writing:
        for one in children:
            writing.reserve(one, tenant="default", revocable=True, leaf=LEAF)
    shown = [ref_of(one) for one in children]
    unknown = CertificateRef(shown[0].issuer, ref_of(intent()).serial)
    with store.ledger.writing() as writing, foreseeing(writing, (), *shown, unknown):
        assert writing.seen is not None
        assert len(writing.seen.certificates) == 141
        assert len(writing.seen.devices) == 70
        for one in children:
            assert writing.find_certificate(ref_of(one)) == store.reading.find_certificate(ref_of(one))
            found = writing.lock_device(one.grant.device)
            assert found is not None
            assert found.id == one.grant.device
        assert writing.find_certificate(unknown) is None
