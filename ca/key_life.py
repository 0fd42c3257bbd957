"""The inventory of keys and what happens to them: they come in, change their state, are destroyed before witnesses. Verb: rules and ports only.

Destroying has three steps, each safe to repeat. The agreement is on record (a crash before leaves nothing); the store destroys; the result is
on record. A crash after the second leaves a key that is gone and a record that says it was about to be: the same request run again finds no
such key and finishes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ca import lineage
from ca.errors import Conflict, Denied, KeyUnavailable, NotFound, Unauthenticated, Unavailable
from ca.model import (
    Certificate,
    Destruction,
    Digest,
    KeyChange,
    KeyName,
    KeyRecord,
    KeyState,
    MessageEvidence,
    TenantId,
)
from ca.ports import Clock, KeyStore, Ledger, Writing
from ca.rules import destruction, key_life, leaf, renewal, testimony
from ca.rules.clock import trusted
from ca.rules.message import digest_of
from ca.witness import Witness

BEGUN: Final = "destruction begun"
OFFLINE: Final = "offline"
"""The store of a key that is not here. What became of it elsewhere keeps nobody here from working."""


class KeyLife:
    """The verb.

    Args:
        find: the certificate on record that is byte-equal to a DER (by its SHA-256).
        witness: the signer's journal; who calls holds its lock.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        find: Callable[[Digest], Certificate | None],
        tenant: TenantId,
        deployment: str,
        clock: Clock,
        witness: Witness,
    ) -> None:
        self._ledger, self._find, self._tenant, self._deployment, self._clock = ledger, find, tenant, deployment, clock
        self._witness = witness

    def enter(self, records: Sequence[KeyRecord], *, actor: str, evidence: Callable[[KeyRecord], str] = lambda _: "") -> None:
        """Keys that are in service, or wait for it: those not known yet come in, through pre-activation; of the others, each that is here must be active.

        Raises:
            Denied: one is suspended, compromised or destroyed (`key-not-active`): who was about to use it must not.
        """
        with self._writing() as (tx, said):
            for record in records:
                known, waits = tx.find_key(record.spki_sha256), record.state is KeyState.pre_activation
                if known is not None:
                    if known.state is KeyState.pre_activation and not waits:
                        self._move(
                            tx, said, replace(known, period_ends=record.period_ends), KeyState.active, reason="its certificate is in place",
                            actor=actor, evidence=evidence(record),
                        )  # fmt: skip
                    elif not waits and record.store != OFFLINE:
                        key_life.check_signing(known)
                    continue
                made = replace(record, state=KeyState.pre_activation)
                change = key_life.begin(made, reason="found in service", actor=actor, evidence=evidence(record))
                tx.add_key(made, change)
                tx.append_leaf(leaf.key_state(made, change))
                said.append(testimony.KeyMoved(made, change))
                if not waits:
                    self._move(tx, said, made, KeyState.active, reason="in service", actor=actor, evidence=evidence(record))

    def change(self, name: KeyName, after: KeyState, *, reason: str, actor: str) -> KeyRecord:
        """Move a key, except to its destruction.

        Raises:
            NotFound: there is no such key (`no-such-key-record`).
            Conflict: `key-move-illegal`, `key-name-ambiguous`.
            Denied: it is destroyed before witnesses only (`witnesses-missing`).
        """
        if after is KeyState.destroyed:
            raise Denied(
                "destruction-needs-witnesses", "A key is destroyed before two witnesses.", fix="Begin with: fleetca keys destroy-request"
            )
        with self._writing() as (tx, said):
            return self._move(tx, said, find_record(tx.key_records(), name), after, reason=reason, actor=actor)

    def destroy(
        self,
        name: KeyName,
        store: KeyStore,
        *,
        payload: bytes,
        witnesses: Sequence[MessageEvidence],
        actor: str,
        keep: Callable[[bytes], None],
    ) -> bytes:
        """Destroy a key before witnesses; its certificate of destruction.

        Args:
            name: the key's, in the inventory and in its store.
            store: what holds it.
            payload: the request, as every witness signed it.
            witnesses: their signatures.
            actor: who runs this.
            keep: writes the certificate, before the record says that the key is gone; must not replace another one.

        Raises:
            Unauthenticated: too few witnesses, or one that does not count; nothing was done.
            Conflict: the request was used before (`message-replayed`), or the key may not be destroyed (`key-move-illegal`).
            KeyUnavailable: the store cannot be reached, or holds another key under that name; nothing was done, and repeating is safe.
        """
        request = destruction.read(payload)
        now = self._clock.now()
        with self._ledger.writing() as tx:
            record = find_record(tx.key_records(), name)
            destruction.check(request, record, deployment=self._deployment, now=now)
            seen = self._witnesses(tx, payload, witnesses, now=now)
            # Asked for its lawfulness only; the move itself is made when the key is gone.
            key_life.move(record, KeyState.destroyed, reason=request.reason, actor=actor, at=now)
            begun = any(each.reason == BEGUN and each.evidence == digest_of(payload).hex() for each in tx.key_changes(record.spki_sha256))
        done = self._gone(record, store, payload, begun=begun, actor=actor)
        at = self._clock.now()
        document = destruction.certificate(record, payload, seen, done, deployment=self._deployment, at=at)
        keep(document)
        with self._writing() as (tx, said):
            self._move(
                tx,
                said,
                find_record(tx.key_records(), name),
                KeyState.destroyed,
                reason=request.reason,
                actor=actor,
                evidence=hashlib.sha256(document).hexdigest(),
            )
        return document

    def _gone(self, record: KeyRecord, store: KeyStore, payload: bytes, *, begun: bool, actor: str) -> Destruction | None:
        try:
            key = store.open(record.name)
        except KeyUnavailable as error:
            if begun and error.code == "no-such-key":
                return None
            raise
        if hashlib.sha256(key.spki).digest() != record.spki_sha256:
            raise KeyUnavailable(
                "wrong-key",
                f"The store holds another key under the name {record.name}.",
                why="Its public half is not the one that the witnesses agreed to.",
                fix="Correct the key's place in the settings.",
            )
        if not begun:
            with self._writing() as (tx, said):
                now = trusted(self._clock.now(), high_time=tx.high_time())
                tx.consume_message(digest_of(payload), now=now)
                said.append(testimony.MessageUsed(digest_of(payload), now))
                change = KeyChange(record.spki_sha256, record.state, record.state, now, BEGUN, actor, digest_of(payload).hex())
                tx.change_key(record, change)
                tx.append_leaf(leaf.key_state(record, change))
                said.append(testimony.KeyMoved(record, change))
        return store.destroy(record.name)

    def _witnesses(
        self, tx: Writing, payload: bytes, given: Sequence[MessageEvidence], *, now: int
    ) -> tuple[destruction.Witnessed, ...]:  # fmt: skip
        found: list[destruction.Witnessed] = []
        keys: set[bytes] = set()
        for evidence in given:
            if evidence.payload != payload:
                raise Unauthenticated("request-for-another-key", "A witness signed another request.", fix="Let all sign the same file.")
            destruction.check_signature(evidence)
            on_record = self._find(Digest(hashlib.sha256(evidence.certificate).digest()))
            operator = lineage.operator_of(on_record, tx)
            if on_record is None or operator is None or operator.disabled_at is not None or not renewal.live(on_record, now=now):
                raise Unauthenticated(
                    "witness-unknown",
                    "A witness's certificate is not that of an operator of this deployment.",
                    why="It is not on record, does not hold any more, or its operator is disabled.",
                    fix="List them: fleetca operators list",
                )
            keys.add(on_record.spki_sha256)
            found.append(destruction.Witnessed(operator.name, evidence))
        destruction.check_count([each.operator for each in found], keys)
        return tuple(found)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Writing, list[testimony.Record]]]:
        """A transaction, and what the journal is told once it is committed: a restored database must not take a compromised key for a good one."""
        said: list[testimony.Record] = []
        with self._ledger.writing() as tx:
            yield tx, said
        self._witness.later(said)
        with suppress(Unavailable):
            # In force already; the journal gets it with its next write.
            self._witness.settle()

    def _move(
        self, tx: Writing, said: list[testimony.Record], record: KeyRecord, after: KeyState, *, reason: str, actor: str, evidence: str = ""
    ) -> KeyRecord:  # fmt: skip
        now = trusted(self._clock.now(), high_time=tx.high_time())
        moved, change = key_life.move(record, after, reason=reason, actor=actor, evidence=evidence, at=now)
        tx.change_key(moved, change)
        tx.append_leaf(leaf.key_state(moved, change))
        said.append(testimony.KeyMoved(moved, change))
        return moved


def find_record(records: Sequence[KeyRecord], name: str) -> KeyRecord:
    """The key of that name, or with that digest of its public half (hex, or its beginning).

    Raises:
        NotFound: there is none (`no-such-key-record`).
        Conflict: several have it (`key-name-ambiguous`).
    """
    named = [record for record in records if record.name == name and record.state is not KeyState.destroyed]
    found = named or [record for record in records if record.name == name]
    found = found or [record for record in records if len(name) >= 8 and record.spki_sha256.hex().startswith(name.lower())]
    if not found:
        raise NotFound("no-such-key-record", f"There is no key {name} in the inventory.", fix="List them: fleetca keys list")
    if len(found) > 1:
        raise Conflict(
            "key-name-ambiguous",
            f"{len(found)} keys are called {name}.",
            fix="Name it by the SHA-256 of its public half: fleetca keys list",
        )
    return found[0]
