"""The second way to be superseded (P9): a delivery is confirmed by who holds the ancestor's key, and the profile's grace ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ca.errors import StoreUnavailable
from ca.model import (
    CertificateQuery,
    ConfirmRequest,
    DeviceId,
    IssueRequest,
    OnSuperseded,
    PresentedCertificate,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    Standing,
    TokenRequest,
)
from ca.rules import testimony
from ca.rules.caps import Caps
from ca.rules.message import Act
from fleetca.forms import shipped_profiles
from tests.databases import sqlite_url
from tests.fakes.signer_world import DAY, NOW, Keypair, World, der_of
from tests.refusals import refused

DEVICE = ProfileName("device")
GRACE = DAY
assert shipped_profiles()[DEVICE].grace == GRACE


def changed(world: World, **fields: Any) -> None:
    """Today's profile is another."""
    world.profiles[DEVICE] = replace(world.profiles[DEVICE], **fields)
    world.restart()


def test_P9_an_ancestor_is_superseded_when_the_grace_after_a_confirmed_delivery_ends(both: World) -> None:
    old = both.enrol()
    new = both.renew(old)
    both.clock.at += 100
    spoke = both.deliver(old, new)
    assert (spoke.ref, spoke.grace_ends_at, spoke.superseded_at) == (both.row(old).ref, NOW + 100 + GRACE, None)
    assert spoke == both.row(old)
    assert (both.row(new).delivered_at, both.row(new).first_used_at) == (NOW + 100, None)
    # Said again, it changes nothing; the grace is not prolonged.
    both.clock.at += 100
    assert both.deliver(old, new) == spoke
    assert len(both.leaves("delivery")) == 1
    # In its last second it may all it might before; in the next, nothing.
    both.clock.at = NOW + 100 + GRACE - 1
    assert both.renew(old).certificate
    assert both.superseding.end_graces() == []
    both.clock.at += 1
    refused("superseded", lambda: both.renew(old))
    refused("superseded", lambda: both.confirm(old))
    # Nothing of that waits for the signer to write it down.
    assert both.row(old).superseded_at is None
    assert both.superseding.end_graces() == [spoke.ref]
    assert both.superseding.end_graces() == []
    assert (both.row(old).superseded_at, both.row(old).revocation) == (NOW + 100 + GRACE, None)
    (told,) = both.leaves("supersede")
    assert (told["serial"], told["by"], told["at"]) == (f"{spoke.ref.serial:040x}", str(both.row(new).ref), NOW + 100 + GRACE)
    refused("superseded", lambda: both.renew(old))
    # The successor holds on, and a lost answer can still be asked for again.
    assert both.deliver(old, new).ref == spoke.ref
    assert both.renew(new).certificate


def test_P9_a_first_use_within_the_grace_supersedes_at_once(both: World) -> None:
    old = both.enrol()
    new = both.renew(old)
    both.deliver(old, new)
    both.clock.at += 60
    both.confirm(new)
    assert both.row(old).superseded_at == NOW + 60
    both.clock.at += 2 * GRACE
    assert both.superseding.end_graces() == []
    assert len(both.leaves("supersede")) == 1


def test_P9_a_first_use_after_the_grace_finds_it_ended_when_it_ended(world: World) -> None:
    old = world.enrol()
    new = world.renew(old)
    world.deliver(old, new)
    world.clock.at += 2 * GRACE
    world.confirm(new)
    assert world.row(old).superseded_at == NOW + GRACE
    assert len(world.leaves("supersede")) == 1


def test_P9_confirming_a_delivery_is_a_first_use_of_the_one_that_speaks(world: World) -> None:
    first = world.enrol()
    second = world.renew(first)
    third = world.renew(second)
    assert world.row(first).superseded_at == NOW
    world.clock.at += 5
    fourth = world.renew(third)
    world.deliver(third, fourth)
    assert world.row(second).superseded_at == NOW + 5
    assert world.row(third).superseded_at is None


def test_P9_a_second_successor_does_not_prolong_the_grace_of_the_first(world: World) -> None:
    old = world.enrol()
    lost, new = world.renew(old), world.renew(old)
    world.deliver(old, lost)
    world.clock.at += 3600
    world.deliver(old, new)
    assert (world.row(old).grace_ends_at, world.row(new).delivered_at) == (NOW + GRACE, NOW + 3600)
    assert {leaf["grace_ends_at"] for leaf in world.leaves("delivery")} == {NOW + GRACE}
    world.clock.at = NOW + GRACE
    world.superseding.end_graces()
    assert world.leaves("supersede")[0]["by"] == str(world.row(lost).ref)


@pytest.mark.parametrize("grace", [0, 60])
def test_P9_the_end_of_a_grace_revokes_where_the_profile_says_so(tmp_path: Path, grace: int) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    changed(world, on_superseded=OnSuperseded.revoke, grace=grace)
    old = world.enrol()
    new = world.renew(old)
    world.deliver(old, new)
    if grace:
        assert world.row(old).revocation is None
        world.clock.at += grace + 30
        world.superseding.end_graces()
    row = world.row(old)
    assert row.revocation is not None
    # It stopped renewing when the grace ended; the world is told when the signer says so, and never dated back.
    assert (row.superseded_at, row.revocation.reason, row.revocation.revoked_at) == (NOW + grace, Reason.superseded, world.clock.at)
    assert world.leaves("revocation")[0]["actor"] == "signer:superseded"
    assert world.row(new).revocation is None
    world.close()


def test_P9_a_grace_of_nothing_supersedes_with_the_confirmation_itself(world: World) -> None:
    changed(world, grace=0)
    old = world.enrol()
    new = world.renew(old)
    spoke = world.deliver(old, new)
    assert spoke.superseded_at == spoke.grace_ends_at == NOW
    refused("superseded", lambda: world.renew(old))
    # An answer that was lost on its way is given again.
    assert world.deliver(old, new) == spoke


DELIVERIES: list[Any] = [
    pytest.param(lambda w, old, new: (old, w.enrol("pump-2")), "not-your-successor", id="another device's certificate"),
    pytest.param(lambda w, old, new: (w.enrol("pump-2"), new), "not-your-successor", id="said by another device"),
    pytest.param(lambda w, old, new: (new, new), "not-your-successor", id="said by the successor of itself"),
    pytest.param(lambda w, old, new: (old, w.renew(new)), "not-your-successor", id="the successor's successor"),
    pytest.param(lambda w, old, new: (w.revoke_certificate(new) and old, new), "successor-ended", id="a revoked successor"),
    pytest.param(lambda w, old, new: (w.revoke_certificate(old) and old, new), "certificate-revoked", id="said by a revoked one"),
    pytest.param(lambda w, old, new: (w.revoke_device("pump-17") and old, new), "certificate-revoked", id="of a revoked device"),
    pytest.param(
        lambda w, old, new: (setattr(w.clock, "at", NOW + 8 * DAY) or old, new), "certificate-expired", id="said by an expired one"
    ),
    pytest.param(lambda w, old, new: (setattr(w.clock, "at", NOW - 3) or old, new), "clock-set-back", id="by a clock that went back"),
]


@pytest.mark.parametrize(("given", "code"), DELIVERIES)
@pytest.mark.parametrize("by", ["presented", "message"])
def test_P9_a_delivery_is_not_confirmed(world: World, given: Callable[..., Any], code: str, by: str) -> None:
    old = world.enrol()
    new = world.renew(old)
    speaks, named = given(world, old, new)
    target = world.row(named).ref
    evidence: Any = PresentedCertificate(speaks.certificate)
    if by == "message":
        evidence = world.message(speaks, Act.confirm, target=target)
    refused(code, lambda: world.confirming.confirm(ConfirmRequest(evidence, target), world.peer(Role.enroll)))
    assert world.leaves("delivery") == []
    assert world.row(new).delivered_at is None


def test_P9_a_message_confirms_what_it_names_only(world: World) -> None:
    old = world.enrol()
    new, twin = world.renew(old), world.renew(old)
    refs = [world.row(pair).ref for pair in (new, twin)]

    def confirm(evidence: Any, successor: Any) -> Any:
        return world.confirming.confirm(ConfirmRequest(evidence, successor), world.peer(Role.enroll))

    plain, named = world.message(old, Act.confirm), world.message(old, Act.confirm, target=refs[0])
    refused("message-for-another-act", lambda: confirm(plain, refs[0]))
    refused("message-for-another-act", lambda: confirm(named, None))
    refused("message-for-another-act", lambda: confirm(named, refs[1]))
    assert confirm(named, refs[0]).grace_ends_at == NOW + GRACE
    assert world.row(twin).delivered_at is None


def test_P2_the_caps_of_the_web_process_bind_the_deliveries_that_it_says_it_saw(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path), caps={Role.enroll: Caps(devices=("pump-*",))})
    valve = world.enrol("valve-1")
    new = Keypair()
    csr = new.csr()
    new.certificate = der_of(world.issue(IssueRequest(csr, world.message(valve, Act.renew, csr=csr))))
    refused("over-the-cap", lambda: world.deliver(valve, new))
    message = world.message(valve, Act.confirm, target=world.row(new).ref)
    assert world.confirming.confirm(ConfirmRequest(message, world.row(new).ref), world.peer(Role.enroll)).grace_ends_at
    world.close()


def test_P9_a_superseded_operator_gives_no_orders(world: World) -> None:
    ada, victim = world.operator(), world.enrol()
    world.clock.at += 50 * DAY
    new = Keypair()
    csr = new.csr()
    new.certificate = der_of(world.issue(IssueRequest(csr, world.message(ada, Act.renew, csr=csr))))
    ref, target = world.row(new).ref, world.row(victim).ref
    refused("not-by-presenting", lambda: world.deliver(ada, new))
    world.confirming.confirm(ConfirmRequest(world.message(ada, Act.confirm, target=ref), ref), world.peer(Role.enroll))

    def token() -> Any:
        said = {"device": DeviceId("pump-1"), "profile": DEVICE, "lifetime": 60}
        return world.tokens.create(TokenRequest(world.message(ada, Act.create_token, **said), names=(), **said), world.peer(Role.enroll))

    def issue() -> Any:
        csr = Keypair().csr()
        wanted = {"device": DeviceId("pump-2"), "profile": DEVICE}
        return world.issue(IssueRequest(csr, world.message(ada, Act.issue, csr=csr, **wanted), **wanted))

    def revoke() -> Any:
        evidence = world.message(ada, Act.revoke, reason=Reason.keyCompromise, device=DeviceId("pump-17"))
        return world.revoke(RevokeRequest(evidence, Reason.keyCompromise, device=DeviceId("pump-17")), Role.enroll)

    assert token()
    assert issue()
    world.clock.at += GRACE
    for order in (token, issue, revoke):
        refused("superseded", order)
    assert world.row(victim).ref == target
    assert world.row(victim).revocation is None


def test_the_search_finds_it_as_superseded_from_the_second_on_at_which_it_is(both: World) -> None:
    old = both.enrol()
    new = both.renew(old)
    both.deliver(old, new)

    def found(state: Standing) -> list[Any]:
        return [row.ref for row in both.store.reading.search_certificates(CertificateQuery(state=state), now=both.clock.at)[0]]

    both.clock.at += GRACE - 1
    assert (found(Standing.superseded), len(found(Standing.issued))) == ([], 2)
    both.clock.at += 1
    for _ in range(2):
        assert found(Standing.superseded) == [both.row(old).ref]
        assert found(Standing.issued) == [both.row(new).ref]
        both.superseding.end_graces()  # writes it down, which changes nothing


def test_many_graces_end_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from ca import supersede

    monkeypatch.setattr(supersede, "BATCH", 2)
    olds = [world.enrol(f"pump-{n}") for n in range(3)]
    for old in olds:
        world.deliver(old, world.renew(old))
        world.clock.at += 1
    world.clock.at += GRACE
    assert [len(world.superseding.end_graces()) for _ in range(3)] == [2, 1, 0]
    assert [world.row(old).superseded_at for old in olds] == [NOW + n + GRACE for n in range(3)]


def test_a_delivery_is_in_the_journal_even_when_that_must_wait(world: World) -> None:
    old = world.enrol()
    new = world.renew(old)
    world.witness.settle()
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    world.deliver(old, new)
    world.clock.at += GRACE
    world.superseding.end_graces()
    world.journal.broken = None
    world.witness.settle()
    told = [testimony.read(octets) for octets in world.journal.records()]
    assert testimony.Delivered(world.row(old).ref, world.row(new).ref, NOW + GRACE, NOW) in told
    assert testimony.Superseded(world.row(old).ref, world.row(new).ref, NOW + GRACE) in told


def test_P9_a_clock_that_was_set_back_ends_no_grace(world: World) -> None:
    old = world.enrol()
    world.deliver(old, world.renew(old))
    world.clock.at = NOW - 3
    refused("clock-set-back", world.superseding.end_graces)
