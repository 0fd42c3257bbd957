"""A small database for the record: the part of the store that sequencer and audit use, in memory, with transactions that undo."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.errors import Conflict
from ca.model import (
    AlgorithmName,
    Certificate,
    Checkpoint,
    CrlIntent,
    Demand,
    Device,
    DeviceFacts,
    DeviceId,
    Digest,
    Issuer,
    KeyName,
    KeyRecord,
    Lease,
    LogLeaf,
    Operator,
    Profile,
    ProfileName,
    Proposal,
    QueuedLeaf,
    RecordSeal,
    Revocation,
    Shift,
    Station,
    Token,
    UnixTime,
    WipeReceipt,
)
from ca.rules import merkle


class LogKey:
    """An Ed25519 key from a seed: the same in every process that is told the same word."""

    def __init__(self, seed: bytes = b"log") -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed.ljust(32, b"."))
        self.name = KeyName("log")
        self.algorithm = AlgorithmName("ed25519")
        self.spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.signatures = 0

    def sign(self, message: bytes) -> bytes:
        self.signatures += 1
        return self._key.sign(message)


@dataclass
class FixedClock:
    time: UnixTime = 1_800_000_000

    def now(self) -> UnixTime:
        return self.time


def no_failpoint(name: str) -> None:
    """Does nothing, as in production."""


@dataclass
class RecordState:
    queue: list[QueuedLeaf] = field(default_factory=list)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    certificates: list[Certificate] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    crls: list[CrlIntent] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    demand: Demand | None = None
    devices: list[Device] = field(default_factory=list)
    known_issuers: list[Issuer] = field(default_factory=list)
    known_operators: list[Operator] = field(default_factory=list)


class MemoryRecord:
    """`SequencingLedger`, `Sequencing`, `Auditing` and `LeafIndex` in one."""

    def __init__(self) -> None:
        self.state = RecordState()

    @contextmanager
    def writing(self) -> Iterator[MemoryRecord]:
        before = copy.deepcopy(self.state)
        try:
            yield self
        except BaseException:
            self.state = before
            raise

    def queue(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self.state.queue.append(QueuedLeaf(max((leaf.id for leaf in self.state.queue), default=0) + 1, body, None))

    def append_leaf(self, leaf: LogLeaf) -> Digest:
        self.queue([leaf.body])
        return merkle.leaf_hash(leaf.body)

    def lease(self, name: str, *, holder: str, now: UnixTime, seconds: int) -> Lease | None:
        held = self.state.leases.get(name)
        if held and held.holder != holder and held.expires > now:
            return None
        fence = held.fence if held and held.holder == holder else (held.fence if held else 0) + 1
        self.state.leases[name] = Lease(name, holder, now + seconds, fence)
        return self.state.leases[name]

    def check_fence(self, name: str, fence: int) -> None:
        if self.state.leases[name].fence != fence:
            raise Conflict("lease-lost", "Another process took over.")

    def pending_leaves(self, limit: int) -> Sequence[QueuedLeaf]:
        return [leaf for leaf in self.state.queue if leaf.index is None][:limit]

    def assign_indexes(self, ids: Sequence[int], *, start: int) -> None:
        places = {leaf_id: start + at for at, leaf_id in enumerate(ids)}
        self.state.queue = [dataclasses.replace(leaf, index=places[leaf.id]) if leaf.id in places else leaf for leaf in self.state.queue]

    def leaf_count(self) -> int:
        return max((leaf.index + 1 for leaf in self.state.queue if leaf.index is not None), default=0)

    def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]:
        placed = sorted(((leaf.index, leaf) for leaf in self.state.queue if leaf.index is not None), key=lambda pair: pair[0])
        return [leaf for index, leaf in placed if index >= start][:count]

    def last_checkpoint(self) -> Checkpoint | None:
        return self.state.checkpoints[max(self.state.checkpoints)] if self.state.checkpoints else None

    def record_checkpoint(self, checkpoint: Checkpoint, *, now: UnixTime) -> None:
        known = self.state.checkpoints.setdefault(checkpoint.size, checkpoint)
        if known.root != checkpoint.root:
            raise Conflict("checkpoint-fork", "Another root is on record.")

    def find_leaf(self, leaf_hash: Digest) -> QueuedLeaf | None:
        return next((leaf for leaf in self.state.queue if merkle.leaf_hash(leaf.body) == leaf_hash), None)

    def every_certificate(self) -> Iterator[Certificate]:
        yield from self.state.certificates

    def every_revocation(self) -> Iterator[Revocation]:
        yield from self.state.revocations

    def every_crl(self) -> Iterator[CrlIntent]:
        yield from self.state.crls

    def every_token(self) -> Iterator[Token]:
        yield from self.state.tokens

    def every_device(self) -> Iterator[Device]:
        yield from self.state.devices

    def every_proposal(self) -> Iterator[Proposal]:
        return iter(())

    def accepted_profiles(self) -> Mapping[ProfileName, Profile]:
        return {}

    def accepted_demand(self) -> Demand | None:
        return self.state.demand

    def stations(self) -> Sequence[Station]:
        return ()

    def every_shift(self) -> Iterator[Shift]:
        return iter(())

    def every_record_seal(self) -> Iterator[RecordSeal]:
        return iter(())

    def every_wipe(self) -> Iterator[WipeReceipt]:
        return iter(())

    def every_device_facts(self) -> Iterator[tuple[DeviceId, DeviceFacts]]:
        return iter(())

    def issuers(self) -> Sequence[Issuer]:
        return self.state.known_issuers

    def operators(self) -> Sequence[Operator]:
        return self.state.known_operators

    def key_records(self) -> Sequence[KeyRecord]:
        return ()
