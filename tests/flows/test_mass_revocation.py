"""Thousands of certificates revoked by a query: in few requests, exactly those that were confirmed, taken up again where it stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ca.errors import Denied, Malformed, NotFound, Unacceptable, Unavailable
from ca.model import (
    DEFAULT_TENANT,
    CertificateQuery,
    CertificateRef,
    Device,
    DeviceId,
    DeviceState,
    IssueRequest,
    LocalEvidence,
    PresentedCertificate,
    Reason,
    RevokeRequest,
    Role,
    Serial,
    TokenEvidence,
)
from ca.rules import testimony
from ca.rules.grant import MOST_AT_ONCE
from ca.rules.message import Act
from ca.signer.client import SignerClient
from ca.signer.desk import Desk
from fleetca.cli import output, reach, revoke_query
from tests.fakes.certificates import DAY, NOW
from tests.fakes.checker import InPlace
from tests.fakes.intents import digest, intent, ref_of
from tests.fakes.signer_world import ISSUING, Keypair, World
from tests.running import eventually

MANY = 3000


def fill(world: World, count: int, *, name: str = "pump") -> list[CertificateRef]:
    """Certificates on record, past every rule: their rows are real, their octets are not."""
    made = [intent(f"{name}-{number:05d}", not_before=NOW, not_after=NOW + 30 * DAY) for number in range(count)]
    with world.store.ledger.writing() as tx:
        for one in made:
            tx.add_device(Device(one.grant.device, DEFAULT_TENANT, DeviceState.active, NOW))
            tx.reserve(one, tenant=DEFAULT_TENANT, revocable=True, leaf=digest())
        tx.record_issued([(ref_of(one), one.draft.spki_sha256) for one in made], now=NOW)
    return [ref_of(one) for one in made]


def socket_of(world: World) -> Path:
    return world.folder / "run" / "signer.sock"


@contextmanager
def served(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignerClient]:
    """A signer that listens, where the command line finds it."""
    server = world.server(socket_of(world), users={os.getuid(): frozenset(Role)})
    server.start()
    client = SignerClient(socket_of(world), Role.operator)

    @contextmanager
    def there(_: str) -> Iterator[tuple[Any, SignerClient]]:
        yield SimpleNamespace(crl=SimpleNamespace(nudge=10)), client

    monkeypatch.setattr(reach, "signer", there)
    monkeypatch.setattr(reach, "now", world.clock.now)
    try:
        yield client
    finally:
        client.close()
        server.stop()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command says to programs."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(output, "result", lambda document, *_, **__: found.append(document))
    return found


def run(*query: str, plan: bool = False, confirm: int | None = None, wave: int = 1000) -> int:
    words = query or ("subject=CN=pump-*",)
    return revoke_query.run("", words, reason="superseded", plan=plan, wave=wave, pause=0, confirm=confirm, since=None, as_json=True)


def issued(world: World) -> int:
    return len({row.ref for row in world.store.reading.every_certificate() if row.revocation is None})


def test_thousands_are_planned_revoked_and_on_record_while_others_are_issued(
    world: World, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    refs = fill(world, MANY)
    with served(world, monkeypatch):
        assert run(plan=True) == 0
        assert (told[0]["certificates"], told[0]["devices"], told[0]["waves"]) == (MANY, MANY, 3)
        assert told[0]["go_dark"] == [f"pump-{number:05d}" for number in range(20)]
        assert issued(world) == MANY, "a plan changes nothing"
        with pytest.raises(Unacceptable, match="--confirm says 2999"):
            run(confirm=MANY - 1)

        fresh: list[int] = []
        stop = threading.Event()

        def go_on() -> None:
            asker = SignerClient(socket_of(world), Role.enroll)
            while not stop.is_set():
                text = world.token(f"new-{len(fresh)}").text
                fresh.append(asker.issue(IssueRequest(Keypair().csr(), TokenEvidence(text))).certificate.ref.serial)
            asker.close()

        def note(_: str) -> None:
            """Between two waves somebody is issued a certificate."""
            had = len(fresh)
            eventually(lambda: len(fresh) > had)

        monkeypatch.setattr(output, "note", note)
        beside = threading.Thread(target=go_on)
        beside.start()
        try:
            assert run(confirm=MANY) == 0
        finally:
            stop.set()
            beside.join()
        assert len(fresh) >= 3, "issuing went on"
        assert (told[-1]["revoked"], told[-1]["failed"]) == (MANY, [])
        monkeypatch.setattr(output, "note", lambda _: None)
        assert run(plan=True) == 0
        assert told[-1]["certificates"] == 0
    changes = world.store.reading.changes_since(0, MANY + 9)
    assert sorted(one.change for one in changes) == list(range(1, MANY + 1)), "no number is missing"
    assert {one.ref for one in changes} == set(refs)
    assert {one.reason for one in changes} == {Reason.superseded}
    world.witness.settle()
    in_journal = [one for one in map(testimony.read, world.journal.records()) if isinstance(one, testimony.Changed)]
    assert {one.revocation.ref for one in in_journal} == set(refs)
    assert all(one.by.targets == (one.revocation.ref,) for one in in_journal), "each record names its own"


def test_a_run_that_was_cut_off_is_begun_again_and_finds_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    fill(world, 3 * MOST_AT_ONCE)
    with served(world, monkeypatch) as client:
        asked = client.revoke
        turns: list[int] = []

        def dies(request: RevokeRequest) -> Any:
            turns.append(1)
            if len(turns) > 1:
                raise KeyboardInterrupt
            return asked(request)

        monkeypatch.setattr(client, "revoke", dies)
        with pytest.raises(KeyboardInterrupt):
            run(confirm=3 * MOST_AT_ONCE, wave=MOST_AT_ONCE)
        monkeypatch.setattr(client, "revoke", asked)
        assert run(plan=True) == 0
        assert told[-1]["certificates"] == 2 * MOST_AT_ONCE
        assert run(confirm=2 * MOST_AT_ONCE) == 0
    assert issued(world) == 0
    assert world.store.reading.change_number() == 3 * MOST_AT_ONCE, "nobody twice"


def test_one_that_cannot_be_revoked_holds_up_none_of_the_others_and_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    refs = fill(world, 300)
    with served(world, monkeypatch) as client:
        rows, _ = client.outlines(CertificateQuery(limit=1000))
        monkeypatch.setattr(revoke_query, "_found", lambda *_: iter(rows))
        # Between the look and the act somebody else was here.
        world.revoke(RevokeRequest(world.local(Role.operator), Reason.cessationOfOperation, target=refs[7]))
        assert run(confirm=300) == output.FINDINGS
    assert told[-1]["revoked"] == 299
    assert told[-1]["failed"] == [(str(refs[7]), "already-revoked")]
    assert issued(world) == 0


def test_a_signer_that_is_away_for_a_moment_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    fill(world, 10)
    monkeypatch.setattr(revoke_query, "Event", lambda: SimpleNamespace(wait=lambda _: None))
    with served(world, monkeypatch) as client:
        asked, away = client.revoke, [1, 2]

        def sometimes(request: RevokeRequest) -> Any:
            if away:
                away.pop()
                raise Unavailable("signer-down", "The signer does not answer.")
            return asked(request)

        monkeypatch.setattr(client, "revoke", sometimes)
        assert run(confirm=10) == 0
    assert told[-1]["revoked"] == 10


def several(world: World, refs: Sequence[CertificateRef], **changes: Any) -> RevokeRequest:
    fields: dict[str, Any] = {"evidence": world.local(Role.operator), "reason": Reason.superseded}
    return RevokeRequest(**{**fields, **changes}, target=refs[0], others=tuple(refs[1:]))


def test_several_in_one_request_are_all_of_them_or_none(world: World) -> None:
    refs = fill(world, 5)
    absent = CertificateRef(ISSUING, Serial(77))
    with pytest.raises(NotFound):
        world.revoke(several(world, [*refs, absent]))
    assert issued(world) == 5
    assert world.store.reading.change_number() == 0
    assert [one.ref for one in world.revoke(several(world, refs))] == refs
    again = world.revoke(several(world, refs))
    assert [one.change for one in again] == [1, 2, 3, 4, 5], "repeated, it finds what it made"


def test_P2_only_an_operator_on_this_host_names_several(world: World) -> None:
    refs = fill(world, 3)
    pair = world.enrol("real")
    ada = world.operator()
    own = world.row(pair).ref
    signed = world.message(ada, Act.revoke, reason=Reason.superseded, target=own)
    for evidence, role in ((PresentedCertificate(pair.certificate), Role.enroll), (signed, Role.enroll)):
        with pytest.raises(Denied):
            world.revoke(several(world, [own, *refs], evidence=evidence), role)
    with pytest.raises(Denied):
        world.revoke(several(world, refs, evidence=LocalEvidence(Role.enroll, 1)), Role.enroll)
    with pytest.raises(Denied):
        world.revoke(RevokeRequest(world.local(Role.operator), Reason.superseded, device=DeviceId("pump-00000"), others=tuple(refs)))
    assert issued(world) == 3 + 2


def test_a_request_has_an_end_and_names_nobody_twice(world: World) -> None:
    refs = fill(world, 2)
    many = [CertificateRef(ISSUING, Serial(number)) for number in range(1, MOST_AT_ONCE + 2)]
    for wrong in (many, [refs[0], refs[1], refs[0]]):
        with pytest.raises(Malformed):
            world.revoke(several(world, wrong))
    assert issued(world) == 2


def test_others_wait_for_one_request_that_revokes_many_and_not_for_all(world: World) -> None:
    refs = fill(world, 9)
    turns: list[list[int]] = []

    class Counting:
        def revoke_prepared(self, batch: Sequence[Any]) -> list[Any]:
            turns.append([1 + len(one.request.others) for one in batch])
            return world.revoking.revoke_prepared(batch)

    counting: Any = Counting()
    desk = Desk(issuing=world.issuing, revoking=counting, witness=world.witness, checker=InPlace())
    answers: list[Any] = []
    for some in (refs[:1], refs[1:2], refs[2:5], refs[5:8], refs[8:]):
        desk.submit(world.revoking.prepare(several(world, some), world.peer(Role.operator)), answers.append)
    desk.start()
    desk.stop()
    assert turns == [[1, 1, 3], [3], [1]]
    assert [len(one) for one in answers] == [1, 1, 3, 3, 1]
    assert issued(world) == 0
