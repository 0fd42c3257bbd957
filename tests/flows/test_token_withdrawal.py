"""A token that nobody used can be taken back: alone, with all of its device, or with the device itself; and it stays so after a lost database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ca.errors import NotFound, StoreUnavailable
from ca.model import DeviceId, IssueRequest, LocalEvidence, Role, TokenEvidence, TokenWithdrawal
from ca.rules import testimony
from tests.databases import sqlite_url
from tests.fakes.signer_world import NOW, Keypair, World
from tests.refusals import refused


def withdraw(world: World, device: str = "pump-17", beginning: str = "") -> Any:
    asked = TokenWithdrawal(world.local(Role.operator), DeviceId(device), beginning)
    return world.tokens.revoke(asked, world.peer(Role.operator))


def enrol(world: World, text: str) -> Any:
    return world.issue(IssueRequest(Keypair().csr(), TokenEvidence(text)))


def test_a_withdrawn_token_enrols_nobody_and_the_record_says_who_withdrew_it(both: World) -> None:
    first, second, other = both.token(), both.token(), both.token("pump-2")
    both.clock.at += 5
    (gone,) = withdraw(both, beginning=first.token.hash.hex()[:10])
    assert (gone.hash, gone.revoked_at) == (first.token.hash, NOW + 5)
    refused("token-revoked", lambda: enrol(both, first.text))
    assert enrol(both, second.text).certificate.device == "pump-17"
    (told,) = both.leaves("token-revoked")
    assert (told["hash"], told["device"], told["at"]) == (first.token.hash.hex(), "pump-17", NOW + 5)
    assert told["actor"].startswith("role:operator@")
    # What was used, withdrawn or expired is not outstanding any more.
    refused("no-such-token", lambda: withdraw(both))
    both.clock.at += 3600
    assert isinstance(refused("no-such-token", lambda: withdraw(both, "pump-2")), NotFound)
    refused("token-expired", lambda: enrol(both, other.text))


def test_all_tokens_of_a_device_are_withdrawn_at_once(both: World) -> None:
    made = [both.token() for _ in range(3)]
    assert {one.hash for one in withdraw(both)} == {one.token.hash for one in made}
    for one in made:
        refused("token-revoked", lambda one=one: enrol(both, one.text))  # type: ignore[misc]


def test_revoking_a_device_withdraws_its_unused_tokens(both: World) -> None:
    both.enrol()
    waiting = both.token()
    both.revoke_device("pump-17")
    row = both.store.reading.find_token(waiting.token.hash)
    assert row is not None
    assert row.revoked_at == NOW
    assert [leaf["hash"] for leaf in both.leaves("token-revoked")] == [waiting.token.hash.hex()]
    refused("token-revoked", lambda: enrol(both, waiting.text))


def test_a_device_that_has_only_a_token_is_told_apart_from_none(world: World) -> None:
    world.token("pump-9")
    told = refused("no-such-device", lambda: world.revoke_device("pump-9"))
    assert "has not enrolled" in told.why
    assert told.fix.endswith("fleetca token revoke pump-9")
    assert refused("no-such-device", lambda: world.revoke_device("pump-10")).fix == ""
    assert world.leaves("token-revoked") == []


@pytest.mark.parametrize("role", [Role.enroll, Role.status, Role.publisher])
def test_P2_only_an_operator_of_this_machine_withdraws_tokens(world: World, role: Role) -> None:
    world.token()
    for evidence in (world.local(role), LocalEvidence(Role.operator, 0)):
        refused(
            "not-allowed",
            lambda evidence=evidence: world.tokens.revoke(TokenWithdrawal(evidence, DeviceId("pump-17")), world.peer(role)),  # type: ignore[misc]
        )
    assert withdraw(world)


def test_a_withdrawal_is_in_the_journal_and_recovery_withdraws_again(tmp_path: Path) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    made, kept = world.token(), world.token("pump-2")
    world.journal.broken = StoreUnavailable("journal-failed", "The journal's disk is full.")
    withdraw(world)  # in force though the journal must wait
    world.journal.broken = None
    world.witness.settle()
    assert any(isinstance(testimony.read(octets), testimony.TokenRevoked) for octets in world.journal.records())
    lost = world.lost()
    for _ in range(2):
        lost.recovery.recover()
        assert [leaf["at"] for leaf in lost.leaves("token-revoked")] == [NOW]
    refused("token-revoked", lambda: enrol(lost, made.text))
    assert enrol(lost, kept.text)
    lost.close()
