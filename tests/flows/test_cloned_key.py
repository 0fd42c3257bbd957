"""Whoever comes second is seen (P9): of all renewals that were asked for with one key, the one that is used first stays.

A thief who copied a device's key renews beside the device. Here stands what each of the two hears, in every order, what goes on record, and that
a device which only lost an answer is never stranded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.der.csr import read_csr
from ca.errors import Contested, FleetcaError, StoreUnavailable
from ca.issue import Proven
from ca.model import (
    ConfirmRequest,
    DeviceId,
    IssueRequest,
    OnSuperseded,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    TokenRequest,
)
from ca.rules import testimony
from ca.rules.message import Act
from tests.databases import sqlite_url
from tests.fakes.signer_world import DAY, NOW, Keypair, World, der_of
from tests.refusals import refused

DEVICE = ProfileName("device")


def renew(world: World, pair: Keypair) -> Callable[[], Any]:
    return lambda: world.renew(pair)


def confirm(world: World, pair: Keypair) -> Callable[[], Any]:
    return lambda: world.confirm(pair)


def message(world: World, pair: Keypair) -> Callable[[], Any]:
    csr = Keypair().csr()
    return lambda: world.issue(IssueRequest(csr, world.message(pair, Act.renew, csr=csr)))


SPEAK = [pytest.param(renew, id="renews"), pytest.param(confirm, id="confirms"), pytest.param(message, id="signs a message")]


@pytest.mark.parametrize("speaks", SPEAK)
def test_P9_a_thief_who_comes_second_is_refused_and_seen(both: World, speaks: Callable[..., Any]) -> None:
    copied = both.enrol()
    mine, stolen = both.renew(copied), both.renew(copied)
    both.confirm(mine)
    both.clock.at += 60
    told = refused("sibling-used", speaks(both, stolen))
    assert isinstance(told, Contested)
    assert str(both.row(mine).ref) in told.why
    assert str(both.row(stolen).ref) in told.why
    assert "copied" in told.fix
    assert both.row(stolen).clone_seen_at == NOW + 60
    (seen,) = both.leaves("clone")
    assert (seen["serial"], seen["used"], seen["device"], seen["at"]) == (
        f"{both.row(stolen).ref.serial:040x}",
        str(both.row(mine).ref),
        "pump-17",
        NOW + 60,
    )
    # The device goes on.
    assert both.renew(mine).certificate


@pytest.mark.parametrize("speaks", SPEAK)
def test_P9_a_device_that_comes_second_is_refused_and_the_thief_is_seen(both: World, speaks: Callable[..., Any]) -> None:
    copied = both.enrol()
    mine, stolen = both.renew(copied), both.renew(copied)
    both.renew(stolen)
    assert refused("sibling-used", speaks(both, mine)).why
    assert [leaf["used"] for leaf in both.leaves("clone")] == [str(both.row(stolen).ref)]


@pytest.mark.parametrize("speaks", SPEAK)
def test_P9_a_device_that_still_has_what_the_thief_copied_is_heard_as_well(both: World, speaks: Callable[..., Any]) -> None:
    copied = both.enrol()
    stolen = both.renew(copied)
    both.confirm(stolen)
    told = refused("superseded", speaks(both, copied))
    assert isinstance(told, Contested)
    assert str(both.row(stolen).ref) in told.why
    assert [leaf["serial"] for leaf in both.leaves("clone")] == [f"{both.row(copied).ref.serial:040x}"]


def test_P9_a_clone_is_told_once_on_the_record_however_often_it_asks(world: World) -> None:
    copied = world.enrol()
    mine, stolen = world.renew(copied), world.renew(copied)
    world.confirm(mine)
    for _ in range(3):
        world.clock.at += 1
        refused("sibling-used", lambda: world.confirm(stolen))
        refused("sibling-used", lambda: world.renew(stolen))
    assert len(world.leaves("clone")) == 1
    assert world.row(stolen).clone_seen_at == NOW + 1
    assert [one.ref for one in world.store.reading.clones(since=NOW, limit=9)] == [world.row(stolen).ref]
    assert world.store.reading.clones(since=NOW + 2, limit=9) == []


def test_P9_the_profile_says_whether_the_clone_is_revoked_and_it_is_named_all_the_same(world: World) -> None:
    world.profiles[DEVICE] = replace(world.profiles[DEVICE], on_superseded=OnSuperseded.revoke)
    world.restart()
    copied = world.enrol()
    mine, stolen = world.renew(copied), world.renew(copied)
    world.confirm(mine)
    revocation = world.row(stolen).revocation
    assert revocation is not None
    assert revocation.reason is Reason.superseded
    refused("sibling-used", lambda: world.renew(stolen))
    assert len(world.leaves("clone")) == 1
    assert world.row(mine).revocation is None


def test_P9_what_an_operator_revoked_is_called_revoked_and_the_clone_is_seen(world: World) -> None:
    copied = world.enrol()
    mine, stolen = world.renew(copied), world.renew(copied)
    world.confirm(mine)
    world.revoke_certificate(stolen)
    told = refused("certificate-revoked", lambda: world.renew(stolen))
    assert isinstance(told, Contested)
    assert len(world.leaves("clone")) == 1


def test_P9_a_copied_operator_key_gives_no_second_order(world: World) -> None:
    ada = world.operator()
    world.clock.at += 50 * DAY

    def successor() -> Keypair:
        new = Keypair()
        csr = new.csr()
        new.certificate = der_of(world.issue(IssueRequest(csr, world.message(ada, Act.renew, csr=csr))))
        return new

    mine, stolen = successor(), successor()
    world.confirming.confirm(ConfirmRequest(world.message(mine, Act.confirm)), world.peer(Role.enroll))
    said: dict[str, Any] = {"device": DeviceId("pump-1"), "profile": DEVICE, "lifetime": 60}
    asked = TokenRequest(world.message(stolen, Act.create_token, **said), names=(), **said)
    refused("sibling-used", lambda: world.tokens.create(asked, world.peer(Role.enroll)))
    evidence = world.message(stolen, Act.revoke, reason=Reason.keyCompromise, device=DeviceId("pump-17"))
    refused("sibling-used", lambda: world.revoke(RevokeRequest(evidence, Reason.keyCompromise, device=DeviceId("pump-17")), Role.enroll))
    assert [leaf["device"] for leaf in world.leaves("clone")] == ["fleetca:operator:ada"]


# ---- Nobody is stranded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finally_used", [0, 1])
@pytest.mark.parametrize("delivered", [None, 0, 1], ids=["nothing said", "the first delivered", "the second delivered"])
@pytest.mark.parametrize("later", [0, 2 * DAY], ids=["at once", "after every grace"])
def test_P9_a_device_that_lost_an_answer_goes_on_with_whichever_it_uses(
    both: World, finally_used: int, delivered: int | None, later: int
) -> None:
    old = both.enrol()
    # The first answer was lost; it asked again with a new key, and then got the first one after all: its very request, sent again.
    first = Keypair()
    asked = IssueRequest(first.csr(), PresentedCertificate(old.certificate))
    first.certificate = der_of(both.issue(asked))
    pairs = [first, both.renew(old)]
    assert der_of(both.issue(asked)) == first.certificate
    if delivered is not None:
        both.deliver(old, pairs[delivered])
    both.clock.at += later
    both.superseding.end_graces()
    used, left = pairs[finally_used], pairs[1 - finally_used]
    assert both.confirm(used).superseded_at is None
    assert both.confirm(used).superseded_at is None
    assert both.row(left).superseded_at == both.clock.at
    assert both.leaves("clone") == []
    # Said again, what was said before is granted as before.
    if delivered is not None and not later:
        assert both.deliver(old, pairs[delivered]).ref == both.row(old).ref
    assert both.renew(both.renew(used)).certificate


def test_P9_a_request_sent_again_gets_its_certificate_though_a_sibling_has_its_place(world: World) -> None:
    old, first = world.enrol(), Keypair()
    asked = IssueRequest(first.csr(), PresentedCertificate(old.certificate))
    first.certificate = der_of(world.issue(asked))
    world.confirm(world.renew(old))
    again = world.issue(asked)
    assert again.repeated
    assert der_of(again) == first.certificate
    assert again.certificate.superseded_at is not None


def test_P9_a_grace_that_ended_is_no_clone(world: World) -> None:
    old = world.enrol()
    world.deliver(old, world.renew(old))
    world.clock.at += DAY
    assert not isinstance(refused("superseded", lambda: world.renew(old)), Contested)
    assert world.leaves("clone") == []


def test_P9_two_enrolments_of_one_device_are_no_clones(world: World) -> None:
    """Each had an operator's token."""
    one, other = world.enrol(), world.enrol()
    world.confirm(one)
    assert world.confirm(other).superseded_at is None


def test_P9_one_that_is_being_signed_is_displaced_before_anybody_has_it(world: World) -> None:
    """The sibling's intent is on record and its key is asked while the other is used."""
    old = world.enrol()
    used, late = world.renew(old), Keypair()
    asked = IssueRequest(late.csr(), PresentedCertificate(old.certificate))
    proven = Proven(world.issuing.prepare(asked, world.peer(Role.enroll)), read_csr(asked.csr))
    _, decided = world.issuing.commit([proven])
    world.confirm(used)
    ((issued,), _) = world.issuing.commit((), world.issuing.checked(world.issuing.sign(decided), [None]))
    assert not isinstance(issued, FleetcaError)
    late.certificate = der_of(issued)
    assert world.row(late).superseded_at == NOW
    refused("sibling-used", lambda: world.confirm(late))


# ---- The second witness ---------------------------------------------------------------------------------------------


def test_P9_a_clone_is_in_the_journal_and_recovery_tells_it_again(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    copied = world.enrol()
    mine, stolen = world.renew(copied), world.renew(copied)
    world.confirm(mine)
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    refused("sibling-used", lambda: world.renew(stolen))
    world.journal.broken = None
    world.witness.settle()
    told = [testimony.read(octets) for octets in world.journal.records()]
    assert sum(isinstance(one, testimony.CloneSeen) for one in told) == 1
    # The last word of a first use is the use itself: a journal that ends before it makes the next use the first again.
    kinds = [type(one) for one in told]
    assert kinds.index(testimony.Superseded) < max(index for index, kind in enumerate(kinds) if kind is testimony.FirstUsed)
    before = (world.row(stolen).clone_seen_at, world.row(stolen).superseded_at, world.row(mine).first_used_at)
    lost = world.lost()
    lost.recovery.recover()
    assert (lost.row(stolen).clone_seen_at, lost.row(stolen).superseded_at, lost.row(mine).first_used_at) == before
    assert len(lost.leaves("clone")) == 1
    lost.recovery.recover()
    assert len(lost.leaves("clone")) == 1
    refused("sibling-used", lambda: lost.renew(stolen))
    lost.close()
