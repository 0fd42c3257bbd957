"""A database that was set back to an older copy must not answer for what it forgot (R12): the signer refuses to start until recovery ran."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ca.errors import StoreUnavailable
from ca.model import DeviceId, LocalEvidence, Peer, ProfileName, Role, TokenRequest
from ca.store.engine import open_store
from ca.system import SystemClock
from fleetca import forms, signing, wiring
from tests.running import make_deployment


def no_failpoint(name: str) -> None:
    """Nothing breaks here."""


@pytest.mark.req("REQ-KEY-092")
def test_R12_the_signer_does_not_start_on_a_database_older_than_the_published_record(tmp_path: Path) -> None:
    settings = forms.read_settings(make_deployment(tmp_path / "here"))
    database = settings.file.parent / "state/fleetca.db"

    def sequence() -> None:
        store = open_store(forms.store_url(settings))
        sequencer = wiring._sequencer(settings, store, clock=SystemClock(), holder="test", points=no_failpoint)
        sequencer.run()
        sequencer.release()
        store.close()

    sequence()
    older = tmp_path / "older.db"
    shutil.copy(database, older)
    peer = Peer(Role.operator, os.getuid())
    with signing.signer_parts(settings) as parts:
        parts.verbs.tokens.create(
            TokenRequest(LocalEvidence(peer.role, peer.uid), DeviceId("pump-1"), ProfileName("device"), (), 600), peer
        )
    sequence()

    shutil.copy(older, database)
    with pytest.raises(StoreUnavailable) as refused, signing.signer_parts(settings):
        pass
    assert refused.value.code == "store-set-back"
    assert "fleetca recover" in refused.value.fix

    with signing.recovery(settings) as (recovery, _):
        recovery.recover()
    assert signing.adopted_leaves(settings) == 1
    with signing.signer_parts(settings):
        pass
