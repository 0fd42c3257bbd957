"""Puts the signer's parts together, as `fleetca.wiring` does those of the others: ordinary code, named arguments. Holds no rule.

In a file of its own, so that the process that holds keys loads no web server, and starts in half the time.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog

from ca.accept_demand import AcceptingDemand
from ca.accept_profiles import AcceptingProfiles
from ca.adopt import adopt
from ca.approvals import Approving
from ca.approve_restore import ApprovingRestore
from ca.confirm import Confirming
from ca.describe import Describing
from ca.errors import Conflict, FleetcaError, StoreUnavailable
from ca.hardware import Challenging
from ca.import_manifest import ImportingManifests
from ca.issue import Issuing
from ca.key_life import KeyLife
from ca.keys.watched import OK, Call, Calls
from ca.lineage import Issuers
from ca.log.tiles import TileDirectory
from ca.model import DEFAULT_TENANT, IssuerId, KeyRecord
from ca.operators import Operators
from ca.order_renewals import Ordering
from ca.ports import Clock, SigningKey
from ca.provision import Provisioning
from ca.record_ceremony import RecordingCeremonies
from ca.recover import Recovery
from ca.retire import Retiring
from ca.revive import Reviving
from ca.revoke import Revoking
from ca.rules import grant, note, tiles
from ca.rules.demand import in_words
from ca.rules.unusual import REMEMBERED, Hours, is_outside, is_spike, read_hours
from ca.sign_crl import CrlSigning
from ca.signer.alone import SignerLock
from ca.signer.checker import Checker
from ca.signer.desk import Desk
from ca.signer.questions import Questions
from ca.signer.server import SignerServer, Verbs
from ca.store.engine import Store, open_store
from ca.store.entries import EntryFiles
from ca.store.file_journal import FileJournal
from ca.supersede import Superseding
from ca.system import SystemChance, SystemClock
from ca.tokens import Tokens
from ca.two_persons import TwoPersons
from ca.wipe import Wiping
from ca.witness import Witness
from config.settings import Settings
from fleetca import forms, key_inventory
from fleetca.failpoints import failpoint
from fleetca.key_wiring import holding, life, opened
from fleetca.known_keys import listed
from fleetca.process import Process

log = structlog.get_logger()

RETIRE_SECONDS: Final = 3600.0
LOCK_SECONDS: Final = 15.0


def policy(settings: Settings) -> grant.Policy:
    """What the settings lay down for the signer's rules."""
    return grant.Policy(
        deployment=settings.deployment.name,
        tenant=DEFAULT_TENANT,
        default_issuer=IssuerId(settings.profiles.default_issuer),
        profiles=forms.profiles(settings),
        caps=forms.caps(settings),
        tenants=forms.tenants(settings),
        owners=forms.issuer_owners(settings),
        attesting=forms.attesting(settings),
    )


@dataclass(frozen=True, slots=True)
class SignerParts:
    """The signer without its socket: what `fleetca process signer`, `fleetca recover` and the benchmarks put around it differs."""

    verbs: Verbs
    desk: Desk
    recovery: Recovery
    life: KeyLife
    retiring: Retiring
    records: Sequence[KeyRecord]
    """The keys that the settings say are in service."""


def _await_lock(settings: Settings, process: Process) -> None:
    """Wait a while for whoever works as the signer just now, an import above all: it ends by itself.

    Raises:
        Conflict: it has not ended (`signer-running`).
    """
    clock = SystemClock()
    deadline = clock.monotonic() + LOCK_SECONDS
    while True:
        try:
            with SignerLock(settings.signer.journal):
                return
        except Conflict:
            if clock.monotonic() > deadline or process.stopping.wait(0.2):
                raise


@contextmanager
def signer_parts(settings: Settings, calls: Calls | None = None) -> Iterator[SignerParts]:
    """Open keys, database and journal as the signer, under its lock; closed again afterwards.

    Args:
        calls: as in `opened`.

    Raises:
        Conflict: a signer of this deployment runs (`signer-running`).
        KeyUnavailable: a key cannot be opened.
    """
    clock, chance, points = SystemClock(), SystemChance(), failpoint()
    issuers = Issuers(forms.issuers(settings))
    rules = policy(settings)
    with SignerLock(settings.signer.journal), closing(Checker()) as checker:
        checker.start()  # it loads its parsers while the keys are unlocked
        found = opened(settings, calls)
        keys, serial_check = found.keys, forms.serial_check_key(settings)
        store = open_store(forms.store_url(settings))
        _refuse_set_back(settings, store)
        journal = FileJournal(settings.signer.journal)
        witness = Witness(journal)
        two_persons = TwoPersons(
            ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock, demand=forms.demand(settings)
        )
        if not AcceptingDemand(ledger=store.ledger, witness=witness, two_persons=two_persons, clock=clock).settle(two_persons.demand):
            log.warning("demand-waits", in_force=in_words(two_persons.demand), fix="fleetca approvals request demand")
        accepted = AcceptingProfiles(ledger=store.ledger, witness=witness, two_persons=two_persons, clock=clock).settle(rules.profiles)
        for waits in accepted.waiting:
            log.warning("profile-waits", profile=waits, fix=f"fleetca approvals request profile {waits}")
        rules = replace(rules, profiles=accepted.profiles, tenants=forms.tenants(settings, accepted.profiles))
        issuing = Issuing(
            ledger=store.ledger,
            two_persons=two_persons,
            witness=witness,
            keys=keys,
            issuers=issuers,
            policy=rules,
            clock=clock,
            chance=chance,
            serial_check=serial_check,
            known_keys=listed(settings.signer.known_keys),
            failpoint=points,
        )
        revoking = Revoking(
            ledger=store.ledger,
            witness=witness,
            issuers=issuers,
            policy=rules,
            clock=clock,
            two_persons=two_persons,
            failpoint=points,
        )
        yield SignerParts(
            verbs=Verbs(
                issuing=issuing,
                revoking=revoking,
                tokens=Tokens(
                    ledger=store.ledger,
                    witness=witness,
                    issuers=issuers,
                    policy=rules,
                    clock=clock,
                    chance=chance,
                    secret=serial_check,
                ),
                ordering=Ordering(ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock),
                approving=Approving(
                    ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock, two_persons=two_persons
                ),
                two_persons=two_persons,
                reviving=Reviving(ledger=store.ledger, witness=witness, two_persons=two_persons, policy=rules, clock=clock),
                confirming=Confirming(ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock),
                superseding=Superseding(ledger=store.ledger, witness=witness, policy=rules, clock=clock),
                crls=CrlSigning(
                    ledger=store.ledger,
                    reading=store.reading,
                    bodies=EntryFiles(settings.crl.entries, store.reading),
                    witness=witness,
                    keys=keys,
                    issuers=issuers,
                    clock=clock,
                    lifetime=settings.crl.lifetime,
                    delta_lifetime=settings.crl.delta_lifetime,
                    two_persons=two_persons,
                    failpoint=points,
                ),
                operators=Operators(ledger=store.ledger, witness=witness, tenant=DEFAULT_TENANT, clock=clock),
                describing=Describing(ledger=store.ledger, witness=witness, policy=rules, clock=clock),
                manifests=ImportingManifests(ledger=store.ledger, witness=witness, tenant=DEFAULT_TENANT, clock=clock),
                challenging=Challenging(policy=rules, clock=clock, chance=chance, secret=serial_check),
                wiping=Wiping(
                    ledger=store.ledger, witness=witness, keys=keys, issuers=issuers, policy=rules, clock=clock, two_persons=two_persons
                ),
                provisioning=Provisioning(
                    ledger=store.ledger, witness=witness, keys=keys, issuers=issuers, policy=rules, clock=clock, failpoint=points
                ),
                ceremonies=RecordingCeremonies(ledger=store.ledger, issuers=issuers, clock=clock, two_persons=two_persons, witness=witness),
                questions=Questions(
                    reading=store.reading,
                    policy=rules,
                    witness=witness,
                    keys=frozenset(keys),
                    roots=frozenset(issuer.id for issuer in issuers.by_id.values() if issuer.parent is None),
                    clock=clock,
                    held=holding(settings, found),
                    secrets=key_inventory.secrets(settings),
                    responder=key_inventory.responder(settings),
                ),
            ),
            desk=Desk(issuing=issuing, revoking=revoking, witness=witness, checker=checker, batch=settings.signer.batch, log=log),
            recovery=Recovery(ledger=store.ledger, journal=journal, witness=witness, issuers=issuers, tenant=DEFAULT_TENANT, clock=clock),
            life=life(settings, store, witness),
            retiring=Retiring(ledger=store.ledger, issuers=tuple(issuers.by_id.values()), clock=clock, crl_lifetime=settings.crl.lifetime),
            records=key_inventory.records(settings, tuple(issuers.by_id.values()), found.abilities, now=clock.now(), to_come=found.to_come),
        )
        store.close()


@contextmanager
def recovery(settings: Settings) -> Iterator[tuple[Recovery, ApprovingRestore]]:
    """Database and journal as the signer, under its lock, without a key: recovery signs nothing. And whether it may be done.

    Raises:
        Conflict: the signer runs (`signer-running`).
    """
    with SignerLock(settings.signer.journal):
        store = open_store(forms.store_url(settings))
        journal = FileJournal(settings.signer.journal)
        witness, issuers, clock = Witness(journal), Issuers(forms.issuers(settings)), SystemClock()
        recovering = Recovery(ledger=store.ledger, journal=journal, witness=witness, issuers=issuers, tenant=DEFAULT_TENANT, clock=clock)
        approving = ApprovingRestore(
            ledger=store.ledger,
            sequencing=store.ledger,
            journal=journal,
            witness=witness,
            issuers=issuers,
            deployment=settings.deployment.name,
            wanted=forms.demand(settings),
            published=lambda: TileDirectory(settings.log.directory).read(tiles.CHECKPOINT),
            clock=clock,
        )
        yield recovering, approving
        store.close()


def _refuse_set_back(settings: Settings, store: Store) -> None:
    """A checkpoint is recorded before anyone sees it, so a database that has not recorded the published one is an older copy (R12): what it
    forgot, the status service would call good. Without the signer no worker gets a responder certificate.

    Raises:
        StoreUnavailable: it was set back (`store-set-back`).
    """
    folder, verifier = settings.log.directory, settings.log.verifier
    try:
        published = note.read_checkpoint((folder / "checkpoint").read_bytes(), [note.read_note_key(verifier.read_text())])
    except (OSError, FleetcaError):
        return  # nothing published yet, or nothing that can be believed: the sequencer and the doctor speak of that
    recorded = store.reading.last_checkpoint()
    if recorded is None or recorded.size < published.size:
        raise StoreUnavailable(
            "store-set-back",
            "The database is older than the published record; the signer does not start.",
            why=f"The record has {published.size} entries, and the database knows of {recorded.size if recorded else 0}.",
            fix=f"fleetca recover --settings {settings.file}",
        )


def signer(settings: Settings, process: Process) -> None:
    """The process that holds the issuing keys. It gives up what a crash left unfinished before anyone can ask for more."""
    process.wait_for_others()
    _await_lock(settings, process)
    hours = settings.signer.working_hours
    watch = KeyWatch(SystemClock(), None if hours is None else read_hours(hours))
    with signer_parts(settings, watch.calls) as parts:
        for ref, verdict in parts.recovery.finish().intents:
            log.warning("recovered", certificate=str(ref), verdict=verdict.value)
        for wrong in parts.verbs.two_persons.at_load():
            log.error("operator-refused", code=wrong.code, what=wrong.what, why=wrong.why)
        for issuer in parts.retiring.enter():
            log.info("issuer-at-work", issuer=issuer)
        for name, count in parts.verbs.crls.settle_shards():
            log.info("crl-shards", issuer=name, count=count)
        # Also refuses to start with a key that was suspended, compromised or destroyed.
        parts.life.enter(parts.records, actor="signer")
        parts.verbs.issuing.announce()
        server = SignerServer(
            settings.signer.socket,
            verbs=parts.verbs,
            desk=parts.desk,
            users={uid: frozenset(roles) for uid, roles in forms.roles_by_uid(settings, os.getuid()).items()},
            mode=int(settings.signer.socket_mode, 8),
            monotonic=SystemClock().monotonic,
            log=log,
        )
        server.start()
        process.ready()
        _keep_retiring(parts, process, hourly=watch.hour)
        server.stop()
        watch.hour()


class KeyWatch:
    """Tells of calls to issuing keys: of rare and failed ones as they happen, of all of them by the hour, and of what is unusual (REQ-KEY-091)."""

    def __init__(self, clock: Clock, hours: Hours | None) -> None:
        self._clock, self._hours = clock, hours
        self.calls = Calls(self._tell)
        self._signed: dict[str, deque[int]] = {}
        """Signatures of each key in each of the last hours."""

    def _tell(self, call: Call) -> None:
        if call.outcome == OK:
            log.info("key-called", operation=call.operation, key=call.key, outcome=call.outcome)
        else:
            log.warning("key-called", operation=call.operation, key=call.key, outcome=call.outcome)
        if self._hours is not None and is_outside(self._hours, self._clock.now()):
            log.warning("key-called-off-hours", operation=call.operation, key=call.key, fix="Ask who was at work then.")

    def hour(self) -> None:
        """An hour has passed, or the signer ends."""
        signed: Counter[str] = Counter()
        for call, count in self.calls.taken().items():
            log.info("key-calls", operation=call.operation, key=call.key, outcome=call.outcome, count=count)
            if call.operation in {"sign", "sign_digest"}:
                signed[call.key] += count
        for key in self._signed.keys() | signed.keys():
            before = self._signed.setdefault(key, deque(maxlen=REMEMBERED))
            if is_spike(before, signed[key]):
                log.warning(
                    "key-calls-unusual", key=key, count=signed[key], most=max(before), fix="See what was issued: fleetca audit show"
                )
            before.append(signed[key])


def _keep_retiring(parts: SignerParts, process: Process, *, hourly: Callable[[], None] = lambda: None) -> None:
    """Until told to stop, retire issuers whose time is over. The others stop signing for one when they are started anew.

    Args:
        hourly: what else is done as often.
    """
    wait = 0.0
    while not process.stopping.wait(wait):
        wait = RETIRE_SECONDS
        hourly()
        try:
            retired = parts.desk.do(parts.retiring.retire)
        except FleetcaError as error:
            log.warning("retiring-waits", code=error.code, what=error.what, why=error.why)
            continue
        for issuer in retired:
            log.info("issuer-retired", issuer=issuer)
        if retired:
            process.ask_for_others_anew()


def adopted_leaves(settings: Settings) -> int:
    """For `fleetca recover`, after the recovery: how many leaves of the published log a database that was set back got again."""
    store = open_store(forms.store_url(settings))
    try:
        return adopt(
            ledger=store.ledger,
            files=TileDirectory(settings.log.directory),
            keys=[note.read_note_key(settings.log.verifier.read_text())] if settings.log.verifier.exists() else [],
            clock=SystemClock(),
        )
    finally:
        store.close()


def open_keys(settings: Settings) -> Mapping[IssuerId, SigningKey]:
    """The issuing keys. Only what runs as the signer calls it (P3).

    Raises:
        KeyUnavailable: one is not to be had.
    """
    return opened(settings).keys
