"""Puts the parts of each process together: one function a process, ordinary code, named arguments. Holds no rule."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import structlog
from flask import Flask

from ca.adopt import adopt
from ca.confirm import Confirming
from ca.errors import FleetcaError, StoreUnavailable
from ca.issue import Issuing
from ca.key_life import KeyLife
from ca.keys.verified import VerifiedKey
from ca.lineage import Issuers
from ca.log.tiles import TileDirectory
from ca.model import DEFAULT_TENANT, DeviceId, Digest, IssuerId, KeyRecord, ProfileName, Role, Serial
from ca.operators import Operators
from ca.outlets.directory import DirectoryOutlet
from ca.ports import Clock, Failpoint, SigningKey
from ca.receipts import Receipts
from ca.record_ceremony import RecordingCeremonies
from ca.recover import Recovery
from ca.revoke import Revoking
from ca.rules import grant, note, receipt, serial
from ca.sequence import Sequencer
from ca.sign_crl import CrlSigning
from ca.signer.alone import SignerLock
from ca.signer.checker import Checker
from ca.signer.client import SignerClient
from ca.signer.desk import Desk
from ca.signer.questions import Questions
from ca.signer.server import SignerServer, Verbs
from ca.store.engine import Store, open_store
from ca.store.entries import EntryFiles
from ca.store.file_journal import FileJournal
from ca.supersede import Superseding
from ca.system import SystemChance, SystemClock
from ca.tokens import Tokens
from ca.witness import Witness
from config.settings import Settings
from crl import model as crl_model
from crl.adopt import take_over
from crl.publish import Publisher
from crl.shelf import Shelf
from crl.tally import TallyFolder
from crl.timer import PublisherTimer
from crl.web import blueprint as crl_blueprint
from enroll.rest.flow import Enrolment
from enroll.rest.prompt import Prompt
from enroll.rest.routes import create_app as create_enroll_app
from fleetca import forms, key_inventory, protocol_wiring
from fleetca.door import Door
from fleetca.failpoints import failpoint
from fleetca.finished import Finished
from fleetca.identity import ServiceIdentity
from fleetca.key_wiring import life, opened
from fleetca.listening import listening_socket
from fleetca.presigning import Certifier, Presigner, key_maker
from fleetca.presigning import policy as ocsp_policy
from fleetca.process import Process
from fleetca.protocol import Lane, Protocol
from fleetca.server import make_server, tls_context
from ocsp.serve import ResponderService
from ocsp.spool.packed import SpoolReader
from ocsp.web import Background
from ocsp.web import create_app as create_status_app

log = structlog.get_logger()

SERVICE = ProfileName("service")
RESPONDER = ProfileName("ocsp-responder")
FIRST_CERTIFICATE_SECONDS = 5.0
SPOOLED_SECONDS = 0.5
"""The same where answers lie in the spool: nobody has to wait for a signer that is gone."""


def _holder(role: str) -> str:
    """Names this process in leases, and no other: containers may share host name and process id (R13)."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{SystemChance().octets(4).hex()}"


def _client(settings: Settings, role: Role) -> SignerClient:
    return SignerClient(settings.signer.socket, role)


def _listener(process: Process, address: str, setting: str) -> socket.socket:
    return process.socket() or listening_socket(address, setting=setting)


# ---- signer ---------------------------------------------------------------------------------------------------------


def policy(settings: Settings) -> grant.Policy:
    """What the settings lay down for the signer's rules."""
    return grant.Policy(
        deployment=settings.deployment.name,
        tenant=DEFAULT_TENANT,
        default_issuer=IssuerId(settings.profiles.default_issuer),
        profiles=forms.profiles(settings),
        caps=forms.caps(settings),
    )


@dataclass(frozen=True, slots=True)
class SignerParts:
    """The signer without its socket: what `fleetca process signer`, `fleetca recover` and the benchmarks put around it differs."""

    verbs: Verbs
    desk: Desk
    recovery: Recovery
    life: KeyLife
    records: Sequence[KeyRecord]
    """The keys that the settings say are in service."""


@contextmanager
def signer_parts(settings: Settings) -> Iterator[SignerParts]:
    """Open keys, database and journal as the signer, under its lock; closed again afterwards.

    Raises:
        Conflict: a signer of this deployment runs (`signer-running`).
        KeyUnavailable: a key cannot be opened.
    """
    clock, chance, points = SystemClock(), SystemChance(), failpoint()
    issuers = Issuers(forms.issuers(settings))
    rules = policy(settings)
    with SignerLock(settings.signer.journal), closing(Checker()) as checker:
        checker.start()  # it loads its parsers while the keys are unlocked
        found = opened(settings)
        keys = found.keys
        store = open_store(forms.store_url(settings))
        _refuse_set_back(settings, store)
        journal = FileJournal(settings.signer.journal)
        witness = Witness(journal)
        issuing = Issuing(
            ledger=store.ledger,
            witness=witness,
            keys=keys,
            issuers=issuers,
            policy=rules,
            clock=clock,
            chance=chance,
            serial_check=forms.serial_check_key(settings),
            failpoint=points,
        )
        revoking = Revoking(ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock, failpoint=points)
        yield SignerParts(
            verbs=Verbs(
                issuing=issuing,
                revoking=revoking,
                tokens=Tokens(ledger=store.ledger, witness=witness, issuers=issuers, policy=rules, clock=clock, chance=chance),
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
                    failpoint=points,
                ),
                operators=Operators(ledger=store.ledger, witness=witness, tenant=DEFAULT_TENANT, clock=clock),
                ceremonies=RecordingCeremonies(ledger=store.ledger, issuers=issuers, clock=clock),
                questions=Questions(
                    reading=store.reading, policy=rules, witness=witness, keys=frozenset(keys), clock=clock, held=found.held
                ),
            ),
            desk=Desk(issuing=issuing, revoking=revoking, witness=witness, checker=checker, batch=settings.signer.batch, log=log),
            recovery=Recovery(ledger=store.ledger, journal=journal, witness=witness, issuers=issuers, tenant=DEFAULT_TENANT, clock=clock),
            life=life(settings, store),
            records=key_inventory.records(settings, tuple(issuers.by_id.values()), found.abilities, now=clock.now()),
        )
        store.close()


@contextmanager
def recovery(settings: Settings) -> Iterator[Recovery]:
    """Database and journal as the signer, under its lock, without a key: recovery signs nothing.

    Raises:
        Conflict: the signer runs (`signer-running`).
    """
    with SignerLock(settings.signer.journal):
        store = open_store(forms.store_url(settings))
        journal = FileJournal(settings.signer.journal)
        yield Recovery(
            ledger=store.ledger,
            journal=journal,
            witness=Witness(journal),
            issuers=Issuers(forms.issuers(settings)),
            tenant=DEFAULT_TENANT,
            clock=SystemClock(),
        )
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
    with signer_parts(settings) as parts:
        for ref, verdict in parts.recovery.finish().intents:
            log.warning("recovered", certificate=str(ref), verdict=verdict.value)
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
        process.stopping.wait()
        server.stop()


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


# ---- enroll ---------------------------------------------------------------------------------------------------------


def enroll(settings: Settings, process: Process) -> None:
    """The TLS web service. It collects evidence; it decides nothing and holds no CA key."""
    clock = SystemClock()
    issuers = {issuer.id: issuer for issuer in forms.issuers(settings)}
    store = open_store(forms.store_url(settings), readonly=True)
    signer = _client(settings, Role.enroll)
    enrolment = Enrolment(
        signer=signer,
        reader=store.reading,
        receipts=_receipts(settings, store),
        clock=clock,
        deployment=settings.deployment.name,
        issuers=tuple(issuers.values()),
        profiles=forms.profiles(settings),
        default_issuer=IssuerId(settings.profiles.default_issuer),
    )
    application = create_enroll_app(enrolment, chance=SystemChance(), version=version("fleetca"), url=settings.enroll.url)
    protocols = protocol_wiring.attach(application, settings, store=store, signer=signer, clock=clock, issuers=tuple(issuers.values()))
    prompt = Prompt(enrolment, signer=Door(settings.signer.socket, Role.enroll), chance=SystemChance())
    listener = _listener(process, str(settings.enroll.listen), "enroll.listen")
    anchors = [issuer.certificate for issuer in issuers.values()] + [one.certificate for one in forms.manufacturers(settings)]
    context = tls_context(trusted=[forms.pem_of(der).encode() for der in anchors], tls12=settings.est.tls12)
    identity = ServiceIdentity(
        context=context,
        signer=signer,
        device=DeviceId("fleetca:enroll"),
        profile=SERVICE,
        names=forms.names(settings.enroll.names),
        issuers=issuers,
        clock=clock,
    )
    if not identity.obtain_patiently(process.stopping):
        return
    threading.Thread(target=identity.keep, args=(process.stopping,), name="identity", daemon=True).start()
    _run(
        application,
        process,
        listener,
        threads=8,
        context=context,
        lane=Lane(prompt.targets, prompt.take),
        connections=settings.enroll.connections,
    )
    protocols.close()
    store.close()


def _receipts(settings: Settings, store: Store) -> Callable[[Digest], Mapping[str, Any]]:
    files = TileDirectory(settings.log.directory)
    keys = [note.read_note_key(settings.log.verifier.read_text())] if settings.log.verifier.exists() else []
    receipts = Receipts(files=files, leaves=store.reading, keys=keys)
    return lambda leaf: receipt.document(receipts.of(leaf))


# ---- status ---------------------------------------------------------------------------------------------------------


def status(settings: Settings, process: Process) -> None:
    """OCSP, CRLs and CA certificates over plain HTTP. Its responder keys live and die with it."""
    clock = SystemClock()
    issuers = forms.issuers(settings)
    store = open_store(forms.store_url(settings), readonly=True)
    check_key = forms.serial_check_key(settings)

    def is_ours(number: Serial) -> bool:
        return serial.is_ours(number, check_key)

    service = ResponderService(
        reading=store.reading,
        certifier=Certifier(_client(settings, Role.status)),
        make_key=key_maker(settings),
        issuers=issuers,
        policy=ocsp_policy(settings),
        clock=clock,
        is_ours=is_ours,
        spool=SpoolReader(settings.ocsp.spool),
    )
    application = create_status_app(service)
    shelf = Shelf(DirectoryOutlet(settings.crl.directory), keep=True)
    application.register_blueprint(crl_blueprint(shelf=shelf, issuers=issuers, clock=clock))
    listener = _listener(process, str(settings.status.listen), "status.listen")
    background = Background(service)
    background.start()
    # Who started us hears "ready" when we can sign; without signer or database we go on with what we have (P7).
    deadline = clock.monotonic() + FIRST_CERTIFICATE_SECONDS
    while service.health().missing and clock.monotonic() < deadline and not process.stopping.wait(0.02):
        if service.health().spooled:
            deadline = min(deadline, clock.monotonic() + SPOOLED_SECONDS)
    _run(
        application,
        process,
        listener,
        threads=8,
        http=type("Finished", (Finished,), {"front": service.front}),
        connections=settings.status.connections,
    )
    background.stop()
    store.close()


# ---- publisher ------------------------------------------------------------------------------------------------------


def crl_policy(settings: Settings) -> crl_model.Policy:
    """What the settings lay down for publishing CRLs."""
    asked = settings.crl
    return crl_model.Policy(
        interval=asked.interval,
        nudge=asked.nudge,
        lifetime=asked.lifetime,
        delta_interval=asked.delta_interval,
        delta_lifetime=asked.delta_lifetime,
    )


def publisher(settings: Settings, process: Process) -> None:
    """Publishes CRLs and runs the sequencer of the record; any number may run, the database's leases decide."""
    clock = SystemClock()
    issuers = forms.issuers(settings)
    store = open_store(forms.store_url(settings))
    holder = _holder("publisher")
    points = failpoint()
    outlet = DirectoryOutlet(settings.crl.directory)
    publishing = Publisher(
        reading=store.reading,
        leases=store.ledger,
        signer=_client(settings, Role.publisher),
        outlet=outlet,
        clock=clock,
        failpoint=points,
        policy=crl_policy(settings),
        holder=holder,
        tallies=TallyFolder(settings.crl.tally, store.reading),
    )
    sequencer = _sequencer(settings, store, clock=clock, holder=holder, points=points)
    timer = PublisherTimer(
        publishing.publish,
        issuers=issuers,
        clock=clock,
        take_over=lambda issuer: take_over(issuer, outlet=outlet, clock=clock),
        who=holder,
    )
    timer.start()
    presigner = _presigner(settings, store)
    if presigner is not None:
        threading.Thread(target=presigner.run, args=(process.stopping,), name="presigner", daemon=True).start()
    process.ready()
    trouble = ""
    while not process.stopping.is_set():
        more = False
        try:
            done = sequencer.run()
            more = done is not None and done.more
            trouble = ""
        except FleetcaError as error:
            if error.code != trouble:  # said once, not every second
                log.error("sequencer-failed", code=error.code, reason=str(error), fix=error.fix)
            trouble = error.code
        process.stopping.wait(0.0 if more else 1.0)
    timer.stop()
    with suppress(FleetcaError):  # then the next one waits until the lease is over
        sequencer.release()
    store.close()


def _presigner(settings: Settings, store: Store) -> Presigner | None:
    """Where another process has the spool already, or it cannot be written, the publisher goes on without."""
    if not settings.ocsp.presign:
        return None
    try:
        return Presigner(settings, store, _client(settings, Role.publisher))
    except FleetcaError as error:
        log.error("presign-failed", code=error.code, reason=str(error), fix=error.fix)
        return None


def open_log_key(settings: Settings) -> SigningKey:
    """The key that signs checkpoints.

    Raises:
        KeyUnavailable: it is not to be had.
    """
    keys, name = forms.key_store(settings.log.key, settings.log.passphrase)
    # Nobody re-reads a checkpoint after it is signed.
    return VerifiedKey(keys.open(name))


def _sequencer(settings: Settings, store: Store, *, clock: Clock, holder: str, points: Failpoint) -> Sequencer:
    return Sequencer(
        ledger=store.ledger,
        files=TileDirectory(settings.log.directory),
        key=open_log_key(settings),
        origin=forms.log_origin(settings),
        holder=holder,
        clock=clock,
        failpoint=points,
    )


# ---- all web processes ----------------------------------------------------------------------------------------------


def _run(
    application: Flask,
    process: Process,
    listener: socket.socket,
    *,
    threads: int,
    context: Any = None,
    lane: Lane | None = None,
    http: type[Protocol] = Protocol,
    connections: int,
) -> None:
    server = make_server(application, threads=threads, ready=process.ready, context=context, lane=lane, http=http, connections=connections)
    process.on_stop(server.stop)
    if not process.stopping.is_set():
        server.run(sockets=[listener])
