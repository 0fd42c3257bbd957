"""The journal is the second witness of the key inventory too: a restored or lost database takes no compromised key for a good one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from ca.errors import Denied
from ca.key_life import KeyLife
from ca.model import DEFAULT_TENANT, Digest, KeyName, KeyOrigin, KeyPurpose, KeyRecord, KeyState, Protection
from tests.databases import sqlite_url
from tests.fakes.signer_world import DAY, DEPLOYMENT, NOW, World

STATES = [KeyState.compromised, KeyState.suspended]


def _life(world: World) -> KeyLife:
    return KeyLife(
        ledger=world.store.ledger,
        find=world.store.reading.find_by_der_digest,
        tenant=DEFAULT_TENANT,
        deployment=DEPLOYMENT,
        clock=world.clock,
        witness=world.witness,
    )


def _record(world: World) -> KeyRecord:
    return KeyRecord(
        spki_sha256=Digest(hashlib.sha256(world.key.spki).digest()),
        tenant=DEFAULT_TENANT,
        name=KeyName("issuing"),
        purpose=KeyPurpose.issuing_ca,
        origin=KeyOrigin.process,
        algorithm=world.key.algorithm,
        spki=world.key.spki,
        store="sealed",
        place="sealed:keys/issuing.key",
        protection=Protection.file,
        owner="ops",
        state=KeyState.active,
        created=NOW,
        period_ends=NOW + DAY,
        changed=NOW,
    )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("lost", ["all of it", "since a backup"])
def test_a_key_that_must_not_sign_does_not_after_the_database_was_lost(tmp_path: Path, state: KeyState, lost: str) -> None:
    world = World(tmp_path, sqlite_url(tmp_path))
    record = _record(world)
    _life(world).enter([record], actor="signer")
    world.store.close()
    shutil.copy(tmp_path / "fleetca.db", tmp_path / "backup.db")
    world._open()
    world.clock.at += 60
    _life(world).change(KeyName("issuing"), state, reason="found in a bag", actor="ada")
    before = (world.store.reading.key_records(), world.store.reading.key_changes(record.spki_sha256), world.leaves("key-state"))
    assert len(before[2]) == 3
    world.store.close()

    (tmp_path / "fleetca.db").unlink()
    if lost == "all of it":
        sqlite_url(tmp_path)
    else:
        shutil.copy(tmp_path / "backup.db", tmp_path / "fleetca.db")
    world._open()
    for _ in range(2):
        world.recovery.recover()
        after = (world.store.reading.key_records(), world.store.reading.key_changes(record.spki_sha256), world.leaves("key-state"))
        assert after == before
    with pytest.raises(Denied) as caught:
        _life(world).enter([record], actor="signer")
    assert caught.value.code == "key-not-active"
    world.close()
