"""What the authority needs from the world, as promises. Ring 2.

Each Protocol states its guarantees in prose: durable when, which error means absent, safe to repeat or not. Adapters live in
`keys/`, `store/`, `outlets/`, `log/` and `system.py`; verbs get them from wiring. The reading ports of `ocsp`, `crl` and
`enroll` stand in those packages and speak `ca.model`, so that `ca.store` fits them without importing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from ca.model import (
    AlgorithmName,
    Approval,
    Certificate,
    CertificateRef,
    ChangeNumber,
    Checkpoint,
    CrlEntry,
    CrlIntent,
    CrlNumber,
    Demand,
    Destruction,
    Device,
    DeviceChange,
    DeviceFacts,
    DeviceId,
    Digest,
    GraveAct,
    HeldKey,
    Intent,
    Issuer,
    IssuerId,
    KeyChange,
    KeyName,
    KeyRecord,
    Lease,
    LogLeaf,
    Operator,
    OperatorName,
    OutletCopy,
    Placed,
    Profile,
    ProfileName,
    Proposal,
    QueuedLeaf,
    Reason,
    RecordSeal,
    RenewalOrder,
    Revocation,
    Share,
    Shift,
    Station,
    StatusChange,
    StoreAbility,
    TenantId,
    Token,
    UnixTime,
    WipeReceipt,
)


class Clock(Protocol):
    """The wall clock. It may go backwards; who signs must check (`ClockUntrusted`)."""

    def now(self) -> UnixTime: ...


class Chance(Protocol):
    """A cryptographically strong random generator; never repeats, never blocks for long."""

    def octets(self, count: int) -> bytes: ...


class SigningKey(Protocol):
    """A private key that can only sign.

    `sign` returns the octets that go into the BIT STRING: ECDSA as DER SEQUENCE(r, s), RSA as PKCS#1 v1.5 with the hash of the
    algorithm table, Ed25519 and ML-DSA (pure, empty context) as they are. It is safe to call from several threads.

    Raises:
        KeyUnavailable: the store cannot use the key now; repeating later is safe, a signature may or may not have been made.
    """

    @property
    def name(self) -> KeyName: ...

    @property
    def algorithm(self) -> AlgorithmName: ...

    @property
    def spki(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@runtime_checkable
class DigestSigning(Protocol):
    """What a `SigningKey` may offer besides, where its algorithm signs a digest: large CRLs then never stand in memory."""

    def sign_digest(self, digest: bytes) -> bytes:
        """As `SigningKey.sign` for the message that has this digest, made with the hash of the algorithm table."""
        ...


class KeyStore(Protocol):
    """Where private keys rest.

    Keys of stores outside of this process (`module` and above) release no signature that does not verify: `sign` raises `Broken`
    (`bad-own-signature`). Those that OpenSSL signs with in this process are verified by the verb that re-reads the document (P11), or by
    `ca.keys.verified` where there is none.

    Raises:
        KeyUnavailable: no such key (`no-such-key`), or it cannot be unlocked (the text says which, and the command that mends it).
        Conflict: `generate` was asked for a name that exists (`key-exists`). It never overwrites.
        Unacceptable: the store cannot make such a key (`store-lacks-algorithm`); nothing was made.
    """

    def ability(self) -> StoreAbility:
        """What it can do; may have to reach the store."""
        ...

    def open(self, name: KeyName) -> SigningKey: ...

    def generate(self, name: KeyName, algorithm: AlgorithmName) -> SigningKey:
        """Make a key that can sign and do nothing else; durable when this returns."""
        ...

    def names(self) -> Sequence[KeyName]:
        """What it holds, by name, sorted."""
        ...

    def held(self) -> Sequence[HeldKey]:
        """What it holds and what it says of each key, sorted by name. Opens none that needs a passphrase."""
        ...

    def destroy(self, name: KeyName) -> Destruction:
        """Make a key unusable for good; it is gone when this returns. A crash in between leaves it whole or gone."""
        ...


class SharedKey(Protocol):
    """A key that several people share, while enough of them are here."""

    @property
    def check(self) -> bytes:
        """Tells it from any other key; says nothing else."""
        ...

    @property
    def recipient(self) -> bytes:
        """The public key that backups are encrypted to."""
        ...

    def passphrase(self) -> bytes:
        """What seals key files."""
        ...


class Sharing(Protocol):
    """Makes shares of a fresh key, and the key of shares.

    Raises:
        Malformed: words that are no share (`bad-share`).
        KeyUnavailable: shares that do not fit together (`shares-do-not-fit`).
    """

    def split(self, *, threshold: int, count: int) -> tuple[Sequence[str], SharedKey]:
        """A new key and `count` shares, each as words. Any `threshold` of them give it back; fewer tell nothing of it."""
        ...

    def read(self, words: str) -> tuple[Share, str]:
        """What a share says of itself, and its words as they were made, however they were typed."""
        ...

    def combine(self, shares: Sequence[str]) -> SharedKey: ...


class Journal(Protocol):
    """The signer's second witness, on another path than the database.

    `append` is durable (fsync) when it returns; a torn last record is recognised and dropped by `records`. Appending the same record
    twice is harmless.

    Raises:
        StoreUnavailable: the record may or may not be kept; nothing may be signed.
    """

    def append(self, records: Sequence[bytes]) -> None: ...

    def records(self) -> Iterator[bytes]: ...


class Overtaken(Exception):
    """A row was not as foreseen: another transaction wrote it, or this one twice. Undo what the block wrote and go one by one."""


class Writing(Protocol):
    """One write transaction. Nothing is durable until the `with` block of `Ledger.writing` ends without an error; then all is.

    Numbers handed out here (`next_change`, `next_crl_number`) come from counter rows locked to the commit, so number order is commit order.
    """

    def savepoint(self) -> AbstractContextManager[None]:
        """An exception inside undoes what was done inside, and only that; it propagates."""
        ...

    def foreseeing(
        self,
        *,
        requests: Sequence[Digest],
        certificates: Sequence[CertificateRef],
        tokens: Sequence[Digest],
        keys: Sequence[Digest],
        units: Sequence[tuple[int, int, DeviceId]] = (),
    ) -> AbstractContextManager[None]:
        """Say ahead what a block will ask and write about; it does the same with fewer statements, and some are run only when it ends.

        Raises:
            Overtaken: within, or at the end. Put a savepoint around the block.
        """
        ...

    def high_time(self) -> UnixTime:
        """The latest time any transaction recorded with `raise_high_time`; 0 in an empty store."""
        ...

    def raise_high_time(self, now: UnixTime) -> None: ...

    def set_high_time(self, now: UnixTime) -> None:
        """Also back: for a person who knows that an earlier clock was wrong. No verb that serves requests calls it."""
        ...

    def find_by_request(self, request_key: Digest) -> Certificate | None:
        """The certificate that this request got, intended or issued; void ones do not count."""
        ...

    def find_certificate(self, ref: CertificateRef) -> Certificate | None: ...

    def find_token(self, token: Digest) -> Token | None: ...

    def add_token(self, token: Token) -> None: ...

    def use_token(self, token: Digest, *, request_key: Digest, now: UnixTime) -> None:
        """Consume it, atomically.

        Raises:
            Conflict: another request used it (`token-used`).
        """
        ...

    def outstanding_tokens(self, device: DeviceId, *, now: UnixTime) -> Sequence[Token]:
        """The tokens of a device that could be used now."""
        ...

    def find_renewal_order(self, number: int) -> RenewalOrder | None: ...

    def last_renewal_order(self) -> int:
        """Its number; 0 before there is one."""
        ...

    def renewal_orders(self, *, limit: int = 100) -> Sequence[RenewalOrder]:
        """The newest first, withdrawn ones too."""
        ...

    def add_renewal_order(self, order: RenewalOrder) -> bool:
        """False where one of that number is on record."""
        ...

    def withdraw_renewal_order(self, number: int, *, actor: str, now: UnixTime) -> bool:
        """False where it was withdrawn before, or never was."""
        ...

    def revoke_token(self, token: Digest, *, now: UnixTime) -> bool:
        """Withdraw a token; False when it was used or withdrawn before, or does not exist."""
        ...

    def lock_device(self, device: DeviceId) -> Device | None:
        """Read the row and keep others from changing it until this transaction ends."""
        ...

    def add_device(self, device: Device) -> None: ...

    def change_device(self, change: DeviceChange) -> None:
        """A device's next state, and the change. The device's row is there, in the state that `change.before` says.

        Raises:
            Conflict: it is in another state, or there is none (`device-changed`).
        """
        ...

    def device_changes(self, device: DeviceId) -> Sequence[DeviceChange]:
        """What happened to a device as a whole, oldest first. A device that came with its first certificate may have none."""
        ...

    def device_facts(self, device: DeviceId) -> DeviceFacts | None:
        """What was said of a device; None where nothing was."""
        ...

    def set_device_facts(self, device: DeviceId, facts: DeviceFacts) -> None:
        """What is said of a device from now on."""
        ...

    def claim_key(self, spki_sha256: Digest, device: DeviceId, *, now: UnixTime) -> bool:
        """Bind a public key to a device, for ever (P9). True when it was new.

        Raises:
            Conflict: it belongs to another device (`key-of-another-device`).
        """
        ...

    def owner_of_key(self, spki_sha256: Digest) -> DeviceId | None:
        """The device that a public key is bound to."""
        ...

    def reserve(self, intent: Intent, *, tenant: str, revocable: bool, leaf: Digest) -> None:
        """Record serial, TBS, device and grant before anything is signed (P1). `leaf` is the hash of its `issuance` leaf.

        Raises:
            Conflict: the serial exists (`serial-taken`): draw another one.
            Busy: another transaction has just recorded an intent for the same request (`request-taken`): repeat it and find that one.
        """
        ...

    def record_issued(self, results: Sequence[tuple[CertificateRef, bytes]], *, now: UnixTime) -> Sequence[CertificateRef]:
        """Keep the results (DER) of intents. Returns those that were not kept, because another result is on record: their intent was given up."""
        ...

    def record_void(self, ref: CertificateRef, *, now: UnixTime) -> None: ...

    def unfinished(self) -> Sequence[Certificate]:
        """All intents whose result is not on record, oldest first."""
        ...

    def certificates_of(self, device: DeviceId) -> Sequence[Certificate]:
        """Every certificate of a device that is issued or intended, newest first."""
        ...

    def find_approval(self, request: Digest) -> Approval | None:
        """What an operator said, or is asked, of this request."""
        ...

    def find_approval_by_beginning(self, beginning: str) -> Approval | None:
        """The one whose hash begins with these hexadecimal digits; None also where there are several."""
        ...

    def waiting_approvals_of(self, device: DeviceId, *, now: UnixTime, limit: int) -> int:
        """How many of a device wait; no more are counted than `limit`."""
        ...

    def add_approval(self, approval: Approval) -> None:
        """A request that waits. The same again is harmless; it takes the place of one that is over."""
        ...

    def decide_approval(self, approval: Approval) -> None:
        """What was decided; nothing where it was decided before."""
        ...

    def find_proposal(self, request: Digest) -> Proposal | None:
        """A grave act that was asked for."""
        ...

    def find_proposal_by_beginning(self, beginning: str) -> Proposal | None:
        """The one whose hash begins with these hexadecimal digits; None also where there are several."""
        ...

    def proposals_of(self, act: GraveAct, subject: str) -> Sequence[Proposal]:
        """All that were ever made for exactly this, what ends first first."""
        ...

    def accepted_profiles(self) -> Mapping[ProfileName, Profile]:
        """The version of each profile that is in force, where two persons approve them."""
        ...

    def accept_profile(self, profile: Profile) -> None:
        """This version is in force from now on."""
        ...

    def accepted_demand(self) -> Demand | None:
        """What two persons are demanded for; None before the signer first started."""
        ...

    def accept_demand(self, demand: Demand) -> None:
        """This is demanded from now on."""
        ...

    def count_devices(self, tenant: TenantId, *, most: int) -> int:
        """How many devices of a tenant are on record; no more are counted than `most`."""
        ...

    def count_in_period(self, name: str, *, period: int, amount: int) -> int:
        """Add to a counter that begins anew with each period; what it has then."""
        ...

    def put_proposal(self, proposal: Proposal) -> None:
        """The proposal as it is from now on."""
        ...

    def find_token_by_beginning(self, octets: bytes) -> Token | None:
        """The token whose hash begins so; None also where there are several."""
        ...

    def latest_of(self, device: DeviceId, *, limit: int) -> Sequence[Certificate]:
        """The newest of these."""
        ...

    def renewals_of(self, parent: CertificateRef, device: DeviceId) -> Sequence[Certificate]:
        """Every certificate of a device that is issued or intended and renews `parent`, oldest first."""
        ...

    def mark_first_used(self, ref: CertificateRef, *, now: UnixTime) -> None: ...

    def mark_delivered(self, ref: CertificateRef, *, now: UnixTime) -> None: ...

    def begin_grace(self, ref: CertificateRef, *, ends_at: UnixTime) -> None:
        """From `ends_at` on it is superseded. The first end stays."""
        ...

    def graces_ended(self, now: UnixTime, *, limit: int) -> Sequence[Certificate]:
        """Those whose grace is over and that are not marked as superseded, earliest end first."""
        ...

    def mark_superseded(self, ref: CertificateRef, *, now: UnixTime) -> None: ...

    def mark_clone_seen(self, ref: CertificateRef, *, now: UnixTime) -> None:
        """Its key spoke after another certificate had taken its place. The first time stays."""
        ...

    def add_revocation(
        self,
        ref: CertificateRef,
        *,
        reason: Reason,
        now: UnixTime,
        not_after: UnixTime,
        listed: bool,
        actor: str = "",
        invalid_from: UnixTime | None = None,
        channel: str = "",
        request: str = "",
    ) -> Revocation:
        """Append a row with the next change number. `actor`, `channel` and `request` are who had it revoked and how, for people who look."""
        ...

    def add_revocations(
        self,
        changes: Sequence[StatusChange],
        *,
        actor: str = "",
        invalid_from: UnixTime | None = None,
        channel: str = "",
        request: str = "",
    ) -> Sequence[Revocation]:
        """Append a row for each with the next change numbers, in that order. No certificate stands in it twice."""
        ...

    def change_number(self) -> ChangeNumber:
        """The last change number handed out, as of this transaction."""
        ...

    def crl_entries(
        self, issuer: IssuerId, shard: int, *, expired_before: UnixTime, as_of: ChangeNumber | None = None
    ) -> Iterator[CrlEntry]:
        """The listed, currently revoked certificates of an issuer whose notAfter is at or after `expired_before`, oldest change first.

        Shard 0 is the complete CRL: it has the entries of all shards.

        With `as_of`, as they stood after that change: the same entries whenever it is asked, also while others revoke.
        """
        ...

    def next_crl_number(self, issuer: IssuerId, shard: int, *, above: CrlNumber) -> CrlNumber:
        """A number above every earlier one of that scope and above `above`."""
        ...

    def reserve_crl(self, intent: CrlIntent) -> None: ...

    def last_crl(self, issuer: IssuerId, shard: int) -> CrlIntent | None:
        """The published complete CRL with the highest number."""
        ...

    def find_crl(self, issuer: IssuerId, shard: int, number: CrlNumber) -> CrlIntent | None:
        """A CRL by its number, where it was published."""
        ...

    def find_crl_intent(self, issuer: IssuerId, shard: int, number: CrlNumber) -> CrlIntent | None:
        """A CRL that was intended, published or not."""
        ...

    def find_by_der_digest(self, digest: Digest) -> Certificate | None:
        """The certificate whose DER has this SHA-256."""
        ...

    def shard_counts(self, issuer: IssuerId) -> Sequence[int]:
        """Every number of shards that new certificates of an issuer were ever spread over, rising."""
        ...

    def add_shard_count(self, issuer: IssuerId, count: int, *, now: UnixTime) -> None: ...

    def record_crl_published(self, issuer: IssuerId, shard: int, number: CrlNumber, *, now: UnixTime) -> None: ...

    def add_issuer(self, issuer: Issuer) -> None: ...

    def last_end(self, issuer: IssuerId) -> UnixTime | None:
        """When the last revocable certificate of an issuer ends, intents and void ones counted; None where there is none."""
        ...

    def age_issuer(self, issuer: IssuerId, *, last_ends: UnixTime, retired_at: UnixTime | None) -> None:
        """Write down when the last certificate of an issuer ends, and since when it is retired."""
        ...

    def issuers(self) -> Sequence[Issuer]: ...

    def add_operator(self, operator: Operator) -> None: ...

    def find_operator(self, name: OperatorName) -> Operator | None: ...

    def operators(self) -> Sequence[Operator]: ...

    def disable_operator(self, name: OperatorName, *, now: UnixTime) -> None: ...

    def consume_message(self, digest: Digest, *, now: UnixTime) -> None:
        """Remember a signed message that must act once only.

        Raises:
            Conflict: it was used before (`message-replayed`).
        """
        ...

    def find_station(self, name: str) -> Station | None:
        """A station of the line by its name."""
        ...

    def set_station(self, station: Station) -> None:
        """A station as it is from now on."""
        ...

    def find_shift(self, number: int) -> Shift | None:
        """A shift by its number."""
        ...

    def find_shift_of(self, request: Digest) -> Shift | None:
        """The shift that this message opened."""
        ...

    def last_shift(self) -> int:
        """Its number; 0 before there is one."""
        ...

    def set_shift(self, shift: Shift) -> None:
        """A shift as it is from now on."""
        ...

    def find_unit(self, shift: int, number: int) -> Digest | None:
        """The request key of a unit's line, where its station's file was taken that far; None otherwise."""
        ...

    def set_units(self, shift: int, keys: Mapping[int, Digest]) -> None:
        """The request keys of units, by their number. They count once `Shift.taken` has come so far."""
        ...

    def record_seals(self, station: str, *, above: int, limit: int) -> Sequence[RecordSeal]:
        """Countersignatures over more than `above` records of a station, the shortest chain first."""
        ...

    def set_record_seal(self, seal: RecordSeal) -> None:
        """A countersignature as it is from now on."""
        ...

    def find_wipe(self, device: DeviceId, retired_at: UnixTime) -> WipeReceipt | None:
        """The wipe receipt of a device that was retired then."""
        ...

    def add_wipe(self, receipt: WipeReceipt, tenant: TenantId) -> bool:
        """False where there is one of that device and retirement."""
        ...

    def append_leaf(self, leaf: LogLeaf) -> Digest:
        """Queue a leaf for the Merkle log (P8); returns its leaf hash (RFC 9162 2.1.1). It gets its index from the sequencer."""
        ...

    def find_key(self, spki_sha256: Digest) -> KeyRecord | None: ...

    def key_records(self) -> Sequence[KeyRecord]:
        """The inventory of keys, by name and age."""
        ...

    def key_changes(self, spki_sha256: Digest) -> Sequence[KeyChange]:
        """What happened to a key, oldest first."""
        ...

    def add_key(self, record: KeyRecord, change: KeyChange) -> None:
        """A new key, and how it came here.

        Raises:
            Conflict: it is in the inventory (`key-known`).
        """
        ...

    def change_key(self, record: KeyRecord, change: KeyChange) -> None:
        """The record as it is after a change, and the change. `change.before` must be what is on record.

        Raises:
            Conflict: it is in another state (`key-changed`).
        """
        ...

    def lease(self, name: str, *, holder: str, now: UnixTime, seconds: int) -> Lease | None:
        """Take, keep or refuse (None) a lease. A new holder gets the next fence."""
        ...

    def check_fence(self, name: str, fence: int) -> None:
        """Fail the transaction of a holder that lost its lease.

        Raises:
            Conflict: a newer holder exists (`lease-lost`).
        """
        ...


class Ledger(Protocol):
    """The database, for those who write.

    Raises:
        StoreUnavailable: nothing of the transaction is kept, unless the error came from the commit itself; then it may be. Every verb is
            written so that repeating it is safe.
    """

    def writing(self) -> AbstractContextManager[Writing]: ...


class Sequencing(Protocol):
    """What the sequencer does inside one write transaction: a part of what the store's `Writing` offers.

    The indexes handed out are 0, 1, 2 ... without a gap: an index is unique, and is never changed or taken back once committed.
    """

    def lease(self, name: str, *, holder: str, now: UnixTime, seconds: int) -> Lease | None: ...

    def check_fence(self, name: str, fence: int) -> None: ...

    def pending_leaves(self, limit: int) -> Sequence[QueuedLeaf]:
        """Leaves without an index, oldest id first."""
        ...

    def append_leaf(self, leaf: LogLeaf) -> Digest: ...

    def assign_indexes(self, ids: Sequence[int], *, start: int) -> None:
        """Give the leaves their places: the first of `ids` gets `start`, the next `start + 1` ...

        Raises:
            Conflict: one of them has an index, or an index is taken (`leaf-sequenced`).
        """
        ...

    def leaf_count(self) -> int:
        """How many leaves have an index; the next free index. One indexed query."""
        ...

    def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]:
        """Leaves with indexes from `start` on, in index order, at most `count`."""
        ...

    def last_checkpoint(self) -> Checkpoint | None:
        """The recorded checkpoint with the greatest size."""
        ...

    def record_checkpoint(self, checkpoint: Checkpoint, *, now: UnixTime) -> None:
        """Remember a signed checkpoint before anyone sees it. The same one again is harmless.

        Raises:
            Conflict: another root is on record for that size (`checkpoint-fork`).
        """
        ...


class SequencingLedger(Protocol):
    """The database, for the sequencer; the guarantees of `Ledger.writing`."""

    def writing(self) -> AbstractContextManager[Sequencing]: ...


class Auditing(Protocol):
    """Every row that must have its leaf, for the audit. Reads only; iterators page by key and hold no cursor open between pages."""

    def leaf_count(self) -> int: ...

    def leaves(self, start: int, count: int) -> Sequence[QueuedLeaf]: ...

    def pending_leaves(self, limit: int) -> Sequence[QueuedLeaf]: ...

    def last_checkpoint(self) -> Checkpoint | None: ...

    def every_certificate(self) -> Iterator[Certificate]: ...

    def every_revocation(self) -> Iterator[Revocation]: ...

    def every_crl(self) -> Iterator[CrlIntent]: ...

    def every_token(self) -> Iterator[Token]: ...

    def every_device(self) -> Iterator[Device]: ...

    def stations(self) -> Sequence[Station]: ...

    def every_shift(self) -> Iterator[Shift]: ...

    def every_record_seal(self) -> Iterator[RecordSeal]: ...

    def every_wipe(self) -> Iterator[WipeReceipt]: ...

    def every_device_facts(self) -> Iterator[tuple[DeviceId, DeviceFacts]]: ...

    def issuers(self) -> Sequence[Issuer]: ...

    def operators(self) -> Sequence[Operator]: ...

    def every_proposal(self) -> Iterator[Proposal]: ...

    def accepted_profiles(self) -> Mapping[ProfileName, Profile]: ...

    def accepted_demand(self) -> Demand | None: ...

    def key_records(self) -> Sequence[KeyRecord]: ...


class LeafIndex(Protocol):
    """Where a leaf stands in the log, for receipts. Reads only, one indexed query."""

    def find_leaf(self, leaf_hash: Digest) -> QueuedLeaf | None:
        """By its leaf hash (RFC 9162 2.1.1); None when no such leaf was queued."""
        ...


class RecordFiles(Protocol):
    """Where the published log lives: files named as C2SP tlog-tiles names them (`checkpoint`, `tile/...`).

    Raises:
        StoreUnavailable: it cannot be read or written now; of a failed `write`, each file is whole and old or whole and new.
    """

    def read(self, path: str) -> bytes | None:
        """The octets, or None when there is no such file."""
        ...

    def write(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Put files in place, each as a whole; all are durable when this returns. Readers never see half a file."""
        ...

    def remove_partials(self, path: str) -> None:
        """Remove the partial forms of a full tile or bundle; harmless when there are none."""
        ...

    def names(self) -> Iterator[str]:
        """Every file there is, by path; for the audit."""
        ...


class Readable(Protocol):
    """Octets that are read in pieces: what is published may be longer than memory is wide."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, count: int) -> bytes:
        """That many octets from there, or what there is of them."""
        ...


class PublishedCopy(Readable, Protocol):
    """One file as readers get it, whole: what replaces it meanwhile does not touch it."""

    @property
    def modified(self) -> UnixTime:
        """When the outlet took it, by the outlet's own clock."""
        ...


class Stage(Readable, Protocol):
    """A file under way to an outlet: nobody but its writer sees it, and it is gone when its block ends without a put, also by kill -9.

    What is read from it after `sync` comes from where it rests.
    """

    def fileno(self) -> int:
        """Where its octets are written, from the start on, by whoever holds this descriptor."""
        ...

    def sync(self) -> None:
        """Durable when this returns.

        Raises:
            StoreUnavailable: the disk is full or broken.
        """
        ...


class Outlet(Protocol):
    """Where finished files are published under flat names such as `issuing.crl`.

    A reader gets the whole old file or the whole new one, whatever dies when; the last file but one stays at hand as `previous`, where the outlet
    can keep one.

    Raises:
        StoreUnavailable: it cannot be read or written now; of a failed put, the old file or the new one is visible, and repeating is safe.
        Malformed: not a name for this outlet (`outlet-name`).
    """

    def stage(self, name: str) -> AbstractContextManager[Stage]: ...

    def put_if_unchanged(self, name: str, stage: Stage, *, seen: str | None) -> Placed:
        """Make a stage visible, durable when this returns, and read it back from where readers read it.

        `seen` is the version that the caller based its work on, None where there was nothing.

        Raises:
            Conflict: another writer was faster (`outlet-changed`); nothing was put.
        """
        ...

    def current(self, name: str) -> OutletCopy | None:
        """What readers get, all of it in memory."""
        ...

    def opened(self, name: str) -> AbstractContextManager[PublishedCopy | None]:
        """What readers get, to be read in pieces while the block lasts."""
        ...

    def previous(self, name: str) -> AbstractContextManager[PublishedCopy | None]:
        """What readers got before that, to be read in pieces too: nobody says how long it is."""
        ...

    def mark(self, name: str) -> str | None:
        """Changes when the visible file changes; costs no reading. None when there is none."""
        ...

    def high_water(self, name: str) -> int:
        """The highest number kept beside the name; 0 when none was kept.

        Raises:
            StoreUnavailable: it is there and cannot be understood (`high-water-unreadable`).
        """
        ...

    def raise_high_water(self, name: str, number: int) -> None:
        """Keep a number beside the name, unless a higher one is kept; durable when this returns."""
        ...


class Archive(Protocol):
    """The folder a ceremony writes to. Everything is durable when a call returns; nothing is ever replaced.

    Raises:
        StoreUnavailable: it cannot be read or written; of the file in question nothing is kept.
    """

    def names(self) -> Sequence[str]: ...

    def read(self, name: str) -> bytes | None:
        """A file's octets; None where there is none."""
        ...

    def put_new(self, name: str, octets: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            Conflict: it exists (`output-exists`).
        """
        ...

    def append(self, name: str, octets: bytes, *, at: int) -> None:
        """Write at the offset `at`, which is the end or, after a crash, where a torn end begins; what followed is cut off."""
        ...


class Failpoint(Protocol):
    """A named place where a test may kill, stop or break the process; does nothing otherwise."""

    def __call__(self, name: str) -> None: ...
