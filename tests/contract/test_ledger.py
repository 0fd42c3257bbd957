"""The promises of `ca.ports.Writing`, on SQLite and on a real PostgreSQL: what one transaction at a time must see and refuse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from hashlib import sha256

import pytest

from ca.errors import Busy, Conflict, FleetcaError, NotFound
from ca.model import (
    DEFAULT_TENANT,
    AlgorithmName,
    Anchor,
    AttestationKind,
    CertificateRef,
    CertificateState,
    Checkpoint,
    CrlIntent,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Digest,
    Intent,
    Issuer,
    IssuerId,
    KeyName,
    LogLeaf,
    Name,
    NameKind,
    Operator,
    OperatorName,
    Reason,
    RootOfTrust,
    SafetyClass,
    Serial,
    StatusChange,
    TenantId,
)
from ca.store.engine import Store
from ca.store.ledger import SqlWriting
from crl.rules import elements
from tests.fakes.devices import moved
from tests.fakes.intents import ISSUER, NOW, WEEK, digest, intent, ref_of, token

LEAF = digest()
DER = b"\x30\x03\x02\x01\x05"


def reserve(store: Store, *intents: Intent) -> None:
    with store.ledger.writing() as writing:
        for one in intents:
            writing.reserve(one, tenant="default", revocable=True, leaf=LEAF)


def issue(store: Store, one: Intent, der: bytes | None = None) -> CertificateRef:
    reserve(store, one)
    with store.ledger.writing() as writing:
        writing.record_issued([(ref_of(one), der or one.draft.tbs + b"signature")], now=NOW + 1)
    return ref_of(one)


def refused(store: Store, act: Callable[[SqlWriting], object], kind: type[FleetcaError] = Conflict) -> str:
    """The code with which a transaction of its own refuses."""
    with pytest.raises(kind) as error, store.ledger.writing() as writing:
        act(writing)
    return error.value.code


# ---- intents and results


def test_P1_an_intent_holds_all_that_it_takes_to_revoke_what_may_have_been_signed(store: Store) -> None:
    parent = CertificateRef(ISSUER, Serial(5))
    names = (Name(NameKind.dns, "pump.example"), Name(NameKind.uri, "urn:dev:pump"))
    one = intent("pump-ü", names=names, parent=parent)
    reserve(store, one)
    with store.ledger.writing() as writing:
        (found,) = writing.unfinished()
    draft = one.draft
    assert (found.ref, found.state, found.tenant, found.device) == (ref_of(one), CertificateState.intended, "default", "pump-ü")
    assert (found.tbs, found.der, found.names, found.parent, found.leaf) == (draft.tbs, None, names, parent, LEAF)
    assert (found.not_before, found.not_after, found.spki_sha256) == (draft.not_before, draft.not_after, draft.spki_sha256)
    assert (found.subject, found.profile, found.revocable, found.request_key) == ("CN=pump-ü", "device", True, one.request_key)
    assert (found.intended_at, found.issued_at, found.superseded_at, found.first_used_at) == (NOW, None, None, None)
    assert found.revocation is None
    assert store.reading.find_certificate(ref_of(one)) == found


def test_P1_the_grant_stands_beside_its_intent_as_json(store: Store) -> None:
    one = intent("pump-1", parent=CertificateRef(ISSUER, Serial(255)))
    reserve(store, one)
    connection = store.databases[0].connect()
    ((text,),) = store.databases[0].cursor(connection).execute('SELECT "grant" FROM certificates').fetchall()
    connection.close()
    found = json.loads(text)
    assert set(found) == {*(field.name for field in dataclasses.fields(one.grant))} - {"profile_digest", "evidence_digest"} | {
        "profile_sha256",
        "evidence_sha256",
    }
    assert (found["device"], found["evidence_sha256"]) == ("pump-1", one.grant.evidence_digest.hex())
    assert found["parent"] == f"issuing/{255:040x}"


def test_a_result_finishes_its_intent(store: Store) -> None:
    one = intent()
    issue(store, one, DER)
    found = store.reading.find_certificate(ref_of(one))
    assert found is not None
    assert (found.state, found.der, found.issued_at) == (CertificateState.issued, DER, NOW + 1)
    with store.ledger.writing() as writing:
        assert writing.unfinished() == []
        assert writing.find_by_request(one.request_key) == found
        assert writing.find_certificate(ref_of(one)) == found
    assert store.reading.find_by_der_digest(Digest(sha256(DER).digest())) == found
    assert store.reading.find_by_der_digest(digest()) is None


def test_unfinished_intents_come_oldest_first(store: Store) -> None:
    intents = [intent() for _ in range(5)]
    reserve(store, *intents)
    with store.ledger.writing() as writing:
        writing.record_issued([(ref_of(intents[2]), DER)], now=NOW)
        writing.record_void(ref_of(intents[3]), now=NOW)
        assert [found.ref for found in writing.unfinished()] == [ref_of(intents[number]) for number in (0, 1, 4)]


def test_a_void_intent_frees_its_request_and_keeps_its_serial(store: Store) -> None:
    one = intent()
    reserve(store, one)
    with store.ledger.writing() as writing:
        writing.record_void(ref_of(one), now=NOW)
        assert writing.find_by_request(one.request_key) is None
        writing.record_void(ref_of(one), now=NOW + 9)
    assert refused(store, lambda w: w.reserve(one, tenant="default", revocable=True, leaf=LEAF)) == "serial-taken"
    again = intent(one.grant.device, request_key=one.request_key)
    reserve(store, again)
    with store.ledger.writing() as writing:
        found = writing.find_by_request(one.request_key)
    assert found is not None
    assert found.ref == ref_of(again)
    voided = store.reading.find_certificate(ref_of(one))
    assert voided is not None
    assert voided.state is CertificateState.void


def test_a_forced_serial_collision_is_told_and_another_serial_goes_through_in_the_same_transaction(store: Store) -> None:
    one = intent()
    reserve(store, one)
    twin = intent(serial=one.draft.serial)
    other_issuer = intent(serial=one.draft.serial, issuer=IssuerId("other"))
    redrawn = dataclasses.replace(twin, draft=dataclasses.replace(twin.draft, serial=Serial(one.draft.serial + 1)))
    with store.ledger.writing() as writing:
        with pytest.raises(Conflict) as error, writing.savepoint():
            writing.reserve(twin, tenant="default", revocable=True, leaf=LEAF)
        assert error.value.code == "serial-taken"
        with writing.savepoint():
            writing.reserve(redrawn, tenant="default", revocable=True, leaf=LEAF)
        writing.reserve(other_issuer, tenant="default", revocable=True, leaf=LEAF)
    assert store.reading.find_certificate(ref_of(redrawn)) is not None
    assert store.reading.find_certificate(ref_of(other_issuer)) is not None


def test_one_request_has_one_intent(store: Store) -> None:
    one = intent()
    reserve(store, one)
    twin = intent(request_key=one.request_key)
    assert refused(store, lambda w: w.reserve(twin, tenant="default", revocable=True, leaf=LEAF), Busy) == "request-taken"


def test_a_result_is_written_once(store: Store) -> None:
    one, two = intent(), intent()
    ref = issue(store, one, DER)
    reserve(store, two)
    with store.ledger.writing() as writing:
        assert writing.record_issued([(ref, DER)], now=NOW + 50) == []  # the same again
        writing.record_void(ref_of(two), now=NOW)
    found = store.reading.find_certificate(ref)
    assert found is not None
    assert found.issued_at == NOW + 1
    with store.ledger.writing() as writing:
        assert writing.record_issued([(ref, b"another"), (ref_of(two), b"late")], now=NOW) == [ref, ref_of(two)]
    assert refused(store, lambda w: w.record_void(ref, now=NOW)) == "already-finished"
    unknown = CertificateRef(ISSUER, Serial(1))
    assert refused(store, lambda w: w.record_issued([(unknown, DER)], now=NOW), NotFound) == "certificate-unknown"
    assert refused(store, lambda w: w.record_void(unknown, now=NOW), NotFound) == "certificate-unknown"


@pytest.mark.parametrize("serial", [0, -1, 1 << 160, 1 << 2000], ids=["zero", "negative", "21 octets", "huge"])
def test_a_serial_that_no_ca_may_give_is_simply_not_there(store: Store, serial: int) -> None:
    ref = CertificateRef(ISSUER, Serial(serial))
    assert store.reading.find_certificate(ref) is None
    assert store.reading.status_of(ISSUER, Serial(serial)) is None
    assert store.reading.leaf_of(ref) is None


# ---- savepoints and transactions


def test_a_savepoint_undoes_what_was_done_inside_and_only_that(store: Store) -> None:
    before, inside, inner, after = (intent() for _ in range(4))
    with store.ledger.writing() as writing:
        writing.reserve(before, tenant="default", revocable=True, leaf=LEAF)
        with pytest.raises(RuntimeError), writing.savepoint():
            writing.reserve(inside, tenant="default", revocable=True, leaf=LEAF)
            with writing.savepoint():
                writing.reserve(inner, tenant="default", revocable=True, leaf=LEAF)
            writing.append_leaf(LogLeaf(b"{}"))
            assert writing.next_crl_number(ISSUER, 0, above=0) == 1
            raise RuntimeError
        with writing.savepoint():
            writing.reserve(after, tenant="default", revocable=True, leaf=LEAF)
        assert writing.next_crl_number(ISSUER, 0, above=0) == 1
    there = [store.reading.find_certificate(ref_of(one)) is not None for one in (before, inside, inner, after)]
    assert there == [True, False, False, True]
    assert store.reading.pending_leaves(10) == []


def test_an_inner_savepoint_undone_leaves_the_outer_one(store: Store) -> None:
    outer, inner = intent(), intent()
    with store.ledger.writing() as writing, writing.savepoint():
        writing.reserve(outer, tenant="default", revocable=True, leaf=LEAF)
        with pytest.raises(RuntimeError), writing.savepoint():
            writing.reserve(inner, tenant="default", revocable=True, leaf=LEAF)
            raise RuntimeError
    assert store.reading.find_certificate(ref_of(outer)) is not None
    assert store.reading.find_certificate(ref_of(inner)) is None


def test_an_exception_undoes_the_whole_transaction_and_the_next_one_works(store: Store) -> None:
    one = intent()
    with pytest.raises(KeyboardInterrupt), store.ledger.writing() as writing:
        writing.reserve(one, tenant="default", revocable=True, leaf=LEAF)
        writing.raise_high_time(NOW)
        raise KeyboardInterrupt
    assert store.reading.find_certificate(ref_of(one)) is None
    with store.ledger.writing() as writing:
        assert writing.high_time() == 0


def test_readers_see_nothing_before_the_commit_and_all_after(store: Store) -> None:
    one = intent()
    with store.ledger.writing() as writing:
        writing.reserve(one, tenant="default", revocable=True, leaf=LEAF)
        assert store.reading.find_certificate(ref_of(one)) is None
    assert store.reading.find_certificate(ref_of(one)) is not None


def test_the_high_time_only_rises(store: Store) -> None:
    for now, high in [(NOW, NOW), (NOW - 5, NOW), (NOW + 5, NOW + 5)]:
        with store.ledger.writing() as writing:
            writing.raise_high_time(now)
        assert store.reading.high_time() == high


def test_the_high_time_is_set_back_only_by_its_own_name(store: Store) -> None:
    with store.ledger.writing() as writing:
        writing.raise_high_time(NOW)
        writing.set_high_time(NOW - 500)
    assert store.reading.high_time() == NOW - 500


# ---- tokens, messages, devices, keys


def test_a_token_is_used_once_and_again_only_by_the_same_request(store: Store) -> None:
    one = token(names=(Name(NameKind.ip, "192.0.2.1"),))
    first, second = digest(), digest()
    with store.ledger.writing() as writing:
        writing.add_token(one)
        assert writing.find_token(one.hash) == one
        writing.use_token(one.hash, request_key=first, now=NOW + 5)
    with store.ledger.writing() as writing:
        writing.use_token(one.hash, request_key=first, now=NOW + 9)
        assert writing.find_token(one.hash) == dataclasses.replace(one, used_at=NOW + 5, used_by=first)
    assert refused(store, lambda w: w.use_token(one.hash, request_key=second, now=NOW)) == "token-used"
    assert refused(store, lambda w: w.use_token(digest(), request_key=first, now=NOW), NotFound) == "token-unknown"
    assert refused(store, lambda w: w.add_token(one)) == "token-exists"


def test_a_token_whose_request_was_undone_can_be_used(store: Store) -> None:
    one = token()
    with store.ledger.writing() as writing:
        writing.add_token(one)
        with pytest.raises(RuntimeError), writing.savepoint():
            writing.use_token(one.hash, request_key=digest(), now=NOW)
            raise RuntimeError
        writing.use_token(one.hash, request_key=digest(), now=NOW)


def test_a_token_is_withdrawn_once_and_only_unused(store: Store) -> None:
    used, gone, late, other, kept = (token(device) for device in ("pump-1", "pump-1", "pump-1", "pump-2", "pump-1"))
    late = dataclasses.replace(late, expires=NOW + 5)
    with store.ledger.writing() as writing:
        for one in (used, gone, late, other, kept):
            writing.add_token(one)
        writing.use_token(used.hash, request_key=digest(), now=NOW)
        assert [one.hash for one in writing.outstanding_tokens(DeviceId("pump-1"), now=NOW)] == sorted([gone.hash, late.hash, kept.hash])
        assert writing.revoke_token(gone.hash, now=NOW + 1)
        assert not writing.revoke_token(gone.hash, now=NOW + 2)
        assert not writing.revoke_token(used.hash, now=NOW + 2)
        assert not writing.revoke_token(digest(), now=NOW + 2)
        assert writing.find_token(gone.hash) == dataclasses.replace(gone, revoked_at=NOW + 1)
    reading = store.reading
    assert [one.hash for one in reading.outstanding_tokens(DeviceId("pump-1"), now=NOW + 5)] == [kept.hash]
    assert reading.outstanding_tokens(DeviceId("pump-9"), now=NOW) == []
    assert reading.waiting_tokens(now=NOW + 5) == [kept, other]
    assert reading.waiting_tokens(now=NOW + 5, limit=1) == [kept]
    assert reading.waiting_tokens(now=NOW + 5, after=(kept.device, kept.hash)) == [other]
    assert refused(store, lambda w: w.use_token(gone.hash, request_key=digest(), now=NOW)) == "token-used"


def test_a_message_acts_once(store: Store) -> None:
    one = digest()
    with store.ledger.writing() as writing:
        writing.consume_message(one, now=NOW)
    assert refused(store, lambda w: w.consume_message(one, now=NOW + 1)) == "message-replayed"


def test_P9_a_key_serves_one_device_ever(store: Store) -> None:
    key = digest()
    with store.ledger.writing() as writing:
        assert writing.claim_key(key, DeviceId("pump-1"), now=NOW) is True
    with store.ledger.writing() as writing:
        assert writing.claim_key(key, DeviceId("pump-1"), now=NOW + 1) is False
    assert refused(store, lambda w: w.claim_key(key, DeviceId("pump-2"), now=NOW)) == "key-of-another-device"
    with store.ledger.writing() as writing:
        assert writing.owner_of_key(key) == "pump-1"
        assert writing.owner_of_key(digest()) is None


def test_devices(store: Store) -> None:
    one = Device(DeviceId("pump-1"), DEFAULT_TENANT, DeviceState.active, NOW)
    with store.ledger.writing() as writing:
        assert writing.lock_device(one.id) is None
        writing.add_device(one)
        writing.add_device(dataclasses.replace(one, created=NOW + 7))  # the same again
        assert writing.lock_device(one.id) == one
        writing.change_device(moved(one, DeviceState.retired))
    assert store.reading.find_device(one.id) == dataclasses.replace(one, state=DeviceState.retired)
    assert refused(store, lambda w: w.add_device(one)) == "device-exists"
    assert refused(store, lambda w: w.change_device(moved(one, DeviceState.retired))) == "device-changed"
    nobody = dataclasses.replace(one, id=DeviceId("nobody"))
    assert refused(store, lambda w: w.change_device(moved(nobody, DeviceState.retired))) == "device-changed"
    assert [change.after for change in store.reading.device_changes(one.id)] == [DeviceState.retired]


def test_what_is_said_of_a_device_is_kept_until_something_else_is(store: Store) -> None:
    anchors = (Anchor(AttestationKind.se, digest(), "manifest 01 entry 1", NOW), Anchor(AttestationKind.tpm, digest(), "böard", NOW + 1))
    full = DeviceFacts(RootOfTrust.none, "prototype", NOW + 60, SafetyClass.C, "lot 7", "ward 3", anchors)
    with store.ledger.writing() as writing:
        writing.set_device_facts(DeviceId("pump-1"), full)
        writing.set_device_facts(DeviceId("pump-2"), DeviceFacts())
        assert writing.device_facts(DeviceId("pump-1")) == full
    assert store.reading.device_facts(DeviceId("pump-2")) == DeviceFacts()
    assert store.reading.device_facts(DeviceId("pump-3")) is None
    assert list(store.reading.exceptions_ended(now=NOW + 59, limit=9)) == []
    assert list(store.reading.exceptions_ended(now=NOW + 60, limit=9)) == [("pump-1", full)]
    with store.ledger.writing() as writing:
        writing.set_device_facts(DeviceId("pump-1"), DeviceFacts(RootOfTrust.tpm))
    assert list(store.reading.every_device_facts()) == [("pump-1", DeviceFacts(RootOfTrust.tpm)), ("pump-2", DeviceFacts())]


def test_P9_the_certificates_of_a_device_come_newest_first_without_void_ones(store: Store) -> None:
    intents = [intent("pump-1") for _ in range(4)]
    reserve(store, *intents, intent("pump-2"))
    with store.ledger.writing() as writing:
        writing.record_void(ref_of(intents[1]), now=NOW)
        writing.record_issued([(ref_of(intents[2]), DER)], now=NOW)
        found = writing.certificates_of(DeviceId("pump-1"))
    assert [one.ref for one in found] == [ref_of(intents[number]) for number in (3, 2, 0)]


def test_P9_the_renewals_of_a_certificate_come_oldest_first_without_void_ones_and_without_theirs(store: Store) -> None:
    other, parent = issue(store, intent("pump-1")), issue(store, intent("pump-1"))

    def renewal(of: CertificateRef, device: str = "pump-1") -> Intent:
        made = intent(device)
        return dataclasses.replace(made, grant=dataclasses.replace(made.grant, parent=of))

    intents = [renewal(parent), renewal(other), renewal(parent), renewal(parent), renewal(parent, "pump-2")]
    reserve(store, *intents)
    reserve(store, renewal(ref_of(intents[0])))
    with store.ledger.writing() as writing:
        writing.record_void(ref_of(intents[2]), now=NOW)
        found = writing.renewals_of(parent, DeviceId("pump-1"))
        assert writing.renewals_of(ref_of(intents[3]), DeviceId("pump-1")) == []
        assert writing.renewals_of(CertificateRef(IssuerId("nobody"), parent.serial), DeviceId("pump-1")) == []
    assert [one.ref for one in found] == [ref_of(intents[number]) for number in (0, 3)]
    assert [one.state for one in found] == [CertificateState.intended] * 2


def test_P9_first_use_and_supersession_keep_their_first_time(store: Store) -> None:
    ref = issue(store, intent())
    for now in (NOW + 5, NOW + 6):
        with store.ledger.writing() as writing:
            writing.mark_first_used(ref, now=now)
            writing.mark_superseded(ref, now=now + 1)
    found = store.reading.find_certificate(ref)
    assert found is not None
    assert (found.first_used_at, found.superseded_at) == (NOW + 5, NOW + 6)


def test_P9_a_clone_keeps_the_time_at_which_it_was_seen_first(store: Store) -> None:
    refs = [issue(store, intent()) for _ in range(3)]
    for ref, times in zip(refs, ((NOW + 5, NOW + 6), (NOW + 4,), ()), strict=True):
        for now in times:
            with store.ledger.writing() as writing:
                writing.mark_clone_seen(ref, now=now)
    found = store.reading.clones(since=NOW, limit=9)
    assert [(one.ref, one.clone_seen_at) for one in found] == [(refs[1], NOW + 4), (refs[0], NOW + 5)]
    assert [one.ref for one in store.reading.clones(since=NOW + 5, limit=9)] == [refs[0]]
    assert [one.ref for one in store.reading.clones(since=NOW, limit=1)] == [refs[1]]


def test_P9_a_delivery_and_the_end_of_a_grace_keep_their_first_time(store: Store) -> None:
    ref = issue(store, intent())
    for now in (NOW + 5, NOW + 6):
        with store.ledger.writing() as writing:
            writing.mark_delivered(ref, now=now)
            writing.begin_grace(ref, ends_at=now + 100)
    found = store.reading.find_certificate(ref)
    assert found is not None
    assert (found.delivered_at, found.grace_ends_at, found.superseded_at) == (NOW + 5, NOW + 105, None)


def test_P9_graces_that_have_ended_come_earliest_first_until_they_are_marked(store: Store) -> None:
    refs = [issue(store, intent()) for _ in range(4)]
    with store.ledger.writing() as writing:
        for ref, ends_at in zip(refs, (NOW + 3, NOW + 1, NOW + 2, None), strict=True):
            if ends_at is not None:
                writing.begin_grace(ref, ends_at=ends_at)

        def ended(now: int, limit: int = 9) -> list[CertificateRef]:
            return [one.ref for one in writing.graces_ended(now, limit=limit)]

        assert ended(NOW) == []
        assert ended(NOW + 2) == [refs[1], refs[2]]
        assert ended(NOW + 9, limit=1) == [refs[1]]
        writing.mark_superseded(refs[1], now=NOW + 1)
        assert ended(NOW + 9) == [refs[2], refs[0]]


# ---- revocations and CRLs


def revoke(store: Store, ref: CertificateRef, reason: Reason = Reason.keyCompromise, *, now: int = NOW, listed: bool = True) -> int:
    found = store.reading.find_certificate(ref)
    assert found is not None
    with store.ledger.writing() as writing:
        revocation = writing.add_revocation(ref, reason=reason, now=now, not_after=found.not_after, listed=listed, actor="operator:ada")
    assert (revocation.ref, revocation.reason, revocation.revoked_at, revocation.listed) == (ref, reason, now, listed)
    return revocation.change


def test_P5_the_latest_change_is_the_status(store: Store) -> None:
    ref, other = issue(store, intent()), issue(store, intent())
    assert store.reading.status_of(ISSUER, ref.serial) == (CertificateState.issued, None)
    assert store.reading.status_of(IssuerId("other"), ref.serial) is None
    seen = []
    for reason in (Reason.certificateHold, Reason.removeFromCRL, Reason.keyCompromise):
        change = revoke(store, ref, reason)
        state = store.reading.status_of(ISSUER, ref.serial)
        assert state is not None
        assert state[1] is not None
        assert (state[1].change, state[1].reason) == (change, reason)
        found = store.reading.find_certificate(ref)
        assert found is not None
        assert found.revocation == state[1]
        seen.append(state[1])
    assert store.reading.change_number() == 3
    assert store.reading.changes_since(0, 10) == seen
    assert store.reading.changes_since(1, 1) == seen[1:2]
    assert list(store.reading.every_revocation()) == seen
    assert store.reading.status_of(ISSUER, other.serial) == (CertificateState.issued, None)


def test_what_is_not_on_record_cannot_be_revoked_and_takes_no_number(store: Store) -> None:
    def act(writing: SqlWriting) -> object:
        return writing.add_revocation(CertificateRef(ISSUER, Serial(1)), reason=Reason.unspecified, now=NOW, not_after=NOW, listed=True)

    assert refused(store, act, NotFound) == "certificate-unknown"
    assert store.reading.change_number() == 0


def test_a_change_number_that_was_undone_is_given_again(store: Store) -> None:
    ref = issue(store, intent())
    with store.ledger.writing() as writing:
        with pytest.raises(RuntimeError), writing.savepoint():
            writing.add_revocation(ref, reason=Reason.unspecified, now=NOW, not_after=NOW, listed=True)
            raise RuntimeError
        assert writing.change_number() == 0
        assert writing.add_revocation(ref, reason=Reason.unspecified, now=NOW, not_after=NOW, listed=True).change == 1


def test_many_changes_get_their_numbers_in_order_and_none_where_one_is_not_on_record(store: Store) -> None:
    refs = [issue(store, intent()) for _ in range(3)]
    held = revoke(store, refs[1], Reason.certificateHold)
    wanted = [StatusChange(ref, Reason.superseded, NOW + number, NOW + WEEK - 1, listed=True) for number, ref in enumerate(refs)]
    unknown = StatusChange(CertificateRef(ISSUER, Serial(1)), Reason.superseded, NOW, NOW, listed=True)
    assert refused(store, lambda writing: writing.add_revocations([*wanted, unknown]), NotFound) == "certificate-unknown"
    assert store.reading.change_number() == held
    with store.ledger.writing() as writing:
        assert writing.add_revocations([]) == ()
        made = writing.add_revocations(wanted, actor="operator:ada", invalid_from=NOW - 9)
    assert [(one.change, one.ref, one.revoked_at) for one in made] == [
        (held + 1 + number, one.ref, one.revoked_at) for number, one in enumerate(wanted)
    ]
    assert store.reading.changes_since(held, 9) == list(made)
    assert list(store.reading.replaced(1, 9, as_of=9)) == [held]
    for one in made:
        assert store.reading.status_of(ISSUER, one.ref.serial) == (CertificateState.issued, one)


def test_P6_a_crl_lists_what_is_revoked_as_of_a_change_in_the_order_of_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    intents = [intent(not_after=NOW + 100 * number) for number in range(8)]
    refs = [issue(store, one) for one in intents]
    elsewhere = issue(store, intent(issuer=IssuerId("other")))
    history: list[list[int]] = [[]]
    steps = [(1, Reason.keyCompromise), (2, Reason.certificateHold), (3, Reason.superseded), (2, Reason.removeFromCRL)]
    steps += [(4, Reason.certificateHold), (2, Reason.certificateHold), (4, Reason.keyCompromise), (5, Reason.unspecified)]
    steps += [(2, Reason.removeFromCRL), (7, Reason.unspecified)]
    for number, reason in steps:
        revoke(store, refs[number], reason, now=NOW + number)
        others = [one for one in history[-1] if one != number]
        history.append(others if reason is Reason.removeFromCRL else [*others, number])
    revoke(store, refs[6], listed=False)
    revoke(store, elsewhere)
    for page in (1, 2, 3, 100):
        monkeypatch.setattr("ca.store.reads.CRL_PAGE", page)
        for as_of, expected in enumerate(history):
            entries = list(store.reading.crl_entries(ISSUER, 0, expired_before=0, as_of=as_of))
            assert [entry.serial for entry in entries] == [refs[number].serial for number in expected], (page, as_of)
            monkeypatch.setattr(elements, "_PAGE", page)
            for until in (0, NOW + 300):
                entries = list(store.reading.crl_entries(ISSUER, 0, expired_before=until, as_of=as_of))
                joined = elements.pages(store.reading, ISSUER, 0, as_of=as_of, expired_before=until)
                recorded = elements.Recorded(lambda: (), pages=lambda pages=joined: pages)  # type: ignore[misc]
                assert b"".join(recorded.octets()) == b"".join(elements.Recorded(lambda rows=entries: rows).octets())  # type: ignore[misc]
                assert recorded.count == len(entries)
        with store.ledger.writing() as writing:
            latest = list(writing.crl_entries(ISSUER, 0, expired_before=NOW + 300))
        assert {entry.serial for entry in latest} == {refs[number].serial for number in (3, 4, 5, 7)}
    by_serial = {entry.serial: entry for entry in latest}
    assert (by_serial[refs[4].serial].reason, by_serial[refs[4].serial].revoked_at) == (Reason.keyCompromise, NOW + 4)


def crl(number: int, issuer: IssuerId = ISSUER) -> CrlIntent:
    return CrlIntent(issuer, 0, number, as_of=3, count=2, this_update=NOW, next_update=NOW + 9, tbs_sha256=digest(), fence=1)


def test_P6_crl_numbers_rise_above_all_earlier_ones_and_the_floor(store: Store) -> None:
    given = []
    for above in (0, 0, 10, 3, 10**15, 0):
        with store.ledger.writing() as writing:
            given.append(writing.next_crl_number(ISSUER, 0, above=above))
    assert given == [1, 2, 11, 12, 10**15 + 1, 10**15 + 2]
    with store.ledger.writing() as writing:
        assert writing.next_crl_number(ISSUER, 1, above=0) == 1
        assert writing.next_crl_number(IssuerId("other"), 0, above=6) == 7


def test_the_last_crl_is_the_published_one_with_the_highest_number(store: Store) -> None:
    assert store.reading.last_crl(ISSUER, 0) is None
    intents = [crl(number) for number in (1, 2, 3)]
    with store.ledger.writing() as writing:
        for one in intents:
            writing.reserve_crl(one)
        assert writing.last_crl(ISSUER, 0) is None
        for number in (2, 1, 2):
            writing.record_crl_published(ISSUER, 0, number, now=NOW)
    assert store.reading.last_crl(ISSUER, 0) == intents[1]
    assert list(store.reading.every_crl()) == intents
    assert refused(store, lambda w: w.reserve_crl(crl(2))) == "crl-number-taken"
    assert refused(store, lambda w: w.record_crl_published(ISSUER, 0, 9, now=NOW), NotFound) == "crl-unknown"


# ---- leases


def test_R13_a_lease_has_one_holder_and_each_new_one_the_next_fence(store: Store) -> None:
    def lease(holder: str, now: int) -> int | None:
        with store.ledger.writing() as writing:
            found = writing.lease("crl:issuing", holder=holder, now=now, seconds=30)
        assert found is None or (found.holder, found.expires) == (holder, now + 30)
        return None if found is None else found.fence

    assert lease("a", NOW) == 1
    assert lease("b", NOW + 29) is None
    assert lease("a", NOW + 20) == 1, "the holder keeps it, and its fence"
    assert lease("b", NOW + 49) is None
    assert lease("b", NOW + 50) == 2, "from the second at which it ran out it is free"
    assert lease("a", NOW + 51) is None
    assert lease("b", NOW + 500) == 2, "nobody came meanwhile"
    assert lease("a", NOW + 530) == 3


def test_R13_who_lost_a_lease_cannot_commit(store: Store) -> None:
    """No need to stop a process: the older holder simply acts with the fence it had."""
    with store.ledger.writing() as writing:
        old = writing.lease("crl:issuing", holder="a", now=NOW, seconds=30)
        assert old is not None
        writing.check_fence("crl:issuing", old.fence)
    with store.ledger.writing() as writing:
        assert writing.lease("crl:issuing", holder="b", now=NOW + 31, seconds=30) is not None

    def late(writing: SqlWriting) -> None:
        writing.reserve_crl(crl(1))
        writing.check_fence("crl:issuing", old.fence)

    assert refused(store, late) == "lease-lost"
    assert list(store.reading.every_crl()) == []
    assert refused(store, lambda w: w.check_fence("never-taken", 1)) == "lease-lost"


# ---- issuers and operators


def issuer(**changes: object) -> Issuer:
    return dataclasses.replace(
        Issuer(
            id=ISSUER,
            tenant=DEFAULT_TENANT,
            certificate=b"certificate",
            subject=b"subject",
            spki=b"spki",
            key_identifier=b"\1" * 20,
            algorithm=AlgorithmName("p256"),
            not_before=NOW,
            not_after=NOW + 10**8,
            key=KeyName("issuing"),
            may_issue=True,
            may_sign_crl=True,
            crl_url="http://status.example/crl/issuing.crl",
            ocsp_url=None,
            issuer_url=None,
            parent=IssuerId("root"),
        ),
        **changes,  # type: ignore[arg-type]
    )


def test_an_issuer_keeps_its_certificate_and_may_get_other_addresses(store: Store) -> None:
    root = issuer(id=IssuerId("root"), key=None, parent=None, may_issue=False, certificate=b"root")
    with store.ledger.writing() as writing:
        writing.add_issuer(issuer())
        writing.add_issuer(root)
        writing.add_issuer(issuer(ocsp_url="http://status.example/ocsp"))
        assert writing.issuers() == [issuer(ocsp_url="http://status.example/ocsp"), root]
    assert store.reading.issuers() == [issuer(ocsp_url="http://status.example/ocsp"), root]
    assert refused(store, lambda w: w.add_issuer(issuer(certificate=b"another"))) == "issuer-exists"


def test_operators(store: Store) -> None:
    ada = Operator(OperatorName("ada"), DEFAULT_TENANT, ("admin", "auditor"), NOW, None)
    with store.ledger.writing() as writing:
        writing.add_operator(ada)
        writing.add_operator(dataclasses.replace(ada, created=NOW + 1))  # the same again
        assert writing.find_operator(ada.name) == ada
        writing.disable_operator(ada.name, now=NOW + 5)
        writing.disable_operator(ada.name, now=NOW + 6)
    disabled = dataclasses.replace(ada, disabled_at=NOW + 5)
    assert store.reading.operator(ada.name) == disabled
    assert store.reading.operators() == [disabled]
    assert store.reading.operator(OperatorName("bob")) is None
    assert refused(store, lambda w: w.add_operator(ada)) == "operator-exists"
    elsewhere = dataclasses.replace(disabled, tenant=TenantId("acme"))
    assert refused(store, lambda w: w.add_operator(elsewhere)) == "operator-exists"
    assert refused(store, lambda w: w.disable_operator(OperatorName("bob"), now=NOW), NotFound) == "operator-unknown"


# ---- the record


def test_P8_leaves_get_their_places_once_and_without_a_gap(store: Store) -> None:
    bodies = [b'{"n":%d}' % number for number in range(6)]
    with store.ledger.writing() as writing:
        hashes = [writing.append_leaf(LogLeaf(body)) for body in bodies]
        assert hashes == [sha256(b"\0" + body).digest() for body in bodies]
        assert writing.leaf_count() == 0
        pending = writing.pending_leaves(4)
        assert [(leaf.body, leaf.index) for leaf in pending] == [(body, None) for body in bodies[:4]]
        writing.assign_indexes([leaf.id for leaf in pending], start=0)
        assert writing.leaf_count() == 4
    reading = store.reading
    assert [(leaf.body, leaf.index) for leaf in reading.leaves(1, 2)] == [(bodies[1], 1), (bodies[2], 2)]
    assert [leaf.body for leaf in reading.leaves(0, 100)] == bodies[:4]
    assert [leaf.body for leaf in reading.pending_leaves(100)] == bodies[4:]
    indexes = [found and found.index for found in map(reading.find_leaf, hashes)]
    assert indexes == [0, 1, 2, 3, None, None]
    assert all(reading.find_leaf(digest) is not None for digest in hashes)
    assert reading.find_leaf(digest()) is None
    fourth, fifth = pending[3].id, reading.pending_leaves(1)[0].id
    assert refused(store, lambda w: w.assign_indexes([fourth], start=4)) == "leaf-sequenced"
    assert refused(store, lambda w: w.assign_indexes([fifth], start=3)) == "leaf-sequenced"
    assert refused(store, lambda w: w.assign_indexes([fifth + 100], start=4)) == "leaf-sequenced"
    assert reading.leaf_count() == 4


def test_P8_one_size_has_one_root(store: Store) -> None:
    one = Checkpoint("demo", 4, digest(), b"note")
    with store.ledger.writing() as writing:
        assert writing.last_checkpoint() is None
        writing.record_checkpoint(one, now=NOW)
        writing.record_checkpoint(one, now=NOW + 1)
        writing.record_checkpoint(dataclasses.replace(one, size=2), now=NOW)
    assert store.reading.last_checkpoint() == one
    fork = dataclasses.replace(one, root=digest())
    assert refused(store, lambda w: w.record_checkpoint(fork, now=NOW)) == "checkpoint-fork"


def test_every_row_is_read_for_the_audit_whatever_the_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from ca.store import reading

    intents = [intent() for _ in range(5)]
    refs = [issue(store, one) for one in intents]
    tokens = [token() for _ in range(5)]
    devices = [Device(DeviceId(f"pump-{number}"), DEFAULT_TENANT, DeviceState.active, NOW) for number in range(5)]
    crls = [crl(number, issuer) for issuer in (ISSUER, IssuerId("other")) for number in (1, 2)]
    with store.ledger.writing() as writing:
        for one in tokens:
            writing.add_token(one)
        for device in devices:
            writing.add_device(device)
        for published in crls:
            writing.reserve_crl(published)
    changes = [revoke(store, ref) for ref in refs]
    for size in (1, 2, 5, 1000):
        monkeypatch.setattr("ca.store.reading.PAGE", size)
        monkeypatch.setattr("ca.store.reading.paged", lambda page, size=size: _original_paged(page, size=size))
        for name in ("EVERY_CERTIFICATE", "EVERY_CRL", "EVERY_TOKEN", "EVERY_DEVICE"):
            monkeypatch.setattr(f"ca.store.reading.{name}", getattr(reading, name).limit(size))
        assert [one.ref for one in store.reading.every_certificate()] == refs
        assert [one.change for one in store.reading.every_revocation()] == changes
        assert sorted(one.hash for one in store.reading.every_token()) == sorted(one.hash for one in tokens)
        assert list(store.reading.every_device()) == devices
        assert list(store.reading.every_crl()) == crls


from ca.store.reads import paged as _original_paged  # noqa: E402
