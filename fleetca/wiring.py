"""Puts the parts of each process together, the signer's aside (`fleetca.signing`): one function a process, ordinary code, named arguments.

Holds no rule.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import structlog
from flask import Flask

from ca.errors import FleetcaError
from ca.keys.verified import VerifiedKey
from ca.log.tiles import TileDirectory
from ca.model import DeviceId, Digest, IssuerId, ProfileName, Role
from ca.outlets.directory import DirectoryOutlet
from ca.ports import Clock, Failpoint, SigningKey
from ca.receipts import Receipts
from ca.rules import note, receipt
from ca.rules.chains import Chains
from ca.sequence import Sequencer
from ca.signer.client import SignerClient
from ca.store.engine import Store, open_store
from ca.system import SystemChance, SystemClock
from config.settings import Settings
from crl import model as crl_model
from crl.adopt import take_over
from crl.asking import Asking
from crl.publish import Publisher
from crl.refusals import RefusedFolder
from crl.shelf import Shelf
from crl.tally import TallyFolder
from crl.timer import PublisherTimer
from crl.web import blueprint as crl_blueprint
from enroll.est.prompt import Prompt as EstPrompt
from enroll.gate import Gate
from enroll.rest.flow import Enrolment
from enroll.rest.prompt import Prompt
from enroll.rest.routes import create_app as create_enroll_app
from fleetca import forms, protocol_wiring
from fleetca.door import Door
from fleetca.failpoints import failpoint
from fleetca.finished import Finished
from fleetca.identity import ServiceIdentity
from fleetca.listening import listening_socket, local_socket
from fleetca.planning import Planning
from fleetca.presigning import Certifier, Presigner, key_maker, serial_check
from fleetca.presigning import policy as ocsp_policy
from fleetca.process import Process
from fleetca.protocol import Lane, Protocol, plain_address
from fleetca.reporting import Reporting
from fleetca.server import make_server, tls_context
from fleetca.wiring_crl import crl_policy, mirrors, webhooks
from ocsp.serve import ResponderService
from ocsp.spool.packed import SpoolReader
from ocsp.web import Background
from ocsp.web import create_app as create_status_app

log = structlog.get_logger()

SERVICE = ProfileName("service")
RESPONDER = ProfileName("ocsp-responder")
FIRST_CERTIFICATE_SECONDS = 5.0
ENROLLING = 64
"""Requests at once beside the lane: while the signer decides they only wait, and those that wait together share one of its commits."""
SPOOLED_SECONDS = 0.5
"""The same where answers lie in the spool: nobody has to wait for a signer that is gone."""


def _holder(role: str) -> str:
    """Names this process in leases, and no other: containers may share host name and process id (R13)."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{SystemChance().octets(4).hex()}"


def _client(settings: Settings, role: Role) -> SignerClient:
    return SignerClient(settings.signer.socket, role)


def _listener(process: Process, address: str, setting: str) -> socket.socket:
    return process.inherited() or listening_socket(address, setting=setting)


def _proxy_listener(settings: Settings, process: Process) -> socket.socket | None:
    """Where a proxy on this host connects. Until we are up nobody else may."""
    path = settings.enroll.proxy_socket
    if path is None:
        return None
    listener = process.inherited(local=True) or local_socket(path, setting="enroll.proxy_socket")
    path.chmod(int(settings.enroll.proxy_socket_mode, 8))
    return listener


# ---- enroll ---------------------------------------------------------------------------------------------------------


def enroll(settings: Settings, process: Process) -> None:
    """The TLS web service. It collects evidence; it decides nothing and holds no CA key."""
    clock = SystemClock()
    issuers = {issuer.id: issuer for issuer in forms.issuers(settings)}
    links = tuple(forms.links(settings).values())
    store = open_store(forms.store_url(settings), readonly=True)
    signer = _client(settings, Role.enroll)
    reports = Reporting(settings)
    plan = Planning(settings.enroll.renewals, reports.store, orders=store.reading.renewal_orders, clock=clock)
    most = settings.enroll.renewals_per_second
    # Each worker lets its share in: the kernel deals connections out evenly enough where there are as many as this limit is for.
    gate = None if most is None else Gate(most / settings.enroll.workers, clock=clock)
    enrolment = Enrolment(
        signer=signer,
        reader=store.reading,
        receipts=_receipts(settings, store),
        clock=clock,
        deployment=settings.deployment.name,
        issuers=tuple(issuers.values()),
        profiles=forms.profiles(settings),
        default_issuer=IssuerId(settings.profiles.default_issuer),
        links=links,
        plan=plan,
        pins=lambda: settings.enroll.pins.read_bytes() if settings.enroll.pins.exists() else None,
        reports=reports.store,
        gate=gate,
        tenants=tuple(forms.tenants(settings).values()),
        owners=forms.issuer_owners(settings),
    )
    application = create_enroll_app(enrolment, chance=SystemChance(), version=version("fleetca"), url=settings.enroll.url)
    protocols = protocol_wiring.attach(
        application, settings, store=store, signer=signer, clock=clock, issuers=tuple(issuers.values()), plan=plan, gate=gate
    )
    door = Door(settings.signer.socket, Role.enroll)
    lanes = Prompt(enrolment, signer=door, chance=SystemChance()), EstPrompt(protocols.est, signer=door, chance=SystemChance())
    listeners = [_listener(process, str(settings.enroll.listen), "enroll.listen")]
    anchors = [issuer.certificate for issuer in issuers.values()] + [one.certificate for one in forms.manufacturers(settings)]
    context = tls_context(trusted=[forms.pem_of(der).encode() for der in anchors], tls12=settings.est.tls12)
    identity = ServiceIdentity(
        context=context,
        signer=signer,
        device=DeviceId("fleetca:enroll"),
        profile=SERVICE,
        names=forms.names(settings.enroll.names),
        chains=Chains(tuple(issuers.values()), links),
        clock=clock,
    )
    process.wait_for_others()
    if not identity.obtain_patiently(process.stopping):
        return
    threading.Thread(target=identity.keep, args=(process.stopping,), name="identity", daemon=True).start()
    reports.start()
    threading.Thread(target=plan.keep, args=(process.stopping,), name="orders", daemon=True).start()
    if (local := _proxy_listener(settings, process)) is not None:
        listeners.append(local)
    _run(
        application,
        process,
        *listeners,
        threads=ENROLLING,
        context=context,
        lane=Lane({target: lane.take for lane in lanes for target in lane.targets}),
        connections=settings.enroll.connections,
        proxies=frozenset(map(plain_address, settings.enroll.trusted_proxies)),
    )
    protocols.close()
    reports.close()
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
    store = open_store(forms.store_url(settings), readonly=True)
    issuers = forms.at_work(settings, store.reading.issuers)
    service = ResponderService(
        reading=store.reading,
        certifier=Certifier(_client(settings, Role.status)),
        make_key=key_maker(settings),
        issuers=issuers,
        policy=ocsp_policy(settings),
        clock=clock,
        check=serial_check(settings),
        signs=settings.ocsp.responder_key is None,
        spool=SpoolReader(settings.ocsp.spool),
    )
    application = create_status_app(service)
    shelf = Shelf(DirectoryOutlet(settings.crl.directory))
    application.register_blueprint(crl_blueprint(shelf=shelf, issuers=issuers, clock=clock, others=forms.links(settings).values()))
    listener = _listener(process, str(settings.status.listen), "status.listen")
    background = Background(service)
    process.wait_for_others()
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


def publisher(settings: Settings, process: Process) -> None:
    """Publishes CRLs and runs the sequencer of the record; any number may run, the database's leases decide."""
    clock = SystemClock()
    store = open_store(forms.store_url(settings))
    issuers = forms.at_work(settings, store.reading.issuers)
    holder = _holder("publisher")
    points = failpoint()
    outlet, asking = DirectoryOutlet(settings.crl.directory), Asking(settings.crl.tally)
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
        refusals=RefusedFolder(settings.crl.tally / "refused"),
    )
    sequencer = _sequencer(settings, store, clock=clock, holder=holder, points=points)
    timer = PublisherTimer(
        lambda scope: _asked_for(publishing, asking, scope),
        issuers=issuers,
        clock=clock,
        take_over=lambda issuer: take_over(issuer, outlet=outlet, clock=clock),
        mirrors={**mirrors(settings, issuers, now=clock.now), **webhooks(settings, store, clock=clock, holder=holder)},
        who=holder,
    )
    process.wait_for_others()
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
    if not settings.ocsp.presign or settings.ocsp.responder_key is not None:
        return None
    try:
        return Presigner(settings, store, _client(settings, Role.publisher))
    except FleetcaError as error:
        log.error("presign-failed", code=error.code, reason=str(error), fix=error.fix)
        return None


def presigner(settings: Settings, process: Process) -> None:
    """Signs OCSP answers ahead with the one responder key of a deployment, which nobody else opens."""
    store = open_store(forms.store_url(settings), readonly=True)
    process.wait_for_others()
    signing_ahead = Presigner(settings, store, _client(settings, Role.publisher))
    process.ready()
    signing_ahead.run(process.stopping)
    store.close()


def _asked_for(publishing: Publisher, asking: Asking, scope: crl_model.Scope) -> crl_model.Outcome:
    asked = asking.asked(scope.name)
    outcome = publishing.publish(scope, asked=asked)
    if asked and outcome.result is crl_model.Result.published:
        asking.done(scope.name)
    return outcome


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
    *listeners: socket.socket,
    threads: int,
    context: Any = None,
    lane: Lane | None = None,
    http: type[Protocol] = Protocol,
    connections: int,
    proxies: frozenset[str] = frozenset(),
) -> None:
    server = make_server(
        application,
        threads=threads,
        ready=process.ready,
        context=context,
        lane=lane,
        http=http,
        connections=connections,
        proxies=proxies,
    )
    process.on_stop(server.stop)
    if not process.stopping.is_set():
        server.run(sockets=[*listeners])
