"""A deployment with a past: ceremony, devices, a revocation, CRLs and a published record, made by the real parts in one process."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ca.log.tiles import TileDirectory
from ca.model import (
    DeviceDescription,
    DeviceId,
    IssueRequest,
    IssuerId,
    LocalEvidence,
    OperatorName,
    Peer,
    ProfileName,
    Reason,
    RevokeRequest,
    Role,
    RootOfTrust,
    TokenEvidence,
    TokenRequest,
)
from ca.sequence import Sequencer
from ca.sign_crl import lease_of
from ca.store.engine import open_store
from ca.system import SystemChance, SystemClock
from fleetca import ceremonies, deployment, forms, importing, signing
from fleetca.wiring import open_log_key
from tests.fakes.ceremony import apart
from tests.fakes.record import no_failpoint
from tests.fakes.signer_world import Keypair

CLOCK = SystemClock()
ISSUING = IssuerId("issuing")
PASSPHRASE = b"correct horse battery staple"


def period() -> str:
    """Days around now: also at midnight all that was done lies within."""
    today = datetime.fromtimestamp(CLOCK.now(), UTC)
    return f"{today - timedelta(days=2):%Y-%m-%d}..{today + timedelta(days=2):%Y-%m-%d}"


class Office:
    """Where a deployment is, and what was done with it."""

    def __init__(self, folder: Path, *, devices: int = 3) -> None:
        self.made = deployment.create(folder, deployment.Wanted(host="pki.example"), chance=SystemChance())
        ceremonies.run(
            self.made.sheet, out=self.made.outputs, passphrase=lambda: PASSPHRASE, confirm=lambda _: True, clock=CLOCK, chance=SystemChance(), room=apart
        )  # fmt: skip
        importing.import_ceremony(forms.read_settings(self.made.settings), self.made.outputs, clock=CLOCK, chance=SystemChance())
        self.settings = forms.read_settings(self.made.settings)
        with signing.signer_parts(self.settings) as parts:
            parts.recovery.finish()
            parts.retiring.enter()
            parts.life.enter(parts.records, actor="signer")
            parts.verbs.issuing.announce()
            for number in range(devices):
                self._enrol(parts.verbs, f"pump-{number}")
            if devices:
                asked = RevokeRequest(LocalEvidence(Role.operator, 1), Reason.keyCompromise, device=DeviceId("pump-0"))
                self._only(parts.verbs.revoking.revoke([(asked, Peer(Role.operator, 1))]))
                said = DeviceDescription(
                    DeviceId("pump-1"), RootOfTrust.none, justification="made before we had any", exception_ends=CLOCK.now() + 86400, owner="Ward 7"
                )  # fmt: skip
                parts.verbs.describing.describe(said, Peer(Role.operator, 1))
            parts.verbs.operators.add(OperatorName("beatrice"), ("auditor",), Peer(Role.operator, 1))
            self._crl(parts.verbs)
        self.sequence()

    def _enrol(self, verbs: Any, device: str) -> None:
        peer = Peer(Role.operator, 1)
        token = verbs.tokens.create(TokenRequest(LocalEvidence(Role.operator, 1), DeviceId(device), ProfileName("device"), (), 600), peer)
        self._only(verbs.issuing.issue([(IssueRequest(Keypair().csr(), TokenEvidence(token.text)), Peer(Role.enroll, 1))]))

    @staticmethod
    def _only(outcomes: Any) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _crl(self, verbs: Any) -> None:
        store = open_store(forms.store_url(self.settings))
        try:
            with store.ledger.writing() as tx:
                lease = tx.lease(lease_of(ISSUING), holder="test", now=CLOCK.now(), seconds=600)
            assert lease is not None
            sink = io.BytesIO()
            made = verbs.crls.sign(ISSUING, shard=0, above=0, fence=lease.fence, sink=sink, peer=Peer(Role.publisher, 1))
            verbs.crls.published(ISSUING, shard=0, number=made.number, fence=lease.fence, peer=Peer(Role.publisher, 1))
        finally:
            store.close()
        self.settings.crl.directory.mkdir(parents=True, exist_ok=True)
        (self.settings.crl.directory / "issuing.crl").write_bytes(sink.getvalue())

    def sequence(self) -> None:
        """Publish what waits for its place in the record."""
        store = open_store(forms.store_url(self.settings))
        try:
            Sequencer(
                ledger=store.ledger, files=TileDirectory(self.settings.log.directory), key=open_log_key(self.settings),
                origin=forms.log_origin(self.settings), holder="test", clock=CLOCK, failpoint=no_failpoint,
            ).run()  # fmt: skip
        finally:
            store.close()

    @property
    def checkpoint(self) -> bytes:
        return (self.settings.log.directory / "checkpoint").read_bytes()
